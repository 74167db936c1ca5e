"""Programs that impersonate, and what the kernel shows of their threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from support.accounts import TestAccount

CREDENTIALS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")

PRELUDE = """
import contextlib, ctypes, json, os, signal, subprocess, sys, threading, time
import openbits
from openbits.errors import BitsError

def credentials(of="thread-self"):
    with open(f"/proc/{of}/status") as file:
        found = dict(line.split(":", 1) for line in file)
    return {name: found[name].split() for name in %r}
""" % (CREDENTIALS,)  # noqa: UP031 - braces stand in the text


def credentials_of(what: str | int) -> dict[str, list[str]]:
    """Ids, groups and capabilities of `self/task/TID`, a pid or `thread-self`, as /proc shows them."""
    with open(f"/proc/{what}/status", encoding="ascii", errors="replace") as file:
        found = dict(line.split(":", 1) for line in file)
    return {name: found[name].split() for name in CREDENTIALS}


def uids_of(what: str | int) -> list[int]:
    """Real, effective, saved and file system uid."""
    return [int(value) for value in credentials_of(what)["Uid"]]


def as_service(account: TestAccount, capabilities: Iterable[str] = ("setuid", "setgid")) -> list[str]:
    """The command that makes a service of an account: with a few capabilities, as a unit's AmbientCapabilities do."""
    wanted = ",".join(f"+{name}" for name in capabilities)
    given = ["--inh-caps", wanted, "--ambient-caps", wanted] if wanted else ["--inh-caps=-all"]
    return [
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        f"--groups={','.join(str(gid) for gid in account.groups)}",
        *given,
    ]


def python(script: str, *arguments: str, prefix: Iterable[str] = ()) -> list[str]:
    """The command that runs a script, which finds `openbits`, `credentials` and what else PRELUDE has."""
    return [*prefix, sys.executable, "-W", "error", "-c", PRELUDE + script, *arguments]


def run_python(
    script: str, *arguments: str, prefix: Iterable[str] = (), account: TestAccount | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; as an account, or by a command that changes what it is."""
    more: dict[str, Any] = {}
    if account is not None:
        more = {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}
    return subprocess.run(
        python(script, *arguments, prefix=prefix),
        env={**os.environ, "HOME": "/"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **more,
    )
