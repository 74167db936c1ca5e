"""What a request's head must be to be taken; and that nothing breaks out of an answer's line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.server.exchange import Client
from openbits.server.heads import HeadReader, Refused, Request, render_head

HOST = b"Host: example\r\n"


def read(data: bytes) -> Request | None:
    return HeadReader(Client(host="192.0.2.1", port=5), "http").feed(data)


def test_a_head_is_taken_apart_and_nothing_is_decoded() -> None:
    request = read(b"BITS_POST /a%2Fb/%2e?q=%20 HTTP/1.1\r\n" + HOST + b"X-Y:  z \r\nContent-Length: 5\r\n\r\nhello")
    assert request is not None
    head = request.head
    assert (head.method, head.target, head.path, head.query) == (
        "BITS_POST",
        b"/a%2Fb/%2e?q=%20",
        b"/a%2Fb/%2e",
        b"q=%20",
    )
    assert (head.get("x-y"), head.authority, head.content_length, head.has_body) == ("z", "example", 5, True)
    assert (request.rest, request.keeps_alive, request.awaits_continue) == (b"hello", True, False)


@given(st.integers(min_value=1, max_value=80))
@settings(max_examples=30)
def test_it_does_not_matter_how_the_bytes_come(cut: int) -> None:
    data = b"\r\nGET /x HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\nrest"
    reader = HeadReader(Client(host=""), "https")
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    found: Request | None = None
    rest = b""
    for piece in pieces:
        if found is None:
            found = reader.feed(piece)
            rest = b"" if found is None else found.rest
        else:
            rest += piece
    assert found is not None
    assert (found.head.path, found.head.scheme, rest) == (b"/x", "https", b"rest")


@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        (b"/", b"/", "example"),
        (b"http://other:81/y?z", b"/y", "other:81"),
        (b"HTTP://other", b"/", "other"),
        (b"http://other?z", b"/", "other"),
        (b"http://[::1]:80/y", b"/y", "[::1]:80"),
    ],
)
def test_the_target_says_where(target: bytes, path: bytes, authority: str) -> None:
    request = read(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert request is not None
    assert (request.head.path, request.head.authority, request.head.scheme) == (path, authority, "http")


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, CLOSE\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_who_may_send_another_request(version: bytes, connection: bytes, keeps_alive: bool) -> None:
    request = read(b"GET / HTTP/" + version + b"\r\n" + HOST + connection + b"\r\n")
    assert request is not None
    assert request.keeps_alive is keeps_alive


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    status, text = 400, ""
    try:
        read(data)
    except Refused as refusal:
        status, text = refusal.status, str(refusal)
    assert 400 <= status < 600
    assert text.isprintable()


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"Content-Length: 1", b"Transfer-Encoding: chunked", b" ", b":", b"a"])
    )
)
def test_no_two_readings_of_a_body(pieces: list[bytes]) -> None:
    data = b"POST / HTTP/1.1\r\n" + HOST + b"".join(pieces) + b"\r\n\r\n"
    try:
        request = read(data)
    except Refused:
        return
    if request is None:
        return
    raw = data[: len(data) - len(request.rest)].lower()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert not (request.head.is_chunked and request.head.content_length is not None)
    assert raw.count(b"\ncontent-length:") <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "b\r\nX: y"), ("A", "b\n"), ("A", "\0"), ("A\r\n", "b"), ("A b", "c"), ("", "b"), ("A", "ł")],
)
def test_nothing_breaks_out_of_an_answers_line(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not a header"):
        render_head(200, ((name, value),), length=0, closes=False)


def test_an_answers_head() -> None:
    head = render_head(206, (("A", "ü"),), length=5, closes=True)
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 206 Partial Content"
    assert lines[1].startswith(b"Date: ")
    assert lines[2:] == [b"A: \xfc", b"Content-Length: 5", b"Connection: close", b"", b""]


@pytest.mark.parametrize(
    "value", [b"5" + b" " * 60_000 + b",5", b"5," + b" \t" * 30_000 + b"5", b",".join([b"5"] * 30_000)]
)
def test_no_head_keeps_the_server_busy_for_long(value: bytes) -> None:
    """Everybody waits while a head is looked at: 60 KiB took eight seconds of blanks divided in every way."""
    began = time.process_time()
    with pytest.raises(Refused):
        read(b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: " + value + b"\r\n\r\n")
    assert time.process_time() - began < 0.5
