"""Downloads through the real service, as its users see them: owners, rights, modes, errors, verbs."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Origin, generate, last_modified

pytestmark = needs_root

SIZE = 3_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=2) as account:
        yield account


@pytest.fixture(scope="module")
def bob() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


def _jobs(daemon: Daemon, account: TestAccount) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads(daemon.bits("list", "--json", account=account, check=True).stdout)
    return jobs


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(size: int, seed: int) -> str:
    return hashlib.sha256(generate(size, seed)).hexdigest()


def test_a_file_arrives_and_belongs_to_the_account(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """D8, I1: written by the owner's rights, hidden until Complete, nothing left beside it."""
    target = os.path.join(alice.home, "file")
    result = daemon.bits("get", origin.url(f"/gen/{SIZE}/7"), "-o", target, account=alice)
    assert result.returncode == 0, result.stderr
    found = os.stat(target)
    assert (found.st_uid, found.st_gid, found.st_size) == (alice.uid, alice.gid, SIZE)
    assert stat.S_IMODE(found.st_mode) == 0o644
    assert _sha256(target) == _wanted(SIZE, 7)
    assert os.listdir(alice.home) == ["file"]


def test_a_worker_has_exactly_the_owners_rights(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """I1, as the kernel tells it while a transfer runs."""
    target = os.path.join(alice.home, "slow")
    job = daemon.submit(origin.url(f"/gen/{SIZE}/7?rate=200000"), "-o", target, account=alice)
    try:
        daemon.wait_state(job, "TRANSFERRING")
        [worker] = [process for process in daemon.workers() if process.uids[0] == alice.uid]
        assert worker.uids == (alice.uid,) * 4
        assert worker.gids == (alice.gid,) * 4
        assert worker.groups == alice.groups
        assert worker.status["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(worker.status[kind], 16) == 0, kind
        service = daemon.process_named("bitsd-service")
        assert service.uids[0] != 0
        assert int(service.status["CapEff"], 16) == 0
    finally:
        daemon.bits("cancel", job, account=alice, check=True)
    assert "slow" not in os.listdir(alice.home)
    assert not [name for name in os.listdir(alice.home) if name.startswith(".BIT")]


def test_others_neither_see_nor_touch_a_job(daemon: Daemon, alice: TestAccount, bob: TestAccount) -> None:
    """A1, M3."""
    job = daemon.bits("create", "secret", account=alice, check=True).stdout.strip()
    assert json.loads(daemon.bits("list", "--json", account=bob, check=True).stdout) == []
    for verb in ("show", "resume", "suspend", "cancel", "complete", "why"):
        result = daemon.bits(verb, job, account=bob)
        assert result.returncode == 4, (verb, result.stderr)
        assert "E_ACCESSDENIED (0x80070005)" in result.stderr
    assert daemon.bits("list", "--all-users", account=bob).returncode == 4
    everyone = json.loads(daemon.bits("list", "--all-users", "--json", check=True).stdout)
    assert job in [entry["id"] for entry in everyone]
    assert daemon.bits("cancel", job, check=True).returncode == 0


def test_a_directory_that_cannot_be_written_is_refused_when_the_file_is_added(
    daemon: Daemon, alice: TestAccount, bob: TestAccount
) -> None:
    """D7: E_ACCESSDENIED at Add time, and the job is as it was."""
    job = daemon.bits("create", "trespass", account=bob, check=True).stdout.strip()
    result = daemon.bits("add", job, "http://127.0.0.1:9/x", f"{alice.home}/x", account=bob)
    assert result.returncode == 4
    assert "E_ACCESSDENIED" in result.stderr
    assert alice.home in result.stderr
    missing = daemon.bits("add", job, "http://127.0.0.1:9/x", f"{bob.home}/no/such/x", account=bob)
    assert "ERROR_PATH_NOT_FOUND" in missing.stderr
    assert daemon.show(job)["files_total"] == 0
    daemon.bits("cancel", job, account=bob, check=True)


def test_suspend_keeps_what_has_come_and_resume_goes_on(daemon: Daemon, origin: Origin, bob: TestAccount) -> None:
    """J4, J5, D15: after Suspend the bytes stay; Resume asks for the rest only."""
    target = os.path.join(bob.home, "parts")
    path = f"/gen/{SIZE}/9"
    job = daemon.submit(origin.url(f"{path}?rate=1500000"), "-o", target, account=bob)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > SIZE // 4, "bytes to come in")
    daemon.bits("suspend", job, account=bob, check=True)
    wait_until(lambda: not daemon.statistics()["runs"], "the run to end")
    kept = daemon.show(job)
    assert kept["state"] == "SUSPENDED"
    assert 0 < kept["bytes_transferred"] < SIZE
    daemon.bits("resume", job, account=bob, check=True)
    assert daemon.bits("wait", job, account=bob).returncode == 0
    daemon.bits("complete", job, account=bob, check=True)
    assert _sha256(target) == _wanted(SIZE, 9)
    ranges = [request.range for request in origin.requests_of(path)]
    assert ranges == [None, f"bytes={kept['bytes_transferred']}-"]


def test_every_error_of_a_server_reaches_the_user_as_a_sentence(
    daemon: Daemon, origin: Origin, bob: TestAccount
) -> None:
    """R1: 404 is fatal; the command says what happened, with BITS's name and number, and exits with 1."""
    result = daemon.bits("get", origin.url("/status/404"), "-o", f"{bob.home}/none", account=bob)
    assert result.returncode == 1
    assert "BG_E_HTTP_ERROR_404 (0x80190194)" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3
    [job] = _jobs(daemon, bob)
    assert (job["state"], job["error_count"]) == ("ERROR", 1)
    daemon.bits("cancel", job["id"], account=bob, check=True)


def test_a_server_that_breaks_the_connection_is_asked_for_the_rest(
    daemon: Daemon, origin: Origin, bob: TestAccount
) -> None:
    """Issue part 4: a broken connection is no error of the job: it goes on inside TRANSFERRING."""
    target = os.path.join(bob.home, "broken")
    path = f"/gen/{SIZE}/21"
    result = daemon.bits("get", origin.url(f"{path}?cut=1000000&times=2"), "-o", target, account=bob)
    assert result.returncode == 0, result.stderr
    assert _sha256(target) == _wanted(SIZE, 21)
    assert [request.range for request in origin.requests_of(path)] == [None, "bytes=1000000-", "bytes=2000000-"]
    assert int(os.stat(target).st_mtime) == int(parsedate_to_datetime(last_modified(21)).timestamp())


def test_a_busy_server_is_asked_again_when_it_says(daemon: Daemon, origin: Origin, bob: TestAccount) -> None:
    """R1, decisions: 503 is transient, Retry-After prolongs the retry delay; the command says what it waits for."""
    target = os.path.join(bob.home, "busy")
    path = f"/gen/{SIZE}/22"
    url = origin.url(f"{path}?status=503&times=1&retry_after=2")
    result = daemon.bits("get", url, "-o", target, "--retry-delay", "0", account=bob)
    assert result.returncode == 0, result.stderr
    assert "waiting" in result.stderr
    assert _sha256(target) == _wanted(SIZE, 22)
    first, second = (request.at for request in origin.requests_of(path))
    assert second - first >= 2


def test_a_file_that_changes_on_the_way_begins_again_and_says_so(
    daemon: Daemon, origin: Origin, bob: TestAccount
) -> None:
    """D3: never bytes of two versions in one file."""
    target = os.path.join(bob.home, "changed")
    url = origin.url(f"/gen/{SIZE}/23?cut=1000000&times=1&change_after=1")
    job = daemon.submit(url, "-o", target, account=bob)
    daemon.wait_state(job, "TRANSFERRED")
    assert "began again" in daemon.bits("show", job, account=bob, check=True).stdout
    daemon.bits("complete", job, account=bob, check=True)
    assert _sha256(target) == _wanted(SIZE, 24)


def test_a_server_without_length_and_ranges_is_good_enough(daemon: Daemon, origin: Origin, bob: TestAccount) -> None:
    """Issue part 4: taken all the same, and `bits show` says what an interruption would cost."""
    target = os.path.join(bob.home, "stream")
    url = origin.url(f"/gen/{SIZE}/25?ranges=no&chunked=1&etag=no&lm=no&rate=2000000")
    job = daemon.submit(url, "-o", target, account=bob)
    daemon.wait_state(job, "TRANSFERRING")
    shown = daemon.bits("show", job, account=bob, check=True).stdout
    assert "cannot resume" in shown
    assert daemon.show(job)["bytes_total"] is None
    daemon.bits("suspend", job, account=bob, check=True)
    daemon.bits("resume", job, account=bob, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=bob, check=True)
    assert _sha256(target) == _wanted(SIZE, 25)


def test_a_wrong_checksum_hands_nothing_over(daemon: Daemon, origin: Origin, bob: TestAccount) -> None:
    """Issue part 4, --checksum: verified before the job is TRANSFERRED; Resume fetches the file again."""
    target = os.path.join(bob.home, "checked")
    url = origin.url(f"/gen/{SIZE}/26")
    result = daemon.bits("get", url, "-o", target, "--checksum", f"sha256:{_wanted(SIZE, 27)}", account=bob)
    assert result.returncode == 1
    assert "ERROR_CRC" in result.stderr
    assert not os.path.exists(target)
    [job] = _jobs(daemon, bob)
    daemon.bits("cancel", job["id"], account=bob, check=True)
    good = daemon.bits("get", url, "-o", target, "--checksum", f"sha256:{_wanted(SIZE, 26)}", account=bob)
    assert good.returncode == 0, good.stderr


def test_a_temporary_file_that_somebody_deleted_is_not_taken_for_the_final_one(
    daemon: Daemon, origin: Origin, bob: TestAccount
) -> None:
    """J7: Complete says so; an older file of the final name is not passed off as the new one."""
    target = os.path.join(bob.home, "deleted")
    with open(target, "w", encoding="ascii") as file:
        file.write("an older file")
    job = daemon.submit(origin.url(f"/gen/{SIZE}/28"), "-o", target, account=bob)
    daemon.wait_state(job, "TRANSFERRED")
    os.unlink(daemon.show(job)["files"][0]["temporary_name"])
    result = daemon.bits("complete", job, account=bob)
    assert result.returncode != 0
    assert "ERROR_FILE_NOT_FOUND" in result.stderr
    assert daemon.show(job)["state"] == "TRANSFERRED"
    daemon.bits("cancel", job, account=bob, check=True)
    assert os.stat(target).st_size == len("an older file")


def test_complete_replaces_what_stands_at_the_name_and_follows_no_link(
    daemon: Daemon, origin: Origin, bob: TestAccount
) -> None:
    """D8: an existing file is replaced; a symbolic link at the name is replaced, not followed."""
    precious = os.path.join(bob.home, "precious")
    with open(precious, "w", encoding="ascii") as file:
        file.write("mine")
    link = os.path.join(bob.home, "link")
    os.symlink(precious, link)
    assert daemon.bits("get", origin.url("/gen/1000/1"), "-o", link, account=bob).returncode == 0
    assert not os.path.islink(link)
    assert os.stat(link).st_size == 1000
    with open(precious, encoding="ascii") as file:
        assert file.read() == "mine"


def test_quotas_hold_for_users_and_not_for_root(daemon: Daemon, alice: TestAccount) -> None:
    """P5, A9."""
    jobs = []
    refused = None
    for number in range(61):
        result = daemon.bits("create", f"job {number}", account=alice)
        if result.returncode != 0:
            refused = result
            break
        jobs.append(result.stdout.strip())
    assert refused is not None
    assert "BG_E_TOO_MANY_JOBS_PER_USER (0x80200049)" in refused.stderr
    assert len(jobs) <= 60
    jobs += [daemon.bits("create", f"root's {number}", check=True).stdout.strip() for number in range(3)]
    for job in jobs:
        daemon.bits("cancel", job, check=True)
