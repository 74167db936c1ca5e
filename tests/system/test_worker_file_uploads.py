"""Uploads whose remote name is file:// (M7, D6, D9): whole or not at all, with the source's time, taken up again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.worker import FileHandle, FileSpec, FileWanted, TransferEnded, UploadFile, UploadMoved
from support.accounts import needs_root
from support.mounts import small_disk
from support.upload_orders import KIBI, MEBI, again, make
from support.worker_process import WorkerProcess


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in" / "file"


def order(source: Path, target: Path, **more: Any) -> UploadFile:
    file = FileSpec(index=0, remote_name=target.as_uri(), local_name=str(source), temporary_name="")
    return UploadFile(**{"transfer": 1, "file": file, "protocol": "auto", "memory": "", **more})


def assert_copied(ended: TransferEnded, worker: WorkerProcess, source: Path, target: Path) -> None:
    assert (ended.error, ended.message) == ("", "")
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert [(file.index, file.size) for file in worker.done] == [(0, source.stat().st_size)]
    assert os.listdir(target.parent) == [target.name], "nothing is left beside it"


@pytest.mark.parametrize("size", [0, 1, 30 * MEBI + 5])
def test_a_file_is_copied_with_its_time(worker: WorkerProcess, tmp_path: Path, target: Path, size: int) -> None:
    source, _ = make(tmp_path, size)
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))
    assert_copied(worker.upload(order(source, target), umask=0o027), worker, source, target)
    assert target.stat().st_mode & 0o777 == 0o640
    assert worker.started()[0].size == size


def test_what_has_the_name_is_replaced_at_once(worker: WorkerProcess, tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 20 * MEBI)
    victim = tmp_path / "victim"
    victim.write_bytes(b"not to be touched")
    target.symlink_to(victim)
    assert_copied(worker.upload(order(source, target)), worker, source, target)
    assert victim.read_bytes() == b"not to be touched"


def test_the_hidden_files_name_is_written_down_before_it_is_made(
    worker: WorkerProcess, tmp_path: Path, target: Path
) -> None:
    source, _ = make(tmp_path, MEBI)
    worker.keeps = False
    worker.begin_upload(order(source, target))
    moved = worker.wait_for(UploadMoved)
    assert moved.is_awaited
    assert worker.receive(0.5) is None
    assert os.listdir(target.parent) == []
    assert worker.stop().error == ""
    assert_copied(
        worker.upload(replace(order(source, target), transfer=2, memory=moved.memory)), worker, source, target
    )


def interrupted(worker: WorkerProcess, first: UploadFile) -> UploadFile:
    """Let some of it become durable, then kill the worker; returns the order of the next run."""
    worker.begin_upload(first, checkpoint_bytes=8 * MEBI)
    worker.wait_for(UploadMoved, lambda moved: moved.acknowledged_bytes >= 8 * MEBI)
    worker.kill()
    return again(worker, first)


def test_a_killed_copy_goes_on_after_its_durable_bytes(tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 400 * MEBI)
    with WorkerProcess() as worker:
        second = interrupted(worker, order(source, target))
    assert not target.exists()
    with WorkerProcess() as worker:
        assert_copied(worker.upload(second), worker, source, target)
        assert worker.started()[0].offset == second.file.durable_bytes > 0


def test_a_changed_source_is_an_error_and_then_copied_anew(tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 400 * MEBI)
    with WorkerProcess() as worker:
        second = interrupted(worker, order(source, target))
    source.write_bytes(b"something else")
    with WorkerProcess() as worker:
        ended = worker.upload(second)
        assert (ended.error, ended.context) == ("BG_E_LOCAL_FILE_CHANGED", ErrorContext.LOCAL_FILE)
        assert not target.exists()
        third = replace(second, transfer=3, file=replace(second.file, size=None, last_modified=None, durable_bytes=0))
        assert_copied(worker.upload(third), worker, source, target)


def test_a_cancelled_copy_leaves_nothing(tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 400 * MEBI)
    target.write_bytes(b"as it was")
    with WorkerProcess() as worker:
        second = interrupted(worker, order(source, target))
    assert len(os.listdir(target.parent)) == 2
    with WorkerProcess() as worker:
        assert worker.upload(replace(second, only_cancels=True)).error == ""
        assert [file.index for file in worker.done] == [0]
    assert os.listdir(target.parent) == [target.name]
    assert target.read_bytes() == b"as it was"


def test_a_memory_of_another_place_deletes_nothing(worker: WorkerProcess, tmp_path: Path, target: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    memory = f'{{"protocol": "file", "temporary": "{precious}"}}'
    assert worker.upload(order(precious, target, memory=memory, only_cancels=True)).error == ""
    assert precious.exists()


def test_a_stop_keeps_what_was_copied(worker: WorkerProcess, tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 400 * MEBI)
    first = order(source, target)
    worker.begin_upload(first, checkpoint_bytes=8 * MEBI)
    worker.wait_for(UploadMoved, lambda moved: moved.acknowledged_bytes > 0)
    ended = worker.stop()
    assert ended.error == ""
    if not worker.done:
        assert_copied(worker.upload(again(worker, first)), worker, source, target)


@pytest.mark.parametrize(
    ("name", "error"), [("missing/file", "ERROR_PATH_NOT_FOUND"), ("in/directory", "ERROR_FILE_EXISTS")]
)
def test_errors_of_the_destination_are_the_remote_files(
    worker: WorkerProcess, tmp_path: Path, target: Path, name: str, error: str
) -> None:
    (target.parent / "directory").mkdir()
    source, _ = make(tmp_path, KIBI)
    ended = worker.upload(order(source, tmp_path / name))
    assert (ended.error, ended.context, ended.index) == (error, ErrorContext.REMOTE_FILE, 0)


def test_errors_of_the_source_are_the_local_files(worker: WorkerProcess, tmp_path: Path, target: Path) -> None:
    ended = worker.upload(order(tmp_path / "missing", target))
    assert (ended.error, ended.context) == ("ERROR_FILE_NOT_FOUND", ErrorContext.LOCAL_FILE)
    assert os.listdir(target.parent) == []


@needs_root
def test_a_full_disk_waits_for_room(worker: WorkerProcess, tmp_path: Path) -> None:
    source, _ = make(tmp_path, 20 * MEBI)
    with small_disk(str(tmp_path / "small"), 4 * MEBI) as small:
        ended = worker.upload(order(source, Path(small) / "file"))
        assert (ended.error, ended.transient) == ("ERROR_DISK_FULL", True)
        assert ended.context == ErrorContext.REMOTE_FILE
        assert not (Path(small) / "file").exists()


def test_the_source_may_come_as_a_handle(worker: WorkerProcess, tmp_path: Path, target: Path) -> None:
    source, _ = make(tmp_path, 3 * MEBI)
    worker.begin_upload(order(source, target), takes_handles=True)
    assert worker.wait_for(FileWanted).index == 0
    with source.open("rb") as file:
        worker.channel.send(FileHandle(transfer=1, index=0), (file.fileno(),))
    assert_copied(worker.wait_for(TransferEnded), worker, source, target)
