"""Which source of facts is in force, by `[logon] provider` (architecture, section 4).

`auto` never takes a machine that has a logind for one without: what is not known then is who is logged
on, and nobody counts (fail closed).  Where nothing keeps account of log-ons, everybody counts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from openbits.service.logon.utmp import UtmpSource
from openbits.service.tasks import Tasks

BOOTED_BY_SYSTEMD: Final = "/run/systemd/system"


class Source(Protocol):
    """Who is logged on, from somewhere; tells by a callback that something may have changed."""

    ready: asyncio.Event
    """Set when the first answer, or the first reason for having none, has come."""

    @property
    def name(self) -> str:
        """The provider, as the configuration calls it."""

    @property
    def logged_on(self) -> frozenset[int] | None:
        """The uids of the people who are logged on; None: everybody counts as logged on."""

    @property
    def problem(self) -> str:
        """Why it is not known who is logged on, as a clause; empty when it is known."""

    def start(self) -> None:
        """Begin."""

    def close(self) -> None:
        """End; the callback is not called any more."""


class AlwaysSource:
    """Everybody counts as logged on."""

    name = "always"

    def __init__(self) -> None:
        self.logged_on: frozenset[int] | None = None
        self.problem = ""
        self.ready = asyncio.Event()

    def start(self) -> None:
        """Nothing ever changes."""
        self.ready.set()

    def close(self) -> None:
        """Nothing to end."""


class AutoSource:
    """logind, if this machine has one; else utmp, if something keeps it; else everybody counts."""

    def __init__(
        self,
        *,
        make_logind: Callable[[Callable[[], None]], LogindLike],
        make_utmp: Callable[[Callable[[], None]], UtmpSource],
        on_change: Callable[[], None],
    ) -> None:
        self._on_change = on_change
        self._logind = make_logind(self._changed)
        self._utmp = make_utmp(self._changed)
        self.ready = asyncio.Event()

    def __repr__(self) -> str:
        return f"<AutoSource {self.name}>"

    @property
    def name(self) -> str:
        """See Source."""
        if self._logind.seen or not self.ready.is_set():
            return "logind"
        return "utmp" if self._utmp.works else "always"

    @property
    def logged_on(self) -> frozenset[int] | None:
        """See Source."""
        match self.name:
            case "logind":
                return self._logind.logged_on
            case "utmp":
                return self._utmp.logged_on
            case _:
                return None

    @property
    def problem(self) -> str:
        """See Source."""
        return self._logind.problem if self.name == "logind" else ""

    def start(self) -> None:
        """See Source."""
        self._utmp.start()
        self._logind.start()

    def close(self) -> None:
        """See Source."""
        self._utmp.close()
        self._logind.close()

    def _changed(self) -> None:
        if self._logind.ready.is_set() and (self._logind.seen or self._utmp.ready.is_set()):
            self.ready.set()
        self._on_change()


class LogindLike(Source, Protocol):
    """What `auto` needs to know of logind."""

    seen: bool
    """Whether this machine has a logind, as far as is known."""


def make_source(
    provider: str,
    *,
    is_system: bool,
    tasks: Tasks,
    on_change: Callable[[], None],
    bus_address: str = "",
    systemd_marker: str = BOOTED_BY_SYSTEMD,
) -> Source:
    """Return the source that the configuration asks for; a user's own service needs none by itself."""
    if provider == "always" or (provider == "auto" and not is_system):
        return AlwaysSource()
    if provider == "utmp":
        return UtmpSource(tasks=tasks, on_change=on_change)
    # Here and not at the top: it costs 20 ms and 2 MiB, which a user's service can do without.
    from openbits.service.logon.logind import LogindSource  # noqa: PLC0415

    def make_logind(on_change: Callable[[], None], *, is_expected: bool) -> LogindSource:
        return LogindSource(tasks=tasks, on_change=on_change, address=bus_address, is_expected=is_expected)

    if provider == "logind":
        return make_logind(on_change, is_expected=True)
    return AutoSource(
        make_logind=lambda changed: make_logind(changed, is_expected=os.path.isdir(systemd_marker)),
        make_utmp=lambda changed: UtmpSource(tasks=tasks, on_change=changed),
        on_change=on_change,
    )
