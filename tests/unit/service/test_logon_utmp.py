"""Who is logged on from utmp, where there is no logind (I2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from openbits.service.logon.utmp import UtmpSource, read_first, split_records
from openbits.service.tasks import Tasks

TIMEOUT_S = 20.0
Until = Callable[[Callable[[], bool]], Awaitable[None]]
BOOT, LOGIN, USER, DEAD = 2, 6, 7, 8
SOMEBODY, SOMEBODY_ELSE = pwd.getpwnam("daemon"), pwd.getpwnam("bin")


def record(kind: int, user: str = "", pid: int = 1) -> bytes:
    return struct.pack(
        "=hxxi32s4s32s256shhiii4i20s",
        kind, pid, b"pts/0", b"ts/0", user.encode(), b"host", 0, 0, 0, 0, 0, 0, 0, 0, 0, b"",
    )  # fmt: skip


def write(path: Path, *records: bytes) -> None:
    """Write over what is there, as login does."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.truncate()
        file.write(b"".join(records))


@pytest.fixture
def utmp(tmp_path: Path) -> Path:
    path = tmp_path / "utmp"
    write(path, record(BOOT, "reboot"))
    return path


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps somebody logged on."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def watching(path: Path) -> AsyncIterator[tuple[UtmpSource, Until]]:
    died: list[str] = []
    told = asyncio.Event()
    tasks = Tasks(lambda name, error: died.append(f"{name}: {error!r}"))
    source = UtmpSource(tasks=tasks, on_change=told.set, paths=(str(path),))
    source.start()

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                told.clear()
                await told.wait()

    try:
        await until(source.ready.is_set)
        yield source, until
        assert died == []
    finally:
        source.close()
        await tasks.cancel()


def test_a_record_counts_while_its_process_lives(utmp: Path, shell: subprocess.Popen[bytes]) -> None:
    async def main() -> None:
        async with watching(utmp) as (source, until):
            assert (source.works, source.logged_on) == (True, frozenset())
            write(utmp, record(BOOT), record(USER, SOMEBODY.pw_name, shell.pid))
            await until(lambda: source.logged_on == {SOMEBODY.pw_uid})
            # Nobody touches the file: the connection broke, and the process was killed.
            shell.kill()
            shell.wait(timeout=TIMEOUT_S)
            await until(lambda: source.logged_on == frozenset())
            assert source.problem == ""

    asyncio.run(main())


def test_log_off_is_seen_in_the_file(utmp: Path, shell: subprocess.Popen[bytes]) -> None:
    async def main() -> None:
        async with watching(utmp) as (source, until):
            write(
                utmp,
                record(BOOT),
                record(USER, SOMEBODY.pw_name, shell.pid),
                record(USER, SOMEBODY_ELSE.pw_name, os.getpid()),
            )
            await until(lambda: source.logged_on == {SOMEBODY.pw_uid, SOMEBODY_ELSE.pw_uid})
            write(utmp, record(BOOT), record(DEAD, "", shell.pid), record(USER, SOMEBODY_ELSE.pw_name, os.getpid()))
            await until(lambda: source.logged_on == {SOMEBODY_ELSE.pw_uid})

    asyncio.run(main())


def test_a_file_that_is_replaced_or_comes_later_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "utmp"

    async def main() -> None:
        async with watching(path) as (source, until):
            assert (source.works, source.logged_on) == (False, frozenset())
            path.parent.mkdir()
            write(path, record(BOOT), record(USER, SOMEBODY.pw_name, os.getpid()))
            await until(lambda: source.works and source.logged_on == {SOMEBODY.pw_uid})
            write(path.with_name("new"), record(BOOT), record(USER, SOMEBODY_ELSE.pw_name, os.getpid()))
            os.rename(path.with_name("new"), path)
            await until(lambda: source.logged_on == {SOMEBODY_ELSE.pw_uid})
            path.unlink()
            await until(lambda: not source.works)
            assert source.logged_on == frozenset()
            assert "there is no" in source.problem

    asyncio.run(main())


def test_a_file_that_nothing_keeps_does_not_work(tmp_path: Path) -> None:
    """A container has an empty one, or one with a stray record."""
    path = tmp_path / "utmp"
    write(path)
    assert not read_first([str(path)]).works
    write(path, record(USER, SOMEBODY.pw_name, os.getpid()))
    reading = read_first([str(path)])
    assert (reading.works, reading.logged_on) == (False, frozenset())
    assert "booted" in reading.problem


def test_the_first_file_that_exists_is_read(tmp_path: Path, utmp: Path) -> None:
    assert read_first([str(tmp_path / "none"), str(utmp)]).works


@pytest.mark.parametrize("kind", [0, 1, 2, 5, LOGIN, DEAD, 9, -1])
def test_other_records_do_not_count(utmp: Path, kind: int) -> None:
    write(utmp, record(BOOT), record(kind, SOMEBODY.pw_name, os.getpid()))
    assert read_first([str(utmp)]).logged_on == frozenset()


@pytest.mark.parametrize(
    ("user", "pid"), [("nobody-of-this-name", None), ("", None), (SOMEBODY.pw_name, 0), (SOMEBODY.pw_name, -1)]
)
def test_records_without_an_account_or_a_process_count_for_nothing(utmp: Path, user: str, pid: int | None) -> None:
    write(utmp, record(BOOT), record(USER, user, os.getpid() if pid is None else pid))
    reading = read_first([str(utmp)])
    assert (reading.works, reading.logged_on) == (True, frozenset())


def test_a_record_that_is_cut_off_is_left_out() -> None:
    data = record(BOOT) + record(USER, "alice", 77)
    assert [each.kind for each in split_records(data[:-1])] == [BOOT]
    assert [(each.kind, each.pid, each.user) for each in split_records(data)] == [(BOOT, 1, b""), (USER, 77, b"alice")]
    assert list(split_records(b"")) == []


def test_names_that_fill_their_field_are_read() -> None:
    [found] = split_records(record(USER, "a" * 32, 1))
    assert found.user == b"a" * 32
