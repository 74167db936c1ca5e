"""Temporary files that change hands: opened by the old owner's process, made anew by the new owner's (I8).

Nobody gives a file away: that would need a privilege, and a path that the old owner controls.  The new
owner makes a file of his own, with the bytes that the store knows of, which are on the disk before the store is told.
What comes with a descriptor is believed no more than the account that it comes from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import Final

from openbits.frames.operations import AdoptFile, FileOpened, FileResult
from openbits.worker.failure import local_failure, shown
from openbits.worker.filecopy import copy_slice
from openbits.worker.files import Directories, Directory, create, set_modified

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_SLICE_BYTES: Final = 16 * 1024 * 1024
_NOT_THERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES))
LOST: Final = "ERROR_FILE_NOT_FOUND"
"""The bytes are not there as they were left, and nobody will find them."""


class _Cancelled(Exception):
    """The process is to end."""


def open_for_reading(operation: int, path: str, least_bytes: int) -> tuple[FileOpened, int | None]:
    """Open a temporary file for somebody else's eyes; ERROR_FILE_NOT_FOUND when it is not the one that we left."""
    directories = Directories()
    try:
        directory, name = directories.hold(path)
        try:
            fd = os.open(name, _READ, dir_fd=directory.fd)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return _lost(operation, path), None
        finally:
            directory.release()
    except FileNotFoundError:
        return _lost(operation, path), None
    except OSError as error:
        failure = local_failure(error, path)
        return FileOpened(operation=operation, error=failure.name, message=failure.message), None
    finally:
        directories.close()
    status = os.fstat(fd)
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
    if not is_ours or status.st_size < least_bytes:
        os.close(fd)
        return _lost(operation, path), None
    return FileOpened(operation=operation, kept=True), fd


def _lost(operation: int, path: str) -> FileOpened:
    return FileOpened(operation=operation, error=LOST, message=f"{shown(path)} is not there as it was left")


class Adoption:
    """One file that is made anew; what could not be made whole is not left behind.

    `begin` belongs to the loop's thread, because the umask is the process's; `copy` takes long.
    """

    def __init__(self, order: AdoptFile, source: int, is_cancelled: Callable[[], bool]) -> None:
        """The descriptor belongs to the adoption from now on."""
        self._order = order
        self._source = source
        self._is_cancelled = is_cancelled
        self._directories = Directories()
        self._modified_epoch_s = 0.0
        self._name = ""
        self._directory: Directory | None = None
        self._target: int | None = None

    def __repr__(self) -> str:
        return f"<Adoption of {self._order.temporary_name!r}>"

    def begin(self) -> list[FileResult]:
        """Make the empty file; return why that was not possible, if it was not."""
        order = self._order
        try:
            status = os.fstat(self._source)
            if not stat.S_ISREG(status.st_mode) or status.st_size < order.length:
                failure = FileResult(index=0, error=LOST, message=f"too little came for {shown(order.temporary_name)}")
                self._close()
                return [failure]
            self._modified_epoch_s = status.st_mtime
            self._directory, self._name = self._directories.hold(order.temporary_name)
            self._target = create(self._directory, self._name, umask=order.umask)
        except OSError as error:
            self._close()
            return [self._failure(error)]
        return []

    def copy(self) -> list[FileResult]:
        """Copy the bytes and make them durable; return why that was not possible, if it was not."""
        assert self._directory is not None
        assert self._target is not None
        try:
            try:
                _copy(self._source, self._target, self._order.length, self._is_cancelled)
                set_modified(self._target, self._modified_epoch_s)
                if self._order.is_synced:
                    os.fsync(self._target)
                    self._directory.sync()
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(self._name, dir_fd=self._directory.fd)
                raise
        except _Cancelled:
            return [FileResult(index=0, error="E_FAIL", message="the service is stopping")]
        except OSError as error:
            return [self._failure(error)]
        finally:
            self._close()
        return []

    def _failure(self, error: OSError) -> FileResult:
        failure = local_failure(error, self._order.temporary_name)
        return FileResult(index=0, error=failure.name, message=failure.message)

    def _close(self) -> None:
        os.close(self._source)
        if self._target is not None:
            os.close(self._target)
        if self._directory is not None:
            self._directory.release()
        self._directories.close()


def sync_directories(paths: Iterable[str]) -> list[FileResult]:
    """Make durable what was made in these directories: each file system is synced once."""
    synced: set[int] = set()
    for path in paths:
        try:
            directory = Directory(path)
            try:
                if directory.device not in synced:
                    directory.sync_file_system()
                    synced.add(directory.device)
            finally:
                directory.release()
        except OSError as error:
            failure = local_failure(error, path)
            return [FileResult(index=0, error=failure.name, message=failure.message)]
    return []


def _copy(source: int, target: int, length: int, is_cancelled: Callable[[], bool]) -> None:
    """Copy what is in a file; its holes, of which one that comes piece by piece has many, stay holes (J67)."""
    end = 0
    while end < length:
        try:
            done = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = min(length, os.lseek(source, done, os.SEEK_HOLE))
        while done < end:
            if is_cancelled():
                raise _Cancelled
            copied = copy_slice(source, target, min(_SLICE_BYTES, end - done), done, done)
            if copied == 0:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            done += copied
    if os.fstat(source).st_size < length:
        raise OSError(errno.EIO, "the file became shorter while it was read")
    os.ftruncate(target, length)
