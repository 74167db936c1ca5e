"""Uploads through nginx as it is installed: it refuses bodies beyond 1 MiB, and seldom waits for the sender to hear it.

Digest, section 5: 413 halves the fragment; the size that is taken is remembered.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.bits_server import BitsServer, running_bits_server
from support.daemon import Daemon, running_daemon
from support.nginx import free_port

pytestmark = needs_root

SIZE = 40_000_000
MEBIBYTE = 1024 * 1024
_CONFIGURATION = """
daemon off;
master_process off;
pid {base}/pid;
error_log {base}/errors error;
events {{ worker_connections 64; }}
http {{
    log_format packets '$status $http_bits_packet_type $content_length';
    access_log {base}/packets packets;
    client_body_temp_path {base}/t1;
    proxy_temp_path {base}/t2;
    fastcgi_temp_path {base}/t3;
    uwsgi_temp_path {base}/t4;
    scgi_temp_path {base}/t5;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {origin}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
    }}
}}
"""


class Front:
    """nginx before a server."""

    def __init__(self, origin: BitsServer) -> None:
        self.base = tempfile.mkdtemp(prefix="openbits-front-")
        self.port = free_port()
        path = os.path.join(self.base, "nginx.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(_CONFIGURATION.format(base=self.base, port=self.port, origin=origin.url))
        self._process = subprocess.Popen(["nginx", "-p", self.base, "-c", path], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not os.path.exists(os.path.join(self.base, "pid")):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fragments(self) -> list[tuple[int, int]]:
        """Status and length of every fragment, in order."""
        with open(os.path.join(self.base, "packets"), encoding="ascii") as file:
            words = [line.split() for line in file]
        return [(int(status), int(length)) for status, kind, length in words if kind == "Fragment"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        shutil.rmtree(self.base)


@pytest.fixture
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def origin() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        yield running


@pytest.fixture
def front(origin: BitsServer) -> Iterator[Front]:
    running = Front(origin)
    yield running
    running.close()


def test_413_is_found_out_and_rarely_asked_for_again(
    daemon: Daemon, alice: TestAccount, origin: BitsServer, front: Front
) -> None:
    content = random.Random(1).randbytes(SIZE)
    path = os.path.join(alice.home, "source")
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, alice.uid, alice.gid)
    done = daemon.bits("put", path, f"{front.url}/in", "--protocol", "bits", account=alice)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(origin.root, "in"), "rb") as uploaded:
        assert uploaded.read() == content
    fragments = front.fragments()
    refused = [length for status, length in fragments if status == 413]
    taken = [length for status, length in fragments if status == 200]
    assert refused
    assert all(length > MEBIBYTE for length in refused)
    assert len(refused) <= 5, refused
    assert max(taken) >= MEBIBYTE // 2
