"""inotify(7), as far as it is needed here: the standard library has no binding for it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MODIFY: Final = 0x002
ATTRIB: Final = 0x004
CLOSE_WRITE: Final = 0x008
MOVED_FROM: Final = 0x040
MOVED_TO: Final = 0x080
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x0100_0000

_HEADER: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    """Something has happened to what the watch `watch` is about; `name` is an entry of a directory, or empty."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """A descriptor that becomes readable when something happens; all methods raise OSError."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "")

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watch a path; return the number of the watch. The path must be readable."""
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask)), path)

    def read(self) -> Iterator[Event]:
        """Yield what has happened, all of it."""
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            yield from split_events(data)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def split_events(data: bytes) -> Iterator[Event]:
    """Read what the kernel writes: headers, each with a name that is filled up with NULs."""
    offset = 0
    while len(data) - offset >= _HEADER.size:
        watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        yield Event(watch=watch, mask=mask, name=data[offset : offset + length].rstrip(b"\0"))
        offset += length


def _checked(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path or None)
    return result
