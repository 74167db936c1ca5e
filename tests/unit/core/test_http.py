"""core.http: what header text means (inventory R1, R4, R5, D4, D9, F10)."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.http import (
    ContentRange,
    InvalidAnswer,
    Response,
    Verdict,
    classify_status,
    date_to_epoch_s,
    exact_target,
    final_response,
    format_date,
    has_odd_escapes,
    host_of,
    is_same_origin,
    method_after,
    parse_content_range,
    parse_date,
    parse_response,
    wire_url,
)

NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def response(*lines: str, status: int = 200) -> Response:
    first = f"HTTP/1.1 {status} OK\r\n".encode()
    return parse_response([first, *((line + "\r\n").encode("latin-1") for line in lines), b"\r\n"])


@pytest.mark.parametrize("padding", ["x", "é"])
def test_validators_that_are_a_burden_are_none(padding: str) -> None:
    """They travel in one frame with the headers: a server must not be able to end the worker with them."""
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert response(f'ETag: "{padding * 1022}"', f"Last-Modified: {date}").etag is not None
    longer = response(f'ETag: "{padding * 1023}"', f"Last-Modified: {date} ({padding * 1000})")
    assert parse_date(longer.fields["last-modified"][0]) is not None, "the date alone would pass"
    assert (longer.etag, longer.last_modified) == (None, None)


def test_fields_are_found_in_any_case() -> None:
    answer = response('ETAG: "x"', "content-LENGTH:  12 ", "X: a", "x: b", "no colon")
    assert answer.etag == '"x"'
    assert answer.content_length == 12
    assert answer.fields["x"] == ["a", "b"]
    assert (answer.status, answer.version) == (200, "1.1")
    assert answer.header_text.startswith("HTTP/1.1 200 OK\r\nETAG:")


def test_the_answer_stands_between_hints_and_trailers() -> None:
    hints = [b"HTTP/1.1 103 Hints\r\n", b"Link: x\r\n", b"\r\n"]
    block = [b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n", b"\r\n"]
    answer = final_response([*hints, *block, b"X: 2\r\n"])
    assert answer is not None
    assert (answer.status, answer.fields["x"]) == (200, ["1"])
    assert final_response([*hints, *block[:-1]]) is None
    assert final_response(hints) is None
    assert final_response([]) is None
    with pytest.raises(InvalidAnswer):
        final_response([b"rubbish\r\n", b"\r\n"])


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1\r\n", b"ICY 200 OK\r\n", b"HTTP/1.1 abc\r\n"])
def test_not_http(first: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        parse_response([first] if first else [])


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_header_block_is_too_strange(lines: list[bytes]) -> None:
    answer = parse_response([b"HTTP/1.1 206 x\r\n", *lines])
    for name in ("etag", "last_modified", "content_range", "content_codings", "offers_ranges", "header_text"):
        getattr(answer, name)
    answer.retry_after_s(now=NOW)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["Content-Length: 5"], 5),
        (["Content-Length: 5", "Content-Length: 5"], 5),
        (["Content-Length: 5, 5"], 5),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], None),
    ],
)
def test_content_length(lines: list[str], expected: int | None) -> None:
    assert response(*lines).content_length == expected


@pytest.mark.parametrize("value", ["-1", "5, 6", "abc", "1e3", "", "9" * 30])
def test_content_length_that_makes_no_sense(value: str) -> None:
    with pytest.raises(InvalidAnswer):
        _ = response(f"Content-Length: {value}").content_length


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10)),
        ("BYTES 5-9/*", ContentRange(5, 9, None)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("bytes 9-5/10", None),
        ("bytes 0-10/10", None),
        ("bytes=0-9/10", None),
        ("items 0-9/10", None),
        ("bytes 0-9", None),
        ("", None),
    ],
)
def test_content_range(value: str, expected: ContentRange | None) -> None:
    assert parse_content_range(value) == expected


def test_two_content_ranges_are_none() -> None:
    assert response("Content-Range: bytes 0-9/10", "Content-Range: bytes 0-8/10").content_range is None


@pytest.mark.parametrize(
    ("value", "expected"), [('"a"', '"a"'), ('W/"a"', None), ("a", None), ('""', '""'), ('"a" "b"', None)]
)
def test_only_strong_entity_tags_count(value: str, expected: str | None) -> None:
    assert response(f"ETag: {value}").etag == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120),
        ("0", 0),
        ("-5", None),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:02:00 GMT", 120),
        ("Sun, 31 Dec 2023 00:00:00 GMT", 0),
        ("9" * 17, 7 * 86_400),
    ],
)
def test_retry_after(value: str, expected: int | None) -> None:
    assert response(f"Retry-After: {value}").retry_after_s(now=NOW) == expected


def test_retry_after_counts_from_the_servers_clock() -> None:
    answer = response("Date: Tue, 02 Jan 2024 00:00:00 GMT", "Retry-After: Tue, 02 Jan 2024 00:00:30 GMT")
    assert answer.retry_after_s(now=NOW) == 30


@pytest.mark.parametrize(
    "value", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_dates_in_all_three_forms(value: str) -> None:
    assert date_to_epoch_s(value) == 784_111_777


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_dates_survive_the_way_out_and_back(epoch_s: int) -> None:
    assert date_to_epoch_s(format_date(epoch_s)) == epoch_s


@given(st.text(max_size=40))
def test_no_date_is_too_strange(value: str) -> None:
    parse_date(value)


@pytest.mark.parametrize("value", ["Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:77 GMT", "x", ""])
def test_dates_that_are_none(value: str) -> None:
    assert parse_date(value) is None


def test_verdicts_are_those_of_the_inventory() -> None:
    """R1, and 429."""
    fatal_3xx = {300, 301, 302, 303, 304, 305, 307}
    for status in range(300, 400):
        assert (classify_status(status) is Verdict.FATAL) == (status in fatal_3xx)
    for status in range(400, 500):
        assert (classify_status(status) is Verdict.TRANSIENT) == (status in (408, 409, 429))
    for status in range(500, 600):
        assert (classify_status(status) is Verdict.FATAL) == (status in (501, 505))
    assert {classify_status(status) for status in (201, 204, 600, 999)} == {Verdict.TRANSIENT}


def test_origins() -> None:
    assert is_same_origin("http://A/x", "http://a:80/y")
    assert not is_same_origin("http://a/x", "https://a/x")
    assert not is_same_origin("http://a/x", "http://a:8080/x")


def test_sentences_never_show_passwords() -> None:
    assert host_of("https://user:secret@example.com:8443/x") == "example.com:8443"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a/b%20c?d=e&f#g", b"http://a/b%20c?d=e&f#g"),
        ("http://a/caf\u00e9", b"http://a/caf%C3%A9"),
        ("http://a/{x}|y", b"http://a/{x}|y"),
        ("http://a/b?mail=me@example.org", b"http://a/b?mail=me@example.org"),
    ],
)
def test_urls_are_left_alone(url: str, expected: bytes) -> None:
    assert wire_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["http://user:secret@host/x?y@z", "https://user@host/x?y@z", "http://a@b:c@host/x?y@z", "HTTP://:@host/x?y@z"],
)
def test_libcurl_is_never_given_a_user_name(url: str) -> None:
    """It would prove it unasked to whoever answers (I9)."""
    assert wire_url(url).lower().partition(b"://")[2] == b"host/x?y@z"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_303_alone_changes_the_method(status: int) -> None:
    """H10; RFC 9110, section 15.4."""
    assert method_after("PROPFIND", status) == ("" if status == 303 else "PROPFIND")
    assert response("Location: /x", status=status).is_redirect
    assert not response(status=status).is_redirect


@pytest.mark.parametrize(
    ("url", "is_odd"),
    [
        ("http://a/b%2Fc?d=%E4", False),
        ("http://a/100%", False),
        ("http://a/b%2fc", True),
        ("http://a/b?%aF", True),
        ("http://a/b%Fa", True),
        ("http://a/fade", False),
    ],
)
def test_escapes_that_libcurl_would_write_anew(url: str, is_odd: bool) -> None:
    """D6: they are sent as they were written."""
    assert has_odd_escapes(url.encode()) is is_odd


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a", "/"),
        ("http://a?b", "/?b"),
        ("https://a:1/b/../%2e?c#d", "/b/../%2e?c"),
        ("http://[::1]:8//x?#", "//x?"),
        ("http://a#b/c", "/"),
    ],
)
def test_targets_of_requests(url: str, target: str) -> None:
    assert exact_target(url.encode(), is_for_proxy=False) == target.encode()
    assert exact_target(url.encode(), is_for_proxy=True) == url.encode().partition(b"#")[0]
