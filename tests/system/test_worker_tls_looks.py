"""A worker that looks at servers: stapled answers, programs that judge, servers that behave oddly (H8, 4.6, I13)."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from openbits.errors import ErrorContext
from openbits.frames.network import TlsSpec
from openbits.frames.worker import CertificateJudged, CertificateSeen, FileSpec, StopTransfer, TransferEnded, UploadFile
from support.ca import Authority, Certified, bundle, self_signed
from support.origin import Origin, generate
from support.tls_nginx import Server, TlsNginx, make_file, tls_nginx
from support.worker_process import WorkerProcess

PREFIX = "ERROR_WINHTTP_SECURE_"
CRL, CA = 0x01, 0x08
ROOT = Authority("root")
STRANGER = Authority("stranger")


def issued_by(authority: Authority) -> Certified:
    """It names no list: who is believed is believed for what was stapled. nginx wants to know the issuer to staple."""
    issued = authority.issue()
    return Certified(certificate=issued.certificate, key=issued.key, chain=(authority.certificate,))


STAPLED = issued_by(ROOT)
UNKNOWN = issued_by(STRANGER)
_numbers = iter(range(1, 100_000))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    trusted = bundle(tmp_path_factory.mktemp("trusted") / "ca.pem", ROOT)
    with WorkerProcess(env={"SSL_CERT_FILE": trusted}) as process:
        yield process


def specs(directory: Path, *urls: str) -> list[FileSpec]:
    return [
        FileSpec(
            index=index,
            remote_name=url,
            local_name=str(directory / f"out{index}"),
            temporary_name=str(directory / f".{index}.tmp"),
        )
        for index, url in enumerate(urls)
    ]


def begin(worker: WorkerProcess, directory: Path, *urls: str, **changes: Any) -> int:
    worker.messages.clear()
    return worker.begin(*specs(directory, *urls), transfer=next(_numbers), **changes)


def ended(worker: WorkerProcess, transfer: int) -> TransferEnded:
    return worker.wait_for(TransferEnded, lambda each: each.transfer == transfer)


def fetch(worker: WorkerProcess, url: str, directory: Path, flags: int = 0, **changes: Any) -> TransferEnded:
    return ended(worker, begin(worker, directory, url, tls=TlsSpec(security_flags=flags), **changes))


# --- stapled answers (H8) ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nginx() -> Iterator[TlsNginx]:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    answers = {
        "good": (STAPLED, ROOT.ocsp(STAPLED.certificate)),
        "revoked": (STAPLED, ROOT.ocsp(STAPLED.certificate, is_revoked=True)),
        "old": (STAPLED, ROOT.ocsp(STAPLED.certificate, next_update=past)),
        "forged": (STAPLED, STRANGER.ocsp(STAPLED.certificate)),
        "unknown good": (UNKNOWN, STRANGER.ocsp(UNKNOWN.certificate)),
        "unknown revoked": (UNKNOWN, STRANGER.ocsp(UNKNOWN.certificate, is_revoked=True)),
    }
    servers = {"none": Server(certified=STAPLED), "unknown alone": Server(certified=STRANGER.issue())}
    files = {}
    for name, (certified, answer) in answers.items():
        file = f"{name.replace(' ', '-')}.der"
        files[file] = answer
        directives = f"ssl_stapling on; ssl_stapling_file {{base}}/{file};"
        servers[name] = Server(certified=certified, directives=directives)
    with tls_nginx(servers, files) as running:
        make_file(running, "file", generate(5000, 1))
        yield running


@pytest.mark.parametrize(
    ("server", "flags", "error"),
    [
        ("good", CRL, ""),
        ("good", CRL | 0x1E, ""),
        ("revoked", CRL, "CERT_REVOKED"),
        ("revoked", CRL | 0x1E, "CERT_REVOKED"),
        ("revoked", 0, ""),
        ("old", CRL, "CERT_REV_FAILED"),
        ("forged", CRL, "CERT_REV_FAILED"),
        ("none", CRL, "CERT_REV_FAILED"),
        ("unknown good", CRL, "INVALID_CA"),
        ("unknown good", CRL | CA, ""),
        ("unknown alone", CRL | CA, "CERT_REV_FAILED"),
        ("unknown revoked", CRL | CA, "CERT_REVOKED"),
    ],
)
def test_h8_what_an_authority_says_through_the_server_counts(
    worker: WorkerProcess, nginx: TlsNginx, tmp_path: Path, server: str, flags: int, error: str
) -> None:
    before = len(nginx.logged(server))
    result = fetch(worker, nginx.url(server, "file"), tmp_path, flags)
    assert (result.error, result.transient) == (PREFIX + error if error else "", False)
    seen = nginx.logged(server)[before:]
    assert [each.protocol for each in seen] == ([] if error else ["HTTP/2.0"])


# --- a program that judges (4.6) -----------------------------------------------------------------------


def seen(worker: WorkerProcess, transfer: int) -> CertificateSeen:
    return worker.wait_for(CertificateSeen, lambda each: each.transfer == transfer)


def test_46_a_program_sees_the_certificate_before_anything_is_sent(worker: WorkerProcess, tmp_path: Path) -> None:
    lower = Authority("lower", issuer=ROOT)
    server = lower.issue()
    with Origin(tls=server.server_context(tmp_path)) as origin:
        urls = [origin.url(f"/gen/50/1?n={index}") for index in range(5)]
        transfer = begin(worker, tmp_path, *urls, tls=TlsSpec(asks=True), file_concurrency=3, stall_timeout_s=1)
        question = seen(worker, transfer)
        assert (question.index, question.number, question.server) == (0, 1, f"127.0.0.1:{origin.port}")
        shown = [base64.b64decode(each) for each in question.chain]
        assert shown == [each.public_bytes(Encoding.DER) for each in (server.certificate, *server.chain)]
        assert hashlib.sha1(shown[0]).hexdigest() == server.sha1
        # A program takes longer than servers may: no timeout of ours ends its thinking.
        assert worker.receive(2.5) is None
        assert origin.requests == []
        worker.send(CertificateJudged(transfer=transfer, number=question.number))
        assert ended(worker, transfer).error == ""
        assert len(origin.requests) == 5
        assert len(worker.all(CertificateSeen)) == 1


def test_46_a_refusal_is_transient_and_in_the_programs_words(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=STAPLED.server_context(tmp_path)) as origin:
        transfer = begin(worker, tmp_path, origin.url("/gen/5/1"), tls=TlsSpec(asks=True))
        question = seen(worker, transfer)
        worker.send(
            CertificateJudged(
                transfer=transfer, number=question.number, error="E_ACCESSDENIED", message="that is not our server"
            )
        )
        result = ended(worker, transfer)
        assert (result.error, result.transient) == ("E_ACCESSDENIED", True)
        assert result.context == ErrorContext.SERVER_CERTIFICATE_CALLBACK
        assert "that is not our server" in result.message
        assert origin.requests == []


def test_46_only_certificates_that_are_in_order_are_shown(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=UNKNOWN.server_context(tmp_path)) as origin:
        transfer = begin(worker, tmp_path, origin.url("/gen/5/1"), tls=TlsSpec(asks=True))
        assert ended(worker, transfer).error == PREFIX + "INVALID_CA"
        assert worker.all(CertificateSeen) == []
        transfer = begin(worker, tmp_path, origin.url("/gen/5/1"), tls=TlsSpec(asks=True, security_flags=CA))
        worker.send(CertificateJudged(transfer=transfer, number=seen(worker, transfer).number))
        assert ended(worker, transfer).error == ""


def test_46_each_server_is_asked_about_and_each_new_certificate(worker: WorkerProcess, tmp_path: Path) -> None:
    with (
        Origin(tls=STAPLED.server_context(tmp_path)) as one,
        Origin(tls=ROOT.issue().server_context(tmp_path)) as two,
    ):
        transfer = begin(
            worker, tmp_path, one.url(f"/to?url={two.url('/gen/5/1')}"), one.url("/gen/5/1"), tls=TlsSpec(asks=True)
        )
        for number, port in ((1, one.port), (2, two.port)):
            question = seen(worker, transfer)
            assert (question.number, question.server) == (number, f"127.0.0.1:{port}")
            worker.send(CertificateJudged(transfer=transfer, number=number))
        assert ended(worker, transfer).error == ""
        assert len(worker.all(CertificateSeen)) == 2


def test_46_a_job_is_suspended_while_its_program_thinks(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=STAPLED.server_context(tmp_path)) as origin:
        transfer = begin(worker, tmp_path, origin.url("/gen/5/1"), tls=TlsSpec(asks=True))
        question = seen(worker, transfer)
        worker.send(StopTransfer(transfer=transfer))
        assert ended(worker, transfer).error == ""
        # What it thinks comes too late, and harms nobody.
        worker.send(CertificateJudged(transfer=transfer, number=question.number))
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path).error == ""


def test_46_uploads_too(worker: WorkerProcess, tmp_path: Path) -> None:
    with tls_nginx({"open": Server(certified=STAPLED)}, {}) as server:
        source = tmp_path / "source"
        source.write_bytes(b"x" * 1000)
        file = FileSpec(index=0, remote_name=server.url("open", "put"), local_name=str(source), temporary_name="")
        order = UploadFile(transfer=next(_numbers), file=file, protocol="put", memory="")
        worker.messages.clear()
        worker.begin_upload(order, tls=TlsSpec(asks=True), stall_timeout_s=1)
        question = seen(worker, order.transfer)
        assert worker.receive(2.5) is None
        assert server.logged("open") == []
        worker.send(CertificateJudged(transfer=order.transfer, number=question.number))
        assert ended(worker, order.transfer).error == ""
        assert (server.root / "put").read_bytes() == b"x" * 1000


# --- odd servers -----------------------------------------------------------------------------------------


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does this with each connection; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(10)
            with suppress(OSError):
                talk(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(sock,))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/file"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for thread in threads:
            thread.join(15)


@pytest.mark.parametrize("flags", [0, CA])
def test_a_handshake_that_breaks_off_is_a_broken_connection(worker: WorkerProcess, tmp_path: Path, flags: int) -> None:
    def talk(sock: socket.socket) -> None:
        sock.recv(100)

    with talking(talk) as url:
        result = fetch(worker, url, tmp_path, flags, break_patience_s=0.5)
    assert (result.error, result.transient) == ("ERROR_WINHTTP_CONNECTION_ERROR", True)


@pytest.mark.parametrize("terms", [TlsSpec(security_flags=CA), TlsSpec(asks=True)])
def test_a_look_that_gets_no_answer_can_be_stopped(worker: WorkerProcess, tmp_path: Path, terms: TlsSpec) -> None:
    came = threading.Event()

    def talk(sock: socket.socket) -> None:
        sock.recv(10)
        came.set()
        while sock.recv(1000):
            pass

    with talking(talk) as url:
        transfer = begin(worker, tmp_path, url, tls=terms)
        assert came.wait(10)
        worker.send(StopTransfer(transfer=transfer))
        assert ended(worker, transfer).error == ""
        # Nothing of it is left: the server sees the end of the connection.


@pytest.mark.parametrize("flags", [0, CA])
def test_what_speaks_no_tls_is_no_secure_channel(worker: WorkerProcess, tmp_path: Path, flags: int) -> None:
    def talk(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        sock.recv(1000)

    with talking(talk) as url:
        result = fetch(worker, url, tmp_path, flags)
    assert (result.error, result.transient) == (PREFIX + "CHANNEL_ERROR", False)


@pytest.mark.parametrize("flags", [0, CA])
def test_an_old_tls_is_no_secure_channel(worker: WorkerProcess, tmp_path: Path, flags: int) -> None:
    context = STAPLED.server_context(tmp_path)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with Origin(tls=context) as origin:
        result = fetch(worker, origin.url("/gen/5/1"), tmp_path, flags)
    assert (result.error, result.transient) == (PREFIX + "CHANNEL_ERROR", False)


def _over_tls(certified: Certified, directory: Path, talk: Callable[[ssl.SSLSocket], None]) -> Any:
    context = certified.server_context(directory)

    def speak(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            talk(secure)

    return talking(speak)


@pytest.mark.parametrize("flags", [0, CA])
def test_a_body_that_is_cut_off_without_a_word_is_not_taken_for_whole(
    worker: WorkerProcess, tmp_path: Path, flags: int
) -> None:
    """No length, and the end of the connection is not the server's: a TCP FIN without TLS's own end."""

    def talk(secure: ssl.SSLSocket) -> None:
        if secure.recv(4096):
            secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1000)
            socket.socket.shutdown(secure, socket.SHUT_RDWR)

    with _over_tls(STAPLED, tmp_path, talk) as url:
        result = fetch(worker, url, tmp_path, flags, break_patience_s=0.5)
    assert result.error != ""
    assert result.transient


@pytest.mark.parametrize("flags", [0, CA])
def test_a_server_that_speaks_http2_only(worker: WorkerProcess, tmp_path: Path, flags: int) -> None:
    with tls_nginx({"h2": Server(certified=STAPLED)}, {}) as server:
        make_file(server, "file", generate(70_000, 1))
        assert fetch(worker, server.url("h2", "file"), tmp_path, flags).error == ""
        assert (tmp_path / ".0.tmp").read_bytes() == generate(70_000, 1)
        assert [each.protocol for each in server.logged("h2")] == ["HTTP/2.0"]


@pytest.mark.parametrize(("flags", "many"), [(0, 90), (CA, 90), (CRL | CA, 90), (CA, 150), (0, 400)])
def test_a_chain_of_hundreds_is_judged_or_refused(worker: WorkerProcess, tmp_path: Path, flags: int, many: int) -> None:
    crowd = tuple(self_signed(subject=f"number {number}").certificate for number in range(many))
    server = ROOT.issue()
    with Origin(
        tls=Certified(certificate=server.certificate, key=server.key, chain=crowd).server_context(tmp_path)
    ) as origin:
        result = fetch(worker, origin.url("/gen/5/1"), tmp_path, flags)
        if many > 90:
            assert (result.error, result.transient) == (PREFIX + "CHANNEL_ERROR", False)
        elif flags & CRL:
            assert result.error == PREFIX + "CERT_REV_FAILED"
        else:
            assert result.error == ""


def test_46_a_chain_of_hundreds_is_shown_as_far_as_a_message_holds(worker: WorkerProcess, tmp_path: Path) -> None:
    crowd = tuple(self_signed(subject=f"number {number}").certificate for number in range(90))
    server = ROOT.issue()
    with Origin(
        tls=Certified(certificate=server.certificate, key=server.key, chain=crowd).server_context(tmp_path)
    ) as origin:
        transfer = begin(worker, tmp_path, origin.url("/gen/5/1"), tls=TlsSpec(asks=True))
        question = seen(worker, transfer)
        assert base64.b64decode(question.chain[0]) == server.certificate.public_bytes(Encoding.DER)
        worker.send(CertificateJudged(transfer=transfer, number=question.number))
        assert ended(worker, transfer).error == ""


@pytest.mark.parametrize("flags", [0, CA])
def test_a_server_that_renegotiates_in_the_middle_of_its_answer(
    worker: WorkerProcess, tmp_path: Path, flags: int
) -> None:
    certificate, key = STAPLED.write(tmp_path, "renegotiating")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_file(str(certificate))
    context.use_privatekey_file(str(key))
    shaken = []

    def talk(sock: socket.socket) -> None:
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        connection.set_accept_state()
        try:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhello")
            assert connection.renegotiate()
            connection.do_handshake()
            shaken.append(connection.total_renegotiations())
            connection.sendall(b"world")
        except SSL.Error:
            return

    with talking(talk) as url:
        assert fetch(worker, url, tmp_path, flags).error == ""
        assert (tmp_path / ".0.tmp").read_bytes() == b"helloworld"
        assert shaken == [1]
