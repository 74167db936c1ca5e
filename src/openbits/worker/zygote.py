"""`bitsd-zygote`: has imported what a worker needs, and forks workers at the monitor's command.

The rule: one thread, no secrets, no network, nothing read but the monitor's frames.  A worker gives up
everything before it runs the first line of its own program, and nothing is imported after that: its
account may not be able to read the program's files.
"""

from __future__ import annotations

import argparse
import contextlib
import encodings.idna
import fcntl
import gc
import grp
import os
import pwd
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from openbits import privileges
from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.monitor import (
    MONITOR_TO_ZYGOTE,
    ZYGOTE_TO_MONITOR,
    ForkFailed,
    ForkWorker,
    WorkerForked,
    ZygoteReady,
)
from openbits.title import set_title
from openbits.worker.sandbox import enter_sandbox

_EXIT_CRASHED: Final = 70
_WORKER_CHANNEL_FD: Final = 3
_TELLER_FD: Final = 4

PRELOADED: Final = (encodings.idna, grp, pwd)
"""Modules that the standard library would import late, when a name is resolved or an account looked up."""

RunWorker = Callable[[socket.socket], int]


class Zygote:
    """The loop; `run` returns when the monitor has gone."""

    def __init__(self, channel_fd: int, run_worker: RunWorker, keep_program: RunWorker) -> None:
        self._channel = Channel(
            socket.socket(fileno=channel_fd), outgoing=ZYGOTE_TO_MONITOR, incoming=MONITOR_TO_ZYGOTE
        )
        self._run_worker = run_worker
        self._keep_program = keep_program
        self._pid = os.getpid()
        self._wakeup, self._alarm = socket.socketpair()
        for sock in (self._wakeup, self._alarm):
            sock.setblocking(False)

    def run(self) -> None:
        """Fork workers until the channel ends. Raises FrameError for a monitor that is not ours."""
        # Reaped by hand: with SIGCHLD ignored, a worker that ends at once would be gone, and its number in
        # use for something else, before its pidfd is opened.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        with contextlib.suppress(ChannelClosed):
            self._channel.send(ZygoteReady())
            while True:
                wanted = select.POLLIN | (select.POLLOUT if self._channel.wants_write else 0)
                poll.register(self._channel.fileno(), wanted)
                poll.poll()
                self._reap()
                self._channel.flush()
                while (received := self._channel.receive()) is not None:
                    self._obey(*received)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(64):
                pass
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _obey(self, frame: object, descriptors: list[int]) -> None:
        try:
            assert isinstance(frame, ForkWorker)
            (socket_fd,) = descriptors
            self._fork(frame, socket_fd)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _fork(self, order: ForkWorker, socket_fd: int) -> None:
        told, teller = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(told)
            os.close(teller)
            self._channel.send(ForkFailed(request=order.request, message=error.strerror or str(error)))
            return
        if pid == 0:
            self._be_worker(order, socket_fd, teller)
        os.close(teller)
        pidfd = os.pidfd_open(pid)
        try:
            # Nobody hears of a worker that still is root. This waits for our own code, about a
            # millisecond, and ends with the child at the latest.
            if os.read(told, 1):
                os.read(told, 1)  # the end: the worker has let go of this pipe too, and holds nothing of ours
                self._channel.send(WorkerForked(request=order.request, pid=pid), (pidfd,))
            else:
                self._channel.send(ForkFailed(request=order.request, message="it could not give up its rights"))
        finally:
            os.close(told)
            os.close(pidfd)

    def _be_worker(self, order: ForkWorker, socket_fd: int, teller: int) -> NoReturn:
        status = _EXIT_CRASHED
        try:
            privileges.die_with_parent(self._pid)
            os.setpgid(0, 0)
            self._leave_zygote(socket_fd, teller)
            title = "bitsd-command" if order.runs_program else "bitsd-worker"
            set_title(title, f"{title}: {order.name or order.uid}")
            privileges.become(order.uid, order.gid, order.groups)
            if not order.runs_program:
                # What a process may not do, no program that it runs may do either; and this one meets no network.
                enter_sandbox()
            os.write(_TELLER_FD, b"!")
            os.close(_TELLER_FD)
            run = self._keep_program if order.runs_program else self._run_worker
            status = run(socket.socket(fileno=_WORKER_CHANNEL_FD))
        except BaseException:  # noqa: BLE001 - whatever it is, this process must never return to the zygote's loop
            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            os._exit(status)

    def _leave_zygote(self, socket_fd: int, teller: int) -> None:
        """Keep nothing of the zygote's: no descriptor but the worker's channel, no signal handler."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # Closed as objects too: one that is collected later would close a number that the worker uses by then.
        self._channel.close()
        self._wakeup.close()
        self._alarm.close()
        # Out of the way of the numbers that they are to have.
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _TELLER_FD + 1) for fd in (socket_fd, teller)]
        for fd, wanted in zip(kept, (_WORKER_CHANNEL_FD, _TELLER_FD), strict=True):
            os.dup2(fd, wanted, inheritable=False)
        os.closerange(_TELLER_FD + 1, os.sysconf("SC_OPEN_MAX"))
        gc.enable()


def main(run_worker: RunWorker, keep_program: RunWorker | None = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(prog="bitsd-zygote", description="Started by bitsd; forks its workers.")
    parser.add_argument("--channel", type=int, required=True, metavar="FD")
    options = parser.parse_args()
    set_title("bitsd-zygote")
    privileges.forbid_inspection()
    # The account database's modules are loaded once, here, and not in every worker.
    with contextlib.suppress(KeyError):
        pwd.getpwuid(os.getuid())
    # What exists now is shared with all workers for as long as nobody writes to it; a collection would.
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(options.channel, run_worker, keep_program or run_worker).run()
    return 0


def _main() -> int:
    # Tests of the zygote run it with another worker.
    from openbits.worker.commands import keep_program  # noqa: PLC0415
    from openbits.worker.main import run  # noqa: PLC0415

    return main(run, keep_program)


if __name__ == "__main__":
    sys.exit(_main())
