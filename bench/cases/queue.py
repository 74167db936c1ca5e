"""A long queue: how fast it is made, found again at a start and listed, and what it costs to have it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Final

from bench import processes
from bench.comparing import say
from bench.context import Context
from bench.origin import never_finishing
from bench.places import MIB
from bench.product import Service, Setup, make_directory, service
from bench.results import Figure, Goal, Result
from bench.running import BenchError, measure
from openbits import FileSpec, JobSpec, JobState, Manager, Priority
from openbits.client import calls
from openbits.client.discovery import Endpoint
from openbits.client.session import Session

_BATCH: Final = 1_000
_PAGE: Final = 500
_REPEATS: Final = 20
_COMMAND_REPEATS: Final = 5
_STARTS: Final = 5
_PATIENCE_S: Final = 60.0
_QUIET_AFTER_S: Final = 5.0


def long_queue(context: Context) -> Result:
    """Make the queue twice: QUEUED behind a job that runs, and SUSPENDED with nothing running."""
    amounts = context.amounts
    figures: list[Figure] = []
    setups = [Setup(directory=make_directory(context.places.disk), worker_idle_s=1) for _ in range(2)]
    with never_finishing() as endless_url, service(setups[0]) as running:
        with Manager(running.socket_path) as manager:
            _occupy(manager, endless_url, context.places.memory)
            created = _create(manager, amounts.jobs, context, resume=True)
            figures.append(Figure(name="jobs created, QUEUED", values=created, unit="jobs/s"))
        figures += _listing(running, amounts.jobs)
        figures += _at_rest(running, "QUEUED behind one that runs", amounts.idle_s)
    with service(setups[1]) as running:
        with Manager(running.socket_path) as manager:
            created = _create(manager, amounts.jobs, context, resume=False)
        figures.append(Figure(name="jobs created, SUSPENDED", values=created, unit="jobs/s"))
        figures += _at_rest(running, "SUSPENDED", amounts.idle_s)
    for name, setup in (("QUEUED", setups[0]), ("SUSPENDED", setups[1])):
        figures.append(Figure(name=f"start-up with the jobs {name}", values=_starts(setup), unit="s"))
    empty = Setup(directory=make_directory(context.places.disk))
    figures.append(Figure(name="start-up with no job", values=_starts(empty), unit="s"))
    return Result(
        key="queue",
        title=f"A queue of {amounts.jobs:,} jobs of one file",
        figures=figures,
        goals=_goals(figures),
        remarks=[
            f"Created through the Python client in calls of {_BATCH:,} jobs; the value is that of the median call.",
            f"A list page is GET /v1/jobs?limit={_PAGE} through the client.",
            "Start-up counts from the start of bitsd until it says that it takes calls.",
            (
                f"Wake-ups are context switches of all threads of our processes, over {amounts.idle_s} s; "
                "beside a job that runs, its worker is left out."
            ),
        ],
    )


def _goals(figures: Sequence[Figure]) -> list[Goal]:
    goals = []
    for figure in figures:
        match figure.name.split(",")[0].split(" ")[0], figure.unit:
            case "jobs", _:
                goals.append(_goal(figure, 1_000, at_least=True))
            case "start-up", _:
                goals.append(_goal(figure, 2.0))
            case "list", "ms":
                goals.append(_goal(figure, 50))
            case "service", _:
                goals.append(_goal(figure, 150))
            case "wake-ups", _:
                goals.append(_goal(figure, 0))
    return goals


def _goal(figure: Figure, limit: float, *, at_least: bool = False) -> Goal:
    return Goal(what=figure.name, value=figure.value, limit=limit, unit=figure.unit, at_least=at_least)


def _occupy(manager: Manager, url: str, directory: str) -> None:
    """Let a job run that keeps all others of the background waiting: it has the higher priority."""
    job = manager.create_job("endless", settings={"stall_timeout": 86_400})
    job.set_priority(Priority.HIGH)
    job.add_file(url, os.path.join(directory, "endless"))
    job.resume()
    job.wait([JobState.TRANSFERRING], timeout=_PATIENCE_S)


def _create(manager: Manager, count: int, context: Context, *, resume: bool) -> list[float]:
    """Create jobs; return the jobs a second of each call."""
    rates = []
    for first in range(0, count, _BATCH):
        specs = [
            JobSpec(
                name=f"job {number}",
                files=(
                    FileSpec(
                        remote_name=f"{context.origin.http_url}/hello?{number}",
                        local_name=os.path.join(context.places.memory, f"file-{number}"),
                    ),
                ),
                resume=resume,
            )
            for number in range(first, min(first + _BATCH, count))
        ]
        begun = time.perf_counter()
        created = manager.create_jobs(specs)
        rates.append(len(created) / (time.perf_counter() - begun))
    say(f"  created {count:,} jobs")
    return rates


def _listing(running: Service, count: int) -> Iterator[Figure]:
    session = Session(Endpoint(running.socket_path))
    with contextlib.closing(session):
        page_ms = []
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            page = session.perform(calls.job_page(limit=_PAGE))
            page_ms.append(1000 * (time.perf_counter() - begun))
            if len(page["jobs"]) != min(_PAGE, count):
                raise BenchError(f"a page has {len(page['jobs'])} jobs")
        yield Figure(name=f"list page of {_PAGE} jobs", values=page_ms, unit="ms")
        begun = time.perf_counter()
        jobs = session.perform(calls.all_jobs())
        if len(jobs) != count + 1:
            raise BenchError(f"the list has {len(jobs)} jobs")
        yield Figure(name="all pages", values=[1000 * (time.perf_counter() - begun)], unit="ms in all")
    walls = [measure([running.bits("list", "--json")]).wall_s for _ in range(_COMMAND_REPEATS)]
    yield Figure(name="bits list --json of all", values=walls, unit="s")


def _at_rest(running: Service, condition: str, idle_s: int) -> Iterator[Figure]:
    """Measure memory and wake-ups when what was just done has died down."""
    time.sleep(_QUIET_AFTER_S)
    pids = processes.tree(running.pid)
    memory = processes.rss_bytes([running.service_pid()]) / MIB
    yield Figure(name=f"service memory (RSS), {condition}", values=[memory], unit="MiB")
    yield Figure(
        name=f"memory of all processes (PSS), {condition}", values=[processes.pss_bytes(pids) / MIB], unit="MiB"
    )
    # The worker of a job that runs has something to watch; whoever keeps the queue has not.
    pids = [pid for pid in pids if pid not in running.worker_pids()]
    before = processes.context_switches(pids)
    say(f"  watching for wake-ups for {idle_s} s")
    time.sleep(idle_s)
    after = processes.context_switches(pids)
    for task, count in after.items():
        if (more := count - before.get(task, 0)) > 0:
            say(f"  {more} wake-ups of thread {task} ({processes.name_of(task)})")
    # Threads that have gone would take their counts with them; one that has come counts in full.
    gone = len(before.keys() - after.keys())
    wake_ups = sum(count - before.get(task, 0) for task, count in after.items()) + gone
    yield Figure(name=f"wake-ups, {condition}", values=[wake_ups], unit=f"in {idle_s} s")


def _starts(setup: Setup) -> list[float]:
    walls = []
    for _ in range(_STARTS):
        with service(setup) as running:
            walls.append(running.startup_s)
    return walls
