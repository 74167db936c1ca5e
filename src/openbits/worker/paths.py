"""The way to a directory, or to a file that is read: root's and one's own links are followed, others' never.

Who may write to a directory on the way can put a link in the place of the next one, at any moment.
If a process with the owner's rights followed it, somebody else would choose where the owner's files are
written, replaced and deleted.  The kernel's own guard (protected_symlinks) watches sticky directories
only.  So the way is walked here, name by name, and each link is asked whose it is.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS: Final = 40
"""As many as the kernel follows."""


class ForeignLink(PermissionError):
    """A link of another account stands on the way; `filename` is where."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EACCES, "the link belongs to another account", path)


def open_directory(path: str) -> int:
    """Return a descriptor of a directory, by which names in it can be used (O_PATH); raises OSError."""
    fd = os.open("/", _STEP | os.O_DIRECTORY)
    try:
        walked: list[str] = []
        ahead = path.split("/")[::-1]
        links = 0
        while ahead:
            name = ahead.pop()
            if name in ("", "."):
                continue
            step = _step(fd, name)
            if not stat.S_ISLNK(os.fstat(step).st_mode):
                os.close(fd)
                fd = step
                walked.append(name)
                continue
            try:
                target = _target(step, "/".join(("", *walked, name)))
            finally:
                os.close(step)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                os.close(fd)
                fd = os.open("/", _STEP | os.O_DIRECTORY)
                walked.clear()
            ahead += target.split("/")[::-1]
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_file(path: str, flags: int) -> int:
    """Open a file; a link in its place is asked whose it is, too. Raises OSError."""
    links = 0
    while True:
        parent, _, name = path.rpartition("/")
        directory = open_directory(parent or "/")
        try:
            if name in ("", ".", ".."):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            step = os.open(name, _STEP, dir_fd=directory)
            try:
                mode = os.fstat(step).st_mode
                if not stat.S_ISLNK(mode):
                    if not stat.S_ISREG(mode):
                        # Opening a device can do something to it; a FIFO has somebody at its other end.
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
                target = _target(step, path)
            finally:
                os.close(step)
        finally:
            os.close(directory)
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        # Relative to what the directory's path says: the way there is walked, and judged, once more.
        path = target if target.startswith("/") else f"{parent}/{target}"


def _step(fd: int, name: str) -> int:
    try:
        # Asked for as a directory, so that what is mounted on demand is mounted.
        return os.open(name, _STEP | os.O_DIRECTORY, dir_fd=fd)
    except NotADirectoryError:
        return os.open(name, _STEP, dir_fd=fd)


def _target(link: int, path: str) -> str:
    if os.fstat(link).st_uid not in (0, os.geteuid()):
        raise ForeignLink(path)
    return os.readlink("", dir_fd=link)
