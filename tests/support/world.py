"""A machine in a test: a disk that forgets what was not synced, servers whose files change, workers that obey both.

The workers keep the promises of frames.worker: durable before reported, resumed only with the same
validator, renamed or deleted any number of times with the same result.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from openbits.core.model import Identity
from openbits.frames.operations import (
    CheckDirectories,
    CheckSources,
    DeleteFiles,
    FileResult,
    OperationResults,
    RenameFiles,
    RenameSpec,
)
from openbits.frames.worker import (
    DoneFile,
    FileDurable,
    FilesDone,
    FileSpec,
    FileStarted,
    StartTransfer,
    StopTransfer,
    TransferEnded,
    TransferFiles,
    UploadFile,
    UploadKept,
)
from support.service import FakeWorker
from support.upload_world import SimulatedUpload, UploadServer


@dataclass(slots=True)
class SimulatedFile:
    """Each byte of a file is the letter of the version that it is of."""

    content: str = ""
    durable: str = ""

    def sync(self) -> None:
        """Make it survive a power cut."""
        self.durable = self.content


@dataclass(slots=True)
class Machine:
    """What outlives every process."""

    files: dict[str, SimulatedFile] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """How often each remote file was changed."""
    uploads: UploadServer = field(default_factory=UploadServer)

    def write_durably(self, path: str, content: str) -> None:
        """Make a file that survives a power cut."""
        self.files[path] = SimulatedFile(content, content)

    def power_cut(self) -> None:
        """Forget what was not synced."""
        for file in self.files.values():
            file.content = file.durable

    def version(self, remote_name: str) -> str:
        """The letter of the present version of a remote file: different for every server and version."""
        number = self.versions.setdefault(remote_name, 0)
        return chr(0x100 + 50 * (sum(remote_name.encode()) % 1000) + number)

    def size(self, remote_name: str) -> int:
        """Its size."""
        return 60 + 7 * self.versions.get(remote_name, 0)


@dataclass(slots=True)
class _Transfer:
    number: int
    specs: list[FileSpec] = field(default_factory=list)
    is_complete: bool = False
    """Whether all specs are here."""
    letter: str = ""
    """The version that the server has answered with for the first of the specs; empty before."""
    size: int = 0


class DiskWorker(FakeWorker):
    """A worker that works step by step, as the test says."""

    def __init__(self, sock: socket.socket, identity: Identity, pid: int, *, machine: Machine) -> None:
        super().__init__(sock, identity, pid)
        self.machine = machine
        self.transfers: dict[int, _Transfer] = {}
        self.uploads: dict[int, SimulatedUpload] = {}
        self.is_slow = False
        """Whether it does nothing about stops and file operations until it is told to catch up."""
        self._left: list[object] = []

    def operate(self, message: object) -> None:
        """Take an order."""
        match message:
            case StartTransfer(transfer=number):
                self.transfers[number] = _Transfer(number)
            case TransferFiles(transfer=number, files=files, last=last):
                self.transfers[number].specs.extend(files)
                self.transfers[number].is_complete = last
            case UploadFile(transfer=number):
                del self.transfers[number]
                self.uploads[number] = SimulatedUpload(message, self.machine.uploads, self.machine, self.send)
            case UploadKept(transfer=number, number=kept):
                if number in self.uploads:
                    self.uploads[number].kept(kept)
            case CheckDirectories(operation=number) | CheckSources(operation=number):
                self.send(OperationResults(operation=number, results=(), last=True))
            case _ if self.is_slow:
                self._left.append(message)
            case _:
                self._do(message)

    def catch_up(self) -> None:
        """Do what was left."""
        self.is_slow = False
        left, self._left = self._left, []
        for message in left:
            if self.is_alive:
                self._do(message)

    def _do(self, message: object) -> None:
        match message:
            case StopTransfer(transfer=number):
                upload = self.uploads.pop(number, None)
                if upload is not None:
                    upload.stop()
                transfer = self.transfers.pop(number, None)
                if transfer is not None:
                    if transfer.letter:
                        self._checkpoint(transfer)
                    self.send(TransferEnded(transfer=number))
            case RenameFiles(operation=number, files=specs):
                failures = [result for result in map(self._rename, specs) if result is not None]
                self.send(OperationResults(operation=number, results=tuple(failures), last=True))
            case DeleteFiles(operation=number, paths=paths):
                for path in paths:
                    self.machine.files.pop(path, None)
                self.send(OperationResults(operation=number, results=(), last=True))

    def _rename(self, spec: RenameSpec) -> FileResult | None:
        file = self.machine.files.pop(spec.temporary_name, None)
        if file is not None:
            file.sync()
            self.machine.files[spec.local_name] = file
        elif spec.local_name not in self.machine.files:
            return FileResult(index=spec.index, error="ERROR_FILE_NOT_FOUND", message="the temporary file is gone")
        return None

    # --- steps of a transfer, as the test says ------------------------------------------------------

    def step(self, amount: int) -> None:
        """Go on with every transfer: `amount` bytes, or a new file, or the end."""
        for transfer in list(self.transfers.values()):
            if transfer.is_complete and self.is_alive:
                self._step(transfer, amount)
        for number, upload in list(self.uploads.items()):
            if self.is_alive:
                upload.step(amount)
            if upload.is_over:
                del self.uploads[number]

    def _step(self, transfer: _Transfer, amount: int) -> None:
        if not transfer.specs:
            del self.transfers[transfer.number]
            self.send(TransferEnded(transfer=transfer.number))
        elif not transfer.letter:
            self._answer(transfer)
        else:
            spec = transfer.specs[0]
            file = self.machine.files[spec.temporary_name]
            file.content += transfer.letter * min(amount, transfer.size - len(file.content))
            if len(file.content) == transfer.size:
                file.sync()
                self.send(FilesDone(transfer=transfer.number, files=(DoneFile(index=spec.index, size=transfer.size),)))
                transfer.specs.pop(0)
                transfer.letter = ""

    def _answer(self, transfer: _Transfer) -> None:
        spec = transfer.specs[0]
        file = self.machine.files.setdefault(spec.temporary_name, SimulatedFile())
        letter, size = self.machine.version(spec.remote_name), self.machine.size(spec.remote_name)
        known = spec.etag == f'"{letter}"' and len(file.content) >= spec.durable_bytes
        offset = spec.durable_bytes if known else 0
        file.content = file.content[:offset]
        transfer.letter, transfer.size = letter, size
        self.send(
            FileStarted(
                transfer=transfer.number,
                index=spec.index,
                bytes_total=size,
                size=size,
                etag=f'"{letter}"',
                last_modified=None,
                offset=offset,
                restarted="the remote file was changed" if spec.durable_bytes > offset else "",
            )
        )

    def checkpoint(self) -> None:
        """Make durable what has come in, and say so."""
        for transfer in self.transfers.values():
            if transfer.letter and self.is_alive:
                self._checkpoint(transfer)

    def _checkpoint(self, transfer: _Transfer) -> None:
        spec = transfer.specs[0]
        file = self.machine.files[spec.temporary_name]
        file.sync()
        self.send(FileDurable(transfer=transfer.number, index=spec.index, durable_bytes=len(file.durable)))

    def fail(self, error: str, *, transient: bool) -> None:
        """End every transfer with an error."""
        while self.uploads and self.is_alive:
            self.uploads.popitem()[1].fail(error, transient=transient)
        for transfer in list(self.transfers.values()):
            if transfer.is_complete and transfer.specs and self.is_alive:
                del self.transfers[transfer.number]
                index = transfer.specs[0].index
                self.send(
                    TransferEnded(
                        transfer=transfer.number, error=error, message="it hung up", index=index, transient=transient
                    )
                )
