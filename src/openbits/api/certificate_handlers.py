"""The calls about certificates: the one that a job presents, and the programs that judge those of servers."""

from __future__ import annotations

import asyncio

from aiohttp import web

from openbits.api import render, requests, wire
from openbits.api.base import CALLER, HEARTBEAT_S, HandlerBase, answer, event
from openbits.api.certificate_wire import (
    CertificateAnswer,
    CertificateQuestion,
    ClientCertificateIn,
    ValidationBegun,
    ValidationOver,
)
from openbits.service.validators import ANSWER_S, Question, Registration


class CertificateHandlers(HandlerBase):
    """H1-H4, H12."""

    async def set_client_certificate(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/client-certificate."""
        job_id = requests.job_id(request)
        body: ClientCertificateIn = await self._body(request, ClientCertificateIn)
        outcome = await self._services.certificates.set(
            request[CALLER],
            job_id,
            location=body.location,
            store=body.store,
            sha1=body.sha1,
            subject=body.subject,
        )
        return answer(render.verb_result(self._manager, outcome))

    async def get_client_certificate(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{job_id}/client-certificate."""
        certificate = self._services.certificates.get(request[CALLER], requests.job_id(request))
        return answer(render.certificate_out(certificate))

    async def remove_client_certificate(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/jobs/{job_id}/client-certificate."""
        outcome = await self._services.certificates.remove(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    # --- servers' certificates ------------------------------------------------------------------------

    async def validate_certificates(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/jobs/{job_id}/certificate-validation."""
        registration = await self._services.validators.register(request[CALLER], requests.job_id(request))
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            begun = ValidationBegun(job_id=registration.job_id, answer_s=int(ANSWER_S))
            await response.write(event("begun", begun))
            await self._send_questions(response, registration)
            await response.write_eof()
        finally:
            self._services.validators.leave(registration)
        return response

    @staticmethod
    async def _send_questions(response: web.StreamResponse, registration: Registration) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    question = await registration.next_question()
            except TimeoutError:
                await response.write(b":\n\n")
                continue
            if question is None:
                if registration.reason is not None:
                    await response.write(event("over", ValidationOver(reason=registration.reason)))
                return
            await response.write(event("question", _question_out(registration.job_id, question)))

    async def clear_certificate_validation(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/jobs/{job_id}/certificate-validation."""
        outcome = await self._services.validators.clear(request[CALLER], requests.job_id(request))
        return answer(render.verb_result(self._manager, outcome))

    async def judge_certificate(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/jobs/{job_id}/certificate-validation/{question}."""
        job_id = requests.job_id(request)
        body: CertificateAnswer = await self._body(request, CertificateAnswer)
        self._services.validators.answer(
            request[CALLER], job_id, request.match_info["question"], body.error or "", body.message
        )
        return answer(wire.CallResult())


def _question_out(job_id: str, question: Question) -> CertificateQuestion:
    certificate, *chain = question.shown.chain
    return CertificateQuestion(
        question=question.name,
        job_id=job_id,
        file=question.shown.file_index,
        server=question.shown.server,
        certificate=certificate,
        chain=chain,
    )
