"""The calls about pieces of files (F11–F13)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from openbits.api import demand_wire, render, requests, wire
from openbits.api.base import CALLER, HandlerBase, answer
from openbits.core.model import ByteRange


class DemandHandlers(HandlerBase):
    """See api.routes.ROUTES."""

    async def get_ranges(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/files/{index}/ranges."""
        known = self._services.demand.known(request[CALLER], requests.job_id(request), requests.file_index(request))
        return answer(
            demand_wire.PiecesOut(wanted=_out(known.wanted), filled=_out(known.filled), position=known.position)
        )

    async def request_ranges(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/files/{index}/ranges."""
        job_id, index = requests.job_id(request), requests.file_index(request)
        body: demand_wire.RangesIn = await self._body(request, demand_wire.RangesIn)
        ranges = [ByteRange(piece.offset, piece.length) for piece in body.ranges]
        outcome = await self._services.demand.request(request[CALLER], job_id, index, ranges)
        return answer(render.verb_result(self._manager, outcome))

    async def update_position(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/files/{index}/position."""
        job_id, index = requests.job_id(request), requests.file_index(request)
        body: demand_wire.PositionIn = await self._body(request, demand_wire.PositionIn)
        outcome = await self._services.demand.move(request[CALLER], job_id, index, body.offset)
        return answer(render.verb_result(self._manager, outcome))


def _out(ranges: Iterable[ByteRange]) -> list[wire.RangeOut]:
    return [wire.RangeOut(offset=piece.offset, length=piece.length) for piece in ranges]
