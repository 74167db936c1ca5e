"""Every method of Manager, Job and File: what it asks, and what it gives; the same for the asyncio twin."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import openbits
from openbits import BitsError, ErrorContext, FileSpec, JobSpec, JobState, JobType, NotifyFlags, Priority, Range, Result
from openbits.client import calls, values
from openbits.client.discovery import Endpoint
from openbits.client.enumerator import Enumerator
from openbits.client.session import Session
from openbits.client.specs import process_umask
from openbits.core import model
from support.fake_api import FakeApi, Reply, error_out, file_out, job_out, problem, settings_out

DETAIL = {**job_out(id="1", error=error_out(), error_count=3, state="ERROR"), "settings": settings_out()}
DONE = Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()})
PARTIAL = Reply(json={"result": "BG_S_PARTIAL_COMPLETE", "hresult": 0x00200017, "job": job_out()})
ROUTES: dict[str, Any] = {
    "GET /v1/jobs/1": Reply(json=DETAIL),
    "GET /v1/jobs/1/error": Reply(json=error_out()),
    "GET /v1/jobs/1/why": Reply(json={"gate": "retry", "sentence": "it waits", "until": None}),
    "GET /v1/jobs/1/files": Reply(json={"files": [file_out()], "next": None}),
    "GET /v1/jobs/1/files/0": Reply(json=file_out(ranges=[{"offset": 1, "length": -1}], validation_state=True)),
    "PATCH /v1/jobs/1": DONE,
    "PATCH /v1/jobs/1/files/0": DONE,
    "POST /v1/jobs/1/files": DONE,
    "POST /v1/jobs/1/resume": DONE,
    "POST /v1/jobs/1/suspend": DONE,
    "POST /v1/jobs/1/cancel": DONE,
    "POST /v1/jobs/1/complete": PARTIAL,
    "POST /v1/jobs/1/replace-remote-prefix": Reply(json={"result": "S_FALSE", "hresult": 1, "job": job_out()}),
}

GETTERS: list[tuple[str, Any]] = [
    ("get_type", JobType.DOWNLOAD),
    ("get_state", JobState.ERROR),
    ("get_progress", openbits.Progress(bytes_total=2048, bytes_transferred=512, files_total=1, files_transferred=0)),
    ("get_owner", openbits.Owner(uid=1000, name="anna", kind="USER")),
    ("get_error_count", 3),
    ("get_display_name", "kernel"),
    ("get_description", ""),
    ("get_priority", Priority.NORMAL),
    ("get_notify_flags", NotifyFlags.JOB_TRANSFERRED | NotifyFlags.JOB_ERROR),
    ("get_minimum_retry_delay", 600),
    ("get_no_progress_timeout", 1_209_600),
    ("get_maximum_download_time", None),
    ("why", "it waits"),
]
SETTERS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("set_display_name", ("new",), {"name": "new"}),
    ("set_description", ("text",), {"description": "text"}),
    ("set_priority", (Priority.FOREGROUND,), {"priority": "foreground"}),
    ("set_notify_flags", (NotifyFlags.DISABLE,), {"notify_flags": 4}),
    ("set_minimum_retry_delay", (60,), {"minimum_retry_delay": 60}),
    ("set_no_progress_timeout", (0,), {"no_progress_timeout": 0}),
    ("set_maximum_download_time", (None,), {"maximum_download_time": None}),
    ("set_property", ("dynamic_content", True), {"dynamic_content": True}),
]
VERBS = [
    ("resume", Result.S_OK),
    ("suspend", Result.S_OK),
    ("cancel", Result.S_OK),
    ("complete", Result.BG_S_PARTIAL_COMPLETE),
]


async def call_async(path: str, name: str, *arguments: Any) -> Any:
    async with openbits.aio.Manager(path) as manager:
        job = await manager.get_job("1")
        return await getattr(job, name)(*arguments)


def call_blocking(path: str, name: str, *arguments: Any) -> Any:
    return getattr(openbits.Manager(path).get_job("1"), name)(*arguments)


def call_awaited(path: str, name: str, *arguments: Any) -> Any:
    return asyncio.run(call_async(path, name, *arguments))


both = pytest.mark.parametrize("call", [call_blocking, call_awaited], ids=["blocking", "asyncio"])


@both
@pytest.mark.parametrize(("name", "expected"), GETTERS)
def test_getters_of_a_job(call: Callable[..., Any], name: str, expected: Any) -> None:
    """J8–J21, J53."""
    with FakeApi(ROUTES) as api:
        assert call(api.path, name) == expected


@both
@pytest.mark.parametrize(("name", "arguments", "body"), SETTERS)
def test_setters_of_a_job(
    call: Callable[..., Any], name: str, arguments: tuple[Any, ...], body: dict[str, Any]
) -> None:
    """J14–J20, J53, J60–J64."""
    with FakeApi(ROUTES) as api:
        assert call(api.path, name, *arguments) is Result.S_OK
        assert (api.requests[-1].method, api.requests[-1].target, api.requests[-1].json) == (
            "PATCH",
            "/v1/jobs/1",
            body,
        )


@both
@pytest.mark.parametrize(("name", "result"), VERBS)
def test_verbs_of_a_job(call: Callable[..., Any], name: str, result: Result) -> None:
    """J4–J7: success with a remark is a value, not an exception."""
    with FakeApi(ROUTES) as api:
        assert call(api.path, name) is result
        assert api.targets()[-1] == f"POST /v1/jobs/1/{name}"
        assert api.requests[-1].body == b""


@both
def test_times_and_error_of_a_job(call: Callable[..., Any]) -> None:
    """J10, J12, E1–E5."""
    with FakeApi(ROUTES) as api:
        times = call(api.path, "get_times")
        assert times.creation_time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert times.transfer_completion_time is None
        error = call(api.path, "get_error")
    assert error.get_error() == (ErrorContext.REMOTE_FILE, 0x80190194)
    assert error.get_file() == 0
    assert error.get_protocol() == "http"
    assert "404" in error.get_error_description()
    assert "remote file" in error.get_error_context_description()


def test_an_error_without_file_or_protocol_says_so() -> None:
    """E3, E5."""
    error = values.error_from(error_out(file=None, protocol=None))
    with pytest.raises(BitsError) as caught:
        error.get_file()
    assert caught.value.name == "BG_E_FILE_NOT_AVAILABLE"
    with pytest.raises(BitsError) as caught:
        error.get_protocol()
    assert caught.value.name == "BG_E_PROTOCOL_NOT_AVAILABLE"


@both
def test_files_are_added(call: Callable[..., Any]) -> None:
    """J1, J2, J41."""
    with FakeApi(ROUTES) as api:
        call(api.path, "add_file", "http://h/a", "/a", "sha256:00")
        call(api.path, "add_file_set", [("http://h/a", "/a"), FileSpec(remote_name="http://h/b", local_name="/b")])
        call(api.path, "add_file_with_ranges", "http://h/a", "/a", [(0, 5), Range(9)])
        bodies = [request.json["files"] for request in api.requests if request.method == "POST"]
        with pytest.raises(BitsError) as caught:
            call(api.path, "add_file_with_ranges", "http://h/a", "/a", [])
    assert caught.value.name == "E_INVALIDARG"
    assert bodies == [
        [{"remote_name": "http://h/a", "local_name": "/a", "checksum": "sha256:00"}],
        [{"remote_name": "http://h/a", "local_name": "/a"}, {"remote_name": "http://h/b", "local_name": "/b"}],
        [
            {
                "remote_name": "http://h/a",
                "local_name": "/a",
                "ranges": [{"offset": 0, "length": 5}, {"offset": 9, "length": -1}],
            }
        ],
    ]


def test_a_path_may_hold_any_bytes() -> None:
    with FakeApi(ROUTES) as api:
        openbits.Manager(api.path).get_job("1").add_file("http://h/a", os.fsdecode(b"/tmp/\xff\xfe"))
        assert os.fsencode(api.requests[-1].json["files"][0]["local_name"]) == b"/tmp/\xff\xfe"
        assert b"\\udcff" in api.requests[-1].body


@both
def test_prefix_without_a_match_is_s_false(call: Callable[..., Any]) -> None:
    """J40."""
    with FakeApi(ROUTES) as api:
        assert call(api.path, "replace_remote_prefix", "http://old", "http://new") is Result.S_FALSE
        assert api.requests[-1].json == {"old": "http://old", "new": "http://new"}


def test_properties_of_a_job() -> None:
    """J60–J64; the error for a name that is none."""
    with FakeApi(ROUTES) as api:
        job = openbits.Manager(api.path).get_job("1")
        assert job.get_property("file_concurrency") == 1
        with pytest.raises(BitsError) as caught:
            job.get_property("colour")
        assert caught.value.name == "BG_E_UNKNOWN_PROPERTY_ID"


def test_methods_of_a_file() -> None:
    """F1–F7, F10."""
    with FakeApi(ROUTES) as api:
        [file] = openbits.Manager(api.path).get_job("1").enum_files()
        assert file.index == 0
        assert file.get_remote_name() == "http://host/kernel"
        assert file.get_local_name() == "/srv/kernel"
        assert file.get_temporary_name() == "/srv/.BIT1.tmp"
        assert file.get_file_ranges() == (Range(1, openbits.LENGTH_TO_EOF),)
        assert file.get_validation_state() is True
        assert file.get_property().startswith("HTTP/1.1 200")
        progress = openbits.FileProgress(bytes_total=2048, bytes_transferred=512, completed=False)
        assert file.get_progress() == progress
        assert file.set_remote_name("http://h/new") is Result.S_OK
        assert api.requests[-1].json == {"remote_name": "http://h/new"}
        assert file.set_validation_state(False) is Result.S_OK
        assert api.requests[-1].json == {"validation_state": False}
        with pytest.raises(BitsError) as caught:
            file.get_property("colour")
        assert caught.value.name == "BG_E_UNKNOWN_PROPERTY_ID"


def test_create_job_sends_the_umask_and_never_changes_it() -> None:
    """M1."""
    before = os.umask(0o027)
    try:
        with FakeApi({"POST /v1/jobs": Reply(status=201, json={"id": "1"})}) as api:
            job = openbits.Manager(api.path).create_job("x", JobType.DOWNLOAD, {"priority": "low"})
            assert job.id == job.get_id() == "1"
            assert api.requests[0].json == {
                "name": "x",
                "type": "download",
                "settings": {"umask": 0o027, "priority": "low"},
            }
        assert process_umask() == 0o027
    finally:
        os.umask(before)


def test_create_jobs_goes_in_batches_of_a_thousand() -> None:
    counter = iter(range(10_000))

    def batch(request: Any) -> Reply:
        return Reply(status=201, json={"jobs": [{"id": str(next(counter))} for _ in request.json["jobs"]]})

    with FakeApi({"POST /v1/jobs/batch": batch}) as api:
        spec = JobSpec(name="x", files=(FileSpec(remote_name="http://h/a", local_name="/a"),), resume=True)
        jobs = openbits.Manager(api.path).create_jobs([spec] * 2_500)
        assert [job.id for job in jobs] == [str(number) for number in range(2_500)]
        assert [len(request.json["jobs"]) for request in api.requests] == [1000, 1000, 500]


@pytest.mark.parametrize("refused", [False, True])
def test_a_job_of_very_many_files_goes_in_parts(refused: bool) -> None:
    """J2: what does not fit into one call is added before Resume; a job of half the files does not stay."""
    files = [calls.file_in(f"http://h/{number}", f"/d/{number}") for number in range(45_000)]
    added = problem("BG_E_TOO_MANY_FILES_IN_JOB", 0x80200051, "too many") if refused else DONE
    routes = {**ROUTES, "POST /v1/jobs": Reply(status=201, json={"id": "1"}), "POST /v1/jobs/1/files": [DONE, added]}
    with FakeApi(routes) as api:
        work = calls.create_large_job(calls.job_in("x", files=files, resume=True))
        session = Session(Endpoint(api.path))
        if refused:
            with pytest.raises(BitsError, match="too many"):
                session.perform(work)
        else:
            assert session.perform(work) == "1"
        sent = [len(request.json["files"]) for request in api.requests[:3]]
        last = api.targets()[-1]
    assert sent == [20_000, 20_000, 5_000]
    assert last == ("POST /v1/jobs/1/cancel" if refused else "POST /v1/jobs/1/resume")


def page(job_id: str, following: str | None) -> Reply:
    return Reply(json={"jobs": [job_out(id=job_id)], "next": following})


def test_enum_jobs_reads_all_pages() -> None:
    """M3."""
    with FakeApi({"GET /v1/jobs": [page("1", "c/1"), page("2", None)]}) as api:
        jobs = openbits.Manager(api.path).enum_jobs(all_users=True)
        assert [job.id for job in jobs] == ["1", "2"]
        assert api.targets() == [
            "GET /v1/jobs?limit=500&all_users=1",
            "GET /v1/jobs?limit=500&all_users=1&after=c%2F1",
        ]


def test_the_asyncio_twin_reads_all_pages_too() -> None:
    async def enumerate_jobs(path: str) -> list[str]:
        async with openbits.aio.Manager(path) as manager:
            return [job.id for job in await manager.enum_jobs()]

    with FakeApi({"GET /v1/jobs": [page("1", "c"), page("2", None)]}) as api:
        assert asyncio.run(enumerate_jobs(api.path)) == ["1", "2"]
        assert {request.connection for request in api.requests} == {1}


def test_enumerators_count_skip_reset_and_clone() -> None:
    """M5."""
    items = Enumerator("abcde")
    assert items.get_count() == len(items) == 5
    assert items.next() == ["a"]
    assert items.skip(2) is Result.S_OK
    clone = items.clone()
    assert items.next(5) == ["d", "e"]
    assert items.skip(1) is Result.S_FALSE
    assert clone.next(1) == ["d"]
    items.reset()
    assert items.next(2) == ["a", "b"]
    assert list(items) == list("abcde")
    with pytest.raises(BitsError):
        items.next(-1)


def test_error_descriptions() -> None:
    """M4."""
    answer = Reply(json={"code": "BG_E_EMPTY", "hresult": 0x80200003, "text": "the job has no files"})
    with FakeApi({"GET /v1/errors/0x80200003": answer}) as api:
        manager = openbits.Manager(api.path)
        assert manager.get_error_description(0x80200003) == "the job has no files"
        assert manager.get_error_description(0x80200003 - (1 << 32)) == "the job has no files"


def test_a_job_that_is_not_there() -> None:
    """M2."""
    with FakeApi({"GET /v1/jobs/9": problem("BG_E_NOT_FOUND", 0x80200001, "there is no such job", status=404)}) as api:
        with pytest.raises(BitsError) as caught:
            openbits.Manager(api.path).get_job("9")
        assert caught.value.name == "BG_E_NOT_FOUND"


@pytest.mark.parametrize("name", ["JobState", "Priority"])
def test_enumerations_are_those_of_the_core(name: str) -> None:
    ours, theirs = getattr(values, name), getattr(model, name)
    assert {member.name: member.value for member in ours} == {member.name: member.value for member in theirs}


def test_job_types_are_those_of_the_core() -> None:
    assert [member.name for member in JobType] == [member.name for member in model.JobType]


def test_everything_public_can_be_had() -> None:
    assert all(getattr(openbits, name) is not None for name in openbits.__all__)
    assert set(openbits.__all__) == set(dir(openbits))
    with pytest.raises(AttributeError):
        openbits.nothing  # noqa: B018 - the access is the test


def test_help_shows_the_method_and_its_docstring() -> None:
    assert openbits.Job.resume.__doc__ == openbits.aio.Job.resume.__doc__
    assert "J5" in str(openbits.Job.resume.__doc__)
    assert openbits.Job.resume.__name__ == "resume"
