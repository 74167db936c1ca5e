"""The event log's numbers: what each means, how grave it is, and which fields it has (section 13 of the inventory)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Level(enum.Enum):
    """How grave an event is."""

    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"
    VERBOSE = "verbose"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKind:
    """A row of the table."""

    level: Level
    meaning: str
    fields: tuple[str, ...] = ()


EVENTS: Final[dict[int, EventKind]] = {
    1: EventKind(level=Level.INFORMATION, meaning="job resumed"),
    2: EventKind(level=Level.INFORMATION, meaning="job suspended"),
    3: EventKind(level=Level.INFORMATION, meaning="job created", fields=("process_path", "process_id")),
}
_WITHOUT_NUMBER: Final = {"error": Level.ERROR, "transient error": Level.WARNING}


def level_of(event_id: int, kind: str = "") -> Level:
    """Return how grave an event is; `kind` decides for those without a number."""
    row = EVENTS.get(event_id)
    return row.level if row is not None else _WITHOUT_NUMBER.get(kind, Level.INFORMATION)
