"""Knows whether there is a network, from the kernel's own reports; nothing is ever polled (inventory S5, S6).

A report says only that something has changed: what holds is then asked anew, all of it.  The kernel
does not report every route that a fallen interface takes with it, and reports are lost when there
are too many; a picture that is pieced together from them goes wrong in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from openbits.core.network import has_network, loopback_names_of
from openbits.service import netlink

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.05
"""One change comes as a burst of reports: they are answered together."""
MAX_SHARE: Final = 0.05
"""At most this share of the time goes into asking, on a router whose million routes never rest."""
ASK_AGAIN_S: Final = 5.0
"""When the kernel could not answer for the moment: its tables changed all the while, or it has no memory."""
HOSTS_PATH: Final = "/etc/hosts"


class NetworkWatcher:
    """Calls `on_change` whenever the network has come or gone.

    Where the kernel cannot be asked, a network is taken to be there, and `problem` says why.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[bool], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._watch: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cost_s = 0.0
        self._asked = 0
        self._reports = 0
        self.has_network = True
        """Whether there is a network, as of the last report."""
        self.problem = ""
        """Why the kernel cannot be asked; empty when it can."""

    def __repr__(self) -> str:
        state = "closed" if self._watch is None else "watching"
        return f"<NetworkWatcher {state} has_network={self.has_network}>"

    def statistics(self) -> dict[str, int | float | bool]:
        """Counters, for people."""
        return {
            "has_network": self.has_network,
            "network_reports": self._reports,
            "network_questions": self._asked,
            "network_question_s": round(self._cost_s, 6),
        }

    def start(self) -> None:
        """Begin to watch; `has_network` is right when this returns, and `on_change` has not been called."""
        try:
            # First the watch, then the question: what happens in between is reported.
            self._watch = netlink.open_watch()
            self.has_network = self._ask()
        except (OSError, netlink.NetlinkError) as error:
            self._give_up(error)
            self.has_network = True
            return
        self._loop.add_reader(self._watch, self._read)

    def close(self) -> None:
        """Stop watching; `on_change` is not called any more. Closing twice is allowed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watch is not None:
            self._loop.remove_reader(self._watch)
            self._watch.close()
            self._watch = None

    def _give_up(self, error: Exception) -> None:
        self.problem = f"the kernel does not tell about networks: {error}"
        log.warning("action=network-unknown error=%s", error)
        self.close()

    def _read(self) -> None:
        assert self._watch is not None
        heard = False
        while True:
            try:
                _, (port, _groups) = self._watch.recvfrom(16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    # Reports were lost. That is one more reason to ask, and no other harm.
                    heard = True
                    continue
                self._give_up(error)
                self._changed(has=True)
                return
            self._reports += 1
            heard = heard or port == 0
        if heard and self._timer is None:
            self._timer = self._loop.call_later(max(SETTLE_S, self._cost_s / MAX_SHARE), self._settled)

    def _settled(self) -> None:
        self._timer = None
        try:
            has = self._ask()
        except (OSError, netlink.NetlinkError) as error:
            log.warning("action=network-unknown error=%s", error)
            self._timer = self._loop.call_later(ASK_AGAIN_S, self._settled)
        else:
            self._changed(has=has)

    def _changed(self, *, has: bool) -> None:
        before, self.has_network = self.has_network, has
        if before != has:
            log.info("action=network-%s", "up" if has else "down")
            self._on_change(has)

    def _ask(self) -> bool:
        started = time.monotonic()
        with contextlib.closing(netlink.routes()) as routes:
            has = has_network(netlink.links(), routes)
        self._cost_s = time.monotonic() - started
        self._asked += 1
        return has


def loopback_names(hosts_path: str = HOSTS_PATH) -> frozenset[str]:
    """Return the names, in lower case, that a hosts file gives to this machine's loopback addresses."""
    try:
        with open(hosts_path, encoding="utf-8", errors="replace") as file:
            return loopback_names_of(file.read())
    except OSError:
        return frozenset()


class HostsFile:
    """The loopback names of a hosts file, read again when the file has changed."""

    def __init__(self, path: str = HOSTS_PATH) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._names: frozenset[str] = frozenset()

    def loopback_names(self) -> frozenset[str]:
        """Return the names as they are now; costs one stat call when nothing has changed."""
        version = None
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version is None or version != self._version:
            self._names, self._version = loopback_names(self._path), version
        return self._names
