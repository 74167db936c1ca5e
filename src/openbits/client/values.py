"""What the client gives out: BITS's enumerations and frozen pictures of jobs and files.

Sizes are bytes, durations seconds, times aware datetimes in UTC.  Where BITS says BG_SIZE_UNKNOWN
or an all-zero FILETIME there is None here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from openbits.errors import CONTEXT_DESCRIPTIONS, BitsError, ErrorContext, error_code

Json = Mapping[str, Any]

LENGTH_TO_EOF: Final = -1
"""The length of a range that reaches to the end of the file (BG_LENGTH_TO_EOF, J41)."""


class JobType(enum.Enum):
    """BG_JOB_TYPE (inventory M7); the values are the local API's names."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    UPLOAD_REPLY = "upload-reply"


class JobState(enum.IntEnum):
    """BG_JOB_STATE (inventory J11)."""

    QUEUED = 0
    CONNECTING = 1
    TRANSFERRING = 2
    SUSPENDED = 3
    ERROR = 4
    TRANSIENT_ERROR = 5
    TRANSFERRED = 6
    ACKNOWLEDGED = 7
    CANCELLED = 8

    @property
    def is_final(self) -> bool:
        """Whether the job has left the queue."""
        return self >= JobState.ACKNOWLEDGED


SETTLED_STATES: Final = frozenset({JobState.TRANSFERRED, JobState.ERROR, JobState.ACKNOWLEDGED, JobState.CANCELLED})
"""The states that a job does not leave by itself, SUSPENDED aside: somebody has to act."""


class Priority(enum.IntEnum):
    """BG_JOB_PRIORITY (inventory J16); smaller is more urgent."""

    FOREGROUND = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class NotifyFlags(enum.IntFlag):
    """BG_NOTIFY (inventory J17)."""

    JOB_TRANSFERRED = 0x01
    JOB_ERROR = 0x02
    DISABLE = 0x04
    JOB_MODIFICATION = 0x08
    FILE_TRANSFERRED = 0x10
    FILE_RANGES_TRANSFERRED = 0x20


class Result(enum.Enum):
    """How a call ended well: S_OK, or success with a remark. Failures raise BitsError instead."""

    S_OK = "S_OK"
    S_FALSE = "S_FALSE"
    BG_S_ERROR_CONTEXT_NONE = "BG_S_ERROR_CONTEXT_NONE"
    BG_S_PARTIAL_COMPLETE = "BG_S_PARTIAL_COMPLETE"
    BG_S_UNABLE_TO_DELETE_FILES = "BG_S_UNABLE_TO_DELETE_FILES"
    BG_S_OVERRIDDEN_BY_POLICY = "BG_S_OVERRIDDEN_BY_POLICY"

    @property
    def hresult(self) -> int:
        """The number of the code."""
        return error_code(self.value).hresult

    @property
    def text(self) -> str:
        """The code in words."""
        return error_code(self.value).text


@dataclass(frozen=True, slots=True)
class Range:
    """A byte range of a remote file; `length` may be LENGTH_TO_EOF (inventory J41)."""

    offset: int
    length: int = LENGTH_TO_EOF


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """A file to add to a job: a URL, an absolute path, and optionally ranges and `sha256:HEX` (J2, J41)."""

    remote_name: str
    local_name: str
    ranges: tuple[Range, ...] = ()
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job to create in a batch; `settings` takes the names of `bits set`."""

    name: str
    type: JobType = JobType.DOWNLOAD
    settings: Mapping[str, Any] | None = None
    files: tuple[FileSpec, ...] = ()
    resume: bool = False
    reply_file_name: str | None = None
    """Where the reply of an UPLOAD_REPLY job goes (J33)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The account that a job belongs to (J13); `kind` as in the design's table of accounts."""

    uid: int
    name: str
    kind: str

    def __str__(self) -> str:
        return f"uid:{self.uid} ({self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """BG_JOB_PROGRESS (J9): `bytes_total` is None until the size of every file is known."""

    bytes_total: int | None
    bytes_transferred: int
    files_total: int
    files_transferred: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress:
    """BG_FILE_PROGRESS (F2): `completed` says that the file stands under its local name."""

    bytes_total: int | None
    bytes_transferred: int
    completed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyProgress:
    """BG_JOB_REPLY_PROGRESS (J31): `bytes_total` is None until the reply has begun to come, which tells errors apart.

    An error with the context REMOTE_FILE is one of the upload until then, and one of the reply afterwards (E6).
    """

    bytes_total: int | None
    bytes_transferred: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTimes:
    """BG_JOB_TIMES (J10)."""

    creation_time: datetime
    modification_time: datetime
    transfer_completion_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobErrorInfo:
    """Why a job is in ERROR or TRANSIENT_ERROR: IBackgroundCopyError (inventory E1–E6)."""

    code: str
    hresult: int
    context: ErrorContext
    message: str
    protocol: str | None
    file_index: int | None
    remote_name: str | None
    local_name: str | None

    def get_error(self) -> tuple[ErrorContext, int]:
        """Return context and HRESULT (E1)."""
        return self.context, self.hresult

    def get_file(self) -> int:
        """Return the index of the file concerned (E3); raises BG_E_FILE_NOT_AVAILABLE."""
        if self.file_index is None:
            raise BitsError("BG_E_FILE_NOT_AVAILABLE")
        return self.file_index

    def get_error_description(self) -> str:
        """Return what happened, as one sentence (E4)."""
        return self.message

    def get_error_context_description(self) -> str:
        """Return where it happened, as one sentence (E4)."""
        return CONTEXT_DESCRIPTIONS[self.context]

    def get_protocol(self) -> str:
        """Return `http` or `file` (E5); raises BG_E_PROTOCOL_NOT_AVAILABLE."""
        if self.protocol is None:
            raise BitsError("BG_E_PROTOCOL_NOT_AVAILABLE")
        return self.protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file of a job at one moment (inventory section 3)."""

    index: int
    remote_name: str
    local_name: str
    temporary_name: str
    progress: FileProgress
    transferred: bool
    ranges: tuple[Range, ...]
    checksum: str | None
    validation_state: bool | None
    resumable: bool | None
    restarts: int
    response_headers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job at one moment, as lists and events show it."""

    id: str
    name: str
    type: JobType
    state: JobState
    owner: Owner
    priority: Priority
    description: str
    progress: Progress
    times: JobTimes
    error: JobErrorInfo | None
    error_count: int
    retry_time: datetime | None
    result: Result | None
    reply: FileInfo | None = None
    """What the server replies to an UPLOAD_REPLY job; None before it has a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message of the event stream: `snapshot` or `job` (with a job), or `progress`.

    `id` numbers what was written down; `kind` and `text` say what happened.
    """

    type: str
    job_id: str
    id: int | None = None
    time: datetime | None = None
    kind: str = ""
    text: str = ""
    job: JobInfo | None = None
    progress: Progress | None = None


def parse_time(text: str | None) -> datetime | None:
    """Read an ISO 8601 time of the local API."""
    return None if text is None else datetime.fromisoformat(text)


def _required_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def progress_from(data: Json) -> Progress:
    """Read the progress out of a JobOut or a progress event."""
    return Progress(
        bytes_total=data["bytes_total"],
        bytes_transferred=data["bytes_transferred"],
        files_total=data["files_total"],
        files_transferred=data["files_transferred"],
    )


def reply_progress_from(data: Json) -> ReplyProgress:
    """Read the progress out of a ReplyOut."""
    return ReplyProgress(bytes_total=data["bytes_total"], bytes_transferred=data["bytes_transferred"])


def times_from(data: Json) -> JobTimes:
    """Read the times out of a JobOut."""
    return JobTimes(
        creation_time=_required_time(data["creation_time"]),
        modification_time=_required_time(data["modification_time"]),
        transfer_completion_time=parse_time(data["transfer_completion_time"]),
    )


def owner_from(data: Json) -> Owner:
    """Read an OwnerOut."""
    return Owner(uid=data["uid"], name=data["name"], kind=data["kind"])


def error_from(data: Json) -> JobErrorInfo:
    """Read an ErrorOut."""
    return JobErrorInfo(
        code=data["code"],
        hresult=data["hresult"],
        context=ErrorContext(data["context_code"]),
        message=data["message"],
        protocol=data["protocol"],
        file_index=data["file"],
        remote_name=data["remote_name"],
        local_name=data["local_name"],
    )


def job_from(data: Json) -> JobInfo:
    """Read a JobOut."""
    return JobInfo(
        id=data["id"],
        name=data["name"],
        type=JobType(data["type"]),
        state=JobState[data["state"]],
        owner=owner_from(data["owner"]),
        priority=Priority[data["priority"].upper()],
        description=data["description"],
        progress=progress_from(data),
        times=times_from(data),
        error=None if data["error"] is None else error_from(data["error"]),
        error_count=data["error_count"],
        retry_time=parse_time(data["retry_time"]),
        result=None if not data["result"] else Result(data["result"]),
        reply=None if data.get("reply") is None else file_from(data["reply"]),
    )


def file_from(data: Json) -> FileInfo:
    """Read a FileOut."""
    return FileInfo(
        index=data["index"],
        remote_name=data["remote_name"],
        local_name=data["local_name"],
        temporary_name=data["temporary_name"],
        progress=FileProgress(
            bytes_total=data["bytes_total"],
            bytes_transferred=data["bytes_transferred"],
            completed=data["completed"],
        ),
        transferred=data["transferred"],
        ranges=tuple(Range(one["offset"], one["length"]) for one in data["ranges"]),
        checksum=data["checksum"],
        validation_state=data["validation_state"],
        resumable=data["resumable"],
        restarts=data["restarts"],
        response_headers=data["response_headers"],
    )


def event_from(kind: str, data: Json) -> Event:
    """Read one message of the event stream."""
    if kind == "progress":
        return Event(type=kind, job_id=data["job_id"], progress=progress_from(data))
    if kind == "snapshot":
        return Event(type=kind, job_id=data["id"], job=job_from(data))
    return Event(
        type=kind,
        job_id=data["job_id"],
        id=data["id"],
        time=parse_time(data["time"]),
        kind=data["kind"],
        text=data["text"],
        job=None if data.get("job") is None else job_from(data["job"]),
    )
