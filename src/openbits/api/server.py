"""The HTTP server on the Unix socket: who may connect, how long it waits, and how errors look.

Each connection is one account's.  An account has a limited number of connections, a request must
arrive within a time, and its size is limited: a client that stalls or floods costs the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from openbits.api import render
from openbits.api.base import CALLER
from openbits.api.handlers import Handlers
from openbits.api.peer import Accounts, check_namespace, read_identity, read_uid
from openbits.api.routes import ROUTES
from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.service.configuration import Api

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 300.0
SHUTDOWN_S = 3.0
"""How long calls that are under way may take when the service ends."""
MAX_HEADER_BYTES = 16 * 1024
_HTTP_ERRORS = {
    HTTPStatus.NOT_FOUND: "there is no such call: /v1/openapi.json lists them all",
    HTTPStatus.METHOD_NOT_ALLOWED: "the method does not fit this call: /v1/openapi.json says which does",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the request is too large: send it in parts",
}


class Connections:
    """Counts the connections of each account; a new one above a limit is refused."""

    def __init__(self, limits: Api) -> None:
        self._limits = limits
        self._by_uid: Counter[int] = Counter()
        self._told: set[int] = set()
        """Accounts whose refusal stands in the log already: whoever comes again and again must not fill it."""

    def __len__(self) -> int:
        return self._by_uid.total()

    def add(self, uid: int) -> bool:
        """Count a connection; False when the account, or the service, has as many as it may."""
        if self._by_uid[uid] >= self._limits.max_connections_per_account or len(self) >= self._limits.max_connections:
            if uid not in self._told:
                self._told.add(uid)
                log.warning("action=connection-refused uid=%d", uid)
            return False
        self._by_uid[uid] += 1
        return True

    def remove(self, uid: int) -> None:
        """Count a connection no more."""
        self._by_uid[uid] -= 1
        if not self._by_uid[uid]:
            del self._by_uid[uid]
            self._told.discard(uid)


class Connection(RequestHandler):
    """One connection: knows its peer, and ends when a request does not arrive in time."""

    __slots__ = ("_connections", "_counted", "_deadline", "_is_made", "_timeout_s", "peer", "refusal")

    def __init__(self, *args: Any, connections: Connections, timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self._timeout_s = timeout_s
        self._deadline: asyncio.TimerHandle | None = None
        self._counted: int | None = None
        self._is_made = False
        self.peer: tuple[Identity, int] | None = None
        self.refusal: BitsError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel who it is."""
        sock = transport.get_extra_info("socket")
        uid = read_uid(sock)
        if not self._connections.add(uid):
            transport.close()
            return
        self._counted = uid
        try:
            identity, pid = read_identity(sock)
            self.peer = (identity, pid)
            check_namespace(pid)
        except (BitsError, OSError) as error:
            self.refusal = error if isinstance(error, BitsError) else BitsError("E_ACCESSDENIED")
        self._is_made = True
        super().connection_made(transport)
        self.expect_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._drop_deadline()
        if self._counted is not None:
            self._connections.remove(self._counted)
        if self._is_made:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A request begins: from now on its time runs."""
        if self._deadline is None and self._current_request is None:
            self.expect_request()
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request; it is the client's affair and does not stand in the log."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        text = " ".join((message or "it cannot be understood").split())[:200]
        response = _problem(BitsError("E_INVALIDARG", f"that is no HTTP request: {text}"), status)
        response.force_close()
        return response

    def expect_request(self) -> None:
        """Close the connection unless a whole request head arrives in time."""
        self._drop_deadline()
        self._deadline = asyncio.get_running_loop().call_later(self._timeout_s, self.force_close)

    def request_arrived(self) -> None:
        """The head of a request is here: the time no longer runs."""
        self._drop_deadline()

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ApiServer:
    """Serves the calls of `handlers` until it is closed."""

    def __init__(self, handlers: Handlers, accounts: Accounts, limits: Api) -> None:
        self._accounts = accounts
        self._limits = limits
        self._connections = Connections(limits)
        application = web.Application(client_max_size=limits.max_body_bytes, middlewares=[self._guard])
        for route in ROUTES:
            application.router.add_route(route.method, route.path, getattr(handlers, route.handler))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_S,
        )
        self._server: asyncio.AbstractServer | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening socket."""
        await self._runner.setup()
        http = self._runner.server
        assert http is not None

        def make() -> Connection:
            return Connection(
                http,
                loop=asyncio.get_running_loop(),
                connections=self._connections,
                timeout_s=float(self._limits.read_timeout_s),
                access_log=None,
                keepalive_timeout=KEEP_ALIVE_S,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                # A compressed body would be a bomb in a small parcel.
                auto_decompress=False,
            )

        self._server = await asyncio.get_running_loop().create_unix_server(make, sock=sock, backlog=1024)

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.request_arrived()
        try:
            if connection.refusal is not None:
                raise connection.refusal
            assert connection.peer is not None
            identity, pid = connection.peer
            request[CALLER] = self._accounts.caller(identity, pid)
            return await handler(request)
        except BitsError as error:
            return _problem(error)
        except web.HTTPException as error:
            status = HTTPStatus(error.status)
            text = _HTTP_ERRORS.get(status, status.phrase)
            return _problem(BitsError("E_INVALIDARG", text), status)
        except TimeoutError:
            connection.force_close()
            return _problem(BitsError("E_INVALIDARG", "the request did not arrive in time"), HTTPStatus.REQUEST_TIMEOUT)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            # Not the address: what stands in it may be a capability.
            log.exception("action=call-failed handler=%s", getattr(handler, "__name__", "?"))
            return _problem(BitsError("E_FAIL"))


def _problem(error: BitsError, status: int | None = None) -> web.Response:
    document = render.problem(error, status)
    return web.Response(body=render.to_json(document), status=document.status, content_type="application/problem+json")


def listen(path: str) -> socket.socket:
    """Make the listening socket: everyone may connect, the kernel says who it is.

    A socket file that is left over is replaced; anything else at that place is an error (OSError).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    previous = os.umask(0o111)
    try:
        sock.bind(path)
    finally:
        os.umask(previous)
    sock.listen(1024)
    return sock
