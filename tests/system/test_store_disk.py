"""The store as files: M10 (what cannot be read is set aside whole), full disks, rights, old versions."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbits.core.model import JobState, Priority
from openbits.store.errors import StoreBusy, StoreError, StoreFull
from openbits.store.opening import APPLICATION_ID
from openbits.store.queries import load_migrations
from openbits.store.records import Batch, JobWrite, Loaded
from openbits.store.store import DATABASE, Store
from support.stores import job_id, make_effect, make_event, make_job

LATEST = len(load_migrations())
SAMPLES = Path(__file__).parent / "store_samples"


def fill(directory: Path, jobs: int = 20) -> Loaded:
    """Make a store with something in it; return what that is."""
    store, _ = Store.open(str(directory))
    batch = Batch(
        jobs=[JobWrite.of_new(make_job(number, files=3)) for number in range(jobs)],
        events=[make_event(number) for number in range(1, 50)],
        effects_added=[make_effect(1)],
    )
    store.commit(batch)
    loaded = store.load()
    store.close()
    return loaded


def edit(directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(directory / DATABASE, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# --- ordinary openings -----------------------------------------------------------------------


def test_opening_says_what_it_found(tmp_path: Path) -> None:
    store, report = Store.open(str(tmp_path))
    assert (report.created, report.set_aside, report.migrated_from) == (True, None, None)
    assert "jobs=0" in repr(store)
    store.close()
    store, report = Store.open(str(tmp_path))
    assert (report.created, report.set_aside, report.migrated_from) == (False, None, None)
    store.close()
    assert "closed" in repr(store)


def test_nobody_else_can_read_any_file_of_the_store(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch(mode=0o644)
    store, _ = Store.open(str(tmp_path))
    store.commit(Batch(jobs=[JobWrite.of_new(make_job(1))]))
    store.events_after(0, limit=1)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert found == {DATABASE: 0o600, f"{DATABASE}-wal": 0o600, f"{DATABASE}-shm": 0o600, "bits.lock": 0o600}
    store.close()


def test_every_commit_is_synced(tmp_path: Path) -> None:
    store, _ = Store.open(str(tmp_path))
    assert store._writer is not None
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_a_second_service_is_kept_out(tmp_path: Path) -> None:
    store, _ = Store.open(str(tmp_path))
    with pytest.raises(StoreBusy):
        Store.open(str(tmp_path))
    store.close()
    Store.open(str(tmp_path))[0].close()


@pytest.mark.parametrize("obstacle", ["missing", "file", "directory", "link"])
def test_what_is_not_damage_moves_nothing(tmp_path: Path, obstacle: str) -> None:
    directory = tmp_path / "state"
    if obstacle == "file":
        directory.touch()
    elif obstacle != "missing":
        directory.mkdir()
    if obstacle == "directory":
        (directory / DATABASE).mkdir()
    elif obstacle == "link":
        (tmp_path / "elsewhere").write_bytes(b"precious")
        (directory / DATABASE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        Store.open(str(directory))
    assert not list(tmp_path.rglob("*corrupt*"))
    if obstacle == "link":
        assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_an_interrupted_creation_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    store, report = Store.open(str(tmp_path))
    assert report.created
    assert report.set_aside is None
    store.close()


# --- M10 -------------------------------------------------------------------------------------


def garbage(directory: Path) -> None:
    (directory / DATABASE).write_bytes(b"this is no database" * 1000)


def no_header(directory: Path) -> None:
    with open(directory / DATABASE, "r+b") as file:
        file.write(bytes(100))


def half(directory: Path) -> None:
    os.truncate(directory / DATABASE, (directory / DATABASE).stat().st_size // 2)


def sql(*statements: str) -> Callable[[Path], None]:
    return lambda directory: edit(directory, *statements)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "garbage": garbage,
    "no header": no_header,
    "half of it": half,
    "newer": sql(f"PRAGMA user_version = {LATEST + 1}"),
    "version 0": sql("PRAGMA user_version = 0"),
    "another program's": sql("PRAGMA application_id = 1"),
    "no files table": sql("DROP TABLE files"),
    "other columns": sql("ALTER TABLE jobs RENAME COLUMN state TO status"),
    "bad settings": sql("UPDATE jobs SET settings = '{' WHERE seq = 7"),
    "no settings": sql("UPDATE jobs SET settings = '[]' WHERE seq = 7"),
    "unknown setting": sql("UPDATE jobs SET settings = json_set(settings, '$.colour', 1) WHERE seq = 7"),
    "unknown state": sql("UPDATE jobs SET state = 99 WHERE seq = 7"),
    "unknown kind": sql("UPDATE jobs SET owner_kind = 'WIZARD' WHERE seq = 7"),
    "unknown error": sql('UPDATE jobs SET error = \'{"name":"E_NO","context":1,"message":""}\' WHERE seq = 7'),
    "missing last file": sql("DELETE FROM files WHERE job = 7 AND idx = 2"),
    "missing first file": sql("DELETE FROM files WHERE job = 7 AND idx = 0"),
    "bad ranges": sql("UPDATE files SET ranges = '[[1]]' WHERE job = 7 AND idx = 1"),
    "bad text": sql("UPDATE files SET remote_name = X'FF' WHERE job = 7 AND idx = 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_set_aside_whole_and_a_new_store_begins(tmp_path: Path, damage: str) -> None:
    fill(tmp_path)
    DAMAGES[damage](tmp_path)
    before = (tmp_path / DATABASE).read_bytes()
    store, report = Store.open(str(tmp_path))
    assert report.set_aside is not None
    assert report.set_aside.startswith(f"{tmp_path}/{DATABASE}.corrupt-")
    assert report.reason
    assert report.created
    assert Path(report.set_aside).read_bytes() == before
    assert store.load().jobs == []
    store.commit(Batch(jobs=[JobWrite.of_new(make_job(1))], events=[make_event(1)]))
    store.close()
    store, report = Store.open(str(tmp_path))
    assert report.set_aside is None
    assert store.load().jobs == [make_job(1)]
    store.close()


def test_what_is_set_aside_keeps_its_log_and_never_replaces_anything(tmp_path: Path) -> None:
    kept = set()
    for _ in range(3):
        garbage(tmp_path)
        (tmp_path / f"{DATABASE}-wal").write_bytes(b"the log")
        store, report = Store.open(str(tmp_path))
        store.close()
        assert report.set_aside is not None
        assert Path(report.set_aside + "-wal").read_bytes() == b"the log"
        kept.add(report.set_aside)
    assert len(kept) == 3


def test_what_is_set_aside_can_still_be_read_with_what_was_in_its_log(tmp_path: Path) -> None:
    running = tmp_path / "running"
    crashed = tmp_path / "crashed"
    running.mkdir()
    store, _ = Store.open(str(running))
    store.commit(Batch(jobs=[JobWrite.of_new(make_job(number)) for number in range(5)]))
    edit(running, "UPDATE jobs SET state = 99 WHERE seq = 5")
    shutil.copytree(running, crashed)
    store.close()
    assert (crashed / f"{DATABASE}-wal").stat().st_size > 0
    store, report = Store.open(str(crashed))
    store.close()
    assert report.set_aside is not None
    connection = sqlite3.connect(report.set_aside)
    assert connection.execute("SELECT count(*), max(state) FROM jobs").fetchone() == (5, 99)
    connection.close()


def test_a_page_that_went_bad_is_found_or_harmless(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    loaded = fill(good, jobs=60)
    size = (good / DATABASE).stat().st_size
    luck = random.Random(5)
    outcomes = set()
    for page in range(size // 4096):
        for kind in ("noise", "zeros", "swap"):
            directory = tmp_path / f"{page}-{kind}"
            shutil.copytree(good, directory)
            with open(directory / DATABASE, "r+b") as file:
                file.seek(4096 * luck.randrange(size // 4096))
                other = file.read(4096)
                file.seek(4096 * page)
                file.write({"noise": luck.randbytes(4096), "zeros": bytes(4096), "swap": other}[kind])
            store, report = Store.open(str(directory))
            found = store.load()
            store.close()
            outcomes.add(report.set_aside is None)
            if report.set_aside is None:
                assert found.jobs == loaded.jobs
            else:
                assert found.jobs == []
            shutil.rmtree(directory)
    assert False in outcomes


# --- old versions ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_a_store_of_every_version_is_brought_to_the_latest(tmp_path: Path, version: int) -> None:
    connection = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    for script in load_migrations()[:version]:
        connection.executescript(script)
    connection.executescript((SAMPLES / f"{version:04}.sql").read_text(encoding="utf-8"))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

    store, report = Store.open(str(tmp_path))
    assert report.reason == ""
    assert report.migrated_from == (version if version < LATEST else None)
    loaded = store.load()
    (job,) = loaded.jobs
    assert (job.id, job.state, job.settings.name) == (job_id(1), JobState.TRANSIENT_ERROR, "old job")
    assert job.settings.priority is Priority.HIGH
    assert job.owner.identity.groups == (4, 24)
    assert job.error is not None
    assert job.error.message == "no network"
    assert [file.local_name for file in job.files] == ["/home/alice/a", "/home/\udcff"]
    assert job.files[0].validator.etag == '"v1"'
    assert [(each.offset, each.length) for each in job.files[1].ranges] == [(0, 5), (10, -1)]
    assert loaded.last_event_id == 41
    assert [effect.id for effect in loaded.effects] == [7]
    store.commit(Batch(jobs=[JobWrite.of_new(make_job(2))], events=[make_event(42)]))
    store.close()
    store, report = Store.open(str(tmp_path))
    assert report.migrated_from is None
    assert store.load().jobs == [job, make_job(2)]
    store.close()


# --- full disks ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(tmp_path)], check=True, timeout=10)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def write_until_full(store: Store) -> int:
    """Commit a job after the other; return how many there was room for."""
    for number in range(10_000):
        try:
            store.commit(Batch(jobs=[JobWrite.of_new(make_job(number, files=20))], events=[make_event(number + 1)]))
        except StoreFull:
            return number
    raise AssertionError("the disk never got full")


def test_a_full_disk_applies_nothing_and_the_store_goes_on_when_there_is_room(small_disk: Path) -> None:
    store, _ = Store.open(str(small_disk))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(512 * 1024))
    written = write_until_full(store)
    assert written > 2
    assert [job.id for job in store.load().jobs] == [job_id(number) for number in range(written)]
    assert len(store.events_after(0, limit=10_000)) == written
    with pytest.raises(StoreFull):
        store.commit(Batch(jobs=[JobWrite.of_new(make_job(written, files=100))]))
    filler.unlink()
    store.commit(Batch(jobs=[JobWrite.of_new(make_job(written, files=20))]))
    store.close()
    store, report = Store.open(str(small_disk))
    assert report.set_aside is None
    assert len(store.load().jobs) == written + 1
    store.close()


def test_a_full_disk_at_the_start_moves_nothing(small_disk: Path) -> None:
    loaded = fill(small_disk)
    with open(small_disk / "filler", "wb") as filler, pytest.raises(OSError, match="No space"):
        os.posix_fallocate(filler.fileno(), 0, 2**30)
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize))
    try:
        store, report = Store.open(str(small_disk))
    except StoreFull:
        pass
    else:
        assert report.set_aside is None
        store.close()
    os.unlink(small_disk / "filler")
    assert not list(small_disk.glob("*corrupt*"))
    store, _ = Store.open(str(small_disk))
    assert store.load() == loaded
    store.close()


# --- readers ---------------------------------------------------------------------------------


def test_events_are_read_from_other_threads_while_batches_are_written(tmp_path: Path) -> None:
    store, _ = Store.open(str(tmp_path))
    done = threading.Event()
    seen: list[list[int]] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            last = 0
            while not (done.is_set() and not store.events_after(last, limit=1)):
                page = [event.id for event in store.events_after(last, limit=10)]
                seen.append(page)
                last = page[-1] if page else last
        except BaseException as error:  # noqa: BLE001 - it is reported below
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(1, 301, 3):
        store.commit(Batch(events=[make_event(start + offset) for offset in range(3)]))
    done.set()
    for reader in readers:
        reader.join(timeout=30)
    assert not failures
    assert sum(len(page) for page in seen) == 900
    store.close()
