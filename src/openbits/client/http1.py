"""HTTP/1.1 as the local API speaks it, without I/O: bytes in, a head and a body out.

Strict, because both ends are ours: a response has a Content-Length or is chunked, and anything
else is an error rather than a guess.  (http.client would do, but brings the e-mail package along:
20 ms of every command; urllib.parse would bring ipaddress, for three lines of quoting.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_HEAD_BYTES: Final = 65_536
MAX_CHUNK_LINE_BYTES: Final = 1_024

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9])(?: [^\r\n]*)?")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class MalformedResponse(Exception):
    """What came over the socket is not an answer of the local API."""


def quote(text: str) -> str:
    """Return `text` percent-encoded, so that it can stand anywhere in a URL."""
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in octets)


def encode_query(values: Mapping[str, str | int]) -> str:
    """Return `values` as a query string with its question mark, or nothing."""
    pairs = "&".join(f"{name}={quote(str(value))}" for name, value in values.items())
    return f"?{pairs}" if pairs else ""


def encode_request(method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    """Return a whole request; the host name is there because HTTP wants one."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bits", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")


class ResponseReader:
    """Reads one response out of the bytes that it is fed.

    `status` is 0 until the head is there; `done` says that the body is complete; `keep_alive` that the
    connection may carry another request.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self._buffer = bytearray()
        self._body = bytearray()
        self._left = 0
        self._chunked = False
        self._in_trailer = False

    @property
    def started(self) -> bool:
        """Whether any byte of the response has come."""
        return bool(self._buffer) or self.status != 0

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow on the same connection."""
        return self.done and not self._buffer and self.headers.get("connection", "").lower() != "close"

    def take_body(self) -> bytes:
        """Return what has come of the body since the last call."""
        body = bytes(self._body)
        self._body.clear()
        return body

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; raises MalformedResponse."""
        self._buffer += data
        if self.status == 0 and not self._read_head():
            return
        if self._chunked:
            self._read_chunks()
        else:
            self._read_counted()
            self.done = self._left == 0

    def _read_head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise MalformedResponse("the head of the answer is too long")
                return False
            status_line, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            del self._buffer[: end + 4]
            match = _STATUS_LINE.fullmatch(status_line)
            if match is None:
                raise MalformedResponse("the answer is not HTTP/1.1")
            status = int(match[1])
            if status >= 200:
                break
        self.headers = _parse_headers(lines)
        self._frame_body(status)
        self.status = status
        return True

    def _frame_body(self, status: int) -> None:
        encoding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if encoding is not None:
            if encoding.lower() != "chunked" or length is not None:
                raise MalformedResponse("the answer's framing is ambiguous")
            self._chunked = True
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise MalformedResponse("the answer's Content-Length is not a number")
            self._left = int(length)
        elif status not in (204, 304):
            raise MalformedResponse("the answer has neither a length nor chunks")

    def _read_counted(self) -> None:
        part = self._buffer[: self._left]
        self._body += part
        self._left -= len(part)
        del self._buffer[: len(part)]

    def _read_chunks(self) -> None:
        while not self.done:
            if self._left > 2:
                part = self._buffer[: self._left - 2]
                self._body += part
                self._left -= len(part)
                del self._buffer[: len(part)]
            if self._left > 2 or (self._left and len(self._buffer) < self._left):
                return
            if self._left:
                # The line end behind a chunk's data.
                if self._buffer[:2] != b"\r\n":
                    raise MalformedResponse("a chunk is longer than it says")
                del self._buffer[:2]
                self._left = 0
            if not self._read_chunk_line():
                return

    def _read_chunk_line(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_CHUNK_LINE_BYTES:
                raise MalformedResponse("the line of a chunk is too long")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._in_trailer:
            self.done = not line
            return True
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise MalformedResponse("a chunk does not begin with its length")
        size = int(match[1], 16)
        if size == 0:
            self._in_trailer = True
        else:
            self._left = size + 2
        return True


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise MalformedResponse("a header line of the answer is not one")
        key = name.lower()
        if key in headers and key in ("content-length", "transfer-encoding"):
            raise MalformedResponse("the answer's framing is ambiguous")
        headers[key] = value.strip()
    return headers
