"""Starting the other programs: what they get from this one, and that it is nothing more."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from openbits import privileges
from openbits.privileges import Capability

_EXIT_NOT_STARTED: Final = 127
_UMASK: Final = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How one of the programs is started.

    Both start as root and give it up by themselves after their imports: their code may lie where only
    root can read it (a virtual environment below /root).  Trying beforehand whether the account could import
    everything would take as long as the start itself.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    capabilities: frozenset[Capability]
    """What it may keep until it gives up the rest; the kernel takes the others at the start."""
    inherited: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A program that runs; the pidfd names it even when its number is used again."""

    name: str
    pid: int
    pidfd: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a child that has ended does not mind."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Forget the child."""
        os.close(self.pidfd)


def start(program: Program, channel_fd: int) -> Child:
    """Start a program with its end of the channel. Raises OSError."""
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _execute(program, channel_fd, parent_pid)
    return Child(name=program.name, pid=pid, pidfd=os.pidfd_open(pid))


def describe_end(status: int) -> str:
    """Say how a child ended, from what waitpid told."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit status {os.WEXITSTATUS(status)}"


def was_killed(status: int) -> bool:
    """Whether a child was ended from outside."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _execute(program: Program, channel_fd: int, parent_pid: int) -> NoReturn:
    try:
        privileges.die_with_parent(parent_pid)
        # Ctrl+C in a terminal is for the monitor, which then ends the others in order.
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        for fd in (channel_fd, *program.inherited):
            os.set_inheritable(fd, True)
        os.umask(_UMASK)
        os.chdir("/")
        privileges.limit_capabilities(program.capabilities)
        command = [*program.command, "--channel", str(channel_fd)]
        os.execve(command[0], command, program.environment)  # noqa: S606 - a shell is the last thing wanted here
    except BaseException as error:  # noqa: BLE001 - whatever it is, this copy of the monitor must not go on
        with contextlib.suppress(BaseException):
            os.write(2, f"bitsd: cannot start the {program.name}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(_EXIT_NOT_STARTED)
