"""People who log on to a booted machine by ssh, and log off: real sessions of logind.

The rule: a log-on lasts until `log_off`, however many commands it runs meanwhile; what such a command leaves behind
goes on running, as nohup(1) has it, and keeps the session *closing*.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import time
from collections.abc import Iterator
from typing import Final

from support.daemon import wait_until
from support.nspawn import Machine

KEY: Final = "/root/.ssh/id_ed25519"
"""Root's key in the machine, which every person's account lets in."""
_SSH: Final = (
    *("ssh", "-T", "-i", KEY, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
)


class Logon:
    """Somebody who is logged on to the machine, with a shell."""

    def __init__(self, machine: Machine, account: str) -> None:
        self.machine = machine
        self.account = account
        self._shell = machine.popen(*_SSH, f"{account}@127.0.0.1", "exec sh")
        self._said = b""
        self.session = self.run("echo $XDG_SESSION_ID").strip()
        """Its number at logind."""

    def run(self, line: str, timeout_s: float = 30.0) -> str:
        """Have the shell run a line, which must succeed; return what was printed."""
        assert self._shell.stdin is not None
        mark = f"--- {secrets.token_hex(8)}"
        self._shell.stdin.write(f'{{ {line}\n}} 2>&1; echo "{mark} $?"\n')
        self._shell.stdin.flush()
        text = self._read_until(mark.encode(), time.monotonic() + timeout_s)
        said, _, status = text.rpartition(f"{mark} ")
        assert status.strip() == "0", f"{line}: status {status}{said}"
        return said

    def _read_until(self, mark: bytes, deadline: float) -> str:
        assert self._shell.stdout is not None
        assert self._shell.stderr is not None
        out = self._shell.stdout.fileno()
        while True:
            at = self._said.find(mark)
            end = self._said.find(b"\n", at)
            if at >= 0 and end >= 0:
                text, self._said = self._said[: end + 1], self._said[end + 1 :]
                return text.decode(errors="replace")
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(out, 65536) if ready else b""
            if not data:
                self._shell.kill()
                raise AssertionError(f"the session of {self.account} is over: {self._shell.stderr.read()}")
            self._said += data

    def leave_behind(self, seconds: int = 600) -> int:
        """Start a program that outlives the session, so that it stays *closing*; return its pid."""
        return int(self.run(f"setsid nohup sleep {seconds} >/dev/null 2>&1 </dev/null & echo $!").split()[-1])

    def log_off(self) -> float:
        """End the shell; return the moment, by the monotonic clock, at which logind no longer counts it as open."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(timeout=20)
        self._close()
        wait_until(lambda: self.state() in ("closing", ""), f"the session of {self.account} to close")
        return time.monotonic()

    def hang_up(self) -> None:
        """Break the connection, as a network that goes away does; does no harm to one that has ended."""
        self._shell.kill()
        self._shell.wait(timeout=20)
        self._close()

    def state(self) -> str:
        """The session's state at logind; empty when it is gone."""
        shown = self.machine.try_run("loginctl", "show-session", "--value", "--property=State", self.session)
        return shown.stdout.strip()

    def _close(self) -> None:
        for stream in (self._shell.stdin, self._shell.stdout, self._shell.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def logged_on(machine: Machine, account: str) -> Iterator[Logon]:
    """Somebody who is logged on for the length of a `with` block."""
    logon = Logon(machine, account)
    try:
        yield logon
    finally:
        logon.hang_up()


def user_state(machine: Machine, account: str) -> str:
    """What logind says of an account: active, closing, lingering …; empty when it knows nothing of it."""
    shown = machine.try_run("loginctl", "show-user", "--value", "--property=State", account)
    return shown.stdout.strip()
