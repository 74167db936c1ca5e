"""A worker whose proxies a PAC script names, with real evaluators: which way requests go, and that broken scripts and
servers of scripts are errors and never a direct connection (J22, I16)."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbits.errors import ErrorContext
from openbits.frames.codec import MAX_FRAME_BYTES
from openbits.frames.network import ProxySpec
from openbits.frames.pac import FROM_EVALUATOR, TO_EVALUATOR, Names, NamesWanted, Question, Verdict
from openbits.frames.worker import EvaluatorWanted, FileSpec, ProxyChosen, TransferEnded
from support.evaluating import PacWorker
from support.origin import Connection, Origin, Request, generate
from support.proxy_server import ProxyServer
from support.socks_server import SocksServer

SOURCE = "alice's own proxy settings"
SCRIPT = "function FindProxyForURL(url, host) {%s}"
UNFOLLOWED = "BG_E_INVALID_PROXY_INFO"


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def worker() -> Iterator[PacWorker]:
    with PacWorker() as process:
        yield process


@pytest.fixture
def proxy(origin: Origin) -> Iterator[ProxyServer]:
    with ProxyServer(hosts={"origin.test": origin.port, "other.test": origin.port}) as server:
        yield server


def closed_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def spec(url: str, directory: Path, index: int = 0) -> FileSpec:
    name = str(directory / f"file{index}")
    return FileSpec(index=index, remote_name=url, local_name=name, temporary_name=f"{name}.tmp")


def script_at(url: str) -> ProxySpec:
    return ProxySpec(usage="script", script_url=url, source=SOURCE)


def written(directory: Path, body: str, *, is_body: bool = True) -> ProxySpec:
    path = directory / "proxy.pac"
    path.write_text(SCRIPT % body if is_body else body)
    return script_at(path.as_uri())


def served(origin: Origin, body: str, *, more: str = "") -> tuple[ProxySpec, str]:
    """Settings with a script that the origin serves, and its path."""
    path = f"/proxy{len(origin.requests)}-{os.urandom(4).hex()}.pac"
    origin.serve(path, lambda _, connection: connection.send_whole(200, (SCRIPT % body).encode(), more))
    return script_at(origin.url(path)), path


def assert_fetched(ended: TransferEnded, directory: Path, size: int, index: int = 0) -> None:
    assert ended.error == "", ended
    assert (directory / f"file{index}.tmp").read_bytes() == generate(size, 1)


def assert_unfollowed(ended: TransferEnded, *words: str, transient: bool) -> None:
    assert (ended.error, ended.transient, ended.context) == (UNFOLLOWED, transient, ErrorContext.GENERAL_TRANSPORT)
    for word in (SOURCE, *words):
        assert word in ended.message


# --- the way of a request ----------------------------------------------------------------------------


def test_the_proxy_that_a_script_names_is_used_and_told_with_the_script(
    worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    settings, path = served(origin, f"return 'PROXY {proxy.place}'")
    assert_fetched(worker.fetch(spec("http://origin.test/gen/900/1", tmp_path), proxy=settings), tmp_path, 900)
    [chosen] = worker.all(ProxyChosen)
    assert chosen.way == f"through the proxy http://{proxy.place} ({SOURCE}: PAC {settings.script_url})"
    # Fetched without a proxy, and without whatever else the job sends.
    [fetched] = origin.requests_of(path)
    assert not {"authorization", "cookie", "proxy-authorization"} & fetched.headers.keys()


def test_a_script_is_fetched_once_and_asked_for_each_file(
    worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    settings, path = served(origin, f"return url.indexOf('n=7') > 0 ? 'DIRECT' : 'PROXY {proxy.place}'")
    base = f"http://127.0.0.1:{origin.port}/gen/50/1?x={tmp_path.name}"
    files = [spec(f"{base}&n={index}", tmp_path, index) for index in range(9)]
    for transfer in (1, 2):
        assert worker.fetch(*files, transfer=transfer, proxy=settings).error == ""
    assert len(origin.requests_of(path)) == 1
    assert len(proxy.requests) == 16
    assert len(worker.all(EvaluatorWanted)) == 2


def test_of_an_https_url_a_script_sees_the_server_and_no_more(
    worker: PacWorker, proxy: ProxyServer, tmp_path: Path
) -> None:
    settings = written(
        tmp_path, f"return url == 'https://origin.test:8443/' && host == 'origin.test' ? 'PROXY {proxy.place}' : 'x'"
    )
    ended = worker.fetch(
        spec("https://origin.test:8443/secret/path?token=t", tmp_path), proxy=settings, break_patience_s=0.5
    )
    # The origin speaks no TLS: it got as far as the proxy.
    assert ended.error != UNFOLLOWED
    assert set(proxy.targets) == {"CONNECT origin.test:8443"}


def test_a_redirect_is_asked_anew(worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path) -> None:
    settings = written(tmp_path, f"return host == 'origin.test' ? 'PROXY {proxy.place}' : 'DIRECT'")
    inside = f"http://127.0.0.1:{origin.port}/gen/93/1"
    ended = worker.fetch(spec(f"http://origin.test/to?url={inside}", tmp_path), proxy=settings)
    assert_fetched(ended, tmp_path, 93)
    assert len(proxy.requests) == 1
    assert [chosen.way.split(" (")[0] for chosen in worker.all(ProxyChosen)] == [
        f"through the proxy http://{proxy.place}",
        "without a proxy",
    ]


def test_every_way_is_tried_in_its_order(worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path) -> None:
    dead = closed_port()
    with SocksServer(hosts={"origin.test": origin.port}) as socks:
        ways = f"PROXY 127.0.0.1:{dead}; HTTPS 127.0.0.1:{dead}; SOCKS5 127.0.0.1:{dead}; SOCKS {socks.place}; DIRECT"
        ended = worker.fetch(spec("http://origin.test/gen/80/1", tmp_path), proxy=written(tmp_path, f"return '{ways}'"))
        assert_fetched(ended, tmp_path, 80)
        assert socks.asked == [(5, "origin.test", 80)]
    ways = f"PROXY 127.0.0.1:{dead}; DIRECT"
    ended = worker.fetch(
        spec(origin.url("/gen/81/1"), tmp_path, 1), transfer=2, proxy=written(tmp_path, f"return '{ways}'")
    )
    assert_fetched(ended, tmp_path, 81, 1)
    assert worker.all(ProxyChosen)[-1].way.startswith("without a proxy (")


def test_a_direct_connection_that_cannot_be_made_gives_way_to_the_proxy_behind_it(
    worker: PacWorker, proxy: ProxyServer, tmp_path: Path
) -> None:
    settings = written(tmp_path, f"return 'DIRECT; PROXY {proxy.place}'")
    assert_fetched(worker.fetch(spec("http://origin.test/gen/82/1", tmp_path), proxy=settings), tmp_path, 82)


def test_names_are_resolved_for_the_script(worker: PacWorker, proxy: ProxyServer, tmp_path: Path) -> None:
    body = (
        "var ok = dnsResolve('localhost') == '127.0.0.1' && isInNet('localhost', '127.0.0.0', '255.0.0.0')"
        " && !isResolvable('no-such-name.invalid') && dnsResolve('no-such-name.invalid') === null"
        " && isInNetEx('localhost', '127.0.0.0/8') && /^[0-9.]+$/.test(myIpAddress());"
        f"return ok ? 'PROXY {proxy.place}' : 'NO'"
    )
    assert_fetched(
        worker.fetch(spec("http://origin.test/gen/83/1", tmp_path), proxy=written(tmp_path, body)), tmp_path, 83
    )


def test_a_script_may_be_redirected_and_is_not_fetched_again(worker: PacWorker, origin: Origin, tmp_path: Path) -> None:
    settings, path = served(origin, "return 'DIRECT'")
    there = script_at(origin.url(f"/to?url={settings.script_url}"))
    assert_fetched(worker.fetch(spec(origin.url("/gen/84/1"), tmp_path), proxy=there), tmp_path, 84)
    assert len(origin.requests_of(path)) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "c.pem", directory / "k.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


def test_scripts_and_proxies_by_tls_are_believed_as_the_system_believes(
    origin: Origin, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with (
        Origin(tls=context) as secure,
        ProxyServer(hosts={"origin.test": origin.port}, tls=context) as proxy,
    ):
        script = (SCRIPT % f"return 'HTTPS {proxy.place}'").encode()
        secure.serve("/pac", lambda _, connection: connection.send_whole(200, script))
        settings = script_at(f"https://127.0.0.1:{secure.port}/pac")
        with PacWorker(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
            ended = worker.fetch(spec("http://origin.test/gen/86/1", tmp_path), proxy=settings)
            assert_fetched(ended, tmp_path, 86)
            assert worker.all(ProxyChosen)[0].way.startswith(f"through the proxy https://{proxy.place} (")
        with PacWorker() as worker:
            ended = worker.fetch(spec("http://origin.test/gen/86/1", tmp_path, 1), proxy=settings)
            assert_unfollowed(ended, "could not be fetched", "trust store", transient=False)
        assert len(proxy.requests) == 1


# --- SOCKS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "version"), [("socks5", 5), ("socks4a", 4)])
@pytest.mark.parametrize("size", [700, 9 * 1024 * 1024])
def test_j23_names_are_the_socks_proxys_to_resolve(
    worker: PacWorker, origin: Origin, tmp_path: Path, protocol: str, version: int, size: int
) -> None:
    with SocksServer(hosts={"origin.test": origin.port}) as socks:
        settings = ProxySpec(usage="manual", proxies=f"{protocol}://{socks.place}", source=SOURCE)
        files = [spec(f"http://origin.test/gen/{size}/1?n={index}", tmp_path, index) for index in range(2)]
        assert_fetched(worker.fetch(*files, proxy=settings), tmp_path, size, 1)
        assert set(socks.asked) == {(version, "origin.test", 80)}
    assert worker.all(ProxyChosen)[0].way.startswith(f"through the proxy {protocol}://{socks.place} (")


def test_j23_what_a_socks_proxy_refuses_is_said_and_no_way_around_it_taken(
    worker: PacWorker, origin: Origin, tmp_path: Path
) -> None:
    with SocksServer(refusal=2) as socks, SocksServer(hosts={"origin.test": origin.port}) as other:
        settings = ProxySpec(usage="manual", proxies=f"socks5://{socks.place} socks5://{other.place}", source=SOURCE)
        ended = worker.fetch(spec("http://origin.test/gen/5/1", tmp_path), proxy=settings, break_patience_s=0.5)
        assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)
        assert f"the proxy socks5://{socks.place} made no connection to origin.test" in ended.message
        assert other.asked == []
    with SocksServer(wants_password=True) as closed:
        settings = ProxySpec(usage="manual", proxies=f"socks5://{closed.place}", source=SOURCE)
        ended = worker.fetch(
            spec("http://origin.test/gen/5/1", tmp_path), transfer=2, proxy=settings, break_patience_s=0.5
        )
        assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_407", False)
        assert f"socks5://{closed.place} wants to know who asks" in ended.message


# --- broken scripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("not a script", "SyntaxError"),
        ("var x = 1", "no function FindProxyForURL"),
        (SCRIPT % "return 'QUIC p:1'", "QUIC"),
        (SCRIPT % "return 'PROXY p:1; NONSENSE'", "NONSENSE"),
        (SCRIPT % "throw new Error('broken')", "broken"),
        (SCRIPT % "while (1);", "limits"),
        (SCRIPT % "for (var i = 0; i < 1e9; i++) dnsResolve('no-such-' + i + '.invalid')", "100 names"),
        ("", "empty"),
        ("x" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_a_script_that_cannot_be_followed_is_an_error_and_never_a_direct_connection(
    worker: PacWorker, origin: Origin, tmp_path: Path, script: str, words: str
) -> None:
    url = origin.url(f"/gen/10/1?t={tmp_path.name}")
    ended = worker.fetch(spec(url, tmp_path), proxy=written(tmp_path, script, is_body=False))
    assert_unfollowed(ended, words, "proxy.pac", transient=False)
    assert not [request for request in origin.requests if tmp_path.name in request.target]
    # And the worker is as it was.
    assert_fetched(worker.fetch(spec(origin.url("/gen/11/1"), tmp_path, 1), transfer=2), tmp_path, 11, 1)


def test_a_script_of_the_largest_size_is_taken(worker: PacWorker, origin: Origin, tmp_path: Path) -> None:
    script = SCRIPT % "return 'DIRECT'"
    padded = script + "/" * 2 + "ä" * ((1024 * 1024 - len(script) - 2) // 2)
    ended = worker.fetch(spec(origin.url("/gen/12/1"), tmp_path), proxy=written(tmp_path, padded, is_body=False))
    assert_fetched(ended, tmp_path, 12)


@pytest.mark.parametrize(
    ("answer", "words", "transient"),
    [
        (lambda _, connection: connection.send_whole(404, b"no"), "404", False),
        (lambda _, connection: connection.send_whole(500, b"no"), "500", True),
        (lambda _, connection: connection.send_whole(503, b"no"), "503", True),
        (lambda _, connection: connection.send_whole(401, b"", "WWW-Authenticate: Negotiate\r\n"), "401", False),
        (lambda _, connection: connection.send_whole(200, b"<html>log on</html>"), "web page", True),
        (lambda _, connection: connection.send_whole(200, b"x" * 5_000_000), "larger than 1 MiB", False),
        (lambda _, connection: connection.send_whole(200, b"x", "Content-Encoding: gzip\r\n"), "compressed", False),
        (
            lambda _, connection: connection.send_whole(302, b"", "Location: file:///etc/passwd\r\n"),
            "redirected",
            False,
        ),
        (lambda _, connection: connection.send_whole(302, b"", "Location: /loop\r\n"), "5 times", False),
        (lambda _, connection: connection.hang_up(), "could not be fetched", True),
    ],
)
def test_a_server_that_has_no_script_is_an_error_and_never_a_direct_connection(
    worker: PacWorker,
    origin: Origin,
    tmp_path: Path,
    answer: Callable[[Request, Connection], None],
    words: str,
    transient: bool,
) -> None:
    path = f"/{os.urandom(4).hex()}.pac"
    origin.serve(path, answer)
    url = origin.url(f"/gen/10/1?t={tmp_path.name}")
    ended = worker.fetch(spec(url, tmp_path), proxy=script_at(origin.url(path)))
    assert_unfollowed(ended, words, path, transient=transient)
    assert not [request for request in origin.requests if tmp_path.name in request.target]


def test_a_server_that_hangs_is_waited_for_no_longer_than_a_while(origin: Origin, tmp_path: Path) -> None:
    def hang(_: Request, __: Connection) -> None:
        hanging.closing.wait(30)

    with Origin() as hanging, PacWorker(limits={"pacscript.FETCH_LIMIT_S": 1.0}) as worker:
        hanging.serve("/pac", hang)
        ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=script_at(hanging.url("/pac")))
        assert_unfollowed(ended, "did not come within 1 s", transient=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    ],
)
def test_only_a_regular_file_can_be_a_script(
    worker: PacWorker, origin: Origin, tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "thing"
    make(path)
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=script_at(path.as_uri()))
    assert_unfollowed(ended, words, "/thing", transient=False)


@pytest.mark.parametrize("url", ["file://elsewhere/pac", "file://[::1/pac", "file://[]/pac", "file:pac"])
def test_an_address_that_names_no_file_is_an_error_and_not_the_end_of_the_worker(
    worker: PacWorker, origin: Origin, tmp_path: Path, url: str
) -> None:
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=script_at(url))
    assert_unfollowed(ended, "names no file of this machine", transient=False)


def test_a_script_of_which_nobody_knows_how_it_would_be_fetched_is_an_error(
    worker: PacWorker, origin: Origin, tmp_path: Path
) -> None:
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=script_at("data:,x"))
    assert_unfollowed(ended, "data:,x", transient=False)
    settings = ProxySpec(usage="detect", dhcp_url="file:///etc/passwd", source=SOURCE)
    ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), transfer=2, proxy=settings)
    assert_unfollowed(ended, "DHCP", "file:///etc/passwd", transient=False)


def test_dhcp_says_where_the_script_is(worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path) -> None:
    settings, _ = served(origin, f"return 'PROXY {proxy.place}'")
    detect = ProxySpec(usage="detect", dhcp_url=settings.script_url, source=SOURCE)
    assert_fetched(worker.fetch(spec("http://origin.test/gen/85/1", tmp_path), proxy=detect), tmp_path, 85)
    assert f"PAC {settings.script_url}" in worker.all(ProxyChosen)[0].way


# --- evaluators --------------------------------------------------------------------------------------


def test_without_an_evaluator_nothing_goes_out(worker: PacWorker, origin: Origin, tmp_path: Path) -> None:
    worker.refusal = "256 workers run already"
    url = origin.url(f"/gen/10/1?t={tmp_path.name}")
    ended = worker.fetch(spec(url, tmp_path), proxy=written(tmp_path, "return 'DIRECT'"))
    assert_unfollowed(ended, "256 workers", transient=True)
    assert not [request for request in origin.requests if tmp_path.name in request.target]


def test_an_evaluator_that_nobody_brings_is_not_waited_for_for_ever(origin: Origin, tmp_path: Path) -> None:
    with PacWorker(limits={"pac.EVALUATOR_LIMIT_S": 0.5}) as worker:
        worker.brings = False
        ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=written(tmp_path, "return 'DIRECT'"))
        assert_unfollowed(ended, "no process could be started", transient=True)


def test_an_evaluator_that_died_between_two_questions_is_replaced(
    worker: PacWorker, origin: Origin, tmp_path: Path
) -> None:
    gate = threading.Event()
    path = f"/{os.urandom(4).hex()}"

    def answer(_: Request, connection: Connection) -> None:
        assert gate.wait(20)
        connection.send_whole(200, generate(10, 1))

    origin.serve(path, answer)
    settings = written(tmp_path, "return 'DIRECT'")
    transfer = worker.begin(
        spec(origin.url(path), tmp_path), spec(origin.url("/gen/13/1"), tmp_path, 1), proxy=settings
    )
    worker.wait_for(ProxyChosen)
    [evaluator] = worker.evaluators
    evaluator.kill()
    evaluator.wait(20)
    gate.set()
    ended = worker.wait_for(TransferEnded, lambda one: one.transfer == transfer)
    assert_fetched(ended, tmp_path, 13, 1)
    assert len(worker.evaluators) == 2


def _hear(sock: socket.socket) -> object:
    packet = sock.recv(MAX_FRAME_BYTES)
    return TO_EVALUATOR.decode(packet) if packet else None


@pytest.mark.parametrize(
    "frames",
    [
        [b"nonsense"],
        [FROM_EVALUATOR.encode(Verdict(result="PROXY p:1", error="both"))],
        [FROM_EVALUATOR.encode(Verdict(result="x" * 5000))],
        [TO_EVALUATOR.encode(Question(url="u", host="h"))],
        [FROM_EVALUATOR.encode(NamesWanted(name=f"n{index}", any_version=False)) for index in range(500)],
    ],
)
def test_an_evaluator_that_was_taken_over_gets_no_further(
    worker: PacWorker, origin: Origin, tmp_path: Path, frames: list[bytes]
) -> None:
    """What it says that it cannot say ends the question, with an error; the worker goes on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    answered: list[object] = []

    def act() -> None:
        with ours, contextlib.suppress(OSError):
            while not isinstance(_hear(ours), Question):
                pass
            for frame in frames:
                ours.send(frame)
            while (message := _hear(ours)) is not None:
                answered.append(message)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    with theirs:
        worker.impostor = theirs
        ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), proxy=written(tmp_path, "return 'DIRECT'"))
    assert ended.error == UNFOLLOWED
    thread.join(20)
    assert not thread.is_alive()
    assert all(isinstance(message, Names) for message in answered)
    assert len(answered) <= 200
    assert_fetched(worker.fetch(spec(origin.url("/gen/11/1"), tmp_path, 1), transfer=2), tmp_path, 11, 1)


def test_a_verdict_that_nobody_asked_for_is_no_answer_to_the_next_question(
    worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    ours.send(FROM_EVALUATOR.encode(Verdict(result="DIRECT")))
    with ours, theirs:
        worker.impostor = theirs
        transfer = worker.begin(
            spec(origin.url(f"/gen/10/1?t={tmp_path.name}"), tmp_path), proxy=written(tmp_path, "return 'DIRECT'")
        )
        ended = worker.wait_for(TransferEnded, lambda one: one.transfer == transfer)
    assert ended.error in ("", UNFOLLOWED)


def test_a_run_that_is_stopped_while_a_script_computes_ends_at_once(
    worker: PacWorker, origin: Origin, tmp_path: Path
) -> None:
    worker.begin(spec(origin.url("/gen/10/1"), tmp_path), proxy=written(tmp_path, "while (1);"))
    worker.wait_for(EvaluatorWanted)
    assert worker.stop().error == ""


def test_a_bomb_in_one_run_leaves_another_alone(
    worker: PacWorker, proxy: ProxyServer, origin: Origin, tmp_path: Path
) -> None:
    bomb, good = tmp_path / "bomb", tmp_path / "good"
    bomb.mkdir()
    good.mkdir()
    worker.begin(spec(origin.url("/gen/10/1"), bomb), proxy=written(bomb, "while (1);"))
    ended = worker.fetch(
        spec("http://origin.test/gen/14/1", good), transfer=2, proxy=written(good, f"return 'PROXY {proxy.place}'")
    )
    assert_fetched(ended, good, 14)
    assert worker.wait_for(TransferEnded, lambda one: one.transfer == 1).error == UNFOLLOWED
