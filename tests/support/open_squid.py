"""A real Squid that lets everyone of this machine through, and writes down for what."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from support.nginx import free_port

START_S = 20.0

_CONFIGURATION = """
http_port 127.0.0.1:{port}
pid_filename none
cache deny all
cache_log {base}/said
coredump_dir {base}
cache_effective_user proxy
logformat requests %>Hs %rm %ru
access_log stdio:{base}/requests requests
shutdown_lifetime 0 seconds
workers 1
http_access allow localhost
http_access deny all
visible_hostname localhost
"""


@dataclass(kw_only=True)
class OpenSquid:
    """A running proxy; `place` is how proxy settings name it."""

    base: str
    port: int

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def passed(self) -> list[str]:
        """All requests that have ended: status, method and address."""
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.base, "requests")) as file:
            return file.read().splitlines()
        return []


@contextlib.contextmanager
def running_open_squid() -> Iterator[OpenSquid]:
    """Run Squid for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-squid-")
    os.chmod(base, 0o755)
    os.chown(base, pwd.getpwnam("proxy").pw_uid, -1)
    server = OpenSquid(base=base, port=free_port())
    configuration = os.path.join(base, "squid.conf")
    with open(configuration, "w", encoding="ascii") as file:
        file.write(_CONFIGURATION.format(port=server.port, base=base))
    with open(os.path.join(base, "output"), "wb") as output:
        process = subprocess.Popen(
            ["squid", "-N", "-f", configuration], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.closing(socket.socket()) as sock:
                if sock.connect_ex(("127.0.0.1", server.port)) == 0:
                    break
            assert process.poll() is None, "Squid does not start"
            assert time.monotonic() < deadline, f"Squid is not there after {START_S} s"
            time.sleep(0.02)
        yield server
    finally:
        process.kill()
        process.wait(timeout=10)
        shutil.rmtree(base, ignore_errors=True)
