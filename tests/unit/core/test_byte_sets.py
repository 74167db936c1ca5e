"""Sets of a file's bytes as ranges, against sets of numbers (F11–F13)."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from openbits.core.model import TO_EOF, ByteRange
from openbits.core.pieces import count_bytes, end_of, from_position, merged, outside, within, without

SIZE = 40
A_RANGE = st.one_of(
    st.builds(ByteRange, st.integers(0, SIZE - 1), st.integers(1, 15)),
    st.builds(ByteRange, st.integers(0, SIZE - 1), st.just(TO_EOF)),
)
RANGES = st.lists(A_RANGE, max_size=8).map(tuple)
CLOSED = st.lists(st.builds(ByteRange, st.integers(0, SIZE - 1), st.integers(1, 15)), max_size=8).map(tuple)


def numbers(ranges: tuple[ByteRange, ...], size: int = 2 * SIZE) -> set[int]:
    """The bytes that the ranges name, in a file of this size."""
    return {
        at
        for piece in ranges
        for at in range(piece.offset, size if piece.length == TO_EOF else piece.offset + piece.length)
        if at < size
    }


def assert_normal(ranges: tuple[ByteRange, ...]) -> None:
    """Ascending, not empty, neither overlapping nor touching; only the last one may be open."""
    for piece, following in pairwise(ranges):
        assert piece.length > 0
        assert piece.offset + piece.length < following.offset
    assert not ranges or ranges[-1].length > 0 or ranges[-1].length == TO_EOF


@given(RANGES)
def test_merging_keeps_the_bytes_and_has_one_form(ranges: tuple[ByteRange, ...]) -> None:
    result = merged(ranges)
    assert_normal(result)
    assert numbers(result) == numbers(ranges)
    assert merged(reversed(ranges)) == result
    assert merged(result) == result


@given(RANGES, RANGES)
def test_taking_away(ranges: tuple[ByteRange, ...], taken: tuple[ByteRange, ...]) -> None:
    result = without(ranges, taken)
    assert_normal(result)
    assert numbers(result) == numbers(ranges) - numbers(taken)


@given(RANGES, st.integers(0, 2 * SIZE))
def test_what_lies_within_a_file(ranges: tuple[ByteRange, ...], size: int) -> None:
    result = within(ranges, size)
    assert_normal(result)
    assert numbers(result) == numbers(ranges, size)
    assert count_bytes(result) == len(numbers(ranges, size))
    assert end_of(result) == max(numbers(ranges, size), default=-1) + 1


@given(RANGES, st.integers(0, 2 * SIZE))
def test_what_lies_outside_is_named(ranges: tuple[ByteRange, ...], size: int) -> None:
    beyond = outside(ranges, size)
    is_inside = all(
        (piece.offset < max(1, size)) if piece.length == TO_EOF else piece.offset + piece.length <= size
        for piece in ranges
    )
    assert (beyond is None) == is_inside
    assert beyond is None or beyond in ranges


@given(RANGES, st.integers(0, SIZE))
def test_the_order_in_which_it_is_fetched(ranges: tuple[ByteRange, ...], position: int) -> None:
    """F11: nothing is lost, and everything from the position on comes before everything else."""
    result = from_position(ranges, position)
    assert numbers(result) == numbers(ranges)
    turned = [piece for piece in result if piece.offset >= position]
    assert list(result[: len(turned)]) == turned
    assert from_position(ranges, None) == merged(ranges)
