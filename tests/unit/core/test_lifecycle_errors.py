"""Errors and what follows from them (J12, J19–J21, S5–S8, R3; disk full, Retry-After, lost network)."""

import dataclasses

import pytest

from openbits.core.environment import is_blocked_by_network
from openbits.core.events import (
    DeadlineReached,
    FileCheckpoint,
    FilesFetched,
    NetworkChanged,
    Resume,
    RunEnded,
    SlotGranted,
    StopRun,
)
from openbits.core.lifecycle import apply, deadline
from openbits.core.model import Job, JobState
from openbits.errors import ErrorContext
from support.jobs import NOW, OFFLINE, a_file, after, answer, at, failure, fetched, job_in, step, with_settings


def failed(job: Job, seconds: float = 1, **more: object) -> Job:
    """The job after its run has failed."""
    return after(job, RunEnded(run=job.run, failure=failure(**more)), env=at(seconds))  # type: ignore[arg-type]  # a Failure's fields


def retried(job: Job, seconds: float) -> Job:
    """The job in the run after its retry delay."""
    return after(job, DeadlineReached(), SlotGranted(), env=at(seconds))


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_transient_error_waits_for_the_retry_delay(state: JobState) -> None:
    """S5, S6, J19."""
    job = failed(with_settings(job_in(state), minimum_retry_delay=600))
    assert job.state is JobState.TRANSIENT_ERROR
    assert job.error is not None
    assert (job.error.name, job.error.context) == ("BG_E_CONNECTION_CLOSED", ErrorContext.GENERAL_TRANSPORT)
    assert job.error_count == 1
    assert job.retry_at == NOW + 601
    assert deadline(job, at(2)) == NOW + 601
    assert apply(job, DeadlineReached(), at(600)) is None, "not before the time"
    assert after(job, DeadlineReached(), env=at(601)).state is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_fatal_error_waits_for_the_owner(state: JobState) -> None:
    """S8."""
    job = failed(job_in(state), name="BG_E_HTTP_ERROR_404", transient=False, index=0)
    assert job.state is JobState.ERROR
    assert job.error is not None
    assert (job.error.file_index, job.error.protocol) == (0, "http")
    assert job.retry_at is None
    assert apply(job, DeadlineReached(), at(10_000)) is None
    assert after(job, NetworkChanged()).state is JobState.ERROR


def test_an_error_of_a_local_source_names_its_protocol() -> None:
    """E5."""
    job = failed(job_in(JobState.TRANSFERRING, a_file(remote_name="file:///srv/x")), index=0)
    assert job.error is not None
    assert job.error.protocol == "file"


def test_the_error_is_there_until_the_server_answers() -> None:
    """J12."""
    job = retried(failed(job_in(JobState.TRANSFERRING)), 601)
    assert job.state is JobState.CONNECTING
    assert job.error is not None
    assert after(job, answer(job)).error is None


def test_every_failing_retry_is_counted() -> None:
    """J21."""
    job = job_in(JobState.TRANSFERRING)
    for number in range(1, 4):
        job = failed(job, number * 1000)
        assert job.error_count == number
        job = retried(job, number * 1000 + 600)
    assert after(job, Resume()).error_count == 3, "never reset"


@pytest.mark.parametrize(
    "name",
    [
        "BG_E_NETWORK_DISCONNECTED",
        "BG_E_DESTINATION_LOCKED",
        "BG_E_BLOCKED_BY_POLICY",
        "ERROR_DISK_FULL",
        "ERROR_DISK_QUOTA_EXCEEDED",
    ],
)
def test_conditions_are_not_counted(name: str) -> None:
    """J21; a full disk is looked at too often to be counted."""
    assert failed(job_in(JobState.TRANSFERRING), name=name).error_count == 0


def test_without_progress_the_job_fails_when_its_time_is_over() -> None:
    """J20, S7: the clock starts with the first transient error."""
    job = with_settings(job_in(JobState.TRANSFERRING), minimum_retry_delay=600, no_progress_timeout=1500)
    job = retried(failed(job, 0), 600)
    job = retried(failed(job, 700), 1300)
    job = failed(job, 1400)
    assert job.state is JobState.TRANSIENT_ERROR
    assert deadline(job, at(1400)) == NOW + 1500
    over = after(job, DeadlineReached(), env=at(1500))
    assert over.state is JobState.ERROR
    assert over.error == job.error
    assert over.retry_at is None


def test_a_retry_that_fails_after_the_time_is_over_is_fatal() -> None:
    job = with_settings(job_in(JobState.TRANSFERRING), no_progress_timeout=1500)
    job = retried(failed(job, 0), 600)
    assert failed(job, 1500).state is JobState.ERROR


@pytest.mark.parametrize(
    "progress", [FileCheckpoint(run=2, index=0, durable_bytes=1), FilesFetched(run=2, files=((0, 10),))], ids=repr
)
def test_any_progress_starts_the_clock_anew(progress: FileCheckpoint | FilesFetched) -> None:
    """J20."""
    job = with_settings(job_in(JobState.TRANSFERRING, a_file(0), a_file(1)), no_progress_timeout=1500)
    job = after(retried(failed(job, 0), 600), progress, env=at(700))
    assert job.no_progress_since is None
    job = failed(job, 2000)
    assert job.state is JobState.TRANSIENT_ERROR
    assert job.no_progress_since == NOW + 2000


def test_an_answer_alone_is_no_progress() -> None:
    job = retried(failed(job_in(JobState.TRANSFERRING), 0), 600)
    assert after(job, answer(job)).no_progress_since == NOW


def test_without_a_no_progress_timeout_every_error_is_fatal() -> None:
    """J20: 0 is never retry."""
    assert failed(with_settings(job_in(JobState.TRANSFERRING), no_progress_timeout=0)).state is JobState.ERROR


def test_a_retry_delay_beyond_the_no_progress_timeout_makes_errors_fatal() -> None:
    """J19, S7."""
    job = with_settings(job_in(JobState.TRANSFERRING), minimum_retry_delay=601, no_progress_timeout=600)
    assert failed(job).state is JobState.ERROR
    equal = with_settings(job, minimum_retry_delay=600)
    assert failed(equal).state is JobState.TRANSIENT_ERROR


@pytest.mark.parametrize(("asked_s", "delay_s"), [(30, 600), (1200, 1200), (None, 600), (-5, 600)])
def test_the_server_may_ask_for_a_longer_delay_only(asked_s: int | None, delay_s: int) -> None:
    job = with_settings(job_in(JobState.TRANSFERRING), minimum_retry_delay=600)
    job = failed(job, 0, name="BG_E_HTTP_ERROR_503", retry_after_s=asked_s)
    assert job.retry_at == NOW + delay_s


@pytest.mark.parametrize(("within_s", "delay_s"), [(110, 110), (900, 600), (1, 5), (-7, 5)])
def test_u7_a_retry_need_not_wait_when_things_change_before(within_s: int, delay_s: int) -> None:
    job = with_settings(job_in(JobState.TRANSFERRING), minimum_retry_delay=600)
    job = failed(job, 0, name="ERROR_WINHTTP_CANNOT_CONNECT", retry_within_s=within_s)
    assert job.retry_at == NOW + delay_s


def test_a_server_cannot_ask_for_more_than_the_job_would_wait() -> None:
    """Whatever a worker passes on: the time can be shown, and the no-progress time-out comes first."""
    job = failed(job_in(JobState.TRANSFERRING), 0, name="BG_E_HTTP_ERROR_503", retry_after_s=10**18)
    assert job.retry_at == NOW + job.settings.no_progress_timeout


@pytest.mark.parametrize("name", ["ERROR_DISK_FULL", "ERROR_DISK_QUOTA_EXCEEDED"])
def test_a_full_disk_is_looked_at_often_and_frees_nothing(name: str) -> None:
    job = job_in(JobState.TRANSFERRING, fetched(0), a_file(1, bytes_transferred=40))
    full = failed(job, 0, name=name)
    assert full.state is JobState.TRANSIENT_ERROR
    assert full.files == job.files
    assert full.retry_at == NOW + 15
    impatient = failed(with_settings(job, minimum_retry_delay=5), 0, name=name)
    assert impatient.retry_at == NOW + 5


# --- the network (S5, S6, R3) ----------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.CONNECTING, JobState.TRANSFERRING])
def test_a_lost_network_is_a_transient_error_that_waits_for_the_network(state: JobState) -> None:
    job = job_in(state)
    made = step(job, NetworkChanged(), OFFLINE)
    assert made.job.state is JobState.TRANSIENT_ERROR
    assert made.job.error is not None
    assert made.job.error.name == "BG_E_NETWORK_DISCONNECTED"
    assert made.job.error_count == 0
    assert made.job.retry_at is None
    assert (StopRun(job_id=job.id) in made.effects) == state.is_active
    assert apply(made.job, DeadlineReached(), dataclasses.replace(OFFLINE, now=NOW + 5000)) is None
    assert after(made.job, NetworkChanged()).state is JobState.QUEUED


@pytest.mark.parametrize(
    "state", [JobState.SUSPENDED, JobState.ERROR, JobState.TRANSFERRED, JobState.TRANSIENT_ERROR, JobState.CANCELLED]
)
def test_jobs_that_do_not_run_do_not_mind_a_lost_network(state: JobState) -> None:
    assert apply(job_in(state), NetworkChanged(), OFFLINE) is None


def test_the_returning_network_requeues_all_transient_errors() -> None:
    """S6: whatever their code."""
    job = failed(job_in(JobState.TRANSFERRING), name="BG_E_HTTP_ERROR_503")
    requeued = after(job, NetworkChanged())
    assert requeued.state is JobState.QUEUED
    assert requeued.retry_at is None


def test_a_retry_without_a_network_waits_for_the_network() -> None:
    job = failed(job_in(JobState.TRANSFERRING), 0)
    waiting = after(job, DeadlineReached(), env=dataclasses.replace(OFFLINE, now=NOW + 700))
    assert waiting.state is JobState.TRANSIENT_ERROR
    assert waiting.error is not None
    assert waiting.error.name == "BG_E_NETWORK_DISCONNECTED"
    assert waiting.no_progress_since == NOW, "no progress is no progress"


def test_a_run_that_fails_because_the_network_is_gone_says_so() -> None:
    """The worker's error may come before the kernel's news of the route."""
    job = job_in(JobState.TRANSFERRING)
    made = step(job, RunEnded(run=1, failure=failure("BG_E_CONNECT_FAILURE")), OFFLINE)
    assert made.job.error is not None
    assert made.job.error.name == "BG_E_NETWORK_DISCONNECTED"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://[::1]/x", "http://localhost/x", "file:///srv/x", "http://here/x"]
)
def test_what_is_on_this_machine_needs_no_network(url: str) -> None:
    env = dataclasses.replace(OFFLINE, loopback_names=frozenset({"localhost", "here"}))
    job = job_in(JobState.TRANSFERRING, a_file(remote_name=url))
    assert not is_blocked_by_network(job, env)
    assert apply(job, NetworkChanged(), env) is None


def test_only_files_that_are_still_to_be_fetched_need_a_network() -> None:
    job = job_in(JobState.QUEUED, fetched(0), a_file(1, remote_name="file:///srv/x"))
    assert not is_blocked_by_network(job, OFFLINE)


def test_a_lost_network_is_fatal_for_a_job_that_never_retries() -> None:
    job = with_settings(job_in(JobState.TRANSFERRING), no_progress_timeout=0)
    assert after(job, NetworkChanged(), env=OFFLINE).state is JobState.ERROR


def test_waiting_for_the_network_ends_with_the_no_progress_timeout() -> None:
    job = after(job_in(JobState.TRANSFERRING), NetworkChanged(), env=OFFLINE)
    over = NOW + job.settings.no_progress_timeout
    assert deadline(job, OFFLINE) == over
    assert after(job, DeadlineReached(), env=dataclasses.replace(OFFLINE, now=over)).state is JobState.ERROR
