"""Farewells: the server of a cancelled upload is told, whatever comes between (J6, R6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from openbits.core.model import DAY_S, JobState
from openbits.frames.monitor import SpawnRefused
from openbits.frames.worker import StopTransfer, UploadFile
from openbits.store.memory import MemoryDisk
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

Script = Callable[[Service], Awaitable[None]]


def play(script: Script, disk: MemoryDisk | None = None) -> None:
    async def main() -> None:
        async with running(disk) as service:
            await script(service)

    virtual.run(main())


async def cancelled(service: Service, **settings: Any) -> str:
    """An upload of alice's that has a session, and is cancelled: the last worker is told to end the session."""
    job_id = await service.upload(settings={"minimum_retry_delay": 60, **settings})
    worker = service.worker
    await service.say(worker.started(), worker.moved(40, "session"))
    cancelling = asyncio.ensure_future(service.manager.cancel(ALICE, job_id))
    await virtual.rest()
    assert worker.last(StopTransfer).transfer == worker.transfer
    await service.say(worker.ended())
    assert (await cancelling).result == "S_OK", "nobody waits for the server"
    return job_id


def attempts(service: Service) -> list[UploadFile]:
    heard = [message for worker in service.monitor.workers for message in worker.heard]
    return [message for message in heard if isinstance(message, UploadFile) and message.only_cancels]


async def pass_time(seconds: float) -> None:
    await asyncio.sleep(seconds)
    await virtual.rest()


def test_j6_the_server_is_told_after_the_last_run_has_ended() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        [order] = attempts(service)
        assert (order.memory, order.file.durable_bytes) == ("session", 40)
        assert service.job(job_id).cancel_until is not None
        await service.say(service.worker.done(0), service.worker.ended())
        job = service.job(job_id)
        assert (job.cancel_until, job.upload_memory) == (None, "")
        await pass_time(3600)
        assert len(attempts(service)) == 1

    play(script)


def test_j6_the_memory_that_the_stopped_run_reported_last_is_what_is_told() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload()
        worker = service.worker
        cancelling = asyncio.ensure_future(service.manager.cancel(ALICE, job_id))
        await virtual.rest()
        assert attempts(service) == []
        await service.say(worker.moved(0, "begun at the last moment"), worker.ended())
        await cancelling
        assert [order.memory for order in attempts(service)] == ["begun at the last moment"]

    play(script)


def test_j6_without_a_session_there_is_nobody_to_tell() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload()
        cancelling = asyncio.ensure_future(service.manager.cancel(ALICE, job_id))
        await virtual.rest()
        await service.say(service.worker.ended())
        await cancelling
        assert attempts(service) == []
        assert service.job(job_id).cancel_until is None

    play(script)


def test_r6_a_server_that_cannot_be_reached_is_told_later() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        for count in range(1, 4):
            assert len(attempts(service)) == count
            failure: dict[str, Any] = {"context": 5, "message": "it is down", "transient": True}
            await service.say(service.worker.ended("BG_E_CONNECTION_CLOSED", **failure))
            await pass_time(59)
            assert len(attempts(service)) == count, "not before its time"
            await pass_time(2)
        await service.say(service.worker.done(0), service.worker.ended())
        assert service.job(job_id).cancel_until is None

    play(script)


def test_r6_a_server_that_refuses_is_not_asked_again() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        await service.say(service.worker.ended("BG_E_HTTP_ERROR_403", context=5, message="no", transient=False))
        assert service.job(job_id).cancel_until is None
        await pass_time(3600)
        assert len(attempts(service)) == 1

    play(script)


def test_j6_it_ends_after_a_day_or_the_no_progress_timeout() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service, no_progress_timeout=150)
        service.worker.die()
        for _ in range(3):
            await pass_time(60)
            service.worker.die()
        assert service.job(job_id).cancel_until is None
        count = len(attempts(service))
        assert count >= 2
        await pass_time(DAY_S / 2)
        assert len(attempts(service)) == count

    play(script)


def test_a_worker_that_dies_has_told_nobody() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        service.worker.die()
        await pass_time(61)
        assert len(attempts(service)) == 2
        assert service.job(job_id).cancel_until is not None

    play(script)


def test_a_worker_that_says_nothing_of_success_is_not_believed() -> None:
    """TransferEnded without a word about the file means that it was stopped."""

    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        await service.say(service.worker.ended())
        assert service.job(job_id).cancel_until is not None
        await pass_time(61)
        assert len(attempts(service)) == 2

    play(script)


def test_i2_nothing_is_told_while_the_owner_is_logged_off() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        worker = service.worker
        service.logon.change()
        await virtual.rest()
        assert worker.last(StopTransfer).transfer == worker.transfer
        await service.say(worker.ended())
        await pass_time(600)
        assert len(attempts(service)) == 1
        service.logon.change(ALICE.identity.uid)
        await virtual.rest()
        assert len(attempts(service)) == 2, "at once, not at the next attempt's time"
        await service.say(service.worker.done(0), service.worker.ended())
        assert service.job(job_id).cancel_until is None

    play(script)


def test_s5_the_network_that_comes_back_is_reason_enough() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        service.network.change(False)
        failure: dict[str, Any] = {"context": 5, "message": "no route", "transient": True}
        await service.say(service.worker.ended("BG_E_CONNECTION_CLOSED", **failure))
        await pass_time(61)
        assert len(attempts(service)) == 1
        service.network.change(True)
        await virtual.rest()
        assert len(attempts(service)) == 2
        await service.say(service.worker.done(0), service.worker.ended())
        assert service.job(job_id).cancel_until is None

    play(script)


def test_r6_a_restart_goes_on_telling() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await cancelled(service)
            disk = service.disk
            assert service.state(job_id) is JobState.CANCELLED
        async with running(disk) as again:
            [order] = attempts(again)
            assert order.memory == "session"
            await again.say(again.worker.done(0), again.worker.ended())
            assert again.job(job_id).cancel_until is None
        async with running(disk) as third:
            assert attempts(third) == []

    virtual.run(main())


def test_a_worker_that_hangs_is_given_up_and_asked_again() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        await pass_time(15 * 60 + 1)
        assert isinstance(service.worker.heard[-1], StopTransfer)
        await pass_time(61)
        assert len(attempts(service)) == 2
        assert service.job(job_id).cancel_until is not None

    play(script)


def test_a_job_that_is_gone_from_the_owners_view_is_known_by_its_history() -> None:
    """J6: it is CANCELLED at once; `bits why` says that the server is still to be told."""

    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        listed, _ = service.manager.list_jobs(ALICE, all_users=False, name=None, history=False, after=None, limit=10)
        assert listed == []
        assert "has not been told yet" in service.manager.why(ALICE, job_id).sentence
        assert "has not been told yet" in service.manager.why(ROOT, job_id).sentence
        await service.say(service.worker.done(0), service.worker.ended())
        assert "told" not in service.manager.why(ALICE, job_id).sentence

    play(script)


def test_a_worker_that_cannot_start_is_no_reason_to_give_up() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        service.monitor.on_worker = FakeWorker.die
        service.worker.die()
        await pass_time(61)
        service.monitor.on_worker = FakeWorker.be_ready
        await pass_time(61)
        assert len(attempts(service)) == 2
        assert service.job(job_id).cancel_until is not None

    play(script)


def test_an_account_that_is_gone_can_tell_nobody() -> None:
    async def script(service: Service) -> None:
        job_id = await cancelled(service)
        service.monitor.refusal = SpawnRefused(request=0, error="ERROR_NO_SUCH_USER", message="it is gone")
        service.worker.die()
        await pass_time(61)
        assert service.job(job_id).cancel_until is None

    play(script)
