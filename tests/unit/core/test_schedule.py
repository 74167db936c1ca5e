"""The scheduler: who runs (Q1, Q3, Q4), and that nobody starves within a priority."""

import dataclasses
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.core.model import Priority
from openbits.core.schedule import BACKGROUND, Decision, Limits, Running, WaitingJobs, decide

FOREGROUND, HIGH, NORMAL, LOW = Priority
ONE = Limits(max_foreground_jobs=2, max_background_jobs=1, time_slice_s=60.0)


def queue(*jobs: tuple[str, Priority, int] | tuple[str, Priority]) -> WaitingJobs:
    waiting = WaitingJobs()
    for job_id, priority, *uid in jobs:
        waiting.put(job_id, priority, uid[0] if uid else 1000)
    return waiting


def running(job_id: str, priority: Priority, since: float = 0.0) -> Running:
    return Running(job_id=job_id, priority=priority, since=since)


def test_nothing_to_do() -> None:
    assert decide(running=[], waiting=WaitingJobs(), limits=ONE, now=0) == Decision()


def test_foreground_jobs_run_beside_each_other_and_beside_one_background_job() -> None:
    """Q1."""
    waiting = queue(("f1", FOREGROUND), ("f2", FOREGROUND), ("f3", FOREGROUND), ("h", HIGH), ("n", NORMAL))
    assert decide(running=[], waiting=waiting, limits=ONE, now=0).start == ("f1", "f2", "h")


def test_a_higher_priority_takes_the_slot_of_a_lower() -> None:
    """Q3: at once, whatever is left of the slice; the slot is granted when it is free."""
    for priority, others in ((HIGH, (NORMAL, LOW)), (NORMAL, (LOW,))):
        for other in others:
            decision = decide(running=[running("old", other)], waiting=queue(("new", priority)), limits=ONE, now=1)
            assert (decision.start, decision.preempt) == ((), ("old",))


def test_a_lower_priority_waits_for_all_higher_ones() -> None:
    """Q3."""
    decision = decide(running=[running("h", HIGH)], waiting=queue(("n", NORMAL), ("l", LOW)), limits=ONE, now=1e6)
    assert decision == Decision()
    assert decide(running=[], waiting=queue(("l", LOW), ("h", HIGH)), limits=ONE, now=0).start == ("h",)


def test_the_same_priority_takes_turns() -> None:
    """Q4."""
    waiting = queue(("b", NORMAL))
    early = decide(running=[running("a", NORMAL, since=10)], waiting=waiting, limits=ONE, now=69)
    assert early == Decision(again_at=70.0)
    due = decide(running=[running("a", NORMAL, since=10)], waiting=waiting, limits=ONE, now=70)
    assert due.preempt == ("a",)


def test_a_job_that_nobody_of_its_priority_waits_for_keeps_its_slot() -> None:
    decision = decide(running=[running("a", NORMAL)], waiting=queue(("l", LOW)), limits=ONE, now=1e6)
    assert decision == Decision(), "no timer either: an idle service does not wake up"


def test_a_foreground_job_is_never_taken_off() -> None:
    waiting = queue(("f3", FOREGROUND))
    decision = decide(
        running=[running("f1", FOREGROUND), running("f2", FOREGROUND)], waiting=waiting, limits=ONE, now=1e6
    )
    assert decision == Decision()


def test_accounts_take_turns_however_many_jobs_one_has() -> None:
    waiting = queue(*((f"a{number}", NORMAL, 1) for number in range(100)), ("b", NORMAL, 2))
    taken = []
    for _ in range(3):
        (job_id,) = decide(running=[], waiting=waiting, limits=ONE, now=0).start
        waiting.take(job_id)
        taken.append(job_id)
    assert taken == ["a0", "b", "a1"]


def test_a_job_keeps_its_place_when_nothing_about_it_changes() -> None:
    waiting = queue(("a", NORMAL), ("b", NORMAL))
    waiting.put("a", NORMAL, 1000)
    assert list(waiting.in_turn(NORMAL)) == ["a", "b"]
    waiting.put("a", LOW, 1000)
    assert list(waiting.in_turn(NORMAL)) == ["b"]
    assert list(waiting.in_turn(LOW)) == ["a"]
    assert len(waiting) == 2
    waiting.discard("a")
    waiting.discard("a")
    assert "a" not in waiting
    assert not waiting.has(LOW)


def test_several_slots_are_filled_and_taken_one_by_one() -> None:
    limits = dataclasses.replace(ONE, max_background_jobs=2)
    decision = decide(
        running=[running("n", NORMAL, 5), running("l", LOW, 1)],
        waiting=queue(("h1", HIGH), ("h2", HIGH), ("h3", HIGH)),
        limits=limits,
        now=6,
    )
    assert decision.preempt == ("l", "n"), "the least urgent first"


@pytest.mark.parametrize("limit", [1, 2])
def test_more_background_jobs_than_may_run_are_taken_off(limit: int) -> None:
    """A foreground job that becomes a background job, or a lower limit, must not break Q1 for long."""
    limits = dataclasses.replace(ONE, max_background_jobs=limit)
    jobs = [running("h", HIGH, 9), running("n", NORMAL, 1), running("l", LOW, 2)]
    decision = decide(running=jobs, waiting=WaitingJobs(), limits=limits, now=10)
    assert decision == Decision(preempt=("l", "n")[: 3 - limit])


def test_who_is_taken_off_for_the_limit_is_not_taken_off_again_for_a_waiting_job() -> None:
    jobs = [running("h", HIGH, 9), running("l", LOW, 2)]
    decision = decide(running=jobs, waiting=queue(("h2", HIGH)), limits=ONE, now=10)
    assert decision.preempt == ("l",)
    assert decision.start == ()


# --- a simulation -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Simulation:
    """Jobs that need slices of time; decisions are carried out at once."""

    limits: Limits
    waiting: WaitingJobs = dataclasses.field(default_factory=WaitingJobs)
    running: dict[str, Running] = dataclasses.field(default_factory=dict)
    places: dict[str, tuple[Priority, int]] = dataclasses.field(default_factory=dict)
    starts: list[str] = dataclasses.field(default_factory=list)
    now: float = 0.0

    def add(self, job_id: str, priority: Priority, uid: int) -> None:
        self.places[job_id] = (priority, uid)
        self.waiting.put(job_id, priority, uid)

    def settle(self) -> None:
        for _ in range(50):
            decision = decide(running=self.running.values(), waiting=self.waiting, limits=self.limits, now=self.now)
            self.check(decision)
            if not decision.start and not decision.preempt:
                return
            for job_id in decision.preempt:
                del self.running[job_id]
                self.waiting.put(job_id, *self.places[job_id])
            for job_id in decision.start:
                priority = self.waiting.take(job_id)
                self.running[job_id] = Running(job_id=job_id, priority=priority, since=self.now)
                self.starts.append(job_id)
        raise AssertionError("the scheduler does not come to rest")

    def check(self, decision: Decision) -> None:
        assert len(set(decision.start)) == len(decision.start)
        assert not set(decision.start) & self.running.keys()
        assert set(decision.preempt) <= self.running.keys()
        assert all(self.running[job_id].priority is not FOREGROUND for job_id in decision.preempt)
        by_class: dict[bool, int] = defaultdict(int)
        for job_id in [*self.running, *decision.start]:
            by_class[self.places[job_id][0] is FOREGROUND] += 1
        assert by_class[True] <= self.limits.max_foreground_jobs
        assert by_class[False] <= self.limits.max_background_jobs
        assert decision.again_at is None or decision.again_at > self.now or decision.preempt
        if decision.start or decision.preempt:
            return
        # At rest: no free slot beside a waiting job, and nobody waits behind a lower priority.
        runs = [job.priority for job in self.running.values() if job.priority is not FOREGROUND]
        for priority in BACKGROUND:
            if self.waiting.has(priority):
                assert len(runs) == self.limits.max_background_jobs
                assert all(other <= priority for other in runs)
        if self.waiting.has(FOREGROUND):
            assert len(self.running) - len(runs) == self.limits.max_foreground_jobs


job_specs = st.lists(st.tuples(st.sampled_from(Priority), st.integers(1, 3)), min_size=1, max_size=12)


@given(job_specs, st.integers(1, 3), st.integers(1, 3), st.data())
@settings(deadline=None)
def test_slots_are_never_exceeded_and_urgent_jobs_go_first(
    specs: list[tuple[Priority, int]], foreground: int, background: int, data: st.DataObject
) -> None:
    world = Simulation(Limits(max_foreground_jobs=foreground, max_background_jobs=background, time_slice_s=10))
    for number, (priority, uid) in enumerate(specs):
        world.add(f"j{number}", priority, uid)
        world.settle()
        world.now += data.draw(st.floats(0, 15))
        one_ends = data.draw(st.booleans())
        if world.running and one_ends:
            ended = data.draw(st.sampled_from(sorted(world.running)))
            del world.running[ended]
    world.settle()


@given(st.lists(st.integers(1, 4), min_size=2, max_size=20), st.sampled_from(BACKGROUND), st.integers(1, 3))
@settings(deadline=None)
def test_nobody_starves_within_a_priority(uids: list[int], priority: Priority, slots: int) -> None:
    """Jobs that never end, of accounts with any number of them: each runs within a bounded number of slices."""
    world = Simulation(Limits(max_background_jobs=slots, time_slice_s=10))
    for number, uid in enumerate(uids):
        world.add(f"j{number}", priority, uid)
    accounts = len(set(uids))
    most = max(uids.count(uid) for uid in uids)
    for _ in range(accounts * most + len(uids)):
        world.settle()
        world.now += 10
    assert set(world.starts) == world.places.keys()


@given(st.lists(st.integers(1, 4), min_size=4, max_size=20))
@settings(deadline=None)
def test_accounts_get_equal_shares_of_one_slot(uids: list[int]) -> None:
    world = Simulation(Limits(max_background_jobs=1, time_slice_s=10))
    for number, uid in enumerate(uids):
        world.add(f"j{number}", NORMAL, uid)
    rounds = 12 * len(set(uids))
    for _ in range(rounds):
        world.settle()
        world.now += 10
    share: dict[int, int] = defaultdict(int)
    for job_id in world.starts:
        share[world.places[job_id][1]] += 1
    if len(uids) > 1 and len(set(uids)) > 1:
        assert max(share.values()) - min(share[uid] for uid in set(uids)) <= 2
