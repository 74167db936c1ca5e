"""A real nginx that speaks TLS, each of its servers with directives of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.ca import Certified

START_S = 10.0
_HEAD = """
daemon off;
master_process off;
pid {base}/pid;
error_log {base}/errors info;
events {{ worker_connections 512; }}
http {{
    log_format requests '$server_port $server_protocol $status $request_method $ssl_protocol "$ssl_client_s_dn"';
    access_log {base}/requests requests;
    client_body_temp_path {base}/t1;
    proxy_temp_path {base}/t2;
    fastcgi_temp_path {base}/t3;
    uwsgi_temp_path {base}/t4;
    scgi_temp_path {base}/t5;
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols {protocols};
        root {root};
        dav_methods PUT;
        client_max_body_size 0;
        {directives}
    }}
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a server shows, and more directives of nginx; `{base}` stands for its directory."""

    certified: Certified
    directives: str = ""
    protocols: str = "TLSv1.2 TLSv1.3"


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A line of nginx's log."""

    port: int
    protocol: str
    status: int
    method: str
    tls: str
    client: str


@dataclass(frozen=True, kw_only=True)
class TlsNginx:
    """A running server; `root` is the directory that it serves."""

    base: Path
    root: Path
    ports: Mapping[str, int]

    def url(self, server: str, name: str, host: str = "127.0.0.1") -> str:
        """The address of a file."""
        return f"https://{host}:{self.ports[server]}/{name}"

    def logged(self, server: str) -> list[Logged]:
        """The requests that a server has answered."""
        found = []
        for line in (self.base / "requests").read_text().splitlines():
            port, protocol, status, method, tls, client = line.split(" ", 5)
            found.append(
                Logged(
                    port=int(port),
                    protocol=protocol,
                    status=int(status),
                    method=method,
                    tls=tls,
                    client=client.strip('"'),
                )
            )
        return [each for each in found if each.port == self.ports[server]]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def tls_nginx(servers: Mapping[str, Server], files: Mapping[str, bytes]) -> Iterator[TlsNginx]:
    """Run nginx with these servers; `files` lie in its directory and can be named in directives."""
    base = Path(tempfile.mkdtemp(prefix="obt-tls-"))
    base.chmod(0o755)
    root = base / "root"
    root.mkdir()
    root.chmod(0o777)
    for name, content in files.items():
        (base / name).write_bytes(content)
    ports = {name: _free_port() for name in servers}
    blocks = []
    for number, (name, server) in enumerate(servers.items()):
        certificate, key = server.certified.write(base, f"server{number}")
        directives = server.directives.replace("{base}", str(base))
        blocks.append(
            _SERVER.format(
                port=ports[name],
                certificate=certificate,
                key=key,
                root=root,
                protocols=server.protocols,
                directives=directives,
            )
        )
    configuration = base / "nginx.conf"
    configuration.write_text(_HEAD.format(base=base) + "".join(blocks) + "}\n")
    with open(base / "stderr", "wb") as errors:
        process = subprocess.Popen(
            ["nginx", "-p", str(base), "-c", str(configuration), "-g", "user root;"],
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        # nginx writes its pid when it listens.
        deadline = time.monotonic() + START_S
        while not (base / "pid").exists():
            assert process.poll() is None, (base / "stderr").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.01)
        yield TlsNginx(base=base, root=root, ports=ports)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(base, ignore_errors=True)


def make_file(nginx: TlsNginx, name: str, content: bytes) -> None:
    """Put a file where it is served."""
    with open(os.path.join(nginx.root, name), "wb") as file:
        file.write(content)
