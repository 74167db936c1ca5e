"""How a job, a file, an event and an effect look as rows: whatever goes in comes out exactly as it was.

Local names are stored as the bytes that they are.  Other texts that quote names, or come from a
server, are stored as UTF-8 in which a lone surrogate is one more character, so that no text, however
odd, can make a commit fail.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from openbits.core.model import (
    AccountKind,
    ByteRange,
    ClientCertificate,
    Closing,
    CredentialSlot,
    Demand,
    File,
    HelperFlag,
    Identity,
    Job,
    JobError,
    JobState,
    JobType,
    Notice,
    NotifyCommand,
    Owner,
    Priority,
    SealedCredential,
    Settings,
    Validator,
)
from openbits.core.proxies import AccountProxy, AccountUsage
from openbits.errors import ErrorContext, error_code
from openbits.store.records import EventChoice, PendingEffect, StoredEvent

Row = tuple[Any, ...]

_SETTINGS: Final = tuple(field.name for field in dataclasses.fields(Settings))
_NO_VALIDATOR: Final = Validator()


class BadRow(Exception):
    """A row is not what this program writes; the text says which, and why."""


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


def _optional_blob(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _optional_text(blob: bytes | None) -> str | None:
    return None if blob is None else blob.decode("utf-8", "surrogatepass")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# --- jobs ------------------------------------------------------------------------------------


def job_row(seq: int, job: Job) -> Row:
    """Return the row of a job, without its files."""
    owner, identity, settings, error = job.owner, job.owner.identity, job.settings, job.error
    return (
        seq,
        job.id,
        int(job.type),
        int(job.state),
        identity.uid,
        identity.gid,
        _json(identity.groups),
        _blob(owner.name),
        owner.kind.value,
        owner.is_elevated,
        _json({name: getattr(settings, name) for name in _SETTINGS}),
        len(job.files),
        None if error is None else _json(dataclasses.asdict(error)),
        job.error_count,
        job.created_at,
        job.modified_at,
        job.transferred_at,
        job.ended_at,
        job.was_resumed,
        job.run,
        job.active_s,
        job.active_since,
        job.retry_at,
        job.no_progress_since,
        None if job.closing is None else job.closing.value,
        job.result,
        int(job.helper_flags),
        _json(sorted((slot.target, slot.scheme) for slot in job.implicit_credentials)),
        None if job.reply is None else _json(dataclasses.asdict(job.reply)),
        _blob(job.upload_memory),
        job.cancel_until,
        _json([(each.slot.target, each.slot.scheme, each.sealed) for each in job.explicit_credentials]),
        job.sealed_headers,
        job.headers_are_write_only,
        None if job.client_certificate is None else _json(dataclasses.asdict(job.client_certificate)),
        job.asks_about_certificates,
        None if job.notify_command is None else _json(dataclasses.asdict(job.notify_command)),
        None if job.owed_notice is None else job.owed_notice.value,
        None if job.owed_webhook is None else job.owed_webhook.value,
    )


def read_jobs(jobs: Iterable[Row], files: Mapping[int, tuple[File, ...]]) -> Iterator[tuple[int, Job]]:
    """Read jobs, each with the number of its row; `files` are those of each row. Raises BadRow."""
    owners: dict[Row, Owner] = {}
    for row in jobs:
        try:
            yield row[0], _read_job(row, files.get(row[0], ()), owners)
        except (ValueError, TypeError, KeyError) as error:
            raise BadRow(f"job {row[0]}: {error}") from error


def _read_job(row: Row, files: tuple[File, ...], owners: dict[Row, Owner]) -> Job:
    (
        _seq, job_id, job_type, state, uid, gid, groups, owner_name, owner_kind, owner_elevated, settings, file_count,
        error, error_count, created_at, modified_at, transferred_at, ended_at, was_resumed, run,
        active_s, active_since, retry_at, no_progress_since, closing, result, helper_flags, implicit_credentials,
        reply, upload_memory, cancel_until,
        explicit_credentials, sealed_headers, headers_are_write_only, client_certificate, asks_about_certificates,
        notify_command, owed_notice, owed_webhook,
    ) = row  # fmt: skip
    if file_count != len(files):
        raise ValueError(f"has {len(files)} files instead of {file_count}")
    # Ten thousand jobs have a handful of owners.
    key = row[4:10]
    owner = owners.get(key)
    if owner is None:
        owner = owners[key] = Owner(
            identity=Identity(uid=uid, gid=gid, groups=tuple(json.loads(groups))),
            name=_text(owner_name),
            kind=AccountKind(owner_kind),
            is_elevated=bool(owner_elevated),
        )
    return Job(
        id=job_id,
        type=JobType(job_type),
        owner=owner,
        settings=_read_settings(settings),
        state=JobState(state),
        files=files,
        error=None if error is None else _read_error(error),
        error_count=error_count,
        created_at=created_at,
        modified_at=modified_at,
        transferred_at=transferred_at,
        ended_at=ended_at,
        was_resumed=bool(was_resumed),
        run=run,
        active_s=active_s,
        active_since=active_since,
        retry_at=retry_at,
        no_progress_since=no_progress_since,
        closing=None if closing is None else Closing(closing),
        result=result,
        helper_flags=HelperFlag(helper_flags),
        implicit_credentials=frozenset(CredentialSlot(*slot) for slot in json.loads(implicit_credentials)),
        reply=None if reply is None else _read_reply(reply),
        upload_memory=_text(upload_memory),
        cancel_until=cancel_until,
        explicit_credentials=tuple(
            SealedCredential(slot=CredentialSlot(target, scheme), sealed=sealed)
            for target, scheme, sealed in json.loads(explicit_credentials)
        ),
        sealed_headers=sealed_headers,
        headers_are_write_only=bool(headers_are_write_only),
        client_certificate=None if client_certificate is None else ClientCertificate(**json.loads(client_certificate)),
        asks_about_certificates=bool(asks_about_certificates),
        notify_command=None if notify_command is None else _read_command(notify_command),
        owed_notice=None if owed_notice is None else Notice(owed_notice),
        owed_webhook=None if owed_webhook is None else Notice(owed_webhook),
    )


def _read_settings(text: str) -> Settings:
    values = json.loads(text)
    values["priority"] = Priority(values["priority"])
    return Settings(**values)


def _read_command(text: str) -> NotifyCommand:
    values = json.loads(text)
    return NotifyCommand(program=values["program"], arguments=tuple(values["arguments"]))


def _read_reply(text: str) -> File:
    values = json.loads(text)
    values["validator"] = Validator(**values["validator"])
    values["ranges"] = tuple(ByteRange(**each) for each in values["ranges"])
    values["demand"] = None
    return File(**values)


def _read_error(text: str) -> JobError:
    values = json.loads(text)
    values["context"] = ErrorContext(values["context"])
    error_code(values["name"])
    return JobError(**values)


# --- files -----------------------------------------------------------------------------------


def new_file_row(seq: int, index: int, file: File) -> Row:
    """Return the row of a new file of the job in row `seq`."""
    return (
        seq,
        index,
        _blob(file.remote_name),
        file.local_name.encode("utf-8", "surrogateescape"),
        file.temporary_name.encode("utf-8", "surrogateescape"),
        _json([(each.offset, each.length) for each in file.ranges]) if file.ranges else None,
        file.checksum,
        *_changing(file)[2:],
    )


def file_row(seq: int, index: int, file: File) -> Row:
    """Return what changes of a file, followed by where it stands."""
    return (*_changing(file), seq, index)


def _changing(file: File) -> Row:
    validator = file.validator
    return (
        _blob(file.remote_name),
        file.temporary_name.encode("utf-8", "surrogateescape"),
        file.bytes_total,
        file.bytes_transferred,
        _optional_blob(validator.etag),
        _optional_blob(validator.last_modified),
        validator.size,
        file.transferred,
        file.completed,
        file.validation,
        file.resumable,
        file.restarts,
        _blob(file.response_headers),
        file.sealed_userinfo,
        file.meant_for,
        None if file.demand is None else _demand(file.demand),
        file.was_announced,
    )


def read_files(rows: Iterable[Row]) -> dict[int, tuple[File, ...]]:
    """Return the files of each job's row; `rows` come by job and index. Raises BadRow."""
    files: dict[int, list[File]] = {}
    for row in rows:
        of_job = files.setdefault(row[0], [])
        if row[1] != len(of_job):
            raise BadRow(f"job {row[0]} lacks file {len(of_job)}")
        try:
            of_job.append(_read_file(row))
        except (ValueError, TypeError, KeyError) as error:
            raise BadRow(f"job {row[0]}, file {row[1]}: {error}") from error
    return {seq: tuple(of_job) for seq, of_job in files.items()}


def _read_file(row: Row) -> File:
    (
        _job, _idx, remote_name, local_name, temporary_name, ranges, checksum, bytes_total, bytes_transferred,
        etag, last_modified, size, transferred, completed, validation, resumable, restarts, response_headers,
        sealed_userinfo, meant_for, demand, was_announced,
    ) = row  # fmt: skip
    validator = _NO_VALIDATOR
    if etag is not None or last_modified is not None or size is not None:
        validator = Validator(etag=_optional_text(etag), last_modified=_optional_text(last_modified), size=size)
    return File(
        remote_name=_text(remote_name),
        local_name=local_name.decode("utf-8", "surrogateescape"),
        temporary_name=temporary_name.decode("utf-8", "surrogateescape"),
        ranges=() if ranges is None else tuple(ByteRange(offset, length) for offset, length in json.loads(ranges)),
        checksum=checksum,
        bytes_total=bytes_total,
        bytes_transferred=bytes_transferred,
        validator=validator,
        transferred=bool(transferred),
        completed=bool(completed),
        validation=None if validation is None else bool(validation),
        resumable=None if resumable is None else bool(resumable),
        restarts=restarts,
        response_headers=_text(response_headers),
        sealed_userinfo=sealed_userinfo,
        meant_for=meant_for,
        demand=None if demand is None else _read_demand(demand),
        was_announced=bool(was_announced),
    )


def _demand(demand: Demand) -> str:
    return _json(
        {
            "wanted": [(each.offset, each.length) for each in demand.wanted],
            "filled": [(each.offset, each.length) for each in demand.filled],
            "position": demand.position,
        }
    )


def _read_demand(text: str) -> Demand:
    values = json.loads(text)
    return Demand(
        wanted=tuple(ByteRange(offset, length) for offset, length in values["wanted"]),
        filled=tuple(ByteRange(offset, length) for offset, length in values["filled"]),
        position=values["position"],
    )


# --- proxy settings --------------------------------------------------------------------------


def proxies_row(account: str, settings: AccountProxy) -> Row:
    """Return the row of an account's proxy settings."""
    return account, _json(dataclasses.asdict(settings) | {"usage": settings.usage.value})


def read_proxies(rows: Iterable[Row]) -> dict[str, AccountProxy]:
    """Read the proxy settings of all accounts. Raises BadRow."""
    proxies = {}
    for account, settings in rows:
        try:
            values = json.loads(settings)
            proxies[str(account)] = AccountProxy(**values | {"usage": AccountUsage(values["usage"])})
        except (ValueError, TypeError, KeyError) as error:
            raise BadRow(f"proxy settings of {account}: {error}") from error
    return proxies


# --- settings of the machine -----------------------------------------------------------------


def machine_row(name: str, value: Any) -> Row:
    """Return the row of a setting of the machine."""
    return name, _json(value)


def read_machine_settings(rows: Iterable[Row]) -> dict[str, Any]:
    """Read the settings of the machine. Raises BadRow."""
    settings = {}
    for name, value in rows:
        try:
            settings[str(name)] = json.loads(value)
        except ValueError as error:
            raise BadRow(f"setting {name} of the machine: {error}") from error
    return settings


# --- events and effects ----------------------------------------------------------------------


def event_row(event: StoredEvent) -> Row:
    """Return the row of an event."""
    fields = _json(dict(event.fields))
    return event.id, event.time, event.kind, event.job_id, _blob(event.text), event.owner_uid, event.event_id, fields


def read_event(row: Row) -> StoredEvent:
    """Read an event."""
    row_id, time, kind, job_id, text, owner_uid, event_id, fields = row
    return StoredEvent(
        id=row_id,
        time=time,
        kind=kind,
        job_id=job_id,
        text=_text(text),
        owner_uid=owner_uid,
        event_id=event_id,
        fields=tuple(json.loads(fields).items()),
    )


def choice_values(choice: EventChoice) -> dict[str, Any]:
    """Return a choice of events as the values of its query."""
    return {
        "job_id": choice.job_id,
        "owner_uid": choice.owner_uid,
        "event_ids": None if choice.event_ids is None else _json(sorted(choice.event_ids)),
        "kinds": None if choice.kinds is None else _json(sorted(choice.kinds)),
        "since": choice.since,
        "until": choice.until,
    }


def effect_row(effect: PendingEffect) -> Row:
    """Return the row of an effect."""
    return effect.id, effect.job_id, effect.kind, _blob(effect.payload)


def read_effect(row: Row) -> PendingEffect:
    """Read an effect."""
    effect_id, job_id, kind, payload = row
    return PendingEffect(id=effect_id, job_id=job_id, kind=kind, payload=_text(payload))
