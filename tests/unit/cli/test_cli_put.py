"""`bits put`, `bits reply` and what other commands say of uploads, against a stand-in for the service."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.cli import targets
from openbits.cli.main import run
from openbits.cli.show import job_lines
from support.fake_api import FakeApi, Reply, Request, event, file_out, job_out, problem, settings_out

ID = job_out()["id"]
Capture = pytest.CaptureFixture[str]
REPLY = file_out(
    index=1, remote_name="", local_name="/srv/receipt", bytes_total=7, bytes_transferred=7, transferred=True
)


def upload_out(**changes: Any) -> dict[str, Any]:
    return job_out(type="upload", **changes)


def put_routes(job: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    transferred = {**job, "state": "TRANSFERRED"}
    done = {**job, "state": "ACKNOWLEDGED", "result": "S_OK"}
    return {
        "POST /v1/jobs": Reply(status=201, json={"id": ID}),
        "GET /v1/events": Reply(parts=(event("snapshot", transferred),)),
        f"POST /v1/jobs/{ID}/complete": Reply(json={"result": "S_OK", "hresult": 0, "job": done}),
        f"GET /v1/jobs/{ID}/why": Reply(json={"gate": "none", "sentence": "s", "until": None}),
        **more,
    }


def bits(api: FakeApi, *arguments: str) -> int:
    return run(["--socket", api.path, *arguments])


def test_put_creates_waits_completes_and_prints_the_url(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call creates the whole job (J1, J5); a relative path is the client's affair (D7)."""
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FakeApi(put_routes(upload_out())) as api:
        arguments = ["put", "in/a.bin", "http://u:secret@h/in/", "--priority", "low", "--header", "X: y", "-q"]
        assert bits(api, *arguments, "--protocol", "tus", "--retry-delay", "60", "--name", "n") == 0
        captured = capsys.readouterr()
        assert captured.out == "http://***@h/in/a.bin\n"
        warning, place = captured.err.splitlines()
        assert "every account can see the password in the URL" in warning
        assert place == "bits: the file goes to http://***@h/in/a.bin"
        assert "secret" not in captured.err
        job = api.requests[0].json
        assert api.targets() == ["POST /v1/jobs", f"GET /v1/events?job={ID}", f"POST /v1/jobs/{ID}/complete"]
    assert (job["name"], job["type"], job["resume"]) == ("n", "upload", True)
    assert "reply_file_name" not in job
    assert job["files"] == [{"remote_name": "http://u:secret@h/in/a.bin", "local_name": f"{tmp_path}/in/a.bin"}]
    del job["settings"]["umask"]
    assert job["settings"] == {
        "priority": "low",
        "minimum_retry_delay": 60,
        "custom_headers": "X: y\r\n",
        "upload_protocol": "tus",
    }


def test_put_asks_the_server_unless_a_protocol_is_named(capsys: Capture) -> None:
    with FakeApi(put_routes(upload_out())) as api:
        assert bits(api, "put", "/f", "http://h/f", "-q") == 0
        assert "upload_protocol" not in api.requests[0].json["settings"]
        assert capsys.readouterr().err == "", "nothing to say of a URL that is complete"


def test_put_takes_the_proxies_of_the_shell_and_says_so(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 7: a client may, as 'bits get' does."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    with FakeApi(put_routes(upload_out())) as api:
        assert bits(api, "put", "/f", "http://h/f", "-q") == 0
        assert api.requests[0].json["settings"]["proxy_list"] == "http=proxy:3128"
        assert "http=proxy:3128" in capsys.readouterr().err
        assert bits(api, "put", "/f", "http://h/f", "-q", "--no-proxy-env") == 0
        assert "proxy_list" not in api.requests[-3].json["settings"]


def test_put_with_a_reply_is_an_upload_reply_job_and_prints_the_path(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replied = job_out(type="upload-reply", reply={**REPLY, "local_name": f"{tmp_path}/r"})
    with FakeApi(put_routes(replied)) as api:
        assert bits(api, "put", "/f", "http://h/f", "--reply", "r", "-q") == 0
        assert capsys.readouterr().out == f"{tmp_path}/r\n"
        job = api.requests[0].json
        assert (job["type"], job["reply_file_name"]) == ("upload-reply", f"{tmp_path}/r")
        assert bits(api, "put", "/f", "http://h/f", "--reply", "r", "-q", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["reply"]["local_name"] == f"{tmp_path}/r"
        assert shown["files"] == [{"remote_name": "http://h/f", "local_name": "/f"}]


def test_put_says_that_the_server_has_everything_and_has_not_answered(capsys: Capture) -> None:
    """An application behind the server may take minutes (U30)."""
    hold = threading.Event()

    def why(_: Request) -> Reply:
        hold.set()
        return Reply(json={"gate": "server", "sentence": "the server has all bytes", "until": None})

    whole = event("snapshot", upload_out(bytes_transferred=2048))
    parts = (whole, event("snapshot", upload_out(state="TRANSFERRED", bytes_transferred=2048)))
    more = {"GET /v1/events": Reply(parts=parts, wait=hold), f"GET /v1/jobs/{ID}/why": why}
    with FakeApi(put_routes(upload_out(), **more)) as api:
        assert bits(api, "put", "/f", "http://h/f") == 0
    assert "f: waiting: the server has all bytes" in capsys.readouterr().err


def test_put_async_prints_the_id(capsys: Capture) -> None:
    with FakeApi(put_routes(upload_out())) as api:
        assert bits(api, "put", "/f", "http://h/f", "--async") == 0
        assert capsys.readouterr() == (f"{ID}\n", "")


def test_put_of_a_job_that_failed_has_status_1(capsys: Capture) -> None:
    error = {
        "code": "BG_E_LOCAL_FILE_CHANGED",
        "hresult": 0x8020001D,
        "context": "LOCAL_FILE",
        "context_code": 4,
        "message": "/f was changed while it was sent",
        "protocol": "http",
        "file": 0,
        "remote_name": None,
        "local_name": "/f",
    }
    failed = upload_out(state="ERROR", error=error)
    with FakeApi(put_routes(upload_out(), **{"GET /v1/events": Reply(parts=(event("snapshot", failed),))})) as api:
        assert bits(api, "put", "/f", "http://h/f", "-q") == 1
        assert "BG_E_LOCAL_FILE_CHANGED (0x8020001d): /f was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["put", "/f"],
        ["put", "/f", "h/in"],
        ["put", "/f", "/in"],
        ["put", "/f", "http://h/f", "--protocol", "ftp"],
        ["put", "/f", "http://h/f", "--reply", "/"],
        ["put", "/f", "http://h/f", "--reply", ""],
        ["put", "/f", "http://h/f", "--header", "no colon"],
        ["set", ID, "reply_file_name=/r", "priority=low"],
    ],
)
def test_wrong_usage_has_status_2_and_asks_nothing(capsys: Capture, arguments: list[str]) -> None:
    with FakeApi({}) as api:
        assert bits(api, *arguments) == 2
        assert api.requests == []
    assert capsys.readouterr().err.startswith("bits: E_INVALIDARG")


# --- where a file goes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "target"),
    [
        ("http://h/in/x", "/a/b", "http://h/in/x"),
        ("http://h/in/", "/a/b c", "http://h/in/b%20c"),
        ("http://h", "/a/b", "http://h/b"),
        ("http://h?q=/", "/a/b", "http://h/b?q=/"),
        ("http://h/in/?q=1", "/a/b", "http://h/in/b?q=1"),
        ("http://h/in?q=/", "/a/b", "http://h/in?q=/"),
        ("http://h/in/", os.fsdecode(b"/a/\xff%?#;"), "http://h/in/%FF%25%3F%23%3B"),
        ("http://h/in/", "/a/ä", "http://h/in/%C3%A4"),
        ("file:///srv/in/", "/a/b", "file:///srv/in/b"),
    ],
)
def test_a_url_that_ends_in_a_slash_gets_the_name_of_the_file(url: str, path: str, target: str) -> None:
    assert targets.upload_url(url, path) == target


@given(st.binary(min_size=1).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_becomes_one_segment(name: bytes) -> None:
    target = targets.upload_url("http://h/in/", "/a/" + os.fsdecode(name))
    segment = target.removeprefix("http://h/in/")
    assert segment.isascii()
    assert not set(segment) & set("/?#")


def test_a_place_without_a_scheme_is_no_url() -> None:
    with pytest.raises(click.UsageError, match="no scheme"):
        targets.upload_url("h/in/", "/a/b")


# --- replies, and what other commands say -------------------------------------------------------------------


def test_j32_reply_prints_the_bytes_as_they_are(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    content = bytes(range(256))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
    with FakeApi({f"GET /v1/jobs/{ID}/reply/data": Reply(raw=head.encode() + content)}) as api:
        assert bits(api, "reply", ID) == 0
        assert capfdbinary.readouterr().out == content
        assert bits(api, "reply", ID, "--json") == 0
        shown = json.loads(capfdbinary.readouterr().out)
    assert (shown["bytes"], base64.b64decode(shown["base64"])) == (256, content)


def test_j32_an_error_of_reply_is_one_line(capsys: Capture) -> None:
    too_large = problem("BG_E_TOO_LARGE", 0x80200020, "the reply has 1048577 bytes", status=413, exit_code=1)
    with FakeApi({f"GET /v1/jobs/{ID}/reply/data": too_large}) as api:
        assert bits(api, "reply", ID) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bits: BG_E_TOO_LARGE (0x80200020): the reply has 1048577 bytes")


def test_j33_set_reply_file_name_is_a_call_of_its_own(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()})
    with FakeApi({f"PUT /v1/jobs/{ID}/reply": done}) as api:
        assert bits(api, "set", ID, "reply_file_name=r") == 0
        assert bits(api, "set", ID, "reply-file-name=none") == 0
        assert [request.json for request in api.requests] == [{"file_name": f"{tmp_path}/r"}, {"file_name": None}]
    assert capsys.readouterr() == ("", "")


def test_show_says_of_an_upload_what_matters() -> None:
    def lines(**changes: Any) -> str:
        return "\n".join(job_lines({**job_out(**changes), "settings": settings_out()}, "why"))

    plain = lines(type="upload")
    assert "upload_protocol:" in plain
    assert "reply" not in plain
    assert "upload_protocol" not in lines()
    assert "gets its name" in lines(type="upload-reply")
    begun = lines(type="upload-reply", reply=REPLY)
    assert "transferred, 100 % of 7 B" in begun
    assert "/srv/receipt" in begun
    waiting = {**REPLY, "bytes_total": None, "transferred": False}
    assert "waiting, has not begun" in lines(type="upload-reply", reply=waiting)


def test_wait_complete_of_an_upload_prints_where_the_file_went(capsys: Capture) -> None:
    files = [file_out(completed=True, remote_name="http://h/in/f", local_name="/f")]
    routes = put_routes(
        upload_out(),
        **{
            f"GET /v1/jobs/{ID}": Reply(json=upload_out()),
            f"GET /v1/jobs/{ID}/files": Reply(json={"files": files, "next": None}),
        },
    )
    with FakeApi(routes) as api:
        assert bits(api, "wait", ID, "--complete", "-q") == 0
    assert capsys.readouterr().out == "http://h/in/f\n"
