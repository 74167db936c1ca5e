"""The files of uploads: where they may go, how they get their names, and what a crash leaves."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.server import syscalls
from openbits.server.journal import NAME, Journal
from openbits.server.sessions import Record, Sessions, record_of
from openbits.server.settings import parse_settings
from openbits.server.storage import Storage, StorageError, trouble_of
from openbits.upload.session import Phase, Place, Session, Trouble
from support.accounts import needs_root
from support.mounts import fill, small_disk

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def storage(root: Path) -> Iterator[Storage]:
    made = Storage(str(root), str(root / ".work"))
    yield made
    made.close()


def put(storage: Storage, content: bytes) -> None:
    fd = storage.open_part(KEY, total_bytes=len(content))
    os.pwrite(fd, content, 0)
    os.close(fd)


# --- publishing --------------------------------------------------------------------------------


def test_file_gets_its_name_and_leaves_the_working_directory(storage: Storage, root: Path) -> None:
    put(storage, b"content")
    assert storage.publish(KEY, (b"name",), may_overwrite=False) is None
    assert (root / "name").read_bytes() == b"content"
    assert storage.part_size(KEY) is None


def test_nothing_is_replaced_unless_that_is_allowed(storage: Storage, root: Path) -> None:
    (root / "name").write_bytes(b"old")
    put(storage, b"new")
    assert storage.publish(KEY, (b"name",), may_overwrite=False) is Trouble.EXISTS
    assert (root / "name").read_bytes() == b"old"
    assert storage.publish(KEY, (b"name",), may_overwrite=True) is None
    assert (root / "name").read_bytes() == b"new"


@pytest.mark.parametrize(("may_overwrite", "trouble"), [(False, Trouble.EXISTS), (True, Trouble.DIRECTORY)])
def test_directory_is_never_replaced(storage: Storage, root: Path, may_overwrite: bool, trouble: Trouble) -> None:
    (root / "name").mkdir()
    put(storage, b"new")
    assert storage.publish(KEY, (b"name",), may_overwrite=may_overwrite) is trouble
    assert storage.part_size(KEY) is not None


def test_troubles_of_publishing(storage: Storage, root: Path, tmp_path: Path) -> None:
    assert storage.publish(KEY, (b"name",), may_overwrite=False) is Trouble.VANISHED
    put(storage, b"x")
    (root / "out").symlink_to(tmp_path)
    assert storage.publish(KEY, (b"none", b"name"), may_overwrite=False) is Trouble.MISSING
    assert storage.publish(KEY, (b"out", b"name"), may_overwrite=True) is Trouble.MISSING
    assert storage.publish(KEY, (b".work", b"name"), may_overwrite=True) is Trouble.FORBIDDEN
    assert not (tmp_path / "name").exists()


def test_file_system_without_the_flag_refuses_what_exists_as_well(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        """As the kernel answers for a file system that knows no RENAME_NOREPLACE."""

        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(syscalls, "_LIBC", Libc)
    (root / "old").write_bytes(b"old")
    put(storage, b"new")
    assert storage.publish(KEY, (b"old",), may_overwrite=False) is Trouble.EXISTS
    assert storage.publish(KEY, (b"name",), may_overwrite=False) is None
    assert (root / "name").read_bytes() == b"new"
    assert storage.part_size(KEY) is None
    # A kill between link and unlink leaves both names.
    os.link(root / "name", root / ".work" / f"{KEY}.part")
    assert storage.publish(KEY, (b"name",), may_overwrite=False) is None
    assert storage.part_size(KEY) is None


# --- looking -----------------------------------------------------------------------------------


def test_what_stands_at_a_destination(storage: Storage, root: Path) -> None:
    (root / "dir").mkdir()
    (root / "dir" / "file").touch()
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    assert storage.look((b"new",)) is Place.FREE
    assert storage.look((b"dir", b"file")) is Place.FILE
    assert storage.look((b"link",)) is Place.FILE
    assert storage.look((b"dir",)) is Place.DIRECTORY
    assert storage.look(()) is Place.DIRECTORY
    assert storage.look((b"pipe",)) is Place.FORBIDDEN
    assert storage.look((b"dir", b"file", b"below")) is Place.MISSING
    assert storage.look((b"none", b"file")) is Place.MISSING
    assert storage.look((b".work",)) is Place.FORBIDDEN
    assert storage.look((b".work", b"x")) is Place.FORBIDDEN
    assert storage.look((b"BITS-Sessions",)) is Place.FORBIDDEN


@needs_root
def test_destination_on_another_file_system_is_refused_at_once(storage: Storage, root: Path) -> None:
    with small_disk(str(root / "disk"), 1 << 20):
        assert storage.look((b"disk", b"file")) is Place.FORBIDDEN


@needs_root
def test_another_accounts_file_in_a_sticky_directory_is_refused_at_once(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "sticky" / "theirs").touch()
    (root / "sticky" / "ours").touch()
    os.chown(root / "sticky" / "ours", 4321, 4321)
    assert storage.look((b"sticky", b"theirs")) is Place.FILE
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert storage.look((b"sticky", b"theirs")) is Place.FORBIDDEN
    assert storage.look((b"sticky", b"ours")) is Place.FILE
    assert storage.look((b"sticky", b"new")) is Place.FREE


@needs_root
def test_destination_in_another_mount_of_the_same_file_system_is_refused_at_once(
    storage: Storage, root: Path, tmp_path: Path
) -> None:
    """rename(2) says EXDEV between them, which would be too late: after the last byte."""
    (tmp_path / "elsewhere").mkdir()
    (root / "bound").mkdir()
    assert storage.look((b"bound", b"file")) is Place.FREE
    subprocess.run(["mount", "--bind", tmp_path / "elsewhere", root / "bound"], check=True, timeout=20)
    try:
        assert (root / "bound").stat().st_dev == root.stat().st_dev
        assert storage.look((b"bound", b"file")) is Place.FORBIDDEN
    finally:
        subprocess.run(["umount", "--lazy", root / "bound"], check=True, timeout=20)


@needs_root
def test_working_directory_that_is_mounted_elsewhere_too_is_no_destination(storage: Storage, root: Path) -> None:
    (root / "other").mkdir()
    os.system(f"mount --bind {root}/.work {root}/other")
    try:
        assert storage.look((b"other", b"sessions.sqlite")) is Place.FORBIDDEN
    finally:
        os.system(f"umount {root}/other")


def test_working_directory_outside_of_the_root_hides_nothing(root: Path, tmp_path: Path) -> None:
    storage = Storage(str(root), str(tmp_path / "work"))
    assert not storage.is_hidden((b".work",))
    assert not storage.is_hidden((b"work",))
    assert storage.is_hidden((b"a", b"BITS-SESSIONS", b"b"))
    storage.close()


def test_working_directory_deep_in_the_root_is_hidden_as_a_whole(root: Path) -> None:
    (root / "a").mkdir()
    storage = Storage(str(root), str(root / "a" / "w"))
    assert storage.is_hidden((b"a", b"w"))
    assert storage.is_hidden((b"a", b"w", b"x"))
    assert not storage.is_hidden((b"a",))
    assert not storage.is_hidden((b"a", b"wx"))
    storage.close()


def test_working_directory_that_is_open_to_others_is_closed(root: Path) -> None:
    (root / ".work").mkdir(mode=0o755)
    Storage(str(root), str(root / ".work")).close()
    assert stat.S_IMODE((root / ".work").stat().st_mode) == 0o700


def test_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the root directory .* cannot be opened: No such file"):
        Storage(str(tmp_path / "none"), str(tmp_path / "work"))
    with pytest.raises(StorageError, match=r"the working directory .* cannot be made"):
        Storage(str(tmp_path), str(tmp_path / "none" / "work"))


# --- growing -----------------------------------------------------------------------------------


def test_room_is_reserved_and_the_size_is_what_was_written(storage: Storage, root: Path) -> None:
    fd = storage.open_part(KEY, total_bytes=8 << 20)
    try:
        found = os.fstat(fd)
        assert found.st_size == 0
        assert found.st_blocks * 512 >= 8 << 20
    finally:
        os.close(fd)


@pytest.mark.parametrize("total", [1 << 50, (1 << 63) - 1])
def test_file_that_does_not_fit_leaves_nothing(storage: Storage, total: int) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        storage.open_part(KEY, total_bytes=total)
    assert trouble_of(caught.value) is Trouble.NO_ROOM
    assert storage.part_size(KEY) is None


def test_part_that_is_a_link_is_not_followed(storage: Storage, root: Path, tmp_path: Path) -> None:
    (root / ".work" / f"{KEY}.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        storage.open_part(KEY, total_bytes=1)


# --- records and the journal -------------------------------------------------------------------


def record(**changes: object) -> Record:
    made = Record(
        key=KEY,
        session=Session(id="{X}", total_bytes=10, received_bytes=5),
        path=("ä".encode(), b"f"),
        url="http://o/%C3%A4/f",
        user="alice",
        counted_for="user alice",
        made_at_s=1.5,
        durable_bytes=3,
    )
    return replace(made, **changes)  # type: ignore[arg-type] # whatever a test names


@given(
    st.builds(
        Session,
        id=st.text(),
        total_bytes=st.none() | st.integers(0, 2**63),
        received_bytes=st.integers(0, 2**63),
        phase=st.sampled_from(Phase),
        is_published=st.booleans(),
        reply_url=st.text(),
    ),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1).map(str.encode), min_size=1).map(tuple),
    st.none() | st.text(),
)
def test_records_are_read_as_they_were_written(session: Session, path: tuple[bytes, ...], user: str | None) -> None:
    made = record(session=session, path=path, user=user)
    found, _ = record_of(KEY, made.to_text())
    assert found == made


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"session": 5}', json.dumps({"touched_at_s": "soon"})])
def test_rubbish_in_the_journal_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        record_of(KEY, text)


def test_journal_has_what_was_waited_for_and_what_was_noted(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(str(tmp_path))
        journal.start()
        journal.note("a", "1")
        await journal.write("b", "2")
        await asyncio.gather(*(journal.write(f"c{number}", str(number)) for number in range(100)))
        journal.note("b", None)
        journal.note("a", "3")
        await journal.close()

    asyncio.run(test())
    journal = Journal(str(tmp_path))
    assert journal.read() == {"a": "3", **{f"c{number}": str(number) for number in range(100)}}
    asyncio.run(journal.close())


def test_what_is_noted_is_written_without_anything_else_to_write(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(str(tmp_path))
        journal.start()
        journal.note("a", "1")
        # A process that is killed now loses at most what was noted a moment ago.
        await asyncio.to_thread(committed.wait, 10)
        assert committed.is_set()
        await journal.close()

    committed = threading.Event()
    before = Journal._commit

    def commit(self: Journal, changes: dict[str, str | None], *, is_durable: bool) -> None:
        before(self, changes, is_durable=is_durable)
        assert not is_durable or committed.is_set()
        committed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "_commit", commit)
        asyncio.run(test())


def test_journal_that_failed_tries_again_what_nobody_waited_for(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(str(tmp_path))
        journal.start()
        with pytest.MonkeyPatch.context() as patch:

            def fail(_: object, __: object) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            patch.setattr("openbits.server.journal._apply", fail)
            journal.note("noted", "1")
            with pytest.raises(OSError, match="the journal cannot be written"):
                await journal.write("waited", "2")
        await journal.write("later", "3")
        await journal.close()

    asyncio.run(test())
    journal = Journal(str(tmp_path))
    assert journal.read() == {"noted": "1", "later": "3"}
    asyncio.run(journal.close())


def test_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    asyncio.run(Journal(str(tmp_path)).close())
    with contextlib.closing(sqlite3.connect(tmp_path / NAME)) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="it is of version 9, and this server knows 1"):
        Journal(str(tmp_path))


@needs_root
def test_full_disk_keeps_no_session_from_being_written_down(tmp_path: Path) -> None:
    async def test(directory: str) -> None:
        journal = Journal(directory)
        journal.start()
        fill(directory)
        for number in range(500):
            await journal.write(f"{number % 20}", "x" * 500)
        await journal.close()

    with small_disk(str(tmp_path / "disk"), 4 << 20) as disk:
        asyncio.run(test(disk))


def test_checkpoint_that_ends_late_takes_nothing_back(storage: Storage, root: Path) -> None:
    """It may end while the session is being kept as a whole."""

    async def test() -> None:
        journal = Journal(str(root / ".work"))
        settings = parse_settings({"root": str(root)}, source="test")
        sessions = Sessions(settings, storage, journal)
        sessions.load()
        journal.start()
        made = await sessions.make(path=(b"f",), url="", user=None, counted_for="x")
        done = replace(made, session=replace(made.session, phase=Phase.ACCEPTED, received_bytes=9), durable_bytes=9)
        keeping = asyncio.ensure_future(sessions.keep(done))
        await asyncio.sleep(0)
        sessions.note_durable(made.session.id, 5)
        await keeping
        sessions.note_durable(made.session.id, 7)
        assert sessions.find(made.session.id) == done
        await journal.close()
        again = Journal(str(root / ".work"))
        (text,) = again.read().values()
        assert record_of(made.key, text)[0].session.phase is Phase.ACCEPTED
        await again.close()

    asyncio.run(test())
