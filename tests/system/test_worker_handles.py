"""A real worker that is handed its files, and a real worker that opens files for another (T3).

The test is the service, and a hostile one where that matters: what a worker is handed may come from an account that
wants it to hang, to crash or to write where it should not.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbits.errors import ErrorContext
from openbits.frames.operations import FileOpened, OpenFile
from openbits.frames.worker import HANDLES_AHEAD, FileHandle, FileSpec, FileWanted, TransferEnded
from support.origin import Origin, generate
from support.worker_process import TIMEOUT_S, WorkerProcess

SIZE = 20_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(
    origin: Origin, directory: Path, index: int = 0, *, size: int = 1000, query: str = "", **more: object
) -> FileSpec:
    return FileSpec(
        index=index,
        remote_name=origin.url(f"/gen/{size}/{index}{query}"),
        local_name=str(directory / f"file{index}"),
        temporary_name=str(directory / f"temporary{index}"),
        **more,  # type: ignore[arg-type]  # a test says what it wants
    )


def hand(worker: WorkerProcess, index: int, fd: int, *, transfer: int = 1, kept: bool = False) -> None:
    worker.channel.send(FileHandle(transfer=transfer, index=index, kept=kept), (fd,))


def hand_file(worker: WorkerProcess, path: str, index: int = 0, *, kept: bool = False) -> None:
    """Hand over a file that was opened properly."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    hand(worker, index, fd, kept=kept)
    os.close(fd)


def descriptors(worker: WorkerProcess) -> int:
    """How many descriptors a worker has, without those that wake loops and threads up."""
    links = []
    for entry in os.listdir(f"/proc/{worker.process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{worker.process.pid}/fd/{entry}"))
    return sum(not link.startswith("anon_inode:") for link in links)


def wanted(worker: WorkerProcess) -> list[int]:
    return [message.index for message in worker.all(FileWanted)]


def ended(worker: WorkerProcess) -> TransferEnded:
    return worker.wait_for(TransferEnded)


# --- the worker that is handed files -----------------------------------------------------------------------------


def test_files_are_asked_for_in_order_each_once_and_a_few_ahead(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    files = [spec(origin, tmp_path, index) for index in range(40)]
    worker.begin(*files, takes_handles=True)
    worker.wait_for(FileWanted, lambda message: message.index == HANDLES_AHEAD - 1)
    assert worker.receive(0.3) is None
    assert wanted(worker) == list(range(HANDLES_AHEAD))
    # Whatever the order in which they come, files begin in their own (Q2).
    for index in reversed(range(HANDLES_AHEAD)):
        hand_file(worker, files[index].temporary_name, index)
    handed = HANDLES_AHEAD
    while handed < len(files):
        worker.receive()
        for index in wanted(worker)[handed:]:
            hand_file(worker, files[index].temporary_name, index)
            handed += 1
    assert not ended(worker).error
    assert wanted(worker) == list(range(40))
    assert sorted(file.index for file in worker.done) == list(range(40))
    begun = [int(request.path.rpartition("/")[2]) for request in origin.requests]
    assert begun[-40:] == list(range(40))
    for file in files:
        assert Path(file.temporary_name).read_bytes() == generate(1000, file.index)


def test_a_large_file_goes_through_a_handle_without_a_copy(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    file = spec(origin, tmp_path, size=SIZE)
    worker.begin(file, takes_handles=True, checkpoint_bytes=4_000_000)
    worker.wait_for(FileWanted)
    hand_file(worker, file.temporary_name)
    assert not ended(worker).error
    assert Path(file.temporary_name).read_bytes() == generate(SIZE, 0)
    assert worker.durable_bytes() > 0


def test_what_is_there_already_is_gone_on_with(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "temporary0"
    path.write_bytes(generate(SIZE, 0, 0, 5_000_000))
    file = spec(origin, tmp_path, size=SIZE, durable_bytes=5_000_000, etag=f'"v0-{SIZE}"')
    worker.begin(file, takes_handles=True)
    worker.wait_for(FileWanted)
    hand_file(worker, str(path), kept=True)
    assert not ended(worker).error
    assert [started.offset for started in worker.started()] == [5_000_000]
    assert path.read_bytes() == generate(SIZE, 0)


@pytest.mark.parametrize("kept", [True, False])
def test_a_file_that_is_not_as_it_was_left_begins_again(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, kept: bool
) -> None:
    path = tmp_path / "temporary0"
    path.write_bytes(b"x" * (10 if kept else 6_000_000))
    file = spec(origin, tmp_path, size=SIZE, durable_bytes=5_000_000, etag=f'"v0-{SIZE}"')
    worker.begin(file, takes_handles=True)
    worker.wait_for(FileWanted)
    hand_file(worker, str(path), kept=kept)
    assert not ended(worker).error
    [started] = worker.started()
    assert (started.offset, bool(started.restarted)) == (0, True)
    assert path.read_bytes() == generate(SIZE, 0)


def _socket(_: Path) -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def _pipe(_: Path) -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _opened(path: str | None, flags: int) -> Callable[[Path], int]:
    return lambda directory: os.open(path or str(directory / "it"), flags | os.O_CREAT * (path is None), 0o600)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_pipe, id="pipe"),
        pytest.param(_socket, id="socket"),
        pytest.param(lambda directory: os.open(directory, os.O_RDONLY), id="directory"),
        pytest.param(_opened("/dev/full", os.O_RDWR), id="device"),
        pytest.param(_opened("/proc/self/oom_score_adj", os.O_RDWR), id="proc"),
        pytest.param(_opened("/sys/kernel/mm/transparent_hugepage/enabled", os.O_RDWR), id="sys"),
        pytest.param(_opened(None, os.O_RDONLY), id="read only"),
        pytest.param(_opened(None, os.O_WRONLY), id="write only"),
        pytest.param(_opened(None, os.O_RDWR | os.O_APPEND), id="append"),
        pytest.param(_opened("/etc/passwd", os.O_PATH), id="path"),
    ],
)
def test_what_is_no_file_to_write_to_is_an_error_and_no_crash(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, make: Callable[[Path], int]
) -> None:
    try:
        fd = make(tmp_path)
    except OSError as error:
        pytest.skip(f"not to be had here: {error}")
    before = descriptors(worker)
    asked = len(origin.requests)
    worker.begin(spec(origin, tmp_path), spec(origin, tmp_path, 1), takes_handles=True)
    worker.wait_for(FileWanted, lambda message: message.index == 1)
    hand_file(worker, str(tmp_path / "temporary1"), 1)
    hand(worker, 0, fd)
    os.close(fd)
    end = ended(worker)
    assert (end.error, end.context, end.index, end.transient) == ("E_ACCESSDENIED", ErrorContext.LOCAL_FILE, 0, False)
    assert len(origin.requests) == asked
    wait_until_equal(lambda: descriptors(worker), before)


def test_a_refusal_is_the_files_failure_when_its_turn_comes(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    worker.begin(spec(origin, tmp_path), spec(origin, tmp_path, 1), takes_handles=True)
    worker.wait_for(FileWanted, lambda message: message.index == 1)
    worker.send(FileHandle(transfer=1, index=1, error="ERROR_DISK_FULL", message="no room", transient=True))
    hand_file(worker, str(tmp_path / "temporary0"))
    end = ended(worker)
    assert (end.error, end.context, end.index, end.transient) == ("ERROR_DISK_FULL", ErrorContext.LOCAL_FILE, 1, True)
    assert [file.index for file in worker.done] == [0]


def test_handles_that_nobody_asked_for_are_closed(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    before = descriptors(worker)
    for transfer, index in ((1, 0), (99, 0), (-1, 7)):
        hand(worker, index, 0, transfer=transfer)
    file = spec(origin, tmp_path)
    worker.begin(file, takes_handles=True)
    for _ in range(3):
        hand(worker, 5, 0)
    worker.wait_for(FileWanted)
    hand_file(worker, file.temporary_name)
    hand_file(worker, file.temporary_name)
    assert not ended(worker).error
    # A transfer that opens its own files takes none.
    hand(worker, 3, 0, transfer=2)
    assert not worker.fetch(spec(origin, tmp_path, 3), transfer=2).error
    wait_until_equal(lambda: descriptors(worker) <= before + 4, True)  # a connection that is kept, helper threads


def test_a_transfer_that_is_stopped_while_it_waits_keeps_nothing(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    before = descriptors(worker)
    worker.begin(*(spec(origin, tmp_path, index) for index in range(4)), takes_handles=True)
    worker.wait_for(FileWanted, lambda message: message.index == 3)
    for index in (1, 2):
        hand_file(worker, str(tmp_path / f"temporary{index}"), index)
    assert not worker.stop().error
    for index in (0, 3):
        hand_file(worker, str(tmp_path / f"temporary{index}"), index)
    wait_until_equal(lambda: descriptors(worker), before)


# --- the worker that opens files -----------------------------------------------------------------------------------


def ask(worker: WorkerProcess, path: Path, *, durable_bytes: int = 0, umask: int = 0o022) -> tuple[FileOpened, int]:
    """Ask for a file; the answer, and the descriptor or -1."""
    worker.send(OpenFile(operation=7, temporary_name=str(path), durable_bytes=durable_bytes, umask=umask))
    ready, _, _ = select.select([worker.channel], [], [], TIMEOUT_S)
    assert ready, "no answer"
    received = worker.channel.receive()
    assert received is not None
    message, fds = received
    assert isinstance(message, FileOpened)
    assert message.operation == 7
    return message, fds[0] if fds else -1


def test_a_file_is_made_with_the_umask_of_the_job(worker: WorkerProcess, tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o077, 0o600), (0, 0o666)):
        answer, fd = ask(worker, tmp_path / f"file{umask}", umask=umask)
        assert not answer.error
        assert not answer.kept
        os.write(fd, b"content")
        os.close(fd)
        found = (tmp_path / f"file{umask}").stat()
        assert (found.st_mode & 0o777, found.st_size) == (mode, 7)


def test_a_file_of_an_earlier_run_is_kept_if_it_is_long_enough(worker: WorkerProcess, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    for durable, kept in ((100, True), (99, True), (101, False)):
        answer, fd = ask(worker, path, durable_bytes=durable)
        os.close(fd)
        assert answer.kept == kept
    assert path.read_bytes() == b""


@pytest.mark.parametrize("trick", ["symbolic link", "hard link", "fifo", "directory"])
def test_what_stands_in_the_way_is_not_opened(worker: WorkerProcess, tmp_path: Path, trick: str) -> None:
    path, precious = tmp_path / "file", tmp_path / "precious"
    precious.write_bytes(b"precious" * 100)
    match trick:
        case "symbolic link":
            path.symlink_to(precious)
        case "hard link":
            path.hardlink_to(precious)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    answer, fd = ask(worker, path, durable_bytes=10)
    assert not answer.kept
    if trick == "directory":
        assert (answer.error, fd) == ("ERROR_FILE_EXISTS", -1)
    else:
        assert not answer.error
        os.write(fd, b"new")
        os.close(fd)
        assert path.read_bytes() == b"new"
    assert precious.read_bytes() == b"precious" * 100


def test_what_cannot_be_opened_is_said_as_a_sentence(worker: WorkerProcess, tmp_path: Path) -> None:
    before = descriptors(worker)
    answer, fd = ask(worker, tmp_path / "missing" / "file")
    assert (answer.error, fd, answer.transient) == ("ERROR_PATH_NOT_FOUND", -1, False)
    assert "missing" in answer.message
    assert descriptors(worker) == before


def wait_until_equal(look: Callable[[], object], expected: object) -> None:
    """Wait for what the worker does in its own time."""
    deadline = time.monotonic() + 10
    while look() != expected:
        assert time.monotonic() < deadline, f"{look()} is not {expected}"
        time.sleep(0.02)
