"""Properties of jobs and files through the real service: J60–J68, F6–F9, with real files and servers."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import openbits
from openbits import BitsError, JobProperty, JobState, Range, Result
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Connection, Origin, Request, generate

pytestmark = needs_root

SIZE = 2_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def directory(tmp_path: Any) -> str:
    return str(tmp_path)


def a_job(daemon: Daemon, url: str, local_name: str, **settings: Any) -> openbits.Job:
    job = openbits.Manager(daemon.socket).create_job("a job", settings={"priority": "foreground", **settings})
    job.add_file(url, local_name)
    return job


def run(job: openbits.Job) -> JobState:
    job.resume()
    return job.wait((JobState.TRANSFERRED, JobState.ERROR, JobState.TRANSIENT_ERROR), timeout=60)


def wait_bytes(daemon: Daemon, job_id: str, count: int) -> None:
    """Wait until so many bytes have come in, durable or not."""
    wait_until(lambda: daemon.show(job_id)["bytes_transferred"] > count, f"{count} bytes to come in")


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# --- high performance (J63) ------------------------------------------------------------------


def test_j63_written_under_its_own_name(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    """No temporary file; usable when the job is TRANSFERRED, before Complete."""
    target = os.path.join(alice.home, "fast")
    job = json.loads(daemon.bits("create", "fast", "--json", account=alice, check=True).stdout)["id"]
    daemon.bits("set", job, "high_performance=true", account=alice, check=True)
    daemon.bits("add", job, origin.url(f"/gen/{SIZE}/1?rate=1500000"), target, account=alice, check=True)
    late = daemon.bits("set", job, "high_performance=false", account=alice)
    assert "BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE" in late.stderr
    daemon.bits("resume", job, account=alice, check=True)
    wait_bytes(daemon, job, 500_000)
    assert os.listdir(alice.home) == ["fast"]
    assert daemon.stored_files(job)[0].durable_bytes == 0, "no progress is written down"
    daemon.wait_state(job, "TRANSFERRED")
    assert content(target) == generate(SIZE, 1)
    assert os.stat(target).st_uid == alice.uid
    assert daemon.show(job)["files"][0]["temporary_name"] == target
    daemon.bits("complete", job, account=alice, check=True)
    assert os.listdir(alice.home) == ["fast"]
    os.unlink(target)


def test_j63_what_was_fetched_stays_when_the_job_is_cancelled_or_fails(
    daemon: Daemon, origin: Origin, directory: str
) -> None:
    """Nothing is cleaned up: that is for whoever asked for it."""
    target = os.path.join(directory, "x")
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/2?rate=1000000"), target, high_performance=True)
    job.resume()
    wait_bytes(daemon, job.id, 400_000)
    assert job.cancel() is Result.S_OK
    assert os.path.getsize(target) > 0
    assert content(target)[:100_000] == generate(SIZE, 2)[:100_000]
    # Another job, whose server fails before it gives anything, leaves what has the name as it is.
    before = content(target)
    failing = a_job(daemon, origin.url(f"/gen/{SIZE}/2?status=404"), target, high_performance=True)
    assert run(failing) is JobState.ERROR
    failing.complete()
    assert content(target) == before


def test_j63_begins_from_zero_after_a_crash(origin: Origin, directory: str) -> None:
    path = f"/gen/{SIZE}/3"
    target = os.path.join(directory, "x")
    with running_daemon("system") as daemon:
        job = a_job(daemon, origin.url(f"{path}?rate=1500000"), target, high_performance=True)
        job.resume()
        wait_bytes(daemon, job.id, 700_000)
        os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
        daemon.wait_reachable()
        daemon.wait_state(job.id, "TRANSFERRED")
        assert content(target) == generate(SIZE, 3)
        assert [request.range for request in origin.requests_of(path)] == [None, None]
        job.complete()


@pytest.mark.parametrize("what", ["link", "hard link", "fifo", "own file"])
def test_j63_never_writes_through_what_has_the_name(daemon: Daemon, origin: Origin, directory: str, what: str) -> None:
    """As Complete does in other jobs, what has the name is replaced; only a file of one's own is overwritten."""
    target, other = os.path.join(directory, "x"), os.path.join(directory, "other")
    with open(other, "wb") as file:
        file.write(b"precious")
    match what:
        case "link":
            os.symlink(other, target)
        case "hard link":
            os.link(other, target)
        case "fifo":
            os.mkfifo(target)
        case _:
            with open(target, "wb") as file:
                file.write(b"old" * SIZE)
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/4"), target, high_performance=True)
    assert run(job) is JobState.TRANSFERRED
    job.complete()
    assert content(target) == generate(SIZE, 4)
    assert not os.path.islink(target)
    assert content(other) == b"precious"


def test_j63_taking_a_job_over_touches_nothing_that_it_has_not_begun(
    daemon: Daemon, origin: Origin, alice: TestAccount
) -> None:
    """I8: the file that has the name is not the job's yet."""
    os.chmod(alice.home, 0o777)
    target = os.path.join(alice.home, "mine")
    job = json.loads(daemon.bits("create", "taken", "--json", account=alice, check=True).stdout)["id"]
    daemon.bits("set", job, "high_performance=true", account=alice, check=True)
    daemon.bits("add", job, origin.url(f"/gen/{SIZE}/5?status=503"), target, account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "TRANSIENT_ERROR")
    with open(target, "wb") as file:
        file.write(b"kept")
    daemon.bits("take-ownership", job, check=True)
    assert content(target) == b"kept"
    assert daemon.show(job)["files"][0]["temporary_name"] == target
    daemon.bits("cancel", job, check=True)
    assert content(target) == b"kept"
    os.unlink(target)


# --- dynamic content and the limit (J62, J64) ------------------------------------------------


@pytest.mark.parametrize(
    "query", ["chunked=1", "length=no", "http10=1&length=no", "ranges=no&head=no", "etag=no&lm=no"]
)
def test_j62_servers_that_tell_nothing(daemon: Daemon, origin: Origin, directory: str, query: str) -> None:
    target = os.path.join(directory, "x")
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/10?{query}"), target, dynamic_content=True)
    assert run(job) is JobState.TRANSFERRED
    job.complete()
    assert content(target) == generate(SIZE, 10)


def test_j62_interrupted_means_from_zero(daemon: Daemon, origin: Origin, directory: str) -> None:
    path = f"/gen/{SIZE}/11"
    job = a_job(daemon, origin.url(f"{path}?rate=2000000"), os.path.join(directory, "x"), dynamic_content=True)
    job.resume()
    wait_bytes(daemon, job.id, 400_000)
    job.suspend()
    assert run(job) is JobState.TRANSFERRED
    assert [request.range for request in origin.requests_of(path)] == [None, None]
    job.cancel()


def test_j62_before_the_first_resume_and_not_with_ranges(daemon: Daemon, origin: Origin, directory: str) -> None:
    job = a_job(daemon, origin.url("/gen/10/12"), os.path.join(directory, "x"))
    assert run(job) is JobState.TRANSFERRED
    for which in (JobProperty.DYNAMIC_CONTENT, JobProperty.MAX_DOWNLOAD_SIZE, JobProperty.ON_DEMAND_MODE):
        with pytest.raises(BitsError, match="BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"):
            job.set_property(which, 5 if which is JobProperty.MAX_DOWNLOAD_SIZE else True)
    job.cancel()
    manager = openbits.Manager(daemon.socket)
    dynamic = manager.create_job("dynamic", settings={"dynamic_content": True})
    with pytest.raises(BitsError, match="BG_E_UNSUPPORTED_JOB_CONFIGURATION"):
        dynamic.add_file_with_ranges(origin.url("/gen/10/12"), os.path.join(directory, "y"), [Range(0, 5)])
    dynamic.cancel()
    for which in (JobProperty.DYNAMIC_CONTENT, JobProperty.HIGH_PERFORMANCE, JobProperty.ON_DEMAND_MODE):
        upload = manager.create_job("upload", openbits.JobType.UPLOAD)
        with pytest.raises(BitsError, match="BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY"):
            upload.set_property(which, True)
        upload.cancel()


@pytest.mark.parametrize("query", ["", "chunked=1", "length=no", "gzip=1"])
def test_j64_the_limit_is_fatal(daemon: Daemon, origin: Origin, directory: str, query: str) -> None:
    """However the server sends it: what counts is what the file would have."""
    url = origin.url(f"/gen/{SIZE}/13?{query}")
    job = a_job(daemon, url, os.path.join(directory, "x"), dynamic_content=True, max_download_size=SIZE - 1)
    assert run(job) is JobState.ERROR
    assert job.get_error().code == "BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED"
    job.cancel()
    enough = a_job(daemon, url, os.path.join(directory, "x"), dynamic_content=True, max_download_size=SIZE)
    assert run(enough) is JobState.TRANSFERRED
    enough.cancel()


def test_j64_a_compressed_answer_counts_as_what_it_becomes(daemon: Daemon, origin: Origin, directory: str) -> None:
    body = gzip.compress(bytes(50_000_000))
    assert len(body) < 100_000

    def bomb(_request: Request, connection: Connection) -> None:
        connection.send_whole(200, body, "Content-Encoding: gzip\r\n")

    origin.serve("/bomb", bomb)
    target = os.path.join(directory, "x")
    job = a_job(daemon, origin.url("/bomb"), target, dynamic_content=True, max_download_size=1_000_000)
    assert run(job) is JobState.ERROR
    assert job.get_error().code == "BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED"
    job.cancel()


def test_j64_across_files_runs_and_interruptions(daemon: Daemon, origin: Origin, directory: str) -> None:
    """The limit is the job's; bytes that were dropped do not count."""
    limit = 2 * SIZE
    job = a_job(
        daemon,
        origin.url(f"/gen/{SIZE}/14?rate=3000000&length=no"),
        os.path.join(directory, "x"),
        dynamic_content=True,
        max_download_size=limit,
    )
    job.add_file(origin.url(f"/gen/{SIZE}/15?chunked=1"), os.path.join(directory, "y"))
    for _ in range(3):
        job.resume()
        wait_bytes(daemon, job.id, 800_000)
        job.suspend()
    assert run(job) is JobState.TRANSFERRED
    job.add_file(origin.url("/gen/1/16"), os.path.join(directory, "z"))
    assert run(job) is JobState.ERROR
    assert job.get_error().code == "BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED"
    job.cancel()


def test_j64_what_is_no_limit(daemon: Daemon) -> None:
    job = openbits.Manager(daemon.socket).create_job("a job")
    for value in (0, -1, 2**63):
        with pytest.raises(BitsError, match="BG_E_MAX_DOWNLOAD_SIZE_INVALID_VALUE"):
            job.set_property(JobProperty.MAX_DOWNLOAD_SIZE, value)
    job.cancel()


# --- properties by number (J60–J68) ----------------------------------------------------------


def test_properties_by_number_and_by_name(daemon: Daemon) -> None:
    job = openbits.Manager(daemon.socket).create_job("a job")
    values: dict[JobProperty, Any] = {
        JobProperty.COST_FLAGS: 0x8000_0003,
        JobProperty.NOTIFICATION_CLSID: "org.example.App",
        JobProperty.DYNAMIC_CONTENT: True,
        JobProperty.HIGH_PERFORMANCE: True,
        JobProperty.MAX_DOWNLOAD_SIZE: 2**40,
        JobProperty.USE_STORED_CREDENTIALS: openbits.AuthTarget.PROXY,
        JobProperty.MINIMUM_NOTIFICATION_INTERVAL_MS: 250,
    }
    for which, value in values.items():
        assert job.set_property(which, value) is Result.S_OK
        assert job.get_property(int(which)) == value
        assert job.get_property(f"BITS_JOB_PROPERTY_{which.name}") == value
        assert job.get_property(which.name.lower()) == value
    assert job.get_property(JobProperty.ON_DEMAND_MODE) is False
    job.set_property(JobProperty.NOTIFICATION_CLSID, None)
    job.set_property(JobProperty.USE_STORED_CREDENTIALS, None)
    assert job.get_property(JobProperty.USE_STORED_CREDENTIALS) is None
    for unknown in (0, 6, 8, 11, "colour"):
        with pytest.raises(BitsError, match="BG_E_UNKNOWN_PROPERTY_ID"):
            job.get_property(unknown)
        with pytest.raises(BitsError, match="BG_E_UNKNOWN_PROPERTY_ID"):
            job.set_property(unknown, 1)
    for which, wrong in ((JobProperty.DYNAMIC_CONTENT, 1), (JobProperty.COST_FLAGS, "much")):
        with pytest.raises(BitsError, match="E_INVALIDARG"):
            job.set_property(which, wrong)
    with pytest.raises(BitsError, match="BG_E_USE_STORED_CREDENTIALS_NOT_SUPPORTED"):
        job.set_property(JobProperty.USE_STORED_CREDENTIALS, openbits.AuthTarget.SERVER)
    job.cancel()


# --- validation and peers (F6–F9) ------------------------------------------------------------


def test_f6_only_the_invalid_file_is_fetched_again(daemon: Daemon, origin: Origin, directory: str) -> None:
    paths = [f"/gen/{SIZE}/2{number}" for number in range(3)]
    job = a_job(daemon, origin.url(f"{paths[0]}?rate=4000000"), os.path.join(directory, "f0"))
    for number in (1, 2):
        job.add_file(origin.url(paths[number]), os.path.join(directory, f"f{number}"))
    files = list(job.enum_files())
    job.resume()
    for file in (files[2],):
        with pytest.raises(BitsError, match="E_PENDING"):
            file.set_validation_state(True)
    job.wait((JobState.TRANSFERRED,), timeout=60)
    assert [file.get_validation_state() for file in files] == [None, None, None]
    files[0].set_validation_state(True)
    assert files[1].set_validation_state(False) is Result.S_OK
    assert job.get_state() is JobState.ERROR
    error = job.get_error()
    assert (error.code, error.file_index) == ("BG_E_VALIDATION_FAILED", 1)
    assert files[1].get_progress().bytes_transferred == 0
    assert files[1].get_validation_state() is False
    with pytest.raises(BitsError, match="E_PENDING"):
        files[1].set_validation_state(True)
    assert run(job) is JobState.TRANSFERRED
    assert [len(origin.requests_of(path)) for path in paths] == [1, 2, 1]
    job.complete()
    for number in range(3):
        assert content(os.path.join(directory, f"f{number}")) == generate(SIZE, 20 + number)
    assert [file.get_validation_state() for file in files] == [True, True, True]


def test_f6_by_bits(daemon: Daemon, origin: Origin, alice: TestAccount) -> None:
    target = os.path.join(alice.home, "checked")
    job = daemon.submit(origin.url(f"/gen/{SIZE}/30"), "-o", target, account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    outcome = daemon.bits("validate", job, "0", "invalid", "--json", account=alice, check=True)
    assert json.loads(outcome.stdout)["job"]["state"] == "ERROR"
    assert "declared invalid" in daemon.bits("show", job, account=alice, check=True).stdout
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("validate", job, "0", "valid", account=alice, check=True)
    assert daemon.bits("validate", job, "7", "valid", account=alice).returncode != 0
    daemon.bits("complete", job, account=alice, check=True)
    assert content(target) == generate(SIZE, 30)
    assert len(origin.requests_of(f"/gen/{SIZE}/30")) == 2


def test_f6_uploads_have_nothing_to_validate(daemon: Daemon, directory: str) -> None:
    source = os.path.join(directory, "source")
    with open(source, "wb") as file:
        file.write(b"x")
    job = openbits.Manager(daemon.socket).create_job("upload", openbits.JobType.UPLOAD)
    job.add_file("http://127.0.0.1:9/x", source)
    with pytest.raises(BitsError, match="E_NOTIMPL"):
        next(iter(job.enum_files())).set_validation_state(True)
    job.cancel()


def test_f8_f9_everything_came_from_the_origin(daemon: Daemon, origin: Origin, directory: str) -> None:
    job = a_job(daemon, origin.url(f"/gen/{SIZE}/31"), os.path.join(directory, "x"))
    [file] = list(job.enum_files())
    assert file.get_peer_download_stats() == openbits.PeerDownloadStats(0, 0)
    assert run(job) is JobState.TRANSFERRED
    assert file.is_downloaded_from_peer() is False
    assert file.get_peer_download_stats() == openbits.PeerDownloadStats(from_origin=SIZE, from_peers=0)
    assert file.get_filled_file_ranges() == (Range(0, SIZE),)
    job.cancel()
    wait_until(lambda: os.listdir(directory) == [], "the temporary file to go")
