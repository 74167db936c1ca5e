"""Moves bytes between a connection and a file, in a thread: the loop waits for neither the disk nor a big copy.

The rules:

- A turn is short: it ends when the connection has nothing (or takes nothing) now, and in any case after `TURN_S`, so
  that a few threads serve everybody in turn and a slow client holds none.  Only while nobody waits for a thread does
  one wait a moment for its connection to go on.
- What a turn says is exact: `taken` bytes came off the connection, and the first `stored` of them are in the file.
- The socket never blocks, whether there is TLS on it or not; only one thread uses it at a time.

Reading into a buffer of 256 KiB and writing that out costs less than what nginx does for the same upload: the
buffer stays in the processor's cache.  splice(2) through a pipe was no faster in the median, and knows no TLS.
"""

from __future__ import annotations

import asyncio
import enum
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

BUFFER_BYTES: Final = 256 * 1024
TURN_S: Final = 0.1
PATIENCE_MS: Final = 20
"""How long a turn waits for a connection that is about to go on: as long as coming back later would cost."""

_WANTS: Final = (BlockingIOError, ssl.SSLWantReadError)
_WANTS_WRITE: Final = (BlockingIOError, ssl.SSLWantWriteError)
_scratch = threading.local()


class Ended(enum.Enum):
    """Why a turn ended."""

    DONE = "done"
    """All of it has been moved."""
    WAITING = "waiting"
    """The connection has nothing now, or takes nothing."""
    TURN_OVER = "turn over"
    GONE = "gone"
    """The client has closed the connection, or it broke."""
    FILE_FAILED = "file failed"
    """Writing failed; or the file has fewer bytes than were to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What came of a turn."""

    ended: Ended
    taken: int
    """Bytes that came off the connection, or went onto it."""
    stored: int = 0
    error: OSError | None = None


class Pool:
    """The threads; as many as there are, turns are under way at the same time."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="bits-body")
        self._lock = threading.Lock()
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Pool waiting={self._waiting}>"

    async def run(self, move: Callable[[Callable[[], bool]], Turn]) -> Turn:
        """Have a turn. Whoever is cancelled meanwhile leaves when the turn is over: nothing moves after that."""
        with self._lock:
            self._waiting += 1
        turn = asyncio.get_running_loop().run_in_executor(self._executor, self._start, move)
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:
            await asyncio.wait([turn])
            raise

    def _start(self, move: Callable[[Callable[[], bool]], Turn]) -> Turn:
        with self._lock:
            self._waiting -= 1
        return move(self._is_free)

    def _is_free(self) -> bool:
        return not self._waiting

    def close(self) -> None:
        """End the threads, which have nothing to do any more."""
        self._executor.shutdown(cancel_futures=True)


def _buffer() -> memoryview:
    found: memoryview | None = getattr(_scratch, "buffer", None)
    if found is None:
        found = _scratch.buffer = memoryview(bytearray(BUFFER_BYTES))
    return found


def receive(is_free: Callable[[], bool], sock: socket.socket, first: bytes, fd: int, offset: int, length: int) -> Turn:
    """Write `first` and what comes over the connection to the file, `length` bytes at most."""
    until = time.monotonic() + TURN_S
    buffer = _buffer()
    held = memoryview(first)[:length]
    taken = len(held)
    try:
        _write(fd, held, offset)
    except _WriteFailed as failure:
        return Turn(ended=Ended.FILE_FAILED, taken=taken, stored=failure.written, error=failure.error)
    stored = taken
    while stored < length:
        count, ended = _fill(is_free, sock, buffer[: min(BUFFER_BYTES, length - stored)], until)
        taken += count
        try:
            _write(fd, buffer[:count], offset + stored)
        except _WriteFailed as failure:
            return Turn(ended=Ended.FILE_FAILED, taken=taken, stored=stored + failure.written, error=failure.error)
        stored += count
        if ended is not None and stored < length:
            return Turn(ended=ended, taken=taken, stored=stored)
    return Turn(ended=Ended.DONE, taken=taken, stored=stored)


def _fill(
    is_free: Callable[[], bool], sock: socket.socket, buffer: memoryview, until: float
) -> tuple[int, Ended | None]:
    """Read until the buffer is full; fewer large writes cost less than many small ones (a TLS record has 16 KiB)."""
    count = 0
    while count < len(buffer):
        try:
            got = sock.recv_into(buffer[count:])
        except _WANTS:
            if time.monotonic() >= until:
                return count, Ended.TURN_OVER
            if not (is_free() and _wait(sock, select.POLLIN)):
                return count, Ended.WAITING
            continue
        except (OSError, ValueError):
            return count, Ended.GONE
        if not got:
            return count, Ended.GONE
        count += got
    return count, Ended.TURN_OVER if time.monotonic() >= until else None


class _WriteFailed(Exception):
    def __init__(self, written: int, error: OSError) -> None:
        super().__init__(str(error))
        self.written = written
        self.error = error


def _write(fd: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        try:
            written += os.pwrite(fd, data[written:], offset + written)
        except OSError as error:
            raise _WriteFailed(written, error) from error


def send(is_free: Callable[[], bool], sock: socket.socket, fd: int, offset: int, length: int) -> Turn:
    """Send `length` bytes of the file; one that is shorter ends the turn with FILE_FAILED."""
    until = time.monotonic() + TURN_S
    sent = 0
    move = _send_encrypted if isinstance(sock, ssl.SSLSocket) else _send_plain
    while sent < length:
        try:
            count = move(sock, fd, offset + sent, length - sent)
        except _WANTS_WRITE:
            if time.monotonic() >= until:
                return Turn(ended=Ended.TURN_OVER, taken=sent)
            if not (is_free() and _wait(sock, select.POLLOUT)):
                return Turn(ended=Ended.WAITING, taken=sent)
            continue
        except _ReadFailed as failure:
            return Turn(ended=Ended.FILE_FAILED, taken=sent, error=failure.error)
        except (OSError, ValueError):
            return Turn(ended=Ended.GONE, taken=sent)
        if not count:
            return Turn(ended=Ended.FILE_FAILED, taken=sent)
        sent += count
        if time.monotonic() >= until and sent < length:
            return Turn(ended=Ended.TURN_OVER, taken=sent)
    return Turn(ended=Ended.DONE, taken=sent)


class _ReadFailed(Exception):
    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


_SEND_BYTES: Final = 8 * 1024 * 1024


def _send_plain(sock: socket.socket, fd: int, offset: int, length: int) -> int:
    return os.sendfile(sock.fileno(), fd, offset, min(length, _SEND_BYTES))


def _send_encrypted(sock: socket.socket, fd: int, offset: int, length: int) -> int:
    buffer = _buffer()[: min(length, 64 * 1024)]
    try:
        count = os.preadv(fd, [buffer], offset)
    except OSError as error:
        raise _ReadFailed(error) from error
    # Fewer may go out than were read: the rest is read again, which is cheap and needs no memory between turns.
    return sock.send(buffer[:count]) if count else 0


def _wait(sock: socket.socket, for_what: int) -> bool:
    poll = select.poll()
    try:
        poll.register(sock, for_what)
        return bool(poll.poll(PATIENCE_MS))
    except (OSError, ValueError):
        # Closed meanwhile; the next attempt says so.
        return True
