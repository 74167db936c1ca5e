"""Where the packets of an upload go when the server names another place: BITS-Host-Id and BITS-Reply-URL (U6, U42).

Both come from the network: what is not plainly a host, or plainly an address of HTTP, is a `BadAddress`.  The user
name and the password of a remote name stay with the server that it names, wherever that one says it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from openbits.upload.packets import HOST_ID_LIMIT

URL_LIMIT: Final = 2_200

# RFC 1738, and the underscore of Windows' own machine names.
_HOST: Final = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z"
)
# What RFC 3986 lets stand, and '%', which is an escape already.
_URL_SAFE: Final = "!#$%&'()*+,/:;=?@[]~-._"


class BadAddress(ValueError):
    """The server named a place that is none; the text is a clause that says which and why."""


def parse_host_id(text: str) -> str:
    """Read BITS-Host-Id: a host name, an IPv4 address, or an IPv6 address in brackets or not; never a port.

    Returns it as it stands in a URL.  Raises BadAddress.
    """
    if len(text) <= HOST_ID_LIMIT:
        if _HOST.match(text):
            return text
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            return f"[{ipaddress.IPv6Address(bare)}]" if "%" not in bare else _refuse_host(text)
        except ValueError:
            pass
    return _refuse_host(text)


def _refuse_host(text: str) -> str:
    raise BadAddress(f"BITS-Host-Id {text[:80]!r} is no host name")


def replace_host(url: str, host: str) -> str:
    """The same scheme, port and path at another host, as parse_host_id returned it (digest, section 5)."""
    parts = urlsplit(url)
    if (parts.hostname or "") == host.strip("[]").lower():
        return url
    place = parts.netloc.rpartition("@")[2]
    _, colon, port = place.rpartition(":")
    if not colon or "]" in port:
        colon = port = ""
    return urlunsplit(parts._replace(netloc=f"{host}{colon}{port}"))


def _with_user_of(upload: SplitResult, parts: SplitResult) -> SplitResult:
    """The user name and the password of the upload's address, where the same server is meant."""
    user, at, _ = upload.netloc.rpartition("@")
    if not at or "@" in parts.netloc or _origin(upload) != _origin(parts):
        return parts
    return parts._replace(netloc=f"{user}@{parts.netloc}")


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def resolve_reply_url(upload_url: str, text: str) -> str:
    """Make BITS-Reply-URL an address: relative to the upload's directory at the first host, backslashes for slashes.

    Windows' server sends `BITS-Sessions\\Replies\\{GUID}\\responsefile.bin`.  Raises BadAddress.
    """
    if len(text) > URL_LIMIT:
        raise BadAddress(f"BITS-Reply-URL is longer than {URL_LIMIT} characters")
    try:
        # Headers are bytes: what is not ASCII came in as one character each.
        plain = quote(text.replace("\\", "/").encode("latin-1", "replace"), safe=_URL_SAFE)
        said = urlsplit(plain)
        parts = urlsplit(urljoin(upload_url, plain))._replace(fragment="")
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        raise BadAddress(f"BITS-Reply-URL {text[:80]!r} is no URL") from None
    if parts.scheme not in ("http", "https") or not hostname or (said.scheme and not said.netloc):
        raise BadAddress(f"BITS-Reply-URL {text[:80]!r} is no address of http or https")
    url = _with_user_of(urlsplit(upload_url), parts).geturl()
    if len(url) > URL_LIMIT:
        raise BadAddress(f"BITS-Reply-URL makes an address longer than {URL_LIMIT} characters")
    return url


def is_http_url(text: str) -> bool:
    """Whether `text` is an absolute address of http or https."""
    try:
        parts = urlsplit(text)
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(hostname)


def directory_for(url: str, name: str) -> str:
    """The address of the directory when the last part of `url` is the file's name, as 'bits put FILE URL/' makes it.

    Where a server chooses the names, that directory is what uploads are made at.  Else "".
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    directory, slash, last = parts.path.rpartition("/")
    if not slash or not last or unquote_to_bytes(last) != name.encode("utf-8", "surrogateescape"):
        return ""
    return parts._replace(path=directory + slash).geturl()


def resolve_location(upload_url: str, text: str) -> str:
    """Make the Location of an upload's own resource (tus, IETF) an address; never from https down to http.

    Raises BadAddress.
    """
    if len(text) > URL_LIMIT:
        raise BadAddress(f"Location is longer than {URL_LIMIT} characters")
    try:
        plain = quote(text.strip().encode("latin-1", "replace"), safe=_URL_SAFE)
        base, parts = urlsplit(upload_url), urlsplit(urljoin(upload_url, plain))._replace(fragment="")
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        raise BadAddress(f"Location {text[:80]!r} is no URL") from None
    if parts.scheme not in ("http", "https") or not hostname or not text.strip():
        raise BadAddress(f"Location {text[:80]!r} is no address of http or https")
    if base.scheme == "https" and parts.scheme == "http":
        raise BadAddress(f"Location {text[:80]!r} would leave https for http")
    return _with_user_of(base, parts).geturl()
