"""Hosts that a server sends its uploads to, and that are not there: BITS-Host-Id and its timer (U6, U7, U41)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.upload_orders import KIBI, again, assert_done, make, order
from support.upload_server import UploadServer
from support.worker_process import WorkerProcess

_NOBODY = ("127.0.0.99", "no-such-host.invalid")


@pytest.fixture
def server() -> Iterator[UploadServer]:
    # Only at its own address of the loopback network: nobody listens at the others.
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


@pytest.mark.parametrize("host", _NOBODY)
def test_u7_a_host_that_is_not_there_is_left_when_the_timer_ends(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, host: str
) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    server.host_id = (("BITS-Host-Id", host), ("BITS-Host-Id-Fallback-Timeout", "1"))
    assert_done(worker.upload(order(server, source), break_patience_s=20.0), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1, "the same upload goes on"
    assert [packet.kind for packet in server.packets][1] == "Ping"


def test_u7_the_timer_goes_on_from_run_to_run(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    server.host_id = (("BITS-Host-Id", _NOBODY[0]), ("BITS-Host-Id-Fallback-Timeout", "0"))
    first = order(server, source)
    ended = worker.upload(first, break_patience_s=0.0)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert_done(worker.upload(again(worker, first), break_patience_s=0.0), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1


def test_u7_without_a_timer_nobody_else_is_asked(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, _ = make(tmp_path, 100 * KIBI)
    server.host_id = (("BITS-Host-Id", _NOBODY[0]),)
    ended = worker.upload(order(server, source), break_patience_s=1.5)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert [packet.kind for packet in server.packets] == ["Create-Session"]


def test_u6_the_same_host_in_other_letters_is_no_other_host(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    """Windows' own server says FRANKCAO8 to whoever asked frankcao8: what is secret is meant for it."""
    source, content = make(tmp_path, 100 * KIBI)
    server.host_id = (("BITS-Host-Id", "LOCALHOST"),)
    made = order(server, source)
    named = replace(made, file=replace(made.file, remote_name=made.file.remote_name.replace("127.0.0.1", "localhost")))
    ended = worker.upload(named, custom_headers="Authorization: Bearer x\r\n")
    assert_done(ended, worker, server, content)
    assert {packet.headers.get("authorization") for packet in server.packets} == {"Bearer x"}


def test_u7_a_run_that_gives_up_says_when_the_timer_ends(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, 100 * KIBI)
    server.host_id = (("BITS-Host-Id", _NOBODY[0]), ("BITS-Host-Id-Fallback-Timeout", "500"))
    ended = worker.upload(order(server, source), break_patience_s=0.5)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert ended.retry_within_s is not None
    assert 480 <= ended.retry_within_s <= 500
