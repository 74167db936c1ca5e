"""What a worker's report makes of a job.

Reports are believed by the number of their run only where they move the job; what is, or is no more, on the
disk counts whenever the report comes, since runs of one job never overlap.
"""

from __future__ import annotations

from dataclasses import replace

from openbits.core import entries
from openbits.core.entrusted import wiped
from openbits.core.environment import Environment, is_blocked_by_network
from openbits.core.events import (
    Entry,
    Failure,
    FileAnswered,
    FileCheckpoint,
    FileRedirected,
    FilesFetched,
    FilesFinished,
    HeadersSeen,
    RunEnded,
    SessionEnded,
    Step,
    UploadMoved,
    WorkerLost,
)
from openbits.core.failing import no_network
from openbits.core.model import (
    REPLY_INDEX,
    UPLOAD_INDEX,
    ByteRange,
    Closing,
    Demand,
    File,
    Job,
    JobState,
    Validator,
)
from openbits.core.moves import failed, idle, moved, new_run, progressed, touched, transferred, with_files
from openbits.core.names import origin_of, public_url
from openbits.core.pieces import emptied, is_idle, sized
from openbits.core.states import Trigger
from openbits.errors import ErrorContext


def answered(job: Job, answers: tuple[FileAnswered, ...], env: Environment) -> Step | None:
    """Servers have answered for files."""
    if job.state.is_final or not answers:
        return None
    changed: dict[int, File] = {}
    said: list[Entry] = []
    for answer in answers:
        file = changed.get(answer.index, job.part(answer.index))
        if file.transferred:
            continue
        # Whatever has become of the job meanwhile: bytes that a worker dropped must not count any more.
        if job.settings.on_demand_mode:
            # Of pieces all are kept or none.
            file = emptied(file) if answer.restarted else file
            kept_bytes = file.bytes_transferred
        else:
            kept_bytes = min(answer.offset, file.bytes_transferred)
        if not _is_believed(job, file, answer.run):
            changed[answer.index] = replace(file, bytes_transferred=kept_bytes)
            continue
        changed[answer.index] = replace(
            file,
            bytes_total=answer.bytes_total,
            bytes_transferred=kept_bytes,
            validator=answer.validator,
            restarts=file.restarts + (1 if answer.restarted else 0),
            resumable=answer.resumable,
            response_headers=answer.response_headers,
            demand=sized(file, answer.bytes_total),
        )
        if answer.restarted:
            said.append(Entry(kind="restarted", text=f"{file.local_name}: {answer.restarted}"))
    is_connecting = job.state is JobState.CONNECTING
    is_present = job.state.is_active and answers[-1].run == job.run
    if is_present:
        job = replace(moved(job, Trigger.ANSWERED, env), error=None)
    job = with_files(touched(job, env), changed)
    if is_present and (is_connecting or changed):
        name = job.part(answers[0].index).remote_name or job.files[UPLOAD_INDEX].remote_name
        more = f" and {len(answers) - 1} more" if len(answers) > 1 else ""
        text = f"the server answered for {public_url(name)}{more}"
        kind = "transferring" if is_connecting else "file started"
        said.append(entries.started(job, [answer.index for answer in answers], text, kind=kind))
    return Step(job=job, changed_files=tuple(changed), entries=tuple(said))


def _is_believed(job: Job, file: File, run: int) -> bool:
    """Whether a run may speak for a file.

    Runs of a job never overlap, so what an earlier run says is as good as what the present one says,
    unless no server has answered for the file yet: then it may be about a former remote name (J40). What is uploaded,
    and its reply, keep theirs; and a server that has given the reply does not give it again.
    """
    return run == job.run or file.resumable is not None or job.is_upload


def checkpoint(job: Job, event: FileCheckpoint, env: Environment) -> Step | None:
    """More of a file is durable."""
    if job.state.is_final:
        return None
    file = job.part(event.index)
    if file.transferred or event.durable_bytes == file.bytes_transferred or not _is_believed(job, file, event.run):
        return None
    job = with_files(job, {event.index: replace(file, bytes_transferred=event.durable_bytes)})
    return Step(job=progressed(job, env), changed_files=(event.index,))


def fetched(job: Job, event: FilesFetched, env: Environment) -> Step | None:
    """Files are whole and durable."""
    if job.state.is_final:
        return None
    changed: dict[int, File] = {}
    for index, size in event.files:
        file = job.part(index)
        if not file.transferred and _is_believed(job, file, event.run):
            # What the server has is finished (F2); what has come from there is, when it has its name.
            is_sent = job.is_upload and index == UPLOAD_INDEX
            changed[index] = replace(
                file,
                transferred=True,
                bytes_total=size,
                bytes_transferred=size,
                validation=None,
                completed=is_sent,
                # Also when it was transferred before: what is here now is new (N2).
                was_announced=False,
                demand=None if file.demand is None else Demand(filled=_whole(size)),
            )
    if not changed:
        return None
    job = progressed(with_files(job, changed), env)
    if job.is_upload and UPLOAD_INDEX in changed:
        # The last thing that is told of an upload: no session is left to be gone on with, or to be cancelled.
        job = replace(job, upload_memory="")
    said: tuple[Entry, ...] = (entries.fetched(job, tuple(changed)),)
    if (job.state.is_active or job.state is JobState.QUEUED) and not job.has_work:
        job = transferred(job, env)
        said = (*said, Entry(kind="transferred", text="all files are transferred"))
    return Step(job=job, changed_files=tuple(changed), entries=said)


def _whole(size_bytes: int) -> tuple[ByteRange, ...]:
    return (ByteRange(0, size_bytes),) if size_bytes else ()


def redirected(job: Job, event: FileRedirected, env: Environment) -> Step | None:
    """A redirect led elsewhere, and the job is to remember where (H7): downloads only."""
    if job.state.is_final or job.is_upload:
        return None
    file = job.files[event.index]
    if file.transferred or event.remote_name == file.remote_name or not _is_believed(job, file, event.run):
        return None
    # What the job has to prove who asks is for the server that its owner named, also in the runs to come: whoever
    # may answer for that server must not be able to have it sent elsewhere.
    origin = origin_of(file.remote_name)
    meant_for, led_to = file.meant_for or origin, origin_of(event.remote_name)
    changed = replace(
        file,
        remote_name=event.remote_name,
        meant_for="" if led_to == meant_for else meant_for,
        sealed_userinfo=file.sealed_userinfo if led_to == origin else "",
    )
    text = f"{public_url(file.remote_name)} is now {public_url(event.remote_name)}: the server redirected"
    entry = Entry(kind="redirected", text=text)
    return Step(
        job=with_files(touched(job, env), {event.index: changed}), changed_files=(event.index,), entries=(entry,)
    )


def headers_seen(job: Job, event: HeadersSeen) -> Step | None:
    """The last answer for a file brought nothing of it, or not its beginning (F10)."""
    if job.state.is_final:
        return None
    file = job.part(event.index)
    if file.response_headers == event.response_headers or not _is_believed(job, file, event.run):
        return None
    changed = {event.index: replace(file, response_headers=event.response_headers)}
    return Step(job=with_files(job, changed), changed_files=(event.index,))


def upload_moved(job: Job, event: UploadMoved, env: Environment) -> Step | None:
    """The server has more of the file, or less; or the session is another one.

    Runs of a job never overlap, so what an earlier one says of the session is true. Of a cancelled job it is what the
    server has to be told of.
    """
    if job.state.is_final:
        return None if job.cancel_until is None else Step(job=replace(job, upload_memory=event.memory))
    file = job.files[UPLOAD_INDEX]
    job = touched(replace(job, upload_memory=event.memory), env)
    acknowledged_bytes = min(event.acknowledged_bytes, file.bytes_total or 0)
    if file.transferred or acknowledged_bytes == file.bytes_transferred:
        return Step(job=job)
    if acknowledged_bytes > file.bytes_transferred:
        job = progressed(job, env)
    job = with_files(job, {UPLOAD_INDEX: replace(file, bytes_transferred=acknowledged_bytes)})
    return Step(job=job, changed_files=(UPLOAD_INDEX,))


def session_ended(job: Job, event: SessionEnded) -> Step | None:
    """The server of a cancelled upload has been told, or will not be."""
    if job.cancel_until is None:
        return None
    job, changed = wiped(replace(job, cancel_until=None, upload_memory=""))
    entry = Entry(kind="session ended", text=f"the upload session is over: {event.how}")
    return Step(job=job, changed_files=changed, entries=(entry,))


def run_ended(job: Job, event: RunEnded, env: Environment) -> Step | None:
    """A run is over."""
    if event.run != job.run or not job.state.is_active:
        return None
    if event.failure is not None:
        if is_blocked_by_network(job, env):
            return failed(job, no_network(), env)
        return _source_forgotten(failed(_reply_known(job, event.failure), event.failure, env), event.failure)
    if not job.has_work:
        return Step(job=transferred(job, env), entries=(Entry(kind="transferred", text="all files are transferred"),))
    if is_idle(job):
        return idle(job, env)
    # Files were added, or pieces asked for, while the run was under way: go on with them, without leaving the state.
    return new_run(job, env)


def _reply_known(job: Job, failure: Failure) -> Job:
    """A reply that fails before anything of it is here counts as known: that tells its error from the upload's (E6)."""
    if failure.index != REPLY_INDEX or job.reply is None or job.reply.bytes_total is not None:
        return job
    return with_files(job, {REPLY_INDEX: replace(job.reply, bytes_total=0)})


def _source_forgotten(step: Step, failure: Failure) -> Step:
    """After BG_E_LOCAL_FILE_CHANGED, Resume sends the file as it then is, from its first byte (U46)."""
    if failure.name != "BG_E_LOCAL_FILE_CHANGED" or not step.job.is_upload:
        return step
    file = step.job.files[UPLOAD_INDEX]
    forgotten = replace(file, bytes_total=None, bytes_transferred=0, validator=Validator())
    return replace(step, job=with_files(step.job, {UPLOAD_INDEX: forgotten}), changed_files=(UPLOAD_INDEX,))


def worker_lost(job: Job, event: WorkerLost, env: Environment) -> Step | None:
    """The worker died under a run: a broken connection, unless it happens again and again."""
    if event.run != job.run or not job.state.is_active:
        return None
    if event.idle_s <= env.break_patience_s and not job.settings.http_method:
        step = new_run(job, env)
        return replace(step, entries=(Entry(kind="worker", text="the worker ended; another one goes on"),))
    failure = Failure(
        name="E_FAIL",
        context=ErrorContext.GENERAL_QUEUE_MANAGER,
        message="the process that transferred the file ended in the middle: resume the job to ask for it again"
        if job.settings.http_method
        else "the processes that transfer for this account end again and again: the service's log says why",
        transient=True,
    )
    return failed(job, failure, env)


def finished(job: Job, event: FilesFinished, env: Environment) -> Step | None:
    """The files of a job that is being ended have been renamed or deleted."""
    if job.closing is None:
        return None
    if job.closing is Closing.CANCEL:
        result = "BG_S_UNABLE_TO_DELETE_FILES" if event.left_over else "S_OK"
        job = replace(job, closing=None, result=result, ended_at=env.now)
        return Step(job=job, entries=entries.cleaned(job, event.left_over))
    changed = {index: replace(job.part(index), completed=True, validation=True) for index in event.renamed}
    job = with_files(job, changed)
    if event.failed:
        _, name, message = event.failed[0]
        more = f" ({len(event.failed)} files)" if len(event.failed) > 1 else ""
        text = f"{name}: {message}{more}"
        job = replace(touched(job, env), closing=None)
        return Step(job=job, changed_files=tuple(changed), entries=(Entry(kind="complete failed", text=text),))
    if event.left_over:
        result = "BG_S_UNABLE_TO_DELETE_FILES"
    elif not job.files or any(not file.completed for file in (*job.files, *(file for _, file in job.made_here))):
        result = "BG_S_PARTIAL_COMPLETE"
    else:
        result = "S_OK"
    job = moved(touched(job, env), Trigger.COMPLETED, env)
    job, bared = wiped(replace(job, closing=None, result=result, ended_at=env.now))
    said = entries.completed(job, result, event.left_over)
    return Step(job=job, changed_files=tuple({**dict.fromkeys(bared), **changed}), entries=said)
