"""How patient an upload is with a server that answers and takes nothing: not for ever, over any number of runs.

Answers that bring less than was had, or nothing, are counted until a new byte of the session is acknowledged; sessions
that the server forgets, until a new byte of all.  Climbing back to where one was is neither: it ends by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from openbits.upload.memory import Fields

SETBACKS_LIMIT: Final = 10
LOST_LIMIT: Final = 5

_BYTES_LIMIT: Final = 2**63 - 1
_COUNT_LIMIT: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it has come, and how often it went wrong since."""

    mark: int = 0
    """The highest byte that this session has acknowledged."""
    setbacks: int = 0
    highest: int = 0
    """The highest byte that any session has acknowledged."""
    lost: int = 0
    """Sessions that the server forgot since then."""

    def after_answer(self, received: int, sent_offset: int) -> Progress:
        """The server has `received` bytes after a request that began at `sent_offset`."""
        progress = self
        if received > self.mark:
            progress = replace(progress, mark=received, setbacks=0)
        elif received <= sent_offset:
            progress = replace(progress, setbacks=progress.setbacks + 1)
        if received > self.highest:
            progress = replace(progress, highest=received, lost=0)
        return progress

    def after_loss(self) -> Progress:
        """The server does not know the session."""
        return replace(self, mark=0, setbacks=0, lost=self.lost + 1)

    @property
    def is_stuck(self) -> bool:
        """Whether the session leads nowhere."""
        return self.setbacks > SETBACKS_LIMIT

    @property
    def is_hopeless(self) -> bool:
        """Whether sessions with this server lead nowhere."""
        return self.lost > LOST_LIMIT

    def forgiven(self) -> Progress:
        """After a failure that somebody has to resume: whoever does it means it."""
        return replace(self, setbacks=0, lost=0)

    def values(self) -> dict[str, Any]:
        """The fields for a memory."""
        return {"mark": self.mark, "setbacks": self.setbacks, "highest": self.highest, "lost": self.lost}


def read_progress(fields: Fields) -> Progress:
    """What `values` said; raises BadMemory."""
    return Progress(
        mark=fields.number("mark", _BYTES_LIMIT),
        setbacks=fields.number("setbacks", _COUNT_LIMIT),
        highest=fields.number("highest", _BYTES_LIMIT),
        lost=fields.number("lost", _COUNT_LIMIT),
    )
