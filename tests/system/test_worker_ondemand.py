"""A worker and files of which pieces are wanted, against servers that answer in every way (J67, F11–F13, F5, D3)."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.core.model import ByteRange
from openbits.core.pieces import merged, without
from openbits.frames.worker import (
    FileReceived,
    FileSpec,
    RangesFilled,
    RangeSpec,
    StopTransfer,
    TransferBroken,
    TransferEnded,
    WantRanges,
)
from support.nginx import running_nginx
from support.origin import Origin, generate
from support.worker_process import WorkerProcess

SIZE = 3_000_000
Pairs = Sequence[tuple[int, int]]


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def specs(pairs: Pairs) -> tuple[RangeSpec, ...]:
    return tuple(RangeSpec(offset=offset, length=length) for offset, length in pairs)


def spec(origin: Origin, path: str, directory: Path, wanted: Pairs, index: int = 0, **more: Any) -> FileSpec:
    return FileSpec(
        index=index,
        remote_name=origin.url(path),
        local_name=str(directory / f"out{index}"),
        temporary_name=str(directory / f".BIT{index}.tmp"),
        on_demand=True,
        wanted=specs(wanted),
        **more,
    )


def told(worker: WorkerProcess, index: int = 0) -> tuple[ByteRange, ...]:
    """What the worker said is durable, each byte once."""
    here: tuple[ByteRange, ...] = ()
    for frame in worker.all(RangesFilled):
        if frame.index == index:
            news = tuple(ByteRange(piece.offset, piece.length) for piece in frame.ranges)
            assert without(news, here) == merged(news), "nothing is told twice"
            here = merged((*here, *news))
    return here


def pairs(ranges: Sequence[ByteRange]) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in ranges]


def check(file: FileSpec, here: Pairs, *, seed: int, size: int = SIZE) -> None:
    """What is here is right, and there is nothing else in the file."""
    data = Path(file.temporary_name).read_bytes()
    for offset, length in here:
        assert data[offset : offset + length] == generate(size, seed, offset, length)
    for hole in without([ByteRange(0, len(data))], [ByteRange(*each) for each in here]):
        assert not any(data[hole.offset : hole.offset + hole.length]), "holes stay holes"


def asked_bytes(origin: Origin, path: str, size: int = SIZE) -> list[int]:
    """Every byte that was asked for, as often as it was."""
    numbers: list[int] = []
    for request in origin.requests_of(path):
        assert request.range is not None
        for each in request.range.removeprefix("bytes=").split(","):
            first, _, last = each.partition("-")
            numbers.extend(range(int(first), min(int(last), size - 1) + 1))
    return numbers


# --- pieces in their places ------------------------------------------------------------------


@pytest.mark.parametrize("multi", ["", "merge", "reverse", "first", "ignore", "whole"])
@pytest.mark.parametrize("query", ["", "chunked=1", "etag=no", "lm=no", "rate=8000000"])
def test_every_way_to_answer(worker: WorkerProcess, origin: Origin, tmp_path: Path, multi: str, query: str) -> None:
    wanted = [(0, 100), (1000, 500), (500_000, 700_000), (2_999_000, -1)]
    file = spec(origin, f"/gen/{SIZE}/1?multi={multi}&{query}", tmp_path, wanted)
    assert worker.fetch(file).error == ""
    here = [*wanted[:3], (2_999_000, 1000)]
    assert pairs(told(worker)) == here
    check(file, here, seed=1)
    assert worker.done == []
    started = worker.started()[0]
    assert (started.bytes_total, started.offset, started.resumable) == (SIZE, 0, True)


def test_holes_take_no_room(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """A piece at the end of a large file: nothing is reserved before it."""
    size = 5_000_000_000
    file = spec(origin, f"/gen/{size}/2", tmp_path, [(4_999_999_000, 500)])
    assert worker.fetch(file).error == ""
    status = os.stat(file.temporary_name)
    assert status.st_size == 4_999_999_500
    assert status.st_blocks * 512 < 1024 * 1024
    assert stat.S_IMODE(status.st_mode) == 0o644, "F5: as the umask says, so that its owner can read it"
    with open(file.temporary_name, "rb") as temporary:
        temporary.seek(4_999_999_000)
        assert temporary.read() == generate(size, 2, 4_999_999_000, 500)


def test_the_whole_file_in_pieces_is_finished(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """S10: when no hole is left the file is whole, dated, and of the right checksum."""
    sha = hashlib.sha256(generate(SIZE, 3)).hexdigest()
    file = spec(origin, f"/gen/{SIZE}/3", tmp_path, [(0, -1)], checksum=f"sha256:{sha}")
    assert worker.fetch(file).error == ""
    assert [(done.index, done.size) for done in worker.done] == [(0, SIZE)]
    check(file, [(0, SIZE)], seed=3)
    assert os.stat(file.temporary_name).st_mtime == 1_700_000_003
    numbers = asked_bytes(origin, f"/gen/{SIZE}/3")
    assert sorted(numbers) == list(range(SIZE)), "nothing is fetched twice"


def test_a_wrong_checksum_drops_everything(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, f"/gen/{SIZE}/4", tmp_path, [(0, -1)], checksum=f"sha256:{'0' * 64}")
    assert worker.fetch(file).error == "ERROR_CRC"
    last = worker.started()[-1]
    assert (last.offset, bool(last.restarted)) == (0, True)


@pytest.mark.parametrize("query", ["", "ranges=no", "etag=no&lm=no"])
def test_an_empty_file(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str) -> None:
    file = spec(origin, f"/gen/0/5?{query}", tmp_path, [(0, -1)])
    assert worker.fetch(file).error == ""
    assert [(done.index, done.size) for done in worker.done] == [(0, 0)]
    assert Path(file.temporary_name).read_bytes() == b""


def test_small_pieces_travel_together(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    wanted = [(index * 5000, 100) for index in range(500)]
    file = spec(origin, f"/gen/{SIZE}/6", tmp_path, wanted)
    assert worker.fetch(file).error == ""
    check(file, wanted, seed=6)
    assert len(origin.requests_of(f"/gen/{SIZE}/6")) <= 9
    assert len({request.connection for request in origin.requests_of(f"/gen/{SIZE}/6")}) == 1


def test_several_files(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    first = spec(origin, f"/gen/{SIZE}/7", tmp_path, [(10, 1000)])
    second = spec(origin, f"/gen/{SIZE}/8", tmp_path, [(0, SIZE)], index=1)
    third = spec(origin, f"/gen/{SIZE}/9", tmp_path, [(2_000_000, 5)], index=2)
    assert worker.fetch(first, second, third, file_concurrency=2).error == ""
    check(first, [(10, 1000)], seed=7)
    check(second, [(0, SIZE)], seed=8)
    check(third, [(2_000_000, 5)], seed=9)
    assert [done.index for done in worker.done] == [1]


# --- wishes while it is at work --------------------------------------------------------------


def test_more_is_wanted_meanwhile(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """F12: the connection stays, and what overlaps is not fetched again."""
    path = f"/gen/{SIZE}/20"
    file = spec(origin, f"{path}?rate=1500000", tmp_path, [(0, 1_000_000)])
    worker.begin(file)
    worker.wait_for(FileReceived, lambda message: message.received_bytes > 0)
    worker.send(WantRanges(transfer=1, index=0, wanted=specs([(0, 1_200_000), (2_000_000, 100)])))
    ended = worker.wait_for(TransferEnded)
    assert ended.error == ""
    here = [(0, 1_200_000), (2_000_000, 100)]
    assert pairs(told(worker)) == here
    check(file, here, seed=20)
    numbers = asked_bytes(origin, path)
    assert len(numbers) == len(set(numbers)) == 1_200_100
    assert len({request.connection for request in origin.requests_of(path)}) == 1
    assert worker.all(TransferBroken) == []


def test_the_position_decides_what_comes_first(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """F11: prefer what is missing from there on."""
    path = f"/gen/{SIZE}/21"
    file = spec(origin, f"{path}?rate=2000000", tmp_path, [(0, SIZE)], position=2_000_000)
    worker.begin(file)
    first = worker.wait_for(RangesFilled)
    assert all(piece.offset >= 2_000_000 for piece in first.ranges)
    worker.send(WantRanges(transfer=1, index=0, wanted=specs([(0, SIZE)]), position=500_000))
    assert worker.wait_for(TransferEnded).error == ""
    check(file, [(0, SIZE)], seed=21)
    offsets = [int(str(request.range).removeprefix("bytes=").partition("-")[0]) for request in origin.requests_of(path)]
    assert offsets[0] == 2_000_000
    assert 500_000 in offsets
    assert min(offsets[: offsets.index(500_000)]) >= 2_000_000
    numbers = asked_bytes(origin, path)
    assert len(numbers) == len(set(numbers)) == SIZE


def test_a_resting_file_is_taken_up_again(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """While another file is still on its way, the transfer goes on, and hears new wishes for the first."""
    first = spec(origin, f"/gen/{SIZE}/22", tmp_path, [(0, 1000)])
    second = spec(origin, f"/gen/{SIZE}/23?rate=1500000", tmp_path, [(0, SIZE)], index=1)
    worker.begin(first, second, file_concurrency=2)
    worker.wait_for(RangesFilled, lambda message: message.index == 0)
    worker.wait_for(FileReceived, lambda message: message.index == 1 and message.received_bytes > 1_000_000)
    worker.send(WantRanges(transfer=1, index=0, wanted=specs([(5000, 1000)])))
    assert worker.wait_for(TransferEnded).error == ""
    check(first, [(0, 1000), (5000, 1000)], seed=22)
    assert pairs(told(worker)) == [(0, 1000), (5000, 1000)]
    numbers = asked_bytes(origin, f"/gen/{SIZE}/22")
    assert len(numbers) == len(set(numbers)) == 2000


def test_wishes_at_any_moment(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """Whatever crosses what, everything that was asked for is here in the end, and right."""
    chance = random.Random(7)
    file = spec(origin, f"/gen/{SIZE}/24?rate=20000000", tmp_path, [(0, 1)])
    worker.begin(file)
    wanted = [(0, 1)]
    for _ in range(40):
        offset = chance.randrange(SIZE - 1)
        wanted.append((offset, chance.randint(1, min(50_000, SIZE - offset))))
        worker.send(WantRanges(transfer=1, index=0, wanted=specs(wanted), position=chance.randrange(SIZE)))
        worker.receive(0.01)
    ended = worker.all(TransferEnded) or [worker.wait_for(TransferEnded)]
    assert ended[0].error == ""
    left = worker_left(file, worker, wanted)
    if left.wanted:
        # It had ended before the last wish came: a service begins another run then.
        assert worker.fetch(left, transfer=2).error == ""
    everything = pairs(merged(ByteRange(*each) for each in wanted))
    assert pairs(told(worker)) == everything
    check(file, everything, seed=24)


def worker_left(file: FileSpec, worker: WorkerProcess, wanted: Pairs, index: int = 0) -> FileSpec:
    """The file as a service would hand it over to the next run."""
    here = told(worker, index)
    started = worker.started(index)[-1]
    return replace(
        file,
        wanted=specs(pairs(without([ByteRange(*each) for each in wanted], here))),
        filled=specs(pairs(here)),
        durable_bytes=here[-1].offset + here[-1].length if here else 0,
        size=started.size,
        etag=started.etag,
        last_modified=started.last_modified,
    )


# --- from run to run -------------------------------------------------------------------------


def test_stopped_and_taken_up(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """J4: what has come in is durable, and is not fetched again."""
    path = f"/gen/{SIZE}/30"
    wanted = [(100_000, 1_500_000), (2_500_000, 400_000)]
    file = spec(origin, f"{path}?rate=2000000", tmp_path, wanted)
    worker.begin(file)
    worker.wait_for(FileReceived, lambda message: message.received_bytes > 300_000)
    worker.send(StopTransfer(transfer=1))
    worker.wait_for(TransferEnded)
    left = worker_left(file, worker, wanted)
    assert left.filled
    before = len(origin.requests_of(path))
    ended = worker.fetch(left, transfer=2)
    assert ended.error == ""
    assert pairs(told(worker)) == wanted
    check(file, wanted, seed=30)
    for request in origin.requests_of(path)[before:]:
        assert request.headers["if-range"] == left.etag
        assert int(str(request.range).removeprefix("bytes=").partition("-")[0]) >= left.wanted[0].offset


def test_killed_and_taken_up(origin: Origin, tmp_path: Path) -> None:
    """kill -9: what was told to be durable is there, and the rest follows."""
    wanted = [(0, 800_000), (1_000_000, 1_000_000)]
    path = f"/gen/{SIZE}/31?rate=1500000"
    with WorkerProcess() as first:
        file = spec(origin, path, tmp_path, wanted)
        first.begin(file, checkpoint_bytes=100_000)
        first.wait_for(FileReceived, lambda message: message.received_bytes > 1_200_000)
        first.kill()
        left = worker_left(file, first, wanted)
        here = told(first)
    assert left.filled
    assert left.wanted
    with WorkerProcess() as second:
        assert second.fetch(left).error == ""
        assert pairs(merged((*here, *told(second)))) == wanted
        assert without(told(second), here) == told(second), "nothing twice"
    check(file, wanted, seed=31)


def test_a_lost_temporary_file_begins_anew_in_another_run(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    """That everything is gone has to be written down before anything takes its place."""
    file = spec(origin, f"/gen/{SIZE}/32", tmp_path, [(0, 1000)])
    assert worker.fetch(file).error == ""
    left = worker_left(file, worker, [(0, 1000), (5000, 100)])
    os.unlink(file.temporary_name)
    before = len(origin.requests_of(f"/gen/{SIZE}/32"))
    assert worker.fetch(left, transfer=2).error == ""
    last = worker.started()[-1]
    assert (last.offset, bool(last.restarted)) == (0, True)
    assert len(origin.requests_of(f"/gen/{SIZE}/32")) == before
    assert worker.fetch(replace(left, filled=(), wanted=specs([(0, 1000), (5000, 100)])), transfer=3).error == ""
    check(file, [(0, 1000), (5000, 100)], seed=32)


def test_connections_that_break(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """R1: taken up in the middle of a piece."""
    file = spec(origin, f"/gen/{SIZE}/33?cut=150000&times=4", tmp_path, [(0, 900_000), (2_000_000, 10)])
    assert worker.fetch(file).error == ""
    assert len(worker.all(TransferBroken)) >= 1
    check(file, [(0, 900_000), (2_000_000, 10)], seed=33)


# --- versions and servers that cannot --------------------------------------------------------


@pytest.mark.parametrize("query", ["", "etag=no", "lm=no", "ifrange=ignore"])
def test_a_file_that_changes_drops_every_piece(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str
) -> None:
    """D3: pieces of two versions never meet, and what was requested before is requested of the new one."""
    path = f"/gen/{SIZE}/40{len(query)}"
    seed = int(path.rpartition("/")[2])
    file = spec(origin, f"{path}?{query}&change_after=1", tmp_path, [(0, 1000)])
    assert worker.fetch(file).error == ""
    left = worker_left(file, worker, [(0, 1000), (2_000_000, 1000)])
    worker.messages.clear()
    assert worker.fetch(left, transfer=2).error == ""
    started = worker.started()
    assert [bool(message.restarted) for message in started] == [True]
    here = [(0, 1000), (2_000_000, 1000)]
    assert pairs(told(worker)) == here
    check(file, here, seed=seed + 1)


def test_a_file_that_changes_all_the_time(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, f"/gen/{SIZE}/45?change_every=1&multi=first", tmp_path, [(0, 10), (100, 10), (200, 10)])
    ended = worker.fetch(file)
    assert (ended.error, ended.transient) == ("BG_E_REMOTE_FILE_CHANGED", True)


@pytest.mark.parametrize("query", ["ranges=no", "etag=no&lm=no", "etag=weak&lm=no", "cr=star"])
def test_servers_without_random_access(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str) -> None:
    """F12: fatal, and the file says that its server cannot."""
    file = spec(origin, f"/gen/{SIZE}/46?{query}", tmp_path, [(0, 1000)])
    ended = worker.fetch(file)
    assert (ended.error, ended.transient) == ("BG_E_RANDOM_ACCESS_NOT_SUPPORTED", False)
    assert "not in on-demand mode" in ended.message
    assert worker.started()[-1].resumable is False
    assert told(worker) == ()


@pytest.mark.parametrize("wanted", [[(0, 10), (SIZE, 1)], [(SIZE - 1, 2)], [(SIZE + 10, -1)]])
def test_ranges_outside_of_the_file(worker: WorkerProcess, origin: Origin, tmp_path: Path, wanted: Pairs) -> None:
    """F12: BG_E_INVALID_RANGE, as soon as the size is known; the service learns the size, too."""
    file = spec(origin, f"/gen/{SIZE}/47", tmp_path, wanted)
    ended = worker.fetch(file)
    assert (ended.error, ended.transient) == ("BG_E_INVALID_RANGE", False)
    assert worker.started()[-1].bytes_total == SIZE


@pytest.mark.parametrize("query", ["cr=wrong", "cr=missing", "cr=total", "multi=garbage", "coding=gzip"])
def test_servers_that_lie_put_nothing_into_the_wrong_place(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str
) -> None:
    wanted = [(1000, 500), (9000, 500)] if "multi" in query else [(1000, 500)]
    file = spec(origin, f"/gen/{SIZE}/48?{query}", tmp_path, wanted)
    worker.fetch(file)
    if Path(file.temporary_name).exists():
        check(file, pairs(told(worker)), seed=48)


def test_the_limit_of_bytes_holds(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """J64."""
    file = spec(origin, f"/gen/{SIZE}/49", tmp_path, [(0, 600_000)])
    assert worker.fetch(file, max_download_bytes=500_000).error == "BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED"


def test_pieces_of_a_real_server(worker: WorkerProcess, tmp_path: Path) -> None:
    with running_nginx() as nginx:
        nginx.add("big.bin", 8_000_000)
        content = Path(nginx.root, "big.bin").read_bytes()
        wanted = [(3, 500), (1_000_000, 3_000_000), (7_999_990, -1), (700_000, 1)]
        file = replace(spec_of_url(nginx.url("big.bin"), tmp_path), wanted=specs(wanted))
        assert worker.fetch(file).error == ""
        data = Path(file.temporary_name).read_bytes()
        for piece in told(worker):
            assert data[piece.offset : piece.offset + piece.length] == content[piece.offset :][: piece.length]
        assert pairs(told(worker)) == [(3, 500), (700_000, 1), (1_000_000, 3_000_000), (7_999_990, 10)]


def spec_of_url(url: str, directory: Path) -> FileSpec:
    return FileSpec(
        index=0,
        remote_name=url,
        local_name=str(directory / "out"),
        temporary_name=str(directory / ".BIT.tmp"),
        on_demand=True,
    )
