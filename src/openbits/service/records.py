"""What listeners are told: events, which are written down, and progress, which is not."""

from __future__ import annotations

from dataclasses import dataclass

from openbits.core.model import Job


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
    event_id: int = 0
    """Its number in `core.eventlog`; 0: ours, without a number."""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """What has come in of a job that moves; never written down."""

    job_id: str
    owner_uid: int
    bytes_transferred: int
    bytes_total: int | None
    files_transferred: int
    files_total: int
