"""J42 from the command line to the file: a real service, a real account, access lists on a real disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits import BitsError, FileAclFlags, Manager, aio
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import BIN, Daemon, running_daemon, wait_until

pytestmark = needs_root

CONFIG = """
[logon]
provider = "always"
"""


@pytest.fixture(scope="module")
def people() -> Iterator[tuple[TestAccount, TestAccount]]:
    with temporary_account() as alice, temporary_account() as bob:
        yield alice, bob


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=CONFIG) as running:
        yield running


def bits(daemon: Daemon, account: TestAccount, *arguments: str) -> str:
    """Run `bits` as the account; return what it says."""
    done = subprocess.run(
        [sys.executable, os.path.join(BIN, "bits"), *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": account.home, "BITS_SOCKET": daemon.socket, "LANG": "C.UTF-8"},
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def entries(path: Path) -> set[str]:
    command = ["getfacl", "--absolute-names", "--omit-header", "--numeric", "--no-effective", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    return {line for line in output.splitlines() if line}


def test_a_copy_keeps_what_bits_set_says(daemon: Daemon, people: tuple[TestAccount, TestAccount]) -> None:
    alice, bob = people
    source = file_of(alice, b"content\n")
    subprocess.run(["setfacl", "-m", f"u:{bob.uid}:r", source], check=True, timeout=20)
    os.setxattr(source, "user.origin", b"here")
    target = Path(alice.home, "copy")
    bits(daemon, alice, "create", "acl")
    bits(daemon, alice, "set", "acl", "acl_flags=15")
    bits(daemon, alice, "add", "acl", f"file://{source}", str(target))
    bits(daemon, alice, "resume", "acl")
    bits(daemon, alice, "wait", "acl")
    assert not target.exists(), "before Complete it has another name"
    bits(daemon, alice, "complete", "acl")
    assert target.read_bytes() == b"content\n"
    assert entries(target) == entries(Path(source))
    assert os.getxattr(target, "user.origin") == b"here"
    assert (target.stat().st_uid, target.stat().st_gid) == (alice.uid, alice.gid)


def test_lacking_the_right_is_a_transient_error_that_a_change_of_flags_cures(
    daemon: Daemon, people: tuple[TestAccount, TestAccount]
) -> None:
    """J42: TRANSIENT_ERROR, E_ACCESSDENIED; the next attempt sees the flags as they are then."""
    alice, bob = people
    source = file_of(alice, b"another's\n", "foreign")
    os.chown(source, bob.uid, bob.gid)
    os.chmod(source, 0o604)
    target = Path(alice.home, "foreign-copy")
    bits(daemon, alice, "create", "foreign")
    bits(daemon, alice, "set", "foreign", "acl_flags=5")
    bits(daemon, alice, "add", "foreign", f"file://{source}", str(target))
    bits(daemon, alice, "resume", "foreign")
    manager = Manager(daemon.socket)
    (job,) = [job for job in manager.enum_jobs(all_users=True) if job.get_display_name() == "foreign"]
    wait_until(lambda: job.get_state().name == "TRANSIENT_ERROR", "the job does not fail", 20)
    error = job.get_error()
    assert error.code == "E_ACCESSDENIED"
    assert str(bob.uid) in error.message
    bits(daemon, alice, "set", "foreign", "acl_flags=4")
    bits(daemon, alice, "resume", "foreign")
    bits(daemon, alice, "wait", "foreign")
    with pytest.raises(BitsError) as caught:
        job.set_file_acl_flags(FileAclFlags.ALL)
    assert caught.value.name == "BG_E_INVALID_STATE"
    bits(daemon, alice, "complete", "foreign")
    assert target.stat().st_mode & 0o777 == 0o604


def test_bits_that_do_not_exist_are_refused(daemon: Daemon) -> None:
    job = Manager(daemon.socket).create_job("flags")
    assert job.get_file_acl_flags() == FileAclFlags(0)
    job.set_file_acl_flags(FileAclFlags.DACL | FileAclFlags.SACL)
    job.set_file_acl_flags(FileAclFlags.GROUP)
    assert job.get_file_acl_flags() == FileAclFlags.GROUP
    for wrong in (16, -1):
        with pytest.raises(BitsError) as caught:
            job.set_file_acl_flags(wrong)
        assert caught.value.name == "E_INVALIDARG"
    assert aio.Job.set_file_acl_flags.__doc__ == type(job).set_file_acl_flags.__doc__
    job.cancel()
