"""core.multipart: a body in any pieces is the same body (D2)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.http import InvalidAnswer
from openbits.core.multipart import MultipartParser, PartBegins, boundary_of


def body(parts: list[tuple[int, bytes]], *, preamble: bytes = b"\r\n", end: bytes = b"\r\n--B--\r\n") -> bytes:
    text = b"\r\n".join(
        b"--B\r\ncontent-type: x/y\r\nCONTENT-RANGE: bytes %d-%d/100000\r\n\r\n%b" % (at, at + len(data) - 1, data)
        for at, data in parts
    )
    return preamble + text + end


def parse(parser: MultipartParser, pieces: list[bytes]) -> dict[int, int]:
    """The bytes by their place in the remote file."""
    found: dict[int, int] = {}
    for piece in pieces:
        for event in parser.feed(piece):
            if not isinstance(event, PartBegins):
                found.update(enumerate(event.data, event.remote_offset))
    return found


part = st.tuples(st.integers(0, 50_000), st.binary(min_size=1, max_size=80) | st.just(b"\r\n--B\r\n\r\n--B--"))


@given(
    st.lists(part, min_size=1, max_size=5),
    st.lists(st.integers(0, 800), max_size=12),
    st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"a preamble\r\n"]),
)
def test_pieces_do_not_matter(parts: list[tuple[int, bytes]], cuts: list[int], preamble: bytes) -> None:
    text = body(parts, preamble=preamble)
    edges = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    expected: dict[int, int] = {}
    for at, data in parts:
        expected.update(enumerate(data, at))
    parser = MultipartParser(b"B")
    assert parse(parser, pieces) == expected
    assert parser.finished


@given(st.lists(part, min_size=1, max_size=3), st.integers(1, 400))
def test_a_body_that_is_cut_off_is_not_finished(parts: list[tuple[int, bytes]], missing: int) -> None:
    text = body(parts)
    parser = MultipartParser(b"B")
    parse(parser, [text[: max(0, len(text) - 4 - missing)]])
    assert not parser.finished


@given(st.binary(max_size=3000))
def test_rubbish_raises_nothing_else(data: bytes) -> None:
    parser = MultipartParser(b"B")
    try:
        parse(parser, [data[:100], data[100:]])
    except InvalidAnswer:
        return


@pytest.mark.parametrize(
    "text",
    [
        b"x" * 3000,
        b"x" * 3000 + body([(0, b"abc")]),
        b"--B\r\nContent-Type: x\r\n\r\nabc\r\n--B--\r\n",
        b"--B\r\nContent-Range: bytes */10\r\n\r\nabc\r\n--B--\r\n",
        b"--B\r\nContent-Range: bytes 0-1/10\r\n\r\nabcdef\r\n--B--\r\n",
        b"--B\r\nContent-Range: bytes 0-1/10\r\nContent-Range: bytes 0-2/10\r\n\r\nabc\r\n--B--\r\n",
        b"--B\r\n" + b"X: y\r\n" * 3000,
        b"--Bxyz\r\nContent-Range: bytes 0-1/10\r\n\r\nab\r\n--B--\r\n",
    ],
)
def test_what_is_no_multipart_answer(text: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse(MultipartParser(b"B"), [text])


def test_boundaries() -> None:
    assert boundary_of("multipart/byteranges; boundary=abc") == b"abc"
    assert boundary_of('Multipart/ByteRanges; charset=x; BOUNDARY="a b\\"c"') == b'a b"c'
    assert boundary_of("multipart/x-byteranges;boundary=1") == b"1"
    assert boundary_of("text/plain") is None
    assert boundary_of("multipart/mixed; boundary=x") is None
    assert boundary_of(None) is None
    with pytest.raises(InvalidAnswer):
        boundary_of("multipart/byteranges")
