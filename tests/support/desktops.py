"""GNOME's proxy settings for tests, in databases that `dconf` itself has made."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import pytest

needs_dconf = pytest.mark.skipif(shutil.which("dconf") is None, reason="needs dconf (package dconf-cli)")


def compile_database(target: str, settings: Mapping[str, str], *, locks: Sequence[str] = ()) -> None:
    """Write a database; `settings` are GVariant texts by key (`system/proxy/mode` → `'manual'`)."""
    with tempfile.TemporaryDirectory() as directory:
        sections: dict[str, list[str]] = {}
        for key, value in settings.items():
            path, _, name = key.rpartition("/")
            sections.setdefault(path, []).append(f"{name}={value}")
        text = "".join(f"[{path}]\n" + "\n".join(lines) + "\n" for path, lines in sections.items())
        with open(os.path.join(directory, "settings"), "w", encoding="utf-8") as file:
            file.write(text)
        if locks:
            os.mkdir(os.path.join(directory, "locks"))
            with open(os.path.join(directory, "locks", "all"), "w", encoding="utf-8") as file:
                file.write("".join(f"/{key}\n" for key in locks))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(["dconf", "compile", target, directory], check=True, capture_output=True, timeout=30)


def manual(host: str, port: int, **more: str) -> dict[str, str]:
    """The settings of a desktop with one proxy for everything."""
    settings = {
        "system/proxy/mode": "'manual'",
        "system/proxy/http/host": f"'{host}'",
        "system/proxy/http/port": str(port),
    }
    return settings | {f"system/proxy/{key.replace('_', '-')}": value for key, value in more.items()}


def give_desktop(home: str, settings: Mapping[str, str], *, uid: int, gid: int) -> str:
    """Put settings into an account's home, as its own; return the database's path."""
    path = os.path.join(home, ".config", "dconf", "user")
    compile_database(path, settings)
    for place in (os.path.join(home, ".config"), os.path.dirname(path), path):
        os.chown(place, uid, gid)
        os.chmod(place, 0o700 if os.path.isdir(place) else 0o600)
    return path
