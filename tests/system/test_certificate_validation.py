"""H12, 4.6 with everything real: daemon, accounts, nginx with TLS, programs that judge and programs that die."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import openbits
from openbits import BitsError, JobState
from openbits.client import calls, certificates
from openbits.client.discovery import Endpoint
from openbits.client.events import Message
from openbits.client.session import Session
from openbits.client.validation import QuestionStream, request_of
from openbits.errors import ErrorContext
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.ca import Authority, Certified, bundle
from support.daemon import Daemon, running_daemon, wait_until
from support.https_nginx import HttpsNginx, running_https_nginx
from support.upload_server import UploadServer, wait

pytestmark = needs_root

UNJUDGED = "BG_E_SERVER_CERT_VALIDATION_INTERFACE_REQUIRED"
EXAMPLE = Path(__file__).parents[2] / "examples" / "pin_certificates.py"
CONTENT = b"pinned " * 1000
ROOT = Authority("root")
INTERMEDIATE = Authority("intermediate", issuer=ROOT)
OURS, THEIRS = INTERMEDIATE.issue(), INTERMEDIATE.issue(subject=("another",))
WAIT_S = 60.0


def fingerprint(certified: Certified) -> str:
    return hashlib.sha256(certified.certificate.public_bytes(Encoding.DER)).hexdigest()


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
        # The machine's own trust store, in a view of the file system that is the daemon's.
        mount = f'mount --bind {trusted} /etc/ssl/certs/ca-certificates.crt && exec "$@"'
        with running_daemon("system", prefix=("unshare", "--mount", "sh", "-c", mount, "sh")) as running:
            yield running


@pytest.fixture
def server() -> Iterator[HttpsNginx]:
    with running_https_nginx(OURS) as nginx:
        for name in ("one", "two"):
            (nginx.root / name).write_bytes(CONTENT)
        yield nginx


@pytest.fixture
def target(alice: TestAccount) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=alice.home) as directory:
        os.chown(directory, alice.uid, alice.gid)
        yield Path(directory)


@contextmanager
def example(daemon: Daemon, account: TestAccount, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program of examples/, run by an account."""
    source = EXAMPLE.read_text(encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, "BITS_SOCKET": daemon.socket},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def as_alice(daemon: Daemon, alice: TestAccount) -> openbits.Manager:
    """A manager whose jobs are alice's; the test itself is root."""
    with openbits.impersonate(alice.name):
        manager = openbits.Manager(daemon.socket)
        openbits.set_proxy_blanket(manager, openbits.Cloaking.STATIC)
    return manager


def job_of(daemon: Daemon, alice: TestAccount, *files: tuple[str, Path]) -> openbits.Job:
    manager = as_alice(daemon, alice)
    job = manager.create_job("judged")
    with openbits.impersonate(alice.name):
        openbits.set_proxy_blanket(job, openbits.Cloaking.STATIC)
    job.set_minimum_retry_delay(5)
    for url, path in files:
        job.add_file(url, str(path))
    return job


def settled(job: openbits.Job) -> JobState:
    return job.wait((JobState.TRANSFERRED, JobState.ERROR, JobState.TRANSIENT_ERROR), timeout=WAIT_S)


class Judge:
    """A callback that remembers."""

    def __init__(self, word: Any = None) -> None:
        self.word = word
        self.seen: list[tuple[str, bytes, list[bytes]]] = []

    def __call__(self, _job: Any, file: Any, certificate: bytes, chain: list[bytes]) -> Any:
        self.seen.append((file.get_remote_name(), certificate, chain))
        if isinstance(self.word, BaseException):
            raise self.word
        return self.word


def test_46_a_program_accepts_and_is_not_asked_again(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"), (server.url("two"), target / "two"))
    judge = Judge()
    job.set_server_certificate_validation_interface(judge)
    job.resume()
    assert settled(job) is JobState.TRANSFERRED, job.why()
    job.complete()
    assert (target / "one").read_bytes() == (target / "two").read_bytes() == CONTENT
    [(url, certificate, chain)] = judge.seen
    assert url.startswith(server.url(""))
    assert certificate == OURS.certificate.public_bytes(Encoding.DER)
    assert chain[0] == INTERMEDIATE.certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        (BitsError("CERT_E_UNTRUSTEDROOT", "not one of ours"), "CERT_E_UNTRUSTEDROOT"),
        (False, "BG_E_ERROR_CONTEXT_SERVER_CERTIFICATE_CALLBACK"),
        (ValueError("bad luck"), "E_FAIL"),
    ],
)
def test_46_a_refusal_is_a_transient_error_and_nothing_was_sent(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path, word: Any, error: str
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    judge = Judge(word)
    job.set_server_certificate_validation_interface(judge)
    job.resume()
    assert settled(job) is JobState.TRANSIENT_ERROR
    found = job.get_error()
    assert (found.code, found.context) == (error, ErrorContext.SERVER_CERTIFICATE_CALLBACK)
    assert f"127.0.0.1:{server.port}" in found.message
    assert server.requests() == []
    # A refusal is never remembered: the next attempt asks again, and now the word is another one.
    judge.word = None
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    assert len(judge.seen) == 2
    job.cancel()


def test_46_the_system_judges_first_and_its_no_is_final(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    server.show(Authority("stranger").issue())
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    judge = Judge()
    job.set_server_certificate_validation_interface(judge)
    job.resume()
    assert settled(job) is JobState.ERROR
    assert job.get_error().code == "ERROR_WINHTTP_SECURE_INVALID_CA"
    assert judge.seen == []
    # As tuned by the flags: an authority that nobody knows may be overlooked, and then the program is asked (H7).
    job.set_security_flags(openbits.SecurityFlags.BG_SSL_IGNORE_UNKNOWN_CA)
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    assert len(judge.seen) == 1
    job.cancel()


def test_46_another_certificate_of_the_same_server_is_another_question(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    judge = Judge()
    job.set_server_certificate_validation_interface(judge)
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    server.show(THEIRS)
    job.add_file(server.url("two"), str(target / "two"))
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    assert [hashlib.sha256(certificate).hexdigest() for _, certificate, _ in judge.seen] == [
        fingerprint(OURS),
        fingerprint(THEIRS),
    ]
    job.cancel()


def test_46_the_example_pins(daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path) -> None:
    pin = ":".join(f"{byte:02X}" for byte in bytes.fromhex(fingerprint(OURS)))
    with example(daemon, alice, "--pin", pin, server.url("one"), str(target / "one")) as process:
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    assert out.splitlines()[1:] == [f"accepted {fingerprint(OURS)} for {server.url('one')}", "TRANSFERRED"]
    assert (target / "one").read_bytes() == CONTENT
    server.show(THEIRS)
    with example(daemon, alice, "--pin", pin, server.url("two"), str(target / "two")) as process:
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert out.splitlines()[1:] == [f"refused {fingerprint(THEIRS)} for {server.url('two')}", "TRANSIENT_ERROR"]
    assert "TRUST_E_EXPLICIT_DISTRUST" in err
    assert not (target / "two").exists()


def run_as(daemon: Daemon, account: TestAccount, program: str) -> subprocess.Popen[str]:
    """A program of an account's; for the `with` statement."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "BITS_SOCKET": daemon.socket},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
    )


def test_46_a_program_that_is_killed_is_missed_and_another_one_takes_the_job_up(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    program = f"""
import signal, openbits
job = openbits.Manager().create_job("orphan")
job.add_file({server.url("one")!r}, {str(target / "one")!r})
job.set_server_certificate_validation_interface(lambda *_: None)
print(job.id, flush=True)
signal.pause()
"""
    before = count(daemon)
    with run_as(daemon, alice, program) as process:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        assert count(daemon) == before + 1
        assert daemon.show(job)["has_certificate_validator"]
        process.kill()
    wait_until(lambda: count(daemon) == before, "the service to see it go")
    shown = daemon.show(job)
    assert (shown["validates_certificates"], shown["has_certificate_validator"]) == (True, False)
    daemon.bits("resume", job, account=alice, check=True)
    assert daemon.bits("wait", job, account=alice, timeout_s=WAIT_S).returncode == 1
    shown = daemon.show(job)
    assert (shown["state"], shown["error"]["code"]) == ("ERROR", UNJUDGED)
    assert server.requests() == []
    assert "start it again" in daemon.bits("why", job, account=alice, check=True).stdout
    with example(daemon, alice, "--pin", fingerprint(OURS), "--job", job) as process:
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "TRANSFERRED"
    assert (target / "one").read_bytes() == CONTENT


def count(daemon: Daemon) -> int:
    """How many programs judge now."""
    return int(daemon.session.perform(calls.statistics())["certificate_validators"])


def test_46_a_program_that_dies_over_a_question(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    """SIGKILL while it thinks: the service sees it at once and waits no minute."""
    program = f"""
import os, signal, sys, openbits
job = openbits.Manager().create_job("doomed")
job.add_file({server.url("one")!r}, {str(target / "one")!r})
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
job.set_server_certificate_validation_interface(die)
print(job.id, flush=True)
job.resume()
job.wait(timeout=60)
"""
    with run_as(daemon, alice, program) as process:
        out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL
    job = out.strip()
    wait_until(lambda: daemon.show(job)["state"] == "ERROR", "the job to fail", timeout_s=20)
    assert daemon.show(job)["error"]["code"] == UNJUDGED
    daemon.bits("cancel", job, account=alice, check=True)


def test_h12_after_a_restart_of_the_service_the_program_is_missing(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    job.set_server_certificate_validation_interface(Judge())
    os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
    daemon.wait_reachable()
    job.resume()
    assert settled(job) is JobState.ERROR
    assert job.get_error().code == UNJUDGED
    # As the error says: suspend, set, resume.
    with pytest.raises(BitsError, match="BG_E_READ_ONLY_WHEN_JOB_ACTIVE"):
        job.set_server_certificate_validation_interface(Judge())
    job.suspend()
    job.set_server_certificate_validation_interface(Judge())
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    job.cancel()


def test_h12_the_service_ends_without_waiting_for_programs(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    with caplog.at_level("WARNING", "openbits.client"):
        job.set_server_certificate_validation_interface(Judge())
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 2.5
        wait_until(
            lambda: f"nobody checks servers' certificates for job {job.id}" in caplog.text, "the program to know"
        )
    daemon.start()
    job.cancel()


def test_h12_the_last_setter_wins_and_none_clears(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"), (server.url("two"), target / "two"))
    first, second = Judge(), Judge(False)
    job.set_server_certificate_validation_interface(first)
    job.set_server_certificate_validation_interface(second)
    job.resume()
    assert settled(job) is JobState.TRANSIENT_ERROR
    assert (len(first.seen), len(second.seen)) == (0, 1)
    job.suspend()
    assert job.set_server_certificate_validation_interface(None) is openbits.Result.S_OK
    job.resume()
    assert settled(job) is JobState.TRANSFERRED
    assert len(second.seen) == 1
    job.cancel()


def test_h12_with_asyncio(daemon: Daemon, server: HttpsNginx, tmp_path: Path) -> None:
    """Root's own job; the callback is a coroutine function."""
    seen: list[str] = []

    async def judge(_job: Any, file: openbits.aio.File, _certificate: bytes, _chain: list[bytes]) -> bool:
        seen.append(await file.get_remote_name())
        return True

    async def story() -> None:
        async with openbits.aio.Manager(daemon.socket) as manager:
            job = await manager.create_job("asyncio")
            await job.add_file(server.url("one"), str(tmp_path / "one"))
            await job.set_server_certificate_validation_interface(judge)
            await job.resume()
            states = (JobState.TRANSFERRED, JobState.ERROR, JobState.TRANSIENT_ERROR)
            assert await job.wait(states, timeout=WAIT_S) is JobState.TRANSFERRED, await job.why()
            await job.complete()

    asyncio.run(story())
    assert seen == [server.url("one")]
    assert (tmp_path / "one").read_bytes() == CONTENT


def test_46_a_callback_that_hangs_blocks_nobody_else(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    release, asked = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        release.wait(WAIT_S)

    slow = job_of(daemon, alice, (server.url("one"), target / "one"))
    slow.set_server_certificate_validation_interface(hang)
    slow.resume()
    assert asked.wait(WAIT_S)
    other = job_of(daemon, alice, (server.url("two"), target / "two"))
    other.set_priority(openbits.Priority.FOREGROUND)
    other.resume()
    assert settled(other) is JobState.TRANSFERRED
    # And whoever has had enough can stop it.
    slow.suspend()
    assert slow.get_state() is JobState.SUSPENDED
    release.set()
    slow.resume()
    assert settled(slow) is JobState.TRANSFERRED
    for job in (slow, other):
        job.cancel()


def test_46_uploads_ask_too(daemon: Daemon, alice: TestAccount, server: HttpsNginx) -> None:
    os.chmod(server.base, 0o755)
    source = file_of(alice, CONTENT)
    manager = as_alice(daemon, alice)
    job = manager.create_job("upload", openbits.JobType.UPLOAD, {"upload_protocol": "put"})
    with openbits.impersonate(alice.name):
        openbits.set_proxy_blanket(job, openbits.Cloaking.STATIC)
    job.add_file(server.url("up"), source)
    judge = Judge(False)
    job.set_server_certificate_validation_interface(judge)
    job.resume()
    assert settled(job) is JobState.TRANSIENT_ERROR
    assert job.get_error().context is ErrorContext.SERVER_CERTIFICATE_CALLBACK
    assert not (server.root / "up").exists()
    judge.word = True
    job.resume()
    assert settled(job) is JobState.TRANSFERRED, job.why()
    assert (server.root / "up").read_bytes() == CONTENT
    assert [url for url, _, _ in judge.seen] == [server.url("up")] * 2
    job.complete()


def test_46_only_the_program_that_was_asked_answers_and_once(
    daemon: Daemon, alice: TestAccount, server: HttpsNginx, target: Path
) -> None:
    job = job_of(daemon, alice, (server.url("one"), target / "one"))
    session, root = job._session, Session(Endpoint(daemon.socket))
    identity = job._call_identity()
    connection = session.pool.open_stream(request_of(job.id), identity)
    stream = QuestionStream()
    messages: list[Message] = []
    while not messages or messages[-1].type != "question":
        connection.read_some(stream.reader, time.monotonic() + WAIT_S)
        messages += stream.take()
        if len(messages) == 1:
            job.resume()
    name = messages[-1].data["question"]
    assert messages[0].data == {"job_id": job.id, "answer_s": 60}
    for asked, whose, error in (
        (name, None, "E_ACCESSDENIED"),
        ("0" * 32, identity, "E_INVALIDARG"),
        (f"{name}x", identity, "E_INVALIDARG"),
    ):
        with pytest.raises(BitsError) as refused:
            (root if whose is None else session).perform(certificates.answer_question(job.id, asked, None, ""), whose)
        assert refused.value.name == error
    session.perform(certificates.answer_question(job.id, name, None, ""), identity)
    with pytest.raises(BitsError, match="E_INVALIDARG"):
        session.perform(certificates.answer_question(job.id, name, "E_FAIL", ""), identity)
    assert settled(job) is JobState.TRANSFERRED
    connection.close()
    root.close()
    job.cancel()


def test_46_the_server_of_a_cancelled_upload_is_told_by_what_was_accepted(
    daemon: Daemon, alice: TestAccount, tmp_path: Path
) -> None:
    """J6: there is no program any more that could be asked, and none is."""
    with UploadServer(tls=OURS.server_context(tmp_path)) as uploads:
        release = threading.Event()
        uploads.on("Fragment", wait(release))
        manager = as_alice(daemon, alice)
        job = manager.create_job("upload", openbits.JobType.UPLOAD, {"upload_protocol": "bits"})
        with openbits.impersonate(alice.name):
            openbits.set_proxy_blanket(job, openbits.Cloaking.STATIC)
        job.add_file(uploads.url("/in/file"), file_of(alice, CONTENT, "farewell.bin"))
        judge = Judge(True)
        job.set_server_certificate_validation_interface(judge)
        job.resume()
        uploads.wait_for(lambda: "Fragment" in uploads.kinds())
        job.cancel()
        release.set()
        uploads.wait_for(lambda: "Cancel-Session" in uploads.kinds())
        assert len(judge.seen) == 1
