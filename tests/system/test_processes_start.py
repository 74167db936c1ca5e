"""Starting `bitsd`: its directories, its lock, what it takes over from the service manager (architecture §6)."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account
from support.monitored import HERE, descendants_of, monitored, until

pytestmark = needs_root

RUN_MONITOR = os.path.join(HERE, "run_monitor.py")


@pytest.fixture
def place() -> Iterator[str]:
    """A directory that everybody can pass."""
    directory = tempfile.mkdtemp(prefix="obt-")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


def try_bitsd(*arguments: str, user: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `bitsd` where it is expected to end by itself."""
    ensure_service_account()
    return subprocess.run(
        [sys.executable, RUN_MONITOR, *arguments],
        user=user,
        extra_groups=None if user is None else [],
        env={"PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def owner_and_mode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_uid, stat.S_IMODE(found.st_mode)


def test_missing_directories_are_made(place: str) -> None:
    uid = ensure_service_account().pw_uid
    with monitored("--system") as daemon:
        daemon.be_ready()
        assert owner_and_mode(daemon.state_dir) == (uid, 0o700)
        assert owner_and_mode(daemon.runtime_dir) == (uid, 0o755)


def test_missing_directories_of_an_account_are_private(alice: TestAccount) -> None:
    with monitored("--user", user=alice.uid, group=alice.gid) as daemon:
        daemon.be_ready()
        assert owner_and_mode(daemon.state_dir) == (alice.uid, 0o700)
        assert owner_and_mode(daemon.runtime_dir) == (alice.uid, 0o700)


def run_and_end(place: str) -> None:
    """Start the daemon, see it work, and end it."""
    with monitored("--system", place=place) as daemon:
        daemon.be_ready()
        daemon.process.terminate()
        assert daemon.wait() == 0


def test_existing_directories_of_root_are_taken_over(place: str) -> None:
    uid = ensure_service_account().pw_uid
    os.mkdir(f"{place}/state", 0o700)
    os.mkdir(f"{place}/run", 0o700)
    with open(f"{place}/state/notes", "w", encoding="ascii"):
        pass
    run_and_end(place)
    assert owner_and_mode(f"{place}/state") == (uid, 0o700)
    assert owner_and_mode(f"{place}/run") == (uid, 0o755)
    assert os.stat(f"{place}/state/notes").st_uid == 0, "only the directory itself changes hands"


def test_existing_usable_directories_are_left_alone(place: str) -> None:
    account = ensure_service_account()
    for name in ("state", "run"):
        os.mkdir(f"{place}/{name}")
        os.chmod(f"{place}/{name}", 0o770)
        os.chown(f"{place}/{name}", 0, account.pw_gid)
    run_and_end(place)
    assert owner_and_mode(f"{place}/state") == (0, 0o770)
    assert owner_and_mode(f"{place}/run") == (0, 0o770)


def test_second_start_in_the_same_place(place: str) -> None:
    run_and_end(place)
    run_and_end(place)


def test_directory_of_somebody_else_is_not_given_away(place: str) -> None:
    os.makedirs(f"{place}/tree/branch")
    done = try_bitsd("--system", "--state-dir", f"{place}/tree", "--runtime-dir", f"{place}/run")
    assert done.returncode == 2
    assert f"{place}/tree" in done.stderr
    assert os.stat(f"{place}/tree").st_uid == 0


def test_symbolic_link_is_not_followed_to_change_an_owner(place: str) -> None:
    os.mkdir(f"{place}/target")
    os.symlink("target", f"{place}/state")
    done = try_bitsd("--system", "--state-dir", f"{place}/state", "--runtime-dir", f"{place}/run")
    assert done.returncode == 2
    assert os.stat(f"{place}/target").st_uid == 0


def test_directory_that_cannot_be_reached_is_named(place: str) -> None:
    os.mkdir(f"{place}/closed", 0o700)
    done = try_bitsd("--system", "--state-dir", f"{place}/closed/deep/state", "--runtime-dir", f"{place}/run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{place}/closed does not let it pass" in line


def test_two_daemons_do_not_share_a_directory() -> None:
    with monitored("--system") as daemon:
        daemon.be_ready()
        for state, runtime in (
            (daemon.state_dir, f"{daemon.directory}/other"),
            (f"{daemon.directory}/other", daemon.runtime_dir),
        ):
            done = try_bitsd("--system", "--state-dir", state, "--runtime-dir", runtime)
            assert done.returncode == 1
            assert "another bitsd already works in" in done.stderr


def test_next_start_waits_for_what_is_left_of_a_killed_daemon(place: str) -> None:
    """A service that is stuck in the kernel outlives SIGKILL for a while, and so does the lock that it has."""
    uid = ensure_service_account().pw_uid
    run_and_end(place)
    with open(f"{place}/state/bitsd.lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with monitored("--system", place=place) as daemon:
            until(
                lambda: any(
                    line.endswith(f"{os.stat(lock.fileno()).st_ino} 0 EOF") and "->" in line for line in locks()
                ),
                "",
            )
            assert descendants_of(daemon.pid) == []
            fcntl.flock(lock, fcntl.LOCK_UN)
            daemon.be_ready()
            held = os.listdir(f"/proc/{daemon.pid_of('bitsd-service')}/fd")
            assert uid == os.stat(f"{place}/state/bitsd.lock").st_uid
            assert f"{place}/state/bitsd.lock" in [
                os.readlink(f"/proc/{daemon.pid_of('bitsd-service')}/fd/{fd}") for fd in held
            ]


def locks() -> list[str]:
    with open("/proc/locks", encoding="ascii") as file:
        return file.read().splitlines()


def test_service_gets_a_clean_environment() -> None:
    """Inventory I16, I17: what a shell says about proxies is not a setting of the service."""
    dirty = {"http_proxy": "http://x", "https_proxy": "http://x", "PYTHONPATH": "/tmp", "LD_PRELOAD": "", "SECRET": "x"}
    with monitored("--system", environment={**dirty, "TZ": "Europe/Berlin"}) as daemon:
        daemon.meet_service()
        assert daemon.started["environment"] == {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": ensure_service_account().pw_dir,
            "TZ": "Europe/Berlin",
        }
        daemon.do("ready")
        daemon.spawn(0, 0)
        assert daemon.ask(1, "dict(os.environ)")["HOME"] == "/"


def test_service_manager_is_told(place: str) -> None:
    address = f"\0obt-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(15)
        with monitored("--system", environment={"NOTIFY_SOCKET": "@" + address[1:]}) as daemon:
            daemon.be_ready()
            assert manager.recv(100) == b"READY=1"
            os.kill(daemon.pid_of("bitsd-service"), signal.SIGKILL)
            daemon.be_ready()
            daemon.process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert daemon.wait() == 0


@pytest.mark.parametrize("kind", ["listener", "stale", "datagram"])
def test_listening_socket_is_passed_on(place: str, kind: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
    listener.bind(f"{place}/activated.sock")
    if kind != "datagram":
        listener.listen()
    starter = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); "
        "os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[2])), LISTEN_FDS='1'); "
        "os.execv(sys.argv[3], sys.argv[3:])"
    )
    offset = "1" if kind == "stale" else "0"
    with (
        listener,
        monitored(
            "--system",
            place=place,
            starter=(sys.executable, "-c", starter, str(listener.fileno()), offset, sys.executable),
            pass_fds=(listener.fileno(),),
        ) as daemon,
    ):
        if kind == "datagram":
            daemon.wait_for_line("no listening Unix stream socket")
            assert daemon.wait() == 1
            return
        daemon.meet_service()
        number = daemon.started["started"]["listen_fd"]
        if kind == "stale":
            assert number is None
        else:
            wanted = os.stat(f"/proc/self/fd/{listener.fileno()}").st_ino
            assert os.stat(f"/proc/{daemon.pid_of('bitsd-service')}/fd/{number}").st_ino == wanted


def test_system_mode_needs_root(alice: TestAccount, place: str) -> None:
    done = try_bitsd("--system", user=alice.uid)
    assert done.returncode == 1
    assert "must be started by root" in done.stderr


def test_configuration_that_was_named_must_exist(place: str) -> None:
    done = try_bitsd("--system", "--config", f"{place}/missing.toml")
    assert done.returncode == 2
    assert f"{place}/missing.toml" in done.stderr


def test_path_too_long_for_a_socket(place: str) -> None:
    done = try_bitsd("--system", "--state-dir", f"{place}/state", "--runtime-dir", f"{place}/{'x' * 100}")
    assert done.returncode == 2
    assert "--runtime-dir" in done.stderr


def test_version() -> None:
    assert try_bitsd("--version").stdout.startswith("bitsd ")


def test_both_modes_are_wrong_usage() -> None:
    assert try_bitsd("--system", "--user").returncode == 2
