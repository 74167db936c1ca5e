"""A real `bitsd` for tests: started in directories of its own, watched from outside, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from openbits.client import calls
from openbits.client.discovery import Endpoint
from openbits.client.events import EventStream
from openbits.client.session import Session
from openbits.errors import BitsError
from support.accounts import ensure_service_account

READY_S = 20.0
BIN = os.path.dirname(sys.executable)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of the daemon as /proc shows it."""

    pid: int
    name: str
    status: Mapping[str, str]

    @property
    def uids(self) -> tuple[int, ...]:
        """Real, effective, saved and file system uid."""
        return tuple(int(value) for value in self.status["Uid"].split())

    @property
    def gids(self) -> tuple[int, ...]:
        """Real, effective, saved and file system gid."""
        return tuple(int(value) for value in self.status["Gid"].split())

    @property
    def groups(self) -> tuple[int, ...]:
        """Supplementary groups."""
        return tuple(sorted(int(value) for value in self.status["Groups"].split()))


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """What the store knows of a file."""

    durable_bytes: int
    transferred: bool


class Log:
    """What a process says, read as it comes: one that nobody reads would stop at a full pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._came = threading.Condition()
        self._lines: list[str] = []
        self._looked_at = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._read, name="log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._came:
                self._lines.append(line)
                self._came.notify_all()
        with self._came:
            self._is_over = True
            self._came.notify_all()

    @property
    def text(self) -> str:
        """Everything until now."""
        with self._came:
            return "".join(self._lines)

    def wait_line(self, text: str, timeout_s: float) -> str:
        """Return the next line that contains `text`; it and those before it are not looked at again."""
        deadline = time.monotonic() + timeout_s
        with self._came:
            while True:
                while self._looked_at < len(self._lines):
                    line = self._lines[self._looked_at]
                    self._looked_at += 1
                    if text in line:
                        return line
                if self._is_over or not self._came.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no {text!r} in the log:\n{''.join(self._lines)}")

    def close(self) -> None:
        """Wait for the process's last words."""
        self._thread.join(timeout=20)
        self._stream.close()


@dataclass(kw_only=True)
class Daemon:
    """One daemon and its directories; `start` may be called again after `kill` or `stop`."""

    mode: str
    base: str
    config: str | None = None
    """The text of its configuration file."""
    prefix: tuple[str, ...] = ()
    """A command that runs the daemon, e.g. `ip netns exec NAME`."""
    account: int | None = None
    """The uid to run under; None: that of the test."""
    environment: Mapping[str, str] = field(default_factory=dict)
    state_dir: str = ""
    """Where the store is; else in the daemon's own directory."""
    process: subprocess.Popen[str] | None = None
    log: Log | None = None
    _session: Session | None = None

    def __post_init__(self) -> None:
        self.state_dir = self.state_dir or os.path.join(self.base, "state")

    @property
    def socket(self) -> str:
        """Where the API listens."""
        return os.path.join(self.base, "run", "bitsd.sock")

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start and wait until it says that it is ready."""
        self.launch()
        self.wait_log("ready")

    def launch(self) -> None:
        """Start, and do not wait."""
        command = [
            *self.prefix,
            os.path.join(BIN, "bitsd"),
            f"--{self.mode}",
            "--state-dir",
            self.state_dir,
            "--runtime-dir",
            os.path.dirname(self.socket),
        ]
        # Who is logged on to the machine that runs the tests is not to decide about them.
        config = self.config or ""
        if self.mode == "system" and "[logon]" not in config:
            config += '\n[logon]\nprovider = "always"\n'
        if self.config is not None or config:
            command += ["--config", self.write_config(config)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            user=self.account,
            group=self.account,
            extra_groups=[] if self.account is not None else None,
            env={**os.environ, "HOME": self.base, **self.environment},
            cwd="/",
        )
        assert self.process.stderr is not None
        self.log = Log(self.process.stderr)

    def write_config(self, text: str) -> str:
        """Replace the configuration; a daemon that runs takes note of it at SIGHUP only. Returns its path."""
        path = os.path.join(self.base, "bitsd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def wait_log(self, text: str, timeout_s: float = READY_S) -> str:
        """Return the next line of the daemon's log that contains `text`."""
        assert self.log is not None
        return self.log.wait_line(text, timeout_s)

    def kill(self) -> None:
        """Kill the monitor, and wait until nothing of the daemon is left."""
        processes = self.processes()
        os.kill(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(timeout=20)
        wait_until(lambda: not any(is_alive(process) for process in processes), "the daemon to end")
        self._close()

    def stop(self) -> int:
        """End it in an orderly way; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        finally:
            self._close()

    @property
    def is_started(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self.log is not None

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        if self.log is not None:
            self.log.close()
            self.log = None

    # --- its processes -----------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The monitor's pid; what starts it becomes it."""
        assert self.process is not None
        return self.process.pid

    def processes(self) -> list[Process]:
        """All processes of the daemon that live now."""
        assert self.process is not None
        found = []
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                status = _status(pid)
                if not status["State"].startswith("Z"):
                    found.append(Process(pid=pid, name=status["Name"], status=status))
                waiting += _children(pid)
        return found

    def process_named(self, name: str) -> Process:
        """The one process with this name."""
        found = [process for process in self.processes() if process.name == name]
        assert len(found) == 1, f"{len(found)} processes are called {name}"
        return found[0]

    def workers(self) -> list[Process]:
        """The workers that live now."""
        return [process for process in self.processes() if process.name == "bitsd-worker"]

    # --- as its users see it ---------------------------------------------------------------------------

    def bits(
        self, *arguments: str, account: Any = None, timeout_s: float = 120.0, check: bool = False, umask: int = -1
    ) -> subprocess.CompletedProcess[str]:
        """Run `bits` against this daemon, as an account if one is given."""
        more: dict[str, Any] = {}
        if account is not None:
            more = {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}
        result = subprocess.run(
            [os.path.join(BIN, "bits"), *arguments],
            env={**os.environ, "BITS_SOCKET": self.socket, "HOME": self.base},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            umask=umask,
            **more,
        )
        if check:
            assert result.returncode == 0, result.stderr + result.stdout
        return result

    def calling(self, *arguments: str, account: Any = None) -> subprocess.Popen[str]:
        """Begin to run `bits`; for the `with` statement. Its words are of no interest."""
        more: dict[str, Any] = {}
        if account is not None:
            more = {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}
        return subprocess.Popen(
            [os.path.join(BIN, "bits"), *arguments],
            env={**os.environ, "BITS_SOCKET": self.socket, "HOME": self.base},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            **more,
        )

    def submit(self, *arguments: str, account: Any = None) -> str:
        """`bits get --async`; return the job's id."""
        return self.bits("get", "--async", *arguments, account=account, check=True).stdout.strip()

    def wait_reachable(self) -> None:
        """Wait until the service answers, if it is just being started again.

        That its socket takes a connection does not say so: one that was killed may not have closed it yet.
        """

        def answers() -> bool:
            try:
                self.session.perform(calls.version())
            except BitsError:
                return False
            return True

        wait_until(answers, "the service to take calls")

    @property
    def session(self) -> Session:
        """The way to the service for this test's own account, without the cost of a program for each call."""
        if self._session is None:
            self._session = Session(Endpoint(self.socket))
        return self._session

    def show(self, job: str) -> dict[str, Any]:
        """The job as the API gives it, files included."""
        shown: dict[str, Any] = self.session.perform(calls.job(job))
        return {**shown, "files": self.session.perform(calls.all_files(job))}

    def history(self) -> list[dict[str, Any]]:
        """All jobs of all accounts, those that have ended included."""
        return self.session.perform(calls.all_jobs(all_users=True, history=True))

    def events(self) -> list[dict[str, Any]]:
        """The event log of all jobs, oldest first."""
        events = []
        with EventStream(self.session.pool, all_users=True, after=0, follow=False) as stream:
            while not stream.is_over:
                events += [message.data for message in stream.wait_messages(READY_S) if message.type == "job"]
        return events

    def statistics(self) -> dict[str, Any]:
        """The service's counters."""
        return self.session.perform(calls.statistics())

    def doctor(self) -> list[dict[str, Any]]:
        """What the service thinks of its health."""
        checks: list[dict[str, Any]] = self.session.perform(calls.doctor())["checks"]
        return checks

    def why(self, job: str) -> dict[str, Any]:
        """What the job waits for."""
        return self.session.perform(calls.why(job))

    def wait_job(self, job: str, what: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0) -> dict[str, Any]:
        """Follow the job's events until one brings it as wanted; restarts of the service are waited out."""
        deadline = time.monotonic() + timeout_s
        self.wait_reachable()
        last: dict[str, Any] = {}
        with EventStream(self.session.pool, job_id=job) as stream:
            while True:
                for message in stream.wait_messages(max(0.0, deadline - time.monotonic())):
                    seen = message.data if message.type == "snapshot" else message.data.get("job")
                    last = seen or last
                    if seen is not None and what(seen):
                        return dict(seen)
                assert time.monotonic() < deadline, f"waited {timeout_s} s for the job; it is {last}"

    def wait_state(self, job: str, *states: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until the job is in one of these states."""
        return self.wait_job(job, lambda seen: seen["state"] in states, timeout_s)

    def stored_files(self, job: str) -> list[StoredFile]:
        """What stands in the store of a job's files: what a crash at this moment would leave."""
        path = os.path.join(self.state_dir, "bits.db")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            rows = connection.execute(
                "SELECT bytes_transferred, transferred FROM files"
                " WHERE job = (SELECT seq FROM jobs WHERE id = ?) ORDER BY idx",
                (job,),
            )
            return [StoredFile(durable_bytes=durable, transferred=bool(transferred)) for durable, transferred in rows]


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    """Wait for something that tells nobody when it happens, such as an entry of /proc."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def processes_of(uid: int) -> list[Process]:
    """All processes of an account that live now."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = _status(int(entry))
                process = Process(pid=int(entry), name=status["Name"], status=status)
                if process.uids[0] == uid and not status["State"].startswith("Z"):
                    found.append(process)
    return found


def is_alive(process: Process) -> bool:
    """Whether the process still runs."""
    try:
        status = _status(process.pid)
    except OSError:
        return False
    return status["Name"] == process.name and not status["State"].startswith("Z")


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


@contextlib.contextmanager
def running_daemon(mode: str = "system", **options: Any) -> Iterator[Daemon]:
    """Start a daemon in directories of its own and end it after the `with` block."""
    if mode == "system":
        ensure_service_account()
    base = tempfile.mkdtemp(prefix="obt-daemon-")
    os.chmod(base, 0o755)
    account = options.get("account")
    if account is not None:
        os.chown(base, account, account)
    daemon = Daemon(mode=mode, base=base, **options)
    try:
        daemon.start()
        yield daemon
    finally:
        try:
            if daemon.is_started:
                daemon.stop()
        finally:
            shutil.rmtree(base, ignore_errors=True)
