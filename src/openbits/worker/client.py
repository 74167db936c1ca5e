"""HTTP requests by libcurl.

A `Client` carries one request at a time and tells a `Handler` of the answer, its bytes and the end.
Handlers are called from inside libcurl for `on_response` and `on_data`, where nothing may be sent;
`on_end` and `on_socket` come when libcurl has returned, exactly one `on_end` per request that was not
aborted.  libcurl's errors become Failures here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pycurl

from openbits.core.http import (
    InvalidAnswer,
    Response,
    end_of_answer,
    exact_target,
    final_response,
    has_odd_escapes,
    host_of,
    wire_url,
)
from openbits.core.proxylist import Proxy
from openbits.errors import ErrorContext
from openbits.worker.asking import BELIEF, Belief, Body, Handler, Probe, Request
from openbits.worker.connections import Connections
from openbits.worker.curlhandle import (
    log_on_to_proxy,
    make_handle,
    proxy_address,
    set_belief,
    set_method,
    set_probe,
    set_proxy_lines,
    show_tunnels,
    shown_chain,
)
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure, TransferError
from openbits.worker.pace import PIECE_BYTES, Pace
from openbits.worker.paced import Paced
from openbits.worker.proxyerrors import Attempt, map_proxy_error
from openbits.worker.takeover import take_socket
from openbits.worker.tcpinfo import Outflow, outflow
from openbits.worker.transport import map_error

_HEADER_LIMIT: Final = 64 * 1024
_DISCARD_LIMIT: Final = 64 * 1024
"""Up to here an unwanted body is read to its end, so that the connection can be used again."""
_GOT_NOTHING: Final = int(pycurl.E_GOT_NOTHING)
_CUT: Final = frozenset((35, int(pycurl.E_GOT_NOTHING), int(pycurl.E_SEND_ERROR), int(pycurl.E_RECV_ERROR)))
"""How a connection ends whose server would have liked to see a client certificate, among other reasons."""
_NO_EXPECT: Final = "Expect:"
"""Takes libcurl's `Expect: 100-continue` away: it costs a round trip for each packet, and an upload's first
request has no body, so that it is known by then whether the server takes any."""
_WITHOUT_BODY: Final = frozenset(("GET", "DELETE", "OPTIONS"))
_EMPTY_BODY: Final = "Content-Length: 0"
"""Of a request by any other method the server has to know that there is no body (RFC 9110, section 8.6): many answer
411 to a POST that does not say so."""


class Client(Paced):
    """One request at a time; the libcurl handle behind it is used again and again."""

    def __init__(
        self,
        engine: Engine,
        *,
        connect_timeout_s: int,
        on_unexpected: Callable[[Exception], None],
        pace: Pace | None = None,
    ) -> None:
        super().__init__(pace)
        self._engine = engine
        self._connections = Connections(engine, connect_timeout_s=connect_timeout_s, pace=pace)
        self._asked_last: Response | None = None
        """What the proxy asked for last before it made a tunnel."""
        self._on_unexpected = on_unexpected
        self._connect_timeout_s = connect_timeout_s
        self._lines: list[bytes] = []
        self._request: Request | None = None
        self._set_up()
        self._handler: Handler | None = None
        self._header_bytes = 0
        self._body_bytes = 0
        self._body: Body | None = None
        self._response: Response | None = None
        self._failure: Failure | None = None
        self._taken_fd: int | None = None
        self.handed_bytes = 0
        """How much of the request's body libcurl has taken."""
        self.wants_certificate = False
        """Of a probe: whether the server would take a client certificate."""
        self.error: tuple[int, str] | None = None
        """Of a probe: how it ended for libcurl."""

    def __repr__(self) -> str:
        return f"<Client {self._request.url if self._request else 'idle'}>"

    def _set_up(self) -> None:
        self._curl = self._make_curl()
        self._headers: tuple[str, ...] = ()
        self._proxy_headers: tuple[str, ...] = ()
        self._proxy: Proxy | None = None
        self._has_target = False
        self._is_tunnelled = self._has_dug = False
        self._proxy_login: tuple[str, str] | None = None
        self._connections.forget_handle()
        self._belief = BELIEF
        self._is_special = False
        self.forget_width()

    def _make_curl(self) -> Any:
        curl = make_handle(self._engine.ca_file, self._connect_timeout_s)
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
        if request.belief is not self._belief:
            self._believe(request.belief)
        self._engine = self._connections.engine_for(request.connection)
        if request.digs and request.proxy_headers:
            self._dig(request, handler)
        else:
            self._send(request, handler)

    def _dig(self, request: Request, handler: Handler) -> None:
        """Ask for the tunnel first: the request itself follows when the proxy has made it."""

        def done(answer: Response | Failure | None) -> None:
            self._handler = None
            match answer:
                case None:
                    self._send(request, handler)
                case Failure():
                    handler.on_end(answer)
                case _:
                    self._answer_for_proxy(answer, handler)

        self._request, self._handler = request, handler
        self._body = self._response = self._failure = None
        self._connections.dig(request, done)

    def _answer_for_proxy(self, answer: Response, handler: Handler) -> None:
        """Not the server's header block: nobody is to be shown it as that."""
        self._asked_last = self._response = replace(answer, raw=b"")
        self._handler = handler
        self._ask_handler(self._response)
        self._handler = None
        handler.on_end(self._failure)

    def _send(self, request: Request, handler: Handler) -> None:
        curl = self._curl
        if self._connections.lay(curl, request):
            self._is_tunnelled = False
        proxy = None if request.digs else request.proxy
        is_tunnelled = request.is_tunnelled and not request.digs
        url = wire_url(request.url)
        curl.setopt(pycurl.URL, url)
        if self._has_target or has_odd_escapes(url):
            # Once it was set it has to be set every time: pycurl cannot take it back.
            self._has_target = True
            is_for_proxy = request.proxy is not None and not request.is_tunnelled and not request.proxy.is_socks
            curl.setopt(pycurl.REQUEST_TARGET, exact_target(url, is_for_proxy=is_for_proxy))
        headers = request.headers
        if request.method:
            headers = (*headers, _NO_EXPECT)
        elif request.download_method and request.download_method not in _WITHOUT_BODY:
            headers = (*headers, _EMPTY_BODY)
        if headers != self._headers:
            curl.setopt(pycurl.HTTPHEADER, [line.encode("utf-8", "surrogateescape") for line in headers])
            self._headers = headers
        if request.proxy_headers != self._proxy_headers:
            set_proxy_lines(curl, request.proxy_headers)
            self._proxy_headers = request.proxy_headers
        if proxy != self._proxy:
            curl.setopt(pycurl.PROXY, proxy_address(proxy) if proxy is not None else "")
            self._proxy = proxy
        if request.proxy_login != self._proxy_login:
            log_on_to_proxy(curl, request.proxy_login)
            self._proxy_login = request.proxy_login
        if is_tunnelled is not self._is_tunnelled:
            self._is_tunnelled = is_tunnelled
            show_tunnels(curl, are_shown=self._is_tunnelled)
            curl.setopt(pycurl.SOCKOPTFUNCTION, self._on_socket_made if self._is_tunnelled else None)
        is_slow = self._prepare_pace(curl, request)
        self._has_dug = False
        is_special = (
            request.head
            or request.fresh
            or is_slow
            or bool(request.method or request.download_method or request.connection)
        )
        if is_special or self._is_special:
            set_method(curl, request, on_read=self._on_read, on_seek=self._on_seek, is_slow=is_slow)
            self._is_special = is_special
        if request.probe is not Probe.NO:
            self._set_probe(request.probe)
        self._request = request
        self._handler = handler
        self._lines.clear()
        self._header_bytes = self._body_bytes = 0
        self._body = self._response = self._failure = None
        self._is_paused = self._is_held = False
        self.handed_bytes = 0
        if request.outgoing is not None:
            request.outgoing.rewind(0, self._go_on)
        self._engine.start(curl, self)

    def belongs_to(self, engine: Engine) -> bool:
        """Whether requests that are bound to no connection go over this engine's."""
        return self._connections.shared is engine

    def _believe(self, belief: Belief) -> None:
        if belief == self._belief:
            return
        if self._belief is not BELIEF:
            # Keys and certificates that a handle once had cannot be taken from it.
            self._curl.close()
            self._set_up()
        set_belief(self._curl, belief)
        self._belief = belief

    def _set_probe(self, probe: Probe) -> None:
        self.wants_certificate = False
        self.error = None
        set_probe(self._curl, wants_status=probe is Probe.STATUS)
        self._curl.setopt(pycurl.DEBUGFUNCTION, self._on_debug)
        self._curl.setopt(pycurl.VERBOSE, 1)

    def _on_debug(self, kind: int, text: bytes) -> None:
        """The only place where libcurl says that a server would take a client certificate."""
        if kind == pycurl.INFOTYPE_TEXT and b"(IN)" in text and b"Request CERT" in text:
            self.wants_certificate = True

    @property
    def shown_chain(self) -> tuple[str, ...]:
        """What a probe was shown: the server's certificate first, in PEM."""
        return shown_chain(self._curl)

    @property
    def was_connected(self) -> bool:
        """Whether the last request got as far as a connection to whoever it was for.

        That is when its first byte was written; libcurl's times say nothing: some are set by a vain attempt, too.
        """
        return bool(self._curl.getinfo(pycurl.REQUEST_SIZE) > 0)

    def outflow(self) -> Outflow | None:
        """What has become of the bytes that were sent on the request's connection; not from inside a handler."""
        active = self._curl.getinfo(pycurl.ACTIVESOCKET)
        return outflow(active) if active >= 0 else None

    def abort(self) -> None:
        """Drop the request, if there is one; the handler hears nothing more."""
        if self._handler is not None:
            self._handler = None
            self._let_go()
            if self._connections.is_digging:
                self._connections.fill_in()
                return
            self._engine.remove(self._curl)
            if self._taken_fd is not None:
                self._engine.restore_watch(self._taken_fd)
                self._taken_fd = None

    def close(self) -> None:
        """Drop the request and the handle."""
        self.abort()
        self._curl.close()
        self._connections.close()

    def finish(self, error: tuple[int, str] | None) -> None:
        """libcurl is done with the request."""
        handler, request = self._handler, self._request
        assert handler is not None
        assert request is not None
        if request.probe is not Probe.NO:
            self.error = error
        elif error is None and self._response is None and self._failure is None:
            self._read_header()
            if self._response is None:
                # libcurl takes a header that ends in its middle for a complete one.
                error = (_GOT_NOTHING, "")
        if error is not None and request.method and self._response is None and self._failure is None:
            # Who refuses a body need not read it: the answer may be whole although the connection broke.
            self._read_header()
        if self._connections.lacks_tunnel and error is not None:
            self._ask_for_tunnel(handler)
            return
        if error is not None and request.is_tunnelled and self._is_challenged_by_proxy():
            # To whoever asked it is a challenge like that of a proxy which sees the request itself.
            error = None
        failure = self._failure
        was_stopped = failure is not None or self._body is Body.STOP or self._body_bytes > _DISCARD_LIMIT
        if error is not None and not (failure is None and was_stopped and self._body in (Body.STOP, Body.DISCARD)):
            failure = failure or self._map(error, request)
        self._handler = None
        self._let_go()
        self._engine.remove(self._curl)
        handler.on_end(failure)

    def _ask_for_tunnel(self, handler: Handler) -> None:
        """The tunnel that there was is gone: it takes another handshake to get one."""
        self._engine.remove(self._curl)
        request, answer = self._request, self._asked_last
        assert request is not None
        if answer is None:
            # It was another client of the transfer that was asked: this one is going to be.
            self._dig(request, handler)
        else:
            self._answer_for_proxy(answer, handler)

    def _is_challenged_by_proxy(self) -> bool:
        """Whether the proxy has asked who we are before it makes a tunnel; then the handler knows now."""
        if self._response is not None or self._curl.getinfo(pycurl.HTTP_CONNECTCODE) != 407:
            return False
        try:
            answer = final_response(self._lines)
        except InvalidAnswer:
            return False
        if answer is None or answer.status != 407 or sum(map(len, self._lines)) > _HEADER_LIMIT:
            return False
        self._asked_last = self._response = replace(answer, raw=b"")
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
                socks_error=self._curl.getinfo(pycurl.PROXY_ERROR),
                verify_result=self._curl.getinfo(pycurl.PROXY_SSL_VERIFYRESULT),
            )
            failure = map_proxy_error(*error, attempt)
            if failure is not None:
                return failure
        failure = map_error(
            error[0],
            error[1],
            host=host_of(request.url),
            os_errno=self._curl.getinfo(pycurl.OS_ERRNO),
            is_connected=self.was_connected,
            connect_timeout_s=self._connect_timeout_s,
            verify_result=self._curl.getinfo(pycurl.SSL_VERIFYRESULT),
            shown=request.belief.identity.name if request.belief.identity is not None else "",
        )
        is_cut = error[0] in _CUT and self._response is None and not self.was_reused
        if is_cut and request.url[:6].lower() == "https:" and request.probe is Probe.NO:
            failure = replace(failure, refused_url=request.url)
        return failure

    def try_socket(self) -> None:
        """Give the handler the connection itself, if no byte of the answer stands anywhere but in the kernel."""
        handler = self._handler
        if handler is None or self._failure is not None or self._is_held:
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
            if self._is_tunnelled and self._has_dug:
                # The proxy's answer to CONNECT comes first, and is not the server's.
                del lines[: end_of_answer(lines)]
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
        pace = self._pace
        if pace is not None and pace.is_on:
            if not pace.may_go:
                return self._hold(pace)
            # Its header, too, where it is the first of an answer.
            pace.spend(len(data) + sum(map(len, self._lines)))
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

    def _on_read(self, most: int) -> bytes | int:
        outgoing = self._request.outgoing if self._request is not None else None
        if outgoing is None:
            return b""
        pace = self._pace
        is_slow = pace is not None and pace.is_on
        if pace is not None and is_slow:
            most = min(most, PIECE_BYTES)
            if not pace.may_go:
                self._is_paused = True
                pace.wait(self._go_on)
                return int(pycurl.READFUNC_PAUSE)
        try:
            data = outgoing.take(most)
        except TransferError as error:
            self._failure = error.failure
            return int(pycurl.READFUNC_ABORT)
        except Exception as error:  # noqa: BLE001 -- libcurl would swallow it
            self._unexpected(error)
            return int(pycurl.READFUNC_ABORT)
        if data is None:
            self._is_paused = True
            return int(pycurl.READFUNC_PAUSE)
        self.handed_bytes += len(data)
        if pace is not None and is_slow:
            pace.spend(len(data))
        return data

    def _on_seek(self, offset: int, _origin: int) -> int:
        """libcurl sends the body again: the kept connection was dead."""
        outgoing = self._request.outgoing if self._request is not None else None
        if outgoing is not None:
            outgoing.rewind(offset, self._go_on)
        self.handed_bytes = offset
        return int(pycurl.SEEKFUNC_OK)

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
