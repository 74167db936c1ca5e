"""The broker that shares a limit out among transfers: sums, turns, and sleep when nobody waits (P2, P10)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openbits.core.bandwidth import Limit, Limits
from openbits.core.model import Priority
from openbits.frames.worker import Lease, SetPace
from openbits.service.bandwidth import MOST_DEBT_BYTES, Broker
from support import virtual

SLOW = Limits(together=Limit(kbps=80, key="max_internet_bandwidth.limit_kbps"))
RATE = 10_000


class Eager:
    """A transfer that takes pieces as fast as it may, and asks for what it owes."""

    def __init__(self, broker: Broker, number: int, piece: int, priority: Priority = Priority.NORMAL) -> None:
        self.broker, self.number, self.piece = broker, number, piece
        self.taken = 0
        self.balance = -1
        self.paces: list[SetPace] = []
        self.is_on = broker.open(number, priority, self.hear).is_paced
        if self.is_on:
            broker.want(number, 1)

    def hear(self, message: object) -> None:
        if isinstance(message, SetPace):
            self.paces.append(message)
            self.is_on = message.is_paced
            return
        assert isinstance(message, Lease)
        self.balance += message.granted_bytes
        if self.balance >= 0 and self.is_on:
            self.taken += self.piece
            self.balance -= self.piece
        asyncio.get_running_loop().call_soon(self.broker.want, self.number, -self.balance)


class World:
    def __init__(self) -> None:
        self.limits = SLOW
        self.broker = Broker(lambda: self.limits)


def run(main: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        world = World()
        try:
            await main(world)
        finally:
            world.broker.stop()

    virtual.run(whole())


def test_p2_three_transfers_share_one_limit_in_equal_parts() -> None:
    async def main(world: World) -> None:
        eager = [Eager(world.broker, number, piece) for number, piece in enumerate((16_384, 4096, 1000))]
        await asyncio.sleep(60)
        taken = [each.taken for each in eager]
        assert 0.95 * RATE * 60 < sum(taken) < 1.05 * RATE * 60 + 16_384
        assert max(taken) < 1.2 * min(taken) + 16_384

    run(main)


def test_whoever_is_alone_has_it_all() -> None:
    async def main(world: World) -> None:
        idle = [Eager(world.broker, number, 0) for number in range(1, 5)]
        for each in idle:
            world.broker.want(each.number, 0)
        eager = Eager(world.broker, 9, 8192)
        await asyncio.sleep(60)
        assert 0.95 * RATE * 60 < eager.taken < 1.05 * RATE * 60 + 8192

    run(main)


def test_foreground_is_never_paced() -> None:
    async def main(world: World) -> None:
        assert not world.broker.open(1, Priority.FOREGROUND, lambda _: None).is_paced

    run(main)


def test_j16_another_priority_and_other_limits_are_told_at_once() -> None:
    async def main(world: World) -> None:
        eager = Eager(world.broker, 1, 1000)
        world.broker.change(1, Priority.FOREGROUND)
        world.broker.change(1, Priority.LOW)
        world.limits = Limits()
        world.broker.limits_changed()
        assert [pace.is_paced for pace in eager.paces] == [False, True, False]
        # What was asked for before it heard is not refused.
        world.broker.want(1, 500)
        assert eager.balance >= 0

    run(main)


def test_p10_priorities_do_not_wait_for_each_other() -> None:
    async def main(world: World) -> None:
        world.limits = Limits(high=Limit(kbps=80, key="h"), low=Limit(kbps=8, key="l"))
        low = Eager(world.broker, 1, 4000, Priority.LOW)
        high = Eager(world.broker, 2, 4000, Priority.HIGH)
        free = world.broker.open(3, Priority.NORMAL, lambda _: None)
        await asyncio.sleep(60)
        assert 0.9 * 60_000 < low.taken < 1.1 * 60_000 + 4000
        assert 0.95 * 600_000 < high.taken < 1.05 * 600_000 + 4000
        assert not free.is_paced

    run(main)


def test_what_a_transfer_owes_at_its_end_is_paid_for_by_the_next() -> None:
    """Else a thousand small jobs would have no limit."""

    async def main(world: World) -> None:
        taken = 0
        start = asyncio.get_running_loop().time()
        for number in range(50):
            done = asyncio.Event()

            def hear(_message: object, done: asyncio.Event = done) -> None:
                done.set()

            world.broker.open(number, Priority.NORMAL, hear)
            world.broker.want(number, 1)
            await done.wait()
            taken += 10_000
            world.broker.want(number, 10_000)
            world.broker.close(number)
        elapsed = asyncio.get_running_loop().time() - start
        assert taken / elapsed == pytest.approx(RATE, rel=0.05)

    run(main)


def test_what_is_given_back_is_no_more_than_was_lent_and_a_debt_is_believed_up_to_a_point() -> None:
    """A worker may have been taken over by a hostile server: it takes bandwidth from nobody for long."""

    async def main(world: World) -> None:
        heard: list[object] = []
        world.broker.open(1, Priority.NORMAL, heard.append)
        world.broker.want(1, -(10**12))
        world.broker.want(1, 10**12)
        world.broker.close(1)
        honest = Eager(world.broker, 2, 1000)
        await asyncio.sleep(MOST_DEBT_BYTES / RATE + 5)
        assert honest.taken > 0
        assert honest.taken < 7 * RATE

    run(main)


def test_nobody_waits_and_no_timer_runs() -> None:
    async def main(world: World) -> None:
        eager = Eager(world.broker, 1, 1000)
        await asyncio.sleep(1)
        world.broker.close(1)
        assert world.broker._timer is None
        taken = eager.taken
        await asyncio.sleep(10)
        assert eager.taken == taken

    run(main)
