"""Takes a coding away that nobody asked for (`Content-Encoding: gzip` in answer to `identity`).

The owner asked for the resource, so what is stored is the resource: gzip and deflate are undone,
strictly, so that a body that was cut off is noticed.  A file whose own name says that it is
compressed stays as it is: there, servers use the field to describe the file.  Other codings are
refused, for a file that nobody can read is worse than an error.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

_GZIP: Final = frozenset(("gzip", "x-gzip"))
_COMPRESSED_NAMES: Final = (".gz", ".tgz", ".svgz", ".taz", ".z")
_PIECE_BYTES: Final = 256 * 1024


class CodingError(ValueError):
    """The body is not what its coding says."""


def describes_the_file(url: str, codings: tuple[str, ...]) -> bool:
    """Whether the coding is the file's own, as with `Content-Encoding: gzip` for x.tar.gz."""
    return len(codings) == 1 and codings[0] in _GZIP and urlsplit(url).path.lower().endswith(_COMPRESSED_NAMES)


def can_decode(codings: tuple[str, ...]) -> bool:
    """Whether `Decoder` knows the coding."""
    return len(codings) == 1 and (codings[0] in _GZIP or codings[0] == "deflate")


class Decoder:
    """Undoes one coding; a small input may mean much output, which therefore comes in pieces."""

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding in _GZIP
        self._is_first = True
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | (16 if self._is_gzip else 0))

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decoded pieces. Raises CodingError."""
        if self._is_first and data:
            self._is_first = False
            # "deflate" means zlib's format, and half of the servers send it without zlib's header.
            if not self._is_gzip and (data[0] & 0x0F != 8 or data[0] >> 4 > 7):
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._zlib.eof:
                self._next_member(data)
            try:
                piece = self._zlib.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise CodingError(str(error)) from None
            if piece:
                yield piece
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail

    def _next_member(self, data: bytes) -> None:
        if not self._is_gzip or not data.startswith(b"\x1f"):
            raise CodingError("there is something behind its end")
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def finish(self) -> Iterator[bytes]:
        """What is left when the body is over. Raises CodingError when the coded data is not."""
        while not self._zlib.eof:
            piece = self._zlib.decompress(b"", _PIECE_BYTES)
            if not piece:
                break
            yield piece
        if not self._zlib.eof and not self._is_first:
            raise CodingError("it ends too early")
