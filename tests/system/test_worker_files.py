"""What a worker does to files: names, rights, tricks, full disks, operations, file:// sources (D7–D9, J7, J63)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.errors import ErrorContext
from openbits.frames.operations import (
    CheckDirectories,
    DeleteFiles,
    FileResult,
    OperationResults,
    RenameFiles,
    RenameSpec,
)
from openbits.frames.worker import FileDurable, FileReceived, FileSpec, RangeSpec, TransferEnded
from support.origin import Origin, generate
from support.worker_process import WorkerProcess

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing identity need root")
_AS_NOBODY = """
import os, socket, sys
from openbits.worker.main import run
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(url: str, directory: Path, name: str = "out", **more: object) -> FileSpec:
    temporary = str(directory / f".BIT{name}.tmp")
    local = str(directory / name)
    return FileSpec(index=0, remote_name=url, local_name=local, temporary_name=temporary, **more)  # type: ignore[arg-type]  # passed through


def results(worker: WorkerProcess, message: RenameFiles | DeleteFiles | CheckDirectories) -> dict[int, FileResult]:
    """Run an operation; what failed, by index."""
    worker.send(message)
    found: dict[int, FileResult] = {}
    while True:
        answer = worker.wait_for(OperationResults)
        found.update({result.index: result for result in answer.results})
        if answer.last:
            return found


# --- creating --------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_mode_follows_the_umask(worker: WorkerProcess, origin: Origin, tmp_path: Path, umask: int, mode: int) -> None:
    for size in (10, 2_000_000):
        file = spec(origin.url(f"/gen/{size}/1"), tmp_path, str(size))
        assert worker.fetch(file, umask=umask).error == ""
        assert stat.S_IMODE(os.stat(file.temporary_name).st_mode) == mode


def test_default_access_list_of_the_directory_takes_part(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """D8: the file inherits from its folder."""
    try:
        subprocess.run(["setfacl", "-d", "-m", "g::rwx,u:12345:rw,o::---", tmp_path], check=True, timeout=10)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no access lists here")
    file = spec(origin.url("/gen/10/1"), tmp_path)
    assert worker.fetch(file, umask=0o077).error == ""
    assert stat.S_IMODE(os.stat(file.temporary_name).st_mode) == 0o660


@pytest.mark.parametrize("size", [1000, 3_000_000])
@pytest.mark.parametrize("trick", ["symlink", "dangling", "hardlink", "fifo", "directory"])
def test_what_stands_at_the_temporary_name_is_never_written_through(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, trick: str, size: int
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    file = spec(origin.url(f"/gen/{size}/2"), tmp_path)
    planted = Path(file.temporary_name)
    match trick:
        case "symlink":
            planted.symlink_to(victim)
        case "dangling":
            planted.symlink_to(tmp_path / "new")
        case "hardlink":
            os.link(victim, planted)
        case "fifo":
            os.mkfifo(planted)
        case "directory":
            planted.mkdir()
    ended = worker.fetch(file)
    if trick == "directory":
        assert ended.error == "ERROR_FILE_EXISTS"
        assert ended.context == ErrorContext.LOCAL_FILE
        assert str(planted) in ended.message
    else:
        assert ended.error == ""
        assert planted.read_bytes() == generate(size, 2)
        assert not planted.is_symlink()
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "new").exists()


def test_resumption_does_not_follow_a_planted_link(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 100_000)
    file = spec(origin.url("/gen/900000/3"), tmp_path, durable_bytes=400_000, size=900_000, etag='"v3-900000"')
    os.symlink(victim, file.temporary_name)
    assert worker.fetch(file).error == ""
    assert Path(file.temporary_name).read_bytes() == generate(900_000, 3)
    assert victim.read_bytes() == b"precious" * 100_000
    assert "temporary file" in worker.started()[0].restarted


def test_directory_that_is_swapped_for_a_link_is_still_the_directory(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    real, moved, elsewhere = tmp_path / "real", tmp_path / "moved", tmp_path / "elsewhere"
    real.mkdir()
    elsewhere.mkdir()
    worker.begin(
        FileSpec(
            index=0,
            remote_name=origin.url("/gen/2000000/4?rate=2000000"),
            local_name=str(real / "a"),
            temporary_name=str(real / ".BITa.tmp"),
        ),
        FileSpec(
            index=1,
            remote_name=origin.url("/gen/10/5"),
            local_name=str(real / "b"),
            temporary_name=str(real / ".BITb.tmp"),
        ),
    )
    worker.wait_for(FileReceived)
    real.rename(moved)
    real.symlink_to(elsewhere)
    assert worker.wait_for(TransferEnded).error == ""
    assert (moved / ".BITa.tmp").read_bytes() == generate(2_000_000, 4)
    assert (moved / ".BITb.tmp").read_bytes() == generate(10, 5)
    assert os.listdir(elsewhere) == []


def test_leftover_of_an_earlier_run_is_used_again(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin.url("/gen/1000/6"), tmp_path)
    Path(file.temporary_name).write_bytes(b"left over" * 1000)
    inode = os.stat(file.temporary_name).st_ino
    assert worker.fetch(file).error == ""
    assert Path(file.temporary_name).read_bytes() == generate(1000, 6)
    assert os.stat(file.temporary_name).st_ino == inode


def test_missing_directory(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path / "none"))
    assert (ended.error, ended.transient) == ("ERROR_PATH_NOT_FOUND", False)
    assert ended.context == ErrorContext.LOCAL_FILE


@needs_root
def test_directory_without_rights(origin: Origin, tmp_path: Path) -> None:
    with WorkerProcess(program=_AS_NOBODY) as worker:
        assert (worker.ready.uid, worker.ready.gid, worker.ready.groups) == (65534, 65534, ())
        ended = worker.fetch(spec(origin.url("/gen/10/1"), Path("/etc")))
        assert (ended.error, ended.transient) == ("E_ACCESSDENIED", False)
        assert ended.context == ErrorContext.LOCAL_FILE
        assert "/etc" in ended.message


# --- full disks ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs", where], check=False, timeout=10
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield where
    subprocess.run(["umount", "-l", where], check=True, timeout=10)


@needs_root
@pytest.mark.parametrize("query", ["", "chunked=1", "chunked=1&rate=8000000", "length=no"])
def test_full_disk_keeps_what_came_and_goes_on(
    worker: WorkerProcess, origin: Origin, small_disk: Path, query: str
) -> None:
    size = 3_000_000
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"b" * 2_000_000)
    url = origin.url(f"/gen/{size}/20?{query}")
    ended = worker.fetch(spec(url, small_disk))
    assert (ended.error, ended.transient) == ("ERROR_DISK_FULL", True)
    assert ended.context == ErrorContext.LOCAL_FILE
    assert "room" in ended.message
    durable = worker.durable_bytes()
    started = worker.started()[-1]
    if query:
        assert durable > 1_000_000
        assert Path(spec(url, small_disk).temporary_name).read_bytes()[:durable] == generate(size, 20, 0, durable)
    ballast.unlink()
    file = spec(
        url,
        small_disk,
        durable_bytes=durable,
        size=started.size,
        etag=started.etag,
        last_modified=started.last_modified,
    )
    assert worker.fetch(file, transfer=2).error == ""
    assert Path(file.temporary_name).read_bytes() == generate(size, 20)


@needs_root
def test_full_disk_is_noticed_before_connecting_when_the_size_is_known(
    worker: WorkerProcess, origin: Origin, small_disk: Path
) -> None:
    file = spec(origin.url("/gen/9000000/21"), small_disk, durable_bytes=1000, size=9_000_000, etag='"v21-9000000"')
    Path(file.temporary_name).write_bytes(generate(9_000_000, 21, 0, 1000))
    ended = worker.fetch(file)
    assert (ended.error, ended.transient) == ("ERROR_DISK_FULL", True)
    assert origin.requests_of("/gen/9000000/21") == []


@needs_root
def test_many_small_files_until_the_disk_is_full(worker: WorkerProcess, origin: Origin, small_disk: Path) -> None:
    files = [
        FileSpec(
            index=index,
            remote_name=origin.url(f"/gen/100000/{index}"),
            local_name=str(small_disk / str(index)),
            temporary_name=str(small_disk / f".BIT{index}.tmp"),
        )
        for index in range(60)
    ]
    ended = worker.fetch(*files, file_concurrency=4)
    assert (ended.error, ended.transient) == ("ERROR_DISK_FULL", True)
    assert len(worker.done) >= 30
    for done in worker.done:
        assert Path(files[done.index].temporary_name).read_bytes() == generate(100_000, done.index)


def test_file_size_limit(origin: Origin, tmp_path: Path) -> None:
    program = """
import resource, signal, socket, sys
from openbits.worker.main import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
    with WorkerProcess(program=program) as worker:
        for number, query in enumerate(("", "chunked=1")):
            ended = worker.fetch(spec(origin.url(f"/gen/2000000/22?{query}"), tmp_path), transfer=number)
            assert (ended.error, ended.transient) == ("ERROR_FILE_TOO_LARGE", False)


# --- durability ------------------------------------------------------------------------------


def test_checkpoints_come_by_bytes_and_by_time(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin.url("/gen/3000000/30?rate=2000000"), tmp_path)
    assert worker.fetch(file, checkpoint_bytes=500_000, checkpoint_s=60.0).error == ""
    by_bytes = [message.durable_bytes for message in worker.all(FileDurable)]
    assert 3 <= len(by_bytes) <= 6
    worker.messages.clear()
    assert worker.fetch(file, checkpoint_bytes=1 << 40, checkpoint_s=0.3, transfer=2).error == ""
    by_time = [message.durable_bytes for message in worker.all(FileDurable)]
    assert 2 <= len(by_time) <= 8
    assert by_time == sorted(by_time)


def test_bytes_are_synced_before_they_are_called_durable(origin: Origin, tmp_path: Path) -> None:
    """D15: the system calls themselves, in their order, as the kernel saw them."""
    trace = tmp_path / "trace"
    program = f"""
import os, socket, sys
log = open({str(trace)!r}, "a", buffering=1)
for name in ("fdatasync", "fsync"):
    def wrap(fd, name=name, real=getattr(os, name)):
        real(fd)
        log.write(name + " " + os.readlink(f"/proc/self/fd/{{fd}}") + "\\n")
    setattr(os, name, wrap)
from openbits.frames.channel import Channel
send = Channel.send
def told(self, message, descriptors=()):
    log.write(type(message).__name__ + "\\n")
    send(self, message, descriptors)
Channel.send = told
from openbits.worker.main import run
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
    with WorkerProcess(program=program) as worker:
        file = spec(origin.url("/gen/1000000/31?rate=1000000"), tmp_path)
        assert worker.fetch(file, checkpoint_s=0.3).error == ""
    lines = trace.read_text().splitlines()
    first = lines.index("FileDurable")
    assert f"fdatasync {file.temporary_name}" in lines[:first]
    assert f"fsync {tmp_path}" in lines[:first]
    done = lines.index("FilesDone")
    last_durable = max(at for at, line in enumerate(lines) if line == "FileDurable")
    assert f"fsync {file.temporary_name}" in lines[last_durable:done]


# --- operations ------------------------------------------------------------------------------


def test_rename(worker: WorkerProcess, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"target")
    directory = tmp_path / "directory"
    directory.mkdir()
    cases = {0: "plain", 1: "replaced", 2: "link", 3: "directory", 4: "already", 5: "lost", 6: "none/x"}
    (tmp_path / "replaced").write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "already").write_bytes(b"new4")
    for index in (0, 1, 2, 3, 6):
        (tmp_path / f".BIT{index}.tmp").write_bytes(f"new{index}".encode())
    files = tuple(
        RenameSpec(index=index, temporary_name=str(tmp_path / f".BIT{index}.tmp"), local_name=str(tmp_path / name))
        for index, name in cases.items()
    )
    worker.send(RenameFiles(operation=5, files=files[:3], last=False))
    failed = results(worker, RenameFiles(operation=5, files=files[3:], last=True))
    assert {index: result.error for index, result in failed.items()} == {
        3: "ERROR_FILE_EXISTS",
        5: "ERROR_FILE_NOT_FOUND",
        6: "ERROR_PATH_NOT_FOUND",
    }
    assert all(cases[index].split("/")[0] in result.message for index, result in failed.items())
    for index in (0, 1, 2, 4):
        assert (tmp_path / cases[index]).read_bytes() == f"new{index}".encode()
    assert not (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"target"
    assert set(results(worker, RenameFiles(operation=6, files=files[:3], last=True))) == set()


def test_ten_thousand_renames_are_quick(worker: WorkerProcess, tmp_path: Path) -> None:
    for index in range(10_000):
        (tmp_path / f".BIT{index}.tmp").touch()
    start = time.monotonic()
    for at in range(0, 10_000, 400):
        worker.send(
            RenameFiles(
                operation=7,
                files=tuple(
                    RenameSpec(
                        index=index,
                        temporary_name=str(tmp_path / f".BIT{index}.tmp"),
                        local_name=str(tmp_path / f"final{index}"),
                    )
                    for index in range(at, at + 400)
                ),
                last=at == 9600,
            )
        )
    assert worker.wait_for(OperationResults).results == ()
    assert time.monotonic() - start < 5
    assert len(os.listdir(tmp_path)) == 10_000
    assert (tmp_path / "final9999").exists()


def test_delete(worker: WorkerProcess, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "directory").mkdir()
    paths = tuple(str(tmp_path / name) for name in ("a", "link", "never", "none/x", "directory"))
    failed = results(worker, DeleteFiles(operation=8, paths=paths, last=True))
    assert set(failed) == {4}
    assert failed[4].error == "ERROR_FILE_EXISTS"
    assert sorted(os.listdir(tmp_path)) == ["directory", "victim"]


@needs_root
def test_check_directories(tmp_path: Path) -> None:
    """D7."""
    (tmp_path / "file").touch()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "inside").mkdir()
    for path in (tmp_path, *tmp_path.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    paths = ("/tmp", str(tmp_path), str(tmp_path / "none"), str(tmp_path / "file"), str(closed / "inside"), "/proc")
    with WorkerProcess(program=_AS_NOBODY) as worker:
        failed = results(worker, CheckDirectories(operation=9, paths=paths))
    assert {index: result.error for index, result in failed.items()} == {
        1: "E_ACCESSDENIED",
        2: "ERROR_PATH_NOT_FOUND",
        3: "ERROR_PATH_NOT_FOUND",
        4: "E_ACCESSDENIED",
        5: "E_ACCESSDENIED",
    }
    assert all(paths[index] in result.message for index, result in failed.items())


def test_names_of_any_bytes(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff\n")
    file = spec(origin.url("/gen/10/1"), tmp_path, name)
    assert worker.fetch(file).error == ""
    rename = RenameSpec(index=0, temporary_name=file.temporary_name, local_name=file.local_name)
    assert results(worker, RenameFiles(operation=1, files=(rename,), last=True)) == {}
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9 \xff\n"]


# --- file:// sources -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 20_000_001])
def test_copy(worker: WorkerProcess, tmp_path: Path, size: int) -> None:
    source = tmp_path / "with space"
    source.write_bytes(generate(size, 60))
    os.utime(source, (1_600_000_000, 1_600_000_000))
    (tmp_path / "link").symlink_to(source)
    for number, url in enumerate((f"file://{tmp_path}/with%20space", f"file://localhost{tmp_path}/link")):
        digest = hashlib.sha512(generate(size, 60)).hexdigest()
        file = spec(url, tmp_path, f"out{number}", checksum=f"sha512:{digest}")
        assert worker.fetch(file, transfer=number).error == ""
        assert Path(file.temporary_name).read_bytes() == generate(size, 60)
        assert os.stat(file.temporary_name).st_mtime == 1_600_000_000
    assert worker.started()[0].bytes_total == size


def test_copy_of_ranges(worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(generate(100_000, 61))
    ranges = (RangeSpec(offset=500, length=100), RangeSpec(offset=0, length=5), RangeSpec(offset=99_000, length=-1))
    file = spec(f"file://{tmp_path}/source", tmp_path, ranges=ranges)
    assert worker.fetch(file).error == ""
    data = generate(100_000, 61)
    assert Path(file.temporary_name).read_bytes() == data[500:600] + data[:5] + data[99_000:]


@pytest.mark.parametrize("changed", [False, True])
def test_copy_continues_only_with_the_same_source(worker: WorkerProcess, tmp_path: Path, changed: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(generate(1_000_000, 62))
    url = f"file://{source}"
    assert worker.fetch(spec(url, tmp_path, "first")).error == ""
    started = worker.started()[-1]
    if changed:
        source.write_bytes(generate(1_000_000, 63))
    file = spec(
        url,
        tmp_path,
        durable_bytes=400_000,
        size=1_000_000,
        etag=started.etag,
        last_modified=started.last_modified,
    )
    Path(file.temporary_name).write_bytes(generate(1_000_000, 62, 0, 400_000) + b"tail")
    assert worker.fetch(file, transfer=2).error == ""
    assert Path(file.temporary_name).read_bytes() == generate(1_000_000, 63 if changed else 62)
    assert bool(worker.started()[-1].restarted) is changed


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/none", "ERROR_FILE_NOT_FOUND"),
        ("/", "E_ACCESSDENIED"),
        ("/fifo", "E_ACCESSDENIED"),
        ("//elsewhere/x", "ERROR_WINHTTP_INVALID_URL"),
    ],
)
def test_sources_that_cannot_be_copied(worker: WorkerProcess, tmp_path: Path, path: str, error: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    url = f"file:{path}" if path.startswith("//") else f"file://{tmp_path}{path}"
    ended = worker.fetch(spec(url, tmp_path))
    assert (ended.error, ended.transient, ended.context) == (error, False, ErrorContext.REMOTE_FILE)


@needs_root
def test_source_that_the_owner_may_not_read(tmp_path: Path) -> None:
    with WorkerProcess(program=_AS_NOBODY) as worker:
        ended = worker.fetch(spec("file:///etc/shadow", Path("/tmp"), f"x{os.getpid()}"))
        assert (ended.error, ended.context) == ("E_ACCESSDENIED", ErrorContext.REMOTE_FILE)
    with contextlib.suppress(OSError):
        os.unlink(f"/tmp/.BITx{os.getpid()}.tmp")
