"""The temporary file of a file that comes piece by piece: holes stay holes, and what is durable is told by ranges.

The file is as long as the last piece that was written; where nothing was written the disk holds nothing.  So no room
is reserved, and the size of the file says nothing of what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.core.model import ByteRange
from openbits.core.pieces import end_of, without
from openbits.core.ranges import Coverage
from openbits.worker.loop import Loop
from openbits.worker.places import Place
from openbits.worker.sink import Intervals, Sink, SinkSettings
from openbits.worker.syncer import Syncer

_CHECKPOINT_S: Final = 0.25
"""Somebody waits for these pieces: they are made durable, and reported, sooner than a file that is fetched whole."""


class PieceSink(Sink):
    """Raises TransferError with the file's name where the file system refuses."""

    def __init__(
        self,
        loop: Loop,
        syncer: Syncer,
        place: Place,
        settings: SinkSettings,
        on_filled: Callable[[tuple[ByteRange, ...]], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        settings = replace(settings, checkpoint_s=min(settings.checkpoint_s, _CHECKPOINT_S))
        super().__init__(loop, syncer, place, settings, lambda _prefix: None, on_failed)
        self._on_filled = on_filled
        self.filled: tuple[ByteRange, ...] = ()
        """What is durable, as far as that has been told."""

    @property
    def written(self) -> tuple[ByteRange, ...]:
        """What has been received; everything of it is in the file when this returns."""
        return _ranges(self.coverage.intervals)

    def continue_with(self, filled: tuple[ByteRange, ...]) -> bool:
        """Take up the file of an earlier run; False when it is not there as it was left."""
        if not self.continue_from(end_of(filled)):
            return False
        self._coverage = Coverage()
        for piece in filled:
            self._coverage.add(piece.offset, piece.offset + piece.length)
        self.filled = filled
        return True

    def reset(self) -> None:
        """Drop everything."""
        super().reset()
        self.filled = ()

    def reserve(self, total: int) -> None:
        """Nothing is reserved: nobody knows how much of the file will ever be asked for."""

    def note_durable(self, written: Intervals) -> None:
        """These bytes would survive a power cut: tell which of them are news."""
        filled = _ranges(written)
        news = without(filled, self.filled)
        self.filled = filled
        if news:
            self._on_filled(news)


def _ranges(intervals: Intervals) -> tuple[ByteRange, ...]:
    return tuple(ByteRange(start, end - start) for start, end in intervals)
