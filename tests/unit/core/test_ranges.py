"""core.ranges: checks of J41, and every byte to its place (D2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.model import TO_EOF, ByteRange
from openbits.core.names import check_ranges
from openbits.core.ranges import (
    Coverage,
    Layout,
    Segment,
    as_segments,
    known_total,
    range_header,
    resolve,
)
from openbits.errors import BitsError


def ranges(*pairs: tuple[int, int]) -> list[ByteRange]:
    return [ByteRange(offset, length) for offset, length in pairs]


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        ([], "E_INVALIDARG"),
        ([(0, 0)], "BG_E_INVALID_RANGE"),
        ([(-1, 5)], "BG_E_INVALID_RANGE"),
        ([(0, -2)], "BG_E_INVALID_RANGE"),
        ([((1 << 64) - 1, 1)], "BG_E_INVALID_RANGE"),
        ([(1, 1 << 63)], "BG_E_INVALID_RANGE"),
        ([(0, 10), (9, 1)], "BG_E_OVERLAPPING_RANGES"),
        ([(5, 5), (5, 5)], "BG_E_OVERLAPPING_RANGES"),
        ([(5, TO_EOF), (50, 5)], "BG_E_OVERLAPPING_RANGES"),
        ([(5, TO_EOF), (5, TO_EOF)], "BG_E_OVERLAPPING_RANGES"),
        ([(index * 2, 1) for index in range(501)], "BG_E_TOO_MANY_RANGES_IN_FILE"),
    ],
)
def test_ranges_that_are_refused(pairs: list[tuple[int, int]], error: str) -> None:
    with pytest.raises(BitsError) as raised:
        check_ranges(ranges(*pairs), 500)
    assert raised.value.name == error


def test_ranges_that_are_taken() -> None:
    check_ranges(ranges((0, 10), (10, 1), (100, TO_EOF)), 500)
    check_ranges(ranges((100, TO_EOF), (10, 1), (0, 10)), 500)
    check_ranges(ranges(*((index * 2, 1) for index in range(500))), 500)
    check_ranges(ranges(*((index * 2, 1) for index in range(600))), limit=None)


def test_layout_is_back_to_back_in_the_given_order() -> None:
    assert resolve(ranges((50, 10), (90, TO_EOF), (0, 5)), 100) == (
        Segment(50, 10, 0),
        Segment(90, 10, 10),
        Segment(0, 5, 20),
    )
    assert known_total(ranges((50, 10), (0, 5))) == 15
    assert known_total(ranges((50, 10), (60, TO_EOF))) is None


@pytest.mark.parametrize("pair", [(100, 1), (99, 2), (100, TO_EOF), (200, TO_EOF)])
def test_ranges_outside_the_file(pair: tuple[int, int]) -> None:
    with pytest.raises(BitsError) as raised:
        resolve(ranges(pair), 100)
    assert raised.value.name == "BG_E_INVALID_RANGE"


intervals = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(intervals, max_size=20), intervals)
def test_coverage_is_a_set_of_bytes(parts: list[tuple[int, int]], window: tuple[int, int]) -> None:
    coverage = Coverage()
    truth: set[int] = set()
    for start, end in parts:
        coverage.add(start, end)
        truth |= set(range(start, end))
    assert coverage.total == len(truth)
    assert coverage.prefix == next(at for at in range(62) if at not in truth)
    gaps = [at for start, end in coverage.gaps(*window) for at in range(start, end)]
    assert gaps == [at for at in range(*window) if at not in truth]


disjoint = st.lists(st.integers(0, 200), min_size=2, max_size=16, unique=True).map(
    lambda cuts: [(a, b - a) for a, b in zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False)]
)


@given(disjoint.flatmap(st.permutations), st.lists(intervals, max_size=30))
def test_parts_in_any_order_fill_the_file(wanted: list[tuple[int, int]], parts: list[tuple[int, int]]) -> None:
    remote = bytes(range(201))
    layout = Layout(resolve(ranges(*wanted), 201))
    expected = b"".join(remote[offset : offset + length] for offset, length in wanted)
    local = bytearray(layout.total)
    coverage = Coverage()
    for first, last in [*((start * 3, end * 3) for start, end in parts), (0, 201)]:
        data = remote[first:last]
        for start, local_offset, length in layout.places(first, len(data)):
            local[local_offset : local_offset + length] = data[start : start + length]
            coverage.add(local_offset, local_offset + length)
    assert bytes(local) == expected
    assert layout.missing(coverage) == []


def test_what_is_missing_is_asked_for() -> None:
    layout = Layout(resolve(ranges((50, 10), (0, 5)), 100))
    coverage = Coverage(3)
    coverage.add(12, 13)
    missing = layout.missing(coverage)
    assert missing == [Segment(53, 7, 3), Segment(0, 2, 10), Segment(3, 2, 13)]
    assert range_header(missing, most=64) == ("bytes=53-59,0-1,3-4", 3)
    assert range_header(missing, most=1) == ("bytes=53-59", 1)


def test_open_end_stays_open() -> None:
    assert range_header(as_segments(ranges((5, 5), (50, TO_EOF))), most=9) == ("bytes=5-9,50-", 2)


def test_header_stays_short() -> None:
    segments = [Segment(10**12 + index * 100, 50, index * 50) for index in range(500)]
    value, count = range_header(segments, most=500)
    assert len(value) < 1500
    assert value.count(",") == count - 1
