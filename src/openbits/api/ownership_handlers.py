"""The call that gives a job another owner (I8)."""

from __future__ import annotations

from aiohttp import web

from openbits.api import render, requests
from openbits.api.base import CALLER, HandlerBase, answer


class OwnershipHandlers(HandlerBase):
    """See api.routes.ROUTES."""

    async def take_ownership(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/take-ownership."""
        outcome = await self._services.ownership.take(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))
