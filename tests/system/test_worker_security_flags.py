"""A worker and the security flags: each overlooks exactly its own thing, on real connections (H7, H8, I13)."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.network import ProxySpec, TlsSpec
from openbits.frames.worker import FileSpec, TransferEnded
from support.ca import CLIENT, Authority, Certified, bundle, self_signed
from support.origin import Connection, Origin, Request, generate
from support.proxy_server import ProxyServer
from support.worker_process import WorkerProcess

NOW = dt.datetime.now(dt.UTC)
PAST = NOW - dt.timedelta(days=2)
FUTURE = NOW + dt.timedelta(days=2)
ROOT = Authority("root")
INTER = Authority("inter", issuer=ROOT)
STRANGER = Authority("stranger")
CRL, NAME, DATE, CA, USAGE = 0x01, 0x02, 0x04, 0x08, 0x10
PREFIX = "ERROR_WINHTTP_SECURE_"
FAULTS: dict[str, tuple[Certified, int, str]] = {
    "expired": (INTER.issue(not_after=PAST), DATE, "CERT_DATE_INVALID"),
    "not yet valid": (INTER.issue(not_before=FUTURE), DATE, "CERT_DATE_INVALID"),
    "self-signed": (self_signed(), CA, "INVALID_CA"),
    "unknown CA": (STRANGER.issue(), CA, "INVALID_CA"),
    "wrong host": (INTER.issue("elsewhere.test", "127.0.0.2"), NAME, "CERT_CN_INVALID"),
    "wrong usage": (INTER.issue(usages=(CLIENT,)), USAGE, "CERT_WRONG_USAGE"),
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    trusted = bundle(tmp_path_factory.mktemp("trusted") / "ca.pem", ROOT)
    with WorkerProcess(env={"SSL_CERT_FILE": trusted}) as process:
        yield process


_numbers = iter(range(1, 100_000))


def fetch(
    worker: WorkerProcess, url: str, directory: Path, flags: int, *, index: int = 0, **changes: Any
) -> TransferEnded:
    spec = FileSpec(
        index=index,
        remote_name=url,
        local_name=str(directory / f"out{index}"),
        temporary_name=str(directory / f".{index}.tmp"),
    )
    worker.messages.clear()
    return worker.fetch(spec, transfer=next(_numbers), tls=TlsSpec(security_flags=flags), **changes)


@pytest.mark.parametrize("flags", [0, NAME, DATE, CA, USAGE, CRL * 0 + NAME + DATE, DATE + CA + USAGE, 0x1E])
@pytest.mark.parametrize("fault", FAULTS)
def test_h7_exactly_its_own_flag_lets_a_faulty_certificate_pass(
    worker: WorkerProcess, tmp_path: Path, fault: str, flags: int
) -> None:
    certified, flag, name = FAULTS[fault]
    with Origin(tls=certified.server_context(tmp_path)) as origin:
        ended = fetch(worker, origin.url("/gen/5000/1"), tmp_path, flags)
        if flags & flag:
            assert ended.error == ""
            assert (tmp_path / ".0.tmp").read_bytes() == generate(5000, 1)
            return
        assert (ended.error, ended.transient) == (PREFIX + name, False)
        assert ended.context == ErrorContext.GENERAL_TRANSPORT
        assert "127.0.0.1" in ended.message
        assert origin.requests == []


@pytest.mark.parametrize("flags", [0, NAME, DATE, CA, USAGE, NAME + DATE + CA + USAGE])
def test_h7_a_good_certificate_passes_whatever_is_overlooked(worker: WorkerProcess, tmp_path: Path, flags: int) -> None:
    with Origin(tls=INTER.issue().server_context(tmp_path)) as origin:
        assert fetch(worker, origin.url("/gen/5000/1"), tmp_path, flags).error == ""


def test_h7_faults_add_up(worker: WorkerProcess, tmp_path: Path) -> None:
    worst = STRANGER.issue("elsewhere.test", not_after=PAST, usages=(CLIENT,))
    with Origin(tls=worst.server_context(tmp_path)) as origin:
        for flags in (NAME + DATE + CA, NAME + DATE + USAGE, NAME + CA + USAGE, DATE + CA + USAGE):
            assert fetch(worker, origin.url("/gen/5/1"), tmp_path, flags).error.startswith(PREFIX)
        assert origin.requests == []
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, NAME + DATE + CA + USAGE).error == ""


def test_h7_no_connection_of_a_lenient_job_is_used_by_a_strict_one(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=STRANGER.issue().server_context(tmp_path)) as origin:
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, CA).error == ""
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, 0).error == PREFIX + "INVALID_CA"
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, DATE).error == PREFIX + "INVALID_CA"
        assert len(origin.requests) == 1


def test_h7_many_files_need_one_look(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=STRANGER.issue().server_context(tmp_path)) as origin:
        files = [
            FileSpec(
                index=index,
                remote_name=origin.url(f"/gen/50/1?n={index}"),
                local_name=str(tmp_path / f"o{index}"),
                temporary_name=str(tmp_path / f".{index}.tmp"),
            )
            for index in range(30)
        ]
        ended = worker.fetch(*files, transfer=next(_numbers), tls=TlsSpec(security_flags=CA), file_concurrency=4)
        assert ended.error == ""
        assert len(origin.requests) == 30
        assert len({request.connection for request in origin.requests}) <= 4
        assert max(request.connection for request in origin.requests) <= 5


# --- servers that change, or are many ----------------------------------------------------------------


class Turning:
    """A TLS server whose certificate is another one at each connection."""

    def __init__(self, directory: Path, *certified: Certified) -> None:
        self._contexts = [each.server_context(directory) for each in certified]
        self.connections = 0

    def wrap_socket(self, *arguments: object, **named: object) -> ssl.SSLSocket:
        context = self._contexts[min(self.connections, len(self._contexts) - 1)]
        self.connections += 1
        return context.wrap_socket(*arguments, **named)  # type: ignore[arg-type]  # handed through


def test_a_key_that_changes_after_the_look_is_looked_at_again(worker: WorkerProcess, tmp_path: Path) -> None:
    turning = Turning(tmp_path, STRANGER.issue(), STRANGER.issue())
    with Origin(tls=turning) as origin:  # type: ignore[arg-type]  # what of it is used
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, CA).error == ""
        assert len(origin.requests) == 1
        assert turning.connections == 4  # looked at, surprised, looked at, asked


def test_a_key_that_changes_into_a_bad_one_gets_no_request(worker: WorkerProcess, tmp_path: Path) -> None:
    turning = Turning(tmp_path, STRANGER.issue(), STRANGER.issue(not_after=PAST))
    with Origin(tls=turning) as origin:  # type: ignore[arg-type]  # what of it is used
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, CA).error == PREFIX + "CERT_DATE_INVALID"
        assert origin.requests == []


def test_a_farm_of_servers_is_learnt(worker: WorkerProcess, tmp_path: Path) -> None:
    machines = [STRANGER.issue() for _ in range(3)]
    turning = Turning(tmp_path, *machines * 8)
    with Origin(tls=turning) as origin:  # type: ignore[arg-type]  # what of it is used
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, CA).error == ""
        assert len(origin.requests) == 1


def test_a_new_key_at_every_connection_is_given_up(worker: WorkerProcess, tmp_path: Path) -> None:
    turning = Turning(tmp_path, *(STRANGER.issue() for _ in range(60)))
    with Origin(tls=turning) as origin:  # type: ignore[arg-type]  # what of it is used
        ended = fetch(worker, origin.url("/gen/5/1"), tmp_path, CA)
        assert (ended.error, ended.transient) == (PREFIX + "CHANNEL_ERROR", True)
        assert origin.requests == []
        assert turning.connections < 60


# --- on the way ------------------------------------------------------------------------------------


def through(proxy: ProxyServer, scheme: str = "http") -> ProxySpec:
    return ProxySpec(usage="manual", proxies=f"{scheme}://{proxy.place}", source="the test")


@pytest.mark.parametrize("fault", FAULTS)
def test_h7_through_a_proxy_too(worker: WorkerProcess, tmp_path: Path, fault: str) -> None:
    certified, flag, name = FAULTS[fault]
    with (
        Origin(tls=certified.server_context(tmp_path)) as origin,
        ProxyServer(hosts={"origin.test": origin.port}) as proxy,
    ):
        url = "https://origin.test/gen/5000/1"
        assert fetch(worker, url, tmp_path, 0x1E & ~flag, proxy=through(proxy)).error == PREFIX + name
        assert origin.requests == []
        assert fetch(worker, url, tmp_path, flag, proxy=through(proxy)).error == ""
        assert set(proxy.targets) == {"CONNECT origin.test:443"}


def test_flags_never_apply_to_proxies(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=STRANGER.issue().server_context(tmp_path)) as origin:
        hosts = {"origin.test": origin.port}
        url = "https://origin.test/gen/5/1"
        with ProxyServer(hosts=hosts, tls=STRANGER.issue().server_context(tmp_path)) as proxy:
            ended = fetch(worker, url, tmp_path, 0x1E, proxy=through(proxy, "https"))
            assert ended.error == PREFIX + "INVALID_CA"
            assert "the proxy https://" in ended.message
        with ProxyServer(hosts=hosts, tls=INTER.issue().server_context(tmp_path)) as proxy:
            # It is the server that is looked at, and not the proxy, which is in order.
            assert fetch(worker, url, tmp_path, DATE, proxy=through(proxy, "https")).error == PREFIX + "INVALID_CA"
            assert origin.requests == []
            assert fetch(worker, url, tmp_path, CA, proxy=through(proxy, "https")).error == ""


@pytest.mark.parametrize(("status", "transient"), [(403, False), (503, True)])
def test_a_proxy_that_refuses_the_look_is_the_same_error(
    worker: WorkerProcess, tmp_path: Path, status: int, transient: bool
) -> None:
    with ProxyServer(status=status) as proxy:
        ended = fetch(worker, "https://origin.test/", tmp_path, CA, proxy=through(proxy), break_patience_s=0.5)
        assert (ended.error, ended.transient) == (f"BG_E_HTTP_ERROR_{status}", transient)
        assert f"the proxy http://{proxy.place} answered {status}" in ended.message


def test_a_server_that_cannot_be_reached_is_waited_for(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin() as origin:
        port = origin.port
    ended = fetch(worker, f"https://127.0.0.1:{port}/", tmp_path, CA, break_patience_s=0.5)
    assert (ended.error, ended.transient) == ("ERROR_WINHTTP_CANNOT_CONNECT", True)


def test_a_redirect_is_looked_at_anew(worker: WorkerProcess, tmp_path: Path) -> None:
    with (
        Origin(tls=STRANGER.issue().server_context(tmp_path)) as first,
        Origin(tls=STRANGER.issue(not_after=PAST).server_context(tmp_path)) as second,
    ):
        url = first.url(f"/to?url={second.url('/gen/5/1')}")
        assert fetch(worker, url, tmp_path, CA).error == PREFIX + "CERT_DATE_INVALID"
        assert second.requests == []
        assert fetch(worker, url, tmp_path, CA + DATE).error == ""


# --- lists (H8) ------------------------------------------------------------------------------------


class Lists:
    """An authority below the root whose list, and its own on the root's, lie on a server."""

    def __init__(self, origin: Origin) -> None:
        self.contents: dict[str, bytes] = {}
        self.authority = Authority("listed", issuer=ROOT, crl_urls=[origin.url("/root.crl")])
        self.url = origin.url("/listed.crl")
        self.origin = origin
        for name in ("/root.crl", "/listed.crl"):
            origin.serve(name, self._answer)
        self.publish("/root.crl", ROOT.crl())

    def publish(self, name: str, content: bytes) -> None:
        self.contents[name] = content

    def issue(self, **changes: Any) -> Certified:
        return self.authority.issue(crl_urls=[self.url], **changes)

    def _answer(self, request: Request, connection: Connection) -> None:
        body = self.contents.get(request.path)
        if body is None:
            connection.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            return
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.fixture
def lists() -> Iterator[Lists]:
    with Origin() as origin:
        yield Lists(origin)


def test_h8_a_certificate_that_is_on_no_list_passes(worker: WorkerProcess, lists: Lists, tmp_path: Path) -> None:
    lists.publish("/listed.crl", lists.authority.crl(self_signed().certificate))
    with Origin(tls=lists.issue().server_context(tmp_path)) as origin:
        for index in range(2):
            assert fetch(worker, origin.url("/gen/5000/1"), tmp_path, CRL, index=index).error == ""
    # Fetched once, by name of nobody.
    assert [request.path for request in lists.origin.requests] == ["/listed.crl", "/root.crl"]
    assert all("authorization" not in request.headers for request in lists.origin.requests)


def test_h8_a_revoked_certificate_is_fatal(worker: WorkerProcess, lists: Lists, tmp_path: Path) -> None:
    server = lists.issue()
    lists.publish("/listed.crl", lists.authority.crl(server.certificate))
    with Origin(tls=server.server_context(tmp_path)) as origin:
        ended = fetch(worker, origin.url("/gen/5/1"), tmp_path, CRL)
        assert (ended.error, ended.transient) == (PREFIX + "CERT_REVOKED", False)
        assert origin.requests == []
        # Overlooking everything else does not overlook that, and who does not ask does not hear of it.
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, 0x1F).error == PREFIX + "CERT_REVOKED"
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, 0).error == ""


def test_h8_a_revoked_authority_is_fatal(worker: WorkerProcess, lists: Lists, tmp_path: Path) -> None:
    lists.publish("/listed.crl", lists.authority.crl())
    lists.publish("/root.crl", ROOT.crl(lists.authority.certificate))
    with Origin(tls=lists.issue().server_context(tmp_path)) as origin:
        ended = fetch(worker, origin.url("/gen/5/1"), tmp_path, CRL)
    assert (ended.error, ended.transient) == (PREFIX + "CERT_REVOKED", False)
    assert "listed" in ended.message


@pytest.mark.parametrize("trouble", ["missing", "expired", "forged", "garbage", "of another", "unreachable"])
def test_h8_no_list_that_helps_is_fatal_and_says_why(
    worker: WorkerProcess, lists: Lists, tmp_path: Path, trouble: str
) -> None:
    authority = lists.authority
    content = {
        "missing": None,
        "expired": authority.crl(next_update=PAST),
        "forged": authority.crl(signed_by=STRANGER.key),
        "garbage": b"\x30\x03abc",
        "of another": INTER.crl(),
        "unreachable": b"",
    }[trouble]
    if content:
        lists.publish("/listed.crl", content)
    if trouble == "unreachable":
        lists.url = "http://127.0.0.1:1/listed.crl"
    with Origin(tls=lists.issue().server_context(tmp_path)) as origin:
        ended = fetch(worker, origin.url("/gen/5/1"), tmp_path, CRL)
        assert (ended.error, ended.transient) == (PREFIX + "CERT_REV_FAILED", False)
        assert lists.url in ended.message
        assert origin.requests == []


def test_h8_a_certificate_that_names_no_list_is_fatal(worker: WorkerProcess, tmp_path: Path) -> None:
    with Origin(tls=INTER.issue().server_context(tmp_path)) as origin:
        assert fetch(worker, origin.url("/gen/5/1"), tmp_path, CRL).error == PREFIX + "CERT_REV_FAILED"


def test_h8_the_list_comes_by_the_jobs_proxy(worker: WorkerProcess, lists: Lists, tmp_path: Path) -> None:
    lists.publish("/listed.crl", lists.authority.crl())
    lists.url = "http://lists.test/listed.crl"
    authority = Authority("listed", issuer=ROOT, crl_urls=["http://lists.test/root.crl"])
    lists.authority = authority
    lists.publish("/listed.crl", authority.crl())
    with Origin(tls=lists.issue().server_context(tmp_path)) as origin:
        hosts = {"origin.test": origin.port, "lists.test": lists.origin.port}
        with ProxyServer(hosts=hosts) as proxy:
            ended = fetch(worker, "https://origin.test/gen/5/1", tmp_path, CRL, proxy=through(proxy))
            assert ended.error == ""
            assert "GET http://lists.test/listed.crl" in proxy.targets
