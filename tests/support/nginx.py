"""A real nginx over a directory of its own: how fast it sends is said in the request, and what it was asked is kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

START_S = 10.0

_CONFIGURATION = """
daemon off;
master_process off;
pid {base}/pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    log_format requests '$msec $request_time $status $body_bytes_sent $request_method "$uri" "$http_range"';
    access_log {base}/requests requests;
    map $arg_rate $rate {{ "" 0; default $arg_rate; }}
    limit_rate $rate;
    default_type application/octet-stream;
    keepalive_requests 1000000;
    client_body_temp_path {base}/t1;
    proxy_temp_path {base}/t2;
    fastcgi_temp_path {base}/t3;
    uwsgi_temp_path {base}/t4;
    scgi_temp_path {base}/t5;
    server {{
        listen {address}:{port};
        root {root};
        dav_methods PUT;
        client_max_body_size 0;
    }}
}}
"""

_LINE = re.compile(
    r'(?P<end>[\d.]+) (?P<took>[\d.]+) (?P<status>\d+) (?P<sent>\d+) \S+ "(?P<uri>[^"]*)" "(?P<range>.*)"'
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as nginx wrote it down at its end. Times in seconds since the epoch, to the millisecond."""

    name: str
    started_at: float
    ended_at: float
    status: int
    sent_bytes: int
    offset: int
    """The first byte that was asked for."""


@dataclass(kw_only=True)
class Nginx:
    """A running server; `root` is the directory that it serves."""

    base: str
    root: str
    address: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    def add(self, name: str, size_bytes: int, *, seed: int = 0) -> str:
        """Make a file of random bytes; return its SHA-256."""
        content = random.Random(f"{name} {seed}").randbytes(size_bytes)
        with open(os.path.join(self.root, name), "wb") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()

    def url(self, name: str, *, rate_bps: int | None = None) -> str:
        """The address of a file; `rate_bps` is how many bytes a second a connection gets."""
        rate = "" if rate_bps is None else f"?rate={rate_bps}"
        return f"http://{self.address}:{self.port}/{name}{rate}"

    def asked(self, name: str | None = None) -> list[Asked]:
        """All requests that have ended, in the order in which they began."""
        with open(os.path.join(self.base, "requests"), encoding="utf-8") as file:
            found = [_asked(line) for line in file]
        return sorted(
            (asked for asked in found if name is None or asked.name == name), key=lambda asked: asked.started_at
        )

    def start(self, prefix: Sequence[str] = ()) -> None:
        """Start it and wait until it listens; `prefix` is a command that runs it, e.g. `ip netns exec NAME`."""
        configuration = os.path.join(self.base, "nginx.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(_CONFIGURATION.format(base=self.base, root=self.root, address=self.address, port=self.port))
        with open(os.path.join(self.base, "errors"), "wb") as errors:
            self.process = subprocess.Popen(
                [*prefix, "nginx", "-p", self.base, "-c", configuration], stdin=subprocess.DEVNULL, stderr=errors
            )
        # nginx writes its pid when it listens.
        deadline = time.monotonic() + START_S
        while not os.path.exists(os.path.join(self.base, "pid")):
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, f"nginx is not there after {START_S} s: {self.errors()}"
            time.sleep(0.01)

    def errors(self) -> str:
        """What nginx complained of."""
        with open(os.path.join(self.base, "errors"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.base, "pid"))


def _asked(line: str) -> Asked:
    match = _LINE.match(line)
    assert match is not None, line
    start = re.match(r"bytes=(\d+)-", match["range"])
    return Asked(
        name=match["uri"].removeprefix("/"),
        started_at=float(match["end"]) - float(match["took"]),
        ended_at=float(match["end"]),
        status=int(match["status"]),
        sent_bytes=int(match["sent"]),
        offset=int(start[1]) if start else 0,
    )


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running_nginx(
    *, address: str = "127.0.0.1", port: int | None = None, prefix: Sequence[str] = ()
) -> Iterator[Nginx]:
    """Run nginx for the length of a `with` block."""
    base = tempfile.mkdtemp(prefix="obt-nginx-")
    root = os.path.join(base, "root")
    os.mkdir(root)
    server = Nginx(base=base, root=root, address=address, port=port or free_port(address))
    try:
        server.start(prefix)
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


def sha256_of(path: str) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
