"""What the network's DHCP server says of proxies, as NetworkManager has heard it (WPAD, option 252; inventory I16).

The rule: asked only when a run is to find its proxies by itself, and of the connection that leads out of the machine.
Nobody is started for the answer, nothing is kept open for it, and where none comes in time there is none: the other way
to find proxies, by DNS, is the worker's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from openbits.service.logon.bus import BUS_NAME, BUS_PATH, BusGone, BusRefusal, Connection
from openbits.service.tasks import Tasks

log = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "unix:path=/run/dbus/system_bus_socket"
LIMIT_S: Final = 3.0
KEPT_S: Final = 5.0
"""Many jobs begin together."""
LONGEST_URL: Final = 2_000
_NAME: Final = "org.freedesktop.NetworkManager"
_PATH: Final = "/org/freedesktop/NetworkManager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_NOTHING: Final = "/"
"""How NetworkManager says that there is no such object."""


class NetworkManager:
    """See the module's rule."""

    def __init__(self, *, tasks: Tasks, address: str = "") -> None:
        self._tasks = tasks
        self._address = address or DEFAULT_ADDRESS
        self._answer: asyncio.Task[str] | None = None
        self._good_until = 0.0
        self.asked = 0

    def __repr__(self) -> str:
        return f"<NetworkManager asked={self.asked}>"

    async def wpad_url(self) -> str:
        """Where the script for proxies is, as the network says; empty where it says nothing. Never raises."""
        now = asyncio.get_running_loop().time()
        if self._answer is None or (self._answer.done() and now >= self._good_until):
            self._answer = self._tasks.start("wpad by dhcp", self._ask())
        try:
            return await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            if self._answer.cancelled():
                return ""
            raise

    async def _ask(self) -> str:
        self.asked += 1
        try:
            async with asyncio.timeout(LIMIT_S):
                url = await self._asked()
        except (BusGone, BusRefusal, TimeoutError) as error:
            log.debug("action=wpad-by-dhcp reason=%s", error)
            url = ""
        self._good_until = asyncio.get_running_loop().time() + KEPT_S
        return url

    async def _asked(self) -> str:
        bus = await Connection.open(
            self._address, tasks=self._tasks, on_signal=lambda *_: None, on_closed=lambda _reason: None
        )
        try:
            # Asked first, because a call would start it where it is not running.
            if await bus.call(BUS_NAME, BUS_PATH, BUS_NAME, "NameHasOwner", "s", _NAME) != [True]:
                return ""
            primary = await _get(bus, _PATH, _NAME, "PrimaryConnection")
            if not _is_path(primary):
                return ""
            dhcp = await _get(bus, primary, f"{_NAME}.Connection.Active", "Dhcp4Config")
            if not _is_path(dhcp):
                return ""
            options = await _get(bus, dhcp, f"{_NAME}.DHCP4Config", "Options")
            return _url_of(options)
        finally:
            bus.close()


async def _get(bus: Connection, path: str, interface: str, name: str) -> Any:
    answer = await bus.call(_NAME, path, _PROPERTIES, "Get", "ss", interface, name)
    return answer[0] if answer else None


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and value != _NOTHING


def _url_of(options: object) -> str:
    """The option's text; with an empty one, or a line's end, servers say that there are no proxies."""
    value = options.get("wpad") if isinstance(options, dict) else None
    if not isinstance(value, str):
        return ""
    return value.strip()[:LONGEST_URL]
