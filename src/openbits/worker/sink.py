"""The temporary file of one file on the way: where received bytes go, and how far they are durable.

Bytes are collected and written a quarter of a mebibyte at a time, since libcurl delivers 16 KiB and
a system call for each of those costs more than the rest of the way.  A small file is one write when
it is whole.  `durable` never runs ahead of what a sync has confirmed (architecture, section 3); the
size of the file on the disk is never believed, for it is allocated in advance.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.core.ranges import Coverage
from openbits.worker.failure import TransferError, local_failure
from openbits.worker.files import Directory
from openbits.worker.loop import Loop, Timer
from openbits.worker.places import Place
from openbits.worker.syncer import Syncer
from openbits.worker.syscalls import allocate

_WRITE_BYTES: Final = 256 * 1024
_CHUNKS: Final = 1000
"""As many as one system call takes (IOV_MAX is 1024)."""
_ALLOCATE_FROM: Final = 1024 * 1024
"""Smaller files are written at once and need no room reserved."""
_WRITE_BACK_BYTES: Final = 16 * 1024 * 1024


Intervals = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """What a transfer says about its files."""

    umask: int
    checkpoint_bytes: int
    checkpoint_s: float
    takes_checkpoints: bool


class Sink:
    """Raises TransferError with the file's name where the file system refuses."""

    def __init__(
        self,
        loop: Loop,
        syncer: Syncer,
        place: Place,
        settings: SinkSettings,
        on_durable: Callable[[int], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._syncer = syncer
        self._place = place
        self.path = place.path
        self._settings = settings
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._fd: int | None = None
        self._is_name_durable = False
        self._size_is_exact = True
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._chunk_offset = 0
        self._coverage = Coverage()
        self._generation = 0
        self.durable = 0
        self._unsynced = 0
        self._unwritten_back = 0
        self._is_syncing = False
        self._is_known_to_syncer = False
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Sink {self.path!r} prefix={self.prefix} durable={self.durable}>"

    @property
    def fd(self) -> int:
        """The file's descriptor, opening it if need be."""
        if self._fd is None:
            self._open_new()
        assert self._fd is not None
        return self._fd

    @property
    def prefix(self) -> int:
        """Bytes at the start of the file that have been received, without a gap."""
        prefix = self._coverage.prefix
        if self._chunks and self._chunk_offset <= prefix:
            return max(prefix, self._chunk_offset + self._chunk_bytes)
        return prefix

    @property
    def coverage(self) -> Coverage:
        """What has been received; everything is written when this returns."""
        self.flush()
        return self._coverage

    def local_error(self, error: OSError) -> TransferError:
        """The error as the transfer reports it."""
        return TransferError(local_failure(error, self.path))

    def continue_from(self, durable_bytes: int) -> bool:
        """Take up the file of an earlier run; False when it is not there as it was left."""
        try:
            self._fd = self._place.take_up(durable_bytes)
        except OSError as error:
            raise self.local_error(error) from None
        if self._fd is None:
            return False
        self._coverage = Coverage(durable_bytes)
        self.durable = durable_bytes
        self._is_name_durable = True
        self._size_is_exact = False
        return True

    def reset(self) -> None:
        """Drop everything: the file begins again."""
        self._generation += 1
        self._chunks.clear()
        self._chunk_bytes = 0
        self._coverage = Coverage()
        self.durable = 0
        self._unsynced = self._unwritten_back = 0
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                raise self.local_error(error) from None

    def reserve(self, total: int) -> None:
        """Reserve room on the disk for the whole file, before it is missed."""
        start = self.prefix
        if total - start < _ALLOCATE_FROM:
            return
        fd = self.fd
        self._size_is_exact = False
        try:
            allocate(fd, start, total - start)
        except OSError as error:
            raise self.local_error(error) from None

    def write(self, offset: int, data: bytes) -> None:
        """Take bytes that stand at `offset` in the file."""
        if offset != self._chunk_offset + self._chunk_bytes or not self._chunks:
            self.flush()
            self._chunk_offset = offset
        self._chunks.append(data)
        self._chunk_bytes += len(data)
        if self._chunk_bytes >= _WRITE_BYTES or len(self._chunks) >= _CHUNKS:
            self.flush()
        elif self._timer is None:
            self._start_timer()

    def flush(self) -> None:
        """Hand what was collected to the kernel."""
        if not self._chunks:
            return
        start = offset = self._chunk_offset
        try:
            while self._chunks:
                written = os.pwritev(self.fd, self._chunks, offset)
                offset += written
                self._chunk_bytes -= written
                self._drop_written(written)
        except OSError as error:
            self._chunk_offset = offset
            self.note_written(start, offset)
            raise self.local_error(error) from None
        self.note_written(start, offset)

    def _drop_written(self, written: int) -> None:
        while self._chunks and written >= len(self._chunks[0]):
            written -= len(self._chunks[0])
            del self._chunks[0]
            if written == 0 and self._chunks:
                return
        if written:
            self._chunks[0] = self._chunks[0][written:]

    def note_written(self, start: int, end: int) -> None:
        """Bytes stand in the file now, written here or by the kernel itself."""
        self._coverage.add(start, end)
        self._unsynced += end - start
        self._unwritten_back += end - start
        if not self._settings.takes_checkpoints:
            return
        if self._unwritten_back >= _WRITE_BACK_BYTES:
            self._is_known_to_syncer = True
            self._syncer.write_back(self.fd, max(0, end - self._unwritten_back), self._unwritten_back)
            self._unwritten_back = 0
        if self._unsynced >= self._settings.checkpoint_bytes:
            self.checkpoint()
        elif self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        if self._settings.takes_checkpoints:
            self._timer = self._loop.call_later(self._settings.checkpoint_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.flush()
        except TransferError as error:
            self._on_failed(_cause(error))
            return
        self.checkpoint()

    def checkpoint(self) -> None:
        """Make durable what has been written, and tell when it is."""
        if self._is_syncing or not self._unsynced or self._fd is None:
            return
        self._is_syncing = self._is_known_to_syncer = True
        self._unsynced = 0
        written, generation = self._coverage.intervals, self._generation
        directory = None if self._is_name_durable else self._place.directory
        self._syncer.checkpoint(self._fd, directory, lambda result: self._on_synced(written, generation, result))

    def _on_synced(self, written: Intervals, generation: int, error: OSError | None) -> None:
        self._is_syncing = False
        if error is not None:
            self._on_failed(error)
            return
        self._is_name_durable = True
        if generation == self._generation:
            self.note_durable(written)
        if self._unsynced and self._timer is None and self._fd is not None:
            self._start_timer()

    def note_durable(self, written: Intervals) -> None:
        """These bytes would survive a power cut: tell how far the file does."""
        prefix = written[0][1] if written and written[0][0] == 0 else 0
        if prefix > self.durable:
            self.durable = prefix
            self._on_durable(prefix)

    def finish(self, total: int, modified_epoch_s: float | None, done: Callable[[OSError | None], None]) -> None:
        """The file is whole: cut it to size, date it and let it be synced; the sink is closed by that."""
        self.flush()
        fd = self.fd
        try:
            if not self._size_is_exact:
                os.ftruncate(fd, total)
        except OSError as error:
            raise self.local_error(error) from None
        self._place.set_modified(fd, modified_epoch_s)
        directory = self._let_go()
        self._syncer.finish(fd, directory, done, is_known_here=self._is_known_to_syncer)

    def close(self, done: Callable[[OSError | None], None]) -> None:
        """The file stays unfinished: make durable what there is of it, tell how much, then close it."""
        failed: OSError | None = None
        try:
            self.flush()
        except TransferError as error:
            failed = _cause(error)
        if self._fd is None:
            self._stop_timer()
            self._place.release()
            self._loop.post(lambda: done(failed))
            return
        fd, written, generation = self._fd, self._coverage.intervals, self._generation
        directory = self._let_go()

        def on_synced(error: OSError | None) -> None:
            if error is None and generation == self._generation:
                self.note_durable(written)
            self._syncer.close_file(fd, directory)
            done(failed or error)

        self._syncer.checkpoint(fd, directory, on_synced)

    def _let_go(self) -> Directory | None:
        """Give descriptor and directory away."""
        self._stop_timer()
        self._fd = None
        return self._place.hand_over()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open_new(self) -> None:
        try:
            self._fd = self._place.make(self._settings.umask)
        except OSError as error:
            raise self.local_error(error) from None


def _cause(error: TransferError) -> OSError:
    cause = error.__context__
    return cause if isinstance(cause, OSError) else OSError(0, str(error))
