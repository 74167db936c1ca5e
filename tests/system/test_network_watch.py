"""S5, S6: the network comes and goes, in a network namespace of its own, and the watcher says so at once."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")

CHILD = Path(__file__).parents[1] / "support" / "network_child.py"
TIMEOUT_S = 20.0


def ip(*arguments: str, text: str | None = None) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=TIMEOUT_S, capture_output=True, input=text, encoding="utf-8")


class Machine:
    """A namespace with one cable, and a watcher in it."""

    def __init__(self) -> None:
        self.here = f"bits-{secrets.token_hex(4)}"
        self.there = f"{self.here}-peer"
        self._heard = b""
        self.child: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        ip("netns", "add", self.here)
        ip("netns", "add", self.there)
        ip("-n", self.here, "link", "set", "lo", "up")
        ip("-n", self.here, "link", "add", "cable", "type", "veth", "peer", "name", "far", "netns", self.there)
        ip("-n", self.there, "link", "set", "far", "up")

    def ip(self, *arguments: str) -> None:
        ip("-n", self.here, *arguments)

    def start(self) -> bool:
        self.child = subprocess.Popen(
            ["ip", "netns", "exec", self.here, sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._heard = b""
        start = self.wait_for("start")
        assert start["problem"] == ""
        return bool(start["has"])

    def start_connected(self) -> None:
        """Connect the cable and watch until the kernel has found that it works, which takes it a moment."""
        self.ip("address", "add", "192.0.2.1/24", "dev", "cable")
        self.ip("link", "set", "cable", "up")
        self.ip("route", "add", "default", "via", "192.0.2.2")
        if not self.start():
            self.wait_for_change(True)

    def wait_for(self, *what: str) -> dict[str, Any]:
        """The next message of one of these kinds."""
        assert self.child is not None
        assert self.child.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            while b"\n" not in self._heard:
                ready, _, _ = select.select([self.child.stdout], [], [], max(0, deadline - time.monotonic()))
                more = os.read(self.child.stdout.fileno(), 4096) if ready else b""
                if not more:
                    raise AssertionError(f"the watcher does not say {what}")
                self._heard += more
            line, _, self._heard = self._heard.partition(b"\n")
            message: dict[str, Any] = json.loads(line)
            if message["what"] in what:
                return message

    def wait_for_change(self, has: bool) -> None:
        assert self.wait_for("change")["has"] is has

    def say(self, command: str) -> None:
        assert self.child is not None
        assert self.child.stdin is not None
        self.child.stdin.write(f"{command}\n".encode("ascii"))

    def statistics(self) -> dict[str, Any]:
        self.say("statistics")
        return self.wait_for("statistics")

    def stop(self) -> None:
        assert self.child is not None
        self.child.communicate(b"stop\n", timeout=TIMEOUT_S)
        assert self.child.returncode == 0
        self.child = None

    def tear_down(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.communicate(timeout=TIMEOUT_S)
        for name in (self.here, self.there):
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=TIMEOUT_S, capture_output=True)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.set_up()
        yield machine
    finally:
        machine.tear_down()


def test_a_machine_with_a_loopback_only_has_no_network(machine: Machine) -> None:
    assert machine.start() is False


def test_a_machine_with_a_route_has_a_network_from_the_start(machine: Machine) -> None:
    machine.start_connected()
    machine.stop()
    assert machine.start() is True


def test_routes_come_and_go(machine: Machine) -> None:
    machine.ip("link", "set", "cable", "up")
    assert machine.start() is False
    machine.ip("route", "add", "198.51.100.0/24", "dev", "cable")
    machine.wait_for_change(True)
    machine.ip("route", "delete", "198.51.100.0/24", "dev", "cable")
    machine.wait_for_change(False)
    machine.ip("-6", "route", "add", "2001:db8::/32", "dev", "cable")
    machine.wait_for_change(True)
    machine.ip("-6", "route", "delete", "2001:db8::/32", "dev", "cable")
    machine.wait_for_change(False)


def test_a_link_goes_down_and_comes_up(machine: Machine) -> None:
    machine.start_connected()
    machine.ip("link", "set", "cable", "down")
    machine.wait_for_change(False)
    machine.ip("link", "set", "cable", "up")
    machine.wait_for_change(True)


def test_a_cable_is_pulled_and_plugged_in_again(machine: Machine) -> None:
    machine.start_connected()
    ip("-n", machine.there, "link", "set", "far", "down")
    machine.wait_for_change(False)
    ip("-n", machine.there, "link", "set", "far", "up")
    machine.wait_for_change(True)


def test_the_interface_itself_disappears(machine: Machine) -> None:
    machine.start_connected()
    machine.ip("link", "delete", "cable")
    machine.wait_for_change(False)


def test_the_last_address_goes(machine: Machine) -> None:
    machine.start_connected()
    machine.ip("address", "flush", "dev", "cable")
    machine.wait_for_change(False)


def test_routes_that_lead_nowhere_change_nothing(machine: Machine) -> None:
    machine.ip("link", "set", "cable", "up")
    assert machine.start() is False
    for route in (["unreachable", "default"], ["blackhole", "192.0.2.0/24"], ["169.254.0.0/16", "dev", "cable"]):
        machine.ip("route", "add", *route)
        assert machine.wait_for("asked", "change") == {"what": "asked", "has": False}
    machine.ip("route", "add", "203.0.113.0/24", "dev", "lo")
    assert machine.wait_for("asked", "change") == {"what": "asked", "has": False}


def test_more_reports_than_fit_lose_nothing_that_matters(machine: Machine) -> None:
    machine.ip("link", "set", "cable", "up")
    assert machine.start() is False
    assert machine.child is not None
    prefixes = [f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}/32" for number in range(5000)]
    os.kill(machine.child.pid, signal.SIGSTOP)
    ip("-n", machine.here, "-batch", "-", text="".join(f"route add {prefix} dev cable\n" for prefix in prefixes))
    os.kill(machine.child.pid, signal.SIGCONT)
    machine.wait_for_change(True)
    assert machine.statistics()["network_reports"] < len(prefixes)
    machine.ip("route", "flush", "scope", "link")
    machine.wait_for_change(False)


def test_an_idle_watcher_does_not_wake_up(machine: Machine) -> None:
    machine.start_connected()
    asked = machine.statistics()["network_questions"]
    assert machine.child is not None
    # The kernel itself reports some things about a new link, such as the end of IPv6 address detection.
    machine.ip("link", "set", "cable", "mtu", "1400")
    machine.wait_for("asked")
    before = switches(machine.child.pid)
    quiet = 0
    for _ in range(40):
        select.select([], [], [], 0.25)
        now = switches(machine.child.pid)
        quiet = quiet + 1 if now == before else 0
        before = now
        if quiet == 8:
            break
    assert quiet == 8
    assert machine.statistics()["network_questions"] < asked + 20


def switches(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
