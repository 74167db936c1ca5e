"""Slots between the ledger and the scheduler: what is decided is not yet written down (S1, S3, Q1, Q4)."""

import asyncio
import dataclasses
import sys

import pytest

from openbits.core.events import Event, SlotGranted, SlotTaken
from openbits.core.lifecycle import apply
from openbits.core.model import Job, JobState, Priority
from openbits.core.schedule import Limits
from openbits.service.dispatcher import Dispatcher
from support import virtual
from support.jobs import a_file, at, job_in, with_priority
from support.virtual import Clock


class World:
    """A dispatcher, the jobs as they are written down, and the events that wait to be applied."""

    def __init__(self, **limits: int) -> None:
        self.limits = Limits(time_slice_s=60.0, **limits)
        self.jobs: dict[str, Job] = {}
        self.posted: list[tuple[str, Event]] = []
        self.dispatcher = Dispatcher(
            limits=lambda: self.limits, now=Clock.now, post=lambda job_id, event: self.posted.append((job_id, event))
        )

    def note(self, *jobs: Job) -> None:
        """These changes are written down."""
        self.jobs.update((job.id, job) for job in jobs)
        self.dispatcher.take_note({job.id: job for job in jobs})

    def commit(self) -> None:
        """Apply and write down what was posted."""
        posted, self.posted = self.posted, []
        changed: dict[str, Job] = {}
        for job_id, event in posted:
            made = apply(changed.get(job_id, self.jobs[job_id]), event, dataclasses.replace(at(0), now=Clock.now()))
            if made is not None:
                changed[job_id] = made.job
        self.note(*changed.values())

    def settle(self) -> None:
        for _ in range(20):
            if not self.posted:
                return
            self.commit()
        raise AssertionError(f"the dispatcher does not come to rest: {self.posted}")

    def active(self) -> set[str]:
        return {job.id for job in self.jobs.values() if job.state.is_active}


def queued(job_id: str, priority: Priority = Priority.NORMAL) -> Job:
    return with_priority(dataclasses.replace(job_in(JobState.QUEUED, a_file()), id=job_id), priority)


def suspended(job: Job) -> Job:
    return dataclasses.replace(job, state=JobState.SUSPENDED, active_since=None)


def test_a_waiting_job_is_granted_a_slot_once() -> None:
    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        assert world.posted == [("a", SlotGranted())]
        world.dispatcher.decide()
        assert len(world.posted) == 1, "the slot is taken although it is not written down yet"
        world.settle()
        assert world.active() == {"a"}
        assert world.dispatcher.statistics() == {"waiting": 1, "running": 1}
        assert world.dispatcher.background_running == 1
        world.note(dataclasses.replace(world.jobs["a"], state=JobState.TRANSFERRED))
        world.settle()
        assert world.active() == {"b"}

    virtual.run(main())


def test_a_job_that_changes_while_it_is_granted_a_slot_keeps_it() -> None:
    """The change was on its way to the disk when the slot was granted."""

    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.note(queued("a"))
        assert world.posted == [("a", SlotGranted())], "nobody else gets the slot, and it is not granted twice"
        world.settle()
        assert world.active() == {"a"}

    virtual.run(main())


def test_a_reload_while_slots_are_granted_grants_no_more() -> None:
    async def main() -> None:
        world = World()
        world.note(*(queued(name) for name in "abcd"))
        world.limits = Limits(max_background_jobs=2)
        world.note(*(queued(name) for name in "abcd"))
        assert [job_id for job_id, _ in world.posted] == ["a", "b"]
        world.settle()
        assert world.active() == {"a", "b"}

    virtual.run(main())


def test_a_slot_that_was_used_up_in_one_breath_is_not_waited_for() -> None:
    """Slot granted, suspended and resumed in one transaction: the job waits, and needs a new slot."""

    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.posted.clear()
        world.note(dataclasses.replace(queued("a"), run=1))
        world.settle()
        assert len(world.active()) == 1
        assert world.dispatcher.statistics() == {"waiting": 1, "running": 1}

    virtual.run(main())


def test_a_job_that_is_suspended_while_it_is_granted_a_slot_gives_it_back() -> None:
    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.note(suspended(queued("a")))
        assert [job_id for job_id, _ in world.posted] == ["a", "b"]
        world.settle()
        assert world.active() == {"b"}
        world.note(dataclasses.replace(world.jobs["b"], state=JobState.ERROR))
        world.note(queued("a"))
        world.settle()
        assert world.active() == {"a"}, "no slot is lost"

    virtual.run(main())


@pytest.mark.parametrize("gone", [None, JobState.CANCELLED, JobState.ERROR, JobState.TRANSIENT_ERROR])
def test_a_slot_comes_free_however_the_job_ends(gone: JobState | None) -> None:
    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.commit()
        if gone is None:
            del world.jobs["a"]
            world.dispatcher.take_note({"a": None})
        else:
            world.note(dataclasses.replace(world.jobs["a"], state=gone))
        world.settle()
        assert world.active() == {"b"}

    virtual.run(main())


def test_a_higher_priority_takes_the_slot_once() -> None:
    async def main() -> None:
        world = World()
        world.note(queued("low", Priority.LOW))
        world.settle()
        world.note(queued("high", Priority.HIGH))
        assert world.posted == [("low", SlotTaken())]
        world.dispatcher.decide()
        assert len(world.posted) == 1
        world.settle()
        assert world.active() == {"high"}

    virtual.run(main())


def test_progress_of_a_job_that_loses_its_slot_gives_it_no_second_chance() -> None:
    """A checkpoint that is written down before the loss."""

    async def main() -> None:
        world = World()
        world.note(queued("low", Priority.LOW))
        world.settle()
        world.note(queued("high", Priority.HIGH))
        world.note(world.jobs["low"])
        world.settle()
        assert world.active() == {"high"}

    virtual.run(main())


def test_time_slices_go_round() -> None:
    """Q4; and the timer exists only while somebody waits."""

    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.settle()
        seen = [world.active()]
        for _ in range(3):
            await asyncio.sleep(60.1)
            world.settle()
            seen.append(world.active())
        assert seen == [{"a"}, {"b"}, {"a"}, {"b"}]
        world.note(suspended(world.jobs["a"]))
        world.settle()
        await asyncio.sleep(1000)
        assert world.posted == []
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    virtual.run(main())


def test_a_running_foreground_job_that_becomes_a_background_job_obeys_the_limit() -> None:
    """Q1."""

    async def main() -> None:
        world = World()
        world.note(queued("f", Priority.FOREGROUND), queued("n"))
        world.settle()
        assert world.active() == {"f", "n"}
        world.note(with_priority(world.jobs["f"], Priority.LOW))
        world.settle()
        assert world.active() == {"n"}
        world.note(with_priority(world.jobs["f"], Priority.FOREGROUND))
        world.settle()
        assert world.active() == {"f", "n"}

    virtual.run(main())


def test_a_waiting_job_whose_priority_changes_waits_in_the_other_line() -> None:
    async def main() -> None:
        world = World()
        world.note(queued("a", Priority.HIGH), queued("b"), queued("c"))
        world.settle()
        world.note(queued("c", Priority.HIGH))
        world.note(dataclasses.replace(world.jobs["a"], state=JobState.ERROR))
        world.settle()
        assert world.active() == {"c"}

    virtual.run(main())


def test_after_the_end_no_timer_is_left() -> None:
    async def main() -> None:
        world = World()
        world.note(queued("a"), queued("b"))
        world.settle()
        world.dispatcher.close()
        await asyncio.sleep(1000)
        assert world.posted == []

    virtual.run(main())


def test_what_a_change_costs_does_not_depend_on_how_many_wait() -> None:
    async def main() -> None:
        costs = []
        for count in (100, 10_000):
            world = World()
            world.note(*(queued(f"j{number}") for number in range(count)))
            world.settle()
            costs.append(_steps(world, 50))
        assert costs[1] <= costs[0] * 2

    virtual.run(main())


def _steps(world: World, changes: int) -> int:
    """How many function calls it takes to note changes of the running job."""
    count = 0

    def count_calls(*_args: object) -> None:
        nonlocal count
        count += 1

    (running,) = world.active()
    sys.setprofile(count_calls)
    try:
        for _ in range(changes):
            world.note(world.jobs[running])
    finally:
        sys.setprofile(None)
    return count
