"""A worker and files with ranges, against servers that answer in every way (inventory J41, D2)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.frames.worker import FileDurable, FileSpec, RangeSpec, TransferEnded
from support.origin import Origin, generate, last_modified
from support.worker_process import WorkerProcess

SIZE = 2_000_000
RANGES = ((1000, 500), (0, 100), (500_000, 700_000), (1500, 10), (400_000, 1), (1_999_000, -1))


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(
    origin: Origin, path: str, directory: Path, ranges: tuple[tuple[int, int], ...] = RANGES, **more: object
) -> FileSpec:
    return FileSpec(
        index=0,
        remote_name=origin.url(path),
        local_name=str(directory / "out"),
        temporary_name=str(directory / ".BIT.tmp"),
        ranges=tuple(RangeSpec(offset=offset, length=length) for offset, length in ranges),
        **more,  # type: ignore[arg-type]  # passed through
    )


def wanted(seed: int, ranges: tuple[tuple[int, int], ...] = RANGES, size: int = SIZE) -> bytes:
    return b"".join(generate(size, seed, offset, size if length < 0 else length) for offset, length in ranges)


def assert_whole(file: FileSpec, ended: TransferEnded, expected: bytes) -> None:
    assert ended.error == "", ended
    assert Path(file.temporary_name).read_bytes() == expected


@pytest.mark.parametrize("multi", ["", "merge", "reverse", "first", "ignore", "whole"])
@pytest.mark.parametrize("query", ["", "chunked=1", "etag=no", "rate=4000000"])
def test_every_way_to_answer_several_ranges(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, multi: str, query: str
) -> None:
    file = spec(origin, f"/gen/{SIZE}/1?multi={multi}&{query}", tmp_path)
    assert_whole(file, worker.fetch(file), wanted(1))
    assert worker.done[0].size == len(wanted(1))
    started = worker.started()[0]
    assert (started.bytes_total, started.size) == (len(wanted(1)), SIZE)


def test_one_range(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, f"/gen/{SIZE}/2", tmp_path, ((777, 100_000),))
    assert_whole(file, worker.fetch(file), generate(SIZE, 2, 777, 100_000))
    assert origin.requests_of(f"/gen/{SIZE}/2")[-1].range == "bytes=777-100776"


def test_many_ranges_are_asked_for_in_few_requests(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ranges = tuple((index * 3000, 100) for index in reversed(range(500)))
    file = spec(origin, f"/gen/{SIZE}/3", tmp_path, ranges)
    assert_whole(file, worker.fetch(file), wanted(3, ranges))
    assert len(origin.requests_of(f"/gen/{SIZE}/3")) <= 9


@pytest.mark.parametrize("ranges", [((0, 10), (SIZE, 5)), ((SIZE - 10, 11),), ((SIZE + 5, -1),)])
def test_ranges_outside_the_file(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, ranges: tuple[tuple[int, int], ...]
) -> None:
    ended = worker.fetch(spec(origin, f"/gen/{SIZE}/4", tmp_path, ranges))
    assert (ended.error, ended.transient) == ("BG_E_INVALID_RANGE", False)
    assert worker.done == []


def test_server_without_ranges(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, f"/gen/{SIZE}/5?ranges=no", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INSUFFICIENT_RANGE_SUPPORT", False)


@pytest.mark.parametrize("query", ["multi=garbage", "cr=missing&multi=first", "cr=wrong&multi=first"])
def test_answers_that_make_no_sense(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str) -> None:
    ended = worker.fetch(spec(origin, f"/gen/{SIZE}/6?{query}", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INVALID_SERVER_RESPONSE", False)
    assert worker.done == []


def test_parts_one_by_one_without_a_validator_are_refused(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    """Nothing would show that they are of one version (D3)."""
    ended = worker.fetch(spec(origin, f"/gen/{SIZE}/7?multi=first&etag=no&lm=no", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INSUFFICIENT_RANGE_SUPPORT", False)


@pytest.mark.parametrize("multi", ["", "reverse", "first"])
@pytest.mark.parametrize("cut", [0, 50, 500, 650_000])
def test_break_in_the_middle(worker: WorkerProcess, origin: Origin, tmp_path: Path, multi: str, cut: int) -> None:
    first = dataclasses.replace(
        spec(origin, "/gen/100/1", tmp_path, ((0, 1),)), index=1, temporary_name=str(tmp_path / ".BIT1.tmp")
    )
    file = spec(origin, f"/gen/{SIZE}/8?multi={multi}&cut={cut}&times=1", tmp_path)
    assert_whole(file, worker.fetch(first, file), wanted(8))


@pytest.mark.parametrize("multi", ["", "first"])
def test_file_that_changes_on_the_way(worker: WorkerProcess, origin: Origin, tmp_path: Path, multi: str) -> None:
    file = spec(origin, f"/gen/{SIZE}/10?multi={multi}&cut=400&times=1&change_after=1", tmp_path)
    assert_whole(file, worker.fetch(file), wanted(11))
    assert "changed" in worker.started()[-1].restarted


def test_later_run_continues(origin: Origin, tmp_path: Path) -> None:
    path = f"/gen/{SIZE}/13?rate=400000"
    with WorkerProcess() as worker:
        worker.begin(spec(origin, path, tmp_path), checkpoint_s=0.2)
        worker.wait_for(FileDurable, lambda durable: durable.durable_bytes > 1000)
        worker.kill()
        durable = worker.durable_bytes()
    file = spec(
        origin,
        f"/gen/{SIZE}/13",
        tmp_path,
        durable_bytes=durable,
        size=SIZE,
        etag=f'"v13-{SIZE}"',
        last_modified=last_modified(13),
        checksum=f"sha256:{hashlib.sha256(wanted(13)).hexdigest()}",
    )
    with WorkerProcess() as worker:
        assert_whole(file, worker.fetch(file), wanted(13))
        assert worker.started()[0].offset == durable
    first = origin.requests_of(f"/gen/{SIZE}/13")[-1].range
    assert first is not None
    assert not first.startswith("bytes=1000-1499")
