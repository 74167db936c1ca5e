"""OpenBITS under measurement: a `bitsd` of its own directories, and the `bits` that talks to it."""

from __future__ import annotations

import compileall
import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import openbits
from bench import processes
from bench.comparing import say
from bench.running import BenchError, Command, run

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"

_CONFIGURATION: Final = """
# The defaults, but for the quotas, which would forbid what is measured here.
[quotas]
max_jobs_per_machine = 1_000_000
max_jobs_per_user = 1_000_000
max_files_per_job = 1_000_000
[worker]
idle_s = {idle_s}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the daemon is to be run."""

    directory: str
    """For state, socket, configuration and log."""
    mode: str = "user"
    certificate: str | None = None
    """One that the daemon is to trust, beside the system's."""
    worker_idle_s: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running daemon."""

    pid: int
    socket_path: str
    startup_s: float
    """From the start of the program until it said that it takes calls."""

    def service_pid(self) -> int:
        """The process that keeps the queue."""
        for pid in processes.tree(self.pid):
            if processes.name_of(pid) == "bitsd-service":
                return pid
        raise BenchError("there is no bitsd-service")

    def worker_pids(self) -> list[int]:
        """The processes that transfer."""
        return [pid for pid in processes.tree(self.pid) if processes.name_of(pid) == "bitsd-worker"]

    def bits(self, *arguments: str, account: pwd.struct_passwd | None = None) -> Command:
        """Return the call of `bits` for this service, as that account."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            "BITS_SOCKET": self.socket_path,
        }
        if account is None:
            return Command(arguments=[*bits_program(), *arguments], environment=environment)
        environment |= {"HOME": "/", "USER": account.pw_name}
        return Command(
            arguments=[*bits_program(), *arguments],
            environment=environment,
            account=(account.pw_uid, account.pw_gid),
        )


def bits_program() -> list[str]:
    """Return how `bits` is called: as installed, where it is."""
    installed = os.path.join(os.path.dirname(sys.executable), "bits")
    return [installed] if os.access(installed, os.X_OK) else [sys.executable, "-m", "openbits.cli"]


def compile_package() -> None:
    """Compile our modules, as an installation does; else every start would compile them anew."""
    package = os.path.dirname(os.path.abspath(openbits.__file__))
    if not compileall.compile_dir(package, quiet=2):
        say(f"some modules in {package} cannot be compiled: our commands start more slowly than they would")


def make_directory(parent: str) -> str:
    """Return a new directory for a daemon; short, because a socket's path may not be long."""
    directory = tempfile.mkdtemp(prefix="s-", dir=parent)
    os.chmod(directory, 0o755)
    return directory


@contextlib.contextmanager
def service(setup: Setup) -> Iterator[Service]:
    """Run a daemon, and wait until it says that it is ready. Raises BenchError."""
    if setup.mode == "system":
        _ensure_service_account()
    configuration = os.path.join(setup.directory, "bitsd.toml")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(idle_s=setup.worker_idle_s))
    notify_path = os.path.join(setup.directory, "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        open(os.path.join(setup.directory, "log"), "ab") as log,
    ):
        notify.bind(notify_path)
        begun = time.perf_counter()
        process = subprocess.Popen(
            _daemon_command(setup, configuration),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": notify_path},
        )
        try:
            _wait_ready(process, notify, log.name)
            startup_s = time.perf_counter() - begun
            socket_path = os.path.join(setup.directory, "run", "bitsd.sock")
            yield Service(pid=process.pid, socket_path=socket_path, startup_s=startup_s)
        finally:
            os.unlink(notify_path)
            _stop(process)


def _daemon_command(setup: Setup, configuration: str) -> Sequence[str]:
    directories = [
        *("--state-dir", os.path.join(setup.directory, "state")),
        *("--runtime-dir", os.path.join(setup.directory, "run")),
    ]
    daemon = [sys.executable, "-m", "openbits.monitor.main", f"--{setup.mode}", "--config", configuration, *directories]
    if setup.certificate is None:
        return daemon
    # The daemon trusts what the system trusts, and takes no variables from whoever starts it. So it gets a view
    # of the system in which our certificate is trusted; what is mounted later still shows in it ("slave").
    bundle = os.path.join(setup.directory, "bundle.crt")
    with open(bundle, "wb") as file:
        for part in (_BUNDLE, setup.certificate):
            with open(part, "rb") as source:
                shutil.copyfileobj(source, file)
    script = f'mount --bind "$0" {_BUNDLE} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, bundle, *daemon]


def _wait_ready(process: subprocess.Popen[bytes], notify: socket.socket, log_path: str) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + START_TIMEOUT_S
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left_s * 1000)}
            if notify.fileno() in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
                return
            if pidfd in ready:
                break
    finally:
        os.close(pidfd)
    with open(log_path, encoding="utf-8", errors="replace") as log:
        raise BenchError(f"bitsd does not start: {log.read()[-1000:].strip()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ensure_service_account() -> None:
    # It stays: a daemon that is installed on this machine may use it as well.
    try:
        pwd.getpwnam("openbits")
    except KeyError:
        run(Command(arguments=["useradd", "--system", "--user-group", "--no-create-home", "openbits"]))
