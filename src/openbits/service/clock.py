"""The steady UTC clock: what the service calls "now" (inventory R7).

Delays and time-outs must not be shortened or prolonged by someone who sets the wall clock, and must
count the time in which the machine slept.  So the wall clock is read once, at the start, and time
goes on from there as CLOCK_BOOTTIME says; a changed wall clock takes effect with the next start.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Seconds since the epoch that never jump and never go back while the service runs."""

    def __init__(self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _boottime) -> None:
        self._steady = steady
        self._offset_s = wall() - steady()

    def now(self) -> float:
        """Return the time in seconds since the epoch, UTC."""
        return self._steady() + self._offset_s

    def __repr__(self) -> str:
        return f"<SteadyClock {self.now():.3f}>"
