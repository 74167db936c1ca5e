"""Starts the per-user service where no service answers, and waits until it says that it is ready.

The service outlives who started it: a session of its own, no terminal, its words in a log file.  It says
that it is ready as it would to systemd (sd_notify), and its death is seen at once (pidfd), so nobody
guesses how long a start takes.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from openbits import paths
from openbits.client.discovery import no_service
from openbits.client.transport import connect_unix, reachable_address
from openbits.errors import BitsError

START_TIMEOUT_S: Final = 20.0
LOG_NAME: Final = "bitsd.log"


def start_user_service() -> None:
    """Start `bitsd --user` and return when it takes calls; raises ERROR_SERVICE_NOT_ACTIVE."""
    state_dir, runtime_dir = paths.user_state_dir(), paths.user_runtime_dir()
    try:
        for directory in (state_dir, runtime_dir):
            # In this order: the second may stand in the first, and makedirs gives its mode to the last only.
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with _only_one_starts(runtime_dir):
            if not _answers(os.path.join(runtime_dir, paths.SOCKET_NAME)):
                # It is meant to go on without us: say so, or the interpreter warns of a child left behind.
                start_service(state_dir, runtime_dir).returncode = 0
    except OSError as error:
        raise no_service(f"the per-user service cannot be started: {error}") from error


@contextmanager
def _only_one_starts(runtime_dir: str) -> Iterator[None]:
    """Two commands at once start one service: the second waits here and finds it running."""
    fd = os.open(os.path.join(runtime_dir, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _answers(path: str) -> bool:
    try:
        connect_unix(path).close()
    except OSError:
        return False
    return True


def start_service(state_dir: str, runtime_dir: str) -> subprocess.Popen[bytes]:
    """Start `bitsd --user` with these directories and return it when it is ready.

    Raises ERROR_SERVICE_NOT_ACTIVE with the last words of its log, OSError.
    """
    for directory in (state_dir, runtime_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    log_path = os.path.join(state_dir, LOG_NAME)
    notify_path = os.path.join(runtime_dir, f"start-{os.getpid()}.notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        with reachable_address(notify_path) as address:
            notify.bind(address)
        try:
            process = _spawn(state_dir, runtime_dir, log_path, notify_path)
            _wait_ready(process, notify, log_path)
            return process
        finally:
            os.unlink(notify_path)


def _spawn(state_dir: str, runtime_dir: str, log_path: str, notify_path: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "NOTIFY_SOCKET": notify_path}
    command = [sys.executable, "-P", "-m", "openbits.monitor.main", "--user"]
    command += ["--state-dir", state_dir, "--runtime-dir", runtime_dir]
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait_ready(process: subprocess.Popen[bytes], notify: socket.socket, log_path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left_s * 1000)}
            if notify.fileno() in ready and b"READY=1" in notify.recv(4096).split(b"\n"):
                return
            if pidfd in ready:
                status = process.wait()
                raise _failed(f"the per-user service ended while it started (status {status})", log_path)
    finally:
        os.close(pidfd)
    process.kill()
    process.wait()
    raise _failed(f"the per-user service was not ready after {START_TIMEOUT_S:.0f} s", log_path)


def _failed(what: str, log_path: str) -> BitsError:
    last = ""
    try:
        with open(log_path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
            last = f": {lines[-1].strip()[:300]}" if lines else ""
    except OSError:
        pass  # The log says more, but only if there is one.
    return no_service(f"{what}{last}: see {log_path}")
