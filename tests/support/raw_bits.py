"""The upload protocol byte by byte: a client that says exactly what a test wants, and shows exactly what it heard."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

TIMEOUT_S = 20.0
PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"


@dataclass(frozen=True)
class Heard:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def received(self) -> int | None:
        """BITS-Received-Content-Range."""
        value = self.headers.get("bits-received-content-range")
        return None if value is None else int(value)

    @property
    def error(self) -> tuple[int, str | None, str | None]:
        """Status, error code and context."""
        return self.status, self.headers.get("bits-error-code"), self.headers.get("bits-error-context")


class RawBits:
    """One connection to a server, and the session that is dealt with over it."""

    def __init__(self, port: int, path: str = "/file.bin", *, session_id: str = "") -> None:
        self.port = port
        self.path = path
        self.id = session_id
        self.sock = self._connect()
        self._unread = b""

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def reconnect(self) -> None:
        """Use another connection from now on."""
        self.sock.close()
        self.sock = self._connect()
        self._unread = b""

    # --- bytes ---

    def send(self, data: bytes) -> None:
        """Send as far as the server listens."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def hear(self) -> Heard:
        """Read one answer; raises ConnectionError when the server hangs up before it ends."""
        data = self._unread
        while b"\r\n\r\n" not in data:
            data += self._some()
        head, _, body = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
        length = int(headers.get("content-length", "0"))
        while len(body) < length:
            body += self._some()
        self._unread = body[length:]
        return Heard(int(line.split()[1]), headers, body[:length])

    def _some(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError("the server has hung up")
        return data

    def is_closed(self) -> bool:
        """Whether the server hangs up now, with nothing more to say."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    # --- packets ---

    def head(
        self,
        kind: str | None,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = 0,
        method: str = "BITS_POST",
        path: str | None = None,
    ) -> bytes:
        """A request's head."""
        lines = [f"{method} {self.path if path is None else path} HTTP/1.1", "Host: server.example"]
        if kind is not None:
            lines.append(f"BITS-Packet-Type: {kind}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def say(
        self, kind: str | None, headers: Mapping[str, str] | None = None, body: bytes = b"", **how: str | int | None
    ) -> Heard:
        """Send a packet and read its answer."""
        how.setdefault("length", len(body))
        self.send(self.head(kind, headers, **how) + body)  # type: ignore[arg-type] # the keywords of head()
        return self.hear()

    def create(self, **headers: str) -> Heard:
        """Create-Session; the session is this client's from now on."""
        heard = self.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL, **headers})
        self.id = heard.headers.get("bits-session-id", "")
        return heard

    def fragment_head(self, offset: int, length: int, total: int) -> bytes:
        """The head of a fragment."""
        said = f"bytes {offset}-{offset + length - 1}/{total}"
        return self.head("Fragment", {"BITS-Session-Id": self.id, "Content-Range": said}, length=length)

    def fragment(self, offset: int, body: bytes, total: int) -> Heard:
        """Send a fragment."""
        self.send(self.fragment_head(offset, len(body), total) + body)
        return self.hear()

    def ranged(self, content_range: str, body: bytes = b"") -> Heard:
        """Send a fragment with a Content-Range of one's own."""
        return self.say("Fragment", {"BITS-Session-Id": self.id, "Content-Range": content_range}, body)

    def end(self, kind: str = "Close-Session") -> Heard:
        """Close-Session or Cancel-Session."""
        return self.say(kind, {"BITS-Session-Id": self.id})

    def ping(self) -> Heard:
        """Ping."""
        return self.say("Ping")
