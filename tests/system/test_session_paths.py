"""Paths that belong to a log-on session, or mean something else to who names them (I4, I8; architecture §4, rule 4).

The mounts are real: a tmpfs below /run/user, FUSE mounts with and without allow_other, callers with a mount namespace
of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import BIN, Daemon, running_daemon, wait_until
from support.fuse import fuse_mount
from support.mounts import small_disk
from support.nginx import Nginx, running_nginx
from support.raw_http import read_answer

pytestmark = needs_root

CONFIG = '[logon]\nprovider = "always"\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        server.add("small", 1000)
        server.add("large", 6_000_000)
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    """A person."""
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def dave() -> Iterator[TestAccount]:
    """A service."""
    with temporary_account(system=True) as account:
        yield account


@pytest.fixture(scope="module")
def session(alice: TestAccount) -> Iterator[str]:
    """The directory of alice's session, into which she lets everybody: access is not what the rule is about."""
    made = not os.path.isdir("/run/user")
    os.makedirs("/run/user", mode=0o755, exist_ok=True)
    try:
        with small_disk(f"/run/user/{alice.uid}", 10_000_000, uid=alice.uid) as path:
            os.chmod(path, 0o777)
            yield path
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir("/run/user")


@pytest.fixture
def shared() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="obt-shared-")
    os.chmod(path, 0o777)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr + result.stdout
    for word in ("E_INVALIDARG", *words):
        assert word in result.stderr


# --- a session's mounts ---------------------------------------------------------------------------------------


def test_rule_4_a_services_file_does_not_go_into_a_session(
    daemon: Daemon, origin: Nginx, dave: TestAccount, session: str
) -> None:
    refused = daemon.bits("get", origin.url("small"), "-o", f"{session}/small", account=dave)
    assert_refused(refused, f"{session} (tmpfs)", "outside of it", "helper token")
    assert os.listdir(session) == []


def test_rule_4_the_system_itself_is_a_service_too(daemon: Daemon, origin: Nginx, session: str) -> None:
    assert_refused(daemon.bits("get", origin.url("small"), "-o", f"{session}/small"), session)


def test_rule_4_a_link_that_leads_into_a_session_is_followed_to_its_end(
    daemon: Daemon, origin: Nginx, dave: TestAccount, session: str
) -> None:
    link = os.path.join(dave.home, "link")
    os.symlink(session, link)
    os.chown(link, dave.uid, dave.gid, follow_symlinks=False)
    assert_refused(daemon.bits("get", origin.url("small"), "-o", f"{link}/small", account=dave), session)


def test_rule_4_a_source_in_a_session_is_refused_when_it_is_named(
    daemon: Daemon, origin: Nginx, dave: TestAccount, session: str, shared: str
) -> None:
    """When the file is added, and when its remote name changes (F4, J40)."""
    source = f"file://{session}/source"
    assert_refused(daemon.bits("get", source, "-o", f"{shared}/x", account=dave), session)
    job = daemon.bits("create", "later", account=dave, check=True).stdout.strip()
    daemon.bits("add", job, origin.url("small"), f"{shared}/x", account=dave, check=True)
    code = (
        "import openbits, sys\n"
        "job = openbits.Manager().get_job(sys.argv[1])\n"
        "try:\n"
        "    change(job, sys.argv[2], sys.argv[3])\n"
        "except openbits.BitsError as error:\n"
        "    print(error.name)\n"
    )
    changes = {
        "set": "def change(job, old, new):\n    list(job.enum_files())[0].set_remote_name(new)\n",
        "prefix": "def change(job, old, new):\n    job.replace_remote_prefix(old, new)\n",
    }
    for definition in changes.values():
        done = subprocess.run(
            [sys.executable, "-c", definition + code, job, origin.url("small"), source],
            env={**os.environ, "BITS_SOCKET": daemon.socket},
            user=dave.uid,
            group=dave.gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )
        assert done.stdout.strip() == "E_INVALIDARG", done.stderr
    daemon.bits("cancel", job, account=dave, check=True)


def test_rule_4_a_person_may_use_his_own_session(
    daemon: Daemon, origin: Nginx, alice: TestAccount, session: str
) -> None:
    daemon.bits("get", origin.url("small"), "-o", f"{session}/small", account=alice, check=True)
    assert os.stat(f"{session}/small").st_uid == alice.uid
    os.unlink(f"{session}/small")


@pytest.mark.parametrize(
    ("kind", "options", "is_refused"),
    [
        ("fuse.obt", "", True),
        ("fuse.obt", ",allow_other", False),
        ("fuse.gvfsd-fuse", ",allow_other", True),
        ("fuse.portal", ",allow_other", True),
    ],
)
def test_rule_4_a_fuse_mount_of_a_person_is_a_sessions(
    daemon: Daemon,
    origin: Nginx,
    alice: TestAccount,
    dave: TestAccount,
    shared: str,
    kind: str,
    options: str,
    is_refused: bool,
) -> None:
    with fuse_mount(os.path.join(shared, "far"), uid=alice.uid, options=options, kind=kind) as far:
        job = daemon.bits("create", "far", account=dave, check=True).stdout.strip()
        added = daemon.bits("add", job, origin.url("small"), f"{far}/small", account=dave)
        if is_refused:
            assert_refused(added, far, kind)
        else:
            assert added.returncode == 0, added.stderr
        daemon.bits("cancel", job, account=dave, check=True)


# --- another mount namespace ----------------------------------------------------------------------------------


def in_namespace(daemon: Daemon, account: TestAccount | None, prepare: str, *arguments: str) -> Any:
    """Run `bits` in a mount namespace of its own, in which `prepare` has been run by root."""
    become = ""
    if account is not None:
        become = f"setpriv --reuid={account.uid} --regid={account.gid} --clear-groups"
    script = f'{prepare}\nexec {become} {os.path.join(BIN, "bits")} "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *arguments],
        env={**os.environ, "BITS_SOCKET": daemon.socket, "HOME": daemon.base},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )


@pytest.mark.parametrize("who", ["person", "service", "system"])
def test_a_path_that_is_another_place_for_the_caller_is_refused(
    daemon: Daemon, origin: Nginx, alice: TestAccount, dave: TestAccount, shared: str, who: str
) -> None:
    """A private directory of the caller's: the file would land where he never looks. What is the same is fine."""
    account = {"person": alice, "service": dave, "system": None}[who]
    private = os.path.join(shared, "private")
    os.mkdir(private)
    os.chmod(private, 0o777)
    prepare = f"mount -t tmpfs -o mode=0777 own {private}"
    refused = in_namespace(daemon, account, prepare, "get", origin.url("small"), "-o", f"{private}/small")
    assert_refused(refused, private, "another place for the calling process", "tmpfs")
    assert os.listdir(private) == []
    done = in_namespace(daemon, account, prepare, "get", origin.url("small"), "-o", f"{shared}/small")
    assert done.returncode == 0, done.stderr
    assert os.path.exists(f"{shared}/small")


def test_a_hardened_service_may_name_what_it_sees(
    daemon: Daemon, origin: Nginx, dave: TestAccount, shared: str
) -> None:
    """As with ProtectSystem=strict: mounts of the same thing, for reading only, are the same place."""
    prepare = f"mount --bind {shared} {shared}\nmount -o remount,bind,ro {shared}\nmount --bind / /mnt"
    done = in_namespace(daemon, dave, prepare, "get", origin.url("small"), "-o", f"{shared}/small")
    assert done.returncode == 0, done.stderr
    assert os.stat(f"{shared}/small").st_uid == dave.uid


def test_i8_a_job_whose_path_means_another_place_is_not_taken(
    daemon: Daemon, origin: Nginx, alice: TestAccount, shared: str
) -> None:
    """BG_E_NEW_OWNER_DIFF_MAPPING; the job goes on."""
    job = daemon.submit(origin.url("large", rate_bps=3_000_000), "-o", f"{shared}/large", account=alice)
    wait_until(lambda: daemon.show(job)["bytes_transferred"] > 0, "bytes")
    refused = in_namespace(daemon, None, f"mount -t tmpfs own {shared}", "take-ownership", job)
    assert refused.returncode == 2, refused.stderr
    assert "BG_E_NEW_OWNER_DIFF_MAPPING" in refused.stderr
    assert shared in refused.stderr
    assert daemon.wait_state(job, "TRANSFERRED")["owner"]["uid"] == alice.uid
    daemon.bits("complete", job, account=alice, check=True)


def test_i8_a_service_does_not_take_what_lies_in_a_session(
    daemon: Daemon, origin: Nginx, alice: TestAccount, session: str
) -> None:
    job = daemon.submit(origin.url("large", rate_bps=3_000_000), "-o", f"{session}/large", account=alice)
    refused = daemon.bits("take-ownership", job)
    assert refused.returncode == 2, refused.stderr
    assert "BG_E_NEW_OWNER_DIFF_MAPPING" in refused.stderr
    daemon.bits("cancel", job, account=alice, check=True)


# --- callers that cannot be seen --------------------------------------------------------------------------------

_CONNECT = """
import socket, sys
far = socket.socket(fileno=int(sys.argv[1]))
near = socket.socket(socket.AF_UNIX)
near.connect(sys.argv[2])
near.sendall(b"GET /v1/version HTTP/1.1\\r\\nHost: b\\r\\n\\r\\n")
near.recv(4096)
socket.send_fds(far, [b"x"], [near.fileno()])
"""


def connection_of_the_dead(daemon: Daemon, account: TestAccount) -> socket.socket:
    """A connection that a process of the account made, which has ended since."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            [sys.executable, "-c", _CONNECT, str(theirs.fileno()), daemon.socket],
            pass_fds=(theirs.fileno(),),
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            check=True,
            timeout=30,
            cwd="/",
        )
        _, [fd], _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=fd)


def create(sock: socket.socket, remote_name: str, local_name: str) -> tuple[int, Any]:
    files = [{"remote_name": remote_name, "local_name": local_name}]
    body = json.dumps({"name": "unseen", "files": files}).encode()
    sock.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status, answer = read_answer(sock)
    return status, json.loads(answer)


def test_a_service_that_cannot_be_seen_is_refused_and_a_person_believed(
    daemon: Daemon, origin: Nginx, alice: TestAccount, dave: TestAccount, shared: str
) -> None:
    with connection_of_the_dead(daemon, dave) as sock:
        status, problem = create(sock, origin.url("small"), f"{shared}/x")
        assert (status, problem["code"]) == (400, "E_INVALIDARG")
        assert "ended" in problem["detail"]
    with connection_of_the_dead(daemon, alice) as sock:
        status, created = create(sock, origin.url("small"), f"{shared}/x")
        assert status == 201
    daemon.bits("cancel", created["id"], account=alice, check=True)
