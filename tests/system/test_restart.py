"""Ends and starts: what a job was before is what it is after, and what was begun is finished (M8, architecture §3)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

SIZE = 3_000_000
RATE_BPS = 1_000_000
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        for name in NAMES:
            server.add(name, SIZE)
        yield server


@pytest.fixture
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


def restart(daemon: Daemon, how: str) -> None:
    """End it in one of the ways in which it may end, and see it come back."""
    match how:
        case "stop":
            assert daemon.stop() == 0
            daemon.start()
        case "kill":
            daemon.kill()
            daemon.start()
        case "service":
            os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
            daemon.wait_log("ready again")


def content(origin: Nginx, name: str) -> str:
    return sha256_of(os.path.join(origin.root, name))


def jobs_in_every_state(daemon: Daemon, origin: Nginx, alice: TestAccount) -> dict[str, str]:
    """Jobs in every state that lasts, by what they are."""
    jobs: dict[str, str] = {}

    def submit(what: str, url: str, *more: str) -> str:
        jobs[what] = daemon.submit(url, "-o", os.path.join(alice.home, what), *more, account=alice)
        return jobs[what]

    jobs["empty"] = daemon.bits("create", "empty", account=alice, check=True).stdout.strip()
    submit("suspended", origin.url("one", rate_bps=RATE_BPS))
    daemon.wait_state(jobs["suspended"], "TRANSFERRING")
    daemon.bits("suspend", jobs["suspended"], account=alice, check=True)
    daemon.wait_state(submit("transferred", origin.url("one")), "TRANSFERRED")
    daemon.wait_state(submit("failed", origin.url("no-such-file")), "ERROR")
    daemon.wait_state(submit("retry", "http://127.0.0.1:9/x", "--retry-delay", "600"), "TRANSIENT_ERROR")
    daemon.wait_state(submit("completed", origin.url("one")), "TRANSFERRED")
    daemon.bits("complete", jobs["completed"], account=alice, check=True)
    submit("cancelled", origin.url("one", rate_bps=RATE_BPS))
    daemon.bits("cancel", jobs["cancelled"], account=alice, check=True)
    wait_until(lambda: not daemon.statistics()["runs"], "the last run to end")
    return jobs


@pytest.mark.parametrize("how", ["stop", "kill", "service"])
def test_every_state_that_lasts_stays(daemon: Daemon, origin: Nginx, alice: TestAccount, how: str) -> None:
    """M8: nothing about a job is another thing after a restart, the moment of its next retry included."""
    jobs = jobs_in_every_state(daemon, origin, alice)

    def everything() -> dict[str, Any]:
        # Which proxy a run used is news of this life of the service, and not kept.
        return {what: ({**daemon.show(job), "proxy_in_use": None}, daemon.why(job)) for what, job in jobs.items()}

    before = everything()
    assert [shown["state"] for shown, _ in before.values()] == [
        *("SUSPENDED", "SUSPENDED", "TRANSFERRED", "ERROR", "TRANSIENT_ERROR", "ACKNOWLEDGED", "CANCELLED")
    ]
    assert before["suspended"][0]["bytes_transferred"] > 0
    assert before["retry"][1]["until"] is not None
    events = daemon.events()
    restart(daemon, how)
    assert everything() == before
    assert daemon.events() == events
    daemon.bits("resume", jobs["suspended"], account=alice, check=True)
    daemon.wait_state(jobs["suspended"], "TRANSFERRED")
    for what in ("suspended", "transferred"):
        daemon.bits("complete", jobs[what], account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, what)) == content(origin, "one")
    assert sorted(os.listdir(alice.home)) == ["completed", "suspended", "transferred"]


@pytest.mark.parametrize("how", ["stop", "kill", "service"])
def test_a_transfer_goes_on_by_itself(daemon: Daemon, origin: Nginx, alice: TestAccount, how: str) -> None:
    """D15: from what was durable; an orderly end keeps everything that has come in."""
    target = os.path.join(alice.home, "file")
    before = len(origin.asked("two"))
    job = daemon.submit(origin.url("two", rate_bps=RATE_BPS), "-o", target, account=alice)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > SIZE // 10, "bytes to come in")
    shown = daemon.show(job)["bytes_transferred"]
    restart(daemon, how)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert sha256_of(target) == content(origin, "two")
    offsets = [asked.offset for asked in origin.asked("two")[before:]]
    assert offsets[0] == 0
    assert len(offsets) == 2
    if how == "stop":
        assert offsets[1] >= shown
    assert daemon.show(job)["error_count"] == 0


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still; whoever kills it meanwhile takes the end of this away."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def transferred_job(daemon: Daemon, origin: Nginx, alice: TestAccount) -> str:
    urls = [origin.url(name) for name in NAMES]
    job = daemon.submit(*urls, "-d", alice.home, account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    return job


def check_completed(daemon: Daemon, origin: Nginx, alice: TestAccount, job: str) -> None:
    ended = daemon.wait_state(job, "ACKNOWLEDGED")
    assert ended["files_transferred"] == len(NAMES)
    assert sorted(os.listdir(alice.home)) == sorted(NAMES)
    for name in NAMES:
        assert sha256_of(os.path.join(alice.home, name)) == content(origin, name)
    assert all(file["completed"] for file in daemon.show(job)["files"])


@pytest.mark.parametrize("how", ["kill", "service"])
def test_complete_that_was_written_down_is_carried_out_after_a_kill(
    daemon: Daemon, origin: Nginx, alice: TestAccount, how: str
) -> None:
    """J7: killed between the commit and the first rename: nobody has to call again."""
    job = transferred_job(daemon, origin, alice)
    [worker] = daemon.workers()
    with stopped(worker.pid), daemon.calling("complete", job, account=alice) as caller:
        wait_until(lambda: daemon.why(job)["gate"] == "completing", "Complete to be written down")
        assert not set(NAMES) & set(os.listdir(alice.home))
        restart(daemon, how)
        caller.wait(timeout=60)
    check_completed(daemon, origin, alice, job)


def test_complete_that_was_carried_out_is_not_carried_out_again(
    daemon: Daemon, origin: Nginx, alice: TestAccount
) -> None:
    """J7: killed between the renames and their being written down: the second try finds it done."""
    job = transferred_job(daemon, origin, alice)
    [worker] = daemon.workers()
    with stopped(worker.pid), daemon.calling("complete", job, account=alice) as caller:
        wait_until(lambda: daemon.why(job)["gate"] == "completing", "Complete to be written down")
        os.kill(daemon.process_named("bitsd-service").pid, signal.SIGSTOP)
        os.kill(worker.pid, signal.SIGCONT)
        wait_until(lambda: sorted(os.listdir(alice.home)) == sorted(NAMES), "the renames")
        restart(daemon, "kill")
        caller.wait(timeout=60)
    check_completed(daemon, origin, alice, job)


@pytest.mark.parametrize("how", ["kill", "service"])
def test_cancel_that_was_written_down_is_carried_out_after_a_kill(
    daemon: Daemon, origin: Nginx, alice: TestAccount, how: str
) -> None:
    """J6: the temporary files go, though whoever called is long gone."""
    job = transferred_job(daemon, origin, alice)
    [worker] = daemon.workers()
    with stopped(worker.pid), daemon.calling("cancel", job, account=alice) as caller:
        daemon.wait_state(job, "CANCELLED")
        assert len(os.listdir(alice.home)) == len(NAMES)
        restart(daemon, how)
        caller.wait(timeout=60)
    wait_until(lambda: os.listdir(alice.home) == [], "the temporary files to be deleted")
    assert daemon.show(job)["state"] == "CANCELLED"


def test_a_worker_that_stands_still_is_not_waited_for_for_ever(
    daemon: Daemon, origin: Nginx, alice: TestAccount
) -> None:
    """The daemon's orderly end: killed after its patience, and the next start goes on."""
    target = os.path.join(alice.home, "file")
    job = daemon.submit(origin.url("three", rate_bps=RATE_BPS), "-o", target, account=alice)
    daemon.wait_state(job, "TRANSFERRING")
    [worker] = daemon.workers()
    with stopped(worker.pid):
        assert daemon.stop() == 0
    assert not os.path.exists(f"/proc/{worker.pid}")
    daemon.start()
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert sha256_of(target) == content(origin, "three")
