"""One connection of a client: from the handshake through its requests, one after the other, to its end.

The rules:

- A connection that waits costs a socket and this object: no task, no buffer, no timer of its own.
- A task lives only while a request is served.  What the client sends meanwhile stays with the kernel: a client that
  sends faster than it is served waits by itself.
- Whoever stays silent where something is due is let go after the time of that state (`Deadlines`).
- The network's troubles are no news: nothing of them is logged as an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from openbits.server.exchange import Application, Client, Head
from openbits.server.heads import HeadReader, Refused, Request, render_head
from openbits.server.http1 import Http1Exchange
from openbits.server.pumping import Pool
from openbits.server.tasks import Tasks
from openbits.server.wire import RECEIVE_BYTES, Gone, Wire

log = logging.getLogger(__name__)

_READS_AT_ONCE: Final = 4
"""How often one connection is read before the others get their turn."""


class State(enum.Enum):
    """Where a connection is."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    """Between two requests, or before the first."""
    HEAD = "head"
    """A request's head has begun to come."""
    BUSY = "busy"
    """A request is served; its task looks after the socket."""
    LINGERING = "lingering"
    """Answered for the last time; what the client still sends is thrown away, so that it hears the answer."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A request that has been served, for the access log."""

    head: Head
    status: int
    """0: nobody was there to be answered."""
    sent_bytes: int
    took_s: float


class House(Protocol):
    """What all connections of a server share."""

    application: Application
    pool: Pool
    tasks: Tasks
    stall_s: float

    @property
    def is_stopping(self) -> bool:
        """Whether requests that are under way are the last."""

    def complete(self, head: Head) -> Head:
        """Return the head with what trusted proxies say of the client."""

    def moved(self, connection: Connection, state: State) -> None:
        """A connection is about to enter this state: its time there begins."""

    def holds(self, connection: Connection, head_bytes: int) -> None:
        """So much of a head is here, and not all of it; may close connections, this one too."""

    def served(self, what: Served) -> None:
        """Write the access log."""


class Connection:
    """A client's connection."""

    __slots__ = ("_client", "_house", "_loop", "_reader", "_wire", "state")

    def __init__(self, house: House, sock: socket.socket, client: Client) -> None:
        """`sock` is an SSLSocket without a handshake where there is TLS."""
        self._house = house
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(sock, pool=house.pool, stall_s=house.stall_s)
        self._reader: HeadReader | None = None
        self.state = State.HANDSHAKE if isinstance(sock, ssl.SSLSocket) else State.IDLE
        house.moved(self, self.state)
        self._watch(self._on_handshake if self.state is State.HANDSHAKE else self._on_readable)

    def __repr__(self) -> str:
        return f"<Connection {self._client.host}:{self._client.port} {self.state.value}>"

    # --- before a request --------------------------------------------------------------------------

    def _on_handshake(self) -> None:
        sock = self._wire.sock
        assert isinstance(sock, ssl.SSLSocket)
        self._loop.remove_writer(sock.fileno())
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self._loop.add_writer(sock.fileno(), self._on_handshake)
            return
        except (OSError, ValueError) as error:
            log.debug("action=handshake-failed client=%s reason=%s", self._client.host, error)
            self.close()
            return
        self._move(State.IDLE)
        self._watch(self._on_readable)
        # The first request may have come with the end of the handshake, and lie in the TLS layer already.
        self._on_readable()

    def _on_readable(self) -> None:
        try:
            for _ in range(_READS_AT_ONCE):
                data = self._wire.receive_now()
                if data is None:
                    return
                self._take(data)
                if self.state not in (State.IDLE, State.HEAD):
                    return
        except Gone:
            self.close()
            return
        if isinstance(self._wire.sock, ssl.SSLSocket) and self._wire.sock.pending():
            # Decrypted bytes do not make the socket readable.
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.state in (State.IDLE, State.HEAD):
            self._on_readable()

    def _take(self, data: bytes) -> None:
        request = self._read_head(data)
        if request is not None:
            self._unwatch()
            self._move(State.BUSY)
            self._house.tasks.start("request", self._serve(request))

    def _read_head(self, data: bytes) -> Request | None:
        if self._reader is None:
            self._reader = HeadReader(self._client, "https" if isinstance(self._wire.sock, ssl.SSLSocket) else "http")
            self._move(State.HEAD)
        try:
            request = self._reader.feed(data)
        except Refused as refusal:
            self._reader = None
            self._refuse(refusal)
            return None
        if request is None:
            self._house.holds(self, self._reader.held_bytes)
        else:
            self._reader = None
        return request

    def _refuse(self, refusal: Refused) -> None:
        text = f"{refusal}\n".encode("latin-1", "replace")
        headers = (("Content-Type", "text/plain; charset=utf-8"),)
        head = render_head(refusal.status, headers, length=len(text), closes=True)
        with contextlib.suppress(OSError, ValueError):
            # One attempt: whoever sends such a thing and does not read has no claim to an answer.
            self._wire.sock.send(head + text)
        self._linger()

    # --- a request ---------------------------------------------------------------------------------

    async def _serve(self, request: Request) -> None:
        following: Request | None = request
        try:
            while following is not None:
                rest = await self._answer(following)
                if rest is None or self._house.is_stopping:
                    if self.state is State.BUSY:
                        self.close()
                    return
                following = self._go_on(rest)
                if following is not None:
                    # Whoever sends many requests at once does not keep the others waiting.  Only here: a connection
                    # that is idle may have begun its next request, in another task, before this one goes on.
                    await asyncio.sleep(0)
        except BaseException:
            self.close()
            raise

    async def _answer(self, request: Request) -> bytes | None:
        """Serve one request; return what came after it, None when it was the last."""
        house = self._house
        began = time.monotonic()
        head = house.complete(request.head)
        exchange = Http1Exchange(self._wire, request, head=head, is_last=lambda: house.is_stopping)
        await self._run(exchange)
        rest = await exchange.finish()
        house.served(
            Served(
                head=head,
                status=0 if self._wire.is_gone else exchange.status,
                sent_bytes=exchange.sent_bytes,
                took_s=time.monotonic() - began,
            )
        )
        if rest is None and not self._wire.is_gone and exchange.has_unread:
            self._linger()
        return rest

    async def _run(self, exchange: Http1Exchange) -> None:
        try:
            await self._house.application(exchange)
        except Exception:
            log.exception("action=request-failed method=%s", exchange.head.method)
        if not exchange.is_answered and not self._wire.is_gone:
            await exchange.respond(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _go_on(self, rest: bytes) -> Request | None:
        """Begin the next request with what came behind the last one; return it if all of its head is there."""
        if not rest:
            self._move(State.IDLE)
            self._watch(self._on_readable)
            if isinstance(self._wire.sock, ssl.SSLSocket) and self._wire.sock.pending():
                self._loop.call_soon(self._read_on)
            return None
        request = self._read_head(rest)
        if request is not None:
            self._move(State.BUSY)
        elif self.state is State.HEAD:
            self._watch(self._on_readable)
        return request

    # --- the end -----------------------------------------------------------------------------------

    def _linger(self) -> None:
        """Answered, and closed for our part; a reset now could take the answer from the client's hands."""
        sock = self._wire.sock
        self._move(State.LINGERING)
        with contextlib.suppress(OSError, ValueError):
            if isinstance(sock, ssl.SSLSocket):
                sock.unwrap()
        with contextlib.suppress(OSError):
            # Past the TLS layer, which would forget its state with it.
            socket.socket.shutdown(sock, socket.SHUT_WR)
        self._watch(self._on_rest)

    def _on_rest(self) -> None:
        try:
            for _ in range(_READS_AT_ONCE):
                if not socket.socket.recv(self._wire.sock, RECEIVE_BYTES):
                    self.close()
                    return
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def close(self) -> None:
        """End it at once, whatever it does; a task that serves it finds its socket closed."""
        if self.state is State.CLOSED:
            return
        sock = self._wire.sock
        self._unwatch()
        if isinstance(sock, ssl.SSLSocket) and self.state is not State.HANDSHAKE and not self._wire.is_gone:
            with contextlib.suppress(OSError, ValueError):
                # Says that this is the end; what the client says to it is not awaited.
                sock.unwrap()
        self._wire.is_gone = True
        self._move(State.CLOSED)
        sock.close()

    def _move(self, state: State) -> None:
        self.state = state
        self._house.moved(self, state)

    def _watch(self, callback: Callable[[], None]) -> None:
        self._loop.add_reader(self._wire.sock.fileno(), callback)

    def _unwatch(self) -> None:
        fd = self._wire.sock.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
