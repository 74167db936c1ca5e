"""A channel carries frames, and descriptors beside them, between two processes over a SEQPACKET socket.

The channel never blocks: what the kernel does not take at once waits here, in order.  Its owner
watches `fileno()` for reading always, and for writing while `wants_write` is true; that works in an
asyncio loop and in a plain epoll loop alike.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from openbits.frames.codec import MAX_FRAME_BYTES, Codec, FrameError

MAX_DESCRIPTORS: Final = 4


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a socket pair; `send` queues, `receive` returns one message or None."""

    def __init__(self, sock: socket.socket, *, outgoing: Codec, incoming: Codec) -> None:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
            raise ValueError("a channel needs a Unix SEQPACKET socket")
        sock.setblocking(False)
        self._sock = sock
        self._outgoing = outgoing
        self._incoming = incoming
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.on_wants_write: Callable[[bool], None] | None = None
        """Called with True when the kernel's buffer is full and with False when all is sent."""

    def __repr__(self) -> str:
        return f"<Channel fd={self._sock.fileno()} waiting={len(self._waiting)}>"

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Make the two sockets of a channel; neither is inherited by a program that is executed."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether frames wait for the other side to read."""
        return bool(self._waiting)

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame, now or as soon as the kernel takes it; the descriptors are duplicated.

        Raises FrameError for a message that does not travel here and ChannelClosed when nobody listens.
        """
        packet = self._outgoing.encode(message)
        if len(descriptors) > MAX_DESCRIPTORS:
            raise FrameError("too many descriptors for one frame")
        if not self._waiting and self._send_now(packet, descriptors):
            return
        was_idle = not self._waiting
        self._waiting.append((packet, tuple(os.dup(fd) for fd in descriptors)))
        if was_idle and self.on_wants_write is not None:
            self.on_wants_write(True)

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        while self._waiting:
            packet, descriptors = self._waiting[0]
            if not self._send_now(packet, descriptors):
                return
            self._waiting.popleft()
            for fd in descriptors:
                os.close(fd)
        if self.on_wants_write is not None:
            self.on_wants_write(False)

    def _send_now(self, packet: bytes, descriptors: tuple[int, ...]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        return True

    def receive(self) -> tuple[object, list[int]] | None:
        """Return the next frame and its descriptors, or None when there is none now.

        Raises ChannelClosed at the end and FrameError for a packet that is no frame; descriptors of
        such a packet are closed.  The caller owns the descriptors that it gets.
        """
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self._sock.recvmsg(MAX_FRAME_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        descriptors = _descriptors(ancillary)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise FrameError("a packet was cut off")
            if not packet:
                raise ChannelClosed("end of file")
            return self._incoming.decode(packet), descriptors
        except BaseException:
            for fd in descriptors:
                os.close(fd)
            raise

    def close(self) -> None:
        """Close this end; what waited is lost."""
        while self._waiting:
            for fd in self._waiting.popleft()[1]:
                os.close(fd)
        with contextlib.suppress(OSError):
            self._sock.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return list(received)
