"""One HTTP request and its answer, as the application sees them, whatever carries them.

The rules that every exchange keeps:

- The head is text that a stranger wrote: it is complete and well-formed HTTP when the application sees it, and nothing
  in it has been decoded, joined or made a path (that is `openbits.server.beneath`'s).
- One answer per exchange.  What is still unread of the body when the answer goes out is drained up to a small limit, or
  the connection ends with the answer: the rest of a body is never taken for a request.
- `100 Continue` is sent when the application begins to read the body, and never otherwise.
- Content-Length, Transfer-Encoding, Connection and Date of the answer are the exchange's to write, not the
  application's.
- A client that goes away is no error of ours: reading ends with ConnectionLost, answering ends without a word.  The
  application is not interrupted by it: what it has begun, it finishes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

DRAIN_LIMIT_BYTES: Final = 65_536
"""How much of an unread body is swallowed before the answer ends the connection instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who is at the other end, as far as the network says; behind a trusted proxy, whom the proxy names."""

    host: str
    """An address without brackets or zone; empty where there is none (a Unix socket)."""
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's head."""

    method: str
    """As it was sent: methods know case."""
    target: bytes
    """The request target as it was sent."""
    path: bytes
    """The target's path, still percent-encoded, without the query and without what the application is mounted under;
    begins with a slash."""
    query: bytes = b""
    """What follows the question mark, as it was sent."""
    root_path: bytes = b""
    """What the application is mounted under, percent-encoded, without a slash at its end."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case, values without the blanks around them, one octet one character (Latin-1), in their order."""
    client: Client = field(default_factory=lambda: Client(host=""))
    scheme: str = "http"
    """`http` or `https`, as the client's end sees it."""
    authority: str = ""
    """The host, with its port where one was given, that the client speaks to (Host, or a trusted X-Forwarded-Host)."""
    user: str | None = None
    """The account name that a trusted proxy has made sure of; None is nobody in particular."""
    http_version: str = "1.1"
    content_length: int | None = None
    """None without Content-Length; several that differ have been refused before."""
    is_chunked: bool = False
    """Whether the body comes in chunks (never together with a content_length)."""

    def get(self, name: str) -> str | None:
        """Return the only, or the first, value of a header; `name` in lower case."""
        return next((value for each, value in self.headers if each == name), None)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return all values of a header; `name` in lower case."""
        return tuple(value for each, value in self.headers if each == name)

    @property
    def has_body(self) -> bool:
        """Whether anything follows the head (a chunked body may turn out to be empty)."""
        return self.is_chunked or bool(self.content_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSlice:
    """Bytes of an open regular file; the descriptor stays the application's, which closes it after respond()."""

    fd: int
    offset: int
    length: int


Part = bytes | FileSlice
Body = bytes | FileSlice | tuple[Part, ...]
"""What is sent after the head: its length is always known beforehand."""
Headers = tuple[tuple[str, str], ...]
"""Of an answer: names as they are to be written, values that Latin-1 can write."""


class BodyFailure(Exception):
    """Not all of the body is where it was to be put; `stored_bytes` of it are, from the beginning, without holes."""

    def __init__(self, stored_bytes: int, reason: str) -> None:
        super().__init__(reason)
        self.stored_bytes = stored_bytes


class ConnectionLost(BodyFailure):
    """The client has gone, or has been silent for too long, before the whole body was here.

    An answer reaches nobody; the application may return without one.
    """


class StoreFailed(BodyFailure):
    """The file could not be written (a full disk, a quota …): `error` is the system's.

    The client still listens; the rest of the body is drained, or the connection closed, as for any unread body.
    """

    def __init__(self, stored_bytes: int, error: OSError) -> None:
        super().__init__(stored_bytes, str(error))
        self.error = error


class BodyTooLarge(Exception):
    """There is more of the body than the caller wants to read."""


class Exchange(Protocol):
    """One request, and the means to answer it."""

    @property
    def head(self) -> Head:
        """What was asked."""

    async def receive_to_file(self, fd: int, offset: int, length: int, *, skip: int = 0) -> int:
        """Leave out `skip` bytes of the body, write the next `length` to the file at `offset`; return how many came.

        The fast way: the bytes do not pass through the application, and the loop does not wait for the disk.  May be
        called several times for consecutive parts.  Fewer than `length` bytes are returned only when the body ends
        before; nothing is awaited beyond its end.  Nothing is written to `fd` after it has returned, raised or been
        cancelled; the file's own offset is not used.  Nothing is made durable: that is the caller's (fdatasync).  A
        chunked body may not be read at all (no upload protocol needs it): it is answered with 411, and the connection
        ends.  Raises ConnectionLost, StoreFailed.
        """

    async def discard_body(self, at_most: int) -> bool:
        """Read what is left of the body, up to `at_most` bytes, and forget it; return whether that was all of it.

        Sends no `100 Continue`: a client that waits for one sends nothing, and is told the answer instead.  Raises
        ConnectionLost.
        """

    async def read_body(self, at_most: int) -> bytes:
        """Return what is left of the body; raises BodyTooLarge when that is more than `at_most`, ConnectionLost."""

    async def respond(self, status: int, headers: Headers = (), body: Body = b"") -> None:
        """Send the answer; returns when all of it has been given to the network, or the client has gone.

        To HEAD, and with 204 and 304, goes the same head and no body: the caller need not tell them apart.  A
        file that turns out to be shorter than its slice ends the connection: the client sees that it has too little.
        """

    @property
    def is_answered(self) -> bool:
        """Whether respond() has been called."""


Application = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange. What it raises is logged, and answered with 500 when nothing was answered before."""
