"""What all handlers of the local API have in common: who calls, the body of the request, the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from openbits.api import render, requests
from openbits.api.peer import Accounts
from openbits.core.model import Caller
from openbits.service.services import Services

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
LARGE_BODY_BYTES = 256 * 1024
HEARTBEAT_S = 15.0
"""How often a stream says something when there is nothing to say: a client takes silence for death."""


@dataclass(slots=True)
class _Turns:
    """Who may read a large body."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class HandlerBase:
    """See the module's docstring."""

    def __init__(self, services: Services, accounts: Accounts, *, mode: str, read_timeout_s: float) -> None:
        self._services = services
        self._manager = services.manager
        self._accounts = accounts
        self._mode = mode
        self._read_timeout_s = read_timeout_s
        self._large_bodies: dict[int, _Turns] = {}
        self._description: bytes | None = None

    async def _body(self, request: web.Request, cls: type[Any]) -> Any:
        size = request.content_length
        if size is not None and size <= LARGE_BODY_BYTES:
            return await requests.read_body(request, cls, timeout_s=self._read_timeout_s)
        async with self._turn(request[CALLER].identity.uid):
            return await requests.read_body(request, cls, timeout_s=self._read_timeout_s)

    @contextlib.asynccontextmanager
    async def _turn(self, uid: int) -> AsyncIterator[None]:
        """Large bodies of an account, one after the other: many connections must not fill the memory with them."""
        turns = self._large_bodies.setdefault(uid, _Turns())
        turns.wanted += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._large_bodies[uid]


def answer(document: Any, *, status: int = 200) -> web.Response:
    """An answer with a JSON body."""
    return web.Response(body=render.to_json(document), status=status, content_type="application/json")


def event(kind: str, document: Any, event_id: int | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {kind}\n" if event_id is None else f"id: {event_id}\nevent: {kind}\n"
    return head.encode("ascii") + b"data: " + render.to_json(document) + b"\n\n"
