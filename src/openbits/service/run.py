"""What the conductor knows of a run, of a job's end and of its losses: values that it alone changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from openbits.core.events import FilesFinished
from openbits.service.handles import HandOver
from openbits.service.worker import Worker

STOP_PATIENCE_S: Final = 15.0
"""How long a worker may take to make durable what it has before it is killed."""


@dataclass(slots=True)
class Run:
    """One run, from StartRun until nothing of it is left."""

    job_id: str
    run: int
    number: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    worker: Worker | None = None
    stop_asked: asyncio.Event = field(default_factory=asyncio.Event)
    unfinished: set[int] = field(default_factory=set)
    """Files that were handed over and are not reported whole yet."""
    task: asyncio.Task[None] | None = None
    patience_s: float = STOP_PATIENCE_S
    """How long the worker may take to stop."""
    stop_timer: asyncio.TimerHandle | None = None
    is_interrupted: bool = False
    """Whether it was stopped before the job was told: then its end is told to the job."""
    received: dict[int, int] = field(default_factory=dict)
    """Bytes that have come in, by file, where that is more than what is written down."""
    pieces: set[int] = field(default_factory=set)
    """Files that were handed over to be fetched piece by piece (J67): which pieces, changes while the run goes on."""
    userinfo_of: Callable[[int], str] | None = None
    """What the remote names of such files came with, in clear, by index; None until the worker is told of files."""
    has_filled: bool = False
    """Whether any piece has come."""
    hand_over: HandOver | None = None
    """What brings the temporary files, where another account's worker opens them."""
    is_cut_off: bool = False
    """Whether nothing opens them any more: such a run is broken as one whose worker died."""
    broken: str = ""
    """Why the worker is connecting anew, if it is."""
    certificates_seen: int = 0
    """How many certificates the worker has asked about (4.6)."""

    @property
    def is_stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self.stop_asked.is_set()


@dataclass(slots=True)
class Finish:
    """What is being done with the files of a job that is being ended."""

    job_id: str
    task: asyncio.Task[FilesFinished | None] | None = None
    is_reported: bool = False
    """The files have been seen to; a further Complete or Cancel is another end."""


@dataclass(slots=True)
class Losses:
    """How a job's workers have been dying: the pause before the next one grows without progress."""

    count: int = 0
    progress_at: float = 0.0
