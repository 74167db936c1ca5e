"""Uploads with the real daemon to nginx, which knows nothing but PUT (issue, part 7)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.nginx import Nginx, running_nginx

pytestmark = needs_root


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    with running_nginx() as running:
        yield running


@pytest.mark.parametrize("size", [20_000_000, 1, 0])
def test_a_file_is_put_whole_by_one_request(daemon: Daemon, alice: TestAccount, nginx: Nginx, size: int) -> None:
    content = random.Random(size).randbytes(size)
    done = daemon.bits("put", file_of(alice, content), nginx.url("new"), "--protocol", "put", account=alice)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(nginx.root, "new"), "rb") as file:
        assert file.read() == content
    assert [asked.status for asked in nginx.asked()] == [201]


def test_u46_whoever_asks_for_no_protocol_is_told_of_put(daemon: Daemon, alice: TestAccount, nginx: Nginx) -> None:
    """A file that cannot be resumed is not sent unasked."""
    done = daemon.bits("put", file_of(alice, b"content"), nginx.url("new"), account=alice)
    assert done.returncode == 1
    assert "bits put --protocol put" in done.stderr
    assert os.listdir(nginx.root) == []


def test_a_put_that_failed_begins_at_zero_and_says_so(daemon: Daemon, alice: TestAccount, nginx: Nginx) -> None:
    """nginx makes no directories, and answers 500."""
    content = random.Random(7).randbytes(2_000_000)
    path = file_of(alice, content)
    arguments = ("put", "--async", path, nginx.url("missing/new"), "--protocol", "put")
    job = daemon.bits(*arguments, account=alice, check=True).stdout.strip()
    error = daemon.wait_state(job, "TRANSIENT_ERROR")["error"]
    assert error["code"] == "BG_E_HTTP_ERROR_500"
    assert "all 2000000 bytes are sent again" in error["message"]
    os.mkdir(os.path.join(nginx.root, "missing"))
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    with open(os.path.join(nginx.root, "missing", "new"), "rb") as file:
        assert file.read() == content
    daemon.bits("complete", job, account=alice, check=True)
