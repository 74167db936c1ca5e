"""Jobs in every state, for tests of what decides about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from openbits.core.environment import Environment
from openbits.core.events import Event, Failure, FileAnswered, Step
from openbits.core.lifecycle import apply
from openbits.core.model import (
    AccountKind,
    Closing,
    File,
    Identity,
    Job,
    JobError,
    JobState,
    JobType,
    Owner,
    Priority,
    Settings,
    Validator,
)
from openbits.errors import ErrorContext

NOW = 1_800_000_000.0
OFFLINE = Environment(now=NOW, has_network=False)
ALICE = Owner(identity=Identity(uid=1000, gid=1000, groups=(1000,)), name="alice", kind=AccountKind.USER)
BOB = Owner(identity=Identity(uid=1001, gid=1001, groups=(1001,)), name="bob", kind=AccountKind.USER)
A_FAILURE = JobError(name="BG_E_CONNECTION_CLOSED", context=ErrorContext.GENERAL_TRANSPORT, message="it hung up")


def at(seconds: float, **more: Any) -> Environment:
    """The environment so many seconds after NOW."""
    return Environment(now=NOW + seconds, **more)


def a_file(number: int = 0, **more: Any) -> File:
    """A file of an origin that needs a network."""
    values: dict[str, Any] = {
        "remote_name": f"http://origin.example/{number}",
        "local_name": f"/home/alice/{number}",
        "temporary_name": f"/home/alice/.BIT{number:016x}.tmp",
    }
    return File(**values | more)


def fetched(number: int = 0, *, size: int = 10, **more: Any) -> File:
    """A file that is whole."""
    return a_file(number, bytes_total=size, bytes_transferred=size, transferred=True, **more)


def a_job(*files: File, settings: dict[str, Any] | None = None, **more: Any) -> Job:
    """A suspended job, as CreateJob makes it, with these files."""
    values: dict[str, Any] = {
        "id": "00000000-0000-4000-8000-000000000001",
        "type": JobType.DOWNLOAD,
        "owner": ALICE,
        "settings": Settings(name="a job", **(settings or {})),
        "files": files,
        "created_at": NOW,
        "modified_at": NOW,
    }
    return Job(**values | more)


def job_in(state: JobState, *files: File, **more: Any) -> Job:
    """A job with everything that its state entails; one file that is not fetched unless given."""
    match state:
        case JobState.QUEUED:
            of_state: dict[str, Any] = {"was_resumed": True}
        case JobState.CONNECTING | JobState.TRANSFERRING:
            of_state = {"was_resumed": True, "run": 1, "active_since": NOW}
        case JobState.TRANSIENT_ERROR:
            of_state = {
                "was_resumed": True,
                "run": 1,
                "error": A_FAILURE,
                "error_count": 1,
                "retry_at": NOW + 600,
                "no_progress_since": NOW,
            }
        case JobState.ERROR:
            of_state = {"was_resumed": True, "run": 1, "error": A_FAILURE, "error_count": 1}
        case JobState.TRANSFERRED:
            of_state = {"was_resumed": True, "run": 1, "transferred_at": NOW}
            files = files or (fetched(),)
        case JobState.ACKNOWLEDGED | JobState.CANCELLED:
            of_state = {"run": 1, "ended_at": NOW, "result": "S_OK"}
        case _:
            of_state = {}
    return a_job(*(files or (a_file(),)), state=state, **of_state | more)


def closing(job: Job) -> Job:
    """The same job while Complete puts its files in place."""
    return replace(job, closing=Closing.COMPLETE)


def with_settings(job: Job, **settings: Any) -> Job:
    """The same job with other properties."""
    return replace(job, settings=replace(job.settings, **settings))


def with_priority(job: Job, priority: Priority) -> Job:
    """The same job with another priority."""
    return with_settings(job, priority=priority)


def step(job: Job, event: Event, env: Environment | None = None) -> Step:
    """Apply an event that must mean something."""
    made = apply(job, event, env or at(1))
    assert made is not None, f"{event} means nothing to a job in {job.state.name}"
    return made


def after(job: Job, *events: Event, env: Environment | None = None) -> Job:
    """What a row of events makes of a job; those that come too late are passed over."""
    for event in events:
        made = apply(job, event, env or at(1))
        job = made.job if made is not None else job
    return job


def answer(job: Job, index: int = 0, **more: Any) -> FileAnswered:
    """A server's answer in the job's present run."""
    values: dict[str, Any] = {
        "run": job.run,
        "index": index,
        "bytes_total": 100,
        "validator": Validator(etag='"1"', last_modified="Tue, 01 Jan 2030 00:00:00 GMT", size=100),
        "offset": 0,
        "restarted": "",
        "resumable": True,
        "response_headers": "HTTP/1.1 200 OK",
    }
    return FileAnswered(**values | more)


def failure(name: str = "BG_E_CONNECTION_CLOSED", *, transient: bool = True, **more: Any) -> Failure:
    """A reason for a run to end."""
    return Failure(name=name, context=ErrorContext.GENERAL_TRANSPORT, message="it hung up", transient=transient, **more)
