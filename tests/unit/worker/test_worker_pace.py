"""A transfer under a bandwidth limit: who may take a piece, what is asked for, what is given back (P2)."""

from __future__ import annotations

from typing import Any, cast

from openbits.frames.worker import LeaseWanted
from openbits.worker.pace import PIECE_BYTES, Pace


class FakeLoop:
    now = 100.0


class World:
    """A pace that is on, and what it has asked for."""

    def __init__(self, *, is_on: bool = True) -> None:
        self.asked: list[int] = []
        self.loop = FakeLoop()
        self.pace = Pace(cast("Any", self.loop), 7, self.hear)
        if is_on:
            self.pace.set(is_on=True, window_bytes=0)

    def hear(self, message: object) -> None:
        assert isinstance(message, LeaseWanted)
        assert message.transfer == 7
        self.asked.append(message.wanted_bytes)


def test_without_a_limit_nothing_is_asked_for() -> None:
    world = World(is_on=False)
    assert world.pace.may_go
    world.pace.close()
    assert world.asked == []


def test_the_first_piece_waits_too() -> None:
    """What others have spent is not there for a transfer because it is new."""
    world = World()
    assert not world.pace.may_go
    assert world.asked == [1]
    world.pace.lent(1)
    assert world.pace.may_go


def test_what_is_owed_is_asked_for_once_and_paid_in_parts() -> None:
    world = World()
    world.pace.lent(1)
    world.loop.now += 1
    world.pace.spend(1000)
    world.pace.spend(500)
    assert world.asked == [1, 1000]
    world.pace.lent(600)
    assert not world.pace.may_go
    assert world.asked == [1, 1000, 900]
    world.pace.lent(900)
    assert world.pace.may_go


def test_those_who_wait_go_on_one_after_the_other() -> None:
    world = World()
    went: list[str] = []

    def first() -> None:
        went.append("first")
        world.pace.spend(10)

    def second() -> None:
        went.append("second")

    for each in (first, second, first):
        world.pace.wait(each)
    world.pace.lent(1)
    assert went == ["first"]
    world.pace.lent(10)
    assert went == ["first", "second"]


def test_whoever_is_forgotten_is_not_called() -> None:
    world = World()
    world.pace.wait(world.asked.clear)
    world.pace.forget(world.asked.clear)
    world.pace.lent(1)
    assert world.asked == [1]


def test_what_is_soon_spent_is_asked_for_ahead_and_what_is_left_is_given_back() -> None:
    world = World()
    world.pace.lent(1)
    world.loop.now += 0.01
    world.pace.spend(100)
    world.pace.lent(100)
    world.pace.spend(100)
    assert world.asked[-1] == 100 + PIECE_BYTES
    world.pace.lent(100 + PIECE_BYTES)
    world.pace.close()
    assert world.asked[-1] == -PIECE_BYTES


def test_what_is_owed_at_the_end_is_said_exactly() -> None:
    world = World()
    world.pace.lent(1)
    world.pace.spend(100)
    world.pace.spend(23)
    world.pace.close()
    assert world.asked[-1] == 123


def test_when_the_limit_ends_everybody_goes_on_and_nothing_is_owed() -> None:
    world = World()
    went: list[str] = []
    world.pace.spend(100)
    world.pace.wait(lambda: went.append("on"))
    world.pace.set(is_on=False, window_bytes=0)
    assert went == ["on"]
    asked = list(world.asked)
    world.pace.lent(5)
    world.pace.close()
    assert world.asked == asked


def test_another_window_changes_nothing_of_what_is_owed() -> None:
    world = World()
    world.pace.spend(99)
    world.pace.set(is_on=True, window_bytes=5)
    assert world.asked == [1]
    assert not world.pace.may_go
