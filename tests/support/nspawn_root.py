"""The Debian system that `make test-boot` boots: made once, kept outside the tree, made anew when it is old.

The rule: nothing here depends on what happens to be installed on this machine but its release of Debian and
the places that its own apt and pip get packages from.  What is kept is found by a name that says all that it was
made of, and appears under that name only when it is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]

PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "passwd", "procps", "iproute2", "acl"),
    *("openssh-server", "openssh-client", "sudo", "python3", "python3-venv", "ca-certificates"),
)
MAX_AGE_S: Final = 14 * 86_400
"""After so long it is made anew, with the security updates of the time."""
_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BUILD_TIMEOUT_S: Final = 900.0
_APT_SETTINGS: Final = ("Check-Valid-Until", "Check-Date", "http::Proxy", "https::Proxy")
"""What may stand in this machine's configuration of apt without which its mirror cannot be used."""


class RootUnavailable(Exception):
    """There is no such system and none can be made here; says why."""


def unmet_need() -> str:
    """Why no machine can be booted here; empty when one can."""
    if os.geteuid() != 0:
        return "boots a machine, which only root can"
    for command, package in (("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(command) is None:
            return f"{command} is not installed (Debian package {package})"
    if not _release():
        return "is made for Debian: /etc/os-release names no release of it"
    return ""


def cache_directory() -> Path:
    """Where things are kept between runs; only root can look into it."""
    chosen = os.environ.get("OPENBITS_TEST_CACHE") or os.environ.get("XDG_CACHE_HOME")
    directory = Path(chosen, "openbits-tests") if chosen else Path("/var/cache/openbits-tests")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def unpack_root(target: Path) -> None:
    """Fill a directory with a fresh Debian system. Raises RootUnavailable."""
    key = _digest(_release(), *PACKAGES)
    archive = _kept(f"debian-{_release()}-{key}.tar", _make_archive)
    subprocess.run(["tar", "--extract", f"--file={archive}", f"--directory={target}"], check=True, timeout=300)


def wheels() -> Path:
    """A directory with everything that pip needs to install the project, and not the project itself."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]

    def make(target: Path) -> None:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(target), *needed]
        _run(command, "the packages that OpenBITS needs cannot be had")

    return _kept(f"wheels-{_digest(sys.version, *needed)}", make)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for the length of a `with` block; what earlier runs left behind when they were killed goes too."""
    runs = cache_directory() / "runs"
    runs.mkdir(mode=0o700, exist_ok=True)
    with _locked("runs.lock"):
        for left in runs.iterdir():
            _remove_unless_locked(left)
        own = Path(tempfile.mkdtemp(dir=runs))
        lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield own
    finally:
        _remove(own)
        os.close(lock)


def _remove_unless_locked(directory: Path) -> None:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _remove(directory)
    finally:
        os.close(lock)


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return what is kept under this name; `make` it if it is missing or old."""
    path = cache_directory() / name
    with _locked(f"{name}.lock"):
        if path.exists() and time.time() - path.stat().st_mtime < MAX_AGE_S:
            return path
        unfinished = path.with_name(f"{path.stem}.unfinished{path.suffix}")
        _remove(unfinished)
        if not path.suffix:
            unfinished.mkdir()
        try:
            make(unfinished)
        except RootUnavailable:
            if not path.exists():
                raise
            return path  # old, and better than none where the mirror cannot be reached
        _remove(path)
        unfinished.rename(path)
        os.utime(path)
        return path


def _remove(path: Path) -> None:
    # A whole system has more files than Python can delete quickly.
    subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(path)], check=True, timeout=300)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    with (cache_directory() / name).open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_archive(target: Path) -> None:
    sources = _sources()
    if not sources:
        raise RootUnavailable("apt knows no source of Debian packages: run 'apt-get update' first")
    settings = [f"--aptopt={line}" for line in _apt_settings()]
    options = ["--mode=root", "--variant=minbase", "--format=tar", "--quiet", f"--include={','.join(PACKAGES)}"]
    command = ["mmdebstrap", *options, *settings, _release(), str(target), *sources]
    _run(command, "a Debian system cannot be made")


def _sources() -> list[str]:
    """Where this machine's apt gets Debian from, as lines of a sources.list; other vendors' packages are left out."""
    wanted = "$(ORIGIN)|$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", wanted], capture_output=True, text=True, timeout=60, check=True
    )
    components: dict[tuple[str, str], list[str]] = {}
    for line in found.stdout.splitlines():
        origin, kind, uri, release, component = line.split("|")
        if (origin, kind) == ("Debian", "Packages") and release.startswith(_release()):
            components.setdefault((uri, release), []).append(component)
    option = f"[signed-by={_KEYRING}] " if os.path.exists(_KEYRING) else ""
    return [
        f"deb {option}{uri} {release} {' '.join(dict.fromkeys(names))}" for (uri, release), names in components.items()
    ]


def _apt_settings() -> list[str]:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=60, check=True)
    return [
        line for line in dump.stdout.splitlines() if line.startswith(tuple(f"Acquire::{n} " for n in _APT_SETTINGS))
    ]


def _release() -> str:
    """The code name of this machine's Debian; empty for other systems."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    entries = dict(line.split("=", 1) for line in lines if "=" in line)
    return entries.get("VERSION_CODENAME", "").strip('"') if entries.get("ID") == "debian" else ""


def _run(command: list[str], problem: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RootUnavailable(f"{problem}: {done.stderr.strip()[-2000:]}")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
