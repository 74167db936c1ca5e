"""What the files of a transfer tell the service, and when: the beginnings of small files travel together.

The rule: nothing is told of a file before its beginning is, so that whatever is sent here sends what has waited first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openbits.core.model import ByteRange
from openbits.frames.codec import FrameError
from openbits.frames.worker import FileReceived, FilesStarted, FileStarted, RangesFilled
from openbits.worker.loop import Loop, Timer
from openbits.worker.ondemand import range_specs

_REPORT_S: Final = 0.25
_PIECES_PER_FRAME: Final = 900
_SMALL_BYTES: Final = 256 * 1024
_STARTED_CHARACTERS: Final = 100_000
"""What a packet holds, with some room; names and numbers of a FileStarted take the rest."""
_STARTED_CHARACTERS_BESIDE: Final = 400


class Reports:
    """One for each transfer."""

    def __init__(
        self, loop: Loop, transfer: int, send: Callable[[object], None], is_congested: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._transfer = transfer
        self._send = send
        self._is_congested = is_congested
        self._started: list[FileStarted] = []
        self._received: dict[int, int] = {}
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Reports transfer={self._transfer} waiting={len(self._started)}>"

    def close(self) -> None:
        """Nothing is told by itself any more."""
        if self._timer is not None:
            self._timer.cancel()

    def send(self, message: object) -> None:
        """Tell something of a file, after the beginnings of those that began before."""
        self.flush()
        self._send(message)

    def started(self, message: FileStarted) -> None:
        """The server has answered for a file."""
        if message.bytes_total is None or message.bytes_total > _SMALL_BYTES or message.restarted:
            self.send(message)
            return
        # A small file is soon done: its start and those of its neighbours travel in one packet.
        self._started.append(message)
        self._report_soon()

    def received(self, index: int, received_bytes: int) -> None:
        """Bytes of a file have come in."""
        self._received[index] = received_bytes
        self._report_soon()

    def filled(self, index: int, ranges: tuple[ByteRange, ...]) -> None:
        """Pieces of a file are durable."""
        self.flush()
        for start in range(0, len(ranges), _PIECES_PER_FRAME):
            pieces = range_specs(ranges[start : start + _PIECES_PER_FRAME])
            self._send(RangesFilled(transfer=self._transfer, index=index, ranges=pieces))

    def forget(self, index: int) -> None:
        """How much of a file has come in does not matter any more."""
        self._received.pop(index, None)

    def flush(self) -> None:
        """Tell of the beginnings that wait."""
        started, self._started = self._started, []
        packet: list[FileStarted] = []
        room = _STARTED_CHARACTERS
        for message in started:
            room -= len(message.response_headers) + _STARTED_CHARACTERS_BESIDE
            if room < 0:
                self._send_together(packet)
                packet, room = [], _STARTED_CHARACTERS
            packet.append(message)
        if packet:
            self._send_together(packet)

    def _send_together(self, started: list[FileStarted]) -> None:
        try:
            self._send(FilesStarted(transfer=self._transfer, files=tuple(started)))
        except FrameError:
            # Headers full of characters that travel as escapes: alone each of them fits.
            for message in started:
                self._send(message)

    def _report_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._loop.now + _REPORT_S, self._report)

    def _report(self) -> None:
        self._timer = None
        self.flush()
        received, self._received = self._received, {}
        # Only for people to see: when the service cannot keep up, it is not told more of it.
        if not self._is_congested():
            for index, received_bytes in received.items():
                self._send(FileReceived(transfer=self._transfer, index=index, received_bytes=received_bytes))
