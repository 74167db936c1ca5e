"""A worker that presents a client certificate, to nginx and to servers that are harder to please (H1, H2, I13)."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from openbits.frames.network import CertificateSpec, ProxySpec, TlsSpec
from openbits.frames.worker import FileSpec, TransferEnded, UploadFile
from support.accounts import needs_root
from support.ca import CLIENT, Authority, Certified, bundle
from support.origin import Origin, generate
from support.proxy_server import ProxyServer
from support.tls_nginx import Server, TlsNginx, make_file, tls_nginx
from support.worker_process import WorkerProcess

pytestmark = needs_root

STORES = Path("/etc/openbits/certificates")
ROOT = Authority("root")
PEOPLE = Authority("people")
STRANGERS = Authority("strangers")
SERVER = ROOT.issue()
PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
ALICE = PEOPLE.issue("alice.example", subject=("Sales", "Alice"), usages=(CLIENT,))
NEEDED = "ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED"
_numbers = iter(range(1, 100_000))


@pytest.fixture(scope="module")
def nginx() -> Iterator[TlsNginx]:
    wants = "ssl_client_certificate {base}/people.pem; ssl_verify_client "
    servers = {
        "required": Server(certified=SERVER, directives=f"{wants} on;"),
        "optional": Server(certified=SERVER, directives=f"{wants} optional;"),
        "required 1.2": Server(certified=SERVER, directives=f"{wants} on;", protocols="TLSv1.2"),
        "open": Server(certified=SERVER),
    }
    with tls_nginx(servers, {"people.pem": PEOPLE.pem}) as running:
        make_file(running, "file", generate(5000, 1))
        yield running


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    trusted = bundle(tmp_path_factory.mktemp("trusted") / "ca.pem", ROOT)
    with WorkerProcess(env={"SSL_CERT_FILE": trusted}) as process:
        yield process


@pytest.fixture
def store() -> Iterator[Path]:
    """A store of the machine's, gone after the test, and so are directories above it that hold nothing else."""
    path = STORES / f"test-{secrets.token_hex(4)}"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)
    for above in (STORES, STORES.parent):
        # Somebody else may use it, another test among them.
        with contextlib.suppress(OSError):
            above.rmdir()


def tls(store: Path, certified: Certified | None = None, *, subject: str = "", **changes: Any) -> TlsSpec:
    sha1 = certified.sha1 if certified is not None else ""
    spec = CertificateSpec(location="local_machine", store=store.name, sha1=sha1, subject=subject)
    return TlsSpec(certificate=spec, **changes)


def fetch(
    worker: WorkerProcess, url: str, directory: Path, terms: TlsSpec | None = None, **changes: Any
) -> TransferEnded:
    spec = FileSpec(index=0, remote_name=url, local_name=str(directory / "out"), temporary_name=str(directory / ".tmp"))
    worker.messages.clear()
    return worker.fetch(spec, transfer=next(_numbers), tls=terms or TlsSpec(), **changes)


@pytest.mark.parametrize("server", ["required", "required 1.2", "optional"])
@pytest.mark.parametrize("by", ["hash", "subject"])
def test_h1_h2_the_right_certificate_opens_the_door(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path, server: str, by: str
) -> None:
    ALICE.write(store, "alice")
    terms = tls(store, ALICE) if by == "hash" else tls(store, subject="sales, alice")
    before = len(nginx.logged(server))
    assert fetch(worker, nginx.url(server, "file"), tmp_path, terms).error == ""
    assert (tmp_path / ".tmp").read_bytes() == generate(5000, 1)
    seen = nginx.logged(server)[before:]
    assert [(each.protocol, each.client) for each in seen] == [("HTTP/2.0", "CN=Alice,OU=Sales")]
    assert seen[0].tls == ("TLSv1.2" if "1.2" in server else "TLSv1.3")


@pytest.mark.parametrize("server", ["required", "required 1.2"])
def test_i13_without_one_the_job_says_that_one_is_needed(
    worker: WorkerProcess, nginx: TlsNginx, tmp_path: Path, server: str
) -> None:
    """nginx answers 400, which says nothing: the handshake does."""
    ended = fetch(worker, nginx.url(server, "file"), tmp_path)
    assert (ended.error, ended.transient) == (NEEDED, False)
    assert "BG_E_HTTP_ERROR_400" in ended.message


def test_i13_what_is_not_required_is_not_needed_unless_the_job_is_as_strict_as_bits(
    worker: WorkerProcess, nginx: TlsNginx, tmp_path: Path
) -> None:
    assert fetch(worker, nginx.url("optional", "file"), tmp_path).error == ""
    before = len(nginx.logged("optional"))
    ended = fetch(worker, nginx.url("optional", "file"), tmp_path, strict_http=True)
    assert (ended.error, ended.transient) == (NEEDED, False)
    assert len(nginx.logged("optional")) == before
    assert fetch(worker, nginx.url("open", "file"), tmp_path, strict_http=True).error == ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_i13_servers_that_end_the_handshake(
    worker: WorkerProcess, store: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = SERVER.server_context(tmp_path)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(bundle(tmp_path / "people.pem", PEOPLE))
    stranger = STRANGERS.issue("x.example", subject=("x",), usages=(CLIENT,))
    expired = PEOPLE.issue("x.example", subject=("old",), usages=(CLIENT,), not_after=PAST)
    for name, certified in (("a", stranger), ("b", expired), ("c", ALICE)):
        certified.write(store, name)
    with Origin(tls=context) as origin:
        url = origin.url("/gen/10/1")
        ended = fetch(worker, url, tmp_path)
        assert (ended.error, ended.transient) == (NEEDED, False)
        for rejected, name in ((stranger, "CN=x"), (expired, "CN=old")):
            ended = fetch(worker, url, tmp_path, tls(store, rejected))
            assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_403", False), ended.message
            assert name in ended.message
        assert fetch(worker, url, tmp_path, tls(store, ALICE)).error == ""
        assert len(origin.requests) == 1


def test_h2_a_certificate_that_nginx_rejects_is_an_error_with_its_status(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path
) -> None:
    stranger = STRANGERS.issue("x.example", subject=("x",), usages=(CLIENT,))
    stranger.write(store, "x")
    ended = fetch(worker, nginx.url("required", "file"), tmp_path, tls(store, stranger))
    assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_400", False)


def test_what_is_wrong_with_the_certificate_is_found_before_anything_is_sent(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path
) -> None:
    url = nginx.url("required", "file")
    before = len(nginx.logged("required"))
    expected = []
    expected.append((tls(store, ALICE), "CRYPT_E_NOT_FOUND"))
    expected.append((tls(store.parent / "no such store", ALICE), "ERROR_FILE_NOT_FOUND"))
    for terms, name in expected:
        ended = fetch(worker, url, tmp_path, terms)
        assert (ended.error, ended.transient) == (name, False)
    _, key = ALICE.write(store, "alice")
    key.write_bytes(ALICE.encoded_key(BestAvailableEncryption(b"x")))
    assert fetch(worker, url, tmp_path, tls(store, ALICE)).error == "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY"
    key.unlink()
    assert fetch(worker, url, tmp_path, tls(store, ALICE)).error == "ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY"
    assert len(nginx.logged("required")) == before


def test_http_needs_no_certificate(worker: WorkerProcess, store: Path, tmp_path: Path) -> None:
    with Origin() as plain:
        assert fetch(worker, plain.url("/gen/10/1"), tmp_path, tls(store, ALICE)).error == ""


def test_the_certificate_is_shown_to_nobody_to_whom_a_redirect_leads(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path
) -> None:
    ALICE.write(store, "alice")
    with Origin(tls=SERVER.server_context(tmp_path)) as first:
        before = len(nginx.logged("optional"))
        url = first.url(f"/to?url={nginx.url('optional', 'file', 'localhost')}")
        assert fetch(worker, url, tmp_path, tls(store, ALICE)).error == ""
        assert [each.client for each in nginx.logged("optional")[before:]] == ["-"]


def test_no_kept_connection_of_one_job_is_used_by_another(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path
) -> None:
    bob = PEOPLE.issue("bob.example", subject=("Bob",), usages=(CLIENT,))
    ALICE.write(store, "alice")
    bob.write(store, "bob")
    before = len(nginx.logged("optional"))
    url = nginx.url("optional", "file")
    for terms in (tls(store, ALICE), None, tls(store, bob), tls(store, ALICE), None):
        assert fetch(worker, url, tmp_path, terms).error == ""
    seen = [each.client for each in nginx.logged("optional")[before:]]
    assert seen == ["CN=Alice,OU=Sales", "-", "CN=Bob", "CN=Alice,OU=Sales", "-"]


@pytest.mark.parametrize("flags", [0x08, 0x1E])
def test_h7_the_look_shows_the_certificate_too(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path, flags: int
) -> None:
    ALICE.write(store, "alice")
    terms = tls(store, ALICE, security_flags=flags)
    assert fetch(worker, nginx.url("required", "file"), tmp_path, terms).error == ""


def test_h1_through_a_proxy(worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path) -> None:
    ALICE.write(store, "alice")
    with ProxyServer(hosts={"origin.test": nginx.ports["required"]}) as proxy:
        way = ProxySpec(usage="manual", proxies=proxy.place, source="the test")
        ended = fetch(worker, "https://origin.test/file", tmp_path, tls(store, ALICE), proxy=way)
        assert ended.error == ""


@pytest.mark.parametrize("server", ["required", "required 1.2"])
def test_h1_uploads_present_it_as_downloads_do(
    worker: WorkerProcess, nginx: TlsNginx, store: Path, tmp_path: Path, server: str
) -> None:
    ALICE.write(store, "alice")
    source = tmp_path / "source"
    source.write_bytes(generate(300_000, 5))
    name = f"uploaded-{store.name}"
    file = FileSpec(index=0, remote_name=nginx.url(server, name), local_name=str(source), temporary_name="")
    for terms, error in ((tls(store, ALICE), ""), (TlsSpec(), NEEDED)):
        order = UploadFile(transfer=next(_numbers), file=file, protocol="put", memory="")
        assert worker.upload(order, tls=terms).error == error
    assert (nginx.root / name).read_bytes() == generate(300_000, 5)
