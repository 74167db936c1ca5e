"""Managers, files, errors and token options in BITS's terms: what each method asks of the service, for both clients.

The classes here, and `job_operations`, hold what is the same for the blocking and the asyncio client; `manager` and
`aio` add what differs: who waits, and how.  A method that fails raises openbits.BitsError, whose `name` is BITS's; each
docstring names the errors worth knowing.  Every method can raise BG_E_NOT_FOUND, E_ACCESSDENIED,
ERROR_SERVICE_NOT_ACTIVE and RPC_S_CALL_FAILED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from openbits.client import calls
from openbits.client.calls import Call, Json, Script
from openbits.client.enumerator import Enumerator
from openbits.client.network_identity import (
    AccountProxySettings,
    AccountProxyUsage,
    TokenFlags,
    account_proxy_settings_from,
    member,
)
from openbits.client.operations import operation
from openbits.client.pieces import PieceOperations
from openbits.client.specs import default_settings, job_json
from openbits.client.values import (
    FileInfo,
    FileProgress,
    JobErrorInfo,
    JobInfo,
    JobSpec,
    JobType,
    Range,
    Result,
    error_from,
    file_from,
    job_from,
)
from openbits.errors import BitsError, ErrorContext

JobT = TypeVar("JobT")
FileT = TypeVar("FileT")


def result_of(data: Json) -> Result:
    """Read how a call ended."""
    return Result(data["result"])


def _done(_: Json) -> Result:
    return Result.S_OK


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

        An UPLOAD or UPLOAD_REPLY job takes exactly one file (M7). `settings` are properties as `bits set` names
        them. The caller's umask goes along, for the files.
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
    def get_account_proxy_settings(self, account: str | None = None) -> Call[AccountProxySettings]:
        """Return the proxy settings that the service keeps for an account (I20, B43); without a name, the caller's.

        `account` is LOCALSYSTEM, NETWORKSERVICE, LOCALSERVICE (administrators only) or one's own name.
        """
        return calls.account_proxy_settings(account).then(account_proxy_settings_from)

    @operation
    def set_account_proxy_settings(
        self,
        usage: AccountProxyUsage | str,
        proxy_list: str | None = None,
        bypass_list: str | None = None,
        script_url: str | None = None,
        account: str | None = None,
    ) -> Call[Result]:
        """Set which proxies an account's jobs use with PRECONFIG (I17, I20, B42).

        MANUAL_PROXY takes `proxy_list` and `bypass_list`, AUTOSCRIPT `script_url`. What is not given is kept as an
        earlier call has set it. Raises E_INVALIDARG, E_ACCESSDENIED (an account that is not one's own).
        """
        given = {"proxy_list": proxy_list, "bypass_list": bypass_list, "script_url": script_url}
        settings = {name: value for name, value in given.items() if value is not None}
        settings["usage"] = member(AccountProxyUsage, usage, "E_INVALIDARG").value
        return calls.set_account_proxy_settings(account, settings).then(_done)

    @operation
    def reset_account_proxy_settings(self, account: str | None = None) -> Call[Result]:
        """Forget an account's proxy settings, the parameters of all usages included (I20, RESET)."""
        return calls.reset_account_proxy_settings(account).then(_done)

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


class FileOperations(PieceOperations):
    """IBackgroundCopyFile to IBackgroundCopyFile6 (inventory section 3)."""

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
        return calls.change_file(self._job_id, self._index, {"validation_state": valid}).then(result_of)

    @operation
    def set_remote_name(self, url: str) -> Call[Result]:
        """Change the URL, for download jobs (F4). Another size or timestamp there begins the file again.

        Raises E_INVALIDARG, E_NOTIMPL (not a download), BG_E_INVALID_STATE.
        """
        return calls.change_file(self._job_id, self._index, {"remote_name": url}).then(result_of)

    @operation
    def get_property(self, name: str = "http_response_headers") -> Call[str]:
        """Return the header block of the last HTTP response for the file, the one property there is (F10).

        Raises BG_E_UNKNOWN_PROPERTY_ID.
        """
        if name.lower() != "http_response_headers":
            raise BitsError("BG_E_UNKNOWN_PROPERTY_ID", f"a file has no property {name!r}")
        return self._info().then(lambda info: info.response_headers)


class ErrorOperations(Generic[FileT]):
    """IBackgroundCopyError (inventory E1–E6): the error of a job in ERROR or TRANSIENT_ERROR.

    The properties are what `Job.get_error` saw; the methods ask the service, as every object's do, and raise
    BG_E_ERROR_INFORMATION_UNAVAILABLE when the job is over its error (J12).
    """

    def __init__(self, session: Any, job_id: str, info: JobErrorInfo) -> None:
        self._session = session
        self._job_id = job_id
        self._info = info

    def __repr__(self) -> str:
        return f"<JobError {self._info.code} of job {self._job_id}>"

    def __str__(self) -> str:
        return f"{self._info.code} ({self._info.hresult:#010x}): {self._info.message}"

    def _file(self, index: int) -> FileT:
        raise NotImplementedError

    @property
    def info(self) -> JobErrorInfo:
        """Everything at once, as a value."""
        return self._info

    @property
    def code(self) -> str:
        """BITS's name of the error."""
        return self._info.code

    @property
    def hresult(self) -> int:
        """The number of the error."""
        return self._info.hresult

    @property
    def context(self) -> ErrorContext:
        """Where it happened (E2)."""
        return self._info.context

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return self._info.message

    @property
    def protocol(self) -> str | None:
        """`http` or `file`, or None."""
        return self._info.protocol

    @property
    def file_index(self) -> int | None:
        """The index of the file concerned, or None."""
        return self._info.file_index

    @property
    def remote_name(self) -> str | None:
        """The URL of the file concerned, or None."""
        return self._info.remote_name

    @property
    def local_name(self) -> str | None:
        """The path of the file concerned, or None."""
        return self._info.local_name

    def _now(self) -> Call[JobErrorInfo]:
        return calls.job_error(self._job_id).then(error_from)

    @operation
    def get_error(self) -> Call[tuple[ErrorContext, int]]:
        """Return context and HRESULT (E1)."""
        return self._now().then(JobErrorInfo.get_error)

    @operation
    def get_file(self) -> Call[FileT]:
        """Return the file concerned (E3). Raises BG_E_FILE_NOT_AVAILABLE."""
        return self._now().then(lambda info: self._file(info.get_file()))

    @operation
    def get_error_description(self) -> Call[str]:
        """Return what happened, as one sentence (E4)."""
        return self._now().then(JobErrorInfo.get_error_description)

    @operation
    def get_error_context_description(self) -> Call[str]:
        """Return where it happened, as one sentence (E4)."""
        return self._now().then(JobErrorInfo.get_error_context_description)

    @operation
    def get_protocol(self) -> Call[str]:
        """Return `http` or `file` (E5). Raises BG_E_PROTOCOL_NOT_AVAILABLE."""
        return self._now().then(JobErrorInfo.get_protocol)


class TokenOptionsOperations:
    """IBitsTokenOptions (inventory T1–T4, I7): a second identity that helps a job out.

    Access was checked when `Job.token_options` gave the object out; then it is the *helper* who calls
    `set_helper_token`: impersonated, with Cloaking.DYNAMIC on this object, or with STATIC set while impersonated.
    Every method can raise RPC_E_DISCONNECTED: the service forgets tokens and their options when it restarts.
    """

    def __init__(self, session: Any, job_id: str, capability: str) -> None:
        self._session = session
        self._job_id = job_id
        self._capability = capability

    def __repr__(self) -> str:
        # Not the capability: whoever knows it may give himself to the job as its helper.
        return f"<TokenOptions of job {self._job_id}>"

    @operation
    def set_helper_token(self) -> Call[Result]:
        """Make whoever makes this call the helper (T1): the kernel tells the service who that is.

        Raises E_ACCESSDENIED for a helper with administrator's rights where the caller had none.
        """
        return calls.set_helper_token(self._capability).then(result_of)

    @operation
    def clear_helper_token(self) -> Call[Result]:
        """Drop the helper (T2)."""
        return calls.clear_helper_token(self._capability).then(result_of)

    @operation
    def set_helper_token_flags(self, flags: TokenFlags | int) -> Call[Result]:
        """Set where the helper stands in for the owner (T3): any of LOCAL_FILE and NETWORK; 0: nowhere."""
        return calls.set_helper_token_flags(self._capability, int(flags)).then(result_of)

    @operation
    def get_helper_token_flags(self) -> Call[TokenFlags]:
        """Return where the helper stands in for the owner (T3)."""
        return calls.helper_token(self._capability).then(lambda data: TokenFlags(data["flags"]))

    @operation
    def get_helper_token_sid(self) -> Call[str | None]:
        """Return the helper's `uid:N`, or None where there is no helper (T4)."""
        return calls.helper_token(self._capability).then(lambda data: None if data["sid"] is None else str(data["sid"]))
