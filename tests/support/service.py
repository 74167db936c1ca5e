"""The whole service in one event loop, with a monitor and workers that do what the test says.

Everything between the calls of BITS and the frames on the channels is the real thing; time is virtual.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar
from unittest import mock

from openbits.core.model import AccountKind, Caller, Identity, Job, JobState, JobType
from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.monitor import (
    MONITOR_TO_SERVICE,
    SERVICE_TO_MONITOR,
    KillWorker,
    SpawnRefused,
    SpawnWorker,
    WorkerExited,
    WorkerSpawned,
)
from openbits.frames.operations import (
    CheckDirectories,
    CheckSources,
    CopyFile,
    DeleteFiles,
    FileOpened,
    FileResult,
    FindCertificate,
    OperationResults,
    PathPoint,
    PathsWalked,
    RenameFiles,
    WalkPaths,
)
from openbits.frames.worker import (
    SERVICE_TO_WORKER,
    WORKER_TO_SERVICE,
    DoneFile,
    FileDurable,
    FilesDone,
    FileSpec,
    FileStarted,
    StartTransfer,
    TakeCredential,
    TransferEnded,
    TransferFiles,
    UploadFile,
    UploadMoved,
    WorkerReady,
)
from openbits.service import runtime as runtime_module
from openbits.service.calls import NewFile, NewJob
from openbits.service.configuration import Configuration
from openbits.service.logon.logon import Logon
from openbits.service.logon.source import AlwaysSource
from openbits.service.runtime import Runtime
from openbits.service.secrets import KEY_BYTES, Secrets
from openbits.store.interface import JobStore
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import OpenReport
from support import virtual
from support.virtual import Clock, InlineExecutor

ALICE = Caller(
    identity=Identity(uid=1000, gid=1000, groups=(1000,)), name="alice", kind=AccountKind.USER, is_administrator=False
)
ROOT = Caller(identity=Identity(uid=0, gid=0), name="root", kind=AccountKind.LOCAL_SYSTEM, is_administrator=True)
_Frame = TypeVar("_Frame")


class FakeNetwork:
    """A network that comes and goes as the test says."""

    def __init__(self, _loop: object, on_change: Callable[[bool], None]) -> None:
        self.has_network = True
        self._on_change = on_change

    def start(self) -> None:
        """See NetworkWatcher."""

    def close(self) -> None:
        """See NetworkWatcher."""

    def statistics(self) -> dict[str, Any]:
        """See NetworkWatcher."""
        return {}

    def change(self, has_network: bool) -> None:
        """Let the network come or go."""
        self.has_network = has_network
        self._on_change(has_network)


class FakeLogonSource(AlwaysSource):
    """Knows what the test says; at first everybody counts as logged on."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        super().__init__()
        self.on_change = on_change


class FakeLogon(Logon):
    """The real rule over a source of the test's."""

    def __init__(self, _make_source: object) -> None:
        super().__init__(FakeLogonSource)

    def change(self, *uids: int, problem: str = "") -> None:
        """From now on these are logged on, and nobody else; `problem`: why that may not be so."""
        source = self._source
        assert isinstance(source, FakeLogonSource)
        source.logged_on, source.problem = frozenset(uids), problem
        source.on_change()


class FakeWorker:
    """Says what the test lets it say; does file operations at once unless told otherwise."""

    def __init__(self, sock: socket.socket, identity: Identity, pid: int) -> None:
        self.identity = identity
        self.pid = pid
        self.heard: list[object] = []
        self.does_operations = True
        self.failures: list[FileResult] = []
        """What the next rename or deletion fails with."""
        self.refusals: list[FileResult] = []
        """What the next question about directories or sources is answered with."""
        self.contents: dict[str, bytes] = {}
        """Files that can be copied for their owner to be shown, by path."""
        self._channel = Channel(sock, outgoing=WORKER_TO_SERVICE, incoming=SERVICE_TO_WORKER)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)
        self.is_alive = True
        self.on_end: Callable[[], None] = lambda: None

    def be_ready(self) -> None:
        """Say that it runs."""
        self.send(WorkerReady(pid=self.pid, uid=self.identity.uid, gid=self.identity.gid, groups=self.identity.groups))

    def send(self, *messages: object) -> None:
        """Say something."""
        for message in messages:
            self._channel.send(message)

    def die(self) -> None:
        """End without a word."""
        if self.is_alive:
            self.is_alive = False
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self.on_end()

    def last(self, cls: type[_Frame]) -> _Frame:
        """The last frame of a kind that it was sent."""
        return [message for message in self.heard if isinstance(message, cls)][-1]

    def count(self, cls: type[object]) -> int:
        """How many frames of a kind it was sent."""
        return sum(isinstance(message, cls) for message in self.heard)

    @property
    def transfer(self) -> int:
        """The number of the transfer that was begun last."""
        return self.last(StartTransfer).transfer

    @property
    def files(self) -> list[FileSpec]:
        """The files of that transfer."""
        return [
            file
            for message in self.heard
            if isinstance(message, TransferFiles) and message.transfer == self.transfer
            for file in message.files
        ]

    @property
    def upload(self) -> UploadFile:
        """What that transfer uploads."""
        upload = self.last(UploadFile)
        assert upload.transfer == self.transfer
        return upload

    # What a worker says of its last transfer

    def started(self, index: int = 0, *, offset: int = 0, size: int = 100, restarted: str = "") -> FileStarted:
        """The server has answered."""
        return FileStarted(
            transfer=self.transfer,
            index=index,
            bytes_total=size,
            size=size,
            etag='"1"',
            last_modified=None,
            offset=offset,
            restarted=restarted,
        )

    def durable(self, index: int, count: int) -> FileDurable:
        """So much would survive a power cut."""
        return FileDurable(transfer=self.transfer, index=index, durable_bytes=count)

    def done(self, *indices: int, size: int = 100) -> FilesDone:
        """These files are whole."""
        return FilesDone(transfer=self.transfer, files=tuple(DoneFile(index=index, size=size) for index in indices))

    def moved(
        self, acknowledged_bytes: int, memory: str = "session", *, number: int = 1, is_awaited: bool = False
    ) -> UploadMoved:
        """The server has so much."""
        return UploadMoved(
            transfer=self.transfer,
            number=number,
            memory=memory,
            acknowledged_bytes=acknowledged_bytes,
            is_awaited=is_awaited,
        )

    def ended(self, error: str = "", **more: Any) -> TransferEnded:
        """The run is over."""
        return TransferEnded(transfer=self.transfer, error=error, **more)

    def _read(self) -> None:
        try:
            while self.is_alive and (received := self._channel.receive()) is not None:
                self.heard.append(received[0])
                if self.does_operations:
                    self.operate(received[0])
        except ChannelClosed:
            self.die()

    def operate(self, message: object) -> None:
        """Do what a file operation asks for."""
        match message:
            case (
                CheckDirectories(operation=number) | CheckSources(operation=number) | FindCertificate(operation=number)
            ):
                refusals, self.refusals = self.refusals, []
                self.send(OperationResults(operation=number, results=tuple(refusals), last=True))
            case CopyFile():
                self.copy(message)
            case WalkPaths(operation=number, paths=paths):
                points = tuple(PathPoint(index=index, path=path) for index, path in enumerate(paths))
                self.send(PathsWalked(operation=number, points=points, last=True))
            case RenameFiles(operation=number, last=True) | DeleteFiles(operation=number, last=True):
                failures, self.failures = self.failures, []
                self.send(OperationResults(operation=number, results=tuple(failures), last=True))
            case _:
                pass

    def copy(self, order: CopyFile) -> None:
        """Give a copy of a file in sealed memory."""
        content = self.contents.get(order.path)
        if content is None:
            text = f"{order.path} does not exist"
            self.send(FileOpened(operation=order.operation, error="ERROR_FILE_NOT_FOUND", message=text))
            return
        fd = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        self.give(FileOpened(operation=order.operation), fd)

    def give(self, message: object, fd: int) -> None:
        """Say something with a descriptor, which is gone afterwards."""
        self._channel.send(message, (fd,))
        os.close(fd)


def taken(worker: FakeWorker) -> list[TakeCredential]:
    """What the worker was given for its last transfer, once it stands between the start and the files."""
    kinds = [type(message) for message in worker.heard]
    start = len(kinds) - 1 - kinds[::-1].index(StartTransfer)
    frames = worker.heard[start + 1 :]
    given = [frame for frame in frames if isinstance(frame, TakeCredential)]
    assert frames[: len(given)] == given
    assert all(frame.transfer == worker.transfer for frame in given)
    return given


class FakeMonitor:
    """Starts fake workers, and kills them when it is asked to."""

    def __init__(self, sock: socket.socket) -> None:
        self.workers: list[FakeWorker] = []
        self.heard: list[object] = []
        self.refusal: SpawnRefused | None = None
        self.answers = True
        self.on_worker: Callable[[FakeWorker], None] = FakeWorker.be_ready
        self.make_worker: Callable[[socket.socket, Identity, int], FakeWorker] = FakeWorker
        self._channel = Channel(sock, outgoing=MONITOR_TO_SERVICE, incoming=SERVICE_TO_MONITOR)
        self._pids = itertools.count(100)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    @property
    def worker(self) -> FakeWorker:
        """The worker that was started last."""
        return self.workers[-1]

    def close(self) -> None:
        """Go away, with all workers."""
        for worker in self.workers:
            worker.die()
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()

    def _read(self) -> None:
        with contextlib.suppress(ChannelClosed):
            while (received := self._channel.receive()) is not None:
                message, descriptors = received
                self.heard.append(message)
                if isinstance(message, SpawnWorker):
                    self._spawn(message, descriptors[0])
                elif isinstance(message, KillWorker):
                    self.kill(message.pid)

    def _spawn(self, message: SpawnWorker, descriptor: int) -> None:
        if not self.answers or self.refusal is not None:
            os.close(descriptor)
            if self.answers:
                self._channel.send(
                    SpawnRefused(request=message.request, error="ERROR_NO_SUCH_USER", message="the account is gone")
                )
            return
        identity = Identity(uid=message.uid, gid=message.gid, groups=message.groups)
        worker = self.make_worker(socket.socket(fileno=descriptor), identity, next(self._pids))
        worker.on_end = lambda: self._tell_exited(worker.pid)
        self.workers.append(worker)
        self._channel.send(
            WorkerSpawned(
                request=message.request, pid=worker.pid, uid=message.uid, gid=message.gid, groups=message.groups
            )
        )
        self.on_worker(worker)

    def _tell_exited(self, pid: int) -> None:
        with contextlib.suppress(ChannelClosed):
            self._channel.send(WorkerExited(pid=pid))

    def kill(self, pid: int) -> None:
        """Kill a worker."""
        for worker in self.workers:
            if worker.pid == pid and worker.is_alive:
                worker.die()


async def _same_mounts(_pid: int) -> tuple[bytes, bytes]:
    table = b"1 1 0:1 / / rw - ext4 /dev/disk rw\n"
    return table, table


class Service:
    """A running service and everything around it."""

    def __init__(self, store: JobStore, state_directory: str, configuration: Configuration) -> None:
        self._store = store
        ours, theirs = Channel.pair()
        self.gave_up: list[str] = []
        self.monitor = FakeMonitor(theirs)
        replaced: dict[str, Any] = {
            "SteadyClock": Clock,
            "NetworkWatcher": FakeNetwork,
            "Logon": FakeLogon,
            "ThreadPoolExecutor": lambda *_args, **_more: InlineExecutor(),
            "_open_store": lambda _directory: (store, OpenReport()),
        }
        with mock.patch.multiple(runtime_module, **replaced):
            self.runtime = Runtime(
                configuration=configuration,
                state_directory=state_directory,
                monitor=Channel(ours, outgoing=SERVICE_TO_MONITOR, incoming=MONITOR_TO_SERVICE),
                give_up=self.gave_up.append,
                secrets=Secrets(bytes(KEY_BYTES), "a test"),
            )
        network = self.runtime._network
        assert isinstance(network, FakeNetwork)
        self.network: FakeNetwork = network
        logon = self.runtime.logon
        assert isinstance(logon, FakeLogon)
        self.logon: FakeLogon = logon
        self.manager = self.runtime.manager
        self.runtime.paths._read = _same_mounts
        # The test must not end with the service.
        self.runtime.pool._monitor._on_closed = lambda _reason: None

    @property
    def store(self) -> MemoryStore:
        """The store, of a service whose store is in memory."""
        assert isinstance(self._store, MemoryStore)
        return self._store

    @property
    def disk(self) -> MemoryDisk:
        """What outlives the service."""
        return self.store.disk

    @property
    def worker(self) -> FakeWorker:
        """The worker that was started last."""
        return self.monitor.worker

    def job(self, job_id: str) -> Job:
        """A job as it is written down."""
        job = self.runtime.ledger.jobs[job_id]
        assert self.disk.jobs[job_id] == job
        return job

    def state(self, job_id: str) -> JobState:
        """The state of a job."""
        return self.job(job_id).state

    async def create(self, *, files: int = 1, resume: bool = True, caller: Caller = ALICE, **settings: Any) -> str:
        """Create a job and let happen what then happens."""
        new = [NewFile(remote_name=f"http://origin.example/{n}", local_name=f"/home/alice/{n}") for n in range(files)]
        [job] = await self.manager.create_jobs(
            caller, [NewJob(name="a job", type=JobType.DOWNLOAD, settings=settings, files=new, resume=resume)]
        )
        await virtual.rest()
        return job.id

    async def upload(self, job_type: JobType = JobType.UPLOAD, *, resume: bool = True, **more: Any) -> str:
        """Create an upload job of alice's and let happen what then happens; `more` is of NewJob."""
        file = NewFile(remote_name="http://origin.example/in/0", local_name="/home/alice/0")
        values: dict[str, Any] = {"name": "an upload", "settings": {}, "files": [file]}
        [job] = await self.manager.create_jobs(ALICE, [NewJob(type=job_type, resume=resume, **values | more)])
        await virtual.rest()
        return job.id

    async def say(self, *messages: object) -> None:
        """Let the last worker say something, and let happen what then happens."""
        self.worker.send(*messages)
        await virtual.rest()

    async def crash(self) -> None:
        """End as if by SIGKILL: what is not on the disk is lost."""
        self.monitor.close()
        self.runtime._stopping = True
        self.runtime.dispatcher.close()
        self.runtime._deadlines.close()
        await self.runtime._tasks.cancel()
        for worker in tuple(self.runtime.pool._alive):
            worker._link.close()
        self.runtime.pool._monitor.close()


@contextlib.asynccontextmanager
async def running(
    disk: MemoryDisk | None = None, configuration: Configuration | None = None, state_directory: str = "/nowhere"
) -> AsyncIterator[Service]:
    """A service for the length of a `with` block; it must not have given up."""
    service = Service(MemoryStore(disk), state_directory, configuration or Configuration())
    try:
        await service.runtime.start()
        await virtual.rest()
        yield service
        assert service.gave_up == []
    finally:
        await service.crash()
