"""With a helper token the network sees the helper (rule 6 of architecture, section 4; I7, I15, I18, T3).

The worker that meets the network then is the helper's: his tickets are in no other account's reach.
"""

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

pytestmark = [needs_root, needs_kdc, needs_apache]

COMPUTER = f"{MACHINE}@{REALM}"
LOCAL_FILE, NETWORK = 1, 2


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with running_kdc() as running:
        yield running


@pytest.fixture(scope="module")
def apache(realm: Realm) -> Iterator[Apache]:
    with running_apache(realm) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(realm: Realm) -> Iterator[Daemon]:
    with machine_in_realm(realm, configuration(machine_keytab(realm))) as running:
        yield running


@pytest.fixture(scope="module")
def alice(realm: Realm) -> Iterator[TestAccount]:
    with person_with_ticket(realm) as account:
        yield account


@pytest.fixture(scope="module")
def local_service() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture
def public() -> Iterator[str]:
    with public_directory() as path:
        yield path


def helped_job(daemon: Daemon, owner: TestAccount | None, helper: TestAccount, flags: int, url: str, local: str) -> str:
    """A job of `owner` that allows implicit credentials and has `helper` for these purposes; it is resumed."""
    person = Person(account=owner, daemon=daemon)
    job_id = person.perform(
        calls.create_job(
            {"name": "helped", "settings": {"priority": "foreground"}, "files": [calls.file_in(url, local)]}
        )
    )
    person.perform(calls.set_credentials(job_id, "server", "negotiate", None, None))
    capability = person.perform(calls.token_options(job_id))
    Person(account=helper, daemon=daemon).perform(calls.set_helper_token(capability))
    person.perform(calls.set_helper_token_flags(capability, flags), calls.resume(job_id))
    return str(job_id)


@pytest.mark.parametrize("owner", ["root", "local service"])
def test_rule_6_helper_for_the_network_comes_as_himself(
    daemon: Daemon, apache: Apache, public: str, alice: TestAccount, local_service: TestAccount, owner: str
) -> None:
    path = f"private/helped-{owner.replace(' ', '-')}"
    apache.add(path, 200_000)
    account = None if owner == "root" else local_service
    job_id = helped_job(daemon, account, alice, NETWORK, apache.url(path), os.path.join(public, "file"))
    job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
    assert job["state"] == "TRANSFERRED", job["error"]
    assert apache.users(path) == {f"{alice.name}@{REALM}"}
    # Of the tickets of the one and the files of the other, no process has both.
    owner_uid = account.uid if account is not None else 0
    assert {process.uids[0] for process in daemon.workers()} >= {owner_uid, alice.uid}
    Person(account=account, daemon=daemon).perform(calls.complete(job_id))
    assert os.stat(os.path.join(public, "file")).st_uid == owner_uid


def test_t3_helper_for_files_only_leaves_the_network_to_the_computer(
    daemon: Daemon, apache: Apache, public: str, alice: TestAccount
) -> None:
    apache.add("private/files-only", 200_000)
    local = os.path.join(public, "file")
    job_id = helped_job(daemon, None, alice, LOCAL_FILE, apache.url("private/files-only"), local)
    job = daemon.wait_state(job_id, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
    assert job["state"] == "TRANSFERRED", job["error"]
    assert apache.users("private/files-only") == {COMPUTER}
    Person(account=None, daemon=daemon).perform(calls.complete(job_id))
    assert os.stat(local).st_uid == alice.uid
