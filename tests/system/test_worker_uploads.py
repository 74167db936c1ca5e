"""A real worker that uploads to a server which misbehaves (M7, U40–U46, R6; upload digest, section 5)."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.worker import (
    FileReceived,
    FileSpec,
    TransferBroken,
    TransferEnded,
    UploadFile,
    UploadKept,
    UploadMoved,
)
from support.upload_orders import KIBI, MEBI, again, assert_done, make, order
from support.upload_server import (
    UploadServer,
    forget,
    lose,
    refuse,
    refuse_unread,
    reply_raw,
    slowly,
    store_and_claim,
    truncate,
    wait,
)
from support.worker_process import WorkerProcess

PING = frozenset({"Ping"})


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


# --- the whole way -----------------------------------------------------------------------------


def test_a_file_is_sent_whole(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 3 * MEBI + 7)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    kinds = server.kinds(without=PING)
    assert kinds[0] == "Create-Session"
    assert set(kinds[1:-1]) == {"Fragment"}
    assert kinds[-1] == "Close-Session"
    for packet in server.packets:
        assert packet.method == "BITS_POST"
        assert packet.headers["content-length"] == str(len(packet.body))
        assert "expect" not in packet.headers
        assert "transfer-encoding" not in packet.headers
    assert len({packet.connection for packet in server.packets}) == 1, "one connection for everything (section 9)"


def test_the_service_hears_what_it_must_write_down(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 300 * KIBI)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    (started,) = worker.started()
    status = source.stat()
    assert (started.bytes_total, started.size, started.offset) == (len(content), len(content), 0)
    assert started.last_modified == str(status.st_mtime_ns)
    moves = worker.all(UploadMoved)
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    acknowledged = [move.acknowledged_bytes for move in moves]
    assert acknowledged == sorted(acknowledged)
    assert acknowledged[-1] == len(content)
    assert worker.messages.index(started) < worker.messages.index(moves[0])


def test_nothing_is_sent_before_the_session_is_on_the_disk(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    worker.keeps = False
    worker.begin_upload(order(server, source))
    moved = worker.wait_for(UploadMoved, lambda message: message.is_awaited)
    assert worker.receive(0.5) is None
    assert server.kinds(without=PING) == ["Create-Session"]
    # Numbers of other moves, and of none, mean nothing.
    worker.send(UploadKept(transfer=1, number=moved.number + 1))
    assert worker.receive(0.3) is None
    worker.keeps = True
    worker.send(UploadKept(transfer=1, number=moved.number))
    assert_done(worker.wait_for(TransferEnded), worker, server, content)


def test_an_empty_file_is_sent(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, _ = make(tmp_path, 0)
    assert_done(worker.upload(order(server, source)), worker, server, b"")


def test_only_what_the_server_has_acknowledged_is_told_as_progress(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 16 * MEBI)

    def drip(talk: Any) -> None:
        while len(talk.packet.body) < talk.packet.length:
            talk.read_body(MEBI)
            talk.server.closing.wait(0.05)
        talk.honest()

    server.on("Fragment", drip, times=1000)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    acknowledged = {move.acknowledged_bytes for move in worker.all(UploadMoved)}
    assert len(acknowledged) > 2
    assert {message.received_bytes for message in worker.all(FileReceived)} <= acknowledged


def test_a_plain_put_tells_what_the_connection_has_brought_over(worker: WorkerProcess, tmp_path: Path) -> None:
    source, content = make(tmp_path, 64 * MEBI)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            left = len(content)
            with connection, connection.makefile("rb") as reading:
                while reading.readline().strip():
                    pass
                while left:
                    left -= len(reading.read(min(left, 4 * MEBI)))
                    slow.wait(0.1)
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

        slow = threading.Event()
        thread = threading.Thread(target=take)
        thread.start()
        file = FileSpec(
            index=0,
            remote_name=f"http://127.0.0.1:{listener.getsockname()[1]}/file",
            local_name=str(source),
            temporary_name="",
        )
        ended = worker.upload(UploadFile(transfer=1, file=file, protocol="put", memory=""))
        thread.join(10)
    assert ended.error == ""
    received = [message.received_bytes for message in worker.all(FileReceived)]
    assert len(received) > 2
    assert received == sorted(received)
    assert 0 < received[0] < len(content)


# --- what a server may answer ------------------------------------------------------------------


def test_a_fragment_that_is_too_large_is_sent_smaller(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 2 * MEBI)
    limit = 200 * KIBI

    def judge(talk: Any) -> None:
        if talk.packet.length > limit:
            refuse_unread(413)(talk)
        talk.honest()

    server.on("Fragment", judge, times=1000)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    sizes = [packet.length for packet in server.of_kind("Fragment") if packet.status == 200]
    assert max(sizes) <= limit
    assert min(sizes[:-1]) >= 5 * KIBI


@pytest.mark.parametrize("kept", [0, 1, 70_000])
def test_a_server_that_has_lost_bytes_gets_them_again(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, kept: int
) -> None:
    source, content = make(tmp_path, 3 * MEBI)
    server.on("Fragment", truncate(kept), skip=1)
    server.on("Fragment", refuse_unread(413), times=4)
    assert_done(worker.upload(order(server, source)), worker, server, content)


@pytest.mark.parametrize("value", [None, "much", "-1", "99999999999", "0x10", ""])
def test_an_ack_that_makes_no_sense_is_an_error_and_no_loop(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, value: str | None
) -> None:
    source, _ = make(tmp_path, MEBI)
    server.on("Fragment", store_and_claim(value), times=1000)
    ended = worker.upload(order(server, source))
    assert ended.error.startswith("BG_E_")
    assert ended.index == 0
    assert ended.context == ErrorContext.REMOTE_FILE
    assert len(server.of_kind("Fragment")) < 30


def test_a_forgotten_session_begins_at_the_first_byte(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 20 * MEBI)
    server.on("Fragment", forget, skip=1)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 2


@pytest.mark.parametrize(
    ("status", "transient"), [(403, False), (404, False), (501, False), (302, False), (503, True), (507, True)]
)
def test_a_refused_session_is_an_error_with_the_servers_status(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, status: int, transient: bool
) -> None:
    source, _ = make(tmp_path, KIBI)
    server.on("*", reply_raw(status, ("Location", server.url("/elsewhere"))), times=1000)
    ended = worker.upload(order(server, source))
    assert str(status) in ended.error
    assert (ended.transient, ended.index) == (transient, 0)
    assert {packet.path for packet in server.packets} == {"/in/file"}, "uploads are not redirected"


def test_a_challenge_that_may_not_be_answered_is_an_error(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, 2 * MEBI)
    server.on("Fragment", reply_raw(401, ("WWW-Authenticate", "Negotiate")), times=1000)
    ended = worker.upload(order(server, source))
    assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_401", False)
    assert "SetCredentials" in ended.message


def test_a_server_that_restarts_is_one_interruption(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, MEBI)

    def die(talk: Any) -> None:
        # libcurl sends once more what a kept connection swallowed: only the second time is a break.
        if len(server.of_kind("Fragment")) == 3:
            server.on("*", reply_raw(503), times=3)
        talk.hang_up()

    server.on("Fragment", die, skip=1, times=2)
    assert_done(worker.upload(order(server, source), break_patience_s=10.0), worker, server, content)
    assert len([packet for packet in server.packets if packet.status == 503]) == 3
    assert len(server.of_kind("Create-Session")) == 1


# --- broken connections ------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("after_bytes", [0, 300_000, None])
def test_a_connection_that_breaks_in_a_fragment_is_taken_up_again(
    worker: WorkerProcess,
    server: UploadServer,
    tmp_path: Path,
    stored: bool,
    reset: bool,
    after_bytes: int | None,
) -> None:
    source, content = make(tmp_path, 20 * MEBI)
    server.on("Fragment", lose(after_bytes=after_bytes, stored=stored, reset=reset), skip=1)
    assert_done(worker.upload(order(server, source)), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1


def test_a_lost_last_ack_does_not_send_the_file_twice(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    server.on("Fragment", lose(stored=True))
    assert_done(worker.upload(order(server, source)), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1


def test_a_lost_answer_to_close_is_no_second_upload(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 100 * KIBI)
    server.on("Close-Session", lose(stored=True))
    assert_done(worker.upload(order(server, source)), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1
    assert sum(packet.length for packet in server.of_kind("Fragment")) == len(content)


def test_a_server_that_is_not_there_is_a_transient_error_at_once(worker: WorkerProcess, tmp_path: Path) -> None:
    with UploadServer() as gone:
        pass
    source, _ = make(tmp_path, KIBI)
    ended = worker.upload(order(gone, source))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert "refused" in ended.message


def test_a_server_that_only_breaks_exhausts_the_patience(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    server.on("Fragment", lose(stored=False), times=1000)
    ended = worker.upload(order(server, source), break_patience_s=1.0)
    assert ended.transient
    assert worker.all(TransferBroken)
    assert len(server.of_kind("Create-Session")) == 1


# --- time --------------------------------------------------------------------------------------


def test_a_server_that_takes_no_bytes_is_a_break(worker: WorkerProcess, tmp_path: Path) -> None:
    source, _ = make(tmp_path, 40 * MEBI)
    done = threading.Event()
    with UploadServer(receive_buffer=64 * KIBI) as server:
        server.on("Fragment", wait(done, before_reading=True), skip=4, times=1000)
        begun = time.monotonic()
        ended = worker.upload(order(server, source), stall_timeout_s=1, break_patience_s=0.5)
        done.set()
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_TIMEOUT", True)
    assert 1.0 <= time.monotonic() - begun < 8.0


def test_a_server_that_takes_bytes_slowly_is_no_stall(worker: WorkerProcess, tmp_path: Path) -> None:
    source, content = make(tmp_path, 4 * MEBI)

    def sip(talk: Any) -> None:
        while len(talk.packet.body) < talk.packet.length:
            talk.read_body(MEBI)
            talk.server.closing.wait(0.6)
        talk.honest()

    with UploadServer(receive_buffer=16 * KIBI) as server:
        server.on("Fragment", sip, times=1000)
        ended = worker.upload(order(server, source), stall_timeout_s=1, break_patience_s=0.0)
        assert_done(ended, worker, server, content)


def test_the_answer_may_take_longer_than_a_stall(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    """The server asks its application before it acknowledges the last byte (U30)."""
    source, content = make(tmp_path, 100 * KIBI)
    server.on("Fragment", slowly(3.5))
    server.on("Close-Session", slowly(2.5))
    ended = worker.upload(order(server, source), stall_timeout_s=1, break_patience_s=0.0)
    assert_done(ended, worker, server, content)


def test_silence_where_nothing_takes_long_is_a_stall(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    done = threading.Event()
    server.on("Create-Session", wait(done), times=10)
    ended = worker.upload(order(server, source), stall_timeout_s=1, break_patience_s=0.0)
    done.set()
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_TIMEOUT", True)
    assert "did not answer" in ended.message


# --- runs --------------------------------------------------------------------------------------


def test_a_stopped_upload_ends_at_once_and_goes_on_in_the_next_run(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 40 * MEBI)
    done = threading.Event()
    server.on("Fragment", wait(done, before_reading=True), skip=2)
    first = order(server, source)
    worker.begin_upload(first)
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes > 0)
    server.wait_for(lambda: len(server.of_kind("Fragment")) == 3)
    begun = time.monotonic()
    assert worker.stop().error == ""
    assert time.monotonic() - begun < 2.0
    done.set()
    kept = worker.all(UploadMoved)[-1].acknowledged_bytes
    assert kept > 0
    sent = len(server.packets)
    assert_done(worker.upload(again(worker, first)), worker, server, content)
    assert worker.started()[-1].offset == kept
    after = server.packets[sent:]
    assert after[0].kind == "Ping"
    assert [packet.kind for packet in after].count("Create-Session") == 0
    assert next(packet for packet in after if packet.kind == "Fragment").range[0] == kept


def test_a_killed_worker_has_lost_nothing_that_was_acknowledged(server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 40 * MEBI)
    done = threading.Event()
    server.on("Fragment", wait(done), skip=2)
    first = order(server, source)
    with WorkerProcess() as worker:
        worker.begin_upload(first)
        worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes > 0)
        server.wait_for(lambda: len(server.of_kind("Fragment")) == 3)
        worker.kill()
        second = again(worker, first)
    done.set()
    with WorkerProcess() as worker:
        assert_done(worker.upload(second), worker, server, content)
    assert len(server.of_kind("Create-Session")) == 1


def test_a_cancelled_job_ends_its_session_without_its_source(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, 40 * MEBI)
    done = threading.Event()
    server.on("Fragment", wait(done), skip=1)
    first = order(server, source)
    worker.begin_upload(first)
    worker.wait_for(UploadMoved, lambda move: move.acknowledged_bytes > 0)
    worker.stop()
    done.set()
    source.unlink()
    ended = worker.upload(again(worker, first, only_cancels=True))
    assert ended.error == ""
    assert server.kinds()[-1] == "Cancel-Session"
    assert not server.sessions


def test_a_server_that_has_everything_is_told_goodbye_without_the_source(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    server.on("Close-Session", refuse(503), times=1)
    first = order(server, source)
    ended = worker.upload(first, break_patience_s=0.0)
    assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_503", True)
    source.unlink()
    assert_done(worker.upload(again(worker, first)), worker, server, content)


# --- headers -----------------------------------------------------------------------------------


def test_the_jobs_headers_go_with_every_packet_unless_they_would_spoil_it(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    spoiling = (
        "BITS-Session-Id: x\r\nContent-Length: 5\r\nContent-Range: bytes 1-2/3\r\nHost: other\r\nRange: bytes=1-\r\n"
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\nBits-Packet-Type: Ping\r\n"
    )
    headers = f"X-Mine: yes\r\nAuthorization: Bearer t\r\nX-Empty:\r\n{spoiling}"
    assert_done(worker.upload(order(server, source), custom_headers=headers), worker, server, content)
    for packet in server.packets:
        assert packet.headers["x-mine"] == "yes"
        assert packet.headers["authorization"] == "Bearer t"
        assert packet.headers["x-empty"] == ""
        assert packet.headers["host"] == f"127.0.0.1:{server.port}"
        assert "range" not in packet.headers
        assert "transfer-encoding" not in packet.headers
        assert packet.headers.get("bits-session-id") != "x"


def test_secrets_do_not_follow_the_server_to_another_host(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    server.host_id = (("BITS-Host-Id", "localhost"),)
    headers = "Authorization: Bearer t\r\nX-Mine: yes\r\n"
    assert_done(worker.upload(order(server, source), custom_headers=headers), worker, server, content)
    elsewhere = [packet for packet in server.packets if packet.headers["host"].startswith("localhost")]
    assert {packet.kind for packet in elsewhere} >= {"Fragment", "Close-Session"}
    assert all("authorization" not in packet.headers for packet in elsewhere)
    assert all(packet.headers["x-mine"] == "yes" for packet in elsewhere)


# --- many --------------------------------------------------------------------------------------


def test_uploads_do_not_wait_for_each_other(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    done = threading.Event()
    server.on("Fragment", wait(done), times=1)
    slow, _ = make(tmp_path, KIBI, 1)
    worker.begin_upload(order(server, slow))
    worker.wait_for(UploadMoved)
    server.wait_for(lambda: len(server.of_kind("Fragment")) == 1)
    quick, content = make(tmp_path, MEBI, 2)
    other = order(server, quick, transfer=2)
    other = replace(other, file=replace(other.file, remote_name=server.url("/in/other")))
    assert worker.upload(other).error == ""
    assert server.files["/in/other"] == content
    done.set()
    assert worker.wait_for(TransferEnded, lambda ended: ended.transfer == 1).error == ""


def test_descriptors_are_given_back(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, _ = make(tmp_path, MEBI)

    def open_files() -> int:
        links = [
            os.readlink(entry.path) for entry in os.scandir(f"/proc/{worker.process.pid}/fd") if os.path.islink(entry)
        ]
        return sum(link.startswith(str(tmp_path)) for link in links)

    for transfer in range(1, 6):
        assert worker.upload(order(server, source, transfer=transfer)).error == ""
    deadline = time.monotonic() + 5
    while open_files():
        assert time.monotonic() < deadline, "the source is still open"
        worker.receive(0.05)
