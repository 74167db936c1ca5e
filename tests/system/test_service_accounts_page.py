"""The programs of docs/service-accounts.md, run as they stand there, with real accounts (issue: part 10)."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.apache import needs_apache, running_apache
from support.daemon import Daemon, running_daemon
from support.impersonating import as_service
from support.kdc import REALM, needs_kdc, running_kdc
from support.nginx import sha256_of
from support.origin import Origin, generate
from support.realm import MACHINE, configuration, machine_in_realm, machine_keytab

pytestmark = needs_root

PAGE = Path(__file__).parents[2] / "docs" / "service-accounts.md"
BLOCK = re.compile(r"^```python\n# file: (?P<name>[a-z_]+\.py)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {found["name"]: found["text"] for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}
SIZE = 300_000
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        yield running


@pytest.fixture(scope="module")
def service() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def user() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


def run(
    daemon: Daemon, name: str, *arguments: str, account: TestAccount, capabilities: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program of the page as a service's account."""
    return subprocess.run(
        [*as_service(account, capabilities), sys.executable, "-W", "error", "-c", PROGRAMS[name], *arguments],
        env={**os.environ, "BITS_SOCKET": daemon.socket, "HOME": "/"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def owner_and_content(path: str) -> tuple[int, bytes]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        assert stat.S_ISREG(status.st_mode)
        return status.st_uid, file.read()


def test_the_page_has_the_programs_that_are_tested_here() -> None:
    assert set(PROGRAMS) == {"updater.py", "delivery.py", "inbox.py", "collect.py", "report.py"}
    assert PAGE.read_text(encoding="utf-8").count("```python\n") == len(PROGRAMS)


def test_rule_1_a_service_that_does_not_impersonate_owns_its_job(
    daemon: Daemon, origin: Origin, service: TestAccount
) -> None:
    path = f"{service.home}/update"
    result = run(daemon, "updater.py", origin.url(f"/gen/{SIZE}/1"), path, account=service)
    assert (result.returncode, result.stderr) == (0, "")
    assert owner_and_content(path) == (service.uid, generate(SIZE, 1))


def test_a_failed_update_says_why(daemon: Daemon, origin: Origin, service: TestAccount) -> None:
    path = f"{service.home}/nothing"
    result = run(daemon, "updater.py", origin.url("/status/404"), path, account=service)
    assert result.returncode == 1
    assert "BG_E_HTTP_ERROR_404" in result.stderr
    assert not os.path.exists(path)


def test_rule_2_a_job_for_a_user_is_the_users(
    daemon: Daemon, origin: Origin, service: TestAccount, user: TestAccount
) -> None:
    path = f"{user.home}/delivered"
    url = origin.url(f"/gen/{SIZE}/2")
    result = run(daemon, "delivery.py", user.name, url, path, account=service, capabilities=("setuid", "setgid"))
    assert (result.returncode, result.stderr) == (0, "")
    job = daemon.wait_state(result.stdout.strip(), "TRANSFERRED")
    assert (job["owner"]["uid"], job["owner"]["kind"]) == (user.uid, "USER")
    daemon.bits("complete", job["id"], account=user, check=True)
    assert owner_and_content(path) == (user.uid, generate(SIZE, 2))


def test_without_the_capabilities_it_says_so_and_no_job_is_made(
    daemon: Daemon, origin: Origin, service: TestAccount, user: TestAccount
) -> None:
    before = len(daemon.history())
    result = run(daemon, "delivery.py", user.name, origin.url(f"/gen/{SIZE}/9"), f"{user.home}/x", account=service)
    assert result.returncode == 1
    assert "ERROR_PRIVILEGE_NOT_HELD" in result.stderr
    assert len(daemon.history()) == before


def test_the_inbox_of_a_user_holds_the_users_jobs_only(
    daemon: Daemon, origin: Origin, service: TestAccount, user: TestAccount
) -> None:
    mine = daemon.bits("create", "of-the-user", account=user, check=True).stdout.strip()
    daemon.bits("create", "of-the-service", account=service, check=True)
    result = run(daemon, "inbox.py", user.name, account=service, capabilities=("setuid", "setgid"))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{user.name} {mine} of-the-user SUSPENDED" in result.stdout.splitlines()
    assert "of-the-service" not in result.stdout
    daemon.bits("cancel", mine, account=user, check=True)


def test_rule_6_a_helper_token_for_files_makes_files_of_the_helper_in_a_job_of_the_service(
    daemon: Daemon, origin: Origin, service: TestAccount, user: TestAccount
) -> None:
    path = f"{user.home}/collected"
    url = origin.url(f"/gen/{SIZE}/3")
    result = run(daemon, "collect.py", user.name, url, path, account=service, capabilities=("setuid", "setgid"))
    assert (result.returncode, result.stderr) == (0, "")
    assert owner_and_content(path) == (user.uid, generate(SIZE, 3))
    [job] = [job for job in daemon.history() if job["name"] == "collect"]
    assert job["owner"]["uid"] == service.uid


@needs_kdc
@needs_apache
def test_rule_5_a_listed_service_comes_to_a_kerberos_server_as_the_computer(service: TestAccount) -> None:
    with (
        running_kdc() as realm,
        running_apache(realm) as apache,
        machine_in_realm(realm, configuration(machine_keytab(realm), network_service=service)) as daemon,
    ):
        digest = apache.add("private/report", SIZE)
        path = f"{service.home}/report"
        result = run(daemon, "report.py", apache.url("private/report"), path, account=service)
        assert (result.returncode, result.stderr) == (0, "")
        assert apache.users("private/report") == {f"{MACHINE}@{REALM}"}
        assert sha256_of(path) == digest


@needs_kdc
@needs_apache
def test_rule_5_an_unlisted_service_is_nobody_there(service: TestAccount) -> None:
    with (
        running_kdc() as realm,
        running_apache(realm) as apache,
        machine_in_realm(realm, configuration(machine_keytab(realm))) as daemon,
    ):
        apache.add("private/report", SIZE)
        result = run(daemon, "report.py", apache.url("private/report"), f"{service.home}/none", account=service)
        assert result.returncode == 1
        assert "BG_E_HTTP_ERROR_401" in result.stderr
        assert "anonymous" in result.stderr
        assert apache.users("private/report") == set()
