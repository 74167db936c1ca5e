"""What a worker sends of the job's own header lines, and whose answers it keeps (H5, F10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec, FileStarted, LastHeaders, RangeSpec, TransferEnded, UploadFile
from support.ca import Authority, bundle
from support.origin import Origin
from support.proxy_server import ProxyServer
from support.recorder import Recorder
from support.worker_process import WorkerProcess


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("headers")


@pytest.fixture
def worker(authority: Authority, tmp_path: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(env={"SSL_CERT_FILE": bundle(tmp_path / "ca.pem", authority)}) as process:
        yield process


@pytest.fixture
def secure(authority: Authority, tmp_path: Path) -> Iterator[Origin]:
    with Origin(tls=authority.issue("127.0.0.1").server_context(tmp_path)) as server:
        yield server


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        yield server


def spec(url: str, directory: Path, *ranges: RangeSpec) -> FileSpec:
    return FileSpec(
        index=0,
        remote_name=url,
        local_name=str(directory / "x"),
        temporary_name=str(directory / ".BIT.tmp"),
        ranges=ranges,
    )


def assert_ok(ended: TransferEnded) -> None:
    assert ended.error == "", ended


@pytest.mark.parametrize(
    ("lines", "name", "expected"),
    [
        ("", "User-Agent", ["OpenBITS/"]),
        ("User-Agent: mine/1.0\r\n", "User-Agent", ["mine/1.0"]),
        ("user-agent: mine\r\n", "User-Agent", ["mine"]),
        ("User-Agent:\r\n", "User-Agent", [""]),
        ("", "Accept", ["*/*"]),
        ("ACCEPT: text/plain;q=0.5\r\n", "Accept", ["text/plain;q=0.5"]),
        ("X-Twice: a\r\nx-twice: b\r\n", "X-Twice", ["a", "b"]),
        ("X-Empty:\r\n", "X-Empty", [""]),
        ("X-Colons: a: b;c\r\n", "X-Colons", ["a: b;c"]),
        ("Authorization: Bearer s\r\n", "Authorization", ["Bearer s"]),
        ("Accept-Encoding: gzip\r\n", "Accept-Encoding", ["identity"]),
        ("Range: bytes=5-\r\nIf-Range: x\r\n", "Range", []),
        ("Host: evil.example\r\n", "Host", ["127.0.0.1:"]),
        ("Content-Length: 5\r\n", "Content-Length", []),
        ("Transfer-Encoding: chunked\r\n", "Transfer-Encoding", []),
        ("Connection: close\r\nKeep-Alive: x\r\n", "Connection", []),
        ("Expect: 100-continue\r\n", "Expect", []),
    ],
)
def test_what_the_job_sets_replaces_what_is_ours_where_that_is_safe(
    worker: WorkerProcess, recorder: Recorder, tmp_path: Path, lines: str, name: str, expected: list[str]
) -> None:
    """H5: never what makes a request one request, or asks for the right bytes; intake refuses those already."""
    assert_ok(worker.fetch(spec(f"http://127.0.0.1:{recorder.port}/x", tmp_path), custom_headers=lines))
    found = recorder.field(name)
    assert len(found) == len(expected)
    assert all(value.startswith(wanted) for value, wanted in zip(found, expected, strict=True)), found


def test_a_method_with_no_body_says_so_once(worker: WorkerProcess, recorder: Recorder, tmp_path: Path) -> None:
    lines = "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n"
    url = f"http://127.0.0.1:{recorder.port}/x"
    assert_ok(worker.fetch(spec(url, tmp_path), custom_headers=lines, http_method="POST"))
    assert recorder.field("content-length") == ["0"]
    assert recorder.field("transfer-encoding") == []


def test_ranges_are_ours(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin() as origin:
        file = spec(origin.url("/gen/1000/1"), tmp_path, RangeSpec(offset=3, length=4))
        assert_ok(worker.fetch(file, custom_headers="Range: bytes=0-\r\nIf-Range: x\r\n"))
        assert origin.requests[0].range == "bytes=3-6"
        assert "if-range" not in origin.requests[0].headers


def test_the_proxys_answer_to_connect_is_never_among_the_headers(
    worker: WorkerProcess, secure: Origin, tmp_path: Path
) -> None:
    """F10: of a file that came, and of one that did not."""
    with ProxyServer() as proxy:
        by = ProxySpec(usage="manual", proxies=f"127.0.0.1:{proxy.port}", bypass="nowhere.test")
        assert_ok(worker.fetch(spec(secure.url("/gen/1000/1"), tmp_path), proxy=by))
        (started,) = worker.all(FileStarted)
        assert started.response_headers.startswith("HTTP/1.1 200 OK\r\n")
        assert started.response_headers.count("HTTP/1.") == 1
        ended = worker.fetch(spec(secure.url("/status/404"), tmp_path), proxy=by, transfer=2)
        assert ended.error == "BG_E_HTTP_ERROR_404"
        (last,) = worker.all(LastHeaders)
        assert last.response_headers.count("HTTP/1.") == 1
        assert {asked.method for asked in proxy.requests} == {"CONNECT"}


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_tunnel_that_is_refused_leaves_no_headers(
    worker: WorkerProcess, secure: Origin, tmp_path: Path, status: int
) -> None:
    more = "Proxy-Authenticate: Basic realm=x\r\n" if status == 407 else ""
    with ProxyServer(status=status, more=more) as proxy:
        by = ProxySpec(usage="manual", proxies=f"127.0.0.1:{proxy.port}", bypass="nowhere.test")
        ended = worker.fetch(spec(secure.url("/gen/1000/1"), tmp_path), proxy=by, break_patience_s=0.5)
        assert ended.error
    assert worker.all(LastHeaders) == []
    assert worker.all(FileStarted) == []
    assert not secure.requests


def test_an_upload_keeps_its_last_answer(worker: WorkerProcess, tmp_path: Path) -> None:
    """F10 for uploads: also where it was refused."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    body = b"no\n"
    answer = b"HTTP/1.1 403 No\r\nX-Why: because\r\nConnection: close\r\nContent-Length: 3\r\n\r\n" + body
    with Recorder(answer=answer) as refusing:
        file = FileSpec(
            index=0,
            remote_name=f"http://127.0.0.1:{refusing.port}/in",
            local_name=str(source),
            temporary_name="",
        )
        order = UploadFile(transfer=1, file=file, protocol="put", memory="", wants_reply=False, reply=None)
        ended = worker.upload(order)
    assert ended.error == "BG_E_HTTP_ERROR_403"
    (last,) = worker.all(LastHeaders)
    assert last.response_headers.startswith("HTTP/1.1 403 No\r\nX-Why: because\r\n")
