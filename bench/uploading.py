"""A client that uploads and costs next to nothing itself, so that what is measured is the server.

python -m bench.uploading large URL FILE           one file by the BITS protocol, in large fragments
python -m bench.uploading small URL FILE N C M     the file N times, over C connections, by method M (bits or put)
python -m bench.uploading sessions URL N           creates N sessions and as many connections, then waits for an end
                                                   of its standard input
"""

from __future__ import annotations

import os
import re
import resource
import socket
import sys
import threading
from typing import Final
from urllib.parse import urlsplit

_FRAGMENT_BYTES: Final = 13 * 1024 * 1024
"""As much as Windows sends at once."""
_PROTOCOL: Final = "{7df0354d-249b-430f-820d-3d2a9bef4931}"
_RECEIVED: Final = re.compile(rb"\r\nbits-received-content-range: (\d+)\r\n", re.IGNORECASE)
_SESSION: Final = re.compile(rb"\r\nbits-session-id: ([^\r\n]+)\r\n", re.IGNORECASE)


class _Connection:
    """One connection; answers have no body."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host = parts.netloc
        self._sock = socket.create_connection((parts.hostname, parts.port or 80))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | tuple[int, int, int] = b"") -> bytes:
        """Send a request, its body bytes or (descriptor, offset, length); return the answer's head."""
        length = len(body) if isinstance(body, bytes) else body[2]
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        if isinstance(body, bytes):
            self._sock.sendall(head + body)
        else:
            self._sock.sendall(head)
            fd, offset, left = body
            while left:
                count = os.sendfile(self._sock.fileno(), fd, offset, left)
                offset, left = offset + count, left - count
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            part = self._sock.recv(65_536)
            if not part:
                raise SystemExit(f"the server closed the connection after {answer!r}")
            answer += part
        if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 204")):
            raise SystemExit(f"the server answered {answer!r}")
        return answer

    def packet(self, path: str, kind: str, headers: dict[str, str], body: bytes | tuple[int, int, int] = b"") -> bytes:
        """Send a packet of the BITS protocol."""
        return self.ask("BITS_POST", path, {"BITS-Packet-Type": kind, **headers}, body)

    def create(self, path: str) -> dict[str, str]:
        """Create a session; return the header that names it."""
        found = _SESSION.search(self.packet(path, "Create-Session", {"BITS-Supported-Protocols": _PROTOCOL}))
        assert found is not None
        return {"BITS-Session-Id": found[1].decode("ascii")}


def _large(url: str, file: str) -> None:
    connection, path = _Connection(url), urlsplit(url).path
    with open(file, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        session = connection.create(path)
        offset = 0
        while offset < size:
            length = min(_FRAGMENT_BYTES, size - offset)
            headers = {**session, "Content-Range": f"bytes {offset}-{offset + length - 1}/{size}"}
            answer = connection.packet(path, "Fragment", headers, (source.fileno(), offset, length))
            received = _RECEIVED.search(answer)
            assert received is not None
            offset = int(received[1])
        connection.packet(path, "Close-Session", session)


def _small(url: str, file: str, count: int, connections: int, method: str) -> None:
    with open(file, "rb") as source:
        content = source.read()
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            connection, prefix = _Connection(url), urlsplit(url).path
            for number in range(first, count, connections):
                path = f"{prefix}{number}"
                if method == "put":
                    connection.ask("PUT", path, {}, content)
                    continue
                session = connection.create(path)
                headers = {**session, "Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
                connection.packet(path, "Fragment", headers, content)
                connection.packet(path, "Close-Session", session)
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=work, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{failures[0]}")


def _sessions(url: str, count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    path = urlsplit(url).path
    connections = []
    for number in range(count):
        connection = _Connection(url)
        session = connection.create(f"{path}{number}")
        headers = {**session, "Content-Range": "bytes 0-9/100"}
        connection.packet(f"{path}{number}", "Fragment", headers, b"0123456789")
        connections.append(connection)
    print("ready", flush=True)
    sys.stdin.read()


def main() -> None:
    """Do what the arguments say."""
    match sys.argv[1:]:
        case ["large", url, file]:
            _large(url, file)
        case ["small", url, file, count, connections, method]:
            _small(url, file, int(count), int(connections), method)
        case ["sessions", url, count]:
            _sessions(url, int(count))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
