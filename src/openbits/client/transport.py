"""One connection to the service over its Unix socket, and the one rule of how a call travels on it.

The rule: a request is sent again only if it cannot have been carried out (not all of it was sent), or
if carrying it out twice is the same as once.  Everything that goes wrong here is a BitsError.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from openbits.client.http1 import MalformedResponse, ResponseReader
from openbits.errors import BitsError

CALL_TIMEOUT_S = 120.0
"""How long an answer may take; Complete and Cancel answer when the disk has."""
READ_SIZE_BYTES = 262_144


class StaleConnection(Exception):
    """The service closed the connection before it can have carried out the request."""


class NoAnswer(Exception):
    """The connection ended after the request and before any byte of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes


def broken_call(reason: object) -> BitsError:
    """The error for a call whose fate is unknown."""
    return BitsError("RPC_S_CALL_FAILED", f"the service broke off the call ({reason}): see what became of it")


class _Socket(socket.socket):
    """A socket that closes without a warning when nobody holds it: a program that drops its Manager loses nothing."""

    def __del__(self) -> None:
        self.close()


def connect_unix(path: str) -> socket.socket:
    """Connect to the socket at `path`, however long the path is; raises OSError."""
    connection = _Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with reachable_address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reachable_address(path: str) -> Iterator[bytes]:
    """An address for `path` that fits into sockaddr_un, which holds 107 bytes."""
    raw = os.fsencode(path)
    if len(raw) <= 107:
        yield raw
        return
    directory, name = os.path.split(raw)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield b"/proc/self/fd/%d/%s" % (fd, name)
    finally:
        os.close(fd)


class Connection:
    """A connection that carries one request after the other."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self._socket = sock

    def __repr__(self) -> str:
        return f"<Connection to {self.path!r}>"

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def shut_down(self) -> None:
        """End the connection, also for a thread that reads from it; it is still to be closed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def detach(self) -> socket.socket:
        """Give the socket away."""
        return self._socket

    def is_stale(self) -> bool:
        """Whether the service has closed the connection (nothing is ever sent to us unasked)."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, request: bytes) -> None:
        """Send a whole request; raises StaleConnection if that did not go."""
        self._socket.settimeout(CALL_TIMEOUT_S)
        try:
            self._socket.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as error:
            # Some of the request was not taken, so the service cannot have acted on it.
            raise StaleConnection from error
        except TimeoutError as error:
            raise broken_call("it takes no requests") from error
        except OSError as error:
            raise broken_call(error.strerror) from error

    def read_answer(self) -> tuple[Answer, bool]:
        """Read the answer to the request, and whether the connection may be used again."""
        reader = ResponseReader()
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while not reader.done:
            self.read_some(reader, deadline)
        return Answer(reader.status, reader.headers, reader.take_body()), reader.keep_alive

    def read_some(self, reader: ResponseReader, deadline: float) -> None:
        """Read what is there, waiting for something until `deadline` (monotonic); feed it to the reader.

        Raises NoAnswer, TimeoutError or BitsError.
        """
        self._socket.settimeout(max(0.0, deadline - time.monotonic()) or 1e-6)
        try:
            data = self._socket.recv(READ_SIZE_BYTES)
        except TimeoutError:
            raise
        except OSError as error:
            if not reader.started:
                raise NoAnswer from error
            raise broken_call(error.strerror) from error
        if not data:
            if not reader.started:
                raise NoAnswer
            raise broken_call("its answer ended in the middle")
        try:
            reader.feed(data)
        except MalformedResponse as error:
            raise broken_call(error) from error
