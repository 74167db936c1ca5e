"""How a transfer is shown while somebody waits: one line that moves on a terminal, plain lines elsewhere.

Everything goes to standard error, because standard output belongs to the result.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TextIO

from openbits.cli import text

_RATE_WINDOW_S: Final = 5.0
_PLAIN_STEP_PERCENT: Final = 10
_PLAIN_STEP_S: Final = 10.0
_BAR_COLUMNS: Final = 24
_LEAST_BAR_COLUMNS: Final = 6
_NAME_COLUMNS: Final = 16


class Display(Protocol):
    """Shows a job that somebody waits for."""

    def progress(self, data: Mapping[str, Any]) -> None:
        """Take the progress fields of a job or of a progress event."""

    def note(self, sentence: str) -> None:
        """Say what the job waits for; an empty sentence takes that back."""

    def tick(self) -> None:
        """Time has passed and nothing has come."""

    def close(self) -> None:
        """Leave the terminal as it should be."""


class Rate:
    """Bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done_bytes: int) -> None:
        """Take a sample; a count that falls (a file began again) begins anew."""
        if self._samples and done_bytes < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now_s, done_bytes))
        while len(self._samples) > 2 and now_s - self._samples[1][0] > _RATE_WINDOW_S:
            self._samples.popleft()

    def bps(self, now_s: float) -> float | None:
        """Return the rate in bytes per second; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        began_s, began_bytes = self._samples[0]
        elapsed_s = now_s - began_s
        return (self._samples[-1][1] - began_bytes) / elapsed_s if elapsed_s > 0 else None


def summary(data: Mapping[str, Any], rate_bps: float | None) -> str:
    """Return progress in words: how much of how much, rate, time left, files."""
    done, total = data["bytes_transferred"], data["bytes_total"]
    parts = [f"{text.size(done)} of {text.size(total)}"]
    if rate_bps is not None and rate_bps > 0:
        parts.append(f"{text.size(round(rate_bps))}/s")
        if total is not None and total > done:
            parts.append(f"ETA {text.duration((total - done) / rate_bps)}")
    if data["files_total"] > 1:
        parts.append(f"{data['files_transferred']}/{data['files_total']} files")
    return "  ".join(parts)


def terminal_columns(stream: TextIO) -> int:
    """Return the width of the terminal behind a stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class TerminalDisplay:
    """One line that is written again and again."""

    def __init__(
        self,
        name: str,
        stream: TextIO | None = None,
        *,
        columns: Callable[[TextIO], int] = terminal_columns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = text.safe(name)
        self._stream = stream or sys.stderr
        self._columns = columns
        self._clock = clock
        self._rate = Rate()
        self._data: Mapping[str, Any] | None = None
        self._note = ""
        self._shown = False

    def progress(self, data: Mapping[str, Any]) -> None:
        """Take the progress of the job and draw it."""
        self._data = data
        self._rate.add(self._clock(), data["bytes_transferred"])
        self.tick()

    def note(self, sentence: str) -> None:
        """Show what the job waits for in place of the bar."""
        if sentence != self._note:
            self._note = sentence
            self.tick()

    def tick(self) -> None:
        """Draw the line again."""
        columns = max(20, self._columns(self._stream) - 1)
        self._stream.write("\r" + text.clip(self._line(columns), columns) + "\x1b[K")
        self._stream.flush()
        self._shown = True

    def close(self) -> None:
        """End the line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def _line(self, columns: int) -> str:
        if self._note or self._data is None:
            return f"{text.clip_middle(self._name, columns // 3)}  {self._note or 'waiting for the service'}"
        figures = summary(self._data, self._rate.bps(self._clock()))
        share = text.percent(self._data["bytes_transferred"], self._data["bytes_total"])
        if share is None:
            return f"{text.clip_middle(self._name, max(8, columns - text.width(figures) - 2))}  {figures}"
        # What is left beside the figures goes to the name, up to its usual length, then to the bar, then to the name.
        room = columns - text.width(figures) - len(" 100 %  ")
        bar_columns = min(_BAR_COLUMNS, room - min(text.width(self._name), _NAME_COLUMNS) - 3)
        if bar_columns < _LEAST_BAR_COLUMNS:
            return f"{text.clip_middle(self._name, max(0, room))} {share:3d} %  {figures}".lstrip()
        filled = share * bar_columns // 100
        bar = f"[{'=' * filled}{' ' * (bar_columns - filled)}]"
        return f"{text.clip_middle(self._name, room - bar_columns - 3)} {share:3d} % {bar}  {figures}"


class PlainDisplay:
    """A line at the start, at each 10 % or 10 s, and whenever the job waits for something."""

    def __init__(self, name: str, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = text.safe(name)
        self._stream = stream or sys.stderr
        self._clock = clock
        self._rate = Rate()
        self._said_percent = 0
        self._said_at_s: float | None = None
        self._note = ""

    def progress(self, data: Mapping[str, Any]) -> None:
        """Take the progress of the job; say it if enough has changed."""
        now_s = self._clock()
        self._rate.add(now_s, data["bytes_transferred"])
        share = text.percent(data["bytes_transferred"], data["bytes_total"])
        if self._said_at_s is None:
            self._said_at_s = now_s
            self._say(f"{self._name}: started")
            return
        stepped = share is not None and share // _PLAIN_STEP_PERCENT > self._said_percent // _PLAIN_STEP_PERCENT
        if stepped or (data["bytes_transferred"] and now_s - self._said_at_s >= _PLAIN_STEP_S):
            self._said_percent = self._said_percent if share is None else share
            self._said_at_s = now_s
            figures = summary(data, self._rate.bps(now_s))
            self._say(f"{self._name}: {figures}" if share is None else f"{self._name}: {share} %  {figures}")

    def note(self, sentence: str) -> None:
        """Say what the job waits for, once."""
        if sentence and sentence != self._note:
            self._say(f"{self._name}: {sentence}")
        self._note = sentence

    def tick(self) -> None:
        """Time alone changes nothing here."""

    def close(self) -> None:
        """There is nothing to clean up."""

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class SilentDisplay:
    """Shows nothing: for --quiet."""

    def progress(self, data: Mapping[str, Any]) -> None:
        """Show nothing."""

    def note(self, sentence: str) -> None:
        """Show nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


def choose_display(name: str, *, quiet: bool) -> Display:
    """Return the display that fits where standard error goes."""
    if quiet:
        return SilentDisplay()
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return TerminalDisplay(name)
    return PlainDisplay(name)
