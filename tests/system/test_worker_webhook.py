"""A worker POSTs notices: to the URL that was named, by the proxy and with the trust of the order, proving nothing."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.network import CertificateSpec, ProxySpec, TlsSpec
from openbits.frames.operations import NoticeEnded, PostNotice
from openbits.frames.worker import Evaluator, EvaluatorWanted, TransferEnded
from support.ca import Authority, bundle
from support.hook_server import HookServer
from support.origin import Origin
from support.proxy_server import ProxyServer
from support.worker_process import WorkerProcess

ROOT = Authority("root")
STRANGER = Authority("stranger")
PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
IGNORE_UNKNOWN_CA = 0x08
BODY = json.dumps({"event": "transferred", "name": "Grüße \ud83d\udce6"})

_numbers = iter(range(1, 100_000))


@pytest.fixture(scope="module")
def server() -> Iterator[HookServer]:
    with HookServer() as running:
        yield running


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(env={"SSL_CERT_FILE": bundle(tmp_path / "ca.pem", ROOT)}) as process:
        yield process


def post(worker: WorkerProcess, url: str, *, limit_s: float = 10.0, **changes: Any) -> NoticeEnded:
    number = next(_numbers)
    worker.send(PostNotice(operation=number, url=url, body=BODY, limit_s=limit_s, **changes))
    return worker.wait_for(NoticeEnded, lambda ended: ended.operation == number)


def manual(proxies: str) -> ProxySpec:
    return ProxySpec(usage="manual", proxies=proxies, source="alice's own proxy settings")


def test_a_notice_is_posted_as_json_and_proves_nothing(worker: WorkerProcess, server: HookServer) -> None:
    ended = post(worker, server.url("/ok?key=1"))
    assert (ended.error, ended.status) == ("", 200)
    last = server.posted[-1]
    assert (last.method, last.path) == ("POST", "/ok?key=1")
    assert json.loads(last.body) == json.loads(BODY)
    assert last.headers["content-type"] == "application/json"
    assert last.headers["user-agent"].startswith("OpenBITS")
    assert not {"authorization", "cookie", "expect", "transfer-encoding"} & last.headers.keys()


@pytest.mark.parametrize(("path", "status"), [("/created", 201), ("/empty", 204)])
def test_every_status_of_success_acknowledges(
    worker: WorkerProcess, server: HookServer, path: str, status: int
) -> None:
    ended = post(worker, server.url(path))
    assert (ended.error, ended.status) == ("", status)


def test_an_answer_without_end_acknowledges_all_the_same(worker: WorkerProcess, server: HookServer) -> None:
    ended = post(worker, server.url("/endless"), limit_s=2.0)
    assert (ended.error, ended.status) == ("", 200)


@pytest.mark.parametrize(
    ("path", "error", "status"),
    [("/denied", "BG_E_HTTP_ERROR_403", 403), ("/broken", "BG_E_HTTP_ERROR_500", 500)],
)
def test_a_refusal_has_the_name_that_transfers_have(
    worker: WorkerProcess, server: HookServer, path: str, error: str, status: int
) -> None:
    ended = post(worker, server.url(path))
    assert (ended.error, ended.status) == (error, status)
    assert "127.0.0.1" in ended.message


def test_redirects_are_not_followed(worker: WorkerProcess, server: HookServer) -> None:
    before = len(server.posted)
    ended = post(worker, server.url("/moved"))
    assert (ended.error, ended.status) == ("ERROR_WINHTTP_REDIRECT_FAILED", 302)
    assert "name the new one" in ended.message
    assert len(server.posted) == before + 1


def test_a_server_that_does_not_answer_is_given_up_in_time(worker: WorkerProcess, server: HookServer) -> None:
    began = time.monotonic()
    ended = post(worker, server.url("/slow"), limit_s=0.7)
    assert (ended.error, ended.status) == ("ERROR_WINHTTP_TIMEOUT", None)
    assert "within 0.7 s" in ended.message
    assert 0.6 < time.monotonic() - began < 5


def test_nobody_there_and_no_such_host(worker: WorkerProcess) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    assert post(worker, f"http://127.0.0.1:{port}/").error == "ERROR_WINHTTP_CANNOT_CONNECT"
    assert post(worker, "http://nobody.invalid/").error == "ERROR_WINHTTP_NAME_NOT_RESOLVED"


def test_many_at_once_end_once_each(worker: WorkerProcess, server: HookServer) -> None:
    numbers = [next(_numbers) for _ in range(40)]
    for number in numbers:
        url = server.url("/slow" if number % 4 == 0 else "/ok")
        worker.send(PostNotice(operation=number, url=url, body="{}", limit_s=5.0 if number % 4 else 1.0))
    ended = [worker.wait_for(NoticeEnded) for _ in numbers]
    assert sorted(one.operation for one in ended) == numbers
    assert {one.operation for one in ended if one.error} == {number for number in numbers if number % 4 == 0}


def test_the_proxy_of_the_order_is_taken(worker: WorkerProcess, server: HookServer) -> None:
    with ProxyServer(hosts={"hooks.test": server.port}) as proxy:
        ended = post(worker, f"http://hooks.test:{server.port}/ok", proxy=manual(proxy.place))
        assert (ended.error, ended.status) == ("", 200)
        assert proxy.targets == [f"POST http://hooks.test:{server.port}/ok"]
        assert json.loads(server.posted[-1].body) == json.loads(BODY)


def test_a_proxy_that_is_gone_gives_way_to_the_next(worker: WorkerProcess, server: HookServer) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    with ProxyServer(hosts={"hooks.test": server.port}) as proxy:
        ended = post(worker, f"http://hooks.test:{server.port}/ok", proxy=manual(f"127.0.0.1:{port} {proxy.place}"))
        assert (ended.error, ended.status) == ("", 200)


def test_wrong_proxy_settings_never_lead_to_a_direct_connection(worker: WorkerProcess, server: HookServer) -> None:
    before = len(server.posted)
    assert post(worker, server.url("/ok"), proxy=ProxySpec(usage="strange")).error == "BG_E_INVALID_PROXY_INFO"
    assert len(server.posted) == before


def test_a_script_is_evaluated_under_the_number_of_the_order(worker: WorkerProcess, server: HookServer) -> None:
    """J22: who asks for the evaluator is told by the number, which no transfer has."""
    number = next(_numbers)
    with Origin() as origin:
        origin.serve("/proxy.pac", lambda _request, connection: connection.send(_pac()))
        proxy = ProxySpec(usage="script", script_url=origin.url("/proxy.pac"), source="a script")
        order = PostNotice(operation=number, url=server.url("/ok"), body="{}", limit_s=10.0, proxy=proxy, transfer=4711)
        worker.send(order)
        assert worker.wait_for(EvaluatorWanted).transfer == 4711
        worker.send(Evaluator(transfer=4711, error="E_FAIL", message="no process could be started"))
        ended = worker.wait_for(NoticeEnded)
        assert ended.error == "BG_E_INVALID_PROXY_INFO"
        assert "no process could be started" in ended.message
        assert post(worker, server.url("/ok"), proxy=proxy).error == "BG_E_INVALID_PROXY_INFO"


def _pac() -> bytes:
    script = b'function FindProxyForURL(url, host) { return "DIRECT"; }'
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(script) + script


@contextlib.contextmanager
def secure(directory: Path, authority: Authority, **changes: Any) -> Iterator[HookServer]:
    with HookServer(tls=authority.issue(**changes).server_context(directory)) as running:
        yield running


def test_the_server_is_verified(worker: WorkerProcess, tmp_path: Path) -> None:
    with secure(tmp_path, ROOT) as trusted:
        assert post(worker, trusted.url("/ok")).error == ""
    with secure(tmp_path, STRANGER) as unknown:
        assert post(worker, unknown.url("/ok")).error == "ERROR_WINHTTP_SECURE_INVALID_CA"
        assert unknown.posted == []
        assert post(worker, unknown.url("/ok"), tls=TlsSpec(security_flags=IGNORE_UNKNOWN_CA)).error == ""
    with secure(tmp_path, ROOT, not_after=PAST) as expired:
        assert post(worker, expired.url("/ok")).error == "ERROR_WINHTTP_SECURE_CERT_DATE_INVALID"
        assert expired.posted == []


def test_the_jobs_certificate_is_not_shown(worker: WorkerProcess, tmp_path: Path) -> None:
    """It is not even looked for: this one does not exist, and a transfer with it would fail."""
    context = ROOT.issue().server_context(tmp_path)
    context.load_verify_locations(bundle(tmp_path / "clients.pem", ROOT))
    context.verify_mode = ssl.CERT_OPTIONAL
    nowhere = CertificateSpec(location="CURRENT_USER", store="MY", sha1="00" * 20)
    with HookServer(tls=context) as asking:
        assert post(worker, asking.url("/ok"), tls=TlsSpec(certificate=nowhere)).error == ""


def test_a_worker_that_is_let_go_drops_what_is_on_the_way(server: HookServer) -> None:
    with WorkerProcess() as worker:
        worker.send(PostNotice(operation=1, url=server.url("/slow"), body="{}", limit_s=60.0))
        before = time.monotonic()
    assert time.monotonic() - before < 5
    assert worker.process.returncode == 0
    assert worker.all(TransferEnded) == []
