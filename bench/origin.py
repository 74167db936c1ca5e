"""The servers that are downloaded from: an nginx of our own on loopback, and one that never finishes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.running import BenchError, Command, run

_START_TIMEOUT_S: Final = 10.0
_BACKLOG: Final = 511

_CONFIGURATION: Final = """
daemon off;
worker_processes 2;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type application/octet-stream;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    ssl_certificate {prefix}/certificate.pem;
    ssl_certificate_key {prefix}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen 127.0.0.1:{http_port};
        listen 127.0.0.1:{https_port} ssl;
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A running nginx; `root` is the directory that it serves."""

    root: str
    http_url: str
    https_url: str
    certificate: str
    """The certificate that it shows, which vouches for itself."""


@contextlib.contextmanager
def serve(prefix: str, root: str) -> Iterator[Origin]:
    """Run nginx over the files in `root`. Raises BenchError."""
    _make_certificate(prefix)
    with contextlib.ExitStack() as stack:
        # nginx takes over sockets that already listen: no port can be snatched away, and nobody has to wait.
        sockets = [stack.enter_context(_listen()) for _ in range(2)]
        for sock in sockets:
            # nginx makes its own sockets so, but not those that it is given; all its processes wait on these.
            sock.setblocking(False)
        http_port, https_port = (sock.getsockname()[1] for sock in sockets)
        user = "user root;" if os.geteuid() == 0 else ""
        path = os.path.join(prefix, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                _CONFIGURATION.format(prefix=prefix, root=root, user=user, http_port=http_port, https_port=https_port)
            )
        process = stack.enter_context(_nginx(prefix, path, [sock.fileno() for sock in sockets]))
        for sock in sockets:
            sock.close()
        origin = Origin(
            root=root,
            http_url=f"http://127.0.0.1:{http_port}",
            https_url=f"https://127.0.0.1:{https_port}",
            certificate=os.path.join(prefix, "certificate.pem"),
        )
        _check_answers(origin, process, prefix)
        yield origin


def _listen() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(_BACKLOG)
    return sock


@contextlib.contextmanager
def _nginx(prefix: str, configuration: str, fds: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "NGINX": "".join(f"{fd};" for fd in fds)}
    command = ["nginx", "-p", prefix, "-c", configuration, "-e", os.path.join(prefix, "error.log")]
    process = subprocess.Popen(command, env=environment, pass_fds=fds, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _check_answers(origin: Origin, process: subprocess.Popen[bytes], prefix: str) -> None:
    with open(os.path.join(origin.root, "hello"), "w", encoding="ascii") as file:
        file.write("hello")
    try:
        with urllib.request.urlopen(f"{origin.http_url}/hello", timeout=_START_TIMEOUT_S) as answer:
            if answer.read() == b"hello" and process.poll() is None:
                return
    except OSError:
        pass
    with open(os.path.join(prefix, "error.log"), encoding="utf-8", errors="replace") as log:
        raise BenchError(f"nginx does not serve files: {log.read()[-500:]}")


def _make_certificate(prefix: str) -> None:
    out = ["-keyout", os.path.join(prefix, "key.pem"), "-out", os.path.join(prefix, "certificate.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=openbits-bench", "-addext", "subjectAltName=IP:127.0.0.1"]
    run(Command(arguments=["openssl", "req", "-x509", *kind, *name, *out]))


@contextlib.contextmanager
def never_finishing() -> Iterator[str]:
    """Serve a file whose last byte never comes; yields its URL."""
    taken: list[socket.socket] = []
    with _listen() as listener:

        def serve_all() -> None:
            # Closing a listening socket does not wake who waits in accept; shutting it down does.
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    taken.append(sock)
                    sock.recv(65536)
                    sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "1"\r\n\r\nbeginning')

        thread = threading.Thread(target=serve_all, name="never-finishing", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/endless"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in taken:
                sock.close()
