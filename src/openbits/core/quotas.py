"""How much an account may ask of the service (inventory P4–P7).

Administrators and service accounts are exempt, and their jobs are not counted (A9).  Every refusal
names the limit and the key of the configuration that sets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openbits.core.accounts import is_administrator
from openbits.core.model import AccountKind, Caller, Owner
from openbits.errors import BitsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The limits for accounts that are not exempt."""

    max_jobs_per_machine: int = 300
    """P4."""
    max_jobs_per_user: int = 60
    """P5."""
    max_files_per_job: int = 200
    """P6."""
    max_ranges_per_file: int = 500
    """P7."""

    def named(self, limit: str) -> str:
        """Where a limit was set, for people."""
        return f"quotas.{limit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyQuotas(Quotas):
    """Limits of which a policy has set some."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Where those stand, by name."""

    def named(self, limit: str) -> str:
        """See `Quotas`."""
        source = self.sources.get(limit)
        # Not super(): a class with slots is made anew, and does not know itself by that word any more.
        return Quotas.named(self, limit) if source is None else f"quotas.{limit}, {source}"


def is_exempt(caller: Caller) -> bool:
    """Whether the quotas do not apply to a caller (A9)."""
    return caller.is_administrator or caller.kind is not AccountKind.USER


def counts(owner: Owner, administrators_gid: int | None) -> bool:
    """Whether a job of this owner counts towards the machine's limit (A9)."""
    return owner.kind is AccountKind.USER and not is_administrator(owner.identity, administrators_gid)


def check_new_jobs(quotas: Quotas, caller: Caller, *, new: int, owned: int, counted: int) -> None:
    """May the caller have `new` more jobs, who owns `owned`, while the machine has `counted` that count?

    Raises BG_E_TOO_MANY_JOBS_PER_USER or BG_E_TOO_MANY_JOBS_PER_MACHINE.
    """
    if is_exempt(caller):
        return
    if owned + new > quotas.max_jobs_per_user:
        raise BitsError(
            "BG_E_TOO_MANY_JOBS_PER_USER",
            f"{caller.name} has {owned} jobs and may have {quotas.max_jobs_per_user}"
            f" ({quotas.named('max_jobs_per_user')}): complete or cancel some",
        )
    if counted + new > quotas.max_jobs_per_machine:
        raise BitsError(
            "BG_E_TOO_MANY_JOBS_PER_MACHINE",
            f"the machine has {counted} jobs and may have {quotas.max_jobs_per_machine}"
            f" ({quotas.named('max_jobs_per_machine')})",
        )


def check_new_files(quotas: Quotas, caller: Caller, *, new: int, present: int) -> None:
    """May a job with `present` files get `new` more? Raises BG_E_TOO_MANY_FILES_IN_JOB."""
    if not is_exempt(caller) and present + new > quotas.max_files_per_job:
        raise BitsError(
            "BG_E_TOO_MANY_FILES_IN_JOB",
            f"the job would have {present + new} files and may have {quotas.max_files_per_job}"
            f" ({quotas.named('max_files_per_job')})",
        )


MOST_RANGES = 900
"""With so many ranges a file fits into one frame, whatever its names are."""


def range_limit(quotas: Quotas, caller: Caller) -> int:
    """How many ranges a file of this caller may have, for `names.check_ranges`."""
    return MOST_RANGES if is_exempt(caller) else min(MOST_RANGES, quotas.max_ranges_per_file)
