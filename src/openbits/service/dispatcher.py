"""Slots: keeps who waits and who runs in step with the ledger, and lets core.schedule decide.

Every committed change passes through here.  What this costs depends on the jobs that changed and on
those that run, never on how many lie idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from openbits.core.events import Event, SlotGranted, SlotTaken
from openbits.core.model import Job, JobState, Priority
from openbits.core.schedule import Limits, Running, WaitingJobs, decide


class Dispatcher:
    """Grants slots to queued jobs and takes them back; each decision is an event for the ledger."""

    def __init__(
        self,
        *,
        limits: Callable[[], Limits],
        now: Callable[[], float],
        post: Callable[[str, Event], None],
        may_run: Callable[[Job], bool] = lambda _job: True,
    ) -> None:
        """`may_run` says whether a queued job waits for a slot at all; when that changes, a note is needed."""
        self._limits = limits
        self._may_run = may_run
        self._now = now
        self._post = post
        self._waiting = WaitingJobs()
        self._running: dict[str, Running] = {}
        self._runs: dict[str, int] = {}
        """The number of the last run of every job that waits or was granted a slot."""
        self._granted: set[str] = set()
        """Jobs that hold a slot although the ledger has not written that down yet."""
        self._leaving: set[str] = set()
        """Jobs whose slot is being taken back; they hold it until the ledger has written that down."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Dispatcher waiting={len(self._waiting)} running={len(self._running)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"waiting": len(self._waiting), "running": len(self._running)}

    @property
    def background_running(self) -> int:
        """How many background jobs hold slots."""
        return sum(1 for job in self._running.values() if job.priority is not Priority.FOREGROUND)

    def holds(self, job_id: str) -> bool:
        """Whether the job has a slot, or was granted one that is not written down yet."""
        return job_id in self._running

    def take_note(self, jobs: Mapping[str, Job | None]) -> None:
        """Take note of jobs that changed, then decide."""
        for job_id, job in jobs.items():
            self._leaving.discard(job_id)
            state = job.state if job is not None else None
            if job is not None and state is JobState.QUEUED and self._may_run(job):
                self._note_queued(job)
                continue
            self._granted.discard(job_id)
            self._runs.pop(job_id, None)
            if job is not None and job.state.is_active:
                self._note_active(job)
                continue
            self._waiting.discard(job_id)
            self._running.pop(job_id, None)
        self.decide()

    def _note_queued(self, job: Job) -> None:
        if job.id in self._granted and self._runs[job.id] == job.run:
            # Something else about it has changed; its slot is still on the way.
            self._hold(job)
            return
        self._granted.discard(job.id)
        self._running.pop(job.id, None)
        self._runs[job.id] = job.run
        self._waiting.put(job.id, job.settings.priority, job.owner.identity.uid)

    def _note_active(self, job: Job) -> None:
        if job.id in self._waiting:
            self._waiting.take(job.id)
        self._hold(job)

    def _hold(self, job: Job) -> None:
        known = self._running.get(job.id)
        if known is None or known.priority is not job.settings.priority:
            since = known.since if known is not None else self._now()
            self._running[job.id] = Running(job_id=job.id, priority=job.settings.priority, since=since)

    def decide(self) -> None:
        """Decide anew and post what comes out."""
        now = self._now()
        decision = decide(running=self._running.values(), waiting=self._waiting, limits=self._limits(), now=now)
        for job_id in decision.start:
            # The slot is taken from now on. Should the job not be QUEUED any more when the event is
            # applied, then something else has changed it, and the note of that puts this right.
            priority = self._waiting.take(job_id)
            self._running[job_id] = Running(job_id=job_id, priority=priority, since=now)
            self._granted.add(job_id)
            self._post(job_id, SlotGranted())
        for job_id in decision.preempt:
            if job_id not in self._leaving:
                self._leaving.add(job_id)
                self._post(job_id, SlotTaken())
        self._arm(decision.again_at, now)

    def _arm(self, at: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self.decide)

    def close(self) -> None:
        """Decide nothing any more."""
        self._arm(None, 0.0)
