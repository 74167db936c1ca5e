"""Which paths a caller may name: those that mean to the service, and for good, what they mean to him (I4, I8).

The tables of mounts are read when the call is made and not when the connection was: a process may move to another
namespace.  /proc/PID/mountinfo is readable for everybody, other than the link that names the namespace.  Where
it cannot be told what a process sees, a service's path is refused, for its job would work unseen; a person, who
looks at what happens, is believed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from openbits.core.model import AccountKind, Caller, Owner
from openbits.core.mounts import MountTable, mapping_problem, session_problem
from openbits.errors import BitsError
from openbits.service.workers import WorkerPool

INLINE_TABLE_BYTES: Final = 128 * 1024
LARGEST_TABLE_BYTES: Final = 4 * 1024 * 1024
_SESSION_ADVICE: Final = (
    "name a path outside of it, or act as the person whose session it is (openbits.impersonate), "
    "or give the job that person's helper token"
)
_MAPPING_ADVICE: Final = "name a path that means the same to both"


Tables = tuple[bytes | None, bytes | None]
"""What the service sees and what the caller sees; None where that cannot be read."""


class Paths:
    """Judges paths for calls that put them into a job."""

    def __init__(self, pool: WorkerPool, *, read: Callable[[int], Awaitable[Tables]] | None = None) -> None:
        """`read` gives the tables of mounts of the service and of a process."""
        self._pool = pool
        self._read = read or read_tables

    def __repr__(self) -> str:
        return "<Paths>"

    async def check(self, caller: Caller, owner: Owner, paths: Sequence[str]) -> None:
        """Raise E_INVALIDARG for a path that `owner`'s job may not have when `caller` names it."""
        problem = await self.problem(caller, owner, paths)
        if problem is not None:
            raise BitsError("E_INVALIDARG", problem)

    async def problem(self, caller: Caller, owner: Owner, paths: Sequence[str]) -> str | None:
        """Return why `owner`'s job may not have one of these paths, as a sentence that says what to do; or None."""
        wanted = list(dict.fromkeys(paths))
        if not wanted:
            return None
        is_service = owner.kind is not AccountKind.USER
        ours, theirs = await self._read(caller.pid)
        if not is_service and caller.kind is AccountKind.USER and theirs in (None, ours):
            return None
        # The walk first, and the tables again: it lets mounts appear that are made on demand.
        points = await self._walk(owner, wanted)
        ours, theirs = await self._read(caller.pid)
        if ours is None:
            raise BitsError("E_FAIL", "the service cannot read its own table of mounts: /proc is not there")
        if theirs is None and caller.kind is not AccountKind.USER:
            return (
                "it cannot be seen what paths mean to the calling process, because it has ended or its mounts are "
                "hidden: call from a process that waits for the answer"
            )
        here = MountTable(ours)
        there = MountTable(theirs) if theirs is not None and theirs != ours else None
        for path, turns in zip(wanted, points, strict=True):
            clause = session_problem(here, turns, owner.identity.uid) if is_service else None
            if clause is not None:
                return f"{_shown(path)} may not be used by a service account's job: {clause}: {_SESSION_ADVICE}"
            clause = mapping_problem(here, there, turns) if there is not None else None
            if clause is not None:
                return f"{_shown(path)}: {clause}: {_MAPPING_ADVICE}"
        return None

    async def _walk(self, owner: Owner, paths: list[str]) -> list[list[str]]:
        return await self._pool.ask(owner.identity, lambda worker: worker.walk(paths))


async def read_tables(pid: int) -> Tables:
    """Read both; at once if they are as small as they mostly are, because a thread costs more than that."""
    try:
        return _read("self", INLINE_TABLE_BYTES), _read(str(pid), INLINE_TABLE_BYTES)
    except _LargerTable:
        return await asyncio.to_thread(lambda: (read_table("self"), read_table(str(pid))))


def read_table(process: str, *, proc: str = "/proc") -> bytes | None:
    """Return the mountinfo of a process, or None when it is gone, hidden, or larger than anybody needs."""
    try:
        return _read(process, LARGEST_TABLE_BYTES, proc)
    except _LargerTable:
        return None


class _LargerTable(Exception):
    """There is more than was to be read."""


def _read(process: str, most_bytes: int, proc: str = "/proc") -> bytes | None:
    try:
        with open(f"{proc}/{process}/mountinfo", "rb", buffering=0) as file:
            parts = bytearray()
            while part := os.read(file.fileno(), 1 << 16):
                parts += part
                if len(parts) > most_bytes:
                    raise _LargerTable
    except OSError:
        return None
    return bytes(parts) or None


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
