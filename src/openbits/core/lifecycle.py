"""What every event makes of a job: `apply` is the only maker of a changed job.

Pure: the time, the limits and the state of the network come in as values.  An event that comes too
late, or from a run that is over, changes nothing; a verb that is not possible raises BitsError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from openbits.core import demand, entries, entrusted, moves, notices, ownership, reports, uploads
from openbits.core.blocking import is_blocked_by_policy, no_bandwidth, waits_for_policy
from openbits.core.environment import Environment, is_blocked_by_network, is_logged_on
from openbits.core.events import (
    AddFiles,
    BandwidthChanged,
    Cancel,
    ChangeCredentials,
    ChangeOwner,
    ChangeSettings,
    Complete,
    Condition,
    DeadlineReached,
    EndSession,
    Entry,
    Event,
    Failure,
    FileAnswered,
    FileCheckpoint,
    FileRedirected,
    FilesAnnounced,
    FilesAnswered,
    FilesFetched,
    FilesFinished,
    FinishFiles,
    HeadersSeen,
    HelperTokenChanged,
    HelperTokenLost,
    HideHeaders,
    LogonChanged,
    MovePosition,
    NetworkChanged,
    Noted,
    NoticeTaken,
    RangesFilled,
    RenameRemote,
    Report,
    RequestRanges,
    Resume,
    RunEnded,
    SealOld,
    ServiceStarted,
    SessionEnded,
    SetCertificateValidator,
    SetClientCertificate,
    SetHeaders,
    SetHelperFlags,
    SetNotifyCommand,
    SetReplyName,
    SetValidation,
    SlotGranted,
    SlotTaken,
    Step,
    Suspend,
    UploadMoved,
    WorkerLost,
)
from openbits.core.failing import no_network
from openbits.core.model import Closing, File, Job, JobError, JobState, Settings, Validator
from openbits.core.pieces import emptied, is_idle
from openbits.core.settings import CHECK_REVOCATION, TERMS
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError, ErrorContext

LOG_OFF_PATIENCE_S: Final = moves.LOG_OFF_PATIENCE_S


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
            return _cancel(job, env, Trigger.CANCEL, entries.cancelled(job))
        case Complete():
            return _complete(job, env)
        case AddFiles() | ChangeSettings() | RenameRemote():
            return _change(job, event, env)
        case SetReplyName():
            return uploads.set_reply_name(job, event, env)
        case SetValidation():
            return _validate(job, event, env)
        case ChangeOwner() | SetHelperFlags():
            return ownership.change(job, event, env)
        case ChangeCredentials() | SetHeaders() | HideHeaders() | SetClientCertificate() | SetCertificateValidator():
            return ownership.change(job, event, env)
        case SetNotifyCommand():
            return ownership.change(job, event, env)
        case NoticeTaken() | FilesAnnounced() | Noted():
            return notices.apply(job, event)
        case RequestRanges() | MovePosition():
            return demand.change(job, event, env)
        case HelperTokenChanged() | HelperTokenLost():
            return ownership.token_changed(job, event, env)
        case SealOld():
            return entrusted.seal_old(job, event)
        case (
            LogonChanged()
            | SlotGranted()
            | SlotTaken()
            | DeadlineReached()
            | NetworkChanged()
            | BandwidthChanged()
            | ServiceStarted()
        ):
            return _apply_condition(job, event, env)
        case _:
            return _apply_report(job, event, env)


def _apply_condition(job: Job, event: Condition, env: Environment) -> Step | None:
    match event:
        case LogonChanged():
            return _logon_changed(job, env)
        case SlotGranted():
            return _start(job, env)
        case SlotTaken():
            return _leave_run(job, Trigger.PREEMPT, env, "the scheduler gave its slot to another job")
        case DeadlineReached():
            return _deadline_reached(job, env)
        case NetworkChanged():
            return _network_changed(job, env)
        case BandwidthChanged():
            return _bandwidth_changed(job, env)
        case ServiceStarted():
            return _recover(job, env)
        case _:
            assert_never(event)


def _apply_report(job: Job, event: Report, env: Environment) -> Step | None:
    match event:
        case FileAnswered():
            return reports.answered(job, (event,), env)
        case FilesAnswered(answers=answers):
            return reports.answered(job, answers, env)
        case FileCheckpoint():
            return reports.checkpoint(job, event, env)
        case FilesFetched():
            return reports.fetched(job, event, env)
        case FileRedirected():
            return reports.redirected(job, event, env)
        case HeadersSeen():
            return reports.headers_seen(job, event)
        case RangesFilled():
            return demand.filled(job, event, env)
        case UploadMoved():
            return reports.upload_moved(job, event, env)
        case SessionEnded():
            return reports.session_ended(job, event)
        case RunEnded():
            return reports.run_ended(job, event, env)
        case WorkerLost():
            return reports.worker_lost(job, event, env)
        case FilesFinished():
            return reports.finished(job, event, env)
        case _:
            assert_never(event)


def deadline(job: Job, env: Environment) -> float | None:
    """Return when DeadlineReached has to be applied to the job, if nothing else happens before."""
    if job.state.is_final:
        if job.cancel_until is not None:
            return job.cancel_until
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


# --- a caller's verbs ------------------------------------------------------------------------------


def _resume(job: Job, env: Environment) -> Step:
    target = next_state(job.state, Trigger.RESUME)
    moves.refuse_while_closing(job)
    if not job.files:
        raise BitsError("BG_E_EMPTY", "the job has no files: add one with 'bits add'")
    if target is job.state:
        return Step(job=job)
    job = uploads.with_reply_name(job)
    job = replace(moves.touched(job, env), was_resumed=True, active_s=0.0, no_progress_since=None)
    step = moves.enter_queue(job, Trigger.RESUME, env, "resumed")
    return replace(step, entries=entries.resumed(job, step.entries))


def _suspend(job: Job, env: Environment) -> Step:
    target = next_state(job.state, Trigger.SUSPEND)
    moves.refuse_while_closing(job)
    if target is job.state:
        return Step(job=job)
    stop = moves.stopped(job)
    job = moves.moved(moves.touched(job, env), Trigger.SUSPEND, env)
    return Step(job=replace(job, error=None), effects=stop, entries=(entries.suspended(job),))


def _cancel(job: Job, env: Environment, trigger: Trigger, entry: Entry) -> Step | None:
    if next_state(job.state, trigger) is None:
        return None
    moves.refuse_while_closing(job)
    stop = moves.stopped(job)
    until = uploads.cancel_until(job, env)
    job = moves.moved(moves.touched(job, env), trigger, env)
    job = replace(job, closing=Closing.CANCEL, error=None, ended_at=env.now, cancel_until=until)
    changed: tuple[int, ...] = ()
    if until is None:
        job, changed = entrusted.wiped(job)
    finish = FinishFiles(job_id=job.id, closing=Closing.CANCEL)
    end = () if until is None else (EndSession(job_id=job.id),)
    return Step(job=job, effects=(*stop, finish, *end), changed_files=changed, entries=(entry,))


def _complete(job: Job, env: Environment) -> Step:
    next_state(job.state, Trigger.COMPLETE)
    if job.closing is Closing.COMPLETE:
        return Step(job=job)
    uploads.refuse_early_complete(job)
    stop = moves.stopped(job)
    job = moves.moved(moves.touched(job, env), Trigger.COMPLETE, env)
    job = replace(job, closing=Closing.COMPLETE, error=None)
    finish = FinishFiles(job_id=job.id, closing=Closing.COMPLETE)
    return Step(job=job, effects=(*stop, finish), entries=(Entry(kind="completing", text="Complete was called"),))


def _change(job: Job, event: AddFiles | ChangeSettings | RenameRemote, env: Environment) -> Step:
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    job = moves.touched(job, env)
    match event:
        case AddFiles(files=files):
            added = tuple(range(len(job.files), len(job.files) + len(files)))
            uploads.refuse_second_file(job, len(files))
            if job.reply is not None:
                uploads.refuse_reply_over_source(job.reply.local_name, files)
            job = replace(job, files=job.files + files)
            return Step(job=job, changed_files=added, entries=(entries.added(files),))
        case ChangeSettings(settings=settings):
            names = [name for name in settings.__slots__ if getattr(settings, name) != getattr(job.settings, name)]
            entry = entries.changed(", ".join(names) or "nothing new")
            unproven = _unproven(job, settings)
            changed = moves.with_files(replace(job, settings=settings), unproven)
            step = moves.restarted(changed, env) if TERMS.intersection(names) else Step(job=changed)
            changed_files = (*unproven, *step.changed_files)
            step = replace(step, changed_files=changed_files, entries=(entry,))
            return _with_bandwidth(step, env) if "priority" in names else step
        case RenameRemote(names=names_by_index, userinfo=userinfo):
            uploads.refuse_for_upload(job, "remote names can be changed")
            files_by_index = {}
            sealed = dict(userinfo)
            for index, name in names_by_index:
                file = job.files[index]
                # Another server's entity tag says nothing; size and time decide whether the file goes on (J40).
                files_by_index[index] = replace(
                    file,
                    remote_name=name,
                    validator=replace(file.validator, etag=None),
                    resumable=None,
                    meant_for="",
                    sealed_userinfo=sealed.get(index, ""),
                )
            text = f"remote name of {len(names_by_index)} file{'s' if len(names_by_index) != 1 else ''} changed"
            # No run that knows the old remote names may speak for the new ones.
            step = moves.restarted(moves.with_files(job, files_by_index), env)
            changed_files = (*files_by_index, *step.changed_files)
            return replace(step, changed_files=changed_files, entries=(entries.changed("remote name", text),))
        case _:
            assert_never(event)


def _validate(job: Job, event: SetValidation, env: Environment) -> Step:
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    uploads.refuse_for_upload(job, "files can be validated")
    file = job.files[event.index]
    if not file.transferred:
        raise BitsError("E_PENDING", "the file is not finished: validate it when it is transferred")
    job = moves.touched(job, env)
    if event.valid:
        job = moves.with_files(job, {event.index: replace(file, validation=True)})
        return Step(job=job, changed_files=(event.index,))
    again = replace(emptied(file), validation=False, transferred=False, completed=False, was_announced=False)
    stop = moves.stopped(job)
    error = JobError(
        name="BG_E_VALIDATION_FAILED",
        context=ErrorContext.LOCAL_FILE,
        message=f"{file.local_name} was declared invalid: resume the job to fetch it again",
        file_index=event.index,
    )
    job = moves.moved(moves.with_files(job, {event.index: again}), Trigger.INVALIDATE, env)
    job = replace(job, error=error, error_count=job.error_count + 1, transferred_at=None)
    entry = entries.declared_bad(job, error)
    return Step(job=job, effects=stop, changed_files=(event.index,), entries=(entry,))


# --- scheduler, timers, conditions -------------------------------------------------------------------


def _start(job: Job, env: Environment) -> Step | None:
    if job.state is not JobState.QUEUED or not is_logged_on(job.owner, env):
        return None
    if is_idle(job):
        return moves.idle(job, env)
    if is_blocked_by_policy(job, env):
        return moves.failed(job, no_bandwidth(env), env)
    return moves.new_run(moves.moved(job, Trigger.START, env), env)


def _logon_changed(job: Job, env: Environment) -> Step | None:
    if is_logged_on(job.owner, env):
        return None
    return _leave_run(job, Trigger.LOG_OFF, env, "its owner has logged off", patience_s=LOG_OFF_PATIENCE_S)


def _leave_run(
    job: Job, trigger: Trigger, env: Environment, text: str, *, patience_s: float | None = None
) -> Step | None:
    if next_state(job.state, trigger) is None:
        return None
    stop = moves.stopped(job, patience_s)
    return Step(job=moves.moved(job, trigger, env), effects=stop, entries=(Entry(kind="queued", text=text),))


def _deadline_reached(job: Job, env: Environment) -> Step | None:
    due = deadline(job, env)
    if due is None or env.now < due:
        return None
    if job.state.is_final:
        if job.cancel_until is not None:
            return reports.session_ended(job, SessionEnded(how="the server could not be told in time"))
        return Step(job=job, forget=True)
    if job.modified_at + env.job_inactivity_s <= env.now and job.closing is None:
        return _cancel(job, env, Trigger.EXPIRE, entries.expired(job, env.job_inactivity_s))
    if job.active_since is not None and due == job.active_since + _max_download_time(job, env) - job.active_s:
        limit_s = _max_download_time(job, env)
        failure = Failure(
            name="BG_E_MAXDOWNLOAD_TIMEOUT",
            context=ErrorContext.GENERAL_QUEUE_MANAGER,
            message=f"the job was transferring for more than {limit_s:.0f} s: resume it to give it as long again",
            transient=False,
        )
        return moves.failed(job, failure, env)
    if job.state is JobState.TRANSIENT_ERROR:
        if job.no_progress_since is not None and (job.no_progress_since + job.settings.no_progress_timeout <= env.now):
            job = moves.moved(job, Trigger.FAIL, env)
            entry = entries.gave_up(job, "no progress for longer than no_progress_timeout")
            return Step(job=job, entries=(entry,))
        return moves.enter_queue(job, Trigger.RETRY, env, "retry")
    return None


def _network_changed(job: Job, env: Environment) -> Step | None:
    if env.has_network:
        if job.state is not JobState.TRANSIENT_ERROR:
            return None
        return moves.enter_queue(job, Trigger.RETRY, env, "the network is back")
    if not (job.state is JobState.QUEUED or job.state.is_active) or not is_blocked_by_network(job, env):
        return None
    return moves.failed(job, no_network(), env)


def _bandwidth_changed(job: Job, env: Environment) -> Step | None:
    if not is_blocked_by_policy(job, env):
        if not waits_for_policy(job):
            return None
        return moves.enter_queue(job, Trigger.RETRY, env, "the policy leaves it bandwidth again")
    if job.state is not JobState.QUEUED and not job.state.is_active:
        return None
    return moves.failed(job, no_bandwidth(env), env)


def _with_bandwidth(step: Step, env: Environment) -> Step:
    """What follows where other limits hold for the job now."""
    following = _bandwidth_changed(step.job, env)
    if following is None:
        return step
    return replace(
        following,
        effects=(*step.effects, *following.effects),
        changed_files=(*step.changed_files, *following.changed_files),
        entries=(*step.entries, *following.entries),
    )


def _recover(job: Job, env: Environment) -> Step | None:
    if not job.state.is_active:
        return None
    # When the service died is not known; what was written down last is the best estimate.
    env = replace(env, now=max(job.modified_at, job.active_since or 0.0))
    return Step(job=moves.moved(job, Trigger.RECOVER, env))


# --- parts -------------------------------------------------------------------------------------------------


def _max_download_time(job: Job, env: Environment) -> float:
    own = job.settings.maximum_download_time
    return env.max_download_time_s if own is None else own


def _unproven(job: Job, settings: Settings) -> dict[int, File]:
    """Files that begin again, since nobody asked whether the certificate they came under was revoked (H8)."""
    if job.is_upload or not settings.security_flags & ~job.settings.security_flags & CHECK_REVOCATION:
        return {}
    return {
        # Nor does a run that knows nothing of the check speak for the file any more.
        index: replace(emptied(file), validator=Validator(), resumable=None)
        for index, file in unfinished(job)
        if file.remote_name.lower().startswith("https:") and file.bytes_transferred
    }


def unfinished(job: Job) -> Iterable[tuple[int, File]]:
    """Yield index and value of every file that is still to be transferred, in order (Q2)."""
    return ((index, file) for index, file in enumerate(job.files) if not file.transferred)
