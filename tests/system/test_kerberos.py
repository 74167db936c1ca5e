"""As whom jobs come to a server that lets in whom Kerberos proves (architecture, section 4, rule 5; I4, I9-I11).

A real KDC, a real Apache with mod_auth_gssapi, real accounts: what counts is the name in the server's log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from openbits.client import calls
from openbits.errors import BitsError
from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import Apache, needs_apache, running_apache
from support.daemon import Daemon
from support.kdc import REALM, Realm, needs_kdc, running_kdc
from support.nginx import sha256_of
from support.realm import (
    MACHINE,
    PASSWORD,
    Person,
    assert_refused,
    configuration,
    file_for,
    machine_in_realm,
    machine_keytab,
    person_with_ticket,
    public_directory,
)

pytestmark = [needs_root, needs_kdc, needs_apache]

COMPUTER = f"{MACHINE}@{REALM}"
SERVER = ("server",)


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with running_kdc() as running:
        yield running


@pytest.fixture(scope="module")
def apache(realm: Realm) -> Iterator[Apache]:
    with running_apache(realm, slow_kibps=2048) as server:
        yield server


@pytest.fixture(scope="module")
def alice(realm: Realm) -> Iterator[TestAccount]:
    with person_with_ticket(realm) as account:
        yield account


@pytest.fixture(scope="module")
def bert() -> Iterator[TestAccount]:
    """A person without a ticket."""
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def speaker() -> Iterator[TestAccount]:
    """A system account that is listed in accounts.network_service."""
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def local_service() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def daemon(realm: Realm, speaker: TestAccount) -> Iterator[Daemon]:
    with machine_in_realm(realm, configuration(machine_keytab(realm), network_service=speaker)) as running:
        yield running


@pytest.fixture
def path(apache: Apache, request: pytest.FixtureRequest) -> str:
    return file_for(apache, request.node.name)


@pytest.fixture
def public() -> Iterator[str]:
    with public_directory() as path:
        yield path


# --- the table of section 4 --------------------------------------------------------------------------


def test_rule_5_system_comes_as_the_computer(daemon: Daemon, apache: Apache, path: str, public: str) -> None:
    job = Person(account=None, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    assert job["state"] == "TRANSFERRED", (job["error"], daemon.log and daemon.log.text)
    assert apache.users(path) == {COMPUTER}


def test_rule_5_network_service_comes_as_the_computer(
    daemon: Daemon, apache: Apache, path: str, public: str, speaker: TestAccount
) -> None:
    job = Person(account=speaker, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    assert job["state"] == "TRANSFERRED", (job["error"], daemon.log and daemon.log.text)
    assert job["owner"]["kind"] == "NETWORK_SERVICE"
    assert apache.users(path) == {COMPUTER}


def test_person_comes_as_himself(daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount) -> None:
    job = Person(account=alice, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    assert job["state"] == "TRANSFERRED", (job["error"], daemon.log and daemon.log.text)
    assert apache.users(path) == {f"{alice.name}@{REALM}"}


def test_rule_5_local_service_is_nobody_whatever_it_allows(
    daemon: Daemon, apache: Apache, path: str, public: str, local_service: TestAccount, realm: Realm
) -> None:
    """I4: also with a cache of tickets that works for anybody else."""
    cache = f"/tmp/krb5cc_{local_service.uid}"
    realm.add(local_service.name, password=PASSWORD)
    realm.kinit(local_service.name, PASSWORD, path=cache, account=local_service)
    try:
        job = Person(account=local_service, daemon=daemon).fetch(apache, path, public, allow=("server", "proxy"))
    finally:
        os.unlink(cache)
    assert_refused(job, local_service.name, "is anonymous on the network")
    assert [(asked.status, asked.user, asked.proof) for asked in apache.asked(path)] == [(401, "-", "-")]


def test_rule_5_forbidden_says_that_the_account_is_anonymous(
    daemon: Daemon, apache: Apache, public: str, local_service: TestAccount, alice: TestAccount
) -> None:
    job = Person(account=local_service, daemon=daemon).fetch(apache, "forbidden", public)
    assert_refused(job, "is anonymous on the network", code="BG_E_HTTP_ERROR_403")
    job = Person(account=alice, daemon=daemon).fetch(apache, "forbidden", public)
    assert_refused(job, "the server does not let this account have it", code="BG_E_HTTP_ERROR_403")


# --- only in answer to a challenge, only when allowed --------------------------------------------------


def test_i9_first_request_proves_nothing(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    apache.add("open", 1000)
    person = Person(account=alice, daemon=daemon)
    assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
    before = len(apache.asked("open"))
    assert person.fetch(apache, "open", public, allow=SERVER)["state"] == "TRANSFERRED"
    assert [(asked.status, asked.proof) for asked in apache.asked(path)] == [(401, "-"), (200, "proof")]
    [asked] = apache.asked("open")[before:]
    # The server that had asked another job of the account learns nothing from this one.
    assert (asked.user, asked.proof) == ("-", "-")


def test_i11_nothing_is_sent_for_a_job_that_does_not_allow_it(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    job = Person(account=alice, daemon=daemon).fetch(apache, path, public)
    assert_refused(job, "does not allow", alice.name, "SetCredentials")
    assert [asked.proof for asked in apache.asked(path)] == ["-"]


def test_i10_connection_of_a_job_that_may_is_not_used_by_one_that_may_not(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    person = Person(account=alice, daemon=daemon)
    assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
    apache.add("open", 1000)
    before = len(apache.asked("open"))
    assert person.fetch(apache, "open", public)["state"] == "TRANSFERRED"
    assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
    [asked] = apache.asked("open")[before:]
    proved = [asked.client_port for asked in apache.asked(path)]
    # The connection was kept, for there was no other until the last job.
    assert len(proved) == 4
    assert len(set(proved)) == 1
    assert asked.client_port not in proved


def test_i10_allowed_for_the_proxy_is_allowed_for_the_server(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    assert Person(account=alice, daemon=daemon).fetch(apache, path, public, allow=("proxy",))["state"] == "TRANSFERRED"
    assert apache.users(path) == {f"{alice.name}@{REALM}"}


@pytest.mark.parametrize("policy", [0, 1])
def test_i11_use_lm_compat_without_setcredentials(
    realm: Realm,
    apache: Apache,
    path: str,
    public: str,
    alice: TestAccount,
    local_service: TestAccount,
    policy: int,
) -> None:
    config = configuration(machine_keytab(realm), more=f"use_lm_compat = {policy}\n")
    with machine_in_realm(realm, config) as daemon:
        assert Person(account=alice, daemon=daemon).fetch(apache, path, public)["state"] == "TRANSFERRED"
        assert apache.users(path) == {f"{alice.name}@{REALM}"}
        job = Person(account=local_service, daemon=daemon).fetch(apache, path, public)
        assert_refused(job, "is anonymous on the network")
        assert Person(account=None, daemon=daemon).fetch(apache, path, public)["state"] == "TRANSFERRED"
        assert apache.users(path) == {f"{alice.name}@{REALM}", COMPUTER}


def test_i9_redirect_to_another_server_proves_nothing_there(
    daemon: Daemon, realm: Realm, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    with running_apache(realm, redirects=(("private/away", apache.url(path)),)) as other:
        other.add("private/first", 1000)
        pairs = [
            (other.url(name), os.path.join(public, os.path.basename(name)))
            for name in ("private/first", "private/away")
        ]
        job_id = Person(account=alice, daemon=daemon).job(*pairs, allow=SERVER, priority="foreground")
        job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR")
        assert [(asked.status, asked.proof) for asked in other.asked()] == [(401, "-"), (200, "proof"), (302, "proof")]
    assert_refused(job, "redirect", "another server does not get the credentials")
    assert [asked.proof for asked in apache.asked(path)] == ["-"]


def test_i12_anonymous_comes_first(daemon: Daemon, apache: Apache, public: str, alice: TestAccount) -> None:
    """A server that refuses without asking never hears who it was."""
    job = Person(account=alice, daemon=daemon).fetch(apache, "forbidden", public, allow=SERVER)
    assert_refused(job, code="BG_E_HTTP_ERROR_403")
    assert apache.asked("forbidden")[-1].proof == "-"


def test_j37_rejected_and_another_scheme(daemon: Daemon, realm: Realm, public: str, alice: TestAccount) -> None:
    with running_apache(realm, only=(("host", COMPUTER),)) as server:
        person = Person(account=alice, daemon=daemon)
        job = person.fetch(server, "only/host/file", public, allow=SERVER)
        assert_refused(job, f"does not let {alice.name} in")
        assert [asked.proof for asked in server.asked()] == ["-", "proof"]
        job = person.fetch(server, "basic/file", public, allow=SERVER)
        assert_refused(job, "does not offer Negotiate")
        assert server.asked()[-1].proof == "-"


def test_j37_resume_after_the_ticket_is_there(
    daemon: Daemon, apache: Apache, path: str, public: str, bert: TestAccount, realm: Realm
) -> None:
    person = Person(account=bert, daemon=daemon)
    job = person.fetch(apache, path, public, allow=SERVER)
    assert_refused(job, f"{bert.name} has no Kerberos ticket: run kinit")
    assert [asked.proof for asked in apache.asked(path)] == ["-"]
    realm.ensure(bert.name)
    realm.set_password(bert.name, PASSWORD)
    cache = f"/tmp/krb5cc_{bert.uid}"
    realm.kinit(bert.name, PASSWORD, path=cache, account=bert)
    try:
        person.perform(calls.resume(job["id"]))
        assert daemon.wait_state(job["id"], "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
    finally:
        os.unlink(cache)
    assert apache.users(path) == {f"{bert.name}@{REALM}"}


@pytest.mark.parametrize("kind", ["FILE", "DIR", "KEYRING"])
def test_cache_is_where_krb5_conf_says(
    realm: Realm, apache: Apache, path: str, public: str, bert: TestAccount, kind: str
) -> None:
    realm.ensure(bert.name)
    realm.set_password(bert.name, PASSWORD)
    os.makedirs(os.path.join(bert.home, "tickets"), exist_ok=True)
    os.chown(os.path.join(bert.home, "tickets"), bert.uid, bert.gid)
    cache, configured = {
        "FILE": (f"FILE:{bert.home}/tickets/file", f"FILE:{bert.home}/tickets/file"),
        "DIR": (f"DIR:{bert.home}/tickets", f"DIR:{bert.home}/tickets"),
        "KEYRING": (f"KEYRING:persistent:{bert.uid}", "KEYRING:persistent:%{uid}"),
    }[kind]
    if not realm.kinit_as(bert, PASSWORD, cache=cache):
        pytest.skip(f"this kernel or its libkrb5 has no {kind} caches")
    realm.configure(more=f"    default_ccache_name = {configured}\n")
    try:
        with machine_in_realm(realm, configuration(machine_keytab(realm))) as daemon:
            job = Person(account=bert, daemon=daemon).fetch(apache, path, public, allow=SERVER)
            realm.kdestroy_as(bert, cache=cache)
    finally:
        realm.configure()
    assert job["state"] == "TRANSFERRED", job["error"]
    assert apache.users(path) == {f"{bert.name}@{REALM}"}


@pytest.mark.parametrize("planted", ["file", "link", "pipe"])
def test_tickets_that_somebody_else_has_put_there_are_not_used(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount, realm: Realm, planted: str
) -> None:
    """Whoever is first to make /tmp/krb5cc_UID is not the one as whom that account's jobs come to servers."""
    with temporary_account() as victim:
        cache, his = f"/tmp/krb5cc_{victim.uid}", f"/tmp/krb5cc_{alice.uid}"
        match planted:
            case "file":
                shutil.copyfile(his, cache)
                os.chown(cache, alice.uid, alice.gid)
                os.chmod(cache, 0o644)
            case "link":
                os.symlink(his, cache)
            case "pipe":
                os.mkfifo(cache)
                os.chmod(cache, 0o666)
        person = Person(account=victim, daemon=daemon)
        try:
            job = person.fetch(apache, path, public, allow=SERVER)
            assert_refused(job, victim.name, f"the credential cache {cache}", "remove it")
            os.unlink(cache)
            realm.ensure(victim.name)
            realm.set_password(victim.name, PASSWORD)
            realm.kinit(victim.name, PASSWORD, path=cache, account=victim)
            person.perform(calls.resume(job["id"]))
            assert daemon.wait_state(job["id"], "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
        finally:
            os.unlink(cache)
        assert f"{victim.name}@{REALM}" in apache.users(path)
        assert f"{alice.name}@{REALM}" not in apache.users(path)


# --- resumption, ranges, many at once -------------------------------------------------------------------


def test_d3_resume_after_a_kill_proves_anew(daemon: Daemon, apache: Apache, public: str, alice: TestAccount) -> None:
    name = "private/slow/resumed"
    digest = apache.add("private/resumed", 6_000_000)
    local = os.path.join(public, "resumed")
    person = Person(account=alice, daemon=daemon)
    job_id = person.job((apache.url(name), local), allow=SERVER, priority="foreground")
    daemon.wait_job(job_id, lambda seen: seen["bytes_transferred"] > 1_000_000 or seen["state"] == "ERROR")
    daemon.kill()
    daemon.start()
    assert daemon.wait_state(job_id, "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
    person.perform(calls.complete(job_id))
    assert sha256_of(local) == digest
    served = [asked for asked in apache.asked(name) if asked.status in (200, 206)]
    assert {asked.user for asked in served} == {f"{alice.name}@{REALM}"}


def test_j41_ranges_prove_as_well(daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount) -> None:
    person = Person(account=alice, daemon=daemon)
    local = os.path.join(public, "ranges")
    spec = calls.file_in(apache.url(path), local, ranges=[(10, 20), (50_000, 1000)])
    job_id = person.perform(
        calls.create_job({"name": "ranges", "settings": {"priority": "foreground"}, "files": [spec]})
    )
    person.perform(calls.set_credentials(job_id, "server", "negotiate", None, None), calls.resume(job_id))
    assert daemon.wait_state(job_id, "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
    assert apache.users(path) == {f"{alice.name}@{REALM}"}
    with open(os.path.join(apache.root, path), "rb") as file:
        content = file.read()
    person.perform(calls.complete(job_id))
    with open(local, "rb") as file:
        assert file.read() == content[10:30] + content[50_000:51_000]


def test_two_accounts_at_once_are_never_mixed(
    daemon: Daemon, apache: Apache, public: str, alice: TestAccount, speaker: TestAccount
) -> None:
    jobs = []
    for account, who in ((alice, f"{alice.name}@{REALM}"), (speaker, COMPUTER), (None, COMPUTER)):
        person = Person(account=account, daemon=daemon)
        name = account.name if account else "root"
        files = []
        for number in range(20):
            path = f"private/mixed-{name}-{number}"
            apache.add(path, 20_000)
            files.append((path, who))
        pairs = [(apache.url(path), os.path.join(public, os.path.basename(path))) for path, _ in files]
        jobs.append((person.job(*pairs, allow=SERVER, priority="foreground", file_concurrency=4), files))
    for job_id, _ in jobs:
        assert daemon.wait_state(job_id, "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
    for _, files in jobs:
        for path, who in files:
            assert apache.users(path) == {who}


# --- the calls ----------------------------------------------------------------------------------------------


def test_a2_j35_j36_credentials_are_the_owners_alone(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount, bert: TestAccount
) -> None:
    owner = Person(account=alice, daemon=daemon)
    job_id = owner.perform(
        calls.create_job({"name": "a job", "files": [calls.file_in(apache.url(path), os.path.join(public, "a"))]})
    )
    setting = calls.set_credentials(job_id, "server", "negotiate", None, None)
    for other in (Person(account=bert, daemon=daemon), Person(account=None, daemon=daemon)):
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            other.perform(setting)
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            other.perform(calls.remove_credentials(job_id, "server", "negotiate"))
    assert owner.perform(setting)["result"] == "S_OK"
    shown = owner.perform(calls.job(job_id))["credentials"]
    assert shown == [{"target": "server", "scheme": "negotiate", "implicit": True}]
    # An administrator may see the job, and not what its owner allowed.
    assert Person(account=None, daemon=daemon).perform(calls.job(job_id))["credentials"] is None
    assert owner.perform(calls.remove_credentials(job_id, "server", "ntlm"))["result"] == "S_FALSE"
    assert owner.perform(calls.remove_credentials(job_id, "server", "negotiate"))["result"] == "S_OK"
    assert owner.perform(calls.job(job_id))["credentials"] == []


def test_j35_passwords_are_neither_kept_in_clear_nor_repeated(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    owner = Person(account=alice, daemon=daemon)
    job_id = owner.perform(
        calls.create_job({"name": "a job", "files": [calls.file_in(apache.url(path), os.path.join(public, "a"))]})
    )
    secret = "correct-horse-battery"
    assert secret not in str(owner.perform(calls.set_credentials(job_id, "server", "basic", "alice", secret)))
    assert secret not in str(owner.perform(calls.job(job_id)))
    assert daemon.log is not None
    assert secret not in daemon.log.text
    for directory, _, names in os.walk(daemon.base):
        for name in names:
            full = os.path.join(directory, name)
            if os.path.isfile(full):
                with open(full, "rb") as file:
                    assert secret.encode() not in file.read()


@pytest.mark.parametrize("kind", ["root", "network service", "local service", "person"])
def test_file_source_that_the_account_may_not_read(
    daemon: Daemon, public: str, speaker: TestAccount, local_service: TestAccount, alice: TestAccount, kind: str
) -> None:
    """Rule 5 without a network: nothing of the machine's stands in for the account."""
    account = {"root": None, "network service": speaker, "local service": local_service, "person": alice}[kind]
    with temporary_account() as owner:
        source = os.path.join(owner.home, "secret")
        with open(source, "w", encoding="ascii") as file:
            file.write("secret")
        os.chmod(source, 0o600)
        os.chown(source, owner.uid, owner.gid)
        person = Person(account=account, daemon=daemon)
        job_id = person.job((f"file://{source}", os.path.join(public, "copy")), priority="foreground")
        job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
    assert_refused(job, source, code="E_ACCESSDENIED")
