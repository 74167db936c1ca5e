"""The ledger: applied, written down, only then acted upon; all or nothing, in order, whatever the disk does."""

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Self

import pytest

from openbits.core.environment import Environment
from openbits.core.events import (
    AddFiles,
    Cancel,
    Complete,
    Event,
    FileCheckpoint,
    FilesFinished,
    FinishFiles,
    NetworkChanged,
    Resume,
    SlotGranted,
    StartRun,
    Suspend,
)
from openbits.core.model import Closing, Job, JobState
from openbits.errors import BitsError
from openbits.service.ledger import RETRY_FULL_STORE_S, Committed, Draft, Ledger
from openbits.service.tasks import Tasks
from openbits.store.errors import StoreError, StoreFull
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import EventPrune
from support import virtual
from support.jobs import ALICE, BOB, a_file, a_job, closing, fetched, job_in
from support.virtual import Clock, InlineExecutor


class SlowDisk(Executor):
    """Writes when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def write() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - a future holds any error
                future.set_exception(error)

        self.waiting.append(write)
        return future

    async def write(self) -> None:
        """Let one transaction reach the disk."""
        self.waiting.pop(0)()
        await virtual.rest()


class World:
    """A ledger on a disk that outlives it."""

    def __init__(self, disk: MemoryDisk | None = None, writer: Executor | None = None) -> None:
        self.store = MemoryStore(disk or MemoryDisk())
        self.committed: list[Committed] = []
        self.has_network = True
        self.died: list[BaseException] = []
        self.tasks = Tasks(lambda _name, error: self.died.append(error))
        self.ledger = Ledger(
            store=self.store,
            writer=writer or InlineExecutor(),
            environment=lambda: Environment(now=Clock.now(), has_network=self.has_network),
            committed=self.committed.append,
            prune=lambda: EventPrune(older_than=0.0, keep=1000),
        )
        self.undone = self.ledger.load()
        self.tasks.start("ledger", self.ledger.run())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for task in tuple(self.tasks._tasks):
            task.cancel()

    @property
    def disk(self) -> MemoryDisk:
        return self.store.disk

    async def create(self, *jobs: Job) -> None:
        def work(draft: Draft) -> None:
            for job in jobs:
                draft.create(job)

        await self.ledger.submit(work)

    async def apply(self, event: Event, job_id: str) -> Job | None:
        return await self.ledger.submit(lambda draft: draft.apply(job_id, event))


JOB = a_job(a_file())
OTHER = dataclasses.replace(a_job(a_file()), id="00000000-0000-4000-8000-000000000002", owner=BOB)


def test_what_is_told_is_on_the_disk() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(JOB)
            assert world.disk.jobs == {JOB.id: JOB} == world.ledger.jobs
            job = await world.apply(Resume(), JOB.id)
            assert job is not None
            assert job.state is JobState.QUEUED
            assert world.disk.jobs[JOB.id] == job == world.ledger.jobs[JOB.id]
            kinds = [event.kind for event in world.disk.events]
            assert kinds == ["created", "queued"]
            assert [event.id for event in world.disk.events] == [1, 2]
            assert world.ledger.last_event_id == 2

    virtual.run(main())


def test_nothing_is_visible_or_acted_upon_before_it_is_on_the_disk() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            creating = asyncio.ensure_future(world.create(JOB))
            await virtual.rest()
            assert (world.ledger.jobs, world.committed, creating.done()) == ({}, [], False)
            await slow.write()
            assert world.ledger.jobs == {JOB.id: JOB}
            assert len(world.committed) == 1
            await creating

    virtual.run(main())


def test_changes_that_come_while_the_disk_writes_share_the_next_transaction() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            jobs = [dataclasses.replace(JOB, id=f"{number}") for number in range(50)]
            creating = [asyncio.ensure_future(world.create(job)) for job in jobs]
            await virtual.rest()
            await slow.write()
            more = [asyncio.ensure_future(world.apply(Resume(), job.id)) for job in jobs]
            await virtual.rest()
            world.ledger.post("7", Suspend())
            await virtual.rest()
            await slow.write()
            await asyncio.gather(*creating, *more)
            await slow.write()
            assert world.store.commits == 3
            assert world.ledger.jobs["7"].state is JobState.SUSPENDED
            assert world.ledger.jobs["8"].state is JobState.QUEUED

    virtual.run(main())


def test_each_change_sees_those_before_it() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            creating = asyncio.ensure_future(world.create(JOB))
            resuming = asyncio.ensure_future(world.apply(Resume(), JOB.id))
            suspending = asyncio.ensure_future(world.apply(Suspend(), JOB.id))
            await virtual.rest()
            await slow.write()
            states = [job.state for job in await asyncio.gather(resuming, suspending) if job is not None]
            assert states == [JobState.QUEUED, JobState.SUSPENDED]
            await creating
            assert world.store.commits == 1

    virtual.run(main())


def test_a_change_that_raises_leaves_no_trace_and_harms_no_other() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:

            def half(draft: Draft) -> None:
                draft.create(JOB)
                draft.apply(JOB.id, Resume())
                raise BitsError("E_INVALIDARG")

            failing = asyncio.ensure_future(world.ledger.submit(half))
            creating = asyncio.ensure_future(world.create(OTHER))
            await virtual.rest()
            await slow.write()
            with pytest.raises(BitsError):
                await failing
            await creating
            assert world.ledger.jobs.keys() == {OTHER.id} == world.disk.jobs.keys()
            assert [event.job_id for event in world.disk.events] == [OTHER.id]

    virtual.run(main())


def test_an_error_of_a_report_is_logged_and_the_ledger_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRING))
            world.ledger.post(JOB.id, FileCheckpoint(run=1, index=99, durable_bytes=1))
            world.ledger.post(JOB.id, FileCheckpoint(run=1, index=0, durable_bytes=1))
            await virtual.rest()
            assert world.ledger.jobs[JOB.id].bytes_transferred == 1
            assert "action=event-failed" in caplog.text

    virtual.run(main())


def test_a_change_without_effect_writes_nothing() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(JOB)
            before = world.store.commits
            assert await world.apply(SlotGranted(), JOB.id) == JOB
            assert await world.apply(Resume(), "nobody") is None
            assert await world.ledger.submit(lambda draft: draft.get(JOB.id)) == JOB
            assert world.store.commits == before

    virtual.run(main())


def test_a_caller_who_has_hung_up_before_his_turn_changes_nothing() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            first = asyncio.ensure_future(world.create(JOB))
            await virtual.rest()
            second = asyncio.ensure_future(world.create(OTHER))
            await virtual.rest()
            second.cancel()
            await slow.write()
            await first
            await virtual.rest()
            assert world.ledger.jobs.keys() == {JOB.id}
            assert not slow.waiting

    virtual.run(main())


def test_a_caller_who_hangs_up_while_the_disk_writes_does_not_undo_it() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            creating = asyncio.ensure_future(world.create(JOB))
            await virtual.rest()
            creating.cancel()
            await slow.write()
            assert world.ledger.jobs == {JOB.id: JOB}
            assert world.died == []

    virtual.run(main())


# --- the outbox (M8) ----------------------------------------------------------------------------------


def test_files_that_are_to_be_put_in_place_are_remembered_until_that_is_written_down() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRED))
            await world.apply(Complete(), JOB.id)
            effect = FinishFiles(job_id=JOB.id, closing=Closing.COMPLETE)
            assert world.committed[-1].effects == [effect]
            assert [stored.kind for stored in world.disk.effects.values()] == ["complete"]
        with World(world.disk) as restarted:
            assert restarted.undone == [effect]
            await restarted.apply(FilesFinished(renamed=(0,)), JOB.id)
            assert restarted.disk.effects == {}
            assert restarted.ledger.jobs[JOB.id].state is JobState.ACKNOWLEDGED
        with World(world.disk) as again:
            assert again.undone == []

    virtual.run(main())


def test_an_attempt_that_failed_is_over_and_the_next_is_a_new_one() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRED, fetched(0), fetched(1)))
            for _ in range(3):
                await world.apply(Complete(), JOB.id)
                await world.apply(FilesFinished(failed=((0, "E_ACCESSDENIED", "no"),)), JOB.id)
                assert world.disk.effects == {}
            await world.apply(Complete(), JOB.id)
            await world.apply(FilesFinished(renamed=(0, 1)), JOB.id)
            assert world.disk.effects == {}

    virtual.run(main())


def test_a_promise_and_the_end_of_a_job_do_not_stand_for_each_other() -> None:
    """Also where somebody completes the job while it is being taken over (I8)."""

    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRED))
            kept, later = (world.ledger.promise(JOB.id, "discard", "{}") for _ in range(2))
            await world.ledger.submit(lambda draft: draft.promised.append(kept))
            await world.apply(Complete(), JOB.id)
            assert sorted(effect.kind for effect in world.disk.effects.values()) == ["complete", "discard"]
            await world.ledger.submit(lambda draft: draft.promised.append(later))
            await world.apply(FilesFinished(renamed=(0,)), JOB.id)
            assert sorted(world.disk.effects) == [kept.id, later.id]
        with World(world.disk) as restarted:
            assert restarted.undone == []
            assert {promise.id for promise in restarted.ledger.promises} == {kept.id, later.id}

    virtual.run(main())


def test_runs_are_not_remembered_a_restart_schedules_anew() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.QUEUED))
            await world.apply(SlotGranted(), JOB.id)
            assert isinstance(world.committed[-1].effects[0], StartRun)
            assert world.disk.effects == {}

    virtual.run(main())


def test_a_failed_complete_and_a_new_one_in_one_transaction_leave_one_effect() -> None:
    async def main() -> None:
        slow = SlowDisk()
        with World(writer=slow) as world:
            creating = asyncio.ensure_future(world.create(closing(job_in(JobState.TRANSFERRED))))
            await virtual.rest()
            world.ledger.post(JOB.id, FilesFinished(failed=((0, "E_ACCESSDENIED", "no"),)))
            again = asyncio.ensure_future(world.apply(Complete(), JOB.id))
            await virtual.rest()
            await slow.write()
            await slow.write()
            await asyncio.gather(creating, again)
            assert [effect.kind for effect in world.disk.effects.values()] == ["complete"]
            assert [type(effect) for effect in world.committed[-1].effects] == [FinishFiles]
        assert len(World(world.disk).undone) == 1

    virtual.run(main())


def test_cancel_after_a_failed_complete_leaves_only_the_deletion() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRED))
            await world.apply(Complete(), JOB.id)
            await world.apply(FilesFinished(failed=((0, "E_ACCESSDENIED", "no"),)), JOB.id)
            await world.apply(Cancel(), JOB.id)
            assert [effect.kind for effect in world.disk.effects.values()] == ["cancel"]

    virtual.run(main())


# --- the disk is full, or broken ------------------------------------------------------------------------


def test_a_full_store_refuses_callers_and_keeps_reports() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRING))
            world.store.failures.append(StoreFull("no room"))
            world.ledger.post(JOB.id, FileCheckpoint(run=1, index=0, durable_bytes=5))
            with pytest.raises(BitsError, match="make room") as caught:
                await world.create(OTHER)
            assert caught.value.name == "ERROR_DISK_FULL"
            assert world.ledger.jobs[JOB.id].bytes_transferred == 0
            assert OTHER.id not in world.ledger.jobs
            await asyncio.sleep(RETRY_FULL_STORE_S + 0.1)
            assert world.ledger.jobs[JOB.id].bytes_transferred == 5 == world.disk.jobs[JOB.id].bytes_transferred

    virtual.run(main())


def test_reports_stay_in_order_while_they_wait() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.TRANSFERRING))
            world.store.failures.extend([StoreFull("no room")] * 3)
            for number in (5, 0, 7):
                world.ledger.post(JOB.id, FileCheckpoint(run=1, index=0, durable_bytes=number))
                await virtual.rest()
            await asyncio.sleep(10 * RETRY_FULL_STORE_S)
            assert world.disk.jobs[JOB.id].bytes_transferred == 7
            assert world.store.commits == 2

    virtual.run(main())


def test_reports_are_heard_again_even_if_those_that_waited_mean_nothing_any_more() -> None:
    """The network went while the disk was full, and came back before there was room."""

    async def main() -> None:
        with World() as world:
            await world.create(job_in(JobState.QUEUED))
            world.store.failures.append(StoreFull("no room"))
            world.has_network = False
            world.ledger.post(JOB.id, NetworkChanged())
            await virtual.rest()
            world.has_network = True
            await asyncio.sleep(2 * RETRY_FULL_STORE_S)
            assert world.ledger.jobs[JOB.id].state is JobState.QUEUED
            world.ledger.post(JOB.id, SlotGranted())
            await asyncio.sleep(2 * RETRY_FULL_STORE_S)
            assert world.ledger.jobs[JOB.id].state is JobState.CONNECTING

    virtual.run(main())


def test_a_broken_store_ends_the_service() -> None:
    """What cannot be written down must not go on as if it were."""

    async def main() -> None:
        with World() as world:
            await world.create(JOB)
            world.store.failures.append(StoreError("the disk is gone"))
            world.ledger.post(JOB.id, Resume())
            await virtual.rest()
            assert [str(error) for error in world.died] == ["the disk is gone"]
            assert world.ledger.jobs[JOB.id].state is JobState.SUSPENDED

    virtual.run(main())


# --- a restart ---------------------------------------------------------------------------------------------


def test_a_restart_finds_everything_and_goes_on_counting() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(JOB, OTHER)
            await world.apply(AddFiles(files=(a_file(1), a_file(2))), JOB.id)
            await world.apply(FileCheckpoint(run=0, index=2, durable_bytes=9), JOB.id)
        with World(world.disk) as restarted:
            assert restarted.ledger.jobs == world.ledger.jobs
            assert restarted.ledger.jobs[JOB.id].files[2].bytes_transferred == 9
            await restarted.apply(Resume(), JOB.id)
            assert [event.id for event in restarted.disk.events] == list(range(1, 5))

    virtual.run(main())


def test_what_is_told_names_the_owner_and_the_job() -> None:
    async def main() -> None:
        with World() as world:
            await world.create(JOB, OTHER)
            events = world.committed[-1].events
            assert [(event.job_id, event.owner_uid) for event in events] == [
                (JOB.id, ALICE.identity.uid),
                (OTHER.id, BOB.identity.uid),
            ]
            assert all(event.job is not None and event.job.id == event.job_id for event in events)

    virtual.run(main())
