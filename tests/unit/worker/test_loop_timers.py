"""Timers of the worker's loop that find out that they came too early."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from openbits.worker.loop import Loop, Timer
from openbits.worker.watchdog import Watchdog


def test_a_watchdog_that_falls_due_between_two_looks_at_the_clock_does_not_run_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop looks at the clock after epoll, and again when it looks for timers; a stall may fall due in between."""
    stalls: list[float] = []
    loop = Loop()
    set_again = 0
    call_at = loop.call_at

    def counted(when: float, callback: Callable[[], None]) -> Timer:
        nonlocal set_again
        set_again += 1
        assert set_again < 10, "one timer runs for ever"
        return call_at(when, callback)

    monkeypatch.setattr(loop, "call_at", counted)
    watchdog = Watchdog(loop, 0.5, lambda: stalls.append(loop.now))
    loop.now = 10.0
    watchdog.touch()  # its timer: 10.5
    loop.now = 10.2
    watchdog.touch()  # a stall now: 10.7
    loop.now = 10.6
    monkeypatch.setattr(time, "monotonic", lambda: 10.8)
    loop._run_timers()
    monkeypatch.undo()
    loop.close()
    assert stalls == [10.8]
