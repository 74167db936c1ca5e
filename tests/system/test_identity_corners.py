"""Corners of identity, found by trying every sentence of architecture, section 4, from the outside."""

from __future__ import annotations

import grp
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.accounts import TestAccount, needs_root, temporary_account, temporary_group
from support.daemon import Daemon, running_daemon
from support.helping import LOCAL_FILE, helped_job
from support.nginx import Nginx, running_nginx

pytestmark = needs_root


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        server.add("small", 1000)
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def dave() -> Iterator[TestAccount]:
    """A system account."""
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


def test_i1_a_new_member_of_a_group_can_use_it_at_once(
    daemon: Daemon, origin: Nginx, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not only when the monitor has forgotten what the account was before."""
    with temporary_group() as gid, temporary_account() as account:
        shared = os.path.join(account.home, "..", f"obt-of-{grp.getgrgid(gid).gr_name}")
        shared = os.path.realpath(shared)
        os.mkdir(shared, 0o770)
        try:
            os.chown(shared, 0, gid)
            os.chmod(shared, 0o770)
            outside = daemon.bits("get", "--async", origin.url("small"), "-o", f"{shared}/file", account=account)
            assert outside.returncode == 4, outside.stderr
            subprocess.run(["usermod", "-aG", grp.getgrgid(gid).gr_name, account.name], check=True, timeout=30)
            member = replace(account, groups=tuple(sorted({*account.groups, gid})))
            daemon.bits("get", origin.url("small"), "-o", f"{shared}/file", account=member, check=True)
            assert os.stat(f"{shared}/file").st_uid == account.uid
        finally:
            subprocess.run(["rm", "-rf", shared], check=True, timeout=30)


@pytest.mark.parametrize("count", [257, 4000])
def test_i1_people_with_many_groups_have_jobs(daemon: Daemon, origin: Nginx, alice: TestAccount, count: int) -> None:
    """Directory servers give some people hundreds; Python reads no more than 256 of a socket's other end by itself."""
    many = replace(alice, groups=(alice.gid, *range(300_000, 300_000 + count)))
    daemon.bits("get", origin.url("small"), "-o", f"{alice.home}/many-{count}", account=many, check=True)
    assert os.stat(f"{alice.home}/many-{count}").st_uid == alice.uid


def test_a_refused_directory_is_refused_to_the_one_who_is_named(
    daemon: Daemon, origin: Nginx, alice: TestAccount
) -> None:
    """An administrator adds a file to somebody else's job: it is not he who may not write there."""
    job = daemon.bits("create", "of alice", account=alice, check=True).stdout.strip()
    refused = daemon.bits("add", job, origin.url("small"), "/root/file")
    assert refused.returncode == 4
    assert f"{alice.name} may not" in refused.stderr
    daemon.bits("cancel", job, account=alice, check=True)


def test_t3_a_directory_that_the_helper_may_not_write_to_is_refused_to_the_helper(
    daemon: Daemon, origin: Nginx, alice: TestAccount, dave: TestAccount
) -> None:
    with helped_job(daemon, dave) as helped:
        helped.help_by(alice, LOCAL_FILE)
        with pytest.raises(Exception, match=f"{alice.name} may not"):
            helped.add(origin.url("small"), f"{dave.home}/file")
