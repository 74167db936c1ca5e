"""AUTODETECT where the network's DHCP server says where the script is, with the real daemon (I16)."""

from __future__ import annotations

import asyncio
import json
import os

from dbus_fast import Variant

from support.accounts import needs_root, temporary_account
from support.daemon import running_daemon
from support.fake_logind import PrivateBus, private_bus
from support.network_manager import dbusmock, mock_on, needs_dbusmock
from support.origin import Origin, generate
from support.proxy_server import ProxyServer

pytestmark = [needs_root, needs_dbusmock]


async def _announce(bus: PrivateBus, url: str) -> None:
    async with mock_on(bus) as mock:
        await mock.connect({"wpad": Variant("s", url)})


def test_i16_what_dhcp_names_is_the_script() -> None:
    with (
        private_bus() as bus,
        dbusmock(bus),
        temporary_account() as alice,
        Origin() as origin,
        ProxyServer(hosts={"files.test": origin.port}) as proxy,
    ):
        script = f"function FindProxyForURL(url, host) {{ return 'PROXY {proxy.place}'; }}".encode()
        origin.serve("/by-dhcp.pac", lambda _, connection: connection.send_whole(200, script))
        asyncio.run(_announce(bus, origin.url("/by-dhcp.pac")))
        with running_daemon("system", environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as daemon:
            job: str = json.loads(daemon.bits("create", "--json", "dhcp", account=alice, check=True).stdout)["id"]
            target = os.path.join(alice.home, "dhcp")
            daemon.bits("add", job, "http://files.test/gen/700/1", target, account=alice, check=True)
            daemon.bits("set", job, "proxy_usage=autodetect", account=alice, check=True)
            daemon.bits("resume", job, account=alice, check=True)
            ended = daemon.wait_state(job, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")
            assert ended["state"] == "TRANSFERRED", ended["error"]
            assert daemon.show(job)["proxy_in_use"] == (
                f"through the proxy http://{proxy.place} "
                f"(the job's own setting autodetect: PAC {origin.url('/by-dhcp.pac')})"
            )
            daemon.bits("complete", job, account=alice, check=True)
        with open(target, "rb") as file:
            assert file.read() == generate(700, 1)
