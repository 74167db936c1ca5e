"""What the kernel knows of a connection's bytes, read only when somebody has to know."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Final

_TCP_INFO_BYTES: Final = 256
_BYTES_ACKED_AT: Final = 120
"""Places of tcpi_bytes_acked and tcpi_bytes_received (u64) in struct tcp_info, Linux 4.1 and later."""
_BYTES_RECEIVED_AT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Outflow:
    """How far the bytes that a connection was given have come."""

    acknowledged_bytes: int
    """In the connection's whole life, by the other end's kernel."""
    queued_bytes: int
    """Not acknowledged, or not even sent."""


def outflow(fd: int) -> Outflow | None:
    """What has become of a connection's bytes; None where the kernel does not tell."""
    try:
        duplicate = os.dup(fd)
    except OSError:
        return None
    queued = array.array("i", [0])
    with contextlib.closing(socket.socket(fileno=duplicate)) as sock:
        try:
            fcntl.ioctl(duplicate, termios.TIOCOUTQ, queued)
            acknowledged = _number(sock, _BYTES_ACKED_AT)
        except OSError:
            return None
    return None if acknowledged is None else Outflow(acknowledged_bytes=acknowledged, queued_bytes=queued[0])


def received_bytes(sock: socket.socket) -> int | None:
    """Bytes that have come in, read or not, in the connection's whole life. Raises OSError."""
    return _number(sock, _BYTES_RECEIVED_AT)


def _number(sock: socket.socket, at: int) -> int | None:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < at + 8:
        return None
    (number,) = struct.unpack_from("=Q", info, at)
    assert isinstance(number, int)
    return number
