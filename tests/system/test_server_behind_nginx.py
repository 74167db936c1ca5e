"""bits-server behind nginx and Apache, set up exactly as docs/server.md says (issue 4, part 4)."""

from __future__ import annotations

import base64
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

from support.bits_server import BitsServer, running_bits_server
from support.nginx import free_port
from support.raw_client import RawAnswer, RawClient

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "server.md"
MODULES = "/usr/lib/apache2/modules"
START_S = 15.0
PROXY = '[proxy]\ntrusted = ["127.0.0.1"]\nuser_header = "X-Remote-User"\n'
AUTHORIZATION = "Authorization: Basic " + base64.b64encode(b"alice:secret").decode()

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
needs_apache = pytest.mark.skipif(
    shutil.which("apache2") is None or not os.path.exists(f"{MODULES}/mod_proxy_http.so"),
    reason="apache2 is not installed",
)


def documented(language: str) -> str:
    """The page's own block."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def adapted(block: str, base: pathlib.Path, port: int, upstream: int) -> str:
    """The block, with this test's places in it."""
    for old, new in {
        "127.0.0.1:8443": f"127.0.0.1:{port}",
        "127.0.0.1:8080": f"127.0.0.1:{upstream}",
        "files.example": "localhost",
        "/etc/ssl/localhost": str(base / "localhost"),
        "/etc/nginx/files.htpasswd": str(base / "htpasswd"),
        "/etc/apache2/files.htpasswd": str(base / "htpasswd"),
    }.items():
        assert old in block or "htpasswd" in old, old
        block = block.replace(old, new)
    return block


def prepare(base: pathlib.Path) -> None:
    """Make the certificate and the password file."""
    names = ["-out", str(base / "localhost.pem"), "-keyout", str(base / "localhost.key")]
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
    subject = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *names], check=True, capture_output=True, timeout=20)
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True, timeout=20
    )
    (base / "htpasswd").write_text(f"alice:{hashed.stdout}")
    base.chmod(0o755)
    (base / "htpasswd").chmod(0o644)


@contextlib.contextmanager
def running(command: list[str], port: int, said: pathlib.Path) -> Iterator[None]:
    with said.open("wb") as log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as process:
        try:
            deadline = time.monotonic() + START_S
            while True:
                with contextlib.suppress(OSError):
                    RawClient(port).sock.close()
                    break
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.02)
            yield
        except BaseException:
            for name in ("said", "errors"):
                with contextlib.suppress(OSError):
                    print((said.parent / name).read_text()[-2000:])
            raise
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def nginx(base: pathlib.Path, upstream: int) -> Iterator[int]:
    port = free_port()
    paths = "".join(
        f"{kind}_temp_path {base}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (base / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {base}/pid;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{paths}{adapted(documented('nginx'), base, port, upstream)}\n}}\n"
    )
    command = ["nginx", "-p", str(base), "-c", str(base / "nginx.conf"), "-e", "stderr"]
    with running(command, port, base / "said"):
        yield port


@contextlib.contextmanager
def apache(base: pathlib.Path, upstream: int) -> Iterator[int]:
    port = free_port()
    names = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic"]
    names += ["headers", "proxy", "proxy_http", "ssl"]
    modules = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in names)
    account = pwd.getpwnam("www-data") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    user, group = account.pw_name, f"#{account.pw_gid}"
    (base / "apache.conf").write_text(
        f"ServerRoot {base}\nServerName localhost\nPidFile {base}/pid\nDefaultRuntimeDir {base}\n"
        f"Listen 127.0.0.1:{port}\n{modules}User {user}\nGroup {group}\nStartServers 1\nKeepAliveTimeout 60\n"
        f"ErrorLog {base}/errors\n" + adapted(documented("apache"), base, port, upstream)
    )
    with running(["apache2", "-X", "-f", str(base / "apache.conf")], port, base / "said"):
        yield port


@pytest.fixture(
    scope="module",
    params=[pytest.param(nginx, marks=needs_nginx, id="nginx"), pytest.param(apache, marks=needs_apache, id="apache")],
)
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[BitsServer, int]]:
    # Not below pytest's own directory, which other accounts cannot enter.
    with contextlib.ExitStack() as stack:
        base = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proxy-")))
        prepare(base)
        server = stack.enter_context(running_bits_server(config="access_log = true\n" + PROXY))
        port = stack.enter_context(request.param(base, server.port))
        server.environment = {"CERTIFICATE": str(base / "localhost.pem")}
        yield server, port


@pytest.fixture
def client(proxied: tuple[BitsServer, int]) -> Iterator[RawClient]:
    server, port = proxied
    trust = ssl.create_default_context(cafile=server.environment["CERTIFICATE"])
    with RawClient(port, tls=trust) as raw:
        yield raw


def ask(client: RawClient, method: str, path: str, *headers: str, body: bytes = b"") -> RawAnswer:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        AUTHORIZATION,
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    ]
    return client.ask("\r\n".join(lines).encode() + body, to_head=method == "HEAD")


def packet(client: RawClient, path: str, kind: str, *headers: str, body: bytes = b"") -> RawAnswer:
    return ask(client, "BITS_POST", path, f"BITS-Packet-Type: {kind}", *headers, body=body)


def create(client: RawClient, path: str) -> str:
    answer = packet(client, path, "Create-Session", "BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}")
    assert answer.status == 200, answer
    return f"BITS-Session-Id: {answer.get('bits-session-id')}"


def test_an_upload_in_large_fragments_and_its_download(proxied: tuple[BitsServer, int], client: RawClient) -> None:
    server, _ = proxied
    content = os.urandom(20_000_000)
    session = create(client, "/large%20file")
    for first in range(0, len(content), 13_000_000):
        body = content[first : first + 13_000_000]
        span = f"Content-Range: bytes {first}-{first + len(body) - 1}/{len(content)}"
        answer = packet(client, "/large%20file", "Fragment", session, span, body=body)
        assert (answer.status, answer.get("bits-received-content-range")) == (200, str(first + len(body)))
    assert packet(client, "/large%20file", "Close-Session", session).status == 200
    assert pathlib.Path(server.root, "large file").read_bytes() == content
    assert ask(client, "GET", "/large%20file").body == content
    answer = ask(client, "GET", "/large%20file", "Range: bytes=5-9")
    assert (answer.status, answer.body) == (206, content[5:10])
    assert ask(client, "HEAD", "/large%20file").get("content-length") == str(len(content))


def test_a_fragment_is_passed_on_as_it_comes(proxied: tuple[BitsServer, int], client: RawClient) -> None:
    server, _ = proxied
    session = create(client, "/streamed")
    lines = ["BITS_POST /streamed HTTP/1.1", "Host: localhost", AUTHORIZATION, "BITS-Packet-Type: Fragment", session]
    lines += ["Content-Range: bytes 0-9999999/10000000", "Content-Length: 10000000", "", ""]
    client.send("\r\n".join(lines).encode() + b"x" * 5_000_000)
    part = pathlib.Path(server.root, ".bits-sessions")
    deadline = time.monotonic() + START_S
    while not any(each.stat().st_size > 1_000_000 for each in part.glob("*.part")):
        assert time.monotonic() < deadline, "the proxy keeps the body to itself"
        time.sleep(0.02)
    client.send(b"x" * 5_000_000)
    assert client.read_answer().get("bits-received-content-range") == "10000000"


def test_the_proxy_says_who_it_is_and_nobody_else_can(proxied: tuple[BitsServer, int]) -> None:
    server, port = proxied
    assert server.log is not None
    trust = ssl.create_default_context(cafile=server.environment["CERTIFICATE"])
    with RawClient(port, tls=trust, source="127.0.0.2") as client:
        assert ask(client, "GET", "/who", "X-Remote-User: root", "X-Forwarded-For: 6.6.6.6").status == 404
    assert "127.0.0.2 alice GET /who 404" in server.log.wait_line("/who", 10)
    with RawClient(server.port, source="127.0.0.2") as mallory:
        assert ask(mallory, "GET", "/direct", "X-Remote-User: root", "X-Forwarded-For: 127.0.0.1").status == 404
    assert "127.0.0.2 - GET /direct 404" in server.log.wait_line("/direct", 10)
    with RawClient(port, tls=trust) as stranger:
        assert stranger.ask(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 401


def test_a_session_belongs_to_its_user(proxied: tuple[BitsServer, int], client: RawClient) -> None:
    server, _ = proxied
    session = create(client, "/mine")
    with RawClient(server.port) as mallory:
        lines = f"BITS_POST /mine HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Cancel-Session\r\n{session}\r\n"
        answer = mallory.ask(f"{lines}X-Remote-User: mallory\r\nContent-Length: 0\r\n\r\n".encode())
        assert (answer.status, answer.get("bits-error-code")) == (500, "0x8020001f")
    assert packet(client, "/mine", "Cancel-Session", session).status == 200


def test_refusals_come_through(client: RawClient) -> None:
    session = create(client, "/gap")
    answer = packet(client, "/gap", "Fragment", session, "Content-Range: bytes 5-9/10", body=b"01234")
    assert (answer.status, answer.get("bits-received-content-range")) == (416, "0")
    answer = packet(client, "/gap", "Fragment", "BITS-Session-Id: {0}", "Content-Range: bytes 0-4/10", body=b"01234")
    assert (answer.status, answer.get("bits-error-code")) == (500, "0x8020001f")


@pytest.mark.parametrize(
    "path", ["/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/a/../../etc/passwd", "/%252e%252e/x"]
)
def test_no_path_trick_survives_two_servers(client: RawClient, path: str) -> None:
    answer = ask(client, "GET", path)
    assert answer.status in (400, 403, 404)
    assert b"root:" not in answer.body
