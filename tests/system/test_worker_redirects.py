"""A worker and redirects: the four policies, and what goes along to where they lead (D5, H7, H9, F10).

Recording servers by http and https are the witnesses of what was sent to whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.worker import FileRedirected, FileSpec, FileStarted, LastHeaders, RangeSpec, TransferEnded
from support.ca import Authority, bundle
from support.origin import Connection, Origin, Request, generate
from support.worker_process import WorkerProcess

SILENT, REPORT, DISALLOW, HTTPS_TO_HTTP = 0x0000, 0x0100, 0x0200, 0x0800
SECRETS = "Authorization: Basic c2VjcmV0\r\nCookie: secret=1\r\nX-Api-Key: secret\r\nX-Plain: yes\r\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("redirects")


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def other() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def secure(authority: Authority, tmp_path: Path) -> Iterator[Origin]:
    with Origin(tls=authority.issue("127.0.0.1").server_context(tmp_path)) as server:
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


def renamed(worker: WorkerProcess) -> list[tuple[int, str]]:
    return [(message.index, message.remote_name) for message in worker.all(FileRedirected)]


def redirect_to(origin: Origin, path: str, status: int, location: str) -> str:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(status, b"moved\n", f"Location: {location}\r\n")

    origin.serve(path, answer)
    return origin.url(path)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("policy", [SILENT, REPORT, DISALLOW])
def test_each_policy_with_each_redirect(
    worker: WorkerProcess, origin: Origin, other: Origin, tmp_path: Path, status: int, policy: int
) -> None:
    """H7, H9: followed and forgotten, followed and remembered, refused and remembered."""
    target = other.url("/gen/1000/5?x=%2F")
    file = spec(redirect_to(origin, f"/policy/{policy}/{status}", status, target), tmp_path)
    ended = worker.fetch(file, redirects=policy)
    if policy == DISALLOW:
        assert (ended.error, ended.transient, ended.index) == (f"BG_E_HTTP_ERROR_{status}", False, 0)
        assert target in ended.message
        assert "follows no redirects" in ended.message
        assert not other.requests
        assert worker.all(FileStarted) == []
    else:
        assert_ok(ended)
        assert content(file) == generate(1000, 5)
    assert renamed(worker) == ([] if policy == SILENT else [(0, target)])


def test_the_last_of_several_redirects_is_reported_before_the_answer(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    """ALLOW_REPORT gives the file the final URL, once, whatever lay on the way."""
    file = spec(origin.url("/redirect/5/gen/300000/2"), tmp_path)
    assert_ok(worker.fetch(file, redirects=REPORT))
    assert renamed(worker) == [(0, origin.url("/gen/300000/2"))]
    kinds = [type(message) for message in worker.messages if isinstance(message, FileRedirected | FileStarted)]
    assert kinds == [FileRedirected, FileStarted]


def test_nothing_is_reported_without_a_redirect_or_before_there_is_a_file(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    files = (
        spec(origin.url("/gen/1000/2"), tmp_path, 0),
        spec(redirect_to(origin, "/to-nothing", 302, "/status/404"), tmp_path, 1),
    )
    assert worker.fetch(*files, redirects=REPORT).error == "BG_E_HTTP_ERROR_404"
    assert renamed(worker) == []


def test_a_break_begins_at_the_first_address_and_is_reported_once(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    url = redirect_to(origin, "/breaks", 302, "/gen/400000/3?cut=150000&times=2")
    file = spec(url, tmp_path)
    assert_ok(worker.fetch(file, redirects=REPORT))
    assert content(file) == generate(400_000, 3)
    assert len(origin.requests_of("/breaks")) == 3
    assert renamed(worker) == [(0, origin.url("/gen/400000/3?cut=150000&times=2"))]


def test_ranges_follow_redirects_and_report_them(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ranges = (RangeSpec(offset=10, length=20), RangeSpec(offset=500, length=100))
    file = spec(origin.url("/redirect/2/gen/1000/4"), tmp_path, ranges=ranges)
    assert_ok(worker.fetch(file, redirects=REPORT))
    assert content(file) == generate(1000, 4, 10, 20) + generate(1000, 4, 500, 100)
    assert renamed(worker) == [(0, origin.url("/gen/1000/4"))]


@pytest.mark.parametrize("policy", [REPORT, DISALLOW])
def test_a_place_that_is_no_remote_name_is_not_remembered(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, policy: int
) -> None:
    """D6: 2,200 characters; it may be followed, but no job can have it as a name."""
    file = spec(redirect_to(origin, f"/long/{policy}", 302, "/gen/1000/4?" + "x" * 2300), tmp_path)
    ended = worker.fetch(file, redirects=policy)
    assert ended.error == ("" if policy == REPORT else "BG_E_HTTP_ERROR_302")
    assert renamed(worker) == []


@pytest.mark.parametrize(
    "bits", [SILENT, REPORT, DISALLOW, HTTPS_TO_HTTP, REPORT | HTTPS_TO_HTTP, DISALLOW | HTTPS_TO_HTTP]
)
def test_https_to_http(worker: WorkerProcess, secure: Origin, other: Origin, tmp_path: Path, bits: int) -> None:
    """H7 bit 0x0800, with the two policies that follow redirects; else the scheme may not change (H9)."""
    target = other.url("/gen/1000/5")
    file = spec(redirect_to(secure, "/down", 302, target), tmp_path)
    ended = worker.fetch(file, redirects=bits, custom_headers=SECRETS)
    if bits & DISALLOW:
        assert ended.error == "BG_E_HTTP_ERROR_302"
        assert renamed(worker) == [], "a job that follows nothing is not led out of https by its next Resume"
    elif bits & HTTPS_TO_HTTP:
        assert_ok(ended)
        assert content(file) == generate(1000, 5)
        assert renamed(worker) == ([(0, target)] if bits & REPORT else [])
    else:
        assert (ended.error, ended.transient) == ("ERROR_WINHTTP_REDIRECT_FAILED", False)
        assert "would leave https for http" in ended.message
        assert renamed(worker) == []
    assert len(other.requests) == (1 if bits & HTTPS_TO_HTTP and not bits & DISALLOW else 0)
    for request in other.requests:
        assert "secret" not in str(request.headers)


@pytest.mark.parametrize("bits", [SILENT, REPORT, DISALLOW, HTTPS_TO_HTTP | REPORT])
@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http:///x", "http://0x7f000001/", "\\\\s\\x:"]
)
def test_no_policy_leads_anywhere_but_to_servers(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, bits: int, location: str
) -> None:
    """H9: never to a file."""
    file = spec(redirect_to(origin, f"/odd/{bits}", 302, location), tmp_path)
    ended = worker.fetch(file, redirects=bits)
    if location.startswith("\\"):
        expected = "BG_E_HTTP_ERROR_302" if bits & DISALLOW else "BG_E_HTTP_ERROR_404"
        assert ended.error == expected, "an odd path of the same server"
        return
    assert ended.error == ("BG_E_HTTP_ERROR_302" if bits & DISALLOW else "ERROR_WINHTTP_REDIRECT_FAILED")
    assert not ended.transient
    assert renamed(worker) == []


@pytest.mark.parametrize("bits", [SILENT, REPORT, HTTPS_TO_HTTP, REPORT | HTTPS_TO_HTTP])
def test_secrets_go_to_no_other_server(
    worker: WorkerProcess, origin: Origin, other: Origin, tmp_path: Path, bits: int
) -> None:
    """I9: neither what the job brings along nor what the Location names."""
    target = f"http://intruder:password@127.0.0.1:{other.port}/gen/1000/5"
    file = spec(redirect_to(origin, f"/away/{bits}", 307, target), tmp_path)
    assert_ok(worker.fetch(file, redirects=bits, custom_headers=SECRETS))
    (request,) = other.requests
    assert request.headers["x-plain"] == "yes"
    assert not {"authorization", "cookie", "x-api-key"} & set(request.headers)
    (first,) = origin.requests_of(f"/away/{bits}")
    assert first.headers["authorization"] == "Basic c2VjcmV0"
    assert renamed(worker) == ([(0, other.url("/gen/1000/5"))] if bits & REPORT else [])


def test_secrets_come_back_with_the_way_back(
    worker: WorkerProcess, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    back = redirect_to(other, "/back", 302, origin.url("/gen/1000/9"))
    file = spec(redirect_to(origin, "/and-back", 302, back), tmp_path)
    before = len(origin.requests)
    assert_ok(worker.fetch(file, custom_headers=SECRETS))
    assert ["authorization" in request.headers for request in origin.requests[before:]] == [True, True]
    assert "authorization" not in other.requests[0].headers


def test_a_name_that_a_server_chose_gets_no_secrets_in_the_next_run(
    worker: WorkerProcess, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    """H7: the remote name has become the redirect's, what the job has is still for the server that the owner named."""
    meant_for = origin.url("")
    file = spec(other.url("/gen/1000/5"), tmp_path, meant_for=meant_for)
    assert_ok(worker.fetch(file, redirects=REPORT, custom_headers=SECRETS))
    assert "secret" not in str(other.requests[0].headers)
    again = spec(origin.url("/gen/1000/5"), tmp_path, 1, meant_for=meant_for)
    assert_ok(worker.fetch(again, transfer=2, custom_headers=SECRETS))
    assert "secret" in str(origin.requests[-1].headers)


@pytest.mark.parametrize(
    ("base", "location", "line"),
    [
        ("/a//b/c", "../gen/10/1", "/a//gen/10/1"),
        ("/a/b", "./x/../../gen/10/1?", "/gen/10/1?"),
        ("/a/b", "/g%65n/10/1", "/g%65n/10/1"),
        ("/a/b", "?q=%2f%zz", "/a/b?q=%2f%zz"),
        ("/a/b", "caf\xc3\xa9 {x}", "/a/caf%C3%A9%20%7Bx%7D"),
        ("/a/b", "/gen/10/1#frag?ment", "/gen/10/1"),
        ("/a/b", "//127.0.0.1:PORT//x/%2e%2e/%aF", "//x/%2e%2e/%aF"),
    ],
)
def test_what_is_asked_for_after_a_redirect(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, base: str, location: str, line: str
) -> None:
    """D5, D6: byte for byte what the server said, resolved by RFC 3986."""
    before = len(origin.requests)
    turn = iter([True])

    def answer(_request: Request, connection: Connection) -> None:
        if next(turn, False):
            where = location.replace("PORT", str(origin.port))
            connection.send_whole(302, b"", f"Location: {where}\r\n")
        else:
            connection.send_whole(200, b"x")

    origin.serve(base, answer)
    worker.fetch(spec(origin.url(base), tmp_path))
    assert [request.target for request in origin.requests[before:]] == [base, line]


# --- F10 -----------------------------------------------------------------------------------------


def test_the_headers_of_the_last_answer_after_redirects(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    """F10: those of the answer that brought the file, and no others."""
    assert_ok(worker.fetch(spec(origin.url("/redirect/3/gen/1000/6"), tmp_path)))
    (started,) = worker.all(FileStarted)
    assert started.response_headers.startswith("HTTP/1.1 200 ")
    assert "Location" not in started.response_headers
    assert worker.all(LastHeaders) == []


@pytest.mark.parametrize(
    ("path", "policy", "first"),
    [
        ("/status/404", SILENT, "HTTP/1.1 404 "),
        ("/redirect/1/status/403", SILENT, "HTTP/1.1 403 "),
        ("/status/401", SILENT, "HTTP/1.1 401 "),
        ("/redirect/1/gen/1/1", DISALLOW, "HTTP/1.1 302 "),
        ("/gen/10/1?status=503&retry_after=7", SILENT, "HTTP/1.1 503 "),
    ],
)
def test_the_headers_of_an_answer_that_is_an_error(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, path: str, policy: int, first: str
) -> None:
    """F10: the last response for the file, also where it brought none of it; before the end of the run."""
    ended = worker.fetch(spec(origin.url(path), tmp_path), redirects=policy)
    assert ended.error
    (last,) = worker.all(LastHeaders)
    assert last.index == 0
    assert last.response_headers.startswith(first)
    assert last.response_headers.endswith("\r\n\r\n")
    assert ("Retry-After: 7\r\n" in last.response_headers) == ("retry_after" in path)


def test_headers_are_cut_at_16_kib(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    def answer(_request: Request, connection: Connection) -> None:
        connection.send_whole(404, b"", f"X-Long: {'x' * 30_000}\r\n")

    origin.serve("/long-headers", answer)
    worker.fetch(spec(origin.url("/long-headers"), tmp_path))
    (last,) = worker.all(LastHeaders)
    assert len(last.response_headers) == 16 * 1024
