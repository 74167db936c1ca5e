"""Which jobs run: a decision over what runs, what waits and how much may run, taken anew after every change.

The rules (inventory Q1, Q3, Q4): all FOREGROUND jobs run, up to a limit that protects the machine;
background jobs share a few slots (BITS: one), HIGH before NORMAL before LOW; a higher priority takes
the slot of a lower one; within a priority the accounts take turns, and a job that does not finish
within its time slice goes to the end of its account's line when somebody of its priority waits.
A foreground job is never taken off.

What it costs depends on how many jobs run, not on how many wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from openbits.core.model import Priority

BACKGROUND = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may run at once."""

    max_foreground_jobs: int = 64
    max_background_jobs: int = 1
    time_slice_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that holds a slot."""

    job_id: str
    priority: Priority
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to start and what to take off now; `again_at` is when to decide again if nothing happens."""

    start: tuple[str, ...] = ()
    preempt: tuple[str, ...] = ()
    again_at: float | None = None


class WaitingJobs:
    """The queued jobs: for each priority a ring of accounts, for each account a line of jobs."""

    def __init__(self) -> None:
        self._rings: dict[Priority, OrderedDict[int, OrderedDict[str, None]]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._places: dict[str, tuple[Priority, int]] = {}

    def __repr__(self) -> str:
        return f"<WaitingJobs {len(self._places)}>"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def put(self, job_id: str, priority: Priority, owner_uid: int) -> None:
        """Let a job wait at the end of its account's line; one that waits there already keeps its place."""
        if self._places.get(job_id) == (priority, owner_uid):
            return
        self.discard(job_id)
        self._places[job_id] = (priority, owner_uid)
        self._rings[priority].setdefault(owner_uid, OrderedDict())[job_id] = None

    def discard(self, job_id: str) -> None:
        """Take a job out, if it waits."""
        place = self._places.pop(job_id, None)
        if place is None:
            return
        priority, owner_uid = place
        line = self._rings[priority][owner_uid]
        del line[job_id]
        if not line:
            del self._rings[priority][owner_uid]

    def take(self, job_id: str) -> Priority:
        """Take out a job that starts, and return its priority: its account goes to the end of the ring."""
        priority, owner_uid = self._places[job_id]
        self.discard(job_id)
        if owner_uid in self._rings[priority]:
            self._rings[priority].move_to_end(owner_uid)
        return priority

    def has(self, priority: Priority) -> bool:
        """Whether any job of this priority waits."""
        return bool(self._rings[priority])

    def in_turn(self, priority: Priority) -> Iterator[str]:
        """Yield the waiting jobs of a priority in the order in which they would be taken."""
        lines = [iter(line) for line in self._rings[priority].values()]
        while lines:
            remaining = []
            for line in lines:
                job_id = next(line, None)
                if job_id is not None:
                    yield job_id
                    remaining.append(line)
            lines = remaining


def decide(*, running: Iterable[Running], waiting: WaitingJobs, limits: Limits, now: float) -> Decision:
    """Return which jobs to start and which to take off."""
    foreground = 0
    background: list[Running] = []
    for job in running:
        if job.priority is Priority.FOREGROUND:
            foreground += 1
        else:
            background.append(job)
    start = _first(waiting.in_turn(Priority.FOREGROUND), limits.max_foreground_jobs - foreground)

    slices_end: list[float] = []
    free = limits.max_background_jobs - len(background)
    # The least urgent, and of those the longest-running, is taken off first.
    victims = sorted(background, key=lambda job: (-job.priority, job.since))
    # A limit that was lowered, or a foreground job that is one no more.
    preempt = [job.job_id for job in victims[: max(0, -free)]]
    del victims[: len(preempt)]
    for priority in BACKGROUND:
        for job_id in waiting.in_turn(priority):
            if free > 0:
                start.append(job_id)
                free -= 1
                continue
            victim = next((job for job in victims if _may_take(job, priority, limits, now)), None)
            if victim is None:
                slices_end += [job.since + limits.time_slice_s for job in victims if job.priority is priority]
                break
            victims.remove(victim)
            preempt.append(victim.job_id)
    return Decision(start=tuple(start), preempt=tuple(preempt), again_at=min(slices_end, default=None))


def _may_take(victim: Running, priority: Priority, limits: Limits, now: float) -> bool:
    if victim.priority is priority:
        return now >= victim.since + limits.time_slice_s
    return victim.priority > priority


def _first(jobs: Iterator[str], count: int) -> list[str]:
    return [job_id for job_id, _ in zip(jobs, range(max(0, count)), strict=False)]
