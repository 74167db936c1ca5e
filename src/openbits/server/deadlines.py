"""How long connections may stay in a state: one timer for all of them.

Everybody who enters a state gets the same time there, so who came first is due first: a dict in order of entry is
the whole schedule, and ten thousand idle connections need one timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Deadlines(Generic[_T]):
    """Those who are in one state, in the order in which they came."""

    def __init__(self, limit_s: float, expire: Callable[[_T], None]) -> None:
        """`expire` is called with each whose time is over; it may remove others."""
        self._limit_s = limit_s
        self._expire = expire
        self._due: dict[_T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadlines {self._limit_s:g} s: {len(self._due)}>"

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, member: _T) -> bool:
        return member in self._due

    def add(self, member: _T) -> None:
        """Its time begins (anew)."""
        loop = asyncio.get_running_loop()
        self._due.pop(member, None)
        self._due[member] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_later(self._limit_s, self._look)

    def remove(self, member: _T) -> None:
        """It has left the state."""
        self._due.pop(member, None)

    def oldest(self) -> _T | None:
        """Who has been in the state for the longest time."""
        return next(iter(self._due), None)

    def members(self) -> list[_T]:
        """All who are in the state."""
        return list(self._due)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time()
        while self._due:
            member, due = next(iter(self._due.items()))
            if due > now:
                # Left to run when somebody leaves the state: it finds the next one then.
                self._timer = loop.call_at(due, self._look)
                return
            del self._due[member]
            self._expire(member)
