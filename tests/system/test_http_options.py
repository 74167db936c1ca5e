"""H7, H10, J22, J65 with the real daemon: methods that are sent once, and settings that begin a run again."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Origin, generate

SIZE = 4_000_000
CONFIG = """
[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.1
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("user", config=CONFIG) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def create(daemon: Daemon, url: str, path: Path, *settings: str) -> str:
    job = daemon.bits("create", "options", check=True).stdout.strip()
    daemon.bits("set", job, "minimum_retry_delay=5", *settings, check=True)
    daemon.bits("add", job, url, str(path), check=True)
    return job


def methods(origin: Origin, path: str) -> list[tuple[str, str | None]]:
    return [(request.method, request.range) for request in origin.requests_of(path)]


def test_h10_the_method_is_the_jobs(daemon: Daemon, origin: Origin, directory: Path) -> None:
    job = create(daemon, origin.url("/gen/50000/1"), directory / "out", "http_method=POST")
    daemon.bits("resume", job, check=True)
    daemon.bits("wait", job, "--complete", check=True)
    assert methods(origin, "/gen/50000/1") == [("POST", None)]
    assert (directory / "out").read_bytes() == generate(50_000, 1)
    refused = daemon.bits("set", job, "http_method=PUT")
    assert refused.returncode != 0


def test_h10_a_broken_answer_is_an_error_and_resume_begins_from_zero(
    daemon: Daemon, origin: Origin, directory: Path
) -> None:
    path = f"/gen/{SIZE}/2"
    url = origin.url(f"{path}?cut=3000000&times=1")
    job = create(daemon, url, directory / "out", "http_method=POST")
    daemon.bits("resume", job, check=True)
    assert daemon.bits("wait", job).returncode == 1
    shown = daemon.show(job)
    assert (shown["state"], shown["retry_time"]) == ("ERROR", None)
    assert methods(origin, path) == [("POST", None)], "it was sent again unasked"
    daemon.bits("resume", job, check=True)
    daemon.bits("wait", job, "--complete", check=True)
    assert methods(origin, path) == [("POST", None)] * 2
    assert (directory / "out").read_bytes() == generate(SIZE, 2)


def test_h10_nothing_is_sent_again_because_a_worker_was_killed(daemon: Daemon, origin: Origin, directory: Path) -> None:
    path = f"/gen/{SIZE}/3"
    job = create(daemon, origin.url(f"{path}?rate=500000"), directory / "out", "http_method=POST")
    daemon.bits("resume", job, check=True)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > 300_000, "some of the file")
    [worker] = daemon.workers()
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: daemon.show(job)["state"] == "ERROR", "the job to end")
    assert "resume the job" in daemon.show(job)["error"]["message"]
    assert methods(origin, path) == [("POST", None)]
    daemon.bits("cancel", job, check=True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("security_flags", 0x0100), ("proxy_usage", "no_proxy"), ("use_netrc", True), ("use_stored_credentials", "proxy")],
)
def test_other_terms_begin_a_run_again_and_lose_nothing(
    daemon: Daemon, origin: Origin, directory: Path, setting: str, value: object
) -> None:
    path = f"/gen/{SIZE}/4"
    job = create(daemon, origin.url(f"{path}?rate=2000000"), directory / "out")
    daemon.bits("resume", job, check=True)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > 300_000, "some of the file")
    daemon.bits("set", job, f"{setting}={str(value).lower()}", check=True)
    daemon.bits("wait", job, "--complete", check=True)
    assert daemon.show(job)["settings"][setting] == value
    first, *others = methods(origin, path)
    assert first == ("GET", None)
    assert len(others) == 1
    assert others[0][1] is not None, "it began from zero"
    assert (directory / "out").read_bytes() == generate(SIZE, 4)
