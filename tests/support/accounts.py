"""Real accounts for tests: made by the test, gone after it. Only root can make them."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes accounts, which only root can")

SERVICE_ACCOUNT = "openbits"


@dataclass(frozen=True, kw_only=True)
class TestAccount:
    """An account; `groups` are all its groups, the primary one included."""

    __test__ = False

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@contextlib.contextmanager
def temporary_group() -> Iterator[int]:
    """Make a group for the length of a `with` block; yields its gid."""
    name = f"obt{secrets.token_hex(4)}"
    _change_accounts("groupadd", name)
    try:
        yield grp.getgrnam(name).gr_gid
    finally:
        _change_accounts("groupdel", name)


@contextlib.contextmanager
def temporary_account(*, extra_groups: int = 0, system: bool = False) -> Iterator[TestAccount]:
    """Make an account with a home (0700) for the length of a `with` block, and as many groups of its own beside."""
    name = f"obt{secrets.token_hex(4)}"
    home = tempfile.mkdtemp(prefix="obt-home-")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        groups = [stack.enter_context(temporary_group()) for _ in range(extra_groups)]
        # A uid that no other test gets in a moment: what happens to an account that has gone is tested too.
        kind = ["--system"] if system else ["--uid", str(_unused_uid())]
        more = ["--groups", ",".join(str(gid) for gid in groups)] if groups else []
        _change_accounts("useradd", *kind, "--user-group", "--no-create-home", "--home-dir", home, *more, name)
        stack.callback(_change_accounts, "userdel", "--force", name)
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield TestAccount(
            name=name,
            uid=entry.pw_uid,
            gid=entry.pw_gid,
            groups=tuple(sorted({entry.pw_gid, *groups})),
            home=home,
        )


def file_of(account: TestAccount, content: bytes, name: str = "source.bin") -> str:
    """Put a file that only the account may read into its home; return its path."""
    path = os.path.join(account.home, name)
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, account.uid, account.gid)
    os.chmod(path, 0o600)
    return path


def _unused_uid() -> int:
    while True:
        uid = 20_000 + secrets.randbelow(40_000)
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid


def ensure_service_account() -> pwd.struct_passwd:
    """Return the account that the service of `bitsd --system` runs under, made where it is missing.

    It stays: other tests that run at the same time may be using it.
    """
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SERVICE_ACCOUNT)
    with contextlib.suppress(subprocess.CalledProcessError):
        home = ["--no-create-home", "--home-dir", "/var/lib/openbits"]
        _change_accounts("useradd", "--system", "--user-group", *home, SERVICE_ACCOUNT)
    return pwd.getpwnam(SERVICE_ACCOUNT)


def _change_accounts(*command: str) -> None:
    # The account tools give up at once when another of them holds their lock.
    with open(os.path.join(tempfile.gettempdir(), ".obt-accounts.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, check=True, capture_output=True, timeout=30)
