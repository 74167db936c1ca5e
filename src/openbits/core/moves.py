"""The moves that events are made of: each takes a job and returns a job, or a step, that is consistent in itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from openbits.core import entries, methods, notices
from openbits.core.blocking import is_blocked_by_policy, no_bandwidth
from openbits.core.environment import Environment, is_blocked_by_network
from openbits.core.events import (
    Effect,
    Entry,
    Failure,
    StartRun,
    Step,
    StopRun,
)
from openbits.core.failing import NOT_COUNTED, decide_retry, error_of, no_network
from openbits.core.model import REPLY_INDEX, Closing, File, Job, JobState
from openbits.core.pieces import is_idle
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError

LOG_OFF_PATIENCE_S: Final = 0.75
"""How long a worker may take to stop when its account has logged off: nothing of it is to run a second later."""


def moved(job: Job, trigger: Trigger, env: Environment) -> Job:
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
        notices.owing(job, target),
        state=target,
        active_s=active_s,
        active_since=active_since,
        modified_at=modified_at,
        retry_at=retry_at,
    )


def new_run(job: Job, env: Environment) -> Step:
    """Let a worker fetch what is missing, in a run with a number of its own."""
    again = methods.from_zero(job)
    job = replace(with_files(job, again), run=job.run + 1, modified_at=env.now)
    return Step(job=job, effects=(StartRun(job_id=job.id, run=job.run),), changed_files=tuple(again))


def enter_queue(job: Job, trigger: Trigger, env: Environment, text: str) -> Step:
    """Queue the job, unless it is done already or there is no network to do it with."""
    job = moved(job, trigger, env)
    entry = Entry(kind="queued", text=text)
    if not job.has_work:
        done = Entry(kind="transferred", text="all files are transferred")
        return Step(job=replace(transferred(job, env), error=None), entries=(entry, done))
    if is_idle(job):
        step = idle(job, env)
        return replace(step, entries=(entry, *step.entries))
    if is_blocked_by_network(job, env):
        step = failed(job, no_network(), env)
        return replace(step, entries=(entry, *step.entries))
    if is_blocked_by_policy(job, env):
        step = failed(job, no_bandwidth(env), env)
        return replace(step, entries=(entry, *step.entries))
    return Step(job=job, entries=(entry,))


def transferred(job: Job, env: Environment) -> Job:
    """Enter TRANSFERRED (S4)."""
    job = moved(job, Trigger.DONE, env)
    return replace(job, transferred_at=env.now, error=None, no_progress_since=None)


def idle(job: Job, env: Environment) -> Step:
    """Let an on-demand job wait for requests: all that was asked for is here, and that is not all there is (S10)."""
    job = replace(moved(job, Trigger.IDLE, env), error=None, no_progress_since=None)
    entry = replace(entries.suspended(job), text="suspended: all ranges that were requested are here")
    return Step(job=job, entries=(entry,))


def failed(job: Job, failure: Failure, env: Environment, *, patience_s: float | None = None) -> Step:
    """Enter ERROR or TRANSIENT_ERROR (S5, S7, S8); `patience_s` is how long a run may take to stop."""
    failure = methods.judged(job, failure)
    since = job.no_progress_since if job.no_progress_since is not None else env.now
    retry = decide_retry(
        job.settings, failure, now=env.now, no_progress_since=since, disk_full_retry_s=env.disk_full_retry_s
    )
    stop = stopped(job, patience_s)
    job = moved(job, Trigger.FAIL_TRANSIENT if retry.is_transient else Trigger.FAIL, env)
    job = replace(
        job,
        error=error_of(failure, job),
        error_count=job.error_count + (0 if failure.name in NOT_COUNTED else 1),
        retry_at=retry.at,
        no_progress_since=since,
    )
    entry = entries.failed(job, failure, is_transient=retry.is_transient)
    return Step(job=job, effects=stop, entries=(entry,))


def progressed(job: Job, env: Environment) -> Job:
    """Note progress: it ends the wait for some (J20)."""
    return replace(job, modified_at=env.now, no_progress_since=None)


def touched(job: Job, env: Environment) -> Job:
    """Note that something happened to the job (J10, P1)."""
    return replace(job, modified_at=env.now)


def stopped(job: Job, patience_s: float | None = None) -> tuple[Effect, ...]:
    """The effect that ends the job's run, if it may have one."""
    return (StopRun(job_id=job.id, patience_s=patience_s),) if job.state.is_active else ()


def restarted(job: Job, env: Environment) -> Step:
    """Let a run that is under way begin again, because what it was told is not true any more."""
    if not job.state.is_active:
        # A run that was stopped may still have something to report. A job that never ran has no run.
        return Step(job=replace(job, run=job.run + 1) if job.run else job)
    step = new_run(job, env)
    return replace(step, effects=(*stopped(job), *step.effects))


def refuse_while_closing(job: Job) -> None:
    """A job whose files are being renamed stays as it is. Raises BG_E_INVALID_STATE."""
    if job.closing is Closing.COMPLETE:
        raise BitsError("BG_E_INVALID_STATE", "the job is being completed: wait until that has ended")


def with_files(job: Job, changed: dict[int, File]) -> Job:
    """Put changed files in the place of the old ones."""
    if not changed:
        return job
    reply, files = job.reply, list(job.files)
    for index, file in changed.items():
        if reply is not None and index == REPLY_INDEX:
            reply = file
        else:
            files[index] = file
    return replace(job, files=tuple(files), reply=reply)
