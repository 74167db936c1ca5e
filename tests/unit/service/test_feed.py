"""Subscriptions: each listener has its own bounded buffer, and a slow one costs the others nothing."""

import asyncio
from collections.abc import Callable

import pytest

from openbits.service.feed import BUFFER_RECORDS, Feed, Record, Subscription
from openbits.service.records import EventRecord, ProgressReport
from support import virtual


def event(number: int, job_id: str = "a", uid: int = 1000) -> EventRecord:
    return EventRecord(id=number, time=0.0, kind="state", job_id=job_id, text="", owner_uid=uid)


def progress(job_id: str = "a") -> ProgressReport:
    return ProgressReport(
        job_id=job_id, owner_uid=1000, bytes_transferred=1, bytes_total=2, files_transferred=0, files_total=1
    )


async def read(subscription: Subscription) -> list[Record]:
    """Read to the end."""
    return [record async for record in subscription]


def everything(_record: Record) -> bool:
    return True


def test_each_listener_gets_what_it_wants_from_now_on() -> None:
    async def main() -> None:
        feed = Feed()
        feed.publish(event(1))
        wants: list[Callable[[Record], bool]] = [everything, lambda record: record.job_id == "b"]
        one, two = [feed.subscribe(want) for want in wants]
        assert len(feed) == 2
        for number, job_id in ((2, "a"), (3, "b")):
            feed.publish(event(number, job_id))
        feed.close()
        assert await read(one) == [event(2), event(3, "b")]
        assert await read(two) == [event(3, "b")]
        assert len(feed) == 0

    virtual.run(main())


def test_a_listener_that_waits_is_told_at_once() -> None:
    async def main() -> None:
        feed = Feed()
        subscription = feed.subscribe(everything)
        waiting = asyncio.ensure_future(anext(subscription))
        await virtual.rest()
        assert not waiting.done()
        feed.publish(event(1))
        assert await waiting == event(1)

    virtual.run(main())


def test_a_listener_that_falls_behind_gets_an_end_after_what_it_was_sent() -> None:
    """It comes again with the last event that it saw, and misses nothing."""

    async def main() -> None:
        feed = Feed()
        slow, quick = feed.subscribe(everything), feed.subscribe(everything)
        seen = 0
        for number in range(BUFFER_RECORDS + 10):
            feed.publish(event(number))
            await anext(quick)
            seen += 1
        assert seen == BUFFER_RECORDS + 10
        assert [record.id for record in await read(slow) if isinstance(record, EventRecord)] == [*range(BUFFER_RECORDS)]
        assert len(feed) == 1

    virtual.run(main())


def test_progress_gives_way_to_events() -> None:
    async def main() -> None:
        feed = Feed()
        subscription = feed.subscribe(everything)
        for _ in range(BUFFER_RECORDS * 2):
            feed.publish(progress())
        assert len(feed) == 1, "progress alone ends no stream"
        for number in range(BUFFER_RECORDS // 2):
            feed.publish(event(number))
        feed.close()
        records = await read(subscription)
        assert sum(isinstance(record, EventRecord) for record in records) == BUFFER_RECORDS // 2
        assert len(records) == BUFFER_RECORDS

    virtual.run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_an_end_is_an_end(times: int) -> None:
    async def main() -> None:
        feed = Feed()
        subscription = feed.subscribe(everything)
        for _ in range(times):
            subscription.end()
        feed.publish(event(1))
        assert await read(subscription) == []
        assert len(feed) == 0

    virtual.run(main())
