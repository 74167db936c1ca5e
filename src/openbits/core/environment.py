"""What decides about a job beside the job itself: time, limits, the network. Values that come in from outside."""

from __future__ import annotations

from dataclasses import dataclass

from openbits.core.model import DAY_S, AccountKind, Job, Owner, Priority
from openbits.core.names import needs_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What decides beside the job itself. Times in seconds."""

    now: float
    has_network: bool = True
    loopback_names: frozenset[str] = frozenset()
    logged_on: frozenset[int] | None = None
    """The uids of people who are logged on; None: everybody counts as logged on."""
    logon_problem: str = ""
    """Why it is not known who is logged on, as a clause; empty when it is known."""
    job_inactivity_s: float = 90.0 * DAY_S
    max_download_time_s: float = 90.0 * DAY_S
    disk_full_retry_s: float = 15.0
    break_patience_s: float = 30.0
    retention_s: float = 1.0 * DAY_S
    blocked_priorities: frozenset[Priority] = frozenset()
    """Priorities to which a policy leaves no bandwidth now; never FOREGROUND."""
    blocked_by: str = ""
    """Where that policy stands, for people."""
    blocked_until: float | None = None
    """When other hours begin, and with them other limits; None: no hours are set."""


def is_logged_on(owner: Owner, env: Environment) -> bool:
    """Whether an owner counts as logged on: service accounts always do (I2; architecture, section 4)."""
    return owner.kind is not AccountKind.USER or env.logged_on is None or owner.identity.uid in env.logged_on


def is_blocked_by_network(job: Job, env: Environment) -> bool:
    """Whether the job cannot go on because there is no network that could reach its servers."""
    # A reply comes from where the file went.
    waits_for_reply = job.is_upload and job.has_work
    return not env.has_network and any(
        needs_network(file.remote_name, env.loopback_names)
        for file in job.files
        if waits_for_reply or not file.transferred
    )
