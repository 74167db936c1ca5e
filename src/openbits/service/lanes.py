"""Where the telling of one job stands, and what was decided of it (section 4 of the inventory).

A lane is in memory only: after a restart everything that is owed is told from the beginning.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from openbits.core.model import ByteRange, Job
from openbits.core.telling import Channel, Kind, Obstacle, Subject

REMARKS: Final = {
    Obstacle.SILENT: "the program that listens to it does not answer, and is told when it does",
    Obstacle.LOGGED_OFF: "its owner is told when he logs on",
    Obstacle.FORBIDDEN: "its command line is not run",
    Obstacle.SERVICE_ACCOUNT: "its command line is never run: its owner is a service account",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What is to be told, and how."""

    job: Job
    subject: Subject
    channel: Channel
    uid: int
    """In whose name."""


@dataclass(eq=False, slots=True, kw_only=True)
class Lane:
    """What is told of one job, in order: by the programs and the command line, or, beside that, by its URL."""

    job_id: str
    is_for_url: bool = False
    is_queued: bool = False
    is_busy: bool = False
    about: tuple[Kind, int | None] | None = None
    """What the failures below are about."""
    failed: set[Channel] = field(default_factory=set)
    rounds: int = 0
    again_at: float | None = None
    timer: asyncio.TimerHandle | None = None
    trouble: str = ""
    obstacle: Obstacle | None = None
    first: int = 0
    """Where the search for files begins that are still to be told of."""
    is_modified: bool = False
    ranges: dict[int, tuple[ByteRange, ...]] = field(default_factory=dict)
    told_at: dict[Kind, float] = field(default_factory=dict)
    late: int = 0
    """Answers that came after their time, and are being written down."""

    def begin_anew(self) -> None:
        """Forget what has failed: something is different now."""
        self.failed.clear()
        self.rounds, self.again_at, self.trouble = 0, None, ""

    def drop_timer(self) -> None:
        """Wait no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def stamp(job: Job, subject: Subject) -> tuple[object, ...]:
    """What is another one when what was told has happened once more."""
    if subject.index is not None:
        return job.error_count, job.part(subject.index).restarts
    return job.run, job.error_count, job.transferred_at


def has_other_ways(before: Job, after: Job) -> bool:
    """Whether somebody else is to be told, or otherwise."""
    if before.notify_command != after.notify_command or before.owner is not after.owner:
        return True
    old, new = before.settings, after.settings
    return old is not new and (old.notification_clsid, old.notify_url, old.notify_flags) != (
        new.notification_clsid,
        new.notify_url,
        new.notify_flags,
    )
