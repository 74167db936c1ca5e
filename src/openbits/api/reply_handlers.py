"""The calls about a server's reply to an upload (J31–J34)."""

from __future__ import annotations

from aiohttp import web

from openbits.api import render, requests, wire
from openbits.api.base import CALLER, HandlerBase, answer


class ReplyHandlers(HandlerBase):
    """See api.routes.ROUTES."""

    async def get_reply(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/reply."""
        job = self._services.replies.get(request[CALLER], requests.job_id(request))
        return answer(render.reply_out(self._manager, job))

    async def set_reply_file_name(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/reply."""
        job_id = requests.job_id(request)
        body: wire.ReplyNameIn = await self._body(request, wire.ReplyNameIn)
        outcome = await self._services.replies.set_file_name(request[CALLER], job_id, body.file_name)
        return answer(render.verb_result(self._manager, outcome))

    async def get_reply_data(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/reply/data."""
        content = await self._services.replies.data(request[CALLER], requests.job_id(request))
        return web.Response(body=content, content_type="application/octet-stream")
