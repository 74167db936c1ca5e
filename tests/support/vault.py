"""A web server that asks for a password, and one that only writes down what it gets; and where a secret may have gone.

`Vault` lets in whoever proves by Basic, or by a token in a header of its own, what the test says; it can send the file
slowly, or lead away to `Recorder`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4096
SLOW_PART = 16 * 1024


@dataclass(kw_only=True)
class Seen:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass(kw_only=True)
class Vault:
    """What the server lets in, and what it has seen."""

    port: int
    users: dict[str, str] = field(default_factory=dict)
    """Passwords by user name."""
    tokens: set[str] = field(default_factory=set)
    """What lets in as X-Token."""
    leads_to: str = ""
    """Where /away leads."""
    seen: list[Seen] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    """/slow sends its first part, and the rest when this is set."""
    is_slow: threading.Event = field(default_factory=threading.Event)
    """Set when the first part of /slow has been sent."""

    def url(self, path: str, userinfo: str = "") -> str:
        """The URL of a path."""
        return f"http://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}{path}"

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether somebody is let in."""
        if headers.get("X-Token") in self.tokens:
            return True
        scheme, _, proof = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        user, _, password = base64.b64decode(proof).decode("utf-8").partition(":")
        return user in self.users and self.users[user] == password

    def requests_of(self, path: str) -> list[Seen]:
        """Requests of a path."""
        return [each for each in self.seen if each.path == path]


@contextlib.contextmanager
def running_vault() -> Iterator[Vault]:
    """A server on a free port for the length of a `with` block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _note(self, status: int) -> None:
            vault.seen.append(
                Seen(method=self.command, path=self.path, headers=dict(self.headers.items()), status=status)
            )

        def _answer(self, status: int, body: bytes = b"", **fields: str) -> None:
            self._note(status)
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/open":
                self._answer(200, CONTENT)
            elif self.path == "/away":
                self._answer(302, Location=vault.leads_to)
            elif not vault.admits(dict(self.headers.items())):
                self._answer(401, b"no", WWW_Authenticate='Basic realm="vault"')
            elif self.path == "/slow":
                self._slow()
            else:
                self._answer(200, CONTENT, ETag='"1"')

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if vault.admits(dict(self.headers.items())):
                self._answer(201)
            else:
                self._answer(401, b"no", WWW_Authenticate='Basic realm="vault"')

        def _slow(self) -> None:
            self._note(200)
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:SLOW_PART])
            self.wfile.flush()
            vault.is_slow.set()
            vault.release.wait(60)
            with contextlib.suppress(OSError):
                self.wfile.write(CONTENT[SLOW_PART:])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        vault = Vault(port=server.server_port)
        thread = threading.Thread(target=server.serve_forever, name="vault")
        thread.start()
        try:
            yield vault
        finally:
            vault.release.set()
            server.shutdown()
            thread.join(20)


def shapes_of(secret: str, user: str = "alice") -> list[bytes]:
    """What a secret looks like when it has got out: as it is, and as Basic sends it."""
    # Only the part of the encoded pair that no other user name would change.
    pairs = [base64.b64encode(f"{name}:{secret}".encode())[len(name) + 8 : -8] for name in (user, "u")]
    return [secret.encode(), secret.encode("utf-16-le"), *pairs]


def processes_that_show(shapes: list[bytes]) -> list[str]:
    """Whose arguments or environment have one of these in them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                content = file.read()
                found += [f"{pid} {name}" for shape in shapes if shape in content]
    return found


def files_that_hold(directory: str, shapes: list[bytes]) -> list[str]:
    """The files below a directory that have one of these in them."""
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        content = file.read()
                    found += [path for shape in shapes if shape in content]
    return found
