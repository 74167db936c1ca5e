"""The ways to tell an owner that need a process of his: command line, bus name, URL (N7, N10, J61).

Whatever is done is done with the owner's rights and within a time; how it went is a value.  A process that ends in the
middle has told nothing: WorkerGone says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final

from openbits.core.lifecycle import LOG_OFF_PATIENCE_S
from openbits.core.model import AccountKind, Job
from openbits.core.settings import REDIRECT_MASK
from openbits.core.telling import Kind, Subject
from openbits.errors import BitsError
from openbits.frames.codec import FrameError
from openbits.frames.network import TlsSpec
from openbits.frames.operations import CallBusName, NoticeEnded, PostNotice
from openbits.frames.worker import EvaluatorWanted
from openbits.service.configuration import Notifications
from openbits.service.evaluators import Evaluators
from openbits.service.listeners import Told
from openbits.service.tasks import Tasks
from openbits.service.terms import Terms
from openbits.service.worker import TransferHandler, Worker
from openbits.service.workers import WorkerPool

PATIENCE_S: Final = 15.0
"""How long beyond its limit a worker may take to say how it went."""
METHODS: Final = {
    Kind.JOB_TRANSFERRED: "JobTransferred",
    Kind.JOB_ERROR: "JobError",
    Kind.JOB_MODIFICATION: "JobModification",
    Kind.FILE_TRANSFERRED: "FileTransferred",
    Kind.FILE_RANGES_TRANSFERRED: "FileRangesTransferred",
}


class Messengers:
    """See the module's rule; `body_of` says what a URL is told of a job, as JSON."""

    def __init__(self, *, pool: WorkerPool, terms: Terms, tasks: Tasks, limits: Callable[[], Notifications]) -> None:
        self._pool = pool
        self._evaluators = Evaluators(pool, tasks)
        self._terms = terms
        self._limits = limits
        self._busy: Counter[Worker] = Counter()
        self.body_of: Callable[[Job, Kind], str] = lambda _job, kind: f'{{"event":"{kind.value}"}}'

    def __repr__(self) -> str:
        return f"<Messengers busy={self._busy.total()}>"

    async def run_command(self, job: Job) -> Told:
        """Run the job's command line (N10, N11). Raises WorkerGone."""
        command = job.notify_command
        assert command is not None, "it was there when it was decided to run it"
        limit_s = float(self._limits().command_limit_s)
        try:
            ended = await self._pool.run_command(
                job.owner.identity, program=command.program, arguments=command.arguments, limit_s=limit_s
            )
        except BitsError as error:
            return Told(error=error.name, message=error.message, was_launched=False)
        was_launched = not ended.error or ended.status is not None or ended.error == "ERROR_TIMEOUT"
        return Told(error=ended.error, message=ended.message, status=ended.status, was_launched=was_launched)

    async def call_bus_name(self, job: Job, subject: Subject) -> Told:
        """Call the program behind the job's bus name, which the bus starts (J61). Raises WorkerGone."""
        limit_s = float(self._limits().callback_limit_s)
        return await self._by_worker(
            job,
            limit_s,
            lambda number: CallBusName(
                operation=number,
                name=job.settings.notification_clsid,
                method=METHODS[subject.kind],
                job_id=job.id,
                arguments=_arguments(job, subject),
                limit_s=limit_s,
                on_system_bus=job.owner.kind is not AccountKind.USER,
            ),
        )

    async def post(self, job: Job, subject: Subject) -> Told:
        """POST to the job's `notify_url`, by its proxies and its rules for certificates. Raises WorkerGone."""
        limit_s = float(self._limits().url_limit_s)
        settings = job.settings
        proxy = await self._terms.proxy(job, job.owner)
        # Without the job's certificate: that is for the job's server, as its credentials are.
        tls = TlsSpec(security_flags=settings.security_flags & ~REDIRECT_MASK)
        body, transfer = self.body_of(job, subject.kind), self._pool.next_transfer()
        return await self._by_worker(
            job,
            limit_s,
            lambda number: PostNotice(
                operation=number,
                url=settings.notify_url,
                body=body,
                limit_s=limit_s,
                proxy=proxy,
                tls=tls,
                transfer=transfer,
            ),
            transfer=transfer,
        )

    async def _by_worker(
        self, job: Job, limit_s: float, make: Callable[[int], object], *, transfer: int | None = None
    ) -> Told:
        try:
            worker = await self._pool.get(job.owner.identity)
        except BitsError as error:
            return Told(error=error.name, message=error.message)
        try:
            with worker.held(), self._noted(worker), self._evaluating(worker, transfer):
                async with asyncio.timeout(limit_s + PATIENCE_S):
                    ended: NoticeEnded = await worker.notify(make)
        except FrameError:
            # How long names may be, and how much of a job there is to tell, is for its owner to choose.
            return Told(error="BG_E_STRING_TOO_LONG", message="what there is to tell of the job fits into no frame")
        except TimeoutError:
            self._pool.kill(worker)
            return Told(error="BG_E_WATCHDOG_TIMEOUT", message="the process that was to tell it did not answer")
        return Told(error=ended.error, message=ended.message, status=ended.status)

    @contextlib.contextmanager
    def _evaluating(self, worker: Worker, transfer: int | None) -> Iterator[None]:
        """Bring an evaluator to a notice whose way a PAC script decides, under a number that no transfer has (J22)."""
        if transfer is None:
            yield
            return

        def on_frame(message: object) -> None:
            if isinstance(message, EvaluatorWanted):
                self._evaluators.want(transfer, worker, worker.identity)

        worker.open_transfer(transfer, TransferHandler(on_frame=on_frame, on_lost=lambda: None))
        try:
            yield
        finally:
            worker.close_transfer(transfer)
            self._evaluators.end(transfer)

    @contextlib.contextmanager
    def _noted(self, worker: Worker) -> Iterator[None]:
        self._busy[worker] += 1
        try:
            yield
        finally:
            self._busy[worker] -= 1
            if not self._busy[worker]:
                del self._busy[worker]

    def interrupt(self, uids: Collection[int]) -> None:
        """These accounts have logged off: nothing may go on for them, and transfers get a moment to end well."""
        leaving = [worker for worker in self._busy if worker.identity.uid in uids]
        if leaving:
            asyncio.get_running_loop().call_later(LOG_OFF_PATIENCE_S, self._kill, leaving)

    def _kill(self, workers: list[Worker]) -> None:
        for worker in workers:
            if worker in self._busy and worker.is_open:
                self._pool.kill(worker)


def _arguments(job: Job, subject: Subject) -> tuple[str, ...]:
    """What a method is told beside the job's id."""
    match subject.kind:
        case Kind.JOB_ERROR if job.error is not None:
            return (job.error.name, job.error.message)
        case Kind.FILE_TRANSFERRED | Kind.FILE_RANGES_TRANSFERRED:
            # One text, however many there are: a method of the D-Bus has one signature.
            ranges = " ".join(f"{piece.offset}:{piece.length}" for piece in subject.ranges)
            return (
                (str(subject.index), ranges) if subject.kind is Kind.FILE_RANGES_TRANSFERRED else (str(subject.index),)
            )
        case _:
            return ()
