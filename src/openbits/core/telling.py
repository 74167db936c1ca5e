"""Who is told what next of a job, and by which channel (section 4 of the inventory). Pure: values in, values out.

The rules:

- Strictly in order: FileTransferred of one file after the other, then JobTransferred or JobError (N2).  What happened
  to the job besides, and pieces of files that came, is told when nothing of that is left, at most once in
  `minimum_notification_interval_ms`, and lost where nobody listens (N1, N8).
- BG_NOTIFY_DISABLE wins over every other flag (J17).
- A program that listens comes first; where none does, or does not answer, a program that the bus starts; then the
  command line (N7), which is for JobTransferred and JobError only (N10, N12) and never for service accounts (N13).
- Who fails is asked again; but a command line takes the place of a program that fails (N4).  When all have failed, the
  first is asked again: a program soon, everything else after the job's `minimum_retry_delay` (N11, N12).
- `notify_url` is a way of its own beside all that, and goes on when the job is completed.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from openbits.core.model import REPLY_INDEX, AccountKind, ByteRange, File, Job, JobState, Notice
from openbits.core.pieces import without

DISABLE: Final = 0x04
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 300.0
"""How long a program that fails is left alone: twice as long each time, up to this (N4)."""


class Kind(enum.Enum):
    """What is told: the methods of BITS's callback interfaces (N1-N3)."""

    FILE_TRANSFERRED = "file_transferred"
    JOB_TRANSFERRED = "job_transferred"
    JOB_ERROR = "job_error"
    JOB_MODIFICATION = "job_modification"
    FILE_RANGES_TRANSFERRED = "file_ranges_transferred"


FLAGS: Final = {
    Kind.JOB_TRANSFERRED: 0x01,
    Kind.JOB_ERROR: 0x02,
    Kind.JOB_MODIFICATION: 0x08,
    Kind.FILE_TRANSFERRED: 0x10,
    Kind.FILE_RANGES_TRANSFERRED: 0x20,
}
"""J17."""
NOTICES: Final = {Notice.TRANSFERRED: Kind.JOB_TRANSFERRED, Notice.ERROR: Kind.JOB_ERROR}
LOSSY: Final = frozenset({Kind.JOB_MODIFICATION, Kind.FILE_RANGES_TRANSFERRED})


class Channel(enum.Enum):
    """By which way somebody is told."""

    CALLBACK = "callback"
    BUS_NAME = "bus name"
    COMMAND = "command line"
    WEBHOOK = "notify_url"


class Presence(enum.Enum):
    """Whether a program is there that takes notifications (J18)."""

    ABSENT = "absent"
    VALID = "valid"
    INVALID = "invalid"
    """It is there, and has not answered in time: it counts as none until it does."""


class Obstacle(enum.Enum):
    """Why nobody can be told now, though there is somebody to be told."""

    NOBODY = "nobody"
    SILENT = "silent"
    LOGGED_OFF = "logged off"
    FORBIDDEN = "forbidden"
    SERVICE_ACCOUNT = "service account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing to be told."""

    kind: Kind
    index: int | None = None
    """Of the file that it is about."""
    ranges: tuple[ByteRange, ...] = ()

    @property
    def is_lossy(self) -> bool:
        """Whether nobody misses it who is not there to hear it."""
        return self.kind in LOSSY


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What there is to tell a job's owner by, now."""

    callback: Presence = Presence.ABSENT
    owner_kind: AccountKind = AccountKind.USER
    """By the configuration as it is now."""
    is_logged_on: bool = True
    """Whether anything may run in the owner's name (I2)."""
    commands_forbidden: str = ""
    """Why no command line may run, as a clause; empty when it may."""


def owed(job: Job, means: Means, first: int = 0) -> Subject | None:
    """Return what must be told next; files are looked through from `first` on.

    Files are told of only before what the whole job has come to (N2), and only where somebody is to hear of them: a
    command line is not, and need not wait for a program that is not there.
    """
    flags = job.settings.notify_flags
    if flags & DISABLE or job.closing is not None or job.state.is_final:
        return None
    notice = job.owed_notice
    if flags & FLAGS[Kind.FILE_TRANSFERRED] and not (notice is None and _is_settled(job)):
        index = unannounced(job, first)
        subject = Subject(kind=Kind.FILE_TRANSFERRED, index=index)
        if index is not None and isinstance(channels(job, subject, means), tuple):
            return subject
    if notice is None or not flags & FLAGS[NOTICES[notice]]:
        return None
    return Subject(kind=NOTICES[notice])


def owed_to_url(job: Job) -> Subject | None:
    """Return what `notify_url` is still to be told."""
    flags, notice = job.settings.notify_flags, job.owed_webhook
    if notice is None or not job.settings.notify_url or flags & DISABLE or not flags & FLAGS[NOTICES[notice]]:
        return None
    return Subject(kind=NOTICES[notice])


def unannounced(job: Job, first: int = 0) -> int | None:
    """Return a file that is whole and that nobody has taken note of, the first from `first` on, else from 0 (N2)."""
    if job.is_upload:
        # What is told of is what has come: of an upload that is the reply.
        return REPLY_INDEX if job.reply is not None and _is_news(job.reply) else None
    files = job.files
    for index in range(first, len(files)):
        if _is_news(files[index]):
            return index
    for index in range(min(first, len(files))):
        if _is_news(files[index]):
            return index
    return None


def channels(job: Job, subject: Subject, means: Means) -> tuple[Channel, ...] | Obstacle:
    """Return by which channels it can be told now, in order (N7, N10, N12, N13), or why by none."""
    found: list[Channel] = []
    obstacle = Obstacle.NOBODY
    has_name, command = bool(job.settings.notification_clsid), job.notify_command
    if means.callback is Presence.VALID:
        found.append(Channel.CALLBACK)
    elif has_name and means.is_logged_on:
        found.append(Channel.BUS_NAME)
    elif has_name:
        obstacle = Obstacle.LOGGED_OFF
    elif means.callback is Presence.INVALID:
        obstacle = Obstacle.SILENT
    if command is not None and subject.kind in (Kind.JOB_TRANSFERRED, Kind.JOB_ERROR):
        if means.owner_kind is not AccountKind.USER:
            obstacle = _rather(obstacle, Obstacle.SERVICE_ACCOUNT)
        elif means.commands_forbidden:
            obstacle = _rather(obstacle, Obstacle.FORBIDDEN)
        elif not means.is_logged_on:
            obstacle = Obstacle.LOGGED_OFF
        else:
            found.append(Channel.COMMAND)
    return tuple(found) or obstacle


def url_channels(means: Means) -> tuple[Channel, ...] | Obstacle:
    """Return the same for what `notify_url` is told: with the owner's rights, while he may run."""
    return (Channel.WEBHOOK,) if means.is_logged_on else Obstacle.LOGGED_OFF


def next_channel(found: tuple[Channel, ...], failed: Collection[Channel]) -> Channel | None:
    """Return who is asked next in a round in which these have failed; None: the round is over."""
    return next((channel for channel in found if channel not in failed), None)


def pause_s(job: Job, failed: Collection[Channel], rounds: int) -> float:
    """Return how long to wait before everybody is asked again, after so many rounds in which all failed."""
    if set(failed) <= {Channel.CALLBACK}:
        return float(min(FIRST_PAUSE_S * 2 ** min(rounds - 1, 16), LONGEST_PAUSE_S))
    return float(job.settings.minimum_retry_delay)


def told(subject: Subject) -> Notice | None:
    """Return which notice has been taken when this has been told; None for what is no notice."""
    return next((notice for notice, kind in NOTICES.items() if kind is subject.kind), None)


def is_modified(before: Job, after: Job) -> bool:
    """Whether JobModification is due (N1): not when the job becomes TRANSFERRED or fails, nor for who was told."""
    if after.state is not before.state and after.state in (JobState.TRANSFERRED, JobState.ERROR):
        return False
    same = replace(
        before,
        owed_notice=after.owed_notice,
        owed_webhook=after.owed_webhook,
        files=_with_marks_of(before.files, after.files),
    )
    return same != after


def new_ranges(before: Job, after: Job) -> dict[int, tuple[ByteRange, ...]]:
    """Return which pieces of which files have come (N3), by the index of the file."""
    found = {}
    for index, (old, new) in enumerate(zip(before.files, after.files, strict=False)):
        if new is not old and new.demand is not None:
            here = without(new.demand.filled, old.demand.filled if old.demand is not None else ())
            if here:
                found[index] = here
    return found


def _is_settled(job: Job) -> bool:
    return job.state in (JobState.TRANSFERRED, JobState.ERROR)


def _is_news(file: File) -> bool:
    return file.transferred and not file.was_announced


def _rather(known: Obstacle, other: Obstacle) -> Obstacle:
    """What time cures is the better answer to what one waits for."""
    return other if known is Obstacle.NOBODY else known


def _with_marks_of(before: tuple[File, ...], after: tuple[File, ...]) -> tuple[File, ...]:
    """The files with those of them marked as announced that are so in `after`."""
    if before is after or len(before) != len(after):
        return before
    return tuple(
        new if new is not old and replace(old, was_announced=new.was_announced) == new else old
        for old, new in zip(before, after, strict=True)
    )
