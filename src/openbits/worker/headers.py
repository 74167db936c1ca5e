"""The job's own header lines (H5, J60): which of them go along with a request, and to which servers.

A line of the job replaces what would be sent otherwise (User-Agent, Accept), but never what makes a request one
request, asks for the right bytes, or ties them to a version of the file.  What may be a secret stays with the server
that the job names.  An empty value is written with a semicolon, as libcurl wants it: a colon would take the field away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from openbits.core.credentials import may_answer
from openbits.core.names import belongs_to_service

_SPOILING_BEGINNINGS: Final = ("bits-", "content-", "tus-", "upload-")
_SECRET: Final = frozenset(("authorization", "cookie", "cookie2", "host", "proxy-authorization"))
_SECRET_WORD: Final = re.compile(
    r"(?:^|[-_])(?:apikey|auth|credentials?|jwt|key|pass|passw(?:or)?d|secret|session|sid|signature|token)(?:$|[-_])"
)
"""In names such as X-Auth-Token, Private-Token and X-Api-Key."""


def download_lines(custom_headers: str) -> tuple[str, ...]:
    """What every request of a download carries; lines that would spoil it are left out."""
    return ("Accept-Encoding: identity", *_lines(custom_headers, belongs_to_service))


def upload_lines(custom_headers: str) -> tuple[str, ...]:
    """The job's own headers for every packet, without those that would spoil the protocol (U40)."""
    return _lines(custom_headers, _spoils_uploads)


def _spoils_uploads(name: str) -> bool:
    return belongs_to_service(name) or name == "x-http-method-override" or name.startswith(_SPOILING_BEGINNINGS)


def lines_for(lines: tuple[str, ...], first_url: str, url: str) -> tuple[str, ...]:
    """The header lines that may be sent to `url`: secrets stay with the server they were meant for."""
    if url is first_url or may_answer(first_url, url):
        return lines
    return tuple(line for line in lines if not _is_secret(line.partition(":")[0].rstrip(";").strip().lower()))


def _is_secret(name: str) -> bool:
    return name in _SECRET or _SECRET_WORD.search(name) is not None


def _lines(custom_headers: str, is_spoiling: Callable[[str], bool]) -> tuple[str, ...]:
    lines = []
    for line in custom_headers.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and not is_spoiling(name.strip().lower()):
            lines.append(f"{name}:{value}" if value.strip() else f"{name};")
    return tuple(lines)
