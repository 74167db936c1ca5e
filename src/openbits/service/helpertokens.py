"""Helper tokens: whose identity stands in for a job's owner, for files, for the network or for both (I7, T1–T4).

A token is kept in memory only and is never written down.  What is written down is for what the job uses it; a job
that uses one and has none cannot run (BG_E_TOKEN_REQUIRED).

Access to a job's token is checked once, when its options are obtained (architecture, section 4, rule 6).  What is
given out then is a capability: whoever holds it may give his own identity, as the kernel tells it, and nobody
else's.  Only a digest of it is kept, so that neither the time that a look-up takes nor this memory tells it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openbits.core import access, moves
from openbits.core.events import HelperTokenChanged, HelperTokenLost, SetHelperFlags
from openbits.core.model import AccountKind, Caller, HelperFlag, Job, Owner
from openbits.core.ownership import token_required
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError
from openbits.service.ledger import Draft, Ledger

log = logging.getLogger(__name__)

CAPABILITY_BYTES: Final = 32
OPTIONS_PER_JOB: Final = 16
"""How many capabilities of a job are remembered; the oldest gives way to a new one."""
ALL_FLAGS: Final = int(HelperFlag.LOCAL_FILE | HelperFlag.NETWORK)
_RESTARTED: Final = "the service was restarted, and helper tokens are kept in memory only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """In whose name a job works; usually both are its owner."""

    network: Owner
    files: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """What a capability stands for: a job, and whether an administrator obtained it."""

    digest: bytes
    job_id: str
    by_administrator: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState:
    """What GetHelperTokenSid and GetHelperTokenFlags tell (T3, T4): never the token, only whose it is."""

    helper: Owner | None
    flags: HelperFlag


class HelperTokens:
    """The tokens that were set since the service started, and the capabilities that lead to them."""

    def __init__(self, ledger: Ledger, *, service_uid: int | None = None) -> None:
        self._ledger = ledger
        self._service_uid = os.geteuid() if service_uid is None else service_uid
        self._helpers: dict[str, Owner] = {}
        self._options: dict[bytes, TokenOptions] = {}
        self._by_job: dict[str, list[bytes]] = {}
        """Digests of the capabilities of each job, oldest first."""
        self._losses = 0
        """How often tokens were dropped without anybody's having cleared them."""

    def __repr__(self) -> str:
        return f"<HelperTokens {len(self._helpers)} options={len(self._options)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"helper_tokens": len(self._helpers), "token_options": len(self._options)}

    # --- in whose name a job works ---------------------------------------------------------------------

    def identities(self, job: Job) -> Identities:
        """Return in whose name `job` works now. Raises BG_E_TOKEN_REQUIRED."""
        if not job.helper_flags:
            return Identities(network=job.owner, files=job.owner)
        helper = self._required(job)
        return Identities(
            network=helper if HelperFlag.NETWORK in job.helper_flags else job.owner,
            files=helper if HelperFlag.LOCAL_FILE in job.helper_flags else job.owner,
        )

    def file_account(self, job: Job) -> Owner:
        """Return in whose name the local files of `job` are opened, renamed and deleted. Raises BG_E_TOKEN_REQUIRED.

        A token that the job uses for the network only is not asked for.
        """
        return self._required(job) if HelperFlag.LOCAL_FILE in job.helper_flags else job.owner

    def helper(self, job_id: str) -> Owner | None:
        """Return whose token a job has, if it has one."""
        return self._helpers.get(job_id)

    def _required(self, job: Job) -> Owner:
        helper = self._helpers.get(job.id)
        if helper is None:
            failure = token_required("the job has no helper token")
            raise BitsError(failure.name, failure.message)
        return helper

    # --- the calls of IBitsTokenOptions ------------------------------------------------------------------

    def obtain(self, caller: Caller, job_id: str) -> str:
        """Return a capability for the token of a job; access is checked here, and only here.

        Raises BG_E_NOT_FOUND, E_ACCESSDENIED (for everybody but the owner, root included) and BG_E_INVALID_STATE
        for a job that has ended.
        """
        job = access.existing(self._ledger.jobs.get(job_id))
        access.must_own(caller, job.owner, "its token options")
        next_state(job.state, Trigger.CHANGE)
        capability = secrets.token_urlsafe(CAPABILITY_BYTES)
        digest = _digest(capability)
        self._options[digest] = TokenOptions(digest=digest, job_id=job_id, by_administrator=caller.is_administrator)
        of_job = self._by_job.setdefault(job_id, [])
        of_job.append(digest)
        if len(of_job) > OPTIONS_PER_JOB:
            del self._options[of_job.pop(0)]
        return capability

    def state(self, capability: str) -> TokenState:
        """T3, T4. Raises RPC_E_DISCONNECTED."""
        job = self._ledger.jobs[self._stands_for(capability).job_id]
        return TokenState(helper=self._helpers.get(job.id), flags=job.helper_flags)

    async def set_helper(self, caller: Caller, capability: str) -> None:
        """T1: the caller gives himself.

        Raises RPC_E_DISCONNECTED, E_ACCESSDENIED for an administrator where none obtained the options and for the
        service's own account, and BG_E_INVALID_STATE while the job is being completed.
        """
        options = self._stands_for(capability)
        if caller.is_administrator and not options.by_administrator:
            raise BitsError(
                "E_ACCESSDENIED",
                f"{caller.name} has administrator rights: only an administrator's job may have such a helper",
            )
        owner = self._ledger.jobs[options.job_id].owner
        if caller.identity.uid == self._service_uid != owner.identity.uid:
            # Where they are the same, the service was started by an account for itself.
            raise BitsError("E_ACCESSDENIED", "the account that the service runs under helps nobody")
        await self._put(options, caller.as_owner())

    async def clear_helper(self, capability: str) -> None:
        """T2. Raises RPC_E_DISCONNECTED, and BG_E_INVALID_STATE while the job is being completed."""
        await self._put(self._stands_for(capability), None)

    async def set_flags(self, capability: str, flags: int) -> None:
        """T3. Raises RPC_E_DISCONNECTED, E_INVALIDARG, and BG_E_INVALID_STATE while the job is being completed."""
        options = self._stands_for(capability)
        if flags & ~ALL_FLAGS:
            raise BitsError("E_INVALIDARG", "helper token flags are 1 (LOCAL_FILE), 2 (NETWORK), both, or 0")
        wanted = HelperFlag(flags)

        def change(draft: Draft) -> None:
            self._still_stands(options, draft)
            draft.apply(options.job_id, SetHelperFlags(flags=wanted))

        await self._ledger.submit(change)

    async def _put(self, options: TokenOptions, helper: Owner | None) -> None:
        job_id = options.job_id
        is_installed = False

        def change(draft: Draft) -> None:
            nonlocal is_installed
            moves.refuse_while_closing(self._still_stands(options, draft))
            # Here and not after the commit: a run that begins with the commit finds the right identity.
            self._install(job_id, helper)
            is_installed = True
            # Also for the same account: its groups may be others, and a run has those that it began with.
            draft.apply(job_id, HelperTokenChanged())

        before, losses = self._helpers.get(job_id), self._losses
        try:
            await self._ledger.submit(change)
        except BitsError:
            # A call that raises has changed nothing; but what may have been dropped meanwhile stays dropped.
            if is_installed and self._helpers.get(job_id) is helper:
                self._install(job_id, before if self._losses == losses else None)
            raise
        log.info("action=helper-token job=%s helper=%s", job_id, helper.name if helper else "none")

    def _install(self, job_id: str, helper: Owner | None) -> None:
        if helper is None:
            self._helpers.pop(job_id, None)
        else:
            self._helpers[job_id] = helper

    def _stands_for(self, capability: str) -> TokenOptions:
        options = self._options.get(_digest(capability))
        job = self._ledger.jobs.get(options.job_id) if options is not None else None
        if options is None or job is None or job.state.is_final:
            raise _disconnected()
        return options

    def _still_stands(self, options: TokenOptions, draft: Draft) -> Job:
        """The job, unless it has ended or changed hands since the call came in."""
        job = draft.get(options.job_id)
        known = self._ledger.jobs.get(options.job_id)
        is_forgotten = self._options.get(options.digest) is not options
        if job is None or known is None or is_forgotten or job.state.is_final or job.owner != known.owner:
            raise _disconnected()
        return job

    # --- the end of tokens -------------------------------------------------------------------------------

    def service_started(self) -> None:
        """Every token is gone: what used one and is not finished goes to ERROR (I7)."""
        for job_id, job in self._ledger.jobs.items():
            if job.helper_flags and not job.state.is_final:
                self._ledger.post(job_id, HelperTokenLost(reason=_RESTARTED))

    def logged_off(self, uids: frozenset[int]) -> None:
        """These people have no session any more: tokens of theirs, and tokens of their jobs, are gone (I7)."""

        def has_left(account: Owner) -> bool:
            return account.kind is AccountKind.USER and account.identity.uid in uids

        self._losses += 1
        for job_id in {*self._helpers, *self._by_job}:
            job = self._ledger.jobs.get(job_id)
            helper = self._helpers.get(job_id)
            if job is not None and has_left(job.owner):
                self.forget(job_id)
                reason = f"the job's owner {job.owner.name} has logged off, and the helper token is gone"
            elif helper is not None and has_left(helper):
                del self._helpers[job_id]
                reason = f"the helper {helper.name} has logged off"
            else:
                continue
            if helper is not None:
                log.info("action=helper-token job=%s helper=none", job_id)
                self._ledger.post(job_id, HelperTokenLost(reason=reason))

    def uids(self) -> set[int]:
        """Whose tokens there are."""
        return {helper.identity.uid for helper in self._helpers.values()}

    def forget(self, job_id: str) -> None:
        """The job has another owner now, or has ended: neither token nor capabilities are left."""
        self._losses += 1
        self._helpers.pop(job_id, None)
        for digest in self._by_job.pop(job_id, ()):
            del self._options[digest]

    def take_note(self, before: Mapping[str, Job | None], after: Mapping[str, Job | None]) -> None:
        """Forget what jobs had that have ended or changed hands, before any call that comes next is looked at.

        A cancelled job keeps its token until its files are deleted and its server has been told, which only the
        helper's rights may allow.
        """
        for job_id, job in after.items():
            if job_id not in self._by_job and job_id not in self._helpers:
                continue
            former = before[job_id]
            has_moved = job is not None and former is not None and job.owner != former.owner
            is_over = job is not None and job.state.is_final and job.closing is None and job.cancel_until is None
            if job is None or has_moved or is_over:
                self.forget(job_id)


def _digest(capability: str) -> bytes:
    return hashlib.sha256(capability.encode("utf-8", "surrogatepass")).digest()


def _disconnected() -> BitsError:
    return BitsError(
        "RPC_E_DISCONNECTED",
        "these token options are gone: the job has ended or has another owner, its owner has logged off, "
        "or the service was restarted: obtain them again",
    )
