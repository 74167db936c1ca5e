"""Client certificates of jobs: which one a job presents (H1-H4).

Only the owner sets, sees and removes them, whoever else may change the job.  One that is not there, or that the owner
may not use, is refused at once.
"""

from __future__ import annotations

from openbits.core import access
from openbits.core.certificates import check_by_id, check_by_name
from openbits.core.events import SetClientCertificate
from openbits.core.model import Caller, ClientCertificate, Job
from openbits.errors import BitsError
from openbits.frames.operations import FindCertificate
from openbits.service.calls import Outcome
from openbits.service.ledger import Draft, Ledger
from openbits.service.wording import certificate_spec
from openbits.service.workers import WorkerPool


class CertificateCalls:
    """SetClientCertificateByID, SetClientCertificateByName, RemoveClientCertificate, GetClientCertificate."""

    def __init__(self, ledger: Ledger, pool: WorkerPool) -> None:
        self._ledger = ledger
        self._pool = pool

    async def set(
        self,
        caller: Caller,
        job_id: str,
        *,
        location: str | int | None,
        store: str | None,
        sha1: str | None,
        subject: str | None,
    ) -> Outcome:
        """H1 with a hash, H2 with a subject; never both.

        Raises E_NOTIMPL, RPC_X_NULL_REF_POINTER, RPC_X_BAD_STUB_DATA, BG_E_STRING_TOO_LONG, E_INVALIDARG for what
        cannot name a certificate; ERROR_FILE_NOT_FOUND, CRYPT_E_NOT_FOUND, E_ACCESSDENIED … for one that the owner
        cannot present.
        """
        job = self._owned(caller, self._ledger.jobs.get(job_id))
        if sha1 is not None and subject is not None:
            raise BitsError("E_INVALIDARG", "a client certificate is chosen by its hash or by its subject, not by both")
        certificate = (
            check_by_name(location, store, subject) if subject is not None else check_by_id(location, store, sha1)
        )
        if not job.state.is_final:
            await self._look_for(job, certificate)
        return await self._change(caller, job_id, certificate)

    async def _look_for(self, job: Job, certificate: ClientCertificate) -> None:
        """What is wrong with the certificate is said now and not when the job runs, with the owner's rights."""
        spec = certificate_spec(certificate)
        refusals = await self._pool.ask(
            job.owner.identity,
            lambda worker: worker.results_of(lambda number: FindCertificate(operation=number, certificate=spec)),
        )
        if refusals:
            raise BitsError(refusals[0].error, refusals[0].message)

    async def remove(self, caller: Caller, job_id: str) -> Outcome:
        """H3; S_FALSE when there is none."""
        return await self._change(caller, job_id, None)

    def get(self, caller: Caller, job_id: str) -> ClientCertificate:
        """H4. Raises RPC_X_BAD_STUB_DATA when there is none, and for everybody but the owner."""
        job = access.existing(self._ledger.jobs.get(job_id))
        access.may_read(caller, job.owner)
        if job.client_certificate is None or not access.owns(caller, job.owner):
            raise BitsError(
                "RPC_X_BAD_STUB_DATA", "the job has no client certificate, or it is not the caller's to be shown"
            )
        return job.client_certificate

    async def _change(self, caller: Caller, job_id: str, certificate: ClientCertificate | None) -> Outcome:
        def apply(draft: Draft) -> Outcome:
            job = self._owned(caller, draft.get(job_id))
            draft.by = caller
            is_nothing = certificate is None and job.client_certificate is None
            changed = draft.apply(job_id, SetClientCertificate(certificate=certificate))
            assert changed is not None, "the job was there a moment ago"
            return Outcome(result="S_FALSE" if is_nothing else "S_OK", job=changed)

        return await self._ledger.submit(apply)

    @staticmethod
    def _owned(caller: Caller, job: Job | None) -> Job:
        job = access.existing(job)
        access.must_own(caller, job.owner, "its client certificate")
        return job
