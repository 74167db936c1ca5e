"""The shapes of the calls about pieces of files (F11–F13); see `wire`."""

from __future__ import annotations

from openbits.api.wire import Offset, RangeIn, RangeOut, Request, Response


class RangesIn(Request):
    """Ranges of a file that are wanted; they may overlap each other, and what is here or wanted already (F12)."""

    ranges: list[RangeIn]


class PositionIn(Request):
    """From which byte on what is missing is fetched first (F11)."""

    offset: Offset


class PiecesOut(Response):
    """What is wanted of a file, and what is here: ascending ranges that do not touch (F13)."""

    wanted: list[RangeOut]
    filled: list[RangeOut]
    position: int | None
