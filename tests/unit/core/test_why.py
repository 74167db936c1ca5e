"""The one gate that holds a job: every state has one, with a sentence for a person."""

import dataclasses

import pytest

from openbits.core.model import Closing, JobError, JobState, Priority
from openbits.core.why import gate_of
from openbits.errors import ErrorContext
from support.jobs import NOW, OFFLINE, a_job, at, closing, job_in, with_priority


@pytest.mark.parametrize(
    ("state", "gate"),
    [
        (JobState.QUEUED, "slot"),
        (JobState.CONNECTING, "server"),
        (JobState.TRANSFERRING, "none"),
        (JobState.SUSPENDED, "suspended"),
        (JobState.ERROR, "error"),
        (JobState.TRANSIENT_ERROR, "retry"),
        (JobState.TRANSFERRED, "complete"),
        (JobState.ACKNOWLEDGED, "ended"),
        (JobState.CANCELLED, "ended"),
    ],
)
def test_every_state_has_a_gate(state: JobState, gate: str) -> None:
    found = gate_of(job_in(state), at(0), ahead=0, trouble="")
    assert found.gate == gate
    assert found.sentence
    assert (found.until is not None) == (state is JobState.TRANSIENT_ERROR), "only a retry has a time"


def test_a_retry_says_when_and_why() -> None:
    gate = gate_of(job_in(JobState.TRANSIENT_ERROR), at(0), ahead=0, trouble="")
    assert gate.until == NOW + 600
    assert "it hung up" in gate.sentence


@pytest.mark.parametrize("name", ["ERROR_DISK_FULL", "ERROR_DISK_QUOTA_EXCEEDED"])
def test_a_full_disk_has_its_own_gate(name: str) -> None:
    error = JobError(name=name, context=ErrorContext.LOCAL_FILE, message="there is no room")
    gate = gate_of(job_in(JobState.TRANSIENT_ERROR, error=error), at(0), ahead=0, trouble="")
    assert (gate.gate, gate.until) == ("disk", NOW + 600)


def test_without_a_network_the_network_is_the_gate() -> None:
    assert gate_of(job_in(JobState.QUEUED), OFFLINE, ahead=3, trouble="").gate == "network"
    waits = job_in(JobState.TRANSIENT_ERROR, retry_at=None)
    assert gate_of(waits, OFFLINE, ahead=0, trouble="").gate == "network"


@pytest.mark.parametrize(("ahead", "text"), [(0, "0 jobs"), (1, "1 job "), (2, "2 jobs")])
def test_a_background_job_says_how_many_run_before_it(ahead: int, text: str) -> None:
    assert text in gate_of(job_in(JobState.QUEUED), at(0), ahead=ahead, trouble="").sentence


def test_a_foreground_job_waits_for_other_foreground_jobs_only() -> None:
    job = with_priority(job_in(JobState.QUEUED), Priority.FOREGROUND)
    assert "foreground" in gate_of(job, at(0), ahead=1, trouble="").sentence


def test_a_connection_that_is_taken_up_again_is_told() -> None:
    for state, gate in ((JobState.CONNECTING, "server"), (JobState.TRANSFERRING, "connection")):
        found = gate_of(job_in(state), at(0), ahead=0, trouble="no byte for 60 s")
        assert found.gate == gate
        assert "no byte for 60 s" in found.sentence


def test_what_is_to_do_is_said() -> None:
    assert "bits add" in gate_of(a_job(), at(0), ahead=0, trouble="").sentence
    assert "bits resume" in gate_of(job_in(JobState.ERROR), at(0), ahead=0, trouble="").sentence
    assert "it hung up" in gate_of(job_in(JobState.ERROR), at(0), ahead=0, trouble="").sentence
    assert "bits complete" in gate_of(job_in(JobState.TRANSFERRED), at(0), ahead=0, trouble="").sentence


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.TRANSFERRED])
def test_a_job_whose_files_are_put_in_place_says_so(state: JobState) -> None:
    assert gate_of(closing(job_in(state)), at(0), ahead=0, trouble="").gate == "completing"


def test_a_cancelled_job_tells_whether_its_files_are_gone() -> None:
    cancelled = job_in(JobState.CANCELLED)
    cleaning = dataclasses.replace(cancelled, closing=Closing.CANCEL)
    assert "being deleted" in gate_of(cleaning, at(0), ahead=0, trouble="").sentence
    assert "being deleted" not in gate_of(cancelled, at(0), ahead=0, trouble="").sentence


def test_a_job_without_an_error_that_waits_says_that_it_waits() -> None:
    job = job_in(JobState.TRANSIENT_ERROR, error=None)
    assert gate_of(job, at(0), ahead=0, trouble="").until == NOW + 600
    assert gate_of(job_in(JobState.ERROR, error=None), at(0), ahead=0, trouble="").gate == "error"
