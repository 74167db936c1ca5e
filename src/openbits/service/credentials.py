"""Credentials of jobs: what owners allow, and what a run is told of it (A2, I10, I11, J35, J36).

Only the owner sets and removes them, whoever else may change the job.  A password is sealed at once, and nothing but a
run of the job opens it again.
"""

from __future__ import annotations

from collections.abc import Callable

from openbits.core import access
from openbits.core.credentials import SpeaksAs, change_credentials, check_credentials, implicit_terms, slot_of
from openbits.core.model import Caller, Job, Owner
from openbits.frames.network import ImplicitSpec
from openbits.service.calls import Outcome
from openbits.service.configuration import Credentials
from openbits.service.ledger import Draft, Ledger
from openbits.service.sealing import sealed_credential
from openbits.service.secrets import Secrets
from openbits.service.tickets import MachineTickets
from openbits.service.worker import Worker


class CredentialCalls:
    """SetCredentials and RemoveCredentials. Nothing gives a password back: there is no call for it."""

    def __init__(self, ledger: Ledger, secrets: Secrets) -> None:
        self._ledger = ledger
        self._secrets = secrets

    async def set_credentials(
        self, caller: Caller, job_id: str, *, target: str, scheme: str, user_name: str | None, password: str | None
    ) -> Outcome:
        """J35: without a name and a password, allow the account's own credentials; the same pair is replaced."""
        self._must_own(caller, self._ledger.jobs.get(job_id))
        slot = check_credentials(target, scheme, user_name, password)
        sealed = ""
        if user_name is not None and password is not None:
            sealed = sealed_credential(self._secrets, job_id, slot, user_name, password)

        def apply(draft: Draft) -> Outcome:
            job = self._must_own(caller, draft.get(job_id))
            draft.by = caller
            changed = draft.apply(job_id, change_credentials(job, slot, implicit=not sealed, sealed=sealed))
            assert changed is not None
            return Outcome(result="S_OK", job=changed)

        return await self._ledger.submit(apply)

    async def remove_credentials(self, caller: Caller, job_id: str, *, target: str, scheme: str) -> Outcome:
        """J36; S_FALSE when the pair is not set."""
        self._must_own(caller, self._ledger.jobs.get(job_id))
        slot = slot_of(target, scheme)

        def apply(draft: Draft) -> Outcome:
            job = self._must_own(caller, draft.get(job_id))
            draft.by = caller
            was_set = slot in job.implicit_credentials or any(each.slot == slot for each in job.explicit_credentials)
            changed = draft.apply(job_id, change_credentials(job, slot))
            assert changed is not None
            return Outcome(result="S_OK" if was_set else "S_FALSE", job=changed)

        return await self._ledger.submit(apply)

    @staticmethod
    def _must_own(caller: Caller, job: Job | None) -> Job:
        job = access.existing(job)
        access.must_own(caller, job.owner, "its credentials")
        return job


class ImplicitCredentials:
    """What the run of a job is told of its account's own credentials."""

    def __init__(self, configuration: Callable[[], Credentials], tickets: MachineTickets) -> None:
        self._configuration = configuration
        self._tickets = tickets

    async def spec(self, job: Job, account: Owner, worker: Worker) -> ImplicitSpec:
        """Return the terms for `account`, the network side of `job`, and give `worker` what they need.

        Without tickets the job runs all the same, and says why if a server wants them. Raises WorkerGone.
        """
        terms = implicit_terms(
            job.implicit_credentials,
            account.kind,
            use_lm_compat=self._configuration().use_lm_compat,
            stored_for=job.settings.use_stored_credentials,
        )
        is_computer = terms.speaks_as is SpeaksAs.COMPUTER
        trouble = ""
        if is_computer and (terms.server or terms.proxy):
            clause = await self._tickets.lend(worker)
            trouble = f"the computer has no Kerberos credentials: {clause}" if clause else ""
        return ImplicitSpec(
            server=terms.server,
            proxy=terms.proxy,
            is_anonymous=terms.speaks_as is SpeaksAs.NOBODY,
            is_computer=is_computer,
            trouble=trouble,
            account=account.name,
        )
