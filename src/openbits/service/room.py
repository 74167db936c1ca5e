"""How many notification command lines are kept at once (N6, N10).

The rule: a program that ends at once and leaves others behind keeps its place until the last of those is gone, so that
no account can have all the processes that the service may start.  Who finds no room waits a while, and is told then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from openbits.errors import BitsError
from openbits.service.worker import WorkerGone

MOST_OF_ACCOUNT: Final = 16
MOST_TOGETHER: Final = 128
"""Half of what the monitor starts at most: transfers need the rest."""
PATIENCE_S: Final = 60.0


class Room:
    """Places for programs; `is_away` says whether an account has logged off."""

    def __init__(self, is_away: Callable[[int], bool]) -> None:
        self._is_away = is_away
        self._taken: Counter[int] = Counter()
        self._waiting: dict[asyncio.Future[None], None] = {}

    def __repr__(self) -> str:
        return f"<Room taken={self._taken.total()} waiting={len(self._waiting)}>"

    async def enter(self, uid: int) -> None:
        """Take a place, which `leave` gives back.

        Raises ERROR_NOT_ENOUGH_MEMORY when there is none for too long, WorkerGone when the account logs off meanwhile.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not self._has_place(uid):
                    await self._change()
                    if self._is_away(uid):
                        raise WorkerGone
        except TimeoutError:
            raise BitsError(
                "ERROR_NOT_ENOUGH_MEMORY",
                f"{self._taken[uid]} programs that notifications of the account started, or what they left behind, "
                "still run: let them end, or leave nothing behind",
            ) from None
        self._taken[uid] += 1

    def leave(self, uid: int) -> None:
        """Nothing of a program is left."""
        self._taken[uid] -= 1
        if not self._taken[uid]:
            del self._taken[uid]
        self.look_again()

    def look_again(self) -> None:
        """Let those who wait see whether they still have to."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _has_place(self, uid: int) -> bool:
        return self._taken[uid] < MOST_OF_ACCOUNT and self._taken.total() < MOST_TOGETHER

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await future
        finally:
            del self._waiting[future]
