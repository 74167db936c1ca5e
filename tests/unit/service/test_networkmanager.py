"""What NetworkManager has heard from DHCP about proxies, by python-dbusmock's one (I16)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from dbus_fast import Variant

from openbits.service.networkmanager import LONGEST_URL, NetworkManager
from openbits.service.tasks import Tasks
from support.fake_logind import PrivateBus, private_bus
from support.network_manager import dbusmock, mock_on, needs_dbusmock

pytestmark = needs_dbusmock


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    """A bus with dbusmock's NetworkManager on it."""
    with private_bus() as running, dbusmock(running):
        yield running


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
