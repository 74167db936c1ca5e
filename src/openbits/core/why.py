"""Why a job does not move: the one gate that holds it, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from openbits.core.environment import Environment, is_blocked_by_network, is_logged_on
from openbits.core.failing import DISK_IS_FULL
from openbits.core.model import Closing, Job, JobState, Owner, Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a job waits for; `until` is when it goes on by itself, if that is known."""

    gate: str
    sentence: str
    until: float | None = None


def gate_of(job: Job, env: Environment, *, ahead: int, trouble: str) -> Gate:
    """Return what holds the job.

    `ahead` is how many background jobs hold slots before it, `trouble` why its worker is connecting
    anew (empty when it is not).
    """
    if job.closing is Closing.COMPLETE:
        return Gate(gate="completing", sentence="its files are being put under their names")
    match job.state:
        case JobState.QUEUED:
            if not is_logged_on(job.owner, env):
                return Gate(gate="logon", sentence=_logged_off(job.owner, env))
            if is_blocked_by_network(job, env):
                return Gate(gate="network", sentence="there is no network")
            if job.settings.priority is Priority.FOREGROUND:
                return Gate(gate="slot", sentence="it waits for a slot: as many foreground jobs run as may")
            return Gate(gate="slot", sentence=f"it waits for its turn: {_jobs(ahead)} of its kind run now")
        case JobState.CONNECTING:
            return Gate(gate="server", sentence=f"it waits for the server to answer{_because(trouble)}")
        case JobState.TRANSFERRING:
            if trouble:
                return Gate(gate="connection", sentence=f"its connection broke and is being taken up again: {trouble}")
            return Gate(gate="none", sentence="nothing holds it: it is transferring")
        case JobState.SUSPENDED:
            if not job.files:
                return Gate(gate="empty", sentence="it is suspended and has no files: add one with 'bits add'")
            return Gate(gate="suspended", sentence="it is suspended: 'bits resume' lets it go on")
        case JobState.ERROR:
            message = job.error.message if job.error else "an error"
            return Gate(gate="error", sentence=f"it failed: {message}; 'bits resume' tries again")
        case JobState.TRANSIENT_ERROR:
            return _transient(job)
        case JobState.TRANSFERRED:
            return Gate(gate="complete", sentence="all its files are here: 'bits complete' puts them under their names")
        case JobState.ACKNOWLEDGED:
            return Gate(gate="ended", sentence="it is completed")
        case JobState.CANCELLED:
            if job.closing is Closing.CANCEL:
                return Gate(gate="ended", sentence="it is cancelled; its temporary files are being deleted")
            return Gate(gate="ended", sentence="it is cancelled")
        case _:
            assert_never(job.state)


def _logged_off(owner: Owner, env: Environment) -> str:
    if env.logon_problem:
        return f"it is not known whether its owner {owner.name} is logged on: {env.logon_problem}"
    return f"its owner {owner.name} is logged off: it goes on at the next log-on"


def _transient(job: Job) -> Gate:
    error = job.error
    if error is None:
        return Gate(gate="retry", sentence="it waits to be tried again", until=job.retry_at)
    if job.retry_at is None:
        return Gate(gate="network", sentence=error.message)
    gate = "disk" if error.name in DISK_IS_FULL else "retry"
    return Gate(gate=gate, sentence=f"it waits for its next attempt: {error.message}", until=job.retry_at)


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def _because(trouble: str) -> str:
    return f": {trouble}" if trouble else ""
