"""What the install script leaves on a machine with systemd, and what systemd makes of it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from support.daemon import wait_until
from support.nspawn import Machine, booted_copy
from support.nspawn_install import install, uninstall
from support.nspawn_jobs import Jobs

ROOT_CAPABILITIES = {5, 6, 7}
"""CAP_KILL, CAP_SETGID, CAP_SETUID."""


def capabilities(mask: str) -> set[int]:
    """The numbers in a line of /proc/PID/status."""
    return {bit for bit in range(64) if int(mask, 16) >> bit & 1}


def test_a_machine_boots_with_the_service(machine: Machine) -> None:
    """The units are up, nothing failed, and systemd is satisfied."""
    assert machine.run("systemctl", "is-system-running").strip() == "running"
    for unit in ("openbits.service", "openbits.socket"):
        assert machine.property(unit, "ActiveState") == "active"
        assert machine.property(unit, "UnitFileState") == "enabled"
        assert machine.property(unit, "NeedDaemonReload") == "no"
    assert machine.property("openbits.service", "NRestarts") == "0"


def test_account_and_directories_are_there_after_a_boot(machine: Machine) -> None:
    """Sysusers made the account, tmpfiles makes /run/openbits anew at every boot."""
    assert machine.run("getent", "passwd", "openbits").strip().endswith(":/var/lib/openbits:/usr/sbin/nologin")
    assert machine.run("getent", "group", "bits-admin").startswith("bits-admin:")
    shown = machine.run("stat", "-c", "%n %a %U", "/run/openbits", "/var/lib/openbits", "/etc/openbits")
    assert shown.splitlines() == [
        "/run/openbits 755 openbits",
        "/var/lib/openbits 700 openbits",
        "/etc/openbits 755 root",
    ]
    assert machine.run("stat", "-c", "%a", "/run/openbits/bitsd.sock").strip() == "666"


def test_every_account_reaches_the_service(jobs: Jobs) -> None:
    """The links of the install script are in everybody's path."""
    for account in ("root", "alice", "svc-backup"):
        assert "system mode" in jobs.bits("version", account=account)


def test_the_first_call_starts_the_service(machine: Machine, jobs: Jobs) -> None:
    """Socket activation: nobody notices that it was not there."""
    machine.run("systemctl", "stop", "openbits.service")
    assert machine.property("openbits.service", "ActiveState") == "inactive"
    assert machine.property("openbits.socket", "SubState") == "listening"
    assert jobs.bits("list", account="alice") is not None
    assert machine.property("openbits.service", "ActiveState") == "active"


def test_the_service_is_up_when_systemd_says_so(machine: Machine, jobs: Jobs) -> None:
    """Type=notify: what is ordered after the unit finds a store that is open, not just a socket."""
    assert machine.property("openbits.service", "Type") == "notify"
    machine.run("systemctl", "restart", "openbits.service")
    since = machine.property("openbits.service", "InvocationID")
    assert "ready, socket /run/openbits/bitsd.sock" in machine.journal(f"_SYSTEMD_INVOCATION_ID={since}")


def test_hardening_is_in_force(machine: Machine, jobs: Jobs) -> None:
    """What the unit promises holds for every process, as the kernel tells it (architecture §2)."""
    shown = machine.run("systemctl", "show", "openbits.service")
    for line in ("NoNewPrivileges=yes", "ProtectSystem=yes", "MemoryDenyWriteExecute=yes", "PrivateDevices=yes"):
        assert line in shown.splitlines()
    source = jobs.new_source(3_000_000)
    jobs.origin.limit(500_000)
    job = jobs.get(source, "/srv/hardening/root")
    jobs.wait_state(job, "TRANSFERRING")
    held = {
        "bitsd": ("root", ROOT_CAPABILITIES),
        "bitsd-zygote": ("root", ROOT_CAPABILITIES),
        "bitsd-service": ("openbits", set()),
        "bitsd-worker": ("root", set()),
    }
    for name, (account, wanted) in held.items():
        pids = jobs.pids(name, account)
        assert len(pids) == 1, name
        status = jobs.status_of(pids[0])
        for line in ("CapPrm", "CapEff", "CapBnd"):
            assert capabilities(status[line]) <= (wanted if line != "CapBnd" else ROOT_CAPABILITIES), (name, line)
        assert capabilities(status["CapPrm"]) == wanted, name
        assert capabilities(status["CapInh"]) == capabilities(status["CapAmb"]) == set(), name
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name
    jobs.bits("cancel", job)
    jobs.origin.limit(0)


def test_the_service_sees_the_file_system_of_the_accounts(machine: Machine) -> None:
    """Inventory I1: read-only for the workers is what belongs to packages, and nothing else."""
    pid = machine.property("openbits.service", "MainPID")

    def is_writable(path: str) -> bool:
        options = machine.run("findmnt", "--task", pid, "--noheadings", "--output", "VFS-OPTIONS", "--target", path)
        return "rw" in options.strip().splitlines()[-1].split(",")

    for path in ("/home", "/etc", "/srv", "/tmp", "/var", "/usr/local", "/root"):
        assert is_writable(path), path
    assert not is_writable("/usr/bin")
    machine.path("/etc/krb5.keytab").write_text("keys", encoding="ascii")
    machine.path("/etc/krb5.keytab").chmod(0o600)
    enter = ("nsenter", "--target", pid, "--mount", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    # Root's workers have no capability, and read the machine's key for Kerberos as its owner.
    assert machine.run(*enter, "cat", "/etc/krb5.keytab") == "keys"
    # Log-ons are read there, by the account of the service.
    become = ("setpriv", "--reuid=openbits", "--regid=openbits", "--clear-groups", "--")
    machine.run("nsenter", "--target", pid, "--mount", *become, "ls", "/run/systemd/users", "/run/systemd/sessions")
    machine.path("/etc/krb5.keytab").unlink()


def test_reload_takes_the_configuration(machine: Machine, jobs: Jobs) -> None:
    """ExecReload: a changed limit holds at once, a mistake changes nothing; no process is exchanged."""
    path = machine.path("/etc/openbits/bitsd.toml")
    before = path.read_text()
    pid = machine.property("openbits.service", "MainPID")
    try:
        path.write_text(before + "\n[quotas]\nmax_jobs_per_user = 1\n")
        machine.run("systemctl", "reload", "openbits.service")
        wait_until(lambda: "action=reloaded" in machine.journal("--unit=openbits.service"), "the reload")
        first = jobs.bits("create", "first", account="alice").strip()
        refused = jobs.try_bits("create", "second", account="alice")
        assert "BG_E_TOO_MANY_JOBS_PER_USER" in refused.stderr
        path.write_text("[quotas\n")
        machine.run("systemctl", "reload", "openbits.service")
        wait_until(lambda: "action=reload-refused" in machine.journal("--unit=openbits.service"), "the refusal")
        assert "BG_E_TOO_MANY_JOBS_PER_USER" in jobs.try_bits("create", "second", account="alice").stderr
        jobs.bits("cancel", first)
    finally:
        path.write_text(before)
        machine.run("systemctl", "reload", "openbits.service")
    assert machine.property("openbits.service", "MainPID") == pid


@pytest.mark.parametrize(("name", "account"), [("bitsd-service", "openbits"), ("bitsd", "root")])
def test_a_killed_program_comes_back(machine: Machine, jobs: Jobs, name: str, account: str) -> None:
    """M8: the monitor starts the service again, systemd the monitor; the transfer goes on where it was durable."""
    source = jobs.new_source(6_000_000)
    jobs.origin.limit(2_000_000)
    job = jobs.get(source, f"/srv/killed/{name}")
    durable = jobs.wait_durable(job, 1_500_000)
    asked = len(jobs.origin.requests(source))
    restarts = int(machine.property("openbits.service", "NRestarts"))
    (pid,) = jobs.pids(name, account)
    machine.run("kill", "-KILL", str(pid))
    wait_until(lambda: jobs.pids(name, account) not in ([], [pid]), f"another {name}")
    jobs.finish(job, source, f"/srv/killed/{name}")
    again = jobs.origin.requests(source)[asked:]
    assert len(again) == 1
    assert again[0].first >= durable
    assert int(machine.property("openbits.service", "NRestarts")) == restarts + (name == "bitsd")


@pytest.mark.parametrize("socket", ["same socket", "another socket"])
def test_install_again_brings_up_to_date(machine: Machine, jobs: Jobs, socket: str) -> None:
    """The script may be run at any time, with clients about: jobs and configuration stay, the new programs run."""
    if socket == "another socket":
        with machine.path("/srv/checkout/packaging/openbits.socket").open("a", encoding="utf-8") as unit:
            unit.write("# another version\n")
    assert not jobs.watch.is_over  # a client that calls again at once when the service goes
    kept = jobs.bits("create", "kept", account="alice").strip()
    configuration = machine.path("/etc/openbits/bitsd.toml").read_text()
    pid = machine.property("openbits.service", "MainPID")
    said = install(machine)
    assert "the service runs" in said
    assert machine.property("openbits.service", "MainPID") not in (pid, "0")
    assert kept in jobs.bits("list", "--json", account="alice")
    assert machine.path("/etc/openbits/bitsd.toml").read_text() == configuration
    assert machine.property("openbits.socket", "NeedDaemonReload") == "no"
    jobs.bits("cancel", kept)


def test_uninstall(scratch: Path, installed_root: Path) -> None:
    """Everything is gone but jobs, the key to their secrets, configuration and account; and comes back with them."""
    with booted_copy(installed_root, scratch) as machine:
        jobs = Jobs(machine)
        kept = jobs.bits("create", "kept", account="alice").strip()
        uninstall(machine)
        assert machine.try_run("systemctl", "cat", "openbits.service").returncode != 0
        assert machine.run("systemctl", "is-system-running").strip() == "running"
        left = machine.run("find", "/", "-xdev", "-iname", "*openbits*", "-not", "-path", "/srv/*").split()
        assert sorted(left) == ["/etc/openbits", "/var/lib/openbits", "/var/lib/openbits.key"]
        assert not [name for name in os.listdir(machine.path("/usr/local/bin")) if re.match("bits", name)]
        assert stat.S_ISDIR(machine.path("/var/lib/openbits").stat().st_mode)
        machine.reboot()
        assert machine.run("systemctl", "is-system-running").strip() == "running"
        install(machine)
        assert kept in jobs.bits("list", "--json", account="alice")
