"""Moves the rest of a body from a socket to a file inside the kernel, without the bytes passing through here.

socket → pipe → file, by splice(2).  Only for plain HTTP bodies of known length on a connection that
was taken over from libcurl (see `takeover`); never a byte more than that length is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Final

from openbits.worker.loop import READABLE, Loop
from openbits.worker.pace import PIECE_BYTES, Pace, set_width

_PIPE_BYTES: Final = 1024 * 1024
_TURN_BYTES: Final = 8 * 1024 * 1024
"""How much is moved before other connections get their turn."""


class SplicePipe:
    """The pipe in the middle; one serves all connections, since it is empty between two turns."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None
        self.capacity = 0

    def open(self) -> tuple[int, int]:
        """The reading and the writing end."""
        if self._ends is None:
            self._ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            # An account that has used up its pipe memory keeps the size it got.
            with contextlib.suppress(PermissionError):
                fcntl.fcntl(self._ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self.capacity = fcntl.fcntl(self._ends[1], fcntl.F_GETPIPE_SZ)
        return self._ends

    def close(self) -> None:
        """Throw the pipe away, with whatever is stuck in it."""
        if self._ends is not None:
            for fd in self._ends:
                os.close(fd)
            self._ends = None


class Splice:
    """One body on its way. `on_progress(total)` follows each turn; then `on_end` comes once.

    `on_end(None)`: every byte is in the file.  An OSError: reading or writing failed; its `filename`
    is set when it was the file.  EOFError: the server closed the connection too early.
    """

    def __init__(
        self,
        loop: Loop,
        pipe: SplicePipe,
        *,
        sock: int,
        file: int,
        offset: int,
        length: int,
        pace: Pace,
        on_progress: Callable[[int], None],
        on_end: Callable[[OSError | EOFError | None], None],
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._sock = sock
        self._file = file
        self.offset = offset
        self._left = length
        self._pace = pace
        self._is_held = False
        """Whether a limit keeps it from reading: the descriptor would speak all the time, and is not watched."""
        self._on_progress = on_progress
        self._on_end = on_end
        self._is_open = True
        loop.watch(sock, READABLE, self._on_readable)

    def __repr__(self) -> str:
        return f"<Splice at {self.offset} left={self._left}>"

    def close(self) -> None:
        """Stop; nothing is called any more."""
        if self._is_open:
            self._is_open = False
            if self._is_held:
                self._pace.forget(self._go_on)
            else:
                self._loop.unwatch(self._sock)
            os.close(self._sock)

    def set_width(self, window_bytes: int) -> None:
        """There is another limit, or none any more."""
        set_width(self._sock, window_bytes)

    def _hold(self) -> None:
        self._is_held = True
        self._loop.unwatch(self._sock)
        self._pace.wait(self._go_on)

    def _go_on(self) -> None:
        self._is_held = False
        self._loop.watch(self._sock, READABLE, self._on_readable)

    def _on_readable(self, _events: int) -> None:
        if not self._pace.may_go:
            self._hold()
            return
        start = self.offset
        error = self._turn()
        if self.offset > start:
            self._on_progress(self.offset)
        if self._is_open and (error is not None or not self._left):
            self.close()
            self._on_end(error)

    def _turn(self) -> OSError | EOFError | None:
        reading, writing = self._pipe.open()
        until = self.offset + _TURN_BYTES
        pace = self._pace
        while self._left and self.offset < until and pace.may_go:
            most = PIECE_BYTES if pace.is_on else self._pipe.capacity
            try:
                count = os.splice(self._sock, writing, min(self._left, most))
            except BlockingIOError:
                return None
            except OSError as error:
                return error
            if not count:
                return EOFError()
            if pace.is_on:
                pace.spend(count)
            try:
                self._drain(reading, count)
            except OSError as error:
                self._pipe.close()
                error.filename = "the file"
                return error
        return None

    def _drain(self, reading: int, count: int) -> None:
        while count:
            moved = os.splice(reading, self._file, count, offset_dst=self.offset)
            self.offset += moved
            self._left -= moved
            count -= moved
