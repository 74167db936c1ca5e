"""What every event makes of a job: `apply` is the only maker of a changed job.

Pure: the time, the limits and the state of the network come in as values.  An event that comes too
late, or from a run that is over, changes nothing; a verb that is not possible raises BitsError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from openbits.core.events import (
    AddFiles,
    Cancel,
    ChangeSettings,
    Complete,
    DeadlineReached,
    Effect,
    Entry,
    Event,
    Failure,
    FileAnswered,
    FileCheckpoint,
    FilesAnswered,
    FilesFetched,
    FilesFinished,
    FinishFiles,
    NetworkChanged,
    RenameRemote,
    Resume,
    RunEnded,
    ServiceStarted,
    SetValidation,
    SlotGranted,
    SlotTaken,
    StartRun,
    Step,
    StopRun,
    Suspend,
    WorkerLost,
)
from openbits.core.failing import NOT_COUNTED, decide_retry, error_of, no_network
from openbits.core.model import DAY_S, Closing, File, Job, JobError, JobState
from openbits.core.names import needs_network, public_url
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError, ErrorContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What decides beside the job itself. Times in seconds."""

    now: float
    has_network: bool = True
    loopback_names: frozenset[str] = frozenset()
    job_inactivity_s: float = 90.0 * DAY_S
    max_download_time_s: float = 90.0 * DAY_S
    disk_full_retry_s: float = 15.0
    break_patience_s: float = 30.0
    retention_s: float = 1.0 * DAY_S


def apply(job: Job, event: Event, env: Environment) -> Step | None:
    """Return what `event` makes of `job`, or None when it comes too late to mean anything.

    Raises BitsError (BG_E_INVALID_STATE, BG_E_EMPTY, E_PENDING …) for a verb that is not possible now.
    """
    match event:
        case Resume():
            return _resume(job, env)
        case Suspend():
            return _suspend(job, env)
        case Cancel():
            return _cancel(job, env, Trigger.CANCEL, "cancelled")
        case Complete():
            return _complete(job, env)
        case AddFiles() | ChangeSettings() | RenameRemote():
            return _change(job, event, env)
        case SetValidation():
            return _validate(job, event, env)
        case SlotGranted():
            return _start(job, env)
        case SlotTaken():
            return _leave_run(job, Trigger.PREEMPT, env, "the scheduler gave its slot to another job")
        case DeadlineReached():
            return _deadline_reached(job, env)
        case NetworkChanged():
            return _network_changed(job, env)
        case ServiceStarted():
            return _recover(job, env)
        case FileAnswered():
            return _answered(job, (event,), env)
        case FilesAnswered(answers=answers):
            return _answered(job, answers, env)
        case FileCheckpoint():
            return _checkpoint(job, event, env)
        case FilesFetched():
            return _fetched(job, event, env)
        case RunEnded():
            return _run_ended(job, event, env)
        case WorkerLost():
            return _worker_lost(job, event, env)
        case FilesFinished():
            return _finished(job, event, env)
        case _:
            assert_never(event)


def deadline(job: Job, env: Environment) -> float | None:
    """Return when DeadlineReached has to be applied to the job, if nothing else happens before."""
    if job.state.is_final:
        return None if job.closing or job.ended_at is None else job.ended_at + env.retention_s
    times = [job.modified_at + env.job_inactivity_s]
    if job.state is JobState.TRANSIENT_ERROR:
        if job.retry_at is not None:
            times.append(job.retry_at)
        if job.no_progress_since is not None:
            times.append(job.no_progress_since + job.settings.no_progress_timeout)
    if job.active_since is not None:
        times.append(job.active_since + _max_download_time(job, env) - job.active_s)
    return min(times)


def is_blocked_by_network(job: Job, env: Environment) -> bool:
    """Whether the job cannot go on because there is no network that could reach its servers."""
    return not env.has_network and any(
        needs_network(file.remote_name, env.loopback_names) for file in job.files if not file.transferred
    )


# --- a caller's verbs ------------------------------------------------------------------------------


def _resume(job: Job, env: Environment) -> Step:
    target = next_state(job.state, Trigger.RESUME)
    _refuse_while_closing(job)
    if not job.files:
        raise BitsError("BG_E_EMPTY", "the job has no files: add one with 'bits add'")
    if target is job.state:
        return Step(job=job)
    job = replace(_touched(job, env), was_resumed=True, active_s=0.0, no_progress_since=None)
    return _enter_queue(job, Trigger.RESUME, env, "resumed")


def _suspend(job: Job, env: Environment) -> Step:
    target = next_state(job.state, Trigger.SUSPEND)
    _refuse_while_closing(job)
    if target is job.state:
        return Step(job=job)
    stop = _stop(job)
    job = _moved(_touched(job, env), Trigger.SUSPEND, env)
    return Step(job=replace(job, error=None), effects=stop, entries=(Entry(kind="suspended", text="suspended"),))


def _cancel(job: Job, env: Environment, trigger: Trigger, kind: str) -> Step | None:
    if next_state(job.state, trigger) is None:
        return None
    _refuse_while_closing(job)
    stop = _stop(job)
    job = _moved(_touched(job, env), trigger, env)
    job = replace(job, closing=Closing.CANCEL, error=None, ended_at=env.now)
    finish = FinishFiles(job_id=job.id, closing=Closing.CANCEL)
    text = "cancelled" if kind == "cancelled" else "cancelled: nothing had happened to the job for too long"
    return Step(job=job, effects=(*stop, finish), entries=(Entry(kind=kind, text=text),))


def _complete(job: Job, env: Environment) -> Step:
    next_state(job.state, Trigger.COMPLETE)
    if job.closing is Closing.COMPLETE:
        return Step(job=job)
    stop = _stop(job)
    job = _moved(_touched(job, env), Trigger.COMPLETE, env)
    job = replace(job, closing=Closing.COMPLETE, error=None)
    finish = FinishFiles(job_id=job.id, closing=Closing.COMPLETE)
    return Step(job=job, effects=(*stop, finish), entries=(Entry(kind="completing", text="Complete was called"),))


def _change(job: Job, event: AddFiles | ChangeSettings | RenameRemote, env: Environment) -> Step:
    next_state(job.state, Trigger.CHANGE)
    _refuse_while_closing(job)
    job = _touched(job, env)
    match event:
        case AddFiles(files=files):
            added = tuple(range(len(job.files), len(job.files) + len(files)))
            first = public_url(files[0].remote_name) if files else ""
            text = f"{len(files)} file{'s' if len(files) != 1 else ''} added: {first}{' …' if len(files) > 1 else ''}"
            job = replace(job, files=job.files + files)
            return Step(job=job, changed_files=added, entries=(Entry(kind="added", text=text),))
        case ChangeSettings(settings=settings):
            names = [name for name in settings.__slots__ if getattr(settings, name) != getattr(job.settings, name)]
            text = f"set: {', '.join(names)}" if names else "set: nothing new"
            return Step(job=replace(job, settings=settings), entries=(Entry(kind="changed", text=text),))
        case RenameRemote(names=names_by_index):
            files_by_index = {}
            for index, name in names_by_index:
                file = job.files[index]
                # Another server's entity tag says nothing; size and time decide whether the file goes on (J40).
                files_by_index[index] = replace(
                    file, remote_name=name, validator=replace(file.validator, etag=None), resumable=None
                )
            text = f"remote name of {len(names_by_index)} file{'s' if len(names_by_index) != 1 else ''} changed"
            step = _without_old_names(_with_files(job, files_by_index), env)
            return replace(step, changed_files=tuple(files_by_index), entries=(Entry(kind="changed", text=text),))
        case _:
            assert_never(event)


def _without_old_names(job: Job, env: Environment) -> Step:
    """Let no run that knows the old remote names speak for the new ones; one under way begins again."""
    if job.state.is_active:
        step = _new_run(job, env)
        return replace(step, effects=(*_stop(job), *step.effects))
    # A run that was stopped may still have something to report. A job that never ran has no run.
    return Step(job=replace(job, run=job.run + 1) if job.run else job)


def _validate(job: Job, event: SetValidation, env: Environment) -> Step:
    next_state(job.state, Trigger.CHANGE)
    _refuse_while_closing(job)
    file = job.files[event.index]
    if not file.transferred:
        raise BitsError("E_PENDING", "the file is not finished: validate it when it is transferred")
    job = _touched(job, env)
    if event.valid:
        job = _with_files(job, {event.index: replace(file, validation=True)})
        return Step(job=job, changed_files=(event.index,))
    again = replace(file, validation=False, transferred=False, completed=False, bytes_transferred=0)
    stop = _stop(job)
    error = JobError(
        name="BG_E_VALIDATION_FAILED",
        context=ErrorContext.LOCAL_FILE,
        message=f"{file.local_name} was declared invalid: resume the job to fetch it again",
        file_index=event.index,
    )
    job = _moved(_with_files(job, {event.index: again}), Trigger.INVALIDATE, env)
    job = replace(job, error=error, error_count=job.error_count + 1, transferred_at=None)
    entry = Entry(kind="error", text=f"{error.name}: {error.message}")
    return Step(job=job, effects=stop, changed_files=(event.index,), entries=(entry,))


# --- scheduler, timers, conditions -------------------------------------------------------------------


def _start(job: Job, env: Environment) -> Step | None:
    if job.state is not JobState.QUEUED:
        return None
    return _new_run(_moved(job, Trigger.START, env), env)


def _leave_run(job: Job, trigger: Trigger, env: Environment, text: str) -> Step | None:
    if next_state(job.state, trigger) is None:
        return None
    stop = _stop(job)
    return Step(job=_moved(job, trigger, env), effects=stop, entries=(Entry(kind="queued", text=text),))


def _deadline_reached(job: Job, env: Environment) -> Step | None:
    due = deadline(job, env)
    if due is None or env.now < due:
        return None
    if job.state.is_final:
        return Step(job=job, forget=True)
    if job.modified_at + env.job_inactivity_s <= env.now and job.closing is None:
        return _cancel(job, env, Trigger.EXPIRE, "expired")
    if job.active_since is not None and due == job.active_since + _max_download_time(job, env) - job.active_s:
        limit_s = _max_download_time(job, env)
        failure = Failure(
            name="BG_E_MAXDOWNLOAD_TIMEOUT",
            context=ErrorContext.GENERAL_QUEUE_MANAGER,
            message=f"the job was transferring for more than {limit_s:.0f} s: resume it to give it as long again",
            transient=False,
        )
        return _failed(job, failure, env)
    if job.state is JobState.TRANSIENT_ERROR:
        if job.no_progress_since is not None and (job.no_progress_since + job.settings.no_progress_timeout <= env.now):
            job = _moved(job, Trigger.FAIL, env)
            text = "no progress for longer than no_progress_timeout"
            return Step(job=job, entries=(Entry(kind="error", text=text),))
        return _enter_queue(job, Trigger.RETRY, env, "retry")
    return None


def _network_changed(job: Job, env: Environment) -> Step | None:
    if env.has_network:
        if job.state is not JobState.TRANSIENT_ERROR:
            return None
        return _enter_queue(job, Trigger.RETRY, env, "the network is back")
    if not (job.state is JobState.QUEUED or job.state.is_active) or not is_blocked_by_network(job, env):
        return None
    return _failed(job, no_network(), env)


def _recover(job: Job, env: Environment) -> Step | None:
    if not job.state.is_active:
        return None
    # When the service died is not known; what was written down last is the best estimate.
    env = replace(env, now=max(job.modified_at, job.active_since or 0.0))
    return Step(job=_moved(job, Trigger.RECOVER, env))


# --- a worker's reports ----------------------------------------------------------------------------------


def _answered(job: Job, answers: tuple[FileAnswered, ...], env: Environment) -> Step | None:
    if job.state.is_final or not answers:
        return None
    changed: dict[int, File] = {}
    entries: list[Entry] = []
    for answer in answers:
        file = changed.get(answer.index, job.files[answer.index])
        if file.transferred:
            continue
        # Whatever has become of the job meanwhile: bytes that a worker dropped must not count any more.
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
        )
        if answer.restarted:
            entries.append(Entry(kind="restarted", text=f"{file.local_name}: {answer.restarted}"))
    if job.state.is_active and answers[-1].run == job.run:
        if job.state is JobState.CONNECTING:
            text = f"the server answered for {public_url(job.files[answers[0].index].remote_name)}"
            entries.append(Entry(kind="transferring", text=text))
        job = replace(_moved(job, Trigger.ANSWERED, env), error=None)
    job = _with_files(_touched(job, env), changed)
    return Step(job=job, changed_files=tuple(changed), entries=tuple(entries))


def _is_believed(job: Job, file: File, run: int) -> bool:
    """Whether a run may speak for a file.

    Runs of a job never overlap, so what an earlier run says is as good as what the present one says,
    unless no server has answered for the file yet: then it may be about a former remote name (J40).
    """
    return run == job.run or file.resumable is not None


def _checkpoint(job: Job, event: FileCheckpoint, env: Environment) -> Step | None:
    if job.state.is_final:
        return None
    file = job.files[event.index]
    if file.transferred or event.durable_bytes == file.bytes_transferred or not _is_believed(job, file, event.run):
        return None
    job = _with_files(job, {event.index: replace(file, bytes_transferred=event.durable_bytes)})
    return Step(job=_progressed(job, env), changed_files=(event.index,))


def _fetched(job: Job, event: FilesFetched, env: Environment) -> Step | None:
    if job.state.is_final:
        return None
    changed: dict[int, File] = {}
    for index, size in event.files:
        file = job.files[index]
        if not file.transferred and _is_believed(job, file, event.run):
            changed[index] = replace(file, transferred=True, bytes_total=size, bytes_transferred=size, validation=None)
    if not changed:
        return None
    job = _progressed(_with_files(job, changed), env)
    entries: tuple[Entry, ...] = ()
    if (job.state.is_active or job.state is JobState.QUEUED) and not job.has_work:
        job = _transferred(job, env)
        entries = (Entry(kind="transferred", text="all files are transferred"),)
    return Step(job=job, changed_files=tuple(changed), entries=entries)


def _run_ended(job: Job, event: RunEnded, env: Environment) -> Step | None:
    if event.run != job.run or not job.state.is_active:
        return None
    if event.failure is not None:
        if is_blocked_by_network(job, env):
            return _failed(job, no_network(), env)
        return _failed(job, event.failure, env)
    if not job.has_work:
        return Step(job=_transferred(job, env), entries=(Entry(kind="transferred", text="all files are transferred"),))
    # Files were added while the run was under way: go on with them, without leaving the state.
    return _new_run(job, env)


def _worker_lost(job: Job, event: WorkerLost, env: Environment) -> Step | None:
    if event.run != job.run or not job.state.is_active:
        return None
    if event.idle_s <= env.break_patience_s:
        step = _new_run(job, env)
        return replace(step, entries=(Entry(kind="worker", text="the worker ended; another one goes on"),))
    failure = Failure(
        name="E_FAIL",
        context=ErrorContext.GENERAL_QUEUE_MANAGER,
        message="the processes that transfer for this account end again and again: the service's log says why",
        transient=True,
    )
    return _failed(job, failure, env)


def _finished(job: Job, event: FilesFinished, env: Environment) -> Step | None:
    if job.closing is None:
        return None
    left_over = f"; left behind: {', '.join(event.left_over)}" if event.left_over else ""
    if job.closing is Closing.CANCEL:
        result = "BG_S_UNABLE_TO_DELETE_FILES" if event.left_over else "S_OK"
        job = replace(job, closing=None, result=result, ended_at=env.now)
        return Step(job=job, entries=(Entry(kind="cleaned", text=f"temporary files deleted{left_over}"),))
    changed = {index: replace(job.files[index], completed=True, validation=True) for index in event.renamed}
    job = _with_files(job, changed)
    if event.failed:
        _, name, message = event.failed[0]
        more = f" ({len(event.failed)} files)" if len(event.failed) > 1 else ""
        text = f"{name}: {message}{more}"
        job = replace(_touched(job, env), closing=None)
        return Step(job=job, changed_files=tuple(changed), entries=(Entry(kind="complete failed", text=text),))
    if event.left_over:
        result = "BG_S_UNABLE_TO_DELETE_FILES"
    elif not job.files or any(not file.completed for file in job.files):
        result = "BG_S_PARTIAL_COMPLETE"
    else:
        result = "S_OK"
    job = _moved(_touched(job, env), Trigger.COMPLETED, env)
    job = replace(job, closing=None, result=result, ended_at=env.now)
    entry = Entry(kind="completed", text=f"completed: {result}{left_over}")
    return Step(job=job, changed_files=tuple(changed), entries=(entry,))


# --- parts -------------------------------------------------------------------------------------------------


def _moved(job: Job, trigger: Trigger, env: Environment) -> Job:
    """Move the job and keep the clock of active time (J53) and the retry time in step with its state."""
    target = next_state(job.state, trigger)
    assert target is not None, f"{job.state.name} has no cell for {trigger.name}"
    active_s, active_since = job.active_s, job.active_since
    if target.is_active and active_since is None:
        active_since = env.now
    elif not target.is_active and active_since is not None:
        active_s, active_since = active_s + max(0.0, env.now - active_since), None
    modified_at = env.now if target is not job.state else job.modified_at
    retry_at = job.retry_at if target is JobState.TRANSIENT_ERROR else None
    return replace(
        job, state=target, active_s=active_s, active_since=active_since, modified_at=modified_at, retry_at=retry_at
    )


def _new_run(job: Job, env: Environment) -> Step:
    job = replace(job, run=job.run + 1, modified_at=env.now)
    return Step(job=job, effects=(StartRun(job_id=job.id, run=job.run, identity=job.owner.identity),))


def _enter_queue(job: Job, trigger: Trigger, env: Environment, text: str) -> Step:
    """Queue the job, unless it is done already or there is no network to do it with."""
    job = _moved(job, trigger, env)
    entry = Entry(kind="queued", text=text)
    if not job.has_work:
        done = Entry(kind="transferred", text="all files are transferred")
        return Step(job=replace(_transferred(job, env), error=None), entries=(entry, done))
    if is_blocked_by_network(job, env):
        step = _failed(job, no_network(), env)
        return replace(step, entries=(entry, *step.entries))
    return Step(job=job, entries=(entry,))


def _transferred(job: Job, env: Environment) -> Job:
    job = _moved(job, Trigger.DONE, env)
    return replace(job, transferred_at=env.now, error=None, no_progress_since=None)


def _failed(job: Job, failure: Failure, env: Environment) -> Step:
    """Enter ERROR or TRANSIENT_ERROR (S5, S7, S8)."""
    since = job.no_progress_since if job.no_progress_since is not None else env.now
    retry = decide_retry(
        job.settings, failure, now=env.now, no_progress_since=since, disk_full_retry_s=env.disk_full_retry_s
    )
    stop = _stop(job)
    job = _moved(job, Trigger.FAIL_TRANSIENT if retry.is_transient else Trigger.FAIL, env)
    job = replace(
        job,
        error=error_of(failure, job.files),
        error_count=job.error_count + (0 if failure.name in NOT_COUNTED else 1),
        retry_at=retry.at,
        no_progress_since=since,
    )
    kind = "transient error" if retry.is_transient else "error"
    entry = Entry(kind=kind, text=f"{failure.name}: {failure.message}")
    return Step(job=job, effects=stop, entries=(entry,))


def _progressed(job: Job, env: Environment) -> Job:
    return replace(job, modified_at=env.now, no_progress_since=None)


def _touched(job: Job, env: Environment) -> Job:
    return replace(job, modified_at=env.now)


def _stop(job: Job) -> tuple[Effect, ...]:
    return (StopRun(job_id=job.id),) if job.state.is_active else ()


def _max_download_time(job: Job, env: Environment) -> float:
    own = job.settings.maximum_download_time
    return env.max_download_time_s if own is None else own


def _refuse_while_closing(job: Job) -> None:
    if job.closing is Closing.COMPLETE:
        raise BitsError("BG_E_INVALID_STATE", "the job is being completed: wait until that has ended")


def _with_files(job: Job, changed: dict[int, File]) -> Job:
    if not changed:
        return job
    files = list(job.files)
    for index, file in changed.items():
        files[index] = file
    return replace(job, files=tuple(files))


def unfinished(job: Job) -> Iterable[tuple[int, File]]:
    """Yield index and value of every file that is still to be fetched, in order (Q2)."""
    return ((index, file) for index, file in enumerate(job.files) if not file.transferred)
