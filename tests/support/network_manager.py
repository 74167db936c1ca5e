"""python-dbusmock's NetworkManager on a bus of the test's own, with what a DHCP server may have told it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from support.fake_logind import PrivateBus

PYTHON = "/usr/bin/python3"
TIMEOUT_S = 20.0
NM, MOCK = "org.freedesktop.NetworkManager", "org.freedesktop.DBus.Mock"
ROOT = "/org/freedesktop/NetworkManager"
ACTIVE, DHCP = f"{ROOT}/ActiveConnection/1", f"{ROOT}/DHCP4Config/1"

needs_dbusmock = pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import dbusmock"], check=False, capture_output=True, timeout=60).returncode != 0,
    reason="python3-dbusmock is not installed",
)


@contextlib.contextmanager
def dbusmock(bus: PrivateBus) -> Iterator[None]:
    """dbusmock's NetworkManager on this bus for the length of a `with` block."""
    mock = subprocess.Popen(
        [PYTHON, "-m", "dbusmock", "--system", "--template", "networkmanager"],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        mock.terminate()
        mock.wait(timeout=TIMEOUT_S)


class Mock:
    """What a test tells the mock to do."""

    def __init__(self, connection: MessageBus) -> None:
        self._connection = connection

    async def call(self, path: str, interface: str, member: str, signature: str, *body: object) -> None:
        message = Message(
            destination=NM, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        reply = await self._connection.call(message)
        assert reply is not None
        assert reply.message_type is not MessageType.ERROR, reply.body

    async def wait_there(self) -> None:
        """Until the mock has its name; the bus tells when."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message = Message(
                    destination="org.freedesktop.DBus",
                    path="/org/freedesktop/DBus",
                    interface="org.freedesktop.DBus",
                    member="NameHasOwner",
                    signature="s",
                    body=[NM],
                )
                reply = await self._connection.call(message)
                assert reply is not None
                if reply.body == [True]:
                    return
                await asyncio.sleep(0.02)

    async def connect(self, options: dict[str, Variant] | None) -> None:
        """Have a connection that leads out; with DHCP if there are options."""
        dhcp = "/" if options is None else DHCP
        if options is not None:
            properties = {"Options": Variant("a{sv}", options)}
            await self.call(ROOT, MOCK, "AddObject", "ssa{sv}a(ssss)", DHCP, f"{NM}.DHCP4Config", properties, [])
        active = {"Dhcp4Config": Variant("o", dhcp), "State": Variant("u", 2)}
        await self.call(ROOT, MOCK, "AddObject", "ssa{sv}a(ssss)", ACTIVE, f"{NM}.Connection.Active", active, [])
        await self.call(ROOT, MOCK, "AddProperty", "ssv", NM, "PrimaryConnection", Variant("o", ACTIVE))


@contextlib.asynccontextmanager
async def mock_on(bus: PrivateBus) -> AsyncIterator[Mock]:
    connection = await MessageBus(bus_address=bus.address).connect()
    try:
        mock = Mock(connection)
        await mock.wait_there()
        yield mock
    finally:
        connection.disconnect()
