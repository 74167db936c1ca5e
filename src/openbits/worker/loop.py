"""The worker's event loop: one epoll set, timers in a heap, and a door for the helper threads.

Nothing here polls: with no timer armed the loop sleeps until a descriptor speaks, so an idle worker
never wakes.  A plain loop, because asyncio's machinery costs more per small file than libcurl does.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT


class Timer:
    """A call that will be made once, unless it is cancelled."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None] | None) -> None:
        self.when = when
        self.callback = callback

    def __repr__(self) -> str:
        return f"<Timer at {self.when:.3f}>"

    def cancel(self) -> None:
        """Forget the call."""
        self.callback = None


class Loop:
    """Watches descriptors and keeps deadlines; every method but `post` belongs to the loop's thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._posted: deque[Callable[[], None]] = deque()
        self._door = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = False
        self.now = time.monotonic()
        """The time at which the current round of events began."""
        self.watch(self._door, READABLE, self._on_door)

    def __repr__(self) -> str:
        return f"<Loop watchers={len(self._watchers)} timers={len(self._timers)}>"

    def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` when the descriptor is ready."""
        self._epoll.register(fd, mask)
        self._watchers[fd] = callback

    def change(self, fd: int, mask: int) -> None:
        """Watch for something else."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Stop watching; the descriptor must still be open."""
        del self._watchers[fd]
        self._epoll.unregister(fd)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Make a call at a monotonic time."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Make a call after a delay."""
        return self.call_at(time.monotonic() + delay_s, callback)

    def post(self, callback: Callable[[], None]) -> None:
        """Make a call from the loop's thread, soon; any thread may ask."""
        self._posted.append(callback)
        os.eventfd_write(self._door, 1)

    def stop(self) -> None:
        """Let `run` return after this round."""
        self._running = False

    def run(self) -> None:
        """Handle events until `stop`."""
        self._running = True
        while self._running:
            events = self._epoll.poll(self._timeout_s(), 64)
            self.now = time.monotonic()
            for fd, mask in events:
                watcher = self._watchers.get(fd)
                if watcher is not None:
                    watcher(mask)
            if self._timers:
                self._run_timers()

    def close(self) -> None:
        """Give the descriptors back."""
        self._epoll.close()
        os.close(self._door)

    def _timeout_s(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        # What is due and what `now` says must be one: a timer that found itself too early by an older `now` and set
        # itself for a moment that has passed would be run again, and again, for ever.
        self.now = time.monotonic()
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _on_door(self, _mask: int) -> None:
        os.eventfd_read(self._door)
        # Only what stands there now: a call that posts again waits for the next round.
        for _ in range(len(self._posted)):
            self._posted.popleft()()
