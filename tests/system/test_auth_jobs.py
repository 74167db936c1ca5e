"""Jobs of real accounts prove who they are: from the command line to Apache, Squid and a KDC (J35-J37, J65, I9)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root
from support.apache import needs_apache
from support.asking_apache import (
    NTLM_PASSWORD,
    NTLM_USER,
    PASSWORD,
    REALM,
    USER,
    AskingApache,
    needs_asking_apache,
    running_asking_apache,
)
from support.asking_squid import AskingSquid, running_asking_squid
from support.ca import Authority
from support.daemon import Daemon
from support.kdc import Realm, needs_kdc, running_kdc
from support.realm import configuration, machine_in_realm, machine_keytab, person_with_ticket
from support.squid import needs_squid

pytestmark = [needs_root, needs_kdc, needs_apache, needs_asking_apache, needs_squid]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A daemon, the servers, and a person with a ticket."""

    daemon: Daemon
    apache: AskingApache
    squid: AskingSquid
    alice: TestAccount

    def bits(self, *arguments: str, check: bool = True) -> str:
        """As alice."""
        return str(self.daemon.bits(*arguments, account=self.alice, check=check).stdout)

    def file(self, name: str, content: str, mode: int = 0o600) -> str:
        """A file of alice's."""
        path = os.path.join(self.alice.home, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(path, mode)
        os.chown(path, self.alice.uid, self.alice.gid)
        return path

    def job(self, path: str, url: str = "", *settings: str) -> str:
        """A job of alice's for one file of Apache's."""
        self.apache.add(path)
        job = self.bits("create", path.replace("/", "-")).split()[0]
        self.bits("add", job, url or self.apache.url(path), os.path.join(self.alice.home, path.replace("/", "-")))
        if settings:
            self.bits("set", job, "priority=foreground", *settings)
        return job

    def set(self, job: str, target: str, scheme: str, user: str, password: str) -> None:
        """Give the job credentials."""
        path = self.file("password", password)
        options = ("--target", target, "--scheme", scheme, "--user", user, "--password-file", path)
        self.bits("set-credentials", job, *options)

    def run(self, job: str) -> dict[str, Any]:
        """Resume it and return it as it is in the end."""
        self.bits("resume", job)
        return self.daemon.wait_state(job, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with running_kdc() as running:
        yield running


@pytest.fixture(scope="module")
def place(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("certificates")
    certificate, key = Authority("a CA").issue().write(base, "server")
    realm.add(USER, password=PASSWORD)
    with (
        running_asking_apache(realm, certificate, key) as apache,
        running_asking_squid(realm) as squid,
        machine_in_realm(realm, configuration(machine_keytab(realm))) as daemon,
        person_with_ticket(realm) as alice,
    ):
        yield Place(daemon=daemon, apache=apache, squid=squid, alice=alice)


@pytest.mark.parametrize(
    ("directory", "scheme", "user", "password", "known_as"),
    [
        ("basic", "basic", USER, PASSWORD, USER),
        ("digest", "digest", USER, PASSWORD, USER),
        ("spnego", "ntlm", NTLM_USER, NTLM_PASSWORD, NTLM_USER),
        ("spnego", "negotiate", NTLM_USER, NTLM_PASSWORD, NTLM_USER),
        # Not as alice, who has a ticket of her own.
        ("negotiate", "negotiate", f"{USER}@{REALM}", PASSWORD, f"{USER}@{REALM}"),
    ],
)
def test_j37_wrong_credentials_are_an_error_and_others_can_be_set(
    place: Place, directory: str, scheme: str, user: str, password: str, known_as: str
) -> None:
    path = f"{directory}/job-{scheme}"
    job = place.job(path)
    place.set(job, "server", scheme, user, "not this one")
    ended = place.run(job)
    assert (ended["state"], ended["error"]["code"]) == ("ERROR", "BG_E_HTTP_ERROR_401")
    assert f"bits set-credentials --target server --scheme {scheme}" in ended["error"]["message"]
    for secret in ("not this one", user):
        assert secret not in ended["error"]["message"]
    place.set(job, "server", scheme, user, password)
    ended = place.run(job)
    assert ended["state"] == "TRANSFERRED", ended["error"]
    users = {one.user.replace("\\\\", "\\") for one in place.apache.heard(path) if one.status == 200}
    assert users == {known_as}


def test_j35_a_proxy_that_wants_ntlm(place: Place) -> None:
    path = "open/by-ntlm"
    job = place.job(path, "", "proxy_usage=override", f"proxy_list={place.squid.address('ntlm')}")
    ended = place.run(job)
    assert (ended["state"], ended["error"]["code"]) == ("ERROR", "BG_E_HTTP_ERROR_407")
    assert "it asks by ntlm" in ended["error"]["message"]
    place.set(job, "proxy", "ntlm", NTLM_USER, NTLM_PASSWORD)
    ended = place.run(job)
    assert ended["state"] == "TRANSFERRED", ended["error"]


def test_j65_the_account_is_known_to_the_proxy_and_not_to_the_server(place: Place) -> None:
    proxy = ("proxy_usage=override", f"proxy_list={place.squid.address('negotiate')}")
    stored = "use_stored_credentials=proxy"
    ended = place.run(place.job("open/stored", "", *proxy, stored))
    assert ended["state"] == "TRANSFERRED", ended["error"]
    passed = place.squid.passed("negotiate", place.apache.url("open/stored"))
    assert passed[-1].user == f"{place.alice.name}@{REALM}"
    ended = place.run(place.job("negotiate/stored", "", *proxy, stored))
    assert (ended["state"], ended["error"]["code"]) == ("ERROR", "BG_E_HTTP_ERROR_401")
    assert {one.proof for one in place.apache.heard("negotiate/stored")} == {"-"}


def test_j35_name_and_password_in_a_url(place: Place) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in PASSWORD.encode())
    url = place.apache.url("digest/of-url").replace("//", f"//{USER}:{quoted}@")
    ended = place.run(place.job("digest/of-url", url))
    assert ended["state"] == "TRANSFERRED", ended["error"]
    assert [one.proof for one in place.apache.heard("digest/of-url")] == ["-", "Digest"]


def test_i9_netrc_of_the_owner(place: Place) -> None:
    """Only where the job allows it, and only the account's own that nobody else can read."""
    escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    netrc = f'machine elsewhere.test login no password no\nmachine localhost login {USER} password "{escaped}"\n'
    place.file(".netrc", netrc)
    ended = place.run(place.job("basic/without-netrc"))
    assert ended["error"]["code"] == "BG_E_HTTP_ERROR_401"
    ended = place.run(place.job("basic/with-netrc", "", "use_netrc=true"))
    assert ended["state"] == "TRANSFERRED", ended["error"]
    place.file(".netrc", netrc, mode=0o644)
    ended = place.run(place.job("basic/open-netrc", "", "use_netrc=true"))
    assert ended["error"]["code"] == "BG_E_HTTP_ERROR_401"
    assert "others may read it: run chmod 600" in ended["error"]["message"]
    assert {one.proof for one in place.apache.heard("basic/open-netrc")} == {"-"}
    place.file(".netrc", f"machine localhost login {USER} password wrong")
    ended = place.run(place.job("basic/wrong-netrc", "", "use_netrc=true"))
    assert f"in ~/.netrc of {place.alice.name}" in ended["error"]["message"]
    assert USER not in ended["error"]["message"]


def test_j35_doctor_says_what_can_be_answered(place: Place) -> None:
    [check] = [check for check in place.daemon.doctor() if check["name"] == "authentication"]
    assert (check["ok"], check["message"]) == (True, "basic, digest, ntlm and negotiate can be answered")
