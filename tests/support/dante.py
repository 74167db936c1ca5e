"""A real Dante, which speaks SOCKS, open to this machine; it writes down what it was asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.nginx import free_port

PROGRAM = "/usr/sbin/danted"
START_S = 20.0

needs_dante = pytest.mark.skipif(not os.path.exists(PROGRAM), reason="dante-server is not installed")

_CONFIGURATION = """
logoutput: {base}/said
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0
    log: connect disconnect error }}
"""


@dataclass(kw_only=True)
class Dante:
    """A running server; `place` is how proxy settings name it."""

    base: str
    port: int

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def said(self) -> str:
        """Its log."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.base, "said"), errors="replace") as file:
            return file.read()
        return ""


@contextlib.contextmanager
def running_dante() -> Iterator[Dante]:
    """Run Dante for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-dante-")
    os.chmod(base, 0o777)
    server = Dante(base=base, port=free_port())
    configuration = os.path.join(base, "danted.conf")
    with open(configuration, "w", encoding="ascii") as file:
        file.write(_CONFIGURATION.format(base=base, port=server.port))
    process = subprocess.Popen(
        [PROGRAM, "-f", configuration, "-p", os.path.join(base, "pid")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", server.port)) == 0:
                    break
            assert process.poll() is None, server.said()
            assert time.monotonic() < deadline, f"Dante is not there after {START_S} s: {server.said()}"
            time.sleep(0.02)
        yield server
    finally:
        # It ends its own children.
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(base, ignore_errors=True)
