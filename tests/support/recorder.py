"""A server that writes down what it is sent, byte by byte, and what a TLS client asks for by name.

`with Recorder() as recorder: … recorder.heads[-1]` is the whole head of the last request.  Every request gets the same
small file; each connection is used once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

BODY = b"recorded\n"


class Recorder:
    """A context manager."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        answer: bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
    ) -> None:
        self.heads: list[bytes] = []
        self.names: list[str | None] = []
        """What each TLS client called the server; None for nothing."""
        self._answer = answer
        self._tls = tls
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
        family, *_, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(where)
        self._listener.listen(16)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="recorder")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    @property
    def first_lines(self) -> list[str]:
        """Method, target and version of every request."""
        return [head.partition(b"\r\n")[0].decode("latin-1") for head in self.heads]

    def field(self, name: str, number: int = -1) -> list[str]:
        """The values of a field in a request, by its name in any case."""
        lines = self.heads[number].decode("latin-1").split("\r\n")[1:]
        found = (line.partition(":") for line in lines)
        return [value.strip() for key, _, value in found if key.lower() == name.lower()]

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(10)
            with contextlib.suppress(OSError), sock:
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        stream = sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True)
        data = b""
        while b"\r\n\r\n" not in data:
            part = stream.recv(65536)
            if not part:
                return
            data += part
        self.heads.append(data)
        stream.sendall(self._answer)
        # Until the client has hung up: closing earlier could take the answer from it.
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(65536):
            pass
