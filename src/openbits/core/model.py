"""The values that everything else speaks about: identities, jobs, files, errors.

All of them are frozen: a change makes a new value, and only `core.lifecycle` makes one.
Times are seconds of the service's steady UTC clock (see `service.clock`); sizes are bytes;
local names are text with `surrogateescape`, so any byte sequence can be a path.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from openbits.errors import ErrorCode, ErrorContext, error_code

NAME_LIMIT: Final = 256
DESCRIPTION_LIMIT: Final = 1024
REMOTE_NAME_LIMIT: Final = 2200
TO_EOF: Final = -1
"""The length of a byte range that reaches to the end of the file (BG_LENGTH_TO_EOF)."""

DAY_S: Final = 86_400
UPLOAD_INDEX: Final = 0
REPLY_INDEX: Final = 1
"""An upload job has one file; what the server replies stands behind it in everything that counts the parts of a job."""


class JobType(enum.IntEnum):
    """BG_JOB_TYPE (inventory M7)."""

    DOWNLOAD = 0
    UPLOAD = 1
    UPLOAD_REPLY = 2


class JobState(enum.IntEnum):
    """BG_JOB_STATE (inventory J11)."""

    QUEUED = 0
    CONNECTING = 1
    TRANSFERRING = 2
    SUSPENDED = 3
    ERROR = 4
    TRANSIENT_ERROR = 5
    TRANSFERRED = 6
    ACKNOWLEDGED = 7
    CANCELLED = 8

    @property
    def is_final(self) -> bool:
        """Whether the job has left the queue."""
        return self >= JobState.ACKNOWLEDGED

    @property
    def is_active(self) -> bool:
        """Whether a worker is, or is about to be, at work for the job."""
        return self is JobState.CONNECTING or self is JobState.TRANSFERRING


class Priority(enum.IntEnum):
    """BG_JOB_PRIORITY (inventory J16); smaller is more urgent."""

    FOREGROUND = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class AccountKind(enum.Enum):
    """What sort of account an owner is (architecture, section 4)."""

    LOCAL_SYSTEM = "LOCAL_SYSTEM"
    NETWORK_SERVICE = "NETWORK_SERVICE"
    LOCAL_SERVICE = "LOCAL_SERVICE"
    USER = "USER"


class HelperFlag(enum.IntFlag):
    """BG_TOKEN (inventory T3): for what the helper's identity stands in for the owner's."""

    NONE = 0
    LOCAL_FILE = 1
    NETWORK = 2


class AuthTarget(enum.Enum):
    """BG_AUTH_TARGET (inventory J35)."""

    SERVER = "server"
    PROXY = "proxy"


class AuthScheme(enum.Enum):
    """BG_AUTH_SCHEME (inventory J35)."""

    BASIC = "basic"
    DIGEST = "digest"
    NTLM = "ntlm"
    NEGOTIATE = "negotiate"
    PASSPORT = "passport"


@dataclass(frozen=True, slots=True, order=True)
class CredentialSlot:
    """What one call of SetCredentials is about: a target and a scheme."""

    target: str
    scheme: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCredential:
    """A user name and a password for a slot, as only `service.secrets` can read them (I14)."""

    slot: CredentialSlot
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Which client certificate a job presents (H1, H2); it is looked for with the owner's rights when the job runs."""

    location: str
    """A name of `core.certificates.LOCATIONS`, such as current_user."""
    store: str
    sha1: str = ""
    """Its SHA-1 as 40 hexadecimal digits, lower case; empty when it is chosen by its subject."""
    subject: str = ""
    """A part of its subject (H2); empty when it is chosen by its hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyCommand:
    """What the owner's worker runs when the job is TRANSFERRED or in ERROR (J30, N10): a program, and no shell."""

    program: str
    """Its full path."""
    arguments: tuple[str, ...]
    """The whole argument vector, what the program is called first."""


class Notice(enum.Enum):
    """What a job's owner is told once, whatever happens in between (N1, N5)."""

    TRANSFERRED = "transferred"
    ERROR = "error"


class Closing(enum.Enum):
    """What the owner's worker still has to do with the files of a job that is being ended."""

    COMPLETE = "complete"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The rights that a process has: what the kernel says of a caller, and what a worker gets."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups, ascending, without duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The account that a job belongs to, with the rights it had when it made the job."""

    identity: Identity
    name: str
    kind: AccountKind
    is_elevated: bool = False
    """Whether the account was an administrator when it made or took the job (inventory J52)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a call, as the kernel vouches for it (never from anything in the request)."""

    identity: Identity
    name: str
    kind: AccountKind
    is_administrator: bool
    pid: int = 0

    def as_owner(self) -> Owner:
        """The owner of a job that this caller creates."""
        return Owner(identity=self.identity, name=self.name, kind=self.kind, is_elevated=self.is_administrator)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job is in ERROR or TRANSIENT_ERROR (inventory section 5)."""

    name: str
    context: ErrorContext
    message: str
    file_index: int | None = None
    protocol: str | None = None

    @property
    def code(self) -> ErrorCode:
        """The row of the error table."""
        return error_code(self.name)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A requested range; `length` may be TO_EOF (inventory J41)."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an application asked for of a file, piece by piece (F11–F13); all ranges ascending, disjoint, not adjacent.

    Of a file whose size is not known yet a wanted range may reach beyond its end, or be TO_EOF long.
    """

    wanted: tuple[ByteRange, ...] = ()
    """Asked for and not here yet."""
    filled: tuple[ByteRange, ...] = ()
    """Here, and durable (F13)."""
    position: int | None = None
    """What is wanted from here on comes first (F11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """What tells one version of a remote file from another (inventory D3).

    `etag` is kept only when it is strong; `size` is the size of the whole remote file.  Of a file that is uploaded
    these are the source's (U46): its size, and as `last_modified` its time in nanoseconds since the epoch, in digits.
    """

    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a job."""

    remote_name: str
    local_name: str
    temporary_name: str
    """Full path of the hidden temporary file beside the local name; chosen when the file is added.

    What is uploaded has none: then it is the local name, and nothing is ever made, renamed or deleted for it.
    """
    ranges: tuple[ByteRange, ...] = ()
    checksum: str | None = None
    """`sha256:HEX` or `sha512:HEX`, lower case, verified before the file counts as transferred."""
    bytes_total: int | None = None
    bytes_transferred: int = 0
    """Bytes that would survive a power cut; what a worker received beyond that is not in here."""
    validator: Validator = field(default_factory=Validator)
    transferred: bool = False
    completed: bool = False
    """Whether the file stands under its local name (inventory F2)."""
    validation: bool | None = None
    resumable: bool | None = None
    """False when the server cannot resume this file: an interruption starts it from zero."""
    restarts: int = 0
    """How often the file began again because the remote file had changed or could not be resumed."""
    response_headers: str = ""
    """The header block of the last HTTP response for the file (inventory F10)."""
    meant_for: str = ""
    """The server that the job's secrets are for, where the remote name is the choice of a server (H7), such as
    https://example.org; empty: the one that the remote name names."""
    sealed_userinfo: str = field(default="", repr=False)
    """User name and password that stood in the remote name, as only `service.secrets` can read them; else empty."""
    demand: Demand | None = None
    """What was asked for of it, in on-demand mode (J67); None otherwise, and until something was."""
    was_announced: bool = False
    """Whether somebody has taken note of FileTransferred (N2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the owner may set on a job; names as `bits set` takes them. Times in seconds.

    `minimum_retry_delay` J19 · `no_progress_timeout` J20 · `maximum_download_time` J53 ·
    `notify_flags` J17 · `cost_flags` J60 · `notification_clsid` J61 · `dynamic_content` J62 ·
    `high_performance` J63 · `max_download_size` J64.  Ours, beyond BITS: `strict_http` refuses
    servers that BITS refuses; `file_concurrency` is how many files of the job may be on the way
    at once (BITS: 1, inventory Q2); `stall_timeout` how long a connection may send nothing;
    `umask` is the mask for new files.
    `proxy_usage` (`preconfig`, `no_proxy`, `override`, `autodetect`), `proxy_list`, `proxy_bypass_list` J22.
    `upload_protocol` is ours: `bits`, `tus`, `ietf`, `put`, or `auto`, which asks the server.
    `security_flags` H7 · `http_method` H10 (empty: the type's own) · `use_stored_credentials` J65 (`proxy`, or empty).
    `use_netrc` is ours: whether the owner's ~/.netrc may answer a server that asks who it is.
    `acl_flags` J42 · `peer_caching_flags` J50 · `minimum_notification_interval_ms` J66, in milliseconds ·
    `on_demand_mode` J67.  `notify_url` is ours: where the end of the job is announced by a POST.
    """

    name: str
    description: str = ""
    priority: Priority = Priority.NORMAL
    minimum_retry_delay: int = 600
    no_progress_timeout: int = 14 * DAY_S
    maximum_download_time: int | None = None
    notify_flags: int = 3
    cost_flags: int | None = None
    notification_clsid: str = ""
    dynamic_content: bool = False
    high_performance: bool = False
    max_download_size: int | None = None
    strict_http: bool = False
    file_concurrency: int = 1
    stall_timeout: int = 60
    umask: int = 0o022
    proxy_usage: str = "preconfig"
    proxy_list: str = ""
    proxy_bypass_list: str = ""
    upload_protocol: str = "auto"
    security_flags: int = 0
    http_method: str = ""
    use_netrc: bool = False
    use_stored_credentials: str = ""
    acl_flags: int = 0
    peer_caching_flags: int = 0
    minimum_notification_interval_ms: int = 500
    on_demand_mode: bool = False
    notify_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: everything that a restart must find again."""

    id: str
    """A GUID, lower case, without braces."""
    type: JobType
    owner: Owner
    settings: Settings
    state: JobState = JobState.SUSPENDED
    files: tuple[File, ...] = ()
    error: JobError | None = None
    error_count: int = 0
    created_at: float
    modified_at: float
    transferred_at: float | None = None
    ended_at: float | None = None
    """When the job became ACKNOWLEDGED or CANCELLED."""
    was_resumed: bool = False
    run: int = 0
    """Counts the starts; a worker's report that carries another number is late and only half believed."""
    active_s: float = 0.0
    """Time spent CONNECTING or TRANSFERRING before `active_since` (inventory J53)."""
    active_since: float | None = None
    retry_at: float | None = None
    """When a TRANSIENT_ERROR is tried again; None while it waits for a condition (inventory R3)."""
    no_progress_since: float | None = None
    helper_flags: HelperFlag = HelperFlag.NONE
    """For what the helper token is used (T3). The token itself is never written down."""
    implicit_credentials: frozenset[CredentialSlot] = frozenset()
    """For which targets and schemes the account's own credentials may be used: SetCredentials without a name (I10)."""
    explicit_credentials: tuple[SealedCredential, ...] = ()
    """What SetCredentials was given, by slot; no slot stands here and among the implicit ones (J35)."""
    sealed_headers: str = field(default="", repr=False)
    """The custom header lines (H5), as only `service.secrets` can read them; empty without."""
    headers_are_write_only: bool = False
    """H11."""
    client_certificate: ClientCertificate | None = None
    asks_about_certificates: bool = False
    """Whether a program must approve of servers' certificates (H12); which one is not kept."""
    closing: Closing | None = None
    result: str = ""
    """How Complete or Cancel ended: S_OK, BG_S_PARTIAL_COMPLETE, BG_S_UNABLE_TO_DELETE_FILES."""
    reply: File | None = None
    """What the server replies to an UPLOAD_REPLY job (J33, J34); None until it has a name."""
    upload_memory: str = ""
    """What a later run must know of the session at the server (`openbits.upload`); empty without one."""
    cancel_until: float | None = None
    """Until when the server is to be told that the session of a cancelled job is over (J6); None: it need not be."""
    notify_command: NotifyCommand | None = None
    """J30."""
    owed_notice: Notice | None = None
    """What callback, bus name or command line has not acknowledged yet, of the state that the job is in (N5)."""
    owed_webhook: Notice | None = None
    """What `notify_url` has not acknowledged yet; unlike a notice it is still owed when the job is completed."""

    @property
    def is_upload(self) -> bool:
        """Whether the file goes to the server (M7)."""
        return self.type is not JobType.DOWNLOAD

    @property
    def part_count(self) -> int:
        """How many files the job has, the reply among them."""
        return len(self.files) if self.reply is None else REPLY_INDEX + 1

    def part(self, index: int) -> File:
        """Return a file by its index, the reply by REPLY_INDEX. Raises IndexError."""
        if self.reply is not None and index == REPLY_INDEX:
            return self.reply
        return self.files[index]

    @property
    def made_here(self) -> tuple[tuple[int, File], ...]:
        """Index and value of the files that the job makes on this machine: not what it uploads."""
        if not self.is_upload:
            return tuple(enumerate(self.files))
        return () if self.reply is None else ((REPLY_INDEX, self.reply),)

    @property
    def files_transferred(self) -> int:
        """How many files are whole."""
        return sum(1 for file in self.files if file.transferred)

    @property
    def bytes_transferred(self) -> int:
        """Durable bytes of all files."""
        return sum(file.bytes_transferred for file in self.files)

    @property
    def bytes_total(self) -> int | None:
        """Bytes of all files; None until every file's size is known (inventory J9); 0 without files."""
        total = 0
        for file in self.files:
            if file.bytes_total is None:
                return None
            total += file.bytes_total
        return total

    @property
    def has_work(self) -> bool:
        """Whether any file is still to be transferred."""
        parts = self.files if self.reply is None else (*self.files, self.reply)
        return any(not file.transferred for file in parts)
