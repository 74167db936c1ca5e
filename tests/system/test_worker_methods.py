"""A worker that downloads by a method of the job's own (H10): what is sent, and that it is sent once.

A recording server, nginx by http and by https with HTTP/2, and a proxy are the witnesses.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec, FileStarted, RangeSpec, TransferBroken, TransferEnded
from support.ca import Authority, bundle
from support.nginx import free_port
from support.origin import Connection, Origin, Request, generate
from support.proxy_server import ProxyServer
from support.recorder import BODY, Recorder
from support.worker_process import WorkerProcess

START_S = 20.0
_CONFIGURATION = """
daemon off;
pid {base}/pid;
error_log {base}/errors;
events {{ }}
http {{
    access_log {base}/requests;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ return 200 "$request_method length=$http_content_length $server_protocol range=$http_range\\n"; }}
    }}
}}
"""


class Answering:
    """nginx that tells what it was asked."""

    def __init__(self, port: int, tls_port: int) -> None:
        self.urls = {"http": f"http://127.0.0.1:{port}", "https": f"https://127.0.0.1:{tls_port}"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("methods")


@pytest.fixture(scope="module")
def nginx(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    base = tmp_path_factory.mktemp("nginx")
    certificate, key = authority.issue("127.0.0.1").write(base, "server")
    server = Answering(port := free_port(), tls_port := free_port())
    configuration = base / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(base=base, port=port, tls_port=tls_port, certificate=certificate, key=key)
    )
    with (base / "errors").open("wb") as errors:
        process = subprocess.Popen(["nginx", "-p", base, "-c", configuration], stdin=subprocess.DEVNULL, stderr=errors)
    try:
        deadline = time.monotonic() + START_S
        while not (base / "pid").exists():
            assert process.poll() is None, (base / "errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker(authority: Authority, tmp_path: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(env={"SSL_CERT_FILE": bundle(tmp_path / "ca.pem", authority)}) as process:
        yield process


def spec(url: str, directory: Path, index: int = 0, **more: Any) -> FileSpec:
    temporary = str(directory / f".BIT{index:08x}.tmp")
    return FileSpec(
        index=index, remote_name=url, local_name=str(directory / f"file{index}"), temporary_name=temporary, **more
    )


def content(file: FileSpec) -> bytes:
    return Path(file.temporary_name).read_bytes()


def assert_ok(ended: TransferEnded) -> None:
    assert ended.error == "", ended


@pytest.mark.parametrize(
    ("method", "length"),
    [
        ("POST", ["0"]),
        ("PUT", ["0"]),
        ("PATCH", ["0"]),
        ("PROPFIND", ["0"]),
        ("REPORT", ["0"]),
        ("post", ["0"]),
        ("X-MINE!#$%&'*+.^_`|~", ["0"]),
        ("DELETE", []),
        ("OPTIONS", []),
    ],
)
def test_the_request_has_the_method_and_no_body(
    worker: WorkerProcess, tmp_path: Path, method: str, length: list[str]
) -> None:
    """No range, no condition, no `Expect`; a length of 0 where a server has to know that nothing follows."""
    with Recorder() as recorder:
        file = spec(f"http://127.0.0.1:{recorder.port}/x?y", tmp_path, durable_bytes=0)
        assert_ok(worker.fetch(file, http_method=method, strict_http=True))
        assert content(file) == BODY
        assert recorder.first_lines == [f"{method} /x?y HTTP/1.1"]
        assert recorder.heads[0].endswith(b"\r\n\r\n")
        assert recorder.field("content-length") == length
        for name in ("range", "if-range", "expect", "transfer-encoding", "content-type"):
            assert recorder.field(name) == []
        assert recorder.field("accept-encoding") == ["identity"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("PATCH", "0"), ("DELETE", "")])
def test_a_real_server_sees_it(
    worker: WorkerProcess, nginx: Answering, tmp_path: Path, scheme: str, method: str, length: str
) -> None:
    """nginx, by HTTP/1.1 and by HTTP/2 over TLS."""
    files = [spec(f"{nginx.urls[scheme]}/{number}", tmp_path, number) for number in range(2)]
    assert_ok(worker.fetch(*files, http_method=method))
    version = "HTTP/1.1" if scheme == "http" else "HTTP/2.0"
    for file in files:
        assert content(file) == f"{method} length={length} {version} range=\n".encode()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(worker: WorkerProcess, nginx: Answering, tmp_path: Path, scheme: str) -> None:
    with ProxyServer() as proxy:
        by = ProxySpec(usage="manual", proxies=f"127.0.0.1:{proxy.port}", bypass="nowhere.test")
        file = spec(f"{nginx.urls[scheme]}/x", tmp_path)
        assert_ok(worker.fetch(file, http_method="POST", proxy=by))
        assert content(file).startswith(b"POST length=0 ")
        assert [asked.method for asked in proxy.requests] == ["POST" if scheme == "http" else "CONNECT"]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_303_goes_on_with_get_and_all_others_with_the_method(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, status: int
) -> None:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(status, b"", "Location: /gen/1000/3\r\n")

    origin.serve(f"/see/{status}", answer)
    before = len(origin.requests)
    file = spec(origin.url(f"/see/{status}"), tmp_path)
    assert_ok(worker.fetch(file, http_method="POST"))
    assert content(file) == generate(1000, 3)
    last = "GET" if status == 303 else "POST"
    assert [request.method for request in origin.requests[before:]] == ["POST", last]
    assert origin.requests[-1].headers.get("content-length") == (None if last == "GET" else "0")


@pytest.mark.parametrize("query", ["cut=1000", "cut=0", "cut_all=10", "reset=1&cut=1000", "stall=1000", "status=503"])
def test_what_was_sent_once_is_not_sent_again(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, query: str
) -> None:
    """A broken connection is an error, at once: nobody knows what the request has done (H10)."""
    url = origin.url(f"/gen/400000/3?{query}&times=1&t={tmp_path.name}")
    before = len(origin.requests)
    ended = worker.fetch(spec(url, tmp_path), http_method="POST", stall_timeout_s=1, break_patience_s=20.0)
    assert ended.error
    assert ended.transient, "the service makes an error of it"
    assert worker.all(TransferBroken) == []
    assert [request.method for request in origin.requests[before:]] == ["POST"]


def test_a_kept_connection_that_is_dead_makes_no_second_request(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    """Each file has a connection of its own: on a kept one libcurl would ask again by itself."""
    files = [spec(origin.url(f"/gen/1000/{number}"), tmp_path, number) for number in range(4)]
    before = len(origin.requests)
    assert_ok(worker.fetch(*files, http_method="POST"))
    requests = origin.requests[before:]
    assert [request.method for request in requests] == ["POST"] * 4
    assert len({request.connection for request in requests}) == 4


def test_nothing_of_an_earlier_run_is_gone_on_with(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """The answer is made for this request: no range, no validator to come back with."""
    Path(tmp_path / ".BIT00000000.tmp").write_bytes(b"x" * 100)
    file = spec(origin.url("/gen/1000/3"), tmp_path, durable_bytes=100, size=1000, etag='"v3-1000"')
    assert_ok(worker.fetch(file, http_method="POST"))
    assert content(file) == generate(1000, 3)
    assert origin.requests[-1].range is None
    started = worker.all(FileStarted)[-1]
    assert (started.offset, started.resumable, started.etag) == (0, False, None)


@pytest.mark.parametrize("status", [201, 204, 206, 404, 405, 411, 416, 501])
def test_only_200_brings_a_file(worker: WorkerProcess, origin: Origin, tmp_path: Path, status: int) -> None:
    before = len(origin.requests)
    ended = worker.fetch(spec(origin.url(f"/status/{status}"), tmp_path), http_method="PUT")
    expected = "BG_E_INVALID_SERVER_RESPONSE" if status == 206 else f"BG_E_HTTP_ERROR_{status}"
    assert ended.error == expected
    assert len(origin.requests) - before == 1


def test_ranges_need_get(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    before = len(origin.requests)
    file = spec(origin.url("/gen/1000/3"), tmp_path, ranges=(RangeSpec(offset=0, length=5),))
    ended = worker.fetch(file, http_method="POST")
    assert (ended.error, ended.transient) == ("BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD", False)
    assert len(origin.requests) == before


def test_a_proxy_that_is_not_there_has_been_sent_nothing(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """The next one of the list may be tried: no request was made yet."""
    with ProxyServer() as proxy:
        proxies = f"127.0.0.1:{free_port()} 127.0.0.1:{proxy.port}"
        by = ProxySpec(usage="manual", proxies=proxies, bypass="nowhere.test")
        file = spec(origin.url("/gen/1000/3"), tmp_path)
        assert_ok(worker.fetch(file, http_method="POST", proxy=by))
        assert [asked.method for asked in proxy.requests] == ["POST"]


def test_the_next_transfer_asks_by_get_again(worker: WorkerProcess, tmp_path: Path) -> None:
    """A method is the job's: it stays with no handle."""
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder())
        url = f"http://127.0.0.1:{recorder.port}/x"
        for number, method in enumerate(("POST", "", "DELETE", "")):
            assert_ok(worker.fetch(spec(url, tmp_path), transfer=number + 1, http_method=method))
        assert [line.split()[0] for line in recorder.first_lines] == ["POST", "GET", "DELETE", "GET"]
        assert recorder.field("content-length", 1) == []
