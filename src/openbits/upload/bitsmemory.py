"""What a BITS upload must know to go on in a later run: its session, where it is, and how patient it has been."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from openbits.upload.addresses import URL_LIMIT, BadAddress, is_http_url, parse_host_id
from openbits.upload.conversation import Upload
from openbits.upload.memory import BadMemory, Fields, write_memory
from openbits.upload.pace import Pace, read_pace
from openbits.upload.packets import (
    EMPTY_RANGES,
    HOST_ID_LIMIT,
    NEVER_FALL_BACK,
    SESSION_ID_LIMIT,
    is_session_id,
)
from openbits.upload.progress import Progress, read_progress

PROTOCOL_NAME: Final = "bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One session, and what outlives it."""

    session: str = ""
    """The id that the server gave; "" where there is no session."""
    host: str = ""
    """The host of BITS-Host-Id as it stands in a URL; "" for the one of the remote name."""
    fallback_s: int | None = None
    """How long it may be unreachable; None: for ever."""
    unreachable_since: float | None = None
    is_received: bool = False
    """Whether the server has acknowledged the last byte."""
    reply_url: str = ""
    """Where the reply is, absolute."""
    has_reply: bool = False
    """Whether it is here."""
    empty_form: int = 0
    """Which form of an empty file's range is being tried."""
    progress: Progress = field(default_factory=Progress)
    pace: Pace = field(default_factory=Pace)

    def without_session(self) -> Memory:
        """What is known of the server when the session is over."""
        return Memory(empty_form=self.empty_form, progress=self.progress, pace=self.pace.for_new_session())


def write(memory: Memory, upload: Upload) -> str:
    """The text for Keep."""
    values = {
        "session": memory.session,
        "host": memory.host,
        # 0 seconds is not the same as never.
        "fallback_s": NEVER_FALL_BACK if memory.fallback_s is None else memory.fallback_s,
        "unreachable_since": memory.unreachable_since,
        "is_received": memory.is_received,
        "reply_url": memory.reply_url,
        "has_reply": memory.has_reply,
        "empty_form": memory.empty_form,
    }
    return write_memory(PROTOCOL_NAME, upload, values | memory.progress.values() | memory.pace.values())


def read(fields: Fields | None) -> Memory | None:
    """What a text of `write` says, or None when it was damaged: then the upload begins anew."""
    if fields is None:
        return None
    try:
        memory = _read(fields)
        if memory.session and not is_session_id(memory.session):
            return None
        if memory.host and parse_host_id(memory.host) != memory.host:
            return None
        if memory.reply_url and not is_http_url(memory.reply_url):
            return None
    except (BadMemory, BadAddress):
        return None
    return memory


def _read(fields: Fields) -> Memory:
    fallback_s = fields.number("fallback_s", NEVER_FALL_BACK)
    return Memory(
        session=fields.text("session", SESSION_ID_LIMIT),
        host=fields.text("host", HOST_ID_LIMIT + 2),
        fallback_s=None if fallback_s == NEVER_FALL_BACK else fallback_s,
        unreachable_since=fields.moment("unreachable_since"),
        is_received=fields.flag("is_received"),
        reply_url=fields.text("reply_url", URL_LIMIT),
        has_reply=fields.flag("has_reply"),
        empty_form=fields.number("empty_form", len(EMPTY_RANGES) - 1),
        progress=read_progress(fields),
        pace=read_pace(fields),
    )
