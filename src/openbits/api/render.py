"""Jobs, files and errors as the local API shows them. Secrets are hidden here, and nowhere later."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from openbits.api import service_wire, wire
from openbits.core import access
from openbits.core.eventlog import level_of
from openbits.core.model import (
    REPLY_INDEX,
    ByteRange,
    Caller,
    ClientCertificate,
    File,
    Job,
    JobError,
    JobState,
    JobType,
    NotifyCommand,
    Owner,
    Priority,
)
from openbits.core.names import public_url
from openbits.core.ownership import integrity_level
from openbits.errors import BitsError
from openbits.service.calls import Outcome
from openbits.service.manager import Manager
from openbits.service.records import EventRecord, ProgressReport
from openbits.service.uploads import ReplyTooLarge

_TYPES: dict[JobType, wire.JobTypeName] = {
    JobType.DOWNLOAD: "download",
    JobType.UPLOAD: "upload",
    JobType.UPLOAD_REPLY: "upload-reply",
}
TYPES_BY_NAME = {name: job_type for job_type, name in _TYPES.items()}
_PRIORITIES: dict[Priority, wire.PriorityName] = {
    Priority.FOREGROUND: "foreground",
    Priority.HIGH: "high",
    Priority.NORMAL: "normal",
    Priority.LOW: "low",
}
_STATES: dict[JobState, wire.StateName] = {
    JobState.QUEUED: "QUEUED",
    JobState.CONNECTING: "CONNECTING",
    JobState.TRANSFERRING: "TRANSFERRING",
    JobState.SUSPENDED: "SUSPENDED",
    JobState.ERROR: "ERROR",
    JobState.TRANSIENT_ERROR: "TRANSIENT_ERROR",
    JobState.TRANSFERRED: "TRANSFERRED",
    JobState.ACKNOWLEDGED: "ACKNOWLEDGED",
    JobState.CANCELLED: "CANCELLED",
}
_ERROR_STATES = frozenset({JobState.ERROR, JobState.TRANSIENT_ERROR, JobState.QUEUED, JobState.CONNECTING})


def to_json(document: Any) -> bytes:
    """Render an answer; names that are no valid Unicode keep their bytes as lone surrogates."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(document), separators=(",", ":")).encode("ascii")


def iso_time(seconds: float) -> str:
    """ISO 8601, UTC, to the millisecond."""
    moment = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _iso_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso_time(seconds)


def error_of(job: Job) -> JobError | None:
    """The error that GetError gives in the job's state (J12)."""
    return job.error if job.state in _ERROR_STATES else None


def error_out(job: Job, error: JobError) -> wire.ErrorOut:
    """Render a job's error."""
    file = None
    if error.file_index is not None and error.file_index < job.part_count:
        file = job.part(error.file_index)
    # Of a reply only the message knows the address: it is the server's to choose, anew for each session.
    remote = file.remote_name if file is not None else ""
    return wire.ErrorOut(
        code=error.name,
        hresult=error.code.hresult,
        context=error.context.name,
        context_code=int(error.context),
        message=error.message,
        protocol=error.protocol,
        file=None if file is job.reply else error.file_index,
        remote_name=public_url(remote) if remote else None,
        local_name=file.local_name if file else None,
    )


def job_out(manager: Manager, job: Job) -> wire.JobOut:
    """Render a job for a list."""
    return wire.JobOut(**_job_fields(manager, job))


def _job_fields(manager: Manager, job: Job) -> dict[str, Any]:
    error = error_of(job)
    settings = job.settings
    return {
        "id": job.id,
        "name": settings.name,
        "type": _TYPES[job.type],
        "state": _STATES[job.state],
        "owner": _owner_out(job.owner),
        "priority": _PRIORITIES[settings.priority],
        "description": settings.description,
        "bytes_total": job.bytes_total,
        "bytes_transferred": manager.received_bytes(job),
        "files_total": len(job.files),
        "files_transferred": job.files_transferred,
        "error": error_out(job, error) if error else None,
        "error_count": job.error_count,
        "creation_time": iso_time(job.created_at),
        "modification_time": iso_time(job.modified_at),
        "transfer_completion_time": _iso_or_none(job.transferred_at),
        "retry_time": _iso_or_none(job.retry_at),
        "result": job.result or None,
        "reply": None if job.reply is None else file_out(manager, job, REPLY_INDEX),
    }


def _owner_out(owner: Owner) -> wire.OwnerOut:
    return wire.OwnerOut(uid=owner.identity.uid, name=owner.name, kind=owner.kind.value)


def job_detail(
    manager: Manager, job: Job, caller: Caller, *, headers: str | None, has_validator: bool, has_listener: bool
) -> wire.JobDetail:
    """Render a job with its properties; custom headers are for the owner's eyes only (A2), if for anybody's."""
    credentials = certificate = None
    if access.owns(caller, job.owner):
        certificate = certificate_out(job.client_certificate) if job.client_certificate is not None else None
        slots = [(slot, True) for slot in job.implicit_credentials]
        slots += [(each.slot, False) for each in job.explicit_credentials]
        credentials = [
            wire.CredentialOut(target=slot.target, scheme=slot.scheme, implicit=implicit)
            for slot, implicit in sorted(slots)
        ]
    settings = job.settings
    shown = wire.SettingsOut(
        name=settings.name,
        description=settings.description,
        priority=_PRIORITIES[settings.priority],
        minimum_retry_delay=settings.minimum_retry_delay,
        no_progress_timeout=settings.no_progress_timeout,
        maximum_download_time=settings.maximum_download_time,
        notify_flags=settings.notify_flags,
        cost_flags=settings.cost_flags,
        notification_clsid=settings.notification_clsid,
        dynamic_content=settings.dynamic_content,
        high_performance=settings.high_performance,
        max_download_size=settings.max_download_size,
        strict_http=settings.strict_http,
        file_concurrency=settings.file_concurrency,
        stall_timeout=settings.stall_timeout,
        umask=settings.umask,
        custom_headers=headers,
        proxy_usage=settings.proxy_usage,
        proxy_list=settings.proxy_list or None,
        proxy_bypass_list=settings.proxy_bypass_list or None,
        upload_protocol=settings.upload_protocol,
        use_netrc=settings.use_netrc,
        security_flags=settings.security_flags,
        http_method=settings.http_method,
        use_stored_credentials=settings.use_stored_credentials or None,
        acl_flags=settings.acl_flags,
        peer_caching_flags=settings.peer_caching_flags,
        minimum_notification_interval_ms=settings.minimum_notification_interval_ms,
        on_demand_mode=settings.on_demand_mode,
        notify_url=settings.notify_url or None,
    )
    helper = manager.helper_of(job)
    return wire.JobDetail(
        **_job_fields(manager, job),
        settings=shown,
        owner_integrity_level=integrity_level(job.owner),
        owner_is_elevated=job.owner.is_elevated,
        credentials=credentials,
        headers_are_write_only=job.headers_are_write_only,
        helper_token_flags=int(job.helper_flags),
        helper_token=_owner_out(helper) if helper is not None else None,
        client_certificate=certificate,
        validates_certificates=job.asks_about_certificates,
        has_certificate_validator=has_validator,
        notify_command=command_out(job.notify_command) if job.notify_command is not None else None,
        has_notify_interface=has_listener,
        owed_notice=None if job.owed_notice is None else job.owed_notice.value,
        owed_webhook=None if job.owed_webhook is None else job.owed_webhook.value,
        proxy_in_use=manager.way(job) or None,
    )


def command_out(command: NotifyCommand) -> wire.NotifyCommandOut:
    """Render a notification command line."""
    return wire.NotifyCommandOut(program=command.program, arguments=list(command.arguments))


def certificate_out(certificate: ClientCertificate) -> wire.ClientCertificateOut:
    """Render which client certificate a job presents."""
    location: Any = certificate.location
    return wire.ClientCertificateOut(
        location=location,
        store=certificate.store,
        sha1=certificate.sha1 or None,
        subject=certificate.subject or None,
    )


def file_out(manager: Manager, job: Job, index: int) -> wire.FileOut:
    """Render a file, or the reply."""
    file: File = job.part(index)
    return wire.FileOut(
        index=index,
        remote_name=public_url(file.remote_name),
        local_name=file.local_name,
        temporary_name=file.temporary_name,
        bytes_total=file.bytes_total,
        bytes_transferred=manager.file_received_bytes(job, index),
        completed=file.completed,
        transferred=file.transferred,
        ranges=_ranges(file.ranges),
        checksum=file.checksum,
        validation_state=file.validation,
        resumable=file.resumable,
        restarts=file.restarts,
        response_headers=file.response_headers,
        wanted_ranges=_ranges(file.demand.wanted) if file.demand is not None else [],
        filled_ranges=_ranges(file.demand.filled) if file.demand is not None else [],
    )


def _ranges(ranges: Iterable[ByteRange]) -> list[wire.RangeOut]:
    return [wire.RangeOut(offset=item.offset, length=item.length) for item in ranges]


def reply_out(manager: Manager, job: Job) -> wire.ReplyOut:
    """Render what is known of a reply."""
    reply = job.reply
    if reply is None:
        return wire.ReplyOut(file_name=None, bytes_total=None, bytes_transferred=0)
    return wire.ReplyOut(
        file_name=reply.local_name,
        bytes_total=reply.bytes_total,
        bytes_transferred=manager.file_received_bytes(job, REPLY_INDEX),
    )


def verb_result(manager: Manager, outcome: Outcome) -> wire.VerbResult:
    """Render how a call ended."""
    code = BitsError(outcome.result).code
    return wire.VerbResult(result=code.name, hresult=code.hresult, job=job_out(manager, outcome.job))


def event_out(manager: Manager, record: EventRecord) -> wire.EventOut:
    """Render an event of the stream."""
    return wire.EventOut(
        id=record.id,
        time=iso_time(record.time),
        kind=record.kind,
        job_id=record.job_id,
        text=record.text,
        event_id=record.event_id,
        level=level_of(record.event_id, record.kind).value,
        fields=dict(record.fields),
        job=job_out(manager, record.job) if record.job is not None else None,
    )


def progress_out(report: ProgressReport) -> wire.ProgressOut:
    """Render a progress report."""
    return wire.ProgressOut(
        job_id=report.job_id,
        bytes_transferred=report.bytes_transferred,
        bytes_total=report.bytes_total,
        files_transferred=report.files_transferred,
        files_total=report.files_total,
    )


def problem(error: BitsError, status: int | None = None) -> service_wire.Problem:
    """Render an error as RFC 9457 has it."""
    code = error.code
    return service_wire.Problem(
        type="about:blank",
        title=code.text,
        status=code.http_status if status is None else status,
        detail=error.message,
        code=code.name,
        hresult=code.hresult,
        exit_code=int(code.exit_code),
        reply_bytes=error.size_bytes if isinstance(error, ReplyTooLarge) else msgspec.UNSET,
    )
