"""What is said on a D-Bus connection by who makes one call: bytes to and from messages, and nothing else.

The rule: whatever the other side sends is read within limits or is a `BusError`; nothing it says makes this process
wait, allocate or recurse by its wish.  Source: the D-Bus specification, sections "Message Protocol" and "Type System".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 64 * 1024
"""Of one message; nothing that we expect is a tenth of it."""
HEAD_BYTES: Final = 16
"""So much of a message says how long it is."""
METHOD_RETURN: Final = 2
ERROR: Final = 3

_METHOD_CALL: Final = 1
_VERSION: Final = 1
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIXED: Final = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_NAME: Final = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*(\.[A-Za-z_-][A-Za-z0-9_-]*)+")
_LONGEST_NAME: Final = 255


class BusError(Exception):
    """What came is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """As much of a message as who waits for an answer wants to know."""

    kind: int
    reply_serial: int
    error_name: str
    text: str
    """The first argument, where that is a string."""


def is_name(name: str) -> bool:
    """Whether this can be the name of a program on a bus; the number that a connection has is none."""
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


def call(
    serial: int, *, destination: str, path: str, interface: str, member: str, arguments: tuple[str, ...] = ()
) -> bytes:
    """Render a method call whose arguments are strings."""
    body = bytearray()
    for argument in arguments:
        _put_text(body, argument)
    fields = bytearray()
    for code, kind, text in (
        (_PATH, "o", path),
        (_INTERFACE, "s", interface),
        (_MEMBER, "s", member),
        (_DESTINATION, "s", destination),
    ):
        _pad(fields, 8)
        fields += struct.pack("<BB", code, 1) + kind.encode() + b"\0"
        _put_text(fields, text)
    if arguments:
        _pad(fields, 8)
        signature = b"s" * len(arguments)
        fields += struct.pack("<BB", _SIGNATURE, 1) + b"g\0" + bytes([len(signature)]) + signature + b"\0"
    message = bytearray(struct.pack("<BBBBIII", ord("l"), _METHOD_CALL, 0, _VERSION, len(body), serial, len(fields)))
    message += fields
    _pad(message, 8)
    return bytes(message + body)


def _put_text(target: bytearray, text: str) -> None:
    # Names of files may be no text: they are shown, as they are to people. A NUL would end the connection.
    raw = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "surrogateescape")
    raw = raw.decode("utf-8", "backslashreplace").encode()
    _pad(target, 4)
    target += struct.pack("<I", len(raw)) + raw + b"\0"


def _pad(target: bytearray, to: int) -> None:
    target += bytes(-len(target) % to)


def length_of(head: bytes) -> int:
    """Return how long the message is that begins so (HEAD_BYTES of it). Raises BusError."""
    order = _order(head)
    _, _, _, version, body_bytes, _, fields_bytes = struct.unpack(f"{order}BBBBIII", head[:HEAD_BYTES])
    length = HEAD_BYTES + fields_bytes + (-fields_bytes % 8) + body_bytes
    if version != _VERSION or length > MOST_BYTES:
        raise BusError("it is of another version or too long")
    return int(length)


def read(packet: bytes) -> Message:
    """Read a whole message. Raises BusError."""
    order = _order(packet)
    _, kind, _, _, body_bytes, _, fields_bytes = struct.unpack(f"{order}BBBBIII", packet[:HEAD_BYTES])
    reader = _Reader(packet[: HEAD_BYTES + fields_bytes], order, HEAD_BYTES)
    fields: dict[int, int | str] = {}
    while reader.has_more:
        reader.align(8)
        code = reader.fixed("B")
        value = reader.value(reader.signature())
        fields[int(code)] = value
    text = ""
    if str(fields.get(_SIGNATURE, "")).startswith("s"):
        text = _Reader(packet[len(packet) - body_bytes :], order, 0).text()
    serial, name = fields.get(_REPLY_SERIAL, 0), fields.get(_ERROR_NAME, "")
    if not isinstance(serial, int) or not isinstance(name, str):
        raise BusError("its fields are of wrong types")
    return Message(kind=kind, reply_serial=serial, error_name=name, text=text)


def _order(packet: bytes) -> str:
    match packet[:1]:
        case b"l":
            return "<"
        case b"B":
            return ">"
        case _:
            raise BusError("it begins with no message")


class _Reader:
    """Reads values one after the other, each where the one before it ended."""

    def __init__(self, data: bytes, order: str, at: int) -> None:
        self._data = data
        self._order = order
        self._at = at

    @property
    def has_more(self) -> bool:
        return self._at < len(self._data)

    def align(self, to: int) -> None:
        self._at += -self._at % to

    def fixed(self, code: str) -> int | float:
        size = struct.calcsize(f"={code}")
        self.align(size)
        return struct.unpack(f"{self._order}{code}", self._take(size))[0]  # type: ignore[no-any-return]  # one number

    def signature(self) -> str:
        length = self._take(1)[0]
        return self._ended(length)

    def text(self) -> str:
        return self._ended(int(self.fixed("I")))

    def value(self, signature: str) -> int | str:
        match signature:
            case "s" | "o":
                return self.text()
            case "g":
                return self.signature()
            case _ if signature in _FIXED:
                return int(self.fixed(_FIXED[signature]))
            case _:
                raise BusError("a field has a type that no field has")

    def _ended(self, length: int) -> str:
        raw = self._take(length + 1)
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise BusError("a text is none") from None

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise BusError("it ends in its middle")
        return self._data[start : self._at]
