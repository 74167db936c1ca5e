"""Every packet of the BITS upload protocol as a value, and the one place that reads and writes their headers (U40–U45).

Requests are read as a server must read them: what is malformed is a `BadPacket` with the answer that it deserves.
Acks are read as a client must read them: what does not parse counts as absent, and the conversation judges.  Names of
headers, packet types and the range unit match in any case, GUIDs as GUIDs, because deployed ends differ in all three.

Limits: numbers of bytes fit in 63 bits; a header that is read here has at most 4,096 characters; other headers of a
request (Cookie, Authorization: tickets are long) are not looked at.  Content-Length belongs to the edges.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

METHOD: Final = "BITS_POST"
METHOD_OVERRIDE: Final = "X-HTTP-Method-Override"
"""With POST, for clients that cannot send the method."""
PROTOCOL: Final = uuid.UUID("7df0354d-249b-430f-820d-3d2a9bef4931")
"""BITS 1.5 upload: the only protocol there is."""
NO_PROTOCOL: Final = uuid.UUID(int=0)

HEADER_LIMIT: Final = 4_096
SIZE_LIMIT: Final = 2**63 - 1
"""Bytes of the largest file."""
SESSION_ID_LIMIT: Final = 100
PROTOCOLS_LIMIT: Final = 100
HOST_ID_LIMIT: Final = 300
CONTENT_NAME_LIMIT: Final = 260
NEVER_FALL_BACK: Final = 0xFFFF_FFFF
"""Seconds of BITS-Host-Id-Fallback-Timeout that mean infinity."""

PACKET_TYPE: Final = "BITS-Packet-Type"
SESSION_ID: Final = "BITS-Session-Id"
SUPPORTED_PROTOCOLS: Final = "BITS-Supported-Protocols"
PROTOCOL_HEADER: Final = "BITS-Protocol"
HOST_ID: Final = "BITS-Host-Id"
HOST_ID_FALLBACK_TIMEOUT: Final = "BITS-Host-Id-Fallback-Timeout"
RECEIVED_CONTENT_RANGE: Final = "BITS-Received-Content-Range"
REPLY_URL: Final = "BITS-Reply-URL"
ERROR_CODE: Final = "BITS-Error-Code"
"""What every deployed implementation calls it."""
ERROR: Final = "BITS-Error"
"""What [MC-BUP] calls the same header."""
ERROR_CONTEXT: Final = "BITS-Error-Context"
CONTENT_NAME: Final = "Content-Name"
CONTENT_RANGE: Final = "Content-Range"
CONTENT_ENCODING: Final = "Content-Encoding"
ACCEPT_ENCODING: Final = "Accept-Encoding"
CONTENT_LENGTH: Final = "Content-Length"

ACK: Final = "Ack"

_READ_OF_REQUESTS: Final = frozenset(
    name.lower()
    for name in (PACKET_TYPE, SESSION_ID, SUPPORTED_PROTOCOLS, CONTENT_NAME, CONTENT_RANGE, CONTENT_ENCODING)
)
_GUID: Final = re.compile(r"(?:\{(?P<braced>[0-9a-fA-F-]{36})\}|(?P<bare>[0-9a-fA-F-]{36}))\Z")
_GUID_SHAPE: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_SEPARATOR: Final = re.compile(r"[ \t,]+")
_VISIBLE: Final = re.compile(r"[!-~]+\Z")
_DECIMAL: Final = re.compile(r"[0-9]{1,19}\Z")
_HEX: Final = re.compile(r"(?:0[xX])?(?P<digits>[0-9a-fA-F]{1,8})\Z")
_BLANKS: Final = r"[ \t]*"
_RANGE: Final = re.compile(
    rf"bytes[ \t]+([0-9]{{1,19}}){_BLANKS}-{_BLANKS}([0-9]{{1,19}}){_BLANKS}/{_BLANKS}([0-9]{{1,19}})\Z", re.IGNORECASE
)
# What clients make of "from 0 to -1 of 0": nobody ever defined how an empty file is sent (digest, section 9.5).
_EMPTY_RANGE: Final = re.compile(r"bytes[ \t]+(?:\*|0-0|0--1|0-18446744073709551615)/0\Z", re.IGNORECASE)
EMPTY_RANGES: Final = ("bytes 0-18446744073709551615/0", "bytes */0", "bytes 0-0/0", "bytes 0--1/0")
"""Forms of Content-Range for an empty file, in the order in which a client tries them: first the one that the formula
of [MC-BUP] 3.1.5.1.4 gives in the unsigned 64-bit arithmetic of Windows."""

_NAME_FORBIDDEN: Final = re.compile(r"[^ -~]|[\\/:*?\"<>|]")

Headers = tuple[tuple[str, str], ...]


class PacketType(enum.Enum):
    """What a request asks for."""

    PING = "Ping"
    CREATE_SESSION = "Create-Session"
    FRAGMENT = "Fragment"
    CLOSE_SESSION = "Close-Session"
    CANCEL_SESSION = "Cancel-Session"


_PACKET_TYPES: Final = {each.value.lower(): each for each in PacketType}


class BadPacket(ValueError):
    """A request that is no packet of the protocol; the text is a clause that says what is wrong with it."""

    def __init__(self, clause: str, *, status: int = 400, name: str = "E_INVALIDARG") -> None:
        super().__init__(clause)
        self.status = status
        """The HTTP status of the answer."""
        self.name = name
        """The name, in the table of errors, of what BITS-Error-Code says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentRange:
    """Which bytes of how many a fragment carries; `length` is 0 for the fragment of an empty file."""

    offset: int
    length: int
    total: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client says; only the fields of its packet type are filled."""

    packet_type: PacketType
    session_id: str = ""
    supported_protocols: tuple[uuid.UUID, ...] = ()
    """Most preferred first."""
    content_name: str = ""
    """The local file's name, for nothing but logs."""
    range: FragmentRange | None = None
    """There in every fragment that parse_request returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What a server answers."""

    status: int
    session_id: str = ""
    protocol: uuid.UUID | None = None
    """None when there is no BITS-Protocol; NO_PROTOCOL when what it says is no GUID."""
    host_id: str = ""
    host_id_fallback_timeout_s: int | None = None
    """None: the client never falls back to the first host."""
    received_bytes: int | None = None
    """BITS-Received-Content-Range: the offset of the next byte that the server wants."""
    reply_url: str = ""
    error: int | None = None
    """The HRESULT of BITS-Error-Code."""
    error_context: int | None = None

    @property
    def is_success(self) -> bool:
        """Whether the packet did what it asks for: 200, and 201 for Create-Session (U41); no server says others."""
        return 200 <= self.status <= 299


# --- requests ----------------------------------------------------------------------------------


def render_request(request: Request, *, empty_range: str = "") -> Headers:
    """The headers of a request, without Content-Length; `empty_range` is how an empty file's Content-Range is said."""
    headers = [(PACKET_TYPE, request.packet_type.value)]
    if request.supported_protocols:
        headers.append((SUPPORTED_PROTOCOLS, " ".join(render_guid(each) for each in request.supported_protocols)))
    if request.session_id:
        headers.append((SESSION_ID, request.session_id))
    if name := sendable_name(request.content_name):
        headers.append((CONTENT_NAME, name))
    if request.range is not None:
        headers.append((CONTENT_RANGE, empty_range or render_range(request.range)))
    return tuple(headers)


def parse_request(headers: Iterable[tuple[str, str]], content_length: int | None) -> Request:
    """Read a request as a server must, by its headers (names in any case) and the length of its body.

    Raises BadPacket with the answer that the packet deserves (digest, sections 2 and 6).  That a session is known, and
    that a fragment fits, is not looked at here.
    """
    fields = _read_fields(headers)
    kind = _PACKET_TYPES.get(fields.get(PACKET_TYPE.lower(), "").lower())
    if kind is None:
        raise BadPacket("BITS-Packet-Type is missing or unknown")
    session_id = fields.get(SESSION_ID.lower(), "")
    if session_id and not is_session_id(session_id):
        raise BadPacket("BITS-Session-Id is no session id")
    if fields.get(CONTENT_ENCODING.lower(), "identity").lower() not in ("", "identity"):
        raise BadPacket("Content-Encoding is something else than identity")
    if content_length is None:
        raise BadPacket("Content-Length is missing", status=411)
    if kind is not PacketType.FRAGMENT and content_length != 0:
        raise BadPacket(f"{kind.value} has a body")
    name = fields.get(CONTENT_NAME.lower(), "")
    match kind:
        case PacketType.PING:
            # One part of [MC-BUP] wants a session id here, all others forbid it: it says nothing either way.
            return Request(packet_type=kind, content_name=name)
        case PacketType.CREATE_SESSION:
            protocols = parse_protocols(fields.get(SUPPORTED_PROTOCOLS.lower(), ""))
            return Request(packet_type=kind, supported_protocols=protocols, content_name=name)
        case PacketType.FRAGMENT:
            if not session_id:
                raise BadPacket("BITS-Session-Id is missing")
            carried = parse_range(fields.get(CONTENT_RANGE.lower(), ""), content_length)
            return Request(packet_type=kind, session_id=session_id, content_name=name, range=carried)
        case PacketType.CLOSE_SESSION | PacketType.CANCEL_SESSION:
            if not session_id:
                raise BadPacket("BITS-Session-Id is missing")
            return Request(packet_type=kind, session_id=session_id, content_name=name)


def is_upload_request(method: str, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a request is a packet: by its method, or by POST and X-HTTP-Method-Override (digest, section 9.8)."""
    if method == METHOD:
        return True
    return method == "POST" and any(
        name.lower() == METHOD_OVERRIDE.lower() and value.strip() == METHOD for name, value in headers
    )


def _read_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that matter to a server, by lower-case name."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key not in _READ_OF_REQUESTS:
            continue
        text = value.strip(" \t")
        if len(text) > HEADER_LIMIT:
            raise BadPacket(f"{name} is longer than {HEADER_LIMIT} characters")
        if fields.setdefault(key, text) != text:
            # Two ends that disagree on which one counts can be played off against each other.
            raise BadPacket(f"{name} is there twice, with different values")
    return fields


# --- answers -----------------------------------------------------------------------------------


def render_ack(ack: Ack) -> Headers:
    """The headers of an answer, Content-Length among them: no Ack has a body."""
    headers = [(PACKET_TYPE, ACK), (CONTENT_LENGTH, "0")]
    if ack.protocol is not None:
        headers.append((PROTOCOL_HEADER, render_guid(ack.protocol)))
        headers.append((ACCEPT_ENCODING, "identity"))
    if ack.session_id:
        headers.append((SESSION_ID, ack.session_id))
    if ack.host_id:
        headers.append((HOST_ID, ack.host_id))
        if ack.host_id_fallback_timeout_s is not None:
            headers.append((HOST_ID_FALLBACK_TIMEOUT, str(ack.host_id_fallback_timeout_s)))
    if ack.received_bytes is not None:
        headers.append((RECEIVED_CONTENT_RANGE, str(ack.received_bytes)))
    if ack.reply_url:
        headers.append((REPLY_URL, ack.reply_url))
    if ack.error is not None:
        # Both names: one document has the first, the other, and Windows, have the second.
        headers += [(ERROR, f"{ack.error:#010x}"), (ERROR_CODE, f"{ack.error:#010x}")]
        if ack.error_context is not None:
            headers.append((ERROR_CONTEXT, f"{ack.error_context:#x}"))
    return tuple(headers)


def parse_ack(status: int, headers: Iterable[tuple[str, str]]) -> Ack | None:
    """Read an answer as a client must; None when it is no Ack: then no BITS server said it."""
    fields: dict[str, str] = {}
    for name, value in headers:
        text = value.strip(" \t")
        if len(text) <= HEADER_LIMIT:
            fields[name.lower()] = text
    if fields.get(PACKET_TYPE.lower(), "").lower() != ACK.lower():
        return None
    session_id = fields.get(SESSION_ID.lower(), "")
    protocol = fields.get(PROTOCOL_HEADER.lower())
    timeout_s = _parse_timeout(fields.get(HOST_ID_FALLBACK_TIMEOUT.lower(), ""))
    error = parse_hex(fields.get(ERROR_CODE.lower(), ""))
    if error is None:
        error = parse_hex(fields.get(ERROR.lower(), ""))
    return Ack(
        status=status,
        session_id=session_id if is_session_id(session_id) else "",
        protocol=None if protocol is None else parse_guid(protocol) or NO_PROTOCOL,
        host_id=fields.get(HOST_ID.lower(), ""),
        host_id_fallback_timeout_s=timeout_s,
        received_bytes=parse_received(fields.get(RECEIVED_CONTENT_RANGE.lower(), "")),
        reply_url=fields.get(REPLY_URL.lower(), ""),
        error=error,
        error_context=parse_hex(fields.get(ERROR_CONTEXT.lower(), "")),
    )


def _parse_timeout(text: str) -> int | None:
    if not _DECIMAL.match(text):
        return None
    return None if int(text) >= NEVER_FALL_BACK else int(text)


# --- values of headers -------------------------------------------------------------------------


def render_range(carried: FragmentRange) -> str:
    """Content-Range of a fragment."""
    if carried.length == 0:
        return EMPTY_RANGES[0]
    return f"bytes {carried.offset}-{carried.end - 1}/{carried.total}"


def parse_range(value: str, content_length: int) -> FragmentRange:
    """Read Content-Range against the length of the body (digest, section 2).  Raises BadPacket.

    With no body it is the fragment of an empty file, in any form seen, or what some clients send after a last
    fragment (`bytes 10-9/10`).
    """
    if content_length == 0 and _EMPTY_RANGE.match(value):
        return FragmentRange(offset=0, length=0, total=0)
    match = _RANGE.match(value)
    if match is None:
        raise BadPacket("Content-Range is missing or malformed")
    first, last, total = map(int, match.groups())
    if max(first, last, total) > SIZE_LIMIT:
        raise BadPacket(f"Content-Range goes beyond {SIZE_LIMIT} bytes")
    is_afterthought = content_length == 0 and first == total == last + 1
    if not is_afterthought and not first <= last < total:
        raise BadPacket("Content-Range contradicts itself")
    if last - first + 1 != content_length:
        raise BadPacket("Content-Range and Content-Length differ")
    return FragmentRange(offset=first, length=content_length, total=total)


def parse_received(text: str) -> int | None:
    """Read BITS-Received-Content-Range: one decimal number, or None."""
    if not _DECIMAL.match(text) or int(text) > SIZE_LIMIT:
        return None
    return int(text)


def parse_hex(text: str) -> int | None:
    """Read a 32-bit number in hexadecimal, with 0x or without; None when it is none."""
    match = _HEX.match(text)
    return int(match["digits"], 16) if match is not None else None


def parse_guid(text: str) -> uuid.UUID | None:
    """Read a GUID in any case, in braces or not; None when it is none."""
    match = _GUID.match(text)
    inner = (match["braced"] or match["bare"]) if match is not None else ""
    return uuid.UUID(inner) if _GUID_SHAPE.match(inner) else None


def render_guid(guid: uuid.UUID) -> str:
    """A GUID in braces and lower case, as Windows sends it."""
    return f"{{{guid}}}"


def parse_protocols(text: str) -> tuple[uuid.UUID, ...]:
    """Read BITS-Supported-Protocols: separated by blanks or commas; the first 100 words count if they are GUIDs."""
    words = [word for word in _SEPARATOR.split(text) if word]
    return tuple(guid for word in words[:PROTOCOLS_LIMIT] if (guid := parse_guid(word)) is not None)


def render_session_id(guid: uuid.UUID) -> str:
    """The session id that our server makes of a random GUID."""
    return f"{{{str(guid).upper()}}}"


def is_session_id(text: str) -> bool:
    """Whether `text` can be a session id: not always a GUID, but visible and not too long (U41)."""
    return len(text) <= SESSION_ID_LIMIT and _VISIBLE.match(text) is not None


def sendable_name(name: str) -> str:
    """Content-Name for a local file name: whatever Windows forbids, or a header cannot hold, is an underscore."""
    return _NAME_FORBIDDEN.sub("_", name)[:CONTENT_NAME_LIMIT].strip(" ")
