"""A look at a server meets the challenges of proxies as the requests after it do: real Squid, each scheme (H7, J35)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openbits.frames.network import ProxySpec, TlsSpec
from openbits.frames.worker import FileSpec, TakeCredential, TransferEnded, TransferFiles
from support.accounts import needs_root
from support.asking_apache import NTLM_PASSWORD, NTLM_USER, PASSWORD, USER
from support.asking_squid import AskingSquid, running_asking_squid
from support.ca import Authority
from support.kdc import Realm, needs_kdc, running_kdc
from support.origin import Origin, generate
from support.squid import needs_squid
from support.worker_process import WorkerProcess, settings

pytestmark = [needs_root, needs_kdc, needs_squid]

CRL, CA = 0x01, 0x08
SCHEMES = {
    "basic": (USER, PASSWORD),
    "digest": (USER, PASSWORD),
    "ntlm": (NTLM_USER, NTLM_PASSWORD),
    "negotiate": (USER, PASSWORD),
}
numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class World:
    squid: AskingSquid
    worker: WorkerProcess


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_kdc() as realm, running_asking_squid(realm) as squid:
        realm.add(USER, password=PASSWORD)
        with WorkerProcess(env=_environment(realm)) as worker:
            yield World(squid=squid, worker=worker)


def _environment(realm: Realm) -> dict[str, str]:
    return {**realm.environment, "KRB5CCNAME": f"FILE:{os.path.join(realm.base, 'nobody.cache')}"}


def fetch(world: World, scheme: str, url: str, directory: Path, flags: int, *, password: str = "") -> TransferEnded:
    number = next(numbers)
    user, right = SCHEMES[scheme]
    worker, proxies = world.worker, world.squid.address(scheme)
    way = ProxySpec(usage="manual", proxies=proxies, source="the test")
    worker.messages.clear()
    worker.send(settings(number, tls=TlsSpec(security_flags=flags), proxy=way))
    worker.send(
        TakeCredential(transfer=number, target="proxy", scheme=scheme, user_name=user, password=password or right)
    )
    spec = FileSpec(index=0, remote_name=url, local_name=str(directory / "f"), temporary_name=str(directory / "t"))
    worker.send(TransferFiles(transfer=number, files=(spec,), last=True))
    return worker.wait_for(TransferEnded, lambda ended: ended.transfer == number)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_h7_the_proxy_learns_who_looks(world: World, tmp_path: Path, scheme: str) -> None:
    with Origin(tls=Authority("stranger").issue().server_context(tmp_path)) as origin:
        url = origin.url("/gen/9000/1")
        assert fetch(world, scheme, url, tmp_path, 0).error == "ERROR_WINHTTP_SECURE_INVALID_CA"
        assert fetch(world, scheme, url, tmp_path, 0x16).error == "ERROR_WINHTTP_SECURE_INVALID_CA"
        assert origin.requests == []
        assert fetch(world, scheme, url, tmp_path, CA).error == ""
        assert (tmp_path / "t").read_bytes() == generate(9000, 1)
        assert "proxy-authorization" not in origin.requests[0].headers


@pytest.mark.parametrize("scheme", SCHEMES)
def test_h7_a_look_that_the_proxy_refuses_is_407(world: World, tmp_path: Path, scheme: str) -> None:
    with Origin(tls=Authority("stranger").issue().server_context(tmp_path)) as origin:
        ended = fetch(world, scheme, origin.url("/gen/9/1"), tmp_path, CA, password="wrong")
        assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_407", False)
        assert "the proxy" in ended.message
        assert origin.requests == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_h8_lists_come_by_a_proxy_that_asks(world: World, tmp_path: Path, scheme: str) -> None:
    authority = Authority("its own")
    with Origin() as lists:
        content = authority.crl()
        lists.serve(
            "/list.crl",
            lambda _request, connection: connection.send(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
            ),
        )
        server = authority.issue(crl_urls=[lists.url("/list.crl")])
        # Its authority goes along: that of an unknown issuer could not be looked up.
        shown = type(server)(certificate=server.certificate, key=server.key, chain=(authority.certificate,))
        with Origin(tls=shown.server_context(tmp_path)) as origin:
            assert fetch(world, scheme, origin.url("/gen/9000/1"), tmp_path, CRL | CA).error == ""
        assert [request.path for request in lists.requests] == ["/list.crl"]
        assert "proxy-authorization" not in lists.requests[0].headers
