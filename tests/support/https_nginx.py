"""A real nginx that speaks TLS with the certificate that a test gives it, and may want one from its clients."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

from support.ca import Authority, Certified
from support.nginx import free_port

START_S = 10.0
_CONFIGURATION = """
daemon off;
master_process off;
pid {base}/pid;
error_log {base}/errors warn;
events {{ worker_connections 128; }}
http {{
    log_format requests '$request_method $uri $status $ssl_client_verify $server_protocol';
    access_log {base}/requests requests;
    default_type application/octet-stream;
    client_body_temp_path {base}/t1;
    proxy_temp_path {base}/t2;
    fastcgi_temp_path {base}/t3;
    uwsgi_temp_path {base}/t4;
    scgi_temp_path {base}/t5;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {base}/server.pem;
        ssl_certificate_key {base}/server.key;
        {clients}
        root {base}/root;
        dav_methods PUT;
        client_max_body_size 0;
    }}
}}
"""


@dataclass(kw_only=True)
class HttpsNginx:
    """A running server."""

    base: Path
    port: int
    process: Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """The directory that it serves."""
        return self.base / "root"

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        """The address of a file."""
        return f"https://{host}:{self.port}/{name}"

    def requests(self) -> list[str]:
        """Method, path, status, what became of the client's certificate, and protocol of each request."""
        with contextlib.suppress(FileNotFoundError):
            return (self.base / "requests").read_text(encoding="utf-8").splitlines()
        return []

    def show(self, certified: Certified) -> None:
        """From now on show this certificate."""
        self.stop()
        certified.write(self.base, "server")
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self.process = Popen(["nginx", "-p", str(self.base), "-c", str(self.base / "nginx.conf")], stdin=DEVNULL)
        deadline = time.monotonic() + START_S
        while not (self.base / "pid").exists():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.01)

    def errors(self) -> str:
        """What nginx complained of."""
        with contextlib.suppress(FileNotFoundError):
            return (self.base / "errors").read_text(encoding="utf-8", errors="replace")
        return ""

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None
            (self.base / "pid").unlink(missing_ok=True)


@contextlib.contextmanager
def running_https_nginx(certified: Certified, *, clients_of: Authority | None = None) -> Iterator[HttpsNginx]:
    """Run nginx for the length of a `with` block; with `clients_of` only clients whom that authority knows get in."""
    base = Path(tempfile.mkdtemp(prefix="obt-tls-"))
    server = HttpsNginx(base=base, port=free_port())
    try:
        server.root.mkdir()
        certified.write(base, "server")
        clients = ""
        if clients_of is not None:
            (base / "clients.pem").write_bytes(clients_of.pem)
            clients = f"ssl_client_certificate {base}/clients.pem; ssl_verify_client on;"
        text = _CONFIGURATION.format(base=base, port=server.port, clients=clients)
        (base / "nginx.conf").write_text(text, encoding="ascii")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
