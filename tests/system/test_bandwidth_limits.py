"""Bandwidth limits, measured at the server: what real workers of real accounts receive and send (P2, P9, P10, Q5).

What is counted is what the workers' kernels have acknowledged, headers included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.metered import Metered
from support.policies import limit_all, write_policy

pytestmark = needs_root

CONFIG = """
[scheduler]
max_background_jobs = 3
[quotas]
max_files_per_job = 5000
"""
HUGE = 1_500_000_000
"""Room for it is reserved on the disk."""
TOLERANCE = 0.05
BURST_S = 0.75
"""What three connections have room for: a quarter of a second each."""


@pytest.fixture(scope="module")
def accounts() -> Iterator[list[TestAccount]]:
    with temporary_account() as first, temporary_account() as second, temporary_account() as third:
        yield [first, second, third]


@pytest.fixture
def server() -> Iterator[Metered]:
    with Metered() as metered:
        yield metered


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon(config=CONFIG) as running:
        yield running


def fetch(daemon: Daemon, server: Metered, account: TestAccount, size: int = HUGE, priority: str = "normal") -> str:
    path = os.path.join(account.home, f"{size}-{time.monotonic_ns()}")
    return daemon.submit("--priority", priority, server.url(f"/{size}"), "-o", path, account=account)


def wait_moving(count: Callable[[], int], beyond: int = 0) -> None:
    wait_until(lambda: count() > beyond + 4096, "bytes to move")


@pytest.mark.parametrize(("kbps", "seconds"), [(1000, 30.0), (8000, 10.0), (80_000, 10.0)])
def test_p2_three_workers_keep_to_one_limit(
    daemon: Daemon, server: Metered, accounts: list[TestAccount], kbps: int, seconds: float
) -> None:
    limit_all(daemon, kbps)
    for account in accounts:
        fetch(daemon, server, account)
    wait_until(lambda: daemon.statistics()["paced_transfers"] == 3, "three workers")
    wait_moving(lambda: server.sent_bytes)
    rate = server.measure_bps(seconds, lambda: server.sent_bytes)
    assert rate < kbps * 1000 * (1 + TOLERANCE + BURST_S / seconds)
    assert rate > kbps * 1000 * (1 - TOLERANCE - BURST_S / seconds)
    assert len({worker.uids for worker in daemon.workers()}) == 3


def test_p2_small_files_keep_to_it_too(daemon: Daemon, server: Metered, accounts: list[TestAccount]) -> None:
    limit_all(daemon, 2000)
    for account in accounts:
        urls = [server.url(f"/10240/{number}") for number in range(900)]
        directory = os.path.join(account.home, "small")
        os.mkdir(directory)
        os.chown(directory, account.uid, account.gid)
        daemon.bits("get", "--async", "--priority", "low", "-d", directory, *urls, account=account, check=True)
    wait_until(lambda: daemon.statistics()["paced_transfers"] == 3, "three workers")
    rate = server.measure_bps(10.0, lambda: server.sent_bytes)
    assert 2_000_000 * (1 - 2 * TOLERANCE) < rate < 2_000_000 * (1 + 2 * TOLERANCE)


def test_p2_many_small_jobs_get_no_more_than_one_large(
    daemon: Daemon, server: Metered, accounts: list[TestAccount]
) -> None:
    """What a job has got at its end is paid for by whoever comes next."""
    limit_all(daemon, 400)
    jobs = [fetch(daemon, server, accounts[number % 3], 50_000) for number in range(12)]
    start = time.monotonic()
    for job in jobs:
        daemon.wait_state(job, "TRANSFERRED")
    # Submitting takes time, too; 12 files of 50 kB are 4.8 Mbit, and the last piece of each is paid for later.
    assert time.monotonic() - start > 4.8e6 / 400e3 * 0.7
    assert server.sent_bytes > 600_000


def test_p2_uploads_keep_to_it(daemon: Daemon, server: Metered, accounts: list[TestAccount]) -> None:
    limit_all(daemon, 8000)
    for account in accounts:
        source = file_of(account, b"")
        os.truncate(source, 2_000_000_000)
        options = ("--async", "--priority", "normal", "--protocol", "put")
        daemon.bits("put", *options, source, server.url(f"/{account.uid}"), account=account, check=True)
    wait_until(lambda: daemon.statistics()["paced_transfers"] == 3, "three workers")
    wait_moving(lambda: server.received_bytes)
    rate = server.measure_bps(8.0, lambda: server.received_bytes)
    assert 8e6 * (1 - TOLERANCE - BURST_S / 8) < rate < 8e6 * (1 + TOLERANCE + BURST_S / 8)


def test_q5_foreground_is_left_alone(daemon: Daemon, server: Metered, accounts: list[TestAccount]) -> None:
    limit_all(daemon, 8)
    job = fetch(daemon, server, accounts[0], 30_000_000, "foreground")
    daemon.wait_state(job, "TRANSFERRED", timeout_s=30)


def test_j16_another_priority_is_another_limit_at_once(
    daemon: Daemon, server: Metered, accounts: list[TestAccount]
) -> None:
    limit_all(daemon, 400)
    job = fetch(daemon, server, accounts[0], 100_000_000)
    wait_moving(lambda: server.sent_bytes)
    assert "400 kbit/s" in daemon.why(job)["sentence"]
    daemon.bits("set", job, "priority=foreground", account=accounts[0], check=True)
    daemon.wait_state(job, "TRANSFERRED", timeout_s=30)


def test_p10_each_priority_has_its_own(daemon: Daemon, server: Metered, accounts: list[TestAccount]) -> None:
    write_policy(daemon, '[work_schedule]\nhours = ["00:00-24:00"]\nwork_high_kbps = 4000\nwork_low_kbps = 0\n')
    daemon.wait_log("action=policy-loaded")
    low = fetch(daemon, server, accounts[1], priority="low")
    fetch(daemon, server, accounts[0], priority="high")
    wait_moving(lambda: server.sent_bytes)
    assert daemon.wait_state(low, "TRANSIENT_ERROR")["error"]["code"] == "BG_E_BLOCKED_BY_POLICY"
    rate = server.measure_bps(6.0, lambda: server.sent_bytes)
    assert 4e6 * 0.8 < rate < 4e6 * 1.2


def test_s5_a_limit_of_zero_stops_jobs_and_another_lets_them_go_on(
    daemon: Daemon, server: Metered, accounts: list[TestAccount]
) -> None:
    """R3: no timer; S6: with the end of the block they are queued again."""
    limit_all(daemon, 8000)
    job = fetch(daemon, server, accounts[0])
    wait_moving(lambda: server.sent_bytes)
    limit_all(daemon, 0)
    seen = daemon.wait_state(job, "TRANSIENT_ERROR")
    assert seen["error"]["code"] == "BG_E_BLOCKED_BY_POLICY"
    why = daemon.why(job)
    assert why["gate"] == "policy"
    assert "50-test.toml:4" in why["sentence"]
    # What is resumed, or created, while it is blocked waits as well; retries do not help.
    daemon.bits("resume", job, account=accounts[0], check=True)
    assert daemon.wait_state(job, "TRANSIENT_ERROR")["error"]["code"] == "BG_E_BLOCKED_BY_POLICY"
    other = fetch(daemon, server, accounts[1])
    daemon.wait_state(other, "TRANSIENT_ERROR")
    fast = fetch(daemon, server, accounts[2], 1_000_000, "foreground")
    daemon.wait_state(fast, "TRANSFERRED")
    daemon.bits("set", other, "priority=foreground", account=accounts[1], check=True)
    daemon.wait_state(other, "TRANSFERRING", "TRANSFERRED")
    limit_all(daemon, "unlimited")
    daemon.wait_state(job, "TRANSFERRING", "TRANSFERRED")


def test_s5_the_block_outlives_a_restart_and_ends_with_it(
    daemon: Daemon, server: Metered, accounts: list[TestAccount]
) -> None:
    limit_all(daemon, 0)
    job = fetch(daemon, server, accounts[0])
    daemon.wait_state(job, "TRANSIENT_ERROR")
    daemon.stop()
    daemon.start()
    assert daemon.show(job)["state"] == "TRANSIENT_ERROR"
    daemon.stop()
    write_policy(daemon, "[max_internet_bandwidth]\nlimit_kbps = 8000\nlimit_outside_kbps = 8000\n")
    daemon.start()
    daemon.wait_state(job, "TRANSFERRING")


def test_a_hundred_reloads_under_load_break_nothing(
    daemon: Daemon, server: Metered, accounts: list[TestAccount]
) -> None:
    limit_all(daemon, 8000)
    jobs = [fetch(daemon, server, account) for account in accounts]
    wait_moving(lambda: server.sent_bytes)
    for number in range(100):
        value = (4000, 100, 20_000, 200_000)[number % 4]
        write_policy(daemon, f"[max_internet_bandwidth]\nlimit_kbps = {value}\nlimit_outside_kbps = {value}\n")
        daemon.bits("policy", "reload", check=True)
    for job in jobs:
        assert daemon.show(job)["error"] is None
    # What the widest connections have brought has to be paid for first: a fast limit gets through that.
    limit_all(daemon, 160_000)
    before = server.sent_bytes
    wait_moving(lambda: server.sent_bytes, before + 30_000_000)
    rate = server.measure_bps(5.0, lambda: server.sent_bytes)
    assert 160e6 * 0.5 < rate < 160e6 * 1.25
    assert [daemon.show(job)["state"] for job in jobs] == ["TRANSFERRING"] * 3
