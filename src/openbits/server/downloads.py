"""Files for download: GET and HEAD with ranges and conditions (so that one bits-server is a whole other end).

The rules:

- Only regular files are handed out, and only by their own name: directories are neither listed nor have an index, links
  are not followed, and what begins with a dot does not exist for anybody outside.
- The answer's head is made of the same open file whose bytes follow; the path is not looked at a second time.
- Looking for a file and reading it happen in threads: a slow disk holds up who asked for it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, Protocol

from openbits.server import answers
from openbits.server.beneath import UrlPath, open_regular_outside
from openbits.server.exchange import Body, Exchange, FileSlice, Headers, Part
from openbits.server.ranges import Range, Unsatisfiable, Validators, Verdict, judge, wanted_ranges
from openbits.server.storage import Storage

_DEFAULT_TYPE: Final = "application/octet-stream"
_TYPES: Final = {
    b"bz2": "application/x-bzip2",
    b"css": "text/css",
    b"csv": "text/csv",
    b"deb": "application/vnd.debian.binary-package",
    b"gif": "image/gif",
    b"gz": "application/gzip",
    b"htm": "text/html",
    b"html": "text/html",
    b"jpeg": "image/jpeg",
    b"jpg": "image/jpeg",
    b"js": "text/javascript",
    b"json": "application/json",
    b"md": "text/markdown",
    b"mp3": "audio/mpeg",
    b"mp4": "video/mp4",
    b"pdf": "application/pdf",
    b"png": "image/png",
    b"svg": "image/svg+xml",
    b"tar": "application/x-tar",
    b"tgz": "application/gzip",
    b"txt": "text/plain",
    b"wasm": "application/wasm",
    b"webp": "image/webp",
    b"xml": "application/xml",
    b"xz": "application/x-xz",
    b"zip": "application/zip",
    b"zst": "application/zstd",
}
"""By the end of the name. Not the system's table: the answer is to be the same on every machine."""
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.ENXIO})


class Source(Protocol):
    """Where a file to hand out comes from."""

    def open(self) -> tuple[int, os.stat_result]:
        """Open it for reading; called in a thread; the descriptor is the caller's.  Raises OSError."""


class Below:
    """A file below a directory, and not in the directory `private`, whatever that is called by now."""

    def __init__(self, directory_fd: int, components: Sequence[bytes], private: os.stat_result) -> None:
        self._directory_fd = directory_fd
        self._components = components
        self._private = private

    def open(self) -> tuple[int, os.stat_result]:
        """See `Source`."""
        return open_regular_outside(self._directory_fd, self._components, self._private)


class Downloads:
    """The files below a root."""

    def __init__(self, storage: Storage) -> None:
        """What the storage keeps for itself is not served."""
        self._root_fd = storage.root_fd
        self._is_hidden = storage.is_hidden
        self._private = storage.private

    async def serve(self, exchange: Exchange, path: UrlPath) -> None:
        """Answer GET or HEAD."""
        if path.ends_with_slash or self.is_withheld(path.components):
            await answers.missing(exchange)
            return
        await hand_out(exchange, Below(self._root_fd, path.components, self._private), path.components[-1])

    def is_withheld(self, components: tuple[bytes, ...]) -> bool:
        """Whether it is as if there were nothing at this path."""
        return any(name.startswith(b".") for name in components) or self._is_hidden(components)


async def hand_out(exchange: Exchange, source: Source, name: bytes) -> None:
    """Answer GET or HEAD with a file; `name` decides its content type."""
    try:
        fd, found = await asyncio.to_thread(source.open)
    except OSError as error:
        if error.errno in _MISSING:
            await answers.missing(exchange)
        elif error.errno in (errno.EACCES, errno.EPERM):
            await answers.text(exchange, HTTPStatus.FORBIDDEN, "the server may not read this file")
        else:
            await answers.text(exchange, HTTPStatus.SERVICE_UNAVAILABLE, "the file cannot be opened now")
        return
    try:
        await _answer(exchange, fd, found, content_type(name))
    finally:
        os.close(fd)


async def _answer(exchange: Exchange, fd: int, found: os.stat_result, kind: str) -> None:
    assert stat.S_ISREG(found.st_mode)
    size = found.st_size
    validators = Validators.of(inode=found.st_ino, size=size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns)
    common: Headers = (
        ("Accept-Ranges", "bytes"),
        ("ETag", validators.etag),
        ("Last-Modified", validators.last_modified),
    )
    match judge(exchange.head, validators):
        case Verdict.NOT_MODIFIED:
            await exchange.respond(HTTPStatus.NOT_MODIFIED, common)
            return
        case Verdict.FAILED:
            await answers.text(exchange, HTTPStatus.PRECONDITION_FAILED, "the file is another one by now", common)
            return
        case Verdict.SEND:
            pass
    common += (("X-Content-Type-Options", "nosniff"),)
    try:
        # A range of HEAD means nothing (RFC 9110, 14.2).
        ranges = wanted_ranges(exchange.head, validators, size) if exchange.head.method == "GET" else ()
    except Unsatisfiable:
        headers = (*common, ("Content-Range", f"bytes */{size}"))
        await answers.text(exchange, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {size} bytes", headers)
        return
    if not ranges:
        whole = FileSlice(fd=fd, offset=0, length=size)
        await exchange.respond(HTTPStatus.OK, (*common, ("Content-Type", kind)), whole)
    elif len(ranges) == 1:
        headers = (*common, ("Content-Type", kind), ("Content-Range", ranges[0].content_range(size)))
        await exchange.respond(HTTPStatus.PARTIAL_CONTENT, headers, _slice(fd, ranges[0]))
    else:
        boundary = secrets.token_hex(16)
        headers = (*common, ("Content-Type", f"multipart/byteranges; boundary={boundary}"))
        await exchange.respond(HTTPStatus.PARTIAL_CONTENT, headers, _multipart(fd, ranges, kind, size, boundary))


def _multipart(fd: int, ranges: Sequence[Range], kind: str, size: int, boundary: str) -> Body:
    parts: list[Part] = []
    for each in ranges:
        head = f"\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {each.content_range(size)}\r\n\r\n"
        parts += [head.encode("ascii"), _slice(fd, each)]
    parts.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return tuple(parts)


def _slice(fd: int, each: Range) -> FileSlice:
    return FileSlice(fd=fd, offset=each.first, length=each.length)


def content_type(name: bytes) -> str:
    """Return the type of a file by its name; a compressed file is what it is, not an encoding of something else."""
    _, dot, ending = name.rpartition(b".")
    return _TYPES.get(ending.lower(), _DEFAULT_TYPE) if dot else _DEFAULT_TYPE
