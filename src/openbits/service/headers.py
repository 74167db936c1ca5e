"""Custom headers (H5, H6, H11): only the owner sets and reads them, and nobody reads what is write-only."""

from __future__ import annotations

from openbits.core import access
from openbits.core.events import HideHeaders, SetHeaders
from openbits.core.model import Caller, Job
from openbits.core.settings import HEADERS, take_headers
from openbits.errors import BitsError
from openbits.service.calls import Outcome
from openbits.service.ledger import Draft, Ledger
from openbits.service.sealing import sealed_headers
from openbits.service.secrets import Secrets, headers_place


class HeaderCalls:
    """SetCustomHeaders, GetCustomHeaders, MakeCustomHeadersWriteOnly."""

    def __init__(self, ledger: Ledger, secrets: Secrets) -> None:
        self._ledger = ledger
        self._secrets = secrets

    async def set(self, caller: Caller, job_id: str, headers: str | None) -> Outcome:
        """H5; None, or nothing, clears them. Raises E_INVALIDARG, BG_E_STRING_TOO_LONG."""
        self._owned(caller, self._ledger.jobs.get(job_id))
        checked, _ = take_headers({HEADERS: headers or ""})
        sealed = sealed_headers(self._secrets, job_id, checked or "")

        def apply(draft: Draft) -> Outcome:
            self._owned(caller, draft.get(job_id))
            draft.by = caller
            changed = draft.apply(job_id, SetHeaders(sealed=sealed))
            assert changed is not None
            return Outcome(result="S_OK", job=changed)

        return await self._ledger.submit(apply)

    def get(self, caller: Caller, job_id: str) -> str:
        """The header lines (H6); empty where there are none.

        Raises E_ACCESSDENIED for anybody but the owner, and for everybody once they are write-only;
        BG_E_INVALID_CREDENTIALS when the key by which they were sealed is not the present one.
        """
        job = self._owned(caller, self._ledger.jobs.get(job_id))
        if job.headers_are_write_only:
            raise BitsError(
                "E_ACCESSDENIED", "the custom headers of this job are write-only: set them anew to know what they are"
            )
        return self._secrets.open(job.sealed_headers, headers_place(job.id)) if job.sealed_headers else ""

    def shown(self, caller: Caller, job: Job) -> str | None:
        """What a picture of the job says of them: None for everybody who could not read them."""
        try:
            return self.get(caller, job.id)
        except BitsError:
            return None

    async def make_write_only(self, caller: Caller, job_id: str) -> Outcome:
        """H11: one way, and it always succeeds; the headers are sent as before."""

        def apply(draft: Draft) -> Outcome:
            self._owned(caller, draft.get(job_id))
            draft.by = caller
            changed = draft.apply(job_id, HideHeaders())
            assert changed is not None
            return Outcome(result="S_OK", job=changed)

        return await self._ledger.submit(apply)

    @staticmethod
    def _owned(caller: Caller, job: Job | None) -> Job:
        job = access.existing(job)
        access.must_own(caller, job.owner, "its custom headers")
        return job
