"""Whether, and after which pause, a broken connection is taken up again inside a transfer.

The decision is a value.  A transfer that has made progress goes on by itself: at once the first
time, then after pauses that grow, until nothing has come in for the whole patience; then the job
waits for its retry delay instead (issue: at most 30 s).  Any progress starts the patience anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

_PAUSES_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
_PAUSE_AFTER_PROGRESS_S: Final = 1.0
_CALM_S: Final = 10.0
"""A break so long after the last one is the first of a new series."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Connect again after the pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Enough: report the failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How it stands with one file's connection; times are monotonic seconds."""

    limit_s: float
    progress_at: float | None = None
    """When the last byte came in; None: none in this run, and then nothing is taken up again."""
    broken_at: float | None = None
    """When the connection broke last."""
    attempts: int = 0
    """Breaks in a row, with progress between them or not."""

    def after_progress(self, at: float) -> Patience:
        """Bytes came in."""
        return replace(self, progress_at=at)

    def after_break(self, now: float, *, not_before_s: float = 0.0) -> tuple[Patience, TryAgain | GiveUp]:
        """The connection broke, or could not be made again; the server may have asked for a pause.

        A server that breaks off after every few bytes is making progress, and is not to be
        hammered for it: the pauses grow then too, though not beyond a second.
        """
        if self.progress_at is None:
            return self, GiveUp()
        attempts = 0 if self.broken_at is None or now - self.broken_at > _CALM_S else self.attempts
        pause_s = _PAUSES_S[min(attempts, len(_PAUSES_S) - 1)]
        if self.broken_at is not None and self.progress_at > self.broken_at:
            pause_s = min(pause_s, _PAUSE_AFTER_PROGRESS_S)
        pause_s = max(pause_s, not_before_s)
        left_s = self.progress_at + self.limit_s - now
        if left_s <= 0 or not_before_s > left_s:
            return self, GiveUp()
        return replace(self, attempts=attempts + 1, broken_at=now), TryAgain(min(pause_s, left_s))
