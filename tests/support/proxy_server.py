"""An HTTP proxy for tests, whose log is the witness: absolute-form requests, CONNECT, refusals, TLS to the proxy.

`with ProxyServer(hosts={"origin.test": origin.port}) as proxy:` sends requests for names that exist nowhere to ports of
this machine, so that a request which was answered must have gone through a proxy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

_PIECE = 256 * 1024


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    connection: int

    @property
    def host(self) -> str:
        """The server that was asked for."""
        return self.target.removeprefix("http://").partition("/")[0].rpartition(":")[0] or self.target


class ProxyServer:
    """A context manager; `requests` is the log."""

    def __init__(
        self,
        *,
        hosts: Mapping[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        status: int = 0,
        more: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self.hosts = dict(hosts or {})
        self.requests: list[Asked] = []
        self.connections = 0
        self.status = status
        """Answer every request with this."""
        self.more = more
        self._tls = tls
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((address, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    @property
    def place(self) -> str:
        """As it stands in a list of proxies."""
        return f"127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """What was asked for, in order."""
        with self._lock:
            return [f"{asked.method} {asked.target}" for asked in self.requests]

    @property
    def hosts_asked(self) -> set[str]:
        """The names of servers that were asked for."""
        with self._lock:
            return {asked.target.removeprefix("http://").partition("/")[0].partition(":")[0] for asked in self.requests}

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            with contextlib.suppress(OSError):
                # The connection itself, under TLS too.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()

    def _start(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
                self._sockets.add(sock)
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.closing(sock):
            with contextlib.suppress(OSError, ValueError, _Over):
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                    with self._lock:
                        self._sockets.add(sock)
                buffer = b""
                while True:
                    head, buffer = _read_head(sock, buffer)
                    length = _length(head)
                    while len(buffer) < length:
                        buffer += _more(sock)
                    body, buffer = buffer[:length], buffer[length:]
                    self._answer(sock, head, body, number)
            if self._tls is not None:
                sock.close()

    def _answer(self, sock: socket.socket, head: bytes, sent: bytes, number: int) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        with self._lock:
            self.requests.append(Asked(method, target, headers, number))
        if self.status:
            body = b"the proxy says no\n"
            lines_out = f"HTTP/1.1 {self.status} No\r\nContent-Length: {len(body)}\r\n{self.more}\r\n"
            sock.sendall(lines_out.encode("latin-1") + (b"" if method == "HEAD" else body))
            return
        place = target if method == "CONNECT" else target.removeprefix("http://").partition("/")[0]
        assert method == "CONNECT" or target.startswith("http://"), f"{target} is not in absolute form"
        try:
            upstream = self._connect(place)
        except OSError:
            sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with contextlib.closing(upstream):
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Connection established\r\nX-From: proxy\r\n\r\n")
                self._start(_pump, sock, upstream)
                _pump(upstream, sock)
                # The other thread reads from it, and would do so after it is closed.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                raise _Over
            path = target.removeprefix("http://").partition("/")[2]
            kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
            request = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "Connection: close", "", ""])
            upstream.sendall(request.encode("latin-1") + sent)
            self._relay(upstream, sock, has_body=method != "HEAD")

    def _connect(self, place: str) -> socket.socket:
        host, colon, port = place.rpartition(":")
        if not colon:
            host, port = place, "80"
        mapped = self.hosts.get(host)
        upstream = socket.create_connection(("127.0.0.1", mapped) if mapped else (host.strip("[]"), int(port)), 20)
        upstream.settimeout(None)
        with self._lock:
            self._sockets.add(upstream)
        return upstream

    def _relay(self, upstream: socket.socket, sock: socket.socket, *, has_body: bool) -> None:
        head, rest = _read_head(upstream, b"")
        lines = [line for line in head.decode("latin-1").split("\r\n") if not line.lower().startswith("connection:")]
        length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), None)
        sock.sendall(("\r\n".join([*lines, "Via: 1.1 test"]) + "\r\n\r\n").encode("latin-1"))
        if not has_body or " 304 " in lines[0] or " 204 " in lines[0]:
            return
        while True:
            if rest:
                sock.sendall(rest)
                length = None if length is None else length - len(rest)
            if length is not None and length <= 0:
                return
            rest = upstream.recv(_PIECE)
            if not rest:
                raise _Over


class _Over(Exception):
    """The connection is done with."""


def _read_head(sock: socket.socket, buffer: bytes) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65_536)
        if not data:
            raise _Over
        buffer += data
    head, _, rest = buffer.partition(b"\r\n\r\n")
    return head, rest


def _length(head: bytes) -> int:
    """How long the body of a request is."""
    lines = head.decode("latin-1").split("\r\n")
    return next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)


def _more(sock: socket.socket) -> bytes:
    piece = sock.recv(_PIECE)
    if not piece:
        raise _Over
    return piece


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
