"""As whom jobs come to a server that lets in whom Kerberos proves (architecture, section 4, rule 5; I4, I9-I11).

A real KDC, a real Apache with mod_auth_gssapi, real accounts: what counts is the name in the server's log.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from openbits.client import calls
from openbits.errors import BitsError
from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import Apache, needs_apache, running_apache
from support.daemon import Daemon, running_daemon, wait_until
from support.kdc import REALM, Realm, needs_kdc, running_kdc
from support.nginx import sha256_of
from support.realm import MACHINE, PASSWORD, Person, configuration, machine_in_realm, machine_keytab

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
    """A person with a ticket, where libkrb5 looks for it when nobody says anything else."""
    with temporary_account() as account:
        cache = f"/tmp/krb5cc_{account.uid}"
        realm.add(account.name, password=PASSWORD)
        realm.kinit(account.name, PASSWORD, path=cache, account=account)
        try:
            yield account
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(cache)


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
    """A file of the test's own that only principals of the realm get."""
    name = f"private/{re.sub('[^a-z0-9]', '-', request.node.name)}"
    apache.add(name, 100_000)
    return name


@pytest.fixture
def public() -> Iterator[str]:
    """A directory that every account may write to."""
    path = tempfile.mkdtemp(prefix="obt-kerberos-")
    os.chmod(path, 0o1777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def assert_refused(job: dict[str, Any], *words: str, code: str = "BG_E_HTTP_ERROR_401") -> None:
    assert job["state"] == "ERROR"
    assert (job["error"]["code"], job["error"]["context"]) == (code, "REMOTE_FILE")
    for word in words:
        assert word in job["error"]["message"], job["error"]["message"]


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


def test_roots_own_tickets_are_not_the_computers(
    daemon: Daemon, apache: Apache, path: str, public: str, realm: Realm
) -> None:
    """What an administrator has got for himself as root is no job's."""
    realm.ensure("admin")
    cache = "/tmp/krb5cc_0"
    if os.path.exists(cache):
        pytest.skip("root of this machine has tickets of its own")
    keytab = realm.keytab("admin.keytab", "admin")
    realm.kinit_by_keytab("admin", keytab, path=cache)
    try:
        job = Person(account=None, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    finally:
        os.unlink(cache)
    assert job["state"] == "TRANSFERRED"
    assert apache.users(path) == {COMPUTER}


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


# --- what others can get hold of ------------------------------------------------------------------------

_SPY = """
import glob, os, sys
got = []
for keytab in sys.argv[1:2]:
    try:
        got.append(open(keytab, "rb").read(4))
    except OSError:
        pass
for path in glob.glob(f"/proc/{sys.argv[2]}/fd/*") + [f"/proc/{sys.argv[2]}/fd"]:
    try:
        os.listdir(path) if path.endswith("fd") else open(path, "rb").read(4)
        got.append(path)
    except OSError:
        pass
for name in ("mem", "environ", "maps"):
    try:
        got.append(open(f"/proc/{sys.argv[2]}/{name}", "rb").read(1))
    except OSError:
        pass
print(got)
"""


def test_neither_keytab_nor_tickets_can_be_read(
    daemon: Daemon, apache: Apache, path: str, public: str, realm: Realm, speaker: TestAccount, alice: TestAccount
) -> None:
    """The keytab not by the account that speaks for the machine, its tickets not by anybody else, nor by itself."""
    assert Person(account=speaker, daemon=daemon).fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
    [worker] = [process for process in daemon.workers() if process.uids[0] == speaker.uid]
    memfds = [
        os.readlink(f"/proc/{worker.pid}/fd/{fd}")
        for fd in os.listdir(f"/proc/{worker.pid}/fd")
        if "memfd" in os.readlink(f"/proc/{worker.pid}/fd/{fd}")
    ]
    assert memfds == ["/memfd:tickets (deleted)"]
    keytab = machine_keytab(realm)
    for account in (speaker, alice):
        done = subprocess.run(
            [sys.executable, "-c", _SPY, keytab, str(worker.pid)],
            user=account.uid,
            group=account.gid,
            extra_groups=list(account.groups),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == "[]"
    keytab_readers = [process for process in daemon.processes() if _has_open(process.pid, keytab)]
    assert keytab_readers == []


def _has_open(pid: int, path: str) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == path for fd in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return False


# --- tickets come and go ----------------------------------------------------------------------------------


def test_tickets_are_renewed_before_they_expire(
    realm: Realm, apache: Apache, path: str, public: str, speaker: TestAccount
) -> None:
    """One ticket serves many jobs; a new run gets a new one when little of its life is left."""
    realm.add("host/brief.test", max_life_s=6)
    keytab = realm.keytab("brief.keytab", "host/brief.test")
    with machine_in_realm(realm, configuration(keytab, network_service=speaker)) as daemon:
        person = Person(account=speaker, daemon=daemon)
        for _ in range(2):
            assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
        assert daemon.statistics()["tickets_obtained"] == 1
        wait_until(lambda: _seconds_since_first(realm) > 5.6, "most of the ticket's life to pass")
        assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
        assert daemon.statistics()["tickets_obtained"] == 2
        # The first one has expired by then.
        wait_until(lambda: _seconds_since_first(realm) > 7.1, "the first ticket to expire")
        assert person.fetch(apache, path, public, allow=SERVER)["state"] == "TRANSFERRED"
    assert apache.users(path) == {f"host/brief.test@{REALM}"}


def _seconds_since_first(realm: Realm) -> float:
    first = next(line for line in realm.log().splitlines() if "host/brief.test" in line and "authtime" in line)
    return time.time() - int(first.partition("authtime ")[2].partition(",")[0])


@pytest.mark.parametrize("case", ["no keytab", "unreadable", "no host key", "no KDC", "wrong principal"])
def test_computer_without_tickets_says_why(
    realm: Realm, apache: Apache, path: str, public: str, speaker: TestAccount, case: str
) -> None:
    """The job runs; only where the server then asks, its error says why there was no answer."""
    more = ""
    words: tuple[str, ...] = ()
    keytab = os.path.join(realm.base, "missing.keytab")
    match case:
        case "no keytab":
            words = (f"the computer has no Kerberos credentials: {keytab} does not exist",)
        case "unreadable":
            realm.ensure("host/others.test")
            keytab = realm.keytab("others.keytab", "host/others.test")
            os.chown(keytab, speaker.uid, speaker.gid)
            words = (f"{keytab} cannot be read by root",)
        case "no host key":
            realm.ensure("nothing")
            keytab = realm.keytab("nothing.keytab", "nothing")
            words = ("holds no key of a host principal",)
        case "no KDC":
            keytab = machine_keytab(realm)
            realm.configure(port=1)
            words = ("Cannot contact any KDC",)
        case "wrong principal":
            keytab = machine_keytab(realm)
            more = 'machine_principal = "host/elsewhere.test"\n'
            words = ("host/elsewhere.test",)
    apache.add("open", 1000)
    try:
        with machine_in_realm(realm, configuration(keytab, network_service=speaker, more=more)) as daemon:
            person = Person(account=speaker, daemon=daemon)
            assert person.fetch(apache, "open", public, allow=SERVER)["state"] == "TRANSFERRED"
            job = person.fetch(apache, path, public, allow=SERVER)
    finally:
        realm.configure()
    assert_refused(job, "the computer has no Kerberos credentials: ", *words)
    assert [asked.proof for asked in apache.asked(path)] == ["-"]


def test_ad_machine_account_where_the_host_principal_gets_no_ticket(
    realm: Realm, apache: Apache, path: str, public: str
) -> None:
    """Active Directory gives tickets to NAME$ only, which stands in the keytab after the host principals."""
    realm.ensure("host/member.test")
    realm.ensure("MEMBER$")
    keytab = realm.keytab("member.keytab", "host/member.test", "MEMBER$")
    realm.remove("host/member.test")
    with machine_in_realm(realm, configuration(keytab)) as daemon:
        job = Person(account=None, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    assert job["state"] == "TRANSFERRED", (job["error"], daemon.log and daemon.log.text)
    assert apache.users(path) == {f"MEMBER$@{REALM}"}


def test_account_s_own_service_has_its_session_s_tickets_and_no_computer(
    realm: Realm, apache: Apache, path: str, bert: TestAccount
) -> None:
    """`bitsd --user`: KRB5CCNAME of who started it; the machine's keytab is not its own to use."""
    realm.ensure(bert.name)
    realm.set_password(bert.name, PASSWORD)
    cache = os.path.join(bert.home, "session-tickets")
    realm.kinit(bert.name, PASSWORD, path=cache, account=bert)
    environment = {**realm.environment, "KRB5CCNAME": f"FILE:{cache}"}
    with running_daemon("user", account=bert.uid, environment=environment) as daemon:
        job = Person(account=bert, daemon=daemon).fetch(apache, path, bert.home, allow=SERVER)
    assert job["state"] == "TRANSFERRED", job["error"]
    assert apache.users(path) == {f"{bert.name}@{REALM}"}


def test_root_s_own_service_is_not_the_computer(realm: Realm, apache: Apache, path: str, public: str) -> None:
    config = f'[credentials]\nmachine_keytab = "{machine_keytab(realm)}"\n'
    with running_daemon("user", config=config, environment=realm.environment) as daemon:
        job = Person(account=None, daemon=daemon).fetch(apache, path, public, allow=SERVER)
    assert_refused(job, "the computer has no Kerberos credentials: only the system's service has them")


def test_kdc_that_does_not_answer_holds_up_nothing_else(
    realm: Realm, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    """One job of an account waits for a ticket; its others do not, and the one that waits can be stopped at once."""
    apache.add("open", 1000)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        realm.configure(port=deaf.getsockname()[1])
        try:
            with machine_in_realm(realm, configuration(machine_keytab(realm))) as daemon:
                person = Person(account=alice, daemon=daemon)
                # A name of the server for which there is no ticket in the cache yet.
                url = apache.url(path).replace("localhost", "127.0.0.1")
                waiting = person.job((url, os.path.join(public, "waiting")), allow=SERVER, priority="foreground")
                deaf.settimeout(20)
                connection, _ = deaf.accept()
                with contextlib.closing(connection):
                    assert person.fetch(apache, "open", public, allow=SERVER)["state"] == "TRANSFERRED"
                    began = time.monotonic()
                    person.perform(calls.cancel(waiting))
                    assert time.monotonic() - began < 2
        finally:
            realm.configure()


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


def test_j35_passwords_are_neither_kept_nor_repeated(
    daemon: Daemon, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    owner = Person(account=alice, daemon=daemon)
    job_id = owner.perform(
        calls.create_job({"name": "a job", "files": [calls.file_in(apache.url(path), os.path.join(public, "a"))]})
    )
    secret = "correct-horse-battery"
    with pytest.raises(BitsError) as caught:
        owner.perform(calls.set_credentials(job_id, "server", "basic", "alice", secret))
    assert caught.value.name == "E_NOTIMPL"
    assert secret not in str(caught.value)
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
