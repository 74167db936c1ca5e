"""Makes bytes durable, in a thread of its own, and says so only when they are.

Large files are synced one by one at checkpoints.  Small finished files wait for each other a moment
and are synced together: a few by fdatasync, many by one syncfs of their file system.  Directories
are synced with the first bytes of a new file, or its name would not survive a power cut.  A file without a
directory came as a handle: whoever opened it has made its name durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from openbits.worker.files import Directory
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop, Timer
from openbits.worker.syscalls import start_writeback

FEW: Final = 8
"""Up to here files are synced one by one; a syncfs also writes what others left unwritten."""
_BATCH: Final = 512
_BATCH_DELAY_S: Final = 0.1


@dataclass(slots=True, kw_only=True)
class _Finished:
    fd: int | None
    directory: Directory | None
    done: Callable[[OSError | None], None]


class Syncer:
    """One for all transfers of the worker."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._helper = Helper(loop, "sync")
        self._waiting: list[_Finished] = []
        self._open_fds = 0
        self._timer: Timer | None = None
        self._is_syncing = False

    def __repr__(self) -> str:
        return f"<Syncer waiting={len(self._waiting)}>"

    def close(self) -> None:
        """Finish what was begun."""
        self._helper.close()

    def write_back(self, fd: int, offset: int, length: int) -> None:
        """Let the kernel begin to write, so that the next checkpoint has little left to wait for."""
        self._helper.submit(lambda: start_writeback(fd, offset, length))

    def checkpoint(self, fd: int, directory: Directory | None, done: Callable[[OSError | None], None]) -> None:
        """Sync one file's content, and the directory if one is given; the caller keeps both."""

        def work() -> None:
            os.fdatasync(fd)
            if directory is not None:
                directory.sync()

        self._helper.submit(work, done)

    def close_file(self, fd: int, directory: Directory | None) -> None:
        """Close a file after everything that was asked for it."""

        def work() -> None:
            os.close(fd)

        def done(_: object) -> None:
            if directory is not None:
                directory.release()

        self._helper.submit(work, done)

    def finish(
        self, fd: int, directory: Directory | None, done: Callable[[OSError | None], None], *, is_known_here: bool
    ) -> None:
        """Sync a finished file, some time soon, together with others; both descriptors are the syncer's now.

        `is_known_here`: earlier work for the descriptor may still wait in the thread, so only the
        thread may close it.
        """
        if directory is not None and self._open_fds >= FEW and not is_known_here and directory.is_readable:
            # Many: one syncfs will do for all, and descriptors are not there to be hoarded.
            os.close(fd)
            self._waiting.append(_Finished(fd=None, directory=directory, done=done))
        else:
            self._open_fds += 1
            self._waiting.append(_Finished(fd=fd, directory=directory, done=done))
        if len(self._waiting) >= _BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_BATCH_DELAY_S, self.flush)

    def flush(self) -> None:
        """Sync what waits now: nothing more will come soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._is_syncing:
            return
        batch, self._waiting = self._waiting, []
        self._open_fds = 0
        self._is_syncing = True
        self._helper.submit(lambda: _sync_batch(batch), lambda result: self._on_synced(batch, result))

    def _on_synced(self, batch: list[_Finished], result: OSError | None) -> None:
        self._is_syncing = False
        for finished in batch:
            if finished.directory is not None:
                finished.directory.release()
        for finished in batch:
            finished.done(result)
        if len(self._waiting) >= _BATCH or (self._waiting and self._timer is None):
            self.flush()


def _sync_batch(batch: list[_Finished]) -> None:
    directories = {at.fd: at for finished in batch if (at := finished.directory) is not None}.values()
    by_file_system = any(finished.fd is None for finished in batch)
    try:
        for finished in batch:
            if finished.fd is not None and not (by_file_system and _is_covered(finished)):
                os.fsync(finished.fd)
        # The directories were open before anything was written, so a failed write-back shows here.
        for directory in _one_per_device(directories) if by_file_system else directories:
            if by_file_system:
                directory.sync_file_system()
            else:
                directory.sync()
    finally:
        for finished in batch:
            if finished.fd is not None:
                os.close(finished.fd)


def _is_covered(finished: _Finished) -> bool:
    """Whether a syncfs by its directory makes the file durable, and tells if it could not."""
    return finished.directory is not None and finished.directory.is_readable


def _one_per_device(directories: Iterable[Directory]) -> Iterable[Directory]:
    devices: dict[int, Directory] = {}
    for directory in directories:
        # A readable one, if there is any, since only that tells what could not be written.
        if directory.is_readable or directory.device not in devices:
            devices[directory.device] = directory
    return devices.values()
