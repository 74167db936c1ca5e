"""OpenBITS in a booted machine: jobs as `bits` shows them, the web server they fetch from, and who works for them.

The rule: what a test waits for is announced by somebody (the service's event stream, a log that is written line by
line, the death of a process); nothing is slept for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from support.daemon import wait_until
from support.nspawn import Machine
from support.origin import generate

Job = dict[str, Any]
WAIT_S: Final = 30.0
_PIECE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the web server was asked for: content from the byte `first` on, and when."""

    at: float
    path: str
    first: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The end of an answer: `sent` bytes from the byte `first` on had been handed to the kernel by then."""

    at: float
    path: str
    first: int
    sent: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A job as the service announced it at a moment of the monotonic clock."""

    at: float
    job: Job


class Source:
    """A file of the web server inside the machine."""

    def __init__(self, *, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed
        self.path = f"/file/{size}/{seed}"
        self.url = f"http://127.0.0.1:8080{self.path}"

    def sha256(self) -> str:
        """What its content must hash to."""
        digest = hashlib.sha256()
        for at in range(0, self.size, _PIECE):
            digest.update(generate(self.size, self._seed, at, min(_PIECE, self.size - at)))
        return digest.hexdigest()


class Origin:
    """The web server inside the machine; see tests/boot/programs/origin_server.py."""

    def __init__(self, machine: Machine) -> None:
        self._rate = machine.path("/srv/boot/rate")
        self._log = machine.path("/srv/boot/requests.log")

    def limit(self, bytes_per_second: int) -> None:
        """Send so many bytes a second on every connection from now on; 0: as fast as can be."""
        # Replaced as a whole: the server may be reading it.
        new = self._rate.with_suffix(".new")
        new.write_text(str(bytes_per_second), encoding="ascii")
        new.replace(self._rate)

    def requests(self, source: Source) -> list[Request]:
        """Every request for the content of a file until now, in order."""
        return [
            Request(at=entry["at"], path=entry["path"], first=entry["first"])
            for entry in self._entries(source)
            if entry["kind"] == "request" and entry["method"] == "GET"
        ]

    def answers(self, source: Source) -> list[Answer]:
        """Every answer with content that is over, in order."""
        return [
            Answer(at=entry["at"], path=entry["path"], first=entry["first"], sent=entry["sent"])
            for entry in self._entries(source)
            if entry["kind"] == "end"
        ]

    def _entries(self, source: Source) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, lines) if entry["path"] == source.path]


class Watch:
    """Follows `bits monitor` in a thread and keeps what it says of every job."""

    def __init__(self, machine: Machine) -> None:
        self._came = threading.Condition()
        self._latest: dict[str, Job] = {}
        self._seen: list[Seen] = []
        self._is_over = False
        self._process = machine.popen("bits", "monitor", "--all-users", "--json")
        self._thread = threading.Thread(target=self._read, name="bits-monitor", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            kind = message.pop("type")
            with self._came:
                if kind == "progress":
                    self._latest.setdefault(message.pop("job_id"), {}).update(message)
                elif (job := message.get("job")) is not None:
                    self._latest[job["id"]] = job
                    self._seen.append(Seen(at=time.monotonic(), job=job))
                self._came.notify_all()
        with self._came:
            self._is_over = True
            self._came.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether it hears nothing any more."""
        return self._is_over

    def seen(self, job_id: str) -> list[Seen]:
        """Everything that was announced of a job, in order."""
        with self._came:
            return [seen for seen in self._seen if seen.job["id"] == job_id]

    def wait(self, job_id: str, what: Callable[[Job], bool], timeout_s: float) -> Job:
        """Wait until a job is as wanted; return it."""
        deadline = time.monotonic() + timeout_s
        with self._came:
            while True:
                job = self._latest.get(job_id)
                if job is not None and what(job):
                    return dict(job)
                if self._is_over or not self._came.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"waited {timeout_s} s for the job; it is {job}")

    def close(self) -> None:
        """Stop listening."""
        self._process.kill()
        self._thread.join(timeout=20)
        self._process.communicate(timeout=20)


class Jobs:
    """What a test does with OpenBITS in a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.origin = Origin(machine)
        self._watch: Watch | None = None
        self._watched_boot = ""
        self._seed = 0

    def new_source(self, size: int) -> Source:
        """A file of the web server that no other test asks for."""
        self._seed += 1
        return Source(size=size, seed=self._seed)

    # --- what people type --------------------------------------------------------------------------

    def bits(self, *arguments: str, account: str = "root", timeout_s: float = 60.0) -> str:
        """Run `bits`, which must succeed; return what it printed."""
        return self.machine.run("bits", *arguments, account=account, timeout_s=timeout_s)

    def try_bits(self, *arguments: str, account: str = "root") -> subprocess.CompletedProcess[str]:
        """Run `bits`, which may fail."""
        return self.machine.try_run("bits", *arguments, account=account)

    def get(self, source: Source, target: str, *, account: str = "root") -> str:
        """`bits get --async` as an account that need not be logged on; return the job's id."""
        self.machine.run("install", "-d", "-o", account, "-g", account, os.path.dirname(target))
        # Not foreground, so that it does not matter how many jobs other tests have left.
        return self.bits("get", "--async", "--retry-delay", "1", source.url, "-o", target, account=account).strip()

    def show(self, job_id: str) -> Job:
        """`bits show --json`."""
        shown: Job = json.loads(self.bits("show", "--json", job_id))
        return shown

    def why(self, job_id: str) -> Job:
        """`bits why --json` as root."""
        said: Job = json.loads(self.bits("why", "--json", job_id))
        return said

    def cancel_all(self, account: str) -> None:
        """Cancel every job that an account has left."""
        for job in json.loads(self.bits("list", "--json", account=account)):
            self.bits("cancel", job["id"], account=account)

    # --- what becomes of a job -------------------------------------------------------------------------

    @property
    def watch(self) -> Watch:
        """What the service announces in this boot."""
        boot = self.machine.boot_id()
        if self._watch is None or self._watched_boot != boot or self._watch.is_over:
            self.close()
            self._watch, self._watched_boot = Watch(self.machine), boot
        return self._watch

    def close(self) -> None:
        """Stop listening."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def wait(self, job_id: str, what: Callable[[Job], bool], timeout_s: float = WAIT_S) -> Job:
        """Wait until the job is as wanted."""
        return self.watch.wait(job_id, what, timeout_s)

    def wait_state(self, job_id: str, *states: str, timeout_s: float = WAIT_S) -> Job:
        """Wait until the job is in one of these states."""
        return self.wait(job_id, lambda job: job.get("state") in states, timeout_s)

    def wait_bytes(self, job_id: str, count: int, timeout_s: float = WAIT_S) -> Job:
        """Wait until so many bytes have come in."""
        return self.wait(job_id, lambda job: job.get("bytes_transferred", 0) >= count, timeout_s)

    def finish(self, job_id: str, source: Source, target: str) -> None:
        """Let the rest come as fast as can be, complete the job as root, and check the file."""
        self.origin.limit(0)
        self.wait_state(job_id, "TRANSFERRED")
        self.bits("complete", job_id)
        assert self.sha256(target) == source.sha256()

    def sha256(self, path: str) -> str:
        """The hash of a file in the machine."""
        with self.machine.path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def durable_bytes(self, job_id: str) -> int:
        """What the store says that a job has: what the end of the machine at this moment would leave."""
        store = self.machine.path("/var/lib/openbits/bits.db")
        if self.machine.is_up:
            return _stored_bytes(f"file:{store}?mode=ro", job_id)
        # A copy is looked into: opening the store of a machine that was killed would change it.
        with tempfile.TemporaryDirectory() as directory:
            for file in store.parent.glob("bits.db*"):
                shutil.copy(file, directory)
            return _stored_bytes(f"file:{directory}/bits.db", job_id)

    def wait_durable(self, job_id: str, count: int, timeout_s: float = WAIT_S) -> int:
        """Wait until so many bytes of a job would survive; progress is announced earlier. Returns how many they are."""
        wait_until(lambda: self.durable_bytes(job_id) >= count, f"{count} bytes to be durable", timeout_s)
        return self.durable_bytes(job_id)

    # --- who works -------------------------------------------------------------------------------------

    def workers(self, account: str) -> list[int]:
        """The pids, in the machine, of an account's workers."""
        return self.pids("bitsd-worker", account)

    def pids(self, name: str, account: str) -> list[int]:
        """The pids, in the machine, of an account's processes with this name."""
        listed = self.machine.try_run("pgrep", "--exact", "--uid", account, name)
        return [int(pid) for pid in listed.stdout.split()]

    def status_of(self, pid: int) -> dict[str, str]:
        """/proc/PID/status of a process in the machine."""
        lines = self.machine.run("cat", f"/proc/{pid}/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def wait_no_worker(self, account: str, timeout_s: float = 20.0) -> None:
        """Wait until nothing of the service runs with the rights of an account."""
        wait_until(lambda: not self.workers(account), f"the workers of {account} to end", timeout_s)


def _stored_bytes(address: str, job_id: str) -> int:
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
        query = "SELECT SUM(bytes_transferred) FROM files WHERE job = (SELECT seq FROM jobs WHERE id = ?)"
        return int(connection.execute(query, (job_id,)).fetchone()[0])
