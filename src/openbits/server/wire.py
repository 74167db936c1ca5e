"""One connection's bytes: awaiting, sending and receiving over a socket that never blocks, with TLS on it or without.

The rules: whoever awaits the other end awaits an event and a deadline, nothing else; a silence of `stall_s` ends the
connection; and what goes wrong with the network is `Gone`, which is nobody's mistake and nothing for the log.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Final

from openbits.server import pumping
from openbits.server.pumping import Ended, Pool

RECEIVE_BYTES: Final = 65_536

_WANTS_READ: Final = (BlockingIOError, ssl.SSLWantReadError)
_WANTS_WRITE: Final = (BlockingIOError, ssl.SSLWantWriteError)


class Gone(Exception):
    """The client has left, or was silent for too long: nothing can be received or sent any more."""


class FileEnded(Exception):
    """A file that is being sent has fewer bytes than were announced, or cannot be read."""


class Wire:
    """A connected socket. Not for two tasks at a time."""

    __slots__ = ("_loop", "_pool", "_stall_s", "is_gone", "sock")

    def __init__(self, sock: socket.socket, *, pool: Pool, stall_s: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_gone = False
        self._pool = pool
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Wire fd={self.sock.fileno()} is_gone={self.is_gone}>"

    # --- receiving ---------------------------------------------------------------------------------

    def receive_now(self, at_most: int = RECEIVE_BYTES) -> bytes | None:
        """Return what is here already, None when nothing is; raises Gone."""
        try:
            data = self.sock.recv(at_most)
        except _WANTS_READ:
            return None
        except (OSError, ValueError) as error:
            raise self._gone(str(error)) from None
        if not data:
            raise self._gone("the client has closed the connection")
        return data

    async def receive(self, at_most: int) -> bytes:
        """Return some bytes; raises Gone."""
        while (data := self.receive_now(at_most)) is None:
            await self.wait_readable()
        return data

    async def discard(self, length: int) -> None:
        """Receive and forget; raises Gone."""
        while length:
            length -= len(await self.receive(min(length, RECEIVE_BYTES)))

    async def receive_to_file(self, first: bytes, fd: int, offset: int, length: int) -> pumping.Turn:
        """Move `first` and then bytes of the connection to a file; returns what came of it, never WAITING."""
        taken = stored = 0
        while True:
            turn = await self._pool.run(
                functools.partial(
                    pumping.receive,
                    sock=self.sock,
                    first=first,
                    fd=fd,
                    offset=offset + stored,
                    length=length - stored,
                )
            )
            first = b""
            taken += turn.taken
            stored += turn.stored
            ended = turn.ended
            if ended is Ended.WAITING:
                try:
                    await self.wait_readable()
                except Gone:
                    ended = Ended.GONE
            if ended is Ended.GONE:
                self.is_gone = True
            if ended not in (Ended.WAITING, Ended.TURN_OVER):
                return pumping.Turn(ended=ended, taken=taken, stored=stored, error=turn.error)

    # --- sending -----------------------------------------------------------------------------------

    async def send(self, data: bytes, *, flags: int = 0) -> None:
        """Send all of it; raises Gone."""
        left = memoryview(data)
        if isinstance(self.sock, ssl.SSLSocket):
            flags = 0
        while left:
            try:
                left = left[self.sock.send(left, flags) :]
            except _WANTS_WRITE:
                await self.wait_writable()
            except (OSError, ValueError) as error:
                raise self._gone(str(error)) from None

    async def send_file(self, fd: int, offset: int, length: int) -> None:
        """Send a part of a file; raises Gone, FileEnded."""
        while length:
            turn = await self._pool.run(
                functools.partial(pumping.send, sock=self.sock, fd=fd, offset=offset, length=length)
            )
            offset += turn.taken
            length -= turn.taken
            match turn.ended:
                case Ended.WAITING:
                    await self.wait_writable()
                case Ended.GONE:
                    raise self._gone("the client has closed the connection")
                case Ended.FILE_FAILED:
                    raise FileEnded(str(turn.error or "the file has become shorter"))
                case Ended.DONE | Ended.TURN_OVER:
                    pass

    # --- awaiting ----------------------------------------------------------------------------------

    async def wait_readable(self) -> None:
        """Wait until something can be received; raises Gone after a silence."""
        await self._wait(self._loop.add_reader, self._loop.remove_reader)

    async def wait_writable(self) -> None:
        """Wait until something can be sent; raises Gone after a silence."""
        await self._wait(self._loop.add_writer, self._loop.remove_writer)

    async def _wait(self, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        fd = self.sock.fileno()
        if fd < 0:
            raise self._gone("the connection is closed")
        event = self._loop.create_future()
        add(fd, _set, event)
        try:
            async with asyncio.timeout(self._stall_s):
                await event
        except TimeoutError:
            raise self._gone(f"nothing came or went for {self._stall_s:g} seconds") from None
        finally:
            remove(fd)

    def _gone(self, reason: str) -> Gone:
        self.is_gone = True
        return Gone(reason)


def _set(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)
