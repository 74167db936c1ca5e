"""Which connection carries a call: the service knows its caller by the connection alone.

The rule: a connection is opened while the thread wears the identity that the call is to carry, and carries calls of
that identity only.  A process that was forked, or that changed its real or saved ids for good, has no part in
the connections that were opened before.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from openbits.client.discovery import Endpoint
from openbits.client.identity import Identity, base_identity, current_identity
from openbits.client.transport import Answer, Connection, NoAnswer, StaleConnection, broken_call

MAX_IDLE_PER_IDENTITY: Final = 4
MAX_IDLE: Final = 64
"""A service that acts for thousands of users keeps the connections of those that it acted for last."""


class Keepable(Protocol):
    """A connection as far as keeping goes."""

    def close(self) -> None:
        """Close it."""

    def is_stale(self) -> bool:
        """Whether the other end has closed it."""


ConnectionT = TypeVar("ConnectionT", bound=Keepable)


class Holder(NamedTuple):
    """Which process, with which ids that impersonation leaves alone, opened a connection."""

    pid: int
    real_uid: int
    saved_uid: int
    real_gid: int
    saved_gid: int

    @classmethod
    def now(cls) -> Holder:
        """The calling process."""
        real_uid, _, saved_uid = os.getresuid()
        real_gid, _, saved_gid = os.getresgid()
        return cls(os.getpid(), real_uid, saved_uid, real_gid, saved_gid)


class _Kept(Generic[ConnectionT]):
    """What one holder keeps. A child gets a lock of its own: its parent's may have been held at the fork."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.lock = threading.Lock()
        self.idle: OrderedDict[Identity, list[ConnectionT]] = OrderedDict()
        self.count = 0


class Reserve(Generic[ConnectionT]):
    """The idle connections, by identity; safe for threads and for fork."""

    def __init__(self) -> None:
        self._kept: _Kept[ConnectionT] = _Kept(Holder.now())

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        kept = self._kept_by(Holder.now())
        with kept.lock:
            return {"identities": len(kept.idle), "idle": kept.count}

    def take(self, identity: Identity, holder: Holder) -> ConnectionT | None:
        """Return an idle connection of this identity, opened by this holder."""
        kept = self._kept_by(holder)
        with kept.lock:
            connections = kept.idle.get(identity, [])
            found = None
            while connections and found is None:
                connection = connections.pop()
                kept.count -= 1
                if connection.is_stale():
                    connection.close()
                else:
                    found = connection
            if not connections:
                kept.idle.pop(identity, None)
            return found

    def put(self, identity: Identity, holder: Holder, connection: ConnectionT) -> None:
        """Keep a connection that `holder` has opened, or close it."""
        surplus = [connection]
        if holder == Holder.now():
            kept = self._kept_by(holder)
            with kept.lock:
                connections = kept.idle.setdefault(identity, [])
                kept.idle.move_to_end(identity)
                if len(connections) < MAX_IDLE_PER_IDENTITY:
                    connections.append(surplus.pop())
                    kept.count += 1
                if kept.count > MAX_IDLE:
                    _, surplus = kept.idle.popitem(last=False)
                    kept.count -= len(surplus)
        for one in surplus:
            one.close()

    def close(self) -> None:
        """Close everything."""
        self._close(self._kept_by(Holder.now()))

    def _kept_by(self, holder: Holder) -> _Kept[ConnectionT]:
        kept = self._kept
        if kept.holder == holder:
            return kept
        self._kept = _Kept(holder)
        if kept.holder.pid == holder.pid:
            self._close(kept)
        # After a fork both processes hold the same connections; the child just lets go of them.
        return self._kept

    def _close(self, kept: _Kept[ConnectionT]) -> None:
        with kept.lock:
            connections = [one for many in kept.idle.values() for one in many]
            kept.idle.clear()
            kept.count = 0
        for connection in connections:
            connection.close()


def connect_as(endpoint: Endpoint, identity: Identity) -> Connection:
    """Connect while wearing `identity`; raises what `Endpoint.connect` and `impersonate` raise."""
    if identity == current_identity():
        return endpoint.connect()
    from openbits.client.impersonation import as_identity  # noqa: PLC0415 - most programs never impersonate

    with as_identity(identity):
        return endpoint.connect()


class ConnectionPool:
    """Connections to one service, safe for threads and for fork.

    `identity` is whose call it is; None: that of the calling thread outside of all `impersonate` blocks.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._reserve: Reserve[Connection] = Reserve()
        self._opened = 0

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.endpoint!r} {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {**self._reserve.statistics(), "opened": self._opened}

    def close(self) -> None:
        """Close all idle connections."""
        self._reserve.close()

    def exchange(self, request: bytes, *, repeatable: bool, identity: Identity | None = None) -> Answer:
        """Send a request and return the answer; the module `transport` says when it is sent twice."""
        caller = base_identity() if identity is None else identity
        holder = Holder.now()
        connection = self._reserve.take(caller, holder) or self._open(caller)
        for attempt in (1, 2):
            try:
                connection.send(request)
                answer, reusable = connection.read_answer()
            except StaleConnection as error:
                connection.close()
                if attempt == 2:
                    raise broken_call("it closes every connection") from error
            except NoAnswer as error:
                connection.close()
                if attempt == 2 or not repeatable:
                    raise broken_call("no answer came") from error
            except TimeoutError as error:
                connection.close()
                raise broken_call("no answer came in time") from error
            except BaseException:
                connection.close()
                raise
            else:
                if reusable:
                    self._reserve.put(caller, holder, connection)
                else:
                    connection.close()
                return answer
            connection = self._open(caller)
        raise AssertionError("the loop ends by itself")

    def open_stream(self, request: bytes, identity: Identity | None = None) -> Connection:
        """Send a request on a connection of its own, whose answer the caller reads."""
        caller = base_identity() if identity is None else identity
        for attempt in (1, 2):
            connection = self._open(caller)
            try:
                connection.send(request)
            except StaleConnection as error:
                connection.close()
                if attempt == 2:
                    raise broken_call("it closes every connection") from error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise AssertionError("the loop ends by itself")

    def _open(self, identity: Identity) -> Connection:
        self._opened += 1
        return connect_as(self.endpoint, identity)
