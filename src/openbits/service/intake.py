"""Files that are to become part of a job: what a caller names is checked here, before anything is written down.

What is downloaded must have a place that the account which opens the job's files may write to; what is uploaded must
be a file that it may read.  Only a worker with that account's rights can tell.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from openbits.core import methods, names, quotas, uploads
from openbits.core.model import Caller, File, Job, JobType, Owner
from openbits.errors import BitsError
from openbits.frames.operations import FileResult
from openbits.service.calls import NewFile
from openbits.service.configuration import Configuration
from openbits.service.mounts import Paths
from openbits.service.workers import WorkerPool


@dataclass(slots=True)
class Places:
    """What is asked of an account's worker: where it may create files, and what it may read."""

    directories: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Files that are uploaded."""
    remote_files: list[str] = field(default_factory=list)
    """Files of this machine that are downloaded: whether they are there shows when the job runs."""

    def __bool__(self) -> bool:
        return bool(self.directories or self.sources or self.remote_files)

    @property
    def paths(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.directories, *self.sources, *self.remote_files]))


def places_of(jobs: Iterable[tuple[JobType, Sequence[File]]]) -> Places:
    """What the files of these jobs need."""
    places = Places()
    for job_type, files in jobs:
        for file in files:
            local = names.file_path(file.remote_name) if file.remote_name.lower().startswith("file:") else None
            if job_type is JobType.DOWNLOAD:
                places.directories.append(posixpath.dirname(file.local_name))
                places.remote_files += [] if local is None else [local]
            else:
                places.sources.append(file.local_name)
                places.directories += [] if local is None else [posixpath.dirname(local)]
    places.directories = list(dict.fromkeys(places.directories))
    return places


def has_local_sources(files: Iterable[NewFile | File]) -> bool:
    """Whether any of these files would be downloaded from this machine."""
    return any(file.remote_name[:5].lower() == "file:" for file in files)


def refuse_local_source(job: Job, remote_name: str) -> None:
    """Raises BG_E_UNSUPPORTED_JOB_CONFIGURATION for a file of this machine in a job that asks for pieces (J67)."""
    if job.settings.on_demand_mode and remote_name[:5].lower() == "file:":
        raise BitsError(
            "BG_E_UNSUPPORTED_JOB_CONFIGURATION", "in on_demand_mode files come from http and https servers only"
        )


class Intake:
    """See the module's rule."""

    def __init__(self, *, configuration: Callable[[], Configuration], paths: Paths, pool: WorkerPool) -> None:
        self._configuration = configuration
        self._paths = paths
        self._pool = pool

    def __repr__(self) -> str:
        return "<Intake>"

    def checked_files(self, caller: Caller, job: Job, files: Sequence[NewFile]) -> tuple[File, ...]:
        """Return the files as parts of `job`. Raises E_INVALIDARG, E_NOTIMPL, BG_E_TOO_MANY_FILES …"""
        if job.is_upload:
            # First of all: what is too many is refused whatever else is wrong with it (J2).
            uploads.refuse_second_file(job, len(files))
        make = self._source if job.is_upload else self._target
        checked = tuple(make(caller, job, file) for file in files)
        self.check_new_files(caller, job, checked)
        return checked

    def check_new_files(self, caller: Caller, job: Job, added: Sequence[File]) -> None:
        """Whether a job may have these files too. Raises BG_E_TOO_MANY_FILES_IN_JOB, E_INVALIDARG."""
        quotas.check_new_files(self._configuration().quotas, caller, new=len(added), present=len(job.files))
        taken = {file.local_name for file in job.files}
        for file in added:
            if file.local_name in taken:
                raise BitsError("E_INVALIDARG", f"the job has two files with the local name {file.local_name}")
            taken.add(file.local_name)

    def _target(self, caller: Caller, job: Job, new: NewFile) -> File:
        names.check_remote_name(new.remote_name)
        names.check_local_name(new.local_name)
        refuse_local_source(job, new.remote_name)
        ranges = new.ranges or ()
        if new.ranges is not None:
            limits = self._configuration().quotas
            limited_by = limits.named("max_ranges_per_file")
            names.check_ranges(new.ranges, quotas.range_limit(limits, caller), limited_by=limited_by)
            if new.remote_name.lower().startswith("file:"):
                raise BitsError("E_INVALIDARG", "byte ranges can be fetched over http and https only")
            methods.refuse_ranges(job.settings)
            if job.settings.dynamic_content:
                raise BitsError(
                    "BG_E_UNSUPPORTED_JOB_CONFIGURATION", "a job with dynamic_content cannot fetch byte ranges"
                )
            if job.settings.on_demand_mode:
                raise BitsError(
                    "BG_E_UNSUPPORTED_JOB_CONFIGURATION",
                    "in on_demand_mode ranges are asked for when the file is there: add it without, then request them",
                )
        if job.settings.high_performance:
            temporary = new.local_name
        else:
            temporary = names.temporary_name(new.local_name, secrets.token_hex(8))
        return File(
            remote_name=new.remote_name,
            local_name=new.local_name,
            temporary_name=temporary,
            ranges=ranges,
            checksum=names.check_checksum(new.checksum) if new.checksum is not None else None,
        )

    def _source(self, _caller: Caller, job: Job, new: NewFile) -> File:
        if new.ranges is not None:
            uploads.refuse_for_upload(job, "byte ranges can be fetched")
        if new.checksum is not None:
            uploads.refuse_for_upload(job, "checksums are verified")
        names.check_remote_name(new.remote_name)
        names.check_local_name(new.local_name)
        if new.remote_name.lower().startswith("file:"):
            _check_local_target(job, names.file_path(new.remote_name), new.local_name)
        return File(remote_name=new.remote_name, local_name=new.local_name, temporary_name=new.local_name)

    async def check_places(self, caller: Caller, account: Owner, places: Places) -> None:
        """Whether `account`'s job may have these places, for `caller` who names them (D7, I4).

        Raises E_INVALIDARG for a path that means something else to the service, E_ACCESSDENIED, ERROR_FILE_NOT_FOUND,
        ERROR_PATH_NOT_FOUND ….
        """
        if not places:
            return
        await self._paths.check(caller, account, places.paths)
        if places.directories:
            _raise_first(await self._pool.ask(account.identity, lambda w: w.check_directories(places.directories)))
        if places.sources:
            _raise_first(await self._pool.ask(account.identity, lambda w: w.check_sources(places.sources)))

    async def check_reply_place(self, caller: Caller, account: Owner, local_name: str) -> None:
        """Whether a reply can stand there (J33). Raises E_ACCESSDENIED, ERROR_PATH_NOT_FOUND, E_INVALIDARG."""
        try:
            await self.check_places(caller, account, Places(directories=[posixpath.dirname(local_name)]))
        except BitsError as error:
            raise BitsError(error.name, f"{error.message}; the server's reply is to go there") from None


def _check_local_target(job: Job, target: str, source: str) -> None:
    """An upload to a file of this machine (M7, D9)."""
    if job.type is JobType.UPLOAD_REPLY:
        raise BitsError("E_INVALIDARG", "only web servers reply: the remote name must be http or https")
    try:
        names.check_local_name(target)
    except BitsError as error:
        raise BitsError("E_INVALIDARG", f"the remote name is no place for a file: {error.message}") from None
    if target == source:
        raise BitsError("E_INVALIDARG", "the file would be uploaded to where it is: name another place")


def _raise_first(refusals: Sequence[FileResult]) -> None:
    if refusals:
        raise BitsError(refusals[0].error, refusals[0].message)
