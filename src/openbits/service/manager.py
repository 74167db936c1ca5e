"""The calls of BITS: who calls is checked first, then what is asked for, then the ledger is told.

A call that raises has changed nothing.  The decisions themselves stand in `core`; what happens to
files and networks happens in workers.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openbits.core import access, names, quotas, uploads
from openbits.core.environment import Environment
from openbits.core.events import (
    AddFiles,
    Cancel,
    ChangeSettings,
    Complete,
    Event,
    Resume,
    SetHeaders,
    SetValidation,
    Suspend,
)
from openbits.core.model import Caller, File, Job, JobState, JobType, Owner, Priority, Settings
from openbits.core.settings import OWNERS_ALONE, STEERING, SettingsWindow, change_settings, take_headers
from openbits.core.why import Gate, gate_of
from openbits.errors import BitsError
from openbits.service.calls import CheckResult, NewFile, NewJob, Outcome
from openbits.service.configuration import Configuration
from openbits.service.feed import Feed, Record, Subscription
from openbits.service.helpertokens import HelperTokens
from openbits.service.intake import Intake, Places, has_local_sources, places_of, refuse_local_source
from openbits.service.ledger import Draft, Ledger
from openbits.service.processes import process_of
from openbits.service.records import EventRecord
from openbits.service.refusals import Refusals
from openbits.service.runs import Conductor
from openbits.service.sealing import renamed, sealed_files, sealed_headers
from openbits.service.secrets import Secrets
from openbits.service.uploads import named_reply
from openbits.store.interface import JobStore
from openbits.store.records import EventChoice

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the manager stands on."""

    configuration: Callable[[], Configuration]
    environment: Callable[[], Environment]
    administrators_gid: Callable[[], int | None]
    ledger: Ledger
    conductor: Conductor
    intake: Intake
    tokens: HelperTokens
    feed: Feed
    store: JobStore
    secrets: Secrets
    health: Callable[[Caller], list[CheckResult]]
    background_running: Callable[[], int]
    statistics: Callable[[], dict[str, Any]]
    limit_note: Callable[[Priority], str]
    """What limits jobs of a priority now, for people."""


class Manager:
    """IBackgroundCopyManager and the jobs behind it, for callers that the kernel vouches for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ledger = parts.ledger
        self._intake = parts.intake
        self._refusals = Refusals(
            ledger=parts.ledger, quotas=lambda: parts.configuration().quotas, now=lambda: parts.environment().now
        )

    # --- creating -------------------------------------------------------------------------------

    async def create_jobs(self, caller: Caller, jobs: Sequence[NewJob]) -> list[Job]:
        """Create jobs with their files, all or none; resumed ones are queued at once (M1, J2, J5)."""
        with self._refusals.noted(caller):
            return await self._create_jobs(caller, jobs)

    async def _create_jobs(self, caller: Caller, jobs: Sequence[NewJob]) -> list[Job]:
        prepared = [self._prepare(caller, new) for new in jobs]
        account = caller.as_owner()
        await self._intake.check_places(caller, account, places_of((job.type, job.files) for job in prepared))
        for job, new in zip(prepared, jobs, strict=True):
            if job.reply is not None:
                await self._intake.check_reply_place(caller, account, job.reply.local_name)
            elif new.resume:
                await self._check_generated(caller, account, job)

        process = process_of(caller)

        def create(draft: Draft) -> list[Job]:
            draft.by = caller
            self._check_job_quota(draft, caller, len(prepared))
            created = []
            for job, new in zip(prepared, jobs, strict=True):
                draft.create(replace(job, created_at=draft.env.now, modified_at=draft.env.now), process)
                resumed = draft.apply(job.id, Resume()) if new.resume else draft.get(job.id)
                assert resumed is not None
                created.append(resumed)
            return created

        return await self._ledger.submit(create)

    def _prepare(self, caller: Caller, new: NewJob) -> Job:
        names.check_new_display_name(new.name)
        if "name" in new.settings:
            raise BitsError("E_INVALIDARG", "the job's name is given beside the settings, not among them")
        window = SettingsWindow(
            job_type=new.type,
            has_ranges=any(file.ranges for file in new.files),
            has_local_sources=has_local_sources(new.files),
        )
        headers, properties = take_headers(new.settings)
        settings = change_settings(Settings(name=new.name), properties, window=window)
        job_id = str(uuid.uuid4())
        job = Job(
            id=job_id,
            type=new.type,
            owner=caller.as_owner(),
            settings=settings,
            created_at=0.0,
            modified_at=0.0,
            sealed_headers=self._sealed_headers(job_id, headers or ""),
        )
        files = self._intake.checked_files(caller, job, new.files)
        job = replace(job, files=sealed_files(self._parts.secrets, job_id, files))
        return replace(job, reply=named_reply(job, new.reply_file_name)) if new.reply_file_name else job

    def _sealed_headers(self, job_id: str, headers: str) -> str:
        return sealed_headers(self._parts.secrets, job_id, headers)

    async def _check_generated(self, caller: Caller, account: Owner, job: Job) -> None:
        """Before the job runs: that the reply cannot stand anywhere must not turn out when it comes (J34)."""
        reply = uploads.with_reply_name(job).reply if job.files else None
        if reply is not None:
            await self._intake.check_reply_place(caller, account, reply.local_name)

    def _check_job_quota(self, draft: Draft, caller: Caller, new: int) -> None:
        if quotas.is_exempt(caller):
            return
        # Also those that others create in the same transaction.
        present = self._ledger.open_jobs + Counter(job.owner for job in draft.created_jobs())
        gid = self._parts.administrators_gid()
        counting = {owner: count for owner, count in present.items() if quotas.counts(owner, gid)}
        counted = sum(counting.values())
        owned = sum(count for owner, count in counting.items() if owner.identity.uid == caller.identity.uid)
        limits = self._parts.configuration().quotas
        quotas.check_new_jobs(limits, caller, new=new, owned=owned, counted=counted)

    # --- files -------------------------------------------------------------------------------------

    async def add_files(self, caller: Caller, job_id: str, files: Sequence[NewFile]) -> Outcome:
        """AddFileSet (J1, J2, J41)."""
        with self._refusals.noted(caller):
            return await self._add_files(caller, job_id, files)

    async def _add_files(self, caller: Caller, job_id: str, files: Sequence[NewFile]) -> Outcome:
        job = self._changeable(caller, job_id)
        added = self._intake.checked_files(caller, job, files)
        places = places_of([(job.type, added)])
        await self._intake.check_places(caller, self._parts.tokens.file_account(job), places)

        def add(draft: Draft) -> Job:
            present = self._in_draft(draft, caller, job_id)
            access.may_steer(caller, present)
            # Checked again: others may have added files while the directories were looked at.
            self._intake.check_new_files(caller, present, added)
            files = sealed_files(self._parts.secrets, job_id, added, first=len(present.files))
            changed = draft.apply(job_id, AddFiles(files=files))
            assert changed is not None
            return changed

        return Outcome(result="S_OK", job=await self._ledger.submit(add))

    async def _check_remote_files(self, caller: Caller, job_id: str, remote_names: Sequence[str]) -> None:
        paths = [names.file_path(name) for name in remote_names if name.lower().startswith("file:")]
        if paths:
            account = self._parts.tokens.file_account(self._changeable(caller, job_id))
            await self._intake.check_places(caller, account, Places(remote_files=paths))

    async def set_remote_name(self, caller: Caller, job_id: str, index: int, remote_name: str) -> Outcome:
        """F4."""
        job = self._download(caller, job_id)
        names.check_remote_name(remote_name)
        refuse_local_source(job, remote_name)
        await self._check_remote_files(caller, job_id, [remote_name])

        def rename(draft: Draft) -> Outcome:
            job = self._in_draft(draft, caller, job_id)
            access.may_steer(caller, job)
            if _file(job, index).transferred:
                raise BitsError("BG_E_INVALID_STATE", "the file is finished: its remote name means nothing any more")
            return _outcome("S_OK", draft.apply(job_id, renamed(self._parts.secrets, job, [(index, remote_name)])))

        return await self._ledger.submit(rename)

    async def replace_remote_prefix(self, caller: Caller, job_id: str, old: str, new: str) -> Outcome:
        """J40; remote names stand without user name and password, and are compared so."""
        job = self._download(caller, job_id)
        old, _ = names.split_userinfo(old)
        if not old or not new:
            raise BitsError("E_INVALIDARG", "neither the old nor the new prefix may be empty")
        refuse_local_source(job, new)
        if new.lower().startswith("file:"):
            found = (names.replace_prefix(file.remote_name, old, new) for file in job.files)
            await self._check_remote_files(caller, job_id, [name for name in found if name is not None])

        def rename(draft: Draft) -> Outcome:
            job = self._in_draft(draft, caller, job_id)
            access.may_steer(caller, job)
            matches = [
                (index, name, file)
                for index, file in enumerate(job.files)
                if (name := names.replace_prefix(file.remote_name, old, new)) is not None
            ]
            if not matches:
                return Outcome(result="S_FALSE", job=job)
            open_files = [(index, name) for index, name, file in matches if not file.transferred]
            if not open_files:
                return Outcome(result="S_OK", job=job)
            return _outcome("S_OK", draft.apply(job_id, renamed(self._parts.secrets, job, open_files)))

        return await self._ledger.submit(rename)

    async def set_validation_state(self, caller: Caller, job_id: str, index: int, valid: bool) -> Outcome:
        """F6."""

        def validate(draft: Draft) -> Outcome:
            _file(self._in_draft(draft, caller, job_id), index)
            return _outcome("S_OK", draft.apply(job_id, SetValidation(index=index, valid=valid)))

        return await self._ledger.submit(validate)

    # --- properties and verbs ------------------------------------------------------------------------

    async def change_settings(self, caller: Caller, job_id: str, changes: Mapping[str, Any]) -> Outcome:
        """Set properties, all or none."""
        headers, properties = take_headers(changes)

        def change(draft: Draft) -> Outcome:
            job = self._in_draft(draft, caller, job_id)
            for name in OWNERS_ALONE & changes.keys():
                access.must_own(caller, job.owner, name)
            if STEERING & changes.keys():
                access.may_steer(caller, job)
            window = SettingsWindow(
                job_type=job.type,
                was_resumed=job.was_resumed,
                has_files=bool(job.files),
                is_transferred=job.state is JobState.TRANSFERRED,
                has_ranges=any(file.ranges for file in job.files),
                has_local_sources=has_local_sources(job.files),
            )
            settings = change_settings(job.settings, properties, window=window)
            changed = None
            if headers is not None:
                changed = draft.apply(job_id, SetHeaders(sealed=self._sealed_headers(job_id, headers)))
            if properties or headers is None:
                changed = draft.apply(job_id, ChangeSettings(settings=settings))
            return _outcome("S_OK", changed)

        return await self._ledger.submit(change)

    async def resume(self, caller: Caller, job_id: str) -> Outcome:
        """J5."""
        job = self._changeable(caller, job_id)
        if job.type is JobType.UPLOAD_REPLY and job.reply is None and not job.state.is_final:
            try:
                account = self._parts.tokens.file_account(job)
            except BitsError as error:
                # The job will say so itself when it runs.
                log.debug("action=reply-place-not-checked job=%s reason=%s", job_id, error.name)
            else:
                await self._check_generated(caller, account, job)
        return await self._verb(caller, job_id, Resume())

    async def suspend(self, caller: Caller, job_id: str) -> Outcome:
        """J4."""
        return await self._verb(caller, job_id, Suspend())

    async def cancel(self, caller: Caller, job_id: str) -> Outcome:
        """J6; returns when the temporary files are gone, or could not be deleted."""
        return await self._closing_verb(caller, job_id, Cancel())

    async def complete(self, caller: Caller, job_id: str) -> Outcome:
        """J7; returns when the files stand under their names."""
        return await self._closing_verb(caller, job_id, Complete())

    async def _verb(self, caller: Caller, job_id: str, event: Event) -> Outcome:
        def act(draft: Draft) -> Outcome:
            self._in_draft(draft, caller, job_id)
            return _outcome("S_OK", draft.apply(job_id, event))

        return await self._ledger.submit(act)

    async def _closing_verb(self, caller: Caller, job_id: str, event: Event) -> Outcome:
        def act(draft: Draft) -> None:
            self._in_draft(draft, caller, job_id)
            draft.apply(job_id, event)

        await self._ledger.submit(act)
        finishing = self._parts.conductor.finishing(job_id)
        # Shielded: a caller who hangs up does not stop what has been written down.
        report = await asyncio.shield(finishing) if finishing is not None else None
        job = access.existing(self._ledger.jobs.get(job_id))
        if report is not None and report.failed:
            _, name, message = report.failed[0]
            raise BitsError(name, message)
        return Outcome(result=job.result or "S_OK", job=job)

    # --- reading --------------------------------------------------------------------------------------

    def get_job(self, caller: Caller, job_id: str) -> Job:
        """Return a job, also a final one within its retention time. BG_E_NOT_FOUND, E_ACCESSDENIED."""
        job = access.existing(self._ledger.jobs.get(job_id))
        access.may_read(caller, job.owner)
        return job

    def list_jobs(
        self, caller: Caller, *, all_users: bool, name: str | None, history: bool, after: str | None, limit: int
    ) -> tuple[list[Job], str | None]:
        """Return one page of jobs, oldest first, and the cursor of the next page (M3). E_ACCESSDENIED."""
        if all_users:
            access.may_list_everyone(caller)
        jobs = iter(self._ledger.jobs.values())
        if after is not None:
            if after not in self._ledger.jobs:
                raise BitsError("E_INVALIDARG", "the list cannot be continued there: begin it again")
            for job in jobs:
                if job.id == after:
                    break
        page: list[Job] = []
        for job in jobs:
            if not all_users and not access.owns(caller, job.owner):
                continue
            if job.state.is_final and not history:
                continue
            if name is not None and job.settings.name != name:
                continue
            if len(page) == limit:
                return page, page[-1].id
            page.append(job)
        return page, None

    def received_bytes(self, job: Job) -> int:
        """Bytes of a job that have come in, durable or not (what lists and progress bars show)."""
        received = self._parts.conductor.received(job.id)
        # A reply is no part of the job's progress (J9).
        ahead = sum(
            max(0, count - job.files[index].bytes_transferred)
            for index, count in received.items()
            if index < len(job.files)
        )
        return job.bytes_transferred + ahead

    def file_received_bytes(self, job: Job, index: int) -> int:
        """The same for one file."""
        received = self._parts.conductor.received(job.id).get(index, 0)
        return max(received, job.part(index).bytes_transferred)

    def helper_of(self, job: Job) -> Owner | None:
        """Whose helper token the job has, if it has one (T4)."""
        return self._parts.tokens.helper(job.id)

    def why(self, caller: Caller, job_id: str) -> Gate:
        """What the job waits for."""
        job = self.get_job(caller, job_id)
        gate = gate_of(
            job,
            self._parts.environment(),
            ahead=self._parts.background_running(),
            trouble=self._parts.conductor.trouble(job_id),
            received_bytes=self.received_bytes(job),
        )
        note = self._parts.limit_note(job.settings.priority) if job.state.is_active else ""
        gate = replace(gate, sentence=f"{gate.sentence}; {note}") if note else gate
        way = self.way(job)
        return replace(gate, sentence=f"{gate.sentence}; it goes {way}") if way and job.state.is_active else gate

    def way(self, job: Job) -> str:
        """By which proxy the job goes, or went when it last ran since the service started, and by whose settings."""
        return self._parts.conductor.way(job.id)

    async def may_read_events(self, caller: Caller, job_id: str | None, *, all_users: bool) -> EventChoice:
        """Return which events the caller may read: of a job that is forgotten, those of when it was his (A1).

        Raises E_ACCESSDENIED, BG_E_NOT_FOUND.
        """
        if job_id is None or job_id in self._ledger.jobs:
            self._may_follow(caller, job_id, all_users)
            owner_uid = None if all_users or job_id is not None else caller.identity.uid
            return EventChoice(job_id=job_id, owner_uid=owner_uid)
        owner_uid = None if caller.is_administrator else caller.identity.uid
        choice = EventChoice(job_id=job_id, owner_uid=owner_uid)
        if not await asyncio.to_thread(self._parts.store.chosen_events, choice, limit=1):
            access.existing(None)
        return choice

    async def chosen_events(
        self, caller: Caller, choice: EventChoice, *, after: int, limit: int, newest: bool = False
    ) -> list[EventRecord]:
        """Kept events of a choice that `may_read_events` has made or that is narrower, oldest first."""
        stored = await asyncio.to_thread(
            self._parts.store.chosen_events, choice, after=after, limit=limit, newest=newest
        )
        return [
            EventRecord(
                id=event.id,
                time=event.time,
                kind=event.kind,
                job_id=event.job_id,
                text=event.text,
                owner_uid=event.owner_uid,
                job=self._visible(caller, event.job_id),
                event_id=event.event_id,
                fields=event.fields,
            )
            for event in stored
        ]

    def _visible(self, caller: Caller, job_id: str) -> Job | None:
        """The job as it is now, unless it is somebody else's since: the event alone is the caller's then."""
        job = self._ledger.jobs.get(job_id)
        if job is None or not (caller.is_administrator or access.owns(caller, job.owner)):
            return None
        return job

    def watch(
        self, caller: Caller, *, job_id: str | None, all_users: bool, choice: EventChoice | None = None
    ) -> Subscription:
        """Events from now on.  The subscription exists from the moment of the call.

        A reader that falls behind by more than the buffer gets an end of stream and comes again
        with the last event that it saw.
        """
        if job_id is None or job_id in self._ledger.jobs:
            self._may_follow(caller, job_id, all_users)
        uid = caller.identity.uid

        def wants(record: Record) -> bool:
            if choice is not None and isinstance(record, EventRecord) and not choice.takes(record):
                return False
            if job_id is None:
                return all_users or record.owner_uid == uid
            if record.job_id == job_id and record.owner_uid != uid and not caller.is_administrator:
                # It is somebody else's job now: who comes again is told so.
                subscription.end()
                return False
            return record.job_id == job_id

        subscription = self._parts.feed.subscribe(wants)
        return subscription

    def _may_follow(self, caller: Caller, job_id: str | None, all_users: bool) -> None:
        if job_id is not None:
            self.get_job(caller, job_id)
        elif all_users:
            access.may_list_everyone(caller)

    async def doctor(self, caller: Caller) -> list[CheckResult]:
        """Health of the service as this caller may see it."""
        return self._parts.health(caller)

    def statistics(self) -> dict[str, Any]:
        """Counters, for people."""
        return self._parts.statistics()

    # --- parts ------------------------------------------------------------------------------------------

    def _download(self, caller: Caller, job_id: str) -> Job:
        """A job that the caller may change, of the one type whose remote names can be changed (F4, J40)."""
        job = self._changeable(caller, job_id)
        uploads.refuse_for_upload(job, "remote names can be changed")
        return job

    def _changeable(self, caller: Caller, job_id: str) -> Job:
        job = self.get_job(caller, job_id)
        access.may_change(caller, job.owner)
        return job

    @staticmethod
    def _in_draft(draft: Draft, caller: Caller, job_id: str) -> Job:
        job = access.existing(draft.get(job_id))
        access.may_change(caller, job.owner)
        draft.by = caller
        return job


def _file(job: Job, index: int) -> File:
    if not 0 <= index < len(job.files):
        raise BitsError("BG_E_FILE_NOT_FOUND", f"the job has no file {index}; it has {len(job.files)}")
    return job.files[index]


def _outcome(result: str, job: Job | None) -> Outcome:
    assert job is not None, "the job was there a moment ago"
    return Outcome(result=result, job=job)
