"""Who may be told something now: four at once for each account, and the rest in order (N6).

What may be lost goes behind what must not: an account whose programs are busy hears of the ends of its jobs first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Account(Generic[T]):
    running: int = 0
    urgent: deque[T] = field(default_factory=deque)
    others: deque[T] = field(default_factory=deque)


class Turns(Generic[T]):
    """Hands out turns; `begin` gets who has one, and `done` gives it back."""

    def __init__(self, at_once: int, begin: Callable[[int, T], None]) -> None:
        self._at_once = at_once
        self._begin = begin
        self._accounts: dict[int, _Account[T]] = {}

    def __repr__(self) -> str:
        return f"<Turns {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        accounts = self._accounts.values()
        return {
            "notifying": sum(each.running for each in accounts),
            "notices_waiting": sum(len(each.urgent) + len(each.others) for each in accounts),
        }

    def want(self, uid: int, who: T, *, is_urgent: bool) -> None:
        """Wait for a turn of this account; it may come at once."""
        account = self._accounts.setdefault(uid, _Account())
        (account.urgent if is_urgent else account.others).append(who)
        self._go_on(uid, account)

    def done(self, uid: int) -> None:
        """A turn is over."""
        account = self._accounts[uid]
        account.running -= 1
        self._go_on(uid, account)

    def _go_on(self, uid: int, account: _Account[T]) -> None:
        while account.running < self._at_once and (account.urgent or account.others):
            account.running += 1
            self._begin(uid, (account.urgent or account.others).popleft())
        if not account.running:
            self._accounts.pop(uid, None)
