"""A worker and its proxies: exactly those that it was told, in their order, and none of the environment (J23, I15)."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.errors import ErrorContext
from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec, FileStarted, ProxyChosen, TakeCredential, TransferEnded, TransferFiles
from support.origin import Connection, Origin, Request, generate
from support.proxy_server import ProxyServer
from support.worker_process import WorkerProcess, settings

MEBI = 1024 * 1024
SOURCE = "alice's own proxy settings"


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def proxy(origin: Origin) -> Iterator[ProxyServer]:
    with ProxyServer(hosts={"origin.test": origin.port, "other.test": origin.port}) as server:
        yield server


def spec(url: str, directory: Path, index: int = 0) -> FileSpec:
    name = str(directory / f"file{index}")
    return FileSpec(index=index, remote_name=url, local_name=name, temporary_name=f"{name}.tmp")


def manual(proxies: str, bypass: str = "") -> ProxySpec:
    return ProxySpec(usage="manual", proxies=proxies, bypass=bypass, source=SOURCE)


def closed_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def assert_fetched(ended: TransferEnded, directory: Path, size: int, index: int = 0) -> None:
    assert ended.error == "", ended
    assert (directory / f"file{index}.tmp").read_bytes() == generate(size, 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "c.pem", directory / "k.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:origin.test", "-days", "2"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture(scope="module")
def secure_origin(certificate: tuple[Path, Path]) -> Iterator[Origin]:
    with Origin(tls=server_context(certificate)) as server:
        yield server


# --- the way of a request --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 12 * MEBI + 3])
def test_a_request_goes_through_the_proxy_in_absolute_form(
    worker: WorkerProcess, proxy: ProxyServer, tmp_path: Path, size: int
) -> None:
    """Large bodies are spliced from the proxy's connection to the file; the bytes are the same."""
    ended = worker.fetch(spec(f"http://origin.test/gen/{size}/1", tmp_path), proxy=manual(proxy.place))
    assert_fetched(ended, tmp_path, size)
    assert proxy.targets == [f"GET http://origin.test/gen/{size}/1"]
    assert worker.all(ProxyChosen)[0].way == f"through the proxy http://{proxy.place} ({SOURCE})"


def test_direct_is_direct_and_says_so(worker: WorkerProcess, origin: Origin, tmp_path: Path) -> None:
    ended = worker.fetch(
        spec(origin.url("/gen/1000/1"), tmp_path), proxy=ProxySpec(source="root has no proxy settings")
    )
    assert_fetched(ended, tmp_path, 1000)
    assert worker.all(ProxyChosen)[0].way == "without a proxy (root has no proxy settings)"


def test_the_environment_of_the_worker_is_never_asked(proxy: ProxyServer, origin: Origin, tmp_path: Path) -> None:
    with ProxyServer() as trap:
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        env = dict.fromkeys(names, f"http://{trap.place}") | {"no_proxy": "*", "NO_PROXY": "*"}
        with WorkerProcess(env=env) as worker:
            assert_fetched(worker.fetch(spec(origin.url("/gen/1000/1"), tmp_path)), tmp_path, 1000)
            # no_proxy=* of the environment must not lead past the proxy either.
            ended = worker.fetch(
                spec("http://origin.test/gen/2000/1", tmp_path, 1), transfer=2, proxy=manual(proxy.place)
            )
            assert_fetched(ended, tmp_path, 2000, 1)
        assert trap.connections == 0
    assert len(proxy.requests) == 1


def test_many_files_use_one_connection_to_the_proxy(worker: WorkerProcess, proxy: ProxyServer, tmp_path: Path) -> None:
    files = [spec(f"http://origin.test/gen/500/1?n={index}", tmp_path, index) for index in range(20)]
    assert worker.fetch(*files, proxy=manual(proxy.place)).error == ""
    assert (len(proxy.requests), proxy.connections) == (20, 1)
    assert len(worker.all(ProxyChosen)) == 1


def test_two_runs_with_different_proxies_share_no_connection(
    worker: WorkerProcess, origin: Origin, proxy: ProxyServer, tmp_path: Path
) -> None:
    with ProxyServer(hosts=proxy.hosts) as second:
        url = f"http://127.0.0.1:{origin.port}/gen/700/1"
        for number, settings in enumerate(
            (manual(proxy.place), manual(second.place), ProxySpec(), manual(proxy.place)), 1
        ):
            ended = worker.fetch(spec(f"{url}?run={number}", tmp_path, number), transfer=number, proxy=settings)
            assert_fetched(ended, tmp_path, 700, number)
        assert [target.rpartition("=")[2] for target in proxy.targets] == ["1", "4"]
        assert [target.rpartition("=")[2] for target in second.targets] == ["2"]


def test_an_https_server_is_reached_by_a_tunnel(
    certificate: tuple[Path, Path], secure_origin: Origin, tmp_path: Path
) -> None:
    hosts = {"origin.test": secure_origin.port}
    with ProxyServer(hosts=hosts) as proxy, WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        files = [spec(f"https://origin.test/gen/{size}/1", tmp_path, n) for n, size in enumerate((5000, 6 * MEBI))]
        assert worker.fetch(*files, proxy=manual(proxy.place)).error == ""
        for index, size in enumerate((5000, 6 * MEBI)):
            assert (tmp_path / f"file{index}.tmp").read_bytes() == generate(size, 1)
        assert proxy.targets == ["CONNECT origin.test:443"]
        # What the proxy said to CONNECT is not the server's answer.
        assert "X-From" not in worker.all(FileStarted)[0].response_headers


def test_a_proxy_that_is_spoken_to_by_tls(certificate: tuple[Path, Path], origin: Origin, tmp_path: Path) -> None:
    hosts = {"origin.test": origin.port}
    with (
        ProxyServer(hosts=hosts, tls=server_context(certificate)) as proxy,
        WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker,
    ):
        size = 9 * MEBI
        ended = worker.fetch(spec(f"http://origin.test/gen/{size}/1", tmp_path), proxy=manual(f"https://{proxy.place}"))
        assert_fetched(ended, tmp_path, size)
    with ProxyServer(hosts=hosts, tls=server_context(certificate)) as proxy, WorkerProcess() as worker:
        ended = worker.fetch(spec("http://origin.test/gen/5/1", tmp_path), proxy=manual(f"https://{proxy.place}"))
        assert (ended.error, ended.transient) == ("ERROR_WINHTTP_SECURE_INVALID_CA", False)
        assert f"proxy https://{proxy.place}" in ended.message


def test_an_interrupted_transfer_goes_on_through_the_proxy(
    worker: WorkerProcess, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    size = 8 * MEBI
    url = f"http://origin.test/gen/{size}/1?cut={5 * MEBI}&times=1&t={tmp_path.name}"
    ended = worker.fetch(spec(url, tmp_path), proxy=manual(proxy.place))
    assert_fetched(ended, tmp_path, size)
    assert [asked.headers.get("range") for asked in proxy.requests] == [None, f"bytes={5 * MEBI}-"]


# --- which proxy -----------------------------------------------------------------------------------


def test_proxies_are_tried_in_order_and_one_that_failed_is_not_asked_again(
    worker: WorkerProcess, proxy: ProxyServer, tmp_path: Path
) -> None:
    dead = closed_port()
    files = [spec(f"http://origin.test/gen/800/1?n={index}", tmp_path, index) for index in range(3)]
    with ProxyServer() as unused:
        ended = worker.fetch(
            *files, proxy=manual(f"no-such-proxy.invalid:1 127.0.0.1:{dead} {proxy.place} {unused.place}")
        )
        assert_fetched(ended, tmp_path, 800)
        assert unused.connections == 0
    assert len(proxy.requests) == 3
    ways = [message.way.split()[3] for message in worker.all(ProxyChosen)]
    assert ways == ["http://no-such-proxy.invalid:1", f"http://127.0.0.1:{dead}", f"http://{proxy.place}"]


def test_when_no_proxy_can_be_reached_the_transfer_never_goes_directly(
    worker: WorkerProcess, origin: Origin, tmp_path: Path
) -> None:
    before = len(origin.requests)
    dead = closed_port()
    listed = manual(f"127.0.0.1:{dead} localhost:{dead}")
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=listed, break_patience_s=1.0)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
    assert "the proxy http://" in ended.message
    assert f"({SOURCE})" in ended.message
    assert len(origin.requests) == before


def test_each_protocol_has_its_own_proxies(worker: WorkerProcess, proxy: ProxyServer, tmp_path: Path) -> None:
    dead = closed_port()
    ended = worker.fetch(
        spec("http://origin.test/gen/90/1", tmp_path), proxy=manual(f"https=127.0.0.1:{dead} http={proxy.place}")
    )
    assert_fetched(ended, tmp_path, 90)


def test_a_host_of_the_bypass_list_is_reached_directly(
    worker: WorkerProcess, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    files = [
        spec(f"http://localhost:{origin.port}/gen/91/1", tmp_path, 0),
        spec("http://origin.test/gen/92/1", tmp_path, 1),
    ]
    assert worker.fetch(*files, proxy=manual(proxy.place, "<local>")).error == ""
    assert proxy.hosts_asked == {"origin.test"}
    assert [message.way.split(" (")[0] for message in worker.all(ProxyChosen)] == [
        "without a proxy",
        f"through the proxy http://{proxy.place}",
    ]


def test_a_redirect_chooses_anew(worker: WorkerProcess, proxy: ProxyServer, origin: Origin, tmp_path: Path) -> None:
    inside = f"http://127.0.0.1:{origin.port}/gen/93/1"
    outside = f"http://127.0.0.1:{origin.port}/to?url=http://other.test/gen/94/1"
    files = [spec(f"http://origin.test/to?url={inside}", tmp_path, 0), spec(outside, tmp_path, 1)]
    assert worker.fetch(*files, proxy=manual(proxy.place, "127.0.0.0/8")).error == ""
    assert proxy.targets == [f"GET http://origin.test/to?url={inside}", "GET http://other.test/gen/94/1"]
    assert (tmp_path / "file0.tmp").read_bytes() == generate(93, 1)
    assert (tmp_path / "file1.tmp").read_bytes() == generate(94, 1)


def test_a_file_of_this_machine_needs_no_proxy_however_wrong_the_list(worker: WorkerProcess, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(generate(5000, 1))
    assert_fetched(worker.fetch(spec(source.as_uri(), tmp_path), proxy=manual("p:::1")), tmp_path, 5000)


# --- what proxies say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (manual("p:::1"), "'p:::1'"),
        (manual("p:1", "aaa.*"), "'aaa.*'"),
        (manual(""), "empty"),
        (ProxySpec(usage="of a later version", source=SOURCE), "not known"),
    ],
)
def test_j22_settings_that_cannot_be_followed_are_an_error_and_never_a_direct_connection(
    worker: WorkerProcess, origin: Origin, tmp_path: Path, settings: ProxySpec, words: str
) -> None:
    before = len(origin.requests)
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=settings)
    assert (ended.error, ended.transient, ended.index) == ("BG_E_INVALID_PROXY_INFO", False, 0)
    assert ended.context == ErrorContext.GENERAL_TRANSPORT
    assert SOURCE in ended.message
    assert words in ended.message
    assert len(origin.requests) == before


@pytest.mark.parametrize("url", ["http://origin.test/gen/10/1", "https://origin.test/gen/10/1"])
def test_407_names_the_proxy_and_not_the_server(worker: WorkerProcess, tmp_path: Path, url: str) -> None:
    with ProxyServer(status=407, more="Proxy-Authenticate: Basic realm=x\r\n") as proxy:
        ended = worker.fetch(spec(url, tmp_path), proxy=manual(proxy.place))
        assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_407", False)
        assert ended.message.startswith(f"the proxy http://{proxy.place}")
        assert SOURCE in ended.message


@pytest.mark.parametrize("scheme", ["Basic", "NTLM"])
def test_i9_a_server_cannot_have_the_proxy_told_a_password(
    certificate: tuple[Path, Path], secure_origin: Origin, tmp_path: Path, scheme: str
) -> None:
    """It answers as a proxy would, through the tunnel; the proxy itself never asked."""

    def answer(_request: Request, connection: Connection) -> None:
        lines = f"Proxy-Authenticate: {scheme} realm=x\r\nContent-Length: 0\r\nConnection: close"
        connection.send(f"HTTP/1.1 407 Who?\r\n{lines}\r\n\r\n".encode())
        connection.hang_up()

    secure_origin.serve("/asks", answer)
    hosts = {"origin.test": secure_origin.port}
    with ProxyServer(hosts=hosts) as proxy, WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        worker.send(settings(1, proxy=manual(proxy.place)))
        for each in ("basic", "ntlm"):
            worker.send(
                TakeCredential(transfer=1, target="proxy", scheme=each, user_name="u", password="secret", last=True)
            )
        worker.send(TransferFiles(transfer=1, files=(spec("https://origin.test/asks", tmp_path),), last=True))
        ended = worker.wait_for(TransferEnded)
        assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_407", False)
        assert ended.message.startswith("origin.test:")
        assert "as a proxy does" in ended.message
        assert proxy.targets == ["CONNECT origin.test:443"]
        assert "proxy-authorization" not in proxy.requests[0].headers


@pytest.mark.parametrize(("status", "transient"), [(403, False), (302, False), (503, True), (500, True)])
def test_a_tunnel_that_is_refused_is_the_proxys_error(
    worker: WorkerProcess, tmp_path: Path, status: int, transient: bool
) -> None:
    """And a redirect in place of a tunnel is no redirect: it would come from anyone on the way."""
    with ProxyServer(status=status, more="Location: http://127.0.0.1:1/\r\n") as proxy:
        ended = worker.fetch(
            spec("https://origin.test/gen/10/1", tmp_path), proxy=manual(proxy.place), break_patience_s=0.5
        )
        assert (ended.error, ended.transient) == (f"BG_E_HTTP_ERROR_{status}", transient)
        assert f"the proxy http://{proxy.place} answered {status}" in ended.message
        assert set(proxy.targets) == {"CONNECT origin.test:443"}


def test_an_error_of_the_server_says_through_which_proxy_it_came(
    worker: WorkerProcess, proxy: ProxyServer, tmp_path: Path
) -> None:
    ended = worker.fetch(spec("http://origin.test/status/404", tmp_path), proxy=manual(proxy.place))
    assert ended.error == "BG_E_HTTP_ERROR_404"
    assert ended.message.startswith("origin.test:")
    assert f"(through the proxy http://{proxy.place}: {SOURCE})" in ended.message


def test_a_server_that_is_restarted_behind_a_proxy_is_waited_for(
    worker: WorkerProcess, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    size = 6 * MEBI
    turns = iter(range(100))

    def answer(request: Request, connection: Connection) -> None:
        turn = next(turns)
        if turn == 0:
            body = generate(size, 1)
            connection.send(f'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: {size}\r\n\r\n'.encode() + body[:MEBI])
            connection.hang_up()
        elif turn == 1:
            proxy.hosts["origin.test"] = closed_port()
            connection.hang_up()
        first = int((request.range or "bytes=0-")[6:-1])
        head = f'HTTP/1.1 206 P\r\nETag: "x"\r\nContent-Range: bytes {first}-{size - 1}/{size}\r\n'
        connection.send(f"{head}Content-Length: {size - first}\r\n\r\n".encode() + generate(size, 1)[first:])

    origin.serve("/restarted", answer)
    transfer = worker.begin(
        spec("http://origin.test/restarted", tmp_path), proxy=manual(proxy.place), break_patience_s=20.0
    )
    deadline_requests = 4
    while len(proxy.requests) < deadline_requests:
        worker.receive(5.0)
    proxy.hosts["origin.test"] = origin.port
    ended = worker.wait_for(TransferEnded, lambda one: one.transfer == transfer)
    assert_fetched(ended, tmp_path, size)


# --- the desktop -----------------------------------------------------------------------------------


def test_desktop_settings_that_do_not_exist_are_no_proxy(origin: Origin, tmp_path: Path) -> None:
    if os.path.exists(os.path.expanduser("~/.config/dconf/user")) or os.path.exists("/etc/dconf/profile/user"):
        pytest.skip("this account has desktop settings")
    with WorkerProcess() as worker:
        ended = worker.fetch(
            spec(origin.url("/gen/1000/1"), tmp_path),
            proxy=ProxySpec(usage="desktop", source="the desktop settings of me"),
        )
        assert_fetched(ended, tmp_path, 1000)
        assert worker.all(ProxyChosen)[0].way == "without a proxy (the desktop settings of me)"
