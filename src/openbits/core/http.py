"""What an HTTP answer means to a download, decided without touching a network.

Everything that reads a server's header text stands here, and nothing here trusts it: a field that
does not parse counts as absent, and what contradicts itself is an `InvalidAnswer`.  Statuses are
sorted into transient and fatal by inventory R1, R4 and R5; names match in any case (D4).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import enum
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from openbits.core.names import split_userinfo

HEADER_TEXT_LIMIT: Final = 16 * 1024
"""How much of a header block is passed on and kept (F10)."""
VALIDATOR_LIMIT: Final = 1024
"""Characters of an entity tag or a date that is worth keeping."""
REDIRECT_LIMIT: Final = 20
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
RETRY_AFTER_LIMIT_S: Final = 7 * 86_400

_REDIRECTS: Final = frozenset((300, 301, 302, 303, 307, 308))
_TRANSIENT_4XX: Final = frozenset((408, 409, 429))
_FATAL_3XX: Final = frozenset((300, 301, 302, 303, 304, 305, 307))
_FATAL_5XX: Final = frozenset((501, 505))
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_CONTENT_RANGE: Final = re.compile(r"bytes[ \t]+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)\Z", re.IGNORECASE)
_IMF_DATE: Final = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT\Z"
)
_PLAIN_URL: Final = re.compile(r"[!-~]*\Z")
_BLANK: Final = (b"\r\n", b"\n")
_AFTER_SERVER: Final = re.compile(rb"[^:/?#]*://[^/?#]*(.*)", re.DOTALL)
_ODD_ESCAPE: Final = re.compile(rb"%(?:[a-f]|[0-9A-F][a-f])")
_MONTH_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"\Z')
# What RFC 3986 lets stand in a URL, and '%', which is already an escape.
_URL_SAFE: Final = "!#$%&'()*+,/:;=?@[]~-._"


class InvalidAnswer(ValueError):
    """The header block contradicts itself or is no HTTP; the text is a clause for a sentence."""


class Verdict(enum.Enum):
    """Whether trying again later can help."""

    TRANSIENT = "transient"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """`bytes first-last/total`; `total` is None for `*`, `first` and `last` are for `*/total`."""

    first: int | None
    last: int | None
    total: int | None

    @property
    def length(self) -> int:
        """Bytes in the part."""
        return 0 if self.first is None or self.last is None else self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The header block of one answer."""

    status: int
    version: str
    """`1.0`, `1.1`, `2` …"""
    raw: bytes = b""
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values by lower-case name, in the order of arrival."""

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        values = self.fields.get(name)
        return values[0] if values else None

    @property
    def header_text(self) -> str:
        """The block as text, cut to HEADER_TEXT_LIMIT; every byte is one character (F10)."""
        return self.raw[:HEADER_TEXT_LIMIT].decode("latin-1")

    @property
    def is_redirect(self) -> bool:
        """Whether the answer sends the client elsewhere."""
        return self.status in _REDIRECTS and "location" in self.fields

    @property
    def content_length(self) -> int | None:
        """Content-Length where it frames the body. Raises InvalidAnswer when values differ or are no numbers."""
        if "transfer-encoding" in self.fields:
            return None
        values = {part.strip() for value in self.fields.get("content-length", ()) for part in value.split(",")}
        if not values:
            return None
        if len(values) > 1 or not _NUMBER.match(next(iter(values))):
            raise InvalidAnswer("its Content-Length makes no sense")
        return int(values.pop())

    @property
    def content_range(self) -> ContentRange | None:
        """Content-Range, or None when it is missing or wrong."""
        values = self.fields.get("content-range", ())
        return parse_content_range(values[0]) if len(values) == 1 else None

    @property
    def content_codings(self) -> tuple[str, ...]:
        """The codings the body went through, lower case, without `identity`."""
        codings = (
            part.strip().lower() for value in self.fields.get("content-encoding", ()) for part in value.split(",")
        )
        return tuple(coding for coding in codings if coding not in ("", "identity"))

    @property
    def etag(self) -> str | None:
        """The entity tag if it is a strong one: only those prove that bytes are the same (D3)."""
        value = self._validator("etag")
        return value if value is not None and _STRONG_ETAG.match(value) else None

    @property
    def last_modified(self) -> str | None:
        """Last-Modified as the server wrote it, if it is a date."""
        value = self._validator("last-modified")
        return value if value is not None and parse_date(value) is not None else None

    def _validator(self, name: str) -> str | None:
        # It travels and is kept with the file; what is longer was made to be a burden.
        value = self.get(name)
        return value if value is not None and len(value) <= VALIDATOR_LIMIT else None

    @property
    def refuses_ranges(self) -> bool:
        """Whether the server says that it does not serve ranges."""
        return "none" in self._accept_ranges

    @property
    def offers_ranges(self) -> bool:
        """Whether the server says that it serves byte ranges."""
        return "bytes" in self._accept_ranges

    @property
    def _accept_ranges(self) -> set[str]:
        return {part.strip().lower() for value in self.fields.get("accept-ranges", ()) for part in value.split(",")}

    def retry_after_s(self, *, now: dt.datetime) -> int | None:
        """Retry-After in seconds; a date counts from the server's own Date where it gives one."""
        value = self.get("retry-after")
        if value is None:
            return None
        value = value.strip()
        if _NUMBER.match(value):
            return min(int(value), RETRY_AFTER_LIMIT_S)
        when = parse_date(value)
        if when is None:
            return None
        base = parse_date(self.get("date") or "") or now
        return max(0, min(round((when - base).total_seconds()), RETRY_AFTER_LIMIT_S))


def parse_response(lines: Iterable[bytes]) -> Response:
    """Read a header block: the status line and one line per field (unfolded), without the blank line.

    Raises InvalidAnswer when the first line is no status line.  Lines without a colon are ignored.
    """
    lines = list(lines)
    status_line = lines[0].split(None, 2) if lines else []
    if len(status_line) < 2 or not status_line[0].startswith(b"HTTP/") or not status_line[1][:3].isdigit():
        raise InvalidAnswer("it is not HTTP")
    raw = b"".join(lines)
    fields: dict[str, list[str]] = {}
    for line in raw.decode("latin-1").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    return Response(
        status=int(status_line[1][:3]),
        version=status_line[0][5:].decode("latin-1"),
        raw=raw,
        fields=fields,
    )


def parse_content_range(value: str) -> ContentRange | None:
    """Read a Content-Range of unit bytes; None when it is not one that can be true."""
    match = _CONTENT_RANGE.match(value.strip())
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return ContentRange(None, None, total)
    first, last = int(match[1]), int(match[2])
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def final_response(lines: list[bytes]) -> Response | None:
    """The answer in the header lines of a request: what comes before it (1xx) or after it (trailers) is passed over.

    None when its block is not complete.  Raises InvalidAnswer for what is no HTTP.
    """
    start = 0
    for end, line in enumerate(lines):
        if line in _BLANK:
            response = parse_response(lines[start : end + 1])
            if response.status >= 200:
                return response
            start = end + 1
    return None


def end_of_answer(lines: list[bytes]) -> int:
    """How many lines the first answer takes, with what comes before it (1xx). Raises InvalidAnswer."""
    start = 0
    for end, line in enumerate(lines):
        if line in _BLANK:
            if parse_response(lines[start : end + 1]).status >= 200:
                return end + 1
            start = end + 1
    return len(lines)


@functools.lru_cache(maxsize=256)
def parse_date(value: str) -> dt.datetime | None:
    """Read a date in any of the three forms that HTTP has had; None when it is none."""
    match = _IMF_DATE.match(value)
    try:
        if match is not None and match[2] in _MONTHS:
            # The form that all servers use, and ten times as fast as the general way.
            day, year, hour, minute, second = map(int, match.group(1, 3, 4, 5, 6))
            return dt.datetime(year, _MONTHS[match[2]], day, hour, minute, second, tzinfo=dt.UTC)
        parsed = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=dt.UTC)


@functools.lru_cache(maxsize=256)
def date_to_epoch_s(value: str | None) -> float | None:
    """A Last-Modified as seconds since 1970 for the file's time stamp (D9); None when it is no date."""
    if value is None:
        return None
    parsed = parse_date(value)
    if parsed is None:
        return None
    try:
        return parsed.timestamp()
    except (OverflowError, ValueError):
        return None


def format_date(epoch_s: float) -> str:
    """Seconds since 1970 as an HTTP date."""
    return email.utils.formatdate(epoch_s, usegmt=True)


def classify_status(status: int) -> Verdict:
    """Sort a status that is no success by inventory R1; 429 is transient, which R1 does not know."""
    if 300 <= status <= 399:
        return Verdict.FATAL if status in _FATAL_3XX else Verdict.TRANSIENT
    if 400 <= status <= 499:
        return Verdict.TRANSIENT if status in _TRANSIENT_4XX else Verdict.FATAL
    if 500 <= status <= 599:
        return Verdict.FATAL if status in _FATAL_5XX else Verdict.TRANSIENT
    return Verdict.TRANSIENT


def is_same_origin(one: str, other: str) -> bool:
    """Whether two URLs speak to the same server: what is secret for one may be sent to the other."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def host_of(url: str) -> str:
    """The server's name for a sentence; never the user name or password that a URL may carry."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or url[:80]
        return f"{host}:{parts.port}" if parts.port else host
    except ValueError:
        return "the server"


def wire_url(url: str) -> bytes:
    """The URL as libcurl is given it: what is not ASCII is percent-encoded, everything else is left alone (D6).

    A user name in it is left out: libcurl would prove it to whoever answers, unasked.
    """
    if "@" in url:
        url, _ = split_userinfo(url)
    if _PLAIN_URL.match(url):
        return url.encode("ascii")
    return quote(url.encode("utf-8", "surrogateescape"), safe=_URL_SAFE + '"<>\\^`{|}').encode("ascii")


def exact_target(url: bytes, *, is_for_proxy: bool) -> bytes:
    """What stands between method and version in the request for a wire URL; a proxy is given the whole URL."""
    url = url.partition(b"#")[0]
    if is_for_proxy:
        return url
    match = _AFTER_SERVER.match(url)
    target = match[1] if match is not None else b""
    return target if target.startswith(b"/") else b"/" + target


def has_odd_escapes(url: bytes) -> bool:
    """Whether a URL has escapes that libcurl would write anew, with other letters (%2f)."""
    return b"%" in url and _ODD_ESCAPE.search(url) is not None


def method_after(method: str, status: int) -> str:
    """By which method a redirect with this status is followed: 303 always means GET, all others change nothing."""
    return "" if status == 303 else method
