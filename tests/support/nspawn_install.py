"""Makes a Debian machine with OpenBITS on it, by the project's own install script and without any network.

The rule: what is installed is this checkout, as a user would install it; the only thing prepared for it is a
directory in which pip finds what it would fetch from the internet.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from support import nspawn_root
from support.nspawn import Machine, chroot

PEOPLE: Final = ("alice", "bob")
"""Accounts of people, with a home and root's key."""
SERVICES: Final = ("svc-backup", "svc-files")
"""Accounts of system services."""
SCRIPT: Final = "/srv/checkout/packaging/install-system.sh"
_COPIED: Final = ("src", "packaging", "docs", "pyproject.toml", "README.md", "LICENSE")
_PROGRAMS: Final = nspawn_root.CHECKOUT / "tests" / "boot" / "programs"
_OFFLINE: Final = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}


def prepare(root: Path) -> None:
    """Fill an empty directory with a Debian system that knows the accounts and programs of the tests."""
    nspawn_root.unpack_root(root)
    shutil.copytree(nspawn_root.wheels(), root / "srv" / "wheels")
    _copy_checkout(root / "srv" / "checkout")
    _copy_programs(root)
    chroot(root, "systemctl", "enable", "--quiet", "origin.service")
    chroot(root, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    shutil.copy(root / "root/.ssh/id_ed25519.pub", root / "root/.ssh/authorized_keys")
    for person in PEOPLE:
        chroot(root, "useradd", "--create-home", "--shell", "/bin/sh", person)
        chroot(root, "install", "-d", "-m", "700", "-o", person, "-g", person, f"/home/{person}/.ssh")
        keys = f"/home/{person}/.ssh/authorized_keys"
        chroot(root, "install", "-m", "600", "-o", person, "-g", person, "/root/.ssh/id_ed25519.pub", keys)
    for service in SERVICES:
        home = f"/var/lib/{service}"
        chroot(root, "useradd", "--system", "--create-home", "--home-dir", home, "--user-group", service)


def _copy_checkout(target: Path) -> None:
    target.mkdir()
    for name in _COPIED:
        source = nspawn_root.CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def _copy_programs(root: Path) -> None:
    """The programs of the tests, readable for the accounts that run them."""
    target = root / "srv" / "boot"
    target.mkdir()
    (root / "root" / ".ssh").mkdir(mode=0o700, exist_ok=True)
    for program in _PROGRAMS.glob("*.py"):
        shutil.copy(program, target)
    # The part of the tests' helpers that needs nothing but the standard library.
    (target / "support").mkdir()
    for name in ("__init__.py", "origin.py"):
        shutil.copy(nspawn_root.CHECKOUT / "tests" / "support" / name, target / "support")
    (target / "rate").write_text("0", encoding="ascii")
    for unit in _PROGRAMS.glob("*.service"):
        shutil.copy(unit, root / "etc" / "systemd" / "system")


def install(machine: Machine) -> str:
    """Install OpenBITS, or bring it up to date; return what the script said."""
    done = machine.try_run("sh", SCRIPT, environment=_OFFLINE, timeout_s=300.0)
    assert done.returncode == 0, done.stderr + done.stdout + machine.journal("--lines=60", "--unit=openbits")
    return done.stdout


def uninstall(machine: Machine) -> str:
    """Remove OpenBITS; return what the script said."""
    return machine.run("sh", SCRIPT, "--uninstall", timeout_s=120.0)
