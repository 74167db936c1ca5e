"""`make install-system` on this machine, in a mount namespace whose changes are gone afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Log, processes_of, wait_until
from support.nginx import running_nginx, sha256_of

pytestmark = needs_root

SCRIPT = Path(__file__).parents[2] / "packaging" / "install-system.sh"
CHANGED = ("/etc", "/opt", "/run", "/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d", "/usr/local", "/var/lib")
SIZE = 3_000_000
NO_PACKAGES = re.compile(r"No matching distribution|Could not find a version|Connection|Temporary failure")


class Machine:
    """This machine, with everything that an installation changes as it was before, and forgotten afterwards."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo here; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        stack.callback(self._end)
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"here\n"
        scratch = tempfile.mkdtemp(prefix="obt-scratch-")
        stack.callback(os.rmdir, scratch)
        self.run("mount", "-t", "tmpfs", "tmpfs", scratch)
        for path in CHANGED:
            if not os.path.isdir(path):
                continue
            upper, work = (f"{scratch}/{path.replace('/', '_')}.{kind}" for kind in ("upper", "work"))
            self.run("mkdir", upper, work)
            options = f"lowerdir={path},upperdir={upper},workdir={work}"
            with self.start("mount", "-t", "overlay", "-o", options, "overlay", path) as mount:
                _, error = mount.communicate(timeout=20)
            if mount.returncode != 0:
                pytest.skip(f"overlay file systems cannot be mounted here: {error.strip()}")

    def _end(self) -> None:
        self._keeper.kill()
        self._keeper.wait(timeout=10)
        assert self._keeper.stdout is not None
        self._keeper.stdout.close()

    def start(self, *command: str, account: TestAccount | None = None) -> subprocess.Popen[str]:
        """Start a program there, as root or as an account that logs on."""
        enter = ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "--wd=/", "--"]
        home = "/root"
        if account is not None:
            enter += ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups", "--"]
            home = account.home
        environment = {"HOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return subprocess.Popen(
            [*enter, *command],
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, account: TestAccount | None = None, status: int = 0) -> str:
        """Run a program there and return what it printed."""
        with self.start(*command, account=account) as process:
            out, err = process.communicate(timeout=180)
            if process.returncode != status and NO_PACKAGES.search(err):
                pytest.skip("the packages that an installation needs cannot be had here")
            assert process.returncode == status, err + out
            return out + err

    @contextlib.contextmanager
    def running_daemon(self) -> Iterator[subprocess.Popen[str]]:
        """`bitsd --system`, as an administrator without systemd starts it."""
        with self.start("bitsd", "--system") as daemon:
            assert daemon.stderr is not None
            log = Log(daemon.stderr)
            try:
                log.wait_line("ready, socket /run/openbits/bitsd.sock", 20)
                yield daemon
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(timeout=30)


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def machine(alice: TestAccount) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        yield Machine(stack)


def test_install_use_and_uninstall(machine: Machine, alice: TestAccount) -> None:
    """Issue part 2: one script; every account of the machine has a service; removing it keeps the jobs."""
    assert "bitsd --system" in machine.run("sh", str(SCRIPT))
    target = os.path.join(alice.home, "file")
    with running_nginx() as origin:
        wanted = origin.add("file", SIZE)
        with machine.running_daemon():
            assert machine.run("bits", "get", origin.url("file"), "-o", target, account=alice).splitlines()[0] == target
            service = machine.run("stat", "-c", "%U", "/run/openbits/bitsd.sock").strip()
            assert service == "openbits"
            uid = int(machine.run("id", "-u", "openbits"))
            assert "bitsd-service" in [process.name for process in processes_of(uid)]
            assert "system mode" in machine.run("bits", "version", account=alice)
            job = machine.run("bits", "create", "kept", account=alice).strip()
        assert sha256_of(target) == wanted
        found = os.stat(target)
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (alice.uid, 0o644)
        # Once more, as somebody does who brings it up to date.
        machine.run("sh", str(SCRIPT))
        with machine.running_daemon():
            assert job in machine.run("bits", "list", "--json", account=alice)
    machine.run("sh", str(SCRIPT), "--uninstall")
    for path in ("/opt/openbits", "/usr/local/bin/bits", "/usr/local/bin/bitsd"):
        machine.run("test", "-e", path, status=1)
    machine.run("test", "-e", "/var/lib/openbits/bits.db")


def test_only_root_can_install(machine: Machine, alice: TestAccount) -> None:
    """A sentence instead of half an installation."""
    copy = os.path.join(alice.home, "packaging", "install-system.sh")
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    with open(copy, "w", encoding="utf-8") as file:
        file.write(SCRIPT.read_text(encoding="utf-8"))
    assert "as root" in machine.run("sh", copy, account=alice, status=1)
    wait_until(lambda: not processes_of(alice.uid), "everything of the account to end")
