"""Schemes × (server, proxy, tunnel) × (right, wrong, missing, implicit): states, codes, and what servers saw.

Real servers: Apache (Basic, Digest, mod_auth_gssapi for Kerberos, and for NTLM by gss-ntlmssp), Squid with helpers, an
MIT KDC (J35-J37, I9-I12).  For every row the log of whoever asked says as whom the file was fetched, with how many
requests, and that nothing was proved before it was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.frames.worker import FileSpec, TakeCredential, TransferEnded, TransferFiles
from support.asking_apache import (
    PASSWORD,
    REALM,
    USER,
)
from support.auth_world import (
    CASES,
    SCHEMES,
    TICKET_OF,
    Fetching,
    World,
    fetch,
    is_of,
    needs_world,
    numbers,
    running_world,
)
from support.recording_server import Answer, Got, RecordingServer, digest_answer
from support.worker_process import WorkerProcess, settings

pytestmark = list(needs_world)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory) as running:
        yield running


TARGETS = ("server", "server by TLS", "proxy", "tunnel")
ROWS = [(name, target, case) for name in SCHEMES for target in TARGETS for case in CASES]
IMPLICIT_ROWS = [(target, case) for target in TARGETS for case in ("implicit", "not allowed")]


@pytest.mark.parametrize(("name", "target", "case"), ROWS)
def test_j35_explicit(world: World, tmp_path: Path, name: str, target: str, case: str) -> None:
    scheme = SCHEMES[name]
    fetching = Fetching(world=world, directory=tmp_path, target=target, place=scheme.place)
    fetching.mark()
    asks = 401 if fetching.is_server else 407
    code = f"BG_E_HTTP_ERROR_{asks}"
    match case:
        case "right":
            ended = fetching.run((fetching.asker, scheme.scheme, scheme.user, scheme.password))
            assert (ended.error, ended.message) == ("", "")
            assert fetching.is_here
            seen = fetching.seen(scheme.requests_right)
            assert len(seen) == scheme.requests_right
            assert (seen[-1][0], seen[-1][1]) == (200, scheme.known_as)
            assert {proof for _, _, proof in seen[1:]} == {scheme.proof}
        case "wrong":
            ended = fetching.run((fetching.asker, scheme.scheme, scheme.user, "not this one"))
            assert (ended.error, ended.transient) == (code, False)
            assert f"the job has for {fetching.asker} and {scheme.scheme}" in ended.message
            assert "bits set-credentials" in ended.message
            seen = fetching.seen(scheme.requests_wrong)
            assert len(seen) == scheme.requests_wrong
            assert {status for status, _, _ in seen} == {asks}
        case _:
            # What is there for the other target is no answer to this one.
            other = "proxy" if fetching.is_server else "server"
            ended = fetching.run((other, scheme.scheme, scheme.user, scheme.password))
            assert ended.error == code
            seen = fetching.seen(1)
            assert len(seen) == 1
    assert seen[0][0] == asks
    assert seen[0][2] == "-", "something was proved before it was asked for"
    assert scheme.password not in ended.message
    assert "not this one" not in ended.message
    assert {one.leaked for one in world.apache.heard(fetching.path)} <= {"-"}


@pytest.mark.parametrize(("target", "case"), IMPLICIT_ROWS)
def test_i10_implicit(world: World, tmp_path: Path, target: str, case: str) -> None:
    """With a ticket of the account's own, where the job allows it; not otherwise."""
    fetching = Fetching(world=world, directory=tmp_path, target=target, place="negotiate")
    fetching.mark()
    asks = 401 if fetching.is_server else 407
    allows = case == "implicit"
    implicit = ImplicitSpec(server=allows, proxy=allows and not fetching.is_server, account=TICKET_OF)
    # A worker of its own: it is when a tunnel ends that Squid writes it down.
    with WorkerProcess(env=world.environment) as worker:
        ended = fetching.run(implicit=implicit, worker=worker)
    seen = fetching.seen(2 if allows else 1)
    if allows:
        assert (ended.error, ended.message) == ("", "")
        assert [one[:2] for one in seen] == [(asks, "-"), (200, f"{TICKET_OF}@{REALM}")]
    else:
        assert ended.error == f"BG_E_HTTP_ERROR_{asks}"
        assert seen == [(asks, "-", "-")]
        assert "SetCredentials" in ended.message


def test_i10_explicit_beats_implicit(world: World, tmp_path: Path) -> None:
    fetching = Fetching(world=world, directory=tmp_path, target="server", place="negotiate")
    implicit = ImplicitSpec(server=True, account=TICKET_OF)
    assert fetching.run(("server", "negotiate", USER, PASSWORD), implicit=implicit).error == ""
    assert [user for _, user, _ in fetching.seen(2)] == ["-", f"{USER}@{REALM}"]


def test_j65_the_accounts_own_for_the_proxy_alone(world: World, tmp_path: Path) -> None:
    implicit = ImplicitSpec(proxy=True, account=TICKET_OF)
    fetching = Fetching(world=world, directory=tmp_path, target="proxy", place="negotiate")
    assert fetching.run(implicit=implicit).error == ""
    fetching = Fetching(world=world, directory=tmp_path, target="server", place="negotiate")
    assert fetching.run(implicit=implicit).error == "BG_E_HTTP_ERROR_401"
    assert [proof for _, _, proof in fetching.seen(1)] == ["-"]


# --- Digest where Apache knows MD5 only ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"])
@pytest.mark.parametrize("case", CASES)
def test_j35_digest_algorithms(world: World, tmp_path: Path, algorithm: str, case: str) -> None:
    def answer(got: Got) -> Answer:
        return digest_answer(got, user=USER, password=PASSWORD, algorithm=algorithm)

    credential = ("server", "digest", USER, PASSWORD if case == "right" else "wrong")
    with RecordingServer(answer) as server:
        ended = fetch(world.worker, server.url("/a%41?b=c"), tmp_path, *([credential] if case != "missing" else []))
    assert ended.error == ("" if case == "right" else "BG_E_HTTP_ERROR_401")
    assert [got.proof for got in server.got] == (["", "Digest"] if case != "missing" else [""])


def test_j35_digest_without_qop(world: World, tmp_path: Path) -> None:
    """RFC 2069."""

    def answer(got: Got) -> Answer:
        return digest_answer(got, user=USER, password=PASSWORD, algorithm="MD5", qop="")

    with RecordingServer(answer) as server:
        assert fetch(world.worker, server.url(), tmp_path, ("server", "digest", USER, PASSWORD)).error == ""


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("proxy_name", ["basic", "digest", "ntlm", "kerberos"])
@pytest.mark.parametrize("server_name", ["basic", "digest", "ntlm", "kerberos"])
def test_j35_proxy_and_server_both_ask(
    world: World, tmp_path: Path, proxy_name: str, server_name: str, tls: bool
) -> None:
    """Each learns its own, over whatever connections that takes; two files, so that connections are used again."""
    asks_proxy, asks_server = SCHEMES[proxy_name], SCHEMES[server_name]
    number = next(numbers)
    place = {"ntlm": "spnego"}.get(asks_server.place, asks_server.place)
    paths = [world.apache.add(f"{place}/both{number}-{index}") for index in range(2)]
    proxy = ProxySpec(usage="manual", proxies=world.squid.address(asks_proxy.place), source="the job's")
    world.worker.send(settings(number, proxy=proxy))
    for target, asks in (("proxy", asks_proxy), ("server", asks_server)):
        world.worker.send(
            TakeCredential(
                transfer=number, target=target, scheme=asks.scheme, user_name=asks.user, password=asks.password
            )
        )
    files = tuple(
        FileSpec(
            index=index,
            remote_name=world.apache.url(path, tls=tls),
            local_name=str(tmp_path / f"f{index}"),
            temporary_name=str(tmp_path / f"t{index}"),
        )
        for index, path in enumerate(paths)
    )
    world.worker.send(TransferFiles(transfer=number, files=files, last=True))
    ended = world.worker.wait_for(TransferEnded, functools.partial(is_of, number))
    assert (ended.error, ended.message) == ("", "")
    for path in paths:
        for one in world.apache.heard(path):
            assert one.leaked == "-", "the server was told what is for the proxy"
            assert one.user.replace("\\\\", "\\") in ("-", asks_server.known_as)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_j35_files_side_by_side(world: World, tmp_path: Path, name: str) -> None:
    """Each on its way by itself: handshakes do not get into each other's connections."""
    scheme = SCHEMES[name]
    number = next(numbers)
    place = {"ntlm": "spnego"}.get(scheme.place, scheme.place)
    paths = [world.apache.add(f"{place}/side{number}-{index}") for index in range(12)]
    world.worker.send(settings(number, file_concurrency=4))
    world.worker.send(
        TakeCredential(
            transfer=number, target="server", scheme=scheme.scheme, user_name=scheme.user, password=scheme.password
        )
    )
    files = tuple(
        FileSpec(
            index=index,
            remote_name=world.apache.url(path),
            local_name=str(tmp_path / f"f{index}"),
            temporary_name=str(tmp_path / f"t{index}"),
        )
        for index, path in enumerate(paths)
    )
    world.worker.send(TransferFiles(transfer=number, files=files, last=True))
    ended = world.worker.wait_for(TransferEnded, functools.partial(is_of, number))
    assert (ended.error, ended.message) == ("", "")
