"""How many bytes the next request of an upload carries.

Requests start moderately, grow while they go well, take some seconds at most at the speed that was measured, and are
small again after an interruption, when the server may know the position better than we do.  A size that the server
refuses (413) is halved, never below 5 KiB; what it took is remembered, and more is tried again only now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from openbits.upload.memory import Fields

LEAST_BYTES: Final = 5 * 1024
MOST_BYTES: Final = 13 * 1024 * 1024
"""Windows' own limit (digest, section 5); IIS 7 refuses bodies of more than 30,000,000 bytes."""
FIRST_BYTES: Final = 64 * 1024
RESUMED_BYTES: Final = 16 * 1024
REQUEST_S: Final = 2.0
"""How long one request should take: progress and the stall timer count acknowledged bytes."""

_QUICK_S: Final = 0.5
_SHORTEST_S: Final = 0.001
_TRIALS_APART: Final = 16
_BREAKS_LIMIT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The size of the next request, and what is known of the server."""

    next_bytes: int = FIRST_BYTES
    cap_bytes: int = MOST_BYTES
    """What the server is known, or feared, not to exceed."""
    good_bytes: int = 0
    """The largest that it took."""
    calm: int = 0
    """Requests of the capped size since the cap was set."""
    trials_apart: int = _TRIALS_APART
    breaks: int = 0
    """Connections in a row that broke under a size that the server has never taken."""

    def for_new_session(self) -> Pace:
        """What is known of the server, and nothing of the connection."""
        return _known(self.cap_bytes, self.good_bytes)

    def values(self) -> dict[str, Any]:
        """The fields for a memory."""
        return {"cap_bytes": self.cap_bytes, "good_bytes": self.good_bytes}

    def resumed(self) -> Pace:
        """After an interruption."""
        return replace(self, next_bytes=min(RESUMED_BYTES, self.cap_bytes))

    def after_success(self, length: int, elapsed_s: float) -> Pace:
        """The server took a request of `length` bytes; time that ran backwards measures nothing."""
        pace = self._after_calm() if length >= self.cap_bytes < MOST_BYTES else self
        if length > pace.good_bytes:
            pace = replace(pace, good_bytes=length, breaks=0)
        if elapsed_s < 0:
            return pace
        grown = pace.next_bytes * (4 if elapsed_s < _QUICK_S else 2)
        affordable = int(length * REQUEST_S / max(elapsed_s, _SHORTEST_S))
        return replace(pace, next_bytes=min(max(min(grown, affordable), LEAST_BYTES), pace.cap_bytes))

    def _after_calm(self) -> Pace:
        if self.calm + 1 < self.trials_apart:
            return replace(self, calm=self.calm + 1)
        return replace(self, calm=0, cap_bytes=min(self.cap_bytes + self.cap_bytes // 4, MOST_BYTES))

    def after_refusal(self, length: int) -> Pace | None:
        """The server refused `length` bytes as too large; None when less makes no sense."""
        if length <= LEAST_BYTES:
            return None
        good_bytes = self.good_bytes if self.good_bytes < length else 0
        size = max(LEAST_BYTES, length // 2, good_bytes)
        was_trial = self.cap_bytes < MOST_BYTES and good_bytes > 0
        return replace(
            self,
            next_bytes=size,
            cap_bytes=size,
            good_bytes=good_bytes,
            calm=0,
            # The server's limit is settled, then: each vain trial doubles the time to the next.
            trials_apart=min(self.trials_apart * 2, 4096) if was_trial else self.trials_apart,
            breaks=0,
        )

    def after_break(self, length: int) -> Pace:
        """The connection broke under a request of `length` bytes.

        Servers and proxies that find a body too large often close at once, and their 413 is lost with the connection:
        where larger sizes than ever taken break twice in a row, that is what it is taken for.
        """
        if length <= self.good_bytes:
            return self
        if self.breaks + 1 < _BREAKS_LIMIT:
            return replace(self, breaks=self.breaks + 1)
        return self.after_refusal(length) or replace(self, breaks=0)


def read_pace(fields: Fields) -> Pace:
    """What `values` said; raises BadMemory."""
    cap_bytes = max(fields.number("cap_bytes", MOST_BYTES), LEAST_BYTES)
    return _known(cap_bytes, fields.number("good_bytes", MOST_BYTES))


def _known(cap_bytes: int, good_bytes: int) -> Pace:
    return Pace(next_bytes=min(FIRST_BYTES, cap_bytes), cap_bytes=cap_bytes, good_bytes=good_bytes)
