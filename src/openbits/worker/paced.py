"""What a bandwidth limit makes of libcurl's requests: they wait between two pieces, on connections with little room.

The rule: libcurl is held by what its callbacks return, and let go on from outside of them; a request that is over waits
for nothing.  A connection that was given another width is used by nobody else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import pycurl

from openbits.worker.asking import Handler, Request
from openbits.worker.connections import Connections
from openbits.worker.curlhandle import set_piece
from openbits.worker.pace import PIECE_BYTES, Pace, make_narrow, set_width

HOLD_RECEIVING: Final = int(pycurl.WRITEFUNC_PAUSE)


class Paced(ABC):
    """The part of a client that keeps to its transfer's pace."""

    _curl: Any
    _handler: Handler | None
    _request: Request | None
    _connections: Connections
    _is_tunnelled: bool
    _has_dug: bool

    def __init__(self, pace: Pace | None) -> None:
        self._pace = pace
        self._is_paused = False
        """Whether libcurl waits for more of the request's body."""
        self._is_held = False
        """Whether a limit keeps it from receiving."""
        self._is_slow = self._is_spent = False

    @abstractmethod
    def finish(self, error: tuple[int, str] | None) -> None:
        """libcurl is done with the request."""

    def forget_width(self) -> None:
        """The handle is another one, of which nothing was said."""
        self._is_slow = self._is_spent = False

    def _prepare_pace(self, curl: Any, request: Request) -> bool:
        """Say before a request how it goes; return whether there is a limit."""
        if self._is_spent:
            self._is_spent = False
            curl.setopt(pycurl.FORBID_REUSE, 0)
        is_slow = self._pace is not None and self._pace.is_on
        if is_slow or self._is_slow:
            self._set_pace(curl, request, is_slow=is_slow)
        return is_slow

    def _on_socket_made(self, fd: int, _purpose: int) -> int:
        """A connection is being made, on which the proxy is asked for a tunnel first, or which is to be narrow."""
        self._has_dug = self._is_tunnelled
        if self._pace is not None and self._pace.is_on and self._pace.window_bytes:
            make_narrow(fd, self._pace.window_bytes)
        return int(pycurl.SOCKOPT_OK)

    def _set_pace(self, curl: Any, request: Request, *, is_slow: bool) -> None:
        if is_slow is not self._is_slow:
            set_piece(curl, PIECE_BYTES if is_slow else 0)
            self._is_slow = is_slow
        if not request.digs:
            wants_sockets = is_slow or self._is_tunnelled
            curl.setopt(pycurl.SOCKOPTFUNCTION, self._on_socket_made if wants_sockets else None)

    def set_width(self, window_bytes: int) -> None:
        """There is another limit, or none any more: the connection that is in use gets other room."""
        if self._handler is None or self._connections.is_digging:
            return
        active = self._curl.getinfo(pycurl.ACTIVESOCKET)
        if active >= 0:
            set_width(active, window_bytes)
            if self._request is not None and not self._request.method and not self._request.connection:
                # It is not for others, who may have another limit.
                self._curl.setopt(pycurl.FORBID_REUSE, 1)
                self._is_spent = True

    def _hold(self, pace: Pace) -> int:
        self._is_held = True
        pace.wait(self._receive_on)
        return HOLD_RECEIVING

    def _receive_on(self) -> None:
        """There is room for a piece again."""
        if self._is_held and self._handler is not None:
            self._unpause()

    def _go_on(self) -> None:
        """More of the body has been read, or may be sent."""
        if self._handler is not None and self._is_paused:
            self._unpause()

    def _unpause(self) -> None:
        self._is_held = self._is_paused = False
        try:
            # What libcurl holds back comes at once, from inside this call.
            self._curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            if self._handler is not None:
                self.finish((error.args[0], str(error.args[-1])))

    def _let_go(self) -> None:
        """Nothing waits any more."""
        if self._pace is not None and (self._is_held or self._is_paused):
            self._pace.forget(self._receive_on)
            self._pace.forget(self._go_on)
        self._is_held = self._is_paused = False
