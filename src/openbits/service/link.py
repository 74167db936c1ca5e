"""A channel in the event loop: frames come in by a callback, the end of the other side by another."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.codec import FrameError

log = logging.getLogger(__name__)

FRAMES_PER_TURN = 64
"""How many frames are read before others get a turn."""


class Link:
    """Reads a channel whenever something comes, and writes to it whenever the kernel takes it.

    `on_closed` is called exactly once: when the other side is gone, or has sent what is no frame.  A frame that
    comes with one descriptor goes to `on_carrier`, to which the descriptor then belongs; without an
    `on_carrier`, and where more than one comes, descriptors are closed unseen.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        on_frame: Callable[[object], None],
        on_closed: Callable[[str], None],
        on_carrier: Callable[[object, int], None] | None = None,
    ) -> None:
        self._channel = channel
        self._on_carrier = on_carrier
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._fd = channel.fileno()
        self._open = True
        channel.on_wants_write = self._watch_for_writing
        self._loop.add_reader(self._fd, self._read)

    @property
    def is_open(self) -> bool:
        """Whether the other side is still there, as far as is known."""
        return self._open

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        """Send a frame; one that nobody can get any more is dropped, `on_closed` tells of it."""
        if not self._open:
            return
        try:
            self._channel.send(message, descriptors)
        except ChannelClosed as error:
            self._loop.call_soon(self._end, str(error))

    def close(self) -> None:
        """Close this side without further callbacks."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._channel.close()

    def _watch_for_writing(self, wants: bool) -> None:
        if wants:
            self._loop.add_writer(self._fd, self._write)
        else:
            self._loop.remove_writer(self._fd)

    def _write(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed as error:
            self._end(str(error))

    def _read(self) -> None:
        for _ in range(FRAMES_PER_TURN):
            if not self._open:
                return
            try:
                received = self._channel.receive()
            except (ChannelClosed, FrameError) as error:
                self._end(str(error))
                return
            if received is None:
                return
            message, descriptors = received
            if self._on_carrier is not None and len(descriptors) == 1:
                self._on_carrier(message, descriptors[0])
                continue
            for fd in descriptors:
                os.close(fd)
            self._on_frame(message)

    def _end(self, reason: str) -> None:
        if self._open:
            self.close()
            self._on_closed(reason)
