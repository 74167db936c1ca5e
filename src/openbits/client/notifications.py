"""Notifications in BITS's terms (inventory section 4, J18, J30): the values, and the calls of the local API about them.

No I/O here; `listening` and `async_listening` hear what comes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from openbits.client.calls import Call, Json, job
from openbits.client.http1 import quote
from openbits.client.objects import result_of
from openbits.client.operations import operation
from openbits.client.values import JobErrorInfo, Range, Result, error_from
from openbits.errors import BitsError, is_failure

AT_ONCE: Final = 4
"""How many callbacks run at once (N6)."""
BROKEN: Final = "E_FAIL"
"""The error of a callback that fails itself."""

JobT = TypeVar("JobT")
FileT = TypeVar("FileT")
ErrorT = TypeVar("ErrorT")


class NotificationEvent(enum.Enum):
    """What has happened: the methods of BITS's callback interfaces (N1-N3)."""

    JOB_TRANSFERRED = "job_transferred"
    JOB_ERROR = "job_error"
    JOB_MODIFICATION = "job_modification"
    FILE_TRANSFERRED = "file_transferred"
    FILE_RANGES_TRANSFERRED = "file_ranges_transferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification(Generic[JobT, FileT, ErrorT]):
    """What a function is called with that takes notifications."""

    event: NotificationEvent
    job: JobT
    error: ErrorT | None = None
    """Why the job is in ERROR; None for everything else, and for who may not see the job any more."""
    file: FileT | None = None
    """The file that it is about, if it is about one."""
    file_index: int | None = None
    """Its index; 1 for the reply of an upload, which is no file of the job's."""
    ranges: tuple[Range, ...] = ()
    """Which pieces of the file have come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyCommandLine:
    """What is run when a job is TRANSFERRED or in ERROR (J30)."""

    program: str
    parameters: tuple[str, ...]
    """The whole argument vector, what the program is called first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice as it comes over the stream."""

    name: str
    job_id: str
    event: NotificationEvent
    file_index: int | None
    ranges: tuple[Range, ...]
    error: JobErrorInfo | None
    registration: int


def notice_from(data: Json) -> Notice:
    """Read a NoticeOut."""
    return Notice(
        name=str(data["notice"]),
        job_id=str(data["job_id"]),
        event=NotificationEvent(data["event"]),
        file_index=data["file"],
        ranges=tuple(Range(piece["offset"], piece["length"]) for piece in data["ranges"]),
        error=None if data["error"] is None else error_from(data["error"]),
        registration=int(data["registration"]),
    )


# --- callbacks -----------------------------------------------------------------------------------------


def as_function(callback: object) -> Callable[[Notification[Any, Any, Any]], Any]:
    """Return a function that hands a notification to a callback: to its method, if it has any, or to itself.

    Raises E_NOINTERFACE for what is neither.
    """
    names = [event.value for event in NotificationEvent]
    if any(hasattr(callback, name) for name in names):
        return lambda notification: _call_method(callback, notification)
    if callable(callback):
        return callback
    raise BitsError(
        "E_NOINTERFACE",
        f"what takes notifications has none of the methods {', '.join(names)} and cannot be called: give an object "
        "with some of them, a function, or None for nobody",
    )


def teller(
    callback: object, job: JobT, *, file: Callable[[int], FileT], error: Callable[[JobErrorInfo], ErrorT]
) -> Callable[[Notice], Any]:
    """Return what hands notices about a job on to a callback, with the client's own objects. Raises E_NOINTERFACE."""
    call = as_function(callback)

    def tell(notice: Notice) -> Any:
        index = notice.file_index
        return call(
            Notification(
                event=notice.event,
                job=job,
                error=None if notice.error is None else error(notice.error),
                file=None if index is None else file(index),
                file_index=index,
                ranges=notice.ranges,
            )
        )

    return tell


def _call_method(callback: object, notification: Notification[Any, Any, Any]) -> Any:
    method = getattr(callback, notification.event.value, None)
    if method is None:
        return None
    match notification.event:
        case NotificationEvent.JOB_ERROR:
            return method(notification.job, notification.error)
        case NotificationEvent.FILE_TRANSFERRED:
            return method(notification.job, notification.file)
        case NotificationEvent.FILE_RANGES_TRANSFERRED:
            return method(notification.job, notification.file, notification.ranges)
        case _:
            return method(notification.job)


def word_of_failure(error: BaseException) -> tuple[str, str]:
    """Return the error and the message for what a callback raised (N4)."""
    if isinstance(error, BitsError) and is_failure(error.name):
        return error.name, error.message
    return BROKEN, f"it failed: {type(error).__name__}: {error}"[:400]


# --- calls ---------------------------------------------------------------------------------------------


def listen() -> Call[Json]:
    """Begin to listen; the answer is a stream, and whoever reads it is the program."""
    return Call("POST", "/v1/notifications")


def acknowledge(stream: str, notice: str, error: str | None, message: str) -> Call[Json]:
    """Answer a notice; no error acknowledges it (N4)."""
    body = {"notice": notice, "error": error, "message": message}
    return Call("POST", f"/v1/notifications/{quote(stream)}/acknowledgements", body)


def set_interface(job_id: str, stream: str, registration: int) -> Call[Json]:
    """SetNotifyInterface (J18)."""
    target = f"/v1/jobs/{quote(job_id)}/notify-interface"
    return Call("PUT", target, {"stream": stream, "registration": registration}, repeatable=True)


def clear_interface(job_id: str) -> Call[Json]:
    """SetNotifyInterface with NULL (J18)."""
    return Call("DELETE", f"/v1/jobs/{quote(job_id)}/notify-interface", repeatable=True)


def set_command(job_id: str, program: str, parameters: str | Sequence[str] | None) -> Call[Json]:
    """SetNotifyCmdLine (J30)."""
    body: Json = {"program": program}
    if isinstance(parameters, str):
        body["parameters"] = parameters
    elif parameters is not None:
        body["arguments"] = list(parameters)
    return Call("PUT", _command_target(job_id), body, repeatable=True)


def clear_command(job_id: str) -> Call[Json]:
    """SetNotifyCmdLine with NULL (J30)."""
    return Call("DELETE", _command_target(job_id), repeatable=True)


def command(job_id: str) -> Call[NotifyCommandLine | None]:
    """GetNotifyCmdLine (J30)."""
    return Call(
        "GET", _command_target(job_id), repeatable=True, parse=lambda data: command_from(data["notify_command"])
    )


def command_from(data: Json | None) -> NotifyCommandLine | None:
    """Read a NotifyCommandOut."""
    if data is None:
        return None
    return NotifyCommandLine(program=data["program"], parameters=tuple(data["arguments"]))


def _command_target(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id)}/notify-command"


class NotificationOperations:
    """IBackgroundCopyJob2's command line, and what is known of the others (J18, J30)."""

    _id: str

    @operation
    def set_notify_cmd_line(self, program: str | None, parameters: str | Iterable[str] | None = None) -> Call[Result]:
        """Run a program when the job is TRANSFERRED or in ERROR (J30, N10-N13); None, None: none. The owner's alone.

        `program` is a full path. `parameters` are its whole argument vector and begin with the program, as its path or
        its name: a sequence of texts, or one text, which is divided as a shell would divide it. No shell reads them.
        Exit status 0 acknowledges; otherwise it is run again after the minimum retry delay, until the job is completed
        or cancelled. It runs only while its owner is logged on, and never for service accounts.
        Raises E_INVALIDARG (no full path; parameters without a program, or that do not begin with it),
        BG_E_STRING_TOO_LONG (4,095 bytes, 4,000 characters), E_ACCESSDENIED (not the owner), BG_E_INVALID_STATE.
        """
        if program is None:
            if parameters is not None:
                raise BitsError(
                    "E_INVALIDARG", "parameters without a program mean nothing: name the program, or neither"
                )
            return clear_command(self._id).then(result_of)
        given = parameters if parameters is None or isinstance(parameters, str) else list(parameters)
        return set_command(self._id, program, given).then(result_of)

    @operation
    def get_notify_cmd_line(self) -> Call[NotifyCommandLine | None]:
        """Return what is run when the job is TRANSFERRED or in ERROR (J30); None for nothing."""
        return command(self._id)

    @operation
    def has_notify_interface(self) -> Call[bool]:
        """Return whether a program, this one or another, takes the job's notifications now (J18)."""
        return job(self._id).then(lambda data: bool(data["has_notify_interface"]))
