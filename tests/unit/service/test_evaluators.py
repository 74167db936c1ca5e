"""Evaluators of PAC scripts as the service starts and ends them, with a monitor that only keeps the minutes (J22)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openbits.core.model import Identity
from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.monitor import (
    MONITOR_TO_SERVICE,
    SERVICE_TO_MONITOR,
    KillWorker,
    ServiceStopping,
    SpawnRefused,
    SpawnWorker,
    WorkerExited,
    WorkerSpawned,
)
from openbits.frames.worker import SERVICE_TO_WORKER, WORKER_TO_SERVICE, BecomeEvaluator, Evaluator, WorkerReady
from openbits.service.evaluators import Evaluators
from openbits.service.link import Link
from openbits.service.tasks import Tasks
from openbits.service.workers import WorkerPool

ALICE = Identity(uid=4001, gid=4001, groups=(4001,))
TIMEOUT_S = 10.0


class Monitor:
    """Starts processes that are only sockets; `killed` are the orders, `became` what each process got."""

    def __init__(self, channel: Channel) -> None:
        self.killed: list[int] = []
        self.became: dict[int, list[object]] = {}
        self.has_killed = asyncio.Event()
        self.orders_end = False
        self.refuses = False
        self.dies_at_once = False
        self._pids = itertools.count(100)
        self._processes: dict[int, Channel] = {}
        self.link = Link(channel, on_frame=self._on_frame, on_closed=lambda _: None, on_carrier=self._on_carrier)

    def _on_frame(self, message: object) -> None:
        if isinstance(message, ServiceStopping):
            self.orders_end = True
            return
        assert isinstance(message, KillWorker)
        assert not self.orders_end
        self.killed.append(message.pid)
        self.has_killed.set()

    def _on_carrier(self, message: object, fd: int) -> None:
        assert isinstance(message, SpawnWorker)
        if self.refuses:
            os.close(fd)
            self.link.send(SpawnRefused(request=message.request, error="ERROR_NO_SUCH_USER", message="gone"))
            return
        pid = next(self._pids)
        process = Channel(socket.socket(fileno=fd), outgoing=WORKER_TO_SERVICE, incoming=SERVICE_TO_WORKER)
        self._processes[pid] = process
        uid, gid, groups = message.uid, message.gid, message.groups
        self.link.send(WorkerSpawned(request=message.request, pid=pid, uid=uid, gid=gid, groups=groups))
        process.send(WorkerReady(pid=pid, uid=uid, gid=gid, groups=groups))
        if self.dies_at_once:
            self.exited(pid)

    def exited(self, pid: int) -> None:
        self.link.send(WorkerExited(pid=pid))

    def heard(self, pid: int) -> list[object]:
        """What a process was told until the end of its channel."""
        messages: list[object] = []
        with contextlib.suppress(ChannelClosed):
            while (received := self._processes[pid].receive()) is not None:
                messages.append(received[0])
                for fd in received[1]:
                    os.close(fd)
        return messages

    def close(self) -> None:
        self.link.close()
        for process in self._processes.values():
            process.close()


class FakeWorker:
    """A worker that wants an evaluator."""

    def __init__(self) -> None:
        self.sent: list[tuple[Evaluator, int]] = []
        self.came = asyncio.Event()

    def send(self, message: Evaluator, descriptors: tuple[int, ...] = ()) -> None:
        self.sent.append((message, len(descriptors)))
        self.came.set()

    async def wait_sent(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.sent) < count:
                self.came.clear()
                await self.came.wait()


class House:
    def __init__(self, pool: WorkerPool, monitor: Monitor, evaluators: Evaluators) -> None:
        self.pool, self.monitor, self.evaluators = pool, monitor, evaluators
        self.worker: Any = FakeWorker()

    async def settle(self) -> None:
        """Let everything that was sent arrive."""
        for _ in range(10):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    died: list[str] = []
    tasks = Tasks(lambda name, _error: died.append(name))
    ours, theirs = Channel.pair()
    monitor = Monitor(Channel(theirs, outgoing=MONITOR_TO_SERVICE, incoming=SERVICE_TO_MONITOR))
    pool = WorkerPool(
        Channel(ours, outgoing=SERVICE_TO_MONITOR, incoming=MONITOR_TO_SERVICE),
        idle_s=30.0,
        tasks=tasks,
        monitor_gone=lambda _reason: None,
    )
    try:
        yield House(pool, monitor, Evaluators(pool, tasks))
        assert died == []
    finally:
        await tasks.cancel()
        monitor.close()


def test_a_worker_gets_a_socket_and_the_process_the_other_end_and_nobody_counts_it() -> None:
    async def work() -> None:
        async with house() as home:
            home.evaluators.want(7, home.worker, ALICE)
            home.evaluators.want(7, home.worker, ALICE)
            await home.worker.wait_sent(1)
            assert home.worker.sent == [(Evaluator(transfer=7), 1)]
            assert home.monitor.heard(100) == [BecomeEvaluator()]
            assert (len(home.pool), home.pool.started) == (0, 0)
            await home.settle()
            assert len(home.worker.sent) == 1

    asyncio.run(work())


def test_the_end_of_a_run_ends_its_evaluator_and_one_that_has_ended_is_not_killed_again() -> None:
    async def work() -> None:
        async with house() as home:
            for transfer in (1, 2):
                home.evaluators.want(transfer, home.worker, ALICE)
                await home.worker.wait_sent(transfer)
            home.evaluators.end(1)
            home.evaluators.end(1)
            home.monitor.exited(101)
            await home.settle()
            home.evaluators.end(2)
            await home.settle()
            assert home.monitor.killed == [100]

    asyncio.run(work())


def test_a_new_evaluator_of_a_run_is_the_end_of_the_old_one() -> None:
    async def work() -> None:
        async with house() as home:
            for count in (1, 2):
                home.evaluators.want(1, home.worker, ALICE)
                await home.worker.wait_sent(count)
            await home.settle()
            assert home.monitor.killed == [100]

    asyncio.run(work())


def test_a_run_that_ends_while_its_evaluator_is_started_leaves_none() -> None:
    async def work() -> None:
        async with house() as home:
            home.evaluators.want(1, home.worker, ALICE)
            home.evaluators.end(1)
            async with asyncio.timeout(TIMEOUT_S):
                await home.monitor.has_killed.wait()
            assert home.monitor.killed == [100]
            assert home.worker.sent == []

    asyncio.run(work())


def test_where_no_process_can_be_started_the_worker_hears_why() -> None:
    async def work() -> None:
        async with house() as home:
            home.monitor.refuses = True
            home.evaluators.want(1, home.worker, ALICE)
            await home.worker.wait_sent(1)
            assert home.worker.sent == [(Evaluator(transfer=1, error="E_FAIL", message="gone"), 0)]

    asyncio.run(work())


@pytest.mark.parametrize("dies_at_once", [False, True])
def test_a_monitor_that_knows_that_the_service_leaves_gets_no_orders(dies_at_once: bool) -> None:
    """It would take one for an attack; and a number that is another process's by now is never named."""

    async def work() -> None:
        async with house() as home:
            home.monitor.dies_at_once = dies_at_once
            home.evaluators.want(1, home.worker, ALICE)
            await home.worker.wait_sent(1)
            await home.settle()
            if not dies_at_once:
                home.pool.announce_stop(0)
            home.evaluators.end(1)
            await home.settle()
            assert home.monitor.killed == []

    asyncio.run(work())
