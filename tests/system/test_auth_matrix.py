"""Schemes × (server, proxy, tunnel) × (right, wrong, missing, implicit): states, codes, and what servers saw.

Real servers: Apache (Basic, Digest, mod_auth_gssapi for Kerberos, and for NTLM by gss-ntlmssp), Squid with helpers, an
MIT KDC (J35-J37, I9-I12).  For every row the log of whoever asked says as whom the file was fetched, with how many
requests, and that nothing was proved before it was asked for.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.network import ImplicitSpec, ProxySpec
from openbits.frames.worker import FileSpec, TakeCredential, TransferEnded, TransferFiles, UploadFile
from support.accounts import needs_root
from support.apache import needs_apache
from support.asking_apache import (
    NTLM_PASSWORD,
    NTLM_USER,
    PASSWORD,
    REALM,
    USER,
    AskingApache,
    needs_asking_apache,
    running_asking_apache,
)
from support.asking_squid import AskingSquid, running_asking_squid
from support.bits_server import BitsServer
from support.ca import Authority, bundle
from support.daemon import wait_until
from support.kdc import Realm, needs_kdc, running_kdc
from support.recording_server import Answer, Got, RecordingServer, digest_answer
from support.socks_server import SocksServer
from support.squid import needs_squid
from support.worker_process import WorkerProcess, settings

pytestmark = [needs_root, needs_kdc, needs_apache, needs_asking_apache, needs_squid]

TICKET_OF = "teller"
numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class World:
    """All the servers, and a worker."""

    apache: AskingApache
    squid: AskingSquid
    squid_ntlm: AskingSquid
    worker: WorkerProcess
    uploads: BitsServer
    environment: dict[str, str]
    """Of workers."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("certificates")
    os.chmod(base, 0o755)
    authority = Authority("a CA")
    certificate, key = authority.issue().write(base, "server")
    trusted = bundle(base / "trusted.pem", authority)
    upload_base = tmp_path_factory.mktemp("uploads")
    uploads = BitsServer(base=str(upload_base), arguments=("--allow-overwrites",))
    uploads.start()
    try:
        with (
            running_kdc() as realm,
            running_asking_apache(realm, certificate, key, upload_url=uploads.url) as apache,
            running_asking_squid(realm) as squid,
            running_asking_squid(realm, has_ntlm_in_spnego=True) as squid_ntlm,
        ):
            realm.add(USER, password=PASSWORD)
            environment = _environment(realm, trusted)
            with WorkerProcess(env=environment) as worker:
                yield World(
                    apache=apache,
                    squid=squid,
                    squid_ntlm=squid_ntlm,
                    worker=worker,
                    uploads=uploads,
                    environment=environment,
                )
    finally:
        uploads.stop()


def _environment(realm: Realm, trusted: str) -> dict[str, str]:
    realm.ensure(TICKET_OF)
    keytab = realm.keytab("teller.keytab", TICKET_OF)
    cache = os.path.join(realm.base, "teller.cache")
    realm.kinit_by_keytab(TICKET_OF, keytab, path=cache)
    return {**realm.environment, "SSL_CERT_FILE": trusted, "KRB5CCNAME": f"FILE:{cache}"}


# --- the table ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How somebody asks, and what has an answer."""

    place: str
    """The directory of the server that asks so, and the port of the proxy."""
    scheme: str
    """For which scheme credentials are set."""
    user: str
    password: str
    known_as: str
    """What the log calls the user."""
    proof: str
    """What is sent."""
    requests_right: int = 2
    """How many requests it takes, the one that is challenged first included."""
    requests_wrong: int = 2


SCHEMES = {
    "basic": Scheme(place="basic", scheme="basic", user=USER, password=PASSWORD, known_as=USER, proof="Basic"),
    "digest": Scheme(place="digest", scheme="digest", user=USER, password=PASSWORD, known_as=USER, proof="Digest"),
    "kerberos": Scheme(
        place="negotiate",
        scheme="negotiate",
        user=USER,
        password=PASSWORD,
        known_as=f"{USER}@{REALM}",
        proof="Negotiate",
        # The KDC says no already, and no server hears of it.
        requests_wrong=1,
    ),
    "kerberos with a domain": Scheme(
        place="negotiate",
        scheme="negotiate",
        user=rf"obt\{USER}",
        password=PASSWORD,
        known_as=f"{USER}@{REALM}",
        proof="Negotiate",
        requests_wrong=1,
    ),
    "ntlm": Scheme(
        place="ntlm",
        scheme="ntlm",
        user=NTLM_USER,
        password=NTLM_PASSWORD,
        known_as=NTLM_USER,
        proof="NTLM",
        requests_right=3,
        requests_wrong=3,
    ),
    "negotiate with ntlm": Scheme(
        place="spnego",
        scheme="negotiate",
        user=NTLM_USER,
        password=NTLM_PASSWORD,
        known_as=NTLM_USER,
        proof="Negotiate",
        requests_right=3,
        requests_wrong=3,
    ),
}
IMPLICIT = Scheme(
    place="negotiate", scheme="negotiate", user="", password="", known_as=f"{TICKET_OF}@{REALM}", proof="Negotiate"
)
TARGETS = ("server", "server by TLS", "proxy", "tunnel")
CASES = ("right", "wrong", "missing")
ROWS = [(name, target, case) for name in SCHEMES for target in TARGETS for case in CASES]
IMPLICIT_ROWS = [(target, case) for target in TARGETS for case in ("implicit", "not allowed")]


@dataclass(kw_only=True)
class Fetching:
    """One file, fetched on the terms of a row."""

    world: World
    directory: Path
    target: str
    place: str

    def __post_init__(self) -> None:
        self.number = next(numbers)
        # NTLM and Negotiate with NTLM inside are two ways into one directory of the server.
        where = {"ntlm": "spnego"}.get(self.place, self.place) if self.is_server else "open"
        self.path = self.world.apache.add(f"{where}/{self.number}")
        self.url = self.world.apache.url(self.path, tls=self.target in ("server by TLS", "tunnel"))
        self.squid = self.world.squid_ntlm if self.place == "spnego" else self.world.squid
        self.port = {"spnego": "negotiate"}.get(self.place, self.place)

    @property
    def is_server(self) -> bool:
        """Whether it is the server that asks."""
        return self.target.startswith("server")

    @property
    def asker(self) -> str:
        """Whose credentials are asked for."""
        return "server" if self.is_server else "proxy"

    def run(
        self, *credentials: tuple[str, str, str, str], worker: WorkerProcess | None = None, **changes: Any
    ) -> TransferEnded:
        """Fetch it with these (target, scheme, name, password)."""
        if not self.is_server:
            changes["proxy"] = ProxySpec(usage="manual", proxies=self.squid.address(self.port), source="the job's")
        return fetch(worker or self.world.worker, self.url, self.directory, *credentials, number=self.number, **changes)

    def seen(self, count: int) -> list[tuple[int, str, str]]:
        """Status, user and proof of the requests that the asker saw, once it has written down so many."""
        if self.is_server:
            wait_until(lambda: len(self.world.apache.heard(self.path)) >= count, "Apache to write")
            return [
                (one.status, one.user.replace("\\\\", "\\"), one.proof) for one in self.world.apache.heard(self.path)
            ]
        address = self.url if self.target == "proxy" else f"localhost:{self.world.apache.tls_port}"
        before = self._before
        wait_until(lambda: len(self.squid.passed(self.port, address)) >= before + count, "Squid to write")
        return [(one.status, one.user, one.proof) for one in self.squid.passed(self.port, address)[before:]]

    _before: int = 0

    def mark(self) -> None:
        """All tunnels lead to one place: what was passed on before does not belong to this row."""
        if self.target == "tunnel":
            self._before = len(self.squid.passed(self.port, f"localhost:{self.world.apache.tls_port}"))

    @property
    def is_here(self) -> bool:
        """Whether the file has come."""
        return (self.directory / f"t{self.number}").exists()


def fetch(
    worker: WorkerProcess,
    url: str,
    directory: Path,
    *credentials: tuple[str, str, str, str],
    number: int = 0,
    userinfo: str = "",
    **changes: Any,
) -> TransferEnded:
    """Have the worker fetch one file."""
    number = number or next(numbers)
    worker.send(settings(number, **changes))
    for target, scheme, user, password in credentials:
        half = len(password) // 2
        # In two parts, as passwords that are too long for one frame come.
        for part, last in ((password[:half], False), (password[half:], True)):
            worker.send(
                TakeCredential(transfer=number, target=target, scheme=scheme, user_name=user, password=part, last=last)
            )
    spec = FileSpec(
        index=0,
        remote_name=url,
        local_name=str(directory / f"f{number}"),
        temporary_name=str(directory / f"t{number}"),
        userinfo=userinfo,
    )
    worker.send(TransferFiles(transfer=number, files=(spec,), last=True))
    return worker.wait_for(TransferEnded, lambda ended: ended.transfer == number)


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


# --- one gives way to another -------------------------------------------------------------------------------


def _is_of(number: int, ended: TransferEnded) -> bool:
    return ended.transfer == number


def _has_heard(world: World, count: int) -> bool:
    return len(world.apache.heard()) >= count


ALL = ("Negotiate", "NTLM", 'Digest realm="r", nonce="n", qop="auth"', 'Basic realm="r"')


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        (("basic",), ["", "Basic"]),
        (("basic", "digest"), ["", "Digest", "Basic"]),
        (("basic", "digest", "ntlm"), ["", "NTLM", "Digest", "Basic"]),
        (("basic", "negotiate"), ["", "Negotiate", "Basic"]),
    ],
)
def test_i9_strongest_first_and_each_once(
    world: World, tmp_path: Path, has: tuple[str, ...], expected: list[str]
) -> None:
    def refuse(_got: Got) -> Answer:
        return Answer(status=401, headers=tuple(("WWW-Authenticate", one) for one in ALL), body=b"no")

    with RecordingServer(refuse) as server:
        credentials = [("server", scheme, NTLM_USER, NTLM_PASSWORD) for scheme in has]
        ended = fetch(world.worker, server.url(), tmp_path, *credentials)
    assert [got.proof for got in server.got] == expected
    assert ended.error == "BG_E_HTTP_ERROR_401"
    for scheme in has:
        assert f"for server and {scheme}" in ended.message


def test_j35_files_of_a_transfer_are_asked_once(world: World, tmp_path: Path) -> None:
    """From then on the server is told with every request, and a connection that knows is not asked again."""
    for place, scheme, user, password, requests in (
        ("basic", "basic", USER, PASSWORD, 4),
        ("digest", "digest", USER, PASSWORD, 4),
        ("negotiate", "negotiate", USER, PASSWORD, 4),
        ("spnego", "ntlm", NTLM_USER, NTLM_PASSWORD, 5),
    ):
        paths = [world.apache.add(f"{place}/many{number}") for number in range(3)]
        number = next(numbers)
        before = len(world.apache.heard())
        world.worker.send(settings(number))
        world.worker.send(
            TakeCredential(transfer=number, target="server", scheme=scheme, user_name=user, password=password)
        )
        files = tuple(
            FileSpec(
                index=index,
                remote_name=world.apache.url(path),
                local_name=str(tmp_path / f"{place}{index}"),
                temporary_name=str(tmp_path / f".{place}{index}"),
            )
            for index, path in enumerate(paths)
        )
        world.worker.send(TransferFiles(transfer=number, files=files, last=True))
        ended = world.worker.wait_for(TransferEnded, functools.partial(_is_of, number))
        assert (ended.error, ended.message) == ("", "")
        wait_until(functools.partial(_has_heard, world, before + requests), "Apache to write")
        heard = world.apache.heard()[before:]
        assert [one.status for one in heard] == [401] * (requests - 3) + [200] * 3
        if scheme == "ntlm":
            # The handshake's connection is used for the other files, and for nothing else.
            assert len({one.client_port for one in heard[1:]}) == 1
            assert [one.proof for one in heard] == ["-", "NTLM", "NTLM", "-", "-"]


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
    ended = world.worker.wait_for(TransferEnded, functools.partial(_is_of, number))
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
    ended = world.worker.wait_for(TransferEnded, functools.partial(_is_of, number))
    assert (ended.error, ended.message) == ("", "")


# --- redirects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["basic", "digest", "ntlm", "negotiate"])
@pytest.mark.parametrize("asks_first", [False, True])
def test_i9_nothing_ever_reaches_another_host(world: World, tmp_path: Path, scheme: str, asks_first: bool) -> None:
    def lure(_got: Got) -> Answer:
        return Answer(status=401, headers=tuple(("WWW-Authenticate", one) for one in ALL), body=b"who?")

    with RecordingServer(lure, host="127.0.0.2") as elsewhere:

        def redirect(got: Got) -> Answer:
            if asks_first and "Authorization" not in got.headers:
                return Answer(status=401, headers=(("WWW-Authenticate", 'Basic realm="r"'),), body=b"")
            return Answer(status=302, headers=(("Location", elsewhere.url("/lure")),), body=b"")

        with RecordingServer(redirect) as server:
            credentials = [("server", scheme, USER, PASSWORD), ("server", "basic", USER, PASSWORD)]
            ended = fetch(world.worker, server.url(), tmp_path, *credentials, userinfo="in:url")
    assert ended.error == "BG_E_HTTP_ERROR_401"
    assert "redirect" in ended.message
    assert [got.path for got in elsewhere.got] == ["/lure"]
    for got in elsewhere.got:
        assert not {"Authorization", "Proxy-Authorization", "Cookie"} & set(got.headers)


def test_i9_a_server_behind_the_redirect_has_its_own_asker(world: World, tmp_path: Path) -> None:
    """A redirect within the server keeps the credentials; they were asked for there."""

    def answer(got: Got) -> Answer:
        if got.path == "/first":
            return Answer(status=302, headers=(("Location", "/second"),), body=b"")
        if got.proof != "Basic":
            return Answer(status=401, headers=(("WWW-Authenticate", 'Basic realm="r"'),), body=b"")
        return Answer()

    with RecordingServer(answer) as server:
        assert fetch(world.worker, server.url("/first"), tmp_path, ("server", "basic", USER, PASSWORD)).error == ""
    assert [(got.path, got.proof) for got in server.got] == [("/first", ""), ("/second", ""), ("/second", "Basic")]


# --- names in URLs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "user", "password"),
    [("basic", USER, PASSWORD), ("digest", USER, PASSWORD), ("spnego", NTLM_USER, NTLM_PASSWORD)],
)
def test_j35_name_and_password_of_the_url(world: World, tmp_path: Path, place: str, user: str, password: str) -> None:
    quoted = (
        "".join(f"%{byte:02x}" for byte in user.encode()) + ":" + "".join(f"%{byte:02X}" for byte in password.encode())
    )
    fetching = Fetching(world=world, directory=tmp_path, target="server", place=place)
    assert fetching.run(userinfo=quoted).error == ""
    seen = fetching.seen(3 if place == "spnego" else 2)
    assert (seen[0][2], seen[-1][1]) == ("-", user)
    wrong = Fetching(world=world, directory=tmp_path, target="server", place=place).run(userinfo="a:b")
    assert wrong.error == "BG_E_HTTP_ERROR_401"
    assert "in the file's URL" in wrong.message


# --- hostile challenges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        (("WWW-Authenticate", "x" * 30_000),),
        tuple(("WWW-Authenticate", f"Scheme{number} realm=x") for number in range(90)),
        (("WWW-Authenticate", 'Digest realm="unending'),),
        (("WWW-Authenticate", "NTLM " + "A" * 20_000),),
        (("WWW-Authenticate", 'Digest realm="r", nonce="' + "n" * 20_000 + '"'),),
        (),
    ],
)
def test_i9_hostile_challenges_end_the_transfer_at_once(
    world: World, tmp_path: Path, headers: tuple[tuple[str, str], ...]
) -> None:
    def answer(_got: Got) -> Answer:
        return Answer(status=401, headers=headers, body=b"." * 1_000_000)

    with RecordingServer(answer) as server:
        credentials = [("server", scheme, USER, PASSWORD) for scheme in ("basic", "digest", "ntlm")]
        ended = fetch(world.worker, server.url(), tmp_path, *credentials)
        assert len(server.got) <= 3
    assert ended.error == "BG_E_HTTP_ERROR_401"
    assert len(ended.message) < 2000
    assert ended.message.isprintable()


def test_i9_the_body_of_a_challenge_is_not_read_for_ever(world: World, tmp_path: Path) -> None:
    """Neither where the credentials are refused, nor where there is another challenge to answer."""

    def answer(_got: Got) -> Answer:
        return Answer(status=401, headers=(("WWW-Authenticate", "Basic realm=x"), ("Content-Length", str(1 << 40))))

    with RecordingServer(answer) as server:
        number = next(numbers)
        ended = fetch(
            world.worker,
            server.url(),
            tmp_path,
            ("server", "basic", USER, PASSWORD),
            number=number,
            stall_timeout_s=1,
            break_patience_s=0.1,
        )
    assert ended.error in ("BG_E_HTTP_ERROR_401", "ERROR_WINHTTP_TIMEOUT")


# --- SOCKS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_j35_socks_proxies_are_logged_on_to(world: World, tmp_path: Path, case: str) -> None:
    """By the name and the password that the job has for the proxy and basic, whatever the server wants."""
    path = world.apache.add("open/socks")
    with SocksServer(login=(USER, PASSWORD)) as socks:
        proxy = ProxySpec(usage="manual", proxies=f"socks5://{socks.place}", source="the job's")
        password = PASSWORD if case == "right" else "wrong"
        credentials = [("proxy", "basic", USER, password)] if case != "missing" else []
        url = world.apache.url(path)
        ended = fetch(world.worker, url, tmp_path, *credentials, proxy=proxy, break_patience_s=0.1)
    if case == "right":
        assert (ended.error, ended.message) == ("", "")
    else:
        assert ended.error
        assert password not in ended.message
    assert set(socks.logins) == ({(USER, password)} if credentials else set())
    assert {one.proof for one in world.apache.heard(path)} <= {"-"}


# --- uploads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("place", "scheme", "user", "password"),
    [
        ("basic", "basic", USER, PASSWORD),
        ("digest", "digest", USER, PASSWORD),
        ("spnego", "ntlm", NTLM_USER, NTLM_PASSWORD),
        ("spnego", "negotiate", NTLM_USER, NTLM_PASSWORD),
    ],
)
def test_j35_uploads(
    world: World, tmp_path: Path, place: str, scheme: str, user: str, password: str, case: str
) -> None:
    """A server for uploads behind Apache: packets that are challenged are sent again, greetings carry no body."""
    number = next(numbers)
    source = tmp_path / "source"
    content = os.urandom(300_000)
    source.write_bytes(content)
    name = f"sent-{number}"
    url = world.apache.url(f"{place}/up/{name}")
    world.worker.send(settings(number))
    if case != "missing":
        said = password if case == "right" else "wrong"
        world.worker.send(
            TakeCredential(transfer=number, target="server", scheme=scheme, user_name=user, password=said)
        )
    file = FileSpec(index=0, remote_name=url, local_name=str(source), temporary_name="")
    world.worker.send(UploadFile(transfer=number, file=file, protocol="bits", memory=""))
    ended = world.worker.wait_for(TransferEnded, lambda ended: ended.transfer == number)
    heard = world.apache.heard(f"{place}/up/{name}")
    if case == "right":
        assert (ended.error, ended.message) == ("", "")
        assert Path(world.uploads.root, name).read_bytes() == content
        assert {one.user.replace("\\\\", "\\") for one in heard if one.status < 300} == {user}
        assert sum(one.received_bytes for one in heard) < 1.2 * len(content) + 20_000
    else:
        assert ended.error == "BG_E_HTTP_ERROR_401"
        assert not Path(world.uploads.root, name).exists()
        assert all(one.status == 401 for one in heard)
    assert heard[0].proof == "-"
