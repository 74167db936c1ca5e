"""HTTP over the Unix socket byte by byte, as any account: for clients that no library would be."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

TIMEOUT_S = 20.0


@contextlib.contextmanager
def acting_as(uid: int | None, gid: int | None = None) -> Iterator[None]:
    """Be another account for a moment; the kernel remembers who connects. None: oneself."""
    if uid is None or uid == os.geteuid():
        yield
        return
    groups = os.getgroups()
    own_gid = os.getegid()
    os.setgroups([])
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(groups)


def connect(path: str, uid: int | None = None) -> socket.socket:
    """Connect to the service as an account."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        with acting_as(uid):
            sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Read until the service hangs up."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send as far as the service listens."""
    with contextlib.suppress(ConnectionError):
        sock.sendall(data)


def read_answer(sock: socket.socket) -> tuple[int, bytes]:
    """Read one answer with a Content-Length; return its status and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise EOFError(data)
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        part = sock.recv(65536)
        if not part:
            raise EOFError(data)
        body += part
    return int(head.split(b" ", 2)[1]), body


def get(path: str, target: str = "/v1/version", uid: int | None = None) -> tuple[int, Any]:
    """One polite request."""
    with connect(path, uid) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: bits\r\nConnection: close\r\n\r\n".encode())
        status, body = read_answer(sock)
        return status, json.loads(body)
