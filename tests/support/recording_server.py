"""A server that writes down every header of every request, and answers as the test says: redirects, challenges, Digest.

Digest is checked here by the formula of RFC 7616, written down once more and independently of the product.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

CONTENT = b"content " * 100
_PAIR = re.compile(r'([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",]+))')


@dataclass(frozen=True, kw_only=True)
class Got:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def proof(self) -> str:
        """The scheme of the Authorization; empty without one."""
        return self.headers.get("Authorization", "").partition(" ")[0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent back."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = CONTENT


@dataclass
class RecordingServer:
    """A context manager; `answer` says what to a request."""

    answer: Callable[[Got], Answer] = lambda _got: Answer()
    host: str = "127.0.0.1"
    got: list[Got] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer((self.host, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def url(self, path: str = "/file") -> str:
        """The address of a file."""
        return f"http://{self.host}:{self.port}{path}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                got = Got(method=self.command, path=self.path, headers=dict(self.headers.items()), body=body)
                outer.got.append(got)
                answer = outer.answer(got)
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in answer.headers):
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_PUT = do_POST = _do  # noqa: N815 - the library's names

            def log_message(self, *_: object) -> None:
                """Nothing: `got` is the log."""

        return Handler


def digest_answer(
    got: Got, *, user: str, password: str, algorithm: str, nonce: str = "the nonce", qop: str = "auth"
) -> Answer:
    """Let a request in that proves by Digest to be the user's; ask otherwise."""
    said = got.headers.get("Authorization", "")
    found = {name: quoted or plain for name, quoted, plain in _PAIR.findall(said)}
    if found and _expected(found, got.method, user, password, algorithm, nonce) == found.get("response"):
        return Answer()
    asked = f'Digest realm="here", nonce="{nonce}", algorithm={algorithm}, opaque="o\\"o"'
    if qop:
        asked += f', qop="{qop}"'
    return Answer(status=401, headers=(("WWW-Authenticate", asked),), body=b"no")


def _expected(
    found: Mapping[str, str], method: str, user: str, password: str, algorithm: str, nonce: str
) -> str | None:
    name = {"md5": "md5", "sha-256": "sha256"}[algorithm.lower().removesuffix("-sess")]
    if found.get("username") != user or found.get("nonce") != nonce or found.get("opaque") != 'o\\"o':
        return None

    def h(*parts: str) -> str:
        return hashlib.new(name, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    secret = h(user, "here", password)
    if algorithm.lower().endswith("-sess"):
        secret = h(secret, nonce, found["cnonce"])
    request = h(method, found["uri"])
    if "qop" in found:
        return h(secret, nonce, found["nc"], found["cnonce"], found["qop"], request)
    return h(secret, nonce, request)
