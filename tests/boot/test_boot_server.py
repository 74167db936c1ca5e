"""bits-server as a unit of systemd: its account, its hardening, an upload, a reload, and publishing (U50, U51)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from support.daemon import wait_until
from support.nspawn import Machine

UNIT = "bits-server.service"
CONFIGURATION = "/etc/openbits/bits-server.toml"


@pytest.fixture
def unit(machine: Machine) -> Iterator[Machine]:
    # The machine has the network of whoever runs the test, where the usual port may be taken.
    machine.run("sed", "-i", "s/:8080/:0/", CONFIGURATION)
    machine.run("systemctl", "start", UNIT)
    yield machine
    machine.run("systemctl", "stop", UNIT)


def address(machine: Machine) -> str:
    """Where the server listens."""
    found = re.findall(r"listening on (http://127\.0\.0\.1:\d+)", machine.journal(f"--unit={UNIT}"))
    assert found
    return str(found[-1])


def test_an_installation_does_not_start_it(machine: Machine) -> None:
    """To take files from others is a decision of its own."""
    assert machine.property(UNIT, "UnitFileState") == "disabled"
    assert machine.property(UNIT, "ActiveState") == "inactive"


def test_it_takes_files_under_its_own_account(unit: Machine) -> None:
    """Type=notify: it can be connected to as soon as systemd says that it is there."""
    assert unit.property(UNIT, "ActiveState") == "active"
    unit.run("bits", "put", "-q", "/etc/os-release", f"{address(unit)}/upload")
    files = "/var/lib/bits-server/files"
    assert unit.run("stat", "-c", "%U %G %a", f"{files}/upload").strip() == "bits-server bits-server 644"
    assert unit.run("cat", f"{files}/upload") == unit.run("cat", "/etc/os-release")
    unit.run("bits", "get", "-q", "-o", "/root/copy", f"{address(unit)}/upload")
    assert unit.run("cat", "/root/copy") == unit.run("cat", "/etc/os-release")


def test_it_has_no_rights_but_low_ports(unit: Machine) -> None:
    pid = unit.property(UNIT, "MainPID")
    status = unit.run("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    uid = unit.run("id", "-u", "bits-server").strip()
    assert set(fields["Uid"].split()) == {uid}
    # CAP_NET_BIND_SERVICE is the tenth.
    assert int(fields["CapBnd"], 16) == 1 << 10
    assert fields["NoNewPrivs"] == "1"


def test_a_reload_keeps_it_running(unit: Machine) -> None:
    pid = unit.property(UNIT, "MainPID")
    unit.run("systemctl", "reload", UNIT)
    wait_until(lambda: "reloaded" in unit.journal(f"--unit={UNIT}"), "the reload")
    assert unit.property(UNIT, "MainPID") == pid


def test_root_publishes_what_the_server_could_not_read(unit: Machine) -> None:
    """The descriptor is the publisher's: ProtectHome= and 0700 directories do not matter to it."""
    unit.run("sh", "-c", "umask 077; echo for-everybody > /root/private")
    unit.run("bits-server", "publish", "/given", "/root/private", "--expires", "1h")
    (listed,) = json.loads(unit.run("bits-server", "list", "--json"))
    assert listed["path"] == "/root/private"
    unit.run("bits", "get", "-q", "-o", "/root/given", f"{address(unit)}/given")
    assert unit.run("cat", "/root/given") == "for-everybody\n"
    refused = unit.try_run("bits-server", "list", account="alice")
    assert (refused.returncode, "only root" in refused.stderr) == (1, True)
