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
import termios
from typing import Final

from openbits.worker.tcpinfo import received_bytes

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
    received = received_bytes(sock)
    for _ in range(_TRIES):
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, queued)
        # More may have come in between the two questions; then neither answer fits the other.
        before, received = received, received_bytes(sock)
        if before is None or received is None:
            return None
        if before == received:
            return received - queued[0]
    return None
