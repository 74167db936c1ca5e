"""Uploads to a resource that the server makes for each: what tus and the IETF's draft have in common.

A resource is created, pieces are appended at the offset that the server names, and after an interruption it is asked
for its offset.  What differs, names of headers and signs of the end, is a `Dialect`.  The rules are those of the BITS
conversation: the resource's address is on the disk before the first byte is sent, the server is believed but not for
ever, and only what it has acknowledged counts.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, assert_never

from openbits.upload.addresses import URL_LIMIT, BadAddress, directory_for, is_http_url, resolve_location
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Broken,
    Chunk,
    Effect,
    Event,
    Failed,
    Failure,
    Finished,
    IllegalEvent,
    Keep,
    Kept,
    ReplyFetched,
    Send,
    Step,
    TakeUp,
    Upload,
)
from openbits.upload.failures import broken_failure, http_failure, invalid_answer, mismatch, remote_failure
from openbits.upload.memory import BadMemory, Fields, is_for_size, read_memory, write_memory
from openbits.upload.pace import Pace, read_pace
from openbits.upload.progress import Progress, read_progress

_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_GONE: Final = frozenset((404, 410))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server said of the sizes that it takes, in bytes."""

    largest: int | None = None
    """Of a whole file."""
    most: int | None = None
    """Of one request."""
    least: int = 0
    """Of one request that is not the last."""


class Dialect(Protocol):
    """One protocol's words."""

    @property
    def name(self) -> str:
        """Its name in `bits put --protocol`."""

    def create(self, upload: Upload, url: str) -> Send:
        """Ask for a resource at `url`."""

    def ask(self, location: str) -> Send:
        """Ask for the offset."""

    def append(self, location: str, upload: Upload, chunk: Chunk, /) -> Send:
        """Send a piece; the last one ends the upload."""

    def cancel(self, location: str) -> Send:
        """Have the resource removed."""

    def is_complete(self, answer: Answered, offset: int, upload: Upload, /) -> bool:
        """Whether the server has ended the upload: all bytes are there, and it knows that they are all."""

    def is_of_the_content(self, answer: Answered, /) -> bool:
        """Whether an error is about the whole file, which the server has, rather than about its transfer."""

    def limits(self, answer: Answered, /) -> Limits:
        """What an answer says of limits."""


class _Phase(enum.Enum):
    READY = "Begin or BeginCancel"
    ENDING_OLD = "the answer to the end of an upload whose source is gone"
    CREATING = "the answer to the creation"
    KEEPING = "the resource's address to be on the disk"
    ASKING = "the answer about the offset"
    SENDING = "the answer to a piece"
    CANCELLING = "the answer to the cancellation"
    OVER = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a later run must know."""

    location: str = ""
    """The resource's address; "" where there is none."""
    endpoint: str = ""
    """Where resources are made; "": at the remote name."""
    least_bytes: int = 0
    most_bytes: int = 0
    """Limits of one request; 0: none known."""
    progress: Progress = field(default_factory=Progress)
    pace: Pace = field(default_factory=Pace)

    def without_resource(self) -> Memory:
        """What is known of the server."""
        return Memory(endpoint=self.endpoint, progress=self.progress, pace=self.pace.for_new_session())


def begin(
    dialect: Dialect,
    upload: Upload,
    memory: str,
    acknowledged_bytes: int,
    *,
    endpoint: str = "",
    is_new_source: bool = False,
) -> ResumableConversation:
    """Make the conversation of one run; a memory that is damaged, or of another target, begins anew.

    `endpoint` is where uploads are made if it is known to be elsewhere than at the remote name.
    """
    fields = read_memory(memory, dialect.name, upload)
    known = (_read(fields, upload) if fields is not None else None) or Memory(endpoint=endpoint)
    is_old = bool(known.location) and (is_new_source or fields is None or not is_for_size(fields, upload))
    offset = acknowledged_bytes if known.location and 0 <= acknowledged_bytes <= upload.size else 0
    made = ResumableConversation(
        dialect=dialect, upload=upload, memory=known, acknowledged_bytes=offset, ends_old_upload=is_old
    )
    return replace(made, kept=made.state_text())


def _read(fields: Fields, upload: Upload) -> Memory | None:
    try:
        location = fields.text("location", 2 * URL_LIMIT)
        if location and not is_http_url(location):
            return None
        return Memory(
            location=location,
            endpoint=directory_for(upload.url, upload.name) if fields.flag("is_made_by_directory") else "",
            least_bytes=fields.number("least_bytes", 2**62),
            most_bytes=fields.number("most_bytes", 2**62),
            progress=read_progress(fields),
            pace=read_pace(fields),
        )
    except BadMemory:
        return None


def upload_offset(answer: Answered) -> int | None:
    """Upload-Offset as a number, or None."""
    value = (answer.get("upload-offset") or "").strip()
    return int(value) if _NUMBER.match(value) else None


Effects = tuple[Effect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumableConversation:
    """One run of an upload; made by `begin`."""

    dialect: Dialect
    upload: Upload
    memory: Memory = field(default_factory=Memory)
    acknowledged_bytes: int = 0
    ends_old_upload: bool = False
    phase: _Phase = _Phase.READY
    sent: Chunk = field(default_factory=lambda: Chunk(offset=0, length=0))
    sent_at: float = 0.0
    kept: tuple[str, int] = ("", 0)

    @property
    def protocol(self) -> str:
        """The dialect's name."""
        return self.dialect.name

    def step(self, event: Event, now: float) -> Step:
        """Take an event; raises IllegalEvent for one that nothing was asked for."""
        conversation, effects = self._react(event, now)
        state = conversation.state_text()
        if state != conversation.kept and not any(isinstance(effect, Keep) for effect in effects):
            effects = (Keep(memory=state[0], acknowledged_bytes=state[1]), *effects)
        return Step(conversation=replace(conversation, kept=state), effects=effects)

    def state_text(self) -> tuple[str, int]:
        """What the next Keep would say: nothing at all without a resource."""
        memory = self.memory
        if not memory.location:
            return "", 0
        values = {
            "location": memory.location,
            "is_made_by_directory": bool(memory.endpoint),
            "least_bytes": memory.least_bytes,
            "most_bytes": memory.most_bytes,
        }
        values |= memory.progress.values() | memory.pace.values()
        return write_memory(self.dialect.name, self.upload, values), self.acknowledged_bytes

    def _react(self, event: Event, now: float) -> _Move:
        match event:
            case BeginCancel():
                return self._cancel()
            case Begin():
                return self._cancel() if self.phase is _Phase.CANCELLING else self._begin()
            case Broken():
                return self._broken(event)
            case Answered():
                return self._answered(event, now)
            case Kept() if self.phase is _Phase.KEEPING:
                return self._go_on(now)
            case Kept() | ReplyFetched():
                raise IllegalEvent(event, self.phase.value)
            case _:
                assert_never(event)

    # --- requests ----------------------------------------------------------------------------

    def _begin(self) -> _Move:
        if not self.memory.location:
            return self._create()
        if self.ends_old_upload:
            return replace(self, phase=_Phase.ENDING_OLD), (self.dialect.cancel(self.memory.location),)
        return self._with(replace(self.memory, pace=self.memory.pace.resumed()))._ask()

    def _create(self) -> _Move:
        send = self.dialect.create(self.upload, self._endpoint())
        return replace(self, phase=_Phase.CREATING, acknowledged_bytes=0), (send,)

    def _endpoint(self) -> str:
        return self.memory.endpoint or self.upload.url

    def _ask(self) -> _Move:
        return replace(self, phase=_Phase.ASKING), (self.dialect.ask(self.memory.location),)

    def _go_on(self, now: float) -> _Move:
        """The next piece, from what the server has acknowledged; without bytes where only the end is missing."""
        memory, left = self.memory, self.upload.size - self.acknowledged_bytes
        length = max(memory.pace.next_bytes, memory.least_bytes)
        if memory.most_bytes:
            length = min(length, memory.most_bytes)
        chunk = Chunk(offset=self.acknowledged_bytes, length=min(length, left))
        send = self.dialect.append(memory.location, self.upload, chunk)
        return replace(self, phase=_Phase.SENDING, sent=chunk, sent_at=now), (send,)

    def _cancel(self) -> _Move:
        if not self.memory.location:
            return self._finish()
        return replace(self, phase=_Phase.CANCELLING), (self.dialect.cancel(self.memory.location),)

    # --- answers -----------------------------------------------------------------------------

    def _answered(self, answer: Answered, now: float) -> _Move:
        match self.phase:
            case _Phase.CREATING:
                return self._created(answer, now)
            case _Phase.ASKING:
                return self._told_offset(answer, now)
            case _Phase.SENDING:
                return self._piece_answered(answer, now)
            case _Phase.ENDING_OLD:
                return self._begin_anew()
            case _Phase.CANCELLING:
                return self._cancelled(answer, now)
            case _:
                raise IllegalEvent(answer, self.phase.value)

    def _cancelled(self, answer: Answered, now: float) -> _Move:
        failure = http_failure(answer, self.memory.location, now, transient=True)
        if answer.status == 423:
            return self, (TakeUp(failure=failure),)
        return self._fail(failure) if 500 <= answer.status <= 599 else self._finish()

    def _created(self, answer: Answered, now: float) -> _Move:
        url = self._endpoint()
        directory = directory_for(url, self.upload.name)
        if answer.status in (404, 405) and directory and not self.memory.endpoint:
            return self._with(replace(self.memory, endpoint=directory))._create()
        if not 200 <= answer.status <= 299:
            return self._refused(answer, url, now)
        location = answer.get("location")
        if location is None:
            return self._fail(mismatch(url, f"what answers there does not speak {self.dialect.name}"))
        try:
            location = resolve_location(url, location)
        except BadAddress as error:
            return self._fail(invalid_answer(url, str(error)))
        limits = self.dialect.limits(answer)
        conversation = self._with(
            replace(
                self.memory.without_resource(),
                location=location,
                least_bytes=limits.least,
                most_bytes=limits.most or 0,
            )
        )
        if limits.largest is not None and limits.largest < self.upload.size:
            clause = f"the server takes {limits.largest} bytes at most, the file has {self.upload.size}"
            return conversation._fail(remote_failure("BG_E_TOO_LARGE", url, f"{clause}: send a smaller file"))
        if self.dialect.is_complete(answer, 0, self.upload):
            return conversation._complete()
        memory, acknowledged_bytes = conversation.state_text()
        keep = Keep(memory=memory, acknowledged_bytes=acknowledged_bytes, is_awaited=True)
        return replace(conversation, phase=_Phase.KEEPING), (keep,)

    def _told_offset(self, answer: Answered, now: float) -> _Move:
        location = self.memory.location
        if not 200 <= answer.status <= 299:
            return self._refused(answer, location, now)
        offset = upload_offset(answer)
        if offset is None and answer.get("upload-offset") is None:
            # Somebody else answers for the server, as the log-in pages of public networks do.
            return self._fail(invalid_answer(location, "the answer is none of an upload", transient=True))
        if offset is None or offset > self.upload.size:
            return self._fail(invalid_answer(location, "the server does not say which byte it wants next"))
        conversation = replace(self, acknowledged_bytes=offset)
        is_complete = offset == self.upload.size and self.dialect.is_complete(answer, offset, self.upload)
        return conversation._complete() if is_complete else conversation._go_on(now)

    def _piece_answered(self, answer: Answered, now: float) -> _Move:
        location, memory = self.memory.location, self.memory
        if answer.status == 409:
            # The server is elsewhere: it is asked where.
            progress = memory.progress.after_answer(0, self.sent.offset)
            conversation = self._with(replace(memory, progress=progress))
            return conversation._stuck() if progress.is_stuck else conversation._ask()
        if answer.status == 413:
            pace = memory.pace.after_refusal(self.sent.length)
            if pace is not None:
                return self._with(replace(memory, pace=pace, least_bytes=0))._go_on(now)
        if not 200 <= answer.status <= 299:
            return self._refused(answer, location, now)
        end = self.sent.offset + self.sent.length
        offset = upload_offset(answer)
        if self.dialect.is_complete(answer, end if offset is None else offset, self.upload):
            return replace(self, acknowledged_bytes=self.upload.size)._complete()
        if offset is None:
            # Not all dialects say it again when everything went well.
            offset = end
        if offset > self.upload.size:
            return self._fail(invalid_answer(location, "the server does not say which byte it wants next"))
        if offset >= end:
            memory = replace(memory, pace=memory.pace.after_success(self.sent.length, now - self.sent_at))
        memory = replace(memory, progress=memory.progress.after_answer(offset, self.sent.offset))
        conversation = replace(self, acknowledged_bytes=offset)._with(memory)
        if memory.progress.is_stuck:
            return conversation._stuck()
        # It has all, and does not say that it knows: it is asked.
        return conversation._ask() if offset == self.upload.size else conversation._go_on(now)

    def _stuck(self) -> _Move:
        clause = f"the server takes nothing beyond byte {self.memory.progress.mark}, however often it is sent"
        forgiven = self._with(replace(self.memory, progress=self.memory.progress.forgiven()))
        return forgiven._fail(invalid_answer(self.memory.location, clause))

    def _refused(self, answer: Answered, url: str, now: float) -> _Move:
        if self.phase is not _Phase.CREATING and answer.status in _GONE:
            return self._lost()
        if answer.status == 423:
            # The server still holds what a broken connection has left behind.
            failure = http_failure(answer, url, now, transient=True)
            return replace(self, phase=_Phase.READY), (TakeUp(failure=failure),)
        if answer.status == 412:
            return self._fail(mismatch(url, f"the server speaks another version of {self.dialect.name}"))
        failure = http_failure(answer, url, now)
        if self.phase is _Phase.SENDING and self.dialect.is_of_the_content(answer):
            # Going on would find a finished upload, and call it a success.
            return self._with(self.memory.without_resource())._fail(failure)
        return self._fail(failure)

    def _lost(self) -> _Move:
        progress = self.memory.progress.after_loss()
        memory = replace(self.memory.without_resource(), progress=progress)
        if progress.is_hopeless:
            clause = f"the server forgot {progress.lost} uploads in a row: ask whoever runs it, then resume the job"
            failure = remote_failure("BG_E_SESSION_NOT_FOUND", self.upload.url, clause)
            return self._with(replace(memory, progress=progress.forgiven()))._fail(failure)
        return self._with(memory)._create()

    def _broken(self, event: Broken) -> _Move:
        url = self.memory.location or self.upload.url
        if self.phase is _Phase.ENDING_OLD:
            return self._begin_anew()
        memory = self.memory
        if event.was_reached and self.phase is _Phase.SENDING:
            memory = replace(memory, pace=memory.pace.after_break(self.sent.length))
        phase = _Phase.CANCELLING if self.phase is _Phase.CANCELLING else _Phase.READY
        return replace(self, memory=memory, phase=phase), (TakeUp(failure=broken_failure(event, url)),)

    # --- moves -------------------------------------------------------------------------------

    def _begin_anew(self) -> _Move:
        memory = Memory(endpoint=self.memory.endpoint, pace=self.memory.pace.for_new_session())
        return replace(self, memory=memory, ends_old_upload=False)._create()

    def _with(self, memory: Memory) -> ResumableConversation:
        return replace(self, memory=memory)

    def _complete(self) -> _Move:
        done = replace(self, acknowledged_bytes=self.upload.size, phase=_Phase.OVER)
        memory, acknowledged_bytes = done.state_text()
        return done, (Keep(memory=memory, acknowledged_bytes=acknowledged_bytes), Finished())

    def _fail(self, failure: Failure) -> _Move:
        return replace(self, phase=_Phase.OVER), (Failed(failure=failure),)

    def _finish(self) -> _Move:
        return replace(self, phase=_Phase.OVER), (Finished(),)


_Move = tuple[ResumableConversation, Effects]
