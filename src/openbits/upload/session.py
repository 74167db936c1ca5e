"""What an upload session is to the server, what can happen to it, and what is then to be done: values, all frozen.

`openbits.upload.server` decides; whoever has the files and the connections performs (`openbits.server.uploads`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from openbits.upload.packets import Ack

# --- what is decided by whoever runs the server ------------------------------------------------


class Overlap(enum.Enum):
    """What becomes of a fragment that begins before the byte that is wanted."""

    DEDUPE = "dedupe"
    """Only what is new of it is stored (Win32 documentation)."""
    REFUSE = "refuse"
    """416, and the client goes on at the byte that is wanted ([MC-BUP] 3.2.5.2.6)."""


class Finalize(enum.Enum):
    """When a whole file gets its name."""

    LAST_FRAGMENT = "last-fragment"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for the directory that a request goes to."""

    is_enabled: bool = True
    """U1."""
    maximum_bytes: int | None = None
    """U3; None: no limit."""
    has_application: bool = False
    """U4: whether a server application is notified."""
    may_overwrite: bool = False
    """U8."""
    host_id: str = ""
    """U6."""
    host_id_fallback_timeout_s: int | None = None
    """U7; None: never."""
    overlap: Overlap = Overlap.DEDUPE
    finalize: Finalize = Finalize.LAST_FRAGMENT


# --- sessions ----------------------------------------------------------------------------------


class Phase(enum.Enum):
    """How far a session has come."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    """Every byte is durable; the application has not answered yet."""
    ACCEPTED = "accepted"
    """The application, if there is one, has the file; it may still have to get its name."""
    REFUSED = "refused"
    """The application said 403: it is not asked again (R2)."""
    DONE = "done"
    """Only Close-Session is awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One upload; all of it has to be found again after a restart."""

    id: str
    total_bytes: int | None = None
    """None before the first fragment."""
    received_bytes: int = 0
    phase: Phase = Phase.RECEIVING
    is_published: bool = True
    """Whether the file gets the name in the URL; with an application only if that asks for it."""
    reply_url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Say everything in terms of JSON."""
        return {
            "id": self.id,
            "total_bytes": self.total_bytes,
            "received_bytes": self.received_bytes,
            "phase": self.phase.value,
            "is_published": self.is_published,
            "reply_url": self.reply_url,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Session:
        """Read what to_json said; raises KeyError, ValueError, TypeError for anything else."""
        return cls(**{**said, "phase": Phase(said["phase"])})


# --- events ------------------------------------------------------------------------------------


class Place(enum.Enum):
    """What stands where the file is to go."""

    FREE = "free"
    FILE = "file"
    DIRECTORY = "directory"
    MISSING = "missing"
    """There is no such directory to put the file in."""
    FORBIDDEN = "forbidden"
    """It is not for uploads, or the server's account may not write there."""


class Trouble(enum.Enum):
    """Why an effect failed."""

    EXISTS = "exists"
    DIRECTORY = "directory"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    VANISHED = "vanished"
    """The file of the session itself is gone."""
    NO_ROOM = "no-room"
    TOO_LARGE = "too-large"
    """More than the file system can hold in one file."""
    TOO_MANY = "too-many"
    """There are as many sessions as the server may have."""
    BROKEN = "broken"
    """The disk, or a mistake of ours: the log says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request came in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What Look saw."""

    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """There is a new session, and it is durable."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The body was read to its end; the session's file has so many bytes."""

    received_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenOff:
    """The client went away within the body, or has begun anew on another connection."""

    received_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStored:
    """The file could not take the body, or not all of it."""

    received_bytes: int
    trouble: Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Every byte of the file is durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notified:
    """The application answered with success."""

    reply_url: str = ""
    """Where the client finds the reply: BITS-Static-Response-URL, or a place of ours; empty: there is none."""
    wants_file: bool = False
    """Whether it said BITS-Copy-File-To-Destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotNotified:
    """The application answered with an error, too late, or not at all."""

    status: int
    error: int | None = None
    """An HRESULT; None: the one that belongs to the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The file has its name, durably."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What Make, Seal, Keep or Publish was to do could not be done."""

    trouble: Trouble


Event = Asked | Looked | Made | Stored | BrokenOff | NotStored | Sealed | Notified | NotNotified | Published | Failed


# --- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """See what stands at the destination; then Looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """Make a session, durably, under an id that nobody can guess; then Made or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Leave out `skip` bytes of the body, write the next `length` to the session's file at `offset`.

    Then Stored, BrokenOff or NotStored.  The file is made with the first Store, also where length is 0; room for
    `total_bytes` is reserved, or refused, before a byte is read.
    """

    offset: int
    skip: int
    length: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Make the session's file durable; then Sealed or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Make the session, as this step leaves it, durable before the next effect.

    When that fails, the session is what it was before the step, and the event is Failed.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Give the file to the server application; then Notified or NotNotified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Give the session's file its name, in one moment, durably; then Published or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Forget the session, and delete its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer the request; `reason` is for the log."""

    ack: Ack
    reason: str = ""


Effect = Look | Make | Store | Seal | Keep | Notify | Publish | Drop | Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an event made of the session, and what is to be done now, in this order.

    A session that changed without a Keep is written down when there is time: losing that change costs nothing.
    """

    session: Session | None
    effects: tuple[Effect, ...] = field(default=())
