"""One connection to a message bus, with a time limit on everything and one kind of error for all that can go wrong.

Nothing here connects anew: who holds the connection is told that it has ended, and decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from dbus_fast.aio.message_bus import MessageBus
from dbus_fast.constants import MessageType
from dbus_fast.message import Message
from dbus_fast.signature import Variant

from openbits.service.tasks import Tasks

BUS_NAME: Final = "org.freedesktop.DBus"
BUS_PATH: Final = "/org/freedesktop/DBus"
CONNECT_TIMEOUT_S: Final = 5.0
CALL_TIMEOUT_S: Final = 10.0
"""Longer than an idle logind takes to be started by the bus."""


class BusGone(Exception):
    """There is no connection (any more): the text says why, as a clause."""


class BusRefusal(Exception):
    """The other side answered with an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Connection:
    """A connection; `open` makes one. `on_signal` gets (sender, member, arguments), `on_closed` the reason, once."""

    def __init__(
        self,
        bus: MessageBus,
        *,
        tasks: Tasks,
        on_signal: Callable[[str, str, Sequence[Any]], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._on_signal = on_signal
        self._on_closed = on_closed
        self._ended = ""
        bus.add_message_handler(self._receive)
        tasks.start("bus connection", self._watch())

    @classmethod
    async def open(
        cls,
        address: str,
        *,
        tasks: Tasks,
        on_signal: Callable[[str, str, Sequence[Any]], None],
        on_closed: Callable[[str], None],
    ) -> Connection:
        """Connect to the bus at `address`. Raises BusGone; its `__cause__` tells a missing socket from a refusal."""
        bus: MessageBus | None = None
        is_connected = False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                bus = MessageBus(bus_address=address)
                await bus.connect()
            is_connected = True
        except TimeoutError as error:
            raise BusGone("it does not answer") from error
        except Exception as error:  # the library lets through whatever a broken bus makes it stumble over
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise BusGone(reason or type(error).__name__) from error
        finally:
            if bus is not None and not is_connected:
                # Otherwise its socket would stay for as long as the other side does.
                with contextlib.suppress(Exception):
                    bus.disconnect()
        return cls(bus, tasks=tasks, on_signal=on_signal, on_closed=on_closed)

    def ended(self, otherwise: str = "") -> str:
        """Why the connection has ended, or `otherwise` while it stands."""
        return self._ended or otherwise

    def close(self) -> None:
        """End the connection; `on_closed` is not called any more."""
        self._on_closed = lambda _reason: None
        if not self._ended:
            self._ended = "it was closed"
            self._bus.disconnect()

    async def subscribe(self, rule: str) -> None:
        """Ask for the signals that match a rule. Raises BusGone, BusRefusal."""
        await self.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", rule)

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> list[Any]:
        """Call a method; return what it returns, without variants. Raises BusGone, BusRefusal.

        No answer in time is taken for a broken connection: another may do better, and an answer that
        comes too late finds nobody.
        """
        if self._ended:
            raise BusGone(self._ended)
        try:
            message = Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(arguments),
            )
        except (TypeError, ValueError) as error:
            raise BusRefusal("org.freedesktop.DBus.Error.InvalidArgs", str(error)) from error
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                reply: Message | None = await self._bus.call(message)
        except TimeoutError as error:
            raise BusGone(f"{destination} does not answer") from error
        except Exception as error:  # as above
            raise BusGone(self.ended(str(error) or type(error).__name__)) from error
        if reply is None:
            raise BusGone(self.ended("it hung up"))
        if reply.message_type is MessageType.ERROR:
            text = next((each for each in reply.body if isinstance(each, str)), "")
            raise BusRefusal(reply.error_name or "", text)
        return [plain(each) for each in reply.body]

    def _receive(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message.sender or "", message.member or "", message.body)

    async def _watch(self) -> None:
        reason = "it hung up"
        try:
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # the library has no types there
        except Exception as error:  # noqa: BLE001 - any end is an end
            with contextlib.suppress(Exception):
                reason = str(error) or reason
        self._ended = self._ended or reason
        self._on_closed(self._ended)


def plain(value: Any) -> Any:
    """The value without the variants that it is wrapped in."""
    match value:
        case Variant():
            return plain(value.value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case _:
            return value


def socket_of(address: str) -> str | None:
    """Return the path of the first Unix socket in the address of a bus; None where no path leads to it."""
    for transport in address.split(";"):
        kind, _, options = transport.partition(":")
        if kind == "unix":
            for option in options.split(","):
                key, _, value = option.partition("=")
                if key == "path" and value.startswith("/"):
                    return unquote(value)
    return None
