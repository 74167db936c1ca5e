"""A server that takes notices: it writes down what is POSTed to it, and answers as the path says.

`/ok`, `/created` … with a status; `/slow` never answers; `/endless` answers 200 and then talks without end.
"""

from __future__ import annotations

import http.server
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Posted:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HookServer:
    """A context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        self.is_over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._scheme = "http" if tls is None else "https"
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="hooks", kwargs={"poll_interval": 0.05})

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """The address of a path."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.posted.append(Posted(method=handler.command, path=handler.path, headers=headers, body=body))
        kind = handler.path.strip("/").split("?")[0]
        try:
            if kind == "slow":
                self.is_over.wait(30)
                handler.close_connection = True
                return
            status = {"ok": 200, "endless": 200, "created": 201, "empty": 204, "moved": 302, "denied": 403}.get(
                kind, 500
            )
            handler.send_response(status)
            if kind == "moved":
                handler.send_header("Location", self.url("/ok"))
            if kind == "endless":
                handler.send_header("Connection", "close")
                handler.end_headers()
                while not self.is_over.wait(0.01):
                    handler.wfile.write(b"x" * 100)
                handler.close_connection = True
                return
            answer = b"" if status == 204 else b'{"thanks": true}'
            if status != 204:
                handler.send_header("Content-Length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            handler.close_connection = True
