"""`bitsd-command`: runs one notification command line with its owner's rights, and leaves nothing of it behind (N10).

The rule: a program, and all that it starts, ends at its time limit, at its owner's log-off and with this process,
whatever it does to get away.  It is given its arguments, an environment that is made here, and nothing else.

The process is forked like a worker, with the account's rights and without a worker's restrictions: those would hold for
the program too, which could then run nothing, make no socket and move no file.  In return it never meets the network,
has one thread, and does one thing.  It adopts the orphans of its program, and so knows everybody who descends from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import signal
import socket
import stat
from dataclasses import dataclass
from typing import Final, NoReturn

from openbits import privileges
from openbits.descendants import children_of, descendants_of
from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.operations import NoticeEnded, RunCommand
from openbits.frames.worker import SERVICE_TO_WORKER, WORKER_TO_SERVICE, WorkerReady
from openbits.worker.failure import MESSAGE_LIMIT, account_name, shown
from openbits.worker.loop import READABLE, WRITABLE, Loop

GRACE_S: Final = 2.0
"""Between SIGTERM and SIGKILL at the time limit …"""
LEAVE_GRACE_S: Final = 0.25
"""… and when the owner logs off or the service ends, which wait for nobody."""
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_UMASK: Final = 0o022
_ROUNDS: Final = 100
"""How often the family is looked through for those who were born meanwhile, before others get a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a program is told of its account."""

    home: str
    environment: dict[str, str]


def account_of(uid: int) -> Account:
    """What the account database says, or what can be said without it: a log-on would set the same."""
    name, home, shell = f"{uid}", "/", "/bin/sh"
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir or home, entry.pw_shell or shell
    environment = {"HOME": home, "LANG": "C.UTF-8", "LOGNAME": name, "PATH": PATH, "SHELL": shell, "USER": name}
    runtime = f"/run/user/{uid}"
    with contextlib.suppress(OSError):
        status = os.stat(runtime, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid:
            environment["XDG_RUNTIME_DIR"] = runtime
    return Account(home=home, environment=environment)


class Keeper:
    """Runs the one program; `run` returns when nothing of it is left."""

    def __init__(self, channel_socket: socket.socket) -> None:
        self._loop = Loop()
        self._channel = Channel(channel_socket, outgoing=WORKER_TO_SERVICE, incoming=SERVICE_TO_WORKER)
        self._channel.on_wants_write = self._on_wants_write
        self._order: RunCommand | None = None
        self._program_pid = 0
        self._is_late = False
        self._is_leaving = False
        self._is_killing = False

    def __repr__(self) -> str:
        return f"<Keeper of {self._order.program if self._order else 'nothing yet'}>"

    def run(self) -> int:
        """Wait for the order, carry it out, and stay until nobody is left or the channel ends."""
        privileges.adopt_orphans()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._loop.watch(reading, READABLE, lambda _events: self._on_signals(os.read(reading, 64)))
        self._loop.watch(self._channel.fileno(), READABLE, self._on_channel)
        self._send(WorkerReady(pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), groups=tuple(sorted(os.getgroups()))))
        self._loop.run()
        return 0

    # --- the service -------------------------------------------------------------------------

    def _send(self, message: object) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            self._leave()

    def _on_wants_write(self, wants: bool) -> None:
        self._loop.change(self._channel.fileno(), READABLE | WRITABLE if wants else READABLE)

    def _on_channel(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._channel.flush()
            while not self._is_leaving and (received := self._channel.receive()) is not None:
                message, descriptors = received
                for fd in descriptors:
                    os.close(fd)
                if not isinstance(message, RunCommand) or self._order is not None:
                    raise AssertionError(f"{message!r} is not for who keeps one program")
                self._order = message
                self._start(message)
        except ChannelClosed:
            self._loop.unwatch(self._channel.fileno())
            self._leave()

    def _end(self, order: RunCommand, error: str = "", message: str = "", status: int | None = None) -> None:
        if len(message) > MESSAGE_LIMIT:
            message = f"{message[: MESSAGE_LIMIT - 1]}…"
        self._send(NoticeEnded(operation=order.operation, error=error, message=message, status=status))

    # --- the program -------------------------------------------------------------------------

    def _start(self, order: RunCommand) -> None:
        try:
            self._program_pid = _start(order.program, order.arguments, account_of(os.getuid()))
        except (OSError, ValueError) as error:
            name, message = _start_failure(error, order.program)
            self._end(order, name, message)
            self._loop.stop()
            return
        self._loop.call_later(order.limit_s, self._on_limit)

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self._leave()
        if signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                if self._order is not None:
                    # Nobody is left.
                    self._loop.stop()
                return
            if pid == 0:
                break
            if pid == self._program_pid:
                self._program_ended(os.waitstatus_to_exitcode(status))
        if self._is_killing:
            # Whose parent has just ended is our child now.
            self._kill()

    def _program_ended(self, status: int) -> None:
        order = self._order
        assert order is not None
        self._program_pid = 0
        name = shown(order.program)
        if self._is_leaving:
            return
        if self._is_late:
            message = f"{name} was killed: it had not ended after {order.limit_s:g} s"
            self._end(order, "ERROR_TIMEOUT", message, status)
        elif status < 0:
            self._end(order, "ERROR_PROCESS_ABORTED", f"{name} was ended by {_signal_name(-status)}", status)
        elif status > 0:
            self._end(order, "ERROR_PROCESS_ABORTED", f"{name} exited with status {status}", status)
        else:
            self._end(order, status=0)

    # --- the end of everything ---------------------------------------------------------------

    def _on_limit(self) -> None:
        self._is_late = self._program_pid != 0
        self._finish_off(GRACE_S)

    def _leave(self) -> None:
        """The service has gone, or wants it over: nobody is told anything any more."""
        if not children_of(os.getpid()):
            self._loop.stop()
        elif not self._is_leaving:
            self._finish_off(LEAVE_GRACE_S)
        self._is_leaving = True

    def _finish_off(self, grace_s: float) -> None:
        _signal_all(descendants_of(os.getpid()), signal.SIGTERM)
        # Who was stopped takes the request to end only when he goes on.
        _signal_all(descendants_of(os.getpid()), signal.SIGCONT)
        self._loop.call_later(grace_s, self._kill)

    def _kill(self) -> None:
        """Kill the family, and those who are born meanwhile; its last members are met in `_reap`."""
        self._is_killing = True
        killed: set[int] = set()
        for _ in range(_ROUNDS):
            born = set(descendants_of(os.getpid())) - killed
            if not born:
                return
            _signal_all(born, signal.SIGKILL)
            killed |= born
        # They multiply faster than they are found, for now: others get a turn, and then it goes on.
        self._loop.post(self._kill)


def _signal_all(pids: list[int] | set[int], number: signal.Signals) -> None:
    """A descendant's number cannot mean a stranger: it is his until his parent, or this process, waits for him.

    (Of what a member of the family has waited for in this very moment the number may be new; it is the account's
    then, or out of reach: this process may signal nobody else.)
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(program: str, arguments: tuple[str, ...], account: Account) -> int:
    """Start the program; return its process number. Raises OSError, ValueError for a NUL in a name.

    Between fork and exec runs Python, which only a process with a single thread may do.
    """
    path, argv = _encoded(program), [_encoded(argument) for argument in arguments] or [_encoded(program)]
    if not program.startswith("/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    environment = {_encoded(key): _encoded(value) for key, value in account.environment.items()}
    told, low = os.pipe2(os.O_CLOEXEC)
    # Out of the way of what every program takes for its own.
    teller = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(low)
    keeper_pid = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _be_program(path, argv, environment, account.home, teller, keeper_pid)
        os.close(teller)
        teller = -1
        # The end of the pipe is the exec's, or the child's: a moment.
        answer = os.read(told, 16)
    finally:
        os.close(told)
        if teller >= 0:
            os.close(teller)
    if answer:
        os.waitpid(pid, 0)
        number = int(answer)
        raise OSError(number, os.strerror(number), program)
    return pid


def _be_program(
    path: bytes, argv: list[bytes], environment: dict[bytes, bytes], home: str, teller: int, keeper_pid: int
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        privileges.die_with_parent(keeper_pid)
        os.setsid()
        os.umask(_UMASK)
        try:
            os.chdir(home)
        except OSError:
            os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        # It is closed by the exec; everything else now, whatever it is.
        os.closerange(3, teller)
        os.closerange(teller + 1, os.sysconf("SC_OPEN_MAX"))
        os.execve(path, argv, environment)  # noqa: S606 - a shell is the last thing wanted here
    except OSError as error:
        os.write(teller, str(error.errno or errno.EINVAL).encode())
    finally:
        os._exit(127)


def _encoded(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError("an argument contains a NUL character")
    return raw


# name, what happened, what to do
_START: Final[dict[int, tuple[str, str]]] = {
    errno.ENOENT: ("ERROR_FILE_NOT_FOUND", "there is no such program: name it by its full path"),
    errno.ENOTDIR: ("ERROR_FILE_NOT_FOUND", "a part of the path is no directory: name the program by its full path"),
    errno.ELOOP: ("ERROR_FILE_NOT_FOUND", "its path leads in a circle of links: name the program itself"),
    errno.ENAMETOOLONG: ("ERROR_FILE_NOT_FOUND", "the name is too long: there is no such program"),
    errno.EACCES: ("E_ACCESSDENIED", "{account} may not execute it: make it executable, or name another program"),
    errno.ENOEXEC: (
        "ERROR_BAD_EXE_FORMAT",
        "it is no program: a script begins with the line that names its interpreter, such as #!/bin/sh",
    ),
    errno.EINVAL: ("ERROR_BAD_EXE_FORMAT", "it is no program that this machine can run"),
    errno.ELIBBAD: ("ERROR_BAD_EXE_FORMAT", "its interpreter is no program that this machine can run"),
    errno.ETXTBSY: ("E_ACCESSDENIED", "somebody is writing to it: it is started again later"),
    errno.E2BIG: ("BG_E_STRING_TOO_LONG", "its arguments are too long: give it a file instead"),
    errno.EIO: ("ERROR_READ_FAULT", "it cannot be read: check the disk"),
}
_START[errno.EPERM] = _START[errno.EACCES]
_NO_INTERPRETER: Final = "the interpreter that its first line names does not exist: correct that line"


def _start_failure(error: OSError | ValueError, program: str) -> tuple[str, str]:
    if isinstance(error, ValueError):
        return "E_INVALIDARG", f"{shown(program)}: {error}, which no program can be given"
    number = error.errno or 0
    name, clause = _START.get(number, ("ERROR_NOT_ENOUGH_MEMORY", f"it cannot be started now: {os.strerror(number)}"))
    if number == errno.ENOENT and os.path.isfile(_encoded(program)):
        name, clause = "ERROR_BAD_EXE_FORMAT", _NO_INTERPRETER
    return name, f"{shown(program)}: {clause.format(account=account_name())}"


def keep_program(channel_socket: socket.socket) -> int:
    """Be the keeper of one program; returns the exit status."""
    return Keeper(channel_socket).run()
