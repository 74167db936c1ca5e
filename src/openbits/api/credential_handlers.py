"""The calls about credentials and custom headers: what is secret in them goes nowhere but into the service's hands."""

from __future__ import annotations

from aiohttp import web

from openbits.api import render, requests, wire
from openbits.api.base import CALLER, HandlerBase, answer


class CredentialHandlers(HandlerBase):
    """SetCredentials and RemoveCredentials (J35, J36), and the calls about custom headers (H5, H6, H11)."""

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

    async def get_custom_headers(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/custom-headers."""
        headers = self._services.headers.get(request[CALLER], requests.job_id(request))
        return answer(wire.CustomHeadersOut(result="S_OK" if headers else "S_FALSE", custom_headers=headers or None))

    async def set_custom_headers(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/custom-headers."""
        job_id = requests.job_id(request)
        body: wire.CustomHeadersIn = await self._body(request, wire.CustomHeadersIn)
        outcome = await self._services.headers.set(request[CALLER], job_id, body.custom_headers)
        return answer(render.verb_result(self._manager, outcome))

    async def hide_custom_headers(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/custom-headers/write-only."""
        outcome = await self._services.headers.make_write_only(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))
