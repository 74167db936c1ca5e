"""Jobs in BITS's terms: what each method asks of the service, for both clients (see `objects`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from openbits.client import calls
from openbits.client.calls import Call, Json, Script
from openbits.client.enumerator import Enumerator
from openbits.client.file_acl import FileAclOperations
from openbits.client.http_options import HttpOptionsOperations
from openbits.client.job_properties import JobProperty, property_name, property_value, read_property
from openbits.client.network_identity import (
    AuthScheme,
    AuthTarget,
    ProxySettings,
    ProxyUsage,
    member,
    proxy_settings_from,
)
from openbits.client.notifications import NotificationOperations
from openbits.client.objects import result_of
from openbits.client.operations import operation
from openbits.client.peercaching import PeerCachingJobOperations
from openbits.client.specs import file_json, local_path
from openbits.client.values import (
    FileInfo,
    FileSpec,
    JobErrorInfo,
    JobInfo,
    JobState,
    JobTimes,
    JobType,
    NotifyFlags,
    Owner,
    Priority,
    Progress,
    Range,
    ReplyProgress,
    Result,
    error_from,
    file_from,
    job_from,
    owner_from,
    progress_from,
    reply_progress_from,
    times_from,
)
from openbits.errors import BitsError

FileT = TypeVar("FileT")
ErrorT = TypeVar("ErrorT")
TokenOptionsT = TypeVar("TokenOptionsT")


class JobOperations(
    FileAclOperations,
    HttpOptionsOperations,
    NotificationOperations,
    PeerCachingJobOperations,
    Generic[FileT, ErrorT, TokenOptionsT],
):
    """IBackgroundCopyJob to IBackgroundCopyJob5 (inventory section 2)."""

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

    def _error(self, info: JobErrorInfo) -> ErrorT:
        raise NotImplementedError

    def _token_options(self, capability: str) -> TokenOptionsT:
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
        return calls.change_settings(self._id, changes).then(result_of)

    def _setting(self, name: str) -> Call[Any]:
        return calls.job(self._id).then(lambda data: data["settings"][name])

    # Files.

    @operation
    def add_file(
        self, remote_name: str, local_name: str | os.PathLike[str], checksum: str | None = None
    ) -> Call[Result]:
        """Add a file (J1): a URL and an absolute local path. Not running, a job needs Resume to transfer it.

        A download is written to the path, an upload, which has one file only, is read from it. `checksum`
        (`sha256:HEX`, `sha512:HEX`) must match before a download is TRANSFERRED. Raises E_INVALIDARG, E_ACCESSDENIED
        (the directory may not be written to, or the source not be read), ERROR_FILE_NOT_FOUND (there is no source),
        BG_E_TOO_MANY_FILES, BG_E_TOO_MANY_FILES_IN_JOB, BG_E_INVALID_STATE.
        """
        spec = FileSpec(remote_name=remote_name, local_name=local_path(local_name), checksum=checksum)
        return calls.add_files(self._id, [file_json(spec)]).then(result_of)

    @operation
    def add_file_set(self, files: Iterable[FileSpec | tuple[str, str]]) -> Call[Result]:
        """Add many files in one call, all or none (J2): FileSpec values or pairs of URL and path."""
        specs = [
            one if isinstance(one, FileSpec) else FileSpec(remote_name=one[0], local_name=local_path(one[1]))
            for one in files
        ]
        return calls.add_files(self._id, [file_json(spec) for spec in specs]).then(result_of)

    @operation
    def add_file_with_ranges(
        self, remote_name: str, local_name: str | os.PathLike[str], ranges: Iterable[Range | tuple[int, int]]
    ) -> Call[Result]:
        """Add parts of a file (J41): they are written back to back, in the order given.

        A length of LENGTH_TO_EOF reaches to the end. Raises E_INVALIDARG (no ranges), BG_E_INVALID_RANGE,
        BG_E_OVERLAPPING_RANGES, BG_E_TOO_MANY_RANGES_IN_FILE, E_NOTIMPL (not a download).
        """
        wanted = tuple(one if isinstance(one, Range) else Range(*one) for one in ranges)
        if not wanted:
            raise BitsError("E_INVALIDARG", "there are no ranges: add a whole file with add_file")
        spec = FileSpec(remote_name=remote_name, local_name=local_path(local_name), ranges=wanted)
        return calls.add_files(self._id, [file_json(spec)]).then(result_of)

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
        return calls.replace_remote_prefix(self._id, old, new).then(result_of)

    # Verbs.

    @operation
    def resume(self) -> Call[Result]:
        """Start or restart the job (J5); in TRANSIENT_ERROR it is tried at once.

        Raises BG_E_EMPTY (no files), BG_E_INVALID_STATE (final).
        """
        return calls.resume(self._id).then(result_of)

    @operation
    def suspend(self) -> Call[Result]:
        """Stop the job until Resume (J4); nothing that was fetched is lost. Raises BG_E_INVALID_STATE (final)."""
        return calls.suspend(self._id).then(result_of)

    @operation
    def cancel(self) -> Call[Result]:
        """Delete the job and everything it has fetched (J6). May give BG_S_UNABLE_TO_DELETE_FILES.

        The server of an upload is told in the background, for up to a day; a file that it has whole stays there.
        """
        return calls.cancel(self._id).then(result_of)

    @operation
    def complete(self) -> Call[Result]:
        """Give the finished files their names and end the job (J7); an upload only when it is TRANSFERRED.

        May give BG_S_PARTIAL_COMPLETE or BG_S_UNABLE_TO_DELETE_FILES. Raises the error of a file that could not be
        renamed; the job then stays, and Complete may be called again.
        """
        return calls.complete(self._id).then(result_of)

    @operation
    def take_ownership(self) -> Call[Result]:
        """Become the owner of the job (J24, I8), for administrators. It then runs with the caller's rights.

        Credentials, client certificate, custom headers and command line are taken off it. Raises E_ACCESSDENIED,
        BG_E_INVALID_STATE (final), BG_E_NEW_OWNER_NO_FILE_ACCESS, BG_E_NEW_OWNER_DIFF_MAPPING.
        """
        return calls.take_ownership(self._id).then(result_of)

    # What the server replies to an upload.

    @operation
    def set_reply_file_name(self, path: str | os.PathLike[str] | None) -> Call[Result]:
        """Set where the server's reply is to stand (J33): an absolute path; until the reply begins to come.

        None, or "": beside the file that is uploaded, under a name that Resume generates. Raises E_NOTIMPL (not an
        upload-reply job), E_INVALIDARG, E_ACCESSDENIED and ERROR_PATH_NOT_FOUND (nothing can be written there),
        BG_E_INVALID_STATE (the reply has begun to come, or the job has ended).
        """
        return calls.set_reply_file_name(self._id, None if path is None else local_path(path)).then(result_of)

    @operation
    def get_reply_file_name(self) -> Call[str | None]:
        """Return where the reply is to stand (J34), and stands after Complete; None before it has a name.

        Raises E_NOTIMPL (not an upload-reply job).
        """
        return calls.reply(self._id).then(lambda data: None if data["file_name"] is None else str(data["file_name"]))

    @operation
    def get_reply_progress(self) -> Call[ReplyProgress]:
        """Return how much of the reply is here (J31). Raises E_NOTIMPL (not an upload-reply job)."""
        return calls.reply(self._id).then(reply_progress_from)

    @operation
    def get_reply_data(self) -> Call[bytes | None]:
        """Return the reply of a job that is TRANSFERRED or completed (J32); None where the server sent nothing.

        Raises E_NOTIMPL (not an upload-reply job), BG_E_INVALID_STATE (too early, or cancelled), BG_E_TOO_LARGE (more
        than 1 MiB; `get_reply_progress` says how much), E_ACCESSDENIED and ERROR_FILE_NOT_FOUND (the owner cannot
        read it any more).
        """
        return calls.reply_data(self._id)

    # As whom it meets the network.

    @operation
    def set_credentials(
        self,
        target: AuthTarget | str,
        scheme: AuthScheme | str,
        user_name: str | None = None,
        password: str | None = None,
    ) -> Call[Result]:
        """Give the credentials to answer a challenge of `target` by `scheme` with (J35); for the owner alone (A2).

        One call for each pair; the same pair is replaced. NTLM and NEGOTIATE without name and password: the implicit
        ones, those of the account itself (I10). Nothing gives a password back, and it is gone with the job's end.
        After an error 401 or 407, call this again and Resume (J37). Raises E_INVALIDARG (no name or password for
        another scheme), E_NOTIMPL (PASSPORT), BG_E_INVALID_AUTH_TARGET, BG_E_INVALID_AUTH_SCHEME,
        BG_E_USERNAME_TOO_LARGE (more than 300 characters), BG_E_PASSWORD_TOO_LARGE (more than 65,536).
        """
        wanted_target = member(AuthTarget, target, "BG_E_INVALID_AUTH_TARGET").value
        wanted_scheme = member(AuthScheme, scheme, "BG_E_INVALID_AUTH_SCHEME").value
        return calls.set_credentials(self._id, wanted_target, wanted_scheme, user_name, password).then(result_of)

    @operation
    def remove_credentials(self, target: AuthTarget | str, scheme: AuthScheme | str) -> Call[Result]:
        """Take credentials back (J36); S_FALSE when there are none for this target and scheme."""
        wanted_target = member(AuthTarget, target, "BG_E_INVALID_AUTH_TARGET").value
        wanted_scheme = member(AuthScheme, scheme, "BG_E_INVALID_AUTH_SCHEME").value
        return calls.remove_credentials(self._id, wanted_target, wanted_scheme).then(result_of)

    @operation
    def set_custom_headers(self, headers: str | None) -> Call[Result]:
        """Set header lines, each ended by CR LF, that go along with every request of the job (H5); None clears them.

        For the owner alone (A2). Authorization and Cookie go to the job's own servers only. Raises E_INVALIDARG (no
        header, or one that belongs to the connection or to resuming), BG_E_STRING_TOO_LONG (16,384 with the end).
        """
        return calls.set_custom_headers(self._id, headers).then(result_of)

    @operation
    def get_custom_headers(self) -> Call[str | None]:
        """Return the custom headers; None where there are none (H6: S_FALSE).

        Raises E_ACCESSDENIED (not the owner, or write-only), BG_E_INVALID_CREDENTIALS (the service's key has changed).
        """
        return calls.custom_headers(self._id)

    @operation
    def make_custom_headers_write_only(self) -> Call[Result]:
        """Let nobody read the custom headers any more, these and later ones (H11); they are sent as before."""
        return calls.hide_custom_headers(self._id).then(result_of)

    @operation
    def token_options(self) -> Call[TokenOptionsT]:
        """Return the job's token options (T1–T4, I7). Raises E_ACCESSDENIED: access is checked here, and only here.

        The helper identity then needs no access to the job to call `set_helper_token` on them.
        """
        return calls.token_options(self._id).then(self._token_options)

    @operation
    def set_proxy_settings(
        self, usage: ProxyUsage | str, proxy_list: str | None = None, bypass_list: str | None = None
    ) -> Call[Result]:
        """Set which proxies the job uses (J22); PRECONFIG, the settings of its account, when nothing is said.

        OVERRIDE takes a list divided by spaces (J23) and hosts to reach without; with the others both must be None.
        Raises E_INVALIDARG, E_NOTIMPL (unknown usage), BG_E_PROXY_LIST_TOO_LARGE, BG_E_PROXY_BYPASS_LIST_TOO_LARGE.
        """
        wanted = member(ProxyUsage, usage, "E_NOTIMPL").value
        return self._set(proxy_usage=wanted, proxy_list=proxy_list, proxy_bypass_list=bypass_list)

    @operation
    def get_proxy_settings(self) -> Call[ProxySettings]:
        """Return usage, proxies and what is reached without (J22)."""
        return calls.job(self._id).then(lambda data: proxy_settings_from(data["settings"]))

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
        """Return bytes and files, in all and transferred (J9); of an upload, what the server has acknowledged."""
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
    def get_owner_integrity_level(self) -> Call[int]:
        """Return how trusted the owner was when the job was created or taken (J51).

        0x4000: the system; 0x3000: an administrator; 0x2000: anybody else.
        """
        return calls.job(self._id).then(lambda data: int(data["owner_integrity_level"]))

    @operation
    def get_owner_elevation_state(self) -> Call[bool]:
        """Return whether the owner had administrator's rights when the job was created or taken (J52)."""
        return calls.job(self._id).then(lambda data: bool(data["owner_is_elevated"]))

    @operation
    def get_error(self) -> Call[ErrorT]:
        """Return the error of a job in ERROR or TRANSIENT_ERROR (J12).

        Raises BG_E_ERROR_INFORMATION_UNAVAILABLE when there is none, or none any more.
        """
        return calls.job_error(self._id).then(lambda data: self._error(error_from(data)))

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
    def set_property(self, name: JobProperty | int | str, value: Any) -> Call[Result]:
        """Set a property by its number or name in BITS (J60–J67), or by the name that `bits set` takes.

        `JobProperty.COST_FLAGS`, `NOTIFICATION_CLSID` (a D-Bus name), `DYNAMIC_CONTENT`, `HIGH_PERFORMANCE`,
        `MAX_DOWNLOAD_SIZE` (bytes), `USE_STORED_CREDENTIALS` (AuthTarget.PROXY, or None),
        `MINIMUM_NOTIFICATION_INTERVAL_MS`, `ON_DEMAND_MODE`; and those without a number: `strict_http`,
        `file_concurrency`, `umask`, `custom_headers`, `http_method` …: docs/properties.md has them all.
        Raises BG_E_UNKNOWN_PROPERTY_ID, BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE, BG_E_READ_ONLY_PROPERTY_AFTER_RESUME,
        BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY, BG_E_UNSUPPORTED_JOB_CONFIGURATION, E_INVALIDARG (another type).
        """
        key = property_name(name)
        return self._set(**{key: property_value(key, value)})

    @operation
    def get_property(self, name: JobProperty | int | str) -> Call[Any]:
        """Return a property by its number or name in BITS, or by the name that `bits set` takes.

        Raises BG_E_UNKNOWN_PROPERTY_ID.
        """
        key = property_name(name)

        def pick(data: Json) -> Any:
            if key not in data["settings"]:
                raise BitsError("BG_E_UNKNOWN_PROPERTY_ID", f"a job has no property {key!r}")
            return read_property(key, data["settings"][key])

        return calls.job(self._id).then(pick)
