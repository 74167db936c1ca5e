"""The file that is uploaded: opened with the account's rights, watched for change, read by a thread of its own.

What is sent is one content of the file, or nothing (BG_E_LOCAL_FILE_CHANGED): its size and its time are compared
before the bytes of every request and after every answer to one.  Reading stands in a thread because a file system
may hang, and in one of this file alone because then nobody else waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec
from openbits.worker.failure import Failure, TransferError, account_name, local_failure, shown
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop
from openbits.worker.paths import ForeignLink, open_file

_T = TypeVar("_T")
_PIECE_BYTES: Final = 512 * 1024
_PIECES_AHEAD: Final = 4
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: a FIFO must not hold the thread until somebody writes to it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source, as it was when it was opened; the descriptor belongs to whoever has this."""

    fd: int
    size: int
    modified_ns: int


class NoFileError(OSError):
    """What has the name is no regular file, or has no size."""


def open_source(path: str) -> Opened:
    """Open a file for reading; links of root and of the account itself are followed. Raises OSError."""
    return opened(open_file(path, _OPEN))


def opened(fd: int) -> Opened:
    """Look at a descriptor, and close it where it is of no regular file. Raises OSError."""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NoFileError(errno.EISDIR, "no regular file")
        if status.st_size == 0 and os.pread(fd, 1, 0) and os.fstat(fd).st_size == 0:
            # What stands in /proc looks empty and is not: it has no size, and would arrive as an empty file.
            raise NoFileError(errno.EISDIR, "no size")
    except BaseException:
        os.close(fd)
        raise
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return Opened(fd, status.st_size, status.st_mtime_ns)


def is_as_before(found: Opened, known: FileSpec) -> bool:
    """Whether a source is what an earlier run saw, if there was one (see `frames.worker.UploadFile`)."""
    if known.size is None:
        return True
    return found.size == known.size and known.last_modified in (None, str(found.modified_ns))


def source_failure(error: OSError, path: str) -> Failure:
    """What an error means for the file that is to be uploaded; not in the loop: it looks the account up."""
    if isinstance(error, ForeignLink):
        return local_failure(error, path)
    transient = False
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            name, clause = "ERROR_FILE_NOT_FOUND", "there is no such file: check the path"
        case errno.EACCES | errno.EPERM:
            name, clause = "E_ACCESSDENIED", f"{account_name()} may not read it: give it read access"
        case errno.EISDIR | errno.ENXIO:
            name, clause = "E_ACCESSDENIED", "it is no regular file: only files can be uploaded"
        case _:
            name, clause = "ERROR_READ_FAULT", f"it cannot be read: {os.strerror(error.errno or 0)}"
            transient = error.errno in (errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.EWOULDBLOCK)
            clause += ": it is tried again later" if transient else ": check the disk, then resume the job"
    return Failure(name=name, context=ErrorContext.LOCAL_FILE, message=f"{shown(path)}: {clause}", transient=transient)


def changed(path: str) -> Failure:
    """The file is not what it was when its upload began."""
    return Failure(
        name="BG_E_LOCAL_FILE_CHANGED",
        context=ErrorContext.LOCAL_FILE,
        message=f"{shown(path)} has changed since its upload began: "
        "resume the job to send the new content from the beginning",
        transient=False,
    )


class Source:
    """An open source; every answer comes in the loop, and none after `close`."""

    def __init__(self, loop: Loop, path: str) -> None:
        self.path = path
        self._helper = Helper(loop, "source")
        self._opened: Opened | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Source {self.path!r} {self._opened}>"

    @property
    def opened(self) -> Opened:
        """The open file; only after `open` or `take` has succeeded."""
        assert self._opened is not None
        return self._opened

    def open(self, done: Callable[[Failure | None], None]) -> None:
        """Open the path with this process's rights."""
        self._open(lambda: open_source(self.path), done)

    def take(self, fd: int, done: Callable[[Failure | None], None]) -> None:
        """Use a descriptor that another process has opened; it is ours from now on."""
        self._open(lambda: opened(fd), done)

    def _open(self, work: Callable[[], Opened], done: Callable[[Failure | None], None]) -> None:
        def on_opened(result: Opened | Failure) -> None:
            if isinstance(result, Opened):
                self._opened = result
                done(None)
            else:
                done(result)

        self.submit(work, on_opened, unwanted=lambda result: os.close(result.fd))

    def check(self, done: Callable[[Failure | None], None]) -> None:
        """Find out whether the file still is what it was."""
        source = self.opened
        self.submit(lambda: None if _is_same(source) else changed(self.path), done)

    def submit(
        self,
        work: Callable[[], _T],
        done: Callable[[_T | Failure], None],
        unwanted: Callable[[_T], None] = lambda _result: None,
    ) -> None:
        """Do it in the file's thread; nobody hears of it after `close`."""

        def judged() -> _T | Failure:
            try:
                return work()
            except OSError as error:
                return source_failure(error, self.path)

        def on_done(result: _T | Failure | OSError) -> None:
            assert not isinstance(result, OSError)
            if not self._is_closed:
                done(result)
            elif not isinstance(result, Failure):
                unwanted(result)

        self._helper.submit(judged, on_done)

    def pieces(self, offset: int, length: int) -> Pieces:
        """A part of the file as the body of a request."""
        return Pieces(self, offset, length)

    def read(self, offset: int, count: int, *, first: bool, done: Callable[[bytes | Failure], None]) -> None:
        """Read a piece; with the first one of a request the file is compared, too."""
        source = self.opened

        def work() -> bytes | Failure:
            if first and not _is_same(source):
                return changed(self.path)
            data = os.pread(source.fd, count, offset)
            while 0 < len(data) < count:
                more = os.pread(source.fd, count - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data if len(data) == count else changed(self.path)

        self.submit(work, done)

    def close(self) -> None:
        """Give the file back when the thread has done what it is at; that may hang, and nobody waits for it."""
        if self._is_closed:
            return
        self._is_closed = True
        source = self._opened
        if source is not None:
            self._helper.submit(lambda: os.close(source.fd))
        self._helper.let_go()


def _is_same(source: Opened) -> bool:
    status = os.fstat(source.fd)
    return (status.st_size, status.st_mtime_ns) == (source.size, source.modified_ns)


class Pieces:
    """See `asking.Outgoing`: read a few pieces ahead of the connection, so that neither waits for the other."""

    def __init__(self, source: Source, offset: int, length: int) -> None:
        self.length = length
        self.on_take: Callable[[], None] | None = None
        """Called when libcurl takes something; nothing may be sent from there."""
        self._source = source
        self._offset = offset
        self._wake: Callable[[], None] | None = None
        self._generation = 0
        self._next = 0
        self._ordered = 0
        self._here: deque[bytes] = deque()
        self._failure: Failure | None = None
        self.is_waiting = False
        """Whether the connection waits for the file."""

    @property
    def path(self) -> str:
        """The file's."""
        return self._source.path

    def __repr__(self) -> str:
        return f"<Pieces {self._offset}+{self._next} of {self.length}>"

    def rewind(self, position: int, wake: Callable[[], None]) -> None:
        """See `asking.Outgoing`."""
        self._generation += 1
        self._wake = wake
        self._next = position
        self._ordered = 0
        self._here.clear()
        self._failure = None
        self.is_waiting = False
        self._order(first=True)

    def stop(self) -> None:
        """What is being read is not wanted any more."""
        self._generation += 1
        self._here.clear()
        self._wake = None

    def _order(self, *, first: bool = False) -> None:
        while self._next < self.length and self._ordered + len(self._here) < _PIECES_AHEAD:
            count = min(_PIECE_BYTES, self.length - self._next)
            self._ordered += 1
            done = functools.partial(self._on_read, self._generation)
            self._source.read(self._offset + self._next, count, first=first, done=done)
            self._next += count
            first = False

    def _on_read(self, generation: int, result: bytes | Failure) -> None:
        if generation != self._generation:
            return
        self._ordered -= 1
        if isinstance(result, Failure):
            self._failure = result
        else:
            self._here.append(result)
        if self.is_waiting and self._wake is not None:
            self.is_waiting = False
            self._wake()

    def take(self, most: int) -> bytes | None:
        """See `asking.Outgoing`."""
        if self.on_take is not None:
            self.on_take()
        if not self._here:
            if self._failure is not None:
                raise TransferError(self._failure)
            self.is_waiting = True
            return None
        piece = self._here.popleft()
        if len(piece) > most:
            self._here.appendleft(piece[most:])
            return piece[:most]
        self._order()
        return piece
