"""The ledger: every change of a job is applied, written down and only then acted upon, here and nowhere else.

    change ▸ core.lifecycle.apply ▸ one transaction {jobs, events, effects} ▸ commit ▸ perform the effects

What is in `jobs` is always what is on the disk.  Changes that come while a transaction is being
written share the next one.  A change that raises leaves no trace; a transaction that fails takes the
callers' changes with it, and keeps what the workers reported until it can be written.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from openbits.core import entries as said
from openbits.core.entries import Process
from openbits.core.environment import Environment
from openbits.core.eventlog import Level, level_of
from openbits.core.events import Effect, Entry, Event, FilesFinished, FinishFiles, Step
from openbits.core.lifecycle import apply
from openbits.core.model import Caller, Closing, Job, Owner
from openbits.core.proxies import AccountProxy
from openbits.errors import BitsError
from openbits.service.records import EventRecord
from openbits.store.errors import StoreError, StoreFull
from openbits.store.interface import JobStore
from openbits.store.records import Batch, EventPrune, JobWrite, PendingEffect, StoredEvent

log = logging.getLogger(__name__)

RETRY_FULL_STORE_S = 5.0
MAX_CHANGES_PER_COMMIT = 2000
EVENTS_BETWEEN_PRUNES = 1000
VERBOSE_EVENTS = "verbose_events"
"""The setting of the machine that lets verbose events be written down (B44); without it they are left out."""
_CLOSINGS = frozenset(closing.value for closing in Closing)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Committed:
    """What one transaction changed, for those who act on it."""

    before: Mapping[str, Job | None]
    after: Mapping[str, Job | None]
    """The job after the transaction; None when it was forgotten."""
    effects: Sequence[Effect]
    events: Sequence[EventRecord]


class Draft:
    """The jobs as they will be if the change at hand is written down."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        below: Draft | None,
        env: Environment,
        proxies: Mapping[str, AccountProxy],
        machine: Mapping[str, Any],
    ) -> None:
        self._jobs = jobs
        self._below = below
        self.env = env
        self._kept_proxies = proxies
        self._kept_machine = machine
        self.proxies: dict[str, AccountProxy | None] = {}
        """Proxy settings that change, by account; None: forgotten (I20)."""
        self.machine: dict[str, Any] = {}
        """Settings of the machine that change, by name; None: forgotten."""
        self.written: dict[str, Job | None] = {}
        self.changed_files: dict[str, set[int]] = {}
        self.created: set[str] = set()
        self.entries: list[tuple[str, Entry]] = []
        self.notes: list[tuple[int, Entry]] = []
        """Entries that are about no job, with the uid of the account that they concern."""
        self.by: Caller | None = None
        """Whose call this change is, once it is known that he may make it; the event log says so."""
        self.effects: list[Effect] = []
        self.outbox: dict[str, Closing | None] = {}
        """What is left to be done with a job's files after this change; None: nothing any more."""
        self.promised: list[PendingEffect] = []
        """What is to be done after this change, besides: see `Ledger.promise`."""
        self.kept: list[int] = []
        """Ids of promises that have been kept."""

    def get(self, job_id: str) -> Job | None:
        """Return a job as this change sees it."""
        if job_id in self.written:
            return self.written[job_id]
        return self._below.get(job_id) if self._below is not None else self._jobs.get(job_id)

    def account_proxies(self, account: str) -> AccountProxy | None:
        """Return the proxy settings of an account as this change sees them."""
        if account in self.proxies:
            return self.proxies[account]
        return self._below.account_proxies(account) if self._below is not None else self._kept_proxies.get(account)

    def machine_setting(self, name: str) -> Any:
        """Return a setting of the machine as this change sees it; None where there is none."""
        if name in self.machine:
            return self.machine[name]
        return self._below.machine_setting(name) if self._below is not None else self._kept_machine.get(name)

    def create(self, job: Job, process: Process | None = None) -> None:
        """Add a new job, which this process has asked for."""
        self.written[job.id] = job
        self.created.add(job.id)
        self.changed_files[job.id] = set(range(len(job.files)))
        self._say(job, (said.created(job, process or Process()),))

    def note(self, job_id: str, entry: Entry) -> None:
        """Add an entry to the event log of a job that this change sees."""
        self.entries.append((job_id, entry))

    def _say(self, before: Job, entries: Sequence[Entry]) -> None:
        if self.by is not None and entries:
            entries = said.attributed(before, entries, self.by)
        self.entries.extend((before.id, entry) for entry in entries)

    def created_jobs(self) -> Iterator[Job]:
        """Yield the jobs that this change, and those before it in the transaction, have added."""
        if self._below is not None:
            yield from self._below.created_jobs()
        for job_id in self.created:
            job = self.get(job_id)
            if job is not None:
                yield job

    def apply(self, job_id: str, event: Event) -> Job | None:
        """Apply an event to a job; return the job after it, or None when there is no such job."""
        job = self.get(job_id)
        if job is None:
            return None
        step = apply(job, event, self.env)
        if step is None:
            return job
        if isinstance(event, FilesFinished):
            self.outbox[job_id] = None
        self._take(job, step)
        return step.job

    def _take(self, before: Job, step: Step) -> None:
        job_id = before.id
        if step.forget:
            self.written[job_id] = None
        else:
            self.written[job_id] = step.job
            # A reply is written down with its job.
            own = range(len(step.job.files))
            self.changed_files.setdefault(job_id, set()).update(i for i in step.changed_files if i in own)
        self._say(before, step.entries)
        self.effects.extend(step.effects)
        for effect in step.effects:
            if isinstance(effect, FinishFiles):
                self.outbox[job_id] = effect.closing

    def absorb(self, other: Draft) -> None:
        """Take over the changes of a draft that stands on this one."""
        self.written.update(other.written)
        for job_id, indices in other.changed_files.items():
            self.changed_files.setdefault(job_id, set()).update(indices)
        self.created |= other.created
        self.entries += other.entries
        self.notes += other.notes
        self.effects += other.effects
        self.outbox.update(other.outbox)
        self.proxies.update(other.proxies)
        self.machine.update(other.machine)
        self.promised += other.promised
        self.kept += other.kept


@dataclass(slots=True)
class _Change(Generic[_T]):
    work: Callable[[Draft], _T]
    future: asyncio.Future[_T] | None
    result: Any = field(default=None)


class Ledger:
    """Owns the jobs; see the module's rule."""

    def __init__(
        self,
        *,
        store: JobStore,
        writer: Executor,
        environment: Callable[[], Environment],
        committed: Callable[[Committed], None],
        prune: Callable[[], EventPrune],
    ) -> None:
        self._prune = prune
        self._unpruned = EVENTS_BETWEEN_PRUNES
        self._store = store
        self._writer = writer
        self._environment = environment
        self._committed = committed
        self._changes: deque[_Change[Any]] = deque()
        self._wake = asyncio.Event()
        self._room_timer: asyncio.TimerHandle | None = None
        """Runs while reports wait for room on the store's disk."""
        self.jobs: dict[str, Job] = {}
        self.proxies: dict[str, AccountProxy] = {}
        """The proxy settings of accounts, as they stand on the disk."""
        self.machine: dict[str, Any] = {}
        """The settings of the machine, as they stand on the disk."""
        self.open_jobs: Counter[Owner] = Counter()
        """How many jobs that have not ended each owner has: quotas must not cost a walk over all jobs."""
        self._outbox: dict[str, int] = {}
        self._effect_ids = itertools.count(1)
        self.promises: tuple[PendingEffect, ...] = ()
        """What a former life has promised and not kept."""
        self._event_ids = itertools.count(1)
        self.last_event_id = 0
        self.commits = 0

    def __repr__(self) -> str:
        return f"<Ledger jobs={len(self.jobs)} waiting={len(self._changes)} outbox={len(self._outbox)}>"

    def load(self) -> list[FinishFiles]:
        """Read everything from the store; return the effects that a stop or crash has left undone."""
        loaded = self._store.load()
        self.jobs = {job.id: job for job in loaded.jobs}
        self.open_jobs = Counter(job.owner for job in loaded.jobs if not job.state.is_final)
        self.proxies = loaded.proxies
        self.machine = loaded.machine
        self.last_event_id = loaded.last_event_id
        self._event_ids = itertools.count(loaded.last_event_id + 1)
        endings = [effect for effect in loaded.effects if effect.kind in _CLOSINGS]
        self.promises = tuple(effect for effect in loaded.effects if effect.kind not in _CLOSINGS)
        self._outbox = {effect.job_id: effect.id for effect in endings}
        self._effect_ids = itertools.count(max((effect.id for effect in loaded.effects), default=0) + 1)
        return [
            FinishFiles(job_id=effect.job_id, closing=Closing(effect.kind))
            for effect in endings
            if effect.job_id in self.jobs
        ]

    def promise(self, job_id: str, kind: str, payload: str) -> PendingEffect:
        """Make a promise for `Draft.promised`: written down, it is found again at every start until it is kept."""
        return PendingEffect(id=next(self._effect_ids), job_id=job_id, kind=kind, payload=payload)

    async def submit(self, work: Callable[[Draft], _T]) -> _T:
        """Run `work` on a draft; return its result when all that it changed is on the disk.

        Whatever `work` raises is raised here, and nothing has changed.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._changes.append(_Change(work, future))
        self._wake.set()
        return await future

    def post(self, job_id: str, event: Event) -> None:
        """Apply an event that no caller waits for; it is kept until it can be written down."""
        self._changes.append(_Change(lambda draft: draft.apply(job_id, event), None))
        if self._room_timer is None:
            self._wake.set()

    def record(self, entry: Entry, *, owner_uid: int = 0) -> None:
        """Write an entry into the event log that is about no job; administrators see it, and that account."""
        self._changes.append(_Change(lambda draft: draft.notes.append((owner_uid, entry)), None))
        if self._room_timer is None:
            self._wake.set()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._changes

    async def run(self) -> None:
        """Write down changes for ever, as they come."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changes and await self._turn():
                pass

    async def _turn(self) -> bool:
        """Write down what there is; False when it has to wait for room on the disk."""
        env = self._environment()
        total = Draft(self.jobs, None, env, self.proxies, self.machine)
        batch: list[_Change[Any]] = []
        while self._changes and len(batch) < MAX_CHANGES_PER_COMMIT:
            change = self._changes.popleft()
            if change.future is not None and change.future.cancelled():
                continue
            draft = Draft(self.jobs, total, env, self.proxies, self.machine)
            try:
                change.result = change.work(draft)
            except Exception as error:  # noqa: BLE001 - whatever a change raises belongs to its caller
                self._reject(change, error)
                continue
            total.absorb(draft)
            batch.append(change)
        has_changes = total.written or total.entries or total.notes or total.proxies or total.machine
        if has_changes or total.promised or total.kept:
            events = self._records(total)
            try:
                writing = self._batch(total, events)
                await asyncio.get_running_loop().run_in_executor(self._writer, self._store.commit, writing)
            except StoreError as error:
                return self._not_written(batch, error)
            self._install(total, events, writing)
        # Also when nothing was left to write: otherwise no report would be heard any more.
        self._stop_waiting_for_room()
        for change in batch:
            if change.future is not None and not change.future.done():
                change.future.set_result(change.result)
        return True

    @staticmethod
    def _reject(change: _Change[Any], error: Exception) -> None:
        if change.future is None:
            log.error("action=event-failed", exc_info=error)
        elif not change.future.done():
            change.future.set_exception(error)

    def _not_written(self, batch: list[_Change[Any]], error: StoreError) -> bool:
        if not isinstance(error, StoreFull):
            log.error("action=store-failed changes=%d error=%s", len(batch), error)
            raise error
        refusal = f"the job store cannot be written: {error}: make room on its disk"
        # Callers who came meanwhile as well: behind reports that fill whole batches they would wait unheard.
        changes = [*batch, *self._changes]
        self._changes = deque(change for change in changes if change.future is None)
        for change in changes:
            if change.future is not None:
                self._reject(change, BitsError("ERROR_DISK_FULL", refusal))
        if not self._changes:
            return True
        # Every caller is one more attempt; reports alone are not: workers send them all the time.
        if self._room_timer is None:
            log.error("action=store-full waiting=%d error=%s", len(self._changes), error)
        else:
            self._room_timer.cancel()
        self._room_timer = asyncio.get_running_loop().call_later(RETRY_FULL_STORE_S, self._wake.set)
        return False

    def _stop_waiting_for_room(self) -> None:
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
            log.info("action=store-waits-no-more")

    def _records(self, total: Draft) -> list[EventRecord]:
        env = total.env
        records = []
        has_verbose = bool(self.machine.get(VERBOSE_EVENTS))
        for job_id, entry in total.entries:
            if entry.event_id and not has_verbose and level_of(entry.event_id) is Level.VERBOSE:
                continue
            job = total.get(job_id)
            known = job or self.jobs.get(job_id)
            if known is not None:
                records.append(
                    EventRecord(
                        id=next(self._event_ids),
                        time=env.now,
                        kind=entry.kind,
                        job_id=job_id,
                        text=entry.text,
                        owner_uid=known.owner.identity.uid,
                        job=job,
                        event_id=entry.event_id,
                        fields=entry.fields,
                    )
                )
        for owner_uid, entry in total.notes:
            if not has_verbose and level_of(entry.event_id, entry.kind) is Level.VERBOSE:
                continue
            records.append(
                EventRecord(
                    id=next(self._event_ids),
                    time=env.now,
                    kind=entry.kind,
                    job_id="",
                    text=entry.text,
                    owner_uid=owner_uid,
                    event_id=entry.event_id,
                    fields=entry.fields,
                )
            )
        return records

    def _batch(self, total: Draft, events: Iterable[EventRecord]) -> Batch:
        added = [
            PendingEffect(id=next(self._effect_ids), job_id=job_id, kind=closing.value, payload="")
            for job_id, closing in total.outbox.items()
            if closing is not None
        ]
        done = [self._outbox[job_id] for job_id in total.outbox if job_id in self._outbox]
        return Batch(
            jobs=[
                JobWrite(job=job, files=frozenset(total.changed_files.get(job_id, ())))
                for job_id, job in total.written.items()
                if job is not None
            ],
            forgotten=[job_id for job_id, job in total.written.items() if job is None],
            events=[
                StoredEvent(
                    id=event.id,
                    time=event.time,
                    kind=event.kind,
                    job_id=event.job_id,
                    text=event.text,
                    owner_uid=event.owner_uid,
                    event_id=event.event_id,
                    fields=event.fields,
                )
                for event in events
            ],
            effects_added=added + total.promised,
            effects_done=done + total.kept,
            proxies=total.proxies,
            machine=total.machine,
            prune=self._prune() if self._unpruned >= EVENTS_BETWEEN_PRUNES else None,
        )

    def _install(self, total: Draft, events: list[EventRecord], written: Batch) -> None:
        before = {job_id: self.jobs.get(job_id) for job_id in total.written}
        for job_id, job in total.written.items():
            self._count(before[job_id], -1)
            self._count(job, 1)
            if job is None:
                self.jobs.pop(job_id, None)
            else:
                self.jobs[job_id] = job
        for account, settings in total.proxies.items():
            if settings is None:
                self.proxies.pop(account, None)
            else:
                self.proxies[account] = settings
        for name, value in total.machine.items():
            if value is None:
                self.machine.pop(name, None)
            else:
                self.machine[name] = value
        for job_id in total.outbox:
            self._outbox.pop(job_id, None)
        # Promises are kept by those who made them; a job's outbox is about the end of its files only.
        self._outbox.update((effect.job_id, effect.id) for effect in written.effects_added if effect.kind in _CLOSINGS)
        if events:
            self.last_event_id = events[-1].id
        self.commits += 1
        self._unpruned = len(events) + (0 if written.prune is not None else self._unpruned)
        self._committed(Committed(before=before, after=total.written, effects=total.effects, events=events))

    def _count(self, job: Job | None, change: int) -> None:
        if job is not None and not job.state.is_final:
            self.open_jobs[job.owner] += change
            if not self.open_jobs[job.owner]:
                del self.open_jobs[job.owner]
