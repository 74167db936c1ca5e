"""Which connection carries a call: the service knows its caller by the connection alone.

Connections are kept per identity.  A connection carries the rights that the calling thread had when it
was made, so one that was made by one identity is never lent to another; `key` says whose call it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Final

from openbits.client.discovery import Endpoint
from openbits.client.transport import Answer, Connection, NoAnswer, StaleConnection, broken_call

MAX_IDLE_PER_KEY: Final = 4


def process_default() -> Hashable:
    """The key of a proxy object with the default blanket: every call carries the process's identity."""
    return "process"


class ConnectionPool:
    """Connections to one service, safe for threads and for fork."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Hashable] = process_default) -> None:
        self.endpoint = endpoint
        self._key = key
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[Connection]] = {}
        self._pid = os.getpid()
        self._opened = 0

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.endpoint!r} {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        with self._lock:
            idle = sum(len(connections) for connections in self._idle.values())
            return {"identities": len(self._idle), "idle": idle, "opened": self._opened}

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            connections = [one for many in self._idle.values() for one in many]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def exchange(self, request: bytes, *, repeatable: bool) -> Answer:
        """Send a request and return the answer; the module `transport` says when it is sent twice."""
        key = self._key()
        connection = self._take(key) or self._open()
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
                self._give_back(key, connection, reusable=reusable)
                return answer
            connection = self._open()
        raise AssertionError("the loop ends by itself")

    def open_stream(self, request: bytes) -> Connection:
        """Send a request on a connection of its own, whose answer the caller reads."""
        for attempt in (1, 2):
            connection = self._open()
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

    def _open(self) -> Connection:
        with self._lock:
            self._opened += 1
        return self.endpoint.connect()

    def _take(self, key: Hashable) -> Connection | None:
        with self._lock:
            if self._pid != os.getpid():
                # After a fork both processes hold the same connections: the child leaves them alone.
                for connections in self._idle.values():
                    for connection in connections:
                        connection.close()
                self._idle.clear()
                self._pid = os.getpid()
            connections = self._idle.get(key, [])
            while connections:
                connection = connections.pop()
                if not connection.is_stale():
                    return connection
                connection.close()
        return None

    def _give_back(self, key: Hashable, connection: Connection, *, reusable: bool) -> None:
        with self._lock:
            connections = self._idle.setdefault(key, [])
            if reusable and self._pid == os.getpid() and len(connections) < MAX_IDLE_PER_KEY:
                connections.append(connection)
                return
        connection.close()
