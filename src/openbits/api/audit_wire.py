"""What the audit view looks like on the wire."""

from __future__ import annotations

import msgspec

from openbits.api.wire import Response


class AuditedCommand(Response):
    """A notification command line that was set."""

    time: str
    user: str
    command: str


class AuditedAct(Response):
    """What somebody other than the owner did."""

    time: str
    event_id: int
    text: str


class AuditedJob(Response):
    """What is known of a job, also of one that is gone."""

    job_id: str
    name: str
    state_name: str = msgspec.field(name="state")
    """Empty when it is not known any more."""
    owner_uid: int
    owner_name: str
    creation_time: str | None
    end_time: str | None
    process_name: str
    process_path: str
    process_id: str
    urls: list[str]
    local_names: list[str]
    file_count: int
    command: list[str]
    """What is run when the job is TRANSFERRED or in ERROR."""
    commands_set: list[AuditedCommand]
    notify_url: str
    bus_name: str
    by_others: list[AuditedAct]


class AuditOut(Response):
    """Jobs that run something first, then the oldest first."""

    jobs: list[AuditedJob]
