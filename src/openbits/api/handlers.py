"""The calls of the local API: read the request, ask the manager, render the answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import web

from openbits.api import render, requests, service_wire, wire
from openbits.api.audit_handlers import AuditHandlers
from openbits.api.base import CALLER, HEARTBEAT_S, answer, event
from openbits.api.certificate_handlers import CertificateHandlers
from openbits.api.choosing import chosen
from openbits.api.credential_handlers import CredentialHandlers
from openbits.api.demand_handlers import DemandHandlers
from openbits.api.eventlog_handlers import EventLogHandlers
from openbits.api.notification_handlers import NotificationHandlers
from openbits.api.openapi import describe
from openbits.api.ownership_handlers import OwnershipHandlers
from openbits.api.peercaching_handlers import PeerCachingHandlers
from openbits.api.policy_handlers import PolicyHandlers
from openbits.api.proxy_handlers import ProxyHandlers
from openbits.api.reply_handlers import ReplyHandlers
from openbits.api.token_handlers import TokenHandlers
from openbits.core.model import Caller
from openbits.errors import BitsError, by_hresult, error_code
from openbits.service.feed import Subscription
from openbits.service.records import EventRecord
from openbits.store.records import EventChoice
from openbits.version import __version__

EVENTS_PER_READ = 1000
MAX_NEWEST = 10_000


class Handlers(
    AuditHandlers,
    NotificationHandlers,
    TokenHandlers,
    OwnershipHandlers,
    ProxyHandlers,
    CertificateHandlers,
    CredentialHandlers,
    ReplyHandlers,
    PeerCachingHandlers,
    PolicyHandlers,
    EventLogHandlers,
    DemandHandlers,
):
    """One method for each row of api.routes.ROUTES."""

    # --- the service ----------------------------------------------------------------------------------

    async def version(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/version."""
        mode: Any = self._mode
        return answer(service_wire.VersionOut(program="OpenBITS", version=__version__, mode=mode))

    async def whoami(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/whoami."""
        caller = request[CALLER]
        return answer(
            service_wire.WhoAmI(
                uid=caller.identity.uid,
                gid=caller.identity.gid,
                groups=list(caller.identity.groups),
                name=caller.name,
                kind=caller.kind.value,
                kind_reason=self._accounts.kind_reason(caller),
                is_administrator=caller.is_administrator,
            )
        )

    async def doctor(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/doctor."""
        results = await self._manager.doctor(request[CALLER])
        return answer(
            service_wire.Doctor(checks=[service_wire.Check(name=r.name, ok=r.ok, message=r.message) for r in results])
        )

    async def statistics(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/statistics."""
        return answer(self._manager.statistics())

    async def error_description(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/errors/{code}."""
        text = request.match_info["code"]
        code = None
        with contextlib.suppress(KeyError, ValueError):
            code = by_hresult(int(text, 0) & 0xFFFF_FFFF) if text[:1].isdigit() else error_code(text.upper())
        if code is None:
            raise BitsError("ERROR_RESOURCE_LANG_NOT_FOUND", f"there is no text for {ascii(text)[:60]}")
        return answer(service_wire.ErrorDescription(code=code.name, hresult=code.hresult, text=code.text))

    async def openapi(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/openapi.json."""
        if self._description is None:
            self._description = render.to_json(describe())
        return web.Response(body=self._description, content_type="application/json")

    # --- jobs -----------------------------------------------------------------------------------------

    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs."""
        after = request.query.get("after")
        jobs, following = self._manager.list_jobs(
            request[CALLER],
            all_users=requests.yes_or_no(request, "all_users"),
            name=request.query.get("name"),
            history=requests.yes_or_no(request, "history"),
            after=requests.normal_id(after) if after is not None else None,
            limit=_limit(request),
        )
        return answer(wire.JobPage(jobs=[render.job_out(self._manager, job) for job in jobs], next=following))

    async def create_job(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs."""
        body: wire.JobIn = await self._body(request, wire.JobIn)
        [job] = await self._manager.create_jobs(request[CALLER], [requests.new_job(body)])
        return answer(wire.Created(id=job.id), status=201)

    async def create_jobs(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/batch."""
        body: wire.JobsIn = await self._body(request, wire.JobsIn)
        jobs = await self._manager.create_jobs(request[CALLER], [requests.new_job(job) for job in body.jobs])
        return answer(wire.CreatedMany(jobs=[wire.Created(id=job.id) for job in jobs]), status=201)

    async def get_job(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}."""
        caller = request[CALLER]
        job = self._manager.get_job(caller, requests.job_id(request))
        headers = self._services.headers.shown(caller, job)
        has_validator = self._services.validators.is_there(job.id)
        has_listener = self._services.notifications.listeners.is_there(job.id)
        detail = render.job_detail(
            self._manager, job, caller, headers=headers, has_validator=has_validator, has_listener=has_listener
        )
        return answer(detail)

    async def change_settings(self, request: web.Request) -> web.StreamResponse:
        """PATCH /v1/jobs/{job_id}."""
        job_id = requests.job_id(request)
        changes: dict[str, Any] = await self._body(request, dict[str, Any])
        outcome = await self._manager.change_settings(request[CALLER], job_id, changes)
        return answer(render.verb_result(self._manager, outcome))

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/files."""
        job = self._manager.get_job(request[CALLER], requests.job_id(request))
        start = requests.whole_number(request, "after", -1) + 1
        end = min(len(job.files), start + _limit(request))
        files = [render.file_out(self._manager, job, index) for index in range(start, end)]
        return answer(wire.FilePage(files=files, next=end - 1 if end < len(job.files) else None))

    async def add_files(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/files."""
        job_id = requests.job_id(request)
        body: wire.FilesIn = await self._body(request, wire.FilesIn)
        files = [requests.new_file(file) for file in body.files]
        return answer(render.verb_result(self._manager, await self._manager.add_files(request[CALLER], job_id, files)))

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/files/{index}."""
        job = self._manager.get_job(request[CALLER], requests.job_id(request))
        index = requests.file_index(request)
        if index >= len(job.files):
            raise BitsError("BG_E_FILE_NOT_FOUND", f"the job has no file {index}; it has {len(job.files)}")
        return answer(render.file_out(self._manager, job, index))

    async def change_file(self, request: web.Request) -> web.StreamResponse:
        """PATCH /v1/jobs/{job_id}/files/{index}."""
        caller, job_id, index = request[CALLER], requests.job_id(request), requests.file_index(request)
        body: wire.FileChange = await self._body(request, wire.FileChange)
        if isinstance(body.remote_name, str) and not isinstance(body.validation_state, bool):
            outcome = await self._manager.set_remote_name(caller, job_id, index, body.remote_name)
        elif isinstance(body.validation_state, bool) and not isinstance(body.remote_name, str):
            outcome = await self._manager.set_validation_state(caller, job_id, index, body.validation_state)
        else:
            raise BitsError("E_INVALIDARG", "name either remote_name or validation_state")
        return answer(render.verb_result(self._manager, outcome))

    async def replace_remote_prefix(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/replace-remote-prefix."""
        job_id = requests.job_id(request)
        body: wire.PrefixIn = await self._body(request, wire.PrefixIn)
        outcome = await self._manager.replace_remote_prefix(request[CALLER], job_id, body.old, body.new)
        return answer(render.verb_result(self._manager, outcome))

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/resume."""
        outcome = await self._manager.resume(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    async def suspend(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/suspend."""
        outcome = await self._manager.suspend(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/cancel."""
        outcome = await self._manager.cancel(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/complete."""
        outcome = await self._manager.complete(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    async def get_error(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/error."""
        job = self._manager.get_job(request[CALLER], requests.job_id(request))
        error = render.error_of(job)
        if error is None:
            raise BitsError(
                "BG_E_ERROR_INFORMATION_UNAVAILABLE", f"the job is {job.state.name} and has no error to report"
            )
        return answer(render.error_out(job, error))

    async def why(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/why."""
        job_id = requests.job_id(request)
        gate = self._manager.why(request[CALLER], job_id)
        until = render.iso_time(gate.until) if gate.until is not None else None
        remark = self._services.notifications.remark(self._manager.get_job(request[CALLER], job_id))
        sentence = f"{gate.sentence}; {remark}" if remark else gate.sentence
        return answer(wire.Why(gate=gate.gate, sentence=sentence, until=until))

    # --- events ---------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/events."""
        caller = request[CALLER]
        wanted = request.query.get("job")
        job_id = requests.normal_id(wanted) if wanted is not None else None
        all_users = requests.yes_or_no(request, "all_users")
        after = _continue_after(request)
        newest = requests.whole_number(request, "newest", 0, high=MAX_NEWEST)
        choice = chosen(request, await self._manager.may_read_events(caller, job_id, all_users=all_users))
        if after is None and (newest or choice.since is not None):
            after = 0
        # Subscribe before reading what is kept: nothing may fall between the two.
        feed = self._manager.watch(caller, job_id=job_id, all_users=all_users, choice=choice)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            snapshot = None
            if after is None and job_id is not None:
                snapshot = render.job_out(self._manager, self._manager.get_job(caller, job_id))
            await response.prepare(request)
            if snapshot is not None:
                await response.write(event("snapshot", snapshot))
            sent = await self._send_kept(response, caller, after, choice, newest) if after is not None else -1
            if requests.yes_or_no(request, "follow", default=True):
                await self._send_new(response, feed, sent)
            await response.write_eof()
        finally:
            feed.end()
        return response

    async def _send_kept(
        self, response: web.StreamResponse, caller: Caller, after: int, choice: EventChoice, newest: int
    ) -> int:
        if newest:
            latest = await self._manager.chosen_events(caller, choice, after=after, limit=newest, newest=True)
            after = latest[0].id - 1 if latest else after
        while True:
            records = await self._manager.chosen_events(caller, choice, after=after, limit=EVENTS_PER_READ)
            for record in records:
                await response.write(event("job", render.event_out(self._manager, record), record.id))
                after = record.id
            if len(records) < EVENTS_PER_READ:
                return after

    async def _send_new(self, response: web.StreamResponse, feed: Subscription, sent: int) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    record = await anext(feed)
            except TimeoutError:
                await response.write(b":\n\n")
                continue
            except StopAsyncIteration:
                return
            if not isinstance(record, EventRecord):
                await response.write(event("progress", render.progress_out(record)))
            elif record.id > sent:
                await response.write(event("job", render.event_out(self._manager, record), record.id))


def _continue_after(request: web.Request) -> int | None:
    last = request.headers.get("Last-Event-ID")
    if last is not None and last.isascii() and last.isdigit() and len(last) <= 18:
        return int(last)
    after = requests.whole_number(request, "after", -1)
    return after if after >= 0 else None


def _limit(request: web.Request) -> int:
    return requests.whole_number(request, "limit", requests.DEFAULT_PAGE, low=1, high=requests.MAX_PAGE)
