"""worker.decoding: a coding that nobody asked for is undone, strictly (D13)."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.worker.decoding import CodingError, Decoder, can_decode, describes_the_file


def undo(coding: str, data: bytes, step: int) -> bytes:
    decoder = Decoder(coding)
    pieces = [piece for at in range(0, len(data), step) for piece in decoder.feed(data[at : at + step])]
    return b"".join([*pieces, *decoder.finish()])


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_every_coding_in_pieces(content: bytes, step: int) -> None:
    raw = zlib.compressobj(wbits=-15)
    assert undo("gzip", gzip.compress(content, mtime=0), step) == content
    assert undo("x-gzip", gzip.compress(content, mtime=0) + gzip.compress(b"more", mtime=0), step) == content + b"more"
    assert undo("deflate", zlib.compress(content), step) == content
    assert undo("deflate", raw.compress(content) + raw.flush(), step) == content


def test_much_from_little_comes_in_pieces() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    sizes = [len(piece) for piece in Decoder("gzip").feed(bomb)]
    assert max(sizes) <= 256 * 1024
    assert len(undo("gzip", bomb, 777)) == 50_000_000


@given(st.binary(min_size=1, max_size=500), st.data())
def test_a_body_that_is_cut_off_is_noticed(content: bytes, data: st.DataObject) -> None:
    whole = gzip.compress(content, mtime=0)
    with pytest.raises(CodingError):
        undo("gzip", whole[: data.draw(st.integers(1, len(whole) - 1))], 64)


@pytest.mark.parametrize(
    "rubbish", [b"not gzip", gzip.compress(b"x", mtime=0) + b"tail", gzip.compress(b"x", mtime=0)[:-4] + b"crc!"]
)
def test_what_is_not_gzip(rubbish: bytes) -> None:
    with pytest.raises(CodingError):
        undo("gzip", rubbish, 5)


def test_which_codings_are_known() -> None:
    assert can_decode(("gzip",))
    assert can_decode(("deflate",))
    assert not can_decode(("br",))
    assert not can_decode(("gzip", "gzip"))
    assert describes_the_file("http://a/x.tar.gz?y=1", ("gzip",))
    assert describes_the_file("http://a/X.TGZ", ("x-gzip",))
    assert not describes_the_file("http://a/x.txt", ("gzip",))
    assert not describes_the_file("http://a/x.gz", ("br",))
