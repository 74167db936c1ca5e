"""Jobs that are redirected, by the command line, the service and a worker (H7, H9, H10, F10)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.origin import Connection, Origin, Request, generate

pytestmark = needs_root

SIZE = 100_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def account() -> Iterator[TestAccount]:
    with temporary_account() as user:
        yield user


@pytest.fixture(scope="module")
def stranger() -> Iterator[TestAccount]:
    with temporary_account() as user:
        yield user


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        yield running


def redirect(origin: Origin, path: str, target: str, status: int = 302) -> str:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(status, b"moved\n", f"Location: {target}\r\n")

    origin.serve(path, answer)
    return origin.url(path)


def new_job(daemon: Daemon, account: TestAccount, url: str, name: str, *properties: str) -> tuple[str, str]:
    job = daemon.bits("create", name, account=account, check=True).stdout.strip()
    path = f"{account.home}/{name}"
    daemon.bits("add", job, url, path, account=account, check=True)
    for each in properties:
        daemon.bits("set", job, each, account=account, check=True)
    daemon.bits("set", job, "custom_headers=Authorization: Bearer secret", account=account, check=True)
    daemon.bits("resume", job, account=account, check=True)
    return job, path


def remote_name(daemon: Daemon, job: str) -> str:
    name: str = daemon.show(job)["files"][0]["remote_name"]
    return name


def test_silent_is_the_default(daemon: Daemon, account: TestAccount, origin: Origin, other: Origin) -> None:
    target = other.url(f"/gen/{SIZE}/1")
    url = redirect(origin, "/silent-one", target)
    job, path = new_job(daemon, account, url, "silent")
    daemon.wait_state(job, "TRANSFERRED")
    assert remote_name(daemon, job) == url
    daemon.bits("complete", job, account=account, check=True)
    with open(path, "rb") as file:
        assert file.read() == generate(SIZE, 1)
    assert "secret" not in str(other.requests[0].headers)


def test_reported_redirects_are_remembered_and_secrets_do_not_follow_the_name(
    daemon: Daemon, account: TestAccount, origin: Origin, other: Origin
) -> None:
    """ALLOW_REPORT: the next run begins where the redirect led, and the job's header stays with the first server."""
    target = other.url(f"/gen/{SIZE}/2?rate=60000")
    url = redirect(origin, "/report-one", target)
    job, path = new_job(daemon, account, url, "report", "security_flags=http_redirect_policy_allow_report")
    daemon.wait_state(job, "TRANSFERRING")
    daemon.wait_job(job, lambda seen: seen["bytes_transferred"] > 0)
    daemon.bits("suspend", job, account=account, check=True)
    assert remote_name(daemon, job) == target
    before = len(origin.requests)
    daemon.kill()
    daemon.start()
    daemon.bits("resume", job, account=account, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=account, check=True)
    with open(path, "rb") as file:
        assert file.read() == generate(SIZE, 2)
    assert len(origin.requests) == before, "the first server is not asked any more"
    assert len(other.requests) >= 2
    assert "secret" not in str([request.headers for request in other.requests])
    assert "the server redirected" in str([event for event in daemon.events() if event["job_id"] == job])


def test_disallowed_redirects_are_errors_that_name_the_target(
    daemon: Daemon, account: TestAccount, origin: Origin, other: Origin
) -> None:
    """DISALLOW: nobody is asked but the server that was named, until the owner resumes the job with its new name."""
    target = other.url(f"/gen/{SIZE}/3")
    job, path = new_job(
        daemon, account, redirect(origin, "/disallow-one", target, 301), "disallow", "security_flags=0x0200"
    )
    seen = daemon.wait_state(job, "ERROR")
    assert seen["error"]["code"] == "BG_E_HTTP_ERROR_301"
    assert target in seen["error"]["message"]
    assert remote_name(daemon, job) == target
    assert not other.requests
    shown = daemon.bits("show", job, "--response-headers", account=account, check=True).stdout
    assert "HTTP/1.1 301" in shown
    assert f"Location: {target}" in shown
    daemon.bits("resume", job, account=account, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=account, check=True)
    with open(path, "rb") as file:
        assert file.read() == generate(SIZE, 3)
    assert "secret" not in str(other.requests[0].headers)


def test_headers_of_answers_are_for_the_owner_and_administrators(
    daemon: Daemon, account: TestAccount, stranger: TestAccount, origin: Origin
) -> None:
    """F10: a cookie may stand there; also of an error, and over a restart."""

    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(404, b"", "Set-Cookie: sid=secret\r\nX-Latin: caf\xe9 \x1b[31m\r\n")

    origin.serve("/gone", answer)
    job, _ = new_job(daemon, account, origin.url("/gone"), "gone")
    daemon.wait_state(job, "ERROR")
    daemon.stop()
    daemon.start()
    for who in (account, None):
        files = json.loads(daemon.bits("show", job, "--json", account=who, check=True).stdout)["files"]
        assert files[0]["response_headers"].startswith("HTTP/1.1 404 ")
        assert "Set-Cookie: sid=secret\r\n" in files[0]["response_headers"]
        shown = daemon.bits("show", job, "--response-headers", account=who, check=True).stdout
        assert "    Set-Cookie: sid=secret\n" in shown
        assert "caf\xe9" in shown
        assert "\x1b" not in shown, "nothing that a server writes steers a terminal"
    refused = daemon.bits("show", job, "--response-headers", account=stranger)
    assert refused.returncode != 0
    assert "sid=secret" not in refused.stdout + refused.stderr
    daemon.bits("cancel", job, account=account, check=True)


def test_a_method_of_the_jobs_own(daemon: Daemon, account: TestAccount, origin: Origin) -> None:
    """H10: asked once, as FOREGROUND; what breaks is an error, and Resume asks for everything again."""
    path = f"/gen/{SIZE}/5"
    job, local = new_job(daemon, account, origin.url(f"{path}?cut=1000&times=1"), "method", "http_method=POST")
    seen = daemon.wait_state(job, "ERROR", "TRANSIENT_ERROR")
    assert seen["state"] == "ERROR"
    assert seen["priority"].lower() == "foreground"
    assert [request.method for request in origin.requests_of(path)] == ["POST"]
    daemon.bits("resume", job, account=account, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=account, check=True)
    with open(local, "rb") as file:
        assert file.read() == generate(SIZE, 5)
    assert [(request.method, request.range) for request in origin.requests_of(path)] == [("POST", None)] * 2
