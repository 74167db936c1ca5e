"""Services of their own as systemd starts them: impersonating ones, dynamic accounts, private directories."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from support.daemon import wait_until
from support.nspawn import Machine
from support.nspawn_install import PEOPLE
from support.nspawn_jobs import Jobs
from support.nspawn_logon import logged_on

PYTHON = "/opt/openbits/bin/python"
SIZE = 12_000_000
RATE_BPS = 3_000_000
ROUNDS = 25

IMPERSONATING = (
    "User=svc-files",
    "AmbientCapabilities=CAP_SETUID CAP_SETGID",
    "CapabilityBoundingSet=CAP_SETUID CAP_SETGID",
    "NoNewPrivileges=yes",
)
"""The unit of docs/service-accounts.md."""


@pytest.fixture(autouse=True)
def slow_origin(jobs: Jobs) -> Iterator[None]:
    """Transfers take some seconds; what a test left is cancelled."""
    jobs.origin.limit(RATE_BPS)
    yield
    for account in (*PEOPLE, "svc-files", "svc-backup"):
        jobs.cancel_all(account)
    jobs.machine.try_run("pkill", "-KILL", "--uid", "alice", "sleep")


def run_unit(machine: Machine, *command: str, properties: tuple[str, ...]) -> str:
    """Run a program as a unit with these properties until it ends; return what it printed."""
    options = [f"--property={each}" for each in properties]
    return machine.run("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, *command)


def try_unit(machine: Machine, *command: str, properties: tuple[str, ...]) -> tuple[int, str]:
    """The same for a program that may fail; return its status and what it printed."""
    options = [f"--property={each}" for each in properties]
    done = machine.try_run("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, *command)
    return done.returncode, done.stdout + done.stderr


def page(machine: Machine) -> str:
    """The page for those who write services."""
    return machine.path("/srv/checkout/docs/service-accounts.md").read_text(encoding="utf-8")


def documented(machine: Machine, name: str) -> str:
    """Put a program of that page into the machine; return where."""
    program = re.search(rf"```python\n(# file: {re.escape(name)}\n.*?)```", page(machine), re.DOTALL)
    assert program is not None, f"the page has no {name}"
    machine.path(f"/srv/boot/{name}").write_text(program[1], encoding="utf-8")
    return f"/srv/boot/{name}"


def test_a_service_impersonates_users(machine: Machine, jobs: Jobs) -> None:
    """Architecture §4, rules 2 and 3: from two threads at once; each job is its user's and waits for his log-on."""
    source = jobs.new_source(SIZE)
    command = (PYTHON, "/srv/boot/deliver_many.py", str(ROUNDS), source.url, *PEOPLE)
    said = run_unit(machine, *command, properties=IMPERSONATING)
    made = [line.split() for line in said.splitlines()]
    assert Counter(user for user, _ in made) == dict.fromkeys(PEOPLE, ROUNDS)
    owners = {job["id"]: job["owner"]["name"] for job in json.loads(jobs.bits("list", "--all-users", "--json"))}
    assert all(owners[job] == user for user, job in made)
    started = dict(made)
    for user, job in started.items():
        seen = jobs.wait_state(job, "QUEUED")
        assert seen["owner"]["kind"] == "USER"
        assert user in jobs.why(job)["sentence"]
    assert jobs.origin.requests(source) == []
    with logged_on(machine, "bob"):
        jobs.finish(started["bob"], source, "/home/bob/delivery")
        assert jobs.show(started["alice"])["state"] == "QUEUED"
    shown = machine.run("stat", "-c", "%U %G", "/home/bob/delivery").strip()
    assert shown == "bob bob"
    with logged_on(machine, "alice"):
        jobs.finish(started["alice"], source, "/home/alice/delivery")


def test_the_service_of_the_documentation(machine: Machine, jobs: Jobs) -> None:
    """docs/service-accounts.md, delivery.py, as it stands there and in the unit that stands there."""
    for line in IMPERSONATING:
        assert line.replace("svc-files", "acme-delivery") in page(machine)
    source, target = jobs.new_source(SIZE), "/home/alice/delivered"
    command = (PYTHON, documented(machine, "delivery.py"), "alice", source.url, target)
    job = run_unit(machine, *command, properties=IMPERSONATING).strip()
    assert jobs.wait_state(job, "QUEUED")["owner"]["name"] == "alice"
    with logged_on(machine, "alice"):
        jobs.finish(job, source, target)


def test_impersonation_needs_the_capability(machine: Machine) -> None:
    """A unit without AmbientCapabilities= is refused, and nothing of it has changed."""
    command = (PYTHON, "-c", "import openbits\nwith openbits.impersonate('alice'): pass")
    status, said = try_unit(machine, *command, properties=("User=svc-files", "NoNewPrivileges=yes"))
    assert status != 0
    assert "ERROR_PRIVILEGE_NOT_HELD" in said


def test_a_unit_that_does_not_impersonate_owns_its_job(machine: Machine, jobs: Jobs) -> None:
    """Architecture §4, rule 1: the capability alone changes nobody."""
    source, target = jobs.new_source(SIZE), "/var/lib/svc-files/own"
    job = run_unit(machine, "bits", "get", "--async", source.url, "-o", target, properties=IMPERSONATING).strip()
    jobs.finish(job, source, target)
    assert jobs.show(job)["owner"]["kind"] == "LOCAL_SERVICE"


def test_a_dynamic_account_is_a_local_service(machine: Machine, jobs: Jobs) -> None:
    """DynamicUser=: its job runs without any session."""
    machine.run("install", "-d", "-m", "1777", "/srv/drop")
    source, target = jobs.new_source(SIZE), "/srv/drop/dynamic"
    machine.run("systemd-run", "--quiet", "--unit=dynamic", "--property=DynamicUser=yes", "sleep", "infinity")
    try:
        pid = machine.property("dynamic.service", "MainPID")
        uid = jobs.status_of(int(pid))["Uid"].split()[0]
        command = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--")
        job = machine.run(*command, "bits", "get", "--async", source.url, "-o", target, environment={"HOME": "/"})
        job = job.strip()
        seen = jobs.wait_bytes(job, 1_000_000)
        # Its name is known only where libnss-systemd is installed.
        assert (seen["owner"]["uid"], seen["owner"]["kind"]) == (int(uid), "LOCAL_SERVICE")
        jobs.finish(job, source, target)
        assert machine.run("stat", "-c", "%u", target).strip() == uid
    finally:
        machine.run("systemctl", "stop", "dynamic.service")


def test_a_dynamic_unit_fetches_for_itself(machine: Machine, jobs: Jobs) -> None:
    """From within its sandbox, which has other mounts than the service, to a directory that is the same in both."""
    machine.run("install", "-d", "-m", "1777", "/srv/drop")
    jobs.origin.limit(0)
    source, target = jobs.new_source(SIZE), "/srv/drop/itself"
    properties = ("DynamicUser=yes", "ReadWritePaths=/srv/drop")
    status, said = try_unit(machine, "bits", "get", "-q", source.url, "-o", target, properties=properties)
    assert status == 0, said
    assert jobs.sha256(target) == source.sha256()


@pytest.mark.parametrize("private", ["PrivateTmp=yes", "TemporaryFileSystem=/srv/drop"])
def test_a_path_that_means_something_else_to_the_unit_is_refused(machine: Machine, jobs: Jobs, private: str) -> None:
    """Architecture §4, rule 4: the service would put the file where the unit does not see it."""
    machine.run("install", "-d", "-m", "1777", "/srv/drop")
    source = jobs.new_source(SIZE)
    directory = "/tmp" if private == "PrivateTmp=yes" else "/srv/drop"
    command = ("bits", "get", "-q", source.url, "-o", f"{directory}/refused")
    status, said = try_unit(machine, *command, properties=("User=svc-backup", private))
    assert status == 2, said
    assert "E_INVALIDARG" in said
    assert f"mounted on {directory}" in said
    assert jobs.origin.requests(source) == []
    assert not machine.path("/srv/drop/refused").exists()


def test_a_path_of_a_session_is_refused_for_a_service(machine: Machine, jobs: Jobs) -> None:
    """Architecture §4, rule 4: /run/user/UID goes with its log-on; for its own user it may be named."""
    machine.run("loginctl", "enable-linger", "alice")
    try:
        uid = machine.run("id", "--user", "alice").strip()
        source = jobs.new_source(SIZE)
        directory = f"/run/user/{uid}"
        with logged_on(machine, "alice"):
            for account in ("svc-backup", "root"):
                refused = jobs.try_bits("get", "-q", source.url, "-o", f"{directory}/x", account=account)
                assert refused.returncode == 2, refused.stderr
                assert f"{directory} (tmpfs) belongs to a log-on session" in refused.stderr
    finally:
        machine.run("loginctl", "disable-linger", "alice")


def test_private_directories_of_dynamic_units_are_closed_to_the_service(machine: Machine, jobs: Jobs) -> None:
    """Below /var/lib/private nobody else may look, the service's workers included: it is said at once."""
    source = jobs.new_source(SIZE)
    command = ("bits", "get", "-q", source.url, "-o", "/var/lib/inside/x")
    status, said = try_unit(machine, *command, properties=("DynamicUser=yes", "StateDirectory=inside"))
    assert status == 4, said
    assert "E_ACCESSDENIED" in said
    assert "/var/lib/inside" in said


def test_a_unit_with_its_own_accounts_is_refused(machine: Machine) -> None:
    """A8: with PrivateUsers= the same number is another account."""
    status, said = try_unit(machine, "bits", "list", properties=("User=svc-files", "PrivateUsers=yes"))
    assert status == 4, said
    assert "another user namespace" in said


def test_the_sandbox_of_a_careful_unit_is_no_obstacle(machine: Machine, jobs: Jobs) -> None:
    """A unit of a system account with everything closed but its StateDirectory= fetches into that."""
    jobs.origin.limit(0)
    source, target = jobs.new_source(SIZE), "/var/lib/careful/x"
    closed = ("ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "NoNewPrivileges=yes")
    properties = ("User=svc-files", "StateDirectory=careful", "PrivateNetwork=yes", *closed)
    status, said = try_unit(machine, "bits", "get", "-q", source.url, "-o", target, properties=properties)
    assert status == 0, said
    assert jobs.sha256(target) == source.sha256()


def test_a_helper_lends_a_service_her_files(machine: Machine, jobs: Jobs) -> None:
    """T1-T4: docs/service-accounts.md, collect.py: the service's job writes where only alice may."""
    jobs.origin.limit(0)
    source, target = jobs.new_source(SIZE), "/home/alice/collected"
    command = (PYTHON, documented(machine, "collect.py"), "alice", source.url, target)
    with logged_on(machine, "alice"):
        status, said = try_unit(machine, *command, properties=IMPERSONATING)
    assert status == 0, said
    assert machine.run("stat", "-c", "%U", target).strip() == "alice"
    assert jobs.sha256(target) == source.sha256()


def test_a_helper_token_ends_with_the_helpers_session(machine: Machine, jobs: Jobs) -> None:
    """T4: in the middle of the transfer; nothing goes on with her rights, although the job's owner needs no log-on."""
    source, target = jobs.new_source(SIZE), "/home/alice/half"
    command = (PYTHON, documented(machine, "collect.py"), "alice", source.url, target)
    options = [f"--property={each}" for each in IMPERSONATING]
    with logged_on(machine, "alice") as alice:
        unit = machine.popen("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, *command)
        wait_until(lambda: jobs.origin.requests(source), "the transfer")
        (job,) = json.loads(jobs.bits("list", "--json", account="svc-files"))
        jobs.wait_bytes(job["id"], 1_000_000)
        alice.leave_behind(60)
        alice.log_off()
        out, err = unit.communicate(timeout=30)
    assert unit.returncode != 0, out
    assert "BG_E_TOKEN_REQUIRED" in err
    jobs.wait_no_worker("alice")
    assert len(jobs.origin.requests(source)) == 1
    assert not machine.path(target).exists()
