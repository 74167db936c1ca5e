"""A worker against an origin that does whatever a web server may do (issue, part 4; inventory D1–D4, R1–R5)."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.worker import FileDurable, FileReceived, FileSpec, FileStarted, TransferBroken, TransferEnded
from support.origin import Connection, Origin, Request, generate, last_modified
from support.worker_process import WorkerProcess

MEBI = 1024 * 1024


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def spec(origin: Origin, path: str, directory: Path, index: int = 0, **more: Any) -> FileSpec:
    url = origin.url(path) if path.startswith("/") else path
    name = directory / f"file{index}"
    temporary = directory / f".BIT{index:08x}.tmp"
    return FileSpec(index=index, remote_name=url, local_name=str(name), temporary_name=str(temporary), **more)


def check(file: FileSpec, size: int, seed: int) -> None:
    data = Path(file.temporary_name).read_bytes()
    assert len(data) == size
    assert data == generate(size, seed)


def assert_ok(ended: TransferEnded) -> None:
    assert ended.error == "", ended


# --- answers that bring the file -------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1023, 65536, 300_001, 5 * MEBI + 3, 17 * MEBI + 1])
@pytest.mark.parametrize(
    "query",
    [
        "",
        "chunked=1",
        "length=no",
        "http10=1",
        "etag=weak",
        "etag=no&lm=no",
        "ranges=no",
        "early_hints=1",
        "extra=50",
        "header_bytes=20000",
    ],
)
def test_every_way_to_send_a_file(worker: WorkerProcess, origin: Origin, tmp_path: Path, size: int, query: str) -> None:
    file = spec(origin, f"/gen/{size}/3?{query}", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, size, 3)
    assert [(done.index, done.size) for done in worker.done] == [(0, size)]
    (started,) = worker.started()
    assert started.offset == 0
    assert started.bytes_total == (None if query in ("chunked=1", "length=no") else size)
    assert len(started.response_headers) <= 16 * 1024
    if "lm=no" not in query:
        assert os.stat(file.temporary_name).st_mtime == 1_700_000_003  # D9
    expects_validator = query not in ("etag=no&lm=no", "ranges=no")
    assert started.resumable == expects_validator


def test_first_request_is_a_get_without_range(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    assert_ok(worker.fetch(spec(origin, "/gen/100/900", tmp_path), custom_headers="X-One: 1\r\nX-Empty:\r\n"))
    (request,) = origin.requests_of("/gen/100/900")
    assert request.method == "GET"
    assert request.range is None
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("OpenBITS/")
    assert request.headers["x-one"] == "1"
    assert request.headers["x-empty"] == ""


def test_international_host_is_asked_by_its_ascii_name(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """D6: the name stays as it was given; the request carries what the network knows."""
    file = spec(origin, "/gen/100/901", tmp_path)
    file = replace(file, remote_name=file.remote_name.replace("127.0.0.1", "b\u00fccher.localhost"))
    assert_ok(worker.fetch(file))
    check(file, 100, 901)
    (request,) = origin.requests_of("/gen/100/901")
    assert request.headers["host"].startswith("xn--bcher-kva.localhost:")


def test_environment_is_not_asked_for_a_proxy(origin: Origin, tmp_path: Path) -> None:
    env = {"http_proxy": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1"}
    with WorkerProcess(env=env) as worker:
        file = spec(origin, "/gen/10/4", tmp_path)
        assert_ok(worker.fetch(file))
        check(file, 10, 4)


@pytest.mark.parametrize("size", [0, 10, 100_000, 3 * MEBI])
def test_gzip_that_nobody_asked_for_is_undone(worker: WorkerProcess, origin: Origin, tmp_path: Path, size: int) -> None:
    file = spec(origin, f"/gen/{size}/5?gzip=1", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, size, 5)
    (started,) = worker.started()
    assert (started.bytes_total, started.etag, started.resumable) == (None, None, False)


def test_gzip_that_describes_the_file_is_kept(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def archive(_request: Request, connection: Connection) -> None:
        connection.send_whole(200, b"\x1f\x8b-not-looked-at", "Content-Encoding: gzip\r\n")

    origin.serve("/archive.tar.gz", archive)
    file = spec(origin, "/archive.tar.gz", tmp_path)
    assert_ok(worker.fetch(file))
    assert Path(file.temporary_name).read_bytes() == b"\x1f\x8b-not-looked-at"


def test_damaged_gzip_is_not_handed_over(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def broken(_request: Request, connection: Connection) -> None:
        connection.send_whole(200, b"\x1f\x8b\x08\x00garbage-garbage-garbage", "Content-Encoding: gzip\r\n")

    origin.serve("/broken", broken)
    ended = worker.fetch(spec(origin, "/broken", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INVALID_SERVER_RESPONSE", True)
    assert worker.done == []


def test_unknown_coding_is_refused(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "/gen/100/1?coding=br", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INVALID_SERVER_RESPONSE", False)


def test_header_block_is_reported(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(200, b"x", "X-Latin: caf\xe9\r\n")

    origin.serve("/latin", answer)
    assert_ok(worker.fetch(spec(origin, "/latin", tmp_path)))
    text = worker.started()[0].response_headers
    assert text.startswith("HTTP/1.1 200 ")
    assert "X-Latin: caf\xe9\r\n" in text


# --- redirects -------------------------------------------------------------------------------


def test_redirects_are_followed(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, "/redirect/7/gen/1000/8", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, 1000, 8)


@pytest.mark.parametrize("path", ["/loop", "/redirect/25/gen/10/1"])
def test_redirects_without_end(worker: WorkerProcess, origin: Origin, tmp_path: Path, path: str) -> None:
    ended = worker.fetch(spec(origin, path, tmp_path))
    assert ended.error.startswith("BG_E_HTTP_ERROR_30")
    assert not ended.transient
    assert "circle" in ended.message
    assert ended.context == ErrorContext.REMOTE_FILE


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_redirects_to_other_schemes(worker: WorkerProcess, origin: Origin, tmp_path: Path, target: str) -> None:
    ended = worker.fetch(spec(origin, f"/to?url={target}", tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_REDIRECT_FAILED", False)


def test_secrets_do_not_follow_a_redirect_to_another_server(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    with Origin() as other:
        file = spec(origin, f"/to?url={other.url('/gen/10/2')}", tmp_path)
        headers = "Authorization: Bearer s\r\nCookie: a=b\r\nX-Plain: yes\r\n"
        assert_ok(worker.fetch(file, custom_headers=headers))
        (request,) = other.requests
        assert "authorization" not in request.headers
        assert "cookie" not in request.headers
        assert request.headers["x-plain"] == "yes"
        assert origin.requests_of("/to")[-1].headers["authorization"] == "Bearer s"


# --- answers that are errors (R1) ------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        (204, True),
        (300, False),
        (304, False),
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (408, True),
        (409, True),
        (410, False),
        (429, True),
        (500, True),
        (501, False),
        (502, True),
        (503, True),
        (505, False),
    ],
)
def test_statuses(worker: WorkerProcess, origin: Origin, tmp_path: Path, status: int, transient: bool) -> None:
    ended = worker.fetch(spec(origin, f"/status/{status}", tmp_path))
    assert ended.error == f"BG_E_HTTP_ERROR_{status}"
    assert ended.transient is transient
    assert ended.context == ErrorContext.REMOTE_FILE
    assert ended.index == 0
    assert "127.0.0.1" in ended.message
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("value", "expected"), [("17", 17), ("nonsense", None)])
def test_retry_after(worker: WorkerProcess, origin: Origin, tmp_path: Path, value: str, expected: int | None) -> None:
    ended = worker.fetch(spec(origin, f"/gen/10/1?status=503&retry_after={value}", tmp_path))
    assert (ended.error, ended.transient, ended.retry_after_s) == ("BG_E_HTTP_ERROR_503", True, expected)


def test_retry_after_as_a_date(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def busy(_request: Request, connection: Connection) -> None:
        date = "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nRetry-After: Mon, 01 Jan 2024 00:01:40 GMT\r\n"
        connection.send_whole(429, b"", date)

    origin.serve("/busy", busy)
    ended = worker.fetch(spec(origin, "/busy", tmp_path))
    assert (ended.error, ended.retry_after_s) == ("BG_E_HTTP_ERROR_429", 100)


def test_sentences_never_show_a_password(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    url = origin.url("/status/404").replace("http://", "http://user:secret@")
    ended = worker.fetch(spec(origin, url, tmp_path))
    assert ended.error == "BG_E_HTTP_ERROR_404"
    assert "secret" not in ended.message


def test_a_failure_stops_the_whole_transfer(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    files = [spec(origin, "/gen/1000/1", tmp_path, 0), spec(origin, "/status/404", tmp_path, 1)]
    files.append(spec(origin, "/gen/1000/77", tmp_path, 2))
    ended = worker.fetch(*files)
    assert (ended.error, ended.index) == ("BG_E_HTTP_ERROR_404", 1)  # Q2
    assert [done.index for done in worker.done] == [0]
    assert origin.requests_of("/gen/1000/77") == []


# --- connections that fail -------------------------------------------------------------------


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def test_connection_refused(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, f"http://127.0.0.1:{_free_port()}/x", tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert ended.context == ErrorContext.GENERAL_TRANSPORT
    assert "refused" in ended.message
    assert worker.all(TransferBroken) == []


def test_name_that_does_not_exist(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "http://no-such-host.invalid/x", tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_NAME_NOT_RESOLVED", True)
    assert "no-such-host.invalid" in ended.message


def test_not_http(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "/garbage", tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_INVALID_SERVER_RESPONSE", True)


def test_two_content_lengths(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "/gen/1000/1?length=both", tmp_path))
    assert ended.error in ("BG_E_INVALID_SERVER_RESPONSE", "ERROR_WINHTTP_INVALID_SERVER_RESPONSE")
    assert worker.done == []


def test_endless_headers(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "/gen/10/1?header_bytes=90000", tmp_path))
    assert (ended.error, ended.transient) == ("BG_E_INVALID_SERVER_RESPONSE", False)


def test_silence(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    start = time.monotonic()
    ended = worker.fetch(spec(origin, "/silent", tmp_path), stall_timeout_s=1)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_TIMEOUT", True)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("cut", [0, 1, 20, 150, 200])
def test_connection_closed_before_the_body(worker: WorkerProcess, origin: Origin, tmp_path: Path, cut: int) -> None:
    ended = worker.fetch(spec(origin, f"/gen/100000/1?cut_all={cut}", tmp_path))
    assert ended.transient
    assert ended.error in ("BG_E_CONNECTION_CLOSED", "ERROR_WINHTTP_CONNECTION_ERROR")


@pytest.mark.parametrize("cut", [0, 1, 100, 260, 1500])
def test_kept_connection_that_is_closed(worker: WorkerProcess, origin: Origin, tmp_path: Path, cut: int) -> None:
    """The second file meets a connection that the server cuts at any byte: it is fetched all the same."""
    files = [
        spec(origin, f"/gen/900/{cut}", tmp_path, 0),
        spec(origin, f"/gen/2000/{cut}?cut_all={cut}&times=1", tmp_path, 1),
    ]
    assert_ok(worker.fetch(*files))
    check(files[0], 900, cut)
    check(files[1], 2000, cut)


# --- breaks in the middle --------------------------------------------------------------------


@pytest.mark.parametrize("size", [200_000, 40 * MEBI + 17])
@pytest.mark.parametrize("how", ["cut", "reset", "stall"])
def test_break_is_taken_up_again(worker: WorkerProcess, origin: Origin, tmp_path: Path, size: int, how: str) -> None:
    at = size // 3 + 5
    query = f"stall={at}" if how == "stall" else f"cut={at}&reset={int(how == 'reset')}"
    path = f"/gen/{size}/{31 + len(how)}"
    file = spec(origin, f"{path}?{query}&times=2&n={how}", tmp_path)
    before = len(origin.requests_of(path))
    assert_ok(worker.fetch(file, stall_timeout_s=1))
    check(file, size, 31 + len(how))
    requests = origin.requests_of(path)[before:]
    assert len(requests) == 3
    assert requests[0].range is None
    for request in requests[1:]:
        assert request.range is not None
        assert request.headers["if-range"].startswith('"v')
    if how == "cut":
        assert [request.range for request in requests[1:]] == [f"bytes={at}-", f"bytes={2 * at}-"]
    assert len(worker.all(TransferBroken)) == 2
    assert [started.offset > 0 for started in worker.started()] == [False, True, True]


def test_break_resumes_by_date_where_the_tag_is_weak(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, "/gen/300000/41?cut=100000&times=1&etag=weak", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, 300_000, 41)
    requests = origin.requests_of("/gen/300000/41")
    assert requests[1].headers["if-range"] == last_modified(41)


@pytest.mark.parametrize(
    "query",
    [
        "ranges=no",
        "etag=no&lm=no",
        "cr=wrong",
        "cr=missing",
        "cr=early",
        "cr=total",
        "cr=unproven",
        "etag=no&lm=no&ranges=no&chunked=1",
    ],
)
def test_break_without_a_way_to_continue_begins_again(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str
) -> None:
    seed = 50 + len(query)
    file = spec(origin, f"/gen/300000/{seed}?cut=100000&times=1&{query}", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, 300_000, seed)
    last = worker.started()[-1]
    assert last.offset == 0
    assert last.restarted


@pytest.mark.parametrize("query", ["cr=star", "cr=short", "ranges=silent", "chunked=1"])
def test_odd_but_true_parts_are_used(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str) -> None:
    seed = 80 + len(query)
    file = spec(origin, f"/gen/900000/{seed}?cut=300000&times=1&{query}", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, 900_000, seed)
    assert all(not started.restarted for started in worker.started())


@pytest.mark.parametrize("ifrange", ["obey", "ignore"])
@pytest.mark.parametrize("validators", ["etag=strong", "etag=no", "etag=weak"])
def test_file_that_changes_on_the_way_is_fetched_once_more(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, ifrange: str, validators: str
) -> None:
    """D3: never bytes of two versions."""
    file = spec(origin, f"/gen/300000/120?cut=100000&times=1&change_after=1&ifrange={ifrange}&{validators}", tmp_path)
    assert_ok(worker.fetch(file))
    check(file, 300_000, 121)
    assert "changed" in worker.started()[-1].restarted


def test_file_that_always_changes(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(origin, "/gen/300000/140?cut=100000&change_every=1", tmp_path)
    ended = worker.fetch(file)
    assert (ended.error, ended.transient) == ("BG_E_REMOTE_FILE_CHANGED", True)
    assert worker.done == []


def test_content_length_that_promises_too_much(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(spec(origin, "/gen/100000/150?lie=500", tmp_path), break_patience_s=1.0)
    assert ended.transient
    assert worker.done == []


def test_patience_ends(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """A server that is gone after progress is asked again for the whole patience, then the transfer ends."""
    with Origin() as mortal:
        file = spec(mortal, "/gen/50000000/151?rate=2000000", tmp_path)
        worker.begin(file, break_patience_s=1.5)
        worker.wait_for(FileReceived, lambda received: received.received_bytes > 0)
    start = time.monotonic()
    ended = worker.wait_for(TransferEnded)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert 0.8 < time.monotonic() - start < 4
    assert len(worker.all(TransferBroken)) >= 2
    durable = worker.durable_bytes()
    assert durable > 0
    assert Path(file.temporary_name).read_bytes()[:durable] == generate(50_000_000, 151, 0, durable)


def test_server_that_restarts_is_waited_for(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def restarting(request: Request, connection: Connection) -> None:
        turn = origin.count("restarting")
        if turn in (1, 2):
            connection.send_whole(502, b"restarting")
            return
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + (b"a" * 50 if turn == 0 else b"a" * 100))
        if turn == 0:
            connection.hang_up()

    origin.serve("/restarting", restarting)
    file = spec(origin, "/restarting", tmp_path)
    assert_ok(worker.fetch(file))
    assert Path(file.temporary_name).read_bytes() == b"a" * 100


# --- resumption by a later run ---------------------------------------------------------------


def _interrupt(origin: Origin, path: str, directory: Path, *, kill: bool, **more: Any) -> FileSpec:
    """Run a worker until something is durable, end it, and return the spec as a service would make it."""
    with WorkerProcess() as worker:
        file = spec(origin, path, directory)
        worker.begin(file, checkpoint_bytes=100_000, checkpoint_s=0.2)
        worker.wait_for(FileDurable)
        if kill:
            worker.kill()
        else:
            assert_ok(worker.stop())
        durable = worker.durable_bytes()
        started = worker.started()[-1]
        return spec(
            origin,
            path,
            directory,
            durable_bytes=durable,
            size=started.size,
            etag=started.etag,
            last_modified=started.last_modified,
            **more,
        )


@pytest.mark.parametrize("kill", [True, False])
def test_later_run_continues(worker: WorkerProcess, origin: Origin, tmp_path: Path, kill: bool) -> None:
    """D15: kill -9 costs at most what came after the last checkpoint."""
    size = 3_000_000
    path = f"/gen/{size}/{160 + kill}"
    file = _interrupt(origin, f"{path}?rate=1000000", tmp_path, kill=kill)
    assert 0 < file.durable_bytes < size
    assert_ok(worker.fetch(file))
    check(file, size, 160 + kill)
    assert origin.requests_of(path)[-1].range == f"bytes={file.durable_bytes}-"
    (started,) = worker.started()
    assert (started.offset, started.restarted, started.resumable) == (file.durable_bytes, "", True)


def test_later_run_with_checksum_reads_back(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    size = 2_000_000
    digest = hashlib.sha256(generate(size, 163)).hexdigest()
    file = _interrupt(origin, f"/gen/{size}/163?rate=1000000", tmp_path, kill=True, checksum=f"sha256:{digest}")
    assert_ok(worker.fetch(file))
    check(file, size, 163)


def test_lost_temporary_file_is_noticed(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = _interrupt(origin, "/gen/2000000/164?rate=1000000", tmp_path, kill=True)
    os.truncate(file.temporary_name, file.durable_bytes - 1)
    assert_ok(worker.fetch(file))
    check(file, 2_000_000, 164)
    assert "temporary file" in worker.started()[0].restarted


def test_whole_but_unfinished_file_needs_no_request(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    file = spec(
        origin,
        "/gen/5000/165",
        tmp_path,
        durable_bytes=5000,
        size=5000,
        etag='"v165-5000"',
        last_modified=last_modified(165),
    )
    Path(file.temporary_name).write_bytes(generate(5000, 165) + b"allocated")
    assert_ok(worker.fetch(file))
    check(file, 5000, 165)
    assert origin.requests_of("/gen/5000/165") == []
    assert os.stat(file.temporary_name).st_mtime == 1_700_000_165


@pytest.mark.parametrize("seed_of_bytes", [166, 999])
def test_nothing_behind_the_end_is_settled_by_head(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, seed_of_bytes: int
) -> None:
    """416 at the end of a file whose size was never told."""
    is_same = seed_of_bytes == 166
    file = spec(
        origin,
        f"/gen/5000/166?ifrange=ignore&is={is_same}",
        tmp_path,
        durable_bytes=5000,
        etag='"v166-5000"' if is_same else '"another"',
    )
    Path(file.temporary_name).write_bytes(generate(5000, seed_of_bytes))
    before = len(origin.requests_of("/gen/5000/166"))
    assert_ok(worker.fetch(file))
    check(file, 5000, 166)
    methods = [request.method for request in origin.requests_of("/gen/5000/166")[before:]]
    assert methods == (["GET", "HEAD"] if is_same else ["GET", "HEAD", "GET"])


# --- what a job may ask for ------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_checksum(worker: WorkerProcess, origin: Origin, tmp_path: Path, algorithm: str) -> None:
    right = hashlib.new(algorithm, generate(700_000, 170)).hexdigest()
    file = spec(origin, "/gen/700000/170", tmp_path, checksum=f"{algorithm}:{right}")
    assert_ok(worker.fetch(file))
    wrong = spec(origin, "/gen/700000/171", tmp_path, 1, checksum=f"{algorithm}:{right}")
    ended = worker.fetch(wrong, transfer=2)
    assert (ended.error, ended.transient, ended.index) == ("ERROR_CRC", False, 1)
    assert ended.context == ErrorContext.REMOTE_FILE
    assert right in ended.message
    assert hashlib.new(algorithm, generate(700_000, 171)).hexdigest() in ended.message
    assert [done.index for done in worker.done] == [0]
    assert os.stat(wrong.temporary_name).st_size == 0
    assert worker.started(1)[-1].offset == 0


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("chunked=1&ranges=no", "BG_E_MISSING_FILE_SIZE"),
        ("length=no&ranges=no", "BG_E_MISSING_FILE_SIZE"),
        ("chunked=1", ""),
        ("ranges=no", "BG_E_INSUFFICIENT_RANGE_SUPPORT"),
        ("", ""),
        ("ranges=silent", ""),
    ],
)
def test_strict_http(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str, error: str) -> None:
    """D1: what BITS refuses is refused when the job says so."""
    for size in (0, 1000):
        if query in ("ranges=no", "chunked=1") and size == 0:
            continue
        worker.messages.clear()
        file = spec(origin, f"/gen/{size}/172?{query}", tmp_path)
        ended = worker.fetch(file, strict_http=True, transfer=2 + size)
        assert ended.error == error
        assert not ended.transient
        if not error:
            check(file, size, 172)


def test_dynamic_content_is_never_continued(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """J62."""
    file = spec(origin, "/gen/300000/173?cut=100000&times=1&change_after=1", tmp_path)
    assert_ok(worker.fetch(file, dynamic_content=True))
    check(file, 300_000, 174)
    assert all(request.range is None for request in origin.requests_of("/gen/300000/173"))
    assert not worker.started()[0].resumable


@pytest.mark.parametrize("query", ["", "chunked=1"])
def test_maximum_download_size(worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str) -> None:
    """J64."""
    ended = worker.fetch(spec(origin, f"/gen/300000/175?{query}", tmp_path), max_download_bytes=200_000)
    assert (ended.error, ended.transient) == ("BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED", False)
    assert_ok(worker.fetch(spec(origin, "/gen/300000/175", tmp_path), max_download_bytes=300_000, transfer=2))


def test_high_performance_writes_the_file_itself(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """J63."""
    name = str(tmp_path / "final")
    Path(name).write_bytes(b"older and longer" * 1000)
    file = FileSpec(index=0, remote_name=origin.url("/gen/5000/176"), local_name=name, temporary_name=name)
    assert_ok(worker.fetch(file, high_performance=True))
    check(file, 5000, 176)
    assert worker.all(FileDurable) == []


# --- several at once, and ends ---------------------------------------------------------------


def test_many_files_over_one_connection(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    files = [spec(origin, f"/gen/{index * 37}/{index}?many=1", tmp_path, index) for index in range(300)]
    before = len(origin.requests)
    assert_ok(worker.fetch(*files))
    for index, file in enumerate(files):
        check(file, index * 37, index)
    assert sorted(done.index for done in worker.done) == list(range(300))
    assert len({request.connection for request in origin.requests[before:]}) == 1
    assert [started.index for started in _all_started(worker)] == list(range(300))


def _all_started(worker: WorkerProcess) -> list[FileStarted]:
    return [started for index in range(300) for started in worker.started(index)]


def test_several_files_at_once(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    files = [spec(origin, f"/gen/400000/{index}?rate=800000&at=once", tmp_path, index) for index in range(8)]
    start = time.monotonic()
    assert_ok(worker.fetch(*files, file_concurrency=8))
    assert time.monotonic() - start < 3
    for index, file in enumerate(files):
        check(file, 400_000, index)


def test_several_transfers_at_once(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    files = [spec(origin, f"/gen/9000000/{index}?two=1", tmp_path, index) for index in range(4)]
    for index, file in enumerate(files):
        worker.begin(file, transfer=10 + index)
    while len(worker.all(TransferEnded)) < 4:
        worker.wait_for(TransferEnded)
    assert sorted(ended.transfer for ended in worker.all(TransferEnded)) == [10, 11, 12, 13]
    for index, file in enumerate(files):
        check(file, 9_000_000, index)


@pytest.mark.parametrize("rate", [3_000_000, 0])
def test_stop_is_quick_and_keeps_what_came(worker: WorkerProcess, origin: Origin, tmp_path: Path, rate: int) -> None:
    size = 400_000_000
    file = spec(origin, f"/gen/{size}/180?rate={rate}", tmp_path)
    worker.begin(file)
    worker.wait_for(FileReceived, lambda received: received.received_bytes > 100_000)
    start = time.monotonic()
    assert_ok(worker.stop())
    assert time.monotonic() - start < 1.0
    durable = worker.durable_bytes()
    assert durable >= worker.all(FileReceived)[-1].received_bytes
    with open(file.temporary_name, "rb") as stream:
        assert stream.read(durable) == generate(size, 180, 0, durable)


def test_sigterm_ends_the_worker_and_keeps_what_came(origin: Origin, tmp_path: Path) -> None:
    with WorkerProcess() as worker:
        worker.begin(spec(origin, "/gen/30000000/181?rate=3000000", tmp_path))
        worker.wait_for(FileReceived, lambda received: received.received_bytes > 0)
        worker.process.terminate()
        assert_ok(worker.wait_for(TransferEnded))
        assert worker.process.wait(5) == 0
        assert worker.durable_bytes() > 0


def test_end_of_the_channel_ends_the_worker(origin: Origin, tmp_path: Path) -> None:
    with WorkerProcess() as worker:
        worker.begin(spec(origin, "/gen/30000000/182?rate=3000000", tmp_path))
        worker.wait_for(FileReceived)
        worker.channel.close()
        assert worker.process.wait(5) == 0


def test_idle_worker_does_not_wake(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    assert_ok(worker.fetch(spec(origin, "/gen/100/183", tmp_path), stall_timeout_s=1))
    time.sleep(2.2)  # a watchdog and libcurl may wake once each to find nothing

    def switches() -> int:
        total = 0
        for task in Path(f"/proc/{worker.process.pid}/task").iterdir():
            status = (task / "status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        return total

    before = switches()
    time.sleep(2)
    assert switches() == before


def test_progress_is_told_four_times_a_second(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    assert_ok(worker.fetch(spec(origin, "/gen/2000000/184?rate=1000000", tmp_path)))
    reports = worker.all(FileReceived)
    assert 4 <= len(reports) <= 10
    assert [report.received_bytes for report in reports] == sorted({report.received_bytes for report in reports})
