"""What can happen to a job, and what has to be done about it: frozen facts in, frozen intents out."""

from __future__ import annotations

from dataclasses import dataclass, field

from openbits.core.model import (
    ByteRange,
    ClientCertificate,
    Closing,
    CredentialSlot,
    File,
    HelperFlag,
    Job,
    Notice,
    NotifyCommand,
    Owner,
    SealedCredential,
    Settings,
    Validator,
)
from openbits.errors import ErrorContext

# --- events: a caller's verbs --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resume:
    """J5."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """J4."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """J6."""


@dataclass(frozen=True, slots=True)
class Complete:
    """J7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddFiles:
    """J1, J2, J41: checked files, with their temporary names."""

    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """Checked new settings."""

    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameRemote:
    """F4, J40: (file index, checked new remote name) of files that are not finished."""

    names: tuple[tuple[int, str], ...]
    userinfo: tuple[tuple[int, str], ...] = ()
    """(file index, sealed user name and password) of names that came with one; the others have none from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetValidation:
    """F6: the application's word on a finished file."""

    index: int
    valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOwner:
    """I8: checked; `temporary_names` are (file index, new name) of what was copied for the new owner.

    `lost` are files whose bytes nobody could hand over any more: they begin anew.
    """

    owner: Owner
    temporary_names: tuple[tuple[int, str], ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReplyName:
    """J33: where the reply is to stand; checked. Without a name it gets one when the job is resumed (J34)."""

    local_name: str = ""
    temporary_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHelperFlags:
    """T3."""

    flags: HelperFlag


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCredentials:
    """J35, J36: for what the account's own credentials may be used from now on (I10), and what else there is."""

    implicit: frozenset[CredentialSlot]
    explicit: tuple[SealedCredential, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHeaders:
    """H5: the custom headers from now on; empty for none."""

    sealed: str


@dataclass(frozen=True, slots=True)
class HideHeaders:
    """H11: nobody reads the custom headers any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetClientCertificate:
    """H1, H2, H3: checked; None for none."""

    certificate: ClientCertificate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCertificateValidator:
    """H12: whether a program has to approve of servers' certificates from now on."""

    asks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNotifyCommand:
    """J30: checked; None for none."""

    command: NotifyCommand | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRanges:
    """F12: ranges of a file of an on-demand job; their bounds are checked here, against what is known of the file."""

    index: int
    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePosition:
    """F11."""

    index: int
    offset: int


# --- events: scheduler, timers, conditions ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """S1."""


@dataclass(frozen=True, slots=True)
class SlotTaken:
    """S3: the time slice is over, or a higher priority needs the slot."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time that `lifecycle.deadline` named has come."""


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """The environment's `has_network` is not what it was (S5, S6)."""


@dataclass(frozen=True, slots=True)
class BandwidthChanged:
    """The environment's `blocked_priorities` are not what they were (S5, S6, P2, P10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeTaken:
    """Somebody has acknowledged what the job owed (N4, N11); it may owe something else since."""

    notice: Notice
    by_webhook: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesAnnounced:
    """Somebody has acknowledged FileTransferred of these files (N2)."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something for the event log that changes nothing of the job."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class LogonChanged:
    """The environment's `logged_on` has the owner, or has him no more (I2)."""


@dataclass(frozen=True, slots=True)
class HelperTokenChanged:
    """T1, T2: another helper, or none; a run that is under way begins again with the right identities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperTokenLost:
    """I7: the token is gone without anybody having cleared it; `reason` is a clause for the job's error."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServiceStarted:
    """The service reads the job from the store after a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealOld:
    """What an earlier version of the program has written down in clear is sealed: once, when the service starts."""

    headers: str
    """The custom headers as they are from now on."""
    files: tuple[tuple[int, str, str], ...] = ()
    """(file index, remote name without user name and password, these sealed)."""


# --- events: a worker's reports -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAnswered:
    """The server answered for a file."""

    run: int
    index: int
    bytes_total: int | None
    validator: Validator
    offset: int
    restarted: str
    resumable: bool
    response_headers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesAnswered:
    """Answers for several files of one run, in order: one change of the job for thousands of small files."""

    answers: tuple[FileAnswered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheckpoint:
    """So many bytes of a file are durable."""

    run: int
    index: int
    durable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesFetched:
    """(index, size) of files that are whole, verified and durable."""

    run: int
    files: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRedirected:
    """A redirect led to this remote name, and the job's policy is to say so (H7)."""

    run: int
    index: int
    remote_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersSeen:
    """This is the header block of the last answer for the file (F10)."""

    run: int
    index: int
    response_headers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesFilled:
    """These ranges of a file of an on-demand job are durable, beside those that already were."""

    run: int
    index: int
    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMoved:
    """So many bytes have been acknowledged by the server, and this must a later run know of the session."""

    run: int
    memory: str
    acknowledged_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """The server of a cancelled upload needs to be told nothing any more; `how` is a clause for the event log."""

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run ended."""

    name: str
    context: ErrorContext
    message: str
    transient: bool
    index: int | None = None
    retry_after_s: int | None = None
    retry_within_s: int | None = None
    """By when the next attempt would find things changed: it need not wait for its retry delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run is over; without a failure it did all it was given."""

    run: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The worker died under a run; `idle_s` is how long there has been no progress."""

    run: int
    idle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesFinished:
    """The owner's worker has done what `job.closing` asked for.

    `renamed` files stand under their names; `failed` says which could not be put there and why;
    `left_over` names temporary files that could not be deleted.
    """

    renamed: tuple[int, ...] = ()
    failed: tuple[tuple[int, str, str], ...] = ()
    left_over: tuple[str, ...] = ()


Condition = (
    SlotGranted | SlotTaken | DeadlineReached | NetworkChanged | BandwidthChanged | LogonChanged | ServiceStarted
)
"""What comes from the scheduler, a timer, or the state of the machine."""

Report = (
    FileAnswered
    | FilesAnswered
    | FileCheckpoint
    | FilesFetched
    | FileRedirected
    | HeadersSeen
    | RangesFilled
    | UploadMoved
    | SessionEnded
    | RunEnded
    | WorkerLost
    | FilesFinished
)
"""What workers tell."""

Event = (
    Resume
    | Suspend
    | Cancel
    | Complete
    | AddFiles
    | ChangeSettings
    | RenameRemote
    | SetValidation
    | ChangeOwner
    | SetReplyName
    | SetHelperFlags
    | ChangeCredentials
    | SetHeaders
    | HideHeaders
    | SetClientCertificate
    | SetCertificateValidator
    | SetNotifyCommand
    | RequestRanges
    | MovePosition
    | SlotGranted
    | SlotTaken
    | DeadlineReached
    | NetworkChanged
    | BandwidthChanged
    | NoticeTaken
    | FilesAnnounced
    | Noted
    | LogonChanged
    | HelperTokenChanged
    | HelperTokenLost
    | ServiceStarted
    | SealOld
    | Report
)


# --- effects ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """Let a worker fetch what is missing. Not kept: a restart schedules anew."""

    job_id: str
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRun:
    """Let the worker make durable what it has and stop. Not kept.

    `patience_s` is how long it may take before it is killed; None: as long as the service usually waits.
    """

    job_id: str
    patience_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishFiles:
    """Rename or delete the job's files. Kept in the outbox until FilesFinished is written down."""

    job_id: str
    closing: Closing


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """Tell the server of a cancelled upload. Not kept: `Job.cancel_until` says at every start that it is to be done."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskForPieces:
    """Tell the run that is under way what is wanted of a file now (F11, F12). Not kept: every run begins with it."""

    job_id: str
    index: int


Effect = StartRun | StopRun | FinishFiles | EndSession | AskForPieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the event log."""

    kind: str
    text: str
    event_id: int = 0
    """Its number in `core.eventlog` (section 13), which has a level; 0: ours, without a number."""
    fields: tuple[tuple[str, str], ...] = ()
    """What that table says belongs to it, by name, beside what every entry has: job, name, owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an event makes of a job: the new value and what to do after it is written down."""

    job: Job
    effects: tuple[Effect, ...] = ()
    entries: tuple[Entry, ...] = ()
    changed_files: tuple[int, ...] = ()
    """Indices of files whose values changed; REPLY_INDEX may be among them."""
    forget: bool = field(default=False)
    """The retention time of a final job is over: drop it."""
