"""Section 4 of the inventory: who is told of a job's end, in which order, how often, and what is owed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from openbits.core.events import Failure, FilesFetched, RunEnded
from openbits.core.model import AccountKind, Caller, Identity, JobState, Notice
from openbits.core.quotas import Quotas
from openbits.core.telling import FIRST_PAUSE_S, Kind
from openbits.errors import BitsError, ErrorContext
from openbits.frames.operations import CallBusName, NoticeEnded, PostNotice, RunCommand
from openbits.frames.worker import BecomeEvaluator, Evaluator, EvaluatorWanted
from openbits.service.configuration import Configuration, Notifications
from openbits.service.listeners import AT_ONCE, MOST_STREAMS, Detached, Stream, ToldProgram
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
ADMIN = replace(ALICE, identity=Identity(uid=1002, gid=1002), name="adam", is_administrator=True)
LIMITS = Configuration(
    quotas=Quotas(max_jobs_per_user=2000, max_jobs_per_machine=5000),
    notifications=Notifications(callback_limit_s=100, command_limit_s=50, url_limit_s=20),
)
COMMAND = ("/usr/bin/tell", ["tell", "me"])


@dataclass
class Program:
    """A program that listens: everything that it was told, and its answers."""

    service: Service
    caller: Caller = ALICE
    answers: bool = True
    errors: list[str] = field(default_factory=list)
    """What it answers next; after that it acknowledges."""
    heard: list[tuple[str, Kind, int | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    waiting: list[ToldProgram] = field(default_factory=list)
    detached: list[Detached] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream: Stream = self.service.runtime.notifications.listeners.open(self.caller)
        self._task = self.service.runtime._tasks.start("a program", self._read())

    async def _read(self) -> None:
        while (message := await self.stream.next_message()) is not None:
            if isinstance(message, Detached):
                self.detached.append(message)
                continue
            self.heard.append((message.job.id, message.subject.kind, message.subject.index))
            self.times.append(asyncio.get_running_loop().time())
            if self.answers:
                self.answer(message, self.errors.pop(0) if self.errors else "")
            else:
                self.waiting.append(message)

    def answer(self, message: ToldProgram, error: str = "") -> None:
        listeners = self.service.runtime.notifications.listeners
        listeners.acknowledge(self.caller, self.stream.name, message.name, error, "a reason")

    def listen(self, *jobs: str) -> None:
        for job in jobs:
            self.service.runtime.notifications.listeners.attach(self.caller, job, self.stream.name)

    def leave(self) -> None:
        self.service.runtime.notifications.listeners.leave(self.stream)

    @property
    def kinds(self) -> list[Kind]:
        return [kind for _, kind, _ in self.heard]


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    async with running(configuration=LIMITS) as service:
        yield service


async def passes(seconds: float) -> None:
    """Time passes."""
    await asyncio.sleep(seconds)
    await virtual.rest()


async def transfer(service: Service, job: str, *indices: int) -> None:
    """All of a job's files are here."""
    run = service.runtime.ledger.jobs[job].run
    files = indices or tuple(range(len(service.runtime.ledger.jobs[job].files)))
    service.runtime.ledger.post(job, FilesFetched(run=run, files=tuple((index, 10) for index in files)))
    await virtual.rest()


async def run_ends(service: Service) -> None:
    """The worker that transferred has nothing left to do."""
    worker = service.monitor.workers[0]
    worker.send(worker.ended())
    await virtual.rest()


async def fail(service: Service, job: str) -> None:
    """The job's run fails for good."""
    failure = Failure(
        name="BG_E_HTTP_ERROR_404", context=ErrorContext.REMOTE_FILE, message="it is not there", transient=False
    )
    service.runtime.ledger.post(job, RunEnded(run=service.runtime.ledger.jobs[job].run, failure=failure))
    await virtual.rest()


def commands(service: Service) -> list[tuple[FakeWorker, RunCommand]]:
    """Every command line that was run, by which process."""
    return [
        (worker, message)
        for worker in service.monitor.workers
        for message in worker.heard
        if isinstance(message, RunCommand)
    ]


async def command_ends(service: Service, number: int = -1, *, status: int = 0) -> None:
    worker, order = commands(service)[number]
    error = "ERROR_PROCESS_ABORTED" if status else ""
    worker.send(NoticeEnded(operation=order.operation, status=status, error=error, message="it ended"))
    await virtual.rest()


async def set_command(service: Service, job: str, caller: Caller = ALICE) -> None:
    await service.runtime.services.notify_commands.set(caller, job, *COMMAND)
    await virtual.rest()


def events(service: Service, number: int) -> list[Any]:
    return [event for event in service.disk.events if event.event_id == number]


def owed(service: Service, job: str) -> Notice | None:
    return service.job(job).owed_notice


# --- callbacks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_n1_n5_a_program_hears_of_the_end_also_when_it_comes_after_it(late: bool) -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service)
            if not late:
                program.listen(job)
            await transfer(service, job)
            program.listen(job)
            await virtual.rest()
            assert set(program.heard) == {(job, Kind.JOB_TRANSFERRED, None)}
            assert owed(service, job) is None
            # Set again, it hears nothing that was acknowledged.
            before = len(program.heard)
            program.listen(job)
            await virtual.rest()
            assert len(program.heard) == before

    virtual.run(story())


def test_n1_job_error_is_told_for_error_and_never_for_a_transient_one() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service)
            program.listen(job)
            await service.say(service.worker.ended("BG_E_CONNECTION_CLOSED", transient=True, message="gone"))
            assert service.state(job) is JobState.TRANSIENT_ERROR
            assert program.heard == []
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await fail(service, job)
            assert program.kinds == [Kind.JOB_ERROR]
            # Again, since it has failed again.
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await fail(service, job)
            assert program.kinds == [Kind.JOB_ERROR, Kind.JOB_ERROR]

    virtual.run(story())


def test_n1_an_error_that_comes_while_the_last_one_is_told_is_told_too() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service, answers=False)
            program.listen(job)
            await fail(service, job)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await fail(service, job)
            assert len(program.waiting) == 1
            program.answer(program.waiting[0])
            await virtual.rest()
            assert program.kinds == [Kind.JOB_ERROR, Kind.JOB_ERROR]

    virtual.run(story())


def test_n2_files_come_one_after_the_other_and_all_before_the_job() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(files=3, notify_flags=0x11), Program(service, answers=False)
            program.listen(job)
            await transfer(service, job, 1)
            await transfer(service, job, 0, 2)
            for expected in ([1], [1, 2], [1, 2, 0]):
                assert [index for _, _, index in program.heard] == expected
                program.answer(program.waiting.pop())
                await virtual.rest()
            assert program.kinds[3:] == [Kind.JOB_TRANSFERRED]
            assert all(file.was_announced for file in service.job(job).files)

    virtual.run(story())


def test_n2_n4_the_next_file_waits_until_the_last_was_taken() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(files=2, notify_flags=0x11), Program(service, errors=["E_FAIL"] * 2)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            assert program.heard == [(job, Kind.FILE_TRANSFERRED, 0)]
            await passes(FIRST_PAUSE_S)
            await passes(FIRST_PAUSE_S * 2)
            assert [index for _, _, index in program.heard] == [0, 0, 0, 1, None]
            assert commands(service) == [], "a command line does not hear of files"
            assert len(events(service, 16390)) == 2

    virtual.run(story())


def test_n2_a_file_that_was_fetched_again_is_told_again() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(notify_flags=0x10), Program(service)
            program.listen(job)
            await transfer(service, job)
            await service.manager.set_validation_state(ALICE, job, 0, valid=False)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await transfer(service, job)
            assert program.kinds == [Kind.FILE_TRANSFERRED] * 2

    virtual.run(story())


@pytest.mark.parametrize(("flags", "heard"), [(0x7, []), (0x0, []), (0x2, []), (0x1, [Kind.JOB_TRANSFERRED])])
def test_j17_flags_say_what_is_told_and_disable_wins(flags: int, heard: list[Kind]) -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(notify_flags=flags), Program(service)
            program.listen(job)
            await transfer(service, job)
            assert program.kinds == heard
            # What was not told is still owed: flags that come later let it out.
            await service.manager.change_settings(ALICE, job, {"notify_flags": 1})
            await virtual.rest()
            assert program.kinds == [Kind.JOB_TRANSFERRED]

    virtual.run(story())


def test_n4_who_fails_is_asked_again_after_pauses_that_grow() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service, errors=["E_FAIL"] * 3)
            program.listen(job)
            await transfer(service, job)
            await passes(100)
            pauses = [later - earlier for earlier, later in pairwise(program.times)]
            assert pauses == pytest.approx([1, 2, 4], abs=0.01)
            assert owed(service, job) is None
            waits = [dict(event.fields)["retry_wait_time"] for event in events(service, 16390)]
            assert waits == ["1", "2", "4"]
            assert "a reason" in service.runtime.ledger._store.disk.events[-1].text  # type: ignore[attr-defined]

    virtual.run(story())


def test_n4_n12_a_command_line_takes_the_place_of_a_program_that_fails() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(minimum_retry_delay=60), Program(service, errors=["E_FAIL"] * 2)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            assert program.kinds == [Kind.JOB_TRANSFERRED]
            [(worker, order)] = commands(service)
            assert (order.program, order.arguments, order.limit_s) == ("/usr/bin/tell", ("tell", "me"), 50.0)
            assert worker.identity == ALICE.identity
            # Both have failed: from the beginning, after the minimum retry delay.
            await command_ends(service, status=3)
            assert len(events(service, 63)) == 1
            await passes(59)
            assert len(program.heard) == 1
            await passes(2)
            assert len(program.heard) == 2
            await command_ends(service)
            assert owed(service, job) is None
            assert len(commands(service)) == 2

    virtual.run(story())


def test_n12_a_program_that_takes_note_leaves_nothing_for_the_command_line() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            assert program.kinds == [Kind.JOB_TRANSFERRED]
            program.leave()
            await virtual.rest()
            assert commands(service) == []

    virtual.run(story())


def test_n5_n7_a_program_that_vanishes_is_no_program_and_the_next_way_is_taken() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service, answers=False)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            assert commands(service) == []
            program.leave()
            await virtual.rest()
            assert len(commands(service)) == 1
            assert not service.runtime.notifications.listeners.is_there(job)

    virtual.run(story())


def test_n5_what_was_told_and_not_acknowledged_is_told_to_who_comes_next() -> None:
    async def story() -> None:
        async with serving() as service:
            job, first = await service.create(), Program(service, answers=False)
            first.listen(job)
            await transfer(service, job)
            second = Program(service)
            second.listen(job)
            await virtual.rest()
            assert (first.kinds, second.kinds) == ([Kind.JOB_TRANSFERRED],) * 2
            assert [(gone.job_id, gone.reason) for gone in first.detached] == [(job, "replaced")]
            with pytest.raises(BitsError, match="E_INVALIDARG"):
                first.answer(first.waiting[0])

    virtual.run(story())


def test_n5_a_crash_between_the_event_and_the_answer_tells_it_again() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service, answers=False)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            assert len(program.heard) == 1
            disk = service.disk
        async with running(disk, configuration=LIMITS) as service:
            assert len(commands(service)) == 1, "nobody listens now: the command line is run"
            await command_ends(service)
            disk = service.disk
        async with running(disk, configuration=LIMITS) as service:
            assert owed(service, job) is None
            assert commands(service) == []

    virtual.run(story())


def test_n6_four_at_once_for_each_account_and_the_rest_in_order() -> None:
    async def story() -> None:
        async with serving() as service:
            jobs = [await service.create(priority="foreground") for _ in range(7)]
            others = [await service.create(priority="foreground", caller=BOB) for _ in range(2)]
            program, other = Program(service, answers=False), Program(service, caller=BOB, answers=False)
            program.listen(*jobs)
            other.listen(*others)
            for job in (*jobs, *others):
                await transfer(service, job)
            assert [job for job, _, _ in program.heard] == jobs[:AT_ONCE]
            assert [job for job, _, _ in other.heard] == others
            for done in range(3):
                program.answer(program.waiting.pop(0))
                await virtual.rest()
                assert [job for job, _, _ in program.heard] == jobs[: AT_ONCE + done + 1]

    virtual.run(story())


def test_a_program_that_hangs_counts_as_none_until_it_answers() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(), Program(service, answers=False)
            program.listen(job)
            await set_command(service, job)
            await transfer(service, job)
            await passes(99)
            assert commands(service) == []
            await passes(2)
            assert len(commands(service)) == 1
            await command_ends(service, status=1)
            # Its answer counts, however late it is.
            program.answer(program.waiting[0])
            await virtual.rest()
            assert owed(service, job) is None
            await passes(1000)
            assert len(commands(service)) == 1
            assert len(program.heard) == 1

    virtual.run(story())


def test_a_program_that_hangs_in_all_its_threads_counts_as_none_for_all_its_jobs() -> None:
    async def story() -> None:
        async with serving() as service:
            jobs = [await service.create(priority="foreground") for _ in range(AT_ONCE + 1)]
            program = Program(service, answers=False)
            program.listen(*jobs)
            for job in jobs:
                await transfer(service, job)
            await passes(101)
            assert len(program.heard) == AT_ONCE
            assert "does not answer" in service.runtime.notifications.remark(service.job(jobs[-1]))
            program.answer(program.waiting[0])
            await virtual.rest()
            assert program.heard[-1][0] == jobs[-1]

    virtual.run(story())


def test_n7_the_program_stays_its_account_s_when_the_job_changes_hands() -> None:
    async def story() -> None:
        async with serving() as service:
            job, program = await service.create(resume=False), Program(service)
            program.listen(job)
            await set_command(service, job)
            await service.runtime.services.ownership.take(ADMIN, job)
            await virtual.rest()
            assert service.job(job).notify_command is None, "N14"
            service.logon.change(1000, 1001, 1002)
            await service.manager.resume(ADMIN, job)
            await virtual.rest()
            await transfer(service, job)
            assert program.kinds == [Kind.JOB_TRANSFERRED]
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                program.listen(job)

    virtual.run(story())


def test_j18_a_program_is_its_account_s_alone() -> None:
    async def story() -> None:
        async with serving() as service:
            job, mine = await service.create(), Program(service)
            listeners = service.runtime.notifications.listeners
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                listeners.attach(BOB, job, mine.stream.name)
            theirs = await service.create(caller=BOB)
            with pytest.raises(BitsError, match="RPC_E_DISCONNECTED"):
                listeners.attach(BOB, theirs, mine.stream.name)
            mine.answers = False
            mine.listen(job)
            await transfer(service, job)
            with pytest.raises(BitsError, match="RPC_E_DISCONNECTED"):
                listeners.acknowledge(BOB, mine.stream.name, mine.waiting[0].name, "", "")
            with pytest.raises(BitsError, match="E_INVALIDARG"):
                mine.answer(mine.waiting[0], "NO_SUCH_ERROR")
            for _ in range(MOST_STREAMS - 1):
                listeners.open(ALICE)
            with pytest.raises(BitsError, match="E_ILLEGAL_METHOD_CALL"):
                listeners.open(ALICE)
            listeners.open(BOB)

    virtual.run(story())


def test_j18_null_clears_and_a_job_that_has_ended_lets_go() -> None:
    async def story() -> None:
        async with serving() as service:
            first, second, program = await service.create(), await service.create(), Program(service)
            program.listen(first, second)
            service.runtime.notifications.listeners.clear(ALICE, first)
            await service.manager.cancel(ALICE, second)
            await virtual.rest()
            assert [(gone.job_id, gone.reason) for gone in program.detached] == [(first, "cleared"), (second, "ended")]
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                program.listen(second)
            statistics = service.runtime.notifications.statistics()
            assert (statistics["notice_lanes"], statistics["listened_jobs"]) == (0, 0)

    virtual.run(story())


def test_j66_modifications_are_put_together_and_never_told_of_the_end() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(notify_flags=0x8, minimum_notification_interval_ms=2000)
            program = Program(service)
            program.listen(job)
            await virtual.rest()
            program.heard.clear()
            for number in range(5):
                await service.manager.change_settings(ALICE, job, {"description": f"{number}"})
            await virtual.rest()
            assert program.kinds == [Kind.JOB_MODIFICATION]
            await passes(1.9)
            assert len(program.heard) == 1
            await passes(0.2)
            assert len(program.heard) == 2
            await passes(10)
            await transfer(service, job)
            await passes(10)
            assert len(program.heard) == 2, "not for the transition to TRANSFERRED"

    virtual.run(story())


def test_n1_modifications_are_lost_where_nobody_listens() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(notify_flags=0x8)
            await service.manager.change_settings(ALICE, job, {"description": "another"})
            program = Program(service)
            program.listen(job)
            await passes(10)
            assert program.heard == []
            assert commands(service) == []

    virtual.run(story())


# --- command lines -----------------------------------------------------------------------------------------


def test_n10_n11_a_command_line_is_run_until_it_ends_well() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(minimum_retry_delay=30)
            await transfer(service, job)
            await set_command(service, job)
            for status in (1, 2):
                await command_ends(service, status=status)
                await passes(31)
            assert len(commands(service)) == 3
            await command_ends(service)
            await passes(100)
            assert len(commands(service)) == 3
            assert [dict(event.fields)["exit_status"] for event in events(service, 63)] == ["1", "2"]
            [entry] = [event for event in service.disk.events if event.kind == "notification" and not event.event_id]
            assert "/usr/bin/tell" in entry.text
            assert dict(entry.fields)["program"] == "/usr/bin/tell"

    virtual.run(story())


def test_n11_a_program_that_completes_the_job_is_not_run_again() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create()
            await set_command(service, job)
            await transfer(service, job)
            await run_ends(service)
            await service.manager.complete(ALICE, job)
            await command_ends(service, status=9)
            await passes(10_000)
            assert len(commands(service)) == 1

    virtual.run(story())


def test_n11_a_program_that_cannot_be_started_is_event_64() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create()
            await set_command(service, job)
            await transfer(service, job)
            worker, order = commands(service)[0]
            worker.send(NoticeEnded(operation=order.operation, error="ERROR_FILE_NOT_FOUND", message="it is not there"))
            await virtual.rest()
            assert len(events(service, 64)) == 1
            assert "it is not there" in service.runtime.notifications.remark(service.job(job))

    virtual.run(story())


@pytest.mark.parametrize("kind", [AccountKind.LOCAL_SYSTEM, AccountKind.NETWORK_SERVICE, AccountKind.LOCAL_SERVICE])
def test_n13_service_accounts_set_command_lines_that_are_never_run(kind: AccountKind) -> None:
    async def story() -> None:
        async with serving() as service:
            uid = 0 if kind is AccountKind.LOCAL_SYSTEM else 33
            caller = replace(ROOT, identity=Identity(uid=uid, gid=uid), kind=kind, name="daemon")
            job = await service.create(caller=caller)
            await set_command(service, job, caller)
            await transfer(service, job)
            await passes(10_000)
            assert commands(service) == []
            assert owed(service, job) is Notice.TRANSFERRED
            assert "never run" in service.runtime.notifications.remark(service.job(job))

    virtual.run(story())


def test_n10_nothing_runs_for_who_is_logged_off() -> None:
    async def story() -> None:
        async with serving() as service:
            service.logon.change(1000)
            job = await service.create()
            await set_command(service, job)
            await transfer(service, job)
            assert len(commands(service)) == 1
            # At log-off what runs is ended; that is no failure of the program, which is run again at the next log-on.
            service.logon.change()
            await passes(10_000)
            assert len(commands(service)) == 1
            assert events(service, 63) == []
            assert owed(service, job) is Notice.TRANSFERRED
            assert "logs on" in service.runtime.notifications.remark(service.job(job))
            service.logon.change(1000)
            await virtual.rest()
            assert len(commands(service)) == 2

    virtual.run(story())


def test_j30_only_the_owner_sets_a_command_line_whoever_else_may_change_the_job() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create()
            for caller in (ROOT, ADMIN, BOB):
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    await set_command(service, job, caller)
            await set_command(service, job)
            assert service.runtime.services.notify_commands.get(ADMIN, job) is not None
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                service.runtime.services.notify_commands.get(BOB, job)
            await service.runtime.services.notify_commands.set(ALICE, job, None, None)
            assert service.runtime.services.notify_commands.get(ALICE, job) is None
            assert [event.event_id for event in service.disk.events if "command line" in event.text] == [6, 6]

    virtual.run(story())


# --- bus names and URLs --------------------------------------------------------------------------------------


def orders(service: Service, cls: type[Any]) -> list[tuple[FakeWorker, Any]]:
    return [(worker, each) for worker in service.monitor.workers for each in worker.heard if isinstance(each, cls)]


def test_j61_n7_a_bus_name_is_called_where_no_program_listens() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(notification_clsid="org.example.App", notify_flags=0x11, minimum_retry_delay=30)
            await transfer(service, job)
            worker, order = orders(service, CallBusName)[0]
            assert (order.name, order.method, order.job_id, order.arguments) == (
                "org.example.App",
                "FileTransferred",
                job,
                ("0",),
            )
            worker.send(NoticeEnded(operation=order.operation))
            await virtual.rest()
            worker, order = orders(service, CallBusName)[1]
            assert order.method == "JobTransferred"
            worker.send(NoticeEnded(operation=order.operation, error="REGDB_E_CLASSNOTREG", message="nobody"))
            await virtual.rest()
            await set_command(service, job)
            # Something else can be tried now: from the beginning.
            assert len(orders(service, CallBusName)) == 3
            worker, order = orders(service, CallBusName)[2]
            worker.send(NoticeEnded(operation=order.operation, error="REGDB_E_CLASSNOTREG", message="nobody"))
            await virtual.rest()
            await command_ends(service)
            assert owed(service, job) is None

    virtual.run(story())


@pytest.mark.parametrize(("caller", "is_system"), [(ALICE, False), (ROOT, True)])
def test_j61_people_have_their_programs_on_their_sessions_bus_and_service_accounts_on_the_systems(
    caller: Caller, is_system: bool
) -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(caller=caller, notification_clsid="org.example.App")
            await transfer(service, job)
            _, order = orders(service, CallBusName)[0]
            assert order.on_system_bus is is_system

    virtual.run(story())


def test_j22_a_script_may_decide_by_which_proxy_a_url_is_told() -> None:
    async def story() -> None:
        async with serving() as service:
            job = await service.create(notify_url="https://hooks.example/x")
            await transfer(service, job)
            worker, order = orders(service, PostNotice)[0]
            worker.send(EvaluatorWanted(transfer=order.transfer))
            await virtual.rest()
            assert worker.last(Evaluator) == Evaluator(transfer=order.transfer)
            evaluator, _ = orders(service, BecomeEvaluator)[0]
            assert evaluator is not worker
            assert evaluator.identity == ALICE.identity
            worker.send(NoticeEnded(operation=order.operation, status=204))
            await virtual.rest()
            assert service.job(job).owed_webhook is None

    virtual.run(story())


def test_a_url_is_told_beside_the_others_and_after_the_job_is_completed() -> None:
    async def story() -> None:
        async with serving() as service:
            url = "https://hooks.example/x"
            job, program = await service.create(notify_url=url, minimum_retry_delay=30), Program(service)
            program.listen(job)
            await transfer(service, job)
            assert program.kinds == [Kind.JOB_TRANSFERRED]
            worker, order = orders(service, PostNotice)[0]
            assert (order.url, order.limit_s) == (url, 20.0)
            await run_ends(service)
            await service.manager.complete(ALICE, job)
            worker.send(NoticeEnded(operation=order.operation, error="BG_E_HTTP_ERROR_503", message="no", status=503))
            await virtual.rest()
            assert service.job(job).owed_webhook is Notice.TRANSFERRED
            await passes(31)
            worker, order = orders(service, PostNotice)[1]
            worker.send(NoticeEnded(operation=order.operation, status=204))
            await virtual.rest()
            assert service.job(job).owed_webhook is None
            assert service.runtime.notifications.statistics()["notice_lanes"] == 0

    virtual.run(story())


# --- cost ------------------------------------------------------------------------------------------------------


def test_a_job_that_nobody_is_told_of_costs_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            jobs = [await service.create(priority="foreground") for _ in range(20)]
            for job in jobs:
                await transfer(service, job)
            statistics = service.runtime.notifications.statistics()
            assert (statistics["notice_lanes"], statistics["notifying"], statistics["notices_waiting"]) == (0, 0, 0)
            assert all(owed(service, job) is Notice.TRANSFERRED for job in jobs)

    virtual.run(story())


def test_a_storm_loses_nothing_and_doubles_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            program = Program(service)
            jobs = [await service.create(resume=False) for _ in range(1000)]
            program.listen(*jobs)
            for job in jobs:
                run = service.runtime.ledger.jobs[job].run
                service.runtime.ledger.post(job, FilesFetched(run=run, files=((0, 10),)))
                await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert sorted(job for job, _, _ in program.heard) == sorted(jobs)
            assert all(owed(service, job) is None for job in jobs)

    virtual.run(story())
