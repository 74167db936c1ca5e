"""From a URL's path to an open file, without a moment in which a stranger's text is a path.

The rules:

- A path is decoded once, here, into components; each is the name of one directory entry and nothing else.  What
  could mean anything besides (`.`, `..`, a slash or backslash in disguise, NUL and other controls, nothing at all, what
  is not UTF-8) is refused, not cleaned: two programs that clean differently are an attack.
- Components are looked up from a directory descriptor, never from a name, and no symbolic link is followed on the way,
  not even one that stays below.  The kernel does both in one call (openat2, Linux 5.6); where it cannot, component
  by component with O_NOFOLLOW.
- Nothing is looked at before it is opened: what was opened is what is looked at.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_NAME_BYTES: Final = 255
MAX_COMPONENTS: Final = 256

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNFIT: Final = re.compile(rb"[\x00-\x1f\x7f/\\]")
_COMMON_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_STEP_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | _COMMON_FLAGS

_AT_FDCWD: Final = -100
_SYS_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_MAX_ATTEMPTS: Final = 100


class UnfitPath(ValueError):
    """The path of a URL cannot name a file here; the text says why, and may be shown to who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPath:
    """The path of a URL as names of directory entries."""

    components: tuple[bytes, ...]
    ends_with_slash: bool
    """Whether a directory was meant; true for `/` itself."""


def parse_url_path(raw: bytes) -> UrlPath:
    """Return the components of a path as it stands in a request (still percent-encoded, no query); raises UnfitPath."""
    if not raw.startswith(b"/"):
        raise UnfitPath("the path does not begin with a slash")
    pieces = raw[1:].split(b"/")
    ends_with_slash = pieces[-1] == b""
    if ends_with_slash:
        pieces.pop()
    if len(pieces) > MAX_COMPONENTS:
        raise UnfitPath(f"the path has more than {MAX_COMPONENTS} parts")
    return UrlPath(components=tuple(_decode(piece) for piece in pieces), ends_with_slash=ends_with_slash)


def check_name(name: bytes) -> bytes:
    """Return a name that can be that of a directory entry and is nothing else; raises UnfitPath."""
    if not name:
        raise UnfitPath("a part of the path is empty")
    if name in (b".", b".."):
        raise UnfitPath("a part of the path is . or ..")
    if len(name) > MAX_NAME_BYTES:
        raise UnfitPath(f"a part of the path is longer than {MAX_NAME_BYTES} bytes")
    if _UNFIT.search(name):
        raise UnfitPath("a part of the path contains a slash, a backslash or a control character")
    try:
        # Python's decoder is strict: no overlong forms, no surrogates, nothing beyond U+10FFFF.
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise UnfitPath("a part of the path is not UTF-8") from None
    return name


def _decode(piece: bytes) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise UnfitPath("a percent sign is not followed by two hexadecimal digits")
        return bytes([int(match[1], 16)])

    if b"?" in piece or b"#" in piece:
        raise UnfitPath("the path contains a question mark or a number sign that is not encoded")
    return check_name(_ESCAPE.sub(replace, piece))


# --- opening -----------------------------------------------------------------------------------


def open_beneath(directory_fd: int, components: Sequence[bytes], flags: int, mode: int = 0) -> int:
    """Open what `components` name below the directory, as os.open() does; raises OSError, UnfitPath.

    A symbolic link anywhere is ELOOP (one on the way is ENOTDIR where there is no openat2).  Without components it is
    the directory itself.  The descriptor is closed on exec.  O_NONBLOCK is the caller's choice, and wise where the
    thing may be a FIFO (`open_regular` does it).
    """
    for name in components:
        check_name(name)
    if not components:
        return os.open(b".", flags | _COMMON_FLAGS, dir_fd=directory_fd)
    if not flags & os.O_PATH:
        flags |= os.O_NOCTTY
    if _has_openat2():
        fd = _openat2(directory_fd, b"/".join(components), flags | _COMMON_FLAGS, mode)
    else:
        fd = _open_one_by_one(directory_fd, components, flags | _COMMON_FLAGS, mode)
    # O_PATH opens the link itself, which is not followed and yet not the thing that was meant.
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), components[-1])
    return fd


def open_directory(directory_fd: int, components: Sequence[bytes]) -> int:
    """Open a directory for reading; ENOTDIR when it is anything else."""
    return open_beneath(directory_fd, components, os.O_RDONLY | os.O_DIRECTORY)


def open_parent(directory_fd: int, components: Sequence[bytes]) -> tuple[int, bytes]:
    """Open the directory that the last component is in; return its descriptor and that component.

    The name can be used with `dir_fd` of the os functions; those that could follow a link there must be told not to.
    """
    if not components:
        raise UnfitPath("the path names no file")
    return open_directory(directory_fd, components[:-1]), check_name(components[-1])


def open_regular_outside(
    directory_fd: int, components: Sequence[bytes], private: os.stat_result
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, unless it lies in the directory `private`: then ENOENT.

    Names prove nothing here: whoever may write to the directory above can give a private directory another one.
    """
    if not components:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    # O_PATH: to open a file takes no right to list what is beside it.
    parent_fd = open_beneath(directory_fd, components[:-1], os.O_PATH | os.O_DIRECTORY)
    try:
        if os.path.samestat(os.fstat(parent_fd), private):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return open_regular(parent_fd, components[-1:])
    finally:
        os.close(parent_fd)


def open_regular(directory_fd: int, components: Sequence[bytes]) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; EISDIR for a directory, EACCES for a FIFO, a socket or a device."""
    fd = open_beneath(directory_fd, components, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EACCES, "not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd, found


def _open_one_by_one(directory_fd: int, components: Sequence[bytes], flags: int, mode: int) -> int:
    current = os.open(b".", _STEP_FLAGS, dir_fd=directory_fd)
    try:
        for name in components[:-1]:
            following = os.open(name, _STEP_FLAGS, dir_fd=current)
            os.close(current)
            current = following
        return os.open(components[-1], flags, mode, dir_fd=current)
    finally:
        os.close(current)


# --- openat2 -----------------------------------------------------------------------------------


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _has_openat2() -> bool:
    try:
        fd = _openat2(_AT_FDCWD, b".", os.O_PATH | os.O_CLOEXEC, 0)
    except OSError as error:
        # EPERM is what a sandbox says that does not know the call; without any other mistake it is not here.
        return error.errno not in (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL)
    os.close(fd)
    return True


def _openat2(directory_fd: int, path: bytes, flags: int, mode: int) -> int:
    how = _OpenHow(flags, mode, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        fd = _libc().syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_long(directory_fd),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: something was renamed or mounted on the way while the kernel looked; look again.
        if code not in (errno.EINTR, errno.EAGAIN) or attempt == _MAX_ATTEMPTS:
            raise OSError(code, os.strerror(code), path)
    raise AssertionError
