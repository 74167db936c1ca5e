"""The HTTP/1.1 server: listens, lets connections in up to a limit, and ends in good order.

The rules:

- At the limit the connection that has been idle for the longest time makes room, or else the one whose request has
  been on its way for the longest time; where all are served, newcomers wait in the kernel's queue until one ends.
  Being out of descriptors is the same situation, noticed later.
- A stop lets requests that are under way finish, within a limit, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from openbits.server.connection import Connection, Served, State
from openbits.server.deadlines import Deadlines
from openbits.server.exchange import Application, Client, Head
from openbits.server.pumping import Pool
from openbits.server.tasks import Tasks

log = logging.getLogger(__name__)

_ACCEPTS_AT_ONCE: Final = 64
_BACKLOG: Final = 4_096
HEADS_LIMIT_BYTES: Final = 32 * 2**20
"""Of all heads together that are not whole: above it, the one that has been on its way for the longest time ends."""
_LINGER_S: Final = 10.0
_MAKE_ROOM: Final = (State.IDLE, State.LINGERING, State.HANDSHAKE, State.HEAD)
"""Who leaves first. Heads come at once, but from those who would rather keep others out."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_S: Final = 1.0
"""When to accept again if the whole machine is out of descriptors: nobody tells when it no longer is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may cost, and how long they may take. Times in seconds."""

    max_connections: int = 20_000
    head_timeout_s: float = 30.0
    """For a request's head, from its first byte to its last; also for a TLS handshake."""
    idle_timeout_s: float = 120.0
    """Between two requests, and before the first."""
    stall_timeout_s: float = 60.0
    """Of silence within a body, or of not taking an answer."""
    stop_timeout_s: float = 30.0
    """For what is under way when the server is told to stop."""
    body_threads: int = 8


class HttpServer:
    """Serves an application on listening sockets."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        *,
        complete: Callable[[Head], Head] = lambda head: head,
        on_served: Callable[[Served], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`complete` adds to each head what trusted proxies say; `on_served` is told of every request."""
        self.application = application
        self.complete = complete
        self.tasks = Tasks()
        self.pool = Pool(limits.body_threads)
        self.stall_s = limits.stall_timeout_s
        self.is_stopping = False
        self._limits = limits
        self._on_served = on_served
        self._tls = tls
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._heads: dict[Connection, int] = {}
        """What is here of heads that are not whole, in bytes."""
        self._heads_bytes = 0
        self._is_full = False
        self._retry: asyncio.TimerHandle | None = None
        self._times: dict[State, Deadlines[Connection]] = {
            State.HANDSHAKE: Deadlines(limits.head_timeout_s, Connection.close),
            State.IDLE: Deadlines(limits.idle_timeout_s, Connection.close),
            State.HEAD: Deadlines(limits.head_timeout_s, Connection.close),
            State.LINGERING: Deadlines(_LINGER_S, Connection.close),
        }

    def __repr__(self) -> str:
        return f"<HttpServer connections={len(self._connections)} requests={len(self.tasks)}>"

    def statistics(self) -> dict[str, int]:
        """Return how many connections there are, by state."""
        counts = {state.value: len(deadlines) for state, deadlines in self._times.items()}
        return {**counts, "busy": len(self.tasks), "connections": len(self._connections)}

    def use_certificates(self, tls: ssl.SSLContext) -> None:
        """Show these to whoever connects from now on."""
        self._tls = tls

    # --- letting in --------------------------------------------------------------------------------

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Serve on sockets that listen; they are this object's from now on."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for number in range(_ACCEPTS_AT_ONCE):
            if len(self._connections) >= self._limits.max_connections:
                if number > 0:
                    # Nobody leaves for somebody who may not be there: if one waits, this is called again.
                    return
                if not self._make_room():
                    self._pause()
                    return
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES and not self._make_room():
                    self._pause()
                    self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._resume)
                # Else it is the newcomer's trouble: gone before it was let in.
                return
            self._let_in(sock, address)

    def _let_in(self, sock: socket.socket, address: tuple[str, int]) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = Connection(self, sock, _client(address))
        except OSError:
            # Reset by the other end while it was let in.
            sock.close()
            return
        self._connections.add(connection)

    def _make_room(self) -> bool:
        for state in _MAKE_ROOM:
            oldest = self._times[state].oldest()
            if oldest is not None:
                oldest.close()
                return True
        return False

    def _pause(self) -> None:
        if not self._is_full:
            self._is_full = True
            log.warning("action=connections-full connections=%d", len(self._connections))
            for listener in self._listeners:
                asyncio.get_running_loop().remove_reader(listener.fileno())

    def _resume(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._is_full:
            self._is_full = False
            for listener in self._listeners:
                asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    # --- what connections tell ---------------------------------------------------------------------

    def holds(self, connection: Connection, head_bytes: int) -> None:
        """See `House`."""
        self._heads_bytes += head_bytes - self._heads.get(connection, 0)
        self._heads[connection] = head_bytes
        while self._heads_bytes > HEADS_LIMIT_BYTES:
            oldest = self._times[State.HEAD].oldest()
            assert oldest is not None
            oldest.close()

    def moved(self, connection: Connection, state: State) -> None:
        """See `House`."""
        if state is not State.HEAD:
            self._heads_bytes -= self._heads.pop(connection, 0)
        for each, deadlines in self._times.items():
            if each is not state:
                deadlines.remove(connection)
        if state in self._times:
            self._times[state].add(connection)
        if state is State.CLOSED:
            self._connections.discard(connection)
        if self._is_full and state in (State.CLOSED, State.IDLE):
            self._resume()

    def served(self, what: Served) -> None:
        """See `House`."""
        if self._on_served is not None:
            self._on_served(what)

    # --- the end -----------------------------------------------------------------------------------

    def stop_listening(self) -> None:
        """Let nobody in any more; whoever waits at the door finds it closed."""
        self.is_stopping = True
        self._resume()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    async def stop(self) -> None:
        """Finish what is under way, within the limit, and end all connections."""
        self.stop_listening()
        for state in (State.HANDSHAKE, State.IDLE, State.HEAD):
            for connection in self._times[state].members():
                connection.close()
        await self.tasks.wait_finished(self._limits.stop_timeout_s)
        for connection in tuple(self._connections):
            connection.close()
        self.pool.close()


def _client(address: tuple[str, int]) -> Client:
    host, port = address[:2]
    host = host.partition("%")[0]
    if ":" in host:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        host = host if mapped is None else str(mapped)
    return Client(host=host, port=port)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses that `host` has (none: all of the machine); port 0 is any free one, the same for all.

    Raises OSError.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                # A machine without IPv6 still has an address of that family for "all".
                if error.errno == errno.EAFNOSUPPORT and len(found) > 1:
                    continue
                raise
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # One socket per family: neither takes the other's place.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(sockets) > 1:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])  # noqa: PLW2901
            sock.bind(address)
            sock.listen(_BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
