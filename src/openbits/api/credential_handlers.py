"""The calls about credentials: nothing of a password goes anywhere but into the service's hands."""

from __future__ import annotations

from aiohttp import web

from openbits.api import render, requests, wire
from openbits.api.base import CALLER, HandlerBase, answer


class CredentialHandlers(HandlerBase):
    """SetCredentials and RemoveCredentials (J35, J36)."""

    async def set_credentials(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/credentials."""
        job_id = requests.job_id(request)
        body: wire.CredentialsIn = await self._body(request, wire.CredentialsIn)
        outcome = await self._services.credentials.set_credentials(
            request[CALLER],
            job_id,
            target=body.target,
            scheme=body.scheme,
            user_name=body.user_name,
            password=body.password,
        )
        return answer(render.verb_result(self._manager, outcome))

    async def remove_credentials(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/jobs/{job_id}/credentials."""
        outcome = await self._services.credentials.remove_credentials(
            request[CALLER],
            requests.job_id(request),
            target=request.query.get("target", ""),
            scheme=request.query.get("scheme", ""),
        )
        return answer(render.verb_result(self._manager, outcome))
