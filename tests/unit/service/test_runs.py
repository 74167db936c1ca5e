"""Runs against workers that speak real frames: starts, stops, losses, lies (issue part 2, architecture section 3)."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

import pytest

from openbits.core.model import JobState, JobType
from openbits.errors import BitsError
from openbits.frames.monitor import KillWorker, SpawnRefused, SpawnWorker
from openbits.frames.operations import CheckDirectories, DeleteFiles, FileResult, OperationResults, RenameFiles
from openbits.frames.worker import (
    DoneFile,
    FileDurable,
    FileReceived,
    FilesDone,
    FilesStarted,
    StartTransfer,
    StopTransfer,
    TransferBroken,
    TransferEnded,
    TransferFiles,
    WorkerReady,
)
from openbits.service.calls import NewFile, NewJob
from openbits.service.run import STOP_PATIENCE_S
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running
from support.virtual import EPOCH

Script = Callable[[Service], Awaitable[None]]


def play(script: Script) -> None:
    """Run a script against a new service."""

    async def main() -> None:
        async with running() as service:
            await script(service)

    virtual.run(main())


# --- the way of a job -----------------------------------------------------------------------------


def test_a_job_from_its_creation_to_its_end() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=2)
        assert service.state(job_id) is JobState.CONNECTING
        assert [file.index for file in service.worker.files] == [0, 1]
        assert service.worker.last(TransferFiles).last
        await service.say(service.worker.started(0), service.worker.durable(0, 40))
        assert service.state(job_id) is JobState.TRANSFERRING
        assert service.job(job_id).bytes_transferred == 40
        await service.say(service.worker.done(0), service.worker.started(1), service.worker.done(1))
        assert service.state(job_id) is JobState.TRANSFERRED
        await service.say(service.worker.ended())
        outcome = await service.manager.complete(ALICE, job_id)
        assert (outcome.result, outcome.job.state) == ("S_OK", JobState.ACKNOWLEDGED)
        assert [file.index for file in service.worker.last(RenameFiles).files] == [0, 1]
        assert service.disk.effects == {}
        assert service.runtime.conductor.statistics() == {"runs": 0, "finishing": 0, "workers": 1}

    play(script)


def test_many_small_files_in_one_frame() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=3)
        number = service.worker.transfer
        started = tuple(service.worker.started(index) for index in range(3))
        commits = service.store.commits
        await service.say(FilesStarted(transfer=number, files=started), service.worker.done(0, 1, 2))
        assert service.state(job_id) is JobState.TRANSFERRED
        assert service.store.commits <= commits + 2

    play(script)


def test_workers_are_one_for_each_identity_and_leave_when_idle() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(priority="foreground")
        await service.create(priority="foreground")
        await service.create(priority="foreground", caller=dataclasses.replace(ROOT, name="root"))
        assert [worker.identity.uid for worker in service.monitor.workers] == [1000, 0]
        assert service.monitor.workers[0].count(StartTransfer) == 2
        for worker in service.monitor.workers:
            worker.send(worker.ended("BG_E_HTTP_ERROR_404"))
        await virtual.rest()
        first = service.monitor.workers[0]
        first.send(TransferEnded(transfer=first.transfer - 1, error="BG_E_HTTP_ERROR_404"))
        await asyncio.sleep(3600)
        assert not any(worker.is_alive for worker in service.monitor.workers)
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert len(service.monitor.workers) == 3
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


def test_only_what_is_missing_is_handed_over_and_from_where_it_stands() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=3)
        worker = service.worker
        await service.say(worker.started(0), worker.done(0), worker.started(1), worker.durable(1, 40))
        await service.manager.suspend(ALICE, job_id)
        await virtual.rest()
        await service.say(worker.durable(1, 60), worker.ended())
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert [(file.index, file.durable_bytes, file.etag) for file in worker.files] == [(1, 60, '"1"'), (2, 0, None)]

    play(script)


# --- stopping ---------------------------------------------------------------------------------------


def test_a_stopped_run_is_waited_for_before_the_next_begins() -> None:
    """No two runs ever write to one file, and the new one knows what the old one reported last."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        worker = service.worker
        await service.say(worker.started(0))
        await service.manager.suspend(ALICE, job_id)
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert worker.count(StopTransfer) == 1
        assert worker.count(StartTransfer) == 1
        assert service.state(job_id) is JobState.CONNECTING
        await service.say(worker.durable(0, 70), worker.ended())
        assert worker.count(StartTransfer) == 2
        assert worker.files[0].durable_bytes == 70

    play(script)


def test_a_run_that_is_stopped_before_it_has_begun_never_begins() -> None:
    async def script(service: Service) -> None:
        service.monitor.on_worker = lambda worker: None
        creating = asyncio.ensure_future(service.create(resume=False))
        await virtual.rest()
        service.worker.be_ready()
        job_id = await creating
        service.worker.die()
        await virtual.rest()
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert service.state(job_id) is JobState.CONNECTING
        await service.manager.suspend(ALICE, job_id)
        service.worker.be_ready()
        await virtual.rest()
        assert service.worker.count(StartTransfer) == 0
        assert service.runtime.conductor.statistics()["runs"] == 0

    play(script)


def test_a_worker_that_does_not_stop_is_killed_and_that_is_the_end_of_the_run() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.started(0))
        await service.manager.suspend(ALICE, job_id)
        alive = []
        for seconds in (STOP_PATIENCE_S - 1, 2):
            await asyncio.sleep(seconds)
            alive.append(service.worker.is_alive)
        assert alive == [True, False]
        assert service.state(job_id) is JobState.SUSPENDED
        assert service.runtime.conductor.statistics()["runs"] == 0
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert len(service.monitor.workers) == 2
        assert service.worker.count(StartTransfer) == 1

    play(script)


def test_a_worker_that_stops_in_time_is_not_killed() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.manager.suspend(ALICE, job_id)
        await virtual.rest()
        await service.say(service.worker.ended())
        await asyncio.sleep(STOP_PATIENCE_S + 5)
        assert not [message for message in service.monitor.heard if isinstance(message, KillWorker)]

    play(script)


def test_a_failure_that_crosses_a_stop_changes_nothing() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.manager.suspend(ALICE, job_id)
        await service.say(service.worker.ended("BG_E_HTTP_ERROR_404", message="no"))
        assert service.state(job_id) is JobState.SUSPENDED
        assert service.job(job_id).error is None

    play(script)


def test_the_service_stops_in_an_orderly_way() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await service.create()
            worker = service.worker
            await service.say(worker.started(0))
            stopping = asyncio.ensure_future(service.runtime.stop(0))
            await virtual.rest()
            assert worker.count(StopTransfer) == 1
            await service.say(worker.durable(0, 55), worker.ended())
            await stopping
            assert service.disk.jobs[job_id].bytes_transferred == 55
            assert service.disk.jobs[job_id].state is JobState.TRANSFERRING
        disk = service.disk
        service.store._open = True
        async with running(disk) as restarted:
            assert restarted.state(job_id) is JobState.CONNECTING
            assert restarted.worker.files[0].durable_bytes == 55

    virtual.run(main())


# --- losses -----------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_at_once() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        first = service.worker
        await service.say(first.started(0), first.durable(0, 40))
        first.die()
        await virtual.rest()
        assert len(service.monitor.workers) == 2
        assert service.state(job_id) is JobState.TRANSFERRING
        assert service.worker.files[0].durable_bytes == 40
        assert service.job(job_id).error_count == 0

    play(script)


def test_workers_that_die_again_and_again_make_the_job_wait() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        service.monitor.on_worker = lambda worker: worker.die()
        service.worker.die()
        await asyncio.sleep(120)
        job = service.job(job_id)
        assert job.state is JobState.TRANSIENT_ERROR
        assert job.error is not None
        assert job.error.name == "E_FAIL"
        assert len(service.monitor.workers) < 20, "with growing pauses"

    play(script)


def test_a_stop_does_not_wait_for_the_pause_before_another_worker() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        service.monitor.on_worker = lambda worker: worker.die()
        service.worker.die()
        await asyncio.sleep(10)
        assert service.state(job_id) is JobState.CONNECTING
        service.monitor.on_worker = FakeWorker.be_ready
        before = asyncio.get_running_loop().time()
        await service.manager.cancel(ALICE, job_id)
        assert asyncio.get_running_loop().time() - before < 0.5

    play(script)


@pytest.mark.parametrize("moment", ["while it starts", "when it is ready", "with the job in hand"])
def test_no_moment_of_a_workers_death_leaves_a_job_stuck(moment: str) -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(resume=False)
        service.worker.die()
        await virtual.rest()

        def die_once(worker: FakeWorker) -> None:
            service.monitor.on_worker = FakeWorker.be_ready
            if moment != "while it starts":
                worker.be_ready()
            if moment == "with the job in hand":
                worker.operate = lambda message: worker.die() if isinstance(message, StartTransfer) else None  # type: ignore[method-assign]
            else:
                worker.die()

        service.monitor.on_worker = die_once
        await service.manager.resume(ALICE, job_id)
        await asyncio.sleep(5)
        assert service.state(job_id) is JobState.CONNECTING
        assert service.worker.is_alive
        assert service.worker.count(StartTransfer) == 1
        assert len(service.runtime.pool) == 1

    play(script)


def test_an_account_that_may_have_no_worker_makes_a_transient_error() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(resume=False)
        service.worker.die()
        service.monitor.refusal = SpawnRefused(request=0, error="", message="")
        await virtual.rest()
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        job = service.job(job_id)
        assert job.state is JobState.TRANSIENT_ERROR
        assert job.error is not None
        assert job.error.name == "ERROR_NO_SUCH_USER"

    play(script)


def test_a_monitor_that_does_not_answer_makes_a_transient_error() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(resume=False)
        service.worker.die()
        service.monitor.answers = False
        await virtual.rest()
        await service.manager.resume(ALICE, job_id)
        await asyncio.sleep(30)
        job = service.job(job_id)
        assert job.error is not None
        assert job.error.name == "BG_E_WATCHDOG_TIMEOUT"

    play(script)


def test_a_client_that_hangs_up_takes_no_worker_from_others() -> None:
    """The first who asks for a worker may be a call whose client goes away while the worker starts."""

    async def script(service: Service) -> None:
        job_id = await service.create(resume=False)
        service.worker.die()
        await virtual.rest()
        service.monitor.on_worker = lambda worker: None
        call = asyncio.ensure_future(service.create(resume=False))
        await virtual.rest()
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        call.cancel()
        await virtual.rest()
        service.worker.be_ready()
        await virtual.rest()
        assert service.worker.count(StartTransfer) == 1
        assert service.state(job_id) is JobState.CONNECTING

    play(script)


# --- workers that lie -------------------------------------------------------------------------------


LIES: dict[str, Callable[[FakeWorker], object]] = {
    "an unknown error": lambda worker: worker.ended("BG_E_MADE_UP"),
    "an error that is none": lambda worker: worker.ended("S_OK"),
    "a file that does not exist, in an error": lambda worker: worker.ended("BG_E_HTTP_ERROR_404", index=7),
    "a negative file, in an error": lambda worker: worker.ended("BG_E_HTTP_ERROR_404", index=-1),
    "a file that does not exist": lambda worker: worker.started(7),
    "a negative file": lambda worker: worker.started(-1),
    "negative progress": lambda worker: worker.durable(0, -5),
    "progress of a negative file": lambda worker: FileReceived(transfer=worker.transfer, index=-1, received_bytes=5),
    "negative bytes": lambda worker: FileReceived(transfer=worker.transfer, index=0, received_bytes=-5),
    "a negative size": lambda worker: worker.started(0, size=-100),
    "a negative offset": lambda worker: worker.started(0, offset=-1),
    "a finished file of negative size": lambda worker: FilesDone(
        transfer=worker.transfer, files=(DoneFile(index=0, size=-1),)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_says_what_cannot_be_is_killed_and_nothing_of_it_is_kept(
    lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A taken-over worker must not harm the store, the service, or another account."""
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        async with running() as service:
            job_id = await service.create()
            liar = service.worker
            before = service.job(job_id)
            await service.say(LIES[lie](liar))
            assert not liar.is_alive
            await asyncio.sleep(2)
            after = service.job(job_id)
            assert (after.state, after.error, after.files) == (before.state, before.error, before.files)
            assert service.worker is not liar
            assert service.worker.count(StartTransfer) == 1
        async with running(service.disk) as restarted:
            assert restarted.state(job_id) is JobState.CONNECTING

    virtual.run(main())


def test_a_worker_that_says_it_is_done_and_is_not_is_a_lost_worker() -> None:
    """Otherwise run would follow run without a pause."""

    async def script(service: Service) -> None:
        job_id = await service.create()

        def lie(worker: FakeWorker) -> None:
            worker.operate = lambda message: (  # type: ignore[method-assign]
                worker.send(worker.ended()) if isinstance(message, TransferFiles) and message.last else None
            )

        lie(service.worker)

        def liar(worker: FakeWorker) -> None:
            lie(worker)
            worker.be_ready()

        service.monitor.on_worker = liar
        await service.say(service.worker.ended())
        await asyncio.sleep(100)
        job = service.job(job_id)
        assert job.state is JobState.TRANSIENT_ERROR
        assert job.run < 20

    play(script)


def test_a_worker_does_not_say_which_process_it_is() -> None:
    """The pid comes from the monitor: a taken-over worker could name another account's."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(WorkerReady(pid=4711, uid=0, gid=0, groups=()))
        await service.manager.suspend(ALICE, job_id)
        await asyncio.sleep(STOP_PATIENCE_S + 1)
        kills = [message.pid for message in service.monitor.heard if isinstance(message, KillWorker)]
        assert kills == [service.monitor.workers[0].pid]

    play(script)


def test_an_operation_that_fails_with_an_unknown_error_is_a_failure_of_the_service() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        worker = service.worker
        await service.say(worker.started(0), worker.done(0), worker.ended())
        worker.failures = [FileResult(index=0, error="BG_E_MADE_UP", message="boo")]
        with pytest.raises(BitsError, match="boo") as caught:
            await service.manager.complete(ALICE, job_id)
        assert caught.value.name == "E_FAIL"
        assert service.state(job_id) is JobState.TRANSFERRED

    play(script)


def test_a_worker_that_dies_right_after_it_was_ready_is_not_counted_as_alive() -> None:
    async def script(service: Service) -> None:
        def short_lived(worker: FakeWorker) -> None:
            worker.be_ready()
            worker.die()

        service.monitor.on_worker = short_lived
        with pytest.raises(BitsError):
            await service.create()
        assert len(service.runtime.pool) == 0

    play(script)


def test_a_file_that_fits_into_no_frame_fails_its_job_and_nothing_else() -> None:
    """A remote server can make an entity tag as long as it likes; an account without quotas any number of ranges."""

    async def script(service: Service) -> None:
        job_id = await service.create(files=2)
        worker = service.worker
        huge = dataclasses.replace(worker.started(1), etag='"' + "é" * 20_000 + '"')
        await service.say(huge, worker.durable(1, 10))
        await service.manager.suspend(ALICE, job_id)
        await virtual.rest()
        await service.say(worker.ended())
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        assert service.gave_up == []
        assert service.state(job_id) is JobState.CONNECTING, "the entity tag is not worth a job"

    play(script)


def test_names_beyond_the_basic_plane_fit_into_frames_too() -> None:
    """Such a character travels as two escapes: one user's directory must not end the service for all."""

    async def script(service: Service) -> None:
        directory = "/" + "/".join(["\U0001f600" * 60] * 15)
        files = [NewFile(remote_name=f"http://o.example/{n}", local_name=f"{directory}/{n}") for n in range(30)]
        job = NewJob(name="j", type=JobType.DOWNLOAD, settings={}, files=files, resume=True)
        await service.manager.create_jobs(ALICE, [job])
        await virtual.rest()
        assert service.gave_up == []
        assert sorted(file.index for file in service.worker.files) == list(range(30))

    play(script)


# --- trouble that is shown ------------------------------------------------------------------------------


def test_what_is_received_and_what_is_wrong_can_be_seen() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        worker = service.worker
        number = worker.transfer
        await service.say(worker.started(0), FileReceived(transfer=number, index=0, received_bytes=30))
        job = service.job(job_id)
        assert job.bytes_transferred == 0
        assert service.manager.received_bytes(job) == 30
        assert service.manager.file_received_bytes(job, 0) == 30
        await service.say(TransferBroken(transfer=number, index=0, message="no byte for 60 s"))
        assert "no byte for 60 s" in service.manager.why(ALICE, job_id).sentence
        await service.say(FileReceived(transfer=number, index=0, received_bytes=31))
        assert service.manager.why(ALICE, job_id).gate == "none"

    play(script)


def test_frames_of_a_transfer_that_is_over_are_not_heard() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        worker = service.worker
        number = worker.transfer
        await service.say(worker.started(0), worker.ended("BG_E_HTTP_ERROR_500", transient=True))
        await service.say(FileDurable(transfer=number, index=0, durable_bytes=50))
        assert service.job(job_id).bytes_transferred == 0
        assert worker.is_alive

    play(script)


# --- the end of a job ---------------------------------------------------------------------------------


async def transferred(service: Service, files: int = 1) -> str:
    job_id = await service.create(files=files)
    worker = service.worker
    await service.say(*(worker.started(index) for index in range(files)), worker.done(*range(files)), worker.ended())
    assert service.state(job_id) is JobState.TRANSFERRED
    return job_id


def test_files_are_touched_only_when_the_run_has_ended() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=2)
        worker = service.worker
        await service.say(worker.started(0))
        completing = asyncio.ensure_future(service.manager.complete(ALICE, job_id))
        await virtual.rest()
        assert worker.count(StopTransfer) == 1
        assert worker.count(RenameFiles) == 0
        await service.say(worker.done(0))
        assert worker.count(RenameFiles) == 0
        await service.say(worker.ended())
        outcome = await completing
        assert outcome.result == "BG_S_PARTIAL_COMPLETE"
        assert [file.index for file in worker.last(RenameFiles).files] == [0]
        assert len(worker.last(DeleteFiles).paths) == 1

    play(script)


def test_cancel_during_a_run_deletes_what_it_left() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(files=2)
        cancelling = asyncio.ensure_future(service.manager.cancel(ALICE, job_id))
        await virtual.rest()
        await service.say(service.worker.ended())
        outcome = await cancelling
        assert (outcome.result, outcome.job.state) == ("S_OK", JobState.CANCELLED)
        assert len(service.worker.last(DeleteFiles).paths) == 2

    play(script)


def test_a_job_that_never_ran_is_ended_without_a_worker() -> None:
    async def script(service: Service) -> None:
        for verb in (service.manager.cancel, service.manager.complete):
            job_id = await service.create(resume=False)
            service.worker.die()
            await virtual.rest()
            spawned = len(service.monitor.workers)
            assert (await verb(ALICE, job_id)).job.state.is_final
            assert len(service.monitor.workers) == spawned

    play(script)


def test_a_worker_that_dies_during_the_rename_is_replaced() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        dying = service.worker
        dying.operate = lambda message: dying.die() if isinstance(message, RenameFiles) else None  # type: ignore[method-assign]
        outcome = await service.manager.complete(ALICE, job_id)
        assert outcome.result == "S_OK"
        assert service.worker is not dying

    play(script)


def test_workers_that_always_die_during_the_rename_leave_the_job_as_it_was() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        service.monitor.on_worker = lambda worker: worker.die()
        service.worker.die()
        await virtual.rest()
        with pytest.raises(BitsError) as caught:
            await service.manager.complete(ALICE, job_id)
        assert caught.value.name == "E_FAIL"
        assert service.state(job_id) is JobState.TRANSFERRED
        service.monitor.on_worker = FakeWorker.be_ready
        assert (await service.manager.complete(ALICE, job_id)).result == "S_OK"

    play(script)


def test_files_that_cannot_be_deleted_are_told() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        worker = service.worker
        await service.say(worker.ended("BG_E_HTTP_ERROR_404"))
        worker.failures = [FileResult(index=0, error="E_ACCESSDENIED", message="no")]
        outcome = await service.manager.cancel(ALICE, job_id)
        assert outcome.result == "BG_S_UNABLE_TO_DELETE_FILES"

    play(script)


def test_two_calls_of_complete_get_the_same_answer() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        worker = service.worker
        worker.does_operations = False
        calls = [asyncio.ensure_future(service.manager.complete(ALICE, job_id)) for _ in range(2)]
        await virtual.rest()
        failed = FileResult(index=0, error="E_ACCESSDENIED", message="the directory cannot be written to")
        await service.say(OperationResults(operation=worker.last(RenameFiles).operation, results=(failed,), last=True))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(result, "name", None) for result in results] == ["E_ACCESSDENIED"] * 2
        assert worker.count(RenameFiles) == 1

    play(script)


@pytest.mark.parametrize("rests", range(12))
def test_complete_at_any_moment_of_a_complete_that_fails_gets_an_answer_of_its_own(rests: int) -> None:
    """Whichever step the first one has come to: the second call ends, and tells how the files stand."""

    async def script(service: Service) -> None:
        job_id = await transferred(service)
        worker = service.worker
        worker.does_operations = False
        first = asyncio.ensure_future(service.manager.complete(ALICE, job_id))
        await virtual.rest()
        failed = FileResult(index=0, error="E_ACCESSDENIED", message="no")
        worker.send(OperationResults(operation=worker.last(RenameFiles).operation, results=(failed,), last=True))
        worker.does_operations = True
        for _ in range(rests):
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            second = await asyncio.gather(service.manager.complete(ALICE, job_id), return_exceptions=True)
        with pytest.raises(BitsError):
            await first
        job = service.job(job_id)
        assert job.closing is None
        if isinstance(second[0], BitsError):
            assert second[0].name == "E_ACCESSDENIED"
            assert job.state is JobState.TRANSFERRED
        else:
            assert job.state is JobState.ACKNOWLEDGED, "a success means that the files are in place"

    play(script)


def test_a_caller_who_hangs_up_does_not_stop_what_was_begun() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        worker = service.worker
        worker.does_operations = False
        call = asyncio.ensure_future(service.manager.complete(ALICE, job_id))
        await virtual.rest()
        call.cancel()
        await virtual.rest()
        await service.say(OperationResults(operation=worker.last(RenameFiles).operation, results=(), last=True))
        assert service.state(job_id) is JobState.ACKNOWLEDGED

    play(script)


@pytest.mark.parametrize("verb", ["complete", "cancel"])
def test_a_crash_while_files_are_put_in_place_or_deleted_is_made_good_at_the_next_start(verb: str) -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await transferred(service)
            service.worker.does_operations = False
            call = asyncio.ensure_future(getattr(service.manager, verb)(ALICE, job_id))
            await virtual.rest()
            assert service.job(job_id).closing is not None
        call.cancel()
        async with running(service.disk) as restarted:
            job = restarted.job(job_id)
            assert job.closing is None
            assert job.state.is_final
            assert job.result == "S_OK"
            assert restarted.worker.count(RenameFiles if verb == "complete" else DeleteFiles) == 1
            assert restarted.disk.effects == {}

    virtual.run(main())


def test_directories_are_looked_at_by_the_owners_worker() -> None:
    async def script(service: Service) -> None:
        def idle(worker: FakeWorker) -> None:
            worker.does_operations = False
            worker.be_ready()

        service.monitor.on_worker = idle
        creating = asyncio.ensure_future(service.create())
        await virtual.rest()
        question = service.worker.last(CheckDirectories)
        assert question.paths == ("/home/alice",)
        refusal = FileResult(index=0, error="E_ACCESSDENIED", message="alice may not create files there")
        await service.say(OperationResults(operation=question.operation, results=(refusal,), last=True))
        with pytest.raises(BitsError, match="may not create files"):
            await creating
        assert service.runtime.ledger.jobs == {}

    play(script)


def test_identities_are_asked_for_exactly() -> None:
    async def script(service: Service) -> None:
        await service.create()
        spawn = service.monitor.heard[0]
        assert isinstance(spawn, SpawnWorker)
        assert (spawn.uid, spawn.gid, spawn.groups) == (1000, 1000, (1000,))

    play(script)


def test_a_job_started_in_virtual_time_has_a_time_that_can_be_shown() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(service.worker.ended("BG_E_HTTP_ERROR_503", transient=True, retry_after_s=2**62))
        retry_at = service.job(job_id).retry_at
        assert retry_at is not None
        assert retry_at < EPOCH + 365 * 86_400

    play(script)
