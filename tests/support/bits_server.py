"""The real `bits-server` for tests: on a free port, with directories of its own, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from support.daemon import Log

READY_S = 20.0
STOP_S = 40.0
PROGRAM = (sys.executable, "-m", "openbits.server.cli")


@dataclass(kw_only=True)
class BitsServer:
    """A server that may be started, killed and started again on the same directories and port."""

    base: str
    """A directory for everything that belongs to it."""
    arguments: Sequence[str] = ()
    config: str = ""
    """TOML; `root` and `listen` are said on the command line."""
    port: int = 0
    """0 until it has been started once; then it stays."""
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Log | None = None
    url: str = ""
    """`http://127.0.0.1:PORT`, or https."""
    _process: subprocess.Popen[str] | None = None

    @property
    def root(self) -> str:
        """The directory that is served."""
        return os.path.join(self.base, "root")

    @property
    def control_socket(self) -> str:
        """Where publish, unpublish and list reach it."""
        return os.path.join(self.base, "control.sock")

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """Its command line."""
        command = [*PROGRAM, "--root", self.root, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--control-socket", self.control_socket, *self.arguments]
        if self.config:
            path = os.path.join(self.base, "bits-server.toml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.config)
            command += ["--config", path]
        return command

    def start(self) -> None:
        """Start it and wait until it is ready."""
        os.makedirs(self.root, exist_ok=True)
        self._process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self.environment},
        )
        assert self._process.stderr is not None
        self.log = Log(self._process.stderr)
        line = self.log.wait_line("listening on", READY_S)
        found = re.search(r"https?://[^\s]+:(\d+)", line)
        assert found, line
        self.url, self.port = found[0], int(found[1])

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """End it in good order and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        status = self._process.wait(STOP_S)
        if self.log is not None:
            self.log.close()
            self.log = None
        return status

    def reload(self) -> None:
        """Have it read certificates and configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def command_of(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `bits-server publish` and the like against it."""
        command = [*PROGRAM, *arguments, "--socket", self.control_socket]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@contextlib.contextmanager
def running_bits_server(*arguments: str, config: str = "", base: str | None = None) -> Iterator[BitsServer]:
    """Run a server; with `base` in that directory, else in a new one that goes with it."""
    with contextlib.ExitStack() as stack:
        if base is None:
            base = tempfile.mkdtemp(prefix="bits-server-")
            stack.callback(shutil.rmtree, base, ignore_errors=True)
        server = BitsServer(base=base, arguments=arguments, config=config)
        stack.callback(server.stop)
        server.start()
        yield server
