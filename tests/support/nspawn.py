"""A booted Debian machine: systemd as its first process, D-Bus, logind and sshd, in a systemd-nspawn container.

The rule: a machine has its own process, mount, network, IPC and UTS namespaces and its own control group, and nothing
of it outlives the `with` block or the test run.  A reboot is a reboot to everything inside (a new boot id, all
memory gone); pulling the plug ends every process at once, with what was written still in the page cache.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

BOOT_TIMEOUT_S: Final = 90.0
END_TIMEOUT_S: Final = 60.0
_EXIT_REBOOT: Final = 133
_PREFIX: Final = "openbits-test-"
_HIERARCHIES: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_PROPAGATE: Final = "/run/systemd/nspawn/propagate"
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

# Two containers that were started in one group would share the groups that systemd-nspawn makes below it.
_ENTER_GROUP: Final = """
for hierarchy in HIERARCHIES; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$0" && echo $$ >"$hierarchy/$0/cgroup.procs"
done
exec "$@"
""".replace("HIERARCHIES", " ".join(_HIERARCHIES))

# A container survives its systemd-nspawn. This waits for the end of whoever holds the other end of its input.
_KEEP: Final = """
read -r _
for hierarchy in HIERARCHIES; do
    [ -d "$hierarchy/$0" ] && find "$hierarchy/$0" -name cgroup.procs -exec cat {} +
done | sort -u | xargs --no-run-if-empty kill -KILL
""".replace("HIERARCHIES", " ".join(_HIERARCHIES))


class Machine:
    """One machine on a directory with a Debian system; `start` may be called again after each kind of end."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self._group = f"{_PREFIX}{secrets.token_hex(4)}"
        self._scratch = scratch
        self._console = scratch / f"{self._group}.console"
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._entered: list[subprocess.Popen[str]] = []
        self.leader = 0
        """The pid of its first process, here."""

    def __repr__(self) -> str:
        return f"<Machine {self.root.name} leader={self.leader}>"

    # --- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot, and wait until systemd says that the machine is up."""
        assert self._process is None, "the machine runs"
        # systemd-nspawn refuses a path of more than 107 bytes, and pytest's directories can be longer.
        address = self._scratch / f"{self._group}.notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self._console.open("ab") as console:
            notified.bind(str(address))
            self._keeper = subprocess.Popen(
                ["sh", "-c", _KEEP, self._group],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "sh", "-c", _ENTER_GROUP, self._group, *self._command()],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env={**ENVIRONMENT, "NOTIFY_SOCKET": str(address)},
                    cwd="/",
                )
                self._wait_booted(notified)
            finally:
                address.unlink()

    def _command(self) -> list[str]:
        options = ["--boot", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes", "--console=pipe"]
        isolation = ["--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        return ["systemd-nspawn", *options, *isolation, f"--directory={self.root}", f"--machine={self._group}"]

    def _wait_booted(self, notified: socket.socket) -> None:
        assert self._process is not None
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        ended = os.pidfd_open(self._process.pid)
        try:
            while True:
                ready, _, _ = select.select([notified.fileno(), ended], [], [], max(0.0, deadline - time.monotonic()))
                if notified.fileno() not in ready:
                    raise AssertionError(f"the machine did not boot; its console:\n{self.console()}")
                told = dict(line.partition("=")[::2] for line in notified.recv(4096).decode().splitlines())
                self.leader = int(told.get("X_NSPAWN_LEADER_PID", self.leader))
                if told.get("READY") == "1":
                    return
        finally:
            os.close(ended)

    def reboot(self) -> None:
        """Reboot in an orderly way, and wait until it is up again."""
        before = self.boot_id()
        self._leave("reboot")
        assert self._ended() == _EXIT_REBOOT, self.console()
        self.start()
        assert self.boot_id() != before

    def power_off(self) -> None:
        """Shut it down in an orderly way."""
        self._leave("poweroff")
        assert self._ended() == 0, self.console()

    def pull_the_plug(self) -> None:
        """End everything inside at once."""
        os.kill(self.leader, signal.SIGKILL)
        self._ended()

    def close(self) -> None:
        """End the machine in whatever state it is."""
        if self._process is None:
            return
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
        else:
            self._process.kill()
        try:
            self._ended()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._ended()

    @property
    def is_up(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def boot_id(self) -> str:
        """What the kernel calls this boot of the machine: the first process's identity, as the clock is not its own."""
        start_time = Path(f"/proc/{self.leader}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
        return f"{self.leader}/{start_time}"

    def _leave(self, verb: str) -> None:
        self._end_entered()
        # The command is ended together with everything else, so its own end says nothing.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(self.inside("systemctl", verb), capture_output=True, timeout=END_TIMEOUT_S, check=False)

    def _end_entered(self) -> None:
        """End what was started from here and is no unit: systemd waits long for processes that are not its children."""
        for process in self._entered:
            if process.poll() is None:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split():
                        os.kill(int(child), signal.SIGKILL)
                process.wait(timeout=END_TIMEOUT_S)
        self._entered = []

    def _ended(self) -> int:
        assert self._process is not None
        status = self._process.wait(timeout=END_TIMEOUT_S)
        self._process, self.leader = None, 0
        assert self._keeper is not None
        self._keeper.communicate(timeout=END_TIMEOUT_S)
        _remove_directories(self._group)
        return status

    # --- what happens inside ---------------------------------------------------------------------------

    def inside(self, *command: str, account: str = "root") -> list[str]:
        """Return the command that runs this one in the machine: as an account, but not as a log-on of it."""
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        become = [] if account == "root" else [f"--reuid={account}", f"--regid={account}", "--init-groups"]
        # nsenter waits for a child, which would not notice its end.
        return [*enter, "--", "setpriv", "--pdeathsig=KILL", *become, "--", *command]

    def popen(
        self, *command: str, account: str = "root", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program in the machine, with pipes to its standard streams."""
        home = {} if account == "root" else {"HOME": f"/home/{account}", "USER": account}
        self._entered = [process for process in self._entered if process.returncode is None]
        process = subprocess.Popen(
            self.inside(*command, account=account),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**ENVIRONMENT, **home, **(environment or {})},
        )
        self._entered.append(process)
        return process

    def try_run(
        self,
        *command: str,
        account: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        given: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine and return how it ended."""
        with self.popen(*command, account=account, environment=environment) as process:
            try:
                out, err = process.communicate(given, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return subprocess.CompletedProcess(command, process.returncode, out, err)

    def run(
        self,
        *command: str,
        account: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        given: str = "",
    ) -> str:
        """Run a program that must end with status 0; return what it printed."""
        done = self.try_run(*command, account=account, environment=environment, timeout_s=timeout_s, given=given)
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stderr}{done.stdout}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """Where a file of the machine stands, seen from here; only for directories without a mount on them."""
        return self.root / inside.lstrip("/")

    def property(self, unit: str, name: str) -> str:
        """A property of a unit of systemd."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    # --- what it said ------------------------------------------------------------------------------------

    def journal(self, *options: str) -> str:
        """The journal of all its boots, readable also when it is down."""
        directory = f"--directory={self.root}/var/log/journal"
        done = subprocess.run(
            ["journalctl", directory, "--no-pager", "--output=short-precise", *options],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    def console(self) -> str:
        """What came on its console."""
        return self._console.read_text(encoding="utf-8", errors="replace")[-8000:]


@contextlib.contextmanager
def booted(root: Path, scratch: Path) -> Iterator[Machine]:
    """A machine that is up, for the length of a `with` block."""
    machine = Machine(root, scratch)
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


@contextlib.contextmanager
def booted_copy(template: Path, scratch: Path) -> Iterator[Machine]:
    """A machine of its own that begins as this system, for the length of a `with` block."""
    root = scratch / f"machine-{secrets.token_hex(4)}"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(template), str(root)], check=True, timeout=300)
    with booted(root, scratch) as machine:
        yield machine


def sweep() -> None:
    """Remove what machines left on this one whose test run was killed."""
    names = {name for top in (*_HIERARCHIES, _PROPAGATE) for name in _listed(top) if name.startswith(_PREFIX)}
    for name in names:
        groups = [group for top in _HIERARCHIES for group in Path(top).glob(f"{name}/**/cgroup.procs")]
        if not any(group.read_text(encoding="ascii") for group in groups):
            _remove_directories(name)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _remove_directories(name: str) -> None:
    """Remove what systemd-nspawn leaves behind on this machine: a directory, and the groups that were made for it."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(os.path.join(_PROPAGATE, name))
    for top in _HIERARCHIES:
        for directory, _, _ in os.walk(os.path.join(top, name), topdown=False):
            os.rmdir(directory)


def chroot(root: Path, *command: str, given: str = "") -> str:
    """Run a program in a system that is not booted."""
    arguments: Sequence[str] = ["chroot", str(root), *command]
    done = subprocess.run(
        arguments, input=given, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
