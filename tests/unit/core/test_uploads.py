"""Upload jobs in the core: one file, a session, a reply, and a farewell (J1, J6, J7, J31–J34, M7, U46, E6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core.environment import is_blocked_by_network
from openbits.core.events import (
    AddFiles,
    Cancel,
    ChangeOwner,
    Complete,
    DeadlineReached,
    EndSession,
    Event,
    FileCheckpoint,
    FilesFetched,
    FilesFinished,
    FinishFiles,
    RenameRemote,
    Resume,
    RunEnded,
    SessionEnded,
    SetReplyName,
    SetValidation,
    SlotGranted,
    StartRun,
    StopRun,
    UploadMoved,
)
from openbits.core.lifecycle import apply, deadline
from openbits.core.model import DAY_S, REPLY_INDEX, UPLOAD_INDEX, Closing, File, Job, JobState, JobType, Validator
from openbits.core.settings import SettingsWindow, change_settings
from openbits.core.why import gate_of
from openbits.errors import BitsError
from support.jobs import BOB, NOW, OFFLINE, after, answer, at, failure, job_in, step

ACTIVE = (JobState.CONNECTING, JobState.TRANSFERRING)
SOURCE = "/home/alice/report"
REPLY = File(remote_name="", local_name="/home/alice/receipt", temporary_name="/home/alice/.BIT0.tmp")
STAMP = Validator(last_modified="1700000000123456789", size=100)


def source(**more: Any) -> File:
    values: dict[str, Any] = {
        "remote_name": "http://server.example/in/report",
        "local_name": SOURCE,
        "temporary_name": SOURCE,
    }
    return File(**values | more)


def sent() -> File:
    return source(bytes_total=100, bytes_transferred=100, transferred=True, completed=True, validator=STAMP)


def upload_in(state: JobState, *files: File, **more: Any) -> Job:
    default = sent() if state in (JobState.TRANSFERRED, JobState.ACKNOWLEDGED) else source()
    return job_in(state, *(files or (default,)), **{"type": JobType.UPLOAD} | more)


def reply_job_in(state: JobState, *files: File, **more: Any) -> Job:
    return upload_in(state, *files, **{"type": JobType.UPLOAD_REPLY, "reply": REPLY} | more)


def here(**more: Any) -> File:
    """A reply that is whole."""
    return replace(REPLY, bytes_total=7, bytes_transferred=7, transferred=True, resumable=True, **more)


def refusal(job: Job, event: Event) -> str:
    with pytest.raises(BitsError) as caught:
        apply(job, event, at(1))
    return caught.value.name


def why(job: Job, received_bytes: int = 0) -> str:
    return gate_of(job, at(1), ahead=0, trouble="", received_bytes=received_bytes).sentence


# --- one file -------------------------------------------------------------------------------------


def test_j1_a_second_file_is_too_many() -> None:
    empty = replace(upload_in(JobState.SUSPENDED), files=())
    assert refusal(upload_in(JobState.SUSPENDED), AddFiles(files=(source(),))) == "BG_E_TOO_MANY_FILES"
    assert refusal(empty, AddFiles(files=(source(), source(local_name="/home/alice/other")))) == "BG_E_TOO_MANY_FILES"
    assert step(empty, AddFiles(files=(source(),))).job.files == (source(),)


@pytest.mark.parametrize(
    "event", [RenameRemote(names=((0, "http://other.example/"),)), SetValidation(index=0, valid=True)]
)
def test_f4_f6_what_is_for_downloads_is_not_implemented(event: Event) -> None:
    assert refusal(upload_in(JobState.TRANSFERRED), event) == "E_NOTIMPL"


def test_what_the_server_has_is_finished_and_the_job_transferred() -> None:
    """F2: there is nothing left to rename."""
    made = step(upload_in(JobState.TRANSFERRING), FilesFetched(run=1, files=((UPLOAD_INDEX, 100),)))
    assert made.job.state is JobState.TRANSFERRED
    assert made.job.files[0].completed
    assert made.job.bytes_transferred == made.job.bytes_total == 100


def test_j6_of_a_finished_upload_there_is_nothing_to_cancel_at_the_server() -> None:
    """U43: Close has freed the session; another id that the server may give out meanwhile is not ours."""
    job = upload_in(JobState.TRANSFERRING, upload_memory="session")
    made = step(job, FilesFetched(run=1, files=((UPLOAD_INDEX, 100),))).job
    assert made.upload_memory == ""
    cancelled = step(made, Cancel())
    assert cancelled.job.cancel_until is None
    assert not [effect for effect in cancelled.effects if isinstance(effect, EndSession)]


def test_a_session_outlives_its_reply() -> None:
    """The reply is told of before Close: the session must still be known then."""
    job = reply_job_in(JobState.TRANSFERRING, upload_memory="session")
    begun = after(job, answer(job, REPLY_INDEX, bytes_total=7))
    replied = after(begun, FilesFetched(run=1, files=((REPLY_INDEX, 7),)))
    assert (replied.state, replied.upload_memory) == (JobState.TRANSFERRING, "session")
    done = after(replied, FilesFetched(run=1, files=((UPLOAD_INDEX, 100),)))
    assert (done.state, done.upload_memory) == (JobState.TRANSFERRED, "")


def test_an_upload_reply_job_is_not_transferred_without_its_reply() -> None:
    """S4; J9: the reply is no part of the progress."""
    made = step(reply_job_in(JobState.TRANSFERRING), FilesFetched(run=1, files=((UPLOAD_INDEX, 100),)))
    assert made.job.state is JobState.TRANSFERRING
    begun = after(made.job, answer(made.job, REPLY_INDEX, bytes_total=7))
    assert begun.reply is not None
    assert begun.reply.bytes_total == 7
    assert begun.bytes_total == begun.bytes_transferred == 100
    some = after(begun, FileCheckpoint(run=1, index=REPLY_INDEX, durable_bytes=3))
    assert some.reply is not None
    assert some.reply.bytes_transferred == 3
    done = after(some, FilesFetched(run=1, files=((REPLY_INDEX, 7),)))
    assert done.state is JobState.TRANSFERRED
    assert done.reply is not None
    assert (done.reply.transferred, done.reply.completed) == (True, False)


# --- the session ----------------------------------------------------------------------------------


def test_u46_acknowledged_bytes_rise_and_fall_and_the_memory_is_kept() -> None:
    job = after(upload_in(JobState.CONNECTING), answer(upload_in(JobState.CONNECTING), validator=STAMP))
    assert job.state is JobState.TRANSFERRING
    assert job.files[0].validator == STAMP
    job = after(job, UploadMoved(run=1, memory="session 1", acknowledged_bytes=60))
    assert (job.bytes_transferred, job.upload_memory) == (60, "session 1")
    job = after(job, UploadMoved(run=1, memory="session 2", acknowledged_bytes=0))
    assert (job.bytes_transferred, job.upload_memory) == (0, "session 2")


def test_the_memory_of_a_run_that_was_stopped_counts() -> None:
    """Runs never overlap: what the last one says of the session when it ends is how things are."""
    job = after(
        upload_in(JobState.SUSPENDED, run=1, was_resumed=True), UploadMoved(run=1, memory="m", acknowledged_bytes=0)
    )
    assert job.upload_memory == "m"


def test_no_more_bytes_count_than_the_source_has() -> None:
    job = upload_in(JobState.TRANSFERRING, source(bytes_total=100))
    assert after(job, UploadMoved(run=1, memory="m", acknowledged_bytes=10**9)).bytes_transferred == 100


def test_u46_a_changed_source_is_forgotten_so_that_resume_sends_it_anew() -> None:
    changing = upload_in(JobState.TRANSFERRING, source(bytes_total=100, bytes_transferred=40, validator=STAMP))
    made = step(changing, RunEnded(run=1, failure=failure("BG_E_LOCAL_FILE_CHANGED", transient=False, index=0)))
    assert made.job.state is JobState.ERROR
    assert made.job.files[0] == source()
    assert made.changed_files == (UPLOAD_INDEX,)
    assert after(made.job, Resume()).state is JobState.QUEUED


def test_another_error_forgets_nothing() -> None:
    sending = upload_in(JobState.TRANSFERRING, source(bytes_total=100, bytes_transferred=40, validator=STAMP))
    made = step(sending, RunEnded(run=1, failure=failure(index=0)))
    assert made.job.files == sending.files
    assert made.job.state is JobState.TRANSIENT_ERROR


def test_e6_an_error_of_the_reply_makes_its_size_known() -> None:
    """REMOTE_FILE with an unknown size is the upload's error, with a known one the reply's."""
    job = reply_job_in(JobState.TRANSFERRING, source(bytes_total=100, bytes_transferred=100))
    of_reply = after(job, RunEnded(run=1, failure=failure("BG_E_HTTP_ERROR_404", index=REPLY_INDEX)))
    assert of_reply.reply == replace(REPLY, bytes_total=0)
    of_upload = after(job, RunEnded(run=1, failure=failure("BG_E_HTTP_ERROR_404", index=UPLOAD_INDEX)))
    assert of_upload.reply == REPLY
    assert after(of_reply, Resume()).reply == of_reply.reply


def test_s5_a_reply_needs_the_network_as_the_upload_does() -> None:
    assert is_blocked_by_network(reply_job_in(JobState.QUEUED, sent()), OFFLINE)
    assert not is_blocked_by_network(reply_job_in(JobState.QUEUED, sent(), reply=here()), OFFLINE)


# --- Complete and Cancel ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.TRANSFERRED])
def test_j7_an_upload_is_completed_in_transferred_only(state: JobState) -> None:
    for job in (upload_in(state), reply_job_in(state)):
        assert refusal(job, Complete()) == "BG_E_INVALID_STATE"


def test_j7_complete_names_the_reply() -> None:
    job = reply_job_in(JobState.TRANSFERRED, reply=here())
    made = step(job, Complete())
    assert made.effects == (FinishFiles(job_id=job.id, closing=Closing.COMPLETE),)
    done = step(made.job, FilesFinished(renamed=(REPLY_INDEX,))).job
    assert (done.state, done.result) == (JobState.ACKNOWLEDGED, "S_OK")
    assert done.reply is not None
    assert done.reply.completed


def test_j7_a_reply_that_cannot_be_renamed_keeps_the_job() -> None:
    job = after(reply_job_in(JobState.TRANSFERRED, reply=here()), Complete())
    left = after(job, FilesFinished(failed=((REPLY_INDEX, "E_ACCESSDENIED", "the directory is read-only"),)))
    assert left.state is JobState.TRANSFERRED
    assert left.closing is None


def test_j7_complete_of_a_plain_upload_is_s_ok() -> None:
    done = after(upload_in(JobState.TRANSFERRED), Complete(), FilesFinished())
    assert (done.state, done.result) == (JobState.ACKNOWLEDGED, "S_OK")


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.ERROR, JobState.TRANSIENT_ERROR, JobState.QUEUED])
def test_j6_cancel_ends_the_session_at_the_server(state: JobState) -> None:
    made = step(upload_in(state, upload_memory="session"), Cancel())
    assert EndSession(job_id=made.job.id) in made.effects
    assert made.job.cancel_until == NOW + 1 + DAY_S
    assert made.job.upload_memory == "session"
    without = step(upload_in(state), Cancel())
    assert without.job.cancel_until is None
    assert not [effect for effect in without.effects if isinstance(effect, EndSession)]


@pytest.mark.parametrize("state", ACTIVE)
def test_j6_a_run_may_have_begun_a_session_that_nobody_has_written_down(state: JobState) -> None:
    made = step(upload_in(state), Cancel())
    assert made.job.cancel_until is not None
    assert [type(effect) for effect in made.effects] == [StopRun, FinishFiles, EndSession]
    told = after(made.job, UploadMoved(run=1, memory="begun meanwhile", acknowledged_bytes=5))
    assert told.upload_memory == "begun meanwhile"


def test_j6_the_shorter_of_a_day_and_the_no_progress_timeout() -> None:
    job = upload_in(JobState.SUSPENDED, upload_memory="s", settings={"no_progress_timeout": 90})
    assert step(job, Cancel()).job.cancel_until == NOW + 1 + 90


def test_j6_a_cancelled_download_has_nobody_to_tell() -> None:
    assert step(job_in(JobState.TRANSFERRING), Cancel()).job.cancel_until is None


def test_j6_the_farewell_ends_by_its_time_and_only_then_is_the_job_forgotten() -> None:
    job = after(upload_in(JobState.SUSPENDED, upload_memory="s"), Cancel(), FilesFinished())
    assert job.cancel_until is not None
    assert deadline(job, at(2)) == job.cancel_until
    assert apply(job, DeadlineReached(), at(2 + DAY_S / 2)) is None
    given_up = step(job, DeadlineReached(), at(2 + DAY_S))
    assert (given_up.job.cancel_until, given_up.job.upload_memory) == (None, "")
    assert "could not be told" in given_up.entries[0].text
    assert not given_up.forget
    told = step(job, SessionEnded(how="the server has been told")).job
    assert told.cancel_until is None
    assert apply(told, SessionEnded(how="again"), at(3)) is None
    assert step(told, DeadlineReached(), at(5 + DAY_S)).forget


# --- the reply's name ---------------------------------------------------------------------------------


def test_j33_the_name_is_set_until_the_reply_begins() -> None:
    named = step(
        reply_job_in(JobState.SUSPENDED, reply=None), SetReplyName(local_name="/tmp/r", temporary_name="/tmp/.t")
    )
    assert named.job.reply == File(remote_name="", local_name="/tmp/r", temporary_name="/tmp/.t")
    begun = reply_job_in(JobState.TRANSFERRING, sent(), reply=replace(REPLY, resumable=True, bytes_total=7))
    other = SetReplyName(local_name="/tmp/r", temporary_name="/tmp/.t")
    for job in (begun, reply_job_in(JobState.TRANSFERRED, reply=here()), reply_job_in(JobState.CANCELLED)):
        assert refusal(job, other) == "BG_E_INVALID_STATE"
    assert refusal(upload_in(JobState.SUSPENDED), other) == "E_NOTIMPL"


def test_j33_a_new_name_restarts_the_run_that_knows_the_old_one() -> None:
    job = reply_job_in(JobState.TRANSFERRING)
    made = step(job, SetReplyName(local_name="/tmp/r", temporary_name="/tmp/.t"))
    assert made.effects == (StopRun(job_id=job.id), StartRun(job_id=job.id, run=2))


def test_j33_no_name_is_a_generated_one_again() -> None:
    fresh = reply_job_in(JobState.SUSPENDED)
    assert step(fresh, SetReplyName()).job.reply is None
    resumed = step(reply_job_in(JobState.QUEUED), SetReplyName()).job
    assert resumed.reply is not None
    assert resumed.reply.local_name == f"/home/alice/BITS-reply-{resumed.id}"


def test_j33_the_reply_never_takes_the_place_of_the_source() -> None:
    over = SetReplyName(local_name=SOURCE, temporary_name="/home/alice/.t")
    assert refusal(reply_job_in(JobState.SUSPENDED), over) == "E_INVALIDARG"
    empty = replace(reply_job_in(JobState.SUSPENDED), files=())
    assert refusal(after(empty, over), AddFiles(files=(source(),))) == "E_INVALIDARG"


def test_j34_resume_generates_a_name_beside_the_source_and_keeps_a_given_one() -> None:
    job = after(reply_job_in(JobState.SUSPENDED, reply=None), Resume())
    assert job.reply is not None
    assert job.reply.local_name == f"/home/alice/BITS-reply-{job.id}"
    assert job.reply.temporary_name.startswith("/home/alice/.BIT")
    assert after(reply_job_in(JobState.SUSPENDED), Resume()).reply == REPLY
    assert after(upload_in(JobState.SUSPENDED), Resume()).reply is None


@pytest.mark.parametrize("protocol", ["tus", "ietf", "put"])
def test_only_servers_of_the_bits_protocol_reply(protocol: str) -> None:
    window = SettingsWindow(job_type=JobType.UPLOAD_REPLY)
    before = upload_in(JobState.SUSPENDED).settings
    with pytest.raises(BitsError, match="only servers of the bits protocol"):
        change_settings(before, {"upload_protocol": protocol}, window=window)
    assert change_settings(before, {"upload_protocol": "bits"}, window=window).upload_protocol == "bits"


# --- another owner (I8) ---------------------------------------------------------------------------------


def test_i8_a_new_owner_gets_the_reply_under_its_new_temporary_name() -> None:
    job = reply_job_in(JobState.TRANSFERRED, reply=here())
    made = step(job, ChangeOwner(owner=BOB, temporary_names=((REPLY_INDEX, "/home/alice/.new"),)))
    assert made.job.reply == replace(here(), temporary_name="/home/alice/.new")
    assert made.job.files == job.files
    assert made.job.state is JobState.TRANSFERRED


def test_i8_a_reply_that_is_lost_after_the_session_needs_another_upload() -> None:
    job = reply_job_in(JobState.TRANSFERRED, reply=here())
    lost = ChangeOwner(owner=BOB, temporary_names=((REPLY_INDEX, "/home/alice/.new"),), lost=(REPLY_INDEX,))
    made = step(job, lost, at(1, logged_on=None)).job
    assert made.state is JobState.QUEUED
    assert not made.files[0].transferred
    assert not made.files[0].completed
    still_open = step(replace(job, upload_memory="session", state=JobState.SUSPENDED), lost).job
    assert still_open.files == job.files
    assert still_open.reply is not None
    assert not still_open.reply.transferred


# --- why ------------------------------------------------------------------------------------------------


def test_why_says_what_an_upload_is_at() -> None:
    sending = upload_in(JobState.TRANSFERRING, source(bytes_total=100, bytes_transferred=40))
    assert "sending" in why(sending)
    assert "sending" in why(sending, received_bytes=99)
    assert "may take minutes" in why(sending, received_bytes=100)
    replying = reply_job_in(JobState.TRANSFERRING, sent(), reply=replace(REPLY, resumable=True, bytes_total=7))
    assert "reply is coming in" in why(replying)
    assert "ends the job" in why(upload_in(JobState.TRANSFERRED))
    assert "under its name" in why(reply_job_in(JobState.TRANSFERRED, reply=here()))
    assert "answer" in why(upload_in(JobState.CONNECTING))


def test_why_says_that_the_server_of_a_cancelled_upload_is_still_to_be_told() -> None:
    job = after(upload_in(JobState.SUSPENDED, upload_memory="s"), Cancel(), FilesFinished())
    assert "has not been told yet" in why(job)
    assert "told" not in why(after(job, SessionEnded(how="it has been told")))


def test_completing_an_upload_is_not_said_to_name_files() -> None:
    assert "it is being ended" in why(after(upload_in(JobState.TRANSFERRED), Complete()))
    assert "its reply" in why(after(reply_job_in(JobState.TRANSFERRED, reply=here()), Complete()))


def test_a_slot_starts_a_run_with_what_is_missing() -> None:
    job = reply_job_in(JobState.QUEUED, sent())
    assert step(job, SlotGranted()).effects == (StartRun(job_id=job.id, run=1),)
    whole = step(reply_job_in(JobState.SUSPENDED, sent(), reply=here(), run=1), Resume())
    assert whole.job.state is JobState.TRANSFERRED
