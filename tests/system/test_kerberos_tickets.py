"""The computer's tickets: who can get hold of them, how they come and go, what is said when there are none (I4, J37).

A real KDC, a real Apache with mod_auth_gssapi, real accounts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from openbits.client import calls
from openbits.frames.network import ImplicitSpec
from openbits.frames.worker import FileSpec
from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import Apache, needs_apache, running_apache
from support.daemon import Daemon, running_daemon, wait_until
from support.kdc import REALM, Realm, needs_kdc, running_kdc
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
from support.worker_process import WorkerProcess

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


def test_computer_without_tickets_does_not_come_as_somebody_else(
    realm: Realm, apache: Apache, path: str, public: str, alice: TestAccount
) -> None:
    """A worker that speaks for the machine and was given no tickets uses none, whatever lies about."""
    environment = {**realm.environment, "KRB5CCNAME": f"FILE:/tmp/krb5cc_{alice.uid}"}
    spec = FileSpec(
        index=0, remote_name=apache.url(path), local_name=f"{public}/a", temporary_name=f"{public}/.BITa.tmp"
    )
    with WorkerProcess(env=environment) as worker:
        ended = worker.fetch(spec, implicit=ImplicitSpec(server=True, is_computer=True, account="root"))
        assert ended.error == "BG_E_HTTP_ERROR_401"
        assert [asked.proof for asked in apache.asked(path)] == ["-"]
        # The same worker has them for an account that comes as itself.
        ended = worker.fetch(spec, transfer=2, implicit=ImplicitSpec(server=True, account=alice.name))
    assert ended.error == ""
    assert apache.users(path) == {f"{alice.name}@{REALM}"}


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
