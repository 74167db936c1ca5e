"""libcurl's connections in the worker's loop.

An `Engine` drives what its `Client`s (see `client`) ask for; all of them share its connections.  Together
the two modules are the only ones that know pycurl.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import pycurl

from openbits.paths import trust_store
from openbits.worker.loop import READABLE, WRITABLE, Loop, Timer


class Carried(Protocol):
    """Who is behind a request."""

    def abort(self) -> None:
        """Drop it."""

    def finish(self, error: tuple[int, str] | None) -> None:
        """libcurl is done with it."""

    def try_socket(self) -> None:
        """See `consider_socket`."""


class Engine:
    """All connections of the worker."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_curl_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_curl_timer)
        self._watched: set[int] = set()
        self._taken: set[int] = set()
        self._clients: dict[Any, Carried] = {}
        self._candidates: list[Carried] = []
        self._is_due = False
        self._in_curl = False
        self._is_settling = False
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self.ca_file = trust_store()

    def __repr__(self) -> str:
        return f"<Engine requests={len(self._clients)} sockets={len(self._watched)}>"

    def close(self) -> None:
        """Close every connection."""
        for client in list(self._clients.values()):
            client.abort()
        self._multi.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for fd in self._watched:
            self._loop.unwatch(fd)
        self._watched.clear()

    def another(self, *, most_to_a_host: int = 0) -> Engine:
        """Return an engine with connections of its own, at most so many to one host at a time."""
        engine = Engine(self._loop)
        if most_to_a_host:
            engine._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, most_to_a_host)
        return engine

    def close_soon(self) -> None:
        """Close every connection when whoever calls this, maybe from inside a request, has returned."""
        self._loop.post(self.close)

    def start(self, curl: Any, client: Carried) -> None:
        """Put a request on its way: it is written to a kept connection before this returns."""
        self._clients[curl] = client
        self._multi.add_handle(curl)
        self._is_due = False
        self._enter(pycurl.SOCKET_TIMEOUT, 0)
        if not self._is_settling:
            # What ended already, or wants its socket, is dealt with in a moment, not under the caller's feet.
            self._is_due = True
            self._arm(time.monotonic())

    def remove(self, curl: Any) -> None:
        """Take a request back; a connection in the middle of an answer is closed."""
        del self._clients[curl]
        self._multi.remove_handle(curl)

    def consider_socket(self, client: Carried) -> None:
        """A client would like its connection when libcurl has returned."""
        self._candidates.append(client)

    def release_watch(self, fd: int) -> None:
        """Stop watching a descriptor for libcurl until `restore_watch`."""
        self._taken.add(fd)
        if fd in self._watched:
            self._watched.discard(fd)
            self._loop.unwatch(fd)

    def restore_watch(self, fd: int) -> None:
        """The request whose connection was taken is over, and its number may be another connection's soon.

        libcurl does not tell: it had let go of a paused connection before.
        """
        self._taken.discard(fd)

    def _on_curl_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            if fd in self._watched:
                self._watched.discard(fd)
                self._loop.unwatch(fd)
            return
        if fd in self._taken:
            return
        mask = (READABLE if what & pycurl.POLL_IN else 0) | (WRITABLE if what & pycurl.POLL_OUT else 0)
        if fd in self._watched:
            self._loop.change(fd, mask)
        else:
            self._watched.add(fd)
            self._loop.watch(fd, mask, lambda events: self._on_ready(fd, events))

    def _on_curl_timer(self, timeout_ms: int) -> None:
        if timeout_ms == 0:
            self._is_due = True
            self._deadline = None
            if not self._in_curl and not self._is_settling:
                self._arm(time.monotonic())
            return
        self._deadline = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
        if self._deadline is not None:
            self._arm(self._deadline)

    def _arm(self, when: float) -> None:
        # An earlier timer is kept and finds out by itself that it came too early: requests move their
        # deadlines all the time, and a heap full of dead timers costs more than one vain wake-up.
        if self._timer is None or self._timer.when > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline is not None:
            if self._deadline <= time.monotonic():
                self._is_due = True
                self._deadline = None
            else:
                self._arm(self._deadline)
        if self._is_due:
            self._settle()

    def _on_ready(self, fd: int, events: int) -> None:
        mask = 0
        if events & READABLE:
            mask |= pycurl.CSELECT_IN
        if events & WRITABLE:
            mask |= pycurl.CSELECT_OUT
        if events & ~(READABLE | WRITABLE):
            mask |= pycurl.CSELECT_ERR
        self._enter(fd, mask)
        self._settle()

    def _enter(self, fd: int, mask: int) -> None:
        self._in_curl = True
        try:
            self._multi.socket_action(fd, mask)
        finally:
            self._in_curl = False

    def _settle(self) -> None:
        """Let libcurl do what is due, then deal with what came out of it."""
        self._is_settling = True
        try:
            while True:
                if self._is_due:
                    self._is_due = False
                    self._enter(pycurl.SOCKET_TIMEOUT, 0)
                while self._candidates:
                    self._candidates.pop().try_socket()
                if not self._collect():
                    break
        finally:
            self._is_settling = False
        if self._is_due:
            # libcurl would go on reading a fast connection for ever: the others come first.
            self._arm(time.monotonic())

    def _collect(self) -> bool:
        _, done, failed = self._multi.info_read()
        for curl in done:
            self._clients[curl].finish(None)
        for curl, code, text in failed:
            if curl in self._clients:
                self._clients[curl].finish((code, text))
        return bool(done or failed)
