"""Reads a multipart/byteranges body as it arrives (RFC 9110 14.6, inventory D2).

Each part says in its Content-Range how long it is, so the parser counts bytes and never searches
content for a boundary: a file that contains the boundary string is read right.  What it keeps is
at most one unfinished header block; everything is limited.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from openbits.core.http import ContentRange, InvalidAnswer, parse_content_range

_PREAMBLE_LIMIT: Final = 1024
_HEADER_LIMIT: Final = 8 * 1024
_BOUNDARY: Final = re.compile(r'boundary\s*=\s*(?:"((?:[^"\\]|\\.)+)"|([^\s;"]+))', re.IGNORECASE)
_MULTIPART: Final = re.compile(r"\s*multipart/(?:x-)?byteranges\s*(?:;|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part of the remote file follows."""

    content_range: ContentRange


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the current part; `remote_offset` is where the first of them stands in the remote file."""

    remote_offset: int
    data: bytes


class _State(enum.Enum):
    DELIMITER = "delimiter"
    HEADERS = "headers"
    BODY = "body"
    END = "end"


def boundary_of(content_type: str | None) -> bytes | None:
    """The boundary of a multipart/byteranges answer; None when it is no such answer.

    Raises InvalidAnswer when it is one and has no boundary.
    """
    if content_type is None or not _MULTIPART.match(content_type):
        return None
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise InvalidAnswer("its multipart answer has no boundary")
    boundary = re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]
    return boundary.encode("latin-1", "replace")


class MultipartParser:
    """`feed` the body in pieces of any size; `finished` tells whether the closing boundary came."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary
        self._buffer = b""
        self._state = _State.DELIMITER
        self._is_first = True
        self._position = 0
        self._left = 0

    def __repr__(self) -> str:
        return f"<MultipartParser {self._state.value} left={self._left}>"

    @property
    def finished(self) -> bool:
        """Whether the whole body has been read."""
        return self._state is _State.END

    def feed(self, data: bytes) -> Iterator[PartBegins | PartData]:
        """Take a piece of the body.  Raises InvalidAnswer for what is no multipart/byteranges."""
        if self._state is _State.BODY and not self._buffer and len(data) < self._left:
            yield self._take(data)
            return
        self._buffer += data
        while True:
            match self._state:
                case _State.DELIMITER:
                    if not self._read_delimiter():
                        return
                case _State.HEADERS:
                    part = self._read_headers()
                    if part is None:
                        return
                    yield part
                case _State.BODY:
                    piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
                    if piece:
                        yield self._take(piece)
                    if self._left:
                        return
                    self._state = _State.DELIMITER
                case _State.END:
                    self._buffer = b""
                    return

    def _take(self, data: bytes) -> PartData:
        part = PartData(self._position, data)
        self._position += len(data)
        self._left -= len(data)
        return part

    def _read_delimiter(self) -> bool:
        start = self._find_delimiter()
        if start is None:
            return False
        rest = self._buffer[start + len(self._delimiter) :]
        if rest.startswith(b"--"):
            self._state = _State.END
            self._buffer = b""
            return True
        line, newline, after = rest.partition(b"\n")
        if not newline:
            if len(rest) > _PREAMBLE_LIMIT:
                raise InvalidAnswer("a boundary in its multipart answer does not end")
            return False
        if line.strip():
            raise InvalidAnswer("a boundary in its multipart answer is wrong")
        self._buffer = after
        self._is_first = False
        self._state = _State.HEADERS
        return True

    def _find_delimiter(self) -> int | None:
        """The delimiter's place: at once after a part's line end, behind a little text at the beginning."""
        if self._is_first:
            start = self._buffer.find(self._delimiter)
            if max(start, len(self._buffer) if start < 0 else 0) > _PREAMBLE_LIMIT:
                raise InvalidAnswer("its multipart answer does not begin with the boundary")
            if start < 0:
                return None
        else:
            start = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
            if start > 4 or not self._delimiter.startswith(self._buffer[start : start + len(self._delimiter)]):
                raise InvalidAnswer("a part of its multipart answer is longer than it says")
        # Two more bytes tell a closing boundary from one that opens a part.
        return start if len(self._buffer) >= start + len(self._delimiter) + 2 else None

    def _read_headers(self) -> PartBegins | None:
        match = re.search(rb"\r?\n\r?\n", self._buffer)
        if match is None:
            if len(self._buffer) > _HEADER_LIMIT:
                raise InvalidAnswer("a part of its multipart answer has too many headers")
            return None
        values = []
        for line in self._buffer[: match.start()].split(b"\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-range":
                values.append(parse_content_range(value.decode("latin-1")))
        if len(values) != 1 or values[0] is None or values[0].first is None:
            raise InvalidAnswer("a part of its multipart answer does not say which part of the file it is")
        self._buffer = self._buffer[match.end() :]
        self._position = values[0].first
        self._left = values[0].length
        self._state = _State.BODY
        return PartBegins(values[0])
