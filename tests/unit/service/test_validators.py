"""H12, 4.6: who judges servers' certificates, what is remembered, and what happens when nobody is there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from openbits.core.model import Identity, JobState, JobType
from openbits.errors import BitsError, ErrorContext
from openbits.frames.worker import CertificateJudged, CertificateSeen, StartTransfer, UploadFile
from openbits.service.validators import (
    ANSWER_S,
    MOST_ACCEPTED,
    MOST_CERTIFICATES,
    MOST_WAITING,
    REFUSED,
    Question,
    Registration,
)
from openbits.service.wording import UNJUDGED
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
LEAF, OTHER, ISSUER = (base64.b64encode(text).decode() for text in (b"leaf", b"other", b"issuer"))
SERVER = "origin.example:443"


async def asking(service: Service) -> tuple[str, Registration]:
    """A job that runs, with a program of alice's."""
    job = await service.create(resume=False)
    program = await service.runtime.validators.register(ALICE, job)
    await service.manager.resume(ALICE, job)
    await virtual.rest()
    return job, program


def seen(
    worker: FakeWorker, number: int = 1, *, leaf: str = LEAF, server: str = SERVER, **more: Any
) -> CertificateSeen:
    values: dict[str, Any] = {"index": 0, "chain": (leaf, ISSUER), **more}
    return CertificateSeen(transfer=worker.transfer, number=number, server=server, **values)


async def asked(program: Registration) -> Question:
    question = await program.next_question()
    assert question is not None
    return question


def judged(worker: FakeWorker) -> tuple[int, str]:
    last = worker.last(CertificateJudged)
    return last.number, last.error


async def again(service: Service, job: str) -> None:
    """Another run of the job."""
    await service.manager.suspend(ALICE, job)
    await service.say(service.worker.ended())
    await service.manager.resume(ALICE, job)
    await virtual.rest()


def test_h12_accepted_is_asked_once_by_server_and_certificate() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            assert service.worker.last(StartTransfer).tls.asks
            await service.say(seen(service.worker))
            question = await asked(program)
            assert (question.shown.server, question.shown.chain) == (SERVER, (LEAF, ISSUER))
            service.runtime.validators.answer(ALICE, job, question.name, "", "")
            await virtual.rest()
            assert judged(service.worker) == (1, "")
            # The same again in another run, under the same name in capitals: nobody is asked.
            await again(service, job)
            await service.say(seen(service.worker, server=SERVER.upper()))
            assert judged(service.worker) == (1, "")
            assert program.questions.empty()
            # Another certificate, another port: other questions.
            await service.say(seen(service.worker, 2, leaf=OTHER))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
            others = ("origin.example:8443", "[fe80::1%25eth0]:443", "stra\xdfe.example:443")
            for number, server in enumerate(others, 3):
                await service.say(seen(service.worker, number, server=server))
                question = await asked(program)
                assert question.shown.server == server
                service.runtime.validators.answer(ALICE, job, question.name, "", "")
                await virtual.rest()

    virtual.run(story())


def test_46_a_refusal_is_the_programs_error_and_is_asked_again() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            for number in (1, 2):
                await service.say(seen(service.worker, number))
                question = await asked(program)
                service.runtime.validators.answer(
                    ALICE, job, question.name, "CERT_E_UNTRUSTEDROOT", "not\n ours " + "x" * 900
                )
                await virtual.rest()
                assert judged(service.worker) == (number, "CERT_E_UNTRUSTEDROOT")
            message = service.worker.last(CertificateJudged).message
            assert message.startswith(
                f"the certificate of {SERVER} was refused by the program that checks it: not ours x"
            )
            assert len(message) < 600
            await service.say(
                service.worker.ended(
                    "CERT_E_UNTRUSTEDROOT",
                    context=int(ErrorContext.SERVER_CERTIFICATE_CALLBACK),
                    message=message,
                    transient=True,
                )
            )
            failed = service.job(job)
            assert failed.state is JobState.TRANSIENT_ERROR
            assert failed.error is not None
            assert (failed.error.name, failed.error.context) == (
                "CERT_E_UNTRUSTEDROOT",
                ErrorContext.SERVER_CERTIFICATE_CALLBACK,
            )

    virtual.run(story())


def test_46_without_the_program_the_job_is_in_error_and_says_what_to_do() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            service.runtime.validators.leave(program)
            await service.say(seen(service.worker))
            assert judged(service.worker) == (1, UNJUDGED)
            await service.say(
                service.worker.ended(
                    UNJUDGED, context=8, message=service.worker.last(CertificateJudged).message, transient=True
                )
            )
            assert service.state(job) is JobState.ERROR
            sentence = service.manager.why(ALICE, job).sentence
            assert "start it again" in sentence
            assert "suspends the job" in sentence
            # It comes back as its sentence says.
            with pytest.raises(BitsError, match="BG_E_READ_ONLY_WHEN_JOB_ACTIVE"):
                await service.runtime.validators.register(ALICE, job)
            await service.manager.suspend(ALICE, job)
            program = await service.runtime.validators.register(ALICE, job)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await service.say(seen(service.worker))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
            assert judged(service.worker) == (1, "")

    virtual.run(story())


def test_46_a_program_that_goes_while_it_is_asked() -> None:
    async def story() -> None:
        async with running() as service:
            _, program = await asking(service)
            await service.say(seen(service.worker), seen(service.worker, 2, leaf=OTHER))
            await asked(program)
            service.runtime.validators.leave(program)
            await virtual.rest()
            assert judged(service.worker) == (2, UNJUDGED)
            assert service.worker.count(CertificateJudged) == 2
            assert service.runtime.validators.statistics() == {
                "certificate_validators": 0,
                "certificate_questions": 0,
            }

    virtual.run(story())


def test_46_a_program_that_hangs_is_waited_for_and_no_longer() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            await service.say(seen(service.worker))
            question = await asked(program)
            await asyncio.sleep(ANSWER_S - 1)
            assert service.worker.count(CertificateJudged) == 0
            # Meanwhile the service does what it always does.
            other = await service.create(resume=False)
            assert service.state(other) is JobState.SUSPENDED
            await asyncio.sleep(1.5)
            assert judged(service.worker) == (1, UNJUDGED)
            with pytest.raises(BitsError, match="took too long"):
                service.runtime.validators.answer(ALICE, job, question.name, "", "")
            # It is still there, and may be faster the next time.
            await service.say(seen(service.worker, 2))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
            assert judged(service.worker) == (2, "")

    virtual.run(story())


def test_46_one_thing_is_asked_after_the_other_and_the_same_once() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            worker = service.worker
            await service.say(seen(worker), seen(worker, 2), seen(worker, 3, leaf=OTHER))
            first = await asked(program)
            assert program.questions.empty()
            service.runtime.validators.answer(ALICE, job, first.name, "", "")
            await virtual.rest()
            assert {frame.number for frame in worker.heard if isinstance(frame, CertificateJudged)} == {1, 2}
            assert (await asked(program)).shown.chain[0] == OTHER

    virtual.run(story())


def test_46_who_may_answer_and_how_often() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            other = await service.create(resume=False)
            await service.say(seen(service.worker))
            question = await asked(program)
            validators = service.runtime.validators
            for caller in (BOB, ROOT):
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    validators.answer(caller, job, question.name, "", "")
            for name, of in (("0" * 32, job), (question.name, other)):
                with pytest.raises(BitsError, match="E_INVALIDARG"):
                    validators.answer(ALICE, of, name, "", "")
            for error in ("S_OK", "S_FALSE", "NO_SUCH_ERROR"):
                with pytest.raises(BitsError, match="E_INVALIDARG"):
                    validators.answer(ALICE, job, question.name, error, "")
            validators.answer(ALICE, job, question.name, "E_FAIL", "")
            with pytest.raises(BitsError, match="E_INVALIDARG"):
                validators.answer(ALICE, job, question.name, "", "")
            await virtual.rest()
            assert judged(service.worker) == (1, "E_FAIL")

    virtual.run(story())


def test_h12_the_last_setter_wins_and_every_set_forgets_what_was_accepted() -> None:
    async def story() -> None:
        async with running() as service:
            job, first = await asking(service)
            await service.say(seen(service.worker))
            service.runtime.validators.answer(ALICE, job, (await asked(first)).name, "", "")
            await virtual.rest()
            await service.manager.suspend(ALICE, job)
            await service.say(service.worker.ended())
            second = await service.runtime.validators.register(ALICE, job)
            assert (await first.next_question(), first.reason) == (None, "replaced")
            # The first one's connection ends later than the second one is set: that harms nobody.
            service.runtime.validators.leave(first)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await service.say(seen(service.worker))
            assert (await asked(second)).shown.server == SERVER

    virtual.run(story())


@pytest.mark.parametrize("resumed", [False, True])
def test_h12_only_while_suspended(resumed: bool) -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=resumed)
            calls: list[Awaitable[object]] = [
                service.runtime.validators.register(ALICE, job),
                service.runtime.validators.clear(ALICE, job),
            ]
            for call in calls:
                if resumed:
                    with pytest.raises(BitsError, match="BG_E_READ_ONLY_WHEN_JOB_ACTIVE"):
                        await call
                else:
                    await call
            assert not service.job(job).asks_about_certificates
            await service.manager.cancel(ALICE, job)
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                await service.runtime.validators.register(ALICE, job)

    virtual.run(story())


def test_h12_null_clears() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            await service.manager.suspend(ALICE, job)
            await service.say(service.worker.ended())
            assert (await service.runtime.validators.clear(ALICE, job)).result == "S_OK"
            assert (await program.next_question(), program.reason) == (None, "cleared")
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert not service.worker.last(StartTransfer).tls.asks
            assert (await service.runtime.validators.clear(ALICE, await service.create(resume=False))).result == "S_OK"

    virtual.run(story())


def test_h12_owner_and_administrators_and_nobody_else() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                await service.runtime.validators.register(BOB, job)
            assert (await service.runtime.validators.register(ROOT, job)).uid == 0
            with pytest.raises(BitsError, match="BG_E_NOT_FOUND"):
                await service.runtime.validators.register(ALICE, "no such job")

    virtual.run(story())


def test_h12_after_a_restart_the_job_still_asks_and_nobody_is_there() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            await service.say(seen(service.worker))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
        async with running(service.disk) as later:
            assert later.job(job).asks_about_certificates
            await later.say(seen(later.worker))
            assert judged(later.worker) == (1, UNJUDGED)

    virtual.run(story())


def test_h12_a_job_that_changes_hands_asks_and_its_former_owners_program_is_let_go() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            await service.manager.suspend(ALICE, job)
            await service.say(service.worker.ended())
            taking = asyncio.ensure_future(service.runtime.services.ownership.take(ROOT, job))
            await virtual.rest()
            await taking
            assert (await program.next_question(), program.reason) == (None, "ended")
            assert service.job(job).asks_about_certificates

    virtual.run(story())


def test_h12_a_job_that_ends_lets_go_of_everything() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            await service.say(seen(service.worker))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
            ending = asyncio.ensure_future(service.manager.cancel(ALICE, job))
            await virtual.rest()
            await service.say(service.worker.ended())
            await ending
            assert (await program.next_question(), program.reason) == (None, "ended")
            assert service.runtime.validators._accepted == {}

    virtual.run(story())


def test_46_of_a_cancelled_upload_only_what_was_accepted_is_spoken_to() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.upload(JobType.UPLOAD, resume=False)
            program = await service.runtime.validators.register(ALICE, job)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await service.say(seen(service.worker))
            service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
            await virtual.rest()
            await service.say(service.worker.moved(0))
            ending = asyncio.ensure_future(service.manager.cancel(ALICE, job))
            await virtual.rest()
            await service.say(service.worker.ended())
            await ending
            await virtual.rest()
            assert service.worker.last(UploadFile).only_cancels
            assert service.worker.last(StartTransfer).tls.asks
            await service.say(seen(service.worker, 1))
            assert judged(service.worker) == (1, "")
            await service.say(seen(service.worker, 2, leaf=OTHER))
            assert judged(service.worker) == (2, UNJUDGED)
            refusal = service.worker.last(CertificateJudged).message
            await service.say(service.worker.ended(UNJUDGED, context=8, message=refusal, transient=True))
            assert service.job(job).cancel_until is None
            assert service.runtime.validators._accepted == {}

    virtual.run(story())


HOSTILE: list[dict[str, Any]] = [
    {"number": 0},
    {"number": 2},
    {"number": -1},
    {"index": 1},
    {"index": -1},
    {"server": ""},
    {"server": "no port"},
    {"server": "x" * 400 + ":443"},
    {"server": "new\nline:443"},
    {"server": "esc\x1b[2J:443"},
    {"server": "b\u202eidi:443"},
    {"chain": ("",)},
    {"chain": ("no base64!",)},
    {"chain": (LEAF, "é")},
    {"chain": (LEAF,) * (MOST_CERTIFICATES + 1)},
]


@pytest.mark.parametrize("wrong", HOSTILE)
def test_46_a_worker_that_says_what_cannot_be_is_killed(wrong: dict[str, Any]) -> None:
    async def story() -> None:
        async with running() as service:
            _, program = await asking(service)
            worker = service.worker
            await service.say(seen(worker, **wrong))
            assert not worker.is_alive
            assert program.questions.empty()

    virtual.run(story())


def test_46_a_certificate_that_is_too_large_to_be_shown_is_refused() -> None:
    async def story() -> None:
        async with running() as service:
            _, program = await asking(service)
            await service.say(seen(service.worker, chain=()))
            assert judged(service.worker) == (1, REFUSED)
            assert program.questions.empty()

    virtual.run(story())


def test_46_nobody_is_asked_for_a_job_that_does_not_ask() -> None:
    async def story() -> None:
        async with running() as service:
            await service.create()
            await service.say(seen(service.worker))
            assert judged(service.worker) == (1, "")

    virtual.run(story())


def test_46_of_a_reply_the_program_is_told_the_file_that_it_answers() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.upload(JobType.UPLOAD_REPLY, resume=False)
            program = await service.runtime.validators.register(ALICE, job)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker.is_alive
            await service.say(seen(service.worker, index=1))
            assert (await asked(program)).shown.file_index == 0

    virtual.run(story())


def test_46_what_waits_and_what_is_remembered_has_an_end() -> None:
    async def story() -> None:
        async with running() as service:
            job, program = await asking(service)
            worker = service.worker
            leaves = [base64.b64encode(b"leaf %d" % number).decode() for number in range(MOST_WAITING + 2)]
            await service.say(*(seen(worker, number, leaf=leaf) for number, leaf in enumerate(leaves, 1)))
            refused = [frame for frame in worker.heard if isinstance(frame, CertificateJudged)]
            assert [(frame.number, frame.error) for frame in refused] == [
                (MOST_WAITING + 1, UNJUDGED),
                (MOST_WAITING + 2, UNJUDGED),
            ]
            for _ in range(MOST_WAITING):
                service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
                await virtual.rest()
            first = MOST_WAITING + 3
            for number in range(MOST_ACCEPTED):
                await service.say(seen(worker, first + number, server=f"host{number}:443"))
                service.runtime.validators.answer(ALICE, job, (await asked(program)).name, "", "")
                await virtual.rest()
            assert len(service.runtime.validators._accepted[job]) == MOST_ACCEPTED
            await service.say(seen(worker, first + MOST_ACCEPTED, leaf=leaves[0]))
            assert (await asked(program)).shown.chain[0] == leaves[0]

    virtual.run(story())
