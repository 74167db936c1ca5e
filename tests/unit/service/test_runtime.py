"""The service put together: timers, restarts, networks and quotas, with everything real but the processes."""

import asyncio
import dataclasses
from typing import Any

import pytest

from openbits.api.peer import Accounts
from openbits.core.model import AccountKind, ByteRange, Identity, Job, JobState, JobType, Priority
from openbits.core.quotas import MOST_RANGES, Quotas
from openbits.errors import BitsError
from openbits.frames.codec import MAX_FRAME_BYTES
from openbits.frames.worker import SERVICE_TO_WORKER, StartTransfer, StopTransfer, TransferFiles
from openbits.service.calls import NewFile, NewJob
from openbits.service.configuration import Accounts as AccountsSection
from openbits.service.configuration import Configuration, Retention, Scheduler, Timeouts
from openbits.service.records import EventRecord, ProgressReport
from openbits.store.memory import MemoryDisk, MemoryStore
from support import virtual
from support.jobs import a_file, a_job, fetched, job_in, with_priority
from support.service import ALICE, ROOT, Service, running


def on_disk(*jobs: Job) -> MemoryDisk:
    """A disk as a service that crashed has left it."""
    return MemoryDisk(jobs={job.id: job for job in jobs})


def numbered(number: int, job: Job) -> Job:
    return dataclasses.replace(job, id=f"00000000-0000-4000-8000-{number:012x}")


# --- timers (J19, J20, J53, P1) ------------------------------------------------------------------------


async def fail(service: Service) -> None:
    await service.say(service.worker.ended("BG_E_HTTP_ERROR_503", transient=True, message="busy"))


def test_a_retry_comes_at_its_time() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await service.create(minimum_retry_delay=600)
            await fail(service)
            assert service.state(job_id) is JobState.TRANSIENT_ERROR
            await asyncio.sleep(599)
            assert service.state(job_id) is JobState.TRANSIENT_ERROR
            await asyncio.sleep(2)
            assert service.state(job_id) is JobState.CONNECTING

    virtual.run(main())


def test_a_retry_time_that_has_moved_is_not_lost() -> None:
    """Resumed by hand before its time, and failed again: the second retry comes later than the first would have."""

    async def main() -> None:
        async with running() as service:
            job_id = await service.create(minimum_retry_delay=600)
            await fail(service)
            await asyncio.sleep(100)
            await service.manager.resume(ALICE, job_id)
            await virtual.rest()
            await fail(service)
            await asyncio.sleep(550)
            assert service.state(job_id) is JobState.TRANSIENT_ERROR
            await asyncio.sleep(100)
            assert service.state(job_id) is JobState.CONNECTING

    virtual.run(main())


def test_a_job_that_is_changed_now_and_then_still_ends_one_day() -> None:
    """P1: the inactivity time-out counts from the last change."""

    async def main() -> None:
        configuration = Configuration(timeouts=Timeouts(job_inactivity_s=1000))
        async with running(configuration=configuration) as service:
            job_id = await service.create(resume=False)
            await asyncio.sleep(600)
            await service.manager.change_settings(ALICE, job_id, {"description": "still here"})
            await asyncio.sleep(900)
            assert service.state(job_id) is JobState.SUSPENDED
            await asyncio.sleep(200)
            assert service.state(job_id) is JobState.CANCELLED

    virtual.run(main())


def test_an_ended_job_is_readable_for_its_retention_time_and_then_forgotten() -> None:
    async def main() -> None:
        async with running(configuration=Configuration(retention=Retention(final_jobs_s=3600))) as service:
            job_id = await service.create(resume=False)
            await service.manager.cancel(ALICE, job_id)
            await asyncio.sleep(3500)
            assert service.manager.get_job(ALICE, job_id).state is JobState.CANCELLED
            assert service.manager.list_jobs(
                ALICE, all_users=False, name=None, history=False, after=None, limit=10
            ) == ([], None)
            await asyncio.sleep(200)
            with pytest.raises(BitsError) as caught:
                service.manager.get_job(ALICE, job_id)
            assert caught.value.name == "BG_E_NOT_FOUND"
            assert service.disk.jobs == {}

    virtual.run(main())


def test_the_maximum_download_time_ends_a_run() -> None:
    """J53."""

    async def main() -> None:
        async with running() as service:
            job_id = await service.create(maximum_download_time=100)
            await service.say(service.worker.started(0))
            await asyncio.sleep(101)
            error = service.job(job_id).error
            assert error is not None
            assert error.name == "BG_E_MAXDOWNLOAD_TIMEOUT"
            assert service.worker.count(StopTransfer) == 1

    virtual.run(main())


def test_new_limits_count_for_jobs_that_are_there_already() -> None:
    async def main() -> None:
        async with running() as service:
            job_id = await service.create(resume=False)
            service.runtime.reload(Configuration(timeouts=Timeouts(job_inactivity_s=3600)))
            await asyncio.sleep(3700)
            assert service.state(job_id) is JobState.CANCELLED

    virtual.run(main())


def test_accounts_are_sorted_by_the_configuration_that_is_in_force() -> None:
    async def main() -> None:
        async with running() as service:
            accounts = Accounts(lambda: service.runtime.account_rules, service.runtime.conditions.administrators_gid)
            daemon = Identity(uid=2, gid=2)
            assert accounts.caller(daemon, 1).kind is AccountKind.LOCAL_SERVICE
            service.runtime.reload(Configuration(accounts=AccountsSection(network_service=("2",))))
            assert accounts.caller(daemon, 1).kind is AccountKind.NETWORK_SERVICE

    virtual.run(main())


def test_an_idle_service_wakes_up_for_nothing() -> None:
    async def main() -> None:
        async with running() as service:
            for _ in range(3):
                await service.create(resume=False)
            await asyncio.sleep(3600)
            loop: Any = asyncio.get_running_loop()
            due = [timer.when() for timer in loop._scheduled if not timer.cancelled()]
            assert len(due) == 1, "the one deadline that comes first"
            assert due[0] - loop.time() > 86_400

    virtual.run(main())


# --- restarts (M8) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
def test_a_job_in_any_state_survives_a_crash(state: JobState) -> None:
    job = job_in(state, a_file(0, bytes_transferred=40) if state < JobState.TRANSFERRED else fetched(0))

    async def main() -> None:
        async with running(on_disk(job)) as service:
            found = service.job(job.id)
            assert found.files == job.files
            runs = state in (JobState.QUEUED, JobState.CONNECTING, JobState.TRANSFERRING)
            assert found.state is (JobState.CONNECTING if runs else state)
            assert len(service.monitor.workers) == (1 if runs else 0)
            if runs:
                assert service.worker.files[0].durable_bytes == 40

    virtual.run(main())


def test_after_a_restart_the_most_urgent_job_runs_first_not_the_one_that_ran() -> None:
    """Q3: nothing starts before it is known what there is."""
    low = with_priority(numbered(1, job_in(JobState.TRANSFERRING)), Priority.LOW)
    high = with_priority(numbered(2, job_in(JobState.QUEUED)), Priority.HIGH)

    async def main() -> None:
        async with running(on_disk(low, high)) as service:
            assert service.state(high.id) is JobState.CONNECTING
            assert service.state(low.id) is JobState.QUEUED
            assert service.worker.count(StartTransfer) == 1
            assert service.worker.count(StopTransfer) == 0

    virtual.run(main())


def test_a_retry_that_was_due_while_the_service_was_down_comes_at_once() -> None:
    job = dataclasses.replace(job_in(JobState.TRANSIENT_ERROR), retry_at=virtual.EPOCH - 50)

    async def main() -> None:
        async with running(on_disk(job)) as service:
            await asyncio.sleep(0.1)
            assert service.state(job.id) is JobState.CONNECTING

    virtual.run(main())


# --- the network (S5, S6) -------------------------------------------------------------------------------


def test_jobs_wait_for_the_network_and_go_on_with_it() -> None:
    async def main() -> None:
        async with running() as service:
            runs, waits = await service.create(), await service.create()
            held = await service.create(resume=False)
            await service.say(service.worker.started(0))
            service.network.change(False)
            await virtual.rest()
            assert service.state(runs) is service.state(waits) is JobState.TRANSIENT_ERROR
            assert service.state(held) is JobState.SUSPENDED
            assert service.worker.count(StopTransfer) == 1
            await service.say(service.worker.ended())
            await asyncio.sleep(3600)
            assert service.state(runs) is JobState.TRANSIENT_ERROR
            service.network.change(True)
            await virtual.rest()
            assert {service.state(runs), service.state(waits)} == {JobState.CONNECTING, JobState.QUEUED}

    virtual.run(main())


def test_a_start_without_a_network_starts_nothing() -> None:
    job = job_in(JobState.QUEUED)

    async def main() -> None:
        service = Service(MemoryStore(on_disk(job)), "/nowhere", Configuration())
        service.network.has_network = False
        await service.runtime.start()
        await virtual.rest()
        assert service.state(job.id) is JobState.TRANSIENT_ERROR
        assert service.monitor.workers == []
        await service.crash()

    virtual.run(main())


# --- slots -----------------------------------------------------------------------------------------------


def test_one_background_job_at_a_time_and_every_foreground_job() -> None:
    """Q1."""

    async def main() -> None:
        async with running() as service:
            jobs = [await service.create(priority=name) for name in ("low", "normal", "foreground", "foreground")]
            assert [service.state(job_id) for job_id in jobs] == [
                JobState.QUEUED,
                JobState.CONNECTING,
                JobState.CONNECTING,
                JobState.CONNECTING,
            ]

    virtual.run(main())


def test_a_background_job_makes_room_after_its_slice() -> None:
    """Q4."""

    async def main() -> None:
        async with running(configuration=Configuration(scheduler=Scheduler(time_slice_s=30))) as service:
            first, second = await service.create(), await service.create()
            worker = service.worker
            await asyncio.sleep(31)
            await virtual.rest()
            assert (service.state(first), service.state(second)) == (JobState.QUEUED, JobState.CONNECTING)
            assert worker.count(StopTransfer) == 1

    virtual.run(main())


# --- quotas (P4–P7) --------------------------------------------------------------------------------------


def small_quotas() -> Configuration:
    return Configuration(quotas=Quotas(max_jobs_per_user=3, max_jobs_per_machine=5))


def test_calls_at_the_same_time_share_the_quota() -> None:
    """P5: they are written down in one transaction, and counted in it."""

    async def main() -> None:
        async with running(configuration=small_quotas()) as service:
            calls = [service.create(resume=False) for _ in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused = [result for result in results if isinstance(result, BitsError)]
            assert len(refused) == 7
            assert {error.name for error in refused} == {"BG_E_TOO_MANY_JOBS_PER_USER"}
            assert len(service.runtime.ledger.jobs) == 3

    virtual.run(main())


def test_ended_jobs_do_not_count_and_a_restart_counts_the_same() -> None:
    async def main() -> None:
        async with running(configuration=small_quotas()) as service:
            jobs = [await service.create(resume=False) for _ in range(3)]
            await service.manager.cancel(ALICE, jobs[0])
            jobs.append(await service.create(resume=False))
            with pytest.raises(BitsError, match="has 3 jobs"):
                await service.create(resume=False)
        async with running(service.disk, configuration=small_quotas()) as restarted:
            with pytest.raises(BitsError, match="has 3 jobs"):
                await restarted.create(resume=False)
            await restarted.manager.complete(ALICE, jobs[1])
            await restarted.create(resume=False)

    virtual.run(main())


def test_the_machine_has_a_quota_and_exempt_accounts_neither_have_nor_use_it() -> None:
    """P4, A9."""
    others = [
        dataclasses.replace(
            ALICE, name=f"user{uid}", identity=dataclasses.replace(ALICE.identity, uid=uid, gid=uid, groups=())
        )
        for uid in (1001, 1002)
    ]

    async def main() -> None:
        async with running(configuration=small_quotas()) as service:
            for _ in range(10):
                await service.create(resume=False, caller=ROOT)
            for caller, count in zip(others, (3, 2), strict=True):
                for _ in range(count):
                    await service.create(resume=False, caller=caller)
            with pytest.raises(BitsError) as caught:
                await service.create(resume=False)
            assert caught.value.name == "BG_E_TOO_MANY_JOBS_PER_MACHINE"

    virtual.run(main())


def test_what_a_new_job_costs_does_not_depend_on_how_many_there_are() -> None:
    async def main() -> None:
        ledgers = []
        for count in (10, 3000):
            jobs = [numbered(number, a_job(a_file())) for number in range(count)]
            configuration = Configuration(quotas=Quotas(max_jobs_per_user=10_000, max_jobs_per_machine=10_000))
            async with running(on_disk(*jobs), configuration=configuration) as service:
                walks = 0

                class Walked(dict[str, Job]):
                    def values(self) -> Any:
                        nonlocal walks
                        walks += 1
                        return super().values()

                service.runtime.ledger.jobs = Walked(service.runtime.ledger.jobs)
                await service.create(resume=False)
                ledgers.append(walks)
        assert ledgers == [0, 0]

    virtual.run(main())


def test_the_largest_file_that_can_be_added_fits_into_a_frame() -> None:
    """P7: the limit holds for accounts without quotas, too."""

    async def main() -> None:
        async with running() as service:
            worst = "\udcff" * 4000
            name = "/" + "/".join(worst[start : start + 200] for start in range(0, 3900, 200))
            ranges = tuple(ByteRange(2**62 + 2**40 * number, 2**39) for number in range(MOST_RANGES))
            new = NewFile(remote_name="http://origin.example/?" + "x" * 2100, local_name=name, ranges=ranges)
            job = NewJob(name="j", type=JobType.DOWNLOAD, settings={}, files=[new], resume=True)
            await service.manager.create_jobs(ROOT, [job])
            await virtual.rest()
            assert len(SERVICE_TO_WORKER.encode(service.worker.last(TransferFiles))) <= MAX_FRAME_BYTES
            more = dataclasses.replace(new, ranges=(*ranges, ByteRange(0, 1)), local_name="/x")
            with pytest.raises(BitsError) as caught:
                await service.manager.create_jobs(ROOT, [dataclasses.replace(job, files=[more])])
            assert caught.value.name == "BG_E_TOO_MANY_RANGES_IN_FILE"

    virtual.run(main())


# --- listeners ---------------------------------------------------------------------------------------------


def test_listeners_hear_events_in_order_and_progress_a_few_times_a_second() -> None:
    async def main() -> None:
        async with running() as service:
            feed = service.manager.watch(ALICE, job_id=None, all_users=False)
            job_id = await service.create()
            await service.say(service.worker.started(0))
            for number in range(100):
                await service.say(service.worker.durable(0, number + 1))
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            service.runtime.feed.close()
            records = [record async for record in feed]
            events = [record for record in records if isinstance(record, EventRecord)]
            progress = [record for record in records if isinstance(record, ProgressReport)]
            assert [event.id for event in events] == list(range(1, len(events) + 1))
            assert [event.kind for event in events] == ["created", "queued", "transferring"]
            assert 3 <= len(progress) <= 6
            assert progress[-1].bytes_transferred == 100
            assert {record.job_id for record in records} == {job_id}

    virtual.run(main())


def test_others_hear_nothing_of_it() -> None:
    async def main() -> None:
        async with running() as service:
            other = dataclasses.replace(ALICE, identity=dataclasses.replace(ALICE.identity, uid=1001), name="bob")
            job_id = await service.create()
            with pytest.raises(BitsError):
                service.manager.watch(other, job_id=job_id, all_users=False)
            with pytest.raises(BitsError):
                service.manager.watch(other, job_id=None, all_users=True)
            feed = service.manager.watch(other, job_id=None, all_users=False)
            await service.manager.suspend(ALICE, job_id)
            service.runtime.feed.close()
            assert [record async for record in feed] == []

    virtual.run(main())
