"""Carries out calls and scripts over a pool of connections, blocking."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from openbits.client.calls import Call, Script
from openbits.client.discovery import Endpoint
from openbits.client.identity import Identity, base_identity
from openbits.client.pool import ConnectionPool
from openbits.errors import BitsError

T = TypeVar("T")


class Session:
    """The blocking half of the client; safe for threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.pool = ConnectionPool(endpoint)
        self.listeners: dict[Identity, Any] = {}
        """Who hears what becomes of jobs, by identity: see `listening`, which not every program needs."""

    def __repr__(self) -> str:
        return f"<Session {self.pool!r}>"

    def perform(self, work: Call[T] | Script[T], identity: Identity | None = None) -> T:
        """Carry out a call or a script as `identity`, and return its result; raises BitsError.

        None: as whoever the calling thread is outside of all `impersonate` blocks.
        """
        caller = base_identity() if identity is None else identity
        if isinstance(work, Call):
            return work.result(self.pool.exchange(work.encode(), repeatable=work.repeatable, identity=caller))
        return self._run(work, caller)

    def close(self) -> None:
        """Close the connections."""
        self.pool.close()

    def _run(self, script: Generator[Call[Any], Any, T], caller: Identity) -> T:
        try:
            call = next(script)
            while True:
                try:
                    result = self.perform(call, caller)
                except BitsError as error:
                    call = script.throw(error)
                else:
                    call = script.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
