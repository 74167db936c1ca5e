"""TakeOwnership between fake workers, step by step: what happens beside it, and what a crash leaves (I8)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from openbits.core.model import AccountKind, Caller, Identity, JobState
from openbits.errors import BitsError
from openbits.frames.channel import ChannelClosed
from openbits.frames.worker import (
    AdoptFile,
    DeleteFiles,
    FileOpened,
    FileResult,
    OpenForReading,
    OperationResults,
    RenameFiles,
    StartTransfer,
    StopTransfer,
    SyncDirectories,
)
from openbits.service.calls import NewFile, Outcome
from openbits.store.errors import StoreFull
from openbits.store.memory import MemoryDisk
from support import virtual
from support.service import ALICE, FakeWorker, Service, running

CAROL = Caller(
    identity=Identity(uid=1002, gid=1002, groups=(1002,)), name="carol", kind=AccountKind.USER, is_administrator=True
)


class Hand(FakeWorker):
    """Gives and takes files: opens /dev/null for every one, and makes what it is told when it is told so."""

    adopts = True
    refusal: FileResult | None = None

    def _read(self) -> None:
        try:
            while self.is_alive and (received := self._channel.receive()) is not None:
                message, descriptors = received
                for fd in descriptors:
                    os.close(fd)
                self.heard.append(message)
                self.take(message)
                if self.does_operations:
                    self.operate(message)
        except ChannelClosed:
            self.die()

    def take(self, message: object) -> None:
        match message:
            case OpenForReading(operation=number):
                fd = os.open(os.devnull, os.O_RDONLY)
                self._channel.send(FileOpened(operation=number, kept=True), (fd,))
                os.close(fd)
            case AdoptFile() if self.adopts:
                self.adopt(message)
            case SyncDirectories(operation=number):
                self.send(OperationResults(operation=number, results=(), last=True))
            case _:
                pass

    def adopt(self, order: AdoptFile) -> None:
        results = (self.refusal,) if self.refusal is not None else ()
        self.send(OperationResults(operation=order.operation, results=results, last=True))


Script = Callable[[Service], Awaitable[None]]


def play(script: Script, disk: MemoryDisk | None = None) -> None:
    async def main() -> None:
        async with running(disk) as service:
            service.monitor.make_worker = Hand
            await script(service)

    virtual.run(main())


def hand(service: Service, caller: Caller) -> Hand:
    """The worker of an account."""
    found = [worker for worker in service.monitor.workers if worker.identity.uid == caller.identity.uid]
    assert isinstance(found[-1], Hand)
    return found[-1]


async def begun(service: Service, *, files: int = 2) -> str:
    """A job that is under way: the first file has 40 bytes."""
    job_id = await service.create(files=files)
    await service.say(service.worker.started(0), service.worker.durable(0, 40))
    return job_id


async def taking(service: Service, job_id: str) -> asyncio.Task[Outcome]:
    """A call that has come as far as the copies: carol's worker does not answer yet."""

    def hesitant(worker: FakeWorker) -> None:
        assert isinstance(worker, Hand)
        worker.adopts = worker.identity.uid != CAROL.identity.uid
        worker.be_ready()

    service.monitor.on_worker = hesitant
    task = asyncio.ensure_future(service.runtime.ownership.take(CAROL, job_id))
    await virtual.rest()
    alice = hand(service, ALICE)
    assert alice.count(StopTransfer) == 1
    alice.send(alice.ended())
    await virtual.rest()
    assert hand(service, CAROL).count(AdoptFile) == 1
    return task


def names(service: Service, job_id: str) -> list[str]:
    return [file.temporary_name for file in service.job(job_id).files]


def deleted(worker: FakeWorker) -> set[str]:
    return {path for message in worker.heard if isinstance(message, DeleteFiles) for path in message.paths}


def test_i8_the_job_goes_on_with_the_new_owners_worker() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        before = names(service, job_id)
        task = await taking(service, job_id)
        carol = hand(service, CAROL)
        assert service.job(job_id).owner.identity.uid == ALICE.identity.uid
        order = carol.last(AdoptFile)
        assert order.length == 40
        carol.adopt(order)
        assert (await task).result == "S_OK"
        await virtual.rest()
        job = service.job(job_id)
        assert (job.owner.name, job.owner.is_elevated, job.state) == ("carol", True, JobState.TRANSFERRING)
        after = names(service, job_id)
        assert not set(before) & set(after)
        assert after[0] == order.temporary_name
        assert [(file.temporary_name, file.durable_bytes) for file in carol.files] == [(after[0], 40), (after[1], 0)]
        assert deleted(hand(service, ALICE)) == set(before)
        assert service.disk.effects == {}
        assert service.disk.events[-1].owner_uid == CAROL.identity.uid

    play(script)


def test_i8_many_files_are_made_durable_together_before_the_job_is_told() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=20)
        for index in range(20):
            await service.say(service.worker.started(index), service.worker.done(index))
        await service.say(service.worker.ended())
        assert service.state(job_id) is JobState.TRANSFERRED
        task = asyncio.ensure_future(service.runtime.ownership.take(CAROL, job_id))
        await task
        carol = hand(service, CAROL)
        orders = [message for message in carol.heard if isinstance(message, AdoptFile | SyncDirectories)]
        assert [order.is_synced for order in orders if isinstance(order, AdoptFile)] == [False] * 20
        assert orders[-1] == SyncDirectories(operation=orders[-1].operation, paths=("/home/alice",))
        assert service.state(job_id) is JobState.TRANSFERRED

    play(script)


def test_i8_a_refusal_lets_the_same_run_go_on() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        before = service.job(job_id)
        task = await taking(service, job_id)
        carol = hand(service, CAROL)
        carol.refusal = FileResult(index=0, error="E_ACCESSDENIED", message="/home/alice: access is denied")
        carol.adopt(carol.last(AdoptFile))
        with pytest.raises(BitsError) as refused:
            await task
        assert refused.value.name == "BG_E_NEW_OWNER_NO_FILE_ACCESS"
        assert "/home/alice" in refused.value.message
        await virtual.rest()
        assert service.job(job_id) == before
        alice = hand(service, ALICE)
        assert alice.count(StartTransfer) == 2
        assert alice.files[0].durable_bytes == 40
        assert deleted(carol) == {carol.last(AdoptFile).temporary_name}
        assert service.disk.effects == {}

    play(script)


@pytest.mark.parametrize("verb", ["complete", "cancel"])
def test_i8_whoever_ends_the_job_meanwhile_comes_first(verb: str) -> None:
    """And nothing touches the files before the copies are done with."""

    async def script(service: Service) -> None:
        job_id = await begun(service, files=1)
        task = await taking(service, job_id)
        ending = asyncio.ensure_future(getattr(service.manager, verb)(ALICE, job_id))
        await virtual.rest()
        alice, carol = hand(service, ALICE), hand(service, CAROL)
        assert alice.count(RenameFiles) == alice.count(DeleteFiles) == 0
        carol.adopt(carol.last(AdoptFile))
        with pytest.raises(BitsError) as refused:
            await task
        assert refused.value.name == "BG_E_INVALID_STATE"
        await ending
        assert service.job(job_id).owner.identity.uid == ALICE.identity.uid
        assert service.job(job_id).state.is_final
        assert deleted(alice) == set(names(service, job_id))
        await virtual.rest()
        assert deleted(carol) == {carol.last(AdoptFile).temporary_name}
        assert service.disk.effects == {}

    play(script)


def test_i8_files_that_are_added_meanwhile_come_along() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service, files=1)
        task = await taking(service, job_id)
        await service.manager.add_files(
            ALICE, job_id, [NewFile(remote_name="http://origin.example/new", local_name="/home/alice/new")]
        )
        carol = hand(service, CAROL)
        carol.adopts = True
        first = carol.last(AdoptFile)
        carol.adopt(first)
        await task
        await virtual.rest()
        assert [file.local_name for file in service.job(job_id).files] == ["/home/alice/0", "/home/alice/new"]
        assert carol.last(AdoptFile).temporary_name == names(service, job_id)[0]
        assert first.temporary_name in deleted(carol), "the first copy was for nothing"
        assert service.disk.effects == {}

    play(script)


def test_i8_resume_and_suspend_meanwhile_count_afterwards() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        task = await taking(service, job_id)
        await service.manager.suspend(ALICE, job_id)
        carol = hand(service, CAROL)
        carol.adopt(carol.last(AdoptFile))
        await task
        await virtual.rest()
        assert service.state(job_id) is JobState.SUSPENDED
        assert carol.count(StartTransfer) == 0
        await service.manager.resume(CAROL, job_id)
        await virtual.rest()
        assert carol.count(StartTransfer) == 1

    play(script)


def test_i8_two_who_take_one_job_take_it_one_after_the_other() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        task = await taking(service, job_id)
        again = asyncio.ensure_future(service.runtime.ownership.take(CAROL, job_id))
        await virtual.rest()
        carol = hand(service, CAROL)
        carol.adopt(carol.last(AdoptFile))
        await asyncio.gather(task, again)
        assert carol.count(AdoptFile) == 1
        assert service.job(job_id).owner.name == "carol"

    play(script)


def test_i8_a_full_store_changes_nothing() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        task = await taking(service, job_id)
        service.store.failures.append(StoreFull("no room"))
        carol = hand(service, CAROL)
        carol.adopt(carol.last(AdoptFile))
        with pytest.raises(BitsError) as refused:
            await task
        assert refused.value.name == "ERROR_DISK_FULL"
        await virtual.rest()
        assert service.job(job_id).owner.identity.uid == ALICE.identity.uid
        assert deleted(carol) == {carol.last(AdoptFile).temporary_name}

    play(script)


def test_i8_a_worker_that_dies_is_replaced_and_the_copies_begin_again() -> None:
    async def script(service: Service) -> None:
        job_id = await begun(service)
        task = await taking(service, job_id)
        service.monitor.on_worker = FakeWorker.be_ready
        hand(service, CAROL).die()
        assert (await task).result == "S_OK"
        assert service.job(job_id).owner.name == "carol"

    play(script)


def test_i8_a_crash_before_the_change_leaves_the_old_owner_and_no_copy() -> None:
    disk = MemoryDisk()
    copies: list[str] = []
    jobs: list[str] = []

    async def first(service: Service) -> None:
        jobs.append(await begun(service))
        (await taking(service, jobs[0])).cancel()
        copies.append(hand(service, CAROL).last(AdoptFile).temporary_name)

    async def second(service: Service) -> None:
        await virtual.rest()
        assert service.job(jobs[0]).owner.identity.uid == ALICE.identity.uid
        assert service.job(jobs[0]).files[0].bytes_transferred == 40

    play(first, disk)
    assert len(disk.effects) == 1
    play(second, disk)
    assert disk.effects == {}


def test_i8_a_crash_after_the_change_leaves_the_new_owner_and_no_old_file() -> None:
    disk = MemoryDisk()
    jobs: list[str] = []

    async def first(service: Service) -> None:
        jobs.append(await begun(service))
        task = await taking(service, jobs[0])
        alice, carol = hand(service, ALICE), hand(service, CAROL)
        alice.does_operations = False
        carol.adopt(carol.last(AdoptFile))
        await virtual.rest()
        assert service.job(jobs[0]).owner.name == "carol"
        task.cancel()

    async def second(service: Service) -> None:
        await virtual.rest()
        assert service.job(jobs[0]).owner.name == "carol"

    play(first, disk)
    assert len(disk.effects) == 1
    play(second, disk)
    assert disk.effects == {}
