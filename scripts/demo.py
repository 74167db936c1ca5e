"""`make run`: a download that survives the SIGKILL of its service, on this machine, in a few seconds.

It starts a web server on loopback and a per-user service with directories of its own (./demo), begins a job, kills the
service half-way, and holds OpenBITS to its word: the job goes on from the bytes that were safe on the disk, the file is
whole, and it belongs to whoever asked. With --url and --out it fetches that file the same way, without the kill.
The exit status is 0 only if everything held.
"""

from __future__ import annotations

import argparse
import grp
import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import openbits
from openbits.cli.display import Display, choose_display
from openbits.cli.text import safe, size
from openbits.client.autostart import start_service

MIB: Final = 1 << 20
FILE_SIZE_BYTES: Final = 256 * MIB
RATE_BPS: Final = 40 * MIB
KILL_AT: Final = 0.55
PIECE_BYTES: Final = MIB // 4
TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 20.0


class Broken(Exception):
    """Something that was promised did not hold."""


def say(label: str, words: str) -> None:
    """Print one step."""
    print(f"  {label:<10} {words}", flush=True)


class Origin(ThreadingHTTPServer):
    """A web server with one file, byte ranges and a limited rate; remembers where each request began."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(("127.0.0.1", 0), _OriginHandler)
        self.path = path
        self.begins: list[int] = []

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"http://127.0.0.1:{self.server_address[1]}/{os.path.basename(self.path)}"


class _OriginHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        begin, end = self._head()
        self.server.begins.append(begin)
        began_s = time.monotonic()
        with open(self.server.path, "rb") as file:
            file.seek(begin)
            sent = 0
            while sent < end - begin:
                piece = file.read(min(PIECE_BYTES, end - begin - sent))
                try:
                    self.wfile.write(piece)
                except OSError:
                    self.close_connection = True
                    return
                sent += len(piece)
                # The rate: what was sent by now may have been sent by now.
                time.sleep(max(0.0, began_s + sent / RATE_BPS - time.monotonic()))

    def _head(self) -> tuple[int, int]:
        total = os.path.getsize(self.server.path)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(match[1]), min(int(match[2] or total) + 1, total)) if match else (0, total)
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{total}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"demo-1"')
        self.end_headers()
        return begin, end


def make_file(path: str) -> str:
    """Write the file to fetch and return its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(FILE_SIZE_BYTES // MIB):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def file_digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def service(directory: str) -> Iterator[tuple[openbits.Manager, subprocess.Popen[bytes]]]:
    """Run a per-user service with directories of its own, and stop it in order; raises Broken if it does not."""
    # A socket's address is short: the runtime directory is not below ./demo, which may be anywhere.
    runtime = tempfile.mkdtemp(prefix="openbits-demo-")
    state = os.path.join(directory, "state")
    os.makedirs(state, exist_ok=True)
    bitsd = start_service(state, runtime)
    try:
        say("service", f"bitsd --user, pid {bitsd.pid}; its log is {os.path.relpath(state)}/bitsd.log")
        with openbits.Manager(os.path.join(runtime, "bitsd.sock")) as manager:
            yield manager, bitsd
    finally:
        bitsd.send_signal(signal.SIGTERM)
        try:
            status = bitsd.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            bitsd.kill()
            status = bitsd.wait()
        shutil.rmtree(runtime, ignore_errors=True)
    if status != 0:
        raise Broken(f"bitsd ended with status {status} when it was told to stop")
    say("stopped", "bitsd ended in order")


def child_called(name: str, parent_pid: int) -> int | None:
    """Return the process with this name whose parent is `parent_pid`."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                words = file.read()
        except OSError:
            continue
        comm, rest = words[words.index("(") + 1 : words.rindex(")")], words[words.rindex(")") + 2 :].split()
        if comm == name and int(rest[1]) == parent_pid:
            return int(entry)
    return None


def begin_job(manager: openbits.Manager, url: str, path: str) -> openbits.Job:
    """Create the job and start it."""
    job = manager.create_job("demo", settings={"priority": "foreground", "minimum_retry_delay": 5})
    job.add_file(url, path)
    job.resume()
    say("job", f"{job.id}: {safe(url)}")
    return job


def follow(events: Iterator[openbits.Event], name: str, *, until: float = 2.0) -> openbits.Progress:
    """Show a job until it is TRANSFERRED, or that share of it is there; raises Broken."""
    deadline_s = time.monotonic() + TIMEOUT_S
    display: Display = choose_display(name, quiet=False)
    try:
        for event in events:
            progress = event.progress or (event.job.progress if event.job is not None else None)
            if progress is not None:
                display.progress(vars_of(progress))
            if event.progress is not None and event.progress.bytes_transferred >= until * FILE_SIZE_BYTES:
                return event.progress
            if event.job is not None and event.job.state is openbits.JobState.TRANSFERRED:
                return event.job.progress
            if event.job is not None and event.job.state in (openbits.JobState.ERROR, openbits.JobState.CANCELLED):
                raise Broken(f"the job is {event.job.state.name}: {event.job.error}")
            if time.monotonic() > deadline_s:
                break
        raise Broken(f"the job was not done after {TIMEOUT_S:.0f} s")
    finally:
        display.close()


def vars_of(progress: openbits.Progress) -> dict[str, Any]:
    """Return progress as displays take it."""
    return {name: getattr(progress, name) for name in progress.__slots__}


def kill_service(bitsd: subprocess.Popen[bytes], progress: openbits.Progress) -> int:
    """Kill the service of this monitor, as a crash would, and return what its pid was."""
    pid = child_called("bitsd-service", bitsd.pid)
    if pid is None:
        raise Broken("there is no process bitsd-service")
    os.kill(pid, signal.SIGKILL)
    share = 100 * progress.bytes_transferred // FILE_SIZE_BYTES
    say("killed", f"bitsd-service (pid {pid}) with SIGKILL at {share} %, {size(progress.bytes_transferred)}")
    return pid


def finish(job: openbits.Job, path: str) -> None:
    """Complete the job and say whose the file is."""
    result = job.complete()
    if result is not openbits.Result.S_OK:
        raise Broken(f"Complete ended with {result.value}")
    status = os.stat(path)
    owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    mode = stat.S_IMODE(status.st_mode)
    say("complete", f"{safe(os.path.relpath(path))}, {size(status.st_size)}, {owner}:{group}, mode {mode:04o}")
    if status.st_uid != os.geteuid():
        raise Broken(f"the file belongs to uid {status.st_uid}, not to uid {os.geteuid()}")


def run_demo(directory: str) -> None:
    """Fetch a generated file and kill the service half-way; raises Broken, BitsError."""
    for name in ("origin", "files", "state"):
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    for name in ("origin", "files"):
        os.makedirs(os.path.join(directory, name))
    source, path = (os.path.join(directory, name, "demo.bin") for name in ("origin", "files"))
    expected = make_file(source)
    with Origin(source) as origin, service(directory) as (manager, bitsd):
        threading.Thread(target=origin.serve_forever, daemon=True).start()
        try:
            say("origin", f"{origin.url}, {size(FILE_SIZE_BYTES)} at {size(RATE_BPS)}/s")
            job = begin_job(manager, origin.url, path)
            with closing(job.events()) as events:
                killed = kill_service(bitsd, follow(events, "demo.bin", until=KILL_AT))
                follow(events, "demo.bin", until=0.0)
                check_resumed(origin, bitsd, killed)
                follow(events, "demo.bin")
            finish(job, path)
        finally:
            origin.shutdown()
    if file_digest(path) != expected:
        raise Broken("the file is not the one that the server has")
    say("SHA-256", f"{expected}: the same on both sides")
    os.unlink(source)


def check_resumed(origin: Origin, bitsd: subprocess.Popen[bytes], killed: int) -> None:
    """See that another service went on from bytes that were safe; raises Broken."""
    pid = child_called("bitsd-service", bitsd.pid)
    if pid is None or pid == killed:
        raise Broken("the monitor did not start the service again")
    say("restarted", f"bitsd-service by its monitor, as pid {pid}")
    begin = max(origin.begins)
    if begin == 0:
        raise Broken("the job began again from zero")
    say(
        "resumed",
        f"from byte {begin:,} ({100 * begin // FILE_SIZE_BYTES} %), which were safe on the disk: not from zero",
    )


def run_url(directory: str, url: str, out: str) -> None:
    """Fetch one file; raises Broken, BitsError."""
    path = os.path.abspath(out)
    with service(directory) as (manager, _):
        job = begin_job(manager, url, path)
        try:
            with closing(job.events()) as events:
                follow(events, os.path.basename(path))
        except BaseException:
            job.cancel()
            raise
        finish(job, path)
    say("SHA-256", file_digest(path))


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="fetch this instead of a generated file")
    parser.add_argument("--out", help="where to put it")
    options = parser.parse_args()
    if (options.url is None) != (options.out is None):
        parser.error("--url and --out belong together")
    directory = os.path.abspath("demo")
    os.makedirs(directory, exist_ok=True)
    print("OpenBITS: a download that survives its service" if options.url is None else "OpenBITS", flush=True)
    try:
        run_demo(directory) if options.url is None else run_url(directory, options.url, options.out)
    except (Broken, openbits.BitsError, OSError) as error:
        print(f"FAILED: {safe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("Everything held." if options.url is None else "Done.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
