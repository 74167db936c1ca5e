"""A web server that knows, of all its connections together, how much has really left this end or come to it.

What a program has written to a socket may lie in the kernel for long; `sent_bytes` is what the other end's kernel has
acknowledged.  `GET /SIZE` brings SIZE bytes, or one range of them, `PUT` takes a file.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Self

_BYTES_ACKED_AT: Final = 120
_BLOCK: Final = bytes(256 * 1024)
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
_RANGE: Final = re.compile(rb"(?i)\r\nrange:\s*bytes=(\d+)-(\d*)")


class Metered:
    """A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._sent_before = 0
        self._received = 0
        self.requests = 0

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, name="metered")
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def sent_bytes(self) -> int:
        """Acknowledged by the other end, headers included."""
        with self._lock:
            return self._sent_before + sum(_acknowledged(sock) for sock in self._open)

    @property
    def received_bytes(self) -> int:
        """Read by this end, headers included."""
        with self._lock:
            return self._received

    def measure_bps(self, seconds: float, count: Callable[[], int]) -> float:
        """How many bits a second `count` says, over a while."""
        start, before = time.monotonic(), count()
        threading.Event().wait(seconds)
        return (count() - before) * 8 / (time.monotonic() - start)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._talk, args=(sock,), name="metered connection")
            with self._lock:
                self._open.add(sock)
                self._threads.append(thread)
            thread.start()

    def _talk(self, sock: socket.socket) -> None:
        try:
            self._answer_all(sock)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sent_before += _acknowledged(sock)
                self._open.discard(sock)
            sock.close()

    def _read(self, sock: socket.socket, most: int = 65536) -> bytes:
        data = sock.recv(most)
        with self._lock:
            self._received += len(data)
        return data

    def _answer_all(self, sock: socket.socket) -> None:
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                data = self._read(sock)
                if not data:
                    return
                waiting += data
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            self.requests += 1
            method, path = head.split(b" ", 2)[:2]
            if method == b"PUT":
                length = _LENGTH.search(head)
                assert length is not None, head
                left = int(length[1]) - len(waiting)
                while left > 0:
                    data = self._read(sock, min(left, 65536))
                    if not data:
                        return
                    left -= len(data)
                waiting = b""
                sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                continue
            if method == b"OPTIONS":
                sock.sendall(b"HTTP/1.1 204 No Content\r\nAllow: GET, PUT\r\n\r\n")
                continue
            self._send(sock, int(path.split(b"/")[1]), _RANGE.search(head), is_head=method == b"HEAD")

    @staticmethod
    def _send(sock: socket.socket, size: int, wanted: re.Match[bytes] | None, *, is_head: bool) -> None:
        first = int(wanted[1]) if wanted is not None else 0
        last = min(int(wanted[2]), size - 1) if wanted is not None and wanted[2] else size - 1
        status = b"200 OK" if wanted is None else b"206 Partial Content"
        more = b"" if wanted is None else b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, size)
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nAccept-Ranges: bytes\r\n" % (status, last + 1 - first)
        sock.sendall(head + more + b'ETag: "1"\r\n\r\n')
        left = 0 if is_head else last + 1 - first
        while left > 0:
            left -= sock.send(_BLOCK[: min(left, len(_BLOCK))])


def _acknowledged(sock: socket.socket) -> int:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return 0
    number: int = struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0]
    return number
