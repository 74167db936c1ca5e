"""The HTTP side of a real bits-server, spoken to over raw sockets (issue 4, part 4)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from support.bits_server import BitsServer, running_bits_server

PING = b"BITS-Packet-Type: Ping\r\n"
CONTENT = bytes(range(256)) * 64


@pytest.fixture(scope="module")
def server() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        with open(f"{running.root}/file.bin", "wb") as file:
            file.write(CONTENT)
        yield running


def test_it_serves(server: BitsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"GET /file.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.match(rb"HTTP/1.1 200 OK\r\n", answer)
    assert answer.endswith(CONTENT)
