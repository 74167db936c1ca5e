"""What is asked of a server, and who hears of the answer: the words between the engine and those who use it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from openbits.core.http import Response
from openbits.core.proxylist import Proxy
from openbits.worker.failure import Failure


class Body(enum.Enum):
    """What a handler wants of the body."""

    TAKE = "take"
    TAKE_SOCKET = "take socket"
    """Take it, and the connection itself where that is possible (see `on_socket`)."""
    DISCARD = "discard"
    STOP = "stop"
    """Nothing: end the request, and the connection with it."""


class Outgoing(Protocol):
    """The body of a request: `length` bytes that come when they have been read. Used by one request at a time."""

    length: int

    def rewind(self, position: int, wake: Callable[[], None]) -> None:
        """Begin, or begin again, at a position; `wake` is called in the loop whenever `take` had nothing."""

    def take(self, most: int) -> bytes | None:
        """The next bytes, at most so many, or None while they are being read. May raise TransferError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client certificate with its key, and the certificates that go along with it, in PEM."""

    name: str
    """For people."""
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Whom a request believes to be the server, and what it shows of itself.

    A server is believed when everything holds that is said here.
    """

    verifies_chain: bool = True
    """Whether somebody whom the machine trusts must vouch for its certificate."""
    verifies_name: bool = True
    keys: tuple[str, ...] = ()
    """Whose key must be one of these: hashes as in RFC 7469."""
    authorities: bytes = field(default=b"", repr=False)
    """Who is trusted, in PEM, in place of the system's trust store; empty for the latter."""
    identity: Identity | None = None


BELIEF: Final = Belief()
"""That of ordinary jobs."""


class Probe(enum.Enum):
    """Whether only a connection is made, so that the server shows its certificate."""

    NO = "no"
    CERTIFICATE = "certificate"
    STATUS = "status"
    """And a word of its authority that it has not been revoked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask for."""

    url: str
    headers: tuple[str, ...] = ()
    proxy_headers: tuple[str, ...] = ()
    """For the proxy alone: no server sees them."""
    head: bool = False
    fresh: bool = False
    """Use a new connection: an old one may be closed by now."""
    proxy: Proxy | None = None
    """Through which proxy; None: directly."""
    method: str = ""
    """Of an upload's request: it goes by HTTP/1.1, and says how long its body is even if there is none."""
    download_method: str = ""
    """Of a download that is not asked for by GET (H10): the request has no body."""
    outgoing: Outgoing | None = None
    """What is sent along; only with a method that is neither GET nor HEAD."""
    userinfo: str = field(default="", repr=False)
    """`name:password` as the file's URL had it, percent-encoded: it is never sent unless the server asks."""
    connection: int = 0
    """Where not 0: over no connection but those of requests with the same number, and by HTTP/1.1."""
    digs: bool = False
    """Whether the proxy wants a handshake before it makes a tunnel, or has had one on the tunnel that there is."""
    proxy_login: tuple[str, str] | None = field(default=None, repr=False)
    """User name and password for a SOCKS proxy, which is told them before anything else."""
    belief: Belief = BELIEF
    probe: Probe = Probe.NO
    """A client that has probed does nothing else any more."""
    index: int = 0
    """For which file it is."""

    @property
    def verb(self) -> str:
        """The method as the server sees it."""
        return "HEAD" if self.head else self.method or self.download_method or "GET"

    @property
    def is_tunnelled(self) -> bool:
        """Whether a proxy only passes bytes on between us and the server (CONNECT)."""
        proxy = self.proxy
        return proxy is not None and self.url[:6].lower() == "https:" and not proxy.is_socks

    def may_come_from_proxy(self, response: Response) -> bool:
        """Whether it may be the proxy that has answered, and not the server.

        What comes through a tunnel is the server's, whatever it says; a proxy's refusal of one has no header block.
        """
        proxy = self.proxy
        return proxy is not None and not proxy.is_socks and not (self.is_tunnelled and response.raw)


@dataclass(slots=True)
class Preparing:
    """Something that has to be found out before a request may go."""

    is_over: bool = False
    is_cancelled: bool = False
    is_for_people: bool = False
    """Whether a program is being asked, which may take as long as it likes."""

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.is_cancelled = True


class Handler(Protocol):
    """Who asked."""

    def on_response(self, response: Response) -> Body:
        """The header block is there, and the body begins, or there is none. May raise TransferError."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. May raise TransferError."""

    def on_socket(self, fd: int) -> None:
        """The rest of the body is to be read from this descriptor, which is the handler's; `on_end` will not come."""

    def on_end(self, failure: Failure | None) -> None:
        """The answer is complete, or was stopped as wished, or the request failed."""
