"""Uploads of a machine in a test: sources that change, a server that keeps sessions or loses them, a client of it.

The client keeps the promises of frames.worker: a session is known to the service before anything is sent in it, that
the server has everything is on the disk before the session is closed, and only acknowledged bytes are reported.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from openbits.core.model import REPLY_INDEX, UPLOAD_INDEX
from openbits.frames.worker import DoneFile, FilesDone, FileSpec, FileStarted, TransferEnded, UploadFile, UploadMoved

REPLY = "r" * 9
CLOSING = "closing:"
"""Before the name of a session: the server has everything, and the reply is here."""


def session_of(memory: str) -> str:
    """The session that a memory is of."""
    return memory.removeprefix(CLOSING)


@dataclass(slots=True)
class UploadServer:
    """What the server has, and the sources, which outlive every process as well."""

    sessions: dict[str, str] = field(default_factory=dict)
    """What has come in of each; each byte is the letter of the source's version."""
    published: dict[str, str] = field(default_factory=dict)
    """By remote name."""
    arrivals: dict[str, int] = field(default_factory=dict)
    """How often each remote name has come in whole since the server forgot everything or the sources were changed."""
    abandoned: set[str] = field(default_factory=set)
    """Sessions that the server did not want to end."""
    versions: dict[str, int] = field(default_factory=dict)
    """How often each source was changed."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def source(self, path: str) -> tuple[str, int]:
        """Letter and size of a source as it is now."""
        version = self.versions.setdefault(path, 0)
        return chr(ord("A") + version % 26), 60 + 7 * version

    def forget(self) -> None:
        """Lose all sessions; what is sent again then may come in again."""
        self.sessions.clear()
        self.arrivals.clear()

    def change_sources(self) -> None:
        """Let every source be another one, which may come in as well."""
        for path in list(self.versions):
            self.versions[path] += 1
        self.arrivals.clear()

    def publish(self, remote_name: str, content: str) -> None:
        """A file is whole."""
        self.published[remote_name] = content
        self.arrivals[remote_name] = self.arrivals.get(remote_name, 0) + 1

    def begin(self) -> str:
        """Begin a session."""
        name = f"s{next(self.numbers)}"
        self.sessions[name] = ""
        return name


class _Phase(enum.Enum):
    BEGIN = "begin"
    SEND = "send"
    REPLY = "reply"
    CLOSE = "close"
    OVER = "over"


class Files(Protocol):
    """Where a reply is written."""

    def write_durably(self, path: str, content: str) -> None:
        """Make a file that survives a power cut."""


class SimulatedUpload:
    """One upload, step by step."""

    def __init__(self, order: UploadFile, server: UploadServer, files: Files, say: Callable[[object], None]) -> None:
        self.order = order
        self._server = server
        self._files = files
        self._say = say
        self._phase = _Phase.BEGIN
        self._memory = order.memory
        self._moves = 0
        self._awaited = 0
        self._letter, self._size = server.source(order.file.local_name)

    @property
    def is_over(self) -> bool:
        """Whether its end has been told."""
        return self._phase is _Phase.OVER

    def kept(self, number: int) -> None:
        """What was said is written down."""
        if number == self._awaited:
            self._awaited = 0

    def step(self, amount: int) -> None:
        """Do what comes next, unless something is to be written down first."""
        if self._awaited:
            return
        if self.order.only_cancels:
            self._server.sessions.pop(session_of(self._memory), None)
            self._finish()
            return
        match self._phase:
            case _Phase.BEGIN:
                self._begin()
            case _Phase.SEND:
                self._send(amount)
            case _Phase.REPLY:
                self._fetch_reply()
            case _Phase.CLOSE:
                self._server.sessions.pop(session_of(self._memory), None)
                self._move("", self._size)
                self._finish()
            case _Phase.OVER:
                pass

    def fail(self, error: str, *, transient: bool) -> None:
        """End with an error."""
        if self.order.only_cancels and not transient:
            self._server.abandoned.add(session_of(self._memory))
        self._end(error, transient=transient)

    def stop(self) -> None:
        """End as asked."""
        self._end("")

    def _begin(self) -> None:
        file = self.order.file
        if self._memory.startswith(CLOSING):
            self._phase = _Phase.CLOSE
            return
        if file.size is not None and self._has_changed(file):
            self._end("BG_E_LOCAL_FILE_CHANGED")
            return
        if self._memory and file.size is None:
            # The session belongs to what the file was then.
            self._server.sessions.pop(self._memory, None)
        offset = len(self._server.sessions.get(self._memory, ""))
        self._say(
            FileStarted(
                transfer=self.order.transfer,
                index=UPLOAD_INDEX,
                bytes_total=self._size,
                size=self._size,
                etag=None,
                last_modified=self._letter,
                offset=offset,
            )
        )
        self._phase = _Phase.SEND
        if self._memory not in self._server.sessions:
            self._begin_session()

    def _has_changed(self, file: FileSpec) -> bool:
        return (file.last_modified, file.size) != (self._letter, self._size)

    def _begin_session(self) -> None:
        self._phase = _Phase.SEND
        self._move(self._server.begin(), 0, is_awaited=True)

    def _send(self, amount: int) -> None:
        if (self._letter, self._size) != self._server.source(self.order.file.local_name):
            self._end("BG_E_LOCAL_FILE_CHANGED")
        elif self._memory not in self._server.sessions:
            self._begin_session()
        else:
            before = self._server.sessions[self._memory]
            content = before + self._letter * min(amount, self._size - len(before))
            self._server.sessions[self._memory] = content
            self._move(self._memory, len(content))
            if len(content) == self._size:
                self._phase = _Phase.REPLY
                if content != before:
                    self._server.publish(self.order.file.remote_name, content)

    def _fetch_reply(self) -> None:
        reply = self.order.reply
        if self._memory not in self._server.sessions:
            self._begin_session()
            return
        if reply is not None:
            self._say(
                FileStarted(
                    transfer=self.order.transfer,
                    index=REPLY_INDEX,
                    bytes_total=len(REPLY),
                    size=len(REPLY),
                    etag=None,
                    last_modified=None,
                    offset=0,
                    resumable=False,
                )
            )
            self._files.write_durably(reply.temporary_name, REPLY)
            self._done(REPLY_INDEX, len(REPLY))
        self._phase = _Phase.CLOSE
        self._move(CLOSING + self._memory, self._size, is_awaited=True)

    def _move(self, memory: str, acknowledged_bytes: int, *, is_awaited: bool = False) -> None:
        self._moves += 1
        self._memory = memory
        self._awaited = self._moves if is_awaited else 0
        self._say(
            UploadMoved(
                transfer=self.order.transfer,
                number=self._moves,
                memory=memory,
                acknowledged_bytes=acknowledged_bytes,
                is_awaited=is_awaited,
            )
        )

    def _done(self, index: int, size: int) -> None:
        self._say(FilesDone(transfer=self.order.transfer, files=(DoneFile(index=index, size=size),)))

    def _finish(self) -> None:
        # What was sent may have been sent by an earlier run, and the source be another one by now.
        self._done(UPLOAD_INDEX, self.order.file.size or self._size)
        self._end("")

    def _end(self, error: str, *, transient: bool = False) -> None:
        self._phase = _Phase.OVER
        self._say(
            TransferEnded(
                transfer=self.order.transfer,
                error=error,
                message="it did not work" if error else "",
                index=UPLOAD_INDEX if error else None,
                transient=transient,
            )
        )
