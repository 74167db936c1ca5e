"""The calls about the event log itself (B44)."""

from __future__ import annotations

from aiohttp import web

from openbits.api.base import CALLER, HandlerBase, answer
from openbits.api.eventlog_wire import EventLogIn, EventLogOut


class EventLogHandlers(HandlerBase):
    """One method for each row of api.routes.ROUTES about the event log."""

    async def event_log(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/event-log."""
        return answer(EventLogOut(analytic=self._services.analytic.is_enabled))

    async def set_event_log(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/event-log."""
        body: EventLogIn = await self._body(request, EventLogIn)
        return answer(EventLogOut(analytic=await self._services.analytic.enable(request[CALLER], body.analytic)))
