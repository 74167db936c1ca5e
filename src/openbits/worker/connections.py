"""Whose connections the requests of one client take: those that everyone shares, or some that are nobody else's.

The rule: what was proved once for a connection is of use to those requests alone that could have proved it themselves.
They have a number in common, and connections of their own, one to each host.  Tunnels that a proxy makes after a
handshake are dug here, too, and belong to the number for which they were dug.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pycurl

from openbits.core.http import Response
from openbits.worker.asking import Request
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure
from openbits.worker.pace import Pace, make_narrow
from openbits.worker.tunnel import Digger, Outcome, place_of


class Connections:
    """Those of one client."""

    def __init__(self, shared: Engine, *, connect_timeout_s: int, pace: Pace | None = None) -> None:
        self._pace = pace
        self.shared = shared
        self._connect_timeout_s = connect_timeout_s
        self._own: tuple[int, Engine] | None = None
        self._digger: Digger | None = None
        self._tunnel_fd = -1
        """A tunnel that was dug for the request that follows."""
        self._place = ""
        """Where all connections of the handle lead to, if they are tunnels that were dug before."""
        self.lacks_tunnel = False
        """Whether the last request would have needed a tunnel, and there is none any more."""

    def __repr__(self) -> str:
        return f"<Connections own={self._own[0] if self._own is not None else 0} place={self._place!r}>"

    def engine_for(self, number: int) -> Engine:
        """The connections of requests with this number; those of requests without one are shared."""
        if not number:
            return self.shared
        if self._own is None or self._own[0] != number:
            self._give_up_own()
            # One connection to a host: what was begun on it is gone on with on it.
            self._own = number, self.shared.another(most_to_a_host=1)
        return self._own[1]

    def _give_up_own(self) -> None:
        if self._own is not None:
            self._own[1].close_soon()
            self._own = None

    def close(self) -> None:
        """Give everything back that is not shared."""
        self.fill_in()
        if self._tunnel_fd >= 0:
            os.close(self._tunnel_fd)
            self._tunnel_fd = -1
        self._give_up_own()

    # --- tunnels -----------------------------------------------------------------------------

    @property
    def is_digging(self) -> bool:
        """Whether a tunnel is being asked for."""
        return self._digger is not None and self._digger.is_busy

    def dig(self, request: Request, done: Callable[[Response | Failure | None], None]) -> None:
        """Ask for the tunnel that a request needs; `done` gets what the proxy answers, None when there is a tunnel."""
        if self._digger is None:
            self._digger = Digger(self.shared, connect_timeout_s=self._connect_timeout_s)

        def dug(outcome: Outcome) -> None:
            if isinstance(outcome, Response):
                # The connection is kept: the handshake goes on over it.
                done(outcome)
                return
            self.fill_in()
            if isinstance(outcome, Failure):
                done(outcome)
                return
            self._tunnel_fd = outcome
            done(None)

        self._digger.dig(request, dug)

    def fill_in(self) -> None:
        """There is a tunnel, or there will be none: the connection to the proxy is of no use any more."""
        if self._digger is not None:
            self._digger.close()
            self._digger = None

    def lay(self, curl: Any, request: Request) -> bool:
        """Let the handle take tunnels that were dug, where a request needs it; return whether that is new."""
        self.lacks_tunnel = False
        place = place_of(request.url) if request.digs else ""
        if place == self._place:
            return False
        if place:
            # Nobody looks the server's name up here: that is for the proxy to do.
            curl.setopt(pycurl.CONNECT_TO, [f"{place}:127.0.0.1:9"])
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket_wanted)
            curl.setopt(pycurl.SOCKOPTFUNCTION, lambda _fd, _purpose: int(pycurl.SOCKOPT_ALREADY_CONNECTED))
        else:
            # An empty list would change nothing.
            curl.unsetopt(pycurl.CONNECT_TO)
            curl.setopt(pycurl.OPENSOCKETFUNCTION, None)
            curl.setopt(pycurl.SOCKOPTFUNCTION, None)
        self._place = place
        return True

    def forget_handle(self) -> None:
        """The handle is another one, of which nothing was said."""
        self._place = ""

    def _on_socket_wanted(self, _purpose: int, _address: object) -> socket.socket | int:
        """libcurl would make a connection: it gets the tunnel, once."""
        fd, self._tunnel_fd = self._tunnel_fd, -1
        if fd < 0:
            self.lacks_tunnel = True
            return int(pycurl.SOCKET_BAD)
        if self._pace is not None and self._pace.is_on and self._pace.window_bytes:
            make_narrow(fd, self._pace.window_bytes)
        # pycurl keeps a duplicate.
        return socket.socket(fileno=fd)
