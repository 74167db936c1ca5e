"""When an upload's request has stalled: by what the other end's kernel has acknowledged (upload digest, timers)."""

from __future__ import annotations

from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.worker.departure import Departures
from openbits.worker.exchange import ANSWER_PATIENCE_S, Exchange
from openbits.worker.failure import Failure
from openbits.worker.tcpinfo import Outflow

STALL_S = 60
LENGTH = 10_000_000


class FakeLoop:
    now = 1000.0

    def __init__(self) -> None:
        self.posted: list[Any] = []

    def post(self, callback: Any) -> None:
        self.posted.append(callback)

    def run(self) -> None:
        while self.posted:
            self.posted.pop(0)()


class FakeWatchdog:
    def __init__(self) -> None:
        self.is_awake = False

    def touch(self) -> None:
        self.is_awake = True

    def rest(self) -> None:
        self.is_awake = False


class FakeClient:
    proxy_host = ""
    handed_bytes = 0
    was_connected = True
    was_reused = False

    def __init__(self) -> None:
        self.flow: Outflow | None = Outflow(acknowledged_bytes=0, queued_bytes=0)
        self.is_sending = False

    def send(self, request: Any, handler: Any) -> None:
        self.is_sending = True

    def abort(self) -> None:
        self.is_sending = False

    def outflow(self) -> Outflow | None:
        return self.flow


class FakePieces:
    path = "/source"
    length = LENGTH
    is_waiting = False
    on_take: Any = None

    def stop(self) -> None:
        return


class World:
    """An exchange, and all that it speaks to."""

    def __init__(self, *, has_body: bool = True, may_take_long: bool = True) -> None:
        self.loop = FakeLoop()
        self.client = FakeClient()
        self.watchdog = FakeWatchdog()
        self.pieces = FakePieces() if has_body else None
        self.broken: list[Failure] = []
        self.failed: list[Failure] = []
        self.sent: list[int] = []
        lane: Any = type("FakeLane", (), {"client": self.client, "watchdog": self.watchdog, "on_stall": None})()
        proxies: Any = type(
            "FakeProxies",
            (),
            {
                "is_known": lambda _self, _url: True,
                "choose": lambda _self, _url: None,
                "named": lambda _self, failure, _request: failure,
                "has_other_way": lambda *_: False,
            },
        )()
        challenges: Any = type("FakeChallenges", (), {"is_asked": lambda *_: False})()
        run: Any = type(
            "FakeRun",
            (),
            {
                "settings": type("FakeSettings", (), {"stall_timeout_s": STALL_S})(),
                "proxies": proxies,
                "departures": Departures(lambda: proxies, challenges),
                "pace": type("FakePace", (), {"may_go": True})(),
            },
        )()
        loop: Any = self.loop
        pieces: Any = self.pieces
        self.lane = lane
        exchange = Exchange(
            run,
            lane,
            loop,
            meant_for="http://a.test/",
            on_answer=lambda _: None,
            on_broken=lambda failure, _: self.broken.append(failure),
            on_failed=self.failed.append,
            on_sent=self.sent.append,
        )
        exchange.send("BITS_POST", "http://a.test/", (), pieces, fresh=False, may_take_long=may_take_long)

    def flow(self, acknowledged: int, queued: int = 1) -> None:
        self.client.flow = Outflow(acknowledged_bytes=acknowledged, queued_bytes=queued)

    def take(self, total: int) -> None:
        """libcurl takes bytes."""
        assert self.pieces is not None
        self.client.handed_bytes = total
        self.pieces.on_take()
        self.loop.run()

    def stall(self) -> None:
        """The timer fires, after the stall timeout."""
        self.loop.now += STALL_S
        self.watchdog.is_awake = False
        self.lane.on_stall()

    @property
    def waits(self) -> bool:
        return self.watchdog.is_awake and not self.broken and not self.failed


def test_acknowledged_bytes_are_progress_whatever_was_handed_over() -> None:
    world = World()
    world.flow(500)
    world.take(3_000_000)
    for acknowledged in (501, 1_000, 2_000_000):
        world.flow(acknowledged)
        world.stall()
        assert world.waits
    world.take(5_000_000)
    world.stall()
    assert [failure.name for failure in world.broken] == ["ERROR_WINHTTP_TIMEOUT"]
    assert "took no bytes" in world.broken[0].message
    assert not world.client.is_sending


def test_the_first_timeout_without_an_acknowledgement_is_a_stall() -> None:
    world = World()
    world.flow(500)
    world.take(3_000_000)
    world.stall()
    assert world.broken


def test_a_connection_that_libcurl_turned_to_counts_from_its_own_beginning() -> None:
    world = World()
    world.flow(90_000_000)
    world.take(1_000_000)
    world.flow(200)
    world.stall()
    assert world.waits
    world.stall()
    assert world.broken


def test_what_the_server_has_whole_it_may_work_at_for_five_minutes() -> None:
    world = World()
    world.flow(0)
    world.take(LENGTH)
    begun = world.loop.now
    world.flow(LENGTH, queued=0)
    while not world.broken:
        world.stall()
        assert world.broken or world.waits
    assert ANSWER_PATIENCE_S <= world.loop.now - begun <= ANSWER_PATIENCE_S + 2 * STALL_S
    assert "did not answer" in world.broken[0].message


@pytest.mark.parametrize(("may_take_long", "is_patient"), [(True, True), (False, False)])
def test_without_a_body_it_depends_on_what_was_asked(may_take_long: bool, is_patient: bool) -> None:
    world = World(has_body=False, may_take_long=may_take_long)
    world.flow(300, queued=0)
    world.stall()
    assert world.waits is is_patient


def test_a_request_that_is_not_acknowledged_is_a_stall() -> None:
    world = World(has_body=False)
    world.flow(300, queued=200)
    world.stall()
    assert world.broken


def test_a_source_that_gives_nothing_is_not_the_servers_fault() -> None:
    world = World()
    world.flow(0, queued=0)
    world.take(1_000_000)
    assert world.pieces is not None
    world.pieces.is_waiting = True
    world.stall()
    assert [(failure.name, failure.context, failure.transient) for failure in world.failed] == [
        ("ERROR_READ_FAULT", ErrorContext.LOCAL_FILE, True)
    ]
    assert not world.broken


def test_no_connection_is_a_stall() -> None:
    world = World()
    world.client.flow = None
    world.stall()
    assert world.broken


def test_progress_is_what_was_acknowledged_of_this_request() -> None:
    world = World()
    world.flow(7_000)
    world.take(100_000)
    world.loop.now += 1
    world.flow(57_000)
    world.take(200_000)
    world.loop.now += 1
    world.flow(100_000_000)
    world.take(300_000)
    assert world.sent == [50_000, LENGTH]


def test_the_kernel_is_asked_four_times_a_second_at_most() -> None:
    world = World()
    asked: list[int] = []
    outflow = world.client.outflow

    def counted() -> Outflow | None:
        asked.append(1)
        return outflow()

    world.client.outflow = counted  # type: ignore[method-assign]  # to count
    for count in range(1_000):
        world.loop.now += 0.001
        world.take(count)
    assert len(asked) <= 5
