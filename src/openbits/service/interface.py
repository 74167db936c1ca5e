"""What the service offers to the local API: the calls of inventory sections 1–3, for a verified caller.

Every call takes the caller that the kernel vouched for and raises BitsError; a call that raises has
changed nothing.  Calls that change something return after the change is on the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openbits.core.model import ByteRange, Caller, Job, JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to add; nothing in it has been checked."""

    remote_name: str
    local_name: str
    ranges: tuple[ByteRange, ...] | None = None
    """None: the whole file. An empty tuple is an error (J41)."""
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to create; nothing in it has been checked. `settings` has the names of core.model.Settings."""

    name: str
    type: JobType
    settings: Mapping[str, Any]
    files: Sequence[NewFile] = ()
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: the name of a success code (S_OK, S_FALSE, BG_S_…) and the job after it."""

    result: str
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that was written down about a job. `id` grows by one with each event of the service."""

    id: int
    time: float
    kind: str
    """created, added, changed, state, progress, completed …: see core.events."""
    job_id: str
    text: str
    owner_uid: int
    job: Job | None = None
    """The job after the event; None when it is no longer known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """What has come in of a job that moves; never written down."""

    job_id: str
    owner_uid: int
    bytes_transferred: int
    bytes_total: int | None
    files_transferred: int
    files_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The one thing that a job waits for."""

    gate: str
    sentence: str
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One line of `bits doctor`."""

    name: str
    ok: bool
    message: str


class JobManager(Protocol):
    """IBackgroundCopyManager and the jobs behind it."""

    async def create_jobs(self, caller: Caller, jobs: Sequence[NewJob]) -> list[Job]:
        """Create jobs with their files, all or none; resumed ones are queued at once (M1, J2, J5)."""

    def get_job(self, caller: Caller, job_id: str) -> Job:
        """Return a job, also a final one within its retention time. BG_E_NOT_FOUND, E_ACCESSDENIED."""

    def list_jobs(
        self, caller: Caller, *, all_users: bool, name: str | None, history: bool, after: str | None, limit: int
    ) -> tuple[list[Job], str | None]:
        """Return one page of jobs, oldest first, and the cursor of the next page (M3). E_ACCESSDENIED."""

    async def add_files(self, caller: Caller, job_id: str, files: Sequence[NewFile]) -> Outcome:
        """AddFileSet (J1, J2, J41)."""

    async def change_settings(self, caller: Caller, job_id: str, changes: Mapping[str, Any]) -> Outcome:
        """Set properties, all or none."""

    async def set_remote_name(self, caller: Caller, job_id: str, index: int, remote_name: str) -> Outcome:
        """F4."""

    async def set_validation_state(self, caller: Caller, job_id: str, index: int, valid: bool) -> Outcome:
        """F6."""

    async def replace_remote_prefix(self, caller: Caller, job_id: str, old: str, new: str) -> Outcome:
        """J40."""

    async def resume(self, caller: Caller, job_id: str) -> Outcome:
        """J5."""

    async def suspend(self, caller: Caller, job_id: str) -> Outcome:
        """J4."""

    async def cancel(self, caller: Caller, job_id: str) -> Outcome:
        """J6; returns when the temporary files are gone, or could not be deleted."""

    async def complete(self, caller: Caller, job_id: str) -> Outcome:
        """J7; returns when the files stand under their names."""

    def received_bytes(self, job: Job) -> int:
        """Bytes of a job that have come in, durable or not (what lists and progress bars show)."""

    def file_received_bytes(self, job: Job, index: int) -> int:
        """The same for one file."""

    def why(self, caller: Caller, job_id: str) -> Gate:
        """What the job waits for."""

    async def events_after(
        self, caller: Caller, event_id: int, *, job_id: str | None, all_users: bool, limit: int
    ) -> list[EventRecord]:
        """Kept events after `event_id` that the caller may see, oldest first."""

    def watch(
        self, caller: Caller, *, job_id: str | None, all_users: bool
    ) -> AsyncIterator[EventRecord | ProgressReport]:
        """Events from now on.  The subscription exists from the moment of the call.

        A reader that falls behind by more than the buffer gets an end of stream and comes again
        with the last event that it saw.
        """

    async def doctor(self, caller: Caller) -> list[CheckResult]:
        """Health of the service as this caller may see it."""

    def statistics(self) -> dict[str, Any]:
        """Counters, for people."""
