"""By which way an upload goes: proxies, TLS, and who must prove who asks, in the middle too (U46, J23, J35, J37)."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.frames.worker import ProxyChosen, UploadFile
from support.proxy_server import ProxyServer
from support.upload_orders import KIBI, MEBI, assert_done, make, order
from support.upload_server import UploadServer, reply_raw
from support.worker_process import WorkerProcess

_TOKENS = """
import socket, sys, itertools
from openbits.worker import tickets
from openbits.worker.main import run
numbers = itertools.count(1)
def make_token(self, host, *, of_computer, done):
    done(b"token %d for %s" % (next(numbers), host.encode()))
tickets.Tickets.make_token = make_token
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
"""A worker that has tickets without a KDC: every token is another one."""
_ALICE = ImplicitSpec(server=True, proxy=True, account="alice")
_ASKS = ("WWW-Authenticate", "Negotiate")
_PROXY_ASKS = ("Proxy-Authenticate", "Negotiate")


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(program=_TOKENS) as process:
        yield process


def through(proxy: ProxyServer) -> ProxySpec:
    return ProxySpec(usage="manual", proxies=proxy.place, source="the job's proxies")


def at(url: str, source: Path, server: UploadServer) -> UploadFile:
    made = order(server, source)
    return replace(made, file=replace(made.file, remote_name=url))


# --- challenges --------------------------------------------------------------------------------


def asks_for_proof(talk: Any) -> None:
    """Every request must carry a token that no other has carried."""
    used = talk.server.content.setdefault("used", b"")
    token = talk.packet.headers.get("authorization", "").encode()
    if not token or token in used.split(b"\n"):
        talk.read_body()
        talk.answer(401, _ASKS)
        return
    talk.server.content["used"] = used + b"\n" + token
    talk.honest()


def test_every_packet_proves_who_asks_when_the_server_wants_to_know(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 3 * MEBI)
    server.on("*", asks_for_proof, times=1000)
    assert_done(worker.upload(order(server, source), implicit=_ALICE), worker, server, content)
    assert [packet.status for packet in server.packets].count(401) == 1, "asked once, proved ever after"
    proofs = [packet.headers["authorization"] for packet in server.packets if packet.status == 200]
    assert len(set(proofs)) == len(proofs)


@pytest.mark.parametrize("unread", [True, False])
def test_a_challenge_in_the_middle_sends_the_fragment_again(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path, unread: bool
) -> None:
    """U46: the packet that failed is resent, from its first byte."""
    source, content = make(tmp_path, 12 * MEBI)

    def ask(talk: Any) -> None:
        if not unread:
            talk.read_body()
        talk.answer(401, _ASKS, *((("Connection", "close"),) if unread else ()))
        if unread:
            talk.linger()

    server.on("Fragment", ask, skip=3)
    assert_done(worker.upload(order(server, source), implicit=_ALICE), worker, server, content)
    fragments = server.of_kind("Fragment")
    refused = next(packet for packet in fragments if packet.status == 401)
    resent = fragments[fragments.index(refused) + 1]
    assert resent.range == refused.range
    assert resent.headers["authorization"].startswith("Negotiate ")
    assert "authorization" not in refused.headers
    assert len(server.of_kind("Create-Session")) == 1


def test_a_proof_that_is_refused_is_an_error_and_no_loop(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, _ = make(tmp_path, KIBI)
    server.on("*", reply_raw(401, _ASKS), times=1000)
    ended = worker.upload(order(server, source), implicit=_ALICE)
    assert (ended.error, ended.transient, ended.index) == ("BG_E_HTTP_ERROR_401", False, 0)
    assert "does not let alice in" in ended.message
    assert len(server.packets) == 2


def test_another_host_gets_no_proof(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    """BITS-Host-Id is the server's choice: what is proved to the one that the job names is not for it."""
    source, _ = make(tmp_path, KIBI)
    server.host_id = (("BITS-Host-Id", "localhost"),)

    def ask(talk: Any) -> None:
        if talk.packet.headers["host"].startswith("localhost"):
            talk.read_body()
            talk.answer(401, _ASKS)
        else:
            talk.honest()

    server.on("*", ask, times=1000)
    ended = worker.upload(order(server, source), implicit=_ALICE)
    assert ended.error == "BG_E_HTTP_ERROR_401"
    assert all("authorization" not in packet.headers for packet in server.packets)


# --- proxies -----------------------------------------------------------------------------------


def test_an_upload_goes_through_the_proxy(worker: WorkerProcess, server: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 5 * MEBI)
    with ProxyServer(hosts={"in.test": server.port}) as proxy:
        upload = at("http://in.test/in/file", source, server)
        assert_done(worker.upload(upload, proxy=through(proxy)), worker, server, content)
        assert {asked.method for asked in proxy.requests} == {"BITS_POST"}
        assert len(proxy.requests) == len(server.packets)
    (chosen,) = worker.all(ProxyChosen)
    assert "through the proxy" in chosen.way


def test_a_proxy_that_asks_is_answered_and_the_server_does_not_see_it(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 200 * KIBI)

    class Asking(ProxyServer):
        def _answer(self, sock: Any, head: bytes, sent: bytes, number: int) -> None:
            has_proof = b"proxy-authorization: negotiate" in head.lower()
            self.status, self.more = (0, "") if has_proof else (407, "Proxy-Authenticate: Negotiate\r\n")
            super()._answer(sock, head, sent, number)

    with Asking(hosts={"in.test": server.port}) as proxy:
        upload = at("http://in.test/in/file", source, server)
        assert_done(worker.upload(upload, proxy=through(proxy), implicit=_ALICE), worker, server, content)
        proofs = [asked.headers.get("proxy-authorization") for asked in proxy.requests]
    assert proofs[0] is None
    assert len(set(proofs)) == len(proofs), "every proof is used once"
    assert all("proxy-authorization" not in packet.headers for packet in server.packets)


def test_the_next_proxy_is_used_when_the_first_is_not_there(
    worker: WorkerProcess, server: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, KIBI)
    with ProxyServer() as gone:
        pass
    with ProxyServer(hosts={"in.test": server.port}) as proxy:
        spec = ProxySpec(usage="manual", proxies=f"{gone.place} {proxy.place}", source="the job's proxies")
        upload = at("http://in.test/in/file", source, server)
        assert_done(worker.upload(upload, proxy=spec), worker, server, content)


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "c.pem", directory / "k.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:in.test", "-days", "2"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[UploadServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with UploadServer(tls=context) as running:
        yield running


def test_an_upload_by_https(certificate: tuple[Path, Path], secure: UploadServer, tmp_path: Path) -> None:
    source, content = make(tmp_path, 30 * MEBI)
    with WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        assert_done(worker.upload(order(secure, source)), worker, secure, content)
    assert len({packet.connection for packet in secure.packets}) == 1


def test_an_upload_by_https_through_a_tunnel(
    certificate: tuple[Path, Path], secure: UploadServer, tmp_path: Path
) -> None:
    source, content = make(tmp_path, 3 * MEBI)
    with (
        ProxyServer(hosts={"in.test": secure.port}) as proxy,
        WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker,
    ):
        upload = at("https://in.test/in/file", source, secure)
        assert_done(worker.upload(upload, proxy=through(proxy)), worker, secure, content)
        assert proxy.targets == ["CONNECT in.test:443"]


def test_a_server_that_nobody_vouches_for_gets_nothing(secure: UploadServer, tmp_path: Path) -> None:
    source, _ = make(tmp_path, KIBI)
    with WorkerProcess() as worker:
        ended = worker.upload(order(secure, source))
    assert (ended.error, ended.transient, ended.index) == ("ERROR_WINHTTP_SECURE_INVALID_CA", False, 0)
    assert not secure.packets
