"""Tunnels through proxies that want a handshake first: CONNECT more than once on one connection (J35).

libcurl takes a refused CONNECT for the end of the connection, unless it makes the handshake itself, which it is never
asked to.  So CONNECT is sent as a request to the proxy like any other, and the connection is taken from libcurl when
the proxy has said yes; the request proper is then sent by a handle that is given this connection for its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import pycurl

from openbits.core.http import InvalidAnswer, Response, final_response, host_of, wire_url
from openbits.worker.asking import Request
from openbits.worker.curlhandle import make_handle
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure
from openbits.worker.proxyerrors import Attempt, map_proxy_error, refused_tunnel
from openbits.worker.transport import map_error

_HEADER_LIMIT: Final = 64 * 1024
_BODY_LIMIT: Final = 64 * 1024
_COULDNT_RESOLVE_HOST: Final = 6
_COULDNT_RESOLVE_PROXY: Final = 5
_BLANK: Final = (b"\r\n", b"\n")

Outcome = int | Response | Failure
"""A descriptor of the tunnel, which is the caller's; the proxy's challenge; or why there is no tunnel."""


def place_of(url: str) -> str:
    """`host:port` of an https URL, as CONNECT has it."""
    netloc = urlsplit(wire_url(url).decode("ascii")).netloc.rpartition("@")[2].removesuffix(":")
    return netloc if urlsplit(url).port else f"{netloc}:443"


class Digger:
    """Asks one proxy for a tunnel to one place, as often as it takes; see `engine.Carried`."""

    def __init__(self, engine: Engine, *, connect_timeout_s: int) -> None:
        # Of its own, because what becomes a tunnel must not be used by anybody else.
        self._engine = engine.another(most_to_a_host=1)
        self._connect_timeout_s = connect_timeout_s
        self._curl = self._make_curl()
        self._request: Request | None = None
        self._done: Callable[[Outcome], None] | None = None
        self._lines: list[bytes] = []
        self._header_bytes = self._body_bytes = 0

    def __repr__(self) -> str:
        return f"<Digger {self._request.proxy if self._request is not None else 'idle'}>"

    def _make_curl(self) -> Any:
        curl = make_handle(self._engine.ca_file, self._connect_timeout_s)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.CUSTOMREQUEST, "CONNECT")
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        return curl

    @property
    def is_busy(self) -> bool:
        """Whether the proxy has been asked and has not answered."""
        return self._done is not None

    def dig(self, request: Request, done: Callable[[Outcome], None]) -> None:
        """Ask for the tunnel that a request needs, with the lines that the request has for the proxy."""
        assert request.proxy is not None
        self._request, self._done = request, done
        self._lines = []
        self._header_bytes = self._body_bytes = 0
        place, curl = place_of(request.url), self._curl
        curl.setopt(pycurl.URL, f"{request.proxy}/")
        curl.setopt(pycurl.REQUEST_TARGET, place)
        lines = (f"Host: {place}", "Accept:", "Proxy-Connection: Keep-Alive", *request.proxy_headers)
        curl.setopt(pycurl.HTTPHEADER, [line.encode("utf-8", "surrogateescape") for line in lines])
        self._engine.start(curl, self)

    def abort(self) -> None:
        """Nobody wants the tunnel any more."""
        if self._done is not None:
            self._done = None
            self._engine.remove(self._curl)

    def close(self) -> None:
        """Give the connection back."""
        self.abort()
        self._curl.close()
        self._engine.close_soon()

    # --- from libcurl ------------------------------------------------------------------------

    def _on_header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > _HEADER_LIMIT:
            return -1
        self._lines.append(line)
        if line in _BLANK:
            response = self._response()
            if response is not None and response.status < 300:
                # Whatever follows belongs to the server.
                self._engine.consider_socket(self)
        return None

    def _on_body(self, data: bytes) -> int | None:
        self._body_bytes += len(data)
        return -1 if self._body_bytes > _BODY_LIMIT else None

    def _response(self) -> Response | None:
        try:
            return final_response(self._lines)
        except InvalidAnswer:
            return None

    def try_socket(self) -> None:
        """See `engine.Carried`: the proxy has said yes."""
        if self._done is None:
            return
        active = self._curl.getinfo(pycurl.ACTIVESOCKET)
        if active < 0:
            return
        fd = os.dup(active)
        self._engine.release_watch(active)
        self._engine.remove(self._curl)
        self._engine.restore_watch(active)
        self._tell(fd)

    def finish(self, error: tuple[int, str] | None) -> None:
        """See `engine.Carried`: an answer is over, or there is none."""
        if self._done is None:
            return
        response = self._response()
        if response is not None and response.status < 300 and error is None:
            self.try_socket()
            return
        failure = self._failure(response, error)
        self._engine.remove(self._curl)
        self._tell(failure)

    def _tell(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        assert done is not None
        done(outcome)

    def _failure(self, response: Response | None, error: tuple[int, str] | None) -> Outcome:
        request = self._request
        assert request is not None
        assert request.proxy is not None
        if response is not None and response.status == 407:
            return response
        if response is not None:
            return refused_tunnel(response.status, request.proxy, host_of(request.url))
        code, text = error or (int(pycurl.E_GOT_NOTHING), "")
        attempt = Attempt(
            proxy=request.proxy,
            host=host_of(request.url),
            is_tunnel=True,
            connect_status=0,
            is_proxy_reached=self._curl.getinfo(pycurl.CONNECT_TIME) > 0,
            is_old=False,
            os_errno=self._curl.getinfo(pycurl.OS_ERRNO),
            connect_timeout_s=self._connect_timeout_s,
            verify_result=self._curl.getinfo(pycurl.SSL_VERIFYRESULT),
        )
        if code == _COULDNT_RESOLVE_HOST:
            code = _COULDNT_RESOLVE_PROXY
        return map_proxy_error(code, text, attempt) or map_error(
            code,
            text,
            host=f"the proxy {request.proxy}",
            os_errno=attempt.os_errno,
            is_connected=attempt.is_proxy_reached,
            connect_timeout_s=self._connect_timeout_s,
        )
