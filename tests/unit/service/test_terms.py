"""On what terms a run uses the network (I10, I15; architecture, section 4)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from openbits.core.accounts import AccountRules
from openbits.core.model import AccountKind, ClientCertificate, CredentialSlot, Identity, Job, Owner, SealedCredential
from openbits.errors import BitsError
from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.frames.worker import SERVICE_TO_WORKER
from openbits.service.credentials import ImplicitCredentials
from openbits.service.proxies import AccountProxies
from openbits.service.sealing import sealed_credential
from openbits.service.secrets import Secrets, headers_place, userinfo_place
from openbits.service.terms import PART_CHARACTERS, Credential, Terms
from openbits.service.worker import Worker
from support.jobs import ALICE, BOB, a_file, a_job, fetched

SYSTEM = Owner(identity=Identity(uid=0, gid=0), name="root", kind=AccountKind.LOCAL_SYSTEM)


class Asked:
    """Notes as what kind of account somebody was asked about."""

    def __init__(self) -> None:
        self.kinds: list[AccountKind] = []

    async def spec(self, _job: Job, account: Owner, _worker: Worker) -> ImplicitSpec:
        self.kinds.append(account.kind)
        return ImplicitSpec()


class ProxiesAsked(Asked):
    """The same for proxies."""

    async def spec(self, _job: Job, account: Owner) -> ProxySpec:  # type: ignore[override] # as AccountProxies has it
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


def test_what_the_owner_entrusted_goes_along_whoever_speaks_and_his_netrc_does_not() -> None:
    """T3: with a helper token of NETWORK, another account's worker speaks to the network."""
    secrets = Secrets(bytes(32), "a test")
    slot = CredentialSlot("server", "basic")
    job = a_job(
        a_file(0),
        a_file(1, sealed_userinfo=secrets.seal("u:url secret", userinfo_place(a_job().id, 1))),
        fetched(2, sealed_userinfo="what is over is not even opened"),
        settings={"use_netrc": True},
        sealed_headers=secrets.seal("X: header secret\r\n", headers_place(a_job().id)),
        explicit_credentials=(
            SealedCredential(slot=slot, sealed=sealed_credential(secrets, a_job().id, slot, "alice", "the secret")),
        ),
    )
    terms = Terms(
        implicit=cast("ImplicitCredentials", Asked()),
        proxies=cast("AccountProxies", ProxiesAsked()),
        secrets=secrets,
        rules=AccountRules,
    )
    worker: Any = None
    for account, is_owner in ((ALICE, True), (BOB, False)):
        made = asyncio.run(terms.prepare(job, account, worker))
        assert made.uses_netrc is is_owner
        assert made.headers == "X: header secret\r\n"
        assert dict(made.userinfo) == {1: "u:url secret"}
        assert (made.userinfo_of(0), made.userinfo_of(1)) == ("", "u:url secret")
        [credential] = made.credentials
        assert (credential.slot, credential.user_name, credential.password) == (slot, "alice", "the secret")
        assert "secret" not in repr(made)
        assert "alice" not in repr(credential)


@pytest.mark.parametrize("length", [0, 1, PART_CHARACTERS - 1, PART_CHARACTERS, PART_CHARACTERS + 1, 65_536])
@pytest.mark.parametrize("letter", ["a", "€", "😀"])
def test_j35_every_part_of_a_long_password_fits_into_a_frame(length: int, letter: str) -> None:
    credential = Credential(slot=CredentialSlot("proxy", "ntlm"), user_name=letter * 300, password=letter * length)
    frames = list(credential.frames(7))
    assert "".join(frame.password for frame in frames) == letter * length
    assert [frame.last for frame in frames] == [False] * (len(frames) - 1) + [True]
    for frame in frames:
        assert SERVICE_TO_WORKER.decode(SERVICE_TO_WORKER.encode(frame)) == frame


@pytest.mark.parametrize(
    ("owner", "speaks", "location", "may"),
    [
        (ALICE, ALICE, "current_user", True),
        (ALICE, BOB, "current_user", False),
        (ALICE, BOB, "local_machine", False),
        (SYSTEM, BOB, "local_machine", True),
        (SYSTEM, BOB, "current_user", False),
    ],
)
def test_t3_a_helper_does_not_show_the_owners_client_certificate(
    owner: Owner, speaks: Owner, location: str, may: bool
) -> None:
    terms = Terms(
        implicit=cast("ImplicitCredentials", Asked()),
        proxies=cast("AccountProxies", ProxiesAsked()),
        secrets=Secrets(bytes(32), "a test"),
        rules=AccountRules,
    )
    certificate = ClientCertificate(location=location, store="MY", sha1="0" * 40)
    job = a_job(a_file(), owner=owner, client_certificate=certificate)
    worker: Any = None
    if may:
        asyncio.run(terms.prepare(job, speaks, worker))
        return
    with pytest.raises(BitsError) as caught:
        asyncio.run(terms.prepare(job, speaks, worker))
    assert (caught.value.name, caught.value.code.hresult) == (
        "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY",
        0x80072F9A,
    )
    assert speaks.name in str(caught.value)
