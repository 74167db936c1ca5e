"""Security flags with everything real: command line, daemon, an account, servers with faulty certificates (H7, H8)."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.ca import CLIENT, Authority, bundle
from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Connection, Origin, Request, generate

pytestmark = needs_root

PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
ROOT, STRANGER = Authority("root"), Authority("stranger")
PREFIX = "ERROR_WINHTTP_SECURE_"
HALF = 3_000_000
SIZE = 2 * HALF


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        trusted = bundle(Path(directory) / "ca.pem", ROOT)
        os.chmod(trusted, 0o644)
        mount = f'mount --bind {trusted} /etc/ssl/certs/ca-certificates.crt && exec "$@"'
        with running_daemon("system", prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as running:
            yield running


@dataclass(kw_only=True)
class Person:
    """Somebody at a shell."""

    account: TestAccount
    daemon: Daemon

    def add(self, url: str, flags: str) -> str:
        job = self.daemon.bits("create", "flagged", account=self.account, check=True).stdout.strip()
        path = f"{self.account.home}/{job}"
        self.daemon.bits("add", job, url, path, account=self.account, check=True)
        if flags:
            self.set(job, flags)
        return job

    def set(self, job: str, flags: str) -> None:
        self.daemon.bits("set", job, f"security_flags={flags}", account=self.account, check=True)

    def resume(self, job: str) -> str:
        """Return the state that the job comes to, or its error."""
        self.daemon.bits("resume", job, account=self.account, check=True)
        self.daemon.bits("wait", job, account=self.account)
        shown = self.daemon.show(job)
        return str(shown["error"]["code"] if shown["error"] else shown["state"])

    def complete(self, job: str) -> bytes:
        self.daemon.bits("complete", job, account=self.account, check=True)
        return Path(self.account.home, job).read_bytes()


@pytest.fixture
def person(daemon: Daemon, alice: TestAccount) -> Person:
    return Person(account=alice, daemon=daemon)


@pytest.mark.parametrize(
    ("fault", "word", "error"),
    [
        ("expired", "ssl_ignore_cert_date_invalid", "CERT_DATE_INVALID"),
        ("unknown", "ssl_ignore_unknown_ca", "INVALID_CA"),
        ("elsewhere", "ssl_ignore_cert_cn_invalid", "CERT_CN_INVALID"),
        ("usage", "ssl_ignore_cert_wrong_usage", "CERT_WRONG_USAGE"),
    ],
)
def test_h7_from_the_error_to_the_flag_to_the_file(
    person: Person, tmp_path: Path, fault: str, word: str, error: str
) -> None:
    certified = {
        "expired": ROOT.issue(not_after=PAST),
        "unknown": STRANGER.issue(),
        "elsewhere": ROOT.issue("elsewhere.test"),
        "usage": ROOT.issue(usages=(CLIENT,)),
    }[fault]
    with Origin(tls=certified.server_context(tmp_path)) as origin:
        job = person.add(origin.url("/gen/70000/1"), "")
        assert person.resume(job) == PREFIX + error
        assert person.daemon.show(job)["state"] == "ERROR"
        others = {0x2, 0x4, 0x8, 0x10} - {_FLAGS[word]}
        person.set(job, str(sum(others)))
        assert person.resume(job) == PREFIX + error
        assert origin.requests == []
        person.set(job, word)
        assert person.resume(job) == "TRANSFERRED"
        assert person.complete(job) == generate(70_000, 1)


_FLAGS = {
    "ssl_ignore_cert_cn_invalid": 0x2,
    "ssl_ignore_cert_date_invalid": 0x4,
    "ssl_ignore_unknown_ca": 0x8,
    "ssl_ignore_cert_wrong_usage": 0x10,
}


def _publish(lists: Origin, name: str, content: bytes) -> str:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)

    lists.serve(name, answer)
    return lists.url(name)


def test_h8_a_revoked_certificate_is_an_error_and_the_list_is_fetched_by_the_account(
    person: Person, tmp_path: Path
) -> None:
    with Origin() as lists:
        server = ROOT.issue(crl_urls=[lists.url("/list.crl")])
        _publish(lists, "/list.crl", ROOT.crl(server.certificate))
        with Origin(tls=server.server_context(tmp_path)) as origin:
            job = person.add(origin.url("/gen/7000/1"), "ssl_enable_crl_check")
            assert person.resume(job) == PREFIX + "CERT_REVOKED"
            assert person.daemon.show(job)["state"] == "ERROR"
            assert origin.requests == []
            assert len(lists.requests) == 1


def test_h8_who_enables_the_check_in_the_middle_begins_the_file_again(person: Person, tmp_path: Path) -> None:
    content, sent = generate(SIZE, 1), threading.Event()

    def answer(request: Request, connection: Connection) -> None:
        head = f'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: {SIZE}\r\n\r\n'.encode()
        if sent.is_set():
            connection.send(head + content)
            return
        connection.send(head + content[:HALF])
        sent.set()
        connection.origin.closing.wait(60)

    with Origin() as lists:
        server = ROOT.issue(crl_urls=[lists.url("/list.crl")])
        _publish(lists, "/list.crl", ROOT.crl())
        with Origin(tls=server.server_context(tmp_path)) as origin:
            origin.serve("/half", answer)
            job = person.add(origin.url("/half"), "")
            person.daemon.bits("resume", job, account=person.account, check=True)
            assert sent.wait(60)
            person.daemon.bits("suspend", job, account=person.account, check=True)
            wait_until(lambda: person.daemon.show(job)["bytes_transferred"], "what was received to be written down")
            person.set(job, "ssl_enable_crl_check")
            assert person.daemon.show(job)["bytes_transferred"] == 0
            assert person.resume(job) == "TRANSFERRED"
            assert [request.range for request in origin.requests] == [None, None]
            assert len(lists.requests) == 1
            assert person.complete(job) == content
