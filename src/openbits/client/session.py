"""Carries out calls and scripts over a pool of connections, blocking."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any, TypeVar

from openbits.client.calls import Call, Script
from openbits.client.discovery import Endpoint
from openbits.client.pool import ConnectionPool, process_default
from openbits.errors import BitsError

T = TypeVar("T")


class Session:
    """The blocking half of the client; safe for threads."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Hashable] = process_default) -> None:
        self.pool = ConnectionPool(endpoint, key)

    def __repr__(self) -> str:
        return f"<Session {self.pool!r}>"

    def perform(self, work: Call[T] | Script[T]) -> T:
        """Carry out a call or a script and return its result; raises BitsError."""
        if isinstance(work, Call):
            return work.result(self.pool.exchange(work.encode(), repeatable=work.repeatable))
        return self._run(work)

    def close(self) -> None:
        """Close the connections."""
        self.pool.close()

    def _run(self, script: Generator[Call[Any], Any, T]) -> T:
        try:
            call = next(script)
            while True:
                try:
                    result = self.perform(call)
                except BitsError as error:
                    call = script.throw(error)
                else:
                    call = script.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
