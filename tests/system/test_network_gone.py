"""The whole daemon on a machine whose network comes and goes (S5, S6, J21, R3): a namespace with one cable."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

SIZE = 8_000_000
RATE_BPS = 2_000_000
HERE, THERE, PORT = "192.0.2.1", "192.0.2.2", 8080
CONFIG = """
[timeouts]
break_patience_s = 0
"""


@dataclass(kw_only=True)
class Machine:
    """A namespace with a daemon in it, and the other end of its cable, where a server is."""

    name: str
    daemon: Daemon
    origin: Nginx

    def unplug(self) -> None:
        """The cable goes, and with it every route."""
        ip("-n", self.name, "link", "set", "cable", "down")

    def plug(self) -> None:
        """The cable is back; the kernel does not restore the default route by itself."""
        plug(self.name)

    def submit(self, name: str, account: TestAccount, *more: str, rate_bps: int | None = RATE_BPS) -> str:
        """`bits get --async` of a file of the server at the other end."""
        url = self.origin.url(name, rate_bps=rate_bps)
        return self.daemon.submit(url, "-o", os.path.join(account.home, name), *more, account=account)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20, capture_output=True)


def plug(namespace: str) -> None:
    ip("-n", namespace, "link", "set", "cable", "up")
    ip("-n", namespace, "route", "replace", "default", "via", THERE)


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """The machine's namespace and its peer's, joined by a cable that is plugged in at one end."""
    here = f"bits-{secrets.token_hex(4)}"
    there = f"{here}-peer"
    with contextlib.ExitStack() as stack:
        for name in (here, there):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", here, "link", "add", "cable", "type", "veth", "peer", "name", "far", "netns", there)
        ip("-n", here, "address", "add", f"{HERE}/24", "dev", "cable")
        ip("-n", there, "address", "add", f"{THERE}/24", "dev", "far")
        ip("-n", there, "link", "set", "far", "up")
        yield here, there


@contextlib.contextmanager
def running_machine(*, plugged: bool) -> Iterator[Machine]:
    with (
        two_namespaces() as (here, there),
        running_nginx(address=THERE, port=PORT, prefix=("ip", "netns", "exec", there)) as origin,
    ):
        if plugged:
            plug(here)
        with running_daemon("system", prefix=("ip", "netns", "exec", here), config=CONFIG) as daemon:
            # The kernel needs a moment to find that a cable works.
            wait_until(lambda: network_is_there(daemon) is plugged, "the service to see the network")
            yield Machine(name=here, daemon=daemon, origin=origin)


@pytest.fixture
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


def wait_disconnected(daemon: Daemon, job: str) -> dict[str, Any]:
    held = daemon.wait_state(job, "TRANSIENT_ERROR", timeout_s=10)
    assert held["error"]["code"] == "BG_E_NETWORK_DISCONNECTED"
    assert held["error_count"] == 0
    return held


def test_the_network_goes_and_comes_back(alice: TestAccount) -> None:
    """S5, S6, J21, R3, D15: all that needs it waits, uncounted and without a timer, and goes on from the same byte."""
    with running_machine(plugged=True) as machine:
        daemon = machine.daemon
        wanted = {name: machine.origin.add(name, SIZE) for name in ("urgent", "patient", "waiting", "resting")}
        urgent = machine.submit("urgent", alice)
        patient = machine.submit("patient", alice, "--priority", "normal")
        daemon.wait_state(patient, "TRANSFERRING")
        waiting = machine.submit("waiting", alice, "--priority", "normal")
        resting = machine.submit("resting", alice, "--priority", "low")
        daemon.bits("suspend", resting, account=alice, check=True)
        assert daemon.show(waiting)["state"] == "QUEUED"
        daemon.wait_job(urgent, lambda job: job["state"] == "TRANSFERRING")
        wait_until(lambda: daemon.show(urgent)["bytes_transferred"] > SIZE // 8, "bytes to arrive")

        machine.unplug()
        for job in (urgent, patient, waiting):
            wait_disconnected(daemon, job)
            gate = daemon.why(job)
            assert (gate["gate"], gate["until"]) == ("network", None)
        assert "no network" in daemon.bits("why", urgent, account=alice, check=True).stdout
        assert daemon.show(resting)["state"] == "SUSPENDED"
        wait_until(lambda: not daemon.statistics()["runs"], "the runs to end")
        kept = {job: daemon.stored_files(job)[0].durable_bytes for job in (urgent, patient, waiting)}
        assert kept[urgent] >= SIZE // 8
        assert kept[waiting] == 0

        machine.plug()
        for job in (urgent, patient, waiting):
            assert daemon.wait_state(job, "TRANSFERRED", timeout_s=30)["error_count"] == 0
            daemon.bits("complete", job, account=alice, check=True)
        for name, job in (("urgent", urgent), ("patient", patient)):
            assert [asked.offset for asked in machine.origin.asked(name)] == [0, kept[job]]
        for name in ("urgent", "patient", "waiting"):
            assert sha256_of(os.path.join(alice.home, name)) == wanted[name]
        assert daemon.show(resting)["state"] == "SUSPENDED"


def test_the_network_that_comes_back_ends_every_transient_error(alice: TestAccount) -> None:
    """S6: also the wait of a job that had another error before, and that is not touched when the network goes."""
    with running_machine(plugged=True) as machine:
        daemon = machine.daemon
        url = f"http://{THERE}:{PORT + 1}/nobody"
        job = daemon.submit(url, "-o", os.path.join(alice.home, "x"), "--retry-delay", "600", account=alice)
        refused = daemon.wait_state(job, "TRANSIENT_ERROR")
        assert refused["error"]["code"] != "BG_E_NETWORK_DISCONNECTED"
        assert refused["error_count"] == 1
        machine.unplug()
        wait_until(lambda: not network_is_there(daemon), "the service to see it")
        assert daemon.show(job)["error"]["code"] == refused["error"]["code"]
        machine.plug()
        daemon.wait_job(job, lambda seen: seen["state"] == "TRANSIENT_ERROR" and seen["error_count"] == 2)


def test_without_a_network_from_the_start(alice: TestAccount) -> None:
    """Issue part 8: what is on this machine is fetched all the same; the rest waits, also across restarts."""
    with running_machine(plugged=False) as machine:
        daemon = machine.daemon
        wanted = machine.origin.add("far", SIZE)
        far = machine.submit("far", alice, rate_bps=None)
        wait_disconnected(daemon, far)
        with running_nginx(port=PORT, prefix=("ip", "netns", "exec", machine.name)) as near:
            near_wanted = near.add("near", SIZE)
            target = os.path.join(alice.home, "near")
            daemon.bits("get", near.url("near"), "-o", target, account=alice, check=True, timeout_s=30)
            assert sha256_of(target) == near_wanted
            daemon.bits(
                "get", near.url("near").replace(near.address, "localhost"), "-o", target, account=alice, check=True
            )
        copy = os.path.join(alice.home, "copy")
        daemon.bits("get", f"file://{target}", "-o", copy, account=alice, check=True, timeout_s=30)
        assert sha256_of(copy) == near_wanted
        daemon.bits("resume", far, account=alice)
        wait_disconnected(daemon, far)
        assert daemon.stop() == 0
        daemon.start()
        wait_disconnected(daemon, far)
        machine.plug()
        daemon.wait_state(far, "TRANSFERRED", timeout_s=20)
        daemon.bits("complete", far, account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, "far")) == wanted


def test_a_network_that_went_while_the_service_was_down(alice: TestAccount) -> None:
    """S5 at a start: jobs that were on their way find no network."""
    with running_machine(plugged=True) as machine:
        daemon = machine.daemon
        wanted = machine.origin.add("far", SIZE)
        far = machine.submit("far", alice)
        daemon.wait_state(far, "TRANSFERRING")
        daemon.kill()
        machine.unplug()
        daemon.start()
        wait_disconnected(daemon, far)
        machine.plug()
        daemon.wait_state(far, "TRANSFERRED", timeout_s=20)
        daemon.bits("complete", far, account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, "far")) == wanted


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_network_that_came_back_while_the_service_was_down(alice: TestAccount, how: str) -> None:
    """S6 at a start: nobody tells that the network is back, because it was never away for this service."""
    with running_machine(plugged=True) as machine:
        daemon = machine.daemon
        wanted = machine.origin.add("far", SIZE)
        far = machine.submit("far", alice)
        daemon.wait_state(far, "TRANSFERRING")
        machine.unplug()
        wait_disconnected(daemon, far)
        if how == "stop":
            assert daemon.stop() == 0
        else:
            daemon.kill()
        machine.plug()
        wait_until(lambda: carrier(machine.name), "the cable to work")
        daemon.start()
        daemon.wait_state(far, "TRANSFERRED", timeout_s=20)
        daemon.bits("complete", far, account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, "far")) == wanted


def carrier(namespace: str) -> bool:
    shown = subprocess.run(
        ["ip", "-n", namespace, "link", "show", "cable"], check=True, timeout=20, capture_output=True, text=True
    )
    return "state UP" in shown.stdout


def network_is_there(daemon: Daemon) -> bool:
    return any(check["name"] == "network" and check["ok"] for check in daemon.doctor())
