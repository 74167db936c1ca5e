"""The calls about peer caching (C6)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from openbits.api import wire
from openbits.api.base import CALLER, HandlerBase, answer
from openbits.api.peercaching_wire import CacheRecords, PeerCachingIn, PeerCachingOut, PeerCachingValues, Peers
from openbits.core.peercaching import EFFECT, PeerCachingSettings
from openbits.errors import BitsError
from openbits.service.peercaching import PeerCachingState

_NAMES: Final = {
    "configuration_flags": "configuration_flags",
    "maximum_cache_size": "maximum_cache_size_percent",
    "maximum_content_age": "maximum_content_age_s",
}
"""What the settings are called here, and inside, where units belong to names."""


class PeerCachingHandlers(HandlerBase):
    """One method for each row of api.routes.ROUTES about peer caching."""

    async def peer_caching(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/peer-caching."""
        return answer(_rendered(self._services.peer_caching.state()))

    async def set_peer_caching(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/peer-caching."""
        body: PeerCachingIn = await self._body(request, PeerCachingIn)
        given: dict[str, Any] = {name: getattr(body, outer) for outer, name in _NAMES.items()}
        changes = {name: value for name, value in given.items() if value is not msgspec.UNSET}
        if not changes:
            raise BitsError("E_INVALIDARG", f"name at least one of {', '.join(_NAMES)}")
        state = await self._services.peer_caching.change(request[CALLER], changes)
        return answer(_rendered(state, changes))

    async def cache_records(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/peer-caching/records."""
        return answer(CacheRecords(records=[]))

    async def clear_cache_records(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/peer-caching/records."""
        result = "S_OK"
        if "url" in request.query:
            result = self._services.peer_caching.delete_url(request[CALLER])
        else:
            self._services.peer_caching.clear_records(request[CALLER])
        return answer(wire.CallResult(result=result))

    async def cache_record(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/peer-caching/records/{record_id}."""
        self._services.peer_caching.get_record(request.match_info["record_id"])
        raise AssertionError("there are no records")

    async def delete_cache_record(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/peer-caching/records/{record_id}."""
        self._services.peer_caching.delete_record(request[CALLER], request.match_info["record_id"])
        return answer(wire.CallResult())

    async def peers(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/peer-caching/peers."""
        return answer(Peers(peers=[]))

    async def clear_peers(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/peer-caching/peers."""
        self._services.peer_caching.clear_peers(request[CALLER])
        return answer(wire.CallResult())

    async def discover_peers(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/peer-caching/discover."""
        return answer(wire.CallResult(result=self._services.peer_caching.discover_peers(request[CALLER])))


def _rendered(state: PeerCachingState, changed: dict[str, Any] | None = None) -> PeerCachingOut:
    replaced = set(state.overridden) & set(changed or ())
    result = "S_OK"
    if replaced:
        result = "BG_S_OVERRIDDEN_BY_POLICY" if "configuration_flags" in replaced else "S_FALSE"
    return PeerCachingOut(
        result=result,
        in_force=_values(state.in_force),
        settings=_values(state.settings),
        overridden=[outer for outer, name in _NAMES.items() if name in state.overridden],
        effect=EFFECT,
    )


def _values(settings: PeerCachingSettings) -> PeerCachingValues:
    return PeerCachingValues(**{outer: getattr(settings, name) for outer, name in _NAMES.items()})
