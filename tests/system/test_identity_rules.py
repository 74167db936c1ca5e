"""The eight rules of identity, each shown once from the outside (architecture, section 4).

The real daemon with real accounts; programs that run as a service's account with CAP_SETUID and CAP_SETGID; the kernel
(/proc, stat) and the servers' logs as witnesses.  What each rule means in all its corners stands in files of its own:
cloaking, log-on, helper tokens, Kerberos, proxies, ownership, attacks.
"""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import needs_apache, running_apache
from support.daemon import Daemon, processes_of, running_daemon, wait_until
from support.fake_logind import FakeLogind, fake_logind, private_bus
from support.impersonating import as_service, python
from support.kdc import REALM, needs_kdc, running_kdc
from support.origin import Origin, generate
from support.realm import MACHINE, configuration, machine_in_realm, machine_keytab

pytestmark = needs_root

SIZE = 4_000_000
CAPABILITIES = ("setuid", "setgid")
CONFIG = """
[accounts]
administrators_group = "{group}"

[logon]
provider = "logind"

[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A machine on which nobody is logged on at first."""

    daemon: Daemon
    logind: FakeLogind
    origin: Origin
    service: TestAccount
    alice: TestAccount
    bob: TestAccount
    carol: TestAccount
    """An administrator."""

    def program(
        self,
        script: str,
        *arguments: str,
        account: TestAccount | None = None,
        capabilities: tuple[str, ...] = CAPABILITIES,
    ) -> Any:
        """Run a program of the service's, or of another account; return the JSON that it prints."""
        done = subprocess.run(
            python(textwrap.dedent(script), *arguments, prefix=as_service(account or self.service, capabilities)),
            env={**os.environ, "BITS_SOCKET": self.daemon.socket, "HOME": "/"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with (
        temporary_account(system=True) as service,
        temporary_account() as alice,
        temporary_account() as bob,
        temporary_account(extra_groups=1) as carol,
        private_bus() as bus,
        fake_logind(bus) as logind,
        Origin() as origin,
    ):
        [group] = set(carol.groups) - {carol.gid}
        config = CONFIG.format(group=grp.getgrgid(group).gr_name)
        with running_daemon(config=config, environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as daemon:
            yield World(daemon=daemon, logind=logind, origin=origin, service=service, alice=alice, bob=bob, carol=carol)


@pytest.fixture
def nobody_logged_on(world: World) -> Iterator[None]:
    yield
    for account in (world.alice, world.bob, world.carol):
        world.logind.log_off(account.uid)


def owner_uids(world: World, *jobs: str) -> list[int]:
    return [world.daemon.show(job)["owner"]["uid"] for job in jobs]


CREATE = """
url, path = sys.argv[1:3]
with openbits.Manager() as manager:
    job = manager.create_job("a service's job")
    job.add_file(url, path)
    job.resume()
    print(json.dumps(job.id))
"""

CREATE_AS = """
user, url, path = sys.argv[1:4]
openbits.initialize_security(openbits.Cloaking.DYNAMIC)
with openbits.Manager() as manager, openbits.impersonate(user):
    job = manager.create_job("a user's job")
    job.add_file(url, path)
    job.resume()
    print(json.dumps(job.id))
"""


def test_rule_1_a_service_that_does_not_impersonate_owns_its_jobs_and_they_always_run(world: World) -> None:
    path = f"{world.service.home}/own"
    job = world.program(CREATE, world.origin.url(f"/gen/{SIZE}/1"), path, capabilities=())
    shown = world.daemon.wait_state(job, "TRANSFERRED")
    assert (shown["owner"]["uid"], shown["owner"]["kind"]) == (world.service.uid, "LOCAL_SERVICE")
    world.daemon.bits("complete", job, account=world.service, check=True)
    assert os.stat(path).st_uid == world.service.uid


@pytest.mark.usefixtures("nobody_logged_on")
def test_rule_2_a_job_for_a_user_waits_for_his_log_on_stops_at_log_off_and_goes_on(world: World) -> None:
    path = f"{world.alice.home}/delivered"
    target = f"/gen/{SIZE}/2"
    job = world.program(CREATE_AS, world.alice.name, world.origin.url(f"{target}?rate=1500000"), path)
    shown = world.daemon.show(job)
    assert (shown["owner"]["uid"], shown["state"]) == (world.alice.uid, "QUEUED")
    assert world.daemon.why(job)["gate"] == "logon"
    assert world.origin.requests_of(target) == []

    world.logind.log_on(world.alice.uid)
    world.daemon.wait_state(job, "TRANSFERRING")
    wait_until(lambda: world.daemon.stored_files(job)[0].durable_bytes > 0, "a checkpoint")
    world.logind.log_off(world.alice.uid)
    wait_until(lambda: not processes_of(world.alice.uid), "everything of alice's to end", timeout_s=5)
    assert world.daemon.wait_state(job, "QUEUED")["bytes_transferred"] > 0
    [file] = world.daemon.stored_files(job)

    world.logind.log_on(world.alice.uid)
    world.daemon.wait_state(job, "TRANSFERRED")
    assert [request.range for request in world.origin.requests_of(target)] == [None, f"bytes={file.durable_bytes}-"]
    world.daemon.bits("complete", job, account=world.alice, check=True)
    with open(path, "rb") as content:
        assert content.read() == generate(SIZE, 2)
    assert os.stat(path).st_uid == world.alice.uid


def test_rule_3_a_blanket_says_whose_identity_a_call_carries_and_is_not_inherited(world: World) -> None:
    uids = world.program(
        """
        alice, bob = sys.argv[1:3]
        Cloaking = openbits.Cloaking
        manager = openbits.Manager()
        def uid(obj=manager): return obj.whoami()["uid"]
        seen = {}
        with openbits.impersonate(alice):
            seen["none"] = uid()
            openbits.set_proxy_blanket(manager, Cloaking.STATIC)
        seen["static, outside"] = uid()
        with openbits.impersonate(bob):
            seen["static, as bob"] = uid()
            openbits.set_proxy_blanket(manager, Cloaking.DYNAMIC)
            seen["dynamic, as bob"] = uid()
            job = manager.create_job("bob's")
            seen["created"] = openbits.query_proxy_blanket(job).cloaking.name
            try:
                job.get_state()
                seen["a job without a blanket"] = "may be read"
            except BitsError as error:
                seen["a job without a blanket"] = error.name
            openbits.set_proxy_blanket(job, Cloaking.DYNAMIC)
            seen["owner"] = job.get_owner().uid
            job.cancel()
        seen["dynamic, outside"] = uid()
        try:
            openbits.initialize_security(Cloaking.DYNAMIC)
        except BitsError as error:
            seen["too late"] = error.name
        print(json.dumps(seen))
        """,
        world.alice.name,
        world.bob.name,
    )
    assert uids == {
        "none": world.service.uid,
        "static, outside": world.alice.uid,
        "static, as bob": world.alice.uid,
        "dynamic, as bob": world.bob.uid,
        "created": "NONE",
        "a job without a blanket": "E_ACCESSDENIED",
        "owner": world.bob.uid,
        "dynamic, outside": world.service.uid,
        "too late": "RPC_E_TOO_LATE",
    }


def test_rule_4_a_service_may_not_use_what_belongs_to_a_session(world: World) -> None:
    before = len(world.daemon.history())
    refused = world.daemon.bits(
        "get",
        "--async",
        world.origin.url(f"/gen/{SIZE}/4"),
        "-o",
        f"/run/user/{world.alice.uid}/x",
        account=world.service,
    )
    assert refused.returncode != 0
    assert f"/run/user/{world.alice.uid}" in refused.stderr
    assert len(world.daemon.history()) == before


@needs_kdc
@needs_apache
def test_rule_5_the_network_sees_the_computer_or_nobody(world: World) -> None:
    with (
        running_kdc() as realm,
        running_apache(realm) as apache,
        machine_in_realm(realm, configuration(machine_keytab(realm), network_service=world.service)) as daemon,
        temporary_account(system=True) as unlisted,
    ):
        script = CREATE.replace(
            "    job.resume()",
            "    job.set_credentials(openbits.AuthTarget.SERVER, openbits.AuthScheme.NEGOTIATE)\n    job.resume()",
        )
        ours = replace(world, daemon=daemon)
        errors: dict[int, Any] = {}
        for account, seen in ((world.service, {f"{MACHINE}@{REALM}"}), (unlisted, set())):
            name = f"private/{account.name}"
            apache.add(name, 1000)
            job = ours.program(script, apache.url(name), f"{account.home}/file", account=account, capabilities=())
            shown = daemon.wait_state(job, "TRANSFERRED", "ERROR")
            assert apache.users(name) == seen
            errors[account.uid] = shown["error"]
        assert errors[world.service.uid] is None
        assert errors[unlisted.uid]["code"] == "BG_E_HTTP_ERROR_401"
        assert "anonymous" in errors[unlisted.uid]["message"]


@pytest.mark.usefixtures("nobody_logged_on")
def test_rule_6_a_helper_gives_itself_and_is_gone_with_its_session(world: World) -> None:
    world.logind.log_on(world.alice.uid)
    path = f"{world.alice.home}/helped"
    job = world.program(
        """
        alice, url, path = sys.argv[1:4]
        with openbits.Manager() as manager:
            job = manager.create_job("helped")
            options = job.token_options()
            openbits.set_proxy_blanket(options, openbits.Cloaking.DYNAMIC)
            with openbits.impersonate(alice):
                options.set_helper_token()
            options.set_helper_token_flags(openbits.TokenFlags.LOCAL_FILE)
            job.add_file(url, path)
            job.resume()
            print(json.dumps(job.id))
        """,
        world.alice.name,
        world.origin.url(f"/gen/{SIZE}/6?rate=1500000"),
        path,
    )
    shown = world.daemon.wait_state(job, "TRANSFERRING")
    assert shown["owner"]["uid"] == world.service.uid
    assert {process.uids for process in world.daemon.workers()} >= {(world.service.uid,) * 4, (world.alice.uid,) * 4}
    assert os.stat(world.daemon.show(job)["files"][0]["temporary_name"]).st_uid == world.alice.uid

    world.logind.log_off(world.alice.uid)
    lost = world.daemon.wait_state(job, "ERROR")
    assert lost["error"]["code"] == "BG_E_TOKEN_REQUIRED"
    world.daemon.bits("cancel", job, account=world.service)


def test_rule_7_proxies_are_an_accounts_own_and_come_from_no_environment(world: World) -> None:
    none = json.loads(world.daemon.bits("proxy", "show", "--json", account=world.service, check=True).stdout)
    assert none["usage"] is None
    refused = world.daemon.bits(
        "proxy", "set", "--account", "LOCALSERVICE", "manual_proxy", "p:1", account=world.service
    )
    assert refused.returncode == 4
    assert "E_ACCESSDENIED" in refused.stderr
    # The one of its kind: nobody listens there, so that the job tells which proxy it was sent to.
    world.daemon.bits("proxy", "set", "--account", "LOCALSERVICE", "manual_proxy", "127.0.0.1:9", check=True)
    try:
        path = f"{world.service.home}/proxied"
        job = world.program(CREATE, world.origin.url(f"/gen/{SIZE}/7"), path, capabilities=())
        shown = world.daemon.wait_state(job, "TRANSIENT_ERROR", "ERROR", "TRANSFERRED")
        assert shown["state"] != "TRANSFERRED"
        assert "127.0.0.1:9" in shown["error"]["message"]
    finally:
        world.daemon.bits("proxy", "reset", "--account", "LOCALSERVICE", check=True)
    world.daemon.bits("resume", job, account=world.service, check=True)
    world.daemon.wait_state(job, "TRANSFERRED")


def test_rule_8_owner_and_administrators_and_what_stays_the_owners_own(world: World) -> None:
    bits = world.daemon.bits
    alices = bits("create", "alice's", account=world.alice, check=True).stdout.strip()
    roots = bits("create", "root's", check=True).stdout.strip()

    assert bits("show", alices, account=world.bob).returncode == 4
    assert bits("suspend", alices, account=world.bob).returncode == 4
    assert bits("suspend", alices, account=world.carol).returncode == 0
    assert bits("set", alices, "custom_headers=A: 1", account=world.carol).returncode == 4
    assert bits("set", alices, "custom_headers=A: 1").returncode == 4, "not even root"
    assert bits("show", roots, account=world.carol).returncode == 0
    assert bits("suspend", roots, account=world.carol).returncode == 4
    elsewhere = subprocess.run(
        [*as_service(world.alice, ()), "unshare", "--user", "--map-root-user", sys.executable, "-c", WHOAMI],
        env={**os.environ, "BITS_SOCKET": world.daemon.socket},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "E_ACCESSDENIED" in elsewhere.stderr
    for job in (alices, roots):
        bits("cancel", job, check=True)


WHOAMI = "import openbits; print(openbits.Manager().whoami())"
