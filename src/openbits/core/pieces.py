"""Sets of a file's bytes, written as ranges, and what they leave to do for a file in on-demand mode (J67, F11–F13).

The rule: a set has one form only, ascending ranges that neither overlap nor touch, so that equal sets are equal values.
A set may be TO_EOF long as long as nobody knows where the file ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from openbits.core.model import TO_EOF, ByteRange, Demand, File, Job

BEYOND: Final = 2**63
"""Where a range ends that reaches to an end that is not known yet."""
Interval = tuple[int, int]


def merged(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return the same bytes as ascending, disjoint ranges that do not touch."""
    return _ranges(_union(map(interval, ranges)))


def without(ranges: Iterable[ByteRange], taken: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return what is in `ranges` and not in `taken`, as `merged` does."""
    left: list[Interval] = []
    holes = _union(map(interval, taken))
    at = 0
    for start, end in _union(map(interval, ranges)):
        position = start
        while at < len(holes) and holes[at][1] <= position:
            at += 1
        for hole_start, hole_end in holes[at:]:
            if hole_start >= end:
                break
            if hole_start > position:
                left.append((position, hole_start))
            position = max(position, hole_end)
        if position < end:
            left.append((position, end))
    return _ranges(left)


def within(ranges: Iterable[ByteRange], size_bytes: int) -> tuple[ByteRange, ...]:
    """Return what of `ranges` lies in a file of that size, as `merged` does: no range is TO_EOF long any more."""
    return _ranges((start, min(end, size_bytes)) for start, end in _union(map(interval, ranges)) if start < size_bytes)


def outside(ranges: Iterable[ByteRange], size_bytes: int) -> ByteRange | None:
    """Return the first range that is not wholly in a file of that size; of an empty file, all of it is in it."""
    for piece in ranges:
        if piece.length == TO_EOF:
            if piece.offset >= max(1, size_bytes):
                return piece
        elif piece.offset + piece.length > size_bytes:
            return piece
    return None


def count_bytes(ranges: Iterable[ByteRange]) -> int:
    """Return how many bytes a set has whose ends are known."""
    return sum(piece.length for piece in ranges)


def end_of(ranges: tuple[ByteRange, ...]) -> int:
    """Return where a set whose ends are known ends; 0 for the empty one."""
    return ranges[-1].offset + ranges[-1].length if ranges else 0


def from_position(ranges: Iterable[ByteRange], position: int | None) -> tuple[ByteRange, ...]:
    """Return a set in the order in which it is fetched: what lies at `position` or behind it first (F11)."""
    ordered = merged(ranges)
    if position is None:
        return ordered
    intervals = list(map(interval, ordered))
    behind = [(max(start, position), end) for start, end in intervals if end > position]
    before = [(start, min(end, position)) for start, end in intervals if start < position]
    return _ranges(behind) + _ranges(before)


def name_of(piece: ByteRange) -> str:
    """Return a range as people write it."""
    return f"{piece.offset}:{'eof' if piece.length == TO_EOF else piece.length}"


def interval(piece: ByteRange) -> Interval:
    """Return where a range begins and where it ends."""
    return piece.offset, BEYOND if piece.length == TO_EOF else piece.offset + piece.length


def _ranges(intervals: Iterable[Interval]) -> tuple[ByteRange, ...]:
    return tuple(ByteRange(start, TO_EOF if end >= BEYOND else end - start) for start, end in intervals)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    union: list[Interval] = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


# --- what they leave to do -------------------------------------------------------------------


def is_asked_for(file: File) -> bool:
    """Whether anything is to be done for a file: pieces are missing, or all are here and it is not finished yet."""
    if file.transferred or file.demand is None:
        return False
    return bool(file.demand.wanted) or count_bytes(file.demand.filled) == file.bytes_total


def is_idle(job: Job) -> bool:
    """Whether an on-demand job has nothing to fetch although it is not done: it waits for requests (S10)."""
    return job.settings.on_demand_mode and job.has_work and not any(map(is_asked_for, job.files))


def emptied(file: File) -> File:
    """Return a file of which nothing is here any more: what was here by request is wanted again."""
    demand = file.demand
    if demand is not None:
        demand = replace(demand, wanted=merged((*demand.wanted, *demand.filled)), filled=())
    return replace(file, bytes_transferred=0, demand=demand)


def sized(file: File, size_bytes: int | None) -> Demand | None:
    """Return the demand of a file that has turned out to have this size: nothing behind its end is wanted."""
    if file.demand is None or size_bytes is None:
        return file.demand
    return replace(file.demand, wanted=within(file.demand.wanted, size_bytes))
