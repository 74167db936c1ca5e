"""A console where somebody works with `bitsadmin`: each call and what it printed are written down and compared.

A recorded session stands in a file under tests/system/golden. What differs from run to run has a name there: {GUID-1},
TIME, and the places that the test names. BITSADMIN_GOLDEN=write writes the files anew; read the difference before you
commit it.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openbits.cli.bitsadmin.output import BANNER
from openbits.client import calls
from openbits.errors import BitsError
from support.accounts import TestAccount
from support.daemon import BIN, Daemon

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "system" / "golden"
SCRIPT = os.path.join(BIN, "bitsadmin")
TIMEOUT_S = 60.0
_GUID = re.compile(r"\{[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}\}", re.IGNORECASE)
_TIME = re.compile(r"\b\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2} [AP]M\b")
_HEAD = "\n" + "\n".join(BANNER) + "\n\n"


@dataclass(kw_only=True)
class Console:
    """One account's console; `places` are the names of what differs from run to run."""

    daemon: Daemon
    account: TestAccount | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    session: list[str] = field(default_factory=list)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Begin to run `bitsadmin`, for the `with` statement."""
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        if self.account is not None:
            groups = list(self.account.groups)
            more |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": groups}
        return subprocess.Popen(
            [SCRIPT, *arguments], env=self.environment, cwd="/", text=True, errors="surrogateescape", **more
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a program of this console finds, the way to the daemon included."""
        home = self.daemon.base if self.account is None else self.account.home
        path = f"{BIN}:{os.environ['PATH']}"
        return {**os.environ, "BITS_SOCKET": self.daemon.socket, "HOME": home, "PATH": path, "TZ": "UTC"}

    def run(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """Run `bitsadmin`; nothing is written down."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def good(self, *arguments: str) -> str:
        """Run it, and return what it printed below the banner; it must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout.removeprefix(_HEAD)

    def raw(self, *arguments: str) -> str:
        """Run it with /rawreturn, and return the value."""
        done = self.run("/rawreturn", *arguments)
        assert done.returncode == 0, done
        assert done.stderr == ""
        return done.stdout

    def __call__(self, *arguments: str) -> str:
        """Run it and write the call down, with what it printed and its exit status; return what it printed."""
        done = self.run(*arguments)
        is_raw = "/rawreturn" in [argument.lower() for argument in arguments]
        text = done.stdout
        if text.startswith(_HEAD):
            text = text.removeprefix(_HEAD)
        else:
            assert is_raw, f"there is no banner: {done}"
        self.session.append(f"$ bitsadmin {shlex.join(arguments)}\n")
        self.session.append(text if text.endswith("\n") or not text else f"{text}<no newline>\n")
        self.session += [f"stderr: {line}\n" for line in done.stderr.splitlines()]
        if done.returncode:
            self.session.append(f"exit status {done.returncode}\n")
        return text

    def job(self, name: str = "job", *options: str) -> str:
        """Create a job without writing it down; return its id."""
        return self.raw("/create", *options, name)[1:-1].lower()

    @property
    def text(self) -> str:
        """The session with names for what differs from run to run."""
        text = "".join(self.session)
        for place, name in sorted(self.places.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(place, name)
        found: dict[str, str] = {}
        text = _GUID.sub(lambda match: found.setdefault(match[0].upper(), f"{{GUID-{len(found) + 1}}}"), text)
        return _TIME.sub("TIME", text)

    def check(self, name: str) -> None:
        """Compare the session with the recorded one."""
        path = GOLDEN / f"{name}.txt"
        if os.environ.get("BITSADMIN_GOLDEN") == "write":
            path.write_text(self.text, encoding="utf-8")
        assert self.text == path.read_text(encoding="utf-8")


def end_jobs(daemon: Daemon) -> None:
    """Cancel everybody's jobs, so that the next test begins with an empty queue."""
    for job in daemon.session.perform(calls.all_jobs(all_users=True)):
        try:
            daemon.session.perform(calls.cancel(job["id"]))
        except BitsError as error:
            if error.name != "BG_E_INVALID_STATE":  # it has ended by itself in the same moment
                raise


def fresh(console: Console) -> Iterator[Console]:
    """Give a console out with an empty session, and an empty queue before and after."""
    end_jobs(console.daemon)
    console.session.clear()
    yield console
    end_jobs(console.daemon)
