"""The same application below a path of another one, by ASGI: uploads, downloads, paths, and clients that go away."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import MutableMapping
from typing import Any

import pytest

from openbits.server.asgi import AsgiApplication, create_application
from openbits.server.settings import parse_settings

PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"
Parts = list[bytes | None]


class Server:
    """As much of an ASGI server as a test needs."""

    def __init__(self, application: AsgiApplication, *, root_path: str = "", has_raw_path: bool = True) -> None:
        self._application = application
        self._root_path = root_path
        self._has_raw_path = has_raw_path

    async def ask(
        self, method: str, path: str, headers: dict[str, str], parts: Parts | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; a part that is None is the client's leaving."""
        left = list(parts or [b""])
        length = sum(len(part) for part in left if part)
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if not left:
                await asyncio.sleep(3600)
            part = left.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        named = {"host": "h", "content-length": str(length), **headers}
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": self._root_path + path,
            "root_path": self._root_path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": ("192.0.2.1", 5),
            "scheme": "http",
            "http_version": "1.1",
        }
        if self._has_raw_path:
            scope["raw_path"] = (self._root_path + path).encode()
        async with asyncio.timeout(10):
            await self._application(scope, receive, send)
        if not sent:
            return 0, {}, b""
        start, *bodies = sent
        answered = {name.decode(): value.decode() for name, value in start["headers"]}
        assert not bodies[-1].get("more_body", False)
        return start["status"], answered, b"".join(body["body"] for body in bodies)

    async def create(self, path: str) -> dict[str, str]:
        """Create a session; return the header that names it."""
        headers = {"bits-packet-type": "Create-Session", "bits-supported-protocols": PROTOCOL}
        status, answered, _ = await self.ask("BITS_POST", path, headers)
        assert status == 200, answered
        return {"bits-session-id": answered["bits-session-id"], "bits-packet-type": "Fragment"}


def make(root: pathlib.Path) -> AsgiApplication:
    settings = parse_settings({"root": str(root), "directory": {"/": {"upload_enabled": True}}}, source="test")
    return create_application(settings)


@pytest.mark.asyncio
@pytest.mark.parametrize("root_path", ["", "/mounted/here", "/mit ümlaut"])
@pytest.mark.parametrize("has_raw_path", [True, False])
async def test_a_file_goes_up_and_comes_down_below_any_path(
    tmp_path: pathlib.Path, root_path: str, has_raw_path: bool
) -> None:
    application = make(tmp_path)
    # Servers send raw paths encoded; the harness does as they do.
    server = Server(application, root_path=root_path, has_raw_path=has_raw_path and root_path.isascii())
    content = os.urandom(1_500_000)
    session = await server.create("/file.bin")
    parts: Parts = [content[first : first + 65_536] for first in range(0, len(content), 65_536)]
    headers = {**session, "content-range": f"bytes 0-{len(content) - 1}/{len(content)}"}
    status, answered, _ = await server.ask("BITS_POST", "/file.bin", headers, parts)
    assert (status, answered["bits-received-content-range"]) == (200, str(len(content)))
    assert (tmp_path / "file.bin").read_bytes() == content
    status, answered, body = await server.ask("GET", "/file.bin", {"range": "bytes=1000-300000"})
    assert (status, body) == (206, content[1000:300001])
    status, answered, body = await server.ask("HEAD", "/file.bin", {})
    assert (status, answered["content-length"], body) == (200, str(len(content)), b"")
    await application.close()


@pytest.mark.asyncio
async def test_what_came_before_the_client_left_is_kept(tmp_path: pathlib.Path) -> None:
    application = make(tmp_path)
    server = Server(application)
    session = await server.create("/f")
    headers = {**session, "content-range": "bytes 0-99/100", "content-length": "100"}
    await server.ask("BITS_POST", "/f", headers, [b"x" * 30, b"x" * 10, None])
    status, answered, _ = await server.ask(
        "BITS_POST", "/f", {**session, "content-range": "bytes 90-99/100"}, [b"y" * 10]
    )
    assert (status, answered["bits-received-content-range"]) == (416, "40")
    await application.close()


@pytest.mark.asyncio
async def test_the_lifespan_starts_and_ends_it(tmp_path: pathlib.Path) -> None:
    application = make(tmp_path)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> MutableMapping[str, Any]:
        return dict(messages.pop(0))

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await application({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    # The working directory is free again.
    again = make(tmp_path)
    await again({"type": "lifespan"}, _script([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]), send)


def _script(messages: list[dict[str, str]]) -> Any:
    async def receive() -> dict[str, str]:
        return messages.pop(0)

    return receive


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/../x", "/%2e%2e/x", "/a%2fb", "//x"])
async def test_paths_are_as_strict_here(tmp_path: pathlib.Path, path: str) -> None:
    (tmp_path / "root").mkdir()
    application = make(tmp_path / "root")
    (tmp_path / "x").write_text("secret")
    status, _, body = await Server(application).ask("GET", path, {})
    assert status == 400
    assert b"secret" not in body
    await application(
        {"type": "lifespan"}, _script([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]), _drop
    )


async def _drop(_message: MutableMapping[str, Any]) -> None:
    pass
