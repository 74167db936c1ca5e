"""Every transition of a job's state stands in TRANSITIONS; nothing else in the project assigns a state.

The rules that the table keeps (inventory section 6):

- ACKNOWLEDGED and CANCELLED are final: nothing leads out of them.
- A caller's verb that has no cell is BG_E_INVALID_STATE; anything else without a cell comes too
  late and is dropped.
- Only the scheduler leads from QUEUED to CONNECTING, only a server's answer to TRANSFERRING.
- Complete leads to ACKNOWLEDGED only when the owner's worker has put the files under their names:
  COMPLETE holds the job still, COMPLETED ends it.

The diagram in docs/states.md is drawn from this table.
"""

from __future__ import annotations

import enum
from typing import Final

from openbits.core.model import JobState
from openbits.errors import BitsError


class Trigger(enum.Enum):
    """What can move a job; the first five are a caller's verbs."""

    RESUME = "Resume"
    SUSPEND = "Suspend"
    CANCEL = "Cancel"
    COMPLETE = "Complete"
    CHANGE = "AddFile, Set…"
    START = "slot granted"
    PREEMPT = "slot taken back"
    LOG_OFF = "owner logged off"
    ANSWERED = "server answered"
    DONE = "all files transferred"
    IDLE = "requested ranges here"
    FAIL_TRANSIENT = "transient error"
    FAIL = "fatal error"
    RETRY = "retry due or network back"
    COMPLETED = "files renamed"
    INVALIDATE = "file declared invalid"
    EXPIRE = "inactive for too long"
    RECOVER = "service started"


VERBS: Final = frozenset({Trigger.RESUME, Trigger.SUSPEND, Trigger.CANCEL, Trigger.COMPLETE, Trigger.CHANGE})

_S = JobState
_T = Trigger

_WHILE_QUEUED: Final = {
    _T.RESUME: _S.QUEUED,
    _T.SUSPEND: _S.SUSPENDED,
    _T.CANCEL: _S.CANCELLED,
    _T.COMPLETE: _S.SUSPENDED,
    _T.CHANGE: _S.QUEUED,
    _T.START: _S.CONNECTING,
    _T.DONE: _S.TRANSFERRED,
    _T.IDLE: _S.SUSPENDED,
    _T.FAIL_TRANSIENT: _S.TRANSIENT_ERROR,
    _T.FAIL: _S.ERROR,
    _T.INVALIDATE: _S.ERROR,
    _T.EXPIRE: _S.CANCELLED,
}

TRANSITIONS: Final[dict[JobState, dict[Trigger, JobState]]] = {
    _S.SUSPENDED: {
        _T.RESUME: _S.QUEUED,
        _T.SUSPEND: _S.SUSPENDED,
        _T.CANCEL: _S.CANCELLED,
        _T.COMPLETE: _S.SUSPENDED,
        _T.CHANGE: _S.SUSPENDED,
        _T.COMPLETED: _S.ACKNOWLEDGED,
        _T.INVALIDATE: _S.ERROR,
        _T.EXPIRE: _S.CANCELLED,
    },
    _S.QUEUED: _WHILE_QUEUED,
    _S.CONNECTING: {
        **_WHILE_QUEUED,
        _T.RESUME: _S.CONNECTING,
        _T.CHANGE: _S.CONNECTING,
        _T.START: _S.CONNECTING,
        _T.PREEMPT: _S.QUEUED,
        _T.LOG_OFF: _S.QUEUED,
        _T.ANSWERED: _S.TRANSFERRING,
        _T.RECOVER: _S.QUEUED,
    },
    _S.TRANSFERRING: {
        **_WHILE_QUEUED,
        _T.RESUME: _S.TRANSFERRING,
        _T.CHANGE: _S.TRANSFERRING,
        _T.START: _S.TRANSFERRING,
        _T.PREEMPT: _S.QUEUED,
        _T.LOG_OFF: _S.QUEUED,
        _T.ANSWERED: _S.TRANSFERRING,
        _T.RECOVER: _S.QUEUED,
    },
    _S.TRANSIENT_ERROR: {
        _T.RESUME: _S.QUEUED,
        _T.SUSPEND: _S.SUSPENDED,
        _T.CANCEL: _S.CANCELLED,
        _T.COMPLETE: _S.SUSPENDED,
        _T.CHANGE: _S.TRANSIENT_ERROR,
        _T.RETRY: _S.QUEUED,
        _T.FAIL: _S.ERROR,
        _T.INVALIDATE: _S.ERROR,
        _T.EXPIRE: _S.CANCELLED,
    },
    _S.ERROR: {
        _T.RESUME: _S.QUEUED,
        _T.SUSPEND: _S.SUSPENDED,
        _T.CANCEL: _S.CANCELLED,
        _T.COMPLETE: _S.SUSPENDED,
        _T.CHANGE: _S.ERROR,
        _T.INVALIDATE: _S.ERROR,
        _T.EXPIRE: _S.CANCELLED,
    },
    _S.TRANSFERRED: {
        _T.RESUME: _S.QUEUED,
        _T.SUSPEND: _S.SUSPENDED,
        _T.CANCEL: _S.CANCELLED,
        _T.COMPLETE: _S.TRANSFERRED,
        _T.CHANGE: _S.TRANSFERRED,
        _T.COMPLETED: _S.ACKNOWLEDGED,
        _T.INVALIDATE: _S.ERROR,
        _T.EXPIRE: _S.CANCELLED,
    },
    _S.ACKNOWLEDGED: {},
    _S.CANCELLED: {},
}


def next_state(state: JobState, trigger: Trigger) -> JobState | None:
    """Return where `trigger` leads from `state`, or None for something that comes too late.

    Raises BG_E_INVALID_STATE for a caller's verb that the state does not allow.
    """
    target = TRANSITIONS[state].get(trigger)
    if target is None and trigger in VERBS:
        raise BitsError(
            "BG_E_INVALID_STATE", f"the job is {state.name}: {trigger.value} is possible only before it has ended"
        )
    return target
