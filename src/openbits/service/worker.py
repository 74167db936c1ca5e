"""One worker process, seen from the service: what is asked of it, and what it answers.

That a worker dies is an event like any other: everything that was under way in it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from openbits.core.model import Identity
from openbits.errors import BitsError, is_failure
from openbits.frames.channel import Channel
from openbits.frames.codec import MAX_FRAME_BYTES, UNIT_BYTES, units
from openbits.frames.operations import (
    CheckDirectories,
    CheckSources,
    DeleteFiles,
    FileOpened,
    FileResult,
    NoticeEnded,
    OperationResults,
    PathsWalked,
    RenameFiles,
    RenameSpec,
    SyncDirectories,
    TicketsObtained,
    WalkPaths,
)
from openbits.frames.worker import WorkerReady
from openbits.service.link import Link

log = logging.getLogger(__name__)

FILES_PER_FRAME = 256
UNITS_PER_FRAME = MAX_FRAME_BYTES // UNIT_BYTES
UNITS_BESIDE_NAMES = 40
_Item = TypeVar("_Item")


class WorkerGone(Exception):
    """The worker ended before it had answered."""


class Refused(BitsError):
    """The worker's answer is an error; `transient` is whether trying again later can help."""

    def __init__(self, name: str, message: str | None, *, transient: bool) -> None:
        super().__init__(name, message)
        self.transient = transient


@dataclass(frozen=True, slots=True)
class TransferHandler:
    """Who wants the frames of a transfer, and who wants to know that its worker is gone."""

    on_frame: Callable[[object], None]
    on_lost: Callable[[], None]


Answer = FileOpened | TicketsObtained
"""A frame that answers an operation by itself, with a descriptor unless it reports an error."""


class Worker:
    """One worker process, seen from the service."""

    def __init__(self, identity: Identity, channel: Channel, *, ended: Callable[[Worker, str], None]) -> None:
        self.identity = identity
        self.pid = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = ended
        self._transfers: dict[int, TransferHandler] = {}
        self._operations: dict[int, tuple[asyncio.Future[list[FileResult]], list[FileResult]]] = {}
        self._questions: dict[int, asyncio.Future[tuple[Answer, int]]] = {}
        self._notices: dict[int, asyncio.Future[NoticeEnded]] = {}
        self._numbers = itertools.count(1)
        self._holds = 0
        self._link = Link(
            channel, on_frame=self._receive, on_closed=self._closed, on_carrier=self._receive_with_descriptor
        )
        self.idle_timer: asyncio.TimerHandle | None = None
        self.knows_secrets = False
        """Whether it was ever told a password: what a program has forgotten is still in its memory until it ends."""

    def __repr__(self) -> str:
        return f"<Worker pid={self.pid} uid={self.identity.uid} transfers={len(self._transfers)}>"

    @property
    def is_open(self) -> bool:
        """Whether frames can still be sent."""
        return self._link.is_open

    @property
    def is_busy(self) -> bool:
        """Whether a transfer or an operation is under way, or somebody holds it for what comes next."""
        return bool(self._transfers or self._operations or self._questions or self._notices or self._holds)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the worker from leaving between one thing and the next; it may still die."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self.is_open:
                self._ended_something()

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame; the descriptors stay the caller's."""
        self._link.send(message, descriptors)

    def open_transfer(self, number: int, handler: TransferHandler) -> None:
        """Let the frames of a transfer go to `handler`."""
        self._transfers[number] = handler

    def close_transfer(self, number: int) -> None:
        """Forget a transfer that has ended."""
        self._transfers.pop(number, None)

    async def check_directories(self, paths: list[str]) -> list[FileResult]:
        """Ask whether the owner may create files in these directories; return the refusals. Raises WorkerGone."""
        return await self._in_parts(CheckDirectories, paths)

    async def check_sources(self, paths: list[str]) -> list[FileResult]:
        """Ask whether the owner may read these files, and whether they are files; return the refusals.

        Raises WorkerGone.
        """
        return await self._in_parts(CheckSources, paths)

    async def sync_directories(self, paths: list[str]) -> list[FileResult]:
        """Make what was done in these directories durable; return where that failed. Raises WorkerGone."""
        return await self._in_parts(SyncDirectories, paths)

    async def rename(self, files: list[RenameSpec]) -> list[FileResult]:
        """Put finished files under their names; return those that could not be."""
        number, future = self._operation()
        chunks = list(chunked(files, lambda spec: units(spec.temporary_name) + units(spec.local_name)))
        for position, chunk in enumerate(chunks, 1):
            self.send(RenameFiles(operation=number, files=tuple(chunk), last=position == len(chunks)))
        return [result for result in await future if result.error]

    async def delete(self, paths: list[str]) -> list[FileResult]:
        """Delete temporary files; return those that could not be."""
        number, future = self._operation()
        chunks = list(chunked(paths, units))
        for position, chunk in enumerate(chunks, 1):
            self.send(DeleteFiles(operation=number, paths=tuple(chunk), last=position == len(chunks)))
        return [result for result in await future if result.error]

    async def walk(self, paths: list[str]) -> list[list[str]]:
        """Ask where paths lead; return for each the places of its links and its end. Raises WorkerGone."""
        points: list[list[str]] = []
        for chunk in chunked(paths, units):
            number, future = self._operation()
            self.send(WalkPaths(operation=number, paths=tuple(chunk)))
            found: list[list[str]] = [[] for _ in chunk]
            for point in await future:
                if 0 <= point.index < len(found):
                    found[point.index].append(point.message)
            points += found
        return points

    async def results_of(self, make: Callable[[int], object], descriptors: tuple[int, ...] = ()) -> list[FileResult]:
        """Send the one frame that `make` makes of an operation's number; return the failures. Raises WorkerGone."""
        number, future = self._operation()
        self.send(make(number), descriptors)
        return [result for result in await future if result.error]

    async def ask(self, make: Callable[[int], object]) -> tuple[Answer, int]:
        """Send the frame that `make` makes of an operation's number; return the answer and its descriptor.

        The descriptor is the caller's to close. Raises Refused for an answer that reports an error, WorkerGone.
        """
        if not self.is_open:
            raise WorkerGone
        number = next(self._numbers)
        future: asyncio.Future[tuple[Answer, int]] = asyncio.get_running_loop().create_future()
        self._questions[number] = future
        self.send(make(number))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                os.close(future.result()[1])
            raise
        finally:
            self._questions.pop(number, None)
            if self.is_open:
                self._ended_something()

    async def notify(self, make: Callable[[int], object]) -> NoticeEnded:
        """Send the notice that `make` makes of an operation's number; return how it went. Raises WorkerGone."""
        if not self.is_open:
            raise WorkerGone
        number = next(self._numbers)
        future: asyncio.Future[NoticeEnded] = asyncio.get_running_loop().create_future()
        self._notices[number] = future
        self.send(make(number))
        try:
            return await future
        finally:
            self._notices.pop(number, None)
            if self.is_open:
                self._ended_something()

    async def _in_parts(
        self, order: type[CheckDirectories | CheckSources | SyncDirectories], paths: list[str]
    ) -> list[FileResult]:
        """Give an order about paths in as many frames as they need, each an operation of its own."""
        failures: list[FileResult] = []
        for chunk in chunked(paths, units):
            number, future = self._operation()
            self.send(order(operation=number, paths=tuple(chunk)))
            failures += [result for result in await future if result.error]
        return failures

    def close(self) -> None:
        """Let the worker go: it ends when it sees the end of its channel."""
        self._link.close()
        self._closed("let go")

    def _operation(self) -> tuple[int, asyncio.Future[list[FileResult]]]:
        future: asyncio.Future[list[FileResult]] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        if not self.is_open:
            future.set_exception(WorkerGone())
        else:
            self._operations[number] = (future, [])
        return number, future

    def _receive(self, message: object) -> None:
        match message:
            case WorkerReady():
                # Which process it is the monitor says: it is the monitor that will be asked to kill it.
                if not self.ready.done():
                    self.ready.set_result(None)
            case OperationResults(operation=number, results=results, last=last):
                self._results(number, results, last=last)
            case PathsWalked(operation=number, points=points, last=last):
                self._results(number, tuple(FileResult(index=at.index, message=at.path) for at in points), last=last)
            case NoticeEnded(operation=number, error=error):
                notice = self._notices.get(number)
                if notice is not None and not notice.done():
                    notice.set_result(message if not error or is_failure(error) else replace(message, error="E_FAIL"))
            case FileOpened(operation=number, error=error) | TicketsObtained(operation=number, error=error):
                # Without a descriptor it can only be a refusal, whatever it says.
                name = error if is_failure(error) else "E_FAIL"
                question = self._questions.get(number)
                if question is not None and not question.done():
                    transient = isinstance(message, FileOpened) and message.transient
                    question.set_exception(Refused(name, message.message or None, transient=transient))
            case _:
                number = getattr(message, "transfer", -1)
                handler = self._transfers.get(number)
                if handler is not None:
                    handler.on_frame(message)

    def _receive_with_descriptor(self, message: object, fd: int) -> None:
        match message:
            case FileOpened(operation=number, error="") | TicketsObtained(operation=number, error=""):
                question = self._questions.get(number)
                if question is not None and not question.done():
                    question.set_result((message, fd))
                    return
            case _:
                pass
        # Nobody asked, or nobody waits any more; and what is no carrier is no less suspect for its descriptor.
        os.close(fd)
        if not isinstance(message, Answer):
            log.error("action=worker-misspoke pid=%d frame=%r", self.pid, message)

    def _results(self, number: int, results: tuple[FileResult, ...], *, last: bool) -> None:
        entry = self._operations.get(number)
        if entry is None:
            return
        future, collected = entry
        collected.extend(_known(result) for result in results)
        if last:
            del self._operations[number]
            if not future.done():
                future.set_result(collected)
            self._ended_something()

    def _ended_something(self) -> None:
        self._ended(self, "")

    def _closed(self, reason: str) -> None:
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        transfers, self._transfers = self._transfers, {}
        operations, self._operations = self._operations, {}
        questions, self._questions = self._questions, {}
        notices, self._notices = self._notices, {}
        for future, _ in operations.values():
            if not future.done():
                future.set_exception(WorkerGone())
        for question in questions.values():
            if not question.done():
                question.set_exception(WorkerGone())
        for notice in notices.values():
            if not notice.done():
                notice.set_exception(WorkerGone())
        if not self.ready.done():
            self.ready.set_exception(WorkerGone())
            self.ready.exception()
        self._ended(self, reason)
        for handler in transfers.values():
            handler.on_lost()


def _known(result: FileResult) -> FileResult:
    """A result whose error everybody knows; a worker may have been taken over."""
    if not result.error or is_failure(result.error):
        return result
    return FileResult(index=result.index, error="E_FAIL", message=result.message)


def chunked(items: list[_Item], size: Callable[[_Item], int]) -> list[list[_Item]]:
    """Split a list so that each part fits into one frame, whatever the names are made of.

    `size` is the room that an item's names take, in `units`.
    """
    chunks: list[list[_Item]] = [[]]
    filled = 0
    for item in items:
        cost = size(item) + UNITS_BESIDE_NAMES
        if chunks[-1] and (filled + cost > UNITS_PER_FRAME or len(chunks[-1]) >= FILES_PER_FRAME):
            chunks.append([])
            filled = 0
        chunks[-1].append(item)
        filled += cost
    return chunks
