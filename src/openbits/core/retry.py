"""Whether, and after which pause, a broken connection is taken up again inside a transfer.

The decision is a value.  A transfer that has made progress goes on by itself: at once the first
time, then after pauses that grow, until nothing has come in for the whole patience; then the job
waits for its retry delay instead (issue: at most 30 s).  Any progress starts the patience anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

_PAUSES_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)


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
    attempts: int = 0
    """Breaks since then."""

    def after_progress(self, at: float) -> Patience:
        """Bytes came in."""
        return replace(self, progress_at=at, attempts=0)

    def after_break(self, now: float, *, not_before_s: float = 0.0) -> tuple[Patience, TryAgain | GiveUp]:
        """The connection broke, or could not be made again; the server may have asked for a pause."""
        if self.progress_at is None:
            return self, GiveUp()
        pause_s = max(_PAUSES_S[min(self.attempts, len(_PAUSES_S) - 1)], not_before_s)
        left_s = self.progress_at + self.limit_s - now
        if left_s <= 0 or not_before_s > left_s:
            return self, GiveUp()
        return replace(self, attempts=self.attempts + 1), TryAgain(min(pause_s, left_s))
