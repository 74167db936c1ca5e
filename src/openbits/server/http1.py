"""An exchange over a connection of our own: HTTP/1.1, its body straight to the file.

What `openbits.server.exchange` promises, on a Wire.  What a connection may do after the exchange is decided in one
place, when the answer's head is written: it goes on only if the end of this request is known and near.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from openbits.server.exchange import (
    DRAIN_LIMIT_BYTES,
    Body,
    BodyTooLarge,
    ConnectionLost,
    FileSlice,
    Head,
    Headers,
    Part,
    StoreFailed,
)
from openbits.server.heads import CONTINUE, Request, render_head
from openbits.server.pumping import Ended
from openbits.server.wire import RECEIVE_BYTES, FileEnded, Gone, Wire

_BODILESS: Final = frozenset({204, 304})


class Http1Exchange:
    """One request on a Wire, and its answer."""

    __slots__ = (
        "_awaits_continue",
        "_head",
        "_held",
        "_is_counted",
        "_is_last",
        "_may_go_on",
        "_unread",
        "_wire",
        "sent_bytes",
        "status",
    )

    def __init__(self, wire: Wire, request: Request, *, head: Head, is_last: Callable[[], bool]) -> None:
        """`head` is the request's, as trusted proxies complete it; `is_last` says whether the server stops."""
        self._wire = wire
        self._head = head
        self._held = request.rest
        """What has been received and belongs to the body or to what follows."""
        self._unread = head.content_length or 0
        """Bytes of the body that the application has not had; those in `_held` among them."""
        self._is_counted = True
        """Whether it is known where in the body the connection is."""
        self._is_last = is_last
        self._may_go_on = request.keeps_alive and not head.is_chunked
        self._awaits_continue = request.awaits_continue and not request.rest
        self.status = 0
        """Of the answer; 0 before."""
        self.sent_bytes = 0

    def __repr__(self) -> str:
        return f"<Http1Exchange {self._head.method} {self._head.target!r} unread={self._unread} status={self.status}>"

    @property
    def head(self) -> Head:
        """What was asked."""
        return self._head

    @property
    def is_answered(self) -> bool:
        """Whether respond() has been called."""
        return self.status != 0

    # --- the body ----------------------------------------------------------------------------------

    async def receive_to_file(self, fd: int, offset: int, length: int, *, skip: int = 0) -> int:
        """See `Exchange`."""
        try:
            await self._begin_reading()
            await self._skip(min(skip, self._unread))
        except Gone as error:
            raise ConnectionLost(0, str(error)) from None
        length = min(length, self._unread)
        if not length:
            return 0
        first = self._take_held(length)
        # Whoever is cancelled meanwhile does not hear how much has been read: nothing can follow it then.
        self._is_counted = False
        turn = await self._wire.receive_to_file(first, fd, offset, length)
        self._is_counted = True
        self._unread -= turn.taken - len(first)
        match turn.ended:
            case Ended.DONE:
                return turn.stored
            case Ended.FILE_FAILED:
                assert turn.error is not None
                raise StoreFailed(turn.stored, turn.error)
            case _:
                raise ConnectionLost(turn.stored, "the connection was lost before the whole body was here")

    async def discard_body(self, at_most: int) -> bool:
        """See `Exchange`."""
        if self._head.is_chunked or (self._awaits_continue and self._unread) or not self._is_counted:
            return False
        try:
            await self._skip(min(at_most, self._unread))
        except Gone as error:
            raise ConnectionLost(0, str(error)) from None
        return not self._unread

    async def read_body(self, at_most: int) -> bytes:
        """See `Exchange`."""
        if self._unread > at_most:
            raise BodyTooLarge(f"the body has {self._unread} bytes, {at_most} are wanted at most")
        parts = []
        try:
            await self._begin_reading()
            while self._unread:
                part = self._take_held(self._unread)
                if not part:
                    part = await self._wire.receive(min(self._unread, RECEIVE_BYTES))
                    self._unread -= len(part)
                parts.append(part)
        except Gone as error:
            raise ConnectionLost(0, str(error)) from None
        return b"".join(parts)

    async def _begin_reading(self) -> None:
        if self._head.is_chunked:
            raise RuntimeError("a chunked body is not read here: the application answers 411")
        if self._awaits_continue and not self.is_answered:
            self._awaits_continue = False
            await self._wire.send(CONTINUE)

    async def _skip(self, length: int) -> None:
        length -= len(self._take_held(length))
        while length:
            count = len(await self._wire.receive(min(length, RECEIVE_BYTES)))
            self._unread -= count
            length -= count

    def _take_held(self, at_most: int) -> bytes:
        """Take bytes of the body that are here already; they count as read."""
        taken = self._held[: min(at_most, self._unread)]
        self._held = self._held[len(taken) :]
        self._unread -= len(taken)
        return taken

    # --- the answer --------------------------------------------------------------------------------

    async def respond(self, status: int, headers: Headers = (), body: Body = b"") -> None:
        """See `Exchange`."""
        if self.is_answered:
            raise RuntimeError(f"{self!r} is answered already")
        parts = body if isinstance(body, tuple) else (body,)
        length = sum(_length(part) for part in parts)
        if (
            self._is_last()
            or self._awaits_continue
            or not self._is_counted
            or self._unread - len(self._held) > DRAIN_LIMIT_BYTES
            # Without a length there is no body, says HTTP: whoever has forgotten the length sends one all the same.
            or status == HTTPStatus.LENGTH_REQUIRED
        ):
            self._may_go_on = False
        is_bodiless = status in _BODILESS or self._head.method == "HEAD"
        head = render_head(status, headers, length=None if status in _BODILESS else length, closes=not self._may_go_on)
        self.status = status
        if self._wire.is_gone:
            return
        try:
            await self._send(head, () if is_bodiless else tuple(part for part in parts if _length(part)))
        except (Gone, FileEnded):
            # The client sees that it has too little; there is nothing else to tell it by.
            self._wire.is_gone = True

    async def _send(self, head: bytes, parts: tuple[Part, ...]) -> None:
        pending = head
        for number, part in enumerate(parts):
            if isinstance(part, FileSlice):
                # The head waits for the first bytes of the file, to go in one packet with them.
                await self._wire.send(pending, flags=socket.MSG_MORE)
                pending = b""
                await self._wire.send_file(part.fd, part.offset, part.length)
                self.sent_bytes += part.length
            else:
                pending += part
                self.sent_bytes += len(part)
                if len(pending) > RECEIVE_BYTES or number == len(parts) - 1:
                    await self._wire.send(pending)
                    pending = b""
        if pending:
            await self._wire.send(pending)

    async def finish(self) -> bytes | None:
        """Deal with what is unread; return what has come after this request, None when the connection must end."""
        if self._wire.is_gone or not self._may_go_on or not self.is_answered:
            return None
        try:
            await self._skip(self._unread)
        except Gone:
            return None
        return self._held

    @property
    def has_unread(self) -> bool:
        """Whether the client may still be sending what nobody wants: it must hear the answer nevertheless."""
        return bool(self._unread or self._held or self._head.is_chunked)


def _length(part: Part) -> int:
    return part.length if isinstance(part, FileSlice) else len(part)
