"""The workers: asked for by the service, forked by the zygote, watched here until they end.

The rule: every worker is known by a pidfd from its first moment to its last, belongs to the run of the
service that asked for it, and does not outlive that run.  What a worker leaves behind is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.frames import monitor as frames
from openbits.monitor.accounts import Granted, IdentityRule, Refused, is_identity
from openbits.monitor.log import say
from openbits.monitor.permits import Violation
from openbits.monitor.reactor import Link, Reactor
from openbits.privileges import Identity

MOST_WORKERS: Final = 256
_REMEMBERED_ENDS: Final = 1024


@dataclass(slots=True, kw_only=True)
class _Order:
    """A worker that does not exist yet; `socket_fd` is -1 once it is with the zygote."""

    service: Link
    request: int
    granted: Granted
    runs_program: bool
    socket_fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    service: Link
    pid: int
    pidfd: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class Workforce:
    """All workers and all orders for workers; `on_empty` is called when the last worker has ended."""

    def __init__(
        self,
        *,
        rule: IdentityRule,
        reactor: Reactor,
        on_empty: Callable[[], None],
        kill_orphans: Callable[[], object] = lambda: None,
    ) -> None:
        """`kill_orphans` is called when a worker has ended: its children are the monitor's by then."""
        self._rule = rule
        self._kill_orphans = kill_orphans
        self._reactor = reactor
        self._on_empty = on_empty
        self._service: Link | None = None
        self._zygote: Link | None = None
        self._hiring = True
        self._numbers = itertools.count(1)
        self._orders: dict[int, _Order] = {}
        self._workers: dict[int, _Worker] = {}
        self._ended: deque[int] = deque(maxlen=_REMEMBERED_ENDS)

    def __repr__(self) -> str:
        return f"<Workforce workers={sorted(self._workers)} orders={len(self._orders)}>"

    @property
    def is_empty(self) -> bool:
        """Whether no worker lives."""
        return not self._workers

    @property
    def pidfds(self) -> list[int]:
        """A pidfd of each living worker."""
        return [worker.pidfd for worker in self._workers.values()]

    # --- the service ---

    def service_came(self, service: Link) -> None:
        """Take orders from this run of the service."""
        self._service = service
        self._ended.clear()

    def service_left(self) -> None:
        """Forget what it ordered; its workers see the end of their channels."""
        self._service = None
        for number, order in list(self._orders.items()):
            if order.socket_fd >= 0:
                self._drop(number)

    def stop_hiring(self) -> None:
        """Refuse orders from now on."""
        self._hiring = False

    def spawn(self, frame: frames.SpawnWorker, socket_fd: int) -> None:
        """Order a worker. Raises Violation."""
        service = self._service
        assert service is not None
        wanted = Identity(frame.uid, frame.gid, tuple(sorted(set(frame.groups))))
        if not stat.S_ISSOCK(os.fstat(socket_fd).st_mode):
            raise Violation("the service sent SpawnWorker with a descriptor that is no socket")
        if not is_identity(wanted):
            raise Violation("the service sent SpawnWorker with ids that cannot be")
        if any(order.service is service and order.request == frame.request for order in self._orders.values()):
            raise Violation(f"the service sent SpawnWorker {frame.request} twice")
        decision = self._decide(wanted, runs_program=frame.runs_program)
        if isinstance(decision, Refused):
            say(f"no worker for uid {wanted.uid}: {decision.message}")
            refusal = frames.SpawnRefused(request=frame.request, error=decision.error, message=decision.message)
            service.send(refusal)
            return
        number = next(self._numbers)
        self._orders[number] = _Order(
            service=service,
            request=frame.request,
            granted=decision,
            runs_program=frame.runs_program,
            socket_fd=os.dup(socket_fd),
        )
        self._pass_on(number)

    def kill(self, frame: frames.KillWorker) -> None:
        """Kill a worker of the service; one that has just ended is no mistake. Raises Violation."""
        worker = self._workers.get(frame.pid)
        if worker is not None and worker.service is self._service:
            say(f"worker {frame.pid} does not answer and is killed")
            worker.kill()
        elif frame.pid not in self._ended:
            raise Violation(f"the service sent KillWorker for {frame.pid}, which is no worker of its own")

    # --- the zygote ---

    def zygote_came(self, zygote: Link) -> None:
        """Pass on what was ordered while there was no zygote."""
        self._zygote = zygote
        for number in list(self._orders):
            self._pass_on(number)

    def zygote_left(self) -> None:
        """Refuse what was with it; its workers are killed with it by the kernel, and here to be sure."""
        self._zygote = None
        for number, order in list(self._orders.items()):
            if order.socket_fd < 0:
                self._fail(number, "the process that starts workers has died")
        self.kill_all()

    def forked(self, frame: frames.WorkerForked, pidfd: int) -> None:
        """Watch a new worker and tell the service. Raises Violation."""
        order = self._take(frame.request, "WorkerForked")
        if _pid_of(pidfd) not in (frame.pid, -1):
            raise Violation("the zygote sent WorkerForked with a descriptor that is not the worker's pidfd")
        worker = _Worker(service=order.service, pid=frame.pid, pidfd=os.dup(pidfd))
        self._workers[frame.pid] = worker
        self._reactor.watch(worker.pidfd, lambda _events: self._worker_ended(worker))
        if order.service is not self._service:
            worker.kill()
            return
        uid, gid, groups = order.granted.identity
        spawned = frames.WorkerSpawned(request=order.request, pid=frame.pid, uid=uid, gid=gid, groups=groups)
        order.service.send(spawned)

    def fork_failed(self, frame: frames.ForkFailed) -> None:
        """Tell the service that there is no worker. Raises Violation."""
        self._require(frame.request, "ForkFailed")
        self._fail(frame.request, f"a worker could not be started: {frame.message}")

    # --- all of them ---

    def kill_all(self) -> None:
        """Kill every worker."""
        for worker in self._workers.values():
            worker.kill()

    def kill_left_behind(self) -> None:
        """Kill the workers of runs of the service that are over."""
        for worker in self._workers.values():
            if worker.service is not self._service:
                worker.kill()

    def _decide(self, wanted: Identity, *, runs_program: bool) -> Granted | Refused:
        if not self._hiring:
            return Refused(error="ERROR_SERVICE_NOT_ACTIVE", message="the service is being stopped")
        if len(self._workers) + len(self._orders) >= MOST_WORKERS:
            message = f"{MOST_WORKERS} workers run already, which is as many as there may be"
            return Refused(error="ERROR_NOT_ENOUGH_MEMORY", message=message)
        if runs_program and wanted.uid == 0:
            # Which accounts are service accounts the service knows (N13); of this one there is no doubt.
            return Refused(error="E_ACCESSDENIED", message="no program is run as root")
        return self._rule.decide(wanted)

    def _pass_on(self, number: int) -> None:
        order = self._orders[number]
        if self._zygote is None or order.socket_fd < 0:
            return
        uid, gid, groups = order.granted.identity
        fork = frames.ForkWorker(
            request=number,
            uid=uid,
            gid=gid,
            groups=groups,
            name=order.granted.name,
            runs_program=order.runs_program,
        )
        self._zygote.send(fork, (order.socket_fd,))
        os.close(order.socket_fd)
        order.socket_fd = -1

    def _fail(self, number: int, message: str) -> None:
        order = self._drop(number)
        say(message)
        if order.service is self._service:
            order.service.send(frames.SpawnRefused(request=order.request, error="E_FAIL", message=message))

    def _require(self, number: int, frame: str) -> _Order:
        order = self._orders.get(number)
        if order is None or order.socket_fd >= 0:
            raise Violation(f"the zygote sent {frame} for something that it was not asked for")
        return order

    def _take(self, number: int, frame: str) -> _Order:
        self._require(number, frame)
        return self._orders.pop(number)

    def _drop(self, number: int) -> _Order:
        order = self._orders.pop(number)
        if order.socket_fd >= 0:
            os.close(order.socket_fd)
        return order

    def _worker_ended(self, worker: _Worker) -> None:
        self._reactor.unwatch(worker.pidfd)
        os.close(worker.pidfd)
        del self._workers[worker.pid]
        self._kill_orphans()
        if worker.service is self._service:
            self._ended.append(worker.pid)
            worker.service.send(frames.WorkerExited(pid=worker.pid))
        if not self._workers:
            self._on_empty()


def _pid_of(pidfd: int) -> int:
    """Return the process that a pidfd names, -1 when it has been reaped, 0 when it is no pidfd."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return 0
