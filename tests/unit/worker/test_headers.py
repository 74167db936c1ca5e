"""worker.headers: the job's own header lines (H5, I9)."""

from __future__ import annotations

import pytest

from openbits.worker.headers import download_lines, lines_for, upload_lines

SECRETS = (
    "Authorization: Basic eDp5",
    "authorization;",
    "Cookie: a=b",
    "Host: x",
    "X-Auth-Token: t",
    "PRIVATE-TOKEN: t",
    "JOB-TOKEN: t",
    "X-Api-Key: k",
    "apikey: k",
    "X-Amz-Security-Token: t",
    "X-Session: s",
    "X_PASSWORD: p",
    "Client-Secret: s",
)
PLAIN = (
    "Accept: text/plain",
    "User-Agent: x",
    "X-Request-Id: 1",
    "Author: me",
    "X-Tokens-Left: 3",
    "Monkey: 1",
    "Authority: x",
    "Accept-Encoding: identity",
)


@pytest.mark.parametrize(
    "url",
    ["http://a/x", "https://b/x", "https://a:444/x", "https://a.b/x", "https://b@a:1/", "https://[::1]/"],
)
def test_secrets_stay_with_the_server_they_are_meant_for(url: str) -> None:
    """Neither to another host or port, nor from https to http."""
    assert lines_for(SECRETS + PLAIN, "https://a/file", url) == PLAIN


@pytest.mark.parametrize(
    ("first", "url"),
    [
        ("https://a/file", "https://a/other?x"),
        ("https://a/file", "https://A:443/other"),
        ("https://a", "https://a/file"),
        ("http://a/file", "https://a/file"),
    ],
)
def test_secrets_reach_the_server_they_are_meant_for(first: str, url: str) -> None:
    """Also when it says that it is to be asked by https."""
    assert lines_for(SECRETS + PLAIN, first, url) == SECRETS + PLAIN


OURS = [
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Accept-Encoding",
    "Host",
    "Connection",
    "Content-Length",
    "TE",
    "Expect",
    "Transfer-Encoding",
    "Upgrade",
    "Proxy-Connection",
    "Trailer",
    "Keep-Alive",
    "Proxy-Authorization",
]


@pytest.mark.parametrize("name", OURS)
def test_nothing_spoils_framing_ranges_and_conditions(name: str) -> None:
    """Intake refuses them; what comes from an older store is left out (H5)."""
    lines = f"X-A: 1\r\n{name}: x\r\n{name.upper()} : y\r\nX-B: 2\r\n"
    assert download_lines(lines) == ("Accept-Encoding: identity", "X-A: 1", "X-B: 2")
    assert upload_lines(lines) == ("X-A: 1", "X-B: 2")


@pytest.mark.parametrize("name", ["Content-Type", "content-range", "BITS-Session-Id", "Tus-Resumable", "Upload-Offset"])
def test_what_belongs_to_an_upload_protocol_is_not_for_uploads(name: str) -> None:
    """U40."""
    assert upload_lines(f"{name}: x\r\nX-B: 2\r\n") == ("X-B: 2",)
    assert download_lines(f"{name}: x\r\n") == ("Accept-Encoding: identity", f"{name}: x")


def test_an_empty_value_is_one() -> None:
    assert download_lines("X-Empty:\r\nUser-Agent: \r\n")[1:] == ("X-Empty;", "User-Agent;")
    assert download_lines("") == ("Accept-Encoding: identity",)
