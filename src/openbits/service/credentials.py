"""Credentials of jobs: what owners allow, and what a run is told of it (A2, I10, I11, J35, J36).

Only the owner sets and removes them, whoever else may change the job.  No password is kept: there is no place for one.
"""

from __future__ import annotations

from collections.abc import Callable

from openbits.core import access
from openbits.core.credentials import SpeaksAs, implicit_terms, slot_of, slot_to_allow
from openbits.core.events import ChangeCredentials
from openbits.core.model import Caller, CredentialSlot, Job, Owner
from openbits.frames.network import ImplicitSpec
from openbits.service.calls import Outcome
from openbits.service.configuration import Credentials
from openbits.service.ledger import Draft, Ledger
from openbits.service.tickets import MachineTickets
from openbits.service.worker import Worker


class CredentialCalls:
    """SetCredentials and RemoveCredentials."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def set_credentials(
        self, caller: Caller, job_id: str, *, target: str, scheme: str, user_name: str | None, password: str | None
    ) -> Outcome:
        """J35: without a name and a password, allow the account's own credentials."""
        self._must_own(caller, self._ledger.jobs.get(job_id))
        slot = slot_to_allow(target, scheme, user_name, password)
        return await self._change(caller, job_id, lambda slots: slots | {slot})

    async def remove_credentials(self, caller: Caller, job_id: str, *, target: str, scheme: str) -> Outcome:
        """J36; S_FALSE when the pair is not set."""
        self._must_own(caller, self._ledger.jobs.get(job_id))
        slot = slot_of(target, scheme)
        return await self._change(caller, job_id, lambda slots: slots - {slot}, none="S_FALSE")

    async def _change(
        self,
        caller: Caller,
        job_id: str,
        change: Callable[[frozenset[CredentialSlot]], frozenset[CredentialSlot]],
        *,
        none: str = "S_OK",
    ) -> Outcome:
        def apply(draft: Draft) -> Outcome:
            job = self._must_own(caller, draft.get(job_id))
            slots = change(job.implicit_credentials)
            changed = draft.apply(job_id, ChangeCredentials(implicit=slots, explicit=job.explicit_credentials))
            assert changed is not None
            return Outcome(result="S_OK" if slots != job.implicit_credentials else none, job=changed)

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
            job.implicit_credentials, account.kind, use_lm_compat=self._configuration().use_lm_compat
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
