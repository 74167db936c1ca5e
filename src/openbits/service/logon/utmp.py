"""Reads who is logged on from utmp(5), where there is no logind (inventory I2).

A record counts while its process lives: who was killed with the connection leaves a record behind.
The file and those processes are watched; nothing is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from openbits.service.logon import inotify
from openbits.service.logon.pathwatch import PathWatch
from openbits.service.tasks import Tasks

log = logging.getLogger(__name__)

PATHS: Final = ("/run/utmp", "/var/run/utmp")
BOOT_TIME: Final = 2
USER_PROCESS: Final = 7
MAX_BYTES: Final = 4 * 2**20
MAX_PROCESSES: Final = 1024
"""So many processes are watched; one that is not is noticed with the next change of the file."""
SETTLE_S: Final = 0.02
_RECORD: Final = struct.Struct("=hxxi32s4s32s256shhiii4i20s")


@dataclass(frozen=True, slots=True)
class Record:
    """What matters of a record."""

    kind: int
    pid: int
    user: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What the file said."""

    works: bool
    """Whether something on this machine keeps the file: it knows at least when the machine was booted."""
    logged_on: frozenset[int] = frozenset()
    pids: frozenset[int] = frozenset()
    problem: str = ""


class UtmpSource:
    """Who is logged on, from utmp; `on_change` is called whenever an attribute may have changed."""

    name = "utmp"

    def __init__(self, *, tasks: Tasks, on_change: Callable[[], None], paths: Sequence[str] = PATHS) -> None:
        self._tasks = tasks
        self._on_change = on_change
        self._paths = tuple(paths)
        self._wake = asyncio.Event()
        self._reading = Reading(works=False, problem="utmp has not been read yet")
        self._processes: dict[int, int] = {}
        """A pidfd of each process that keeps somebody logged on."""
        self._watches = [PathWatch(path, mask=inotify.MODIFY, on_change=self._wake.set) for path in self._paths]
        self.ready = asyncio.Event()

    def __repr__(self) -> str:
        return f"<UtmpSource works={self.works} processes={len(self._processes)}>"

    @property
    def works(self) -> bool:
        """Whether this machine keeps a utmp."""
        return self._reading.works

    @property
    def logged_on(self) -> frozenset[int]:
        """Who is logged on; nobody when that cannot be read (fail closed)."""
        return self._reading.logged_on

    @property
    def problem(self) -> str:
        """Why it is not known who is logged on; empty when it is known."""
        return self._reading.problem

    def start(self) -> None:
        """Begin; `ready` is set soon."""
        for watch in self._watches:
            watch.start()
        self._tasks.start("utmp", self._run())

    def close(self) -> None:
        """Stop watching; the task is ended by whoever owns it."""
        for watch in self._watches:
            watch.close()
        self._watch_processes(frozenset())
        self._on_change = lambda: None

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            # In a thread: behind the names of accounts there may be a directory server.
            self._reading = await asyncio.to_thread(read_first, self._paths)
            self._watch_processes(self._reading.pids)
            self.ready.set()
            self._on_change()
            await self._wake.wait()
            # A log-on writes several records.
            await asyncio.sleep(SETTLE_S)

    def _watch_processes(self, pids: frozenset[int]) -> None:
        loop = asyncio.get_running_loop()
        for pid in self._processes.keys() - pids:
            self._forget_process(pid)
        for pid in sorted(pids - self._processes.keys())[: MAX_PROCESSES - len(self._processes)]:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._wake.set()
            except OSError as error:
                log.warning("action=process-not-watched pid=%d error=%s", pid, error)
            else:
                self._processes[pid] = pidfd
                loop.add_reader(pidfd, self._process_ended, pid)

    def _process_ended(self, pid: int) -> None:
        self._forget_process(pid)
        self._wake.set()

    def _forget_process(self, pid: int) -> None:
        pidfd = self._processes.pop(pid)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


def read_first(paths: Sequence[str]) -> Reading:
    """Read the first of these files that exists."""
    problem = f"there is no {paths[0]}"
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror}"
            break
        return _reading(path, data)
    return Reading(works=False, problem=problem)


def split_records(data: bytes) -> Iterator[Record]:
    """Yield the records of a file; one that is cut off is being written."""
    for offset in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
        kind, pid, _line, _id, user, *_ = _RECORD.unpack_from(data, offset)
        yield Record(kind, pid, user.partition(b"\0")[0])


def _reading(path: str, data: bytes) -> Reading:
    records = list(split_records(data))
    if not any(record.kind == BOOT_TIME for record in records):
        return Reading(works=False, problem=f"{path} does not know when the machine was booted: nothing keeps it")
    alive = [record for record in records if record.kind == USER_PROCESS and _is_alive(record.pid)]
    uids: dict[bytes, int | None] = {}
    for record in alive:
        if record.user not in uids:
            uids[record.user] = _uid_of(record.user)
    people = {record.pid: uid for record in alive if (uid := uids[record.user]) is not None}
    return Reading(works=True, logged_on=frozenset(people.values()), pids=frozenset(people))


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _uid_of(name: bytes) -> int | None:
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    return None
