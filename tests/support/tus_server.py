"""A real tus server, a published one, in a process of its own: killed and started again as often as a test wants.

    with TusServer() as server:
        ... server.url, server.contents(), server.asked()

`server.start(hold_patch=2)` lets the second PATCH be stored and its answer never come; `wait_held` tells when.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Self

START_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, when it had been answered (or would have been)."""

    method: str
    path: str
    offset: int
    """Upload-Offset of the request; -1 without."""
    status: int


class TusServer:
    """The process and its directory."""

    def __init__(self) -> None:
        self.base = tempfile.mkdtemp(prefix="openbits-tus-")
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Where uploads are made."""
        return f"http://127.0.0.1:{self.port}/files/"

    def start(self, *, hold_patch: int = 0) -> None:
        """Start and wait until it listens."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("ready"))
        with open(self._path("errors"), "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, __file__, self.base, str(self.port), str(hold_patch)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
        self._wait(lambda: os.path.exists(self._path("ready")), "it to be ready")

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None

    def wait_held(self) -> None:
        """Wait until the PATCH that `start` named has been stored."""
        self._wait(lambda: any(asked.status == 0 for asked in self.asked()), "a PATCH to be held")

    def asked(self) -> list[Asked]:
        """All requests of all processes; a held one has status 0."""
        with contextlib.suppress(FileNotFoundError), open(self._path("asked"), encoding="ascii") as file:
            words = [line.split() for line in file]
            return [
                Asked(method=method, path=path, offset=int(offset), status=int(status))
                for method, path, offset, status in words
            ]
        return []

    def contents(self) -> list[bytes]:
        """What has been uploaded, whole or not."""
        found = []
        # Files come and go while they are looked at.
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._path("files"))):
                path = os.path.join(self._path("files"), name)
                if os.path.isfile(path) and not name.endswith((".info", ".lock")):
                    with open(path, "rb") as file:
                        found.append(file.read())
        return found

    def _path(self, name: str) -> str:
        return os.path.join(self.base, name)

    def _wait(self, condition: Callable[[], bool], text: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, f"waited {START_S} s for {text}: {self.errors()}"
            time.sleep(0.01)

    def errors(self) -> str:
        """What it said."""
        with open(self._path("errors"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.base)


# --- the process -------------------------------------------------------------------------------

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Witness:
    """Writes down what was asked, and keeps one answer back."""

    def __init__(self, application: Application, base: str, hold_patch: int) -> None:
        self._application = application
        self._path = os.path.join(base, "asked")
        self._hold_patch = hold_patch
        self._patches = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        is_held = False
        if scope["method"] == "PATCH":
            self._patches += 1
            is_held = self._patches == self._hold_patch
        offset = dict(scope["headers"]).get(b"upload-offset", b"-1").decode("ascii")

        async def witness(message: Scope) -> None:
            if message["type"] == "http.response.start":
                status = 0 if is_held else message["status"]
                _append(self._path, f"{scope['method']} {scope['raw_path'].decode('ascii')} {offset} {status}\n")
                if is_held:
                    await asyncio.Event().wait()
            await send(message)

        await self._application(scope, receive, witness)


def _append(path: str, line: str) -> None:
    with open(path, "a", encoding="ascii") as file:
        file.write(line)


async def serve(base: str, port: int, hold_patch: int) -> None:
    """Run the server until it is killed."""
    import uvicorn  # noqa: PLC0415  # only the process needs them
    from fastapi import FastAPI  # noqa: PLC0415
    from tuspyserver import create_tus_router  # noqa: PLC0415

    application = FastAPI()
    application.include_router(create_tus_router(prefix="files", files_dir=os.path.join(base, "files")))
    witness = Witness(application, base, hold_patch)
    # The socket listens before the server runs: whoever connects then waits for it.
    with socket.create_server(("127.0.0.1", port)) as listener:
        _append(os.path.join(base, "ready"), "")
        await uvicorn.Server(uvicorn.Config(witness, log_level="warning")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
