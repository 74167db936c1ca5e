"""What service managers hand over and want to hear: sd_listen_fds(3) and sd_notify(3) without libsystemd."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from openbits.monitor.log import StartError, say

_FIRST_LISTEN_FD: Final = 3
_LONGEST_ADDRESS: Final = 107


def take_listener(environment: MutableMapping[str, str]) -> int | None:
    """Return the descriptor of the socket that was passed to this process, or None. Raises StartError.

    The variables are removed: what they say is not true of any other process.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return None
    for fd in range(_FIRST_LISTEN_FD, _FIRST_LISTEN_FD + int(count)):
        os.set_inheritable(fd, False)
    if int(count) > 1:
        raise StartError(f"{count} sockets were passed, but only one has a meaning")
    if not _is_listener(_FIRST_LISTEN_FD):
        raise StartError("the descriptor that was passed is no listening Unix stream socket")
    return _FIRST_LISTEN_FD


def _is_listener(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return (
                sock.family == socket.AF_UNIX
                and sock.type == socket.SOCK_STREAM
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            )
    except OSError:
        return False


class Notifier:
    """Tells the service manager, where there is one; it is told at most once that we are ready."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said: set[str] = set()

    def tell_once(self, state: str) -> None:
        """Send an assignment such as READY=1, unless it was sent before."""
        if not self._address or state in self._said:
            return
        self._said.add(state)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                _connect(sock, self._address)
                sock.send(state.encode())
        except OSError as error:
            if len(self._said) > 1 and isinstance(error, FileNotFoundError | ConnectionRefusedError):
                return  # who started the daemon wanted to know when it was ready, and has gone
            say(f"the service manager cannot be told {state}: {error.strerror or error}")


def _connect(sock: socket.socket, address: str) -> None:
    """Connect, also where the path is longer than the 107 bytes that a socket's address holds."""
    if address.startswith("\0") or len(os.fsencode(address)) <= _LONGEST_ADDRESS:
        sock.connect(address)
        return
    directory, name = os.path.split(address)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
