"""What goes into a store and comes out of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from openbits.core.model import Job
from openbits.core.proxies import AccountProxy


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEffect:
    """Something that is still to be carried out; a start finds it again (the outbox)."""

    id: int
    job_id: str
    kind: str
    payload: str


class Chosen(Protocol):
    """What an event is chosen by."""

    @property
    def time(self) -> float: ...  # noqa: D102 - as in StoredEvent
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def job_id(self) -> str: ...  # noqa: D102
    @property
    def owner_uid(self) -> int: ...  # noqa: D102
    @property
    def event_id(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """Something that was written down about a job. Ids grow and are never given twice."""

    id: int
    time: float
    kind: str
    job_id: str
    text: str
    owner_uid: int
    event_id: int = 0
    """Its number in `core.eventlog` (section 13); 0: ours, without a number."""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChoice:
    """Which events somebody wants to see; what is None excludes none."""

    job_id: str | None = None
    owner_uid: int | None = None
    event_ids: frozenset[int] | None = None
    """By their numbers; 0 stands for those without one."""
    kinds: frozenset[str] | None = None
    """Of those without a number, only these."""
    since: float | None = None
    until: float | None = None

    def takes(self, event: Chosen) -> bool:
        """Whether an event is among them."""
        return (
            self.job_id in (None, event.job_id)
            and self.owner_uid in (None, event.owner_uid)
            and (self.event_ids is None or event.event_id in self.event_ids)
            and (event.event_id != 0 or self.kinds is None or event.kind in self.kinds)
            and (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWrite:
    """A job as it is from now on.

    Of its files only those at the indices in `files` are written: a checkpoint of one file must not
    cost a write of ten thousand.  A file that is new must be among them; files never go away.
    """

    job: Job
    files: Collection[int]

    @classmethod
    def of_new(cls, job: Job) -> JobWrite:
        """A job with all its files."""
        return cls(job=job, files=range(len(job.files)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPrune:
    """Which events are no longer kept: those older than a time, and all but the newest `keep`."""

    older_than: float
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One transaction. What is forgotten is forgotten, whatever else the batch says of it."""

    jobs: Sequence[JobWrite] = ()
    forgotten: Sequence[str] = ()
    """Jobs to delete, with their files; their events stay."""
    events: Sequence[StoredEvent] = ()
    effects_added: Sequence[PendingEffect] = ()
    effects_done: Sequence[int] = ()
    proxies: Mapping[str, AccountProxy | None] = field(default_factory=dict)
    """Proxy settings by account (I20); None forgets them."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the machine by name, as JSON has them; None forgets one."""
    prune: EventPrune | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Everything that a start needs."""

    jobs: list[Job]
    """In the order in which they were created."""
    effects: list[PendingEffect]
    proxies: dict[str, AccountProxy]
    """The proxy settings that are kept, by account."""
    machine: dict[str, Any]
    """The settings of the machine that are kept, by name."""
    last_event_id: int
    """The highest id that an event ever had; 0 when there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReport:
    """How opening went, for the log."""

    set_aside: str | None = None
    """Where an unusable store was moved to (M10); None when there was none."""
    reason: str = ""
    """Why it was unusable, as a sentence."""
    created: bool = False
    """Whether the store is a new one."""
    migrated_from: int | None = None
    """The version of the store, when it was older than this program."""
