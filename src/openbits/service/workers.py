"""The workers that run: one for each identity in use, asked for when needed and let go when idle.

The pool speaks to the monitor, which starts workers and kills them; what is said to a worker is `worker`'s.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.frames.channel import Channel
from openbits.frames.monitor import (
    KillWorker,
    ServiceReady,
    ServiceStopping,
    SpawnRefused,
    SpawnWorker,
    WorkerExited,
    WorkerSpawned,
)
from openbits.frames.operations import NoticeEnded, RunCommand
from openbits.frames.worker import SERVICE_TO_WORKER, WORKER_TO_SERVICE, BecomeEvaluator
from openbits.service.link import Link
from openbits.service.room import Room
from openbits.service.tasks import Tasks
from openbits.service.worker import Worker, WorkerGone

log = logging.getLogger(__name__)

_T = TypeVar("_T")

ATTEMPTS = 3
"""How many workers are asked the same before it is given up."""
SPAWN_TIMEOUT_S = 20.0
HANDED_OUT_S = 1.0
"""How long a worker stays for whoever has just asked for it."""
COMMAND_PATIENCE_S = 15.0
"""How long beyond its limit the keeper of a program may take to say how it ended."""
LEAVE_PATIENCE_S = 0.5
"""How long a worker that was let go may take to end when its account has logged off."""


class WorkerPool:
    """Hands out the worker of an identity; starts it through the monitor where there is none."""

    def __init__(
        self,
        channel: Channel,
        *,
        idle_s: float,
        tasks: Tasks,
        monitor_gone: Callable[[str], None],
        is_away: Callable[[int], bool] = lambda _uid: False,
    ) -> None:
        """`is_away` says whether the account with this uid is logged off: its workers leave with their last work."""
        self._idle_s = idle_s
        self._is_away = is_away
        self._leaving: dict[int, asyncio.TimerHandle] = {}
        """By pid: who was let go because its account is away, and is killed when it does not end."""
        self._tasks = tasks
        self._requests = itertools.count(1)
        self._transfers = itertools.count(1)
        self._spawning: dict[int, asyncio.Future[WorkerSpawned]] = {}
        self._workers: dict[Identity, asyncio.Future[Worker]] = {}
        self._alive: set[Worker] = set()
        self._evaluators: set[int] = set()
        """By pid: processes of accounts that are no workers any more."""
        self._keepers: dict[Worker, asyncio.TimerHandle | None] = {}
        """Processes that run one program of an account each, until everything that it started is gone."""
        self._room = Room(is_away)
        self._is_leaving = False
        self._for_evaluators: set[int] = set()
        """By request: those that have been ordered."""
        self.started = 0
        self._monitor = Link(channel, on_frame=self._from_monitor, on_closed=monitor_gone)

    def __repr__(self) -> str:
        return f"<WorkerPool alive={len(self._alive)} started={self.started}>"

    def __len__(self) -> int:
        return len(self._alive)

    def announce_ready(self, socket_path: str) -> None:
        """Tell the monitor that the service takes calls."""
        self._monitor.send(ServiceReady(socket_path=socket_path))

    def announce_stop(self, exit_status: int) -> None:
        """Tell the monitor that the service ends by its own will."""
        self._is_leaving = True
        self._monitor.send(ServiceStopping(exit_status=exit_status))

    def next_transfer(self) -> int:
        """Return a number that no other transfer has, in whatever worker."""
        return next(self._transfers)

    async def get(self, identity: Identity) -> Worker:
        """Return the worker of an identity, starting it if need be.

        Raises BitsError when the account may have none (ERROR_NO_SUCH_USER …) and WorkerGone when it
        died before it was ready.
        """
        future = self._workers.get(identity)
        if future is None or (future.done() and not _is_usable(future)):
            future = self._workers[identity] = asyncio.get_running_loop().create_future()
            # A task of its own: whoever asks first may give up, and others wait for the same worker.
            self._tasks.start(f"worker for uid {identity.uid}", self._fill(future, identity))
        worker = await asyncio.shield(future)
        # Whoever asked needs a moment to give it work, however soon idle workers are to leave.
        self._let_go_after(worker, max(self._stay_s(worker), HANDED_OUT_S))
        return worker

    async def ask(self, identity: Identity, question: Callable[[Worker], Awaitable[_T]]) -> _T:
        """Put something to the worker of an identity that can be put to another one, should that one die over it.

        Raises what `get` and the question raise, and E_FAIL when one worker after the other dies.
        """
        for _ in range(ATTEMPTS):
            try:
                worker = await self.get(identity)
                with worker.held():
                    return await question(worker)
            except WorkerGone:
                continue
        raise BitsError("E_FAIL", "the processes that work for this account end again and again")

    def kill(self, worker: Worker) -> None:
        """Kill a worker that does not answer."""
        log.warning("action=kill-worker pid=%d uid=%d", worker.pid, worker.identity.uid)
        self._monitor.send(KillWorker(pid=worker.pid))

    async def start_evaluator(self, identity: Identity, socket_fd: int) -> int:
        """Start a process of an account that evaluates a PAC script for whoever holds the other end of a socket.

        It is no worker: nobody counts it or waits for it. Returns its pid, for `end_evaluator`; raises as `get` does.
        """
        request = next(self._requests)
        self._for_evaluators.add(request)
        try:
            process = await self._spawn(request, identity, lambda _worker, _reason: None)
        finally:
            self._for_evaluators.discard(request)
        process.send(BecomeEvaluator(), (socket_fd,))
        # The frame is on its way, and the first and last that it gets.
        process.close()
        log.info("action=evaluator-started pid=%d uid=%d", process.pid, identity.uid)
        return process.pid

    def end_evaluator(self, pid: int) -> None:
        """End an evaluator, which may have ended by itself."""
        # A monitor that was told that the service leaves takes no orders, and ends what is left.
        if pid in self._evaluators and not self._is_leaving:
            self._monitor.send(KillWorker(pid=pid))

    async def run_command(
        self, identity: Identity, *, program: str, arguments: tuple[str, ...], limit_s: float
    ) -> NoticeEnded:
        """Run a program with the rights of an account (N10); return how it went.

        Not in the account's worker, which may run nothing (see `worker.sandbox`), but by a process of its own, which
        keeps what the program leaves behind within the same limit; all of it ends at log-off.  Raises as `get` does.
        """
        await self._room.enter(identity.uid)
        try:
            keeper = await self._spawn(next(self._requests), identity, self._keeper_ended, runs_program=True)
        except BaseException:
            self._room.leave(identity.uid)
            raise
        self._keepers[keeper] = None
        if self._is_away(identity.uid):
            self._end_keeper(keeper)
            raise WorkerGone
        log.info("action=command-started pid=%d uid=%d program=%s", keeper.pid, identity.uid, ascii(program))
        latest_at = asyncio.get_running_loop().time() + limit_s + COMMAND_PATIENCE_S
        try:
            async with asyncio.timeout_at(latest_at):
                ended = await keeper.notify(
                    lambda number: RunCommand(operation=number, program=program, arguments=arguments, limit_s=limit_s)
                )
        except TimeoutError:
            self._kill_keeper(keeper)
            message = f"{program} was killed: it had not ended after {limit_s:g} s"
            return NoticeEnded(operation=0, error="ERROR_TIMEOUT", message=message)
        except asyncio.CancelledError:
            self._end_keeper(keeper)
            raise
        if keeper in self._keepers:
            # What the program has left behind may signal the keeper, which runs for the same account: also one that
            # was stopped must not keep anything beyond the limit.
            timer = asyncio.get_running_loop().call_at(latest_at, self._kill_keeper, keeper)
            self._keepers[keeper] = timer
        return ended

    def _keeper_ended(self, keeper: Worker, _reason: str) -> None:
        if not keeper.is_open and keeper in self._keepers:
            timer = self._keepers.pop(keeper)
            if timer is not None:
                timer.cancel()
            self._room.leave(keeper.identity.uid)

    def _end_keeper(self, keeper: Worker) -> None:
        """It ends its program when it sees the end of its channel."""
        keeper.close()

    def _kill_keeper(self, keeper: Worker) -> None:
        """It has not ended its program in time."""
        self._end_keeper(keeper)
        if not self._is_leaving:
            self.kill(keeper)

    def account_left(self, uid: int) -> None:
        """Let the workers of an account go that has logged off: idle ones now, the others after their last work.

        Programs that run for it end now.
        """
        for keeper in tuple(self._keepers):
            if keeper.identity.uid == uid:
                self._end_keeper(keeper)
                self._kill_soon(keeper)
        self._room.look_again()
        for worker in tuple(self._alive):
            if worker.identity.uid == uid:
                self._look_at(worker)

    def close(self) -> None:
        """Let all workers go. The monitor ends those that stay, and takes no orders any more."""
        while self._leaving:
            self._leaving.popitem()[1].cancel()
        for worker in (*self._alive, *self._keepers):
            worker.close()

    def release(self, worker: Worker) -> None:
        """Note that something has ended in a worker: it may be idle now."""
        self._look_at(worker)

    async def _fill(self, future: asyncio.Future[Worker], identity: Identity) -> None:
        try:
            worker = await self._start(identity)
        except (BitsError, WorkerGone) as error:
            if self._workers.get(identity) is future:
                del self._workers[identity]
            if not future.done():
                future.set_exception(error)
                # Nobody may be waiting for it any more.
                future.exception()
        else:
            if not future.done():
                future.set_result(worker)
            # Whoever asked may have given up: it must not stay for ever.
            self._let_go_after(worker, max(self._stay_s(worker), HANDED_OUT_S))

    async def _start(self, identity: Identity) -> Worker:
        worker = await self._spawn(next(self._requests), identity, self._worker_event)
        self._alive.add(worker)
        self.started += 1
        log.info("action=worker-started pid=%d uid=%d", worker.pid, identity.uid)
        return worker

    async def _spawn(
        self,
        request: int,
        identity: Identity,
        ended: Callable[[Worker, str], None],
        *,
        runs_program: bool = False,
    ) -> Worker:
        ours, theirs = Channel.pair()
        spawned: asyncio.Future[WorkerSpawned] = asyncio.get_running_loop().create_future()
        self._spawning[request] = spawned
        worker: Worker | None = None
        try:
            with theirs:
                spawn = SpawnWorker(
                    request=request,
                    uid=identity.uid,
                    gid=identity.gid,
                    groups=identity.groups,
                    runs_program=runs_program,
                )
                self._monitor.send(spawn, (theirs.fileno(),))
            channel = Channel(ours, outgoing=SERVICE_TO_WORKER, incoming=WORKER_TO_SERVICE)
            worker = Worker(identity, channel, ended=ended)
            async with asyncio.timeout(SPAWN_TIMEOUT_S):
                answer = await spawned
                worker.pid = answer.pid
                await worker.ready
            if not worker.is_open:
                raise WorkerGone
        except TimeoutError:
            if worker is not None:
                worker.close()
            raise BitsError(
                "BG_E_WATCHDOG_TIMEOUT", "no worker could be started: the monitor does not answer"
            ) from None
        except BaseException:
            if worker is not None:
                worker.close()
            raise
        finally:
            self._spawning.pop(request, None)
        return worker

    def _from_monitor(self, message: object) -> None:
        match message:
            case WorkerSpawned(request=request, pid=pid):
                if request in self._for_evaluators:
                    # At once: its end may be the next that the monitor tells.
                    self._evaluators.add(pid)
                future = self._spawning.get(request)
                if future is not None and not future.done():
                    future.set_result(message)
            case SpawnRefused(request=request, error="E_FAIL", message=text):
                # Nothing is wrong with the account: the zygote died, or the machine had no process left. That is as
                # good as a worker that died at once, and those are tried again.
                log.warning("action=worker-not-started reason=%s", text)
                self._refuse(request, WorkerGone())
            case SpawnRefused(request=request, error=error, message=text):
                self._refuse(request, BitsError(error, text))
            case WorkerExited(pid=pid) if pid in self._evaluators:
                self._evaluators.discard(pid)
            case WorkerExited(pid=pid):
                leaving = self._leaving.pop(pid, None)
                if leaving is not None:
                    leaving.cancel()
                log.info("action=worker-exited pid=%d", pid)
            case _:
                raise AssertionError(f"the monitor sent {message!r}")

    def _refuse(self, request: int, error: Exception) -> None:
        future = self._spawning.get(request)
        if future is not None and not future.done():
            future.set_exception(error)

    def _worker_event(self, worker: Worker, reason: str) -> None:
        if worker.is_open:
            self._look_at(worker)
            return
        self._alive.discard(worker)
        future = self._workers.get(worker.identity)
        if future is not None and future.done() and not _is_usable(future):
            del self._workers[worker.identity]
        log.info("action=worker-ended pid=%d uid=%d reason=%s", worker.pid, worker.identity.uid, reason)

    def _look_at(self, worker: Worker) -> None:
        self._let_go_after(worker, self._stay_s(worker))

    def _stay_s(self, worker: Worker) -> float:
        """How long a worker stays without work: no account that is logged off has one, and no password stays in one."""
        return 0.0 if worker.knows_secrets or self._is_away(worker.identity.uid) else self._idle_s

    def _let_go_after(self, worker: Worker, delay_s: float) -> None:
        if worker.idle_timer is not None:
            worker.idle_timer.cancel()
            worker.idle_timer = None
        if worker.is_open and not worker.is_busy:
            worker.idle_timer = asyncio.get_running_loop().call_later(delay_s, self._let_go, worker)

    def _let_go(self, worker: Worker) -> None:
        if not worker.is_open or worker.is_busy:
            return
        worker.close()
        if self._is_away(worker.identity.uid):
            # Ended transfers may leave it something to close that takes its time.
            self._kill_soon(worker)

    def _kill_soon(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        self._leaving[worker.pid] = loop.call_later(LEAVE_PATIENCE_S, self._kill_leaving, worker)

    def _kill_leaving(self, worker: Worker) -> None:
        del self._leaving[worker.pid]
        self.kill(worker)


def _is_usable(future: asyncio.Future[Worker]) -> bool:
    return not future.cancelled() and future.exception() is None and future.result().is_open
