"""The file that a worker uploads: whose it must be, and that it must not change (M7; BG_E_LOCAL_FILE_CHANGED)."""

from __future__ import annotations

import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.operations import CheckSources, CopyFile, FileOpened, OpenSource, OperationResults
from openbits.frames.worker import FileHandle, FileSpec, FileWanted, TransferEnded, UploadMoved
from support.accounts import needs_root
from support.fuse import HANGING, fuse_mount
from support.origin import Origin, generate
from support.upload_orders import KIBI, MEBI, again, assert_done, make, order
from support.upload_server import UploadServer, slowly, wait
from support.worker_process import TIMEOUT_S, WorkerProcess

_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from openbits.worker.main import run
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def opened(worker: WorkerProcess) -> tuple[FileOpened, int | None]:
    """The answer, with its descriptor."""
    ready, _, _ = select.select([worker.channel], [], [], TIMEOUT_S)
    assert ready, "no answer"
    received = worker.channel.receive()
    assert received is not None
    message, descriptors = received
    assert isinstance(message, FileOpened)
    return message, descriptors[0] if descriptors else None


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account can look into."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


# --- one content or none -----------------------------------------------------------------------


def touch(path: Path) -> None:
    """Another time, the same bytes."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


CHANGES = pytest.mark.parametrize("change", [touch, append, cut])


def assert_changed(ended: TransferEnded, source: Path) -> None:
    assert (ended.error, ended.transient, ended.index) == ("BG_E_LOCAL_FILE_CHANGED", False, 0)
    assert ended.context == ErrorContext.LOCAL_FILE
    assert str(source) in ended.message
    assert "resume the job" in ended.message


@CHANGES
@pytest.mark.parametrize("nth", [0, 3])
def test_a_source_that_changes_on_the_way_is_an_error(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, change: Callable[[Path], None], nth: int
) -> None:
    source, _ = make(tmp_path, 20 * MEBI)

    def meddle(talk: Any) -> None:
        change(source)
        talk.honest()

    server.on("Fragment", meddle, skip=nth)
    assert_changed(worker.upload(order(server, source)), source)
    assert "/in/file" not in server.files
    assert len(server.of_kind("Fragment")) == nth + 1, "nothing is sent of what is not the same file any more"


@CHANGES
def test_a_source_that_changes_before_the_last_ack_counts_is_an_error(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    source, content = make(tmp_path, 10 * KIBI)

    def meddle(talk: Any) -> None:
        talk.read_body()
        change(source)
        talk.honest()

    server.on("Fragment", meddle)
    assert_changed(worker.upload(order(server, source)), source)
    assert all(move.acknowledged_bytes < len(content) for move in worker.all(UploadMoved))
    assert "Close-Session" not in server.kinds()


@CHANGES
def test_a_source_that_changed_between_runs_is_an_error_and_resume_sends_the_new_content(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    source, _ = make(tmp_path, 20 * MEBI)
    done = threading.Event()
    server.on("Fragment", wait(done), skip=3)
    first = order(server, source)
    worker.begin_upload(first)
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes > MEBI)
    worker.stop()
    done.set()
    change(source)
    second = again(worker, first)
    assert_changed(worker.upload(second), source)
    assert {packet.connection for packet in server.packets} == {1}, "the server hears nothing of it"
    # What the service sends when the owner has resumed the job: nothing is known of the source any more.
    third = again(worker, second, transfer=3)
    third = replace(third, file=replace(third.file, size=None, last_modified=None, durable_bytes=0))
    assert_done(worker.upload(third), worker, server, source.read_bytes())
    assert "Cancel-Session" in server.kinds(), "the session of the old content is not left behind"
    assert worker.started()[-1].restarted


def test_the_same_bytes_with_the_same_time_are_the_same_file(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    """It was restored from a copy while the machine was down: another inode, and no change."""
    source, content = make(tmp_path, 20 * MEBI)
    done = threading.Event()
    server.on("Fragment", wait(done), skip=3)
    first = order(server, source)
    worker.begin_upload(first)
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes > 0)
    worker.stop()
    done.set()
    status = source.stat()
    source.unlink()
    source.write_bytes(content)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert_done(worker.upload(again(worker, first)), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1


# --- which files -------------------------------------------------------------------------------


def missing(directory: Path) -> str:
    return str(directory / "nothing")


def directory_itself(directory: Path) -> str:
    return str(directory)


def fifo(directory: Path) -> str:
    path = str(directory / "fifo")
    os.mkfifo(path)
    return path


def device(_: Path) -> str:
    return "/dev/zero"


def no_size(_: Path) -> str:
    """It says that it has 0 bytes, and has more."""
    return "/proc/version"


def through_a_file(directory: Path) -> str:
    (directory / "plain").write_bytes(b"x")
    return str(directory / "plain" / "x")


def foreign_link(directory: Path) -> str:
    (directory / "secret").write_bytes(b"secret")
    path = directory / "link"
    path.symlink_to("secret")
    os.lchown(path, 65534, 65534)
    return str(path)


def circle(directory: Path) -> str:
    path = directory / "circle"
    path.symlink_to("circle")
    return str(path)


REFUSED = pytest.mark.parametrize(
    ("choose", "name", "words"),
    [
        (missing, "ERROR_FILE_NOT_FOUND", "no such file"),
        (through_a_file, "ERROR_FILE_NOT_FOUND", "no such file"),
        (directory_itself, "E_ACCESSDENIED", "no regular file"),
        (fifo, "E_ACCESSDENIED", "no regular file"),
        (device, "E_ACCESSDENIED", "no regular file"),
        (no_size, "E_ACCESSDENIED", "no regular file"),
        pytest.param(foreign_link, "E_ACCESSDENIED", "of another account", marks=needs_root),
        (circle, "ERROR_READ_FAULT", "symbolic links"),
    ],
)


@REFUSED
def test_what_cannot_be_uploaded_is_an_error_and_nothing_is_sent(
    worker: WorkerProcess,
    server: UploadServer,
    tmp_path: Path,
    choose: Callable[[Path], str],
    name: str,
    words: str,
) -> None:
    path = choose(tmp_path)
    ended = worker.upload(order(server, Path(path)))
    assert (ended.error, ended.transient, ended.index) == (name, False, 0)
    assert ended.context == ErrorContext.LOCAL_FILE
    assert words in ended.message
    assert not server.packets


@REFUSED
def test_the_same_is_said_when_the_file_is_added(
    worker: WorkerProcess, tmp_path: Path, choose: Callable[[Path], str], name: str, words: str
) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"")
    worker.send(CheckSources(operation=1, paths=(str(good), choose(tmp_path))))
    (result,) = worker.wait_for(OperationResults).results
    assert (result.index, result.error) == (1, name)
    assert words in result.message


@needs_root
def test_a_file_that_the_account_may_not_read(server: UploadServer, open_directory: Path) -> None:
    source, _ = make(open_directory, KIBI)
    source.chmod(0o600)
    with WorkerProcess(program=_NOBODY) as worker:
        ended = worker.upload(order(server, source))
        worker.send(CheckSources(operation=1, paths=(str(source),)))
        (result,) = worker.wait_for(OperationResults).results
        worker.send(OpenSource(operation=2, path=str(source)))
        refused, _ = opened(worker)
    for said in (ended, result, refused):
        assert said.error == "E_ACCESSDENIED"
        assert "nobody may not read it" in said.message


def test_links_of_ones_own_are_followed(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    _, content = make(tmp_path, KIBI)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "latest").symlink_to("../source1")
    (tmp_path / "way").symlink_to("inner")
    (tmp_path / "link").symlink_to("way/latest")
    assert_done(worker.upload(order(server, tmp_path / "link")), worker, server, content)


def test_names_of_any_bytes(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    name = os.fsdecode(b'caf\xe9 "quoted"\r\nX-Evil: yes\xff')
    path = tmp_path / name
    path.write_bytes(b"content")
    assert_done(worker.upload(order(server, path)), worker, server, b"content")
    assert all("x-evil" not in packet.headers for packet in server.packets)


@needs_root
def test_a_source_that_hangs_holds_nobody_else(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    mount = str(tmp_path / "hanging")
    with fuse_mount(mount, uid=0, silent_for=HANGING), Origin() as origin:
        worker.begin_upload(order(server, Path(mount) / "file"))
        source, content = make(tmp_path, MEBI)
        assert_done(worker.upload(order(server, source, transfer=2)), worker, server, content)
        target = tmp_path / "target"
        file = FileSpec(
            index=0, remote_name=origin.url("/gen/1000/1"), local_name=str(target), temporary_name=f"{target}.tmp"
        )
        assert worker.fetch(file, transfer=3).error == ""
        begun = time.monotonic()
        assert worker.stop(1).error == ""
        assert time.monotonic() - begun < 2.0


# --- handles -----------------------------------------------------------------------------------


def hand(worker: WorkerProcess, fd: int, index: int = 0) -> None:
    worker.channel.send(FileHandle(transfer=1, index=index), (fd,))


def test_a_source_comes_from_another_identitys_worker(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 5 * MEBI)
    with WorkerProcess() as other:
        other.send(OpenSource(operation=7, path=str(source)))
        answer, fd = opened(other)
    assert fd is not None
    assert answer == FileOpened(operation=7)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    elsewhere = Path("/nonexistent/never/looked/at")
    worker.begin_upload(order(server, elsewhere), takes_handles=True)
    assert worker.wait_for(FileWanted).index == 0
    hand(worker, fd)
    os.close(fd)
    assert_done(worker.wait_for(TransferEnded), worker, server, content)


def _pipe(_: Path) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    "make_fd",
    [
        pytest.param(_pipe, id="pipe"),
        pytest.param(lambda directory: os.open(directory, os.O_RDONLY), id="directory"),
        pytest.param(lambda _: os.open("/dev/zero", os.O_RDONLY), id="device"),
        pytest.param(lambda _: os.open("/proc/self/status", os.O_RDONLY), id="proc"),
        pytest.param(lambda _: os.open("/etc/passwd", os.O_PATH), id="path"),
        pytest.param(lambda directory: os.open(directory / "w", os.O_WRONLY | os.O_CREAT), id="write only"),
    ],
)
def test_what_is_no_file_to_read_from_is_an_error_and_no_crash(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, make_fd: Callable[[Path], int]
) -> None:
    fd = make_fd(tmp_path)
    worker.begin_upload(order(server, tmp_path / "name"), takes_handles=True)
    worker.wait_for(FileWanted)
    hand(worker, fd)
    os.close(fd)
    ended = worker.wait_for(TransferEnded)
    assert (ended.error, ended.transient, ended.index) == ("E_ACCESSDENIED", False, 0)
    assert ended.context == ErrorContext.LOCAL_FILE
    assert not server.packets


def test_a_source_that_is_refused_elsewhere_says_why(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    worker.begin_upload(order(server, tmp_path / "name"), takes_handles=True)
    worker.wait_for(FileWanted)
    worker.send(FileHandle(transfer=1, index=0, error="ERROR_FILE_NOT_FOUND", message="it is not there"))
    ended = worker.wait_for(TransferEnded)
    assert (ended.error, ended.message, ended.index) == ("ERROR_FILE_NOT_FOUND", "it is not there", 0)


def test_a_handle_that_nobody_waits_for_any_more_is_closed(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    worker.begin_upload(order(server, source), takes_handles=True)
    worker.wait_for(FileWanted)
    assert worker.stop().error == ""
    reading, writing = os.pipe()
    hand(worker, writing)
    os.close(writing)
    assert os.read(reading, 1) == b"", "the other end is closed"
    os.close(reading)


# --- copies ------------------------------------------------------------------------------------


def copied(worker: WorkerProcess, path: Path, most_bytes: int) -> tuple[FileOpened, int | None]:
    worker.send(CopyFile(operation=3, path=str(path), most_bytes=most_bytes))
    return opened(worker)


@pytest.mark.parametrize("size", [0, 1, MEBI])
def test_a_copy_is_whole_and_cannot_change(worker: WorkerProcess, tmp_path: Path, size: int) -> None:
    path = tmp_path / "reply"
    path.write_bytes(generate(size, 5))
    answer, fd = copied(worker, path, MEBI)
    assert answer.error == ""
    assert fd is not None
    path.write_bytes(b"something else")
    with os.fdopen(fd, "r+b") as file:
        assert file.read() == generate(size, 5)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, size + 1)


def test_a_file_that_is_too_large_is_not_copied(worker: WorkerProcess, tmp_path: Path) -> None:
    path = tmp_path / "reply"
    path.write_bytes(generate(MEBI + 1, 5))
    answer, fd = copied(worker, path, MEBI)
    assert (answer.error, fd) == ("BG_E_TOO_LARGE", None)
    assert "1,048,576 bytes" in answer.message


@REFUSED
def test_what_is_no_file_is_not_copied(
    worker: WorkerProcess, tmp_path: Path, choose: Callable[[Path], str], name: str, words: str
) -> None:
    answer, fd = copied(worker, Path(choose(tmp_path)), MEBI)
    assert (answer.error, fd) == (name, None)
    assert words in answer.message


def test_a_slow_upload_does_not_keep_operations_waiting(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    server.on("Fragment", slowly(2.0))
    worker.begin_upload(order(server, source))
    worker.wait_for(UploadMoved)
    begun = time.monotonic()
    worker.send(CheckSources(operation=1, paths=(str(source),)))
    worker.wait_for(OperationResults)
    assert time.monotonic() - begun < 1.0
    assert_done(worker.wait_for(TransferEnded), worker, server, content)
