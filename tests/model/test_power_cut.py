"""A power cut after every single step of a download: nothing that was counted is missing, and the job comes to its end.

The disk forgets what was not synced.  The machine stops after 0, 1, 2 … steps of the event loop, or
inside a transaction, and goes on with an honest worker (architecture section 3, issue part 5).
"""

import asyncio
import functools

import pytest

from openbits.core.model import JobState
from openbits.service.configuration import Configuration
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import Batch
from support import virtual
from support.service import ALICE, Service
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

    def commit(self, batch: Batch) -> None:
        self.begun += 1
        if self.begun == self._stop_at:
            if self._written:
                super().commit(batch)
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


@functools.cache
def steps_of_everything() -> tuple[int, int]:
    """How many steps and transactions the download takes when nothing stops it."""

    async def main() -> tuple[int, int]:
        machine = Machine()
        store = CountingStore(MemoryDisk())
        service = started(store, machine)
        work = asyncio.ensure_future(download(service, machine))
        steps = 0
        while not work.done():
            await asyncio.sleep(0)
            steps += 1
        await work
        check_files(service, machine, complete=True)
        await service.crash()
        return steps, store.begun

    return virtual.run(main())


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


def cut(store: CountingStore, steps: int, *, power: bool) -> None:
    """Run until the machine stops, then go on."""

    async def main() -> None:
        machine = Machine()
        service = started(store, machine)
        work = asyncio.ensure_future(download(service, machine))
        for _ in range(steps):
            if work.done() or service.gave_up:
                break
            await asyncio.sleep(0)
        told = set(service.runtime.ledger.jobs)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await service.crash()
        if power:
            machine.power_cut()
        assert told <= store.disk.jobs.keys(), "a job that was told of is lost"
        await go_on(store.disk, machine)

    virtual.run(main())


def test_the_script_is_long_enough_to_be_worth_it() -> None:
    steps, transactions = steps_of_everything()
    assert steps > 300
    assert transactions > 10


@pytest.mark.parametrize("power", [True, False], ids=["power", "kill"])
def test_the_machine_stops_after_any_step(power: bool) -> None:
    for steps in range(steps_of_everything()[0] + 1):
        cut(CountingStore(MemoryDisk()), steps, power=power)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_the_machine_stops_inside_any_transaction(written: bool) -> None:
    steps, transactions = steps_of_everything()
    for transaction in range(1, transactions + 1):
        cut(CountingStore(MemoryDisk(), stop_at=transaction, written=written), steps + 50, power=True)
