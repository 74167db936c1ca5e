"""The part of a file that a request carries: in order, whole, and read ahead, but never far (issue 4, part 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.errors import ErrorContext
from openbits.worker.failure import Failure, TransferError
from openbits.worker.headers import upload_lines
from openbits.worker.source import Pieces

KIBI = 1024
CONTENT = bytes(range(256)) * 16 * KIBI
LOST = Failure(name="BG_E_LOCAL_FILE_CHANGED", context=ErrorContext.LOCAL_FILE, message="changed", transient=False)


class FakeSource:
    """Reads when the test says so."""

    path = "/source"

    def __init__(self) -> None:
        self.ordered: list[tuple[int, int, bool, Callable[[bytes | Failure], None]]] = []

    def read(self, offset: int, count: int, *, first: bool, done: Callable[[bytes | Failure], None]) -> None:
        self.ordered.append((offset, count, first, done))

    def give(self, failure: Failure | None = None) -> None:
        offset, count, _, done = self.ordered.pop(0)
        done(failure or CONTENT[offset : offset + count])


def pieces(offset: int, length: int) -> tuple[Pieces, FakeSource]:
    source: Any = FakeSource()
    return Pieces(source, offset, length), source


def drain(made: Pieces, source: FakeSource, most: int) -> bytes:
    found = b""
    while len(found) < made.length:
        piece = made.take(most)
        if piece is None:
            source.give()
        else:
            assert 0 < len(piece) <= most
            found += piece
    return found


@given(st.integers(0, 3_000_000), st.integers(1, 900_000), st.integers(1_000, 700_000), st.integers(0, 900_000))
def test_whatever_is_taken_is_the_file(offset: int, length: int, most: int, again_from: int) -> None:
    made, source = pieces(offset, length)
    made.rewind(0, lambda: None)
    assert drain(made, source, most) == CONTENT[offset : offset + length]
    # libcurl begins again when a kept connection was dead.
    position = min(again_from, length - 1)
    made.rewind(position, lambda: None)
    made.length -= position
    assert drain(made, source, most) == CONTENT[offset + position : offset + length]


def test_little_is_read_ahead_of_a_slow_connection() -> None:
    made, source = pieces(0, len(CONTENT))
    made.rewind(0, lambda: None)
    while source.ordered:
        source.give()
    taken = made.take(512 * KIBI)
    assert taken is not None
    assert len(source.ordered) == 1
    assert source.ordered[0][0] == 2048 * KIBI


def test_only_the_first_piece_compares_the_file() -> None:
    made, source = pieces(5, len(CONTENT) - 5)
    made.rewind(0, lambda: None)
    assert [first for _, _, first, _ in source.ordered] == [True, False, False, False]


def test_the_connection_is_woken_once_when_it_waits() -> None:
    woken: list[int] = []
    made, source = pieces(0, 1000 * KIBI)
    made.rewind(0, lambda: woken.append(1))
    assert made.take(100) is None
    assert made.is_waiting
    source.give()
    source.give()
    assert woken == [1]
    assert not made.is_waiting


def test_what_was_read_for_an_earlier_beginning_is_dropped() -> None:
    made, source = pieces(0, 1000 * KIBI)
    made.rewind(0, lambda: None)
    stale = list(source.ordered)
    source.ordered.clear()
    made.rewind(700 * KIBI, lambda: None)
    for _, _, _, done in stale:
        done(b"x" * 512 * KIBI)
    assert made.take(100) is None
    source.give()
    assert made.take(100) == CONTENT[700 * KIBI :][:100]


def test_a_failure_is_told_after_the_bytes_before_it() -> None:
    made, source = pieces(0, 1000 * KIBI)
    made.rewind(0, lambda: None)
    source.give()
    source.give(LOST)
    assert made.take(512 * KIBI) == CONTENT[: 512 * KIBI]
    with pytest.raises(TransferError) as caught:
        made.take(100)
    assert caught.value.failure is LOST


def test_nobody_is_woken_after_the_end() -> None:
    woken: list[int] = []
    made, source = pieces(0, 1000 * KIBI)
    made.rewind(0, lambda: woken.append(1))
    assert made.take(100) is None
    made.stop()
    source.give()
    assert woken == []


# --- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        *("BITS-Packet-Type: Ping", "bits-anything: x", "Content-Length: 5", "CONTENT-NAME: x", "Host: x", "Range: x"),
        *("If-Range: x", "Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: close", "Upgrade: x"),
        *("Upload-Offset: 5", "Tus-Resumable: 1.0.0", "X-HTTP-Method-Override: PUT", "  Host : x", "TE: trailers"),
    ],
)
def test_headers_that_would_spoil_an_upload_are_left_out(line: str) -> None:
    assert upload_lines(f"X-Mine: 1\r\n{line}\r\nX-Last: 2\r\n") == ("X-Mine: 1", "X-Last: 2")


def test_other_headers_are_sent_as_they_are() -> None:
    text = "Authorization: Bearer t\r\nX-Empty:\r\nX-Contents: fine\r\nno colon\r\n"
    assert upload_lines(text) == ("Authorization: Bearer t", "X-Empty;", "X-Contents: fine")
