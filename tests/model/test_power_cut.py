"""A power cut after every single step of a download: nothing that was counted is missing, and the job comes to its end.

The disk forgets what was not synced.  The machine stops after 0, 1, 2 … steps of the event loop, or
inside a transaction, and goes on with an honest worker (architecture section 3, issue part 5).
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable

import pytest

from openbits.core.model import JobState
from openbits.service.configuration import Configuration
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import Batch
from support import virtual
from support.service import ALICE, Service
from support.virtual import VirtualLoop
from support.world import DiskWorker, Machine

FILES = 3


class Stopped(BaseException):
    """The power is gone."""


class CountingStore(MemoryStore):
    """Stops the machine before or after its n-th transaction has reached the disk."""

    def __init__(self, disk: MemoryDisk, *, stop_at: int = 0, written: bool = False) -> None:
        super().__init__(disk)
        self.begun = 0
        self._stop_at = stop_at
        self._written = written
        self.on_stop: Callable[[], None] = lambda: None

    def commit(self, batch: Batch) -> None:
        self.begun += 1
        if self.begun == self._stop_at:
            if self._written:
                super().commit(batch)
            self.on_stop()
            raise Stopped
        super().commit(batch)


def started(store: MemoryStore, machine: Machine) -> Service:
    service = Service(store, "/nowhere", Configuration())
    service.monitor.make_worker = lambda sock, identity, pid: DiskWorker(sock, identity, pid, machine=machine)
    return service


async def download(service: Service, machine: Machine) -> None:
    """A job from its creation to its end, with all that can happen on the way."""
    await service.runtime.start()
    job_id = await service.create(files=FILES)
    worker = service.worker
    assert isinstance(worker, DiskWorker)
    for amount, checkpoint in ((0, False), (30, True), (10, False), (100, False), (0, False), (20, True)):
        worker.step(amount)
        if checkpoint:
            worker.checkpoint()
        await virtual.rest()
    await service.manager.suspend(ALICE, job_id)
    await virtual.rest()
    machine.versions["http://origin.example/1"] += 1
    await service.manager.resume(ALICE, job_id)
    for _ in range(10):
        await virtual.rest()
        worker.step(50)
    await virtual.rest()
    assert service.state(job_id) is JobState.TRANSFERRED
    await service.manager.complete(ALICE, job_id)


def check_disk(disk: MemoryDisk, machine: Machine) -> None:
    """Durable data before durable progress."""
    for job in disk.jobs.values():
        for file in job.files:
            names = (file.local_name, file.temporary_name) if job.closing or file.completed else (file.temporary_name,)
            content = next((machine.files[name].content for name in names if name in machine.files), "")
            letter = machine.version(file.remote_name)
            if file.transferred:
                assert len(content) == file.bytes_total
            elif file.validator.etag == f'"{letter}"':
                assert content[: file.bytes_transferred] == letter * file.bytes_transferred


def check_files(service: Service, machine: Machine, *, complete: bool) -> None:
    """Every byte of one version, and nothing left behind."""
    for job in service.runtime.ledger.jobs.values():
        assert job.state is (JobState.ACKNOWLEDGED if complete else job.state)
        assert job.result == "S_OK"
        for file in job.files:
            assert machine.files[file.local_name].durable == machine.version(file.remote_name) * (file.bytes_total or 0)
            assert file.temporary_name not in machine.files


async def go_on(disk: MemoryDisk, machine: Machine) -> None:
    """Start again and bring everything to its end."""
    check_disk(disk, machine)
    service = started(MemoryStore(disk), machine)
    await service.runtime.start()
    for _ in range(60):
        await virtual.rest()
        for worker in service.monitor.workers:
            assert isinstance(worker, DiskWorker)
            worker.step(50)
        for job in list(service.runtime.ledger.jobs.values()):
            if job.state is JobState.SUSPENDED and job.closing is None:
                await service.manager.resume(ALICE, job.id)
            elif job.state is JobState.TRANSFERRED and job.closing is None:
                await service.manager.complete(ALICE, job.id)
    check_files(service, machine, complete=True)
    assert disk.effects == {}
    assert service.gave_up == []
    await service.crash()


class World:
    """A service on a machine that stops."""

    def __init__(self, store: CountingStore) -> None:
        self.loop = VirtualLoop()
        self.machine = Machine()
        self.store = store
        store.on_stop = lambda: self.loop.interrupt_after(self.loop.turns)
        self.service: Service | None = None

    async def play(self) -> None:
        """Download until the machine stops."""
        self.service = started(self.store, self.machine)
        await download(self.service, self.machine)

    def run(self, turns: int | None) -> None:
        """Play so many turns."""
        self.loop.interrupt_after(turns)
        with contextlib.suppress(virtual.Interrupted, virtual.NothingLeft):
            self.loop.run_until_complete(self.play())
        self.loop.interrupt_after(None)
        # One turn more, for what wanted to stop the loop when it was interrupted.
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def stop(self) -> set[str]:
        """Every process is gone; returns the jobs that somebody was told of."""

        async def ending() -> set[str]:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            told = set() if self.service is None else set(self.service.runtime.ledger.jobs)
            if self.service is not None:
                await self.service.crash()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return told

        return self.loop.run_until_complete(ending())


@functools.cache
def everything() -> tuple[int, int]:
    """How many turns and transactions the download takes when nothing stops it."""
    store = CountingStore(MemoryDisk())
    world = World(store)
    world.run(None)
    turns = world.loop.turns
    assert world.service is not None
    check_files(world.service, world.machine, complete=True)
    world.stop()
    world.loop.close()
    return turns, store.begun


def cut(store: CountingStore, turns: int | None, *, power: bool) -> None:
    """Run until the machine stops, then go on."""
    world = World(store)
    world.run(turns)
    told = world.stop()
    if power:
        world.machine.power_cut()
    assert told <= store.disk.jobs.keys(), "a job that was told of is lost"
    world.loop.run_until_complete(go_on(store.disk, world.machine))
    world.loop.close()


def test_the_script_is_long_enough_to_be_worth_it() -> None:
    turns, transactions = everything()
    assert turns > 100
    assert transactions > 10


@pytest.mark.parametrize("power", [True, False], ids=["power", "kill"])
def test_the_machine_stops_after_any_step(power: bool) -> None:
    for turns in range(everything()[0] + 1):
        cut(CountingStore(MemoryDisk()), turns, power=power)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_the_machine_stops_inside_any_transaction(written: bool) -> None:
    for transaction in range(1, everything()[1] + 1):
        cut(CountingStore(MemoryDisk(), stop_at=transaction, written=written), None, power=True)
