"""Pieces of files between calls and frames: what a run hears of requests, and what is believed of it (F11–F13)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from openbits.core.model import AccountKind, ByteRange, Caller, Identity, JobState
from openbits.errors import BitsError
from openbits.frames.monitor import KillWorker
from openbits.frames.worker import (
    FileSpec,
    FileStarted,
    RangesFilled,
    RangeSpec,
    StartTransfer,
    TransferEnded,
    TransferFiles,
    WantRanges,
)
from support import virtual
from support.service import ALICE, ROOT, Service, running

BOB = Caller(identity=Identity(uid=1001, gid=1001), name="bob", kind=AccountKind.USER, is_administrator=False)
Script = Callable[[Service], Awaitable[None]]


def play(script: Script) -> None:
    """Run a script against a new service."""

    async def main() -> None:
        async with running() as service:
            await script(service)

    virtual.run(main())


async def a_job(service: Service, *ranges: tuple[int, int], files: int = 1) -> str:
    """A running job in on-demand mode of whose first file these ranges are wanted."""
    job_id = await service.create(files=files, resume=False, on_demand_mode=True)
    await request(service, job_id, *ranges)
    await service.manager.resume(ALICE, job_id)
    await virtual.rest()
    return job_id


async def request(service: Service, job_id: str, *ranges: tuple[int, int], index: int = 0) -> None:
    await service.runtime.services.demand.request(ALICE, job_id, index, [ByteRange(*each) for each in ranges])
    await virtual.rest()


def started(service: Service, index: int = 0, *, size: int = 1000) -> FileStarted:
    return service.worker.started(index, size=size)


def filled(service: Service, *ranges: tuple[int, int], index: int = 0) -> RangesFilled:
    pieces = tuple(RangeSpec(offset=offset, length=length) for offset, length in ranges)
    return RangesFilled(transfer=service.worker.transfer, index=index, ranges=pieces)


def spans(specs: tuple[RangeSpec, ...]) -> list[tuple[int, int]]:
    return [(piece.offset, piece.length) for piece in specs]


def here(service: Service, job_id: str) -> list[tuple[int, int]]:
    known = service.runtime.services.demand.known(ALICE, job_id, 0)
    return [(piece.offset, piece.length) for piece in known.filled]


def test_a_run_begins_with_what_is_wanted_and_ends_with_what_is_here() -> None:
    async def script(service: Service) -> None:
        job_id = await a_job(service, (0, 100), (500, 100), files=3)
        [spec] = service.worker.files
        assert (spec.index, spec.on_demand, spans(spec.wanted), spec.filled) == (0, True, [(0, 100), (500, 100)], ())
        await service.say(started(service), filled(service, (0, 100)))
        assert here(service, job_id) == [(0, 100)]
        await service.say(filled(service, (500, 100)), service.worker.ended())
        assert service.state(job_id) is JobState.SUSPENDED
        await request(service, job_id, (50, 100))
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        again: FileSpec = service.worker.last(TransferFiles).files[0]
        assert spans(again.wanted) == [(100, 50)]
        assert spans(again.filled) == [(0, 100), (500, 100)]
        assert (again.durable_bytes, again.size) == (600, 1000)

    play(script)


def test_a_run_hears_of_requests() -> None:
    async def script(service: Service) -> None:
        job_id = await a_job(service, (0, 100), files=2)
        await request(service, job_id, (200, 100))
        told = service.worker.last(WantRanges)
        assert (told.index, spans(told.wanted), told.position) == (0, [(0, 100), (200, 100)], None)
        await service.runtime.services.demand.move(ALICE, job_id, 0, 200)
        await virtual.rest()
        assert service.worker.last(WantRanges).position == 200
        # Of a file that it does not know yet it is told as of any other.
        await request(service, job_id, (5, 5), index=1)
        assert service.worker.last(TransferFiles).files[0].index == 1
        assert service.worker.count(WantRanges) == 2
        assert service.worker.count(StartTransfer) == 1

    play(script)


def test_a_request_that_crosses_the_end_gets_a_run_of_its_own() -> None:
    async def script(service: Service) -> None:
        job_id = await a_job(service, (0, 100))
        await service.say(started(service), filled(service, (0, 100)))
        await request(service, job_id, (200, 100))
        await service.say(service.worker.ended())
        assert service.worker.count(StartTransfer) == 2
        assert spans(service.worker.last(TransferFiles).files[0].wanted) == [(200, 100)]

    play(script)


def test_a_worker_that_does_nothing_is_not_started_again_and_again() -> None:
    """Run would follow run without a pause: so it counts as one whose worker died."""

    async def script(service: Service) -> None:
        await a_job(service, (0, 100))
        for _ in range(4):
            await service.say(TransferEnded(transfer=service.worker.transfer))
        assert service.worker.count(StartTransfer) <= 3

    play(script)


@pytest.mark.parametrize("ranges", [((-1, 5),), ((0, 0),), ((0, -1),), ((2**63 - 1, 2),)])
def test_ranges_that_cannot_be_end_the_worker(ranges: tuple[tuple[int, int], ...]) -> None:
    async def script(service: Service) -> None:
        job_id = await a_job(service, (0, 100))
        await service.say(started(service), filled(service, *ranges))
        assert here(service, job_id) == []
        assert any(isinstance(message, KillWorker) for message in service.monitor.heard)

    play(script)


def test_pieces_of_a_job_that_asked_for_none_end_the_worker() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(0), filled(service, (0, 10)))
        assert service.job(job_id).bytes_transferred == 0
        assert any(isinstance(message, KillWorker) for message in service.monitor.heard)

    play(script)


def test_requests_are_checked_before_anything_changes() -> None:
    """F12, and the limit of P7: what requests make together counts."""

    async def script(service: Service) -> None:
        job_id = await service.create(resume=False, on_demand_mode=True)
        for ranges, name in (
            ([], "E_INVALIDARG"),
            ([(0, 0)], "BG_E_INVALID_RANGE"),
            ([(at * 2, 1) for at in range(501)], "BG_E_TOO_MANY_RANGES_IN_FILE"),
        ):
            with pytest.raises(BitsError) as refused:
                await request(service, job_id, *ranges)
            assert refused.value.name == name
        await request(service, job_id, *((at, 5) for at in range(600)))
        with pytest.raises(BitsError) as missing:
            await request(service, job_id, (0, 1), index=1)
        assert missing.value.name == "BG_E_FILE_NOT_FOUND"
        with pytest.raises(BitsError) as foreign:
            await service.runtime.services.demand.request(BOB, job_id, 0, [ByteRange(0, 1)])
        assert foreign.value.name == "E_ACCESSDENIED"
        with pytest.raises(BitsError) as unread:
            service.runtime.services.demand.known(BOB, job_id, 0)
        assert unread.value.name == "E_ACCESSDENIED"
        assert service.runtime.services.demand.known(ROOT, job_id, 0).wanted == (ByteRange(0, 604),)

    play(script)


def test_a8_what_another_account_requests_stands_in_the_event_log() -> None:
    """16387 with who it was; the owner's own requests (102) are verbose, and not written down unless asked for."""

    async def script(service: Service) -> None:
        job_id = await service.create(resume=False, on_demand_mode=True)
        await request(service, job_id, (0, 10))
        await service.runtime.services.demand.request(ROOT, job_id, 0, [ByteRange(20, 10)])
        requested = [event for event in service.disk.events if "requested" in event.text]
        assert [(event.event_id, dict(event.fields)["user"]) for event in requested] == [(16387, "root")]

    play(script)


def test_a_worker_that_scatters_what_it_has_ends_nothing_but_its_run() -> None:
    """What is wanted then, and what is here, would fit into no frame: it is not believed."""

    async def script(service: Service) -> None:
        job_id = await a_job(service, (0, 10_000_000))
        await service.say(started(service, size=10_000_000))
        for start in range(0, 3200, 320):
            await service.say(filled(service, *((1000 * n, 1) for n in range(start, start + 320))))
        with pytest.raises(BitsError, match="places"):
            await service.runtime.services.demand.move(ALICE, job_id, 0, 5)
        await service.runtime.services.demand.move(ALICE, job_id, 0, 1)
        await virtual.rest()
        assert service.gave_up == []
        assert len(service.worker.last(WantRanges).wanted) == 320

    play(script)
