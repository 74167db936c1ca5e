"""Files of which an application asks for pieces (J67, F11–F13).

The rules:

- Nothing that is here, or asked for already, is asked for again; a wanted piece is dropped as soon as it is here.
- What is here counts only when it is durable, and only as long as the remote file stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from openbits.core import moves
from openbits.core.environment import Environment
from openbits.core.events import Entry, MovePosition, RangesFilled, RequestRanges, Step
from openbits.core.model import TO_EOF, ByteRange, Demand, File, Job, JobType
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError

_BEYOND: Final = 2**63
"""Where a range ends that reaches to an end that is not known yet."""
Interval = tuple[int, int]


def merged(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return the same bytes as ascending, disjoint ranges that do not touch."""
    return _ranges(_union(map(_interval, ranges)))


def without(ranges: Iterable[ByteRange], taken: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """Return what is in `ranges` and not in `taken`, as `merged` does."""
    left: list[Interval] = []
    holes = _union(map(_interval, taken))
    for start, end in _union(map(_interval, ranges)):
        position = start
        for hole_start, hole_end in holes:
            if hole_end <= position or hole_start >= end:
                continue
            if hole_start > position:
                left.append((position, hole_start))
            position = max(position, hole_end)
        if position < end:
            left.append((position, end))
    return _ranges(left)


def change(job: Job, event: RequestRanges | MovePosition, env: Environment) -> Step:
    """F11, F12. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE, BG_E_INVALID_STATE."""
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    refuse_without_random_access(job, event.index)
    file = job.files[event.index]
    before = file.demand or Demand()
    match event:
        case RequestRanges(ranges=ranges):
            _check(file, ranges)
            new = without(_clipped(file, ranges), (*before.filled, *before.wanted))
            demand = replace(before, wanted=merged((*before.wanted, *new)))
            text = f"ranges requested: {', '.join(_name(piece) for piece in new) or 'none that is not here'}"
            entries: tuple[Entry, ...] = (Entry(kind="changed", text=text),)
        case MovePosition(offset=offset):
            if file.bytes_total is not None and offset >= max(1, file.bytes_total):
                raise _outside(file, f"the position {offset}")
            demand, entries = replace(before, position=offset), ()
        case _:
            assert_never(event)
    job = moves.with_files(moves.touched(job, env), {event.index: replace(file, demand=demand)})
    return Step(job=job, changed_files=(event.index,), entries=entries)


def filled(job: Job, event: RangesFilled, env: Environment) -> Step | None:
    """More of a file is here."""
    if job.state.is_final or job.is_upload or event.run != job.run:
        return None
    file = job.files[event.index]
    if file.transferred or not event.ranges:
        return None
    before = file.demand or Demand()
    here = merged((*before.filled, *event.ranges))
    demand = replace(before, filled=here, wanted=without(before.wanted, here))
    count = sum(piece.length for piece in here)
    changed = replace(file, demand=demand, bytes_transferred=count)
    return Step(job=moves.with_files(moves.progressed(job, env), {event.index: changed}), changed_files=(event.index,))


def refuse_without_random_access(job: Job, index: int) -> None:
    """Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED for a file whose pieces cannot be asked for."""
    reason = ""
    if job.type is not JobType.DOWNLOAD or not job.settings.on_demand_mode:
        reason = "the job is not in on-demand mode: set on_demand_mode before it is resumed"
    elif job.files[index].resumable is False:
        reason = "its server does not give parts of the file"
    if reason:
        raise BitsError("BG_E_RANDOM_ACCESS_NOT_SUPPORTED", f"{job.files[index].local_name}: {reason}")


def _check(file: File, ranges: tuple[ByteRange, ...]) -> None:
    if not ranges:
        raise BitsError("E_INVALIDARG", "no range was named: give at least one")
    for piece in ranges:
        end = piece.offset + (1 if piece.length == TO_EOF else piece.length)
        if piece.offset < 0 or (piece.length != TO_EOF and piece.length <= 0) or end > _BEYOND:
            raise _outside(file, f"the range {_name(piece)}")
        if file.bytes_total is not None and end > file.bytes_total:
            raise _outside(file, f"the range {_name(piece)}")


def _outside(file: File, what: str) -> BitsError:
    size = "" if file.bytes_total is None else f", which has {file.bytes_total} bytes"
    return BitsError("BG_E_INVALID_RANGE", f"{what} is outside the file {file.local_name}{size}")


def _clipped(file: File, ranges: tuple[ByteRange, ...]) -> tuple[ByteRange, ...]:
    """Give ranges with an open end one, where it is known."""
    if file.bytes_total is None:
        return ranges
    total = file.bytes_total
    return tuple(ByteRange(piece.offset, total - piece.offset) if piece.length == TO_EOF else piece for piece in ranges)


def _interval(piece: ByteRange) -> Interval:
    return piece.offset, _BEYOND if piece.length == TO_EOF else piece.offset + piece.length


def _ranges(intervals: Iterable[Interval]) -> tuple[ByteRange, ...]:
    return tuple(ByteRange(start, TO_EOF if end >= _BEYOND else end - start) for start, end in intervals)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    union: list[Interval] = []
    for start, end in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def _name(piece: ByteRange) -> str:
    return f"{piece.offset}:{'eof' if piece.length == TO_EOF else piece.length}"
