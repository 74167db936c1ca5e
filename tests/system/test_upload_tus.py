"""Uploads with the real daemon to a real tus server (issue, part 7): found by itself, resumed, cancelled."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.tus_server import TusServer

pytestmark = needs_root

SIZE = 6_000_000


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def server() -> Iterator[TusServer]:
    with TusServer() as running:
        yield running


def content_of(size: int = SIZE) -> bytes:
    return random.Random(size).randbytes(size)


def methods(server: TusServer) -> list[str]:
    return [asked.method for asked in server.asked()]


def submit(daemon: Daemon, account: TestAccount, path: str, url: str) -> str:
    return daemon.bits("put", "--async", path, url, account=account, check=True).stdout.strip()


@pytest.mark.parametrize("size", [SIZE, 1, 0])
@pytest.mark.parametrize("protocol", ["auto", "tus"])
def test_a_file_arrives(daemon: Daemon, alice: TestAccount, server: TusServer, size: int, protocol: str) -> None:
    content = content_of(size)
    done = daemon.bits("put", file_of(alice, content, "ä b.bin"), server.url, "--protocol", protocol, account=alice)
    assert done.returncode == 0, done.stderr
    assert server.contents() == [content]
    assert [asked.status for asked in server.asked() if asked.method in ("POST", "PATCH")][-1] in (201, 204)


@pytest.mark.parametrize("who", ["server", "daemon", "everything"])
def test_whoever_dies_the_same_upload_goes_on(daemon: Daemon, alice: TestAccount, server: TusServer, who: str) -> None:
    """An answer is lost with whoever was killed; what the server had is not sent again."""
    server.kill()
    server.start(hold_patch=3)
    content = content_of()
    job = submit(daemon, alice, file_of(alice, content), server.url)
    server.wait_held()
    if who != "server":
        daemon.kill()
    if who != "daemon":
        server.kill()
        server.start()
    if who != "server":
        daemon.start()
    daemon.bits("resume", job, account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert server.contents() == [content]
    assert [asked.method for asked in server.asked() if asked.status == 201] == ["POST"]
    held = next(asked for asked in server.asked() if asked.status == 0)
    later = server.asked()[server.asked().index(held) + 1 :]
    first = next(asked for asked in later if asked.method == "PATCH")
    assert first.offset > held.offset
    assert "HEAD" in [asked.method for asked in later]


def test_j6_cancel_removes_what_was_uploaded(daemon: Daemon, alice: TestAccount, server: TusServer) -> None:
    server.kill()
    server.start(hold_patch=2)
    job = submit(daemon, alice, file_of(alice, content_of()), server.url)
    server.wait_held()
    daemon.bits("cancel", job, account=alice, check=True)
    wait_until(lambda: "DELETE" in methods(server), "the server to be told")
    wait_until(lambda: server.contents() == [], "the upload to be removed")


def test_an_upload_that_the_server_forgot_begins_again(daemon: Daemon, alice: TestAccount, server: TusServer) -> None:
    server.kill()
    server.start(hold_patch=3)
    content = content_of()
    job = submit(daemon, alice, file_of(alice, content), server.url)
    server.wait_held()
    server.kill()
    for name in os.listdir(os.path.join(server.base, "files")):
        path = os.path.join(server.base, "files", name)
        if os.path.isfile(path):
            os.unlink(path)
    server.start()
    daemon.bits("resume", job, account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert server.contents() == [content]


def test_u46_a_server_that_speaks_nothing_of_it_is_a_mismatch(
    daemon: Daemon, alice: TestAccount, server: TusServer
) -> None:
    url = server.url.replace("/files/", "/elsewhere/")
    done = daemon.bits("put", file_of(alice, b"x"), url, account=alice)
    assert done.returncode == 1
    assert "BG_E_HTTP_ERROR_404" in done.stderr
    assert "--protocol put" in done.stderr
