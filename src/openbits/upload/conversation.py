"""What the client's side of every upload protocol looks like: a frozen value that takes events and returns effects.

The rules that a conversation keeps, whatever it speaks:

- It does nothing: requests, waiting and reading stand at the edge (`openbits.worker.upload`), and so does the clock.
- One request at a time. After a `Send` comes exactly one of `Answered`, `Broken`, or `Begin` (another run).
- What a later run must know to go on with the same session from the same byte is in a `Keep`, as text; a Keep that is
  awaited is on the disk before anything else is sent (the event `Kept` says so).  A run that finds such a text goes on
  with it, whatever happened in between.
- Only bytes that the server has acknowledged count.

A conversation ends with `Finished` or `Failed`; after either it is not asked again in this run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from openbits.errors import ErrorContext

MEMORY_LIMIT: Final = 8_192
"""Characters of what a conversation keeps for a later run."""
DAY_S: Final = 86_400


# --- what is uploaded --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file and where it goes."""

    url: str
    """The remote name, as the job has it."""
    name: str
    """The local file's name without its path; may hold characters that no header can."""
    size: int
    wants_reply: bool = False
    """Whether it belongs to an UPLOAD_REPLY job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes of the file that a request carries."""

    offset: int
    length: int


# --- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Begin, or go on after the connection was lost or another run has ended. The first event of every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginCancel:
    """The first event instead of Begin: the job is cancelled, and only the session is to be ended at the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to the last request, whole; challenges (401, 407) that could be met have been met before."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    is_body_sent: bool = True
    """Whether the request's body had been sent whole when the answer came."""

    def get(self, name: str) -> str | None:
        """Return the last value of a header; `name` in lower case."""
        found = None
        for each, value in self.headers:
            if each == name:
                found = value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """There was no answer, or not a whole one: what came of the request is not known."""

    was_reached: bool
    """Whether a connection to the server was there at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the last awaited Keep asked for is on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFetched:
    """The reply that FetchReply asked for is whole and durable."""


Event = Begin | BeginCancel | Answered | Broken | Kept | ReplyFetched


# --- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Make this request, and tell of the answer. Content-Length is the edge's to write (0 without a body)."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: Chunk | None = None
    ends_session: bool = False
    """Whether it only closes or cancels: the edge needs no source for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Write this down, with how many bytes the server has acknowledged."""

    memory: str
    acknowledged_bytes: int
    is_awaited: bool = False
    """Whether nothing is sent before Kept; never together with another effect after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReply:
    """Download the reply of an UPLOAD_REPLY job, then tell ReplyFetched."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeUp:
    """Wait as the edge's patience with broken connections says, then Begin; or give up with this failure."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The server has the file, the reply is here, and no session is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It ends here for this run."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why; `name` is of the error table, `message` a sentence that says what to do."""

    name: str
    context: ErrorContext
    message: str
    transient: bool
    retry_after_s: int | None = None
    retry_within_s: int | None = None
    """By when the next attempt would find things changed: it need not wait for its retry delay."""


Effect = Send | Keep | FetchReply | TakeUp | Finished | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an event made of a conversation, and what is to be done now, in this order."""

    conversation: Conversation
    effects: tuple[Effect, ...] = field(default=())


class IllegalEvent(Exception):
    """The edge told of something that the conversation did not ask for."""

    def __init__(self, event: Event, awaited: str) -> None:
        super().__init__(f"{type(event).__name__} came while the conversation waits for {awaited}")


class Conversation(Protocol):
    """The client's side of one protocol; `protocol` is its name in `bits put --protocol`."""

    @property
    def protocol(self) -> str:
        """`bits`, `tus`, `ietf`, `put`; `auto` before it is known."""

    def step(self, event: Event, now: float) -> Step:
        """Take an event; `now` is the wall clock in seconds since the epoch (timers must outlive a reboot)."""


# `upload.protocols.start(protocol, upload, memory, acknowledged_bytes)` makes one: `memory` is what the last Keep of an
# earlier run said, or "".  A memory that names a protocol wins over `auto`.
