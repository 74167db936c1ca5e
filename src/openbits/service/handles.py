"""Files that one account's worker opens for another's: how a descriptor gets from the one to the other (T3).

The worker that speaks to the network asks for the temporary file of each file, or for the file that it is to upload,
before it begins with it; a worker of the
files' account opens it, and the descriptor passes through here unseen.  So no process has the rights of both accounts.

Neither side is believed: a file that is not part of the run, or that was asked for before, or too many at a time,
are reasons to end the worker that asks; and what it is given, that worker looks at itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.frames.operations import FileOpened, OpenFile, OpenSource
from openbits.frames.worker import HANDLES_AHEAD, FileHandle, FileSpec
from openbits.service.tasks import Tasks
from openbits.service.worker import Refused, Worker, WorkerGone
from openbits.service.workers import WorkerPool

log = logging.getLogger(__name__)

OPEN_ATTEMPTS: Final = 3
OPEN_TIMEOUT_S: Final = 60.0
"""Longer than a disk that has to wake up needs; a worker that does not answer for so long belongs to another account,
whose troubles must not hold this run for ever."""
MOST_WANTED: Final = 2 * HANDLES_AHEAD
"""More than a worker that keeps to its rules ever waits for."""
LONGEST_REFUSAL: Final = 1_000
"""Characters of the opener's sentence; one that keeps to its rules has no more to say."""


class HandOver:
    """The hand-over of one run's files, from its beginning to `close`."""

    def __init__(
        self,
        *,
        files: Identity,
        network: Worker,
        transfer: int,
        umask: int,
        pool: WorkerPool,
        tasks: Tasks,
        on_broken: Callable[[], None],
    ) -> None:
        """`on_broken` is called when the workers of the files' account end again and again."""
        self._files = files
        self._network = network
        self._transfer = transfer
        self._umask = umask
        self._pool = pool
        self._tasks = tasks
        self._on_broken = on_broken
        self._specs: dict[int, FileSpec] = {}
        self._sources: set[int] = set()
        """Files that are read and sent, not made."""
        self._bringing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<HandOver transfer={self._transfer} from uid {self._files.uid} waiting={len(self._bringing)}>"

    def offer(self, specs: Iterable[FileSpec]) -> None:
        """These files may be asked for, each of them once."""
        self._specs.update((spec.index, spec) for spec in specs)

    def offer_pieces(self, specs: Iterable[FileSpec]) -> None:
        """These files are fetched piece by piece, and may be asked for again and again (J67)."""
        for spec in specs:
            former = self._specs.get(spec.index)
            # What the worker has reported may be ahead of what is written down, and must not be cut off.
            durable_bytes = max(spec.durable_bytes, former.durable_bytes if former is not None else 0)
            self._specs[spec.index] = replace(spec, durable_bytes=durable_bytes)

    def grown(self, index: int, end: int) -> None:
        """A file that is fetched piece by piece has durable bytes up to there."""
        spec = self._specs.get(index)
        if spec is not None and end > spec.durable_bytes:
            self._specs[index] = replace(spec, durable_bytes=end)

    def offer_source(self, spec: FileSpec) -> None:
        """This file is uploaded: it may be asked for once, to be read."""
        self.offer([spec])
        self._sources.add(spec.index)

    def want(self, index: int) -> bool:
        """Bring a file; False when nobody may ask for it now."""
        spec = self._specs.pop(index, None)
        if spec is not None and spec.on_demand:
            self._specs[index] = spec
        if spec is None or self._is_closed or len(self._bringing) >= MOST_WANTED:
            return False
        task = self._tasks.start(f"file {index} of transfer {self._transfer}", self._bring(spec))
        self._bringing.add(task)
        task.add_done_callback(self._bringing.discard)
        return True

    def close(self) -> None:
        """The run is over: nothing is brought any more."""
        self._is_closed = True
        for task in tuple(self._bringing):
            task.cancel()

    async def _bring(self, spec: FileSpec) -> None:
        for _ in range(OPEN_ATTEMPTS):
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    handle, fd = await self._open(spec)
            except WorkerGone:
                continue
            except TimeoutError:
                text = "the processes of the account that opens the job's files do not answer: it is tried again"
                self._refuse(spec.index, BitsError("BG_E_WATCHDOG_TIMEOUT", text), transient=True)
            except BitsError as error:
                # A worker that could not be started is no word about the file.
                self._refuse(spec.index, error, transient=not isinstance(error, Refused) or error.transient)
            else:
                try:
                    self._network.send(handle, (fd,))
                finally:
                    os.close(fd)
            return
        log.warning("action=run-broken transfer=%d reason=workers of uid %d end", self._transfer, self._files.uid)
        self._on_broken()

    async def _open(self, spec: FileSpec) -> tuple[FileHandle, int]:
        worker = await self._pool.get(self._files)
        if spec.index in self._sources:
            _, fd = await worker.ask(lambda number: OpenSource(operation=number, path=spec.local_name))
            return FileHandle(transfer=self._transfer, index=spec.index), fd
        answer, fd = await worker.ask(
            lambda number: OpenFile(
                operation=number,
                temporary_name=spec.temporary_name,
                durable_bytes=spec.durable_bytes,
                umask=self._umask,
            )
        )
        kept = isinstance(answer, FileOpened) and answer.kept and spec.durable_bytes > 0
        return FileHandle(transfer=self._transfer, index=spec.index, kept=kept), fd

    def _refuse(self, index: int, error: BitsError, *, transient: bool) -> None:
        self._network.send(
            FileHandle(
                transfer=self._transfer,
                index=index,
                error=error.name,
                # It may fill a frame of its own; it must fit into this one.
                message=error.message[:LONGEST_REFUSAL],
                transient=transient,
            )
        )
