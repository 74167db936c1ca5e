"""Asks logind who is logged on, whenever anything hints at a change (inventory I2).

Signals of logind, its files under /run/systemd and a bus that comes or goes are hints: each leads to
one fresh look at everything, and one that comes during a look leads to exactly one more.  Only what
logind answers is a fact.  Its files matter because it sends no signal when a session begins to close.

Facts outlive the connection to logind by GRACE_S; then nobody is logged on, until it is known again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from openbits.service.logon import inotify
from openbits.service.logon.bus import BUS_NAME, BUS_PATH, BusGone, BusRefusal, Connection, socket_of
from openbits.service.logon.facts import counts_as_logged_on, lingers, uid_of
from openbits.service.logon.pathwatch import PathWatch
from openbits.service.tasks import Tasks

log = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "unix:path=/run/dbus/system_bus_socket"
DIRECTORIES: Final = ("/run/systemd/users", "/run/systemd/sessions", "/var/lib/systemd/linger")
GRACE_S: Final = 30.0
SETTLE_S: Final = 0.02
"""One log-on is a burst of hints: they are answered together."""
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 300.0
"""A bus that is there and does not let us in gives no sign when it does: only trying tells."""

_LOGIN: Final = "org.freedesktop.login1"
_LOGIN_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_ABSENT: Final = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.",
    "org.freedesktop.systemd1.",
)
"""How a bus says that nobody answers to a name, and that nobody could be started who would."""
_NO_ANSWER: Final = (*_ABSENT, "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected")
"""How a bus says that there will be no answer, since the one who was asked has ended: nothing about what was asked."""


class LogindSource:
    """Who is logged on, from logind; `on_change` is called whenever an attribute may have changed."""

    name = "logind"

    def __init__(
        self,
        *,
        tasks: Tasks,
        on_change: Callable[[], None],
        address: str = "",
        is_expected: bool,
        directories: Sequence[str] = DIRECTORIES,
        grace_s: float = GRACE_S,
    ) -> None:
        self._tasks = tasks
        self._on_change = on_change
        self._address = address or DEFAULT_ADDRESS
        self._grace_s = grace_s
        self._wake = asyncio.Event()
        self._known: frozenset[int] | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._looks = 0
        self._owner = ""
        """The unique name of logind's connection; signals from others are none of logind's."""
        self.seen = is_expected
        """Whether this machine has a logind: it was expected, or answered once."""
        self.problem = "logind has not answered yet"
        """Why it is not known who is logged on; empty when it is known."""
        self.ready = asyncio.Event()
        """Set when the first answer, or the first reason for having none, has come."""
        self._watches = [
            PathWatch(path, mask=inotify.MOVED_TO | inotify.DELETE, on_change=self._hint) for path in directories
        ]
        socket = socket_of(self._address)
        self._socket_watch = PathWatch(socket, mask=0, on_change=self._socket_changed) if socket else None

    def __repr__(self) -> str:
        return f"<LogindSource looks={self._looks} problem={self.problem!r}>"

    @property
    def logged_on(self) -> frozenset[int]:
        """Who is logged on, as far as is known; nobody when nothing is known (fail closed)."""
        return self._known if self._known is not None else frozenset()

    @property
    def looks(self) -> int:
        """How often everything was asked for."""
        return self._looks

    def start(self) -> None:
        """Begin; `ready` is set soon."""
        for watch in self._watches:
            watch.start()
        if self._socket_watch is not None:
            self._socket_watch.start()
        self._tasks.start("logind", self._run())

    def close(self) -> None:
        """Stop watching; the tasks are ended by whoever owns them."""
        for watch in self._watches:
            watch.close()
        if self._socket_watch is not None:
            self._socket_watch.close()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        self._on_change = lambda: None

    # --- hints ------------------------------------------------------------------------------------

    def _hint(self) -> None:
        self._wake.set()

    def _socket_changed(self) -> None:
        self._failures = 0
        self._wake.set()

    def _signal(self, sender: str, member: str, arguments: Sequence[Any]) -> None:
        if sender == BUS_NAME and member == "NameOwnerChanged":
            if len(arguments) == 3 and arguments[0] == _LOGIN:
                self._failures = 0
                self._wake.set()
        elif sender == self._owner:
            # Anybody may send us a signal; only logind's make us work.
            self._wake.set()

    # --- life --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._serve()
            except BusGone as error:
                self._not_known(f"the message bus at {self._address} cannot be asked: {error}")
                await self._wait_for_bus(isinstance(error.__cause__, FileNotFoundError))

    async def _wait_for_bus(self, is_absent: bool) -> None:
        if is_absent and self._socket_watch is not None and not self._socket_watch.problem:
            await self._wait(None)
        else:
            # That the connection ended is known; a hint from now on is worth an attempt at once.
            self._wake.clear()
            await self._wait(self._next_delay())
        await asyncio.sleep(SETTLE_S)

    def _next_delay(self) -> float:
        self._failures += 1
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 20)))

    async def _wait(self, delay_s: float | None) -> None:
        """Wait for a hint, or for so long."""
        timer = None
        if delay_s is not None:
            timer = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _serve(self) -> None:
        """Connect, and look again after every hint. Raises BusGone; there is no other way out."""
        connection = await Connection.open(
            self._address, tasks=self._tasks, on_signal=self._signal, on_closed=lambda _reason: self._wake.set()
        )
        try:
            # First the subscriptions, then the questions: what happens in between is told.
            await _subscribe(connection)
            while not connection.ended():
                self._wake.clear()
                loop = asyncio.get_running_loop()
                started = loop.time()
                delay_s = await self._look(connection)
                took_s = loop.time() - started
                await self._wait(delay_s)
                # On a machine where people come and go all the time, at most half of it goes into looking.
                await asyncio.sleep(max(SETTLE_S, took_s))
            raise BusGone(connection.ended())
        finally:
            self._owner = ""
            connection.close()

    async def _look(self, connection: Connection) -> float | None:
        """Ask for everything; return when to ask again at the latest, None when nothing needs that."""
        self._looks += 1
        try:
            known = await self._ask(connection)
        except BusRefusal as error:
            absent = error.name.startswith(_ABSENT)
            if absent and not self.seen:
                # Should it come after all, the bus tells.
                self._settled_without()
                return None
            self.seen = True
            self._not_known("logind is not there" if absent else f"logind refuses to say: {error}")
            return self._next_delay()
        self._failures = 0
        self.seen = True
        self._known_now(known)
        return None

    async def _ask(self, connection: Connection) -> frozenset[int]:
        try:
            # Whoever answers may also hint.
            reply = await connection.call(BUS_NAME, BUS_PATH, BUS_NAME, "GetNameOwner", "s", _LOGIN)
            self._owner = str(_only(reply))
        except BusRefusal:
            # The next call may have the bus start it, and the bus then tells who it is.
            self._owner = ""
        sessions = _entries(await connection.call(_LOGIN, _LOGIN_PATH, _MANAGER, "ListSessions"), uid_at=1, length=5)
        users = _entries(await connection.call(_LOGIN, _LOGIN_PATH, _MANAGER, "ListUsers"), uid_at=0, length=3)
        known: set[int] = set()
        for uid, path in sessions:
            if uid not in known and counts_as_logged_on(await _properties(connection, path, f"{_LOGIN}.Session")):
                known.add(uid)
        for uid, path in users:
            if uid not in known and lingers(await _properties(connection, path, f"{_LOGIN}.User")):
                known.add(uid)
        return frozenset(known)

    # --- what is known ---------------------------------------------------------------------------------

    def _known_now(self, known: frozenset[int]) -> None:
        self._end_grace()
        self._known, self.problem = known, ""
        self._tell()

    def _not_known(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("action=logon-unknown reason=%s", problem)
        self.problem = problem
        if self._known is not None and self._grace_timer is None:
            self._grace_timer = asyncio.get_running_loop().call_later(self._grace_s, self._forget)
        self._tell()

    def _forget(self) -> None:
        log.warning("action=logon-forgotten after_s=%g", self._grace_s)
        self._grace_timer = None
        self._known = None
        self._tell()

    def _settled_without(self) -> None:
        self.problem = "there is no logind on this machine"
        self._tell()

    def _end_grace(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _tell(self) -> None:
        self.ready.set()
        self._on_change()


async def _subscribe(connection: Connection) -> None:
    try:
        await connection.subscribe(f"type='signal',sender='{BUS_NAME}',member='NameOwnerChanged',arg0='{_LOGIN}'")
        await connection.subscribe(f"type='signal',sender='{_LOGIN}'")
    except BusRefusal as error:
        raise BusGone(f"it refuses subscriptions: {error}") from error


async def _properties(connection: Connection, path: str, interface: str) -> dict[str, Any]:
    try:
        found = _only(await connection.call(_LOGIN, path, _PROPERTIES, "GetAll", "s", interface))
    except BusRefusal as error:
        if error.name.startswith(_NO_ANSWER):
            # logind itself ended in the middle of the look: that is no news of anybody's log-off.
            raise
        # The session or user has ended since it was listed.
        return {}
    return found if isinstance(found, dict) else {}


def _only(reply: Sequence[Any]) -> Any:
    return reply[0] if len(reply) == 1 else None


def _entries(reply: Sequence[Any], *, uid_at: int, length: int) -> list[tuple[int, str]]:
    """Return (uid, object path) of each entry of a list that looks as it should."""
    entries = _only(reply)
    found = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, list) and len(entry) == length and isinstance(entry[-1], str):
            uid = uid_of(entry[uid_at])
            if uid is not None:
                found.append((uid, entry[-1]))
    return found
