"""Notices that nothing has come in for too long."""

from __future__ import annotations

from collections.abc import Callable

from openbits.worker.loop import Loop, Timer


class Watchdog:
    """Calls `on_stall` once when it was started and not touched for the whole patience.

    One timer serves many requests: it finds out by itself that it came too early, so that a touch
    is nothing but a number, and it wakes the loop once per patience at most.
    """

    def __init__(self, loop: Loop, patience_s: float, on_stall: Callable[[], None]) -> None:
        self._loop = loop
        self._patience_s = patience_s
        self._on_stall = on_stall
        self._touched_at: float | None = None
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Watchdog {'idle' if self._touched_at is None else f'touched at {self._touched_at:.3f}'}>"

    def touch(self) -> None:
        """Something came in, or a wait begins."""
        self._touched_at = self._loop.now
        if self._timer is None:
            self._timer = self._loop.call_at(self._touched_at + self._patience_s, self._on_timer)

    def rest(self) -> None:
        """Nothing is waited for."""
        self._touched_at = None

    def close(self) -> None:
        """Never call again."""
        self.rest()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._touched_at is None:
            return
        due_at = self._touched_at + self._patience_s
        if due_at > self._loop.now:
            self._timer = self._loop.call_at(due_at, self._on_timer)
            return
        self._touched_at = None
        self._on_stall()
