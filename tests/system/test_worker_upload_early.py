"""Servers that answer before they have the file (a file arrives whole, or the error is the right one)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.upload_orders import MEBI, make, order
from support.upload_server import Action, Talk, UploadServer
from support.worker_process import WorkerProcess


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def early(status: int) -> Action:
    def act(talk: Talk) -> None:
        talk.read_body(MEBI)
        talk.answer(status, ("Connection", "close"))
        talk.linger()

    return act


@pytest.mark.parametrize(
    ("status", "error"), [(200, "BG_E_INVALID_SERVER_RESPONSE"), (403, "BG_E_HTTP_ERROR_403")], ids=["200", "403"]
)
def test_a_plain_put_that_is_answered_too_early_has_not_arrived(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, status: int, error: str
) -> None:
    source, _ = make(tmp_path, 40 * MEBI)
    server.on("PUT", early(status))
    ended = worker.upload(order(server, source, protocol="put"))
    assert (ended.error, ended.transient) == (error, False)
    assert not worker.done
