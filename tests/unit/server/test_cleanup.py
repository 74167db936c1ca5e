"""U2, U9–U12: when sessions are cleaned up, by a clock of the test's; and that nothing wakes where nothing is due."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from openbits.server import cleanup
from openbits.server.cleanup import Cleanup
from openbits.server.sessions import Record
from openbits.server.settings import Settings, parse_settings
from openbits.upload.session import Session

HOUR_S = 3600.0
DAY_S = 86_400.0


class Clock:
    """Time, and the one timer; it stands in for `time` and for the loop."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timer: tuple[float, Callable[[], None]] | None = None
        self.wakes = 0

    def monotonic(self) -> float:
        return self.now_s

    def call_later(self, wait_s: float, call: Callable[[], None]) -> Clock:
        assert self.timer is None, "one timer is enough"
        self.timer = (self.now_s + wait_s, call)
        return self

    def cancel(self) -> None:
        self.timer = None

    def pass_s(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.timer is not None and self.timer[0] <= end_s:
            self.now_s, call = self.timer
            self.timer = None
            self.wakes += 1
            call()
        self.now_s = end_s


class Sessions:
    """What cleanup needs of the real ones."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records.values())

    def count_alike(self, record: Record) -> int:
        return sum(each.counted_for == record.counted_for for each in self)


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: Settings) -> None:
        self.clock = Clock()
        self.sessions = Sessions()
        self.busy: set[str] = set()
        self.ended: list[tuple[str, str]] = []
        monkeypatch.setattr(cleanup, "time", self.clock)
        monkeypatch.setattr(cleanup.asyncio, "get_running_loop", lambda: self.clock)  # type: ignore[attr-defined] # the module's own
        monkeypatch.setattr(cleanup.Tasks, "start", self.start)  # type: ignore[attr-defined] # the module's own
        self.cleanup = Cleanup(found, self.sessions, is_busy=self.busy.__contains__, end=self.end)  # type: ignore[arg-type] # a stand-in
        self.cleanup.start()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        with pytest.raises(StopIteration):
            work.send(None)

    async def end(self, record: Record, reason: str) -> None:
        self.ended.append((record.key, reason))
        del self.sessions.records[record.key]

    def make(self, key: str, who: str = "host x", path: tuple[bytes, ...] = (b"f",)) -> Record:
        now_s = self.clock.now_s
        made = Record(
            key=key,
            session=Session(id=key),
            path=path,
            url="",
            user=None,
            counted_for=who,
            made_at_s=now_s,
            touched_s=now_s,
        )
        self.sessions.records[key] = made
        self.cleanup.made(made)
        return made

    def touch(self, key: str) -> None:
        self.sessions.records[key] = replace(self.sessions.records[key], touched_s=self.clock.now_s)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def make(**properties: Any) -> World:
        return World(monkeypatch, parse_settings({"root": "/r", "directory": {"/": properties}}, source="test"))

    return make


def test_nothing_wakes_where_there_are_no_sessions(world: Callable[..., World]) -> None:
    found = world()
    assert found.clock.timer is None
    found.clock.pass_s(100 * DAY_S)
    assert found.clock.wakes == 0


def test_u9_expired_session_goes_with_the_next_twelve_hours(world: Callable[..., World]) -> None:
    found = world()
    found.clock.pass_s(HOUR_S)
    made = found.make("a")
    found.clock.pass_s(14 * DAY_S - 1)
    assert not found.cleanup.has_expired(made)
    found.clock.pass_s(1)
    assert found.cleanup.has_expired(made)
    assert found.ended == []
    found.clock.pass_s(12 * HOUR_S)
    assert found.ended == [("a", "expired")]
    assert found.clock.timer is None


def test_u10_schedule_of_ones_own(world: Callable[..., World]) -> None:
    found = world(session_timeout=90, cleanup_use_default=False, cleanup_count=1, cleanup_units="minutes")
    found.make("a")
    found.clock.pass_s(119)
    assert found.ended == []
    found.clock.pass_s(1)
    assert found.ended == [("a", "expired")]
    assert found.clock.wakes == 1


def test_progress_puts_it_off_and_the_timer_follows(world: Callable[..., World]) -> None:
    found = world(session_timeout=60)
    found.make("a")
    for _ in range(5):
        found.clock.pass_s(50)
        found.touch("a")
    assert found.ended == []
    found.clock.pass_s(120)
    assert found.ended == [("a", "expired")]


def test_session_at_work_is_left_alone(world: Callable[..., World]) -> None:
    found = world(session_timeout=60)
    found.make("a")
    found.busy.add("a")
    found.clock.pass_s(300)
    assert found.ended == []
    found.busy.clear()
    found.clock.pass_s(60)
    assert found.ended == [("a", "expired")]


def test_u11_newest_above_the_limit_go_at_the_next_cleanup(world: Callable[..., World]) -> None:
    found = world(number_of_sessions_limit=2)
    for number, key in enumerate("abcd"):
        found.clock.now_s += number
        found.make(key)
    found.make("other", who="host y")
    found.busy.add("d")
    assert found.ended == []
    found.clock.pass_s(12 * HOUR_S)
    assert found.ended == [("c", "too-many")]
    found.busy.clear()
    found.clock.pass_s(12 * HOUR_S)
    assert found.ended == [("c", "too-many"), ("d", "too-many")]
    assert set(found.sessions.records) == {"a", "b", "other"}


def test_u12_limit_can_be_switched_off(world: Callable[..., World]) -> None:
    found = world(number_of_sessions_limit=1, session_limit_enable=False)
    for key in "abc":
        found.make(key)
    found.clock.pass_s(13 * DAY_S)
    assert found.ended == []


def test_u11_counts_in_each_directory_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"/": {"number_of_sessions_limit": 1}, "/a": {"number_of_sessions_limit": 2}}
    found = World(monkeypatch, parse_settings({"root": "/r", "directory": tables}, source="test"))
    found.make("1", path=(b"f",))
    found.make("2", path=(b"a", b"f"))
    found.make("3", path=(b"a", b"g"))
    found.clock.pass_s(12 * HOUR_S)
    assert found.ended == []
