"""What is sent to whom: schemes in their order, redirects, URLs, hostile challenges, SOCKS, uploads (I9, J35)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.frames.network import ProxySpec
from openbits.frames.worker import FileSpec, TakeCredential, TransferEnded, TransferFiles, UploadFile
from support.asking_apache import (
    NTLM_PASSWORD,
    NTLM_USER,
    PASSWORD,
    USER,
)
from support.auth_world import (
    CASES,
    Fetching,
    World,
    fetch,
    has_heard,
    is_of,
    needs_world,
    numbers,
    running_world,
)
from support.daemon import wait_until
from support.recording_server import Answer, Got, RecordingServer
from support.socks_server import SocksServer
from support.worker_process import settings

pytestmark = list(needs_world)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory) as running:
        yield running


ALL = ("Negotiate", "NTLM", 'Digest realm="r", nonce="n", qop="auth"', 'Basic realm="r"')


# --- one gives way to another -------------------------------------------------------------------------------


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
        ended = world.worker.wait_for(TransferEnded, functools.partial(is_of, number))
        assert (ended.error, ended.message) == ("", "")
        wait_until(functools.partial(has_heard, world, before + requests), "Apache to write")
        heard = world.apache.heard()[before:]
        assert [one.status for one in heard] == [401] * (requests - 3) + [200] * 3
        if scheme == "ntlm":
            # The handshake's connection is used for the other files, and for nothing else.
            assert len({one.client_port for one in heard[1:]}) == 1
            assert [one.proof for one in heard] == ["-", "NTLM", "NTLM", "-", "-"]


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
        assert (ended.error, ended.transient) == ("BG_E_HTTP_ERROR_407", False)
        assert "bits set-credentials --target proxy --scheme basic" in ended.message
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
