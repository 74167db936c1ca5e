"""Helper tokens: whose identity stands in for a job's owner, for files, for the network or for both (I7, T1–T4).

A token is kept in memory only and is never written down.  What is written down is for what the job uses it; a job
that uses one and has none cannot run (BG_E_TOKEN_REQUIRED).
"""

from __future__ import annotations

from dataclasses import dataclass

from openbits.core.model import HelperFlag, Job, Owner
from openbits.core.ownership import token_required
from openbits.errors import BitsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """In whose name a job works; usually both are its owner."""

    network: Owner
    files: Owner


class HelperTokens:
    """The tokens that were set since the service started."""

    def __init__(self) -> None:
        self._helpers: dict[str, Owner] = {}

    def __repr__(self) -> str:
        return f"<HelperTokens {len(self._helpers)}>"

    def identities(self, job: Job) -> Identities:
        """Return in whose name `job` works now. Raises BG_E_TOKEN_REQUIRED."""
        if not job.helper_flags:
            return Identities(network=job.owner, files=job.owner)
        helper = self._helpers.get(job.id)
        if helper is None:
            failure = token_required("the job has no helper token")
            raise BitsError(failure.name, failure.message)
        return Identities(
            network=helper if HelperFlag.NETWORK in job.helper_flags else job.owner,
            files=helper if HelperFlag.LOCAL_FILE in job.helper_flags else job.owner,
        )
