"""What a caller may ask for: nothing that these functions let through can surprise what comes after.

Names, prefixes, checksums, headers and ranges of a request are checked here, once, before anything
is written down (inventory D6, D7, H5, J14, J15, J40, J41, M1).  A check either returns, or raises
BitsError with a sentence that says what is wrong and never repeats a password.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from openbits.core.model import DESCRIPTION_LIMIT, NAME_LIMIT, REMOTE_NAME_LIMIT, TO_EOF, ByteRange
from openbits.errors import BitsError

SEGMENT_LIMIT: Final = 255
PATH_LIMIT_BYTES: Final = 4095
"""PATH_MAX of Linux without the NUL that ends a path."""
TEMPORARY_BASE_LIMIT_BYTES: Final = 64
"""Room that a local name's directory must leave for the base name of a temporary file."""
LARGEST_OFFSET: Final = 2**63 - 1
HEADERS_LIMIT: Final = 16_384 - 1
"""H5 counts the NUL that ends the text."""

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<rest>(?:\?[^#]*)?(?:#.*)?)",
    re.DOTALL,
)
_ILLEGAL_IN_URL: Final = re.compile(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_READ_DIFFERENTLY: Final = re.compile(
    "[\u00df\u1e9e\u03c2\u200c\u200d\u115f\u1160\u17b4\u17b5\u180f\u3164\uffa0\U000e0100-\U000e01ef]"
)
"""ß, final sigma, joiners, fillers, selectors: part of a name to one of the two standards of international names, and
replaced or left out by the other, so that one and the same text is two hosts."""
_LEFT_OUT: Final = re.compile("[\u00ad\ufe0e\ufe0f]")
"""Of no meaning to either standard."""
_UNSEEN: Final = frozenset(("Cc", "Cf", "Cn", "Co"))
_DOTS: Final = re.compile("[.\u3002\uff0e\uff61]")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_SECRET_PART: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/{0,2})[^/?#]*@", re.DOTALL)
_USERINFO: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*)@", re.DOTALL)
_CONTROLS: Final = re.compile(rb"[\x00-\x1f\x7f]")
_NOT_FOR_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NOT_FOR_A_DESCRIPTION: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_HEADER: Final = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[\t\x20-\x7e]*)")
_CHECKSUM_BYTES: Final = {"sha256": 32, "sha512": 64}

_HEADERS_OF_THE_CONNECTION: Final = frozenset(
    (
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
_HEADERS_OF_THE_TRANSFER: Final = frozenset(
    (
        "accept-encoding", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range",
    )
)  # fmt: skip


def _invalid(sentence: str) -> BitsError:
    return BitsError("E_INVALIDARG", sentence)


# --- remote names ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Url:
    scheme: str
    userinfo: str | None
    host: str
    """As a request needs it: ASCII, brackets around an IPv6 address."""
    port: str | None
    path: str
    rest: str


def check_remote_name(url: str) -> None:
    """Check a remote name (D6): http, https or file; at most 2,200 characters; no escaping is done.

    `file:` names mean files of this machine: `file:///path` or `file://localhost/path`.
    Raises E_INVALIDARG.
    """
    parts = _split(url)
    if parts.scheme == "file":
        _check_file_url(parts)
    else:
        _check_http_url(parts)


def request_url(url: str) -> str:
    """Return the URL as it goes over the wire: a host with other than ASCII letters in its IDNA form.

    Raises E_INVALIDARG.
    """
    parts = _split(url)
    userinfo = "" if parts.userinfo is None else f"{parts.userinfo}@"
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{userinfo}{parts.host}{port}{parts.path}{parts.rest}"


def split_userinfo(url: str) -> tuple[str, str]:
    """Return a remote name, or the beginning of one, without user name and password, and these as they stood there.

    What comes after is to see the former only.  Never raises.
    """
    match = _USERINFO.match(url) if "@" in url else None
    if match is None:
        return url, ""
    return match[1] + url[match.end() :], match[2]


def check_server(server: str) -> str:
    """Check the host and port that stand in a URL, and return them as a request needs them; an empty port is none.

    Raises E_INVALIDARG.
    """
    host, port = _split_server(server)
    host = _ascii_host(host)
    _check_server(host, port or None)
    return f"{host}:{port}" if port else host


def origin_of(url: str) -> str:
    """Return the server that an http or https name speaks to, without user name and path: https://example.org.

    Raises E_INVALIDARG.
    """
    parts = _split(url)
    return f"{parts.scheme}://{parts.host.lower()}" + ("" if parts.port is None else f":{parts.port}")


def public_url(url: str) -> str:
    """Return the URL as it may be shown and logged: user name and password hidden. Never raises."""
    return _SECRET_PART.sub(r"\1***@", url)


def file_path(url: str) -> str:
    """Return the local path that a `file:` name means, with surrogateescape for odd bytes.

    Raises E_INVALIDARG.
    """
    parts = _split(url)
    _check_file_url(parts)
    return unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")


def needs_network(url: str, loopback_names: frozenset[str] = frozenset()) -> bool:
    """Whether the remote name leads out of this machine.

    `loopback_names` are the names that the machine itself gives to loopback addresses, in lower
    case (/etc/hosts).  Raises E_INVALIDARG for what is no remote name.
    """
    parts = _split(url)
    if parts.scheme == "file":
        return False
    host = parts.host.strip("[]").lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost") or host in loopback_names:
        return False
    try:
        address = ipaddress.ip_address(host.partition("%25")[0])
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # Linux takes a connection to the unspecified address as one to itself.
    return not (address.is_loopback or address.is_unspecified)


def replace_prefix(url: str, old: str, new: str) -> str | None:
    """Return the remote name with `old` at its start replaced by `new`; None when it starts otherwise (J40).

    The comparison is case-sensitive and nothing is escaped.  Raises E_INVALIDARG for an empty
    string and for a result that is no remote name.
    """
    if not old or not new:
        raise _invalid("neither the old nor the new prefix may be empty")
    if not url.startswith(old):
        return None
    renamed = new + url[len(old) :]
    check_remote_name(renamed)
    return renamed


def _split(url: str) -> _Url:
    if not url:
        raise _invalid("the remote name is empty; it must be a URL such as https://example.org/file")
    if len(url) > REMOTE_NAME_LIMIT:
        raise _invalid(f"the remote name has {len(url)} characters; {REMOTE_NAME_LIMIT} are allowed")
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in ("http", "https", "file"):
        raise _invalid("the remote name must begin with http://, https:// or file://")
    userinfo, at, server = match["authority"].rpartition("@")
    for text in (userinfo, match["path"], match["rest"]):
        _check_characters(text)
    host, port = _split_server(server)
    return _Url(
        scheme=scheme,
        userinfo=userinfo if at else None,
        host=_ascii_host(host),
        port=port,
        path=match["path"],
        rest=match["rest"],
    )


def _check_characters(text: str) -> None:
    illegal = _ILLEGAL_IN_URL.search(text)
    if illegal is not None:
        raise _invalid(
            f"the remote name contains {illegal[0]!a}, which a URL may not contain;"
            " write it percent-encoded (a space is %20)"
        )
    if _BAD_PERCENT.search(text) is not None:
        raise _invalid("the remote name contains a % without two hexadecimal digits; a percent sign itself is %25")


def _split_server(server: str) -> tuple[str, str | None]:
    if server.startswith("["):
        host, bracket, after = server.partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise _invalid("the remote name's IPv6 address is not closed by ']'")
        return host + bracket, after[1:] if after else None
    host, colon, port = server.partition(":")
    return host, port if colon else None


@functools.lru_cache(maxsize=256)
def _ascii_host(host: str) -> str:
    """The host as the domain name system knows it.

    Python's codec is IDNA 2003, with the letters that Unicode had then. Where today's rules (IDNA 2008, as browsers
    read them) would lead to another host, nobody can say which one was meant: it has to be written in ASCII.
    """
    if host.isascii():
        return host
    shown = _LEFT_OUT.sub("", host)
    # What cannot be seen, or is no character to this Python, others may leave out or know how to fold.
    if _READ_DIFFERENTLY.search(host) is not None or any(unicodedata.category(each) in _UNSEEN for each in shown):
        raise _invalid("programs read the remote name's host in different ways: write it in ASCII, as xn--…")
    try:
        ascii_host = host.encode("idna").decode("ascii")
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown).casefold())
        is_same = ".".join(map(_ascii_label, _DOTS.split(folded))) == ascii_host.lower()
    except UnicodeError:
        raise _invalid("the remote name's host is not a valid international domain name") from None
    if not is_same:
        raise _invalid("programs read the remote name's host in different ways: write it in ASCII, as xn--…")
    return ascii_host


def _ascii_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"


def _check_http_url(parts: _Url) -> None:
    _check_server(parts.host, parts.port)
    if parts.userinfo and _CONTROLS.search(unquote_to_bytes(parts.userinfo)) is not None:
        raise _invalid("the user name or the password in the remote name has control characters in it")
    if any(len(segment) > SEGMENT_LIMIT for segment in parts.path.split("/")):
        raise _invalid(f"a segment of the remote name's path is longer than {SEGMENT_LIMIT} characters")


def _check_server(host: str, port: str | None) -> None:
    if not host:
        raise _invalid("the remote name has no host")
    if host.startswith("["):
        _check_ipv6(host[1:-1])
    else:
        _check_host(host)
    if port is not None and not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise _invalid("the remote name's port must be a number from 1 to 65535")


def _check_ipv6(text: str) -> None:
    address, percent, zone = text.partition("%25")
    if percent and not re.fullmatch(r"[A-Za-z0-9._~-]{1,15}", zone):
        raise _invalid("the remote name's IPv6 address has an invalid zone")
    try:
        if "%" in address:
            raise ValueError
        ipaddress.IPv6Address(address)
    except ValueError:
        raise _invalid("the remote name's host is not a valid IPv6 address") from None


@functools.lru_cache(maxsize=256)  # the files of a job mostly come from one server
def _check_host(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _invalid("the remote name's host is not a valid host name")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        # Libraries read 127.1 and 0x7f000001 as addresses, each in its own way; none of them is needed.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _invalid("the remote name's host is not a valid IPv4 address: write four numbers") from None


def _check_file_url(parts: _Url) -> None:
    if parts.scheme != "file":
        raise _invalid("the remote name is no file: URL")
    if parts.userinfo is not None or parts.port is not None or parts.host.lower() not in ("", "localhost"):
        raise _invalid("a file: remote name means a file of this machine: write file:///path")
    if parts.rest:
        raise _invalid("a file: remote name has no query or fragment: write ? as %3F and # as %23")
    path = unquote_to_bytes(parts.path)
    if not path.startswith(b"/") or path.endswith(b"/"):
        raise _invalid("a file: remote name must name a file by its full path: file:///path/to/file")
    if b"\0" in path:
        raise _invalid("the remote name contains a NUL character")
    if any(len(segment) > SEGMENT_LIMIT for segment in path.split(b"/")) or len(path) > PATH_LIMIT_BYTES:
        raise _invalid("the path in the remote name is longer than the system allows")


# --- local names -----------------------------------------------------------------------------


def check_local_name(path: str) -> None:
    """Check a local name (D7): an absolute path to a file, without `..`, at most 4,095 bytes.

    Any byte but NUL may stand in it, as text with `surrogateescape`.  Whether its directory exists
    and may be written to is for the owner's worker to say.  Raises E_INVALIDARG.
    """
    if not path.startswith("/"):
        raise _invalid("the local name must be an absolute path")
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _invalid("the local name contains characters that no path can have") from None
    if raw.decode("utf-8", "surrogateescape") != path:
        # Two spellings of one path; only the one that the system itself would give is taken.
        raise _invalid("the local name spells a character byte by byte: write the character")
    if b"\0" in raw:
        raise _invalid("the local name contains a NUL character")
    directory, _, base = raw.rpartition(b"/")
    if base in (b"", b"."):
        raise _invalid("the local name must name a file, not a directory")
    components = raw.split(b"/")
    if b".." in components:
        raise _invalid("the local name may not contain '..'")
    if len(raw) > PATH_LIMIT_BYTES or any(len(component) > SEGMENT_LIMIT for component in components):
        raise _invalid(
            f"the local name is too long: {PATH_LIMIT_BYTES} bytes are allowed, and {SEGMENT_LIMIT} in each part of it"
        )
    if len(directory) + 1 + TEMPORARY_BASE_LIMIT_BYTES > PATH_LIMIT_BYTES:
        raise _invalid("the local name's directory has too long a path: there is no room for a temporary file")


def temporary_name(local_name: str, token: str) -> str:
    """Return the full path of the hidden temporary file beside a local name (D8).

    `token` is random and hexadecimal: nobody who may write to the directory can guess the name.
    """
    base = f".BIT{token}.tmp"
    if not token.isalnum() or not token.isascii() or len(base) > TEMPORARY_BASE_LIMIT_BYTES:
        raise AssertionError(f"{token!r} is no token for a temporary name")
    return f"{local_name.rpartition('/')[0]}/{base}"


# --- texts -----------------------------------------------------------------------------------


def check_new_display_name(name: str) -> None:
    """Check the display name of a job that is created (M1): too long a name is E_INVALIDARG there."""
    _check_name_characters(name)
    if len(name) > NAME_LIMIT:
        raise _invalid(f"the display name has {len(name)} characters; {NAME_LIMIT} are allowed")


def check_display_name(name: str) -> None:
    """Check a new display name of a job (J14): 1 to 256 characters, none of them a control character.

    Raises E_INVALIDARG, and BG_E_STRING_TOO_LONG for more than 256 characters.
    """
    _check_name_characters(name)
    if len(name) > NAME_LIMIT:
        raise BitsError(
            "BG_E_STRING_TOO_LONG", f"the display name has {len(name)} characters; {NAME_LIMIT} are allowed"
        )


def _check_name_characters(name: str) -> None:
    if not name:
        raise _invalid("the job needs a display name")
    if _NOT_FOR_A_NAME.search(name) is not None:
        raise _invalid("the display name contains control characters or is no valid Unicode text")


def check_description(description: str) -> None:
    """Check a description (J15): at most 1,024 characters, no control characters but tabs and line ends.

    Raises E_INVALIDARG, and BG_E_STRING_TOO_LONG for more than 1,024 characters.
    """
    if _NOT_FOR_A_DESCRIPTION.search(description) is not None:
        raise _invalid("the description contains control characters or is no valid Unicode text")
    if len(description) > DESCRIPTION_LIMIT:
        raise BitsError(
            "BG_E_STRING_TOO_LONG",
            f"the description has {len(description)} characters; {DESCRIPTION_LIMIT} are allowed",
        )


def check_checksum(text: str) -> str:
    """Return `sha256:HEX` or `sha512:HEX` in lower case.

    Raises BG_E_INVALID_HASH_ALGORITHM for another algorithm, E_INVALIDARG for what is no checksum.
    """
    algorithm, colon, digest = text.lower().partition(":")
    if not colon:
        raise _invalid("the checksum must be written sha256:HEX or sha512:HEX")
    size_bytes = _CHECKSUM_BYTES.get(algorithm)
    if size_bytes is None:
        raise BitsError("BG_E_INVALID_HASH_ALGORITHM", "the hash algorithm is not supported: use sha256 or sha512")
    if not re.fullmatch(r"[0-9a-f]+", digest) or len(digest) != 2 * size_bytes:
        raise _invalid(f"a {algorithm} checksum has {2 * size_bytes} hexadecimal digits")
    return f"{algorithm}:{digest}"


def check_custom_headers(text: str) -> str:
    """Return custom headers as CR LF-terminated lines (H5); the empty text clears them.

    Lines may end in CR LF or LF.  Raises BG_E_STRING_TOO_LONG, and E_INVALIDARG for what is no
    header, or one that belongs to the connection or to the way in which a file is resumed.
    """
    if len(text) > HEADERS_LIMIT:
        raise _headers_too_long()
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    normalised = "".join(f"{_check_header(line)}\r\n" for line in lines)
    if len(normalised) > HEADERS_LIMIT:
        raise _headers_too_long()
    return normalised


def belongs_to_service(name: str) -> bool:
    """Whether a header, named in lower case, belongs to the connection or to the way a file is resumed (H5)."""
    return name in _HEADERS_OF_THE_CONNECTION or name in _HEADERS_OF_THE_TRANSFER


def _headers_too_long() -> BitsError:
    return BitsError("BG_E_STRING_TOO_LONG", f"the custom headers have more than {HEADERS_LIMIT} characters")


def _check_header(line: str) -> str:
    match = _HEADER.fullmatch(line)
    if match is None:
        # The line itself is not shown: it may carry a secret.
        raise _invalid("a custom header must be one line of ASCII text 'Name: value'")
    name = match["name"]
    if name.lower() == "proxy-authorization":
        raise _invalid("Proxy-Authorization is not for custom headers: give the proxy's credentials by SetCredentials")
    if name.lower() in _HEADERS_OF_THE_CONNECTION:
        raise _invalid(f"the header {name} belongs to the connection and cannot be set by a job")
    if name.lower() in _HEADERS_OF_THE_TRANSFER:
        raise _invalid(f"the header {name} is set by the service itself, which resumes files with it")
    return f"{name}: {match['value'].strip()}"


# --- ranges ----------------------------------------------------------------------------------


def check_ranges(
    ranges: Sequence[ByteRange], limit: int | None, *, limited_by: str = "quotas.max_ranges_per_file"
) -> None:
    """Check the byte ranges of a file (J41); `limit` is None for an account without quotas (P7).

    Raises E_INVALIDARG without ranges, BG_E_TOO_MANY_RANGES_IN_FILE, BG_E_INVALID_RANGE for a range
    without a byte or beyond what a file can have, BG_E_OVERLAPPING_RANGES.
    """
    if not ranges:
        raise _invalid("the list of ranges is empty: leave it out to fetch the whole file")
    if limit is not None and len(ranges) > limit:
        raise BitsError(
            "BG_E_TOO_MANY_RANGES_IN_FILE",
            f"the file has {len(ranges)} ranges; {limit} are allowed ({limited_by})",
        )
    for each in ranges:
        if not 0 <= each.offset < LARGEST_OFFSET:
            raise BitsError("BG_E_INVALID_RANGE", f"a range cannot begin at byte {each.offset}")
        if each.length != TO_EOF and not 1 <= each.length <= LARGEST_OFFSET - each.offset:
            raise BitsError(
                "BG_E_INVALID_RANGE",
                f"the range at byte {each.offset} cannot have {each.length} bytes ({TO_EOF} is up to the end)",
            )
    end = 0
    for each in sorted(ranges, key=lambda one: one.offset):
        if each.offset < end:
            raise BitsError("BG_E_OVERLAPPING_RANGES", f"the range at byte {each.offset} overlaps another one")
        end = LARGEST_OFFSET + 1 if each.length == TO_EOF else each.offset + each.length
