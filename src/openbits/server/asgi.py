"""The same application for any ASGI server, and for mounting below a path of another application.

    application = create_application(parse_settings(tomllib.loads(text), source="bits.toml"))

The rules: one process per working directory (its lock says so), so one worker; what an ASGI server knows better
(the ends of requests, unread bodies, TLS) is its own affair; and it must let the method BITS_POST through.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from openbits.server.application import BitsApplication
from openbits.server.downloads import Downloads
from openbits.server.exchange import (
    Body,
    BodyTooLarge,
    Client,
    ConnectionLost,
    FileSlice,
    Head,
    Headers,
    StoreFailed,
)
from openbits.server.forwarded import TrustedProxies
from openbits.server.publications import Publications
from openbits.server.settings import Settings
from openbits.server.uploads import Uploads

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
UserOf = Callable[[Scope], str | None]

_STALL_S: Final = 60.0
_WRITE_BYTES: Final = 512 * 1024
_READ_BYTES: Final = 256 * 1024
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_BODILESS: Final = frozenset({204, 304})


def create_application(
    settings: Settings,
    *,
    downloads: bool = True,
    proxies: TrustedProxies | None = None,
    user_of: UserOf | None = None,
) -> AsgiApplication:
    """Return an ASGI application; raises StorageError when the settings' directories cannot be used.

    With `downloads` what lies below the root is handed out as well.  `user_of` says of a scope who asks, where the
    application that this one is mounted in has found that out; else trusted `proxies` may.
    """
    return AsgiApplication(settings, downloads=downloads, proxies=proxies or TrustedProxies(), user_of=user_of)


class AsgiApplication:
    """An ASGI 3 application; `close` is for those who mount it, for they keep the lifespan to themselves."""

    def __init__(self, settings: Settings, *, downloads: bool, proxies: TrustedProxies, user_of: UserOf | None) -> None:
        self._uploads = Uploads(settings)
        self._proxies = proxies
        self._user_of = user_of
        self._is_started = False
        files = Downloads(self._uploads.storage) if downloads else None
        publications = Publications(names_users=proxies.names_users or user_of is not None)
        self._application = BitsApplication(uploads=self._uploads, downloads=files, publications=publications)

    def __repr__(self) -> str:
        return f"<AsgiApplication {self._uploads!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak ASGI."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                self._start()
                await self._serve(scope, receive, send)
            case kind:
                raise NotImplementedError(f"{kind} is not spoken here")

    async def close(self) -> None:
        """End in good order; no request may be under way."""
        if self._is_started:
            self._is_started = False
            await self._uploads.close()

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._uploads.start()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                self._start()
                await send({"type": "lifespan.startup.complete"})
            elif kind == "lifespan.shutdown":
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = self._proxies.complete(_head(scope))
        if self._user_of is not None:
            head = replace(head, user=self._user_of(scope))
        exchange = AsgiExchange(head, receive, send)
        await self._application(exchange)
        if not exchange.is_answered and not exchange.is_gone:
            await exchange.respond(HTTPStatus.INTERNAL_SERVER_ERROR)


class AsgiExchange:
    """An `Exchange` over an ASGI server."""

    def __init__(self, head: Head, receive: Receive, send: Send) -> None:
        self._head = head
        self._receive = receive
        self._send = send
        self._held = b""
        self._is_whole = False
        """Whether the server has nothing more of the body."""
        self.is_answered = False
        self.is_gone = False

    @property
    def head(self) -> Head:
        """What was asked."""
        return self._head

    async def receive_to_file(self, fd: int, offset: int, length: int, *, skip: int = 0) -> int:
        """See `Exchange`."""
        while skip and (part := await self._next(skip)):
            skip -= len(part)
        stored = 0
        while stored < length:
            # Servers hand out a body in small parts; a thread for each would cost more than the part.
            data, lost = await self._gather(min(length - stored, _WRITE_BYTES))
            stored += await self._write(fd, data, offset + stored, stored)
            if lost is not None:
                raise ConnectionLost(stored, str(lost))
            if not data:
                break
        return stored

    async def _gather(self, at_most: int) -> tuple[bytes, ConnectionLost | None]:
        parts: list[bytes] = []
        size = 0
        try:
            while size < at_most and (part := await self._next(at_most - size)):
                parts.append(part)
                size += len(part)
        except ConnectionLost as lost:
            return b"".join(parts), lost
        return b"".join(parts), None

    async def _write(self, fd: int, data: bytes, offset: int, stored: int) -> int:
        written, error = await asyncio.to_thread(_write_all, fd, data, offset)
        if error is not None:
            raise StoreFailed(stored + written, error)
        return written

    async def discard_body(self, at_most: int) -> bool:
        """See `Exchange`."""
        while at_most and (part := await self._next(at_most)):
            at_most -= len(part)
        return self._is_whole and not self._held

    async def read_body(self, at_most: int) -> bytes:
        """See `Exchange`."""
        parts: list[bytes] = []
        size = 0
        while part := await self._next(_READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > at_most:
                raise BodyTooLarge(f"the body has more than {at_most} bytes")
        return b"".join(parts)

    async def _next(self, at_most: int) -> bytes:
        """Return some of the body, nothing at its end; raises ConnectionLost."""
        while not self._held and not self._is_whole:
            try:
                async with asyncio.timeout(_STALL_S):
                    message = await self._receive()
            except TimeoutError:
                self.is_gone = True
                raise ConnectionLost(0, "nothing came for a while") from None
            if message["type"] != "http.request":
                self.is_gone = True
                raise ConnectionLost(0, "the client has gone")
            self._held = bytes(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
        part, self._held = self._held[:at_most], self._held[at_most:]
        return part

    async def respond(self, status: int, headers: Headers = (), body: Body = b"") -> None:
        """See `Exchange`."""
        if self.is_answered:
            raise RuntimeError("this exchange is answered already")
        self.is_answered = True
        if self.is_gone:
            return
        parts = body if isinstance(body, tuple) else (body,)
        encoded = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers]
        if status not in _BODILESS:
            length = sum(part.length if isinstance(part, FileSlice) else len(part) for part in parts)
            encoded.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": int(status), "headers": encoded})
        if status not in _BODILESS and self._head.method != "HEAD":
            for part in parts:
                if not await self._send_part(part):
                    # Without its end the answer is no answer: the server closes the connection.
                    return
        await self._send({"type": "http.response.body", "body": b""})

    async def _send_part(self, part: bytes | FileSlice) -> bool:
        if isinstance(part, bytes):
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
            return True
        offset, left = part.offset, part.length
        while left:
            data = await asyncio.to_thread(os.pread, part.fd, min(left, _READ_BYTES), offset)
            if not data:
                return False
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            offset, left = offset + len(data), left - len(data)
        return True


def _write_all(fd: int, data: bytes, offset: int) -> tuple[int, OSError | None]:
    written, view = 0, memoryview(data)
    while written < len(view):
        try:
            written += os.pwrite(fd, view[written:], offset + written)
        except OSError as error:
            return written, error
    return written, None


def _head(scope: Scope) -> Head:
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    named = dict(headers)
    root = quote(scope.get("root_path", ""), safe="/%").rstrip("/").encode("ascii")
    # Servers that do not hand on what was sent have decoded it: then it is encoded anew, and means one thing again.
    raw = bytes(scope.get("raw_path") or quote(scope["path"], safe="/").encode("ascii")).partition(b"?")[0]
    path = raw.removeprefix(root) if raw == root or raw.startswith(root + b"/") else raw
    query = bytes(scope.get("query_string", b""))
    length = named.get("content-length")
    client = scope.get("client") or ("", 0)
    return Head(
        method=scope["method"],
        target=raw + (b"?" + query if query else b""),
        path=path or b"/",
        query=query,
        root_path=root,
        headers=headers,
        client=Client(host=client[0] or "", port=client[1] or 0),
        scheme=scope.get("scheme", "http"),
        authority=named.get("host", ""),
        http_version=scope.get("http_version", "1.1"),
        content_length=int(length) if length is not None and _LENGTH.fullmatch(length) else None,
        is_chunked="transfer-encoding" in named,
    )
