"""Byte ranges of a file and where their bytes stand in the local file (inventory J41, D2).

The local file holds the ranges back to back in the order in which they were asked for.  As ranges
never overlap, each byte of the remote file belongs to at most one place; so parts may come merged,
reordered or in pieces, and still every byte finds its place or is dropped.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from openbits.core.model import TO_EOF, ByteRange
from openbits.errors import BitsError

_HEADER_BYTES: Final = 1_400
"""Length of a Range header that every server takes (nginx and Apache stop at 8 KiB for all headers)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` bytes of the remote file from `remote_offset` stand at `local_offset`."""

    remote_offset: int
    length: int
    local_offset: int

    @property
    def remote_end(self) -> int:
        """The first remote byte behind the segment."""
        return self.remote_offset + self.length


def _name(piece: ByteRange) -> str:
    return f"{piece.offset}:{'eof' if piece.length == TO_EOF else piece.length}"


def known_total(ranges: Sequence[ByteRange]) -> int | None:
    """Bytes of the local file; None while a range reaches to an end that is not known yet."""
    return None if any(piece.length == TO_EOF for piece in ranges) else sum(piece.length for piece in ranges)


def resolve(ranges: Sequence[ByteRange], size: int) -> tuple[Segment, ...]:
    """Lay the ranges of a file of `size` bytes back to back.

    Raises BitsError BG_E_INVALID_RANGE when one begins or ends outside the file.
    """
    segments = []
    local_offset = 0
    for piece in ranges:
        length = size - piece.offset if piece.length == TO_EOF else piece.length
        if length <= 0 or piece.offset + length > size:
            raise BitsError(
                "BG_E_INVALID_RANGE", f"the range {_name(piece)} is outside the file, which has {size} bytes"
            )
        segments.append(Segment(piece.offset, length, local_offset))
        local_offset += length
    return tuple(segments)


class Coverage:
    """Which bytes of the local file are there; intervals are disjoint, sorted and never touch."""

    def __init__(self, prefix: int = 0) -> None:
        self._starts: list[int] = [0] if prefix else []
        self._ends: list[int] = [prefix] if prefix else []

    def __repr__(self) -> str:
        return f"Coverage({list(zip(self._starts, self._ends, strict=True))})"

    @property
    def prefix(self) -> int:
        """Bytes from the beginning without a gap: what a resumption may keep."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """Where what is there begins and ends."""
        return tuple(zip(self._starts, self._ends, strict=True))

    @property
    def total(self) -> int:
        """Bytes that are there."""
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Bytes from `start` up to, not including, `end` are there now."""
        if start >= end:
            return
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The intervals between `start` and `end` that are missing."""
        position = start
        for covered_start, covered_end in zip(self._starts, self._ends, strict=True):
            if covered_end <= position:
                continue
            if covered_start >= end:
                break
            if covered_start > position:
                yield position, covered_start
            position = covered_end
        if position < end:
            yield position, end


class Layout:
    """Finds the local place of remote bytes."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.total = sum(segment.length for segment in segments)
        self._by_remote = sorted(segments, key=lambda segment: segment.remote_offset)
        self._ends = [segment.remote_end for segment in self._by_remote]

    def places(self, remote_offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The wanted runs of `length` remote bytes: (position in them, local offset, length of the run)."""
        end = remote_offset + length
        for segment in self._by_remote[bisect.bisect_right(self._ends, remote_offset) :]:
            if segment.remote_offset >= end:
                return
            start = max(remote_offset, segment.remote_offset)
            stop = min(end, segment.remote_end)
            yield start - remote_offset, segment.local_offset + start - segment.remote_offset, stop - start

    def missing(self, coverage: Coverage) -> list[Segment]:
        """What is still to be fetched, in the order of the local file."""
        wanted = []
        for segment in self.segments:
            local_end = segment.local_offset + segment.length
            for start, end in coverage.gaps(segment.local_offset, local_end):
                wanted.append(Segment(segment.remote_offset + start - segment.local_offset, end - start, start))
        return wanted


def range_header(wanted: Sequence[Segment], *, most: int) -> tuple[str, int]:
    """A Range value for the first `most` or fewer of the segments, and how many it asks for.

    It stays short enough for every server; what does not fit is asked for next time.
    """
    specs: list[str] = []
    size = len("bytes=")
    for segment in wanted[:most]:
        last = "" if segment.length == TO_EOF else segment.remote_end - 1
        spec = f"{segment.remote_offset}-{last}"
        if specs and size + len(spec) + 1 > _HEADER_BYTES:
            break
        specs.append(spec)
        size += len(spec) + 1
    return "bytes=" + ",".join(specs), len(specs)


def as_segments(ranges: Sequence[ByteRange]) -> tuple[Segment, ...]:
    """The ranges as they are asked for while the size of the file is not known; an open end stays open."""
    segments = []
    local_offset = 0
    for piece in ranges:
        segments.append(Segment(piece.offset, piece.length, local_offset))
        local_offset += max(0, piece.length)
    return tuple(segments)
