"""The calls about notifications: programs that listen (J18), what they have heard (N4), and command lines (J30)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from aiohttp import web

from openbits.api import render, requests, wire
from openbits.api.base import CALLER, HEARTBEAT_S, HandlerBase, answer, event
from openbits.api.notification_wire import (
    AcknowledgementIn,
    ListeningBegun,
    ListeningOver,
    NoticeOut,
    NotifyCommandIn,
    NotifyCommandState,
    NotifyInterfaceIn,
)
from openbits.core import access
from openbits.core.model import Caller, Job
from openbits.core.telling import Kind
from openbits.errors import BitsError
from openbits.service.calls import Outcome
from openbits.service.listeners import Detached, Stream, ToldProgram

MOST_BODY_CHARACTERS = 40_000
"""What a URL is told of a job: with all that JSON and a frame add to it, it fits into a frame."""


class NotificationHandlers(HandlerBase):
    """J18, J30, section 4."""

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/notifications."""
        notifications = self._services.notifications
        stream = notifications.listeners.open(request[CALLER])
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            begun = ListeningBegun(stream=stream.name, answer_s=notifications.callback_limit_s)
            await response.write(event("begun", begun))
            await self._send_notices(response, stream)
            await response.write_eof()
        finally:
            notifications.listeners.leave(stream)
        return response

    async def _send_notices(self, response: web.StreamResponse, stream: Stream) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    message = await stream.next_message()
            except TimeoutError:
                await response.write(b":\n\n")
                continue
            match message:
                case None:
                    return
                case ToldProgram():
                    await response.write(event("notice", _notice_out(message, stream.caller)))
                case Detached(job_id=job_id, reason=reason, registration=number):
                    over = ListeningOver(job_id=job_id, reason=reason, registration=number)
                    await response.write(event("over", over))

    async def acknowledge(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/notifications/{stream}/acknowledgements."""
        body: AcknowledgementIn = await self._body(request, AcknowledgementIn)
        self._services.notifications.listeners.acknowledge(
            request[CALLER], request.match_info["stream"], body.notice, body.error or "", body.message
        )
        return answer(wire.CallResult())

    async def set_notify_interface(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/notify-interface."""
        job_id = requests.job_id(request)
        body: NotifyInterfaceIn = await self._body(request, NotifyInterfaceIn)
        job = self._services.notifications.listeners.attach(request[CALLER], job_id, body.stream, body.registration)
        return answer(render.verb_result(self._manager, Outcome(result="S_OK", job=job)))

    async def clear_notify_interface(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/jobs/{job_id}/notify-interface."""
        job = self._services.notifications.listeners.clear(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, Outcome(result="S_OK", job=job)))

    # --- command lines ----------------------------------------------------------------------------------

    async def set_notify_command(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/notify-command."""
        job_id = requests.job_id(request)
        body: NotifyCommandIn = await self._body(request, NotifyCommandIn)
        if body.arguments is not None and body.parameters is not None:
            raise BitsError("E_INVALIDARG", "name either arguments or parameters")
        parameters = body.arguments if body.arguments is not None else body.parameters
        outcome = await self._services.notify_commands.set(request[CALLER], job_id, body.program, parameters)
        return answer(render.verb_result(self._manager, outcome))

    async def get_notify_command(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/notify-command."""
        command = self._services.notify_commands.get(request[CALLER], requests.job_id(request))
        return answer(NotifyCommandState(notify_command=None if command is None else render.command_out(command)))

    async def clear_notify_command(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/jobs/{job_id}/notify-command."""
        outcome = await self._services.notify_commands.set(request[CALLER], requests.job_id(request), None, None)
        return answer(render.verb_result(self._manager, outcome))

    # --- what a URL is told -------------------------------------------------------------------------------

    def url_body(self, job: Job, kind: Kind) -> str:
        """Return the body of a POST to a job's `notify_url`: the job as `bits show --json` has it, without secrets.

        Files are listed as far as there is room; `files_left_out` counts the others.
        """
        owner = job.owner
        reader = Caller(identity=owner.identity, name=owner.name, kind=owner.kind, is_administrator=False)
        detail = render.job_detail(
            self._manager,
            job,
            reader,
            headers=None,
            has_validator=self._services.validators.is_there(job.id),
            has_listener=self._services.notifications.listeners.is_there(job.id),
        )
        shown: dict[str, Any] = msgspec.to_builtins(detail)
        files: list[Any] = []
        room = MOST_BODY_CHARACTERS - len(_ascii(shown))
        for index in range(len(job.files)):
            file = msgspec.to_builtins(render.file_out(self._manager, job, index))
            room -= len(_ascii(file)) + 1
            if room < 0:
                break
            files.append(file)
        shown |= {"files": files, "files_left_out": len(job.files) - len(files)}
        return _ascii({"event": kind.value, "job": shown})


def _ascii(document: Any) -> str:
    # Names may hold bytes that are no UTF-8, which JSON can say as lone surrogates.
    return json.dumps(document, separators=(",", ":"))


def _notice_out(message: ToldProgram, caller: Caller) -> NoticeOut:
    job, subject = message.job, message.subject
    error = None
    if subject.kind is Kind.JOB_ERROR and job.error is not None and _may_read(caller, job):
        error = render.error_out(job, job.error)
    return NoticeOut(
        notice=message.name,
        job_id=job.id,
        event=subject.kind.value,
        file=subject.index,
        ranges=[wire.RangeOut(offset=piece.offset, length=piece.length) for piece in subject.ranges],
        error=error,
        registration=message.registration,
    )


def _may_read(caller: Caller, job: Job) -> bool:
    """A program is told also of a job that its account may not see any more (N7), but not what has become of it."""
    try:
        access.may_read(caller, job.owner)
    except BitsError:
        return False
    return True
