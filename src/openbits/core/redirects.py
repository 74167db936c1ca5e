"""Where a redirect leads, and whether a download goes there (D5, H7, H9).

A Location is resolved as RFC 3986 says and otherwise kept as it came: no escape is undone or made anew, no slash is
lost.  It never names a user or a password, and the host in it is checked as that of a remote name is: what the
service goes to by itself is no less strict than what an owner may ask for.
"""

from __future__ import annotations

import enum
import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from openbits.core.names import check_server
from openbits.errors import BitsError

POLICY_MASK: Final = 0x0700
HTTPS_TO_HTTP: Final = 0x0800

_REFERENCE: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<query>\?[^#]*)?",
    re.DOTALL,
)
# What RFC 3986 lets stand in a URL, and '%', which is already an escape.
_URL_SAFE: Final = "!#$%&'()*+,/:;=?@[]~-._"
_USER: Final = re.compile(r"(?<=//)[^/?#]*@")
_SHOWN: Final = 200


class RedirectRefused(ValueError):
    """The server points to a place that may not be followed; the text says which and why."""


class RedirectPolicy(enum.Enum):
    """H7, in the bits of POLICY_MASK."""

    FOLLOW = 0x0000
    REPORT = 0x0100
    """The remote name becomes where the redirects led."""
    REFUSE = 0x0200
    """The job fails, and the remote name becomes where the redirect points."""


def policy_of(bits: int) -> RedirectPolicy:
    """The policy in a job's security flags; bits that mean nothing, which no job can have, count as the strictest."""
    try:
        return RedirectPolicy(bits & POLICY_MASK)
    except ValueError:
        return RedirectPolicy.REFUSE


def redirect_target(url: str, location: str, *, may_leave_https: bool = False) -> str:
    """Where a redirect from `url` leads: an address of http or https, in ASCII, without user name and fragment.

    `location` is the field as it came, each byte one character.  Raises RedirectRefused for anything else, and for
    a way from https to http unless that is allowed.
    """
    base = _REFERENCE.match(url)
    text = quote(location.strip().encode("latin-1", "replace"), safe=_URL_SAFE)
    reference = _REFERENCE.match(text)
    assert base is not None, "every text is a reference"
    assert reference is not None, "every text is a reference"
    old_scheme = (base["scheme"] or "").lower()
    scheme = (reference["scheme"] or old_scheme).lower()
    if scheme not in ("http", "https"):
        raise RedirectRefused(f"{_shown(location)!r} is neither http nor https")
    authority, path, query = reference["authority"], reference["path"], reference["query"] or ""
    if authority is None and reference["scheme"] is not None:
        raise RedirectRefused(f"{_shown(location)!r} names no server")
    if authority is None:
        authority = base["authority"] or ""
        if not path:
            path, query = base["path"], query or base["query"] or ""
        elif not path.startswith("/"):
            path = (base["path"] or "/").rpartition("/")[0] + "/" + path
    server = _checked_server(authority.rpartition("@")[2], location)
    target = f"{scheme}://{server}{_without_dots(path)}{query}"
    if old_scheme == "https" and scheme == "http" and not may_leave_https:
        raise RedirectRefused(f"{target[:_SHOWN]!r} would leave https for http")
    return target


def _shown(location: str) -> str:
    return _USER.sub("***@", location)[:_SHOWN]


def _checked_server(server: str, location: str) -> str:
    try:
        # Servers write names in other letters as they write paths: as UTF-8, escaped or not.
        name = server if server.startswith("[") else unquote_to_bytes(server).decode("utf-8")
        return check_server(name)
    except (UnicodeDecodeError, BitsError):
        raise RedirectRefused(f"{_shown(location)!r} names no server that can be asked") from None


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, for a path that is absolute or empty; the standard library would lose empty segments."""
    if not path:
        return "/"
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path[1:].split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
