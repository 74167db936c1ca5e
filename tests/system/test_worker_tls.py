"""A worker and https: whom it believes (issue, part 4)."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.errors import ErrorContext
from openbits.frames.network import TlsSpec
from openbits.frames.worker import FileSpec
from support.origin import Origin, generate
from support.worker_process import WorkerProcess


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return _certificate(tmp_path_factory.mktemp("tls"), "one")


@pytest.fixture(scope="module")
def origin(certificate: tuple[Path, Path]) -> Iterator[Origin]:
    with Origin(tls=_context(*certificate)) as server:
        yield server


def spec(url: str, directory: Path) -> FileSpec:
    return FileSpec(
        index=0, remote_name=url, local_name=str(directory / "out"), temporary_name=str(directory / ".BIT.tmp")
    )


@pytest.mark.parametrize("size", [1000, 20_000_003])
@pytest.mark.parametrize("cut", [-1, 500])
def test_known_server(origin: Origin, certificate: tuple[Path, Path], tmp_path: Path, size: int, cut: int) -> None:
    with WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        ended = worker.fetch(spec(origin.url(f"/gen/{size}/1?cut={cut}&times=1&t={tmp_path.name}"), tmp_path))
        assert ended.error == ""
        assert (tmp_path / ".BIT.tmp").read_bytes() == generate(size, 1)


def test_unknown_server(origin: Origin, tmp_path: Path) -> None:
    with WorkerProcess() as worker:
        ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_SECURE_INVALID_CA", False)
    assert ended.context == ErrorContext.GENERAL_TRANSPORT
    assert "127.0.0.1" in ended.message


def test_wrong_name(origin: Origin, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        ended = worker.fetch(spec(f"https://localhost:{origin.port}/gen/10/1", tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_SECURE_CERT_CN_INVALID", False)


def test_server_that_speaks_no_tls(tmp_path: Path) -> None:
    with Origin() as plain, WorkerProcess() as worker:
        ended = worker.fetch(spec(plain.url("/gen/10/1", "https"), tmp_path), stall_timeout_s=2)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_TIMEOUT", True)  # both wait for the other


def test_no_way_back_from_https_to_http(origin: Origin, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        ended = worker.fetch(spec(origin.url("/to?url=http://127.0.0.1/x"), tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_REDIRECT_FAILED", False)


def test_client_certificate_that_we_do_not_have(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    context = _context(*certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate[0])
    with Origin(tls=context) as strict, WorkerProcess(env={"SSL_CERT_FILE": str(certificate[0])}) as worker:
        ended = worker.fetch(spec(strict.url("/gen/10/1"), tmp_path))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED", False)


def test_system_store_is_found() -> None:
    assert os.path.exists("/etc/ssl/certs/ca-certificates.crt")


@pytest.mark.parametrize("flags", [0, 0x04, 0x08])
def test_without_a_trust_store_nobody_is_believed(origin: Origin, tmp_path: Path, flags: int) -> None:
    missing = str(tmp_path / "no such file")
    with WorkerProcess(env={"SSL_CERT_FILE": missing}) as worker:
        ended = worker.fetch(spec(origin.url("/gen/10/1"), tmp_path), tls=TlsSpec(security_flags=flags))
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_SECURE_FAILURE", False)
    assert missing in ended.message
