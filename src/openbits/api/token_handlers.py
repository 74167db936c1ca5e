"""The calls of IBitsTokenOptions (T1–T4): who holds a capability gives his own identity, as the kernel tells it.

A capability stands in the address of a call and nowhere else: no error repeats it.
"""

from __future__ import annotations

from aiohttp import web

from openbits.api import requests, wire
from openbits.api.base import CALLER, HandlerBase, answer


class TokenHandlers(HandlerBase):
    """One method for each row of api.routes.ROUTES about token options."""

    async def token_options(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/token-options."""
        capability = self._services.tokens.obtain(request[CALLER], requests.job_id(request))
        return answer(wire.TokenOptionsOut(capability=capability), status=201)

    async def helper_token(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/token-options/{capability}."""
        state = self._services.tokens.state(_capability(request))
        helper = state.helper
        return answer(
            wire.HelperTokenOut(
                sid=f"uid:{helper.identity.uid}" if helper is not None else None,
                name=helper.name if helper is not None else None,
                flags=int(state.flags),
            )
        )

    async def set_helper_token(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/token-options/{capability}/helper."""
        await self._services.tokens.set_helper(request[CALLER], _capability(request))
        return answer(wire.CallResult())

    async def clear_helper_token(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/token-options/{capability}/helper."""
        await self._services.tokens.clear_helper(_capability(request))
        return answer(wire.CallResult())

    async def set_helper_token_flags(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/token-options/{capability}/flags."""
        body: wire.HelperFlagsIn = await self._body(request, wire.HelperFlagsIn)
        await self._services.tokens.set_flags(_capability(request), body.flags)
        return answer(wire.CallResult())


def _capability(request: web.Request) -> str:
    return request.match_info["capability"]
