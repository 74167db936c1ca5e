"""Why a job does not move: the one gate that holds it, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from openbits.core.blocking import is_blocked_by_policy, waits_for_policy
from openbits.core.environment import Environment, is_blocked_by_network, is_logged_on
from openbits.core.failing import DISK_IS_FULL
from openbits.core.model import UPLOAD_INDEX, Closing, Job, JobState, Owner, Priority
from openbits.core.pieces import is_idle


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a job waits for; `until` is when it goes on by itself, if that is known."""

    gate: str
    sentence: str
    until: float | None = None


def gate_of(job: Job, env: Environment, *, ahead: int, trouble: str, received_bytes: int = 0) -> Gate:
    """Return what holds the job.

    `ahead` is how many background jobs hold slots before it, `trouble` why its worker is connecting
    anew (empty when it is not), `received_bytes` how much of its files has reached the other side.
    """
    if job.closing is Closing.COMPLETE:
        return Gate(gate="completing", sentence=_completing(job))
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
            return _uploading(job, received_bytes) if job.is_upload else _MOVING
        case JobState.SUSPENDED:
            if not job.files:
                return Gate(gate="empty", sentence="it is suspended and has no files: add one with 'bits add'")
            if is_idle(job):
                return Gate(gate="requests", sentence=_IDLE)
            return Gate(gate="suspended", sentence="it is suspended: 'bits resume' lets it go on")
        case JobState.ERROR:
            message = job.error.message if job.error else "an error"
            return Gate(gate="error", sentence=f"it failed: {message}; 'bits resume' tries again")
        case JobState.TRANSIENT_ERROR:
            return _transient(job, env)
        case JobState.TRANSFERRED:
            return Gate(gate="complete", sentence=_transferred(job))
        case JobState.ACKNOWLEDGED:
            return Gate(gate="ended", sentence="it is completed")
        case JobState.CANCELLED:
            if job.closing is Closing.CANCEL:
                return Gate(
                    gate="ended", sentence=f"it is cancelled; its temporary files are being deleted{_untold(job)}"
                )
            return Gate(gate="ended", sentence=f"it is cancelled{_untold(job)}")
        case _:
            assert_never(job.state)


_IDLE: Final = "nothing else was requested of its files: 'bits request-ranges' asks for more, 'bits resume' fetches it"
_MOVING: Final = Gate(gate="none", sentence="nothing holds it: it is transferring")


def _uploading(job: Job, received_bytes: int) -> Gate:
    """What an upload whose server has answered is at: sending, waiting for an answer, or fetching the reply."""
    file = job.files[UPLOAD_INDEX]
    if job.reply is not None and job.reply.resumable is not None and not job.reply.transferred:
        return Gate(gate="none", sentence="nothing holds it: the server's reply is coming in")
    if file.bytes_total is None or max(file.bytes_transferred, received_bytes) < file.bytes_total:
        return Gate(gate="none", sentence="nothing holds it: it is sending")
    return Gate(
        gate="server",
        sentence="the server has all bytes and has not answered yet: an application behind it may take minutes",
    )


def _completing(job: Job) -> str:
    if not job.is_upload:
        return "its files are being put under their names"
    return "its reply is being put under its name" if job.reply is not None else "it is being ended"


def _transferred(job: Job) -> str:
    if not job.is_upload:
        return "all its files are here: 'bits complete' puts them under their names"
    if job.reply is None:
        return "the server has its file: 'bits complete' ends the job"
    return "the server has its file, and the reply is here: 'bits complete' puts that under its name"


def _untold(job: Job) -> str:
    return "" if job.cancel_until is None else "; its server has not been told yet, and will be as soon as it answers"


def _logged_off(owner: Owner, env: Environment) -> str:
    if env.logon_problem:
        return f"it is not known whether its owner {owner.name} is logged on: {env.logon_problem}"
    return f"its owner {owner.name} is logged off: it goes on at the next log-on"


def _transient(job: Job, env: Environment) -> Gate:
    error = job.error
    if waits_for_policy(job) and is_blocked_by_policy(job, env):
        source = f" ({env.blocked_by})" if env.blocked_by else ""
        sentence = f"a policy leaves {job.settings.priority.name} jobs no bandwidth now{source}"
        return Gate(gate="policy", sentence=sentence, until=env.blocked_until)
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
