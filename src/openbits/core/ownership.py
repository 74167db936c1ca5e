"""Whose job it is and in whose name it works: ownership, helper token, credentials, certificate (I7, I8, I10, H1–H12).

What an account gave a job for its own use never passes to another account: a new owner finds no
credentials, no custom headers, no client certificate, no helper and nothing that is run or called in his name (N14).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from openbits.core import entries, moves
from openbits.core.environment import Environment, is_logged_on
from openbits.core.events import (
    ChangeCredentials,
    ChangeOwner,
    Entry,
    Failure,
    HelperTokenChanged,
    HelperTokenLost,
    HideHeaders,
    SetCertificateValidator,
    SetClientCertificate,
    SetHeaders,
    SetHelperFlags,
    SetNotifyCommand,
    Step,
)
from openbits.core.model import (
    UPLOAD_INDEX,
    AccountKind,
    AuthScheme,
    CredentialSlot,
    HelperFlag,
    Job,
    JobState,
    Owner,
)
from openbits.core.pieces import emptied
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError, ErrorContext

IMPLICIT_SCHEMES = frozenset({AuthScheme.NTLM, AuthScheme.NEGOTIATE})
"""The schemes that work with the credentials of a log-on (J35)."""
_MEANS_NOTHING = (JobState.SUSPENDED, JobState.ERROR, JobState.TRANSFERRED)

INTEGRITY_MEDIUM = 0x2000
INTEGRITY_HIGH = 0x3000
INTEGRITY_SYSTEM = 0x4000


def integrity_level(owner: Owner) -> int:
    """The mandatory level that the owner's token has on Windows (J51): system, high for administrators, or medium."""
    if owner.kind is not AccountKind.USER:
        return INTEGRITY_SYSTEM
    return INTEGRITY_HIGH if owner.is_elevated else INTEGRITY_MEDIUM


Wish = (
    ChangeOwner
    | SetHelperFlags
    | ChangeCredentials
    | SetHeaders
    | HideHeaders
    | SetClientCertificate
    | SetCertificateValidator
    | SetNotifyCommand
)


def change(job: Job, event: Wish, env: Environment) -> Step:
    """Apply a caller's wish. Raises BG_E_INVALID_STATE for a job that has ended or is being completed."""
    if isinstance(event, HideHeaders):
        return _hide_headers(job)
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    job = moves.touched(job, env)
    match event:
        case ChangeOwner():
            return _change_owner(job, event, env)
        case SetHelperFlags(flags=flags):
            if flags == job.helper_flags:
                return Step(job=job)
            entry = entries.changed("helper token flags", f"set: helper token flags {int(flags)}")
            return replace(moves.restarted(replace(job, helper_flags=flags), env), entries=(entry,))
        case ChangeCredentials(implicit=implicit, explicit=explicit):
            changed = replace(job, implicit_credentials=implicit, explicit_credentials=explicit)
            return _restarted(job, changed, "credentials", env)
        case SetHeaders(sealed=sealed):
            return _restarted(job, replace(job, sealed_headers=sealed), "custom headers", env)
        case SetClientCertificate(certificate=certificate):
            return _restarted(job, replace(job, client_certificate=certificate), "client certificate", env)
        case SetNotifyCommand(command=command):
            entry = entries.command_set(job, command)
            return Step(job=replace(job, notify_command=command), entries=(entry,))
        case SetCertificateValidator(asks=asks):
            if job.state is not JobState.SUSPENDED:
                raise BitsError(
                    "BG_E_READ_ONLY_WHEN_JOB_ACTIVE",
                    f"the job is {job.state.name}: suspend it before it is said who checks servers' certificates",
                )
            return _restarted(job, replace(job, asks_about_certificates=asks), "certificate validation", env)
        case _:
            assert_never(event)


def _hide_headers(job: Job) -> Step:
    """H11: it always succeeds, whatever the job is doing; what is sent stays the same."""
    if job.headers_are_write_only:
        return Step(job=job)
    entry = entries.changed("custom headers", "set: custom headers are write-only")
    return Step(job=replace(job, headers_are_write_only=True), entries=(entry,))


def _restarted(before: Job, after: Job, what: str, env: Environment) -> Step:
    """A run that is under way begins again on the new terms; nothing happens where nothing has changed."""
    if after == before:
        return Step(job=after)
    entry = entries.changed(what)
    return replace(moves.restarted(after, env), entries=(entry,))


def _change_owner(job: Job, event: ChangeOwner, env: Environment) -> Step:
    files = {index: replace(job.part(index), temporary_name=name) for index, name in event.temporary_names}
    for index, file in enumerate(job.files):
        if file.sealed_userinfo:
            files[index] = replace(files.get(index, file), sealed_userinfo="")
    for index in event.lost:
        files[index] = replace(emptied(files.get(index, job.part(index))), transferred=False)
    if job.is_upload and event.lost and not job.upload_memory:
        # The server has forgotten the session, and with it the reply: only another upload brings another one.
        files[UPLOAD_INDEX] = replace(
            job.files[UPLOAD_INDEX], transferred=False, completed=False, bytes_transferred=0, bytes_total=None
        )
    entry = entries.owner_changed(job, event.owner)
    job = replace(
        moves.with_files(job, files),
        owner=event.owner,
        settings=replace(
            job.settings, use_netrc=False, use_stored_credentials="", notify_url="", notification_clsid=""
        ),
        notify_command=None,
        implicit_credentials=frozenset(),
        explicit_credentials=(),
        sealed_headers="",
        headers_are_write_only=False,
        client_certificate=None,
        helper_flags=HelperFlag.NONE,
    )
    step = _with_new_owner(job, env)
    return replace(step, changed_files=(*files, *step.changed_files), entries=(entry, *step.entries))


def _with_new_owner(job: Job, env: Environment) -> Step:
    if job.state is JobState.TRANSFERRED and job.has_work:
        # Something was lost on the way: it was finished for the former owner only.
        return moves.enter_queue(
            replace(job, transferred_at=None), Trigger.RESUME, env, "what could not be handed over is transferred again"
        )
    if job.state.is_active and not is_logged_on(job.owner, env):
        stop = moves.stopped(job)
        entry = Entry(kind="queued", text="its new owner is not logged on")
        return Step(job=moves.moved(job, Trigger.LOG_OFF, env), effects=stop, entries=(entry,))
    return moves.restarted(job, env)


def token_changed(job: Job, event: HelperTokenChanged | HelperTokenLost, env: Environment) -> Step | None:
    """The helper token is another one, or is gone; a job that does not use it does not care."""
    if job.state.is_final or not job.helper_flags:
        return None
    match event:
        case HelperTokenChanged():
            return moves.restarted(moves.touched(job, env), env)
        case HelperTokenLost(reason=reason):
            if job.state in _MEANS_NOTHING or next_state(job.state, Trigger.FAIL) is None:
                return None
            # Most often because somebody has logged off, and nothing of his is to go on running.
            return moves.failed(job, token_required(reason), env, patience_s=moves.LOG_OFF_PATIENCE_S)
        case _:
            assert_never(event)


def token_required(reason: str) -> Failure:
    """The failure of a job whose helper token is gone (I7)."""
    return Failure(
        name="BG_E_TOKEN_REQUIRED",
        context=ErrorContext.GENERAL_QUEUE_MANAGER,
        message=f"{reason}: set the helper token again, or set the helper token flags to 0, then resume the job",
        transient=False,
    )


def allows_implicit(slots: frozenset[CredentialSlot], target: str) -> bool:
    """Whether SetCredentials allowed the account's own credentials for a target (I10).

    Allowed for the proxy means allowed for the server as well.
    """
    targets = {slot.target for slot in slots if AuthScheme(slot.scheme) in IMPLICIT_SCHEMES}
    return target in targets or (target == "server" and "proxy" in targets)
