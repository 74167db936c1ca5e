"""The policy of a daemon under test: files beside its configuration, replaced in one step as a careful hand does."""

from __future__ import annotations

import os

from support.daemon import Daemon

ALL_DAY = "from_hour = 0\nto_hour = 0\n"
"""Hours of a [max_internet_bandwidth] that hold whenever the test runs."""


def directory_of(daemon: Daemon) -> str:
    """Where the files stand; it is made if need be."""
    path = os.path.join(daemon.base, "policy.d")
    if not os.path.isdir(path):
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
    return path


def write_policy(daemon: Daemon, text: str, *, name: str = "50-test.toml", mode: int = 0o644) -> str:
    """Write or replace a file; return its path. The service takes note by itself."""
    directory = directory_of(daemon)
    path, draft = os.path.join(directory, name), os.path.join(directory, "draft")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(draft, mode)
    os.rename(draft, path)
    return path


def limit_all(daemon: Daemon, kbps: int | str) -> None:
    """Limit all background jobs together, and wait until the service knows it."""
    value = f'"{kbps}"' if isinstance(kbps, str) else kbps
    write_policy(daemon, f"[max_internet_bandwidth]\n{ALL_DAY}limit_kbps = {value}\n")
    daemon.wait_log("action=policy-loaded")
