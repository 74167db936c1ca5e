"""The log-on rule in the service: people's jobs wait, stop and go on by it (I2; architecture, section 4, rule 2)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openbits.core.accounts import AccountRules
from openbits.core.lifecycle import LOG_OFF_PATIENCE_S
from openbits.core.model import AccountKind, Caller, Identity, JobState
from openbits.frames.monitor import KillWorker
from openbits.frames.operations import DeleteFiles, RenameFiles
from openbits.frames.worker import StopTransfer, TransferEnded
from openbits.service.calls import NewFile
from openbits.service.configuration import Accounts, Configuration, Scheduler, Timeouts, Worker
from openbits.service.ledger import RETRY_FULL_STORE_S
from openbits.service.logon.people import People
from openbits.service.workers import HANDED_OUT_S, LEAVE_PATIENCE_S
from openbits.store.errors import StoreFull
from openbits.store.records import Batch
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

Script = Callable[[Service], Awaitable[None]]
ME = ALICE.identity.uid
BOB = dataclasses.replace(ALICE, identity=Identity(uid=1001, gid=1001, groups=(1001,)), name="bob")
DAEMON = Caller(
    identity=Identity(uid=77, gid=77), name="daemon", kind=AccountKind.NETWORK_SERVICE, is_administrator=False
)


def play(script: Script, configuration: Configuration | None = None) -> None:
    async def main() -> None:
        async with running(configuration=configuration, state_directory="/") as service:
            await script(service)

    virtual.run(main())


async def change(service: Service, *uids: int) -> None:
    """Let these be logged on, and nobody else, and let happen what then happens."""
    service.logon.change(*uids)
    await virtual.rest()


async def stop_in_order(service: Service) -> None:
    await service.say(service.worker.durable(0, 60), service.worker.ended())


def alive(service: Service, worker: FakeWorker | None = None) -> bool:
    """Whether a worker lives, else the one that was started last."""
    return (worker or service.worker).is_alive


def kills(service: Service) -> int:
    return sum(isinstance(frame, KillWorker) for frame in service.monitor.heard)


# --- transfers -----------------------------------------------------------------------------------------------


def test_at_log_off_a_transfer_stops_and_at_log_on_it_goes_on_from_the_durable_byte() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(), service.worker.durable(0, 40))
        await change(service)
        assert service.worker.count(StopTransfer) == 1
        assert service.state(job_id) is JobState.QUEUED
        await stop_in_order(service)
        assert not alive(service), "nothing of hers keeps running"
        assert service.manager.why(ALICE, job_id).gate == "logon"
        assert "logged off" in service.manager.why(ALICE, job_id).sentence
        await change(service, ME)
        assert service.state(job_id) is JobState.CONNECTING
        assert [file.durable_bytes for file in service.worker.files] == [60]
        assert len(service.monitor.workers) == 2
        assert kills(service) == 0

    play(script)


def test_a_worker_that_does_not_stop_is_killed_within_a_second_and_what_was_durable_stays() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(), service.worker.durable(0, 40))
        await change(service)
        await asyncio.sleep(LOG_OFF_PATIENCE_S - 0.01)
        assert alive(service)
        await asyncio.sleep(0.02)
        assert not alive(service)
        assert service.state(job_id) is JobState.QUEUED
        assert service.job(job_id).bytes_transferred == 40
        await change(service, ME)
        assert [file.durable_bytes for file in service.worker.files] == [40]
        assert LOG_OFF_PATIENCE_S + LEAVE_PATIENCE_S < 1.5

    play(script)


def test_a_transfer_that_was_already_stopping_is_hurried() -> None:
    """It was suspended a moment before: its worker has no longer than any other of the account."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started())
        await service.manager.suspend(ALICE, job_id)
        await virtual.rest()
        await change(service)
        await asyncio.sleep(LOG_OFF_PATIENCE_S + 0.01)
        assert not alive(service)
        assert service.state(job_id) is JobState.SUSPENDED

    play(script)


class Stuck(FakeWorker):
    """Lives on when its channel has ended, until it is killed."""

    def die(self) -> None:
        """See FakeWorker."""
        if self.is_alive and not self._loop.remove_reader(self._channel.fileno()):
            super().die()


def test_nobody_is_killed_once_the_service_has_said_that_it_stops() -> None:
    """The monitor takes an order that comes then for a sign that the service was taken over."""

    async def script(service: Service) -> None:
        service.monitor.make_worker = Stuck
        await service.create()
        await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
        await change(service)
        assert alive(service)
        service.runtime.pool.announce_stop(0)
        service.runtime.pool.close()
        await asyncio.sleep(LEAVE_PATIENCE_S + 0.01)
        assert kills(service) == 0

    play(script)


def test_a_worker_that_is_let_go_and_does_not_end_is_killed() -> None:
    async def script(service: Service) -> None:
        service.monitor.make_worker = Stuck
        await service.create()
        await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
        await change(service)
        assert alive(service)
        await asyncio.sleep(LEAVE_PATIENCE_S + 0.01)
        assert kills(service) == 1
        assert not alive(service)

    play(script)


def test_a_worker_that_ends_when_it_is_let_go_is_not_killed() -> None:
    async def script(service: Service) -> None:
        await service.create()
        await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
        assert alive(service), "an idle worker stays, while its account is logged on"
        went_wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: went_wrong.append(context))
        await change(service)
        assert not alive(service)
        await asyncio.sleep(2)
        assert kills(service) == 0
        assert went_wrong == []

    play(script)


def test_log_off_and_on_in_one_breath_lets_the_job_go_on() -> None:
    """Back before the log-off was written down: the run was told to stop, and the job knows of nothing."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(), service.worker.durable(0, 40))
        service.logon.change()
        service.logon.change(ME)
        await virtual.rest()
        assert service.state(job_id) is JobState.TRANSFERRING
        assert service.worker.count(StopTransfer) == 1
        number = service.worker.transfer
        await service.say(service.worker.durable(0, 50), TransferEnded(transfer=number))
        assert service.worker.transfer != number
        assert [file.durable_bytes for file in service.worker.files] == [50]
        assert service.state(job_id).is_active

    play(script)


def test_a_transfer_stops_at_log_off_also_while_the_store_s_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it has to stop can be written down only later."""

    def refuse(_batch: Batch) -> None:
        raise StoreFull("no room")

    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(), service.worker.durable(0, 40))
        with monkeypatch.context() as patch:
            patch.setattr(service.store, "commit", refuse)
            await change(service)
            assert service.worker.count(StopTransfer) == 1
            await service.say(service.worker.durable(0, 60), service.worker.ended())
            assert not alive(service)
            assert service.state(job_id) is JobState.TRANSFERRING
        await asyncio.sleep(RETRY_FULL_STORE_S + 1)
        assert service.state(job_id) is JobState.QUEUED
        assert len(service.monitor.workers) == 1
        await change(service, ME)
        assert [file.durable_bytes for file in service.worker.files] == [60]

    play(script)


@pytest.mark.parametrize("moments", range(6))
def test_log_off_at_any_moment_of_a_start_leaves_nothing_running(moments: int) -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(resume=False)
        service.worker.die()
        await virtual.rest()
        resuming = asyncio.ensure_future(service.manager.resume(ALICE, job_id))
        for _ in range(moments):
            await asyncio.sleep(0)
        service.logon.change()
        await resuming
        await asyncio.sleep(1)
        assert service.state(job_id) is JobState.QUEUED
        assert [worker for worker in service.monitor.workers if worker.is_alive] == []
        assert service.runtime.dispatcher.statistics() == {"waiting": 0, "running": 0}
        await change(service, ME)
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


def test_others_are_not_touched() -> None:
    async def script(service: Service) -> None:
        hers = await service.create()
        await service.say(service.worker.started())
        his = await service.create(caller=BOB)
        await service.say(service.worker.started())
        system = await service.create(caller=ROOT)
        daemon = await service.create(caller=DAEMON)
        await change(service, BOB.identity.uid)
        assert service.state(hers) is JobState.QUEUED
        assert service.state(his) is JobState.TRANSFERRING
        assert service.state(system).is_active
        assert service.state(daemon).is_active
        await change(service)
        assert service.state(his) is JobState.QUEUED
        assert service.state(system).is_active
        assert service.state(daemon).is_active

    play(script, Configuration(scheduler=Scheduler(max_background_jobs=9), accounts=Accounts(network_service=("77",))))


def test_idle_workers_of_services_stay() -> None:
    """Nobody is logged on, and that is nothing to them."""

    async def script(service: Service) -> None:
        await change(service)
        for caller in (ROOT, DAEMON):
            await service.create(caller=caller)
            await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
            await asyncio.sleep(10)
            assert alive(service)

    play(script, Configuration(accounts=Accounts(network_service=("77",))))


def test_a_worker_is_held_for_a_run_that_is_being_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else ends in it meanwhile, and however soon idle workers are to leave."""

    async def script(service: Service) -> None:
        terms, pool = service.runtime.conductor._terms, service.runtime.pool
        prepare = terms.prepare

        async def slowly(job: Any, account: Any, worker: Any) -> Any:
            pool.release(worker)
            await asyncio.sleep(10)
            return await prepare(job, account, worker)

        monkeypatch.setattr(terms, "prepare", slowly)
        job_id = await service.create()
        await asyncio.sleep(11)
        assert len(service.monitor.workers) == 2, "one that looked at the directory, and one for the run"
        assert len(service.worker.files) == 1
        assert service.state(job_id) is JobState.CONNECTING

    play(script, Configuration(worker=Worker(idle_s=0)))


def test_root_that_logs_on_and_off_changes_nothing_for_its_jobs() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(caller=ROOT)
        await change(service, 0)
        await change(service)
        assert service.worker.count(StopTransfer) == 0
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


# --- waiting -------------------------------------------------------------------------------------------------


def test_a_queued_job_of_somebody_logged_off_takes_no_slot_from_others() -> None:
    async def script(service: Service) -> None:
        await change(service, BOB.identity.uid)
        hers = await service.create()
        assert service.state(hers) is JobState.QUEUED
        his = await service.create(caller=BOB)
        assert service.state(his) is JobState.CONNECTING
        assert service.runtime.dispatcher.statistics() == {"waiting": 0, "running": 1}
        await change(service, ME)
        assert service.state(hers) is JobState.CONNECTING
        assert service.state(his) is JobState.QUEUED

    play(script)


def test_many_queued_jobs_of_somebody_logged_off_cost_nothing() -> None:
    async def script(service: Service) -> None:
        await change(service)
        jobs = [await service.create() for _ in range(50)]
        commits, heard = service.store.commits, len(service.monitor.heard)
        await change(service, BOB.identity.uid)
        await asyncio.sleep(86_400)
        assert (service.store.commits, len(service.monitor.heard)) == (commits, heard)
        await change(service, ME)
        assert [service.state(job_id).is_active for job_id in jobs] == [True] + [False] * 49
        await change(service)
        assert service.runtime.dispatcher.statistics() == {"waiting": 0, "running": 0}

    play(script)


def test_a_retry_that_is_due_while_logged_off_waits_in_the_queue() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(minimum_retry_delay=600)
        await service.say(service.worker.ended("BG_E_HTTP_ERROR_503", transient=True, message="busy"))
        await change(service)
        assert service.state(job_id) is JobState.TRANSIENT_ERROR
        await asyncio.sleep(601)
        assert service.state(job_id) is JobState.QUEUED
        assert service.manager.why(ALICE, job_id).gate == "logon"
        await change(service, ME)
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


def test_an_owner_logged_off_for_longer_than_the_inactivity_time_out_loses_the_job_p1() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(), service.worker.durable(0, 40))
        await asyncio.sleep(500)
        await change(service)
        await stop_in_order(service)
        await asyncio.sleep(999)
        assert service.state(job_id) is JobState.QUEUED
        await asyncio.sleep(2)
        assert service.state(job_id) is JobState.CANCELLED
        assert service.worker.count(DeleteFiles) == 1, "its temporary files are deleted all the same"
        assert len(service.monitor.workers) == 2
        assert not alive(service)

    play(script, Configuration(timeouts=Timeouts(job_inactivity_s=1000)))


def test_why_says_that_it_is_not_known_who_is_logged_on() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        service.logon.change(problem="the message bus is gone")
        await virtual.rest()
        sentence = service.manager.why(ALICE, job_id).sentence
        assert sentence == "it is not known whether its owner alice is logged on: the message bus is gone"
        [check] = [check for check in await service.manager.doctor(ALICE) if check.name == "log-on"]
        assert not check.ok
        assert "the message bus is gone" in check.message

    play(script)


def test_doctor_says_who_counts() -> None:
    async def script(service: Service) -> None:
        [check] = [check for check in await service.manager.doctor(ALICE) if check.name == "log-on"]
        assert (check.ok, check.message) == (True, "by always: everybody counts as logged on")

    play(script)


# --- work on files -------------------------------------------------------------------------------------------


async def transferred(service: Service) -> str:
    job_id = await service.create()
    await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
    assert service.state(job_id) is JobState.TRANSFERRED
    return job_id


def test_files_are_renamed_for_somebody_logged_off_by_a_worker_that_leaves_at_once() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        await change(service)
        outcome = await service.manager.complete(ROOT, job_id)
        assert outcome.job.state is JobState.ACKNOWLEDGED
        assert service.worker.count(RenameFiles) == 1
        await virtual.rest()
        assert len(service.monitor.workers) == 2
        assert not alive(service)

    play(script)


def test_files_are_deleted_for_somebody_logged_off_by_a_worker_that_leaves_at_once() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started())
        await change(service)
        await stop_in_order(service)
        outcome = await service.manager.cancel(ROOT, job_id)
        assert outcome.job.state is JobState.CANCELLED
        assert service.worker.count(DeleteFiles) == 1
        await virtual.rest()
        assert not alive(service)

    play(script)


def test_directories_are_checked_for_somebody_logged_off_by_a_worker_that_leaves_at_once() -> None:
    async def script(service: Service) -> None:
        await change(service)
        job_id = await service.create()
        assert service.state(job_id) is JobState.QUEUED
        assert len(service.monitor.workers) == 1
        assert not alive(service)
        await service.manager.add_files(
            ALICE, job_id, [NewFile(remote_name="http://origin.example/x", local_name="/home/alice/x")]
        )
        await virtual.rest()
        assert len(service.monitor.workers) == 2
        assert not alive(service)

    play(script)


def test_a_rename_that_was_asked_for_ends_before_the_worker_does() -> None:
    """Complete was called; then the account logs off: its last work is done, and nothing is cut off in it."""

    async def script(service: Service) -> None:
        job_id = await transferred(service)
        worker = service.worker
        worker.does_operations = False
        completing = asyncio.ensure_future(service.manager.complete(ALICE, job_id))
        await virtual.rest()
        await change(service)
        await asyncio.sleep(30)
        assert alive(service, worker)
        worker.operate(worker.last(RenameFiles))
        assert (await completing).job.state is JobState.ACKNOWLEDGED
        await virtual.rest()
        assert not alive(service, worker)
        assert kills(service) == 0

    play(script)


def test_a_rename_whose_worker_is_killed_for_a_transfer_is_done_by_another() -> None:
    async def script(service: Service) -> None:
        done = await transferred(service)
        running_id = await service.create()
        await service.say(service.worker.started())
        worker = service.worker
        worker.does_operations = False
        completing = asyncio.ensure_future(service.manager.complete(ALICE, done))
        await virtual.rest()
        await change(service)
        await asyncio.sleep(LOG_OFF_PATIENCE_S + 0.01)
        assert not alive(service, worker)
        assert (await completing).job.state is JobState.ACKNOWLEDGED
        await virtual.rest()
        assert not alive(service)
        assert service.state(running_id) is JobState.QUEUED

    play(script)


@pytest.mark.parametrize("is_away", [True, False])
def test_a_worker_whose_caller_gave_up_before_it_was_there_does_not_stay(is_away: bool) -> None:
    async def script(service: Service) -> None:
        if is_away:
            await change(service)
        service.monitor.on_worker = lambda _worker: None
        creating = asyncio.ensure_future(service.create())
        await virtual.rest()
        creating.cancel()
        service.worker.be_ready()
        await asyncio.sleep(HANDED_OUT_S + 0.01)
        assert alive(service) is not is_away
        await asyncio.sleep(Worker().idle_s)
        assert not alive(service)

    play(script)


@pytest.mark.parametrize("verb", ["resume", "complete", "cancel"])
def test_an_administrator_may_use_the_verbs_on_jobs_of_somebody_logged_off(verb: str) -> None:
    async def script(service: Service) -> None:
        await change(service)
        job_id = await service.create(resume=False)
        await getattr(service.manager, verb)(ROOT, job_id)
        await virtual.rest()
        expected = {"resume": JobState.QUEUED, "complete": JobState.ACKNOWLEDGED, "cancel": JobState.CANCELLED}
        assert service.state(job_id) is expected[verb]
        assert [worker for worker in service.monitor.workers if worker.is_alive] == []

    play(script)


# --- restarts ------------------------------------------------------------------------------------------------


def test_a_service_that_starts_while_the_owner_is_logged_off_leaves_the_job_queued() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await service.create()
            await service.say(service.worker.started(), service.worker.durable(0, 40))
            disk = service.disk
        second = Service(service.store.__class__(disk), "/nowhere", Configuration())
        second.logon.change()
        try:
            await second.runtime.start()
            await virtual.rest()
            assert second.state(job_id) is JobState.QUEUED
            assert second.monitor.workers == []
            await change(second, ME)
            assert [file.durable_bytes for file in second.worker.files] == [40]
        finally:
            await second.crash()

    virtual.run(main())


def test_what_was_left_undone_with_files_is_done_after_a_restart_for_somebody_logged_off() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await transferred(service)
            service.worker.does_operations = False
            completing = asyncio.ensure_future(service.manager.complete(ALICE, job_id))
            await virtual.rest()
            disk = service.disk
        completing.cancel()
        second = Service(service.store.__class__(disk), "/nowhere", Configuration())
        second.logon.change()
        try:
            await second.runtime.start()
            await virtual.rest()
            assert second.state(job_id) is JobState.ACKNOWLEDGED
            assert not alive(second)
        finally:
            await second.crash()

    virtual.run(main())


# --- people --------------------------------------------------------------------------------------------------


def test_who_is_a_person() -> None:
    people = People(AccountRules(network_service=frozenset({"daemon", "2000"}), local_service=frozenset({"no-such"})))
    assert 1000 in people
    assert 2000 not in people
    assert 0 not in people
    assert 1 not in people
    assert 65_534 not in people
    assert 61_200 not in people
