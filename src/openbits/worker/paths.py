"""The way to a directory: links of root and of one's own are followed, links of other accounts never.

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
