"""One file:// source: copied slice by slice in the reader thread, so that a slow disk stops nobody.

The source is a regular file, of whatever name; what it was when the copy began is kept as its
validator, and a source that changes meanwhile begins the copy again (D3).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from openbits.core.http import format_date
from openbits.core.model import ByteRange
from openbits.core.ranges import Segment, resolve
from openbits.errors import BitsError, ErrorContext
from openbits.frames.worker import FileSpec, FileStarted
from openbits.worker.acl import keep
from openbits.worker.answers import too_large
from openbits.worker.checksum import Checksum
from openbits.worker.failure import Failure, TransferError, local_failure, shown
from openbits.worker.finishing import Finishing
from openbits.worker.run import Run
from openbits.worker.sink import Sink

_SLICE_BYTES: Final = 8 * 1024 * 1024
_NOT_HERE: Final = frozenset((errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
_CHANGED: Final = "the remote file has changed: it is fetched again from the beginning"


@dataclass(frozen=True, slots=True)
class _Source:
    fd: int
    size: int
    modified_ns: int
    version: str


def source_path(url: str) -> str:
    """The local path that a file:// URL names. Raises TransferError when it names another machine."""
    parts = urlsplit(url)
    path = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise TransferError(
            Failure(
                name="ERROR_WINHTTP_INVALID_URL",
                context=ErrorContext.REMOTE_FILE,
                message=f"{url[:200]} names no file of this machine: write file:///full/path",
                transient=False,
            )
        )
    return path


def _read_failure(error: OSError, path: str) -> Failure:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            name, clause, transient = "ERROR_FILE_NOT_FOUND", "there is no such file: check the path", False
        case errno.EACCES | errno.EPERM:
            clause = "the job's owner, or the helper for the network, may not read it"
            name, transient = "E_ACCESSDENIED", False
        case errno.EISDIR | errno.ENXIO:
            name, clause, transient = "E_ACCESSDENIED", "it is no regular file", False
        case _:
            name, clause = "ERROR_READ_FAULT", f"it cannot be read: {os.strerror(error.errno or 0)}"
            transient = error.errno in (errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
    return Failure(name=name, context=ErrorContext.REMOTE_FILE, message=f"{shown(path)}: {clause}", transient=transient)


def _open_source(path: str) -> _Source:
    # O_NONBLOCK: a FIFO must not hold the thread until somebody writes to it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    version = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
    return _Source(fd, status.st_size, status.st_mtime_ns, version)


def copy_slice(source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
    """Copy at most `count` bytes, by reference where the file system can; return how many. Raises OSError."""
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    data = os.pread(source, min(count, 1024 * 1024), source_offset)
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], target_offset + done)
    return done


class FileCopy:
    """A file whose remote name is file://; it needs no lane."""

    def __init__(self, run: Run, spec: FileSpec) -> None:
        self.run = run
        self.spec = spec
        self._path = ""
        self._source: _Source | None = None
        self._segments: tuple[Segment, ...] = ()
        self._total = 0
        self._position = 0
        self._restarts = 0
        self._is_stopping = False
        self._is_closed = False
        self._finishing: Finishing | None = None
        self._is_busy = False
        self.sink = Sink(
            run.tools.loop,
            run.tools.syncer,
            run.place(spec),
            run.sink_settings,
            lambda durable: run.on_durable(spec.index, durable),
            lambda error: self._fail(local_failure(error, spec.temporary_name)),
        )

    def __repr__(self) -> str:
        return f"<FileCopy {self.spec.index} at {self._position} of {self._total}>"

    def start(self) -> None:
        """Open the source."""
        try:
            self._path = source_path(self.spec.remote_name)
        except TransferError as error:
            self._fail(error.failure)
            return
        self._is_busy = True
        self.run.tools.reader.submit(lambda: _open_source(self._path), self._on_opened)

    def stop(self) -> None:
        """End early."""
        self._is_stopping = True
        if self._finishing is not None:
            self._finishing.cancel()
        elif not self._is_busy:
            self._close()

    def _on_opened(self, result: _Source | OSError) -> None:
        self._is_busy = False
        if isinstance(result, OSError):
            self._fail(_read_failure(result, self._path))
            return
        self._source = result
        if self._is_stopping:
            self._close()
            return
        try:
            self._begin(result)
        except TransferError as error:
            self._fail(error.failure)

    def _begin(self, source: _Source) -> None:
        spec = self.spec
        ranges = [ByteRange(piece.offset, piece.length) for piece in spec.ranges]
        try:
            self._segments = resolve(ranges, source.size) if ranges else (Segment(0, source.size, 0),)
        except BitsError as error:
            raise TransferError(
                Failure(name=error.name, context=ErrorContext.REMOTE_FILE, message=error.message, transient=False)
            ) from None
        self._total = sum(segment.length for segment in self._segments)
        reason = _CHANGED if self._restarts else ""
        if spec.durable_bytes and not self._restarts:
            same = spec.etag == source.version and spec.durable_bytes <= self._total
            if same and self.sink.continue_from(spec.durable_bytes):
                self._position = spec.durable_bytes
            else:
                reason = _CHANGED
        allowance = self.run.allowance
        if allowance is not None and self._total - self._position > allowance:
            raise TransferError(too_large(spec.remote_name, allowance))
        self.run.on_started(
            FileStarted(
                transfer=self.run.settings.transfer,
                index=spec.index,
                bytes_total=self._total,
                size=source.size,
                etag=source.version,
                last_modified=format_date(source.modified_ns // 1_000_000_000),
                offset=self._position,
                restarted=reason,
            )
        )
        self.sink.reserve(self._total)
        self._next_slice()

    def _next_slice(self) -> None:
        source = self._source
        assert source is not None
        if self._is_stopping:
            self._close()
            return
        if self._position >= self._total:
            self._complete(source)
            return
        segment = next(s for s in self._segments if self._position < s.local_offset + s.length)
        within = self._position - segment.local_offset
        count = min(_SLICE_BYTES, segment.length - within)
        target, position = self.sink.fd, self._position
        self._is_busy = True
        self.run.tools.reader.submit(
            lambda: copy_slice(source.fd, target, count, segment.remote_offset + within, position), self._on_copied
        )

    def _on_copied(self, result: int | OSError) -> None:
        self._is_busy = False
        if self._is_closed:
            self._close_source()
            return
        if isinstance(result, OSError):
            self._fail(local_failure(result, self.spec.temporary_name))
            return
        if result == 0:
            self._changed()
            return
        self.sink.note_written(self._position, self._position + result)
        self._position += result
        self.run.has_progressed = True
        if self.run.allowance is not None:
            self.run.allowance -= result
        self.run.on_received(self.spec.index, self._position)
        self._next_slice()

    def _changed(self) -> None:
        """The source is not what it was: begin again, once."""
        self._close_source()
        if self._restarts:
            self._fail(
                Failure(
                    name="BG_E_REMOTE_FILE_CHANGED",
                    context=ErrorContext.REMOTE_FILE,
                    message=f"{shown(self._path)} changes while it is copied: it is tried again later",
                    transient=True,
                )
            )
            return
        self._restarts += 1
        self._position = 0
        try:
            self.sink.reset()
        except TransferError as error:
            self._fail(error.failure)
            return
        self.start()

    def _complete(self, source: _Source) -> None:
        status = os.fstat(source.fd)
        if (status.st_size, status.st_mtime_ns) != (source.size, source.modified_ns):
            self._changed()
            return
        if not self.run.settings.acl_flags:
            self._finish(source)
            return
        flags, target, path = self.run.settings.acl_flags, self.sink.fd, self.spec.local_name
        self._is_busy = True
        self.run.tools.reader.submit(
            lambda: keep(source.fd, target, flags, path), lambda result: self._on_kept(source, result)
        )

    def _on_kept(self, source: _Source, result: Failure | OSError | None) -> None:
        assert not isinstance(result, OSError), "whatever goes wrong is a failure"
        self._is_busy = False
        if self._is_closed:
            self._close_source()
        elif self._is_stopping:
            self._close()
        elif result is not None:
            self._fail(result)
        else:
            self._finish(source)

    def _finish(self, source: _Source) -> None:
        self._close_source()
        self._finishing = Finishing(
            spec=self.spec,
            sink=self.sink,
            reader=self.run.tools.reader,
            checksum=Checksum(self.spec.checksum) if self.spec.checksum else None,
            on_done=lambda size: self.run.on_done(self, size),
            on_failed=self._fail,
            on_cancelled=self._close,
        )
        self.run.on_network_done(self)
        self._finishing.start(self._total, format_date(source.modified_ns // 1_000_000_000))

    def _fail(self, failure: Failure) -> None:
        if self._is_closed:
            return
        if failure.name == "ERROR_CRC":
            self.sink.reset()
            self.run.on_durable(self.spec.index, 0)
        self.run.on_failed(self, failure)
        self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_busy:
            self._close_source()
        self.sink.close(lambda _error: self.run.on_closed(self))

    def _close_source(self) -> None:
        if self._source is not None:
            os.close(self._source.fd)
            self._source = None
