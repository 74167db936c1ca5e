"""HTTP over TCP byte by byte: for requests that no client library would send, and answers looked at as they come."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Self

TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """One answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes

    def get(self, name: str) -> str | None:
        """The value of a header."""
        return next((value for each, value in self.headers if each == name), None)

    @property
    def closes(self) -> bool:
        """Whether the server says that it ends the connection."""
        return self.get("connection") == "close"


class RawClient:
    """A connection. Bytes that belong to the next answer stay for it."""

    def __init__(
        self, port: int, *, tls: ssl.SSLContext | None = None, timeout_s: float = TIMEOUT_S, source: str = "127.0.0.1"
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def send_what_is_taken(self, data: bytes) -> None:
        """Send as far as the server listens."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.sock.sendall(data)

    def ask(self, data: bytes, *, to_head: bool = False) -> RawAnswer:
        """Send and return the answer."""
        self.send(data)
        return self.read_answer(to_head=to_head)

    def read_head(self) -> RawAnswer:
        """Return the head of the next answer, 100 among them, without its body."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = tuple((name.lower(), value) for name, value in pairs)
        assert first.startswith("HTTP/1.1 "), first
        return RawAnswer(status=int(first.split(" ")[1]), headers=headers, body=b"")

    def read_answer(self, *, to_head: bool = False) -> RawAnswer:
        """Return the next answer; to HEAD none has a body."""
        head = self.read_head()
        length = 0 if to_head or head.status in (100, 204, 304) else int(head.get("content-length") or "0")
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return RawAnswer(status=head.status, headers=head.headers, body=body)

    def read_end(self) -> bytes:
        """Return what comes until the server ends the connection, in good order or by a reset."""
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
            while True:
                self._more()
        rest, self._received = self._received, b""
        return rest

    def is_ended(self) -> bool:
        """Wait for the server to end the connection without another word."""
        return self.read_end() == b""

    def _more(self) -> None:
        part = self.sock.recv(65_536)
        if not part:
            raise EOFError(self._received)
        self._received += part
