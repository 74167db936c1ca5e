"""The program bits-server: how it starts, what it says, TLS, reload, and a stop in good order."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import threading

import pytest

from support.bits_server import PROGRAM, running_bits_server
from support.raw_client import RawClient

PING = b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Ping\r\nContent-Length: 0\r\n\r\n"
CREATE = (
    b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Create-Session\r\nContent-Length: 0\r\n"
    b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}\r\n\r\n"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=20, check=False)


# --- starting ------------------------------------------------------------------------------------


def test_help_is_friendly() -> None:
    found = run("--help")
    assert (found.returncode, found.stderr) == (0, "")
    for option in ["--root", "--listen", "--allow-overwrites", "--notify-url", "--tls-cert", "--config"]:
        assert option in found.stdout
    assert "publish" in found.stdout


def test_wrong_usage_is_one_line_and_2(tmp_path: pathlib.Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('listne = "x"\n')
    root = str(tmp_path)
    for arguments, said in [
        ((), "--root"),
        (("--rot", root), "no such option"),
        (("--root", root, "--listen", "8080"), "HOST:PORT"),
        (("--root", root, "--listen", "127.0.0.1:99999"), "HOST:PORT"),
        (("--root", root, "--notify-url", "http://x/"), "belong together"),
        (("--root", root, "--tls-cert", "/x"), "belong together"),
        (("--root", root, "--config", str(bad)), "did you mean listen"),
        (("--root", root, "--config", str(tmp_path / "none")), "cannot be read"),
        (("--root", root, "--session-timeout", "0"), "session-timeout"),
    ]:
        found = run(*arguments)
        assert found.returncode == 2, (arguments, found.stderr)
        assert said.lower() in found.stderr.lower(), found.stderr
        assert re.fullmatch(r"bits-server: .*\n", found.stderr), found.stderr


def test_what_cannot_be_used_is_one_line_and_1(tmp_path: pathlib.Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    listen = f"127.0.0.1:{taken.getsockname()[1]}"
    (tmp_path / "file").write_text("no PEM")
    pem = str(tmp_path / "file")
    with taken:
        for arguments, said in [
            (("--root", str(tmp_path / "none")), "no directory"),
            (("--root", pem), "no directory"),
            (("--root", str(tmp_path), "--listen", listen), "another program listens"),
            (("--root", str(tmp_path), "--listen", "192.0.2.1:0"), "no such address"),
            (("--root", str(tmp_path), "--tls-cert", pem, "--tls-key", pem), "cannot be used"),
            (("--root", str(tmp_path), "--tls-cert", "/none", "--tls-key", pem), "cannot be read"),
        ]:
            found = run(*arguments)
            assert found.returncode == 1, (arguments, found.stderr)
            assert said in found.stderr
            assert "Traceback" not in found.stderr


def test_two_servers_do_not_share_a_working_directory() -> None:
    with running_bits_server() as server:
        found = run("--root", server.root, "--listen", "127.0.0.1:0")
        assert found.returncode == 1
        assert "in use by another server" in found.stderr


def test_it_tells_systemd_when_it_is_ready(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "notify")
    (tmp_path / "root").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(path)
        notified.settimeout(20)
        command = [*PROGRAM, "--root", str(tmp_path / "root"), "--listen", "127.0.0.1:0"]
        command += ["--control-socket", str(tmp_path / "control")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "NOTIFY_SOCKET": path}) as process:
            assert notified.recv(100) == b"READY=1"
            process.send_signal(signal.SIGINT)
            assert notified.recv(100) == b"STOPPING=1"
            assert process.wait(20) == 0


# --- stopping ------------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_under_way() -> None:
    with running_bits_server() as server, RawClient(server.port) as busy, RawClient(server.port) as idle:
        assert idle.ask(PING).status == 200
        session = (busy.ask(CREATE).get("bits-session-id") or "").encode()
        busy.send(
            b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\nContent-Length: 10\r\n"
            b"BITS-Session-Id: %s\r\nContent-Range: bytes 0-9/10\r\nExpect: 100-continue\r\n\r\n" % session
        )
        assert busy.read_head().status == 100
        status: list[int] = []
        stopping = threading.Thread(target=lambda: status.append(server.stop()))
        stopping.start()
        assert idle.is_ended()
        busy.send(b"0123456789")
        answer = busy.read_answer()
        assert (answer.status, answer.get("bits-received-content-range"), answer.closes) == (200, "10", True)
        stopping.join(30)
        assert status == [0]
        with open(os.path.join(server.root, "up"), "rb") as file:
            assert file.read() == b"0123456789"


def test_a_stop_does_not_wait_for_ever() -> None:
    with running_bits_server(config="[limits]\nstop_timeout_s = 1\n") as server, RawClient(server.port) as stalled:
        session = (stalled.ask(CREATE).get("bits-session-id") or "").encode()
        stalled.send(
            b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\nContent-Length: 10\r\n"
            b"BITS-Session-Id: %s\r\nContent-Range: bytes 0-9/10\r\nExpect: 100-continue\r\n\r\n" % session
        )
        assert stalled.read_head().status == 100
        assert server.stop() == 0
        assert stalled.is_ended()


# --- TLS and reload ------------------------------------------------------------------------------


def certificate(directory: pathlib.Path) -> tuple[str, str]:
    """Make a certificate that vouches for itself, and its key."""
    paths = str(directory / "cert.pem"), str(directory / "key.pem")
    kind = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost", "-out", paths[0], "-keyout", paths[1]]
    subprocess.run(["openssl", "req", "-x509", *kind, *names], check=True, capture_output=True, timeout=20)
    return paths


def test_tls_carries_uploads_and_downloads(tmp_path: pathlib.Path) -> None:
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=cert)
    content = os.urandom(3_000_000)
    with running_bits_server("--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        with RawClient(server.port, tls=trust) as client:
            session = (client.ask(CREATE).get("bits-session-id") or "").encode()
            # Head, body and the next request in one: what TLS has decrypted already must not be forgotten.
            client.send(
                b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\nContent-Length: %d\r\n"
                b"BITS-Session-Id: %s\r\nContent-Range: bytes 0-%d/%d\r\n\r\n"
                % (len(content), session, len(content) - 1, len(content))
                + content
                + PING
            )
            assert client.read_answer().get("bits-received-content-range") == str(len(content))
            assert client.read_answer().get("bits-packet-type") == "Ack"
            assert client.ask(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n").body == content
            assert client.ask(PING + PING).status == 200
            assert client.read_answer().status == 200
        with RawClient(server.port) as plain:
            plain.send_what_is_taken(PING)
            plain.read_end()
        with RawClient(server.port, tls=trust) as client:
            assert client.ask(PING).status == 200


def test_a_reload_shows_new_certificates_and_keeps_old_connections(tmp_path: pathlib.Path) -> None:
    cert, key = certificate(tmp_path)
    old = ssl.create_default_context(cafile=cert)
    with running_bits_server("--tls-cert", cert, "--tls-key", key) as server:
        assert server.log is not None
        with RawClient(server.port, tls=old) as client:
            assert client.ask(PING).status == 200
            (tmp_path / "cert.pem").write_text("nonsense")
            server.reload()
            server.log.wait_line("reload refused", 10)
            certificate(tmp_path)
            server.reload()
            server.log.wait_line("reloaded", 10)
            assert client.ask(PING).status == 200
        with RawClient(server.port, tls=ssl.create_default_context(cafile=cert)) as client:
            assert client.ask(PING).status == 200
        with pytest.raises(ssl.SSLError):
            RawClient(server.port, tls=old)


def test_the_access_log_can_be_switched_on(tmp_path: pathlib.Path) -> None:
    with running_bits_server(config="access_log = true\n") as server, RawClient(server.port) as client:
        assert client.ask(b"GET /none?x HTTP/1.1\r\nHost: x\r\n\r\n").status == 404
        assert server.log is not None
        line = server.log.wait_line("GET", 10)
        assert re.search(r"127\.0\.0\.1 - GET /none\?x 404 \d+ \d+\.\d+", line)
