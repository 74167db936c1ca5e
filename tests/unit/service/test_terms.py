"""On what terms a run uses the network (I10, I15; architecture, section 4)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from openbits.core.accounts import AccountRules
from openbits.core.model import AccountKind, Identity, Job, Owner
from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.service.credentials import ImplicitCredentials
from openbits.service.proxies import AccountProxies
from openbits.service.secrets import Secrets
from openbits.service.terms import Terms
from openbits.service.worker import Worker
from support.jobs import a_file, a_job


class Asked:
    """Notes as what kind of account somebody was asked about."""

    def __init__(self) -> None:
        self.kinds: list[AccountKind] = []

    async def spec(self, _job: Job, account: Owner, _worker: Worker) -> ImplicitSpec:
        self.kinds.append(account.kind)
        return ImplicitSpec()


class ProxiesAsked(Asked):
    """The same for proxies."""

    def spec(self, _job: Job, account: Owner) -> ProxySpec:  # type: ignore[override] # as AccountProxies has it
        self.kinds.append(account.kind)
        return ProxySpec()


def test_an_account_that_may_not_speak_for_the_computer_any_more_does_not_by_its_old_jobs() -> None:
    updater = Owner(identity=Identity(uid=200, gid=200), name="updater", kind=AccountKind.NETWORK_SERVICE)
    implicit, proxies = Asked(), ProxiesAsked()
    rules = AccountRules(network_service=frozenset({"updater"}))
    terms = Terms(
        implicit=cast("ImplicitCredentials", implicit),
        proxies=cast("AccountProxies", proxies),
        secrets=Secrets(bytes(32), "a test"),
        rules=lambda: rules,
    )

    def prepare() -> None:
        worker: Any = None
        asyncio.run(terms.prepare(a_job(a_file(), owner=updater), updater, worker))

    prepare()
    rules = AccountRules()
    prepare()
    assert implicit.kinds == proxies.kinds == [AccountKind.NETWORK_SERVICE, AccountKind.LOCAL_SERVICE]
