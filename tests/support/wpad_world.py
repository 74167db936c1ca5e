"""A network of its own in which a machine finds its proxies by itself: a DNS server, a host called wpad, a proxy.

The machine is a network namespace with a resolv.conf and a hosts file of its own; servers of the test listen in it and
log who came.  `with network(...) as world:` and then `world.prefix` runs programs there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import Self

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)
DNS, WPAD, PROXY, ELSEWHERE = "10.99.0.1", "10.99.0.2", "10.99.0.3", "10.99.0.4"


class DnsServer:
    """Answers for IPv4 addresses of the names that it knows; `asked` is the log, in lower case, without last dots."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []
        self.is_silent = False
        self._is_over = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((DNS, 53))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        # A packet of its own wakes it up.
        self._socket.sendto(b"", (DNS, 53))
        self._thread.join(20)
        self._socket.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            packet, sender = self._socket.recvfrom(4096)
            if self._is_over:
                return
            if len(packet) < 17:
                continue
            name, kind, question = _question(packet)
            self.asked.append(name)
            if self.is_silent:
                continue
            address = self.names.get(name)
            answer = b""
            if address is not None and kind == 1:
                answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address)
            code = 0 if address is not None else 3
            head = struct.pack("!2sHHHHH", packet[:2], 0x8580 | code, 1, bool(answer), 0, 0)
            self._socket.sendto(head + question + answer, sender)


def _question(packet: bytes) -> tuple[str, int, bytes]:
    labels, at = [], 12
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), struct.unpack("!H", packet[at + 1 : at + 3])[0], packet[12 : at + 5]


class RawServer:
    """A host that answers every request with `answer`; None lets everybody wait. `requests` is the log."""

    def __init__(self, address: str, answer: bytes | None, *, port: int = 80) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self._over = threading.Event()
        self._listener = socket.create_server((address, port))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = sock.recv(65_536)
                if not piece:
                    return
                head += piece
            self.requests.append(head.decode("latin-1"))
            if self.answer is None:
                self._over.wait(60)
            else:
                sock.sendall(self.answer)


class Network:
    """The namespace; `prefix` is a command that runs others in it."""

    def __init__(self, name: str, directory: str) -> None:
        self.name = name
        self._directory = directory
        self.prefix = ("ip", "netns", "exec", name)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made here, by this thread, are the network's."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(inside)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(inside)
            os.close(outside)

    def configure(self, *, search: str = "", full_name: str = "") -> None:
        """Say which domains are searched, and what this machine is called in full; for programs that start later."""
        lines = f"nameserver {DNS}\noptions timeout:1 attempts:1 ndots:3\n" + (f"search {search}\n" if search else "")
        self._write("resolv.conf", lines)
        host = socket.gethostname()
        own = f"10.99.0.9 {full_name} {host}\n" if full_name else f"10.99.0.9 {host}\n"
        self._write("hosts", f"127.0.0.1 localhost\n{own}")

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self._directory, name), "w", encoding="ascii") as file:
            file.write(text)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20, capture_output=True)


@contextlib.contextmanager
def network(*, search: str = "", full_name: str = "") -> Iterator[Network]:
    """Make the network for the length of a `with` block."""
    name = f"bits-{secrets.token_hex(4)}"
    directory = f"/etc/netns/{name}"
    with contextlib.ExitStack() as stack:
        os.makedirs(directory)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "add", "cable", "type", "veth", "peer", "name", "far")
        for address in (DNS, WPAD, PROXY, ELSEWHERE, "10.99.0.9"):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
        for end in ("cable", "far"):
            _ip("-n", name, "link", "set", end, "up")
        _ip("-n", name, "route", "add", "default", "via", "10.99.0.254", "dev", "cable", "onlink")
        world = Network(name, directory)
        world.configure(search=search, full_name=full_name)
        yield world
