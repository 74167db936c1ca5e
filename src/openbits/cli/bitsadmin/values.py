"""The switches that print one thing of a job, for people and with /rawreturn for programs (inventory B14 to B21)."""

from __future__ import annotations

from openbits.cli.bitsadmin.invocation import Invocation
from openbits.cli.bitsadmin.lines import error_lines
from openbits.cli.bitsadmin.output import date_time, total
from openbits.cli.bitsadmin.words import acl_letters, owner_word, state_word, type_word
from openbits.client import calls


def gettype(call: Invocation) -> None:
    """Print the type (B14)."""
    call.output.value(type_word(call.job.get_type().value))


def getaclflags(call: Invocation) -> None:
    """Print the ACL flags as letters (B15)."""
    call.output.value(acl_letters(call.job.get_property("acl_flags")))


def getbytestotal(call: Invocation) -> None:
    """Print the size of all files together (B16)."""
    call.output.value(total(call.job.get_progress().bytes_total))


def getbytestransferred(call: Invocation) -> None:
    """Print how many bytes have been transferred (B16)."""
    call.output.value(call.job.get_progress().bytes_transferred)


def getfilestotal(call: Invocation) -> None:
    """Print the number of files (B16)."""
    call.output.value(call.job.get_progress().files_total)


def getfilestransferred(call: Invocation) -> None:
    """Print how many files have been transferred (B16)."""
    call.output.value(call.job.get_progress().files_transferred)


def getcreationtime(call: Invocation) -> None:
    """Print when the job was created (B17)."""
    call.output.value(date_time(call.job.get_times().creation_time))


def getmodificationtime(call: Invocation) -> None:
    """Print when the job last changed (B17)."""
    call.output.value(date_time(call.job.get_times().modification_time))


def getcompletiontime(call: Invocation) -> None:
    """Print when the job became TRANSFERRED; UNKNOWN before (B17)."""
    call.output.value(date_time(call.job.get_times().transfer_completion_time))


def getstate(call: Invocation) -> None:
    """Print the state (B18)."""
    call.output.value(state_word(call.job.get_state().name))


def geterror(call: Invocation) -> None:
    """Print the error, where it happened and with which file (B19)."""
    error = call.session.perform(calls.job_error(call.job_id))
    call.output.value("\n".join(error_lines(error)))


def geterrorcount(call: Invocation) -> None:
    """Print how often the job was interrupted by an error (B20)."""
    call.output.value(call.job.get_error_count())


def getowner(call: Invocation) -> None:
    """Print the owner (B21)."""
    call.output.value(owner_word(call.detail()["owner"]))
