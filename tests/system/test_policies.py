"""The policy of a real daemon: how it is followed, what it changes, who may reload it (P1-P7, A9, section 8)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.metered import Metered
from support.policies import directory_of, write_policy

pytestmark = needs_root


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def service_account() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon(config="[quotas]\nmax_jobs_per_user = 10\n") as running:
        yield running


def shown(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.bits("policy", "show", "--json", check=True).stdout)
    return found


def value(daemon: Daemon, name: str) -> tuple[Any, str]:
    [found] = [each for each in shown(daemon)["values"] if each["name"] == name]
    return found["value"], found["source"]


def test_files_are_followed_as_they_come_change_and_go(daemon: Daemon) -> None:
    """By themselves, from a directory that was not there at the start."""
    assert value(daemon, "quotas.max_jobs_per_user") == (10, "configuration quotas.max_jobs_per_user")
    assert value(daemon, "quotas.max_files_per_job")[0] == 200
    path = write_policy(daemon, "[quotas]\nmax_jobs_per_user = 2\n")
    daemon.wait_log("action=policy-loaded")
    assert value(daemon, "quotas.max_jobs_per_user") == (2, f"{path}:2")
    with open(path, "a", encoding="utf-8") as file:
        file.write("max_files_per_job = 3\n")
    daemon.wait_log("action=policy-loaded")
    assert value(daemon, "quotas.max_files_per_job") == (3, f"{path}:3")
    os.unlink(path)
    daemon.wait_log("action=policy-loaded")
    assert value(daemon, "quotas.max_jobs_per_user")[0] == 10


def test_sighup_reads_them_too(daemon: Daemon) -> None:
    directory_of(daemon)
    write_policy(daemon, "[jobs]\ninactivity_timeout_days = 5\n")
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_log("action=reloaded")
    assert value(daemon, "jobs.inactivity_timeout_days")[0] == 5


def test_a_wrong_file_changes_nothing_and_says_which_line_is_wrong(daemon: Daemon, alice: TestAccount) -> None:
    write_policy(daemon, "[quotas]\nmax_jobs_per_user = 1\n", name="10.toml")
    daemon.wait_log("action=policy-loaded")
    wrong = write_policy(daemon, "[quotas]\nmax_jobs_per_user = 5\nmax_jobs = 3\n", name="20.toml")
    assert f"{wrong}:3" in daemon.wait_log("action=policy-refused")
    assert value(daemon, "quotas.max_jobs_per_user")[0] == 1
    assert f"{wrong}:3" in shown(daemon)["problem"]
    assert f"{wrong}:3" in daemon.bits("policy", "show", account=alice, check=True).stdout
    failed = daemon.bits("policy", "reload")
    assert failed.returncode == 2
    assert f"{wrong}:3: there is no key max_jobs in [quotas]" in failed.stderr
    assert not next(check for check in daemon.doctor() if check["name"] == "policy")["ok"]
    os.unlink(wrong)
    daemon.bits("policy", "reload", check=True)
    assert shown(daemon)["problem"] is None


def test_a_file_that_others_can_write_is_refused(daemon: Daemon) -> None:
    write_policy(daemon, "allow_notification_commands = false\n", mode=0o666)
    assert "others may write to it" in daemon.wait_log("action=policy-refused")
    assert value(daemon, "allow_notification_commands") == ("true", "default")


def test_a_service_with_a_wrong_policy_does_not_start(daemon: Daemon) -> None:
    daemon.stop()
    path = write_policy(daemon, "[quotas]\nmax_jobs_per_user = 0\n")
    daemon.launch()
    assert f"{path}:2" in daemon.wait_log("action=configuration-refused")
    assert daemon.process is not None
    assert daemon.process.wait(timeout=20) == 78


def test_only_administrators_reload_and_everybody_may_look(daemon: Daemon, alice: TestAccount) -> None:
    assert daemon.bits("policy", "reload", account=alice).returncode == 4
    assert daemon.bits("policy", "show", account=alice).returncode == 0


def test_p4_to_p7_quotas_of_a_policy_and_who_is_exempt(
    daemon: Daemon, alice: TestAccount, service_account: TestAccount
) -> None:
    """A9; the refusal names the line."""
    path = write_policy(
        daemon,
        "[quotas]\nmax_jobs_per_machine = 4\nmax_jobs_per_user = 2\nmax_files_per_job = 1\nmax_ranges_per_file = 1\n",
    )
    daemon.wait_log("action=policy-loaded")
    job = daemon.bits("create", "one", account=alice, check=True).stdout.split()[0]
    daemon.bits("create", "two", account=alice, check=True)
    refused = daemon.bits("create", "three", account=alice)
    assert "BG_E_TOO_MANY_JOBS_PER_USER" in refused.stderr
    assert f"{path}:3" in refused.stderr
    place = os.path.join(alice.home, "x")
    ranges = ("--range", "0:1", "--range", "5:1")
    refused = daemon.bits("add", job, "http://127.0.0.1:1/x", place, *ranges, account=alice)
    assert "BG_E_TOO_MANY_RANGES_IN_FILE" in refused.stderr
    assert f"{path}:5" in refused.stderr
    daemon.bits("add", job, "http://127.0.0.1:1/x", place, account=alice, check=True)
    refused = daemon.bits("add", job, "http://127.0.0.1:1/y", place + "y", account=alice)
    assert "BG_E_TOO_MANY_FILES_IN_JOB" in refused.stderr
    assert f"{path}:4" in refused.stderr
    for exempt in (service_account, None):
        for number in range(4):
            daemon.bits("create", f"{number}", account=exempt, check=True)


def test_p3_and_j53_a_job_is_active_no_longer_than_the_policy_says_unless_it_says_so_itself(
    daemon: Daemon, alice: TestAccount
) -> None:
    with Metered() as server:
        write_policy(daemon, "[max_internet_bandwidth]\nlimit_kbps = 80\nlimit_outside_kbps = 80\n", name="1.toml")
        daemon.wait_log("action=policy-loaded")
        options = ("--priority", "low")
        job = daemon.submit(*options, server.url("/90000000"), "-o", os.path.join(alice.home, "a"), account=alice)
        daemon.wait_state(job, "TRANSFERRING")
        # It holds at once, for what is under way, too.
        write_policy(daemon, "[jobs]\nmax_download_time_s = 2\n", name="2.toml")
        failed = daemon.wait_state(job, "ERROR", timeout_s=20)
        assert failed["error"]["code"] == "BG_E_MAXDOWNLOAD_TIMEOUT"
        daemon.bits("set", job, "maximum_download_time=3600", account=alice, check=True)
        daemon.bits("resume", job, account=alice, check=True)
        daemon.wait_state(job, "TRANSFERRING")
        with pytest.raises(AssertionError, match="waited"):
            daemon.wait_state(job, "ERROR", timeout_s=4)


def test_an_account_may_have_a_policy_for_its_own_service(alice: TestAccount) -> None:
    with running_daemon("user", account=alice.uid, config="") as daemon:
        directory = os.path.join(daemon.base, "policy.d")
        os.mkdir(directory, 0o755)
        os.chown(directory, alice.uid, alice.gid)
        path = write_policy(daemon, "[quotas]\nmax_files_per_job = 3\n")
        os.chown(path, alice.uid, alice.gid)
        daemon.bits("policy", "reload", account=alice, check=True)
        found = json.loads(daemon.bits("policy", "show", "--json", account=alice, check=True).stdout)
        assert found["files"] == [path]


def test_the_event_log_has_what_was_read_what_holds_and_what_contradicts_itself(daemon: Daemon) -> None:
    """Events 82 and 16397 of section 13, which are about no job; 205 is verbose, and left out of it as a rule."""
    write_policy(
        daemon,
        "[quotas]\nmax_jobs_per_machine = 2\nmax_jobs_per_user = 5\n"
        "[max_internet_bandwidth]\nlimit_kbps = 64\nlimit_outside_kbps = 64\n",
    )
    assert "together 64 kbit/s" in daemon.wait_log("action=policy-slot")
    shown(daemon)
    found = {event["event_id"]: event for event in daemon.events()}
    assert "quotas.max_jobs_per_user = 5" in found[82]["fields"]["policy_value"]
    assert found[16397]["fields"]["current_size"] == "5"
