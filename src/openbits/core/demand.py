"""Files of which an application asks for pieces (J67, F11–F13).

The rules:

- Nothing that is here, or asked for already, is asked for again; a wanted piece is dropped as soon as it is here.
- What is here counts only when it is durable, and only as long as the remote file stays the same.
- A request starts nothing: a job that is SUSPENDED fetches what was asked for when it is resumed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from openbits.core import entries, moves
from openbits.core.environment import Environment
from openbits.core.events import AskForPieces, Effect, Entry, MovePosition, RangesFilled, RequestRanges, Step
from openbits.core.model import TO_EOF, ByteRange, Demand, File, Job, JobState, JobType
from openbits.core.pieces import (
    BEYOND,
    count_bytes,
    interval,
    is_idle,
    merged,
    name_of,
    outside,
    within,
    without,
)
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError

MOST_PIECES: Final = 600
"""In so many places may lie what is here of a file, and what is wanted: then a file fits into one frame …"""
MOST_PLACES: Final = 700
"""… also when what is under way leaves gaps; beyond, a report is not believed, and its bytes are fetched again."""
_SHOWN: Final = 5


def change(job: Job, event: RequestRanges | MovePosition, env: Environment) -> Step:
    """F11, F12. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE, BG_E_INVALID_STATE."""
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    refuse_without_random_access(job, event.index)
    file = job.files[event.index]
    before = file.demand or Demand()
    said: tuple[Entry, ...] = ()
    match event:
        case RequestRanges(ranges=ranges):
            _check(file, ranges)
            new = () if file.transferred else without(_clipped(file, ranges), (*before.filled, *before.wanted))
            demand = replace(before, wanted=merged((*before.wanted, *new)))
            _check_count(file, before, demand)
            said = (entries.ranges_requested(job, event.index, _list(new)),)
        case MovePosition(offset=offset):
            if not 0 <= offset < (BEYOND if file.bytes_total is None else max(1, file.bytes_total)):
                raise _outside(file, f"the position {offset}")
            demand = replace(before, position=offset)
            # What is wanted is fetched in two pieces then, and what was begun before is a third.
            if any(start < offset < end for start, end in map(interval, before.wanted)):
                _check_count(file, before, demand, more=1)
        case _:
            assert_never(event)
    effects: tuple[Effect, ...] = ()
    if job.state.is_active and demand != before:
        effects = (AskForPieces(job_id=job.id, index=event.index),)
    job = moves.with_files(moves.touched(job, env), {event.index: replace(file, demand=demand)})
    return Step(job=job, effects=effects, changed_files=(event.index,), entries=said)


def filled(job: Job, event: RangesFilled, env: Environment) -> Step | None:
    """More of a file is here.

    As runs of a job never overlap, what an earlier one made durable is as good as what the present one did, unless the
    remote name is another one since.
    """
    if job.state.is_final or job.is_upload or not job.settings.on_demand_mode:
        return None
    file = job.files[event.index]
    if file.transferred or not event.ranges or not (event.run == job.run or file.resumable is not None):
        return None
    before = file.demand or Demand()
    here = merged((*before.filled, *event.ranges))
    if file.bytes_total is not None:
        here = within(here, file.bytes_total)
    demand = replace(before, filled=here, wanted=without(before.wanted, here))
    if _places(demand) > max(MOST_PLACES, _places(before)):
        return None
    changed = replace(file, demand=demand, bytes_transferred=count_bytes(here))
    job = moves.with_files(moves.progressed(job, env), {event.index: changed})
    if job.state is JobState.QUEUED and is_idle(job):
        # It lost its slot with its last piece: there is nothing to wait for another one for.
        return replace(moves.idle(job, env), changed_files=(event.index,))
    return Step(job=job, changed_files=(event.index,))


def ranges_here(job: Job, index: int) -> tuple[ByteRange, ...]:
    """Return which ranges of a file are here, and durable (F13).

    Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED for a file that is not fetched as it stands: an upload, a list of ranges.
    """
    file = job.files[index]
    if job.settings.on_demand_mode and job.type is JobType.DOWNLOAD:
        return file.demand.filled if file.demand is not None else ()
    if job.type is not JobType.DOWNLOAD or file.ranges or file.resumable is False:
        refuse_without_random_access(job, index)
    return (ByteRange(0, file.bytes_transferred),) if file.bytes_transferred else ()


def refuse_without_random_access(job: Job, index: int) -> None:
    """Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED for a file whose pieces cannot be asked for."""
    reason = ""
    if job.type is not JobType.DOWNLOAD or not job.settings.on_demand_mode:
        reason = "the job is not in on-demand mode: set on_demand_mode before it is resumed"
    elif job.files[index].resumable is False and not job.files[index].transferred:
        reason = "its server does not give parts of the file"
    if reason:
        raise BitsError("BG_E_RANDOM_ACCESS_NOT_SUPPORTED", f"{job.files[index].local_name}: {reason}")


def _check(file: File, ranges: tuple[ByteRange, ...]) -> None:
    if not ranges:
        raise BitsError("E_INVALIDARG", "no range was named: give at least one")
    for piece in ranges:
        end = piece.offset + (1 if piece.length == TO_EOF else piece.length)
        if piece.offset < 0 or (piece.length != TO_EOF and piece.length <= 0) or end > BEYOND:
            raise _outside(file, f"the range {name_of(piece)}")
    beyond = None if file.bytes_total is None else outside(ranges, file.bytes_total)
    if beyond is not None:
        raise _outside(file, f"the range {name_of(beyond)}")


def _places(demand: Demand) -> int:
    return len(demand.wanted) + len(demand.filled)


def _check_count(file: File, before: Demand, demand: Demand, *, more: int = 0) -> None:
    places = _places(demand) + more
    if places > max(MOST_PIECES, _places(before)):
        raise BitsError(
            "BG_E_TOO_MANY_RANGES_IN_FILE",
            f"{file.local_name}: what is here and what is wanted would lie in {places} places, and {MOST_PIECES} are "
            "possible: ask for larger pieces, which close the gaps",
        )


def _outside(file: File, what: str) -> BitsError:
    size = "" if file.bytes_total is None else f", which has {file.bytes_total} bytes"
    return BitsError("BG_E_INVALID_RANGE", f"{what} is outside the file {file.local_name}{size}")


def _clipped(file: File, ranges: tuple[ByteRange, ...]) -> tuple[ByteRange, ...]:
    """Give ranges with an open end one, where it is known."""
    return ranges if file.bytes_total is None else within(ranges, file.bytes_total)


def _list(ranges: tuple[ByteRange, ...]) -> str:
    more = f" and {len(ranges) - _SHOWN} more" if len(ranges) > _SHOWN else ""
    return (", ".join(map(name_of, ranges[:_SHOWN])) + more) or "none that is not here"
