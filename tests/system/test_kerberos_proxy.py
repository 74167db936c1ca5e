"""As whom jobs come to a proxy that lets through whom Kerberos proves (I10, I18, J35, J37): real KDC, real Squid."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from openbits.client import calls
from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import Apache, needs_apache, running_apache
from support.daemon import Daemon
from support.kdc import REALM, Realm, needs_kdc, running_kdc
from support.realm import (
    MACHINE,
    Person,
    configuration,
    machine_in_realm,
    machine_keytab,
    person_with_ticket,
    public_directory,
)
from support.squid import Squid, needs_squid, running_squid

pytestmark = [needs_root, needs_kdc, needs_apache, needs_squid]

COMPUTER = f"{MACHINE}@{REALM}"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with running_kdc() as running:
        yield running


@pytest.fixture(scope="module")
def apache(realm: Realm) -> Iterator[Apache]:
    with running_apache(realm) as server:
        yield server


@pytest.fixture(scope="module")
def squid(realm: Realm) -> Iterator[Squid]:
    with running_squid(realm) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def daemon(realm: Realm) -> Iterator[Daemon]:
    with machine_in_realm(realm, configuration(machine_keytab(realm))) as running:
        yield running


@pytest.fixture(scope="module")
def alice(realm: Realm) -> Iterator[TestAccount]:
    with person_with_ticket(realm) as account:
        yield account


@pytest.fixture
def public() -> Iterator[str]:
    with public_directory() as path:
        yield path


def through(squid: Squid) -> dict[str, str]:
    return {"proxy_usage": "override", "proxy_list": squid.address}


def test_proxy_and_server_both_learn_who_asks(
    daemon: Daemon, apache: Apache, squid: Squid, public: str, alice: TestAccount
) -> None:
    """Allowed for the proxy is allowed for the server (I10)."""
    apache.add("private/both", 100_000)
    job = Person(account=alice, daemon=daemon).fetch(apache, "private/both", public, allow=("proxy",), **through(squid))
    assert job["state"] == "TRANSFERRED", job["error"]
    me = f"{alice.name}@{REALM}"
    url = apache.url("private/both")
    assert [(passed.status, passed.user) for passed in squid.passed() if passed.address == url] == [
        (407, "-"),
        (401, me),
        (200, me),
    ]
    assert apache.users("private/both") == {me}


def test_proxy_asks_and_the_job_allows_the_server_only(
    daemon: Daemon, apache: Apache, squid: Squid, public: str, alice: TestAccount
) -> None:
    apache.add("refused", 1000)
    job = Person(account=alice, daemon=daemon).fetch(apache, "refused", public, allow=("server",), **through(squid))
    assert (job["state"], job["error"]["code"]) == ("ERROR", "BG_E_HTTP_ERROR_407")
    assert "SetCredentials for proxy" in job["error"]["message"]
    assert squid.passed()[-1].user == "-"


def test_proxy_never_sees_what_is_meant_for_the_server(
    daemon: Daemon, apache: Apache, squid: Squid, public: str
) -> None:
    """A tunnel: the proxy is asked with CONNECT, as the computer. (The server behind it speaks no TLS.)"""
    url = apache.url("tunnel").replace("http:", "https:")
    person = Person(account=None, daemon=daemon)
    job_id = person.job(
        (url, os.path.join(public, "tunnel")), allow=("proxy",), priority="foreground", **through(squid)
    )
    job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR", timeout_s=90)
    assert job["error"]["code"] != "BG_E_HTTP_ERROR_407"
    tunnels = [(passed.status, passed.user) for passed in squid.passed() if passed.method == "CONNECT"]
    assert tunnels[:2] == [(407, "-"), (200, COMPUTER)]


def test_local_service_is_nobody_to_a_proxy(daemon: Daemon, apache: Apache, squid: Squid, public: str) -> None:
    apache.add("nobody", 1000)
    with temporary_account(system=True) as account:
        person = Person(account=account, daemon=daemon)
        job = person.fetch(apache, "nobody", public, allow=("proxy",), **through(squid))
    assert (job["state"], job["error"]["code"]) == ("ERROR", "BG_E_HTTP_ERROR_407")
    assert "is anonymous on the network" in job["error"]["message"]
    assert squid.passed()[-1].user == "-"


def test_i18_service_reaches_an_authenticated_proxy_through_its_helper(
    daemon: Daemon, apache: Apache, squid: Squid, public: str, alice: TestAccount
) -> None:
    """SetCredentials for the proxy, PRECONFIG, a helper token for the network: proxy settings and tickets are hers."""
    apache.add("private/recipe", 100_000)
    url = apache.url("private/recipe")
    helper = Person(account=alice, daemon=daemon)
    helper.perform(
        calls.set_account_proxy_settings(
            None, {"usage": "manual_proxy", "proxy_list": squid.address, "bypass_list": ""}
        )
    )
    with temporary_account(system=True) as service:
        owner = Person(account=service, daemon=daemon)
        file = calls.file_in(url, os.path.join(public, "recipe"))
        settings = {"priority": "foreground", "proxy_usage": "preconfig"}
        job_id = owner.perform(calls.create_job({"name": "recipe", "settings": settings, "files": [file]}))
        owner.perform(calls.set_credentials(job_id, "proxy", "negotiate", None, None))
        capability = owner.perform(calls.token_options(job_id))
        helper.perform(calls.set_helper_token(capability))
        owner.perform(calls.set_helper_token_flags(capability, 2), calls.resume(job_id))
        job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
        assert job["state"] == "TRANSFERRED", job["error"]
        owner.perform(calls.complete(job_id))
        assert os.stat(os.path.join(public, "recipe")).st_uid == service.uid
    helper.perform(calls.reset_account_proxy_settings(None))
    me = f"{alice.name}@{REALM}"
    passed = [(passed.status, passed.user) for passed in squid.passed() if passed.address == url]
    assert passed[-1] == (200, me)
    assert {user for _, user in passed} <= {"-", me}
    assert apache.users("private/recipe") == {me}
