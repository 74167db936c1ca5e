"""A run in the words of the frames: what a worker is told of a job, and what its reports mean to the core.

Pure: values in, values out.  What a worker says may have been dictated by a hostile server, so `can_be` asks whether it
is possible at all, and what is too long to be kept is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from openbits.core.events import Failure, FileAnswered
from openbits.core.model import (
    REPLY_INDEX,
    UPLOAD_INDEX,
    ByteRange,
    ClientCertificate,
    Demand,
    File,
    Job,
    JobType,
    Priority,
    Validator,
)
from openbits.core.names import check_remote_name, split_userinfo
from openbits.core.pieces import BEYOND, end_of
from openbits.core.redirects import HTTPS_TO_HTTP, RedirectPolicy, policy_of
from openbits.core.settings import REDIRECT_MASK
from openbits.errors import BitsError, ErrorContext
from openbits.frames.codec import units
from openbits.frames.network import CertificateSpec, TlsSpec
from openbits.frames.worker import (
    FileRedirected,
    FileSpec,
    FileStarted,
    RangesFilled,
    RangeSpec,
    StartTransfer,
    TransferEnded,
    UploadFile,
    UploadMoved,
)
from openbits.service.configuration import Configuration
from openbits.service.terms import NetworkTerms

LONGEST_VALIDATOR: Final = 1024
"""A longer entity tag or date is not worth keeping: the file and its names must fit into one frame."""
LONGEST_MEMORY: Final = 16_384
"""Of a session no more is written down: twice what a worker that keeps to its rules has to say."""
UNJUDGED: Final = "BG_E_SERVER_CERT_VALIDATION_INTERFACE_REQUIRED"
"""A program is missing (4.6): it comes when somebody starts it, and then resumes the job, so that waiting is no use."""
_BITS_CONTEXTS: Final = frozenset(int(context) for context in ErrorContext)


def start_of(
    number: int, job: Job, terms: NetworkTerms, limits: Configuration, *, takes_handles: bool
) -> StartTransfer:
    """What a worker is told of a run before its files."""
    settings = job.settings
    certificate = job.client_certificate
    headroom = settings.max_download_size
    if headroom is not None:
        headroom = max(0, headroom - job.bytes_transferred)
    return StartTransfer(
        transfer=number,
        foreground=settings.priority is Priority.FOREGROUND,
        file_concurrency=settings.file_concurrency,
        umask=settings.umask,
        stall_timeout_s=settings.stall_timeout,
        connect_timeout_s=limits.timeouts.connect_s,
        break_patience_s=float(limits.timeouts.break_patience_s),
        checkpoint_bytes=limits.worker.checkpoint_bytes,
        checkpoint_s=float(limits.worker.checkpoint_s),
        strict_http=settings.strict_http,
        dynamic_content=settings.dynamic_content,
        high_performance=settings.high_performance,
        max_download_bytes=headroom,
        custom_headers=terms.headers,
        proxy=terms.proxy,
        implicit=terms.implicit,
        uses_netrc=terms.uses_netrc,
        tls=TlsSpec(
            security_flags=settings.security_flags & ~REDIRECT_MASK,
            certificate=None if certificate is None else certificate_spec(certificate),
            asks=job.asks_about_certificates,
        ),
        redirects=settings.security_flags & REDIRECT_MASK,
        http_method=settings.http_method,
        acl_flags=settings.acl_flags,
        takes_handles=takes_handles,
    )


def certificate_spec(certificate: ClientCertificate) -> CertificateSpec:
    """What a worker is told of a client certificate."""
    return CertificateSpec(**dataclasses.asdict(certificate))


def spec_of(index: int, file: File, userinfo: str = "") -> FileSpec:
    """What a worker is told of a file; `userinfo` is what its remote name came with, in clear."""
    return FileSpec(
        index=index,
        remote_name=file.remote_name,
        local_name=file.local_name,
        temporary_name=file.temporary_name,
        ranges=range_specs(file.ranges),
        checksum=file.checksum or "",
        durable_bytes=file.bytes_transferred,
        size=file.validator.size,
        etag=file.validator.etag,
        last_modified=file.validator.last_modified,
        meant_for=file.meant_for,
        userinfo=userinfo,
    )


def demanded_spec_of(index: int, file: File, userinfo: str = "") -> FileSpec:
    """What a worker is told of a file of which pieces are asked for (J67)."""
    demand = file.demand or Demand()
    return dataclasses.replace(
        spec_of(index, file, userinfo),
        on_demand=True,
        # So long the file must be if it is the one that was left.
        durable_bytes=end_of(demand.filled),
        wanted=range_specs(demand.wanted),
        filled=range_specs(demand.filled),
        position=demand.position,
    )


def range_specs(ranges: Iterable[ByteRange]) -> tuple[RangeSpec, ...]:
    """Ranges in the words of the frames."""
    return tuple(RangeSpec(offset=piece.offset, length=piece.length) for piece in ranges)


def can_be_filled(message: RangesFilled, job: Job) -> bool:
    """Whether these ranges can be here, for a job that asks for pieces."""
    return (
        job.settings.on_demand_mode
        and message.index in range(len(job.files))
        and all(piece.offset >= 0 < piece.length and piece.offset + piece.length < BEYOND for piece in message.ranges)
    )


def upload_of(number: int, job: Job, terms: NetworkTerms, *, only_cancels: bool = False) -> UploadFile:
    """What a worker is told of an upload."""
    reply = job.reply if job.reply is not None and not job.reply.transferred else None
    return UploadFile(
        transfer=number,
        file=spec_of(UPLOAD_INDEX, job.files[UPLOAD_INDEX], terms.userinfo_of(UPLOAD_INDEX)),
        protocol=job.settings.upload_protocol,
        memory=job.upload_memory,
        wants_reply=job.type is JobType.UPLOAD_REPLY,
        reply=None if reply is None else spec_of(REPLY_INDEX, reply),
        only_cancels=only_cancels,
    )


def room(spec: FileSpec) -> int:
    """How much room a file takes in a frame, in `units`."""
    texts = (
        spec.remote_name,
        spec.local_name,
        spec.temporary_name,
        spec.etag or "",
        spec.last_modified or "",
        spec.meant_for,
        spec.userinfo,
    )
    return sum(map(units, texts)) + len(spec.checksum) + 12 * (len(spec.ranges) + len(spec.wanted) + len(spec.filled))


def can_have_moved(moved: UploadMoved, job: Job) -> bool:
    """Whether what a worker says of a session is possible for this job."""
    # How large the source is may be on its way to the disk still: the core looks at that.
    return job.is_upload and bool(job.files) and moved.acknowledged_bytes >= 0 and units(moved.memory) <= LONGEST_MEMORY


def can_be(started: FileStarted, known: range) -> bool:
    """Whether an answer is possible for a job with these files."""
    sizes = (started.bytes_total or 0, started.size or 0, started.offset)
    return started.index in known and min(sizes) >= 0


def leads_elsewhere(message: FileRedirected, job: Job) -> bool:
    """Whether a redirect is possible for this job: of a file that it fetches, to a name that it could have."""
    if job.is_upload or message.index not in range(len(job.files)) or message.remote_name[:5].lower() == "file:":
        return False
    try:
        check_remote_name(message.remote_name)
    except BitsError:
        return False
    return split_userinfo(message.remote_name) == (message.remote_name, "")


def is_reported(message: FileRedirected, job: Job) -> bool:
    """Whether the job is to remember where a redirect led (H7): its policy may be another one by now."""
    flags = job.settings.security_flags
    if policy_of(flags) is RedirectPolicy.FOLLOW:
        return False
    is_from_https = job.files[message.index].remote_name[:6].lower() == "https:"
    is_to_http = message.remote_name[:5].lower() == "http:"
    return not (is_from_https and is_to_http) or bool(flags & HTTPS_TO_HTTP)


def answered(run: int, message: FileStarted) -> FileAnswered:
    """The event of an answer."""
    return FileAnswered(
        run=run,
        index=message.index,
        bytes_total=message.bytes_total,
        validator=Validator(etag=_short(message.etag), last_modified=_short(message.last_modified), size=message.size),
        offset=message.offset,
        restarted=message.restarted,
        resumable=message.resumable,
        response_headers=message.response_headers,
    )


def failure_of(message: TransferEnded) -> Failure | None:
    """Why a run ended, if it failed."""
    if not message.error:
        return None
    return Failure(
        name=message.error,
        context=ErrorContext(message.context) if message.context in _BITS_CONTEXTS else ErrorContext.UNKNOWN,
        message=message.message,
        transient=message.transient and message.error != UNJUDGED,
        index=message.index,
        retry_after_s=message.retry_after_s,
        retry_within_s=message.retry_within_s,
    )


def _short(validator: str | None) -> str | None:
    return validator if validator is not None and units(validator) <= LONGEST_VALIDATOR else None
