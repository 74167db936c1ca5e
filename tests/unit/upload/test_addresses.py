"""BITS-Host-Id and BITS-Reply-URL (U6, U42): digest section 5."""

from __future__ import annotations

import pytest

from openbits.upload.addresses import (
    BadAddress,
    directory_for,
    parse_host_id,
    replace_host,
    resolve_location,
    resolve_reply_url,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FRANKCAO8", "FRANKCAO8"),
        ("node-7.farm.example", "node-7.farm.example"),
        ("NODE_7", "NODE_7"),
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("[2001:DB8::7]", "[2001:db8::7]"),
    ],
)
def test_a_host_id_is_a_host(text: str, expected: str) -> None:
    assert parse_host_id(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a:80", "a/b", "a b", "user@a", "a?b", "-a", "a..b", "http://a", "[::1", "fe80::1%eth0", "x" * 301, "ä"],
)
def test_a_host_id_is_nothing_but_a_host(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_host_id(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a/up/f.bin", "http://b/up/f.bin"),
        ("https://a:8443/up/f.bin?x=1", "https://b:8443/up/f.bin?x=1"),
        ("http://[::1]:81/f", "http://b:81/f"),
        ("http://[::1]/f", "http://b/f"),
        ("http://B:81/f", "http://B:81/f"),
        ("http://u:p@B:81/f", "http://u:p@B:81/f"),
    ],
)
def test_only_the_host_is_replaced(url: str, expected: str) -> None:
    assert replace_host(url, "b") == expected


def test_a_password_does_not_go_to_the_host_that_a_server_chooses() -> None:
    assert replace_host("http://u:p@a:81/f", "b") == "http://b:81/f"
    assert replace_host("http://u:p@[::1]:81/f", "[::1]") == "http://u:p@[::1]:81/f"
    assert resolve_reply_url("http://u:p@a/up/f", "http://b/r") == "http://b/r"
    assert resolve_location("http://u:p@a/up/", "http://a:81/7") == "http://a:81/7"


@pytest.mark.parametrize("said", ["7", "/up/7", "http://a/up/7", "http://A:80/up/7"])
def test_a_password_goes_wherever_the_same_server_says(said: str) -> None:
    expected = ("http://u:p@a/up/7", "http://u:p@A:80/up/7")
    assert resolve_location("http://u:p@a/up/", said) in expected
    assert resolve_reply_url("http://u:p@a/up/f", said) in expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "BITS-Sessions\\Replies\\{C85B}\\responsefile.bin",
            "http://a:81/up/BITS-Sessions/Replies/%7BC85B%7D/responsefile.bin",
        ),
        ("r.bin", "http://a:81/up/r.bin"),
        ("/r/x y.bin", "http://a:81/r/x%20y.bin"),
        ("http://static.example/r.bin", "http://static.example/r.bin"),
        ("HTTPS://b/r%20.bin", "https://b/r%20.bin"),
        ("caf\xe9", "http://a:81/up/caf%E9"),
    ],
)
def test_a_reply_url_is_resolved_against_the_directory_of_the_upload(text: str, expected: str) -> None:
    assert resolve_reply_url("http://a:81/up/f.bin?x=1", text) == expected


@pytest.mark.parametrize(
    "text", ["ftp://a/b", "file:///etc/passwd", "x:y", "http://", "http://[::1/x", "http://a:x/", "r" * 2201]
)
def test_a_reply_url_that_is_no_address_of_http_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        resolve_reply_url("http://a/up/f.bin", text)


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("http://a/up/f.bin", "f.bin", "http://a/up/"),
        ("http://a/up/a%20%FF%23.bin?x=1", "a \udcff#.bin", "http://a/up/?x=1"),
        ("http://a/f", "f", "http://a/"),
        ("http://a/up/other", "f.bin", ""),
        ("http://a/up/", "f.bin", ""),
        ("http://a", "a", ""),
        ("http://[x/f", "f", ""),
    ],
)
def test_a_directory_is_found_where_the_name_was_made_from_it(url: str, name: str, expected: str) -> None:
    assert directory_for(url, name) == expected


def test_a_location_does_not_leave_https() -> None:
    assert resolve_location("https://a/up/", "7") == "https://a/up/7"
    assert resolve_location("http://a/up/", "https://b/7#x") == "https://b/7"
    with pytest.raises(BadAddress):
        resolve_location("https://a/up/", "http://a/7")
