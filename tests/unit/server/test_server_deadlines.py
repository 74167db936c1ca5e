"""One timer for everybody in a state: who came first is due first, and nothing runs while nobody is there."""

from __future__ import annotations

import asyncio

import pytest

from openbits.server.deadlines import Deadlines


@pytest.mark.asyncio
async def test_who_came_first_is_due_first() -> None:
    expired: list[str] = []
    over = asyncio.Event()

    def expire(name: str) -> None:
        expired.append(name)
        if name == "last":
            over.set()

    deadlines = Deadlines[str](0.05, expire)
    for name in ["first", "leaver", "second"]:
        deadlines.add(name)
    deadlines.remove("leaver")
    deadlines.add("last")
    # Whoever enters anew begins anew.
    deadlines.add("first")
    deadlines.add("last")
    assert (deadlines.oldest(), len(deadlines), "leaver" in deadlines) == ("second", 3, False)
    async with asyncio.timeout(10):
        await over.wait()
    assert expired == ["second", "first", "last"]


@pytest.mark.asyncio
async def test_an_expiry_may_remove_others_and_add() -> None:
    over = asyncio.Event()
    expired: list[str] = []

    def expire(name: str) -> None:
        expired.append(name)
        deadlines.remove("b")
        if name == "a":
            deadlines.add("c")
        else:
            over.set()

    deadlines = Deadlines[str](0.02, expire)
    deadlines.add("a")
    deadlines.add("b")
    async with asyncio.timeout(10):
        await over.wait()
    assert expired == ["a", "c"]
    assert deadlines._timer is None
