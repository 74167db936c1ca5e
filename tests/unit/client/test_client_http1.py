"""The response reader: strict, and the same however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.client.http1 import MalformedResponse, ResponseReader, encode_query, encode_request, quote

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n1;x=y\r\nl\r\nA\r\no and more\r\n0\r\nTrailer: 1\r\n\r\n"
)


def read(*parts: bytes) -> ResponseReader:
    reader = ResponseReader()
    for part in parts:
        reader.feed(part)
    return reader


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_counted_body_is_the_same_however_it_is_cut(places: list[int]) -> None:
    reader = read(*cut(COUNTED, places))
    assert (reader.status, reader.done, reader.keep_alive) == (200, True, True)
    assert reader.take_body() == b"hello"


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_chunked_body_is_the_same_however_it_is_cut(places: list[int]) -> None:
    reader = ResponseReader()
    body = b""
    for part in cut(CHUNKED, places):
        assert not reader.done or not part
        reader.feed(part)
        body += reader.take_body()
    assert (body, reader.done, reader.keep_alive) == (b"hello and more", True, True)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_answer_or_in_malformed_response(data: bytes) -> None:
    reader = ResponseReader()
    try:
        reader.feed(data)
    except MalformedResponse:
        return
    assert not reader.done or reader.status


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "neither a length nor chunks"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "ambiguous"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "ambiguous"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not one"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "does not begin with its length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than it says"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "too long"),
    ],
)
def test_what_is_not_ours_is_refused(answer: bytes, words: str) -> None:
    with pytest.raises(MalformedResponse, match=words):
        read(answer)


def test_interim_answers_are_passed_over() -> None:
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED).take_body() == b"hello"


def test_connection_close_and_surplus_bytes_end_keep_alive() -> None:
    assert not read(COUNTED.replace(b"Content-Type: application/json", b"Connection: Close")).keep_alive
    assert not read(COUNTED + b"HTTP/1.1").keep_alive


def test_no_content_has_no_body() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n").done


def test_requests_and_queries_are_escaped() -> None:
    assert encode_query({"name": "a b&c=ä/\udcff", "limit": 5}) == "?name=a%20b%26c%3D%C3%A4%2F%FF&limit=5"
    assert encode_query({}) == ""
    assert quote("BG_E-1.~") == "BG_E-1.~"
    request = encode_request("POST", "/v1/jobs", b"{}", {"A": "b"})
    assert request.startswith(b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\n")
    assert request.endswith(b"A: b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
