"""TakeOwnership with real accounts: what passes, what does not; nothing is lost on the way (I8, J24, J51, J52)."""

from __future__ import annotations

import contextlib
import functools
import grp
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, Process, is_alive, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

SIZE = 6_000_000
RATE_BPS = 1_500_000
HUGE = 200_000_000
CRASHES = 10
CONFIG = """
[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2

[logon]
provider = "always"

[accounts]
administrators_group = "{group}"
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        server.add("large", SIZE)
        server.add("small", 1000)
        server.add("empty", 0)
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def carol() -> Iterator[TestAccount]:
    """An administrator."""
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def dave() -> Iterator[TestAccount]:
    """A system account."""
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def daemon(carol: TestAccount) -> Iterator[Daemon]:
    with running_daemon("system", config=configuration(carol)) as running:
        yield running


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory in which everybody may make files."""
    path = tempfile.mkdtemp(prefix="obt-shared-")
    os.chmod(path, 0o777)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def temporary_files(directory: str) -> dict[str, int]:
    """The hidden files of transfers, and whose they are."""
    found = {}
    for name in os.listdir(directory):
        if name.startswith(".BIT"):
            with contextlib.suppress(FileNotFoundError):
                found[name] = os.lstat(os.path.join(directory, name)).st_uid
    return found


def shown(daemon: Daemon, job: str, account: TestAccount | None = None) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(daemon.bits("show", job, "--json", account=account, check=True).stdout)
    return data


def job_under_way(daemon: Daemon, origin: Nginx, account: TestAccount, directory: str) -> str:
    """A job of a slow file of which a part is durable."""
    target = os.path.join(directory, "large")
    job = daemon.submit(origin.url("large", rate_bps=RATE_BPS), "-o", target, account=account)
    wait_until(lambda: daemon.stored_files(job)[0].durable_bytes > 1_000_000, "a checkpoint")
    return job


def take(daemon: Daemon, job: str, account: TestAccount | None = None) -> Any:
    return daemon.bits("take-ownership", job, account=account)


def test_i8_a_running_job_goes_on_as_the_new_owners_from_the_same_byte(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    job = job_under_way(daemon, origin, alice, shared)
    daemon.bits("set", job, "priority=high", "description=mine", account=alice, check=True)
    durable = daemon.stored_files(job)[0].durable_bytes
    taken = take(daemon, job, carol)
    assert taken.returncode == 0, taken.stderr
    after = shown(daemon, job, carol)
    assert after["owner"]["uid"] == carol.uid
    assert (after["priority"], after["description"]) == ("high", "mine")
    assert (after["owner_integrity_level"], after["owner_is_elevated"]) == (0x3000, True)
    assert daemon.stored_files(job)[0].durable_bytes >= durable
    assert set(temporary_files(shared).values()) == {carol.uid}
    daemon.wait_state(job, "TRANSFERRED")
    assert daemon.show(job)["files"][0]["restarts"] == 0
    daemon.bits("complete", job, account=carol, check=True)
    target = os.path.join(shared, "large")
    assert sha256_of(target) == sha256_of(os.path.join(origin.root, "large"))
    assert (os.stat(target).st_uid, os.stat(target).st_gid) == (carol.uid, carol.gid)
    assert os.listdir(shared) == ["large"]


def test_i8_a_finished_job_passes_whole(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    job = daemon.bits("create", "several", account=alice, check=True).stdout.strip()
    for name in ("small", "empty"):
        daemon.bits("add", job, origin.url(name), os.path.join(shared, name), account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    assert take(daemon, job, carol).returncode == 0
    assert shown(daemon, job, carol)["state"] == "TRANSFERRED"
    daemon.bits("complete", job, account=carol, check=True)
    assert sorted(os.listdir(shared)) == ["empty", "small"]
    for name in ("small", "empty"):
        found, expected = os.stat(os.path.join(shared, name)), os.stat(os.path.join(origin.root, name))
        assert (found.st_uid, found.st_size, int(found.st_mtime)) == (
            carol.uid,
            expected.st_size,
            int(expected.st_mtime),
        )
        assert sha256_of(os.path.join(shared, name)) == sha256_of(os.path.join(origin.root, name))


def test_i8_a_job_of_high_performance_passes_too(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    """J63: what was written under the final name is copied to a hidden one, and Complete puts that in its place."""
    job = daemon.bits("create", "fast", account=alice, check=True).stdout.strip()
    daemon.bits("set", job, "high_performance=true", account=alice, check=True)
    target = os.path.join(shared, "large")
    daemon.bits("add", job, origin.url("large", rate_bps=RATE_BPS), target, account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > 1_000_000, "bytes")
    daemon.bits("suspend", job, account=alice, check=True)
    wait_until(lambda: daemon.stored_files(job)[0].durable_bytes, "the end of the run")
    assert take(daemon, job, carol).returncode == 0
    assert daemon.show(job)["bytes_transferred"] > 0
    daemon.bits("resume", job, account=carol, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=carol, check=True)
    assert sha256_of(target) == sha256_of(os.path.join(origin.root, "large"))
    assert (os.stat(target).st_uid, os.listdir(shared)) == (carol.uid, ["large"])


def test_i8_what_was_given_to_the_former_owners_job_is_gone(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    job = daemon.bits("create", "headers", account=alice, check=True).stdout.strip()
    daemon.bits("add", job, origin.url("small"), os.path.join(shared, "small"), account=alice, check=True)
    daemon.bits("set", job, "custom_headers=X-Secret: of alice\r\n", account=alice, check=True)
    assert shown(daemon, job, alice)["settings"]["custom_headers"].strip() == "X-Secret: of alice"
    assert take(daemon, job, carol).returncode == 0
    after = shown(daemon, job, carol)
    assert after["settings"]["custom_headers"] == ""
    assert (after["state"], after["files_total"], after["name"]) == ("SUSPENDED", 1, "headers")
    daemon.bits("cancel", job, account=carol, check=True)


def test_i8_only_administrators_take_jobs(daemon: Daemon, alice: TestAccount, mallory: TestAccount) -> None:
    """Not even the owner takes his own, who is none."""
    job = daemon.bits("create", "alice's", account=alice, check=True).stdout.strip()
    for account in (mallory, alice):
        refused = take(daemon, job, account)
        assert refused.returncode == 4, refused.stderr
        assert "E_ACCESSDENIED" in refused.stderr
    assert daemon.show(job)["owner"]["uid"] == alice.uid
    daemon.bits("cancel", job, account=alice, check=True)


def test_a4_the_systems_jobs_are_taken_by_root_only(daemon: Daemon, carol: TestAccount) -> None:
    job = daemon.bits("create", "root's", check=True).stdout.strip()
    assert daemon.show(job)["owner_integrity_level"] == 0x4000
    refused = take(daemon, job, carol)
    assert refused.returncode == 4
    assert daemon.show(job)["owner"]["uid"] == 0
    assert take(daemon, job).returncode == 0
    daemon.bits("cancel", job, check=True)


def test_i8_an_administrator_takes_his_own_job(daemon: Daemon, carol: TestAccount) -> None:
    """It is stripped as any other."""
    job = daemon.bits("create", "carol's", account=carol, check=True).stdout.strip()
    daemon.bits("set", job, "custom_headers=X-Mine: 1\r\n", account=carol, check=True)
    assert take(daemon, job, carol).returncode == 0
    assert shown(daemon, job, carol)["settings"]["custom_headers"] == ""
    daemon.bits("cancel", job, account=carol, check=True)


def test_a3_a_job_that_was_made_with_administrator_rights_is_changed_with_them(
    daemon: Daemon, carol: TestAccount
) -> None:
    """A process of the same account without the group sees the job, and cannot change it."""
    job = daemon.bits("create", "carol's", account=carol, check=True).stdout.strip()
    without = TestAccount(name=carol.name, uid=carol.uid, gid=carol.gid, groups=(carol.gid,), home=carol.home)
    assert shown(daemon, job, without)["owner_is_elevated"] is True
    refused = daemon.bits("set", job, "priority=low", account=without)
    assert refused.returncode == 4
    assert "administrator rights" in refused.stderr
    daemon.bits("cancel", job, account=carol, check=True)


def test_i8_a_job_that_has_ended_cannot_be_taken(daemon: Daemon, alice: TestAccount, carol: TestAccount) -> None:
    job = daemon.bits("create", "ended", account=alice, check=True).stdout.strip()
    daemon.bits("cancel", job, account=alice, check=True)
    refused = take(daemon, job, carol)
    assert refused.returncode == 6
    assert "BG_E_INVALID_STATE" in refused.stderr


def test_i8_without_access_to_the_directory_nothing_changes(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount
) -> None:
    """The error names the directory and says what to do; the job goes on as if nobody had asked."""
    job = job_under_way(daemon, origin, alice, alice.home)
    refused = take(daemon, job, carol)
    assert refused.returncode == 4, refused.stderr
    assert "BG_E_NEW_OWNER_NO_FILE_ACCESS" in refused.stderr
    assert alice.home in refused.stderr
    assert "setfacl" in refused.stderr
    assert daemon.show(job)["owner"]["uid"] == alice.uid
    daemon.wait_state(job, "TRANSFERRED")
    assert daemon.show(job)["files"][0]["restarts"] == 0
    assert set(temporary_files(alice.home).values()) == {alice.uid}
    daemon.bits("complete", job, account=alice, check=True)
    assert sha256_of(os.path.join(alice.home, "large")) == sha256_of(os.path.join(origin.root, "large"))
    os.unlink(os.path.join(alice.home, "large"))


def test_a1_the_former_owner_sees_nothing_any_more(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    job = job_under_way(daemon, origin, alice, shared)
    with daemon.calling("wait", job, account=alice) as waiting:
        wait_until(lambda: daemon.statistics()["listeners"] == 1, "alice to listen")
        assert take(daemon, job, carol).returncode == 0
        assert waiting.wait(20) == 4, "who follows a job is told that it is another's"
    assert daemon.bits("show", job, account=alice).returncode == 4
    assert json.loads(daemon.bits("list", "--json", account=alice, check=True).stdout) == []
    own = daemon.bits("events", "--json", account=alice, check=True).stdout.splitlines()
    about = [event for event in map(json.loads, own) if event["job_id"] == job]
    assert "owner changed" not in {event["kind"] for event in about}
    assert all(event["job"] is None for event in about), "what the job is now is not alice's to see"
    daemon.bits("cancel", job, account=carol, check=True)
    assert os.listdir(shared) == []


@pytest.mark.parametrize("trick", ["symbolic link", "hard link", "missing", "fifo", "shorter"])
def test_i8_a_temporary_file_that_is_not_what_it_was_is_not_handed_over(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str, trick: str
) -> None:
    """Its bytes begin anew, as they do when a run finds such a file (D8)."""
    job = job_under_way(daemon, origin, alice, shared)
    daemon.bits("suspend", job, account=alice, check=True)
    wait_until(lambda: not daemon.statistics()["runs"], "the run to end")
    temporary = daemon.show(job)["files"][0]["temporary_name"]
    secret = os.path.join(shared, "secret")
    with open(secret, "wb") as file:
        file.write(b"x" * SIZE)
    os.chmod(secret, 0o600)
    match trick:
        case "symbolic link":
            os.unlink(temporary)
            os.symlink(secret, temporary)
        case "hard link":
            os.chown(secret, alice.uid, alice.gid)
            os.unlink(temporary)
            os.link(secret, temporary)
        case "missing":
            os.unlink(temporary)
        case "fifo":
            os.unlink(temporary)
            os.mkfifo(temporary)
        case _:
            os.truncate(temporary, 1000)
    assert take(daemon, job, carol).returncode == 0
    after = daemon.show(job)
    assert (after["owner"]["uid"], after["bytes_transferred"]) == (carol.uid, 0)
    daemon.bits("resume", job, account=carol, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=carol, check=True)
    assert sha256_of(os.path.join(shared, "large")) == sha256_of(os.path.join(origin.root, "large"))
    with open(secret, "rb") as file:
        assert file.read() == b"x" * SIZE


def configuration(carol: TestAccount) -> str:
    [gid] = set(carol.groups) - {carol.gid}
    return CONFIG.format(group=grp.getgrgid(gid).gr_name)


def test_i8_a_job_of_an_account_that_is_gone_begins_anew(origin: Nginx, carol: TestAccount, shared: str) -> None:
    with running_daemon("system", config=configuration(carol)) as daemon:
        with temporary_account() as leaving:
            job = job_under_way(daemon, origin, leaving, shared)
            daemon.bits("suspend", job, account=leaving, check=True)
            # The monitor remembers an account for a minute: not the one that is started then.
            daemon.stop()
        daemon.start()
        assert take(daemon, job, carol).returncode == 0
        assert daemon.show(job)["bytes_transferred"] == 0
        assert "left over" in {event["kind"] for event in daemon.events() if event["job_id"] == job}
        daemon.bits("resume", job, account=carol, check=True)
        daemon.wait_state(job, "TRANSFERRED")
        daemon.bits("complete", job, account=carol, check=True)
        assert sha256_of(os.path.join(shared, "large")) == sha256_of(os.path.join(origin.root, "large"))


def test_i8_a_large_file_holds_up_nobody(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str
) -> None:
    """Neither the service nor other work of the new owner: the longest call meanwhile is a fraction of the copy."""
    origin.add("huge", HUGE)
    target = os.path.join(shared, "huge")
    job = daemon.submit(origin.url("huge"), "-o", target, account=alice)
    daemon.wait_state(job, "TRANSFERRED", timeout_s=120)
    waits_s = []
    began = time.monotonic()
    with daemon.calling("take-ownership", job, account=carol) as taking:
        while taking.poll() is None:
            asked = time.monotonic()
            daemon.statistics()
            waits_s.append(time.monotonic() - asked)
    took_s = time.monotonic() - began
    assert taking.returncode == 0
    assert max(waits_s) < max(0.5, took_s / 3), f"{max(waits_s):.2f} s of {took_s:.2f} s"
    daemon.bits("complete", job, account=carol, check=True)
    assert sha256_of(target) == sha256_of(os.path.join(origin.root, "huge"))


# --- crashes --------------------------------------------------------------------------------------------------


FILES = 60


def are_gone(processes: list[Process]) -> bool:
    return not any(map(is_alive, processes))


def names_of(daemon: Daemon, job: str) -> set[str]:
    return {os.path.basename(file["temporary_name"]) for file in daemon.show(job)["files"]}


@pytest.mark.parametrize("victim", ["bitsd-service", "bitsd", "bitsd-worker"])
def test_i8_a_crash_leaves_one_owner_with_everything(
    origin: Nginx, alice: TestAccount, carol: TestAccount, shared: str, victim: str
) -> None:
    """kill -9 at moments all over the take-over: no byte is missing whoever owns it, nothing is left lying about."""
    for number in range(FILES):
        origin.add(f"part{number}", 20_000 + number)
    chance = random.Random(victim)
    owners = set()
    with running_daemon("system", config=configuration(carol)) as daemon:
        files = [origin.url(f"part{number}") for number in range(FILES)]
        job = daemon.submit(*files, "-d", shared, account=alice)
        daemon.wait_state(job, "TRANSFERRED")
        for _ in range(CRASHES):
            # There and back: by root for alice's place, since alice is no administrator.
            taker = carol if daemon.show(job)["owner"]["uid"] != carol.uid else None
            with daemon.calling("take-ownership", job, account=taker) as taking:
                time.sleep(chance.uniform(0.1, 0.9))
                victims = [process for process in daemon.processes() if process.name == victim]
                for process in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
                wait_until(functools.partial(are_gone, victims), "them to die")
                if victim == "bitsd":
                    daemon.kill()
                    daemon.start()
                taking.wait(60)
            daemon.wait_reachable()
            after = daemon.show(job)
            owners.add(after["owner"]["uid"])
            assert (after["state"], after["files_transferred"]) == ("TRANSFERRED", FILES)
            wait_until(lambda: set(temporary_files(shared)) == names_of(daemon, job), "what is left over to go")
            assert set(temporary_files(shared).values()) == {after["owner"]["uid"]}
        owner = {alice.uid: alice, carol.uid: carol}.get(daemon.show(job)["owner"]["uid"])
        daemon.bits("complete", job, account=owner, check=True)
    assert len(owners) > 1, "not one take-over has gone through"
    for number in range(FILES):
        name = f"part{number}"
        assert sha256_of(os.path.join(shared, name)) == sha256_of(os.path.join(origin.root, name)), name
