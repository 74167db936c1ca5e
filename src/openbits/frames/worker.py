"""What service and worker say to each other.

A *transfer* is one run of one job.  The service opens it with StartTransfer, hands over the files
in TransferFiles frames (the last one says so), or one UploadFile, and may end it with StopTransfer.  The worker reports
what is durable, and ends every transfer with exactly one TransferEnded.  *Operations* have a
module of their own.

A descriptor travels with the frames of CARRIERS, exactly one with each, and with no other frame; with FileHandle
and FileOpened only if they report no error.

Codes are names of the error table; an empty code means success.  Local names travel with
`surrogateescape`.  Sizes are bytes, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from openbits.frames import operations
from openbits.frames.network import ImplicitSpec, ProxySpec, TlsSpec

SERVICE_TO_WORKER: Final = operations.SERVICE_TO_WORKER
WORKER_TO_SERVICE: Final = operations.WORKER_TO_SERVICE
"""With the frames of this module they know all that service and worker say."""

HANDLES_AHEAD: Final = 8
"""How many files beyond those on the way a transfer asks handles for, so that it need not wait for each."""


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSpec:
    """A byte range; a length of -1 reaches to the end of the file."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpec:
    """One file to fetch, and how far an earlier run came."""

    index: int
    remote_name: str
    local_name: str
    temporary_name: str
    ranges: tuple[RangeSpec, ...] = ()
    checksum: str = ""
    durable_bytes: int = 0
    """Bytes at the start of the temporary file that are known to be on the disk."""
    size: int | None = None
    """Size of the whole remote file as an earlier run saw it."""
    etag: str | None = None
    last_modified: str | None = None
    meant_for: str = ""
    """The server that the job's secrets are for, such as https://example.org; empty: the one of the remote name."""
    userinfo: str = field(default="", repr=False)
    """`name:password`, percent-encoded, as the owner wrote it into the URL; for that server only. Empty without."""
    on_demand: bool = False
    """Only `wanted` is fetched, each piece to its own place in the temporary file, beside what is `filled` (J67)."""
    wanted: tuple[RangeSpec, ...] = ()
    filled: tuple[RangeSpec, ...] = ()
    position: int | None = None
    """What is wanted from here on comes first (F11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneFile:
    """One file that is whole, verified and durable in its temporary file."""

    index: int
    size: int


# --- service to worker -----------------------------------------------------------------------


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class StartTransfer:
    """Begin a run of a job."""

    transfer: int
    foreground: bool
    file_concurrency: int
    umask: int
    stall_timeout_s: int
    connect_timeout_s: int
    break_patience_s: float
    """How long a broken connection is taken up again without progress before the transfer fails."""
    checkpoint_bytes: int
    checkpoint_s: float
    strict_http: bool
    dynamic_content: bool
    high_performance: bool
    max_download_bytes: int | None
    """How much more the job may fetch in this run."""
    custom_headers: str = field(repr=False)
    proxy: ProxySpec = field(default_factory=ProxySpec)
    implicit: ImplicitSpec = field(default_factory=ImplicitSpec)
    uses_netrc: bool = False
    """Whether ~/.netrc of the worker's account may answer servers that ask who we are."""
    tls: TlsSpec = field(default_factory=TlsSpec)
    redirects: int = 0
    """H7: the bits of the mask 0x0F00."""
    http_method: str = ""
    """H10: with which method files are fetched; empty: GET. Uploads have methods of their own."""
    is_paced: bool = False
    """Whether what is received or sent has to be leased (LeaseWanted): a bandwidth limit is in force."""
    window_bytes: int = 0
    """How much room the connections of a paced transfer have for what comes unasked; 0: as much as they like."""
    acl_flags: int = 0
    """J42: what of a file:// source is kept: 1 owner, 2 group, 4 access control list, 8 extended attributes."""
    takes_handles: bool = False
    """The temporary files are another identity's: each is asked for with FileWanted and comes as a FileHandle."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TakeCredential:
    """A user name and a password of a transfer (J35), between StartTransfer and what is to be transferred.

    A password that is too long for one frame comes in parts; `last` says that there are no more of them.
    """

    transfer: int
    target: str
    """A value of `core.model.AuthTarget`."""
    scheme: str
    """A value of `core.model.AuthScheme`."""
    user_name: str = field(repr=False)
    password: str = field(repr=False)
    last: bool = True


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateJudged:
    """What the program said of the certificate of the CertificateSeen with this number; an empty error accepts it."""

    transfer: int
    number: int
    error: str = ""
    message: str = ""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class BecomeEvaluator:
    """Be no worker but an evaluator of PAC scripts for whoever holds the other end of the socket that travels along.

    The first and last frame that such a process gets: it gives up everything else, and ends with the socket.
    """


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """The answer to EvaluatorWanted: a socket to an evaluator travels along, unless there is an error."""

    transfer: int
    error: str = ""
    message: str = ""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFiles:
    """Files of a transfer, in the order in which they are to be fetched."""

    transfer: int
    files: tuple[FileSpec, ...]
    last: bool


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFile:
    """What a transfer of an upload job sends, instead of TransferFiles.

    Of `file`, `local_name` is the source, `size` and `last_modified` (nanoseconds since the epoch, as decimal digits)
    are what an earlier run saw of it, None when none has, and `durable_bytes` is how much the server has acknowledged.
    """

    transfer: int
    file: FileSpec
    protocol: str
    """`auto`, `bits`, `tus`, `ietf` or `put`."""
    memory: str
    """What the last UploadMoved of an earlier run said; empty without a session."""
    wants_reply: bool = False
    """Whether the server's reply belongs to the job (UPLOAD_REPLY)."""
    reply: FileSpec | None = None
    """Where the reply goes, as far as it is not here yet; its remote name comes from the server."""
    only_cancels: bool = False
    """The job is cancelled: no source is needed, only the session is ended at the server."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class UploadKept:
    """What the UploadMoved with this number said is on the disk."""

    transfer: int
    number: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class SetPace:
    """From now on a transfer has to lease what it receives or sends, or need not any more."""

    transfer: int
    is_paced: bool
    window_bytes: int = 0
    """See StartTransfer."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The answer to LeaseWanted, as soon as there is something to lend: all that was asked for, or a part of it."""

    transfer: int
    granted_bytes: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WantRanges:
    """F11, F12: what is wanted of a file of a transfer that is under way, from now on, and from where on first."""

    transfer: int
    index: int
    wanted: tuple[RangeSpec, ...]
    position: int | None = None


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class StopTransfer:
    """End a run: make durable what was received, report it, then TransferEnded."""

    transfer: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileHandle:
    """The file that FileWanted asked for; a descriptor travels along, open for reading and writing.

    For what an upload sends it is open for reading only.
    """

    transfer: int
    index: int
    kept: bool = False
    """Whether it holds what the earlier run left (`durable_bytes`); otherwise it is empty."""
    error: str = ""
    message: str = ""
    transient: bool = False


# --- worker to service -----------------------------------------------------------------------


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """The worker runs, as the kernel tells it about itself."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileStarted:
    """The server has answered for a file: what it says of it, and where the transfer goes on."""

    transfer: int
    index: int
    bytes_total: int | None
    """Bytes that will stand in the local file: the whole file, or the sum of the ranges."""
    size: int | None
    """Size of the whole remote file."""
    etag: str | None
    last_modified: str | None
    offset: int
    """Bytes of the temporary file that are kept; 0 when the file starts from the beginning."""
    restarted: str = ""
    """Why bytes of an earlier run were dropped, as a sentence; empty when none were."""
    resumable: bool = True
    response_headers: str = ""
    """The last response's header block, at most 16 KiB."""


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FilesStarted:
    """Several FileStarted of one transfer in one packet, in order: small files come by the thousand."""

    transfer: int
    files: tuple[FileStarted, ...]


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileReceived:
    """How many bytes of a file have come in; for people to see, not for the store."""

    transfer: int
    index: int
    received_bytes: int


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileDurable:
    """A checkpoint: so many bytes at the start of the temporary file would survive a power cut."""

    transfer: int
    index: int
    durable_bytes: int


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FilesDone:
    """These files are whole and durable."""

    transfer: int
    files: tuple[DoneFile, ...]


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMoved:
    """How far the server has the file, and what a later run must know of the session."""

    transfer: int
    number: int
    """Counts from 1 in each transfer."""
    memory: str
    """At most `upload.conversation.MEMORY_LIMIT` characters; empty when there is no session any more."""
    acknowledged_bytes: int
    is_awaited: bool = False
    """Whether the worker waits for UploadKept before it goes on."""


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWanted:
    """A paced transfer owes so many bytes, or wants some ahead; answered by Lease, and not repeated before that.

    But once more when the transfer ends, instead of what it asked for last: what it still owes then, or, as a negative
    number, what it gives back.
    """

    transfer: int
    wanted_bytes: int


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class RangesFilled:
    """These ranges of a file that is fetched on demand are durable now, beside those that were."""

    transfer: int
    index: int
    ranges: tuple[RangeSpec, ...]


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBroken:
    """A connection broke and is being taken up again; for `bits why`."""

    transfer: int
    index: int
    message: str


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyChosen:
    """By which proxy the requests go from now on, or by none, and whose settings say so; for `bits show` and `why`."""

    transfer: int
    way: str


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileRedirected:
    """A redirect of the file was followed, or refused, that the job is to remember (H7): this is its remote name."""

    transfer: int
    index: int
    remote_name: str


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class LastHeaders:
    """The header block of the last answer for the file (F10), where that is not the one of its FileStarted."""

    transfer: int
    index: int
    response_headers: str


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSeen:
    """A server has shown this certificate, which is in order; a program is to say whether it will do (4.6)."""

    transfer: int
    index: int
    number: int
    """Counts from 1 in each transfer."""
    server: str
    """`host:port`"""
    chain: tuple[str, ...]
    """The server's certificate and those that it sent along, each DER in base64."""


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorWanted:
    """A PAC script is to be evaluated: by a process that has nothing of the account's."""

    transfer: int


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEnded:
    """The run is over: nothing of it is open any more. An empty error means done, or stopped as asked."""

    transfer: int
    error: str = ""
    context: int = 0
    message: str = ""
    index: int | None = None
    transient: bool = False
    retry_after_s: int | None = None
    """What the server asked for (Retry-After)."""
    retry_within_s: int | None = None
    """By when the next attempt would find things changed: it need not wait for its retry delay."""


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileWanted:
    """A transfer that takes handles needs this file's."""

    transfer: int
    index: int


CARRIERS: Final = frozenset(
    {
        FileHandle,
        operations.FileOpened,
        operations.AdoptFile,
        operations.TakeTickets,
        operations.TicketsObtained,
        BecomeEvaluator,
        Evaluator,
    }
)
"""Frames with which a descriptor may travel."""
