"""A store that lives in memory: for tests of everything above the store, and tested like the real one.

It is as strict as the real one: of a job's files it keeps those that the batch says were written,
so that a test which loads again after a "crash" finds a change that nobody declared.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from openbits.core.model import File, Job
from openbits.core.proxies import AccountProxy
from openbits.store.errors import StoreError
from openbits.store.records import Batch, EventChoice, Loaded, OpenReport, PendingEffect, StoredEvent


@dataclass(slots=True)
class MemoryDisk:
    """What outlives a MemoryStore: open the next one on the same disk, and a crash has been simulated."""

    jobs: dict[str, Job] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)
    effects: dict[int, PendingEffect] = field(default_factory=dict)
    proxies: dict[str, AccountProxy] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    last_event_id: int = 0


class MemoryStore:
    """A JobStore without a disk."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        self.commits = 0
        self.failures: deque[StoreError] = deque()
        """Errors that the next commits raise, one each."""
        self._open = True

    def __repr__(self) -> str:
        return f"<MemoryStore jobs={len(self.disk.jobs)} commits={self.commits}>"

    @classmethod
    def open(cls, disk: MemoryDisk | None = None) -> tuple[MemoryStore, OpenReport]:
        """Open a store on a disk, or on a new one."""
        return cls(disk), OpenReport(created=disk is None)

    def load(self) -> Loaded:
        """See JobStore."""
        self._check_open()
        return Loaded(
            jobs=list(self.disk.jobs.values()),
            effects=sorted(self.disk.effects.values(), key=lambda effect: effect.id),
            proxies=dict(self.disk.proxies),
            machine=dict(self.disk.machine),
            last_event_id=self.disk.last_event_id,
        )

    def commit(self, batch: Batch) -> None:
        """See JobStore."""
        self._check_open()
        if self.failures:
            raise self.failures.popleft()
        disk = self.disk
        # Everything that can fail comes first: a batch is applied whole or not at all.
        jobs = {write.job.id: _written(disk.jobs.get(write.job.id), write.job, write.files) for write in batch.jobs}
        known = {event.id for event in disk.events}
        if any(event.id in known for event in batch.events):
            raise StoreError("an event's id was given twice")
        left = disk.effects.keys() - set(batch.effects_done)
        if any(effect.id in left for effect in batch.effects_added):
            raise StoreError("an effect's id was given twice")
        disk.jobs |= jobs
        for job_id in batch.forgotten:
            disk.jobs.pop(job_id, None)
        disk.events = sorted([*disk.events, *batch.events], key=lambda event: event.id)
        disk.last_event_id = max([disk.last_event_id, *(event.id for event in batch.events)])
        for effect_id in batch.effects_done:
            disk.effects.pop(effect_id, None)
        disk.effects.update((effect.id, effect) for effect in batch.effects_added)
        for account, settings in batch.proxies.items():
            if settings is None:
                disk.proxies.pop(account, None)
            else:
                disk.proxies[account] = settings
        for name, value in batch.machine.items():
            if value is None:
                disk.machine.pop(name, None)
            else:
                disk.machine[name] = value
        if batch.prune is not None:
            while disk.events and disk.events[0].time < batch.prune.older_than:
                del disk.events[0]
            del disk.events[: max(0, len(disk.events) - batch.prune.keep)]
        self.commits += 1

    def events_after(
        self, event_id: int, *, limit: int, job_id: str | None = None, owner_uid: int | None = None
    ) -> list[StoredEvent]:
        """See JobStore."""
        self._check_open()
        found = (
            event
            for event in self.disk.events
            if event.id > event_id and job_id in (None, event.job_id) and owner_uid in (None, event.owner_uid)
        )
        return [event for event, _ in zip(found, range(limit), strict=False)]

    def chosen_events(
        self, choice: EventChoice, *, after: int = 0, limit: int, newest: bool = False
    ) -> list[StoredEvent]:
        """See JobStore."""
        self._check_open()
        found = [event for event in self.disk.events if event.id > after and choice.takes(event)]
        return found[max(0, len(found) - limit) :] if newest else found[:limit]

    def scrub(self) -> None:
        """See JobStore: nothing is left of anything here."""
        self._check_open()

    def close(self) -> None:
        """See JobStore."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the job store is closed")


def _written(before: Job | None, after: Job, indices: Collection[int]) -> Job:
    """The job as a real store would read it back: only the files that were written have changed."""
    files: list[File] = list(before.files) if before is not None else []
    for index, file in enumerate(after.files):
        if index in indices:
            files[index : index + 1] = [file]
    if len(files) != len(after.files):
        raise StoreError(f"the job {after.id} has {len(after.files)} files, and {len(files)} of them were written")
    return dataclasses.replace(after, files=tuple(files))
