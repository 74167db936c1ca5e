"""Programs that judge servers' certificates: who they are, what they are asked, and what they have accepted (H12, 4.6).

The rules:

- A program is there for as long as its connection is.  Nothing of it is kept but that the job asks: without a program,
  or an answer in time, a certificate is not accepted, and the job says so.
- What was accepted is remembered for the job by server and certificate, in memory, until a program is set anew.
  A refusal never is.
- A question has a name that nobody can guess and one answer, which only the account of its program may give.
- A program is asked one thing after the other, and two runs that want to know the same ask once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from openbits.core import access
from openbits.core.events import SetCertificateValidator
from openbits.core.model import UPLOAD_INDEX, Caller, Job
from openbits.errors import BitsError, is_failure
from openbits.frames.worker import CertificateSeen
from openbits.service.calls import Outcome
from openbits.service.ledger import Draft, Ledger
from openbits.service.wording import UNJUDGED

log = logging.getLogger(__name__)

Reason = Literal["replaced", "cleared", "ended"]
ANSWER_S: Final = 60.0
"""How long a program may think: longer than a look into a database takes, and no longer than servers wait."""
MOST_ACCEPTED: Final = 256
"""So many certificates are remembered for a job; beyond that the one that was used longest ago is asked about again."""
MOST_WAITING: Final = 64
"""So many questions of one job may wait: as many as it may have files on the way."""
MOST_CERTIFICATES: Final = 512
"""More than fit into a frame, as servers show them: what is too long, the worker leaves out."""
LONGEST_REASON: Final = 400
REFUSED: Final = "BG_E_ERROR_CONTEXT_SERVER_CERTIFICATE_CALLBACK"
"""The error of a refusal that names no other."""
_SERVER: Final = re.compile(r"\S{1,300}:[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What comes of a question; an empty error accepts."""

    error: str = ""
    message: str = ""


ACCEPTED: Final = Verdict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A certificate as a worker saw it; each of the chain DER in base64, the server's own first.

    The chain is empty where not even that one fits into a frame.
    """

    file_index: int
    server: str
    chain: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What is remembered when it is accepted."""
        return self.server.lower(), hashlib.sha256(base64.b64decode(self.chain[0])).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a program is asked."""

    name: str
    shown: Shown


@dataclass(eq=False, slots=True)
class Registration:
    """A program that judges for a job, from the call that set it until it goes or another comes."""

    job_id: str
    uid: int
    number: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever asks it."""
    questions: asyncio.Queue[Question | None] = field(default_factory=asyncio.Queue)
    over: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    reason: Reason | None = None
    """Why it is over, for the program; None when it went itself, or the service goes."""
    waiting: int = 0

    async def next_question(self) -> Question | None:
        """Wait for a question; None says that there will be none any more."""
        return await self.questions.get()

    def end(self, reason: Reason | None) -> None:
        """Ask it nothing any more."""
        if not self.over.done():
            self.reason = reason
            self.over.set_result(None)
            self.questions.put_nowait(None)


@dataclass(slots=True)
class _Open:
    """A question that waits for its answer."""

    job_id: str
    uid: int
    answer: asyncio.Future[Verdict]


class Validators:
    """See the module's rules."""

    def __init__(self, ledger: Ledger, *, answer_s: float = ANSWER_S) -> None:
        self._ledger = ledger
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._registered: dict[str, Registration] = {}
        self._open: dict[str, _Open] = {}
        self._accepted: dict[str, OrderedDict[tuple[str, str], None]] = {}

    def __repr__(self) -> str:
        return f"<Validators {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"certificate_validators": len(self._registered), "certificate_questions": len(self._open)}

    # --- calls --------------------------------------------------------------------------------------

    async def register(self, caller: Caller, job_id: str) -> Registration:
        """H12: from now on the caller's program judges; the last one that was set counts.

        The registration is over when its owner calls `leave`. Raises BG_E_READ_ONLY_WHEN_JOB_ACTIVE unless the job is
        SUSPENDED.
        """
        job, number = await self._set(caller, job_id, asks=True)
        mine = Registration(job_id=job.id, uid=caller.identity.uid, number=number)
        present = self._registered.get(job_id)
        if present is not None and present.number > number:
            mine.end("replaced")
            return mine
        self._forget(job_id, "replaced")
        self._registered[job_id] = mine
        return mine

    async def clear(self, caller: Caller, job_id: str) -> Outcome:
        """H12 with NULL: nobody is asked any more."""
        job, _ = await self._set(caller, job_id, asks=False)
        self._forget(job_id, "cleared")
        return Outcome(result="S_OK", job=job)

    def leave(self, registration: Registration) -> None:
        """The program has gone."""
        registration.end(None)
        if self._registered.get(registration.job_id) is registration:
            del self._registered[registration.job_id]

    def is_there(self, job_id: str) -> bool:
        """Whether the job has a program now."""
        return job_id in self._registered

    def answer(self, caller: Caller, job_id: str, question: str, error: str, message: str) -> None:
        """Take the program's answer; an empty error accepts. Raises E_INVALIDARG, E_ACCESSDENIED, BG_E_NOT_FOUND."""
        asked = self._open.get(question)
        if asked is None or asked.uid != caller.identity.uid:
            # What there is to be said of the job is for those who may know of it.
            access.may_change(caller, access.existing(self._ledger.jobs.get(job_id)).owner)
        if asked is None or asked.job_id != job_id or asked.answer.done():
            raise BitsError("E_INVALIDARG", "nobody waits for this answer: the question was answered, or took too long")
        if asked.uid != caller.identity.uid:
            raise BitsError("E_ACCESSDENIED", "another account's program was asked")
        if error and not is_failure(error):
            raise BitsError("E_INVALIDARG", f"{ascii(error)[:80]} is not the name of an error")
        asked.answer.set_result(Verdict(error=error, message=message) if error else ACCEPTED)

    def close(self) -> None:
        """Let all programs go: the service ends, and remembers none of them."""
        for program in list(self._registered.values()):
            self.leave(program)

    async def _set(self, caller: Caller, job_id: str, *, asks: bool) -> tuple[Job, int]:
        def change(draft: Draft) -> tuple[Job, int]:
            job = access.existing(draft.get(job_id))
            access.may_steer(caller, job)
            draft.by = caller
            changed = draft.apply(job_id, SetCertificateValidator(asks=asks))
            assert changed is not None, "the job was there a moment ago"
            return changed, next(self._numbers)

        return await self._ledger.submit(change)

    # --- runs ---------------------------------------------------------------------------------------

    def recall(self, job: Job, shown: Shown) -> Verdict:
        """Say what is known of a certificate without asking anybody."""
        if not job.asks_about_certificates:
            return ACCEPTED
        if not shown.chain:
            text = f"the certificate of {shown.server} is too large to be shown to the program that is to check it"
            return Verdict(error=REFUSED, message=text)
        if self._is_accepted(job.id, shown.key):
            return ACCEPTED
        return Verdict(
            error=UNJUDGED,
            message=f"a program was to check the certificate of {shown.server}, and it is not there: start it again, "
            "so that it suspends the job, sets itself once more and resumes the job",
        )

    async def judge(self, job: Job, shown: Shown) -> Verdict:
        """Find out whether a certificate will do for the job, asking its program where that is not known."""
        known = self.recall(job, shown)
        program = self._registered.get(job.id)
        if not known.error or program is None or not shown.chain:
            return known
        if program.waiting >= MOST_WAITING:
            return Verdict(error=UNJUDGED, message="too many certificates wait to be checked: resume the job later")
        program.waiting += 1
        try:
            async with program.turn:
                # What others have asked meanwhile need not be asked again.
                known = self.recall(job, shown)
                if known.error and not program.over.done():
                    known = await self._ask(program, job, shown)
        finally:
            program.waiting -= 1
        return known

    async def _ask(self, program: Registration, job: Job, shown: Shown) -> Verdict:
        index = shown.file_index if shown.file_index < len(job.files) else UPLOAD_INDEX
        question = Question(
            name=secrets.token_hex(16), shown=Shown(file_index=index, server=shown.server, chain=shown.chain)
        )
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._open[question.name] = _Open(job_id=job.id, uid=program.uid, answer=answer)
        program.questions.put_nowait(question)
        try:
            await asyncio.wait((answer, program.over), timeout=self._answer_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._open[question.name]
        if answer.done():
            return self._answered(program, job.id, shown, answer.result())
        answer.cancel()
        if program.over.done():
            return self.recall(job, shown)
        log.warning("action=certificate-unjudged job=%s server=%s", job.id, ascii(shown.server))
        return Verdict(
            error=UNJUDGED,
            message=f"the program that checks certificates did not answer within {self._answer_s:.0f} s about "
            f"{shown.server}: resume the job when it does",
        )

    def _answered(self, program: Registration, job_id: str, shown: Shown, verdict: Verdict) -> Verdict:
        if verdict.error:
            reason = " ".join(verdict.message.split())[:LONGEST_REASON]
            text = f"the certificate of {shown.server} was refused by the program that checks it"
            return Verdict(error=verdict.error, message=f"{text}: {reason}" if reason else text)
        if self._registered.get(job_id) is program:
            accepted = self._accepted.setdefault(job_id, OrderedDict())
            accepted[shown.key] = None
            if len(accepted) > MOST_ACCEPTED:
                accepted.popitem(last=False)
        return ACCEPTED

    def _is_accepted(self, job_id: str, key: tuple[str, str]) -> bool:
        accepted = self._accepted.get(job_id)
        if accepted is None or key not in accepted:
            return False
        accepted.move_to_end(key)
        return True

    # --- after a commit -----------------------------------------------------------------------------

    def take_note(self, before: Mapping[str, Job | None], after: Mapping[str, Job | None]) -> None:
        """Let go of jobs that have ended or changed hands.

        What a cancelled upload has accepted counts until its server has been told.
        """
        for job_id, job in after.items():
            if job_id not in self._registered and job_id not in self._accepted:
                continue
            former = before[job_id]
            has_moved = job is not None and former is not None and job.owner != former.owner
            if job is None or has_moved or (job.state.is_final and job.closing is None and job.cancel_until is None):
                self._forget(job_id, "ended")
            elif job.state.is_final:
                self._end_program(job_id, "ended")

    def _forget(self, job_id: str, reason: Reason) -> None:
        self._end_program(job_id, reason)
        self._accepted.pop(job_id, None)

    def _end_program(self, job_id: str, reason: Reason) -> None:
        program = self._registered.pop(job_id, None)
        if program is not None:
            program.end(reason)


def shown_in(seen: CertificateSeen, job: Job, asked: int) -> Shown | None:
    """Return what a worker has seen; None for what cannot be: a worker may have been taken over by a hostile server.

    `asked` is how many certificates its transfer has told of before.
    """
    is_possible = (
        seen.number == asked + 1
        and seen.index in range(job.part_count)
        # A host may have a name in any script.
        and _SERVER.fullmatch(seen.server)
        and seen.server.isprintable()
        and len(seen.chain) <= MOST_CERTIFICATES
    )
    try:
        if is_possible and all(base64.b64decode(each, validate=True) for each in seen.chain):
            return Shown(file_index=seen.index, server=seen.server, chain=seen.chain)
    except ValueError:
        pass
    return None
