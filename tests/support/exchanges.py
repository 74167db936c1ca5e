"""An `Exchange` without a network: the body comes from memory, at the test's pace; the answer is kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from openbits.server.exchange import Body, Client, ConnectionLost, Head, Headers, StoreFailed
from openbits.upload.packets import METHOD


class FakeExchange:
    """One request; `answer` is (status, headers by lower-case name) when it has been answered."""

    def __init__(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        method: str = METHOD,
        user: str | None = None,
        host: str = "192.0.2.1",
        query: str = "",
        length: int | None = -1,
    ) -> None:
        names = {name.lower(): value for name, value in headers.items()}
        size = len(body) if length == -1 else length
        raw = path.encode("latin-1")
        self._head = Head(
            method=method,
            target=raw,
            path=raw,
            query=query.encode("latin-1"),
            headers=tuple(names.items()),
            client=Client(host=host, port=4711),
            authority="server.example",
            user=user,
            content_length=size,
        )
        self._body = body
        self._unread = size or 0
        self.cut_after: int | None = None
        """The client goes away after so many bytes of the body."""
        self.write_error: OSError | None = None
        self.hold: asyncio.Event | None = None
        """The body goes on after `cut_after` bytes only when this is set."""
        self.is_held = asyncio.Event()
        """Set while the body stands at `hold`."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answered = asyncio.Event()

    @property
    def head(self) -> Head:
        return self._head

    @property
    def is_answered(self) -> bool:
        return self.status != 0

    async def receive_to_file(self, fd: int, offset: int, length: int, *, skip: int = 0) -> int:
        self._unread -= skip
        position = len(self._body) - self._unread
        data = self._body[position : position + length]
        if self.hold is not None and self.cut_after is not None and position + len(data) > self.cut_after:
            before = data[: self.cut_after - position]
            os.pwrite(fd, before, offset)
            self.is_held.set()
            await self.hold.wait()
        elif self.cut_after is not None and position + len(data) > self.cut_after:
            before = data[: max(0, self.cut_after - position)]
            os.pwrite(fd, before, offset)
            raise ConnectionLost(len(before), "gone")
        if self.write_error is not None:
            half = data[: len(data) // 2]
            os.pwrite(fd, half, offset)
            raise StoreFailed(len(half), self.write_error)
        os.pwrite(fd, data, offset)
        self._unread -= len(data)
        return len(data)

    async def discard_body(self, at_most: int) -> bool:
        if self.cut_after is not None and self.hold is None:
            raise ConnectionLost(0, "gone")
        self._unread -= min(at_most, self._unread)
        return not self._unread

    async def read_body(self, at_most: int) -> bytes:
        raise NotImplementedError

    async def respond(self, status: int, headers: Headers = (), body: Body = b"") -> None:
        assert not self.is_answered, "answered twice"
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.answered.set()
