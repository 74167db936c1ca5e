"""The reply of an upload-reply job, fetched before the session is closed (J31–J34, E6, U42)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.worker import (
    DoneFile,
    FileHandle,
    FilesDone,
    FileSpec,
    FileWanted,
    TransferEnded,
    UploadFile,
    UploadMoved,
)
from support.origin import generate
from support.upload_orders import KIBI, MEBI, again, make, order
from support.upload_server import UploadServer, lose, refuse, wait
from support.worker_process import WorkerProcess


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def reply_order(server: UploadServer, source: Path, **more: Any) -> UploadFile:
    reply = FileSpec(
        index=1,
        remote_name="",
        local_name=str(source.parent / "reply"),
        temporary_name=str(source.parent / ".BITreply.tmp"),
    )
    return order(server, source, **{"wants_reply": True, "reply": reply, **more})


def received(source: Path) -> bytes:
    return (source.parent / ".BITreply.tmp").read_bytes()


def assert_both(ended: TransferEnded, worker: WorkerProcess, content: bytes, reply: bytes) -> None:
    assert (ended.error, ended.message) == ("", "")
    assert worker.done == [DoneFile(index=1, size=len(reply)), DoneFile(index=0, size=len(content))]


@pytest.mark.parametrize("size", [0, 100, 6 * MEBI])
@pytest.mark.parametrize("said", ["/replies/one", "replies\\one", "http://127.0.0.1:PORT/replies/one"])
def test_the_reply_is_fetched_before_close(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, size: int, said: str
) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    reply = generate(size, 9)
    server.reply_url = said.replace("PORT", str(server.port))
    server.content = {"/replies/one": reply, "/in/replies/one": reply}
    assert_both(worker.upload(reply_order(server, source)), worker, content, reply)
    assert received(source) == reply
    kinds = server.kinds(without=frozenset({"Ping"}))
    assert kinds[-2:] == ["GET", "Close-Session"]
    assert worker.started(1)[-1].bytes_total == size


def test_close_comes_only_when_the_reply_is_durable_and_written_down(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    server.reply_url = "/reply"
    server.content = {"/reply": b"thanks"}
    worker.begin_upload(reply_order(server, source))
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes == KIBI)
    worker.wait_for(FilesDone)
    worker.keeps = False
    worker.wait_for(UploadMoved, lambda move: move.is_awaited)
    while worker.receive(0.5) is not None:
        pass
    assert "Close-Session" not in server.kinds()


def test_an_upload_reply_without_a_reply_url_is_an_error(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    ended = worker.upload(reply_order(server, source))
    assert ended.error.startswith("BG_E_")
    assert ended.context == ErrorContext.REMOTE_FILE


def test_errors_of_the_reply_are_told_apart(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    """E6: the index says whose error it is."""
    source, content = make(tmp_path, KIBI)
    server.reply_url = "/nothing"
    first = reply_order(server, source)
    ended = worker.upload(first)
    assert (ended.error, ended.index) == ("BG_E_HTTP_ERROR_404", 1)
    # The next run fetches it, and sends nothing twice.
    server.content = {"/nothing": b"now it is here"}
    ended = worker.upload(again(worker, first))
    assert_both(ended, worker, content, b"now it is here")
    assert sum(packet.length for packet in server.of_kind("Fragment")) == KIBI


def test_a_reply_that_cannot_be_written_is_the_replys_error(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    server.reply_url = "/reply"
    server.content = {"/reply": b"thanks"}
    spec = FileSpec(index=1, remote_name="", local_name="/nowhere/at/all", temporary_name="/nowhere/at/.tmp")
    ended = worker.upload(reply_order(server, source, reply=spec))
    assert (ended.error, ended.index) == ("ERROR_PATH_NOT_FOUND", 1)
    assert ended.context == ErrorContext.LOCAL_FILE


@pytest.mark.parametrize("said", ["file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:alert(1)"])
def test_replies_come_by_http_only(worker: WorkerProcess, server: UploadServer, tmp_path: Path, said: str) -> None:
    source, _ = make(tmp_path, KIBI)
    server.reply_url = said
    ended = worker.upload(reply_order(server, source))
    assert ended.error == "BG_E_INVALID_SERVER_RESPONSE"
    assert not (tmp_path / ".BITreply.tmp").exists()


def test_what_is_secret_does_not_go_to_the_replys_server(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    with UploadServer() as other:
        other.content = {"/reply": b"thanks"}
        server.reply_url = other.url("/reply")
        headers = "Authorization: Bearer t\r\nX-Mine: yes\r\n"
        assert_both(worker.upload(reply_order(server, source), custom_headers=headers), worker, content, b"thanks")
        (packet,) = other.of_kind("GET")
        assert "authorization" not in packet.headers
        assert packet.headers["x-mine"] == "yes"


def test_a_reply_that_is_here_is_not_fetched_again(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, KIBI)
    server.reply_url = "/reply"
    server.content = {"/reply": b"thanks"}
    server.on("Close-Session", refuse(503))
    first = reply_order(server, source)
    ended = worker.upload(first)
    assert (ended.error, ended.index) == ("BG_E_HTTP_ERROR_503", 0)
    assert [file.index for file in worker.done] == [1]
    ended = worker.upload(again(worker, first, reply=None))
    assert_both(ended, worker, content, b"thanks")
    assert len(server.of_kind("GET")) == 1


def test_a_reply_that_breaks_off_is_taken_up_again(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, KIBI)
    server.reply_url = "/reply"
    server.content = {"/reply": generate(MEBI, 3)}
    server.on("GET", lose(stored=False), times=2)
    assert_both(worker.upload(reply_order(server, source)), worker, content, generate(MEBI, 3))


def test_a_stop_while_the_reply_is_fetched(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, KIBI)
    server.reply_url = "/reply"
    server.content = {"/reply": b"thanks"}
    done = threading.Event()
    server.on("GET", wait(done))
    first = reply_order(server, source)
    worker.begin_upload(first)
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes == KIBI)
    server.wait_for(lambda: bool(server.of_kind("GET")))
    assert worker.stop().error == ""
    done.set()
    assert_both(worker.upload(again(worker, first)), worker, content, b"thanks")


def test_source_and_reply_come_as_handles(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 3 * MEBI)
    server.reply_url = "/reply"
    server.content = {"/reply": generate(MEBI, 4)}
    worker.begin_upload(reply_order(server, source), takes_handles=True)
    assert worker.wait_for(FileWanted).index == 0
    fd = os.open(source, os.O_RDONLY)
    worker.channel.send(FileHandle(transfer=1, index=0), (fd,))
    os.close(fd)
    assert worker.wait_for(FileWanted).index == 1
    fd = os.open(tmp_path / "handed", os.O_RDWR | os.O_CREAT, 0o600)
    worker.channel.send(FileHandle(transfer=1, index=1), (fd,))
    os.close(fd)
    assert_both(worker.wait_for(TransferEnded), worker, content, generate(MEBI, 4))
    assert (tmp_path / "handed").read_bytes() == generate(MEBI, 4)
