"""The heads of HTTP/1: bytes in, a Head or a refusal out; and the head of an answer as bytes.  No I/O.

h11 reads what a client sends.  What it lets pass, and another program in front of us or behind could read differently,
is refused here besides: line ends without CR, folded lines, several Content-Lengths (even equal ones), a length
beside a Transfer-Encoding.  A request whose end is not beyond doubt is how requests are smuggled.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

from openbits.server.exchange import Client, Head, Headers

MAX_HEAD_BYTES: Final = 65_536
MAX_HEADERS: Final = 128
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_FOLDED: Final = re.compile(rb"\n[ \t]")
# Without blanks around the value in the pattern: a long value of blanks would be tried in every way to divide it.
_LENGTH_LINE: Final = re.compile(rb"\n[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh][ \t]*:([^\r\n]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{0,5})?")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VERSIONS: Final = (b"1.0", b"1.1")


class Refused(Exception):
    """A request that cannot be taken; the connection has no future after it. The text may be shown to who sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A head that has come whole, with what concerns only the connection."""

    head: Head
    rest: bytes
    """What came after the head: of the body, or of the next request."""
    keeps_alive: bool
    """Whether the client would use the connection again."""
    awaits_continue: bool


class HeadReader:
    """Reads one head; fed with bytes until it returns a Request.  Raises Refused."""

    __slots__ = ("_client", "_fed", "_parser", "_scheme")

    def __init__(self, client: Client, scheme: str) -> None:
        self._client = client
        self._scheme = scheme
        self._parser: h11.Connection | None = None
        self._fed = bytearray()

    @property
    def held_bytes(self) -> int:
        """How much of the head is here."""
        return len(self._fed)

    def feed(self, data: bytes) -> Request | None:
        """Take bytes; None means that the head goes on."""
        if self._parser is None:
            # Some clients end a body with an empty line that nobody asked for.
            data = data.lstrip(b"\r\n")
            if not data:
                return None
            self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._fed += data
        try:
            self._parser.receive_data(data)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, _as_reason(error)) from None
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            raise Refused(HTTPStatus.BAD_REQUEST, "that is no HTTP request")
        rest, _ = self._parser.trailing_data
        raw = bytes(self._fed[: len(self._fed) - len(rest)])
        return _judge(event, raw, rest, self._client, self._scheme)


def _as_reason(error: h11.RemoteProtocolError) -> str:
    text = " ".join(str(error).split())
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:200]


def _judge(event: h11.Request, raw: bytes, rest: bytes, client: Client, scheme: str) -> Request:
    _check_framing(raw)
    if event.http_version not in _VERSIONS:
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(raw) > MAX_HEAD_BYTES or len(event.headers) > MAX_HEADERS:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long")
    headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
    values = dict(headers)
    is_chunked = "transfer-encoding" in values
    length = values.get("content-length")
    is_modern = event.http_version == b"1.1"
    if is_chunked and (length is not None or not is_modern):
        raise Refused(HTTPStatus.BAD_REQUEST, "the length of the body is said twice: send Content-Length alone")
    expectation = values.get("expect", "").lower()
    if expectation and expectation != "100-continue":
        raise Refused(HTTPStatus.EXPECTATION_FAILED, "the only expectation that is met here is 100-continue")
    scheme, authority, path, query = _split_target(event.method, event.target, scheme, values.get("host", ""))
    connection = {word.strip().lower() for word in values.get("connection", "").split(",")}
    head = Head(
        method=event.method.decode("ascii"),
        target=event.target,
        path=path,
        query=query,
        headers=headers,
        client=client,
        scheme=scheme,
        authority=authority,
        http_version=event.http_version.decode("ascii"),
        content_length=None if length is None else int(length),
        is_chunked=is_chunked,
    )
    return Request(
        head=head,
        rest=rest,
        keeps_alive=is_modern and "close" not in connection,
        awaits_continue=is_modern and expectation == "100-continue" and head.has_body,
    )


def _check_framing(raw: bytes) -> None:
    if raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n"):
        raise Refused(HTTPStatus.BAD_REQUEST, "a line of the head does not end with CR LF")
    if _FOLDED.search(raw):
        raise Refused(HTTPStatus.BAD_REQUEST, "a header is folded over several lines")
    lengths = _LENGTH_LINE.findall(raw)
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(length.strip(b" \t")) for length in lengths):
        raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")


def _split_target(method: bytes, target: bytes, scheme: str, host: str) -> tuple[str, str, bytes, bytes]:
    """Return scheme, authority, path and query."""
    if target == b"*" and method == b"OPTIONS":
        return scheme, _check_authority(host.encode("latin-1")), b"*", b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        # What a proxy would have been asked: it goes before Host (RFC 9112, 3.2.2).  The scheme is that of the
        # connection: a client cannot make its own connection a safe one by saying so.
        host = absolute[2].decode("latin-1")
        target = absolute[3] or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
    if not target.startswith(b"/"):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request target is neither a path nor an address of this server")
    path, _, query = target.partition(b"?")
    return scheme, _check_authority(host.encode("latin-1")), path, query


def _check_authority(authority: bytes) -> str:
    if not _AUTHORITY.fullmatch(authority):
        raise Refused(HTTPStatus.BAD_REQUEST, "Host is not the name of a host")
    return authority.decode("ascii")


# --- answers -----------------------------------------------------------------------------------


def render_head(status: int, headers: Headers, *, length: int | None, closes: bool) -> bytes:
    """Return the head of an answer; `length` None leaves Content-Length out (204, 304).

    Raises ValueError for a header that would not be one: nothing that came from outside can break out of its line.
    """
    lines = [_status_line(status), f"Date: {_date(int(time.time()))}"]
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"{name!r}: {value!r} is not a header")
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if closes:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@functools.cache
def _status_line(status: int) -> str:
    try:
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP/1.1 {status} -"


@functools.lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)
