"""AUTODETECT in a network of its own, with the real daemon (I16, I17, J22).

A script that DNS leads to, by the machine's own domains and no others; hosts called wpad that lie, hang or have
nothing; and networks that announce nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.nginx import running_nginx
from support.origin import Origin, generate
from support.proxy_server import ProxyServer
from support.wpad_world import DNS, ELSEWHERE, PROXY, WPAD, DnsServer, Network, RawServer, network

pytestmark = needs_root

SIZE = 40_000
CONFIG = "[timeouts]\nbreak_patience_s = 1\n"


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that there is."""

    net: Network
    dns: DnsServer
    proxy: ProxyServer
    origin: Origin
    alice: TestAccount

    @property
    def place(self) -> str:
        return f"{PROXY}:{self.proxy.port}"

    @property
    def script(self) -> str:
        return f"function FindProxyForURL(url, host) {{ return 'PROXY {self.place}'; }}"

    def asked_for_wpad(self) -> list[str]:
        return sorted({name for name in self.dns.asked if name.split(".")[0] == "wpad"})


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@contextlib.contextmanager
def world(alice: TestAccount, *, search: str = "", full_name: str = "", **names: str) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(search=search, full_name=full_name))
        origin = stack.enter_context(Origin())
        with net.inside():
            dns = DnsServer({name.replace("_", "."): address for name, address in names.items()})
            proxy = ProxyServer(hosts={"files.test": origin.port}, address=PROXY)
        yield World(
            net=net,
            dns=stack.enter_context(dns),
            proxy=stack.enter_context(proxy),
            origin=origin,
            alice=alice,
        )


@contextlib.contextmanager
def daemon_in(one: World) -> Iterator[Daemon]:
    with running_daemon("system", prefix=one.net.prefix, config=CONFIG) as daemon:
        yield daemon


def begin(daemon: Daemon, alice: TestAccount, name: str, url: str = f"http://files.test/gen/{SIZE}/1") -> str:
    job: str = json.loads(daemon.bits("create", "--json", name, account=alice, check=True).stdout)["id"]
    daemon.bits("add", job, url, os.path.join(alice.home, name), account=alice, check=True)
    daemon.bits("set", job, "proxy_usage=autodetect", "priority=foreground", account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    return job


def end(daemon: Daemon, job: str) -> dict[str, Any]:
    return daemon.wait_state(job, "TRANSFERRED", "ERROR", "TRANSIENT_ERROR")


def test_i16_the_machines_domains_lead_to_a_script_and_the_script_to_a_proxy(alice: TestAccount) -> None:
    """By its own name's domain and by the search list; asked as absolute names, and in no domain above."""
    with (
        world(
            alice, search="lab.corp.example com", full_name="vm.sales.corp.example", wpad_lab_corp_example=WPAD
        ) as one,
        running_nginx(address=WPAD, port=80, prefix=one.net.prefix) as nginx,
    ):
        with open(os.path.join(nginx.root, "wpad.dat"), "w", encoding="ascii") as file:
            file.write(one.script)
        with daemon_in(one) as daemon:
            job = begin(daemon, alice, "found")
            ended = end(daemon, job)
            assert ended["state"] == "TRANSFERRED", ended["error"]
            way = (
                f"through the proxy http://{one.place} (the job's own setting autodetect: "
                "PAC http://wpad.lab.corp.example/wpad.dat)"
            )
            assert daemon.show(job)["proxy_in_use"] == way
            assert way in daemon.bits("show", job, account=alice, check=True).stdout
            daemon.bits("complete", job, account=alice, check=True)
        assert len(nginx.asked("wpad.dat")) == 1
        assert one.proxy.hosts_asked == {"files.test"}
        assert one.asked_for_wpad() == ["wpad.lab.corp.example", "wpad.sales.corp.example"]
    with open(os.path.join(alice.home, "found"), "rb") as received:
        assert received.read() == generate(SIZE, 1)


def test_i16_a_network_that_announces_nothing_is_a_direct_one(alice: TestAccount) -> None:
    """No host called wpad, or one that has no script; the names above the domain would lead to a trap."""
    with (
        world(
            alice,
            search="a.b.example",
            full_name="vm.b.example",
            wpad_example=ELSEWHERE,
            wpad=ELSEWHERE,
            wpad_b_example=WPAD,
            files_test=PROXY,
        ) as one,
        contextlib.ExitStack() as stack,
    ):
        with one.net.inside():
            absent = RawServer(WPAD, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            trap = RawServer(ELSEWHERE, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            # What the job fetches, without any proxy.
            files = RawServer(PROXY, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        for server in (absent, trap, files):
            stack.enter_context(server)
        with daemon_in(one) as daemon:
            job = begin(daemon, alice, "direct", "http://files.test/file")
            ended = end(daemon, job)
            assert ended["state"] == "TRANSFERRED", ended["error"]
            assert daemon.show(job)["proxy_in_use"] == (
                "without a proxy (the job's own setting autodetect: this network announces no proxies)"
            )
        [asked] = absent.requests
        assert asked.startswith("GET /wpad.dat HTTP/1.1\r\n")
        # Servers know themselves by the name without the dot of the absolute one.
        assert "\r\nHost: wpad.b.example\r\n" in asked
        assert len(files.requests) == 1
        assert trap.requests == []
        assert one.asked_for_wpad() == ["wpad.a.b.example", "wpad.b.example"]
        assert one.proxy.connections == 0


_MOVED = b"HTTP/1.1 302 Found\r\nLocation: http://%s/wpad.dat\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n<html>log on</html>   ", "TRANSIENT_ERROR", "web page"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"/" * 5_000_000, "ERROR", "larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense", "ERROR", "ReferenceError"),
        (_MOVED % ELSEWHERE.encode(), "ERROR", "only it may have the script"),
        (_MOVED % b"wpad.evil.example", "ERROR", "only it may have the script"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "TRANSIENT_ERROR", "500"),
        (b"this is not HTTP\r\n\r\n", "TRANSIENT_ERROR", "could not be fetched"),
        (None, "TRANSIENT_ERROR", "did not come within"),
    ],
)
def test_a_host_called_wpad_that_lies_lets_nothing_out(
    alice: TestAccount, answer: bytes | None, state: str, words: str
) -> None:
    with world(alice, search="corp.example", wpad_corp_example=WPAD, files_test=PROXY) as one:
        with one.net.inside():
            wpad, elsewhere = RawServer(WPAD, answer), RawServer(ELSEWHERE, answer)
            files = RawServer(PROXY, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with wpad, elsewhere, files, daemon_in(one) as daemon:
            job = begin(daemon, alice, "lied-to", "http://files.test/file")
            ended = end(daemon, job)
            assert (ended["state"], ended["error"]["code"]) == (state, "BG_E_INVALID_PROXY_INFO"), ended["error"]
            assert words in ended["error"]["message"]
            assert "http://wpad.corp.example/wpad.dat" in ended["error"]["message"]
            daemon.bits("cancel", job, account=alice, check=True)
        assert len(wpad.requests) == 1
        assert elsewhere.requests == files.requests == []


def test_a_host_called_wpad_that_takes_no_connection_is_not_taken_for_none(alice: TestAccount) -> None:
    with world(alice, search="corp.example", wpad_corp_example=WPAD, files_test=PROXY) as one:
        with daemon_in(one) as daemon:
            ended = end(daemon, begin(daemon, alice, "refused", "http://files.test/file"))
        assert (ended["state"], ended["error"]["code"]) == ("TRANSIENT_ERROR", "BG_E_INVALID_PROXY_INFO")
        assert "could not be fetched" in ended["error"]["message"]


def test_a_resolver_that_does_not_answer_is_not_taken_for_a_no(alice: TestAccount) -> None:
    with world(alice, search="corp.example", wpad_corp_example=WPAD) as one:
        one.dns.is_silent = True
        with daemon_in(one) as daemon:
            job = begin(daemon, alice, "unanswered", f"http://{DNS}/file")
            ended = end(daemon, job)
        assert (ended["state"], ended["error"]["code"]) == ("TRANSIENT_ERROR", "BG_E_INVALID_PROXY_INFO")
        assert "resolver" in ended["error"]["message"]


def test_i17_a_service_account_with_autodetect_is_led_by_the_network(alice: TestAccount) -> None:
    with world(alice, search="corp.example", wpad_corp_example=WPAD) as one:
        script = one.script.encode()
        with one.net.inside():
            wpad = RawServer(WPAD, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(script), script))
        with wpad, daemon_in(one) as daemon:
            daemon.bits("proxy", "set", "autodetect", "--account", "LOCALSYSTEM", check=True)
            job: str = json.loads(daemon.bits("create", "--json", "service", check=True).stdout)["id"]
            target = os.path.join(daemon.base, "service")
            daemon.bits("add", job, f"http://files.test/gen/{SIZE}/1", target, check=True)
            daemon.bits("resume", job, check=True)
            ended = end(daemon, job)
            assert ended["state"] == "TRANSFERRED", ended["error"]
            used = daemon.show(job)["proxy_in_use"]
            assert used.startswith(f"through the proxy http://{one.place} (the proxy settings of LOCALSYSTEM: PAC http")
