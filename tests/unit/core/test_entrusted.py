"""What owners entrust to jobs is gone when the job ends, and not before (I14, J35, H5, H11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core.access import may_steer
from openbits.core.events import (
    Cancel,
    ChangeOwner,
    FilesFinished,
    HideHeaders,
    RenameRemote,
    SealOld,
    SessionEnded,
    SetHeaders,
)
from openbits.core.model import (
    Caller,
    ClientCertificate,
    Closing,
    CredentialSlot,
    Job,
    JobState,
    JobType,
    SealedCredential,
    Settings,
)
from openbits.core.proxies import AccountProxyChange, change_account
from openbits.core.settings import SettingsWindow, change_settings
from openbits.errors import BitsError
from support.jobs import ALICE, BOB, a_file, a_job, at, fetched, job_in, step

SLOT = CredentialSlot("server", "basic")
ENTRUSTED: dict[str, Any] = {
    "explicit_credentials": (SealedCredential(slot=SLOT, sealed="v1:password"),),
    "sealed_headers": "v1:headers",
}


def entrusted(job: Job) -> bool:
    """Whether anything is left."""
    return bool(job.explicit_credentials or job.sealed_headers or any(file.sealed_userinfo for file in job.files))


def test_i14_cancelled_download_has_nothing_left() -> None:
    job = job_in(JobState.SUSPENDED, a_file(0), a_file(1, sealed_userinfo="v1:name"), **ENTRUSTED)
    made = step(job, Cancel())
    assert not entrusted(made.job)
    assert made.changed_files == (1,), "the store must hear of the file"


def test_i14_completed_job_has_nothing_left() -> None:
    job = job_in(
        JobState.TRANSFERRED,
        fetched(0, sealed_userinfo="v1:zero"),
        fetched(1, sealed_userinfo="v1:one"),
        closing=Closing.COMPLETE,
        **ENTRUSTED,
    )
    made = step(job, FilesFinished(renamed=(1,)))
    assert made.job.state is JobState.ACKNOWLEDGED
    assert not entrusted(made.job)
    assert sorted(made.changed_files) == [0, 1]
    failed = step(job, FilesFinished(failed=((0, "E_ACCESSDENIED", "no"),)))
    assert entrusted(failed.job), "it may still be resumed"


def test_j6_cancelled_upload_keeps_it_until_its_server_knows() -> None:
    job = job_in(
        JobState.SUSPENDED,
        a_file(0, sealed_userinfo="v1:name"),
        type=JobType.UPLOAD,
        upload_memory="session",
        **ENTRUSTED,
    )
    cancelled = step(job, Cancel()).job
    assert cancelled.cancel_until is not None
    assert entrusted(cancelled)
    ended = step(cancelled, SessionEnded(how="the server has been told"))
    assert not entrusted(ended.job)
    assert ended.changed_files == (0,)


def test_i8_a_new_owner_finds_nothing() -> None:
    job = job_in(JobState.SUSPENDED, a_file(0, sealed_userinfo="v1:name"), headers_are_write_only=True, **ENTRUSTED)
    job = replace(job, settings=replace(job.settings, use_netrc=True, use_stored_credentials="proxy"))
    taken = step(job, ChangeOwner(owner=BOB)).job
    assert not entrusted(taken)
    assert (taken.headers_are_write_only, taken.settings.use_netrc, taken.settings.use_stored_credentials) == (
        False,
        False,
        "",
    )


@pytest.mark.parametrize("state", list(JobState))
def test_h11_always_succeeds_and_never_disturbs(state: JobState) -> None:
    job = job_in(state, sealed_headers="v1:headers")
    made = step(job, HideHeaders())
    assert made.job == replace(job, headers_are_write_only=True)
    assert made.effects == ()
    again = step(made.job, HideHeaders())
    assert (again.job, again.entries) == (made.job, ())


def test_h11_there_is_no_way_back() -> None:
    job = step(job_in(JobState.SUSPENDED), HideHeaders()).job
    assert step(job, SetHeaders(sealed="v1:new")).job.headers_are_write_only


def test_seal_old_changes_what_is_written_and_nothing_else() -> None:
    file = a_file(1, remote_name="http://u:p@origin.example/1")
    job = job_in(JobState.TRANSFERRING, a_file(0), file, sealed_headers="plain:X: y")
    made = step(job, SealOld(headers="v1:h", files=((1, "http://origin.example/1", "v1:u"),)), env=at(100))
    expected = replace(file, remote_name="http://origin.example/1", sealed_userinfo="v1:u")
    assert made.job == replace(job, files=(job.files[0], expected), sealed_headers="v1:h")
    assert made.changed_files == (1,)
    assert made.effects == ()


def test_seal_old_of_a_job_that_has_ended_throws_it_away() -> None:
    job = job_in(JobState.ACKNOWLEDGED, fetched(0), sealed_headers="plain:X: y")
    made = step(job, SealOld(headers="v1:h", files=((0, "http://origin.example/0", "v1:u"),)))
    assert not entrusted(made.job)
    assert made.changed_files == (0,)


def test_seal_old_of_an_upload_forgets_a_session_whose_address_had_a_password_in_it() -> None:
    old = a_file(0, remote_name="http://u:p@origin.example/in")
    job = job_in(JobState.SUSPENDED, old, type=JobType.UPLOAD, upload_memory="http://u:p@origin.example/session")
    made = step(job, SealOld(headers="", files=((0, "http://origin.example/in", "v1:u"),)))
    assert made.job.upload_memory == ""
    kept = step(replace(job, files=(a_file(0),)), SealOld(headers="v1:h"))
    assert kept.job.upload_memory == job.upload_memory


def test_f4_a_new_name_without_user_takes_the_old_one_away() -> None:
    job = job_in(JobState.SUSPENDED, a_file(0, sealed_userinfo="v1:name"), a_file(1, sealed_userinfo="v1:other"))
    names = ((0, "http://other.example/"), (1, "http://origin.example/x"))
    made = step(job, RenameRemote(names=names, userinfo=((1, "v1:kept"),)))
    assert [file.sealed_userinfo for file in made.job.files] == ["", "v1:kept"]


def caller_of(who: Any, **more: Any) -> Caller:
    return Caller(identity=who.identity, name=who.name, kind=who.kind, is_administrator=True, **more)


@pytest.mark.parametrize(
    "job",
    [
        a_job(a_file(), explicit_credentials=ENTRUSTED["explicit_credentials"]),
        a_job(a_file(), sealed_headers="v1:headers"),
        a_job(a_file(), a_file(1, sealed_userinfo="v1:name")),
        a_job(a_file(), settings={"use_netrc": True}),
        a_job(a_file(), settings={"use_stored_credentials": "proxy"}),
        a_job(a_file(), implicit_credentials=frozenset({CredentialSlot("server", "negotiate")})),
        a_job(a_file(), client_certificate=ClientCertificate(location="current_user", store="my", sha1="ab" * 20)),
    ],
)
def test_a2_only_the_owner_says_where_his_password_goes(job: Job) -> None:
    may_steer(caller_of(ALICE), job)
    with pytest.raises(BitsError, match="E_ACCESSDENIED"):
        may_steer(caller_of(BOB), job)
    may_steer(caller_of(BOB), a_job(a_file()))


@pytest.mark.parametrize("name", ["proxy_list", "proxy_bypass_list"])
@pytest.mark.parametrize("text", ["http://u:secret@proxy:3128", "p:80 https=u:secret@q", "u@p"])
def test_j22_no_password_in_a_list_that_others_see(name: str, text: str) -> None:
    values = {"proxy_usage": "override", "proxy_list": "p:80", name: text}
    with pytest.raises(BitsError, match="E_INVALIDARG") as caught:
        change_settings(Settings(name="j"), values, window=SettingsWindow())
    assert "secret" not in str(caught.value)


def test_i20_no_password_in_the_url_of_a_script() -> None:
    with pytest.raises(BitsError, match="E_INVALIDARG") as caught:
        change_account(None, AccountProxyChange(usage="autoscript", script_url="http://u:secret@wpad/wpad.dat"))
    assert "secret" not in str(caught.value)
