"""Uploads with the real daemon by the IETF's draft (issue, part 7): found by itself, resumed, cancelled, limited."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.ietf_server import IetfServer

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
def server() -> Iterator[IetfServer]:
    with IetfServer() as running:
        yield running


def content_of(size: int = SIZE) -> bytes:
    return random.Random(size).randbytes(size)


def methods(server: IetfServer) -> list[str]:
    return [method for method, _ in server.asked]


@pytest.mark.parametrize("size", [SIZE, 1, 0])
@pytest.mark.parametrize("protocol", ["auto", "ietf"])
def test_a_file_arrives(daemon: Daemon, alice: TestAccount, server: IetfServer, size: int, protocol: str) -> None:
    content = content_of(size)
    done = daemon.bits("put", file_of(alice, content, "ä b.bin"), server.url, "--protocol", protocol, account=alice)
    assert done.returncode == 0, done.stderr
    assert server.contents() == [content]
    [resource] = server.resources.values()
    assert resource.disposition == "inline; filename=\"_ b.bin\"; filename*=UTF-8''%C3%A4%20b.bin"


def test_a_limit_of_one_request_is_kept_to(daemon: Daemon, alice: TestAccount) -> None:
    content = content_of(1_000_000)
    with IetfServer(max_append_bytes=100_000) as server:
        done = daemon.bits("put", file_of(alice, content), server.url, account=alice)
        assert done.returncode == 0, done.stderr
        assert server.contents() == [content]
        offsets = [offset for method, offset in server.asked if method == "PATCH"]
        assert offsets == sorted(set(offsets)), "nothing was refused or sent twice"


def test_after_a_kill_of_everything_the_same_upload_goes_on(
    daemon: Daemon, alice: TestAccount, server: IetfServer
) -> None:
    server.hold_patch = 3
    content = content_of()
    path = file_of(alice, content)
    job = daemon.bits("put", "--async", path, server.url, account=alice, check=True).stdout.strip()
    assert server.held.wait(60)
    daemon.kill()
    held = [offset for method, offset in server.asked if method == "PATCH"][-1]
    daemon.start()
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert server.contents() == [content]
    assert methods(server).count("POST") == 1
    later = server.asked[server.asked.index(("PATCH", held)) + 1 :]
    assert ("HEAD", -1) in later
    assert all(offset > held for method, offset in later if method == "PATCH")


def test_j6_cancel_removes_what_was_uploaded(daemon: Daemon, alice: TestAccount, server: IetfServer) -> None:
    server.hold_patch = 2
    path = file_of(alice, content_of())
    job = daemon.bits("put", "--async", path, server.url, account=alice, check=True).stdout.strip()
    assert server.held.wait(60)
    daemon.bits("cancel", job, account=alice, check=True)
    wait_until(lambda: "DELETE" in methods(server), "the server to be told")
    wait_until(lambda: not server.resources, "the upload to be removed")
