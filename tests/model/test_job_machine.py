"""The whole service against a model: calls, workers, conditions, timers, and a crash at any effect (M8).

Hypothesis plays with a machine on which everything between the calls of BITS and the workers is the
real program.  Crashes come a chosen number of steps after a call, or inside a transaction.  Whatever
happened: no job is lost, nothing that the store counts is missing on the disk, what is finished or
final stays so, and in the end every job that should comes to its end with every byte of one version.
"""

import asyncio
import dataclasses
import shutil
import tempfile
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from openbits.api.render import error_of
from openbits.core.model import Closing, File, Job, JobState, JobType, Priority
from openbits.errors import BitsError
from openbits.service.calls import NewFile, NewJob
from openbits.service.configuration import Configuration, Scheduler, Timeouts
from openbits.store.errors import StoreFull
from openbits.store.interface import JobStore
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import Batch, EventChoice, Loaded, StoredEvent
from openbits.store.store import Store
from support import virtual
from support.service import ALICE, Service
from support.upload_world import session_of
from support.virtual import VirtualLoop
from support.world import DiskWorker, Machine

CONFIGURATION = Configuration(
    scheduler=Scheduler(time_slice_s=30, max_foreground_jobs=2),
    timeouts=Timeouts(job_inactivity_s=2**30, max_download_time_s=2**30),
)
ACCEPTABLE = frozenset(
    {"BG_E_INVALID_STATE", "BG_E_EMPTY", "E_PENDING", "ERROR_DISK_FULL", "ERROR_FILE_NOT_FOUND", "E_FAIL"}
)
OF_UPLOADS = frozenset({"BG_E_TOO_MANY_FILES", "E_NOTIMPL"})
"""What calls for download jobs are answered with by others."""
WAITING = (JobState.QUEUED, JobState.CONNECTING, JobState.TRANSFERRING, JobState.TRANSIENT_ERROR)


class PowerCut(BaseException):
    """The machine stops here."""


class CuttableStore:
    """A store in which the machine can stop before or after a transaction has reached the disk."""

    def __init__(self, inner: JobStore) -> None:
        self.inner = inner
        self.cut = ""
        self.full = 0

    def load(self) -> Loaded:
        """See JobStore."""
        return self.inner.load()

    def commit(self, batch: Batch) -> None:
        """See JobStore."""
        if self.full > 0:
            self.full -= 1
            raise StoreFull("no room")
        if self.cut == "before":
            raise PowerCut
        self.inner.commit(batch)
        if self.cut == "after":
            raise PowerCut

    def events_after(
        self, event_id: int, *, limit: int, job_id: str | None = None, owner_uid: int | None = None
    ) -> list[StoredEvent]:
        """See JobStore."""
        return self.inner.events_after(event_id, limit=limit, job_id=job_id, owner_uid=owner_uid)

    def chosen_events(
        self, choice: EventChoice, *, after: int = 0, limit: int, newest: bool = False
    ) -> list[StoredEvent]:
        """See JobStore."""
        return self.inner.chosen_events(choice, after=after, limit=limit, newest=newest)

    def scrub(self) -> None:
        """See JobStore."""
        self.inner.scrub()

    def close(self) -> None:
        """See JobStore."""
        self.inner.close()


class JobMachine(RuleBasedStateMachine):
    """See the module."""

    types: tuple[JobType, ...] = tuple(JobType)
    """Of the jobs that it plays with."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.machine = Machine()
        self.known: dict[str, Job] = {}
        """Every job that a caller was told of, as it last was."""
        self.store = CuttableStore(self.open_store())
        self.forgiven: set[tuple[str, int]] = set()
        """Files that were declared invalid: they may be unfinished again."""
        self.calls: set[asyncio.Task[Any]] = set()
        self.errors: list[BaseException] = []
        self.numbers = 0
        self.sessions: set[str] = set()
        """Every session that was written down."""
        self.is_logged_on = True
        self.start()

    # --- the stores, by subclass --------------------------------------------------------------------

    def open_store(self) -> JobStore:
        """Open what outlived the last service."""
        raise NotImplementedError

    def read_store(self) -> Loaded:
        """What is on the disk now."""
        return self.store.inner.load()

    # --- running --------------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the loop of this machine."""
        return self.loop.run_until_complete(work)

    def start(self) -> None:
        """Start the service."""

        async def begin() -> None:
            self.service = Service(self.store, "/nowhere", CONFIGURATION)
            self.service.monitor.make_worker = lambda sock, identity, pid: DiskWorker(
                sock, identity, pid, machine=self.machine
            )
            self.tell_logon()
            await self.service.runtime.start()
            await virtual.rest()

        self.do(begin())

    def tell_logon(self) -> None:
        """Let the service know whether alice is logged on."""
        self.service.logon.change(*((ALICE.identity.uid,) if self.is_logged_on else ()))

    def call(self, work: Coroutine[Any, Any, Any], steps: int | None = None) -> None:
        """Make a call and let everything happen, or only the first so many steps of it."""

        async def perform() -> None:
            try:
                await work
            except BitsError as error:
                if error.name not in ACCEPTABLE | OF_UPLOADS:
                    self.errors.append(error)
            except Exception as error:  # noqa: BLE001 - kept for the check
                self.errors.append(error)

        async def begin() -> None:
            task = asyncio.ensure_future(perform())
            self.calls.add(task)
            task.add_done_callback(self.calls.discard)
            if steps is None:
                await virtual.rest()
            for _ in range(steps or 0):
                await asyncio.sleep(0)

        self.do(begin())

    def workers(self) -> list[DiskWorker]:
        """The workers that live."""
        return [worker for worker in self.service.monitor.workers if isinstance(worker, DiskWorker) and worker.is_alive]

    def jobs(self) -> dict[str, Job]:
        """The jobs as they are written down."""
        return dict(self.service.runtime.ledger.jobs)

    def some_job(self, pick: int) -> str:
        """One of the jobs."""
        # In the order in which they were made: their ids are random.
        return list(self.jobs())[pick % len(self.jobs())]

    # --- calls --------------------------------------------------------------------------------------------

    @initialize()
    def first_job(self) -> None:
        """There is always a job to play with."""
        self.create(kind=0, files=2, resume=True, priority=Priority.NORMAL)

    @rule(kind=st.integers(0, 5), files=st.integers(0, 3), resume=st.booleans(), priority=st.sampled_from(Priority))
    def create(self, kind: int, files: int, resume: bool, priority: Priority) -> None:
        """CreateJob; an upload has one file, or none yet (M7)."""
        job_type = self.types[kind % len(self.types)]
        count = files if job_type is JobType.DOWNLOAD else min(files, 1)
        if len(self.jobs()) < 5:
            new = NewJob(
                name="j",
                type=job_type,
                settings={"priority": priority.name, "minimum_retry_delay": 60},
                files=self.new_files(count),
                resume=resume and files > 0,
            )
            self.call(self.remember(self.service.manager.create_jobs(ALICE, [new])))

    @rule(pick=st.integers(0), is_generated=st.booleans())
    def name_reply(self, pick: int, is_generated: bool) -> None:
        """SetReplyFileName (J33)."""
        self.numbers += 1
        name = "" if is_generated else f"/home/alice/reply-{self.numbers}"
        self.call(self.service.runtime.services.replies.set_file_name(ALICE, self.some_job(pick), name))

    def new_files(self, count: int) -> list[NewFile]:
        """Files that nobody else has."""
        self.numbers += count
        numbers = range(self.numbers - count, self.numbers)
        return [
            NewFile(remote_name=f"http://origin.example/{number}", local_name=f"/home/alice/{number}")
            for number in numbers
        ]

    async def remember(self, creating: Coroutine[Any, Any, list[Job]]) -> None:
        """A job that was told of must never be lost."""
        for job in await creating:
            self.known[job.id] = job

    @rule(pick=st.integers(0), verb=st.sampled_from(["resume", "suspend", "complete", "cancel"]))
    def verb(self, pick: int, verb: str) -> None:
        """Resume, Suspend, Complete or Cancel; not so often the last two."""
        self.call(getattr(self.service.manager, verb)(ALICE, self.some_job(pick)))

    @rule(pick=st.integers(0))
    def resume(self, pick: int) -> None:
        """Resume."""
        self.call(self.service.manager.resume(ALICE, self.some_job(pick)))

    @rule(pick=st.integers(0))
    def add_file(self, pick: int) -> None:
        """AddFile."""
        self.call(self.service.manager.add_files(ALICE, self.some_job(pick), self.new_files(1)))

    @rule(pick=st.integers(0), priority=st.sampled_from(Priority))
    def set_priority(self, pick: int, priority: Priority) -> None:
        """SetPriority."""
        self.call(self.service.manager.change_settings(ALICE, self.some_job(pick), {"priority": priority.name}))

    @rule(pick=st.integers(0), flags=st.sampled_from([0x0000, 0x0001, 0x0100]))
    def change_terms(self, pick: int, flags: int) -> None:
        """SetSecurityFlags: a run that is under way begins again (H7)."""
        self.call(self.service.manager.change_settings(ALICE, self.some_job(pick), {"security_flags": flags}))

    @rule(pick=st.integers(0))
    def rename_remote(self, pick: int) -> None:
        """SetRemoteName, of the first file."""
        job_id = self.some_job(pick)
        if self.jobs()[job_id].files:
            self.numbers += 1
            name = f"http://mirror.example/{self.numbers}"
            self.call(self.service.manager.set_remote_name(ALICE, job_id, 0, name))

    @rule(pick=st.integers(0))
    def invalidate(self, pick: int) -> None:
        """SetValidationState(FALSE), of the first file."""
        job_id = self.some_job(pick)
        if self.jobs()[job_id].files:
            self.forgiven.add((job_id, 0))
            self.call(self.service.manager.set_validation_state(ALICE, job_id, 0, valid=False))

    # --- workers and servers ---------------------------------------------------------------------------------

    @rule(amount=st.sampled_from([1, 30, 200]), times=st.integers(1, 6))
    def transfer(self, amount: int, times: int) -> None:
        """Bytes come in."""
        self.work(lambda worker: worker.step(amount), times)

    def work(self, act: Any, times: int = 1) -> None:
        """Let every worker do something."""

        async def doing() -> None:
            for _ in range(times):
                for worker in self.workers():
                    act(worker)
                await virtual.rest()

        self.do(doing())

    @rule()
    def checkpoint(self) -> None:
        """Bytes become durable."""
        self.work(DiskWorker.checkpoint)

    @rule(transient=st.booleans())
    def fail(self, transient: bool) -> None:
        """The server hangs up, or is rude."""
        name = "BG_E_CONNECTION_CLOSED" if transient else "BG_E_HTTP_ERROR_404"
        self.work(lambda worker: worker.fail(name, transient=transient))

    @rule()
    def worker_dies(self) -> None:
        """SIGKILL for a worker."""
        self.work(DiskWorker.die)

    @rule(is_slow=st.booleans())
    def pace(self, is_slow: bool) -> None:
        """Workers do nothing about orders for a while, or catch up."""

        def change(worker: DiskWorker) -> None:
            if is_slow:
                worker.is_slow = True
            else:
                worker.catch_up()

        self.work(change)

    @rule()
    def remote_files_change(self) -> None:
        """The server has new versions; old ones do not come back."""
        for name in list(self.machine.versions):
            self.machine.versions[name] += 1

    @rule()
    def sources_change(self) -> None:
        """What is uploaded has been edited (U46)."""
        self.machine.uploads.change_sources()

    @rule()
    def server_forgets(self) -> None:
        """The server has lost all sessions."""
        self.machine.uploads.forget()

    # --- conditions and time -----------------------------------------------------------------------------------

    @rule()
    def network(self) -> None:
        """The network goes or comes."""

        async def change() -> None:
            self.service.network.change(not self.service.network.has_network)
            await virtual.rest()

        self.do(change())

    @rule()
    def log_on_or_off(self) -> None:
        """Alice goes or comes (I2)."""

        async def change() -> None:
            self.is_logged_on = not self.is_logged_on
            self.tell_logon()
            await virtual.rest()

        self.do(change())

    @rule(seconds=st.sampled_from([1, 31, 61, 700]))
    def wait(self, seconds: int) -> None:
        """Time passes."""

        async def waiting() -> None:
            await asyncio.sleep(seconds)
            await virtual.rest()

        self.do(waiting())

    @rule(times=st.integers(1, 3))
    def store_full(self, times: int) -> None:
        """The store's disk is full for some transactions."""
        self.store.full = times

    @rule(limit=st.integers(1, 2))
    def reload(self, limit: int) -> None:
        """SIGHUP with other limits."""

        async def change() -> None:
            scheduler = dataclasses.replace(CONFIGURATION.scheduler, max_background_jobs=limit)
            self.service.runtime.reload(dataclasses.replace(CONFIGURATION, scheduler=scheduler))
            await virtual.rest()

        self.do(change())

    # --- crashes -------------------------------------------------------------------------------------------------

    @rule(
        pick=st.integers(0),
        verb=st.sampled_from(["resume", "suspend", "complete", "cancel", "step", "steps", "checkpoint"]),
        steps=st.integers(0, 15),
        cut=st.sampled_from(["", "", "before", "after"]),
        power=st.booleans(),
    )
    def crash(self, pick: int, verb: str, steps: int, cut: str, power: bool) -> None:
        """Something begins, and so many steps later, or in its first transaction, the machine stops."""
        self.store.cut = cut
        if verb in ("step", "steps", "checkpoint"):

            async def some_steps() -> None:
                for worker in self.workers():
                    if verb == "checkpoint":
                        worker.checkpoint()
                    else:
                        worker.step(200)
                for _ in range(steps):
                    await asyncio.sleep(0)
                    for worker in self.workers() if verb == "steps" else ():
                        worker.step(200)

            self.do(some_steps())
        else:
            self.call(getattr(self.service.manager, verb)(ALICE, self.some_job(pick)), steps)
        self.end_service()
        if power:
            self.machine.power_cut()
        self.check_disk()
        self.start()

    def end_service(self) -> None:
        """Every process is gone; what was under way is lost."""

        async def ending() -> None:
            for task in tuple(self.calls):
                task.cancel()
            await self.service.crash()
            await virtual.rest()

        self.do(ending())
        self.store.close()
        self.store = CuttableStore(self.open_store())

    # --- what must hold --------------------------------------------------------------------------------------------

    def check_disk(self) -> None:
        """What the store says of a file is there, after any crash."""
        for job in self.read_store().jobs:
            for index, file in job.made_here:
                if not job.state.is_final and job.closing is None:
                    self.check_file(file, f"{job.id} {index}")
            if job.is_upload and job.files:
                self.check_upload(job)

    def check_upload(self, job: Job) -> None:
        """No more counts than the server has acknowledged (U46)."""
        [file] = job.files
        session = self.machine.uploads.sessions.get(job.upload_memory)
        if session is not None and not file.transferred:
            assert len(session) >= file.bytes_transferred
        if file.transferred:
            assert len(self.machine.uploads.published[file.remote_name]) == file.bytes_total

    def check_file(self, file: File, where: str) -> None:
        """Durable data before durable progress."""
        name = file.local_name if file.completed else file.temporary_name
        found = self.machine.files.get(name)
        content = found.durable if found is not None else ""
        if file.transferred:
            assert len(content) == file.bytes_total, where
            assert len(set(content)) == 1, where
        elif file.validator.etag == f'"{self.machine.version(file.remote_name)}"':
            # A server that has a newer version makes the file start anew, however much of it is there.
            assert len(content) >= file.bytes_transferred, where
            assert len(set(content[: file.bytes_transferred])) <= 1, where

    @invariant()
    def nothing_went_wrong(self) -> None:
        """No call raised what it may not, and no part of the service died."""
        assert self.errors == []
        assert self.service.gave_up == []

    @invariant()
    def no_job_is_lost_and_what_is_final_or_finished_stays_so(self) -> None:
        """What was true of a job before."""
        jobs = self.jobs()
        for job_id, before in list(self.known.items()):
            assert job_id in jobs, "a job is lost"
            job = jobs[job_id]
            if before.state.is_final:
                assert job.state is before.state
            assert job.error_count >= before.error_count, "J21: never reset"
            assert job.run >= before.run
            for index, (old, new) in enumerate(zip(before.files, job.files, strict=False)):
                if old.transferred and (job_id, index) not in self.forgiven:
                    assert new.transferred, "a finished file is unfinished again"
                    assert new.bytes_transferred == old.bytes_transferred
            self.known[job_id] = job
            if job.upload_memory:
                self.sessions.add(session_of(job.upload_memory))

    @invariant()
    def what_is_in_memory_is_on_the_disk(self) -> None:
        """The rule of the ledger."""
        loaded = self.read_store()
        assert {job.id: job for job in loaded.jobs} == self.jobs()
        pending = {effect.job_id: effect.kind for effect in loaded.effects}
        assert pending == {job.id: job.closing.value for job in loaded.jobs if job.closing is not None}

    @invariant()
    def states_and_values_agree(self) -> None:
        """What a state entails."""
        for job in self.jobs().values():
            assert (job.active_since is not None) == job.state.is_active
            assert (job.closing is Closing.CANCEL) <= (job.state is JobState.CANCELLED)
            assert (job.closing is Closing.COMPLETE) <= (job.state in (JobState.SUSPENDED, JobState.TRANSFERRED))
            assert (job.retry_at is not None) <= (job.state is JobState.TRANSIENT_ERROR)
            if job.state in (JobState.ERROR, JobState.TRANSIENT_ERROR):
                assert error_of(job) is not None, "J12"
            if job.state in (JobState.TRANSFERRING, JobState.TRANSFERRED, JobState.SUSPENDED):
                assert error_of(job) is None, "J12"
            if job.state is JobState.ACKNOWLEDGED:
                assert (job.result == "S_OK") == (bool(job.files) and all(file.completed for file in job.files))
            if job.is_upload and job.state in (JobState.TRANSFERRED, JobState.ACKNOWLEDGED):
                assert not job.has_work, "J7"
            assert (job.cancel_until is not None) <= (job.state is JobState.CANCELLED)
            for file in (*job.files, *(file for _, file in job.made_here)):
                assert not (file.completed and not file.transferred)
                assert file.bytes_total is None or file.bytes_transferred <= file.bytes_total
                assert not file.transferred or file.bytes_transferred == file.bytes_total

    @invariant()
    def slots_are_not_exceeded(self) -> None:
        """Q1."""
        active = [job.settings.priority for job in self.jobs().values() if job.state.is_active]
        background = [priority for priority in active if priority is not Priority.FOREGROUND]
        if self.store.full == 0 and self.service.runtime.ledger.is_quiet:
            assert len(background) <= self.service.runtime.configuration.scheduler.max_background_jobs

    @invariant()
    def nothing_runs_for_somebody_logged_off(self) -> None:
        """I2: no job of alice's is active, and none of her workers is told to transfer, while she is logged off."""
        if self.is_logged_on or self.store.full or not self.service.runtime.ledger.is_quiet:
            return
        assert not [job.id for job in self.jobs().values() if job.state.is_active]
        busy = [worker for worker in self.workers() if worker.transfers or worker.uploads]
        assert not [worker for worker in busy if not worker.is_slow]

    def teardown(self) -> None:
        """When all goes well from now on, everything comes to its end."""
        try:
            if not self.errors and not self.service.gave_up:
                self.come_to_an_end()
        finally:
            self.end_service()
            self.store.close()
            self.loop.close()

    def come_to_an_end(self) -> None:
        """Network, room on the disk, workers that work: every job that may run ends, with every byte of one version."""
        self.store.full = 0
        if not self.service.network.has_network:
            self.network()
        if not self.is_logged_on:
            self.log_on_or_off()
        for _ in range(60):
            self.pace(is_slow=False)
            self.transfer(amount=200, times=8)
            self.wait(seconds=40)
        for job in self.jobs().values():
            assert job.closing is None, "an end that was begun never came"
            assert job.state not in WAITING, f"{job.state.name} for ever"
            if job.state is JobState.TRANSFERRED and job.has_work:
                self.call(self.service.manager.resume(ALICE, job.id))
        assert self.read_store().effects == []
        assert self.calls == set(), "a call was never answered"
        for job in list(self.jobs().values()):
            if job.is_upload and not job.state.is_final and job.state is not JobState.TRANSFERRED:
                self.call(self.service.manager.cancel(ALICE, job.id))
            elif not job.state.is_final:
                self.call(self.service.manager.complete(ALICE, job.id))
        for _ in range(3):
            self.transfer(amount=200, times=3)
            self.wait(seconds=61)
        self.no_job_is_lost_and_what_is_final_or_finished_stays_so()
        for job in self.jobs().values():
            assert job.state.is_final
            for _, file in job.made_here:
                assert file.temporary_name not in self.machine.files, "nothing is left behind"
                if file.completed:
                    content = self.machine.files[file.local_name].durable
                    assert len(content) == file.bytes_total
                    assert len(set(content)) == 1, "bytes of two versions in one file"
            if job.is_upload:
                self.check_end_of_upload(job)
        self.nothing_went_wrong()

    def check_end_of_upload(self, job: Job) -> None:
        """The file arrived whole, and no session that anybody knew of is left at the server (J6)."""
        uploads = self.machine.uploads
        assert job.cancel_until is None, "nobody told the server"
        for file in job.files:
            if file.transferred:
                content = uploads.published[file.remote_name]
                assert len(content) == file.bytes_total
                assert len(set(content)) == 1, "bytes of two versions in one file"
            assert uploads.arrivals.get(file.remote_name, 0) <= 1, "it was sent twice"
        assert not (self.sessions & set(uploads.sessions)) - uploads.abandoned


class MemoryMachine(JobMachine):
    """Against the store in memory."""

    disk: MemoryDisk

    def open_store(self) -> JobStore:
        if not hasattr(self, "disk"):
            self.disk = MemoryDisk()
        return MemoryStore(self.disk)


class UploadMachine(MemoryMachine):
    """Uploads only: among downloads they seldom get far."""

    types = (JobType.UPLOAD_REPLY, JobType.UPLOAD)


class SqliteMachine(JobMachine):
    """Against the real store."""

    directory: str

    def open_store(self) -> JobStore:
        if not hasattr(self, "directory"):
            self.directory = tempfile.mkdtemp(prefix="obt-")
        store, report = Store.open(self.directory)
        assert report.set_aside is None, report.reason
        return store

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def test_no_crash_loses_anything() -> None:
    run_state_machine_as_test(
        MemoryMachine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_no_crash_loses_an_upload_or_its_session() -> None:
    run_state_machine_as_test(
        UploadMachine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_no_crash_loses_anything_with_the_real_store() -> None:
    run_state_machine_as_test(
        SqliteMachine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
