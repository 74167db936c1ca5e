"""The event log's numbers: what each means, how grave it is, and which fields it has (section 13 of the inventory).

The rules:

- An entry that has a number here is made with it, and with its fields, where it is made (`core.entries`).
- Numbers and meanings are those of BITS. What BITS logs and we have no cause to log is left out; docs/events.md, which
  is drawn from this table, says so.
- Nothing in an entry is a secret, and no URL in it has a user name and password.
- A number's message id for the journal never changes: it is derived from the number alone.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from typing import Final

_MESSAGES: Final = uuid.UUID("7a0f3c1e-5f0b-5d7c-9e0e-6b1d8f2f4c55")
"""The name space of message ids. It must never change: people have them in their filters."""


class Level(enum.Enum):
    """How grave an event is, the gravest first."""

    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"
    VERBOSE = "verbose"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKind:
    """A row of the table."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()
    """Beside what every event has: time, job, name of the job, owner. Not every event has every field."""


RESUMED: Final = 1
SUSPENDED: Final = 2
CREATED: Final = 3
COMPLETED: Final = 4
CANCELLED: Final = 5
COMMAND_SET: Final = 6
FILE_STARTED: Final = 59
FILE_STOPPED: Final = 60
FILE_FAILED: Final = 61
PROGRAM_FAILED: Final = 63
PROGRAM_NOT_LAUNCHED: Final = 64
POLICY_READ: Final = 82
RANGES: Final = 102
PROXY_TROUBLE: Final = 200
PROXY_REFUSED: Final = 201
NO_HTTP_SUPPORT: Final = 202
CREDENTIALS_REJECTED: Final = 204
SCHEDULE_SLOT: Final = 205
JOB_FAILED: Final = 211
JOB_BLOCKED: Final = 213
CANCELLED_BY_OTHER: Final = 16384
FILES_LEFT: Final = 16385
MORE_FILES_LEFT: Final = 16386
CHANGED_BY_OTHER: Final = 16387
OWNERSHIP_TAKEN: Final = 16388
INACTIVE_REMOVED: Final = 16389
NOTICE_FAILED: Final = 16390
STORE_UNREADABLE: Final = 16391
FAILED_TO_START: Final = 16392
LIMITS_CONTRADICT: Final = 16397
USER_QUOTA: Final = 16398
MACHINE_QUOTA: Final = 16400
FILE_QUOTA: Final = 16401
RANGE_QUOTA: Final = 16402
SERVICE_FAILED: Final = 16404

_WHO: Final = ("user", "user_uid")
_TRANSFER: Final = ("transfer_id", "url", "local_name", "files", "bytes_transferred", "bytes_total")
_PROBLEM: Final = ("hr", "error", "error_context")
_QUOTA: Final = ("entity_name", "current_size", "current_limit")


def _error(meaning: str, *fields: str) -> EventKind:
    return EventKind(level=Level.ERROR, meaning=meaning, fields=fields)


def _warning(meaning: str, *fields: str) -> EventKind:
    return EventKind(level=Level.WARNING, meaning=meaning, fields=fields)


def _information(meaning: str, *fields: str) -> EventKind:
    return EventKind(level=Level.INFORMATION, meaning=meaning, fields=fields)


def _verbose(meaning: str, *fields: str) -> EventKind:
    return EventKind(level=Level.VERBOSE, meaning=meaning, fields=fields)


EVENTS: Final[dict[int, EventKind]] = {
    RESUMED: _information("job resumed", "job_title", *_WHO),
    SUSPENDED: _information("job suspended", "job_title", *_WHO),
    CREATED: _information(
        "job created",
        *("job_title", "job_type", "job_owner", "process_name", "process_path", "process_id"),
        *("file_count", "urls", "local_names", *_WHO),
    ),
    COMPLETED: _information("job completed", "job_title", "job_owner", "result", "file_count", "bytes_transferred"),
    CANCELLED: _information("job cancelled", "job_title", "job_owner", "file_count", "bytes_transferred", *_WHO),
    COMMAND_SET: _information(
        "notification command line set, or taken back", "job_title", "program", "parameters", *_WHO
    ),
    FILE_STARTED: _information(
        "transfer of a file has started", *_TRANSFER, "file_length", "file_time", "bytes_transferred_from_peer"
    ),
    FILE_STOPPED: _information("files are transferred", *_TRANSFER, "hr", "bytes_transferred_from_peer"),
    FILE_FAILED: _warning("transfer of a file has stopped with an error", *_TRANSFER, *_PROBLEM),
    PROGRAM_FAILED: _warning(
        "the program of a notification returned an error; it is run again",
        *("job_title", "program", "parameters", "exit_status", *_PROBLEM, "retry_wait_time"),
    ),
    PROGRAM_NOT_LAUNCHED: _warning(
        "the program of a notification could not be started; it is tried again",
        *("job_title", "program", "parameters", *_PROBLEM, "retry_wait_time"),
    ),
    POLICY_READ: _information("policies were read, and what they say", "policy_value"),
    RANGES: _verbose("ranges of a file were requested", "job_title", "transfer_id", "ranges", "property_name", *_WHO),
    PROXY_TROUBLE: _warning("there is trouble with a proxy, or with finding one", *_TRANSFER, *_PROBLEM),
    PROXY_REFUSED: _warning("the job's proxy settings cannot be used", *_TRANSFER, "proxy_bypass_list", *_PROBLEM),
    NO_HTTP_SUPPORT: _error("the server, or a proxy, lacks what a transfer needs", *_TRANSFER, *_PROBLEM),
    CREDENTIALS_REJECTED: _error(
        "a server or proxy has rejected credentials", "server", "scheme", *_TRANSFER, *_PROBLEM
    ),
    SCHEDULE_SLOT: _verbose("another slot of the bandwidth schedule is in force", "current_slot", "current_limit"),
    JOB_FAILED: _error("job failed", "job_title", *_PROBLEM),
    JOB_BLOCKED: _warning(
        "job waits for something that it needs", "job_title", "block_reason_error_code", *_TRANSFER, *_PROBLEM
    ),
    CANCELLED_BY_OTHER: _information("job cancelled by somebody other than its owner", "job_title", "job_owner", *_WHO),
    FILES_LEFT: _warning("temporary files could not be deleted", "job_title", "job_owner", "file_list"),
    MORE_FILES_LEFT: _warning("more temporary files could not be deleted than are listed", "job_title", "job_owner"),
    CHANGED_BY_OTHER: _information(
        "somebody other than its owner changed the job", "job_title", "job_owner", "property_name", *_WHO
    ),
    OWNERSHIP_TAKEN: _information("ownership taken", "job_title", "job_owner", "former_owner", *_WHO),
    INACTIVE_REMOVED: _information(
        "job removed: nothing had happened to it for too long", "job_title", "job_owner", "day_count"
    ),
    NOTICE_FAILED: _warning("a notification failed; it is repeated", "job_title", *_PROBLEM, "retry_wait_time"),
    STORE_UNREADABLE: _error("the job list could not be read: it was set aside, and a new one is used", "set_aside"),
    FAILED_TO_START: _error("the service could not start", "error_code"),
    LIMITS_CONTRADICT: _warning("the limit for an account is higher than the one for the machine", *_QUOTA),
    USER_QUOTA: _error("job refused: the account has too many", *_QUOTA, *_WHO),
    MACHINE_QUOTA: _error("job refused: the machine has too many", *_QUOTA, *_WHO),
    FILE_QUOTA: _error("file refused: the job has too many", *_QUOTA, *_WHO),
    RANGE_QUOTA: _error("file refused: it has too many ranges", *_QUOTA, *_WHO),
    SERVICE_FAILED: _error("the service has failed", "error_code"),
}
_WITHOUT_NUMBER: Final = {"error": Level.ERROR, "transient error": Level.WARNING, "left over": Level.WARNING}
_GRAVITY: Final = tuple(Level)


def level_of(event_id: int, kind: str = "") -> Level:
    """Return how grave an event is; `kind` decides for those without a number."""
    row = EVENTS.get(event_id)
    return row.level if row is not None else _WITHOUT_NUMBER.get(kind, Level.INFORMATION)


def numbers_of(level: Level) -> frozenset[int]:
    """The numbers of events that are at least as grave; 0, for those without a number, among them."""
    grave = _GRAVITY[: _GRAVITY.index(level) + 1]
    return frozenset({0, *(event_id for event_id, row in EVENTS.items() if row.level in grave)})


def kinds_of(level: Level) -> frozenset[str] | None:
    """Which kinds of events without a number are at least as grave; None: all."""
    grave = _GRAVITY[: _GRAVITY.index(level) + 1]
    if Level.INFORMATION in grave:
        return None
    return frozenset(kind for kind, each in _WITHOUT_NUMBER.items() if each in grave)


def message_id(event_id: int) -> str:
    """Return the journal's MESSAGE_ID of a number: 128 bits as 32 hexadecimal digits, the same on every machine."""
    return uuid.uuid5(_MESSAGES, f"openbits event {event_id}").hex
