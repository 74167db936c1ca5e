"""The owner's files: every path is a name in a directory that is held open.

A directory that somebody else can write to may change under us at any moment.  So a directory is
opened once (`paths` says which links may lead to it), names are looked up in it without following
a link at the end, and a file is used only if it is a regular file of ours with a single name.  What
stands in the way of a new temporary file is taken away by name, never written through.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import Final

from openbits.worker.paths import open_directory
from openbits.worker.syscalls import syncfs

_READABLE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CACHED_DIRECTORIES: Final = 64


class Directory:
    """A directory that is held open, and counted: it is closed when nobody needs it any more."""

    __slots__ = ("_users", "device", "fd", "is_readable", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = open_directory(path)
        self.is_readable = self._make_readable()
        self.device = os.fstat(self.fd).st_dev
        self._users = 1

    def __repr__(self) -> str:
        return f"<Directory {self.path!r} fd={self.fd} users={self._users}>"

    def _make_readable(self) -> bool:
        """Only what is open for reading can be synced; files can be put into a drop box all the same."""
        way = self.fd
        try:
            self.fd = os.open(".", _READABLE, dir_fd=way)
        except PermissionError:
            return False
        except BaseException:
            os.close(way)
            raise
        os.close(way)
        return True

    def sync(self) -> None:
        """Make the names in it durable."""
        if self.is_readable:
            os.fsync(self.fd)
        else:
            os.sync()

    def sync_file_system(self) -> None:
        """Make everything durable that is on its file system; raises OSError for what could not be written."""
        if self.is_readable:
            syncfs(self.fd)
        else:
            os.sync()

    def hold(self) -> Directory:
        """One more user."""
        self._users += 1
        return self

    def release(self) -> None:
        """One user less."""
        self._users -= 1
        if self._users == 0:
            os.close(self.fd)


class Directories:
    """The directories of one transfer or operation, the last few of which are kept open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Directory] = OrderedDict()

    def hold(self, path: str) -> tuple[Directory, str]:
        """The directory a path stands in, which the caller must release, and the name in it."""
        parent, _, name = path.rpartition("/")
        directory = self._open.get(parent)
        if directory is None:
            directory = Directory(parent or "/")
            self._open[parent] = directory
            if len(self._open) > _CACHED_DIRECTORIES:
                self._open.popitem(last=False)[1].release()
        if name in ("", ".", ".."):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return directory.hold(), name

    def close(self) -> None:
        """Release every directory."""
        while self._open:
            self._open.popitem()[1].release()


_current_umask = -1


def set_umask(mask: int) -> None:
    """Make the mask that of the transfer whose file is created next.

    The mask and not fchmod: only so do default access lists of the directory take part (D8).
    """
    global _current_umask  # noqa: PLW0603 -- the process has one mask, and this is what it is
    if mask != _current_umask:
        os.umask(mask)
        _current_umask = mask


def create(directory: Directory, name: str, *, umask: int) -> int:
    """Make an empty file; our own leftover of that name is used again, anything else is taken away."""
    set_umask(umask)
    try:
        return os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory.fd)
    except FileExistsError:
        pass
    fd = reopen(directory, name)
    if fd is not None:
        os.ftruncate(fd, 0)
        return fd
    os.unlink(name, dir_fd=directory.fd)
    return os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory.fd)


def reopen(directory: Directory, name: str, *, least_bytes: int = 0) -> int | None:
    """Open a file of an earlier run; None when there is none, or not the one that we left."""
    try:
        # What is no file is not even opened: a device may do something when it is.
        if not stat.S_ISREG(os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_mode):
            return None
        fd = os.open(name, _FILE, dir_fd=directory.fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
            return None
        raise
    status = os.fstat(fd)
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
    if is_ours and status.st_size >= least_bytes:
        return fd
    os.close(fd)
    return None


def set_modified(fd: int, epoch_s: float | None) -> None:
    """Give the file the server's time (D9); a file system that cannot hold it keeps its own."""
    if epoch_s is None:
        return
    nanoseconds = int(epoch_s) * 1_000_000_000
    try:
        os.utime(fd, ns=(nanoseconds, nanoseconds))
    except (OSError, OverflowError):
        return
