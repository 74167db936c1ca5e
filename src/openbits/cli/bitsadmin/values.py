"""The switches that print one thing of a job, for people and with /rawreturn for programs (inventory B14 to B21)."""

from __future__ import annotations

from openbits.cli.bitsadmin.invocation import Invocation
from openbits.cli.bitsadmin.words import state_word


def getstate(call: Invocation) -> None:
    """Print the state (B18)."""
    call.output.value(state_word(call.job.get_state().name))
