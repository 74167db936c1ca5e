"""Whose job it is and in whose name it works: I2, I7, I8, I10, J51, T3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core.events import (
    ChangeCredentials,
    ChangeOwner,
    DeadlineReached,
    HelperTokenChanged,
    HelperTokenLost,
    LogonChanged,
    SetHelperFlags,
    SlotGranted,
    StartRun,
    StopRun,
)
from openbits.core.lifecycle import LOG_OFF_PATIENCE_S, apply
from openbits.core.model import (
    AccountKind,
    ClientCertificate,
    Closing,
    CredentialSlot,
    HelperFlag,
    Job,
    JobState,
    Owner,
    SealedCredential,
)
from openbits.core.ownership import allows_implicit, integrity_level
from openbits.core.why import gate_of
from openbits.errors import BitsError
from support.jobs import ALICE, BOB, NOW, a_file, at, job_in

NOBODY_LOGGED_ON = at(1, logged_on=frozenset())
BOB_LOGGED_ON = at(1, logged_on=frozenset({BOB.identity.uid}))
NETWORK_SERVER = frozenset({CredentialSlot("server", "negotiate")})
ACTIVE = (JobState.CONNECTING, JobState.TRANSFERRING)
FINAL = (JobState.ACKNOWLEDGED, JobState.CANCELLED)


def in_state(state: JobState, **more: Any) -> Job:
    return job_in(state, a_file(0, bytes_transferred=5), a_file(1), **{"run": 3, **more})


# --- log-on (I2) -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ACTIVE)
def test_i2_log_off_stops_a_run_and_queues_the_job(state: JobState) -> None:
    step = apply(in_state(state), LogonChanged(), NOBODY_LOGGED_ON)
    assert step is not None
    assert step.job.state is JobState.QUEUED
    assert step.effects == (StopRun(job_id=step.job.id, patience_s=LOG_OFF_PATIENCE_S),)
    assert LOG_OFF_PATIENCE_S < 1.0
    assert step.job.files[0].bytes_transferred == 5
    assert step.job.error_count == 0


@pytest.mark.parametrize("state", [state for state in JobState if state not in ACTIVE])
def test_i2_log_off_leaves_a_job_that_does_not_run_as_it_is(state: JobState) -> None:
    assert apply(in_state(state), LogonChanged(), NOBODY_LOGGED_ON) is None


@pytest.mark.parametrize("kind", [kind for kind in AccountKind if kind is not AccountKind.USER])
def test_i2_service_accounts_are_always_logged_on(kind: AccountKind) -> None:
    job = in_state(JobState.TRANSFERRING, owner=replace(ALICE, kind=kind))
    assert apply(job, LogonChanged(), NOBODY_LOGGED_ON) is None
    assert apply(replace(job, state=JobState.QUEUED), SlotGranted(), NOBODY_LOGGED_ON) is not None


def test_i2_a_slot_that_was_granted_before_the_log_off_is_not_used() -> None:
    assert apply(in_state(JobState.QUEUED), SlotGranted(), BOB_LOGGED_ON) is None
    assert apply(in_state(JobState.QUEUED), SlotGranted(), at(1, logged_on=frozenset({1000}))) is not None
    assert apply(in_state(JobState.QUEUED), SlotGranted(), at(1)) is not None


def test_i2_a_retry_that_is_due_while_logged_off_queues_the_job() -> None:
    job = in_state(JobState.TRANSIENT_ERROR, retry_at=NOW, no_progress_since=NOW - 5)
    step = apply(job, DeadlineReached(), NOBODY_LOGGED_ON)
    assert step is not None
    assert step.job.state is JobState.QUEUED


def test_i2_why_says_that_the_owner_is_logged_off() -> None:
    gate = gate_of(in_state(JobState.QUEUED), NOBODY_LOGGED_ON, ahead=1, trouble="")
    assert gate.gate == "logon"
    assert "alice is logged off" in gate.sentence
    assert gate_of(in_state(JobState.QUEUED), at(1), ahead=1, trouble="").gate == "slot"


# --- ownership (I8) --------------------------------------------------------------------------


def taken(job: Job, owner: Owner = BOB) -> tuple[Job, tuple[object, ...]]:
    step = apply(job, ChangeOwner(owner=owner, temporary_names=((0, "/srv/.BITnew.tmp"),)), at(9))
    assert step is not None
    return step.job, step.effects


def test_i8_a_new_owner_finds_nothing_that_was_the_former_owners_own() -> None:
    job = in_state(JobState.SUSPENDED, implicit_credentials=NETWORK_SERVER, helper_flags=HelperFlag.NETWORK)
    secret = SealedCredential(slot=CredentialSlot("server", "basic"), sealed="v1:x")
    certificate = ClientCertificate(location="current_user", store="MY", sha1="0" * 40)
    job = replace(
        job,
        settings=replace(job.settings, description="kept", use_netrc=True),
        explicit_credentials=(secret,),
        sealed_headers="v1:y",
        headers_are_write_only=True,
        client_certificate=certificate,
        files=tuple(replace(file, sealed_userinfo="v1:z") for file in job.files),
    )
    after, effects = taken(job)
    assert after.owner == BOB
    assert (after.sealed_headers, after.headers_are_write_only, after.explicit_credentials) == ("", False, ())
    assert after.client_certificate is None
    assert not after.settings.use_netrc
    assert after.files
    assert all(not file.sealed_userinfo for file in after.files)
    assert after.implicit_credentials == frozenset()
    assert after.helper_flags == HelperFlag.NONE
    assert after.settings.description == "kept"
    assert after.state is JobState.SUSPENDED
    assert (after.files[0].temporary_name, after.files[0].bytes_transferred) == ("/srv/.BITnew.tmp", 5)
    assert after.files[1] == replace(job.files[1], sealed_userinfo="")
    assert after.modified_at == NOW + 9
    assert effects == ()


@pytest.mark.parametrize("state", ACTIVE)
def test_i8_a_run_begins_again_in_the_name_of_the_new_owner(state: JobState) -> None:
    after, effects = taken(in_state(state))
    assert after.state is state
    assert effects == (StopRun(job_id=after.id), StartRun(job_id=after.id, run=4))


def test_i8_late_reports_of_the_former_owners_run_mean_nothing() -> None:
    after, _ = taken(in_state(JobState.SUSPENDED))
    assert after.run == 4


@pytest.mark.parametrize(
    "event",
    [ChangeOwner(owner=BOB), SetHelperFlags(flags=HelperFlag.NETWORK), ChangeCredentials(implicit=NETWORK_SERVER)],
)
@pytest.mark.parametrize("state", FINAL)
def test_i8_t3_j35_what_has_ended_does_not_change(
    event: ChangeOwner | SetHelperFlags | ChangeCredentials, state: JobState
) -> None:
    with pytest.raises(BitsError) as caught:
        apply(in_state(state), event, at(1))
    assert caught.value.name == "BG_E_INVALID_STATE"


def test_i8_not_while_complete_is_at_work() -> None:
    with pytest.raises(BitsError) as caught:
        apply(in_state(JobState.TRANSFERRED, closing=Closing.COMPLETE), ChangeOwner(owner=BOB), at(1))
    assert caught.value.name == "BG_E_INVALID_STATE"


@pytest.mark.parametrize(
    ("kind", "is_elevated", "level"),
    [
        (AccountKind.LOCAL_SYSTEM, True, 0x4000),
        (AccountKind.NETWORK_SERVICE, False, 0x4000),
        (AccountKind.LOCAL_SERVICE, False, 0x4000),
        (AccountKind.USER, True, 0x3000),
        (AccountKind.USER, False, 0x2000),
    ],
)
def test_j51_the_level_follows_kind_and_elevation(kind: AccountKind, is_elevated: bool, level: int) -> None:
    assert integrity_level(replace(ALICE, kind=kind, is_elevated=is_elevated)) == level


# --- helper tokens (I7, T1, T2, T3) --------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.QUEUED, *ACTIVE, JobState.TRANSIENT_ERROR])
def test_i7_a_job_that_loses_its_token_goes_to_error(state: JobState) -> None:
    job = in_state(state, helper_flags=HelperFlag.LOCAL_FILE)
    step = apply(job, HelperTokenLost(reason="bob logged off"), at(1))
    assert step is not None
    assert step.job.state is JobState.ERROR
    assert step.job.error is not None
    assert step.job.error.name == "BG_E_TOKEN_REQUIRED"
    assert "bob logged off" in step.job.error.message
    assert step.effects == ((StopRun(job_id=job.id, patience_s=LOG_OFF_PATIENCE_S),) if state.is_active else ())
    assert step.job.files[0].bytes_transferred == 5


@pytest.mark.parametrize("state", [JobState.SUSPENDED, JobState.ERROR, JobState.TRANSFERRED, *FINAL])
def test_i7_a_job_that_does_not_move_keeps_its_state(state: JobState) -> None:
    job = in_state(state, helper_flags=HelperFlag.LOCAL_FILE)
    assert apply(job, HelperTokenLost(reason="bob logged off"), at(1)) is None


@pytest.mark.parametrize("event", [HelperTokenLost(reason="x"), HelperTokenChanged()])
def test_t3_a_job_without_flags_does_not_care(event: HelperTokenLost | HelperTokenChanged) -> None:
    assert apply(in_state(JobState.TRANSFERRING), event, at(1)) is None


def test_t1_t3_another_token_or_other_flags_begin_the_run_again() -> None:
    job = in_state(JobState.TRANSFERRING)
    step = apply(job, SetHelperFlags(flags=HelperFlag.NETWORK), at(1))
    assert step is not None
    assert step.effects == (StopRun(job_id=job.id), StartRun(job_id=job.id, run=4))
    again = apply(step.job, HelperTokenChanged(), at(2))
    assert again is not None
    assert again.effects == (StopRun(job_id=job.id), StartRun(job_id=job.id, run=5))


def test_t3_the_same_flags_change_nothing() -> None:
    job = in_state(JobState.TRANSFERRING, helper_flags=HelperFlag.NETWORK)
    step = apply(job, SetHelperFlags(flags=HelperFlag.NETWORK), at(1))
    assert step is not None
    assert (step.effects, step.job.run) == ((), 3)


# --- implicit credentials (I10) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "server", "proxy"),
    [
        ([], False, False),
        ([("server", "negotiate")], True, False),
        ([("server", "ntlm")], True, False),
        ([("proxy", "negotiate")], True, True),
    ],
)
def test_i10_allowed_for_the_proxy_means_allowed_for_the_server(
    slots: list[tuple[str, str]], server: bool, proxy: bool
) -> None:
    allowed = frozenset(CredentialSlot(*slot) for slot in slots)
    assert (allows_implicit(allowed, "server"), allows_implicit(allowed, "proxy")) == (server, proxy)


def test_j35_allowing_begins_the_run_again() -> None:
    job = in_state(JobState.TRANSFERRING)
    step = apply(job, ChangeCredentials(implicit=NETWORK_SERVER), at(1))
    assert step is not None
    assert step.job.implicit_credentials == NETWORK_SERVER
    assert StartRun(job_id=job.id, run=4) in step.effects
