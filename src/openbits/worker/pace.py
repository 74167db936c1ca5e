"""A bandwidth limit, as a transfer keeps to it: every byte is paid for, and who owes something waits.

The rule: bytes come in pieces, and a piece may be taken as long as nothing is owed for the last one; what is owed is
asked for at once, and some ahead where that turned out to be spent soon.  What is left when the transfer ends is given
back.  A transfer without a limit pays nothing, and asks for nothing (P2, P10).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

from openbits.frames.worker import LeaseWanted
from openbits.worker.loop import Loop

PIECE_BYTES: Final = 16 * 1024
"""No piece of a paced transfer is larger."""
LEAST_WINDOW_BYTES: Final = 4096
"""A connection with less room would stand still."""
_SOON_S: Final = 0.05
_LONG_S: Final = 0.2
_MOST_AHEAD_BYTES: Final = 1024 * 1024
_WIDE_BYTES: Final = 4 * 1024 * 1024
_REFILL_BYTES: Final = 512 * 1024
"""A connection that gets more room is filled at once: no more than this, as long as there is a limit."""
_NARROW_BYTES: Final = 256 * 1024
"""Where there is to be more room, the kernel's own judgement is better: it gives no more than is read, and on long ways
a fixed window would be a limit of its own."""


class Pace:
    """That of one transfer, with all its connections."""

    __slots__ = (
        "_ahead_bytes",
        "_asked_bytes",
        "_balance_bytes",
        "_lent_at",
        "_loop",
        "_send",
        "_transfer",
        "_waiting",
        "is_on",
        "window_bytes",
    )

    def __init__(self, loop: Loop, transfer: int, send: Callable[[object], None]) -> None:
        self._loop = loop
        self._transfer = transfer
        self._send = send
        self.is_on = False
        """Whether there is a limit; looked at with every piece of those that have none."""
        self.window_bytes = 0
        """How much room all connections together have for what comes unasked; 0: as much as they like."""
        self._balance_bytes = 0
        self._asked_bytes = 0
        self._ahead_bytes = 0
        self._lent_at = 0.0
        self._waiting: dict[Callable[[], None], None] = {}

    def __repr__(self) -> str:
        state = f"balance={self._balance_bytes} waiting={len(self._waiting)}" if self.is_on else "off"
        return f"<Pace {self._transfer} {state}>"

    def set(self, *, is_on: bool, window_bytes: int) -> None:
        """There is a limit from now on, or none any more."""
        was_on, self.is_on, self.window_bytes = self.is_on, is_on, window_bytes
        if is_on and not was_on:
            # Others may have spent what there was: the first piece waits, too.
            self._balance_bytes, self._asked_bytes, self._ahead_bytes = -1, 0, 0
            self._ask()
        elif not is_on:
            self._balance_bytes = self._asked_bytes = 0
            self._go_on()

    @property
    def may_go(self) -> bool:
        """Whether a piece may be taken now."""
        return self._balance_bytes >= 0 or not self.is_on

    def spend(self, count: int) -> None:
        """So much was received, or is going to be sent; only where there is a limit."""
        self._balance_bytes -= count
        if self._balance_bytes < 0 and not self._asked_bytes:
            self._ask()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call this when a piece may be taken again; somebody who waits already is called once."""
        self._waiting[go_on] = None

    def forget(self, go_on: Callable[[], None]) -> None:
        """Do not call this any more."""
        self._waiting.pop(go_on, None)

    def lent(self, count: int) -> None:
        """The answer to what was asked for, or to a part of it."""
        if not self.is_on:
            return
        now = self._loop.now
        if self._asked_bytes and count >= self._asked_bytes:
            if now - self._lent_at < _SOON_S:
                self._ahead_bytes = min(_MOST_AHEAD_BYTES, max(PIECE_BYTES, 2 * self._ahead_bytes))
            elif now - self._lent_at > _LONG_S:
                self._ahead_bytes //= 2
        self._lent_at = now
        self._asked_bytes = 0
        self._balance_bytes += count
        if self._balance_bytes < 0:
            self._ask()
        else:
            self._go_on()

    def close(self) -> None:
        """The transfer ends: say exactly what it still owes, or has left."""
        self._waiting.clear()
        if self.is_on and (self._balance_bytes or self._asked_bytes):
            self.is_on = False
            self._send(LeaseWanted(transfer=self._transfer, wanted_bytes=-self._balance_bytes))

    def _ask(self) -> None:
        self._asked_bytes = self._ahead_bytes - self._balance_bytes
        self._send(LeaseWanted(transfer=self._transfer, wanted_bytes=self._asked_bytes))

    def _go_on(self) -> None:
        # Each in turn: the first that takes more than there is lets the others wait.
        for go_on in list(self._waiting):
            if not self.may_go:
                return
            if go_on in self._waiting:
                del self._waiting[go_on]
                go_on()


def make_narrow(fd: int, window_bytes: int) -> None:
    """Give a connection that is about to be made room for so many bytes that come or go unasked.

    What the kernel holds for a transfer has been sent by the server already, whatever the transfer is allowed.
    """
    if window_bytes <= _NARROW_BYTES:
        set_width(fd, window_bytes)


def set_width(fd: int, window_bytes: int) -> None:
    """Give a connection that is in use other room; 0: much."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        if sock.type is socket.SOCK_STREAM:
            room = min(window_bytes, _REFILL_BYTES) or _WIDE_BYTES
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
