"""The servers that are uploaded to: our own, and nginx with PUT; each over an empty directory in memory."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.processes import cpu_s, name_of, tree
from bench.running import BenchError

_START_TIMEOUT_S: Final = 20.0
_BITS_SERVER: Final = """
[directory."/"]
upload_enabled = true
session_limit_enable = false
"""
_NGINX: Final = """
daemon off;
worker_processes 1;
pid {prefix}/nginx.pid;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    keepalive_requests 1000000;
    # Where the files are to be: else each is copied at its end.
    client_body_temp_path {root}/.body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        dav_methods PUT;
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadServer:
    """A running server."""

    pid: int
    url: str
    root: str

    def cpu_s(self) -> float:
        """What it has used until now."""
        return cpu_s(tree(self.pid))


@contextlib.contextmanager
def bits_server(prefix: str, root: str) -> Iterator[UploadServer]:
    """Run our own."""
    os.makedirs(prefix, exist_ok=True)
    os.makedirs(root, exist_ok=True)
    configuration = os.path.join(prefix, "bits-server.toml")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(_BITS_SERVER)
    command = [sys.executable, "-m", "openbits.server.cli", "--root", root, "--listen", "127.0.0.1:0"]
    command += ["--config", configuration, "--control-socket", os.path.join(prefix, "control.sock")]
    log_path = os.path.join(prefix, "log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        with _ending(process):
            url = _wait_for_url(process, log_path)
            yield UploadServer(pid=process.pid, url=url, root=root)


def _wait_for_url(process: subprocess.Popen[bytes], log_path: str) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            found = re.search(r"listening on (http://\S+)\n", log.read())
        if found is not None:
            return found[1]
        select.select([], [], [], 0.05)
    with open(log_path, encoding="utf-8", errors="replace") as log:
        raise BenchError(f"bits-server does not start: {log.read()[-500:]}")


@contextlib.contextmanager
def nginx(prefix: str, root: str, port: int) -> Iterator[UploadServer]:
    """Run nginx with PUT on a port that is free."""
    os.makedirs(prefix, exist_ok=True)
    os.makedirs(os.path.join(root, ".body"), exist_ok=True)
    path = os.path.join(prefix, "nginx.conf")
    user = "user root;" if os.geteuid() == 0 else ""
    with open(path, "w", encoding="utf-8") as file:
        file.write(_NGINX.format(prefix=prefix, root=root, user=user, port=port))
    command = ["nginx", "-p", prefix, "-c", path, "-e", os.path.join(prefix, "error.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with _ending(process):
        deadline = time.monotonic() + _START_TIMEOUT_S
        while sum(name_of(pid) == "nginx" for pid in tree(process.pid)) < 2:
            if time.monotonic() > deadline or process.poll() is not None:
                raise BenchError("nginx does not start")
            select.select([], [], [], 0.05)
        yield UploadServer(pid=process.pid, url=f"http://127.0.0.1:{port}", root=root)


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait()
