"""Every method of Manager, Job and File: what it asks, and what it gives; the same for the asyncio twin."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import openbits
from openbits import (
    BitsError,
    ErrorContext,
    FileSpec,
    JobSpec,
    JobState,
    JobType,
    NotifyFlags,
    Priority,
    ProxyUsage,
    Range,
    Result,
)
from openbits.client import calls, values
from openbits.client.discovery import Endpoint
from openbits.client.enumerator import Enumerator
from openbits.client.session import Session
from openbits.client.specs import process_umask
from openbits.core import model
from support.fake_api import FakeApi, Reply, error_out, file_out, job_out, problem, settings_out

DETAIL = {
    **job_out(id="1", error=error_out(), error_count=3, state="ERROR"),
    "settings": settings_out(proxy_usage="override", proxy_list="p:1 q:2", proxy_bypass_list=None),
    "owner_integrity_level": 0x2000,
    "owner_is_elevated": False,
    "helper_token_flags": 0,
}
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
    "POST /v1/jobs/1/take-ownership": DONE,
    "GET /v1/jobs/1/reply": Reply(json={"file_name": "/srv/r", "bytes_total": None, "bytes_transferred": 0}),
    "PUT /v1/jobs/1/reply": DONE,
    "GET /v1/jobs/1/reply/data": Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x00\xff\n"),
    "PUT /v1/jobs/1/credentials": DONE,
    "DELETE /v1/jobs/1/credentials": Reply(json={"result": "S_FALSE", "hresult": 1, "job": job_out()}),
    "POST /v1/jobs/1/token-options": Reply(status=201, json={"capability": "s3cret/cap"}),
    "GET /v1/token-options/s3cret%2Fcap": Reply(json={"sid": "uid:1001", "name": "bert", "flags": 3}),
    "PUT /v1/token-options/s3cret%2Fcap/helper": Reply(json={"result": "S_OK"}),
    "DELETE /v1/token-options/s3cret%2Fcap/helper": Reply(json={"result": "S_OK"}),
    "PUT /v1/token-options/s3cret%2Fcap/flags": Reply(json={"result": "S_OK"}),
    "GET /v1/proxy-settings": Reply(
        json={
            "account": "LOCALSERVICE",
            "usage": None,
            "proxy_list": "p:1",
            "bypass_list": "",
            "script_url": "",
            "applies_to": "its jobs",
        }
    ),
    "PUT /v1/proxy-settings": Reply(json={"result": "S_OK"}),
    "DELETE /v1/proxy-settings": Reply(status=204, json=None),
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
    ("get_reply_file_name", "/srv/r"),
    ("get_reply_progress", openbits.ReplyProgress(bytes_total=None, bytes_transferred=0)),
    ("get_reply_data", b"\x00\xff\n"),
    ("get_owner_integrity_level", 0x2000),
    ("get_owner_elevation_state", False),
    (
        "get_proxy_settings",
        openbits.ProxySettings(usage=ProxyUsage.OVERRIDE, proxy_list="p:1 q:2", bypass_list=None),
    ),
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
    (
        "set_proxy_settings",
        (ProxyUsage.OVERRIDE, "p:1", "*.org"),
        {"proxy_usage": "override", "proxy_list": "p:1", "proxy_bypass_list": "*.org"},
    ),
    (
        "set_proxy_settings",
        ("no_proxy",),
        {"proxy_usage": "no_proxy", "proxy_list": None, "proxy_bypass_list": None},
    ),
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


async def ask_async(path: str, getter: str, *asked: tuple[str, tuple[Any, ...]]) -> tuple[Any, list[Any]]:
    async with openbits.aio.Manager(path) as manager:
        given = await getattr(await manager.get_job("1"), getter)()
        return given, [await getattr(given, name)(*arguments) for name, arguments in asked]


def ask_blocking(path: str, getter: str, *asked: tuple[str, tuple[Any, ...]]) -> tuple[Any, list[Any]]:
    given = getattr(openbits.Manager(path).get_job("1"), getter)()
    return given, [getattr(given, name)(*arguments) for name, arguments in asked]


def ask_awaited(path: str, getter: str, *asked: tuple[str, tuple[Any, ...]]) -> tuple[Any, list[Any]]:
    return asyncio.run(ask_async(path, getter, *asked))


both_ask = pytest.mark.parametrize("ask", [ask_blocking, ask_awaited], ids=["blocking", "asyncio"])


@both
def test_times_of_a_job(call: Callable[..., Any]) -> None:
    """J10."""
    with FakeApi(ROUTES) as api:
        times = call(api.path, "get_times")
        assert times.creation_time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert times.transfer_completion_time is None


ERROR_METHODS = [
    ("get_error", ()),
    ("get_file", ()),
    ("get_protocol", ()),
    ("get_error_description", ()),
    ("get_error_context_description", ()),
]


@both_ask
def test_the_error_of_a_job_is_an_object_that_asks(ask: Callable[..., Any]) -> None:
    """J12, E1–E5: its properties are a picture of the moment, its methods calls like any other."""
    with FakeApi(ROUTES) as api:
        error, answers = ask(api.path, "get_error", *ERROR_METHODS)
        assert api.targets()[1:] == ["GET /v1/jobs/1/error"] * 6
    assert (error.code, error.hresult) == ("BG_E_HTTP_ERROR_404", 0x80190194)
    assert (error.context, error.file_index, error.protocol) == (ErrorContext.REMOTE_FILE, 0, "http")
    assert (error.remote_name, error.local_name) == ("http://host/kernel", "/srv/kernel")
    assert error.message == error.info.message == "the server answered 404 (Not Found)"
    assert answers[0] == (ErrorContext.REMOTE_FILE, 0x80190194)
    assert isinstance(answers[1], openbits.File | openbits.aio.File)
    assert (answers[1].index, answers[2]) == (0, "http")
    assert "404" in answers[3]
    assert "remote file" in answers[4]


def test_an_error_that_is_over_cannot_be_asked_any_more() -> None:
    """J12: the picture stays."""
    gone = problem("BG_E_ERROR_INFORMATION_UNAVAILABLE", 0x8020000F, "the job has no error to report", status=409)
    with FakeApi({**ROUTES, "GET /v1/jobs/1/error": [Reply(json=error_out()), gone]}) as api:
        error = openbits.Manager(api.path).get_job("1").get_error()
        with pytest.raises(BitsError) as caught:
            error.get_error()
        assert caught.value.name == "BG_E_ERROR_INFORMATION_UNAVAILABLE"
        assert error.hresult == 0x80190194


TOKEN_METHODS = [
    ("set_helper_token", ()),
    ("set_helper_token_flags", (openbits.TokenFlags.LOCAL_FILE | openbits.TokenFlags.NETWORK,)),
    ("get_helper_token_flags", ()),
    ("get_helper_token_sid", ()),
    ("clear_helper_token", ()),
]


@both_ask
def test_token_options_of_a_job(ask: Callable[..., Any]) -> None:
    """T1–T4: nothing in a request says who the helper is, and nobody sees the capability by accident."""
    with FakeApi(ROUTES) as api:
        options, answers = ask(api.path, "token_options", *TOKEN_METHODS)
        path = "/v1/token-options/s3cret%2Fcap"
        assert [(request.method, request.target, request.body) for request in api.requests[2:]] == [
            ("PUT", f"{path}/helper", b""),
            ("PUT", f"{path}/flags", b'{"flags":3}'),
            ("GET", path, b""),
            ("GET", path, b""),
            ("DELETE", f"{path}/helper", b""),
        ]
    assert answers == [Result.S_OK, Result.S_OK, openbits.TokenFlags(3), "uid:1001", Result.S_OK]
    assert "s3cret" not in repr(options) + repr(calls.helper_token("s3cret"))


@both
def test_ownership_and_credentials_of_a_job(call: Callable[..., Any]) -> None:
    """I8, J35, J36: a password is in the request and in nothing that could be printed."""
    with FakeApi(ROUTES) as api:
        assert call(api.path, "take_ownership") is Result.S_OK
        assert api.targets()[-1] == "POST /v1/jobs/1/take-ownership"
        assert call(api.path, "set_credentials", openbits.AuthTarget.PROXY, "basic", "anna", "pa55") is Result.S_OK
        assert api.requests[-1].json == {"target": "proxy", "scheme": "basic", "user_name": "anna", "password": "pa55"}
        call(api.path, "set_credentials", "server", openbits.AuthScheme.NEGOTIATE)
        assert api.requests[-1].json["password"] is None
        assert call(api.path, "remove_credentials", "proxy", "basic") is Result.S_FALSE
        assert api.targets()[-1] == "DELETE /v1/jobs/1/credentials?target=proxy&scheme=basic"
    assert "pa55" not in repr(calls.set_credentials("1", "proxy", "basic", "anna", "pa55"))


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("set_credentials", ("origin", "basic", "a", "b"), "BG_E_INVALID_AUTH_TARGET"),
        ("set_credentials", ("server", "kerberos", "a", "b"), "BG_E_INVALID_AUTH_SCHEME"),
        ("remove_credentials", (2, "basic"), "BG_E_INVALID_AUTH_TARGET"),
        ("set_proxy_settings", ("sometimes",), "E_NOTIMPL"),
    ],
)
def test_what_is_no_member_of_an_enumeration_is_refused(name: str, arguments: tuple[Any, ...], error: str) -> None:
    """J22, J35."""
    with FakeApi(ROUTES) as api:
        with pytest.raises(BitsError) as caught:
            call_blocking(api.path, name, *arguments)
        assert caught.value.name == error
        assert [request.method for request in api.requests] == ["GET"]


def test_proxy_settings_of_accounts() -> None:
    """I20, B42, B43: what is not named is kept."""
    with FakeApi(ROUTES) as api:
        manager = openbits.Manager(api.path)
        found = manager.get_account_proxy_settings("LOCALSERVICE")
        assert (found.account, found.usage, found.proxy_list) == ("LOCALSERVICE", None, "p:1")
        usage = openbits.AccountProxyUsage.AUTOSCRIPT
        assert manager.set_account_proxy_settings(usage, script_url="http://w/pac") is Result.S_OK
        assert api.requests[-1].json == {"usage": "autoscript", "script_url": "http://w/pac"}
        assert manager.reset_account_proxy_settings("anna b") is Result.S_OK
        with pytest.raises(BitsError) as caught:
            manager.set_account_proxy_settings("reset")
        assert caught.value.name == "E_INVALIDARG"
        assert api.targets() == [
            "GET /v1/proxy-settings?account=LOCALSERVICE",
            "PUT /v1/proxy-settings",
            "DELETE /v1/proxy-settings?account=anna%20b",
        ]


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


def test_j32_a_reply_that_is_empty_is_none_and_one_that_is_too_large_an_error() -> None:
    empty = Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    large = problem("BG_E_TOO_LARGE", 0x80200020, "the reply has 2000000 bytes", status=413)
    with FakeApi({**ROUTES, "GET /v1/jobs/1/reply/data": [empty, large]}) as api, openbits.Manager(api.path) as manager:
        job = manager.get_job("1")
        assert job.get_reply_data() is None
        with pytest.raises(BitsError, match=r"BG_E_TOO_LARGE.*2000000"):
            job.get_reply_data()


def test_j33_the_name_of_the_reply_goes_as_a_path_or_as_none() -> None:
    with FakeApi(ROUTES) as api, openbits.Manager(api.path) as manager:
        job = manager.get_job("1")
        assert job.set_reply_file_name(pathlib.Path("/srv/r")) is Result.S_OK
        assert job.set_reply_file_name(None) is Result.S_OK
        assert [request.json for request in api.requests[1:]] == [{"file_name": "/srv/r"}, {"file_name": None}]


def test_m7_job_infos_have_their_reply() -> None:
    reply = file_out(index=1, remote_name="", local_name="/srv/r", bytes_total=None)
    info = values.job_from(job_out(type="upload-reply", reply=reply))
    assert info.type is JobType.UPLOAD_REPLY
    assert info.reply is not None
    assert (info.reply.local_name, info.reply.progress.bytes_total) == ("/srv/r", None)
    assert values.job_from(job_out()).reply is None
