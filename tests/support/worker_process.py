"""A real worker process, driven by frames, as a service would drive it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.worker import (
    SERVICE_TO_WORKER,
    WORKER_TO_SERVICE,
    DoneFile,
    FileDurable,
    FilesDone,
    FileSpec,
    FilesStarted,
    FileStarted,
    StartTransfer,
    StopTransfer,
    TransferEnded,
    TransferFiles,
    UploadFile,
    UploadKept,
    UploadMoved,
    WorkerReady,
)

_T = TypeVar("_T")
_PROGRAM = """
import socket, sys
from openbits.worker.main import run
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
TIMEOUT_S = 30.0


def settings(transfer: int = 1, **changes: Any) -> StartTransfer:
    """A transfer as `bits get` would start it."""
    values: dict[str, Any] = {
        "transfer": transfer,
        "foreground": True,
        "file_concurrency": 1,
        "umask": 0o022,
        "stall_timeout_s": 10,
        "connect_timeout_s": 5,
        "break_patience_s": 3.0,
        "checkpoint_bytes": 64 * 1024 * 1024,
        "checkpoint_s": 5.0,
        "strict_http": False,
        "dynamic_content": False,
        "high_performance": False,
        "max_download_bytes": None,
        "custom_headers": "",
    }
    return StartTransfer(**{**values, **changes})


class WorkerProcess:
    """A context manager; `messages` is everything that the worker has said."""

    def __init__(self, *, env: dict[str, str] | None = None, program: str = _PROGRAM) -> None:
        ours, theirs = Channel.pair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, **(env or {})},
        )
        theirs.close()
        self.channel = Channel(ours, outgoing=SERVICE_TO_WORKER, incoming=WORKER_TO_SERVICE)
        self.messages: list[object] = []
        self.keeps = True
        """Whether what an upload wants on the disk is there at once."""
        self.ready = self.wait_for(WorkerReady)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        try:
            self.process.wait(TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def send(self, message: object) -> None:
        """Send a frame, waiting where the worker is slow to read."""
        self.channel.send(message)
        while self.channel.wants_write:
            select.select([], [self.channel], [], TIMEOUT_S)
            self.channel.flush()

    def receive(self, timeout_s: float = TIMEOUT_S) -> object | None:
        """The next frame; None when none came in time or the worker is gone."""
        ready, _, _ = select.select([self.channel], [], [], timeout_s)
        if not ready:
            return None
        try:
            received = self.channel.receive()
        except ChannelClosed:
            return None
        if received is None:
            return None
        message = received[0]
        if isinstance(message, UploadMoved) and message.is_awaited and self.keeps:
            self.send(UploadKept(transfer=message.transfer, number=message.number))
        # What travels together is listed as if it had come one by one.
        self.messages.extend(message.files if isinstance(message, FilesStarted) else (message,))
        return message

    def wait_for(
        self, kind: type[_T], condition: Callable[[_T], bool] = lambda _: True, timeout_s: float = TIMEOUT_S
    ) -> _T:
        """The next frame of a kind for which the condition holds."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            message = self.receive(left_s)
            if message is None:
                break
            if isinstance(message, kind) and condition(message):
                return message
        raise AssertionError(f"no {kind.__name__} came; last: {self.messages[-3:]}")

    def all(self, kind: type[_T]) -> list[_T]:
        """Every frame of a kind that came so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def begin(self, *files: FileSpec, **changes: Any) -> int:
        """Start a transfer."""
        start = settings(**changes)
        self.send(start)
        for at in range(0, max(1, len(files)), 200):
            self.send(
                TransferFiles(transfer=start.transfer, files=tuple(files[at : at + 200]), last=at + 200 >= len(files))
            )
        return start.transfer

    def fetch(self, *files: FileSpec, timeout_s: float = TIMEOUT_S, **changes: Any) -> TransferEnded:
        """Run a transfer to its end."""
        transfer = self.begin(*files, **changes)
        return self.wait_for(TransferEnded, lambda ended: ended.transfer == transfer, timeout_s)

    def begin_upload(self, order: UploadFile, **changes: Any) -> int:
        """Start a transfer that uploads."""
        self.send(settings(order.transfer, **changes))
        self.send(order)
        return order.transfer

    def upload(self, order: UploadFile, *, timeout_s: float = TIMEOUT_S, **changes: Any) -> TransferEnded:
        """Run an upload to its end."""
        transfer = self.begin_upload(order, **changes)
        return self.wait_for(TransferEnded, lambda ended: ended.transfer == transfer, timeout_s)

    def stop(self, transfer: int = 1) -> TransferEnded:
        """Stop a transfer and wait for its end."""
        self.send(StopTransfer(transfer=transfer))
        return self.wait_for(TransferEnded, lambda ended: ended.transfer == transfer)

    def kill(self) -> None:
        """Kill it with -9, and read what it had said."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(TIMEOUT_S)
        with contextlib.suppress(ChannelClosed):
            while self.receive(0.1) is not None:
                pass

    @property
    def done(self) -> list[DoneFile]:
        """Files that were reported whole."""
        return [file for frame in self.all(FilesDone) for file in frame.files]

    def started(self, index: int = 0) -> list[FileStarted]:
        """What the worker said of a file's answers."""
        return [message for message in self.all(FileStarted) if message.index == index]

    def durable_bytes(self, index: int = 0) -> int:
        """What a service would have written down of a file."""
        durable = 0
        for message in self.messages:
            if isinstance(message, FileStarted) and message.index == index:
                durable = min(durable, message.offset) if message.offset else 0
            elif isinstance(message, FileDurable) and message.index == index:
                durable = message.durable_bytes
        return durable
