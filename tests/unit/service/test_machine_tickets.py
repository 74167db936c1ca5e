"""The computer's tickets in the service: got once, lent to many, renewed in time, and never given out unsealed (I4)."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from typing import Any

import pytest

from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.frames.operations import FileOpened, ObtainTickets, TakeTickets, TicketsObtained
from openbits.service.configuration import Credentials
from openbits.service.tasks import Tasks
from openbits.service.tickets import FAILURE_KEPT_S, OBTAIN_TIMEOUT_S, ROOT, MachineTickets
from openbits.service.worker import WorkerGone
from support import virtual

LIFE_S = 1000
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def tickets_file(content: bytes = b"tickets", *, sealed: bool = True) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


class FakeWorker:
    def __init__(self) -> None:
        self.is_open = True
        self.is_busy = False
        self.got: list[tuple[object, bytes]] = []

    def send(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        [fd] = descriptors
        self.got.append((message, os.pread(fd, 100, 0)))


class FakeRoot:
    """The pool, and in it the worker that reads the keytab."""

    def __init__(self) -> None:
        self.asked: list[ObtainTickets] = []
        self.answers: Callable[[ObtainTickets], Any] = self.answer
        self.hangs = False
        self.number = 0

    def answer(self, order: ObtainTickets) -> tuple[TicketsObtained, int]:
        self.number += 1
        frame = TicketsObtained(operation=order.operation, principal="host/here", expires_s=LIFE_S)
        return frame, tickets_file(f"tickets {self.number}".encode())

    async def get(self, identity: Identity) -> FakeRoot:
        assert identity == ROOT
        return self

    async def ask(self, make: Callable[[int], Any]) -> tuple[TicketsObtained, int]:
        order = make(len(self.asked) + 1)
        self.asked.append(order)
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        answer: tuple[TicketsObtained, int] = self.answers(order)
        return answer


class World:
    def __init__(self, *, is_system: bool = True) -> None:
        self.root = FakeRoot()
        self.configuration = Credentials()
        self.failed: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failed.append(f"{name}: {error!r}"))
        pool: Any = self.root
        self.tickets = MachineTickets(
            pool=pool,
            tasks=self.tasks,
            configuration=lambda: self.configuration,
            is_system=is_system,
            now=lambda: asyncio.get_running_loop().time(),
        )

    async def lend(self, worker: FakeWorker) -> str:
        given: Any = worker
        return await self.tickets.lend(given)


def test_health_says_how_it_is() -> None:
    async def story() -> None:
        world = World()
        assert world.tickets.health() == (True, "no job has needed them yet")
        world.root.answers = refuse
        await world.lend(FakeWorker())
        assert world.tickets.health() == (False, "none: the KDC is on holiday")
        world.root.answers = world.root.answer
        await asyncio.sleep(FAILURE_KEPT_S)
        await world.lend(FakeWorker())
        assert world.tickets.health() == (True, "host/here, for another 17 minutes")
        world.tickets.close()

    virtual.run(story())


def test_one_ticket_serves_many_and_each_worker_gets_it_once() -> None:
    async def story() -> None:
        world = World()
        workers = [FakeWorker() for _ in range(5)]
        assert await asyncio.gather(*(world.lend(worker) for worker in workers * 2)) == [""] * 10
        assert len(world.root.asked) == 1
        assert world.root.asked[0].keytab == "/etc/krb5.keytab"
        for worker in workers:
            assert worker.got == [(TakeTickets(principal="host/here"), b"tickets 1")]
        world.tickets.close()

    virtual.run(story())


def test_renewed_when_a_quarter_is_left_and_a_run_begins() -> None:
    async def story() -> None:
        world, worker = World(), FakeWorker()
        await world.lend(worker)
        await asyncio.sleep(0.74 * LIFE_S)
        await world.lend(worker)
        assert len(world.root.asked) == 1
        await asyncio.sleep(0.02 * LIFE_S)
        await world.lend(worker)
        assert [content for _, content in worker.got] == [b"tickets 1", b"tickets 2"]
        world.tickets.close()

    virtual.run(story())


def test_renewed_under_way_for_those_that_work_and_for_nobody_else() -> None:
    async def story() -> None:
        world, busy, idle = World(), FakeWorker(), FakeWorker()
        busy.is_busy = True
        await world.lend(busy)
        await world.lend(idle)
        await asyncio.sleep(0.8 * LIFE_S)
        assert len(busy.got) == 2
        assert len(idle.got) == 1
        busy.is_busy = False
        await asyncio.sleep(10 * LIFE_S)
        assert len(world.root.asked) == 2
        world.tickets.close()

    virtual.run(story())


def refuse(_order: ObtainTickets) -> Any:
    raise BitsError("BG_E_INVALID_CREDENTIALS", "the KDC is on holiday")


def test_failed_renewal_uses_the_old_one_as_long_as_it_is_good() -> None:
    async def story() -> None:
        world, worker = World(), FakeWorker()
        worker.is_busy = True
        await world.lend(worker)
        world.root.answers = refuse
        await asyncio.sleep(0.9 * LIFE_S)
        assert await world.lend(FakeWorker()) == ""
        await asyncio.sleep(0.2 * LIFE_S)
        assert await world.lend(FakeWorker()) == "the KDC is on holiday"
        # It goes on trying for the one that works, and when it succeeds that one gets it.
        world.root.answers = world.root.answer
        await asyncio.sleep(2 * FAILURE_KEPT_S)
        assert await world.lend(worker) == ""
        assert len(worker.got) == 2
        world.tickets.close()

    virtual.run(story())


def test_failure_is_kept_for_a_while() -> None:
    async def story() -> None:
        world = World()
        world.root.answers = refuse
        for _ in range(3):
            assert await world.lend(FakeWorker()) == "the KDC is on holiday"
        assert len(world.root.asked) == 1
        await asyncio.sleep(FAILURE_KEPT_S)
        await world.lend(FakeWorker())
        assert len(world.root.asked) == 2
        # Another keytab is another matter.
        world.configuration = Credentials(machine_keytab="/other")
        world.root.answers = world.root.answer
        assert await world.lend(FakeWorker()) == ""
        assert world.root.asked[-1].keytab == "/other"
        world.tickets.close()

    virtual.run(story())


def test_kdc_that_does_not_answer_holds_up_a_job_only_so_long() -> None:
    async def story() -> None:
        world = World()
        world.root.hangs = True
        started = asyncio.get_running_loop().time()
        assert "did not answer" in await world.lend(FakeWorker())
        assert asyncio.get_running_loop().time() - started <= OBTAIN_TIMEOUT_S + 0.1
        world.tickets.close()

    virtual.run(story())


def test_question_goes_on_when_who_asked_gives_up() -> None:
    async def story() -> None:
        world = World()
        one = asyncio.ensure_future(world.lend(FakeWorker()))
        two = asyncio.ensure_future(world.lend(FakeWorker()))
        await asyncio.sleep(0)
        one.cancel()
        assert await two == ""
        assert world.failed == []
        world.tickets.close()

    virtual.run(story())


@pytest.mark.parametrize(
    ("sealed", "expires_s"), [(False, LIFE_S), (True, 0), (True, -5)], ids=["not sealed", "expired", "long expired"]
)
def test_what_is_not_sealed_or_not_good_is_not_lent(*, sealed: bool, expires_s: int) -> None:
    async def story() -> None:
        world, worker = World(), FakeWorker()
        fds: list[int] = []

        def answer(order: ObtainTickets) -> tuple[TicketsObtained, int]:
            fds.append(tickets_file(sealed=sealed))
            return TicketsObtained(operation=order.operation, principal="host/here", expires_s=expires_s), fds[-1]

        world.root.answers = answer
        assert "of no use" in await world.lend(worker)
        assert worker.got == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fds[0])

    virtual.run(story())


def test_an_answer_to_another_question_is_none_and_its_file_is_closed() -> None:
    async def story() -> None:
        world = World()
        fd = tickets_file()
        world.root.answers = lambda order: (FileOpened(operation=order.operation), fd)
        assert "no sensible answer" in await world.lend(FakeWorker())
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert world.failed == []

    virtual.run(story())


def test_worker_that_has_gone_and_service_of_an_account() -> None:
    async def story() -> None:
        world, gone = World(), FakeWorker()
        gone.is_open = False
        with pytest.raises(WorkerGone):
            await world.lend(gone)
        own = World(is_system=False)
        assert "started by an account for itself" in await own.lend(FakeWorker())
        assert own.root.asked == []
        world.tickets.close()
        world.tickets.close()

    virtual.run(story())
