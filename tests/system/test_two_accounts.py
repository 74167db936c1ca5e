"""What one account may do to the transfers of another, and what directories ask of the files in them.

Mallory may write to the directory that Alice downloads to: she can rename, delete and plant there what she likes. She
must not get the worker, which has Alice's rights, to write or delete anything outside of it (D8, I1, A1-A9).
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import BIN, Daemon, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

SIZE = 3_000_000
RATE_BPS = 1_500_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def carol() -> Iterator[TestAccount]:
    """An administrator: a member of the group that the configuration names."""
    with temporary_account(extra_groups=1) as account:
        yield account


def group_of(account: TestAccount) -> int:
    """The group that an account has beside its own."""
    [gid] = set(account.groups) - {account.gid}
    return gid


@pytest.fixture(scope="module")
def daemon(carol: TestAccount) -> Iterator[Daemon]:
    name = grp.getgrgid(group_of(carol)).gr_name
    with running_daemon("system", config=f'[accounts]\nadministrators_group = "{name}"\n') as running:
        yield running


def as_account(account: TestAccount, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )


def own(path: str, account: TestAccount, mode: int, *, gid: int | None = None) -> str:
    os.chown(path, account.uid, account.gid if gid is None else gid, follow_symlinks=False)
    os.chmod(path, mode)
    return path


# --- tricks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trap:
    """A job of Alice's that is on its way into a directory of Mallory's, and what Alice holds dear."""

    daemon: Daemon
    alice: TestAccount
    mallory: TestAccount
    directory: str
    target: str
    job: str
    precious: str
    """A file of Alice's that Mallory may even write to: it is the worker that must not."""

    @property
    def temporary(self) -> str:
        """The hidden file of the transfer."""
        path: str = self.daemon.show(self.job)["files"][0]["temporary_name"]
        return path

    def do(self, script: str, **names: str) -> None:
        """Let Mallory do something."""
        text = "import os, socket\n" + "".join(f"{name} = {value!r}\n" for name, value in names.items()) + script
        done = as_account(self.mallory, sys.executable, "-c", text)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def trap(daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount) -> Iterator[Trap]:
    base = tempfile.mkdtemp(prefix="obt-trap-")
    own(base, mallory, 0o755)
    directory = os.path.join(base, "dir")
    os.mkdir(directory)
    own(directory, mallory, 0o777)
    vault = os.path.join(alice.home, "vault")
    os.mkdir(vault)
    own(vault, alice, 0o711)
    own(alice.home, alice, 0o711)
    precious = os.path.join(vault, "target")
    with open(precious, "w", encoding="ascii") as file:
        file.write("mine")
    own(precious, alice, 0o666)
    origin.add("target", SIZE)
    target = os.path.join(directory, "target")
    job = daemon.submit(origin.url("target", rate_bps=RATE_BPS), "-o", target, account=alice)
    trap = Trap(
        daemon=daemon,
        alice=alice,
        mallory=mallory,
        directory=directory,
        target=target,
        job=job,
        precious=precious,
    )
    try:
        wait_until(lambda: os.path.exists(trap.temporary), "the temporary file")
        yield trap
    finally:
        daemon.bits("cancel", job, account=alice)
        shutil.rmtree(base)
        shutil.rmtree(vault)


def is_untouched(trap: Trap) -> bool:
    with open(trap.precious, encoding="ascii") as file:
        return file.read() == "mine" and os.listdir(os.path.dirname(trap.precious)) == ["target"]


PLANTS: dict[str, str] = {
    "symbolic link": "os.symlink(precious, name)",
    "hard link": "os.link(precious, name)",
    "fifo": "os.mkfifo(name)",
    "socket": "socket.socket(socket.AF_UNIX).bind(name)",
    "dangling link": "os.symlink(precious + '.new', name)",
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_at_the_temporary_name_is_never_written_through(trap: Trap, origin: Nginx, plant: str) -> None:
    """D8: the job begins the file anew beside it, and what was planted is only taken away by name."""
    daemon = trap.daemon
    daemon.bits("suspend", trap.job, account=trap.alice, check=True)
    wait_until(lambda: not daemon.statistics()["runs"], "the run to end")
    trap.do(f"os.unlink(name)\n{PLANTS[plant]}", name=trap.temporary, precious=trap.precious)
    daemon.bits("resume", trap.job, account=trap.alice, check=True)
    assert daemon.wait_state(trap.job, "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED"
    daemon.bits("complete", trap.job, account=trap.alice, check=True)
    found = os.lstat(trap.target)
    assert stat.S_ISREG(found.st_mode)
    assert (found.st_uid, found.st_nlink) == (trap.alice.uid, 1)
    assert sha256_of(trap.target) == sha256_of(os.path.join(origin.root, "target"))
    assert is_untouched(trap)


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_at_the_final_name_is_replaced(trap: Trap, origin: Nginx, plant: str) -> None:
    """D8: rename() takes the name, and leaves alone what the name led to."""
    trap.do(PLANTS[plant], name=trap.target, precious=trap.precious)
    trap.daemon.wait_state(trap.job, "TRANSFERRED")
    trap.daemon.bits("complete", trap.job, account=trap.alice, check=True)
    assert stat.S_ISREG(os.lstat(trap.target).st_mode)
    assert sha256_of(trap.target) == sha256_of(os.path.join(origin.root, "target"))
    assert is_untouched(trap)


SWAP = "os.rename(directory, directory + '.old')\nos.symlink(vault, directory)"


def swap(trap: Trap) -> None:
    """Mallory lets the directory's name lead into Alice's vault, where a file has the same name."""
    trap.do(SWAP, directory=trap.directory, vault=os.path.dirname(trap.precious))


def test_a_directory_that_is_swapped_for_a_link_while_the_transfer_runs(trap: Trap) -> None:
    """D8: the run has the directory open; Complete does not follow where Mallory's link leads."""
    swap(trap)
    trap.daemon.wait_state(trap.job, "TRANSFERRED", "ERROR")
    assert is_untouched(trap)
    completed = trap.daemon.bits("complete", trap.job, account=trap.alice)
    assert is_untouched(trap)
    assert completed.returncode == 4, completed.stderr
    assert "E_ACCESSDENIED" in completed.stderr
    assert trap.daemon.show(trap.job)["state"] == "TRANSFERRED"
    # Nothing is lost: with the directory back in its place the job can be completed.
    trap.do("os.unlink(directory)\nos.rename(directory + '.old', directory)", directory=trap.directory)
    trap.daemon.bits("complete", trap.job, account=trap.alice, check=True)
    assert os.stat(trap.target).st_size == SIZE


def test_a_directory_that_is_swapped_for_a_link_between_two_runs(trap: Trap) -> None:
    """D8: the next run does not begin anew at the place that the link leads to."""
    daemon = trap.daemon
    daemon.bits("suspend", trap.job, account=trap.alice, check=True)
    wait_until(lambda: not daemon.statistics()["runs"], "the run to end")
    swap(trap)
    daemon.bits("resume", trap.job, account=trap.alice, check=True)
    failed = daemon.wait_state(trap.job, "ERROR", "TRANSFERRED")
    assert is_untouched(trap)
    assert failed["state"] == "ERROR"
    assert failed["error"]["code"] == "E_ACCESSDENIED"
    daemon.bits("cancel", trap.job, account=trap.alice, check=True)
    assert is_untouched(trap)


def test_a_cancelled_job_deletes_nothing_where_a_link_leads(trap: Trap) -> None:
    """J6: the temporary name is looked up in the directory of the job, not in the one that a link names."""
    decoy = os.path.join(os.path.dirname(trap.precious), os.path.basename(trap.temporary))
    with open(decoy, "w", encoding="ascii") as file:
        file.write("also mine")
    own(decoy, trap.alice, 0o600)
    swap(trap)
    trap.daemon.bits("cancel", trap.job, account=trap.alice)
    assert os.path.exists(decoy)


def test_links_of_root_and_ones_own_are_followed(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """A home that is a link of the administrator's is as usual as a link of one's own."""
    origin.add("small", 1000)
    real = own(tempfile.mkdtemp(prefix="obt-real-"), alice, 0o755)
    outer = tempfile.mkdtemp(prefix="obt-links-")
    os.chmod(outer, 0o755)
    try:
        os.symlink(real, os.path.join(outer, "roots"))
        os.symlink("roots", os.path.join(outer, "own"))
        os.chown(os.path.join(outer, "own"), alice.uid, alice.gid, follow_symlinks=False)
        daemon.bits("get", origin.url("small"), "-o", os.path.join(outer, "own", "small"), account=alice, check=True)
        assert os.listdir(real) == ["small"]
    finally:
        shutil.rmtree(outer)
        shutil.rmtree(real)


def test_a_link_of_another_account_is_refused_when_the_file_is_added(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount
) -> None:
    """D7: at Add time, with a sentence that names the link."""
    outer = own(tempfile.mkdtemp(prefix="obt-links-"), mallory, 0o755)
    try:
        link = os.path.join(outer, "link")
        os.symlink(alice.home, link)
        os.chown(link, mallory.uid, mallory.gid, follow_symlinks=False)
        refused = daemon.bits("get", origin.url("small"), "-o", os.path.join(link, "small"), account=alice)
        assert refused.returncode == 4
        assert "E_ACCESSDENIED" in refused.stderr
        assert link in refused.stderr
        assert not os.path.exists(os.path.join(alice.home, "small"))
    finally:
        shutil.rmtree(outer)


# --- what directories and callers ask for -----------------------------------------------------------------------


@contextlib.contextmanager
def directory_of(account: TestAccount, mode: int, *, gid: int | None = None) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="obt-dir-")
    try:
        yield own(path, account, mode, gid=gid)
    finally:
        shutil.rmtree(path)


def get_small(
    daemon: Daemon, origin: Nginx, account: TestAccount, directory: str, *, umask: int = -1
) -> os.stat_result:
    origin.add("small", 1000)
    target = os.path.join(directory, "small")
    daemon.bits("get", origin.url("small"), "-o", target, account=account, check=True, umask=umask)
    assert os.listdir(directory) == ["small"]
    return os.stat(target)


def test_a_setgid_directory_gives_its_group(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """D8: the file is made in its directory, so it gets what the directory gives."""
    with directory_of(alice, 0o2775, gid=group_of(alice)) as directory:
        found = get_small(daemon, origin, alice, directory)
        assert (found.st_uid, found.st_gid) == (alice.uid, group_of(alice))


def test_a_default_access_list_is_inherited(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount
) -> None:
    """D8: with such a list the umask has no say."""
    with directory_of(alice, 0o755) as directory:
        entry = f"user:{mallory.uid}:rw-"
        subprocess.run(["setfacl", "-d", "-m", f"{entry},mask::rw-", directory], check=True, timeout=20)
        get_small(daemon, origin, alice, directory, umask=0o077)
        shown = subprocess.run(
            ["getfacl", "-np", os.path.join(directory, "small")], check=True, capture_output=True, text=True, timeout=20
        )
        assert entry in shown.stdout.splitlines()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o777, 0o000)])
def test_the_callers_umask_is_honoured(
    daemon: Daemon, origin: Nginx, alice: TestAccount, umask: int, mode: int
) -> None:
    with directory_of(alice, 0o755) as directory:
        assert stat.S_IMODE(get_small(daemon, origin, alice, directory, umask=umask).st_mode) == mode


def test_a_directory_that_only_a_supplementary_group_may_write(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount
) -> None:
    """I1: the worker has the caller's groups, all of them."""
    with directory_of(mallory, 0o770, gid=group_of(alice)) as directory:
        found = get_small(daemon, origin, alice, directory)
        assert (found.st_uid, found.st_gid) == (alice.uid, alice.gid)


def test_a_directory_that_may_be_written_and_not_read(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount
) -> None:
    """A drop box: files can be put in, nobody but its owner sees what is in it."""
    with directory_of(mallory, 0o733) as directory:
        assert get_small(daemon, origin, alice, directory).st_uid == alice.uid


def test_a_sticky_directory_that_everybody_may_write(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount
) -> None:
    """As /tmp: one's own files can be put there and replaced, those of others cannot."""
    with directory_of(mallory, 0o1777) as directory:
        get_small(daemon, origin, alice, directory)
        refused = daemon.bits("get", origin.url("small"), "-o", os.path.join(directory, "small"), account=mallory)
        # The directory's owner may replace everything in it.
        assert refused.returncode == 0
        again = daemon.bits("get", origin.url("small"), "-o", os.path.join(directory, "small"), account=alice)
        assert again.returncode == 4
        assert "E_ACCESSDENIED" in again.stderr
        job = again.stderr
        assert os.stat(os.path.join(directory, "small")).st_uid == mallory.uid
        for entry in json.loads(daemon.bits("list", "--json", account=alice, check=True).stdout):
            daemon.bits("cancel", entry["id"], account=alice, check=True)
        assert os.listdir(directory) == ["small"], job


# --- administrators and callers ---------------------------------------------------------------------------------


def test_an_administrator_manages_everybodys_jobs_but_not_roots(
    daemon: Daemon, origin: Nginx, alice: TestAccount, carol: TestAccount
) -> None:
    """A1, A4: and the files stay the owner's."""
    origin.add("managed", SIZE)
    target = os.path.join(alice.home, "managed")
    job = daemon.submit(origin.url("managed", rate_bps=RATE_BPS), "-o", target, account=alice)
    roots = daemon.bits("create", "root's own", check=True).stdout.strip()
    listed = json.loads(daemon.bits("list", "--all-users", "--json", account=carol, check=True).stdout)
    assert {job, roots} <= {entry["id"] for entry in listed}
    daemon.bits("suspend", job, account=carol, check=True)
    daemon.bits("set", job, "priority=high", account=carol, check=True)
    daemon.bits("resume", job, account=carol, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=carol, check=True)
    assert os.stat(target).st_uid == alice.uid
    for verb in ("suspend", "resume", "cancel", "complete"):
        refused = daemon.bits(verb, roots, account=carol)
        assert refused.returncode == 4, (verb, refused.stderr)
    assert daemon.show(roots)["state"] == "SUSPENDED"
    daemon.bits("cancel", roots, check=True)


def test_the_socket_can_be_neither_replaced_nor_removed(daemon: Daemon, mallory: TestAccount) -> None:
    """Who listens at the socket is the service: nobody else can take its name."""
    attempts: dict[str, Callable[[], list[str]]] = {
        "unlink": lambda: ["rm", "-f", daemon.socket],
        "rename": lambda: ["mv", "-T", daemon.socket, f"{daemon.socket}.old"],
        "beside": lambda: ["touch", f"{daemon.socket}.new"],
        "directory": lambda: ["mv", "-T", os.path.dirname(daemon.socket), f"{daemon.base}/run.old"],
        "state": lambda: ["ls", daemon.state_dir],
    }
    for name, command in attempts.items():
        assert as_account(mallory, *command()).returncode != 0, name
    assert stat.S_ISSOCK(os.stat(daemon.socket).st_mode)
    assert daemon.bits("list", account=mallory).returncode == 0


def test_a_caller_from_another_user_namespace_is_refused(daemon: Daemon, mallory: TestAccount) -> None:
    """Architecture §4, rule 8: who calls himself root there is not root here, and not himself either."""
    environment = {**os.environ, "BITS_SOCKET": daemon.socket, "HOME": daemon.base}
    for account in ({"user": mallory.uid, "group": mallory.gid, "extra_groups": []}, {}):
        result = subprocess.run(
            ["unshare", "--user", "--map-root-user", os.path.join(BIN, "bits"), "list"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
            **account,  # type: ignore[call-overload]  # the same call for two accounts
        )
        assert result.returncode == 4, result.stderr
        assert "E_ACCESSDENIED" in result.stderr
        assert "namespace" in result.stderr
