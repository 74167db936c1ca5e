"""The job's own header lines (J60): which of them go along with a request, and to which servers.

An empty value is written with a semicolon, as libcurl wants it: a colon would take the field away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openbits.core.http import is_same_origin

_SPOILING_DOWNLOADS: Final = frozenset(("range", "if-range"))
_SPOILING_UPLOADS: Final = frozenset(
    (
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "if-match",
        "if-none-match",
        "if-range",
        "keep-alive",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-http-method-override",
    )
)
_SPOILING_BEGINNINGS: Final = ("bits-", "content-", "tus-", "upload-")
_SECRET: Final = frozenset(("authorization", "cookie", "host", "proxy-authorization"))


def download_lines(custom_headers: str) -> tuple[str, ...]:
    """What every request of a download carries; lines that would spoil resumption are left out."""
    return ("Accept-Encoding: identity", *_lines(custom_headers, _SPOILING_DOWNLOADS.__contains__))


def upload_lines(custom_headers: str) -> tuple[str, ...]:
    """The job's own headers for every packet, without those that would spoil the protocol (U40)."""
    return _lines(custom_headers, lambda name: name in _SPOILING_UPLOADS or name.startswith(_SPOILING_BEGINNINGS))


def lines_for(lines: tuple[str, ...], first_url: str, url: str) -> tuple[str, ...]:
    """The header lines that may be sent to `url`: secrets stay with the server they were meant for."""
    if url is first_url or is_same_origin(first_url, url):
        return lines
    return tuple(line for line in lines if line.partition(":")[0].rstrip(";").strip().lower() not in _SECRET)


def _lines(custom_headers: str, is_spoiling: Callable[[str], bool]) -> tuple[str, ...]:
    lines = []
    for line in custom_headers.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and not is_spoiling(name.strip().lower()):
            lines.append(f"{name}:{value}" if value.strip() else f"{name};")
    return tuple(lines)
