"""A worker's life: it says that it is ready, does what the service asks, and ends with its channel.

It is forked with the rights of one account and never has others.  Everything is imported here, at
the top, because what is imported later would be imported with the account's rights, or not at all.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.network import TlsSpec
from openbits.frames.operations import (
    AdoptFile,
    CallBusName,
    CheckDirectories,
    CheckSources,
    CopyFile,
    DeleteFiles,
    FileOpened,
    FileResult,
    FindCertificate,
    ObtainTickets,
    OpenFile,
    OpenForReading,
    OpenSource,
    OperationResults,
    PathPoint,
    PathsWalked,
    PostNotice,
    RenameFiles,
    SyncDirectories,
    TakeTickets,
    WalkPaths,
)
from openbits.frames.worker import (
    CARRIERS,
    SERVICE_TO_WORKER,
    WORKER_TO_SERVICE,
    BecomeEvaluator,
    CertificateJudged,
    Evaluator,
    FileHandle,
    Lease,
    SetPace,
    StartTransfer,
    StopTransfer,
    TakeCredential,
    TransferFiles,
    UploadFile,
    UploadKept,
    WantRanges,
    WorkerReady,
)
from openbits.worker.adopting import Adoption, open_for_reading, sync_directories
from openbits.worker.clientcerts import look_for
from openbits.worker.engine import Engine
from openbits.worker.evaluator import become_evaluator
from openbits.worker.failure import MESSAGE_LIMIT
from openbits.worker.helper import Helper
from openbits.worker.loop import READABLE, WRITABLE, Loop, Timer
from openbits.worker.notices import Notices
from openbits.worker.opener import Opener
from openbits.worker.operations import check_directories, delete_files, rename_files
from openbits.worker.pacscript import Scripts
from openbits.worker.reading import check_sources, copy_file, open_for_upload
from openbits.worker.run import Tools
from openbits.worker.splice import SplicePipe
from openbits.worker.syncer import Syncer
from openbits.worker.tickets import Tickets
from openbits.worker.transfer import Transfer
from openbits.worker.walking import walk

_RESULTS_PER_FRAME: Final = 10
"""So many of the longest messages fit into one frame, whatever they are made of …"""
_POINTS_PER_FRAME: Final = 2
"""… and so many of the longest paths."""
_FRAMES_PER_TURN: Final = 32
_CLEAN_AFTER_S: Final = 2.0


class Worker:
    """Everything of one process."""

    def __init__(self, channel_socket: socket.socket) -> None:
        self._loop = Loop()
        self._channel = Channel(channel_socket, outgoing=WORKER_TO_SERVICE, incoming=SERVICE_TO_WORKER)
        self._channel.on_wants_write = self._on_wants_write
        self._syncer = Syncer(self._loop)
        self._reader = Helper(self._loop, "reader")
        self._opener = Opener(self._loop, self._send)
        # Of its own: copying a large file takes long, and renaming must not wait for that.
        self._adopter = Helper(self._loop, "adopter")
        # Of its own, too: what is read may lie on a file system that hangs.
        self._sources = Helper(self._loop, "sources")
        self._pipe = SplicePipe()
        self._tickets = Tickets(self._loop)
        self._scripts = Scripts(self._loop, make_engine=lambda: Engine(self._loop), on_unexpected=self._on_unexpected)
        self._tools = Tools(self._loop, self._syncer, self._reader, self._pipe, self._tickets, self._scripts)
        self._notices = Notices(self._tools, self._send, on_unexpected=self._on_unexpected)
        self._engines: dict[tuple[bool, bool, bool, TlsSpec, tuple[bool, int]], Engine] = {}
        self._transfers: dict[int, Transfer] = {}
        self._operations: dict[int, list[RenameFiles | DeleteFiles]] = {}
        self._is_ending = False
        self._unexpected: Exception | None = None
        self._evaluator_fd: int | None = None
        """A socket to the worker whose evaluator this process is to be."""
        self._cleaning: Timer | None = None

    def __repr__(self) -> str:
        return f"<Worker transfers={len(self._transfers)}>"

    def run(self) -> int:
        """Work until the channel ends, or SIGTERM; then make durable what was received."""
        wakeup = self._watch_signals()
        self._loop.watch(self._channel.fileno(), READABLE, self._on_channel)
        self._send(WorkerReady(pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), groups=tuple(sorted(os.getgroups()))))
        self._loop.run()
        signal.set_wakeup_fd(-1)
        for fd in wakeup:
            os.close(fd)
        if self._unexpected is not None:
            raise self._unexpected
        if self._evaluator_fd is not None:
            become_evaluator(self._evaluator_fd)
        self._notices.close()
        self._scripts.close()
        for engine in self._engines.values():
            engine.close()
        self._adopter.close()
        self._reader.close()
        self._opener.close()
        self._sources.let_go()
        self._syncer.close()
        self._pipe.close()
        self._channel.close()
        self._loop.close()
        return 0

    def _watch_signals(self) -> tuple[int, int]:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

        def on_signal(_events: int) -> None:
            os.read(reading, 64)
            self._end()

        self._loop.watch(reading, READABLE, on_signal)
        return reading, writing

    # --- the channel -------------------------------------------------------------------------

    def _send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(message, descriptors)
        except ChannelClosed:
            self._end()

    def _on_wants_write(self, wants: bool) -> None:
        self._loop.change(self._channel.fileno(), READABLE | WRITABLE if wants else READABLE)

    def _on_channel(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._channel.flush()
            if not events & ~WRITABLE:
                return
            for _ in range(_FRAMES_PER_TURN):
                if self._evaluator_fd is not None:
                    return  # nothing that follows is for us
                received = self._channel.receive()
                if received is None:
                    return
                message, descriptors = received
                if len(descriptors) == 1 and type(message) in CARRIERS:
                    self._handle_with_descriptor(message, descriptors[0])
                    continue
                for fd in descriptors:
                    os.close(fd)
                self._handle(message)
        except ChannelClosed:
            self._loop.unwatch(self._channel.fileno())
            self._end()

    def _handle(self, message: object) -> None:
        match message:
            case StartTransfer():
                self._start(message)
            case (
                TransferFiles()
                | WantRanges()
                | UploadFile()
                | UploadKept()
                | StopTransfer()
                | TakeCredential()
                | CertificateJudged()
                | SetPace()
                | Lease()
            ):
                transfer = self._transfers.get(message.transfer)
                if transfer is not None:
                    _tell(transfer, message)
            case FileHandle():
                self._receive_handle(message, None)
            case Evaluator():
                self._receive_evaluator(message, None)
            case ObtainTickets():
                self._tickets.obtain(message, self._send)
            case _:
                self._handle_operation(message)

    def _handle_operation(self, message: object) -> None:
        match message:
            case CheckDirectories():
                self._operate(message.operation, lambda: check_directories(message.paths))
            case WalkPaths():
                self._walk(message)
            case OpenFile():
                self._opener.open(message)
            case OpenForReading():
                self._open_for_reading(message)
            case CheckSources():
                self._operate(message.operation, lambda: check_sources(message.paths), by=self._sources)
            case FindCertificate():
                self._operate(message.operation, lambda: look_for(message.certificate), by=self._sources)
            case OpenSource():
                self._give(lambda: open_for_upload(message), by=self._sources)
            case CopyFile():
                self._give(lambda: copy_file(message), by=self._sources)
            case CallBusName() | PostNotice():
                self._notices.deliver(message)
            case SyncDirectories():
                self._operate(message.operation, lambda: sync_directories(message.paths), by=self._adopter)
            case RenameFiles() | DeleteFiles():
                self._collect(message)
            case _:
                raise AssertionError(f"{message!r} is not for a worker")

    def _handle_with_descriptor(self, message: object, fd: int) -> None:
        """The descriptor belongs to whoever handles the frame."""
        match message:
            case AdoptFile():
                adoption = Adoption(message, fd, lambda: self._is_ending)
                refusal = adoption.begin()
                if refusal:
                    self._send(OperationResults(operation=message.operation, results=tuple(refusal), last=True))
                else:
                    self._operate(message.operation, adoption.copy, by=self._adopter)
            case FileHandle():
                self._receive_handle(message, fd)
            case Evaluator():
                self._receive_evaluator(message, fd)
            case BecomeEvaluator():
                self._evaluator_fd = fd
                self._loop.stop()
            case TakeTickets():
                self._tickets.take(message.principal, fd)
            case _:
                os.close(fd)
                raise AssertionError(f"{message!r} is not for a worker")

    # --- transfers and operations ------------------------------------------------------------

    def _receive_handle(self, message: FileHandle, fd: int | None) -> None:
        transfer = self._transfers.get(message.transfer)
        if transfer is not None:
            transfer.receive_handle(message, fd)
        elif fd is not None:
            # Its transfer has ended meanwhile.
            os.close(fd)

    def _receive_evaluator(self, message: Evaluator, fd: int | None) -> None:
        transfer = self._transfers.get(message.transfer)
        if transfer is not None:
            transfer.receive_evaluator(message, fd)
        elif not self._notices.receive_evaluator(message, fd) and fd is not None:
            os.close(fd)

    def _start(self, settings: StartTransfer) -> None:
        if self._is_ending:
            return
        self._transfers[settings.transfer] = Transfer(
            settings,
            tools=self._tools,
            engine=self._engine_for(settings),
            send=self._send,
            is_congested=lambda: self._channel.wants_write,
            on_unexpected=self._on_unexpected,
            on_ended=self._on_transfer_ended,
        )

    def _engine_for(self, settings: StartTransfer) -> Engine:
        """The connections of transfers that may prove the same things, believe the same, and are as wide.

        Servers and proxies may remember of a connection whose it is: it must never carry a request that could not
        have said so itself. (A transfer that has user names and passwords keeps its connections for itself.)
        """
        width = (settings.is_paced, settings.window_bytes)
        allowed = (settings.implicit.server, settings.implicit.proxy, settings.uses_netrc, settings.tls, width)
        if allowed not in self._engines:
            self._engines[allowed] = Engine(self._loop)
        return self._engines[allowed]

    def _on_transfer_ended(self, number: int) -> None:
        del self._transfers[number]
        if self._is_ending and not self._transfers:
            self._loop.stop()
        if self._cleaning is None:
            self._cleaning = self._loop.call_later(_CLEAN_AFTER_S, self._clean)

    def _clean(self) -> None:
        """Collect what finished files leave behind, when nobody waits for anything."""
        self._cleaning = None
        if not self._transfers:
            gc.collect()

    def _collect(self, message: RenameFiles | DeleteFiles) -> None:
        frames = self._operations.setdefault(message.operation, [])
        frames.append(message)
        if not message.last:
            return
        del self._operations[message.operation]
        if isinstance(message, RenameFiles):
            files = [file for frame in frames if isinstance(frame, RenameFiles) for file in frame.files]
            self._operate(message.operation, lambda: rename_files(files))
        else:
            paths = [path for frame in frames if isinstance(frame, DeleteFiles) for path in frame.paths]
            self._operate(message.operation, lambda: delete_files(paths))

    def _walk(self, order: WalkPaths) -> None:
        def done(points: list[PathPoint] | OSError) -> None:
            if isinstance(points, OSError):
                raise points
            for start in range(0, max(1, len(points)), _POINTS_PER_FRAME):
                end = start + _POINTS_PER_FRAME
                frame = tuple(points[start:end])
                self._send(PathsWalked(operation=order.operation, points=frame, last=end >= len(points)))

        def work() -> list[PathPoint]:
            return [
                PathPoint(index=index, path=point) for index, path in enumerate(order.paths) for point in walk(path)
            ]

        self._reader.submit(work, done)

    def _open_for_reading(self, order: OpenForReading) -> None:
        self._give(lambda: open_for_reading(order.operation, order.temporary_name, order.least_bytes), by=self._reader)

    def _give(self, work: Callable[[], tuple[FileOpened, int | None]], *, by: Helper) -> None:
        """Answer with a descriptor, or with why there is none."""

        def done(opened: tuple[FileOpened, int | None] | OSError) -> None:
            if isinstance(opened, OSError):
                raise opened
            answer, fd = opened
            self._send(answer, () if fd is None else (fd,))
            if fd is not None:
                os.close(fd)

        by.submit(work, done)

    def _operate(self, operation: int, work: Callable[[], list[FileResult]], *, by: Helper | None = None) -> None:
        def done(results: list[FileResult] | OSError) -> None:
            if isinstance(results, OSError):
                raise results
            results = [_shortened(result) for result in results]
            frames = [tuple(results[at : at + _RESULTS_PER_FRAME]) for at in range(0, len(results), _RESULTS_PER_FRAME)]
            for frame in frames[:-1]:
                self._send(OperationResults(operation=operation, results=frame, last=False))
            self._send(OperationResults(operation=operation, results=frames[-1] if frames else (), last=True))

        (by or self._reader).submit(work, done)

    # --- the end -----------------------------------------------------------------------------

    def _on_unexpected(self, error: Exception) -> None:
        """A defect: end as a crash does, with the traceback; the service takes it for a broken connection."""
        self._unexpected = error
        self._loop.stop()

    def _end(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        for transfer in list(self._transfers.values()):
            transfer.stop()
        if not self._transfers:
            self._loop.stop()


_OfTransfer = (
    TransferFiles
    | WantRanges
    | UploadFile
    | UploadKept
    | StopTransfer
    | TakeCredential
    | CertificateJudged
    | SetPace
    | Lease
)


def _tell(transfer: Transfer, message: _OfTransfer) -> None:
    match message:
        case CertificateJudged():
            transfer.trust.judged(message)
        case SetPace():
            transfer.set_pace(message)
        case Lease():
            transfer.pace.lent(message.granted_bytes)
        case TakeCredential():
            transfer.take_credential(message)
        case TransferFiles():
            transfer.add(message.files, last=message.last)
        case WantRanges():
            transfer.want(message)
        case UploadFile():
            transfer.upload(message)
        case UploadKept():
            transfer.kept(message.number)
        case StopTransfer():
            transfer.stop()


def _shortened(result: FileResult) -> FileResult:
    if len(result.message) <= MESSAGE_LIMIT:
        return result
    return replace(result, message=f"{result.message[: MESSAGE_LIMIT - 1]}…")


def run(channel_socket: socket.socket) -> int:
    """Be a worker on this channel until it ends; returns the exit status."""
    # What the zygote imported is shared memory, and never garbage.  A finished file leaves a few objects
    # that refer to each other; looking for them among ten thousand files took a sixth of the time, so
    # that waits until the worker has nothing else to do, or until they are some hundred megabytes.
    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)
    return Worker(channel_socket).run()
