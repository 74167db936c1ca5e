"""The files of `packaging/`, as systemd reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.accounts import needs_root

PACKAGING = Path(__file__).parents[2] / "packaging"
MOST_EXPOSURE = 3.0
"""Of 10 in `systemd-analyze security`; who may become anybody and reach any network cannot get much lower."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_units_are_understood(tmp_path: Path) -> None:
    for name in ("openbits.service", "openbits.socket"):
        text = (PACKAGING / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/openbits/bin/bitsd", "/bin/true"))
    done = run("systemd-analyze", "verify", "--man=no", *(str(path) for path in sorted(tmp_path.iterdir())))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_service_is_hardened() -> None:
    unit = str(PACKAGING / "openbits.service")
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", unit)
    found = re.search(r"Overall exposure level for openbits.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST_EXPOSURE
    assert done.returncode == 0


def test_service_leaves_the_file_system_as_the_accounts_see_it() -> None:
    """Inventory I1: all file access is the owner's own; what he may write, his worker may write."""
    settings = dict(
        line.split("=", 1)
        for line in (PACKAGING / "openbits.service").read_text().splitlines()
        if re.match(r"\w+=", line)
    )
    assert not settings.keys() & {"PrivateTmp", "ProtectHome", "PrivateUsers", "DynamicUser", "InaccessiblePaths"}
    assert settings["ProtectSystem"] == "yes"
    assert settings["Type"] == "notify"
    assert settings["OOMPolicy"] == "continue"


@needs_systemd
def test_service_leaves_kerberos_possible() -> None:
    """Tickets stand in files without a name, caches may be in the kernel's keyrings (I4; architecture, section 4)."""
    unit = (PACKAGING / "openbits.service").read_text()
    [groups] = re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE)
    known = run("systemd-analyze", "syscall-filter").stdout
    allowed = set()
    waiting = groups.split()
    while waiting:
        name = waiting.pop()
        allowed.add(name)
        if name.startswith("@"):
            block = known.partition(f"\n{name}\n")[2].partition("\n\n")[0]
            waiting += [line.strip() for line in block.splitlines() if not line.strip().startswith("#")]
    assert allowed >= {"memfd_create", "fcntl", "keyctl", "add_key", "request_key", "connect", "splice"}
    [families] = re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)
    # Of KCM and of KDCs.
    assert set(families.split()) >= {"AF_UNIX", "AF_INET", "AF_INET6"}


@needs_systemd
@needs_root
def test_account_and_directories(tmp_path: Path) -> None:
    """Made in an empty root, so that nothing of this machine is touched."""
    (tmp_path / "etc").mkdir()
    for command, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        create = ["--create"] if name == "tmpfiles" else []
        done = run(command, *create, f"--root={tmp_path}", str(PACKAGING / f"openbits.{name}.conf"))
        assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "etc/passwd").read_text()
    found = re.search(r"^openbits:[^:]*:(\d+):(\d+):[^:]*:/var/lib/openbits:/usr/sbin/nologin$", passwd, re.MULTILINE)
    assert found
    assert re.search(r"^bits-admin:", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    for path, mode, owner in (("run", 0o755, int(found[1])), ("var/lib", 0o700, int(found[1])), ("etc", 0o755, 0)):
        made = (tmp_path / path / "openbits").stat()
        assert (made.st_mode & 0o7777, made.st_uid) == (mode, owner)


def test_install_script_is_posix_shell() -> None:
    script = str(PACKAGING / "install-system.sh")
    assert run("sh", "-n", script).stderr == ""
    assert os.access(script, os.X_OK)


def test_install_script_refuses_what_it_does_not_know() -> None:
    done = run("sh", str(PACKAGING / "install-system.sh"), "--unistall")
    assert done.returncode == 1
    assert "usage" in done.stderr or "as root" in done.stderr
