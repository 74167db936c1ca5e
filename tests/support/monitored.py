"""A running `bitsd` whose service and worker are fakes, seen from outside: for tests of the privileged part."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from support.fake_service import CONTROL_NAME

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 15.0


class Timeout(AssertionError):
    """What a test waited for has not happened."""


def until(happened: Any, what: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Look every 10 ms until a condition of a foreign process holds; for what no descriptor tells of."""
    deadline = time.monotonic() + patience_s
    while not (value := happened()):
        if time.monotonic() > deadline:
            raise Timeout(what)
        time.sleep(0.01)
    return value


def status_of(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as a dictionary."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def command_line_of(pid: int) -> str:
    """Return what a process list shows."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().rstrip(b"\0").replace(b"\0", b" ").decode()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return not status_of(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants_of(pid: int) -> list[int]:
    """Return all processes below one, itself not included."""
    found = []
    for child in _children_of(pid):
        found += [child, *descendants_of(child)]
    return found


def _children_of(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Monitored:
    """The daemon, and the fake service's ear and mouth."""

    def __init__(self, directory: str, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.runtime_dir = os.path.join(directory, "run")
        self.state_dir = os.path.join(directory, "state")
        self.process = process
        self.log: list[str] = []
        self.started: dict[str, Any] = {}
        self._requests = 0
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The monitor."""
        return self.process.pid

    def pid_of(self, comm: str) -> int:
        """Return the one descendant that is called so."""

        def find() -> list[int]:
            found = []
            for pid in descendants_of(self.pid):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found += [pid] if status_of(pid)["Name"] == comm else []
            return found

        (pid,) = until(lambda: len(find()) == 1 and find(), f"no single {comm} below {self.pid}")
        return int(pid)

    def meet_service(self) -> dict[str, Any]:
        """Connect to the fake service that runs now; return what it was started with."""
        if self._control is not None:
            self._control.close()
        path = os.path.join(self.runtime_dir, CONTROL_NAME)

        def met() -> bool:
            assert self.process.poll() is None, self.read_log()
            control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            control.settimeout(PATIENCE_S)
            lines = control.makefile("r")
            try:
                control.connect(path)
                self.started = json.loads(lines.readline())
            except (OSError, ValueError):
                # Not there yet, or still the socket of one that dies.
                lines.close()
                control.close()
                return False
            self._control, self._lines = control, lines
            return True

        until(met, "the fake service does not listen")
        return self.started

    def hear(self) -> dict[str, Any]:
        """Return the next thing that the fake service tells."""
        line = self._lines.readline()
        if not line:
            raise EOFError("the fake service has gone")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def do(self, what: str, **details: Any) -> None:
        """Tell the fake service what to do."""
        assert self._control is not None
        self._control.sendall(json.dumps({"do": what, **details}).encode() + b"\n")
        if what not in ("ask", "stopping", "exit"):
            assert self.hear() == {"done": what}

    def be_ready(self) -> None:
        """Have the service say that it is ready, and see the monitor say so."""
        self.meet_service()
        self.do("ready")
        self.wait_for_line(", socket ")

    def spawn(self, uid: int, gid: int, groups: Sequence[int] = ()) -> dict[str, Any]:
        """Order a worker; return the monitor's answer."""
        self._requests += 1
        self.do("spawn", request=self._requests, uid=uid, gid=gid, groups=list(groups))
        answer = self.hear()
        assert answer["request"] == self._requests
        return answer

    def ask(self, request: int, expression: str) -> Any:
        """Have a fake worker evaluate an expression; an error comes back as its name."""
        self.do("ask", request=request, text=expression)
        answer = self.hear()["answer"]
        assert self.hear() == {"done": "ask"}
        return answer

    def wait_for_line(self, part: str) -> str:
        """Return the next line of the log that contains this."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for index, line in enumerate(self.log):
                if part in line:
                    del self.log[: index + 1]
                    return line
            self.log.clear()
            if not select.select([self.process.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Timeout(f"no line {part!r} in the log")
            raw = self.process.stderr.readline()
            if not raw:
                raise Timeout(f"no line {part!r} before the end of the log")
            self.log.append(raw.decode("utf-8", "replace").rstrip("\n"))

    def read_log(self) -> str:
        """Return what is left of the log of a daemon that has ended."""
        assert self.process.stderr is not None
        return "\n".join(self.log) + self.process.stderr.read().decode("utf-8", "replace")

    def wait(self) -> int:
        """Return the exit status of the daemon when it has ended, and see that nothing of it is left."""
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def monitored(
    *arguments: str,
    user: int | None = None,
    group: int | None = None,
    environment: dict[str, str] | None = None,
    place: str | None = None,
    starter: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> Iterator[Monitored]:
    """Run `bitsd` in a directory of its own, or else in `place`, for the length of a `with` block."""
    directory = place or tempfile.mkdtemp(prefix="obt-")
    if place is None:
        os.chmod(directory, 0o755)
        if user is not None:
            os.chown(directory, user, -1)
    process = subprocess.Popen(
        [
            *(starter or (sys.executable,)),
            os.path.join(HERE, "run_monitor.py"),
            *arguments,
            *("--state-dir", os.path.join(directory, "state"), "--runtime-dir", os.path.join(directory, "run")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Unbuffered, so that select tells of every line that was not read.
        bufsize=0,
        pass_fds=pass_fds,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **(environment or {})},
    )
    daemon = Monitored(directory, process)
    try:
        yield daemon
    finally:
        everybody = descendants_of(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        assert process.stderr is not None
        process.stderr.close()
        if daemon._control is not None:
            daemon._lines.close()
            daemon._control.close()
        until(lambda: not any(is_running(pid) for pid in everybody), f"some of {everybody} outlived the monitor")
        if place is None:
            shutil.rmtree(directory, ignore_errors=True)
