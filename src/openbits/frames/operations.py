"""Operations: pieces of work on files, and notices, that a worker does for the service beside transfers.

The service sends one or more frames with the same number, the worker answers with one or more result frames, the last
of which says so.  Whoever speaks with a worker imports the codecs from `frames.worker`, which knows all of its frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from openbits.frames.codec import Codec
from openbits.frames.network import CertificateSpec, ProxySpec, TlsSpec

SERVICE_TO_WORKER: Final = Codec()
WORKER_TO_SERVICE: Final = Codec()


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameSpec:
    """Give a finished temporary file its final name."""

    index: int
    temporary_name: str
    local_name: str
    size: int | None = None
    """Where the temporary file is gone, only a file of this size is taken for the renamed one."""
    modified_epoch_s: int | None = None
    """The date to give it (D9), where the worker that fetched it was another account's and could not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """How an operation went for one file; `message` is a sentence when it failed."""

    index: int
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPoint:
    """A place on the way of the path with this position: of a link, or its end. Itself without links."""

    index: int
    path: str


# --- service to worker -----------------------------------------------------------------------


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand:
    """Run a notification command line (N10) with this account's rights; the answer is NoticeEnded.

    Not for a worker, which may run nothing: for a process that was started for this alone, and gets no second frame.
    It stays when it has answered, until all that its program has started is gone, at the limit at the latest.
    """

    operation: int
    program: str
    arguments: tuple[str, ...]
    """The whole argument vector."""
    limit_s: float
    """It is killed after so long."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CallBusName:
    """Call the notification interface of a D-Bus name (J61), which starts its program; the answer is NoticeEnded."""

    operation: int
    name: str
    method: str
    job_id: str
    arguments: tuple[str, ...]
    """What the method is told beside the job's id, as strings."""
    limit_s: float
    on_system_bus: bool = False
    """Where service accounts have their programs; people have theirs on the bus of their session."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class PostNotice:
    """POST a JSON text to a URL with this account's rights; the answer is NoticeEnded.

    It proves nothing of the account's: the certificate of `tls` is not shown.
    """

    operation: int
    url: str
    body: str
    limit_s: float
    proxy: ProxySpec = field(default_factory=ProxySpec)
    tls: TlsSpec = field(default_factory=TlsSpec)
    transfer: int = 0
    """Under which number an evaluator is asked for where a PAC script decides (EvaluatorWanted); 0: there is none."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDirectories:
    """May the owner create files in these directories (full paths)? `index` of a result is the position."""

    operation: int
    paths: tuple[str, ...]


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WalkPaths:
    """Where do these paths lead? Answered by PathsWalked."""

    operation: int
    paths: tuple[str, ...]


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class RenameFiles:
    """Put finished files under their names, durably; a file that already is there counts as done."""

    operation: int
    files: tuple[RenameSpec, ...]
    last: bool


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFiles:
    """Delete temporary files (full paths); a file that does not exist counts as done."""

    operation: int
    paths: tuple[str, ...]
    last: bool


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """Open or make a temporary file for a worker of another identity; the answer is FileOpened."""

    operation: int
    temporary_name: str
    durable_bytes: int
    umask: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenForReading:
    """Open a temporary file that is to change hands; the answer is FileOpened."""

    operation: int
    temporary_name: str
    least_bytes: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSources:
    """May the owner read these files (full paths), and are they files? `index` of a result is the position."""

    operation: int
    paths: tuple[str, ...]


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FindCertificate:
    """Is this client certificate, with its key, in its store, and may the owner use it (H1, H2)?"""

    operation: int
    certificate: CertificateSpec


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSource:
    """Open what is to be uploaded, for reading, for a worker of another identity; the answer is FileOpened."""

    operation: int
    path: str


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFile:
    """Copy a file of the account into memory for its owner to be shown; the answer is FileOpened.

    What travels along is an anonymous file that cannot change any more. BG_E_TOO_LARGE beyond `most_bytes`.
    """

    operation: int
    path: str
    most_bytes: int


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptFile:
    """Make a temporary file with the first `length` bytes of the descriptor that travels along."""

    operation: int
    temporary_name: str
    length: int
    umask: int
    is_synced: bool = True
    """Whether it is durable when this is answered; many small files are made so together, by SyncDirectories."""


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class SyncDirectories:
    """Make durable what was adopted in these directories (full paths); the file systems they are on are synced."""

    operation: int
    paths: tuple[str, ...]


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ObtainTickets:
    """Get a ticket for the computer by its keytab (a full path); the answer is TicketsObtained.

    An empty principal stands for the first host principal of the keytab.
    """

    operation: int
    keytab: str
    principal: str


@SERVICE_TO_WORKER.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TakeTickets:
    """Use the credential cache that travels along (an anonymous file) as this account's."""

    principal: str


# --- worker to service -----------------------------------------------------------------------


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeEnded:
    """How RunCommand, CallBusName or PostNotice went; an empty error means that it was acknowledged."""

    operation: int
    error: str = ""
    message: str = ""
    status: int | None = None
    """A program's exit status (negative: the signal that ended it), or a server's HTTP status."""


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class OperationResults:
    """Results of an operation; files that succeeded need not be listed."""

    operation: int
    results: tuple[FileResult, ...]
    last: bool


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class PathsWalked:
    """Points of the paths of a WalkPaths, in order."""

    operation: int
    points: tuple[PathPoint, ...]
    last: bool


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class FileOpened:
    """The answer to OpenFile, OpenForReading, OpenSource and CopyFile; without an error a descriptor travels along."""

    operation: int
    kept: bool = False
    error: str = ""
    message: str = ""
    transient: bool = False


@WORKER_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class TicketsObtained:
    """The answer to ObtainTickets; an anonymous file with a credential cache travels along when there is no error."""

    operation: int
    principal: str = ""
    expires_s: int = 0
    """How long the ticket is good for, from now."""
    error: str = ""
    message: str = ""
