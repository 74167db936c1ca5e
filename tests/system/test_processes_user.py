"""`bitsd --user` as whoever runs the tests, with and without its real programs."""

from __future__ import annotations

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.monitored import HERE, monitored, until

CONTENT = os.urandom(300_000)


class Origin(http.server.BaseHTTPRequestHandler):
    """Has one file."""

    def do_GET(self) -> None:
        found = self.path == "/file"
        body = CONTENT if found else b"nothing"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_own_worker_and_orderly_end() -> None:
    with monitored("--user") as daemon:
        daemon.be_ready()
        answer = daemon.spawn(os.getuid(), os.getgid(), os.getgroups())
        assert (answer["frame"], answer["uid"]) == ("WorkerSpawned", os.getuid())
        assert daemon.ask(answer["request"], "os.getresuid()") == list(os.getresuid())
        assert daemon.spawn(os.getuid() + 1, 0)["error"] == "E_ACCESSDENIED"
        daemon.process.terminate()
        assert daemon.wait() == 0


def test_killed_service_comes_back() -> None:
    with monitored("--user") as daemon:
        daemon.be_ready()
        os.kill(daemon.pid_of("bitsd-service"), signal.SIGKILL)
        daemon.be_ready()


def test_worker_imports_nothing_late(tmp_path: Path, origin: str) -> None:
    """Architecture §2: its account may not be able to read the program's files."""
    log = tmp_path / "log"
    socket_path = tmp_path / "run/bitsd.sock"
    script = os.path.join(HERE, "strict_monitor.py")
    places = ("--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path / "run"))
    with log.open("wb") as stderr:
        daemon = subprocess.Popen([sys.executable, script, "--user", *places], stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        until(lambda: b"ready" in log.read_bytes(), "bitsd is not ready")

        def bits(*arguments: str) -> int:
            command = [os.path.join(os.path.dirname(sys.executable), "bits"), "--socket", str(socket_path), *arguments]
            return subprocess.run(command, capture_output=True, timeout=60, check=False, cwd=tmp_path).returncode

        checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
        assert bits("get", f"{origin}/file", "--checksum", checksum) == 0
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert bits("get", f"{origin}/missing") == 1
        assert bits("get", f"file://{tmp_path}/file", "-o", str(tmp_path / "copy")) == 0
        assert bits("get", origin.replace("http:", "https:") + "/file") == 1
        assert b"worker-started" in log.read_bytes()
        assert b"late import" not in log.read_bytes(), log.read_text()
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0
