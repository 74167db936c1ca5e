"""Handing an upload to a server application, and its answer to the protocol (U4, U5, U30–U32, R1, R2).

The rules:

- One POST for each attempt: by reference with the paths of both files and no body, by value with the upload as the
  body.
- The application has five minutes to take the next byte of it, five to begin to answer, five to end its answer.
- What it answers is data: a reply goes to a file of ours, a header is taken only if it is what it should be, a redirect
  is not followed.  2xx is success; anything else is told to the client as the application's doing.
- A relative URL is resolved against the upload's directory, and the request goes to this server's own address,
  whatever Host the client had sent: a client does not choose whom this server speaks to.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import h11

from openbits.errors import error_code
from openbits.server.settings import Notification, UploadSettings
from openbits.server.storage import REPLIES, Storage
from openbits.server.tasks import Tasks
from openbits.upload.addresses import is_http_url
from openbits.upload.session import Notified, NotNotified, Session
from openbits.version import __version__

ORIGINAL_URL: Final = "BITS-Original-Request-URL"
REQUEST_FILE: Final = "BITS-Request-DataFile-Name"
RESPONSE_FILE: Final = "BITS-Response-DataFile-Name"
STATIC_URL: Final = b"bits-static-response-url"
COPY_FILE: Final = b"bits-copy-file-to-destination"
REPLY_FILE: Final = b"responsefile.bin"

_SLICE_BYTES: Final = 512 * 1024
_RECEIVE_BYTES: Final = 256 * 1024
_HEAD_LIMIT: Final = 64 * 1024

_VISIBLE: Final = re.compile(r"[!-~]+")

log = logging.getLogger(__name__)


def reply_url_of(session: Session) -> str:
    """Where the reply of a session is, seen from the directory that the upload went to."""
    return f"{REPLIES.decode()}/Replies/{session.id}/{REPLY_FILE.decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to speak to, and what to ask for."""

    host: str
    port: int
    authority: str
    """Host, as the request says it."""
    target: str


class NoTarget(Exception):
    """The application's address cannot be made out; the text says why, for the log."""


def target_of(
    notification_url: str, *, original_url: str, path: str, query: str, own_address: tuple[str, int] | None
) -> Target:
    """Resolve the address of the application for an upload to `path`, with the query that the upload had (U5)."""
    if "://" in notification_url:
        parts = urlsplit(notification_url)
        host, port, authority = parts.hostname or "", parts.port or 80, parts.netloc
        asked = parts.path or "/"
    else:
        if own_address is None:
            raise NoTarget("a relative server_notification_url needs a server that listens at an address")
        host, port = own_address
        authority = urlsplit(original_url).netloc
        # The place before is only there to be taken away again: what counts is the path.
        parts = urlsplit(urljoin(f"http://own{path}", notification_url))
        if parts.netloc != "own":
            raise NoTarget(f"the server_notification_url {notification_url!r} names a host without http://")
        asked = parts.path
    queries = "&".join(each for each in (parts.query, query) if each)
    return Target(host=host, port=port, authority=authority, target=f"{asked}?{queries}" if queries else asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One upload that an application is to have."""

    key: str
    session: Session
    original_url: str
    path: str
    """Of the upload's URL, as the client wrote it."""
    query: str
    settings: UploadSettings


@dataclass(slots=True)
class _Answer:
    status: int = 0
    static_url: str = ""
    wants_file: bool = False
    reply_bytes: int = 0


class Notifier:
    """Speaks to server applications."""

    def __init__(self, storage: Storage, *, own_address: Callable[[], tuple[str, int] | None] | None = None) -> None:
        self._storage = storage
        self._own_address = own_address or (lambda: None)

    async def notify(self, job: Job) -> Notified | NotNotified:
        """Give the upload to the application, and say what came of it; raises OSError for troubles with our files."""
        try:
            target = target_of(
                job.settings.server_notification_url,
                original_url=job.original_url,
                path=job.path,
                query=job.query,
                own_address=self._own_address(),
            )
        except NoTarget as error:
            log.error("action=notify-failed session=%s: %s", job.key, error)
            return NotNotified(status=500, error=error_code("ERROR_WINHTTP_INVALID_URL").hresult)
        exchange = _Conversation(self._storage, job, target)
        try:
            answer = await exchange.run()
        except _AppFailure as failure:
            log.warning("action=notify-failed session=%s: %s", job.key, failure)
            return NotNotified(status=failure.status, error=error_code(failure.name).hresult)
        return await self._judge(job, answer)

    async def _judge(self, job: Job, answer: _Answer) -> Notified | NotNotified:
        if not 200 <= answer.status <= 299:
            log.warning("action=notify-refused session=%s status=%d", job.key, answer.status)
            return NotNotified(status=answer.status)
        if answer.static_url:
            if not is_http_url(answer.static_url) or not _VISIBLE.fullmatch(answer.static_url):
                log.error("action=notify-failed session=%s: BITS-Static-Response-URL is no full address", job.key)
                return NotNotified(status=400, error=error_code("E_INVALIDARG").hresult)
            reply_url = answer.static_url
        elif await asyncio.to_thread(self._storage.seal_reply, job.key):
            reply_url = reply_url_of(job.session)
        else:
            reply_url = ""
        return Notified(reply_url=reply_url, wants_file=answer.wants_file)


class _AppFailure(Exception):
    """The application cannot be spoken to: `status` and `name` are what the client is told."""

    def __init__(self, status: int, name: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.name = name


class _Conversation:
    """One request to an application, and its answer."""

    def __init__(self, storage: Storage, job: Job, target: Target) -> None:
        self._storage = storage
        self._job = job
        self._target = target
        self._limit_s = job.settings.notification_timeout
        self._is_by_value = job.settings.server_notification_type is Notification.VALUE
        self._timeout = asyncio.timeout(None)
        self._tasks = Tasks()

    async def run(self) -> _Answer:
        place = f"{self._target.host}:{self._target.port}"
        self._timeout = asyncio.timeout(self._limit_s)
        try:
            async with self._timeout:
                return await self._speak()
        except TimeoutError:
            reason = f"the application at {place} did nothing for {self._limit_s} s"
            raise _AppFailure(408, "ERROR_WINHTTP_TIMEOUT", reason) from None
        except h11.RemoteProtocolError as error:
            reason = f"the application at {place} does not answer in HTTP: {error}"
            raise _AppFailure(502, "ERROR_WINHTTP_INVALID_SERVER_RESPONSE", reason) from None

    def _go_on(self) -> None:
        """Something has happened: the application has its time anew."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._limit_s)

    async def _speak(self) -> _Answer:
        try:
            reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError as error:
            reason = f"the application at {self._target.host}:{self._target.port} cannot be reached: {error}"
            raise _AppFailure(502, "ERROR_WINHTTP_CANNOT_CONNECT", reason) from None
        try:
            return await self._exchange(reader, writer)
        finally:
            # Not close(): that waits until the application has taken what it may never want, and hides its answer.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer:
        part = await asyncio.to_thread(self._storage.open_part_to_read, self._job.key) if self._is_by_value else None
        reply_fd = await asyncio.to_thread(self._make_reply)
        # An application may refuse before it has read everything: its answer is read while the body is sent.
        # What breaks there breaks here as well, or does not matter any more.
        sending = self._tasks.start("notify-send", self._send(writer, part), expected=(OSError,))
        try:
            return await self._receive(reader, sending, reply_fd)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if part is not None:
                os.close(part)
            if reply_fd is not None:
                os.close(reply_fd)

    def _make_reply(self) -> int | None:
        if self._is_by_value:
            return self._storage.make_reply(self._job.key)
        self._storage.delete_reply(self._job.key)
        return None

    def _head(self) -> bytes:
        length = self._job.session.received_bytes if self._is_by_value else 0
        headers = [
            ("Host", self._target.authority),
            ("User-Agent", f"OpenBITS/{__version__}"),
            ("Connection", "close"),
            (ORIGINAL_URL, self._job.original_url),
            ("Content-Length", str(length)),
        ]
        if self._is_by_value:
            headers.append(("Content-Type", "application/octet-stream"))
        else:
            headers.append((REQUEST_FILE, self._storage.request_path(self._job.key)))
            headers.append((RESPONSE_FILE, self._storage.reply_path(self._job.key)))
        lines = [f"POST {self._target.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogateescape")

    async def _send(self, writer: asyncio.StreamWriter, part: int | None) -> None:
        writer.write(self._head())
        await writer.drain()
        self._go_on()
        if part is None:
            return
        # Not loop.sendfile(), which hears nothing until the application has taken the bytes.
        offset, length = 0, self._job.session.received_bytes
        while offset < length:
            data = await asyncio.to_thread(os.pread, part, min(_SLICE_BYTES, length - offset), offset)
            if not data or writer.transport.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, "the application has closed the connection")
            writer.write(data)
            await writer.drain()
            offset += len(data)
            self._go_on()

    async def _receive(
        self, reader: asyncio.StreamReader, sending: asyncio.Task[None], reply_fd: int | None
    ) -> _Answer:
        # h11 must have sent something to know that an answer may come; what was sent in truth is not its business.
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        parser.send(h11.Request(method="POST", target="/", headers=[("Host", "application"), ("Content-Length", "0")]))
        parser.send(h11.EndOfMessage())
        answer = _Answer()
        while True:
            event = parser.next_event()
            match event:
                case h11.NEED_DATA:
                    data = await self._read(reader, sending)
                    if not data and not answer.status:
                        reason = "the application closed the connection without an answer"
                        raise _AppFailure(502, "ERROR_WINHTTP_INVALID_SERVER_RESPONSE", reason)
                    parser.receive_data(data)
                case h11.Response():
                    self._go_on()
                    answer.status = event.status_code
                    self._read_headers(answer, event)
                case h11.Data():
                    await self._store(answer, reply_fd, bytes(event.data))
                case h11.EndOfMessage() | h11.ConnectionClosed():
                    return answer
                case _:
                    continue

    async def _read(self, reader: asyncio.StreamReader, sending: asyncio.Task[None]) -> bytes:
        try:
            return await reader.read(_RECEIVE_BYTES)
        except OSError as error:
            cause = sending.exception() if sending.done() and not sending.cancelled() else None
            reason = f"the connection to the application broke: {cause or error}"
            raise _AppFailure(502, "ERROR_WINHTTP_CONNECTION_ERROR", reason) from None

    def _read_headers(self, answer: _Answer, event: h11.Response) -> None:
        for name, value in event.headers:
            if name == STATIC_URL:
                answer.static_url = value.decode("latin-1").strip()
            elif name == COPY_FILE:
                answer.wants_file = True

    async def _store(self, answer: _Answer, reply_fd: int | None, data: bytes) -> None:
        if reply_fd is None or not 200 <= answer.status <= 299:
            return
        if answer.reply_bytes + len(data) > self._job.settings.maximum_reply_size:
            reason = f"the application's reply is longer than {self._job.settings.maximum_reply_size} bytes"
            raise _AppFailure(500, "BG_E_TOO_LARGE", reason)
        await asyncio.to_thread(functools.partial(_write_all, reply_fd, data, answer.reply_bytes))
        answer.reply_bytes += len(data)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
