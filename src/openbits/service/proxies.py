"""The proxy settings that the service keeps for accounts (I20, B42, B43), and which of them a run obeys (I15, I17).

The rule: a call is answered when what it changed would survive a power cut, and a run obeys what is on the disk when it
begins.  Settings that change while a job runs are obeyed by its next run.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from openbits.core import proxies
from openbits.core.accounts import AccountRules, kind_of
from openbits.core.model import Caller, Job, Owner
from openbits.core.proxies import AccountProxy, AccountProxyChange, Subject
from openbits.errors import BitsError
from openbits.frames.network import ProxySpec
from openbits.service.ledger import Draft, Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProxyState:
    """What there is to know about an account's settings; `settings` is None where nothing is stored."""

    account: str
    settings: AccountProxy | None
    applies_to: str


class AccountProxies:
    """See the module's rule."""

    def __init__(
        self,
        ledger: Ledger,
        rules: Callable[[], AccountRules],
        wpad_url: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`wpad_url` asks what DHCP says of proxies."""
        self._ledger = ledger
        self._rules = rules
        self._wpad_url = wpad_url

    def __repr__(self) -> str:
        return f"<AccountProxies accounts={len(self._ledger.proxies)}>"

    # --- calls ----------------------------------------------------------------------------------

    async def get(self, caller: Caller, account: str | None) -> AccountProxyState:
        """getieproxy: the settings of an account, of the caller's own without a name, all parameters included (B43).

        Raises E_ACCESSDENIED, and E_INVALIDARG for an account that does not exist.
        """
        subject = await self._subject(caller, account)
        proxies.may_read(caller, subject)
        return self._state(subject)

    async def set(self, caller: Caller, account: str | None, change: AccountProxyChange) -> AccountProxyState:
        """setieproxy: switch the usage and keep the parameters of the others (I20). Raises as `change_account` does."""
        subject = await self._subject(caller, account)
        proxies.may_change(caller, subject)

        def work(draft: Draft) -> None:
            draft.proxies[subject.key] = proxies.change_account(draft.account_proxies(subject.key), change)

        await self._ledger.submit(work)
        log.info("action=proxy-settings account=%s usage=%s uid=%d", subject.key, change.usage, caller.identity.uid)
        return self._state(subject)

    async def reset(self, caller: Caller, account: str | None) -> AccountProxyState:
        """setieproxy RESET: forget all parameters (I20).

        A built-in account has NO_PROXY then; an account of its own kind again what it had before it had settings of
        its own: those of its kind, or the desktop's.
        """
        subject = await self._subject(caller, account)
        proxies.may_change(caller, subject)

        def work(draft: Draft) -> None:
            draft.proxies[subject.key] = AccountProxy() if subject.is_built_in else None

        await self._ledger.submit(work)
        log.info("action=proxy-settings account=%s usage=reset uid=%d", subject.key, caller.identity.uid)
        return self._state(subject)

    def _state(self, subject: Subject) -> AccountProxyState:
        stored = self._ledger.proxies
        return AccountProxyState(
            account=subject.key if subject.is_built_in else subject.name,
            settings=stored.get(subject.key),
            applies_to=proxies.applies_to(subject, stored),
        )

    async def _subject(self, caller: Caller, name: str | None) -> Subject:
        own = proxies.subject_of(caller)
        if name is None:
            return own
        found = proxies.built_in(name)
        if found is not None:
            return found
        if name in (caller.name, str(caller.identity.uid)):
            return own
        if not caller.is_administrator:
            # Before it is looked up: whether there is such an account is none of the caller's business.
            raise BitsError("E_ACCESSDENIED", "only administrators may name another account than their own")
        # In a thread: behind the account database there may be a directory server.
        entry = await asyncio.to_thread(_look_up, name)
        if entry is None:
            raise BitsError("E_INVALIDARG", f"there is no account {ascii(name)[:80]}")
        kind, _ = kind_of(entry.pw_uid, entry.pw_name, self._rules())
        return Subject(name=entry.pw_name, kind=kind, uid=entry.pw_uid)

    # --- runs -----------------------------------------------------------------------------------

    async def spec(self, job: Job, account: Owner) -> ProxySpec:
        """Return the settings that a run of `job` obeys whose network side is `account`."""
        decision = proxies.decide(job.settings, account, self._ledger.proxies)
        # What a desktop says only the worker will know: it may be that proxies are to be detected.
        may_detect = decision.route in (proxies.Route.DETECT, proxies.Route.DESKTOP)
        dhcp_url = await self._wpad_url() if may_detect and self._wpad_url is not None else ""
        return ProxySpec(
            usage=decision.route.value,
            proxies=decision.proxies,
            bypass=decision.bypass,
            script_url=decision.script_url,
            source=decision.source,
            dhcp_url=dhcp_url,
        )


def _look_up(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        return None
