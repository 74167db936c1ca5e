"""One timer for all jobs: it fires for the earliest deadline and costs nothing for the others."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable


class Deadlines:
    """Calls `reached(job_id)` at or soon after the time that was last set for a job.

    A deadline that moves into the future is not moved in the heap: when the old time comes, the
    callback looks at the job, finds nothing due and sets the new time.
    """

    def __init__(self, now: Callable[[], float], reached: Callable[[str], None]) -> None:
        self._now = now
        self._reached = reached
        self._heap: list[tuple[float, str]] = []
        self._set: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    def __repr__(self) -> str:
        return f"<Deadlines jobs={len(self._set)} heap={len(self._heap)}>"

    def set(self, job_id: str, at: float | None) -> None:
        """Set when to look at a job again; None: never."""
        known = self._set.get(job_id)
        if at is None:
            self._set.pop(job_id, None)
        elif known is None or at < known:
            self._set[job_id] = at
            heapq.heappush(self._heap, (at, job_id))
            self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        while self._heap and self._set.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        at = self._heap[0][0] if self._heap else float("inf")
        if at == self._timer_at and self._timer is not None:
            return
        self.close()
        self._timer_at = at
        if self._heap:
            delay_s = max(0.0, at - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._now()
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            at, job_id = heapq.heappop(self._heap)
            if self._set.get(job_id) == at:
                del self._set[job_id]
                due.append(job_id)
        for job_id in due:
            self._reached(job_id)
        self._arm()
