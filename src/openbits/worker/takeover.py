"""Whether libcurl's connection can be read past libcurl, with the kernel as the witness.

libcurl may hold bytes that it has read and not delivered.  The kernel knows how many bytes the
connection has brought in all; those that still stand in its queue subtracted, they must be exactly
those that were delivered.  If they are not, the connection stays libcurl's.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from typing import Final

_TCP_INFO_BYTES: Final = 256
_BYTES_RECEIVED_AT: Final = 128
"""Place of tcpi_bytes_received (u64) in struct tcp_info, Linux 4.1 and later."""


_TRIES: Final = 64


def take_socket(fd: int, delivered_bytes: int) -> int | None:
    """A duplicate of the connection's descriptor, or None when bytes are unaccounted for."""
    try:
        duplicate = os.dup(fd)
    except OSError:
        return None
    with contextlib.closing(socket.socket(fileno=duplicate)) as sock:
        try:
            if _consumed(sock) == delivered_bytes:
                return sock.detach()
        except OSError:
            pass
        return None


def _consumed(sock: socket.socket) -> int | None:
    """Bytes that have been read from the connection in its whole life."""
    queued = array.array("i", [0])
    received = _received(sock)
    for _ in range(_TRIES):
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, queued)
        # More may have come in between the two questions; then neither answer fits the other.
        before, received = received, _received(sock)
        if before is None or received is None:
            return None
        if before == received:
            return received - queued[0]
    return None


def _received(sock: socket.socket) -> int | None:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _BYTES_RECEIVED_AT + 8:
        return None
    (received,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)
    assert isinstance(received, int)
    return received
