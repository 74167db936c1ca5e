"""The calls about notification command lines (J30).

A command line runs with the owner's rights, so that the owner alone sets it: an administrator who may change the job
otherwise could run programs as somebody else, without that one ever having made him a gift of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from openbits.core import access, commands
from openbits.core.events import SetNotifyCommand
from openbits.core.model import Caller, NotifyCommand
from openbits.service.calls import Outcome
from openbits.service.ledger import Draft, Ledger


class NotifyCommandCalls:
    """SetNotifyCmdLine, GetNotifyCmdLine."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def set(
        self, caller: Caller, job_id: str, program: str | None, parameters: str | Sequence[str] | None
    ) -> Outcome:
        """Set what is run when the job is TRANSFERRED or in ERROR; None for nothing.

        Raises E_INVALIDARG, BG_E_STRING_TOO_LONG, E_ACCESSDENIED (not the owner), BG_E_INVALID_STATE (it has ended).
        """

        def change(draft: Draft) -> Outcome:
            job = access.existing(draft.get(job_id))
            access.must_own(caller, job.owner, "SetNotifyCmdLine")
            draft.by = caller
            command = commands.checked(program, parameters)
            changed = draft.apply(job_id, SetNotifyCommand(command=command))
            assert changed is not None, "the job was there a moment ago"
            return Outcome(result="S_OK", job=changed)

        return await self._ledger.submit(change)

    def get(self, caller: Caller, job_id: str) -> NotifyCommand | None:
        """Return what is run; the owner and administrators see it."""
        job = access.existing(self._ledger.jobs.get(job_id))
        access.may_read(caller, job.owner)
        return job.notify_command
