"""Helper tokens in the service: capabilities, whose worker does what, and the hand-over of files (I7, T1-T4).

The workers are the test's: they say what a worker that was taken over would say.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from openbits.core.model import AccountKind, Caller, HelperFlag, Identity, JobState, Owner
from openbits.errors import BitsError
from openbits.frames.channel import ChannelClosed
from openbits.frames.codec import MAX_FRAME_BYTES
from openbits.frames.monitor import KillWorker
from openbits.frames.operations import CheckDirectories, DeleteFiles, FileOpened, OpenFile, RenameFiles
from openbits.frames.worker import HANDLES_AHEAD, WORKER_TO_SERVICE, FileHandle, FileWanted, StartTransfer, StopTransfer
from openbits.service.calls import NewFile
from openbits.service.handles import LONGEST_REFUSAL, MOST_WANTED, OPEN_ATTEMPTS, OPEN_TIMEOUT_S
from openbits.service.helpertokens import OPTIONS_PER_JOB
from openbits.store.errors import StoreFull
from openbits.store.memory import MemoryDisk
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

Script = Callable[[Service], Awaitable[None]]
BOB = Caller(
    identity=Identity(uid=1001, gid=1001, groups=(1001,)), name="bob", kind=AccountKind.USER, is_administrator=False
)
CAROL = Caller(
    identity=Identity(uid=1002, gid=1002, groups=(27,)), name="carol", kind=AccountKind.USER, is_administrator=True
)
DAEMON = Caller(identity=Identity(uid=2, gid=2), name="daemon", kind=AccountKind.LOCAL_SERVICE, is_administrator=False)


class HandleWorker(FakeWorker):
    """Opens files as long as the test lets it, and keeps what it is handed."""

    answers = True

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on as they came
        self.handles: list[tuple[FileHandle, int | None]] = []

    def _read(self) -> None:
        try:
            while self.is_alive and (received := self._channel.receive()) is not None:
                message, descriptors = received
                self.heard.append(message)
                if isinstance(message, FileHandle):
                    self.handles.append((message, descriptors[0] if descriptors else None))
                elif self.does_operations:
                    self.operate(message)
        except ChannelClosed:
            self.die()

    def operate(self, message: object) -> None:
        """See FakeWorker."""
        if isinstance(message, OpenFile):
            if self.answers:
                self.open(message)
        else:
            super().operate(message)

    def open(self, message: OpenFile) -> None:
        """Answer with a file, as if it stood there."""
        with tempfile.TemporaryFile() as file:
            self._channel.send(
                FileOpened(operation=message.operation, kept=message.durable_bytes > 0), (file.fileno(),)
            )

    def die(self) -> None:
        """See FakeWorker."""
        super().die()
        for _, fd in self.handles:
            if fd is not None:
                os.close(fd)
        self.handles.clear()


def play(script: Script, disk: MemoryDisk | None = None) -> None:
    async def main() -> None:
        async with running(disk) as service:
            service.monitor.make_worker = HandleWorker
            await script(service)

    before = len(os.listdir("/proc/self/fd"))
    virtual.run(main())
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


def worker_of(service: Service, caller: Caller) -> HandleWorker:
    """The worker of an account that was started last."""
    found = [worker for worker in service.monitor.workers if worker.identity == caller.identity]
    worker = found[-1]
    assert isinstance(worker, HandleWorker)
    return worker


async def helped(
    service: Service, *, owner: Caller = ROOT, helper: Caller | None = BOB, flags: int = 1, files: int = 1
) -> tuple[str, str]:
    """A job that runs with a helper token; its id and a capability."""
    tokens = service.runtime.tokens
    job_id = await service.create(files=files, resume=False, caller=owner)
    capability = tokens.obtain(owner, job_id)
    if helper is not None:
        await tokens.set_helper(helper, capability)
    await tokens.set_flags(capability, flags)
    await service.manager.resume(owner, job_id)
    await virtual.rest()
    return job_id, capability


@contextlib.contextmanager
def fails(name: str) -> Iterator[None]:
    with pytest.raises(BitsError) as failure:
        yield
    assert failure.value.name == name


def is_killed(service: Service, worker: FakeWorker) -> bool:
    return any(isinstance(frame, KillWorker) and frame.pid == worker.pid for frame in service.monitor.heard)


# --- whose worker does what ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "network", "files"),
    [(0, ROOT, ROOT), (1, ROOT, BOB), (2, BOB, ROOT), (3, BOB, BOB)],
)
def test_t3_flags_say_whose_worker_does_what(flags: int, network: Caller, files: Caller) -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service, flags=flags)
        worker = worker_of(service, network)
        start = worker.last(StartTransfer)
        assert start.takes_handles == (network != files)
        others = [other for other in service.monitor.workers if other is not worker]
        assert not any(other.count(StartTransfer) for other in others)
        worker.send(worker.started(), worker.done(0), worker.ended())
        await virtual.rest()
        await service.manager.complete(ROOT, job_id)
        assert worker_of(service, files).last(RenameFiles).files[0].index == 0
        assert sum(other.count(RenameFiles) for other in service.monitor.workers) == 1
        assert service.state(job_id) is JobState.ACKNOWLEDGED

    play(script)


def test_t3_directories_are_looked_at_by_the_files_side() -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service)
        new = NewFile(remote_name="http://origin.example/more", local_name="/home/bob/more")
        await service.manager.add_files(ROOT, job_id, [new])
        assert worker_of(service, BOB).last(CheckDirectories).paths == ("/home/bob",)

    play(script)


def test_d9_the_files_side_dates_what_the_network_side_could_not() -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service)
        worker = worker_of(service, ROOT)
        started = dataclasses.replace(worker.started(), last_modified="Tue, 14 Nov 2023 22:13:20 GMT")
        worker.send(started, worker.done(0), worker.ended())
        await virtual.rest()
        await service.manager.complete(ROOT, job_id)
        assert worker_of(service, BOB).last(RenameFiles).files[0].modified_epoch_s == 1_700_000_000

    play(script)


# --- the hand-over ---------------------------------------------------------------------------------------------


def test_a_wanted_file_is_opened_by_the_one_and_handed_to_the_other() -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service)
        network = worker_of(service, ROOT)
        network.send(FileWanted(transfer=network.transfer, index=0))
        await virtual.rest()
        opened = worker_of(service, BOB).last(OpenFile)
        assert opened.temporary_name == service.job(job_id).files[0].temporary_name
        assert (opened.durable_bytes, opened.umask) == (0, 0o022)
        [(handle, fd)] = network.handles
        assert handle == FileHandle(transfer=network.transfer, index=0, kept=False)
        assert fd is not None

    play(script)


def test_what_was_durable_is_asked_for_again() -> None:
    async def script(service: Service) -> None:
        job_id, _ = await helped(service)
        network = worker_of(service, ROOT)
        network.send(network.started(), network.durable(0, 40))
        await virtual.rest()
        network.die()
        await virtual.rest()
        network = worker_of(service, ROOT)
        network.send(FileWanted(transfer=network.transfer, index=0))
        await virtual.rest()
        assert worker_of(service, BOB).last(OpenFile).durable_bytes == 40
        assert network.handles[0][0].kept
        assert service.state(job_id) is JobState.TRANSFERRING

    play(script)


@pytest.mark.parametrize("index", [1, -1, 2**40])
def test_a_worker_that_wants_what_is_not_its_own_is_killed(index: int) -> None:
    async def script(service: Service) -> None:
        await helped(service)
        network = worker_of(service, ROOT)
        network.send(FileWanted(transfer=network.transfer, index=index))
        await virtual.rest()
        assert is_killed(service, network)
        assert not any(worker.count(OpenFile) for worker in service.monitor.workers)

    play(script)


def test_a_worker_that_wants_a_file_twice_is_killed() -> None:
    async def script(service: Service) -> None:
        await helped(service)
        network = worker_of(service, ROOT)
        network.send(FileWanted(transfer=network.transfer, index=0), FileWanted(transfer=network.transfer, index=0))
        await virtual.rest()
        assert is_killed(service, network)

    play(script)


def test_a_worker_that_wants_too_many_at_a_time_is_killed() -> None:
    async def script(service: Service) -> None:
        await helped(service, files=MOST_WANTED + 1)
        assert MOST_WANTED > HANDLES_AHEAD
        opener = worker_of(service, BOB) if BOB.identity in {w.identity for w in service.monitor.workers} else None
        assert opener is None
        HandleWorker.answers = False
        try:
            network = worker_of(service, ROOT)
            network.send(*(FileWanted(transfer=network.transfer, index=index) for index in range(MOST_WANTED)))
            await virtual.rest()
            assert not is_killed(service, network)
            network.send(FileWanted(transfer=network.transfer, index=MOST_WANTED))
            await virtual.rest()
            assert is_killed(service, network)
        finally:
            HandleWorker.answers = True

    play(script)


def test_a_worker_that_takes_no_handles_may_not_want_any() -> None:
    async def script(service: Service) -> None:
        await service.create()
        worker = service.worker
        worker.send(FileWanted(transfer=worker.transfer, index=0))
        await virtual.rest()
        assert is_killed(service, worker)

    play(script)


@pytest.mark.parametrize(("error", "expected"), [("ERROR_DISK_FULL", "ERROR_DISK_FULL"), ("NO_SUCH_ERROR", "E_FAIL")])
@pytest.mark.parametrize("transient", [True, False])
def test_the_openers_refusal_reaches_the_network_side(error: str, expected: str, transient: bool) -> None:
    async def script(service: Service) -> None:
        HandleWorker.answers = False
        try:
            await helped(service)
            network = worker_of(service, ROOT)
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
            opener = worker_of(service, BOB)
            number = opener.last(OpenFile).operation
            opener.send(FileOpened(operation=number, error=error, message="there is no room", transient=transient))
            await virtual.rest()
        finally:
            HandleWorker.answers = True
        [(handle, fd)] = network.handles
        assert (handle.error, handle.message, handle.transient, fd) == (expected, "there is no room", transient, None)

    play(script)


def test_a_refusal_that_fills_its_frame_does_not_end_the_service() -> None:
    """What an opener says goes on in another frame, with more beside it."""

    async def script(service: Service) -> None:
        HandleWorker.answers = False
        try:
            await helped(service)
            network = worker_of(service, ROOT)
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
            opener = worker_of(service, BOB)
            refusal = FileOpened(operation=opener.last(OpenFile).operation, error="E_FAIL", message="x")
            room = MAX_FRAME_BYTES - len(WORKER_TO_SERVICE.encode(refusal))
            opener.send(dataclasses.replace(refusal, message="x" * room))
            await virtual.rest()
        finally:
            HandleWorker.answers = True
        assert service.gave_up == []
        [(handle, _)] = network.handles
        assert (handle.error, len(handle.message)) == ("E_FAIL", LONGEST_REFUSAL)

    play(script)


def test_an_opener_that_cannot_be_started_says_nothing_of_the_file() -> None:
    async def script(service: Service) -> None:
        await helped(service)
        network = worker_of(service, ROOT)
        trouble = BitsError("BG_E_WATCHDOG_TIMEOUT", "no worker could be started")
        with mock.patch.object(service.runtime.pool, "get", side_effect=trouble):
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
        [(handle, _)] = network.handles
        assert (handle.error, handle.transient) == ("BG_E_WATCHDOG_TIMEOUT", True)

    play(script)


def test_an_opener_that_dies_is_replaced_a_few_times_and_then_the_run_is_broken() -> None:
    async def script(service: Service) -> None:
        HandleWorker.answers = False
        try:
            job_id, _ = await helped(service)
            network = worker_of(service, ROOT)
            run = service.job(job_id).run
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
            for _ in range(OPEN_ATTEMPTS):
                assert network.count(StopTransfer) == 0
                opener = worker_of(service, BOB)
                assert opener.count(OpenFile) == 1
                opener.die()
                await virtual.rest()
        finally:
            HandleWorker.answers = True
        assert network.count(StopTransfer) == 1
        network.send(network.ended())
        await virtual.rest()
        assert service.job(job_id).run == run + 1
        assert network.count(StartTransfer) == 2  # the same worker: nothing was wrong with it
        assert not is_killed(service, network)

    play(script)


def test_an_opener_that_does_not_answer_makes_a_transient_failure() -> None:
    async def script(service: Service) -> None:
        HandleWorker.answers = False
        try:
            await helped(service)
            network = worker_of(service, ROOT)
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
            await asyncio.sleep(OPEN_TIMEOUT_S + 1)
        finally:
            HandleWorker.answers = True
        [(handle, _)] = network.handles
        assert (handle.error, handle.transient) == ("BG_E_WATCHDOG_TIMEOUT", True)
        # What comes after all belongs to nobody, and is closed.
        opener = worker_of(service, BOB)
        opener.open(opener.last(OpenFile))
        await virtual.rest()
        assert len(network.handles) == 1

    play(script)


def test_a_file_that_comes_when_the_run_is_over_is_closed() -> None:
    async def script(service: Service) -> None:
        HandleWorker.answers = False
        try:
            job_id, _ = await helped(service)
            network = worker_of(service, ROOT)
            network.send(FileWanted(transfer=network.transfer, index=0))
            await virtual.rest()
            await service.manager.suspend(ROOT, job_id)
            network.send(network.ended())
            await virtual.rest()
        finally:
            HandleWorker.answers = True
        opener = worker_of(service, BOB)
        opener.open(opener.last(OpenFile))
        await virtual.rest()
        assert network.handles == []
        assert not is_killed(service, network)
        assert not is_killed(service, opener)

    play(script)


# --- tokens and capabilities -----------------------------------------------------------------------------------


def test_i7_a_job_without_its_token_goes_to_error_when_its_turn_comes() -> None:
    async def script(service: Service) -> None:
        job_id, capability = await helped(service, helper=None)
        job = service.job(job_id)
        assert job.state is JobState.ERROR
        assert job.error is not None
        assert (job.error.name, job.error.context.name) == ("BG_E_TOKEN_REQUIRED", "GENERAL_QUEUE_MANAGER")
        await service.runtime.tokens.set_helper(BOB, capability)
        assert service.state(job_id) is JobState.ERROR
        await service.manager.resume(ROOT, job_id)
        await virtual.rest()
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


def test_t1_another_helper_restarts_the_run_as_him() -> None:
    async def script(service: Service) -> None:
        job_id, capability = await helped(service, flags=2)
        first = worker_of(service, BOB)
        await service.runtime.tokens.set_helper(DAEMON, capability)
        await virtual.rest()
        assert first.count(StopTransfer) == 1
        assert not any(worker.identity == DAEMON.identity for worker in service.monitor.workers)
        first.send(first.ended())
        await virtual.rest()
        assert worker_of(service, DAEMON).count(StartTransfer) == 1
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


def test_i7_at_the_services_start_unfinished_jobs_that_use_a_token_go_to_error() -> None:
    disk = MemoryDisk()
    jobs: dict[str, str] = {}

    async def before(service: Service) -> None:
        jobs["running"], _ = await helped(service)
        jobs["suspended"], _ = await helped(service)
        await service.manager.suspend(ROOT, jobs["suspended"])
        jobs["none"], _ = await helped(service, flags=0)

    async def after(service: Service) -> None:
        await virtual.rest()
        assert service.state(jobs["running"]) is JobState.ERROR
        assert service.state(jobs["suspended"]) is JobState.SUSPENDED
        assert service.state(jobs["none"]) in (JobState.CONNECTING, JobState.QUEUED)
        assert service.runtime.tokens.statistics() == {"helper_tokens": 0, "token_options": 0}

    play(before, disk)
    play(after, disk)


def test_i7_log_off_of_people_takes_their_tokens_and_those_of_their_jobs() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        roots, of_roots = await helped(service)
        bobs, of_bobs = await helped(service, owner=BOB, helper=DAEMON, flags=2)
        others, of_others = await helped(service, helper=DAEMON, flags=2)
        tokens.logged_off(frozenset({BOB.identity.uid, DAEMON.identity.uid, 0}))
        await virtual.rest()
        assert service.state(roots) is JobState.ERROR
        assert service.state(bobs) is JobState.ERROR
        assert service.state(others) is JobState.CONNECTING  # service accounts have no session that could end
        assert tokens.state(of_roots).helper is None
        assert tokens.state(of_others).helper == DAEMON.as_owner()
        with fails("RPC_E_DISCONNECTED"):
            tokens.state(of_bobs)

    play(script)


def test_i7_a_run_that_is_being_prepared_at_log_off_never_begins() -> None:
    """Whose name it is to run in was looked up before that."""

    async def script(service: Service) -> None:
        tokens, terms = service.runtime.tokens, service.runtime.conductor._terms
        prepare = terms.prepare

        async def slow(*arguments: Any) -> Any:
            found = await prepare(*arguments)
            tokens.logged_off(frozenset({BOB.identity.uid}))
            return found

        with mock.patch.object(terms, "prepare", slow):
            job_id, _ = await helped(service, flags=int(HelperFlag.NETWORK))
        assert worker_of(service, BOB).count(StartTransfer) == 0
        assert service.state(job_id) is JobState.ERROR
        assert "bob has logged off" in str(service.job(job_id).error)

    play(script)


def test_i8_a_new_owner_finds_neither_token_nor_options() -> None:
    async def script(service: Service) -> None:
        job_id, capability = await helped(service)
        service.runtime.tokens.forget(job_id)
        with fails("RPC_E_DISCONNECTED"):
            await service.runtime.tokens.set_helper(BOB, capability)
        assert service.runtime.tokens.helper(job_id) is None

    play(script)


def test_options_are_the_owners_alone_and_end_with_the_job() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id, capability = await helped(service, owner=ALICE)
        for stranger in (ROOT, CAROL, BOB):
            with fails("E_ACCESSDENIED"):
                tokens.obtain(stranger, job_id)
        worker = worker_of(service, ALICE)
        await service.manager.suspend(ALICE, job_id)
        worker.send(worker.ended())
        await service.manager.cancel(ALICE, job_id)
        # Deleted by the helper's worker, for the file was the helper's; only then the token is gone.
        assert worker_of(service, BOB).count(DeleteFiles) == 1
        with fails("RPC_E_DISCONNECTED"):
            tokens.state(capability)
        with fails("BG_E_INVALID_STATE"):
            tokens.obtain(ALICE, job_id)
        assert tokens.statistics() == {"helper_tokens": 0, "token_options": 0}

    play(script)


def test_a_job_has_a_bounded_number_of_options() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id = await service.create(resume=False, caller=ALICE)
        known = [tokens.obtain(ALICE, job_id) for _ in range(OPTIONS_PER_JOB + 3)]
        assert len(set(known)) == len(known)
        for capability in known[:3]:
            with fails("RPC_E_DISCONNECTED"):
                tokens.state(capability)
        assert [tokens.state(capability).flags for capability in known[3:]] == [HelperFlag.NONE] * OPTIONS_PER_JOB
        assert not any(capability in repr(vars(tokens)) for capability in known)

    play(script)


def test_t1_administrators_help_administrators_only() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        alices = tokens.obtain(ALICE, await service.create(resume=False, caller=ALICE))
        carols = tokens.obtain(CAROL, await service.create(resume=False, caller=CAROL))
        with fails("E_ACCESSDENIED"):
            await tokens.set_helper(CAROL, alices)
        await tokens.set_helper(CAROL, carols)
        await tokens.set_helper(BOB, carols)
        await tokens.set_helper(DAEMON, alices)
        assert tokens.state(alices).helper == DAEMON.as_owner()

    play(script)


@pytest.mark.parametrize("flags", [4, 5, -1, 2**63])
def test_t3_other_flags_are_refused(flags: int) -> None:
    async def script(service: Service) -> None:
        capability = service.runtime.tokens.obtain(ALICE, await service.create(resume=False, caller=ALICE))
        with fails("E_INVALIDARG"):
            await service.runtime.tokens.set_flags(capability, flags)

    play(script)


def test_t1_a_call_that_cannot_be_written_down_changes_nothing() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id = await service.create(resume=False, caller=ALICE)
        capability = tokens.obtain(ALICE, job_id)
        await tokens.set_flags(capability, 1)
        await tokens.set_helper(BOB, capability)
        with mock.patch.object(service.store, "commit", side_effect=StoreFull("no room")):
            with fails("ERROR_DISK_FULL"):
                await tokens.set_helper(DAEMON, capability)
            assert tokens.helper(job_id) == BOB.as_owner()
            with fails("ERROR_DISK_FULL"):
                await tokens.clear_helper(capability)
            assert tokens.helper(job_id) == BOB.as_owner()

    play(script)


def test_t2_a_call_that_comes_too_late_does_not_bring_back_what_was_cleared_before() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id = await service.create(caller=ALICE)
        await service.say(service.worker.done(0), service.worker.ended())
        assert service.state(job_id) is JobState.TRANSFERRED
        capability = tokens.obtain(ALICE, job_id)
        await tokens.set_helper(BOB, capability)
        seen: list[Owner | None] = []

        async def too_late() -> None:
            with fails("BG_E_INVALID_STATE"):
                await tokens.clear_helper(capability)
            seen.append(tokens.helper(job_id))

        # All in one transaction, each of them begun while there was a helper.
        await asyncio.gather(tokens.clear_helper(capability), service.manager.complete(ALICE, job_id), too_late())
        assert seen == [None]

    play(script)


def test_i7_complete_without_the_token_fails_and_keeps_the_job() -> None:
    async def script(service: Service) -> None:
        tokens = service.runtime.tokens
        job_id, capability = await helped(service)
        worker = worker_of(service, ROOT)
        worker.send(worker.started(), worker.done(0), worker.ended())
        await virtual.rest()
        await tokens.clear_helper(capability)
        with fails("BG_E_TOKEN_REQUIRED"):
            await service.manager.complete(ROOT, job_id)
        assert service.state(job_id) is JobState.TRANSFERRED
        assert not any(worker.count(RenameFiles) for worker in service.monitor.workers)
        await tokens.set_flags(capability, 0)
        await service.manager.complete(ROOT, job_id)
        assert worker_of(service, ROOT).count(RenameFiles) == 1

    play(script)
