"""What a caller's verbs make of a job beside its state (J1, J4–J7, J40, F4, F6)."""

import dataclasses

import pytest

from openbits.core.events import (
    AddFiles,
    Cancel,
    ChangeSettings,
    Complete,
    FileCheckpoint,
    FilesFetched,
    FilesFinished,
    FinishFiles,
    RenameRemote,
    Resume,
    RunEnded,
    SetValidation,
    SlotGranted,
    StartRun,
    StopRun,
    Suspend,
)
from openbits.core.lifecycle import apply
from openbits.core.model import ByteRange, Closing, JobState, Validator
from openbits.errors import BitsError, ErrorContext
from support.jobs import A_FAILURE, OFFLINE, a_file, a_job, after, answer, at, closing, failure, fetched, job_in, step

STALE = (JobState.SUSPENDED, JobState.TRANSIENT_ERROR, JobState.ERROR, JobState.TRANSFERRED)


def test_resume_queues_the_job_and_forgets_what_made_it_wait() -> None:
    """J5: it bypasses the retry delay and gives the whole download time again."""
    job = dataclasses.replace(job_in(JobState.TRANSIENT_ERROR), active_s=5000.0)
    resumed = step(job, Resume()).job
    assert resumed.state is JobState.QUEUED
    assert resumed.was_resumed
    assert resumed.retry_at is None
    assert resumed.no_progress_since is None
    assert resumed.active_s == 0
    assert resumed.error == A_FAILURE, "J12: the error can be read until the server answers"
    assert resumed.error_count == 1, "J21: never reset"


def test_resume_of_an_active_job_changes_nothing() -> None:
    job = dataclasses.replace(job_in(JobState.TRANSFERRING), active_s=5000.0)
    assert step(job, Resume()).job == job
    assert step(job_in(JobState.QUEUED), Resume()).job == job_in(JobState.QUEUED)


def test_resume_of_a_job_whose_files_are_all_there_fetches_nothing() -> None:
    """The UNDOC cell: TRANSFERRED again by itself; also by way of Suspend."""
    job = job_in(JobState.TRANSFERRED)
    again = step(job, Resume())
    assert again.job.state is JobState.TRANSFERRED
    assert again.effects == ()
    by_suspend = after(job, Suspend(), Resume())
    assert by_suspend.state is JobState.TRANSFERRED
    assert by_suspend.files == job.files
    assert by_suspend.run == job.run


def test_resume_of_a_transferred_job_with_new_files_queues_it() -> None:
    job = after(job_in(JobState.TRANSFERRED), AddFiles(files=(a_file(1),)))
    assert job.state is JobState.TRANSFERRED
    assert after(job, Resume()).state is JobState.QUEUED


def test_suspend_ends_the_run_and_keeps_what_was_fetched() -> None:
    job = job_in(JobState.TRANSFERRING, fetched(), a_file(1, bytes_total=100, bytes_transferred=40))
    made = step(job, Suspend())
    assert made.effects == (StopRun(job_id=job.id),)
    assert made.job.files == job.files
    late = after(made.job, FileCheckpoint(run=1, index=1, durable_bytes=60), RunEnded(run=1))
    assert late.state is JobState.SUSPENDED
    assert late.files[1].bytes_transferred == 60, "what the worker made durable while it stopped counts"


@pytest.mark.parametrize("verb", [Suspend(), Cancel(), Complete(), SetValidation(index=0, valid=False)], ids=repr)
def test_a_job_that_waits_no_longer_for_its_retry_has_no_retry_time(verb: object) -> None:
    job = job_in(JobState.TRANSIENT_ERROR, fetched())
    assert job.retry_at is not None
    assert step(job, verb).job.retry_at is None  # type: ignore[arg-type]  # parametrized with verbs


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_final])
def test_cancel_deletes_the_files_and_ends_the_job(state: JobState) -> None:
    """J6."""
    made = step(job_in(state), Cancel())
    assert made.effects[-1] == FinishFiles(job_id=made.job.id, closing=Closing.CANCEL)
    assert made.job.state is JobState.CANCELLED
    assert made.job.ended_at == at(1).now
    assert made.job.error is None
    assert made.job.active_since is None
    ended = after(made.job, FilesFinished(), env=at(2))
    assert (ended.closing, ended.result) == (None, "S_OK")


def test_cancel_says_when_files_are_left() -> None:
    ended = after(job_in(JobState.ERROR), Cancel(), FilesFinished(left_over=("/home/alice/.BIT0.tmp",)))
    assert ended.state is JobState.CANCELLED
    assert ended.result == "BG_S_UNABLE_TO_DELETE_FILES"


def test_complete_puts_finished_files_in_place_and_deletes_the_others() -> None:
    """J7: what the worker has done decides the result."""
    job = job_in(JobState.TRANSFERRED, fetched(0), fetched(1))
    ended = after(job, Complete(), FilesFinished(renamed=(0, 1)))
    assert (ended.state, ended.result) == (JobState.ACKNOWLEDGED, "S_OK")
    assert all(file.completed and file.validation for file in ended.files), "implicitly valid"

    partial = after(job_in(JobState.SUSPENDED, fetched(0), a_file(1)), Complete(), FilesFinished(renamed=(0,)))
    assert (partial.state, partial.result) == (JobState.ACKNOWLEDGED, "BG_S_PARTIAL_COMPLETE")
    assert [file.completed for file in partial.files] == [True, False]


def test_complete_without_a_finished_file_is_partial() -> None:
    """The UNDOC cell, and a job without any file."""
    for job in (a_job(), job_in(JobState.SUSPENDED), job_in(JobState.ERROR)):
        ended = after(job, Complete(), FilesFinished())
        assert (ended.state, ended.result) == (JobState.ACKNOWLEDGED, "BG_S_PARTIAL_COMPLETE")


def test_complete_says_when_temporary_files_are_left() -> None:
    ended = after(
        job_in(JobState.SUSPENDED, fetched(0), a_file(1)), Complete(), FilesFinished(renamed=(0,), left_over=("/x",))
    )
    assert (ended.state, ended.result) == (JobState.ACKNOWLEDGED, "BG_S_UNABLE_TO_DELETE_FILES")


def test_a_rename_that_fails_leaves_the_job_as_it_was_and_complete_can_be_called_again() -> None:
    """J7: files that were renamed are usable, the caller repairs and calls again."""
    job = job_in(JobState.TRANSFERRED, fetched(0), fetched(1))
    failed = after(job, Complete(), FilesFinished(renamed=(0,), failed=((1, "E_ACCESSDENIED", "the directory …"),)))
    assert failed.state is JobState.TRANSFERRED
    assert failed.closing is None
    assert [file.completed for file in failed.files] == [True, False]
    again = step(failed, Complete())
    assert again.effects == (FinishFiles(job_id=job.id, closing=Closing.COMPLETE),)
    ended = after(again.job, FilesFinished(renamed=(1,)))
    assert (ended.state, ended.result) == (JobState.ACKNOWLEDGED, "S_OK")
    assert after(failed, Cancel()).state is JobState.CANCELLED


def test_complete_called_twice_is_one_completion() -> None:
    job = after(job_in(JobState.TRANSFERRED), Complete())
    again = step(job, Complete())
    assert again.effects == ()
    assert again.job == job


def test_files_that_end_while_complete_stops_the_run_are_kept() -> None:
    """Complete while a run is under way: what was made durable until the run has ended belongs to the owner."""
    job = job_in(JobState.TRANSFERRING, a_file(0), a_file(1))
    made = step(job, Complete())
    assert made.effects == (
        StopRun(job_id=job.id),
        FinishFiles(job_id=job.id, closing=Closing.COMPLETE),
    ), "the run is stopped before its files are touched"
    late = after(made.job, FilesFetched(run=1, files=((0, 10),)), RunEnded(run=1))
    assert late.files[0].transferred
    assert late.state is JobState.SUSPENDED
    ended = after(late, FilesFinished(renamed=(0,)))
    assert (ended.state, ended.result) == (JobState.ACKNOWLEDGED, "BG_S_PARTIAL_COMPLETE")


def test_a_run_that_fails_while_complete_stops_it_does_not_keep_the_job_from_ending() -> None:
    job = after(job_in(JobState.TRANSFERRING), Complete())
    assert apply(job, RunEnded(run=1, failure=failure()), at(1)) is None
    assert after(job, FilesFinished()).state is JobState.ACKNOWLEDGED


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.ACKNOWLEDGED])
def test_reports_of_a_run_that_was_stopped_mean_nothing_to_a_job_that_has_ended(state: JobState) -> None:
    job = job_in(state)
    for event in (
        answer(job),
        FileCheckpoint(run=1, index=0, durable_bytes=5),
        FilesFetched(run=1, files=((0, 10),)),
        RunEnded(run=1),
        RunEnded(run=1, failure=failure()),
        SlotGranted(),
        FilesFinished(renamed=(0,)),
    ):
        assert apply(job, event, at(1)) is None


def test_added_files_are_written_down_and_counted() -> None:
    made = step(job_in(JobState.SUSPENDED), AddFiles(files=(a_file(1), a_file(2))))
    assert made.changed_files == (1, 2)
    assert len(made.job.files) == 3
    assert "2 files" in made.entries[0].text


def test_secrets_in_a_url_do_not_reach_the_log() -> None:
    secret = a_file(1, remote_name="http://alice:s3cret@origin.example/1")
    made = step(job_in(JobState.SUSPENDED), AddFiles(files=(secret,)))
    assert "s3cret" not in made.entries[0].text
    job = job_in(JobState.CONNECTING, secret)
    assert not any("s3cret" in entry.text for entry in step(job, answer(job)).entries)


def test_files_added_during_a_run_are_fetched_by_the_next_without_leaving_the_state() -> None:
    job = after(job_in(JobState.TRANSFERRING), AddFiles(files=(a_file(1),)), FilesFetched(run=1, files=((0, 10),)))
    assert job.state is JobState.TRANSFERRING
    made = step(job, RunEnded(run=1))
    assert made.job.state is JobState.TRANSFERRING
    assert made.effects == (StartRun(job_id=job.id, run=2),)


def test_changed_settings_are_named_in_the_log() -> None:
    job = job_in(JobState.QUEUED)
    made = step(job, ChangeSettings(settings=dataclasses.replace(job.settings, description="x", umask=0o077)))
    assert made.entries[0].text == "set: description, umask"


def test_a_new_remote_name_keeps_the_bytes_and_drops_the_entity_tag() -> None:
    """J40, F4: another server's tag says nothing; size and time decide whether the file goes on."""
    known = Validator(etag='"1"', last_modified="Tue, 01 Jan 2030 00:00:00 GMT", size=100)
    file = a_file(0, bytes_transferred=40, validator=known, resumable=True, ranges=(ByteRange(0, 100),))
    made = step(job_in(JobState.SUSPENDED, file), RenameRemote(names=((0, "http://mirror.example/0"),)))
    renamed = made.job.files[0]
    assert renamed.remote_name == "http://mirror.example/0"
    assert renamed.bytes_transferred == 40
    assert renamed.validator == dataclasses.replace(known, etag=None)
    assert renamed.resumable is None
    assert made.changed_files == (0,)


def test_a_new_remote_name_during_a_run_begins_a_new_run_with_it() -> None:
    """The worker knows the old name only: what it fetches must not pass for the new server's file."""
    job = job_in(JobState.TRANSFERRING, a_file(0), a_file(1))
    made = step(job, RenameRemote(names=((1, "http://mirror.example/1"),)))
    assert made.job.state is JobState.TRANSFERRING
    assert made.effects == (
        StopRun(job_id=job.id),
        StartRun(job_id=job.id, run=2),
    )


@pytest.mark.parametrize("state", [JobState.TRANSFERRING, JobState.SUSPENDED, JobState.QUEUED])
def test_a_late_report_of_the_old_server_says_nothing_of_the_new_one(state: JobState) -> None:
    file = a_file(0, bytes_transferred=40, resumable=True)
    job = after(job_in(state, file, run=1), RenameRemote(names=((0, "http://mirror.example/0"),)))
    late = after(
        job,
        answer(job, run=1, offset=20),
        FileCheckpoint(run=1, index=0, durable_bytes=60),
        FilesFetched(run=1, files=((0, 100),)),
    )
    assert late.files[0].validator.etag is None
    assert late.files[0].bytes_transferred == 20, "what the old server's file has lost is lost"
    assert not late.files[0].transferred, "the old server's file does not pass for the new one's"
    assert late.state is state


def test_a_new_remote_name_does_not_make_a_job_that_never_ran_look_as_if_it_had() -> None:
    """A job that never ran has no files to clean up; `run` tells."""
    assert after(job_in(JobState.SUSPENDED), RenameRemote(names=((0, "http://m.example/0"),))).run == 0


def test_validation_is_for_finished_files() -> None:
    """F6."""
    for valid in (True, False):
        with pytest.raises(BitsError) as caught:
            apply(job_in(JobState.TRANSFERRING), SetValidation(index=0, valid=valid), at(1))
        assert caught.value.name == "E_PENDING"
    job = after(job_in(JobState.TRANSFERRED), SetValidation(index=0, valid=True))
    assert job.files[0].validation is True
    assert job.state is JobState.TRANSFERRED


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_final])
def test_a_file_declared_invalid_fails_the_job_and_is_fetched_again(state: JobState) -> None:
    """F6, S8."""
    job = job_in(state, fetched(0), a_file(1))
    made = step(job, SetValidation(index=0, valid=False))
    assert made.job.state is JobState.ERROR
    error = made.job.error
    assert error is not None
    assert (error.name, error.context, error.file_index) == ("BG_E_VALIDATION_FAILED", ErrorContext.LOCAL_FILE, 0)
    again = made.job.files[0]
    assert (again.transferred, again.bytes_transferred, again.validation) == (False, 0, False)
    assert made.job.transferred_at is None
    assert made.job.error_count == job.error_count + 1
    assert (StopRun(job_id=job.id) in made.effects) == state.is_active
    assert after(made.job, Resume()).state is JobState.QUEUED


def test_an_invalid_file_that_was_in_place_already_will_be_put_there_again() -> None:
    """After a Complete that failed half-way, a renamed file can still be declared invalid."""
    job = job_in(JobState.TRANSFERRED, fetched(0, completed=True), fetched(1))
    invalid = after(job, SetValidation(index=0, valid=False))
    assert not invalid.files[0].completed
    assert invalid.files[1] == job.files[1]


@pytest.mark.parametrize("state", STALE)
def test_resume_without_a_network_waits_for_one(state: JobState) -> None:
    """S5."""
    job = job_in(state, a_file(0))
    waiting = after(job, Resume(), env=OFFLINE)
    assert waiting.state is JobState.TRANSIENT_ERROR
    assert waiting.error is not None
    assert waiting.error.name == "BG_E_NETWORK_DISCONNECTED"
    assert waiting.retry_at is None, "R3: the network, not a timer, lets it go on"


def test_every_verb_is_refused_with_a_sentence_while_files_are_put_in_place() -> None:
    with pytest.raises(BitsError, match="being completed"):
        apply(closing(job_in(JobState.TRANSFERRED)), Cancel(), at(1))
