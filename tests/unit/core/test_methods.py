"""H10: a method of one's own makes the job FOREGROUND, its errors final, and every run begin anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core.events import (
    AddFiles,
    ChangeSettings,
    Failure,
    FileCheckpoint,
    NetworkChanged,
    Resume,
    RunEnded,
    SlotGranted,
    StartRun,
    WorkerLost,
)
from openbits.core.lifecycle import apply
from openbits.core.methods import checked_method, refuse_ranges
from openbits.core.model import Job, JobState, JobType, Priority, Settings, Validator
from openbits.core.settings import SettingsWindow, change_settings
from openbits.errors import BitsError, ErrorContext
from support.jobs import OFFLINE, a_file, at, job_in

FRESH = SettingsWindow()
POST = Settings(name="a job", http_method="POST", priority=Priority.FOREGROUND)
BROKEN = Failure(
    name="BG_E_CONNECTION_CLOSED", context=ErrorContext.GENERAL_TRANSPORT, message="it hung up", transient=True, index=0
)


def change(before: Settings = Settings(name="a job"), *, window: SettingsWindow = FRESH, **changes: Any) -> Settings:  # noqa: B008
    return change_settings(before, changes, window=window)


def refusal(before: Settings, *, window: SettingsWindow = FRESH, **changes: Any) -> str:
    with pytest.raises(BitsError) as caught:
        change(before, window=window, **changes)
    return caught.value.name


def with_method(state: JobState, **more: Any) -> Job:
    job = job_in(state, a_file(0, bytes_transferred=7, validator=Validator(etag='"1"', size=10)), **more)
    return replace(job, settings=POST)


def test_h10_a_method_makes_the_job_foreground_and_keeps_it_so() -> None:
    posting_job = change(http_method="POST")
    assert (posting_job.http_method, posting_job.priority) == ("POST", Priority.FOREGROUND)
    locked = "BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD"
    assert refusal(posting_job, priority="normal") == locked
    assert refusal(Settings(name="a job"), http_method="POST", priority="normal") == locked
    assert change(posting_job, priority="foreground") == posting_job
    # Back to the default the priority is free again.
    free = change(posting_job, http_method="GET")
    assert free.http_method == ""
    assert change(free, priority="low").priority is Priority.LOW


@pytest.mark.parametrize(
    ("job_type", "default"),
    [(JobType.DOWNLOAD, "GET"), (JobType.UPLOAD, "BITS_POST"), (JobType.UPLOAD_REPLY, "BITS_POST")],
)
def test_h10_the_default_of_the_type_is_nothing(job_type: JobType, default: str) -> None:
    window = SettingsWindow(job_type=job_type)
    assert change(window=window, http_method=default) == Settings(name="a job")
    assert checked_method(default, job_type) == ""


def test_h10_uploads_have_the_methods_of_their_protocol() -> None:
    for method in ("PUT", "GET", "POST"):
        assert refusal(Settings(name="a job"), window=SettingsWindow(job_type=JobType.UPLOAD), http_method=method) == (
            "E_NOTIMPL"
        )


@pytest.mark.parametrize("method", ["HEAD", "head", "CONNECT", "TRACE", "PO ST", "POST\r\nX: y", "P" * 65, None, 5])
def test_h10_what_is_no_method_or_brings_no_file(method: Any) -> None:
    assert refusal(Settings(name="a job"), http_method=method) == "E_INVALIDARG"


def test_h10_methods_are_case_sensitive_tokens() -> None:
    assert change(http_method="get").http_method == "get"
    assert change(http_method="M-SEARCH").http_method == "M-SEARCH"


def test_h10_excludes_dynamic_content_and_ranges() -> None:
    locked = "BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD"
    assert refusal(POST, dynamic_content=True) == locked
    assert refusal(Settings(name="a job", dynamic_content=True), http_method="POST") == locked
    assert refusal(Settings(name="a job"), window=SettingsWindow(has_ranges=True), http_method="POST") == locked
    assert change(POST, dynamic_content=False) == POST
    with pytest.raises(BitsError, match=locked):
        refuse_ranges(POST)
    refuse_ranges(Settings(name="a job"))


def test_h10_only_before_the_first_resume() -> None:
    late = SettingsWindow(was_resumed=True, has_files=True)
    assert refusal(Settings(name="a job"), window=late, http_method="POST") == "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"


@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_h10_a_transient_error_is_final_and_resume_begins_anew(state: JobState) -> None:
    step = apply(with_method(state), RunEnded(run=1, failure=BROKEN), at(1))
    assert step is not None
    assert (step.job.state, step.job.retry_at) == (JobState.ERROR, None)
    resumed = apply(step.job, Resume(), at(2))
    assert resumed is not None
    begun = apply(resumed.job, SlotGranted(), at(3))
    assert begun is not None
    file = begun.job.files[0]
    assert (file.bytes_transferred, file.validator) == (0, Validator())
    assert begun.changed_files == (0,)
    assert begun.effects == (StartRun(job_id=begun.job.id, run=2),)


def test_h10_without_a_method_the_same_error_is_tried_again_from_where_it_was() -> None:
    step = apply(
        replace(with_method(JobState.TRANSFERRING), settings=Settings(name="a job")),
        RunEnded(run=1, failure=BROKEN),
        at(1),
    )
    assert step is not None
    assert step.job.state is JobState.TRANSIENT_ERROR
    assert step.job.files[0].bytes_transferred == 7


def test_h10_a_lost_network_ends_what_was_sent_and_keeps_waiting_what_was_not() -> None:
    sent = apply(with_method(JobState.TRANSFERRING), NetworkChanged(), OFFLINE)
    assert sent is not None
    assert sent.job.state is JobState.ERROR
    unsent = apply(with_method(JobState.QUEUED), NetworkChanged(), OFFLINE)
    assert unsent is not None
    assert unsent.job.state is JobState.TRANSIENT_ERROR


def test_h10_nothing_is_asked_again_because_a_worker_died() -> None:
    step = apply(with_method(JobState.TRANSFERRING), WorkerLost(run=1, idle_s=0.0), at(1))
    assert step is not None
    assert step.job.state is JobState.ERROR
    assert step.job.error is not None
    assert "resume the job" in step.job.error.message


# --- what a run must know (H7, H8, J22, J65) --------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"proxy_usage": "no_proxy"},
        {"proxy_usage": "override", "proxy_list": "proxy:3128"},
        {"security_flags": 0x0002},
        {"use_netrc": True},
        {"use_stored_credentials": "proxy"},
    ],
)
@pytest.mark.parametrize("state", [JobState.CONNECTING, JobState.TRANSFERRING])
def test_other_terms_begin_another_run(state: JobState, changes: dict[str, Any]) -> None:
    job = job_in(state, a_file(0, bytes_transferred=7))
    step = apply(job, ChangeSettings(settings=replace(job.settings, **changes)), at(1))
    assert step is not None
    assert step.job.run == job.run + 1
    assert [type(effect).__name__ for effect in step.effects] == ["StopRun", "StartRun"]
    assert step.job.files[0].bytes_transferred == 7
    assert [entry.text for entry in step.entries] == [f"set: {', '.join(sorted(changes, reverse=True))}"]


@pytest.mark.parametrize("changes", [{"description": "new"}, {"stall_timeout": 5}, {"minimum_retry_delay": 5}, {}])
def test_what_a_run_need_not_know_leaves_it_alone(changes: dict[str, Any]) -> None:
    job = job_in(JobState.TRANSFERRING, a_file(0))
    step = apply(job, ChangeSettings(settings=replace(job.settings, **changes)), at(1))
    assert step is not None
    assert (step.effects, step.job.run) == ((), job.run)


def test_h8_asking_for_revocation_begins_https_files_again() -> None:
    files = (
        a_file(0, remote_name="HTTPS://origin.example/0", bytes_transferred=7, resumable=True),
        a_file(1, bytes_transferred=7, resumable=True),
        a_file(2, remote_name="https://origin.example/2", bytes_transferred=7, bytes_total=7, transferred=True),
    )
    job = job_in(JobState.TRANSFERRING, *files)
    step = apply(job, ChangeSettings(settings=replace(job.settings, security_flags=0x0001)), at(1))
    assert step is not None
    assert [file.bytes_transferred for file in step.job.files] == [0, 7, 7]
    assert step.changed_files == (0,)
    # What the former run still has to say of the file is about bytes that nobody vouches for.
    late = apply(step.job, FileCheckpoint(run=job.run, index=0, durable_bytes=9), at(2))
    assert late is None
    again = apply(step.job, ChangeSettings(settings=replace(step.job.settings, security_flags=0x0003)), at(3))
    assert again is not None
    assert again.changed_files == ()


def test_added_files_do_not_begin_a_job_again() -> None:
    job = job_in(JobState.TRANSFERRING, a_file(0, bytes_transferred=7))
    step = apply(job, AddFiles(files=(a_file(1),)), at(1))
    assert step is not None
    assert step.effects == ()
