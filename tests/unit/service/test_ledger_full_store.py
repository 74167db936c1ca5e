"""A store without room: callers are told at once, what workers reported waits, and all of it is written in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from openbits.core.environment import Environment
from openbits.core.events import FileCheckpoint, Resume, SlotGranted, Suspend
from openbits.core.model import Job, JobState
from openbits.errors import BitsError
from openbits.service import ledger as ledgers
from openbits.service.ledger import Committed, Ledger
from openbits.store.errors import StoreFull
from openbits.store.memory import MemoryStore
from openbits.store.records import EventPrune
from support.jobs import NOW, a_file, a_job

JOB = a_job(a_file())
TIMEOUT_S = 5.0


Commits = asyncio.Queue[Committed]
Scenario = Callable[[Ledger, MemoryStore, Commits], Awaitable[None]]


def run(scenario: Scenario) -> None:
    """Let a scenario play with a ledger that holds one suspended job."""

    async def main() -> None:
        store = MemoryStore()
        commits: Commits = asyncio.Queue()
        with ThreadPoolExecutor(1) as writer:
            ledger = Ledger(
                store=store,
                writer=writer,
                environment=lambda: Environment(now=NOW),
                committed=commits.put_nowait,
                prune=lambda: EventPrune(older_than=0.0, keep=1000),
            )
            ledger.load()
            running = asyncio.ensure_future(ledger.run())
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await ledger.submit(lambda draft: draft.create(JOB))
                    await commits.get()
                    await scenario(ledger, store, commits)
            finally:
                running.cancel()

    asyncio.run(main())


async def call(ledger: Ledger, event: Resume | Suspend) -> Job | None:
    return await ledger.submit(lambda draft: draft.apply(JOB.id, event))


def full(store: MemoryStore, times: int) -> None:
    store.failures.extend(StoreFull("no room") for _ in range(times))


def test_callers_are_refused_at_once_while_reports_wait() -> None:
    """Decisions, "Store full": also those that call while it is known that there is no room."""

    async def scenario(ledger: Ledger, store: MemoryStore, commits: Commits) -> None:
        await call(ledger, Resume())
        full(store, 1000)
        ledger.post(JOB.id, SlotGranted())
        for _ in range(3):
            with pytest.raises(BitsError, match="ERROR_DISK_FULL"):
                await call(ledger, Suspend())
        assert ledger.jobs[JOB.id].state is JobState.QUEUED
        store.failures.clear()
        # Whoever calls when there is room again is served, and what waited is written before.
        suspended = await call(ledger, Suspend())
        assert suspended is not None
        assert (suspended.state, suspended.run) == (JobState.SUSPENDED, 1)

    run(scenario)


def test_reports_are_written_as_soon_as_there_is_room_though_nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "RETRY_FULL_STORE_S", 0.01)

    async def scenario(ledger: Ledger, store: MemoryStore, commits: Commits) -> None:
        await call(ledger, Resume())
        await commits.get()
        full(store, 5)
        ledger.post(JOB.id, SlotGranted())
        ledger.post(JOB.id, FileCheckpoint(run=1, index=0, durable_bytes=7))
        await commits.get()
        assert ledger.jobs[JOB.id].bytes_transferred == 7
        assert not store.failures
        assert ledger.is_quiet

    run(scenario)


def test_many_reports_cost_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is not asked for room with every packet that a worker sends."""

    async def scenario(ledger: Ledger, store: MemoryStore, commits: Commits) -> None:
        await call(ledger, Resume())
        full(store, 1000)
        ledger.post(JOB.id, SlotGranted())
        with pytest.raises(BitsError):
            await call(ledger, Suspend())
        before = len(store.failures)
        for count in range(100):
            ledger.post(JOB.id, FileCheckpoint(run=1, index=0, durable_bytes=count))
            await asyncio.sleep(0)
        assert before - len(store.failures) <= 1

    run(scenario)
