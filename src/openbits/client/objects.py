"""Managers, jobs and files in BITS's terms: what each method asks of the service, for both clients.

The classes here hold what is the same for the blocking and the asyncio client; `manager` and `aio` add what
differs: who waits, and how.  A method that fails raises openbits.BitsError, whose `name` is BITS's; each docstring
names the errors worth knowing.  Every method can raise BG_E_NOT_FOUND, E_ACCESSDENIED,
ERROR_SERVICE_NOT_ACTIVE and RPC_S_CALL_FAILED.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from openbits.client import calls
from openbits.client.calls import Call, Json, Script
from openbits.client.enumerator import Enumerator
from openbits.client.operations import operation
from openbits.client.specs import default_settings, file_json, job_json, local_path
from openbits.client.values import (
    FileInfo,
    FileProgress,
    FileSpec,
    JobErrorInfo,
    JobInfo,
    JobSpec,
    JobState,
    JobTimes,
    JobType,
    NotifyFlags,
    Owner,
    Priority,
    Progress,
    Range,
    Result,
    error_from,
    file_from,
    job_from,
    owner_from,
    progress_from,
    times_from,
)
from openbits.errors import BitsError

JobT = TypeVar("JobT")
FileT = TypeVar("FileT")


def _result(data: Json) -> Result:
    return Result(data["result"])


class ManagerOperations(Generic[JobT]):
    """IBackgroundCopyManager (inventory section 1)."""

    def _job(self, job_id: str) -> JobT:
        raise NotImplementedError

    @operation
    def create_job(
        self,
        display_name: str,
        type: JobType = JobType.DOWNLOAD,  # noqa: A002 - BITS's name
        settings: Mapping[str, Any] | None = None,
    ) -> Call[JobT]:
        """Create a job (M1). It starts SUSPENDED, with priority NORMAL, and belongs to the caller.

        `settings` are properties as `bits set` names them. The caller's umask goes along, for the files.
        Raises E_INVALIDARG (no name, or more than 256 characters), BG_E_TOO_MANY_JOBS_PER_USER,
        BG_E_TOO_MANY_JOBS_PER_MACHINE.
        """
        job = calls.job_in(display_name, job_type=type.value, settings=default_settings(settings))
        return calls.create_job(job).then(self._job)

    @operation
    def create_jobs(self, jobs: Iterable[JobSpec]) -> Script[list[JobT]]:
        """Create many jobs, with files and running where asked for; each 1,000 of them all or none."""
        ids = yield from calls.create_jobs([job_json(spec) for spec in jobs])
        return [self._job(job_id) for job_id in ids]

    @operation
    def get_job(self, job_id: str) -> Call[JobT]:
        """Return the job with this id (M2); braces as in a GUID are fine. Raises BG_E_NOT_FOUND."""
        return calls.job(job_id.strip("{}").lower()).then(lambda data: self._job(data["id"]))

    @operation
    def enum_jobs(self, all_users: bool = False) -> Script[Enumerator[JobT]]:
        """Return the caller's jobs, or everyone's for an administrator (M3): a snapshot, without final jobs.

        Raises E_ACCESSDENIED for `all_users` without administrator's rights.
        """
        jobs = yield from calls.all_jobs(all_users=all_users)
        return Enumerator([self._job(data["id"]) for data in jobs])

    @operation
    def enum_job_infos(self, all_users: bool = False, *, history: bool = False) -> Script[list[JobInfo]]:
        """Return what `enum_jobs` would, as pictures of this moment: one call a page, not one a property.

        `history` adds jobs that were completed or cancelled, for as long as they are kept.
        """
        jobs = yield from calls.all_jobs(all_users=all_users, history=history)
        return [job_from(data) for data in jobs]

    @operation
    def get_error_description(self, code: int | str) -> Call[str]:
        """Return what an HRESULT or a BITS name means (M4). Raises ERROR_RESOURCE_LANG_NOT_FOUND."""
        return calls.error_description(code).then(lambda data: str(data["text"]))

    @operation
    def version(self) -> Call[Json]:
        """Return `program`, `version` and `mode` (system or user) of the service."""
        return calls.version()

    @operation
    def whoami(self) -> Call[Json]:
        """Return who the service takes the caller for: `uid`, `gid`, `groups`, `name`, `kind` …."""
        return calls.whoami()

    @operation
    def statistics(self) -> Call[Json]:
        """Return the service's counters, for people."""
        return calls.statistics()


class FileOperations:
    """IBackgroundCopyFile to IBackgroundCopyFile5 (inventory section 3)."""

    def __init__(self, session: Any, job_id: str, index: int) -> None:
        self._session = session
        self._job_id = job_id
        self._index = index

    def __repr__(self) -> str:
        return f"<File {self._index} of job {self._job_id}>"

    @property
    def index(self) -> int:
        """The place of the file in its job, from 0."""
        return self._index

    def _info(self) -> Call[FileInfo]:
        return calls.file(self._job_id, self._index).then(file_from)

    @operation
    def get_info(self) -> Call[FileInfo]:
        """Return everything about the file at this moment."""
        return self._info()

    @operation
    def get_remote_name(self) -> Call[str]:
        """Return the URL (F1)."""
        return self._info().then(lambda info: info.remote_name)

    @operation
    def get_local_name(self) -> Call[str]:
        """Return the path that Complete gives the file (F1)."""
        return self._info().then(lambda info: info.local_name)

    @operation
    def get_progress(self) -> Call[FileProgress]:
        """Return bytes in all, bytes transferred, and whether the file is complete (F2)."""
        return self._info().then(lambda info: info.progress)

    @operation
    def get_file_ranges(self) -> Call[tuple[Range, ...]]:
        """Return the byte ranges that were asked for; empty for a whole file (F3)."""
        return self._info().then(lambda info: info.ranges)

    @operation
    def get_temporary_name(self) -> Call[str]:
        """Return the full path of the temporary file, in the destination directory (F5)."""
        return self._info().then(lambda info: info.temporary_name)

    @operation
    def get_validation_state(self) -> Call[bool | None]:
        """Return whether the content was declared valid; None while nobody did (F7)."""
        return self._info().then(lambda info: info.validation_state)

    @operation
    def set_validation_state(self, valid: bool) -> Call[Result]:
        """Declare the content valid or not (F6). False: the job goes to ERROR with BG_E_VALIDATION_FAILED.

        Raises E_PENDING while the file is not finished.
        """
        return calls.change_file(self._job_id, self._index, {"validation_state": valid}).then(_result)

    @operation
    def set_remote_name(self, url: str) -> Call[Result]:
        """Change the URL, for download jobs (F4). Another size or timestamp there begins the file again.

        Raises E_INVALIDARG, E_NOTIMPL (not a download), BG_E_INVALID_STATE.
        """
        return calls.change_file(self._job_id, self._index, {"remote_name": url}).then(_result)

    @operation
    def get_property(self, name: str = "http_response_headers") -> Call[str]:
        """Return the header block of the last HTTP response for the file, the one property there is (F10).

        Raises BG_E_UNKNOWN_PROPERTY_ID.
        """
        if name.lower() != "http_response_headers":
            raise BitsError("BG_E_UNKNOWN_PROPERTY_ID", f"a file has no property {name!r}")
        return self._info().then(lambda info: info.response_headers)


class JobOperations(Generic[FileT]):
    """IBackgroundCopyJob to IBackgroundCopyJob5 (inventory section 2), as far as downloads go."""

    def __init__(self, session: Any, job_id: str) -> None:
        self._session = session
        self._id = job_id

    def __repr__(self) -> str:
        return f"<Job {self._id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobOperations) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def _file(self, index: int) -> FileT:
        raise NotImplementedError

    @property
    def id(self) -> str:
        """The job's GUID: lower case, no braces (J8)."""
        return self._id

    def get_id(self) -> str:
        """Return the job's GUID (J8)."""
        return self._id

    def _info(self) -> Call[JobInfo]:
        return calls.job(self._id).then(job_from)

    def _set(self, **changes: Any) -> Call[Result]:
        return calls.change_settings(self._id, changes).then(_result)

    def _setting(self, name: str) -> Call[Any]:
        return calls.job(self._id).then(lambda data: data["settings"][name])

    # Files.

    @operation
    def add_file(
        self, remote_name: str, local_name: str | os.PathLike[str], checksum: str | None = None
    ) -> Call[Result]:
        """Add a file (J1): a URL and an absolute local path. Not running, a job needs Resume to fetch it.

        `checksum` (`sha256:HEX`, `sha512:HEX`) must match before the job is TRANSFERRED. Raises E_INVALIDARG,
        E_ACCESSDENIED (the directory may not be written to), BG_E_TOO_MANY_FILES, BG_E_TOO_MANY_FILES_IN_JOB,
        BG_E_INVALID_STATE.
        """
        spec = FileSpec(remote_name=remote_name, local_name=local_path(local_name), checksum=checksum)
        return calls.add_files(self._id, [file_json(spec)]).then(_result)

    @operation
    def add_file_set(self, files: Iterable[FileSpec | tuple[str, str]]) -> Call[Result]:
        """Add many files in one call, all or none (J2): FileSpec values or pairs of URL and path."""
        specs = [
            one if isinstance(one, FileSpec) else FileSpec(remote_name=one[0], local_name=local_path(one[1]))
            for one in files
        ]
        return calls.add_files(self._id, [file_json(spec) for spec in specs]).then(_result)

    @operation
    def add_file_with_ranges(
        self, remote_name: str, local_name: str | os.PathLike[str], ranges: Iterable[Range | tuple[int, int]]
    ) -> Call[Result]:
        """Add parts of a file (J41): they are written back to back, in the order given.

        A length of LENGTH_TO_EOF reaches to the end. Raises E_INVALIDARG (no ranges), BG_E_INVALID_RANGE,
        BG_E_OVERLAPPING_RANGES, BG_E_TOO_MANY_RANGES_IN_FILE.
        """
        wanted = tuple(one if isinstance(one, Range) else Range(*one) for one in ranges)
        if not wanted:
            raise BitsError("E_INVALIDARG", "there are no ranges: add a whole file with add_file")
        spec = FileSpec(remote_name=remote_name, local_name=local_path(local_name), ranges=wanted)
        return calls.add_files(self._id, [file_json(spec)]).then(_result)

    @operation
    def enum_files(self) -> Script[Enumerator[FileT]]:
        """Return the job's files (J3): a snapshot of which there are; each object is live."""
        files = yield from calls.all_files(self._id)
        return Enumerator([self._file(data["index"]) for data in files])

    @operation
    def enum_file_infos(self) -> Script[list[FileInfo]]:
        """Return the job's files as pictures of this moment, one call a page."""
        files = yield from calls.all_files(self._id)
        return [file_from(data) for data in files]

    @operation
    def replace_remote_prefix(self, old: str, new: str) -> Call[Result]:
        """Replace the beginning of all URLs that begin with `old` (J40); S_FALSE if none does.

        Raises E_INVALIDARG, E_NOTIMPL (not a download).
        """
        return calls.replace_remote_prefix(self._id, old, new).then(_result)

    # Verbs.

    @operation
    def resume(self) -> Call[Result]:
        """Start or restart the job (J5); in TRANSIENT_ERROR it is tried at once.

        Raises BG_E_EMPTY (no files), BG_E_INVALID_STATE (final).
        """
        return calls.resume(self._id).then(_result)

    @operation
    def suspend(self) -> Call[Result]:
        """Stop the job until Resume (J4); nothing that was fetched is lost. Raises BG_E_INVALID_STATE (final)."""
        return calls.suspend(self._id).then(_result)

    @operation
    def cancel(self) -> Call[Result]:
        """Delete the job and everything it has fetched (J6). May give BG_S_UNABLE_TO_DELETE_FILES."""
        return calls.cancel(self._id).then(_result)

    @operation
    def complete(self) -> Call[Result]:
        """Give the finished files their names and end the job (J7).

        May give BG_S_PARTIAL_COMPLETE or BG_S_UNABLE_TO_DELETE_FILES. Raises the error of a file that could not be
        renamed; the job then stays, and Complete may be called again.
        """
        return calls.complete(self._id).then(_result)

    # What there is to know.

    @operation
    def get_info(self) -> Call[JobInfo]:
        """Return everything about the job at this moment, in one call."""
        return self._info()

    @operation
    def get_type(self) -> Call[JobType]:
        """Return the type (J8)."""
        return self._info().then(lambda info: info.type)

    @operation
    def get_state(self) -> Call[JobState]:
        """Return the state (J11)."""
        return self._info().then(lambda info: info.state)

    @operation
    def get_progress(self) -> Call[Progress]:
        """Return bytes and files, in all and transferred (J9)."""
        return calls.job(self._id).then(progress_from)

    @operation
    def get_times(self) -> Call[JobTimes]:
        """Return when the job was created, last changed, and TRANSFERRED (J10)."""
        return calls.job(self._id).then(times_from)

    @operation
    def get_owner(self) -> Call[Owner]:
        """Return the owner (J13)."""
        return calls.job(self._id).then(lambda data: owner_from(data["owner"]))

    @operation
    def get_error(self) -> Call[JobErrorInfo]:
        """Return the error of a job in ERROR or TRANSIENT_ERROR (J12).

        Raises BG_E_ERROR_INFORMATION_UNAVAILABLE when there is none, or none any more.
        """
        return calls.job_error(self._id).then(error_from)

    @operation
    def get_error_count(self) -> Call[int]:
        """Return how often the job was interrupted by an error, over its life (J21)."""
        return self._info().then(lambda info: info.error_count)

    @operation
    def why(self) -> Call[str]:
        """Return the one thing that the job waits for, as a sentence."""
        return calls.why(self._id).then(lambda data: str(data["sentence"]))

    # Properties.

    @operation
    def set_display_name(self, name: str) -> Call[Result]:
        """Set the name: 1 to 256 characters (J14). Raises E_INVALIDARG, BG_E_STRING_TOO_LONG."""
        return self._set(name=name)

    @operation
    def get_display_name(self) -> Call[str]:
        """Return the name (J14)."""
        return self._info().then(lambda info: info.name)

    @operation
    def set_description(self, description: str) -> Call[Result]:
        """Set the description: up to 1,024 characters (J15). Raises BG_E_STRING_TOO_LONG."""
        return self._set(description=description)

    @operation
    def get_description(self) -> Call[str]:
        """Return the description (J15)."""
        return self._info().then(lambda info: info.description)

    @operation
    def set_priority(self, priority: Priority) -> Call[Result]:
        """Set the priority (J16); NORMAL when nothing is said."""
        return self._set(priority=Priority(priority).name.lower())

    @operation
    def get_priority(self) -> Call[Priority]:
        """Return the priority (J16)."""
        return self._info().then(lambda info: info.priority)

    @operation
    def set_notify_flags(self, flags: NotifyFlags | int) -> Call[Result]:
        """Set which events are notified (J17); 3, JOB_TRANSFERRED and JOB_ERROR, when nothing is said."""
        return self._set(notify_flags=int(flags))

    @operation
    def get_notify_flags(self) -> Call[NotifyFlags]:
        """Return which events are notified (J17)."""
        return self._setting("notify_flags").then(NotifyFlags)

    @operation
    def set_minimum_retry_delay(self, seconds: int) -> Call[Result]:
        """Set how long a TRANSIENT_ERROR waits for its retry (J19): 600 s when nothing is said, at least 5 s."""
        return self._set(minimum_retry_delay=seconds)

    @operation
    def get_minimum_retry_delay(self) -> Call[int]:
        """Return how long a TRANSIENT_ERROR waits for its retry, in seconds (J19)."""
        return self._setting("minimum_retry_delay").then(int)

    @operation
    def set_no_progress_timeout(self, seconds: int) -> Call[Result]:
        """Set how long retries may bring nothing before the job goes to ERROR (J20): 14 days when nothing is said."""
        return self._set(no_progress_timeout=seconds)

    @operation
    def get_no_progress_timeout(self) -> Call[int]:
        """Return how long retries may bring nothing, in seconds (J20)."""
        return self._setting("no_progress_timeout").then(int)

    @operation
    def set_maximum_download_time(self, seconds: int | None) -> Call[Result]:
        """Set how long the job may be CONNECTING and TRANSFERRING in all (J53); None: the service's limit."""
        return self._set(maximum_download_time=seconds)

    @operation
    def get_maximum_download_time(self) -> Call[int | None]:
        """Return how long the job may be CONNECTING and TRANSFERRING in all, in seconds (J53)."""
        return self._setting("maximum_download_time")

    @operation
    def set_property(self, name: str, value: Any) -> Call[Result]:
        """Set a property by the name that `bits set` takes (J60–J64 and ours).

        `cost_flags`, `notification_clsid`, `dynamic_content`, `high_performance`, `max_download_size`,
        `strict_http`, `file_concurrency`, `stall_timeout`, `umask`, `custom_headers`. Raises
        BG_E_UNKNOWN_PROPERTY_ID, BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE, …_AFTER_RESUME.
        """
        return self._set(**{name: value})

    @operation
    def get_property(self, name: str) -> Call[Any]:
        """Return a property by the name that `bits set` takes. Raises BG_E_UNKNOWN_PROPERTY_ID."""

        def pick(data: Json) -> Any:
            if name not in data["settings"]:
                raise BitsError("BG_E_UNKNOWN_PROPERTY_ID", f"a job has no property {name!r}")
            return data["settings"][name]

        return calls.job(self._id).then(pick)
