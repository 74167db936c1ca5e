"""TakeOwnership between fake workers, step by step: what happens beside it, and what a crash leaves (I8)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from openbits.core.model import AccountKind, Caller, HelperFlag, Identity, JobState
from openbits.errors import BitsError
from openbits.frames.channel import ChannelClosed
from openbits.frames.operations import (
    AdoptFile,
    DeleteFiles,
    FileOpened,
    FileResult,
    OpenForReading,
    OperationResults,
    RenameFiles,
    SyncDirectories,
)
from openbits.frames.worker import StartTransfer, StopTransfer
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


@pytest.mark.parametrize("rests", range(32))
def test_i8_the_former_owners_token_options_are_gone_at_once(rests: int) -> None:
    """Whenever his call comes, it does not reach the job of the new owner."""

    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id = await service.create(resume=False)
        capability = tokens.obtain(ALICE, job_id)
        task = asyncio.ensure_future(service.runtime.ownership.take(CAROL, job_id))
        for _ in range(rests):
            await asyncio.sleep(0)
        with contextlib.suppress(BitsError):
            await tokens.set_flags(capability, 1)
        await task
        assert service.job(job_id).helper_flags is HelperFlag.NONE
        assert service.job(job_id).owner.name == CAROL.name

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


BOB = Caller(
    identity=Identity(uid=1001, gid=1001, groups=(1001,)), name="bob", kind=AccountKind.USER, is_administrator=False
)


async def helped(service: Service) -> tuple[str, str]:
    """A job whose files bob opens, which is under way, and the capability of its token."""
    job_id = await service.create(files=1, resume=False)
    capability = service.runtime.tokens.obtain(ALICE, job_id)
    await service.runtime.tokens.set_helper(BOB, capability)
    await service.runtime.tokens.set_flags(capability, int(HelperFlag.LOCAL_FILE))
    await service.manager.resume(ALICE, job_id)
    await virtual.rest()
    alice = hand(service, ALICE)
    alice.send(alice.started(0), alice.durable(0, 40), alice.ended("BG_E_CONNECTION_CLOSED", transient=False))
    await virtual.rest()
    assert service.state(job_id) is JobState.ERROR
    return job_id, capability


def test_i8_the_files_of_a_helper_come_from_the_helper_and_his_token_is_gone() -> None:
    async def script(service: Service) -> None:
        job_id, capability = await helped(service)
        await service.runtime.ownership.take(CAROL, job_id)
        bob, carol = hand(service, BOB), hand(service, CAROL)
        assert bob.count(OpenForReading) == 1
        assert carol.last(AdoptFile).length == 40
        assert bob.last(OpenForReading).temporary_name in deleted(bob)
        assert service.job(job_id).helper_flags is HelperFlag.NONE
        assert service.runtime.tokens.helper(job_id) is None
        with pytest.raises(BitsError) as gone:
            service.runtime.tokens.state(capability)
        assert gone.value.name == "RPC_E_DISCONNECTED"

    play(script)


def test_i8_the_files_of_a_helper_whose_token_is_gone_begin_anew() -> None:
    async def script(service: Service) -> None:
        job_id, capability = await helped(service)
        await service.runtime.tokens.clear_helper(capability)
        await service.runtime.ownership.take(CAROL, job_id)
        job = service.job(job_id)
        assert (job.owner.name, job.files[0].bytes_transferred) == ("carol", 0)
        assert "left over" in {event.kind for event in service.disk.events}

    play(script)


def test_i8_a_helper_who_takes_the_job_has_the_files_already() -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service)
        before = names(service, job_id)
        await service.runtime.ownership.take(replace(BOB, is_administrator=True), job_id)
        assert service.job(job_id).owner.name == "bob"
        assert names(service, job_id) == before
        assert service.job(job_id).files[0].bytes_transferred == 40

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
