"""The client's side of the BITS upload protocol (U40–U46): digest sections 5 and 11.

The rules that it keeps:

- After an interruption a Ping comes first, then a small fragment from the last acknowledged byte.
- BITS-Received-Content-Range is believed, up, down and in the middle, and a session that the server forgot is begun
  again, but not for ever (`progress`).
- The id of a session is on the disk before the first fragment, and that the server has everything is on the disk before
  the reply is fetched and before Close: so a session that is unknown afterwards is one that is closed, and the file
  is not sent twice.  An upload-reply whose reply is not here yet begins anew then: its application must bear to get a
  file twice (U32), and nobody else has the reply.
- Close is sent again after 5xx (R6).  Refused with 1xx–4xx the session is forgotten and the job is told, except that
  401 and 407 leave the session for the time when there are credentials.
- Cancel-Session is over with any answer but 5xx.
- An empty file is one fragment without bytes, in the forms of `packets.EMPTY_RANGES`, one after the other on 400.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from openbits.errors import ErrorContext, by_hresult, error_code
from openbits.upload import bitsmemory
from openbits.upload.addresses import BadAddress, parse_host_id, replace_host, resolve_reply_url
from openbits.upload.bitsmemory import PROTOCOL_NAME, Memory
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
    FetchReply,
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
from openbits.upload.failures import (
    broken_failure,
    host_of,
    http_failure,
    invalid_answer,
    mismatch,
    remote_failure,
    short,
)
from openbits.upload.memory import is_for_size, read_memory
from openbits.upload.pace import RESUMED_BYTES
from openbits.upload.packets import (
    EMPTY_RANGES,
    METHOD,
    PROTOCOL,
    Ack,
    FragmentRange,
    PacketType,
    Request,
    parse_ack,
    render_request,
)

_SESSION_NOT_FOUND: Final = error_code("BG_E_SESSION_NOT_FOUND").hresult
_TOO_LARGE: Final = error_code("BG_E_TOO_LARGE").hresult
# What the server says of the upload itself: the same again would be answered the same, whatever the status.
_FATAL_ERRORS: Final = frozenset(
    {
        "BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH",
        "BG_E_SERVER_EXECUTE_ENABLED",
        "BG_E_TOO_LARGE",
        "E_ACCESSDENIED",
        "E_INVALIDARG",
    }
)
_NOT_REACHED: Final = frozenset((502, 503, 504))
"""What a proxy answers for a host that it cannot reach."""


class _Phase(enum.Enum):
    """What is being waited for."""

    READY = "Begin or BeginCancel"
    ENDING_OLD = "the answer to Cancel-Session of a session whose source is gone"
    CREATING = "the answer to Create-Session"
    KEEPING_SESSION = "the session's id to be on the disk"
    PINGING = "the answer to Ping"
    SENDING = "the answer to Fragment"
    KEEPING_END = "the end of the file to be on the disk"
    FETCHING = "the reply"
    KEEPING_REPLY = "the reply's being here to be on the disk"
    CLOSING = "the answer to Close-Session"
    CANCELLING = "the answer to Cancel-Session"
    OVER = "nothing"


Effects = tuple[Effect, ...]


def begin(upload: Upload, memory: str, acknowledged_bytes: int, *, is_new_source: bool = False) -> BitsConversation:
    """Make the conversation of one run; `memory` is what the last Keep of an earlier run said, or "".

    A damaged memory, or one of another target, begins anew; with another source (`is_new_source`, or another size) the
    old session is ended first.
    """
    fields = read_memory(memory, PROTOCOL_NAME, upload)
    known = bitsmemory.read(fields) or Memory()
    offset = acknowledged_bytes if known.session else 0
    is_old = bool(known.session) and (is_new_source or fields is None or not is_for_size(fields, upload))
    if not 0 <= offset <= upload.size or (offset < upload.size and known.is_received):
        # One half of what was kept is not of the other: where the server is, it says itself.
        known, offset = replace(known, is_received=False, reply_url="", has_reply=False), 0
    made = BitsConversation(upload=upload, memory=known, acknowledged_bytes=offset, ends_old_session=is_old)
    return replace(made, kept=made.state_text())


@dataclass(frozen=True, slots=True, kw_only=True)
class BitsConversation:
    """One run of an upload with a BITS server; made by `begin`."""

    upload: Upload
    memory: Memory = field(default_factory=Memory)
    acknowledged_bytes: int = 0
    ends_old_session: bool = False
    """Whether the session in the memory is of a source that is gone."""
    phase: _Phase = _Phase.READY
    sent: Chunk = field(default_factory=lambda: Chunk(offset=0, length=0))
    """The fragment that was sent last, and when."""
    sent_at: float = 0.0
    kept: tuple[str, int] = ("", 0)

    @property
    def protocol(self) -> str:
        """`bits`."""
        return PROTOCOL_NAME

    def step(self, event: Event, now: float) -> Step:
        """Take an event; raises IllegalEvent for one that nothing was asked for."""
        conversation, effects = self._react(event, now)
        within_s = _fallback_within_s(conversation.memory, now)
        if within_s is not None:
            effects = tuple(_hurried(effect, within_s) for effect in effects)
        state = conversation.state_text()
        if any(isinstance(effect, Keep) for effect in effects):
            conversation = replace(conversation, kept=state)
        elif state != conversation.kept and not any(isinstance(effect, Finished) for effect in effects):
            effects = (Keep(memory=state[0], acknowledged_bytes=state[1]), *effects)
            conversation = replace(conversation, kept=state)
        return Step(conversation=conversation, effects=effects)

    def state_text(self) -> tuple[str, int]:
        """What the next Keep would say: nothing at all without a session."""
        if not self.memory.session:
            return "", 0
        return bitsmemory.write(self.memory, self.upload), self.acknowledged_bytes

    def _react(self, event: Event, now: float) -> _Move:
        match event:
            case BeginCancel():
                return self._cancel()
            case Begin():
                return self._cancel() if self.phase is _Phase.CANCELLING else self._begin(now)
            case Broken():
                return self._broken(event, now)
            case Answered():
                return self._answered(event, now)
            case Kept():
                return self._after_keep(now)
            case ReplyFetched():
                if self.phase is not _Phase.FETCHING:
                    raise IllegalEvent(event, self.phase.value)
                fetched = self._with(replace(self.memory, has_reply=True))
                return fetched._keep(_Phase.KEEPING_REPLY)
            case _:
                assert_never(event)

    # --- beginning ---------------------------------------------------------------------------

    def _begin(self, now: float) -> _Move:
        conversation = self._with(_after_fallback(self.memory, now))
        if not conversation.memory.session:
            return conversation._create()
        if conversation.ends_old_session:
            ending = Request(packet_type=PacketType.CANCEL_SESSION, session_id=conversation.memory.session)
            return conversation._send(_Phase.ENDING_OLD, ending)
        memory = replace(conversation.memory, pace=conversation.memory.pace.resumed())
        return conversation._with(memory)._ping()

    def _create(self) -> _Move:
        request = Request(packet_type=PacketType.CREATE_SESSION, supported_protocols=(PROTOCOL,))
        return replace(self, acknowledged_bytes=0)._send(_Phase.CREATING, request)

    def _created(self, answer: Answered, ack: Ack | None, now: float) -> _Move:
        url = self.upload.url
        if ack is None or not ack.is_success:
            return self._refused(answer, ack, now)
        if ack.protocol not in (None, PROTOCOL):
            return self._fail(mismatch(url, "the server chose an upload protocol that nobody offered"))
        if not ack.session_id:
            return self._fail(invalid_answer(url, "the server opened a session and gave no usable id for it"))
        try:
            host = parse_host_id(ack.host_id) if ack.host_id else ""
        except BadAddress as error:
            return self._fail(invalid_answer(url, str(error)))
        memory = replace(
            self.memory.without_session(),
            session=ack.session_id,
            host=host,
            fallback_s=ack.host_id_fallback_timeout_s if host else None,
        )
        return self._with(memory)._keep(_Phase.KEEPING_SESSION)

    def _ping(self) -> _Move:
        return self._send(_Phase.PINGING, Request(packet_type=PacketType.PING))

    def _after_keep(self, now: float) -> _Move:
        match self.phase:
            case _Phase.KEEPING_SESSION:
                # The other host was never talked to: a Ping finds out whether it is there, and authenticates.
                return self._ping() if self.memory.host else self._go_on(now)
            case _Phase.KEEPING_END | _Phase.KEEPING_REPLY:
                return self._go_on(now)
            case _:
                raise IllegalEvent(Kept(), self.phase.value)

    # --- the bytes ---------------------------------------------------------------------------

    def _go_on(self, now: float) -> _Move:
        """Whatever comes next in a session that the server is there for."""
        memory = self.memory
        if not memory.is_received:
            return self._fragment(now)
        if not self.upload.wants_reply or memory.has_reply:
            return self._close()
        if memory.reply_url:
            return replace(self, phase=_Phase.FETCHING), (FetchReply(url=memory.reply_url),)
        # The Ack with the reply's address was lost: the last bytes again bring another (digest, section 4).
        return self._fragment(now)

    def _fragment(self, now: float) -> _Move:
        size, next_bytes = self.upload.size, self.memory.pace.next_bytes
        offset = self.acknowledged_bytes
        if offset >= size:
            offset = max(0, size - min(next_bytes, RESUMED_BYTES))
        chunk = Chunk(offset=offset, length=min(next_bytes, size - offset))
        request = Request(
            packet_type=PacketType.FRAGMENT,
            session_id=self.memory.session,
            content_name=self.upload.name if offset == 0 else "",
            range=FragmentRange(offset=offset, length=chunk.length, total=size),
        )
        conversation = replace(self, sent=chunk, sent_at=now)
        return conversation._send(_Phase.SENDING, request, body=chunk if chunk.length else None)

    def _fragment_answered(self, answer: Answered, ack: Ack | None, now: float) -> _Move:
        is_empty_form_refused = self.upload.size == 0 and answer.status in (400, 416)
        if is_empty_form_refused and self.memory.empty_form + 1 < len(EMPTY_RANGES):
            # 416 may mean that there is nothing more to send, or that this is no range at all.
            return self._with(replace(self.memory, empty_form=self.memory.empty_form + 1))._fragment(now)
        is_position = ack is not None and (ack.is_success or ack.status == 416)
        if ack is not None and is_position and not (is_empty_form_refused and ack.received_bytes is None):
            return self._received(ack, now)
        if answer.status == 413 and (ack is None or ack.error != _TOO_LARGE):
            pace = self.memory.pace.after_refusal(self.sent.length)
            if pace is not None:
                return self._with(replace(self.memory, pace=pace))._fragment(now)
        return self._refused(answer, ack, now)

    def _received(self, ack: Ack, now: float) -> _Move:
        """The server says which byte it wants next."""
        received, size = ack.received_bytes, self.upload.size
        if received is None or received > size:
            return self._fail(invalid_answer(self.upload.url, "the server does not say which byte it wants next"))
        memory = self.memory
        if ack.is_success and received >= self.sent.offset + self.sent.length:
            memory = replace(memory, pace=memory.pace.after_success(self.sent.length, now - self.sent_at))
        progress = memory.progress.after_answer(received, self.sent.offset)
        memory = replace(memory, progress=progress)
        conversation = replace(self, acknowledged_bytes=received)
        if received == size:
            return conversation._with(memory)._complete(ack)
        if progress.is_stuck:
            clause = f"the server wants byte {received} again and again, and takes nothing beyond byte {progress.mark}"
            failed = conversation._with(replace(memory, progress=progress.forgiven()))
            return failed._fail(invalid_answer(self.upload.url, clause))
        return conversation._with(replace(memory, is_received=False, reply_url=""))._fragment(now)

    def _complete(self, ack: Ack) -> _Move:
        """The server has the last byte."""
        memory = replace(self.memory, is_received=True)
        if self.upload.wants_reply and not memory.reply_url:
            if ack.reply_url:
                try:
                    memory = replace(memory, reply_url=resolve_reply_url(self.upload.url, ack.reply_url))
                except BadAddress as error:
                    return self._with(memory)._fail(invalid_answer(self.upload.url, str(error)))
            elif self.sent.offset + self.sent.length == self.upload.size:
                clause = "the server has the whole file, and names no reply to it (BITS-Reply-URL)"
                return self._with(memory)._fail(invalid_answer(self.upload.url, clause))
        return self._with(memory)._keep(_Phase.KEEPING_END)

    # --- the end -----------------------------------------------------------------------------

    def _close(self) -> _Move:
        request = Request(packet_type=PacketType.CLOSE_SESSION, session_id=self.memory.session)
        return self._send(_Phase.CLOSING, request)

    def _closed(self, answer: Answered, ack: Ack | None, now: float) -> _Move:
        if ack is not None and ack.is_success:
            return self._finish()
        if 500 <= answer.status <= 599:
            return self._fail(_failure(answer, ack, self._url(), now, transient=True))
        if 200 <= answer.status <= 299:
            return self._refused(answer, ack, now)
        if answer.status in (401, 407):
            return self._fail(_failure(answer, ack, self._url(), now))
        failure = _failure(answer, ack, self._url(), now, transient=False)
        said = error_code(failure.name).text
        message = (
            f"{host_of(self._url())}: the server has every byte, but did not end the upload to {short(self._url())}: "
            f"{said}: see whether the file is there; resuming the job sends it again"
        )
        return self._with(self.memory.without_session())._fail(replace(failure, message=message))

    def _cancel(self) -> _Move:
        if not self.memory.session:
            return self._finish()
        request = Request(packet_type=PacketType.CANCEL_SESSION, session_id=self.memory.session)
        return self._send(_Phase.CANCELLING, request)

    def _cancelled(self, answer: Answered, ack: Ack | None, now: float) -> _Move:
        if 500 <= answer.status <= 599 and not _is_unknown_session(ack):
            return self._fail(_failure(answer, ack, self._url(), now, transient=True))
        return self._finish()

    def _session_lost(self) -> _Move:
        """The server does not know the session."""
        memory = self.memory
        if memory.is_received and (memory.has_reply or not self.upload.wants_reply):
            return self._finish()
        progress = memory.progress.after_loss()
        memory = replace(memory.without_session(), progress=progress)
        if progress.is_hopeless:
            failure = remote_failure(
                "BG_E_SESSION_NOT_FOUND",
                self.upload.url,
                f"the server forgot {progress.lost} upload sessions in a row, as servers do that share no session: "
                "ask whoever runs it to set BITS-Host-Id, then resume the job",
            )
            forgiven = replace(memory, progress=progress.forgiven())
            return replace(self, acknowledged_bytes=0)._with(forgiven)._fail(failure)
        return self._with(memory)._create()

    # --- answers -----------------------------------------------------------------------------

    def _answered(self, answer: Answered, now: float) -> _Move:
        ack = parse_ack(answer.status, answer.headers)
        is_reached = ack is not None or answer.status not in _NOT_REACHED
        conversation = self._with(_after_contact(self.memory, now, is_reached=is_reached))
        has_session = self.phase in (_Phase.PINGING, _Phase.SENDING, _Phase.CLOSING)
        if has_session and _is_unknown_session(ack):
            return conversation._session_lost()
        match self.phase:
            case _Phase.CREATING:
                return conversation._created(answer, ack, now)
            case _Phase.PINGING:
                is_there = ack is not None and ack.is_success
                return conversation._go_on(now) if is_there else conversation._refused(answer, ack, now)
            case _Phase.SENDING:
                return conversation._fragment_answered(answer, ack, now)
            case _Phase.CLOSING:
                return conversation._closed(answer, ack, now)
            case _Phase.CANCELLING:
                return conversation._cancelled(answer, ack, now)
            case _Phase.ENDING_OLD:
                return conversation._begin_anew()
            case _:
                raise IllegalEvent(answer, self.phase.value)

    def _broken(self, event: Broken, now: float) -> _Move:
        url = self._url()
        if self.phase is _Phase.ENDING_OLD:
            return self._begin_anew()
        memory = self.memory
        if not event.was_reached:
            memory = _after_contact(memory, now, is_reached=False)
        elif self.phase is _Phase.SENDING:
            memory = replace(memory, pace=memory.pace.after_break(self.sent.length))
        phase = _Phase.CANCELLING if self.phase is _Phase.CANCELLING else _Phase.READY
        return replace(self, memory=memory, phase=phase), (TakeUp(failure=broken_failure(event, url)),)

    def _begin_anew(self) -> _Move:
        memory = Memory(pace=self.memory.pace.for_new_session())
        return replace(self, memory=memory, ends_old_session=False)._create()

    def _refused(self, answer: Answered, ack: Ack | None, now: float) -> _Move:
        """An answer that ends the run."""
        url = self._url()
        if not 200 <= answer.status <= 299:
            return self._fail(_failure(answer, ack, url, now))
        if self.phase is _Phase.CREATING:
            return self._fail(mismatch(url, "what answers there does not speak the BITS upload protocol"))
        # Somebody else answers for the server, as the log-in pages of public networks do: it may be back later.
        clause = f"the answer ({answer.status}) is none of the BITS upload protocol"
        return self._fail(invalid_answer(url, clause, transient=True))

    # --- moves -------------------------------------------------------------------------------

    def _with(self, memory: Memory) -> BitsConversation:
        return self if memory is self.memory else replace(self, memory=memory)

    def _url(self) -> str:
        return replace_host(self.upload.url, self.memory.host) if self.memory.host else self.upload.url

    def _send(self, phase: _Phase, request: Request, body: Chunk | None = None) -> _Move:
        is_empty = request.range is not None and request.range.length == 0
        empty_range = EMPTY_RANGES[self.memory.empty_form] if is_empty else ""
        headers = render_request(request, empty_range=empty_range)
        ends = request.packet_type in (PacketType.CLOSE_SESSION, PacketType.CANCEL_SESSION)
        send = Send(method=METHOD, url=self._url(), headers=headers, body=body, ends_session=ends)
        return replace(self, phase=phase), (send,)

    def _keep(self, phase: _Phase) -> _Move:
        memory, acknowledged_bytes = self.state_text()
        keep = Keep(memory=memory, acknowledged_bytes=acknowledged_bytes, is_awaited=True)
        return replace(self, phase=phase), (keep,)

    def _fail(self, failure: Failure) -> _Move:
        return replace(self, phase=_Phase.OVER), (Failed(failure=failure),)

    def _finish(self) -> _Move:
        return replace(self, phase=_Phase.OVER), (Finished(),)


_Move = tuple[BitsConversation, Effects]


def _is_unknown_session(ack: Ack | None) -> bool:
    return ack is not None and not ack.is_success and ack.error == _SESSION_NOT_FOUND


def _after_contact(memory: Memory, now: float, *, is_reached: bool) -> Memory:
    """The fallback timer runs from the first vain try, and success sets it back (U7)."""
    if not memory.host or is_reached:
        return memory if memory.unreachable_since is None else replace(memory, unreachable_since=None)
    return memory if memory.unreachable_since is not None else replace(memory, unreachable_since=now)


def _after_fallback(memory: Memory, now: float) -> Memory:
    """The first host again, for the same upload, when the other was unreachable for too long (U7)."""
    since = memory.unreachable_since
    if not memory.host or since is None or memory.fallback_s is None:
        return memory
    if now < since:
        # The clock was set back: the time that has passed is not known, and begins anew.
        return replace(memory, unreachable_since=now)
    if now - since < memory.fallback_s:
        return memory
    return replace(memory, host="", fallback_s=None, unreachable_since=None)


def _fallback_within_s(memory: Memory, now: float) -> int | None:
    """In how many seconds the first host's turn comes; None where no timer runs."""
    if not memory.host or memory.unreachable_since is None or memory.fallback_s is None:
        return None
    return max(1, math.ceil(memory.unreachable_since + memory.fallback_s - now))


def _hurried(effect: Effect, within_s: int) -> Effect:
    """The next attempt is worth more when the first host's turn has come than after any delay (U7)."""
    if isinstance(effect, TakeUp | Failed) and effect.failure.transient:
        return replace(effect, failure=replace(effect.failure, retry_within_s=within_s))
    return effect


def _failure(answer: Answered, ack: Ack | None, url: str, now: float, *, transient: bool | None = None) -> Failure:
    """What an error means: BITS-Error-Code if the table has it, else the status (R1, U45)."""
    if ack is None:
        return http_failure(answer, url, now, transient=transient)
    row = by_hresult(ack.error) if ack.error is not None else None
    name = row.name if row is not None and not row.is_success else ""
    is_application = ack.error_context == ErrorContext.REMOTE_APPLICATION
    if transient is None and (name == "BG_E_TOO_LARGE" or (name in _FATAL_ERRORS and not is_application)):
        transient = False
    context = ErrorContext.REMOTE_APPLICATION if is_application else ErrorContext.REMOTE_FILE
    return http_failure(answer, url, now, name=name, context=context, transient=transient)
