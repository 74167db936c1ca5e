"""`bits set-credentials`, `remove-credentials`, `headers`, `get --user`: what they read and send (J35, H5)."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openbits.cli.main import run
from openbits.cli.show import job_lines
from support.fake_api import FakeApi, Reply, event, job_out, problem, settings_out

ID = job_out()["id"]
DONE = Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()})
SECRET = "Tr0ub4dor"
Capture = pytest.CaptureFixture[str]


def routes(**more: Any) -> dict[str, Any]:
    return {
        f"PUT /v1/jobs/{ID}/credentials": DONE,
        f"DELETE /v1/jobs/{ID}/credentials": DONE,
        f"PUT /v1/jobs/{ID}/custom-headers": DONE,
        f"POST /v1/jobs/{ID}/custom-headers/write-only": DONE,
        f"GET /v1/jobs/{ID}/custom-headers": Reply(json={"result": "S_OK", "custom_headers": "X: y\r\nZ: \x1b\r\n"}),
        **more,
    }


def bits(api: FakeApi, *arguments: str) -> int:
    return run(["--socket", api.path, *arguments])


def password_file(tmp_path: Path, content: bytes = SECRET.encode() + b"\n", mode: int = 0o600) -> str:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def refuse_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_nothing(path: str, *more: Any, **others: Any) -> int:
        if path == "/dev/tty":
            raise OSError(6, "No such device or address")
        return real(path, *more, **others)

    real = os.open
    monkeypatch.setattr(os, "open", open_nothing)


def standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def pipe_with(content: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


@pytest.mark.parametrize("content", [SECRET.encode(), SECRET.encode() + b"\n", SECRET.encode() + b"\r\n"])
def test_j35_the_password_from_a_file(tmp_path: Path, capsys: Capture, content: bytes) -> None:
    with FakeApi(routes()) as api:
        arguments = ["--scheme", "basic", "--user", "alice", "--password-file", password_file(tmp_path, content)]
        assert bits(api, "set-credentials", ID, *arguments) == 0
        [request] = api.requests
        assert request.json == {"target": "server", "scheme": "basic", "user_name": "alice", "password": SECRET}
    assert capsys.readouterr() == ("", "")


def test_j35_the_password_from_a_descriptor_and_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--target", "proxy", "--scheme", "digest", "--user", "alice"]
    with FakeApi(routes()) as api:
        fd = pipe_with("pä sswörd\n".encode())
        assert bits(api, "set-credentials", ID, *arguments, "--password-fd", str(fd)) == 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        standard_input(monkeypatch, b"\n")
        assert bits(api, "set-credentials", ID, *arguments, "--password-stdin") == 0
        assert [request.json["password"] for request in api.requests] == ["pä sswörd", ""]
        assert {request.json["target"] for request in api.requests} == {"proxy"}


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"secret", 0o640, "others can read"),
        (b"secret", 0o604, "others can read"),
        (b"secret\nmore\n", 0o600, "more than one line"),
        (b"secret\xff", 0o600, "not UTF-8"),
        (b"secret" * 100_000, 0o600, "more in it than a password"),
    ],
)
def test_j35_what_is_no_password_is_refused_unseen(
    tmp_path: Path, capsys: Capture, content: bytes, mode: int, words: str
) -> None:
    with FakeApi(routes()) as api:
        path = password_file(tmp_path, content, mode)
        arguments = ["--scheme", "basic", "--user", "alice", "--password-file", path]
        assert bits(api, "set-credentials", ID, *arguments) == 2
        assert api.requests == []
    error = capsys.readouterr().err
    assert words in error
    assert "secret" not in error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_j35_a_file_of_another_account_is_no_secret(tmp_path: Path, capsys: Capture) -> None:
    path = password_file(tmp_path)
    os.chown(path, 12345, 12345)
    with FakeApi(routes()) as api:
        assert bits(api, "set-credentials", ID, "--scheme", "ntlm", "--user", "a", "--password-file", path) == 2
    assert "belongs to another account" in capsys.readouterr().err


def test_j35_without_a_terminal_nothing_is_read_by_surprise(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    refuse_terminal(monkeypatch)
    standard_input(monkeypatch, b"not for this\n")
    with FakeApi(routes()) as api:
        assert bits(api, "set-credentials", ID, "--scheme", "basic", "--user", "alice") == 2
        assert "there is no terminal to ask" in capsys.readouterr().err
        assert bits(api, "set-credentials", ID, "--scheme", "basic") == 2
        assert "give --user NAME" in capsys.readouterr().err
        assert api.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--implicit", "--user", "alice"),
        ("--implicit", "--password-stdin"),
        ("--user", "alice", "--password-stdin", "--password-fd", "7"),
    ],
)
def test_j35_contradictions(capsys: Capture, arguments: tuple[str, ...]) -> None:
    with FakeApi(routes()) as api:
        assert bits(api, "set-credentials", ID, "--scheme", "ntlm", *arguments) == 2
        assert api.requests == []
    assert capsys.readouterr().err.startswith("bits: E_INVALIDARG")


def test_j35_implicit_and_j36(capsys: Capture) -> None:
    gone = Reply(json={"result": "S_FALSE", "hresult": 1, "job": job_out()})
    with FakeApi(routes(**{f"DELETE /v1/jobs/{ID}/credentials": [DONE, gone]})) as api:
        assert bits(api, "set-credentials", ID, "--scheme", "negotiate", "--implicit", "--json") == 0
        assert json.loads(capsys.readouterr().out)["result"] == "S_OK"
        assert api.requests[0].json == {
            "target": "server",
            "scheme": "negotiate",
            "user_name": None,
            "password": None,
        }
        for _ in range(2):
            assert bits(api, "remove-credentials", ID, "--target", "proxy", "--scheme", "negotiate") == 0
        assert api.requests[1].query == {"target": "proxy", "scheme": "negotiate"}
    assert "S_FALSE" in capsys.readouterr().err


def test_h5_h6_h11(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "headers"
    path.write_text("X: y\n\nAuthorization: Bearer t\r\n", encoding="ascii")
    with FakeApi(routes()) as api:
        assert bits(api, "headers", ID) == 0
        assert capsys.readouterr().out == "X: y\nZ: \\x1b\n"
        assert bits(api, "headers", ID, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"result": "S_OK", "custom_headers": "X: y\r\nZ: \x1b\r\n"}
        assert bits(api, "headers", ID, "--file", str(path), "--write-only") == 0
        assert bits(api, "headers", ID, "--clear") == 0
        assert bits(api, "headers", ID, "--clear", "--file", str(path)) == 2
        sent = [(request.method, request.path.rpartition("/")[2], request.body) for request in api.requests[2:]]
    assert sent == [
        ("PUT", "custom-headers", b'{"custom_headers":"X: y\\r\\nAuthorization: Bearer t\\r\\n"}'),
        ("POST", "write-only", b""),
        ("PUT", "custom-headers", b'{"custom_headers":null}'),
    ]


def get_routes(credentials: Reply | list[Reply] = DONE) -> dict[str, Any]:
    transferred = job_out(state="TRANSFERRED")
    done = job_out(state="ACKNOWLEDGED", result="S_OK")
    return {
        "POST /v1/jobs": Reply(status=201, json={"id": ID}),
        f"PUT /v1/jobs/{ID}/credentials": credentials,
        f"POST /v1/jobs/{ID}/resume": DONE,
        f"POST /v1/jobs/{ID}/cancel": DONE,
        "GET /v1/events": Reply(parts=(event("snapshot", transferred),)),
        f"POST /v1/jobs/{ID}/complete": Reply(json={"result": "S_OK", "hresult": 0, "job": done}),
    }


def arguments_of(tmp_path: Path) -> list[str]:
    path = password_file(tmp_path)
    return ["get", "-q", "--user", "alice", "--password-file", path, "-o", str(tmp_path / "a"), "http://h/a"]


def test_get_as_somebody_runs_only_when_the_password_is_there(tmp_path: Path) -> None:
    with FakeApi(get_routes()) as api:
        assert bits(api, *arguments_of(tmp_path)) == 0
        assert api.requests[0].json["resume"] is False
        given = [request.json for request in api.requests if request.path.endswith("/credentials")]
        assert [each["scheme"] for each in given] == ["negotiate", "ntlm", "digest", "basic"]
        assert {(each["target"], each["user_name"], each["password"]) for each in given} == {
            ("server", "alice", SECRET)
        }
        assert api.requests[5].path.endswith("/resume")


def test_get_as_somebody_leaves_no_job_behind_that_has_no_password(tmp_path: Path, capsys: Capture) -> None:
    refusal = problem("BG_E_PASSWORD_TOO_LARGE", 0x80200026, "too long")
    with FakeApi(get_routes([DONE, refusal])) as api:
        assert bits(api, *arguments_of(tmp_path)) == 2
        assert api.requests[-1].path.endswith("/cancel")
    assert "BG_E_PASSWORD_TOO_LARGE" in capsys.readouterr().err


def test_get_with_a_password_and_nobody_it_is_of(tmp_path: Path, capsys: Capture) -> None:
    with FakeApi(get_routes()) as api:
        arguments = [each for each in arguments_of(tmp_path) if each not in ("--user", "alice")]
        assert bits(api, *arguments) == 2
        assert api.requests == []
    assert "give --user" in capsys.readouterr().err


def test_get_json_does_not_repeat_the_password_of_a_url(tmp_path: Path, capsys: Capture) -> None:
    with FakeApi(get_routes()) as api:
        assert bits(api, "get", "-q", "--json", "-o", str(tmp_path / "a"), f"http://u:{SECRET}@h/a") == 0
        assert api.requests[0].json["files"][0]["remote_name"] == f"http://u:{SECRET}@h/a"
    captured = capsys.readouterr()
    assert json.loads(captured.out)["files"][0]["remote_name"] == "http://***@h/a"
    assert SECRET not in captured.out + captured.err
    assert "every account can see the password" in captured.err


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: {"headers_are_write_only": True, "settings": settings_out(custom_headers=None)}, "(write-only)"),
        (lambda: {"settings": settings_out(custom_headers=None)}, "none"),
        (lambda: {"settings": settings_out()}, "X-One: 1"),
    ],
)
def test_h11_show_says_that_they_are_hidden(make: Callable[[], dict[str, Any]], shown: str) -> None:
    [line] = [line for line in job_lines(job_out(**make()), "why") if line.startswith("custom_headers:")]
    assert line.split(maxsplit=1)[1] == shown
