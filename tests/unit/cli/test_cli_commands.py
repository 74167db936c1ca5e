"""The commands against a stand-in for the service: exit statuses, JSON, error lines, and what is asked."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from openbits.cli.main import run
from openbits.cli.watch import print_event
from openbits.client.events import Message
from support.fake_api import FakeApi, Reply, Request, error_out, event, file_out, job_out, problem, settings_out

ID = job_out()["id"]
OTHER = "11112222-2222-3333-4444-555555555555"
DETAIL = {**job_out(), "settings": settings_out()}
WHY = Reply(json={"gate": "retry", "sentence": "the server sent nothing", "until": "2026-01-02T03:04:05Z"})
Capture = pytest.CaptureFixture[str]


def jobs(*items: dict[str, Any]) -> Reply:
    return Reply(json={"jobs": list(items), "next": None})


def done(**changes: Any) -> Reply:
    return Reply(json={"result": "S_OK", "hresult": 0, "job": job_out(**changes)})


def bits(api: FakeApi, *arguments: str) -> int:
    return run(["--socket", api.path, *arguments])


def test_list_is_a_table_or_an_array(capsys: Capture) -> None:
    """M3; names cannot harm the terminal (A8)."""
    with FakeApi({"GET /v1/jobs": jobs(job_out(name="evil\x1b[2J"))}) as api:
        assert bits(api, "list") == 0
        out = capsys.readouterr().out
        assert re.search(
            r"^11111111  evil\\x1b\[2J  TRANSFERRING  normal +25 % of 2\.0 KiB  0/1 +anna$", out, re.MULTILINE
        )
        assert bits(api, "list", "--json") == 0
        out = capsys.readouterr().out
        assert json.loads(out) == [job_out(name="evil\x1b[2J")]
        assert "\x1b" not in out


def test_socket_may_stand_before_or_after_the_command(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApi({"GET /v1/jobs": jobs()}) as api:
        assert run(["--socket", api.path, "list", "--json"]) == 0
        assert run(["--socket", "/nonexistent", "list", "--json", "--socket", api.path]) == 0
        monkeypatch.setenv("BITS_SOCKET", api.path)
        assert run(["list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n" * 3


@pytest.mark.parametrize(
    ("code", "hresult", "detail", "status", "line"),
    [
        ("BG_E_EMPTY", 0x80200003, "the job has no files: add one with 'bits add'", 6, None),
        ("BG_E_NOT_FOUND", 0x80200001, "there is no such job", 3, None),
        ("E_ACCESSDENIED", 0x80070005, "it is anna's\x1b[2J job", 4, r"it is anna's\x1b[2J job"),
        ("BG_E_INVALID_STATE", 0x80200002, "the job is\nCANCELLED", 6, "the job is CANCELLED"),
    ],
)
def test_errors_are_one_line_with_name_and_number(
    code: str, hresult: int, detail: str, status: int, line: str | None, capsys: Capture
) -> None:
    with FakeApi({f"POST /v1/jobs/{ID}/resume": problem(code, hresult, detail)}) as api:
        assert bits(api, "resume", ID) == status
    assert capsys.readouterr() == ("", f"bits: {code} ({hresult:#010x}): {line or detail}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["get"],
        ["get", "http://h/a", "http://h/b", "-o", "x"],
        ["set", "x"],
        ["get", "example.org"],
    ],
)
def test_wrong_usage_is_status_2_and_one_line(arguments: list[str], capsys: Capture) -> None:
    assert run(["--socket", "/nonexistent", *arguments]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"bits: E_INVALIDARG \(0x80070057\): .* --help'\n", err)


def test_no_service_is_status_5(capsys: Capture) -> None:
    assert run(["--socket", "/nonexistent", "list"]) == 5
    assert capsys.readouterr().err.startswith(
        "bits: ERROR_SERVICE_NOT_ACTIVE (0x80070426): no service answers at /nonex"
    )


def test_a_named_socket_is_never_started_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError

    monkeypatch.setattr("openbits.client.autostart.start_user_service", never)
    monkeypatch.setenv("BITS_SOCKET", "/nonexistent")
    assert run(["get", "http://h/a"]) == 5
    assert run(["create", "x"]) == 5
    monkeypatch.delenv("BITS_SOCKET")
    assert run(["--socket", "/nonexistent", "get", "http://h/a"]) == 5
    capsys.readouterr()


@pytest.mark.parametrize("reference", [ID, ID.upper(), f"{{{ID}}}", "11111", "kernel", "1111111"])
def test_a_job_is_found_by_id_prefix_or_name(reference: str, capsys: Capture) -> None:
    routes = {"GET /v1/jobs": jobs(job_out(), job_out(id=OTHER, name="other")), f"POST /v1/jobs/{ID}/suspend": done()}
    with FakeApi(routes) as api:
        assert bits(api, "suspend", reference) == 0
    assert capsys.readouterr() == ("", "")


def test_an_ambiguous_job_is_wrong_usage_with_the_candidates(capsys: Capture) -> None:
    with FakeApi({"GET /v1/jobs": jobs(job_out(), job_out(id=OTHER, name="kernel"))}) as api:
        for reference in ("1111", "kernel"):
            assert bits(api, "suspend", reference) == 2
            err = capsys.readouterr().err
            assert ID in err
            assert OTHER in err


def test_a_queued_job_goes_before_one_that_has_left_the_queue(capsys: Capture) -> None:
    old = job_out(id=OTHER, state="ACKNOWLEDGED")
    with FakeApi({"GET /v1/jobs": jobs(old, job_out()), f"POST /v1/jobs/{ID}/suspend": done()}) as api:
        assert bits(api, "suspend", "kernel") == 0
    assert capsys.readouterr().err == ""


def test_an_unknown_job_is_status_3(capsys: Capture) -> None:
    def answer(request: Request) -> Reply:
        return problem("E_ACCESSDENIED", 0x80070005, "no") if "all_users" in request.query else jobs()

    with FakeApi({"GET /v1/jobs": answer}) as api:
        assert bits(api, "show", "nothing") == 3
    assert capsys.readouterr().err.startswith(
        "bits: BG_E_NOT_FOUND (0x80200001): no job has the id or the name 'nothing'"
    )


def test_an_administrator_finds_other_accounts_jobs(capsys: Capture) -> None:
    def answer(request: Request) -> Reply:
        return jobs(job_out()) if "all_users" in request.query else jobs()

    with FakeApi({"GET /v1/jobs": answer, f"POST /v1/jobs/{ID}/cancel": done()}) as api:
        assert bits(api, "cancel", "kernel") == 0
    capsys.readouterr()


def test_success_with_a_remark_is_said(capsys: Capture) -> None:
    partial = Reply(json={"result": "BG_S_PARTIAL_COMPLETE", "hresult": 0x00200017, "job": job_out()})
    with FakeApi({f"POST /v1/jobs/{ID}/complete": partial}) as api:
        assert bits(api, "complete", ID) == 0
        assert capsys.readouterr().err.startswith("bits: BG_S_PARTIAL_COMPLETE (0x00200017): only the files")
        assert bits(api, "complete", ID, "--json") == 0
        assert json.loads(capsys.readouterr().out)["result"] == "BG_S_PARTIAL_COMPLETE"


def test_create_add_and_set_send_what_was_said(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    routes = {
        "POST /v1/jobs": Reply(status=201, json={"id": ID}),
        f"POST /v1/jobs/{ID}/files": done(),
        f"PATCH /v1/jobs/{ID}": done(),
    }
    with FakeApi(routes) as api:
        assert bits(api, "create", "kernel", "--priority", "low", "--description", "text") == 0
        assert capsys.readouterr().out == f"{ID}\n"
        assert bits(api, "create", "kernel", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"id": ID}
        assert bits(api, "add", ID, "http://h/a", "sub/a", "--range", "0:5", "--range", "9:eof") == 0
        assert bits(api, "set", ID, "priority=high", "no_progress_timeout=60") == 0
        created, _, added, changed = [request.json for request in api.requests]
    assert (created["name"], created["type"]) == ("kernel", "download")
    assert created["settings"]["priority"] == "low"
    assert created["settings"]["description"] == "text"
    assert 0 <= created["settings"]["umask"] <= 0o777
    ranges = [{"offset": 0, "length": 5}, {"offset": 9, "length": -1}]
    assert added == {"files": [{"remote_name": "http://h/a", "local_name": f"{tmp_path}/sub/a", "ranges": ranges}]}
    assert changed == {"priority": "high", "no_progress_timeout": 60}


def test_show_says_everything(capsys: Capture) -> None:
    """J8–J21, E1–E5, F1–F3; and what the server cannot do."""
    detail = {**DETAIL, "state": "TRANSIENT_ERROR", "error": error_out(message="no\x1b[2J")}
    files = [file_out(resumable=False, restarts=2, ranges=[{"offset": 0, "length": 5}])]
    routes = {
        f"GET /v1/jobs/{ID}": Reply(json=detail),
        f"GET /v1/jobs/{ID}/files": Reply(json={"files": files, "next": None}),
        f"GET /v1/jobs/{ID}/why": WHY,
    }
    with FakeApi(routes) as api:
        assert bits(api, "show", ID) == 0
        out = capsys.readouterr().out
        assert bits(api, "show", ID, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {**detail, "files": files}
    for words in (
        ID,
        "TRANSIENT_ERROR",
        "the server sent nothing",
        "anna (uid 1000, USER)",
        r"BG_E_HTTP_ERROR_404 (0x80190194): no\x1b[2J",
        "umask:",
        " 022\n",
        "X-One: 1",
        "note: the server cannot resume http://host/kernel: an interruption starts it from zero",
        "began again (2 in all)",
        "/srv/kernel",
    ):
        assert words in out


def test_why_is_one_sentence(capsys: Capture) -> None:
    with FakeApi({f"GET /v1/jobs/{ID}/why": WHY}) as api:
        assert bits(api, "why", ID) == 0
        assert re.fullmatch(r"the server sent nothing \(next attempt at .*\)\n", capsys.readouterr().out)
        assert bits(api, "why", ID, "--json") == 0
        assert json.loads(capsys.readouterr().out)["gate"] == "retry"


def state_event(state: str, event_id: int, **changes: Any) -> bytes:
    job = job_out(state=state, **changes)
    data = {"id": event_id, "time": "2026-01-02T03:04:05Z", "kind": "state", "job_id": ID, "text": "", "job": job}
    return event("job", data, event_id)


def get_routes(*parts: bytes, **more: Any) -> dict[str, Any]:
    return {
        "POST /v1/jobs": Reply(status=201, json={"id": ID}),
        "GET /v1/events": Reply(parts=parts),
        f"POST /v1/jobs/{ID}/complete": done(state="ACKNOWLEDGED", result="S_OK"),
        **more,
    }


def test_get_creates_waits_completes_and_prints_the_path(capsys: Capture, tmp_path: Path) -> None:
    """J1–J7 in one go."""
    parts = (event("snapshot", job_out(state="QUEUED")), state_event("TRANSFERRED", 5, bytes_transferred=2048))
    with FakeApi(get_routes(*parts)) as api:
        digest = "sha256:" + "ab" * 32
        arguments = ["get", "http://h/a.iso", "-d", str(tmp_path), "--checksum", digest, "--header", "X: y"]
        assert bits(api, *arguments) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{tmp_path}/a.iso\n"
        assert captured.err.splitlines()[0] == "a.iso: started"
        assert "a.iso: 100 %" in captured.err
        job = api.requests[0].json
        assert api.targets() == ["POST /v1/jobs", f"GET /v1/events?job={ID}", f"POST /v1/jobs/{ID}/complete"]
    assert job["resume"] is True
    assert job["files"] == [{"remote_name": "http://h/a.iso", "local_name": f"{tmp_path}/a.iso", "checksum": digest}]
    settings = {key: job["settings"][key] for key in job["settings"] if key != "umask"}
    assert settings == {
        "priority": "foreground",
        "minimum_retry_delay": 5,
        "file_concurrency": 1,
        "custom_headers": "X: y\r\n",
    }


def test_get_of_many_uses_several_connections(capsys: Capture, tmp_path: Path) -> None:
    listing = tmp_path / "list"
    listing.write_bytes(b"http://h/a\nhttp://h/b\t/x/\xffb\n")
    with FakeApi(get_routes(state_event("TRANSFERRED", 5))) as api:
        assert bits(api, "get", "--input-file", str(listing), "-d", "/d", "--json", "--quiet") == 0
        job = api.requests[0].json
    assert job["settings"]["file_concurrency"] == 8
    assert [file["local_name"] for file in job["files"]] == ["/d/a", "/x/\udcffb"]
    captured = capsys.readouterr()
    assert captured.err == ""
    printed = json.loads(captured.out)
    assert printed["state"] == "ACKNOWLEDGED"
    assert printed["files"][1] == {"remote_name": "http://h/b", "local_name": "/x/\udcffb"}


def test_get_async_prints_the_id_and_nothing_else(capsys: Capture) -> None:
    with FakeApi(get_routes()) as api:
        assert bits(api, "get", "http://h/a", "--async") == 0
        assert capsys.readouterr() == (f"{ID}\n", "")
        assert bits(api, "get", "http://h/a", "--async", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"id": ID}


def test_get_of_a_file_that_is_not_there(capsys: Capture) -> None:
    """E1: code, number, context sentence and what to do; status 1 whatever the code."""
    parts = (event("snapshot", job_out(state="QUEUED")), state_event("ERROR", 5, error=error_out()))
    with FakeApi(get_routes(*parts)) as api:
        assert bits(api, "get", "http://h/a", "--quiet") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "bits: BG_E_HTTP_ERROR_404 (0x80190194): the server answered 404 (Not Found): http://host/kernel: "
        f"try again with 'bits resume {ID}', or delete the job with 'bits cancel {ID}'\n"
    )


@pytest.mark.parametrize("code", ["BG_E_INVALID_RANGE", "E_ACCESSDENIED", "BG_E_FROM_THE_FUTURE"])
def test_a_failed_transfer_is_status_1_whatever_its_code(code: str, capsys: Capture) -> None:
    with FakeApi(get_routes(state_event("ERROR", 5, error=error_out(code=code)))) as api:
        assert bits(api, "get", "http://h/a", "--quiet") == 1
    assert code in capsys.readouterr().err


def test_get_says_what_it_waits_for(capsys: Capture) -> None:
    hold = threading.Event()

    def why(_: Request) -> Reply:
        hold.set()
        return WHY

    def events(_: Request) -> Reply:
        return Reply(parts=(state_event("TRANSIENT_ERROR", 4), state_event("TRANSFERRED", 5)), wait=hold)

    routes = get_routes(**{"GET /v1/events": events, f"GET /v1/jobs/{ID}/why": why})
    with FakeApi(routes) as api:
        assert bits(api, "get", "http://h/a") == 0
    assert re.search(r"^a: waiting: the server sent nothing, retry at .*", capsys.readouterr().err, re.MULTILINE)


def test_get_of_a_job_that_somebody_cancelled(capsys: Capture) -> None:
    with FakeApi(get_routes(state_event("CANCELLED", 5))) as api:
        assert bits(api, "get", "http://h/a", "--quiet") == 1
    assert "the job was cancelled" in capsys.readouterr().err


def test_a_failed_complete_says_what_to_do(capsys: Capture) -> None:
    """J7: the job stays, and Complete may be called again."""
    refused = problem("ERROR_FILE_EXISTS", 0x80070050, "something else stands at /a", status=422)
    with FakeApi(get_routes(state_event("TRANSFERRED", 5), **{f"POST /v1/jobs/{ID}/complete": refused})) as api:
        assert bits(api, "get", "http://h/a", "--quiet") == 1
    assert f"'bits complete {ID}' again" in capsys.readouterr().err


def test_wait_ends_with_the_job_or_the_time(capsys: Capture) -> None:
    hold = threading.Event()
    routes = {f"GET /v1/jobs/{ID}": Reply(json=DETAIL), **get_routes(state_event("TRANSFERRED", 5))}
    with FakeApi(routes) as api:
        assert bits(api, "wait", ID) == 0
        assert bits(api, "wait", ID, "--json", "-q") == 0
        assert api.targets()[-1].startswith("GET /v1/events")
    assert json.loads(capsys.readouterr().out)["state"] == "TRANSFERRED"
    endless = Reply(parts=(state_event("TRANSFERRING", 5), b": x\n\n"), wait=hold)
    with FakeApi({**routes, "GET /v1/events": endless}) as api:
        assert bits(api, "wait", ID, "--timeout", "0.1") == 1
        hold.set()
    assert "after 0.1 s" in capsys.readouterr().err


def test_wait_can_complete(capsys: Capture) -> None:
    files = Reply(json={"files": [file_out(completed=True), file_out(index=1, local_name="/b")], "next": None})
    routes = {f"GET /v1/jobs/{ID}": Reply(json=DETAIL), f"GET /v1/jobs/{ID}/files": files}
    with FakeApi({**routes, **get_routes(state_event("TRANSFERRED", 5))}) as api:
        assert bits(api, "wait", ID, "--complete", "-q") == 0
    assert capsys.readouterr().out == "/srv/kernel\n"


def test_events_are_lines_or_json_lines(capsys: Capture) -> None:
    parts = (state_event("QUEUED", 1), state_event("TRANSFERRED", 2, name="a\x1bb"))
    with FakeApi({"GET /v1/events": Reply(parts=parts), "GET /v1/jobs": jobs(job_out())}) as api:
        assert bits(api, "events") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(" ", 2)[-1] for line in lines] == [f"{ID[:8]} kernel: state", rf"{ID[:8]} a\x1bb: state"]
        assert bits(api, "events", "--job", "kernel", "--json") == 0
        assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [1, 2]
        assert api.targets()[-1] == f"GET /v1/events?job={ID}&after=0&follow=0"


def test_a_message_as_json_says_what_kind_it_is(capsys: Capture) -> None:
    """A job has a type of its own: it must not hide the message's."""
    print_event(Message("snapshot", job_out()), as_json=True)
    print_event(Message("job", {"id": 1, "job": job_out()}), as_json=True)
    for kind, line in zip(("snapshot", "job"), capsys.readouterr().out.splitlines(), strict=True):
        message = json.loads(line)
        assert (message["type"], message["job"]["id"], message["job"]["type"]) == (kind, ID, "download")


def test_doctor_without_a_service_is_status_5_with_advice(capsys: Capture, tmp_path: Path) -> None:
    assert run(["--socket", str(tmp_path / "none"), "doctor"]) == 5
    out = capsys.readouterr().out
    assert "FAIL  socket (--socket)" in out
    assert "No such file" in out
    assert run(["--socket", str(tmp_path), "doctor", "--json"]) == 5
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["ok"] for check in checks] == [False, False]
    assert "is no socket" in checks[0]["message"]


def test_doctor_compares_versions_and_asks_the_service(capsys: Capture) -> None:
    who = {
        "uid": 0,
        "gid": 0,
        "groups": [],
        "name": "root",
        "kind": "LOCAL_SYSTEM",
        "kind_reason": "uid 0",
        "is_administrator": True,
    }
    routes = {
        "GET /v1/version": Reply(json={"program": "OpenBITS", "version": "9.9", "mode": "system"}),
        "GET /v1/whoami": Reply(json=who),
        "GET /v1/doctor": Reply(json={"checks": [{"name": "store", "ok": True, "message": "whole"}]}),
    }
    with FakeApi(routes) as api:
        assert bits(api, "doctor") == 1
        out = capsys.readouterr().out
    assert "FAIL  version: OpenBITS 9.9" in out
    assert "ok    caller: uid 0 (root): LOCAL_SYSTEM, because uid 0; administrator" in out
    assert "ok    store: whole" in out


def test_version_works_with_and_without_a_service(capsys: Capture) -> None:
    assert run(["--socket", "/nonexistent", "version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["service"] is None
    with FakeApi({"GET /v1/version": Reply(json={"program": "OpenBITS", "version": "1", "mode": "user"})}) as api:
        assert bits(api, "version") == 0
        assert f"OpenBITS 1 (user mode) at {api.path}" in capsys.readouterr().out


def bits_process(api: FakeApi, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "openbits.cli", "--socket", api.path, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_interrupt_leaves_the_job_and_says_how_to_go_on() -> None:
    hold, seen = threading.Event(), threading.Event()

    def events(_: Request) -> Reply:
        seen.set()
        return Reply(parts=(state_event("TRANSFERRING", 5), b": x\n\n"), wait=hold)

    with FakeApi(get_routes(**{"GET /v1/events": events})) as api:
        process = bits_process(api, "get", "http://h/a")
        assert seen.wait(10)
        assert process.stderr is not None
        assert process.stderr.readline() == "a: started\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        hold.set()
    assert process.returncode == 130
    assert out == ""
    assert err == (
        f"bits: the job goes on in the background: follow it with 'bits wait {ID} --complete', "
        f"stop it with 'bits cancel {ID}'\n"
    )


def test_a_reader_that_leaves_is_no_error() -> None:
    many = [job_out(id=f"{number:08}{ID[8:]}") for number in range(5_000)]
    with FakeApi({"GET /v1/jobs": jobs(*many)}) as api:
        process = bits_process(api, "list", "--json")
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "[\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(10) == 141
