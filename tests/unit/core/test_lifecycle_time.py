"""Time limits: maximum download time (J53, P3), inactivity (P1, S9), retention; and when to look again."""

import dataclasses

import pytest

from openbits.core.events import (
    Cancel,
    DeadlineReached,
    FileCheckpoint,
    FilesFinished,
    FinishFiles,
    Resume,
    SlotGranted,
    SlotTaken,
    StopRun,
)
from openbits.core.lifecycle import apply, deadline
from openbits.core.model import DAY_S, Closing, JobState
from support.jobs import NOW, after, answer, at, closing, job_in, step, with_settings

LIVE = [state for state in JobState if not state.is_final]


def test_the_maximum_download_time_counts_active_time_only() -> None:
    """J53: CONNECTING and TRANSFERRING, not QUEUED."""
    job = with_settings(job_in(JobState.QUEUED), maximum_download_time=100)
    job = after(job, SlotGranted(), env=at(0))
    job = after(job, answer(job), env=at(10))
    job = after(job, SlotTaken(), env=at(60))
    assert job.active_s == 60
    job = after(job, SlotGranted(), env=at(5000))
    assert deadline(job, at(5000)) == NOW + 5040
    assert apply(job, DeadlineReached(), at(5039)) is None
    made = step(job, DeadlineReached(), at(5040))
    assert made.job.state is JobState.ERROR
    assert made.job.error is not None
    assert made.job.error.name == "BG_E_MAXDOWNLOAD_TIMEOUT"
    assert made.effects == (StopRun(job_id=job.id),)
    again = after(made.job, Resume(), SlotGranted(), env=at(6000))
    assert deadline(again, at(6000)) == NOW + 6100, "Resume gives it as long again"


def test_the_jobs_own_limit_has_precedence_over_the_policys() -> None:
    """P3."""
    job = job_in(JobState.TRANSFERRING)
    assert deadline(job, at(0, max_download_time_s=50.0)) == NOW + 50
    own = with_settings(job, maximum_download_time=70)
    assert deadline(own, at(0, max_download_time_s=50.0)) == NOW + 70


@pytest.mark.parametrize("state", LIVE)
def test_a_job_to_which_nothing_happens_is_cancelled(state: JobState) -> None:
    """P1, S9."""
    job = with_settings(job_in(state), no_progress_timeout=200 * DAY_S, minimum_retry_delay=150 * DAY_S)
    job = dataclasses.replace(job, retry_at=None)
    env = at(90 * DAY_S, max_download_time_s=1e9)
    assert deadline(job, env) == env.now
    made = step(job, DeadlineReached(), env)
    assert made.job.state is JobState.CANCELLED
    assert made.effects[-1] == FinishFiles(job_id=job.id, closing=Closing.CANCEL)
    assert "nothing had happened" in made.entries[0].text


def test_progress_and_changes_keep_a_job_alive() -> None:
    """P1: the timer resets on both."""
    job = after(job_in(JobState.TRANSFERRING), FileCheckpoint(run=1, index=0, durable_bytes=1), env=at(80 * DAY_S))
    assert deadline(job, at(0, max_download_time_s=1e9)) == NOW + 170 * DAY_S


def test_a_job_whose_files_are_being_put_in_place_is_not_cancelled_for_inactivity() -> None:
    assert apply(closing(job_in(JobState.TRANSFERRED)), DeadlineReached(), at(91 * DAY_S)) is None


@pytest.mark.parametrize("state", [JobState.ACKNOWLEDGED, JobState.CANCELLED])
def test_a_job_that_has_ended_is_forgotten_after_its_retention_time(state: JobState) -> None:
    job = job_in(state)
    env = at(0, retention_s=3600.0)
    assert deadline(job, env) == NOW + 3600
    assert apply(job, DeadlineReached(), at(3599, retention_s=3600.0)) is None
    assert step(job, DeadlineReached(), at(3600, retention_s=3600.0)).forget


def test_a_cancelled_job_is_not_forgotten_before_its_files_are_gone() -> None:
    job = after(job_in(JobState.ERROR), Cancel(), env=at(0))
    assert deadline(job, at(0)) is None
    assert apply(job, DeadlineReached(), at(10 * DAY_S)) is None
    cleaned = after(job, FilesFinished(), env=at(50))
    assert deadline(cleaned, at(50)) == NOW + 50 + DAY_S


@pytest.mark.parametrize("state", JobState)
def test_after_a_deadline_there_is_a_later_one_or_none(state: JobState) -> None:
    """A deadline that stayed due would be looked at for ever."""
    job = job_in(state)
    for _ in range(6):
        due = deadline(job, at(0))
        if due is None:
            return
        made = apply(job, DeadlineReached(), dataclasses.replace(at(0), now=due))
        assert made is not None, "what is due means something"
        if made.forget:
            return
        job = made.job
        following = deadline(job, at(0))
        assert following is None or following > due
