"""Bandwidth limits hold for pieces of files too, whenever they come; measured at the server (P2, J67, F12, N3).

One file of an on-demand job makes many requests, all over the connection it has: a limit that comes or goes between two
of them must find that connection as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

import openbits
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.metered import Metered
from support.policies import limit_all

pytestmark = needs_root

SIZE = 1_000_000_000
LIMIT_KBPS = 400
TOLERANCE = 0.1
BURST_S = 0.75
"""What a connection has room for."""


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def server() -> Iterator[Metered]:
    with Metered() as metered:
        yield metered


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        yield running


def pieces_of(daemon: Daemon, server: Metered, alice: TestAccount, *ranges: str) -> str:
    """A job of alice's in on-demand mode, on its way."""
    job = daemon.bits("create", "pieces", "--priority", "normal", account=alice, check=True).stdout.strip()
    daemon.bits("set", job, "on_demand_mode=true", account=alice, check=True)
    path = os.path.join(alice.home, f"{time.monotonic_ns()}")
    daemon.bits("add", job, server.url(f"/{SIZE}"), path, account=alice, check=True)
    daemon.bits("request-ranges", job, "0", *ranges, account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    return job


def wait_moving(count: Callable[[], int]) -> None:
    wait_until(lambda: count() > 4096, "bytes to move")


def check_rate(server: Metered, kbps: int, seconds: float) -> None:
    """What the server sends is what the limit says."""
    rate = server.measure_bps(seconds, lambda: server.sent_bytes)
    leeway = TOLERANCE + BURST_S / seconds
    assert kbps * 1000 * (1 - leeway) < rate < kbps * 1000 * (1 + leeway)


def test_p2_pieces_keep_to_the_limit_from_the_first_request(
    daemon: Daemon, server: Metered, alice: TestAccount
) -> None:
    limit_all(daemon, LIMIT_KBPS)
    job = pieces_of(daemon, server, alice, "0:200000000", "500000000:200000000")
    wait_moving(lambda: server.sent_bytes)
    check_rate(server, LIMIT_KBPS, 12.0)
    assert "400 kbit/s" in daemon.why(job)["sentence"]
    assert daemon.show(job)["state"] == "TRANSFERRING"


def test_p2_small_pieces_keep_to_it_too(daemon: Daemon, server: Metered, alice: TestAccount) -> None:
    """Each piece is an answer of its own: the server does not know requests for several."""
    limit_all(daemon, LIMIT_KBPS)
    job = pieces_of(daemon, server, alice, *(f"{number * 100_000}:10000" for number in range(40)))
    start = time.monotonic()
    daemon.wait_state(job, "SUSPENDED")
    assert time.monotonic() - start > 40 * 10_000 * 8 / (LIMIT_KBPS * 1000) * 0.75
    assert server.requests >= 40


def test_p10_a_limit_that_comes_on_the_way_finds_the_connection(
    daemon: Daemon, server: Metered, alice: TestAccount
) -> None:
    job = pieces_of(daemon, server, alice, f"0:{SIZE - 1}")
    wait_moving(lambda: server.sent_bytes)
    limit_all(daemon, 4000)
    wait_until(lambda: daemon.statistics()["paced_transfers"] == 1, "the worker to hear of it")
    check_settled(server, 4000)
    limit_all(daemon, LIMIT_KBPS)
    check_settled(server, LIMIT_KBPS)
    limit_all(daemon, "unlimited")
    daemon.wait_state(job, "SUSPENDED", timeout_s=90)
    [file] = list(openbits.Manager(daemon.socket).get_job(job).enum_files())
    assert file.get_filled_file_ranges() == (openbits.Range(0, SIZE - 1),)


def check_settled(server: Metered, kbps: int) -> None:
    """The rate after what was on its way when the limit came has been paid for."""
    rates: list[float] = []

    def settles() -> bool:
        rates.append(server.measure_bps(3.0, lambda: server.sent_bytes))
        return 0.5 * kbps * 1000 < rates[-1] < 1.5 * kbps * 1000

    wait_until(settles, f"the rate to become {kbps} kbit/s: {rates}", 45)
    check_rate(server, kbps, 8.0)


def test_q5_foreground_after_limited_pieces_has_no_limit(daemon: Daemon, server: Metered, alice: TestAccount) -> None:
    """From the same server, for the same account."""
    limit_all(daemon, LIMIT_KBPS)
    job = pieces_of(daemon, server, alice, "0:30000")
    daemon.wait_state(job, "SUSPENDED")
    other = daemon.submit(
        "--priority", "foreground", server.url("/100000000"), "-o", f"{alice.home}/wide", account=alice
    )
    daemon.wait_state(other, "TRANSFERRED", timeout_s=20)
    assert daemon.show(job)["state"] == "SUSPENDED"
