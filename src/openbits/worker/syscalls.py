"""System calls that Python does not offer, bound once at import."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SYNC_FILE_RANGE_WRITE: Final = 2
_UNSUPPORTED: Final = frozenset((38, 95))  # ENOSYS, EOPNOTSUPP

_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_LIBC.syncfs.argtypes = (ctypes.c_int,)
_LIBC.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _raise_errno(path: str | None = None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def allocate(fd: int, offset: int, length: int) -> None:
    """Reserve room on the disk.  A file system that cannot is no error.

    Not os.posix_fallocate: where the file system cannot, that one writes zeros instead.
    """
    if _LIBC.fallocate(fd, 0, offset, length) != 0 and ctypes.get_errno() not in _UNSUPPORTED:
        _raise_errno()


def syncfs(fd: int) -> None:
    """Write back the whole file system that the descriptor is on; errors since it was opened are raised."""
    if _LIBC.syncfs(fd) != 0:
        _raise_errno()


def file_system_type(fd: int) -> int:
    """The magic number of the file system that a descriptor is on."""
    # struct statfs begins with it; the rest is 120 bytes at most, on every architecture.
    answer = (ctypes.c_long * 32)()
    if _LIBC.fstatfs(fd, ctypes.byref(answer)) != 0:
        _raise_errno()
    return int(answer[0]) & 0xFFFF_FFFF


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a part of a file to the disk.  A hint: it promises nothing."""
    _LIBC.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)
