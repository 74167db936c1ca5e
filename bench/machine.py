"""What was measured, and on what: a description without which the numbers mean nothing."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import sys
from datetime import UTC, datetime
from typing import Final

from bench.running import BenchError, Command, run
from openbits.version import __version__

_GIB: Final = 1024**3


def describe() -> dict[str, str]:
    """Return names and values, in the order in which they are shown."""
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "OpenBITS": __version__ + _revision(),
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIB:.0f} GiB",
        "System": f"{_distribution()}, Linux {platform.release()}",
        "Python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "Engine": _version_of([sys.executable, "-c", "import pycurl; print(pycurl.version)"], r"(?:\S+ ?){1,3}"),
        "nginx": _version_of(["sh", "-c", "nginx -v 2>&1"], r"nginx/(\S+)"),
        "curl": _version_of(["curl", "--version"], r"curl (\S+ \S+ \S+ \S+)"),
        "aria2": _version_of(["aria2c", "--version"], r"aria2 version (\S+)"),
        "wget2": _version_of(["wget2", "--version"], r"GNU Wget2 (\S+)"),
    }


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "unknown distribution"


def _revision() -> str:
    directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        known = run(Command(arguments=["git", "-C", directory, "rev-parse", "--short", "HEAD"])).decode().strip()
    except (BenchError, OSError):
        return ""
    return f" (commit {known})"


def _version_of(command: list[str], pattern: str) -> str:
    try:
        found = re.search(pattern, run(Command(arguments=command)).decode("utf-8", "replace"))
    except (BenchError, OSError):
        return "not installed"
    return found.group(found.re.groups and 1).strip() if found else "unknown"
