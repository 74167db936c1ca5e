"""What NetworkManager has heard from DHCP about proxies, by python-dbusmock's one (I16)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from openbits.service.networkmanager import LONGEST_URL, NetworkManager
from openbits.service.tasks import Tasks
from support.fake_logind import PrivateBus, private_bus

PYTHON = "/usr/bin/python3"
TIMEOUT_S = 20.0
NM, MOCK = "org.freedesktop.NetworkManager", "org.freedesktop.DBus.Mock"
ROOT = "/org/freedesktop/NetworkManager"
ACTIVE, DHCP = f"{ROOT}/ActiveConnection/1", f"{ROOT}/DHCP4Config/1"

pytestmark = pytest.mark.skipif(
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


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    """A bus with dbusmock's NetworkManager on it."""
    with private_bus() as running, dbusmock(running):
        yield running


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


async def wpad_url(address: str) -> str:
    died: list[str] = []
    tasks = Tasks(lambda name, _error: died.append(name))
    try:
        return await NetworkManager(tasks=tasks, address=address).wpad_url()
    finally:
        await tasks.cancel()
        assert died == []


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"wpad": Variant("s", "http://proxy.corp.example/pac")}, "http://proxy.corp.example/pac"),
        ({"wpad": Variant("s", " http://h/pac\n")}, "http://h/pac"),
        ({"wpad": Variant("s", "\n")}, ""),
        ({"wpad": Variant("s", "")}, ""),
        ({"wpad": Variant("s", "not a URL")}, "not a URL"),
        ({"wpad": Variant("s", "http://" + "x" * 9000)}, ("http://" + "x" * 9000)[:LONGEST_URL]),
        ({"wpad": Variant("u", 5)}, ""),
        ({"domain_name": Variant("s", "corp.example")}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_i16_option_252_is_read_as_networkmanager_has_it(
    bus: PrivateBus, options: dict[str, Variant] | None, url: str
) -> None:
    async def work() -> None:
        async with mock_on(bus) as mock:
            await mock.connect(options)
        assert await wpad_url(bus.address) == url

    asyncio.run(work())


def test_without_a_connection_or_a_networkmanager_or_a_bus_nothing_is_said(bus: PrivateBus) -> None:
    async def work() -> None:
        async with mock_on(bus):
            assert await wpad_url(bus.address) == ""
        assert await wpad_url("unix:path=/nonexistent/bus") == ""
        with private_bus() as empty:
            assert await wpad_url(empty.address) == ""

    asyncio.run(work())


def test_many_runs_that_begin_together_ask_once(bus: PrivateBus) -> None:
    async def work() -> None:
        async with mock_on(bus) as mock:
            await mock.connect({"wpad": Variant("s", "http://h/pac")})
        tasks = Tasks(lambda _name, _error: None)
        manager = NetworkManager(tasks=tasks, address=bus.address)
        assert set(await asyncio.gather(*(manager.wpad_url() for _ in range(50)))) == {"http://h/pac"}
        assert await manager.wpad_url() == "http://h/pac"
        assert manager.asked == 1
        await tasks.cancel()

    asyncio.run(work())


def test_a_bus_that_hangs_is_waited_for_no_longer_than_a_moment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openbits.service.networkmanager.LIMIT_S", 0.2)

    async def work() -> None:
        path = tmp_path_factory.mktemp("bus") / "s"
        over = asyncio.Event()

        async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()

        server = await asyncio.start_unix_server(hang, path)
        assert await wpad_url(f"unix:path={path}") == ""
        over.set()
        server.close()
        await server.wait_closed()

    asyncio.run(work())
