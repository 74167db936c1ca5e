"""The audit view: who made which job, and what it fetches and runs."""

from __future__ import annotations

from aiohttp import web

from openbits.api import requests
from openbits.api.audit_wire import AuditedAct, AuditedCommand, AuditedJob, AuditOut
from openbits.api.base import CALLER, HandlerBase, answer
from openbits.api.choosing import moment
from openbits.api.render import iso_time
from openbits.service.audit import Trace


class AuditHandlers(HandlerBase):
    """GET /v1/audit."""

    async def audit(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/audit."""
        traces = await self._services.audit.view(
            request[CALLER],
            all_users=requests.yes_or_no(request, "all_users"),
            since=moment(request, "since"),
            user=request.query.get("user"),
        )
        return answer(AuditOut(jobs=[_rendered(trace) for trace in traces]))


def _rendered(trace: Trace) -> AuditedJob:
    return AuditedJob(
        job_id=trace.job_id,
        name=trace.name,
        state_name=trace.state_name,
        owner_uid=trace.owner_uid,
        owner_name=trace.owner_name,
        creation_time=None if trace.created_at is None else iso_time(trace.created_at),
        end_time=None if trace.ended_at is None else iso_time(trace.ended_at),
        process_name=trace.process_name,
        process_path=trace.process_path,
        process_id=trace.process_id,
        urls=list(trace.urls),
        local_names=list(trace.local_names),
        file_count=trace.file_count,
        command=list(trace.command),
        commands_set=[
            AuditedCommand(time=iso_time(at), user=user, command=words) for at, user, words in trace.commands_set
        ],
        notify_url=trace.notify_url,
        bus_name=trace.bus_name,
        by_others=[AuditedAct(time=iso_time(at), event_id=number, text=text) for at, number, text in trace.by_others],
    )
