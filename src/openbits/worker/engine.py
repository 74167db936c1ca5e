"""HTTP requests by libcurl: the only module that knows pycurl.

A `Client` carries one request at a time and tells a `Handler` of the answer, its bytes and the end;
all clients of an `Engine` share its connections.  Handlers are called from inside libcurl for
`on_response` and `on_data`, where nothing may be sent; `on_end` and `on_socket` come when libcurl
has returned, exactly one `on_end` per request that was not aborted.  libcurl's errors become
Failures here and nowhere else.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pycurl

from openbits.core.http import InvalidAnswer, Response, final_response, host_of, wire_url
from openbits.core.proxylist import Proxy
from openbits.errors import ErrorContext
from openbits.version import __version__
from openbits.worker.failure import Failure, TransferError
from openbits.worker.loop import READABLE, WRITABLE, Loop, Timer
from openbits.worker.proxies import Attempt, map_proxy_error
from openbits.worker.takeover import take_socket
from openbits.worker.transport import map_error

USER_AGENT: Final = f"OpenBITS/{__version__}"
_BUFFER_BYTES: Final = 512 * 1024
_HEADER_LIMIT: Final = 64 * 1024
_DISCARD_LIMIT: Final = 64 * 1024
"""Up to here an unwanted body is read to its end, so that the connection can be used again."""
_GOT_NOTHING: Final = int(pycurl.E_GOT_NOTHING)
_SUPPRESS_CONNECT_HEADERS: Final = 265
"""CURLOPT_SUPPRESS_CONNECT_HEADERS, for which pycurl has no name: a proxy's answer to CONNECT is not the server's."""
_AUTH_SCHEMES: Final = (
    (pycurl.HTTPAUTH_BASIC, "Basic"),
    (pycurl.HTTPAUTH_DIGEST, "Digest"),
    (pycurl.HTTPAUTH_GSSNEGOTIATE, "Negotiate"),
    (pycurl.HTTPAUTH_NTLM, "NTLM"),
)
_CA_FILES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Body(enum.Enum):
    """What a handler wants of the body."""

    TAKE = "take"
    TAKE_SOCKET = "take socket"
    """Take it, and the connection itself where that is possible (see `on_socket`)."""
    DISCARD = "discard"
    STOP = "stop"
    """Nothing: end the request, and the connection with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask for."""

    url: str
    headers: tuple[str, ...] = ()
    proxy_headers: tuple[str, ...] = ()
    """For the proxy alone: no server sees them."""
    head: bool = False
    fresh: bool = False
    """Use a new connection: an old one may be closed by now."""
    proxy: Proxy | None = None
    """Through which proxy; None: directly."""

    @property
    def is_tunnelled(self) -> bool:
        """Whether a proxy only passes bytes on between us and the server (CONNECT)."""
        return self.proxy is not None and self.url[:6].lower() == "https:"


class Handler(Protocol):
    """Who asked."""

    def on_response(self, response: Response) -> Body:
        """The header block is there, and the body begins, or there is none. May raise TransferError."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. May raise TransferError."""

    def on_socket(self, fd: int) -> None:
        """The rest of the body is to be read from this descriptor, which is the handler's; `on_end` will not come."""

    def on_end(self, failure: Failure | None) -> None:
        """The answer is complete, or was stopped as wished, or the request failed."""


class Engine:
    """All connections of the worker."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_curl_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_curl_timer)
        self._watched: set[int] = set()
        self._taken: set[int] = set()
        self._clients: dict[Any, Client] = {}
        self._candidates: list[Client] = []
        self._is_due = False
        self._in_curl = False
        self._is_settling = False
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self.ca_file = os.environ.get("SSL_CERT_FILE") or next(filter(os.path.exists, _CA_FILES), None)

    def __repr__(self) -> str:
        return f"<Engine requests={len(self._clients)} sockets={len(self._watched)}>"

    def close(self) -> None:
        """Close every connection."""
        for client in list(self._clients.values()):
            client.abort()
        self._multi.close()

    def start(self, curl: Any, client: Client) -> None:
        """Put a request on its way: it is written to a kept connection before this returns."""
        self._clients[curl] = client
        self._multi.add_handle(curl)
        self._is_due = False
        self._enter(pycurl.SOCKET_TIMEOUT, 0)
        if not self._is_settling:
            # What ended already, or wants its socket, is dealt with in a moment, not under the caller's feet.
            self._is_due = True
            self._arm(time.monotonic())

    def remove(self, curl: Any) -> None:
        """Take a request back; a connection in the middle of an answer is closed."""
        del self._clients[curl]
        self._multi.remove_handle(curl)

    def consider_socket(self, client: Client) -> None:
        """A client would like its connection when libcurl has returned."""
        self._candidates.append(client)

    def release_watch(self, fd: int) -> None:
        """Stop watching a descriptor for libcurl until `restore_watch`."""
        self._taken.add(fd)
        if fd in self._watched:
            self._watched.discard(fd)
            self._loop.unwatch(fd)

    def restore_watch(self, fd: int) -> None:
        """The request whose connection was taken is over, and its number may be another connection's soon.

        libcurl does not tell: it had let go of a paused connection before.
        """
        self._taken.discard(fd)

    def _on_curl_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            if fd in self._watched:
                self._watched.discard(fd)
                self._loop.unwatch(fd)
            return
        if fd in self._taken:
            return
        mask = (READABLE if what & pycurl.POLL_IN else 0) | (WRITABLE if what & pycurl.POLL_OUT else 0)
        if fd in self._watched:
            self._loop.change(fd, mask)
        else:
            self._watched.add(fd)
            self._loop.watch(fd, mask, lambda events: self._on_ready(fd, events))

    def _on_curl_timer(self, timeout_ms: int) -> None:
        if timeout_ms == 0:
            self._is_due = True
            self._deadline = None
            if not self._in_curl and not self._is_settling:
                self._arm(time.monotonic())
            return
        self._deadline = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
        if self._deadline is not None:
            self._arm(self._deadline)

    def _arm(self, when: float) -> None:
        # An earlier timer is kept and finds out by itself that it came too early: requests move their
        # deadlines all the time, and a heap full of dead timers costs more than one vain wake-up.
        if self._timer is None or self._timer.when > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline is not None:
            if self._deadline <= time.monotonic():
                self._is_due = True
                self._deadline = None
            else:
                self._arm(self._deadline)
        if self._is_due:
            self._settle()

    def _on_ready(self, fd: int, events: int) -> None:
        mask = 0
        if events & READABLE:
            mask |= pycurl.CSELECT_IN
        if events & WRITABLE:
            mask |= pycurl.CSELECT_OUT
        if events & ~(READABLE | WRITABLE):
            mask |= pycurl.CSELECT_ERR
        self._enter(fd, mask)
        self._settle()

    def _enter(self, fd: int, mask: int) -> None:
        self._in_curl = True
        try:
            self._multi.socket_action(fd, mask)
        finally:
            self._in_curl = False

    def _settle(self) -> None:
        """Let libcurl do what is due, then deal with what came out of it."""
        self._is_settling = True
        try:
            while True:
                if self._is_due:
                    self._is_due = False
                    self._enter(pycurl.SOCKET_TIMEOUT, 0)
                while self._candidates:
                    self._candidates.pop().try_socket()
                if not self._collect():
                    break
        finally:
            self._is_settling = False
        if self._is_due:
            # libcurl would go on reading a fast connection for ever: the others come first.
            self._arm(time.monotonic())

    def _collect(self) -> bool:
        _, done, failed = self._multi.info_read()
        for curl in done:
            self._clients[curl].finish(None)
        for curl, code, text in failed:
            if curl in self._clients:
                self._clients[curl].finish((code, text))
        return bool(done or failed)


class Client:
    """One request at a time; the libcurl handle behind it is used again and again."""

    def __init__(self, engine: Engine, *, connect_timeout_s: int, on_unexpected: Callable[[Exception], None]) -> None:
        self._engine = engine
        self._on_unexpected = on_unexpected
        self._connect_timeout_s = connect_timeout_s
        self._lines: list[bytes] = []
        self._curl = self._make_curl()
        self._headers: tuple[str, ...] = ()
        self._proxy_headers: tuple[str, ...] = ()
        self._proxy: Proxy | None = None
        self._request: Request | None = None
        self._is_special = False
        self._handler: Handler | None = None
        self.proxy_host = ""
        """The name of the proxy that requests go through; empty without one."""
        self._header_bytes = 0
        self._body_bytes = 0
        self._body: Body | None = None
        self._response: Response | None = None
        self._failure: Failure | None = None
        self._taken_fd: int | None = None

    def __repr__(self) -> str:
        return f"<Client {self._request.url if self._request else 'idle'}>"

    def _make_curl(self) -> Any:
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        # Proxies never come from the environment, nor credentials from ~/.netrc (architecture, section 1): an
        # empty text is no proxy and no exception; an option that is not set would be looked up in the environment.
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT, self._connect_timeout_s)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        if self._engine.ca_file is not None:
            curl.setopt(pycurl.CAINFO, self._engine.ca_file)
            curl.setopt(pycurl.PROXY_CAINFO, self._engine.ca_file)
        # Lines are only collected here, and read when the body begins: ten calls of ours for the header
        # of every small file would cost as much as the file.
        curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_write)
        return curl

    @property
    def was_reused(self) -> bool:
        """Whether the last request went over a connection that an earlier one had opened."""
        return bool(self._curl.getinfo(pycurl.NUM_CONNECTS) == 0 and self._curl.getinfo(pycurl.CONN_ID) >= 0)

    def send(self, request: Request, handler: Handler) -> None:
        """Begin a request."""
        assert self._handler is None
        curl = self._curl
        curl.setopt(pycurl.URL, wire_url(request.url))
        if request.headers != self._headers:
            curl.setopt(pycurl.HTTPHEADER, [line.encode("utf-8", "surrogateescape") for line in request.headers])
            self._headers = request.headers
        if request.proxy_headers != self._proxy_headers:
            curl.setopt(pycurl.PROXYHEADER, [line.encode("ascii") for line in request.proxy_headers])
            self._proxy_headers = request.proxy_headers
        if request.proxy != self._proxy:
            curl.setopt(pycurl.PROXY, str(request.proxy) if request.proxy is not None else "")
            self._proxy = request.proxy
        if request.head or request.fresh or self._is_special:
            curl.setopt(pycurl.NOBODY, 1 if request.head else 0)
            if not request.head:
                curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.FRESH_CONNECT, 1 if request.fresh else 0)
            self._is_special = request.head or request.fresh
        self._request = request
        self._handler = handler
        self._lines.clear()
        self._header_bytes = self._body_bytes = 0
        self._body = self._response = self._failure = None
        self._engine.start(curl, self)

    def abort(self) -> None:
        """Drop the request, if there is one; the handler hears nothing more."""
        if self._handler is not None:
            self._handler = None
            self._engine.remove(self._curl)
            if self._taken_fd is not None:
                self._engine.restore_watch(self._taken_fd)
                self._taken_fd = None

    def close(self) -> None:
        """Drop the request and the handle."""
        self.abort()
        self._curl.close()

    def finish(self, error: tuple[int, str] | None) -> None:
        """libcurl is done with the request."""
        handler, request = self._handler, self._request
        assert handler is not None
        assert request is not None
        if error is None and self._response is None and self._failure is None:
            self._read_header()
            if self._response is None:
                # libcurl takes a header that ends in its middle for a complete one.
                error = (_GOT_NOTHING, "")
        if error is not None and request.is_tunnelled and self._is_challenged_by_proxy():
            # To whoever asked it is a challenge like that of a proxy which sees the request itself.
            error = None
        failure = self._failure
        was_stopped = failure is not None or self._body is Body.STOP or self._body_bytes > _DISCARD_LIMIT
        if error is not None and not (failure is None and was_stopped and self._body in (Body.STOP, Body.DISCARD)):
            failure = failure or self._map(error, request)
        self._handler = None
        self._engine.remove(self._curl)
        handler.on_end(failure)

    def _is_challenged_by_proxy(self) -> bool:
        """Whether the proxy has asked who we are before it makes a tunnel; then the handler knows now."""
        if self._response is not None or self._curl.getinfo(pycurl.HTTP_CONNECTCODE) != 407:
            return False
        # libcurl keeps the answer to CONNECT apart from the server's, and tells what was asked for.
        offered = self._curl.getinfo(pycurl.PROXYAUTH_AVAIL)
        schemes = [name for flag, name in _AUTH_SCHEMES if offered & flag]
        self._response = Response(status=407, version="1.1", fields={"proxy-authenticate": schemes})
        self._ask_handler(self._response)
        return True

    def _map(self, error: tuple[int, str], request: Request) -> Failure:
        if request.proxy is not None:
            attempt = Attempt(
                proxy=request.proxy,
                host=host_of(request.url),
                is_tunnel=request.is_tunnelled,
                connect_status=self._curl.getinfo(pycurl.HTTP_CONNECTCODE),
                is_proxy_reached=self._curl.getinfo(pycurl.CONNECT_TIME) > 0,
                is_old=self.was_reused,
                os_errno=self._curl.getinfo(pycurl.OS_ERRNO),
                connect_timeout_s=self._connect_timeout_s,
            )
            failure = map_proxy_error(*error, attempt)
            if failure is not None:
                return failure
        return map_error(
            error[0],
            error[1],
            host=host_of(request.url),
            os_errno=self._curl.getinfo(pycurl.OS_ERRNO),
            is_connected=self._curl.getinfo(pycurl.PRETRANSFER_TIME) > 0,
            connect_timeout_s=self._connect_timeout_s,
        )

    def try_socket(self) -> None:
        """Give the handler the connection itself, if no byte of the answer stands anywhere but in the kernel."""
        handler = self._handler
        if handler is None or self._failure is not None:
            return
        if self._curl.getinfo(pycurl.NUM_CONNECTS) != 1:
            return  # what earlier answers took from the connection is not known
        active = self._curl.getinfo(pycurl.ACTIVESOCKET)
        if active < 0:
            return
        # Paused first, judged then: between the two nothing can read from the connection.
        try:
            self._curl.pause(pycurl.PAUSE_RECV)
        except pycurl.error:
            return  # the request is over already, and its end only waits to be collected
        fd = take_socket(active, self._header_bytes + self._body_bytes)
        if fd is None:
            self._curl.pause(pycurl.PAUSE_CONT)
            return
        self._taken_fd = active
        self._engine.release_watch(active)
        handler.on_socket(fd)

    def _read_header(self) -> int | None:
        """The header is over: tell the handler of the answer, unless it is none."""
        lines = self._lines
        self._header_bytes = sum(map(len, lines))
        if self._header_bytes > _HEADER_LIMIT:
            return self._refuse("sent more headers than anyone needs")
        try:
            response = final_response(lines)
        except InvalidAnswer as error:
            return self._refuse(f"sent an answer that cannot be used: {error}")
        finally:
            lines.clear()
        if response is None:
            return None
        self._response = response
        return self._ask_handler(response)

    def _ask_handler(self, response: Response) -> int | None:
        assert self._handler is not None
        try:
            self._body = self._handler.on_response(response)
        except TransferError as error:
            self._failure = error.failure
            return -1
        except Exception as error:  # noqa: BLE001 -- libcurl would swallow it
            return self._unexpected(error)
        if self._body is Body.TAKE_SOCKET:
            self._engine.consider_socket(self)
        return -1 if self._body is Body.STOP else None

    def _on_write(self, data: bytes) -> int | None:
        if self._body is None and self._read_header() is not None:
            return -1
        self._body_bytes += len(data)
        if self._body is Body.DISCARD:
            return -1 if self._body_bytes > _DISCARD_LIMIT else None
        handler = self._handler
        if handler is None:
            return -1
        try:
            handler.on_data(data)
        except TransferError as error:
            self._failure = error.failure
            return -1
        except Exception as error:  # noqa: BLE001 -- libcurl would swallow it
            return self._unexpected(error)
        return None

    def _unexpected(self, error: Exception) -> int:
        self._on_unexpected(error)
        return -1

    def _refuse(self, clause: str) -> int:
        assert self._request is not None
        self._failure = Failure(
            name="BG_E_INVALID_SERVER_RESPONSE",
            context=ErrorContext.REMOTE_FILE,
            message=f"{host_of(self._request.url)} {clause}: ask whoever runs the server",
            transient=False,
        )
        return -1
