"""A SOCKS server for tests, versions 4a and 5, whose log is the witness.

`with SocksServer(hosts={"origin.test": origin.port}) as socks:` connects names that exist nowhere to ports of this
machine.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Self


class SocksServer:
    """A context manager; `asked` is what was asked for: (version, host, port), a host being a name or an address."""

    def __init__(
        self,
        *,
        hosts: Mapping[str, int] | None = None,
        refusal: int = 0,
        wants_password: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.login = login
        """Who is let in (RFC 1929); everybody without."""
        self.logins: list[tuple[str, str]] = []
        self.hosts = dict(hosts or {})
        self.asked: list[tuple[int, str, int]] = []
        self.refusal = refusal
        self.wants_password = wants_password
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
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
                self._sockets.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.closing(sock), contextlib.suppress(OSError, EOFError):
            version = _read(sock, 1)[0]
            host, port = self._greet5(sock) if version == 5 else self._greet4(sock)
            with self._lock:
                self.asked.append((version, host, port))
            refused = b"\x05" + bytes([self.refusal]) + b"\0\1" + bytes(6) if version == 5 else b"\0\x5b" + bytes(6)
            if self.refusal:
                sock.sendall(refused)
                return
            mapped = self.hosts.get(host)
            try:
                upstream = socket.create_connection(("127.0.0.1", mapped) if mapped else (host, port), 20)
            except OSError:
                sock.sendall(refused[:1] + b"\x05" + refused[2:] if version == 5 else refused)
                return
            with self._lock:
                self._sockets.add(upstream)
            with contextlib.closing(upstream):
                upstream.settimeout(None)
                sock.sendall(b"\5\0\0\1" + bytes(6) if version == 5 else b"\0\x5a" + bytes(6))
                self._start(_pump, sock, upstream)
                _pump(upstream, sock)
                # Whoever still reads from it wakes up: closing alone would not tell him.
                sock.shutdown(socket.SHUT_RDWR)

    def _greet5(self, sock: socket.socket) -> tuple[str, int]:
        methods = _read(sock, _read(sock, 1)[0])
        if self.login is not None and 2 in methods:
            sock.sendall(b"\5\2")
            _read(sock, 1)
            user, password = (_read(sock, _read(sock, 1)[0]).decode() for _ in range(2))
            self.logins.append((user, password))
            sock.sendall(b"\1\0" if (user, password) == self.login else b"\1\1")
        else:
            sock.sendall(b"\5\xff" if self.wants_password or self.login is not None else b"\5\0")
        _, command, _, kind = _read(sock, 4)
        assert command == 1
        match kind:
            case 1:
                host = socket.inet_ntoa(_read(sock, 4))
            case 3:
                host = _read(sock, _read(sock, 1)[0]).decode("ascii")
            case _:
                host = socket.inet_ntop(socket.AF_INET6, _read(sock, 16))
        return host, struct.unpack("!H", _read(sock, 2))[0]

    def _greet4(self, sock: socket.socket) -> tuple[str, int]:
        command, port, address = struct.unpack("!BH4s", _read(sock, 7))
        assert command == 1
        _read_text(sock)
        is_name = address[:3] == b"\0\0\0" and address[3:] != b"\0"
        return (_read_text(sock) if is_name else socket.inet_ntoa(address)), port


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _read_text(sock: socket.socket) -> str:
    text = b""
    while (byte := _read(sock, 1)) != b"\0":
        text += byte
    return text.decode("ascii")


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(256 * 1024):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
