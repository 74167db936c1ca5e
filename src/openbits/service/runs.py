"""Runs: what is being transferred now.  One run is one job in one worker; a job has at most one.

The conductor carries out the effects StartRun, StopRun and FinishFiles, and turns what workers
report into events for the ledger.  A new run of a job begins only when the old one has ended, so
that no two workers ever write to one file; files are renamed or deleted only when no run is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from openbits.core.events import (
    AskForPieces,
    Event,
    Failure,
    FilesFinished,
    FinishFiles,
    RunEnded,
    StartRun,
    StopRun,
    WorkerLost,
)
from openbits.core.events import FileRedirected as Redirected
from openbits.core.events import UploadMoved as SessionMoved
from openbits.core.lifecycle import unfinished
from openbits.core.model import UPLOAD_INDEX, AccountKind, Identity, Job, Priority
from openbits.errors import BitsError, ErrorContext, is_failure
from openbits.frames.worker import (
    CertificateJudged,
    CertificateSeen,
    EvaluatorWanted,
    FileReceived,
    FileRedirected,
    FileWanted,
    LeaseWanted,
    ProxyChosen,
    StopTransfer,
    TransferBroken,
    TransferEnded,
    TransferFiles,
    UploadFile,
    UploadKept,
    UploadMoved,
)
from openbits.service.bandwidth import Broker
from openbits.service.configuration import Configuration
from openbits.service.evaluators import Evaluators
from openbits.service.finishing import finish_files
from openbits.service.handles import HandOver
from openbits.service.helpertokens import HelperTokens
from openbits.service.pieces import ask_for_pieces, hand_over_pieces
from openbits.service.reported import PROGRESS, report_of
from openbits.service.run import STOP_PATIENCE_S, Finish, Losses, Run
from openbits.service.stillness import Holds
from openbits.service.tasks import Tasks
from openbits.service.terms import NetworkTerms, Terms
from openbits.service.validators import Shown, Validators, shown_in
from openbits.service.wording import (
    can_have_moved,
    failure_of,
    is_reported,
    leads_elsewhere,
    room,
    spec_of,
    start_of,
    upload_of,
)
from openbits.service.worker import TransferHandler, Worker, WorkerGone, chunked
from openbits.service.workers import WorkerPool

log = logging.getLogger(__name__)

MAX_PAUSE_S = 8.0
NOT_CURED_BY_WAITING = frozenset(
    {
        "BG_E_TOKEN_REQUIRED",
        "BG_E_INVALID_PROXY_INFO",
        "BG_E_INVALID_CREDENTIALS",
        "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY",
    }
)
"""Reasons for not starting a run that only a person can remove."""
LONGEST_WAY = 400


class Conductor:
    """Carries out effects; see the module's rule."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        tokens: HelperTokens,
        terms: Terms,
        validators: Validators,
        broker: Broker,
        configuration: Configuration,
        tasks: Tasks,
        jobs: Mapping[str, Job],
        post: Callable[[str, Event], None],
        settled: Callable[[str], Awaitable[Job | None]],
        moved: Callable[[str], None],
    ) -> None:
        self._pool = pool
        self._tokens = tokens
        self._terms = terms
        self._validators = validators
        self._broker = broker
        self.configuration = configuration
        self._tasks = tasks
        self._jobs = jobs
        self._post = post
        self._settled = settled
        self._moved = moved
        self._runs: dict[str, Run] = {}
        self._next: dict[str, StartRun] = {}
        self._losses: dict[str, Losses] = {}
        self._finishing: dict[str, Finish] = {}
        self._ways: dict[str, str] = {}
        self._evaluators = Evaluators(pool, tasks)
        self._holds = Holds()
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Conductor runs={len(self._runs)} finishing={len(self._finishing)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"runs": len(self._runs), "finishing": len(self._finishing), "workers": len(self._pool)}

    def received(self, job_id: str) -> Mapping[int, int]:
        """Bytes by file index that have come in beyond what is written down."""
        run = self._runs.get(job_id)
        return run.received if run is not None else {}

    def trouble(self, job_id: str) -> str:
        """Why the job's worker is connecting anew; empty when it is not."""
        run = self._runs.get(job_id)
        return run.broken if run is not None else ""

    def way(self, job_id: str) -> str:
        """By which proxy the job's requests go, or went when it last ran, and whose settings say so."""
        return self._ways.get(job_id, "")

    # --- effects ------------------------------------------------------------------------------------

    def start(self, effect: StartRun) -> None:
        """Begin a run, now or when the job's former run has ended."""
        if effect.job_id in self._runs or effect.job_id in self._holds:
            self._next[effect.job_id] = effect
            return
        run = Run(job_id=effect.job_id, run=effect.run, number=self._pool.next_transfer())
        self._runs[effect.job_id] = run
        run.task = self._tasks.start(f"run {effect.job_id}", self._begin(run))

    def stop(self, effect: StopRun) -> None:
        """End the job's run, if there is one: what was received becomes durable first."""
        self._next.pop(effect.job_id, None)
        run = self._runs.get(effect.job_id)
        if run is not None:
            self._stop(run, STOP_PATIENCE_S if effect.patience_s is None else effect.patience_s)

    def change_priority(self, job_id: str, priority: Priority) -> None:
        """The job has another priority: other limits hold for a run that is under way."""
        run = self._runs.get(job_id)
        if run is not None:
            self._broker.change(run.number, priority)

    def interrupt(self, uids: Collection[int], patience_s: float) -> None:
        """Stop at once what runs for or as these accounts, which have logged off, and hurry what is stopping.

        The jobs hear of the log-off by an event of their own.  Should that not be written down in time, or not move
        them because the account is back already, then the end of the run makes them go on.
        """
        for run in tuple(self._runs.values()):
            job = self._jobs.get(run.job_id)
            is_owners = job is not None and job.owner.kind is AccountKind.USER and job.owner.identity.uid in uids
            if is_owners or (run.worker is not None and run.worker.identity.uid in uids):
                run.is_interrupted = run.is_interrupted or not run.is_stopping
                self._stop(run, patience_s)

    def _stop(self, run: Run, patience_s: float) -> None:
        is_hurried = run.is_stopping and patience_s < run.patience_s
        run.patience_s = min(run.patience_s, patience_s)
        if is_hurried and run.worker is not None:
            self._kill_after_patience(run, run.worker)
        if not run.is_stopping:
            run.stop_asked.set()
            if run.worker is not None:
                run.worker.send(StopTransfer(transfer=run.number))
                self._kill_after_patience(run, run.worker)

    def ask(self, effect: AskForPieces) -> None:
        """Tell the job's run what is wanted of a file now; one that is being prepared will begin with it."""
        run, job = self._runs.get(effect.job_id), self._jobs.get(effect.job_id)
        if run is not None and job is not None:
            ask_for_pieces(run, job, effect.index)

    def finish(self, effect: FinishFiles) -> None:
        """Rename or delete the job's files as soon as it has no run."""
        going = self._finishing.get(effect.job_id)
        if going is None or going.is_reported:
            finish = self._finishing[effect.job_id] = Finish(effect.job_id)
            finish.task = self._tasks.start(f"finish {effect.job_id}", self._finish(finish))

    async def ended(self, job_id: str) -> None:
        """Wait until nothing of a run of the job is left."""
        run = self._runs.get(job_id)
        if run is not None:
            await run.ended.wait()

    def finishing(self, job_id: str) -> asyncio.Task[FilesFinished | None] | None:
        """What is being done with the files of a job that is being ended, if it is."""
        finish = self._finishing.get(job_id)
        return finish.task if finish is not None else None

    @contextlib.asynccontextmanager
    async def exclusive(self, job_id: str) -> AsyncIterator[None]:
        """Hold a job still: its run ends, what that reported is written down, and nothing touches its files.

        Its state does not change by this. Afterwards it goes on.
        """
        try:
            async with self._holds.hold(job_id):
                run = self._runs.get(job_id)
                if run is not None:
                    self._stop(run, STOP_PATIENCE_S)
                    await run.ended.wait()
                await self._settled(job_id)
                yield
        finally:
            self._go_on(job_id)

    def _go_on(self, job_id: str) -> None:
        if self._is_closing or job_id in self._holds or job_id in self._runs:
            return
        following = self._next.pop(job_id, None)
        job = self._jobs.get(job_id)
        if following is None and job is not None and job.state.is_active:
            following = StartRun(job_id=job_id, run=job.run)
        if following is not None:
            self.start(following)

    async def stop_all(self) -> None:
        """End all runs in an orderly way; what they received is reported before this returns."""
        self._is_closing = True
        runs = list(self._runs.values())
        for run in runs:
            self.stop(StopRun(job_id=run.job_id))
        await asyncio.gather(*(run.ended.wait() for run in runs))

    # --- a run --------------------------------------------------------------------------------------

    async def _begin(self, run: Run) -> None:
        with contextlib.ExitStack() as held:
            await self._set_out(run, held)

    async def _set_out(self, run: Run, held: contextlib.ExitStack) -> None:
        losses = self._losses.get(run.job_id)
        if losses is not None and losses.count > 1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(MAX_PAUSE_S, 0.25 * 2.0**losses.count)):
                    await run.stop_asked.wait()
        if run.stop_asked.is_set():
            self._end(run)
            return
        try:
            # What an earlier run reported decides where this one goes on: it must have been written down.
            job = await self._settled(run.job_id)
            if run.is_stopping or job is None or job.run != run.run or not job.state.is_active:
                self._end(run)
                return
            identities = self._tokens.identities(job)
            worker = await self._pool.get(identities.network.identity)
            held.enter_context(worker.held())
            terms = await self._terms.prepare(job, identities.network, worker)
            if not run.stop_asked.is_set() and self._tokens.identities(job) != identities:
                # Somebody has logged off, or there is another helper, and the job has not been told yet.
                raise WorkerGone
        except WorkerGone:
            self._lost(run)
            return
        except BitsError as error:
            failure = Failure(
                name=error.name,
                context=ErrorContext.GENERAL_QUEUE_MANAGER,
                message=error.message,
                transient=error.name not in NOT_CURED_BY_WAITING,
            )
            self._post(run.job_id, RunEnded(run=run.run, failure=failure))
            self._end(run)
            return
        if run.stop_asked.is_set():
            self._end(run)
            return
        if not worker.is_open:
            # It has ended since; from now on its end would be told to the handler.
            self._lost(run)
            return
        run.worker = worker
        handler = TransferHandler(on_frame=lambda message: self._receive(run, message), on_lost=lambda: self._lost(run))
        worker.open_transfer(run.number, handler)
        if identities.files.identity != identities.network.identity:
            run.hand_over = self._make_hand_over(run, worker, job, identities.files.identity)
        self._hand_over(run, worker, job, terms)

    def _make_hand_over(self, run: Run, worker: Worker, job: Job, files: Identity) -> HandOver:
        def cut_off() -> None:
            if not run.is_stopping and not run.is_cut_off:
                run.is_cut_off = True
                worker.send(StopTransfer(transfer=run.number))
                self._kill_after_patience(run, worker)

        return HandOver(
            files=files,
            network=worker,
            transfer=run.number,
            umask=job.settings.umask,
            pool=self._pool,
            tasks=self._tasks,
            on_broken=cut_off,
        )

    def _hand_over(self, run: Run, worker: Worker, job: Job, terms: NetworkTerms) -> None:
        start = start_of(run.number, job, terms, self.configuration, takes_handles=run.hand_over is not None)
        # Its priority may be another one by now; until here nobody would have told the worker.
        pacing = self._broker.open(run.number, (self._jobs.get(run.job_id) or job).settings.priority, worker.send)
        worker.send(replace(start, is_paced=pacing.is_paced, window_bytes=pacing.window_bytes))
        worker.knows_secrets = worker.knows_secrets or terms.has_passwords
        for credential in terms.credentials:
            for part in credential.frames(run.number):
                worker.send(part)
        if job.is_upload:
            self._hand_over_upload(run, worker, upload_of(run.number, job, terms))
            return
        if job.settings.on_demand_mode:
            hand_over_pieces(run, worker, self._jobs.get(run.job_id) or job, terms)
            return
        specs = [spec_of(index, file, terms.userinfo_of(index)) for index, file in unfinished(job)]
        run.unfinished.update(spec.index for spec in specs)
        if run.hand_over is not None:
            run.hand_over.offer(specs)
        chunks = chunked(specs, room)
        for position, chunk in enumerate(chunks, 1):
            worker.send(TransferFiles(transfer=run.number, files=tuple(chunk), last=position == len(chunks)))

    def _hand_over_upload(self, run: Run, worker: Worker, upload: UploadFile) -> None:
        run.unfinished.add(upload.file.index)
        if run.hand_over is not None:
            run.hand_over.offer_source(upload.file)
            if upload.reply is not None:
                run.hand_over.offer([upload.reply])
        worker.send(upload)

    def _kill_after_patience(self, run: Run, worker: Worker) -> None:
        if run.stop_timer is not None:
            run.stop_timer.cancel()
        run.stop_timer = asyncio.get_running_loop().call_later(run.patience_s, self._pool.kill, worker)

    def _receive(self, run: Run, message: object) -> None:
        job = self._jobs.get(run.job_id)
        if job is None:
            return
        event = report_of(run, job, message)
        if event is not None:
            if isinstance(event, PROGRESS):
                self._progress(run)
            self._post(run.job_id, event)
            return
        # A worker may have been taken over by a hostile server: what cannot be is not believed.
        known = range(job.part_count)
        match message:
            case FileReceived(index=index, received_bytes=received) if index in known and received >= 0:
                run.received[index] = received
                run.broken = ""
                self._progress(run)
            case UploadMoved() if can_have_moved(message, job):
                self._session_moved(run, message)
            case FileWanted(index=index) if run.hand_over is not None and run.hand_over.want(index):
                pass
            case TransferBroken(message=text):
                run.broken = text
            case CertificateSeen() if (shown := shown_in(message, job, run.certificates_seen)) is not None:
                run.certificates_seen += 1
                work = self._judge(run, run.worker, job, shown, message.number)
                self._tasks.start(f"certificate for {run.job_id}", work)
            case FileRedirected(index=index, remote_name=name) if leads_elsewhere(message, job):
                if is_reported(message, job):
                    self._post(run.job_id, Redirected(run=run.run, index=index, remote_name=name))
            case LeaseWanted(wanted_bytes=wanted):
                self._broker.want(run.number, wanted)
            case EvaluatorWanted() if run.worker is not None:
                self._evaluators.want(run.number, run.worker, run.worker.identity)
            case ProxyChosen(way=way):
                self._ways[run.job_id] = way[:LONGEST_WAY]
            case TransferEnded(error=error, index=failed) if (not error or is_failure(error)) and (
                failed is None or failed in known
            ):
                self._transfer_ended(run, message)
            case _:
                log.error("action=worker-misspoke pid=%d frame=%r", run.worker.pid if run.worker else 0, message)
                if run.worker is not None:
                    self._pool.kill(run.worker)

    def _session_moved(self, run: Run, message: UploadMoved) -> None:
        self._progress(run)
        run.received.pop(UPLOAD_INDEX, None)
        event = SessionMoved(run=run.run, memory=message.memory, acknowledged_bytes=message.acknowledged_bytes)
        self._post(run.job_id, event)
        if message.is_awaited:
            self._tasks.start(f"session of {run.job_id}", self._confirm(run, message.number))

    async def _confirm(self, run: Run, number: int) -> None:
        """A session must be known to every later run before anything is sent in it."""
        await self._settled(run.job_id)
        if run.worker is not None:
            run.worker.send(UploadKept(transfer=run.number, number=number))

    async def _judge(self, run: Run, worker: Worker | None, job: Job, shown: Shown, number: int) -> None:
        verdict = await self._validators.judge(job, shown)
        if worker is not None and not run.ended.is_set():
            worker.send(
                CertificateJudged(transfer=run.number, number=number, error=verdict.error, message=verdict.message)
            )

    def _progress(self, run: Run) -> None:
        losses = self._losses.get(run.job_id)
        if losses is not None:
            losses.count = 0
            losses.progress_at = asyncio.get_running_loop().time()
        self._moved(run.job_id)

    def _transfer_ended(self, run: Run, message: TransferEnded) -> None:
        failure = failure_of(message)
        if run.worker is not None:
            run.worker.close_transfer(run.number)
        if failure is None and run.unfinished and not run.is_stopping:
            # Without this, run would follow run without a pause.
            if run.worker is not None:
                if not run.is_cut_off:
                    log.error("action=worker-misspoke pid=%d unfinished=%d", run.worker.pid, len(run.unfinished))
                self._pool.release(run.worker)
            self._lost(run)
            return
        if failure is None and run.pieces and not run.has_filled and not run.is_stopping:
            # The same for pieces, which may be asked for while the worker says that it is done.
            self._lost(run)
            return
        self._losses.pop(run.job_id, None)
        if not run.is_stopping or failure is not None:
            self._post(run.job_id, RunEnded(run=run.run, failure=failure))
        self._end(run)

    def _lost(self, run: Run) -> None:
        """The worker died: that is a broken connection, not the job's end."""
        run.worker = None
        now = asyncio.get_running_loop().time()
        losses = self._losses.setdefault(run.job_id, Losses(progress_at=now))
        losses.count += 1
        if not run.is_stopping:
            self._post(run.job_id, WorkerLost(run=run.run, idle_s=now - losses.progress_at))
        self._end(run)

    def _end(self, run: Run) -> None:
        if run.stop_timer is not None:
            run.stop_timer.cancel()
        self._evaluators.end(run.number)
        self._broker.close(run.number)
        if run.hand_over is not None:
            run.hand_over.close()
        if self._runs.get(run.job_id) is run:
            del self._runs[run.job_id]
        run.ended.set()
        if run.is_interrupted:
            self._post(run.job_id, RunEnded(run=run.run))
        if run.worker is not None:
            self._pool.release(run.worker)
        following = self._next.pop(run.job_id, None)
        if following is not None:
            self.start(following)

    # --- the end of a job --------------------------------------------------------------------------

    async def _finish(self, finish: Finish) -> FilesFinished | None:
        job_id = finish.job_id
        try:
            await self.ended(job_id)
            await self._holds.wait_free(job_id)
            job = await self._settled(job_id)
            if job is None or job.closing is None:
                return None
            report = await finish_files(job, job.closing, account=self._tokens.file_account, pool=self._pool)
            finish.is_reported = True
            self._losses.pop(job_id, None)
            self._ways.pop(job_id, None)
            self._post(job_id, report)
            await self._settled(job_id)
            return report
        finally:
            if self._finishing.get(job_id) is finish:
                del self._finishing[job_id]
