"""When a program that died is started again: soon, then later and later, and at last not at all."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0
MOST_DEATHS: Final = 5
_FIRST_DELAY_S: Final = 0.1
_GROWTH: Final = 3.0
_LONGEST_DELAY_S: Final = 5.0


class Restarts:
    """The deaths of one program within the last minute."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()
        self._own_deaths: deque[float] = deque()

    def delay_s(self, now: float, *, killed: bool) -> float | None:
        """Note a death; return the time to wait before the next start, or None to give up.

        A death by SIGKILL delays the next start like any other, but is no reason to give up: it came from
        outside (a person, the kernel short of memory), and says nothing about the program.
        """
        self._deaths.append(now)
        if not killed:
            self._own_deaths.append(now)
        for deaths in (self._deaths, self._own_deaths):
            while deaths and deaths[0] <= now - WINDOW_S:
                deaths.popleft()
        if len(self._own_deaths) >= MOST_DEATHS:
            return None
        return min(_FIRST_DELAY_S * _GROWTH ** (len(self._deaths) - 1), _LONGEST_DELAY_S)
