"""The shapes of everything that goes over the local API; unknown fields in a request are errors.

Times are ISO 8601 UTC, sizes bytes, durations seconds, names of states and errors BITS's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

JobTypeName = Literal["download", "upload", "upload-reply"]
PriorityName = Literal["foreground", "high", "normal", "low"]
StateName = Literal[
    "QUEUED",
    "CONNECTING",
    "TRANSFERRING",
    "SUSPENDED",
    "ERROR",
    "TRANSIENT_ERROR",
    "TRANSFERRED",
    "ACKNOWLEDGED",
    "CANCELLED",
]

StoreLocation = Literal[
    "current_user",
    "local_machine",
    "current_service",
    "services",
    "users",
    "current_user_group_policy",
    "local_machine_group_policy",
    "local_machine_enterprise",
]

MAX_FILES_PER_CALL = 20_000
MAX_JOBS_PER_CALL = 1_000

Length = Annotated[int, msgspec.Meta(ge=-1)]
Offset = Annotated[int, msgspec.Meta(ge=0)]


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of what a client sends."""


class Response(msgspec.Struct, kw_only=True):
    """Base of what the service answers."""


class RangeIn(Request):
    """A byte range to fetch; a length of -1 reaches to the end of the file."""

    offset: Offset
    length: Length


class FileIn(Request):
    """A file to add to a job (J1, J2, J41)."""

    remote_name: str
    local_name: str
    ranges: Annotated[list[RangeIn], msgspec.Meta(max_length=100_000)] | None = None
    checksum: str | None = None


class SettingsIn(Request):
    """Properties to set; a field that is absent is left as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    priority: str | msgspec.UnsetType = msgspec.UNSET
    minimum_retry_delay: int | msgspec.UnsetType = msgspec.UNSET
    no_progress_timeout: int | msgspec.UnsetType = msgspec.UNSET
    maximum_download_time: int | msgspec.UnsetType | None = msgspec.UNSET
    notify_flags: int | msgspec.UnsetType = msgspec.UNSET
    cost_flags: int | msgspec.UnsetType | None = msgspec.UNSET
    notification_clsid: str | msgspec.UnsetType = msgspec.UNSET
    dynamic_content: bool | msgspec.UnsetType = msgspec.UNSET
    high_performance: bool | msgspec.UnsetType = msgspec.UNSET
    max_download_size: int | msgspec.UnsetType | None = msgspec.UNSET
    strict_http: bool | msgspec.UnsetType = msgspec.UNSET
    file_concurrency: int | msgspec.UnsetType = msgspec.UNSET
    stall_timeout: int | msgspec.UnsetType = msgspec.UNSET
    umask: int | msgspec.UnsetType = msgspec.UNSET
    custom_headers: str | msgspec.UnsetType = msgspec.UNSET
    proxy_usage: str | msgspec.UnsetType = msgspec.UNSET
    proxy_list: str | msgspec.UnsetType | None = msgspec.UNSET
    proxy_bypass_list: str | msgspec.UnsetType | None = msgspec.UNSET
    upload_protocol: str | msgspec.UnsetType = msgspec.UNSET
    use_netrc: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the owner's ~/.netrc may answer servers; set by the owner alone."""
    security_flags: int | msgspec.UnsetType = msgspec.UNSET
    http_method: str | msgspec.UnsetType = msgspec.UNSET
    use_stored_credentials: str | msgspec.UnsetType | None = msgspec.UNSET
    """`proxy`, or null (J65); set by the owner alone."""
    acl_flags: int | msgspec.UnsetType = msgspec.UNSET
    peer_caching_flags: int | msgspec.UnsetType = msgspec.UNSET
    minimum_notification_interval_ms: int | msgspec.UnsetType = msgspec.UNSET
    on_demand_mode: bool | msgspec.UnsetType = msgspec.UNSET
    notify_url: str | msgspec.UnsetType | None = msgspec.UNSET
    """Where the end of the job is announced by a POST, or null; set by the owner alone."""


class ProxySettingsIn(Request):
    """Proxy settings of an account: what is absent stays as an earlier call has set it (I20)."""

    usage: str
    proxy_list: str | None = None
    bypass_list: str | None = None
    script_url: str | None = None


class JobIn(Request):
    """A job to create; with files and `resume` it is a whole download or upload in one call, all or nothing."""

    name: str
    type: JobTypeName = "download"
    settings: dict[str, Any] = {}
    """Properties by name, as in SettingsIn; `name` stands beside them, not among them."""
    files: Annotated[list[FileIn], msgspec.Meta(max_length=MAX_FILES_PER_CALL)] = []
    resume: bool = False
    reply_file_name: str | None = None
    """Where the reply of an upload-reply job goes (J33); null: it gets a name when the job is resumed."""


class JobsIn(Request):
    """Several jobs to create, all or none."""

    jobs: Annotated[list[JobIn], msgspec.Meta(min_length=1, max_length=MAX_JOBS_PER_CALL)]


class FilesIn(Request):
    """Files to add, all or none."""

    files: Annotated[list[FileIn], msgspec.Meta(min_length=1, max_length=MAX_FILES_PER_CALL)]


class FileChange(Request):
    """What may change on a file: its remote name (F4) or its validation state (F6)."""

    remote_name: str | msgspec.UnsetType = msgspec.UNSET
    validation_state: bool | msgspec.UnsetType = msgspec.UNSET


class CredentialsIn(Request):
    """SetCredentials (J35); neither a name nor a password allows the account's own credentials (I10)."""

    target: str
    scheme: str
    user_name: str | None = None
    password: str | None = None


class CustomHeadersIn(Request):
    """SetCustomHeaders (H5): header lines, each ended by CR LF; null, or nothing, clears them."""

    custom_headers: str | None


class PrefixIn(Request):
    """ReplaceRemotePrefix (J40)."""

    old: str
    new: str


class ReplyNameIn(Request):
    """SetReplyFileName (J33); null or empty: a name is generated when the job is resumed."""

    file_name: str | None


class HelperFlagsIn(Request):
    """For what the helper token is used (T3): 1 for local files, 2 for the network, 3 for both, 0 for nothing."""

    flags: int


class TokenOptionsOut(Response):
    """Access to the helper token of a job (T1–T4): who holds the capability may give himself as the helper."""

    capability: str


class HelperTokenOut(Response):
    """Whose helper token a job has, if it has one (T4), and for what it is used (T3)."""

    sid: str | None
    name: str | None
    flags: int


class CallResult(Response):
    """How a call ended that concerns no job: a success code of the error table."""

    result: str = "S_OK"


class OwnerOut(Response):
    """Who owns a job."""

    uid: int
    name: str
    kind: str


class ErrorOut(Response):
    """Why a job is in error: BITS name, HRESULT, context and a sentence."""

    code: str
    hresult: int
    context: str
    context_code: int
    message: str
    protocol: str | None
    file: int | None
    """Which file it is about; null for none, and for the reply."""
    remote_name: str | None
    local_name: str | None


class RangeOut(Response):
    """A byte range of a file; a length of -1 reaches to the end."""

    offset: int
    length: int


class FileOut(Response):
    """A file of a job (section 3 of the inventory)."""

    index: int
    remote_name: str
    local_name: str
    temporary_name: str
    bytes_total: int | None
    bytes_transferred: int
    completed: bool
    transferred: bool
    ranges: list[RangeOut]
    checksum: str | None
    validation_state: bool | None
    resumable: bool | None
    restarts: int
    response_headers: str
    wanted_ranges: list[RangeOut]
    """Asked for, and not here yet (F12); of jobs in on-demand mode."""
    filled_ranges: list[RangeOut]
    """Here, and durable (F13); of jobs in on-demand mode."""


class SettingsOut(Response):
    """The properties of a job; names as `bits set` takes them."""

    name: str
    description: str
    priority: PriorityName
    minimum_retry_delay: int
    no_progress_timeout: int
    maximum_download_time: int | None
    notify_flags: int
    cost_flags: int | None
    notification_clsid: str
    dynamic_content: bool
    high_performance: bool
    max_download_size: int | None
    strict_http: bool
    file_concurrency: int
    stall_timeout: int
    umask: int
    custom_headers: str | None
    """None for anyone but the owner (A2), and for everybody once they are write-only (H11)."""
    proxy_usage: str
    proxy_list: str | None
    proxy_bypass_list: str | None
    upload_protocol: str
    """`bits`, `tus`, `ietf`, `put`, or `auto`, which asks the server; it means nothing to downloads."""
    security_flags: int
    """BITS's bits (H7): which checks of a server's certificate are added or left out, and where redirects may lead."""
    http_method: str
    """Empty: the type's own, which is GET or BITS_POST (H10)."""
    use_stored_credentials: str | None
    """`proxy`, or null (J65)."""
    use_netrc: bool
    """Whether the owner's ~/.netrc may answer servers that ask who it is."""
    acl_flags: int
    """What of a file:// source is kept (J42): 1 owner, 2 group, 4 access control list, 8 extended attributes."""
    peer_caching_flags: int
    """J50; kept, and without effect yet."""
    minimum_notification_interval_ms: int
    """How seldom JobModification and FileRangesTransferred are told (J66)."""
    on_demand_mode: bool
    """Whether only the ranges are fetched that are asked for (J67)."""
    notify_url: str | None
    """Where the end of the job is announced by a POST; null for none."""


class NotifyCommandOut(Response):
    """The notification command line (J30): a program and its whole argument vector."""

    program: str
    arguments: list[str]


class CredentialOut(Response):
    """For whom and how a job may prove who asks; `implicit`: with the account's own credentials."""

    target: str
    scheme: str
    implicit: bool


class CustomHeadersOut(Response):
    """GetCustomHeaders (H6): S_FALSE, and null, where there are none."""

    result: Literal["S_OK", "S_FALSE"]
    custom_headers: str | None


class ClientCertificateOut(Response):
    """Which client certificate a job presents (H4); null where it is not chosen by that."""

    location: StoreLocation
    store: str
    sha1: str | None
    subject: str | None


class JobOut(Response):
    """A job as lists show it."""

    id: str
    name: str
    type: JobTypeName
    state: StateName
    owner: OwnerOut
    priority: PriorityName
    description: str
    bytes_total: int | None
    bytes_transferred: int
    files_total: int
    files_transferred: int
    error: ErrorOut | None
    error_count: int
    creation_time: str
    modification_time: str
    transfer_completion_time: str | None
    retry_time: str | None
    result: str | None
    """How Complete or Cancel ended (a name of the error table); null before."""
    reply: FileOut | None
    """What the server replies to an upload-reply job (J31, J34); null before it has a name, and for other jobs."""


class JobDetail(JobOut):
    """A job with its properties; its files have an address of their own."""

    settings: SettingsOut
    owner_integrity_level: int
    """0x2000 medium, 0x3000 high (an administrator), 0x4000 system (a service account): J51."""
    owner_is_elevated: bool
    """Whether the owner was an administrator when he made or took the job (J52)."""
    credentials: list[CredentialOut] | None
    """What SetCredentials was called for, never with what; None for anyone but the owner (A2)."""
    headers_are_write_only: bool
    """Whether nobody can read the custom headers any more (H11)."""
    helper_token_flags: int
    """For what the helper token is used (T3)."""
    helper_token: OwnerOut | None
    """Whose token there is (T4); null when there is none."""
    client_certificate: ClientCertificateOut | None
    """Which client certificate it presents (H4); null for none, and for anyone but the owner (A2)."""
    validates_certificates: bool
    """Whether a program has to approve of servers' certificates (H12)."""
    has_certificate_validator: bool
    """Whether that program is there now."""
    notify_command: NotifyCommandOut | None
    """What is run at the end (J30); null for none."""
    has_notify_interface: bool
    """Whether a program is there that takes notifications (J18)."""
    owed_notice: Literal["transferred", "error"] | None
    """What nobody has taken note of yet (N5): programs, bus name and command line."""
    owed_webhook: Literal["transferred", "error"] | None
    """What `notify_url` has not taken note of yet."""
    proxy_in_use: str | None
    """By which proxy the job goes, or went when it last ran, or by none, and whose settings say so."""


class ProxySettingsOut(Response):
    """The proxy settings of an account, those of usages that are not active included (B43)."""

    account: str
    usage: Literal["no_proxy", "autodetect", "manual_proxy", "autoscript"] | None
    """None where nothing is stored."""
    proxy_list: str
    bypass_list: str
    script_url: str
    applies_to: str


class JobPage(Response):
    """One page of a list; `next` continues it and is null at the end."""

    jobs: list[JobOut]
    next: str | None


class FilePage(Response):
    """One page of a job's files."""

    files: list[FileOut]
    next: int | None


class ReplyOut(Response):
    """Name and progress of a reply (J31, J34): `bytes_total` is null until it has begun to come (E6)."""

    file_name: str | None
    bytes_total: int | None
    bytes_transferred: int


class Created(Response):
    """A job that was created."""

    id: str


class CreatedMany(Response):
    """Jobs that were created, in the order of the request."""

    jobs: list[Created]


class VerbResult(Response):
    """How a call ended: a success code of the error table, and the job after it."""

    result: str
    hresult: int
    job: JobOut


class Why(Response):
    """The one thing that a job waits for."""

    gate: str
    sentence: str
    until: str | None


class EventOut(Response):
    """One event of the stream; `job` is the job as it is when the event is sent."""

    id: int
    time: str
    kind: str
    job_id: str
    text: str
    event_id: int
    """Its number in BITS's event log; 0: ours, without a number."""
    level: Literal["error", "warning", "information", "verbose"]
    fields: dict[str, str]
    """What belongs to an event of its number, by name."""
    job: JobOut | None = None


class ProgressOut(Response):
    """What has come in of a job that moves."""

    job_id: str
    bytes_transferred: int
    bytes_total: int | None
    files_transferred: int
    files_total: int
