"""What a reported redirect and the last answer's headers make of a job (H7, H9, F4, F10, J40)."""

from __future__ import annotations

import pytest

from openbits.core.events import FileRedirected, HeadersSeen, RenameRemote
from openbits.core.lifecycle import apply
from openbits.core.model import File, Job, JobState, JobType, Validator
from support.jobs import a_file, after, at, fetched, job_in, step

THERE = "https://there.example/x?y"


def redirected(job: Job, name: str = THERE, index: int = 0) -> FileRedirected:
    return FileRedirected(run=job.run, index=index, remote_name=name)


def test_the_remote_name_becomes_the_final_url() -> None:
    """H7: ALLOW_REPORT."""
    job = job_in(JobState.CONNECTING, a_file(0), a_file(1))
    made = step(job, redirected(job, index=1))
    assert made.job.files[0] == job.files[0]
    assert made.job.files[1].remote_name == THERE
    assert made.changed_files == (1,)
    assert made.effects == (), "the run goes on"
    (entry,) = made.entries
    assert "http://origin.example/1 is now https://there.example/x?y" in entry.text
    assert apply(made.job, redirected(made.job, index=1), at(2)) is None, "told twice"


def test_what_the_job_has_stays_meant_for_the_server_that_its_owner_named() -> None:
    """I9: however often it is renamed; and comes back with the way back."""
    job = job_in(JobState.TRANSFERRING, a_file(remote_name="https://Origin.example:8443/0", sealed_userinfo="v1:x"))
    job = after(job, redirected(job))
    assert job.files[0].meant_for == "https://origin.example:8443"
    assert job.files[0].sealed_userinfo == "", "a user name in a URL is for that server alone"
    job = after(job, redirected(job, "https://further.example/z"))
    assert job.files[0].meant_for == "https://origin.example:8443"
    job = after(job, redirected(job, "https://origin.example:8443/back"))
    assert job.files[0].meant_for == ""


def test_a_new_name_of_the_same_server_changes_nothing_else() -> None:
    job = job_in(JobState.TRANSFERRING, a_file(sealed_userinfo="v1:x", validator=Validator(etag='"1"')))
    moved = after(job, redirected(job, "http://origin.example/elsewhere")).files[0]
    assert (moved.meant_for, moved.sealed_userinfo, moved.validator) == ("", "v1:x", Validator(etag='"1"'))


def test_from_http_to_https_the_name_is_remembered_as_another_server() -> None:
    """Whether it may be told secrets is for the worker to say: on the usual ports it may."""
    job = job_in(JobState.TRANSFERRING, a_file())
    assert after(job, redirected(job, "https://origin.example/0")).files[0].meant_for == "http://origin.example"


def test_what_an_owner_writes_is_meant() -> None:
    """F4, J40: set_remote_name and replace_remote_prefix name a server anew."""
    job = job_in(JobState.TRANSFERRING, a_file())
    job = after(job, redirected(job))
    job = after(job, RenameRemote(names=((0, "https://third.example/x"),)))
    assert (job.files[0].remote_name, job.files[0].meant_for) == ("https://third.example/x", "")


def test_a_run_that_knew_another_name_is_not_believed() -> None:
    job = job_in(JobState.TRANSFERRING, a_file())
    late = redirected(job)
    renamed = after(job, RenameRemote(names=((0, "https://third.example/x"),)))
    assert apply(renamed, late, at(2)) is None


@pytest.mark.parametrize("file", [fetched(0), a_file(remote_name=THERE)])
def test_nothing_changes_for_a_file_that_is_whole_or_has_the_name(file: File) -> None:
    job = job_in(JobState.TRANSFERRING, file, a_file(1))
    assert apply(job, redirected(job), at(1)) is None


def test_uploads_are_never_renamed() -> None:
    """H9."""
    job = job_in(JobState.TRANSFERRING, a_file(), type=JobType.UPLOAD)
    assert apply(job, redirected(job), at(1)) is None


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.ACKNOWLEDGED])
def test_nothing_changes_for_a_job_that_is_over(state: JobState) -> None:
    job = job_in(state, a_file())
    assert apply(job, redirected(job), at(1)) is None
    assert apply(job, HeadersSeen(run=job.run, index=0, response_headers="HTTP/1.1 404 X\r\n\r\n"), at(1)) is None


def test_the_last_headers_replace_those_before() -> None:
    """F10."""
    job = job_in(JobState.TRANSFERRING, a_file(), a_file(1))
    seen = HeadersSeen(run=job.run, index=1, response_headers="HTTP/1.1 404 X\r\n\r\n")
    made = step(job, seen)
    assert made.job.files[1].response_headers == "HTTP/1.1 404 X\r\n\r\n"
    assert made.changed_files == (1,)
    assert made.entries == ()
    assert apply(made.job, seen, at(2)) is None
