"""core.redirects: where redirects lead (D5, H7, H9)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core import names
from openbits.core.http import wire_url
from openbits.core.redirects import RedirectPolicy, RedirectRefused, policy_of, redirect_target


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://a/b/c?d", "e", "http://a/b/e"),
        ("http://a/b", "//x/y", "http://x/y"),
        ("https://a/b", "//x/y", "https://x/y"),
        ("http://a/b", "https://a/c", "https://a/c"),
        ("http://a/b", "HTTPS://A/c", "https://A/c"),
        ("http://a/b", "/caf\xc3\xa9 x", "http://a/caf%C3%A9%20x"),
        ("http://a/b?c#d", "", "http://a/b?c"),
        ("http://a/b?c", "?", "http://a/b?"),
        ("http://a/b?c", "?d=e?f", "http://a/b?d=e?f"),
        ("http://a/b?c", "#part", "http://a/b?c"),
        ("http://a/b?c", "/x#part?no", "http://a/x"),
        ("http://a", "b", "http://a/b"),
        ("http://a?q", "b", "http://a/b"),
        ("http://a/b", "https://c", "https://c/"),
        ("http://a/b", "https://c?d", "https://c/?d"),
        # Dots go, as RFC 3986 demands; escaped ones and empty segments are the server's affair.
        ("http://a/b/c/d", "../x", "http://a/b/x"),
        ("http://a/b/c/d", "../../../x", "http://a/x"),
        ("http://a/b/c/d", "./.", "http://a/b/c/"),
        ("http://a/b/c/d", "..", "http://a/b/"),
        ("http://a/b", "http://c/x/../y/./z", "http://c/y/z"),
        ("http://a/b", "/x/%2e%2e/y", "http://a/x/%2e%2e/y"),
        ("http://a/b", "/x/.../y", "http://a/x/.../y"),
        ("http://a//b///c", "d", "http://a//b///d"),
        ("http://a/b", "http://c//x//", "http://c//x//"),
        ("http://a/b", "/x%2Fy%2f%00", "http://a/x%2Fy%2f%00"),
        ("http://a/b", "/{x}|y\\z", "http://a/%7Bx%7D%7Cy%5Cz"),
        # Nobody is logged on to a server by being sent there.
        ("http://a/b", "https://user:secret@c/d", "https://c/d"),
        ("http://a/b", "//user@c/d", "http://c/d"),
        ("http://user:secret@a/b", "c", "http://a/c"),
        ("http://a/b", "/c@d", "http://a/c@d"),
        ("http://a/b", "http://c:/d", "http://c/d"),
        ("http://a/b", "http://c:8080/d", "http://c:8080/d"),
        ("http://a/b", "http://[::1]:8080/d", "http://[::1]:8080/d"),
        ("http://a/b", "http://b\xc3\xbccher.example/d", "http://xn--bcher-kva.example/d"),
        ("http://a/b", "http://b%C3%BCcher.example/d", "http://xn--bcher-kva.example/d"),
        ("http://a/b", "http://c%3A80/", "http://c:80/"),
        # No other server, and no share.
        ("http://a/b", "\\\\server\\share", "http://a/%5C%5Cserver%5Cshare"),
        ("http://a/b", "./x:y", "http://a/x:y"),
        ("http://a/b", "1x:y", "http://a/1x:y"),
    ],
)
def test_redirect_targets(url: str, location: str, expected: str) -> None:
    assert redirect_target(url, location) == expected


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://a/b", "http://a/b"),
        ("HTTPS://a/b", "HTTP://a/b"),
        ("http://a/b", "ftp://a/b"),
        ("http://a/b", "file:///etc/passwd"),
        ("https://a/b", "FILE:///etc/passwd"),
        ("http://a/b", "file:/etc/passwd"),
        ("http://a/b", "javascript:x"),
        ("http://a/b", "http:c"),
        ("http://a/b", "x:y"),
        ("http://a/b", "http:///c"),
        ("http://a/b", "http://user@/c"),
        ("http://a/b", "http://[::1/x"),
        ("http://a/b", "http://[::1]x/"),
        ("http://a/b", "http://a:99999/"),
        ("http://a/b", "http://a:0/"),
        ("http://a/b", "http://a:http/"),
        ("http://a/b", "http://0x7f000001/"),
        ("http://a/b", "http://127.1/"),
        ("http://a/b", "http://a%2Fb/"),
        ("http://a/b", "http://a%00/"),
        ("http://a/b", "http://a%40b/"),
        ("http://a/b", "http://stra\xc3\x9fe.example/"),
        ("http://a/b", "http://b\xfccher.example/"),
        ("http://a/b", "http://a b/"),
    ],
)
def test_redirects_that_are_refused(url: str, location: str) -> None:
    with pytest.raises(RedirectRefused):
        redirect_target(url, location)


def test_https_to_http_is_refused_unless_it_is_allowed() -> None:
    """H9: bit 0x0800."""
    with pytest.raises(RedirectRefused, match="would leave https for http"):
        redirect_target("https://a/b", "http://c/d?e")
    assert redirect_target("https://a/b", "http://c/d?e", may_leave_https=True) == "http://c/d?e"
    for location in ("file:///x", "ftp://c/d"):
        with pytest.raises(RedirectRefused, match="neither http nor https"):
            redirect_target("https://a/b", location, may_leave_https=True)


@pytest.mark.parametrize(
    "location", ["http://user:secret@c/d", "ftp://user:secret@c/", "//user:secret@-c-/", "//x:secret@"]
)
def test_a_redirect_that_is_refused_names_no_secret(location: str) -> None:
    with pytest.raises(RedirectRefused) as caught:
        redirect_target("https://a/b", location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("bits", "policy"),
    [
        (0x0000, RedirectPolicy.FOLLOW),
        (0x0800, RedirectPolicy.FOLLOW),
        (0x0100, RedirectPolicy.REPORT),
        (0x0900, RedirectPolicy.REPORT),
        (0x0200, RedirectPolicy.REFUSE),
        (0x021F, RedirectPolicy.REFUSE),
        (0x0300, RedirectPolicy.REFUSE),
        (0x0400, RedirectPolicy.REFUSE),
    ],
)
def test_policies(bits: int, policy: RedirectPolicy) -> None:
    assert policy_of(bits) is policy


@given(st.text(max_size=60), st.sampled_from(["https://host/x", "https://host//a/./b?c#d", "http://[::1]:8/"]))
def test_no_location_is_too_strange(location: str, url: str) -> None:
    try:
        target = redirect_target(url, location)
    except RedirectRefused:
        return
    parts = urlsplit(target)
    assert parts.scheme in ("http", "https")
    assert parts.scheme == "https" or url.startswith("http:")
    assert parts.hostname
    assert "@" not in parts.netloc
    assert target.isascii()
    assert names.check_server(parts.netloc) == parts.netloc
    assert wire_url(target) == target.encode("ascii")


@given(st.lists(st.sampled_from(["a", ".", "..", "", "%2e", "...", "b.c"]), max_size=8))
def test_dots_never_lead_above_the_root(segments: list[str]) -> None:
    path = urlsplit(redirect_target("http://host/", "/x/" + "/".join(segments))).path
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
