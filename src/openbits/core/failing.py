"""What a failed run means for its job: transient or fatal, tried again when, counted or not. Pure functions, values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openbits.core.events import Failure
from openbits.core.model import Job, JobError, Settings
from openbits.errors import ErrorContext

NETWORK_IS_GONE: Final = "BG_E_NETWORK_DISCONNECTED"
WITHOUT_TIMER: Final = frozenset({NETWORK_IS_GONE, "BG_E_BLOCKED_BY_POLICY"})
"""What ends with a condition, not with a delay (R3)."""
SOONEST_RETRY_S: Final = 5
"""The floor of J19, whoever knows that sooner would help."""
DISK_IS_FULL: Final = frozenset({"ERROR_DISK_FULL", "ERROR_DISK_QUOTA_EXCEEDED"})
NOT_COUNTED: Final = frozenset({NETWORK_IS_GONE, "BG_E_DESTINATION_LOCKED", "BG_E_BLOCKED_BY_POLICY"}) | DISK_IS_FULL
"""Errors that GetErrorCount leaves out (J21); a full disk is looked at too often to be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The decision: a fatal error is not tried again; a transient one at `at`, or when its condition is over (None)."""

    is_transient: bool
    at: float | None = None


def decide_retry(
    settings: Settings, failure: Failure, *, now: float, no_progress_since: float, disk_full_retry_s: float
) -> Retry:
    """Decide by J19, J20, R3 and S7. Times in seconds."""
    waits_for_condition = failure.name in WITHOUT_TIMER
    timeout_s = settings.no_progress_timeout
    if not failure.transient or now - no_progress_since >= timeout_s:
        return Retry(is_transient=False)
    if waits_for_condition:
        return Retry(is_transient=True)
    if settings.minimum_retry_delay > timeout_s:
        return Retry(is_transient=False)
    delay_s: float = settings.minimum_retry_delay
    if failure.name in DISK_IS_FULL:
        delay_s = min(delay_s, disk_full_retry_s)
    elif failure.retry_within_s is not None:
        delay_s = max(SOONEST_RETRY_S, min(delay_s, failure.retry_within_s))
    elif failure.retry_after_s is not None:
        # No longer than the job would wait at all: a time that far away could not even be shown.
        delay_s = max(delay_s, min(failure.retry_after_s, timeout_s))
    return Retry(is_transient=True, at=now + delay_s)


def error_of(failure: Failure, job: Job) -> JobError:
    """Return the error that GetError gives (section 5)."""
    protocol = None
    if failure.index is not None:
        protocol = "file" if job.part(failure.index).remote_name.lower().startswith("file:") else "http"
    return JobError(
        name=failure.name,
        context=failure.context,
        message=failure.message,
        file_index=failure.index,
        protocol=protocol,
    )


def no_network() -> Failure:
    """The failure of a job that lacks a network (S5)."""
    return Failure(
        name=NETWORK_IS_GONE,
        context=ErrorContext.GENERAL_TRANSPORT,
        message="there is no network: the job goes on when there is one",
        transient=True,
    )
