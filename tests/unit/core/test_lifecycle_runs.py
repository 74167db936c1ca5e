"""What a worker's reports make of a job: progress, ends, losses, and reports that come late."""

import dataclasses

import pytest

from openbits.core.eventlog import FILE_STARTED
from openbits.core.events import (
    FileCheckpoint,
    FilesFetched,
    RunEnded,
    ServiceStarted,
    SlotGranted,
    SlotTaken,
    StartRun,
    StopRun,
    WorkerLost,
)
from openbits.core.lifecycle import apply, unfinished
from openbits.core.model import JobState
from support.jobs import NOW, a_file, after, answer, at, fetched, job_in, step

RESTING = (JobState.QUEUED, JobState.SUSPENDED, JobState.ERROR, JobState.TRANSIENT_ERROR)


def test_a_slot_starts_a_run_of_the_owner() -> None:
    """S1."""
    job = job_in(JobState.QUEUED)
    made = step(job, SlotGranted())
    assert made.job.state is JobState.CONNECTING
    assert made.effects == (StartRun(job_id=job.id, run=1),)
    assert made.job.active_since == at(1).now


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.QUEUED])
def test_a_slot_for_a_job_that_does_not_wait_is_late(state: JobState) -> None:
    assert apply(job_in(state), SlotGranted(), at(1)) is None


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_job_that_loses_its_slot_waits_again(state: JobState) -> None:
    """S3."""
    job = job_in(state, a_file(bytes_transferred=40))
    made = step(job, SlotTaken())
    assert made.job.state is JobState.QUEUED
    assert made.effects == (StopRun(job_id=job.id),)
    assert made.job.files == job.files
    assert made.job.active_since is None
    assert apply(made.job, SlotTaken(), at(1)) is None


def test_the_servers_answer_begins_the_transfer() -> None:
    """S2, F10."""
    job = job_in(JobState.CONNECTING)
    made = step(job, answer(job, resumable=False))
    assert made.job.state is JobState.TRANSFERRING
    file = made.job.files[0]
    assert (file.bytes_total, file.resumable, file.response_headers) == (100, False, "HTTP/1.1 200 OK")
    assert made.changed_files == (0,)
    [begun], [again] = made.entries, step(made.job, answer(made.job)).entries
    assert (begun.kind, again.kind) == ("transferring", "file started")
    assert begun.event_id == again.event_id == FILE_STARTED


def test_a_file_that_begins_again_says_so_and_its_bytes_do_not_count_any_more() -> None:
    job = job_in(JobState.TRANSFERRING, a_file(bytes_transferred=40, bytes_total=100))
    made = step(job, answer(job, offset=0, restarted="the remote file was changed", bytes_total=80))
    assert (made.job.files[0].bytes_transferred, made.job.files[0].restarts) == (0, 1)
    assert made.job.bytes_total == 80
    assert "the remote file was changed" in made.entries[0].text


def test_an_answer_never_makes_bytes_durable() -> None:
    """Durable data before durable progress: the worker keeps 60, but only 40 are known to be on the disk."""
    job = job_in(JobState.TRANSFERRING, a_file(bytes_transferred=40))
    assert after(job, answer(job, offset=60)).files[0].bytes_transferred == 40
    assert after(job, answer(job, offset=20)).files[0].bytes_transferred == 20


def test_a_finished_file_stays_finished_whatever_a_worker_reports() -> None:
    job = job_in(JobState.TRANSFERRING, fetched(0, size=10), a_file(1))
    assert after(job, answer(job, 0, offset=0, restarted="changed")).files[0] == job.files[0]
    assert apply(job, FileCheckpoint(run=1, index=0, durable_bytes=3), at(1)) is None
    assert apply(job, FilesFetched(run=1, files=((0, 3),)), at(1)) is None


def test_the_answer_for_a_finished_file_still_begins_the_transfer() -> None:
    job = job_in(JobState.CONNECTING, fetched(0), a_file(1))
    assert after(job, answer(job, 0)).state is JobState.TRANSFERRING


def test_a_checkpoint_is_progress() -> None:
    job = dataclasses.replace(job_in(JobState.TRANSFERRING), no_progress_since=NOW)
    made = step(job, FileCheckpoint(run=1, index=0, durable_bytes=64))
    assert made.job.bytes_transferred == 64
    assert made.job.modified_at == at(1).now
    assert made.job.no_progress_since is None
    assert made.entries == (), "progress does not fill the log"
    assert apply(made.job, FileCheckpoint(run=1, index=0, durable_bytes=64), at(2)) is None, "nothing to write"


def test_the_last_file_ends_the_job() -> None:
    """S4, J10."""
    job = job_in(JobState.TRANSFERRING, a_file(0), a_file(1))
    job = after(job, FilesFetched(run=1, files=((0, 10),)))
    assert job.state is JobState.TRANSFERRING
    made = step(job, FilesFetched(run=1, files=((1, 20),)))
    assert made.job.state is JobState.TRANSFERRED
    assert made.job.transferred_at == at(1).now
    assert (made.job.bytes_total, made.job.bytes_transferred, made.job.files_transferred) == (30, 30, 2)
    assert made.effects == (), "the worker ends the run by itself"
    assert apply(made.job, RunEnded(run=1), at(2)) is None


def test_an_empty_job_of_empty_files_ends_too() -> None:
    job = after(job_in(JobState.CONNECTING), FilesFetched(run=1, files=((0, 0),)))
    assert job.state is JobState.TRANSFERRED
    assert job.bytes_total == 0


def test_the_total_is_unknown_until_every_file_has_a_size() -> None:
    """J9."""
    job = job_in(JobState.CONNECTING, a_file(0), a_file(1))
    job = after(job, answer(job, 0))
    assert job.bytes_total is None
    assert after(job, answer(job, 1)).bytes_total == 200


@pytest.mark.parametrize("state", RESTING)
def test_what_a_stopped_run_still_made_durable_counts(state: JobState) -> None:
    """Runs of a job never overlap: a late report is as good as an early one."""
    job = job_in(state, a_file(0), a_file(1), run=1)
    late = after(job, FileCheckpoint(run=1, index=0, durable_bytes=50), FilesFetched(run=1, files=((1, 10),)))
    assert late.state is state
    assert (late.files[0].bytes_transferred, late.files[1].transferred) == (50, True)


@pytest.mark.parametrize("state", RESTING)
def test_bytes_that_a_stopped_run_dropped_count_no_more(state: JobState) -> None:
    job = job_in(state, a_file(0, bytes_transferred=50, resumable=True), run=2)
    late = after(job, answer(job, run=1, offset=0, restarted="the remote file was changed"))
    assert late.files[0].bytes_transferred == 0
    assert late.state is state, "a late answer moves no job"


def test_a_waiting_job_whose_last_file_is_reported_late_needs_no_run() -> None:
    job = job_in(JobState.QUEUED, run=1)
    made = step(job, FilesFetched(run=1, files=((0, 10),)))
    assert made.job.state is JobState.TRANSFERRED


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.ERROR])
def test_a_job_that_its_owner_stopped_is_not_moved_by_a_late_report(state: JobState) -> None:
    assert after(job_in(state, run=1), FilesFetched(run=1, files=((0, 10),))).state is state


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_the_end_of_an_old_run_is_not_the_end_of_the_new_one(state: JobState) -> None:
    job = dataclasses.replace(job_in(state), run=3)
    assert apply(job, RunEnded(run=2), at(1)) is None
    assert apply(job, WorkerLost(run=2, idle_s=0), at(1)) is None
    late = after(job, answer(job, run=2))
    assert late.state is state


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_lost_worker_is_a_broken_connection(state: JobState) -> None:
    """Taken up again at once, without leaving the state or counting as an error."""
    job = job_in(state, a_file(bytes_transferred=40))
    made = step(job, WorkerLost(run=1, idle_s=30.0))
    assert made.job.state is state
    assert made.job.error_count == 0
    assert made.job.files == job.files
    assert made.effects == (StartRun(job_id=job.id, run=2),)


def test_workers_that_die_again_and_again_make_a_transient_error() -> None:
    made = step(job_in(JobState.TRANSFERRING), WorkerLost(run=1, idle_s=30.1))
    assert made.job.state is JobState.TRANSIENT_ERROR
    assert made.job.error is not None
    assert made.job.error.name == "E_FAIL"
    assert made.job.retry_at is not None


@pytest.mark.parametrize("state", RESTING)
def test_a_worker_that_dies_after_its_run_was_stopped_means_nothing(state: JobState) -> None:
    assert apply(job_in(state, run=1), WorkerLost(run=1, idle_s=0), at(1)) is None


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_restart_puts_jobs_that_ran_back_into_the_queue(state: JobState) -> None:
    """M8: when the service died is not known; what was written down last is the best estimate."""
    job = dataclasses.replace(job_in(state), active_since=NOW - 500, modified_at=NOW - 100, active_s=7.0)
    made = step(job, ServiceStarted(), at(5000))
    assert made.job.state is JobState.QUEUED
    assert made.job.active_s == 407.0, "J53: the time in which the machine was off does not count"
    assert made.job.active_since is None
    assert made.effects == ()


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_active])
def test_a_restart_changes_no_other_job(state: JobState) -> None:
    assert apply(job_in(state), ServiceStarted(), at(1)) is None


def test_files_are_fetched_in_their_order() -> None:
    """Q2."""
    job = job_in(JobState.QUEUED, a_file(0), fetched(1), a_file(2))
    assert [index for index, _ in unfinished(job)] == [0, 2]
