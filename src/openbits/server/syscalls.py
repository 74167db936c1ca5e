"""System calls that Python does not offer, for files that arrive."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_RENAME_NOREPLACE: Final = 1
_FALLOC_FL_KEEP_SIZE: Final = 1
_UNSUPPORTED: Final = frozenset((errno.ENOSYS, errno.EOPNOTSUPP))

_LIBC.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def rename_new(source: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Rename, unless anything has the new name: then FileExistsError.  Both in one moment."""
    if _LIBC.renameat2(source_fd, source, target_fd, target, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, *_UNSUPPORTED):
        raise OSError(code, os.strerror(code), target)
    # A file system without this flag. A link never replaces anything either; the old name goes a moment later.
    try:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except FileExistsError:
        # Killed in that moment, an earlier attempt has left both names: then the new one is ours.
        old = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
        if not os.path.samestat(old, os.stat(target, dir_fd=target_fd, follow_symlinks=False)):
            raise
    os.unlink(source, dir_fd=source_fd)


def mount_of(fd: int) -> str:
    """Return what tells the mount of an open file from others, bind mounts of the same file system among them.

    Empty where it cannot be known.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""


def reserve(fd: int, length: int) -> None:
    """Reserve room for a file of `length` bytes, whose size stays what has been written.

    A file system that cannot is no error: then the size of what is free was looked at, and that has to do.
    """
    if _LIBC.fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, length) != 0:
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
