"""Farewells: telling servers that the sessions of cancelled uploads are over (J6, R6).

The job has gone from its owner's view, and its server is told in the background: with the rights that the job had,
while its owner is logged on and there is a network, again after a pause when the server cannot be reached or has
troubles of its own, and for as long as `Job.cancel_until` says.  That time stands in the store: a restart goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from openbits.core.environment import Environment, is_logged_on
from openbits.core.events import Event, Failure, SessionEnded
from openbits.core.model import AccountKind, Job
from openbits.errors import BitsError, is_failure
from openbits.frames.worker import (
    CertificateJudged,
    CertificateSeen,
    EvaluatorWanted,
    FilesDone,
    StopTransfer,
    TransferEnded,
)
from openbits.service.configuration import Configuration
from openbits.service.evaluators import Evaluators
from openbits.service.helpertokens import HelperTokens
from openbits.service.runs import NOT_CURED_BY_WAITING
from openbits.service.tasks import Tasks
from openbits.service.terms import Terms
from openbits.service.validators import Validators, shown_in
from openbits.service.wording import UNJUDGED, failure_of, start_of, upload_of
from openbits.service.worker import TransferHandler, Worker, WorkerGone
from openbits.service.workers import WorkerPool

log = logging.getLogger(__name__)

TOLD = "the server has been told"
FOR_GOOD = NOT_CURED_BY_WAITING | {"ERROR_NO_SUCH_USER"}
"""Why a server will never be told."""
ATTEMPT_S = 15 * 60.0
"""Longer than a server may take to answer: an attempt that is not over then is given up."""


@dataclass(slots=True)
class _Farewell:
    """What is being done for one job."""

    job_id: str
    again: asyncio.Event = field(default_factory=asyncio.Event)
    """Something has changed that may help: try now."""
    worker: Worker | None = None
    transfer: int = 0


class Farewells:
    """Ends the sessions of cancelled uploads; see the module's rule."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        tokens: HelperTokens,
        terms: Terms,
        validators: Validators,
        configuration: Callable[[], Configuration],
        environment: Callable[[], Environment],
        tasks: Tasks,
        post: Callable[[str, Event], None],
        settled: Callable[[str], Awaitable[Job | None]],
        run_ended: Callable[[str], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._tokens = tokens
        self._terms = terms
        self._validators = validators
        self._configuration = configuration
        self._environment = environment
        self._tasks = tasks
        self._post = post
        self._settled = settled
        self._run_ended = run_ended
        self._evaluators = Evaluators(pool, tasks)
        self._going: dict[str, _Farewell] = {}

    def __repr__(self) -> str:
        return f"<Farewells {len(self._going)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"farewells": len(self._going)}

    def start(self, job_id: str) -> None:
        """See to it that the server of this job is told."""
        if job_id not in self._going:
            farewell = self._going[job_id] = _Farewell(job_id)
            self._tasks.start(f"farewell {job_id}", self._see_off(farewell))

    def try_again(self) -> None:
        """Somebody has logged on, or the network is back: do not wait for the next attempt's time."""
        for farewell in self._going.values():
            farewell.again.set()

    def interrupt(self, uids: Collection[int]) -> None:
        """These accounts have logged off: nothing may go on for them."""
        for farewell in self._going.values():
            if farewell.worker is not None and farewell.worker.identity.uid in uids:
                farewell.worker.send(StopTransfer(transfer=farewell.transfer))

    async def _see_off(self, farewell: _Farewell) -> None:
        job_id = farewell.job_id
        try:
            # What the last run reports may be that there is a session, or that there is none any more.
            await self._run_ended(job_id)
            while (job := await self._settled(job_id)) is not None and job.cancel_until is not None:
                how = await self._attempt(farewell, job)
                if how:
                    self._post(job_id, SessionEnded(how=how))
                    await self._settled(job_id)
                    return
                farewell.again.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(job.settings.minimum_retry_delay):
                        await farewell.again.wait()
        finally:
            del self._going[job_id]

    async def _attempt(self, farewell: _Farewell, job: Job) -> str:
        """Tell the server; return how that ended, or nothing when it is to be tried again."""
        if not job.upload_memory:
            return "the server knew of none"
        env = self._environment()
        if not env.has_network or not is_logged_on(job.owner, env):
            return ""
        try:
            failure = await self._tell(farewell, job)
        except (WorkerGone, TimeoutError):
            return ""
        except BitsError as error:
            return f"the server cannot be told: {error.message}" if error.name in FOR_GOOD else ""
        if failure is None:
            return TOLD
        log.info("action=farewell-failed job=%s error=%s transient=%s", job.id, failure.name, failure.transient)
        if failure.name == UNJUDGED:
            return f"the server cannot be told: {failure.message}"
        return "" if failure.transient else f"the server refused: {failure.message}"

    async def _tell(self, farewell: _Farewell, job: Job) -> Failure | None:
        """Raises BitsError, WorkerGone and TimeoutError."""
        network = self._tokens.identities(job).network
        worker = await self._pool.get(network.identity)
        with worker.held():
            terms = await self._terms.prepare(job, network, worker)
            if network.kind is AccountKind.USER and not is_logged_on(network, self._environment()):
                raise WorkerGone
            number = self._pool.next_transfer()
            telling = _Telling(
                lambda seen: self._judge(worker, job, seen),
                lambda: self._evaluators.want(number, worker, worker.identity),
            )
            worker.open_transfer(number, TransferHandler(on_frame=telling.on_frame, on_lost=telling.on_lost))
            farewell.worker, farewell.transfer = worker, number
            try:
                worker.send(start_of(number, job, terms, self._configuration(), takes_handles=False))
                worker.knows_secrets = worker.knows_secrets or terms.has_passwords
                for credential in terms.credentials:
                    for part in credential.frames(number):
                        worker.send(part)
                worker.send(upload_of(number, job, terms, only_cancels=True))
                async with asyncio.timeout(ATTEMPT_S):
                    return await telling.over
            finally:
                farewell.worker = None
                self._evaluators.end(number)
                worker.send(StopTransfer(transfer=number))
                worker.close_transfer(number)

    def _judge(self, worker: Worker, job: Job, seen: CertificateSeen) -> None:
        """No program is there for a cancelled job: what one has accepted before counts, and nothing else (4.6)."""
        shown = shown_in(seen, job, seen.number - 1)
        if shown is None:
            self._pool.kill(worker)
            return
        verdict = self._validators.recall(job, shown)
        worker.send(
            CertificateJudged(transfer=seen.transfer, number=seen.number, error=verdict.error, message=verdict.message)
        )


class _Telling:
    """One attempt, as its worker reports it: a failure, None when the server has been told, or WorkerGone."""

    def __init__(
        self, on_certificate: Callable[[CertificateSeen], None], on_evaluator_wanted: Callable[[], None]
    ) -> None:
        self._on_certificate = on_certificate
        self._on_evaluator_wanted = on_evaluator_wanted
        self.over: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._is_done = False

    def on_frame(self, message: object) -> None:
        match message:
            case CertificateSeen():
                self._on_certificate(message)
            case EvaluatorWanted():
                self._on_evaluator_wanted()
            case FilesDone():
                self._is_done = True
            case TransferEnded(error="") if self._is_done and not self.over.done():
                self.over.set_result(None)
            case TransferEnded(error=error) if is_failure(error) and not self.over.done():
                self.over.set_result(failure_of(message))
            case TransferEnded():
                self.on_lost()
            case _:
                # Everything else that a transfer tells is about its progress, and there is none here.
                pass

    def on_lost(self) -> None:
        if not self.over.done():
            self.over.set_exception(WorkerGone())
