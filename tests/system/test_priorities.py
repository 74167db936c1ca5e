"""Who runs when, with real transfers (Q1-Q4): what the event log of the service says happened."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

SIZE = 5_000_000
RATE_BPS = 2_000_000
ACTIVE = ("CONNECTING", "TRANSFERRING")
CONFIG = """
[scheduler]
time_slice_s = 1
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def bob() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A fresh one for each test, so that its event log holds this test's jobs only."""
    with running_daemon("system", config=CONFIG) as running:
        yield running


class Race:
    """Jobs of one file each, named after their files."""

    def __init__(self, daemon: Daemon, origin: Nginx) -> None:
        self.daemon = daemon
        self.origin = origin
        self.ids: dict[str, str] = {}
        self._hashes: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def enter(self, name: str, account: TestAccount, priority: str, *, size: int = SIZE) -> None:
        self._hashes[name] = self.origin.add(name, size)
        self._paths[name] = os.path.join(account.home, name)
        url = self.origin.url(name, rate_bps=RATE_BPS)
        self.ids[name] = self.daemon.submit(url, "-o", self._paths[name], "--priority", priority, account=account)

    def finish(self) -> None:
        """All end, with the right bytes, and no byte is fetched twice."""
        for name, job in self.ids.items():
            self.daemon.wait_state(job, "TRANSFERRED")
            self.daemon.bits("complete", job, check=True)
            assert sha256_of(self._paths[name]) == self._hashes[name]
            starts = [asked.offset for asked in self.origin.asked(name)]
            assert starts == sorted(starts), f"{name} began again: {starts}"

    def state(self, name: str) -> str:
        state: str = self.daemon.show(self.ids[name])["state"]
        return state

    def history(self) -> list[tuple[str, str]]:
        """What happened, oldest first: (name, kind of event)."""
        names = {job: name for name, job in self.ids.items()}
        return [(names[event["job_id"]], event["kind"]) for event in self.daemon.events()]

    def most_at_once(self, *names: str) -> int:
        """How many of these jobs held a slot at the same time, by the log."""
        running: set[str] = set()
        most = 0
        for name, kind in self.history():
            if kind == "transferring" and name in names:
                running.add(name)
            elif kind in ("queued", "transferred", "suspended", "transient error"):
                running.discard(name)
            most = max(most, len(running))
        return most


@pytest.fixture
def race(daemon: Daemon, origin: Nginx) -> Race:
    return Race(daemon, origin)


@pytest.fixture
def long_race(origin: Nginx) -> Iterator[Race]:
    """With time slices that no slow machine reaches: who has a slot keeps it."""
    with running_daemon("system") as running:
        yield Race(running, origin)


def test_foreground_runs_beside_one_background_job(long_race: Race, alice: TestAccount, bob: TestAccount) -> None:
    """Q1: all foreground jobs at once, and one background job beside them."""
    race = long_race
    race.enter("back1", alice, "high")
    race.enter("back2", bob, "high")
    race.enter("front1", alice, "foreground")
    race.enter("front2", bob, "foreground")
    race.daemon.wait_state(race.ids["front1"], "TRANSFERRING")
    race.daemon.wait_state(race.ids["front2"], "TRANSFERRING")
    assert race.state("back1") in ACTIVE
    assert race.state("back2") == "QUEUED"
    race.finish()
    assert race.most_at_once("front1", "front2") == 2
    assert race.most_at_once("back1", "back2") == 1


def test_higher_preempts_lower(race: Race, alice: TestAccount) -> None:
    """Q3: the lower goes on, from where it was, only when the higher has come to its end."""
    race.enter("low", alice, "low")
    race.daemon.wait_state(race.ids["low"], "TRANSFERRING")
    race.enter("normal", alice, "normal")
    race.daemon.wait_state(race.ids["normal"], "TRANSFERRING")
    race.enter("high", alice, "high")
    race.daemon.wait_state(race.ids["high"], "TRANSFERRING")
    assert (race.state("low"), race.state("normal")) == ("QUEUED", "QUEUED")
    race.finish()
    ends = [name for name, kind in race.history() if kind == "transferred"]
    assert ends == ["high", "normal", "low"]
    assert race.most_at_once("low", "normal", "high") == 1
    assert race.origin.asked("low")[-1].offset > 0


def test_jobs_of_one_priority_take_turns(race: Race, alice: TestAccount, bob: TestAccount) -> None:
    """Q4: a slice of a second for each; and none is begun anew."""
    for name, account in (("turn1", alice), ("turn2", alice), ("turn3", bob)):
        # Long enough that the last one is there, on the slowest machine, before the first one is done.
        race.enter(name, account, "normal", size=2 * SIZE)
    race.finish()
    starts = [name for name, kind in race.history() if kind == "transferring"]
    assert race.most_at_once("turn1", "turn2", "turn3") == 1
    for name in race.ids:
        assert starts.count(name) >= 2, starts
    first_end = next(index for index, (_, kind) in enumerate(race.history()) if kind == "transferred")
    begun = {name for name, kind in race.history()[:first_end] if kind == "transferring"}
    assert begun == set(race.ids), "nobody waits until another one is done"


def test_a_job_that_waits_for_its_retry_lets_others_run(race: Race, alice: TestAccount) -> None:
    """Q3: lower priorities get time when all higher ones are transferred or in an error state."""
    url = "http://127.0.0.1:9/nobody"
    blocked = race.daemon.submit(
        url, "-o", os.path.join(alice.home, "blocked"), "--priority", "high", "--retry-delay", "600", account=alice
    )
    race.enter("lower", alice, "low", size=100_000)
    race.daemon.wait_state(race.ids["lower"], "TRANSFERRED")
    assert race.daemon.show(blocked)["state"] == "TRANSIENT_ERROR"
    race.finish()


def test_priority_can_be_changed_while_jobs_wait_and_run(race: Race, alice: TestAccount) -> None:
    """J16: a change of priority is a change of places."""
    race.enter("running", alice, "normal")
    race.daemon.wait_state(race.ids["running"], "TRANSFERRING")
    race.enter("waiting", alice, "low")
    assert race.state("waiting") == "QUEUED"
    race.daemon.bits("set", race.ids["waiting"], "priority=high", account=alice, check=True)
    race.daemon.wait_state(race.ids["waiting"], "TRANSFERRING")
    assert race.state("running") == "QUEUED"
    race.daemon.bits("set", race.ids["running"], "priority=foreground", account=alice, check=True)
    race.daemon.wait_state(race.ids["running"], "TRANSFERRING")
    assert race.state("waiting") in ACTIVE
    race.finish()
