"""One upload on its way: does what the protocol's conversation says, and tells it what came of it.

What is to be said is decided by `openbits.upload`; here stand the source, the connection, the patience and the stop.
An upload ends exactly once: `on_done`, or `on_closed`, which `on_failed` may have announced.
"""

from __future__ import annotations

import enum
import time
from dataclasses import replace
from typing import Protocol, assert_never

from openbits.core.http import Response
from openbits.core.names import request_url
from openbits.core.redirects import RedirectRefused, redirect_target
from openbits.core.retry import GiveUp, Patience
from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec, FileStarted, UploadFile, UploadMoved
from openbits.upload import protocols, put
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Broken,
    Conversation,
    Effect,
    Event,
    Failed,
    FetchReply,
    Finished,
    Keep,
    Kept,
    ReplyFetched,
    Send,
    TakeUp,
)
from openbits.upload.conversation import Failure as ConversationFailure
from openbits.upload.conversation import Upload as Subject
from openbits.worker.answers import remote_failure
from openbits.worker.exchange import Exchange, Surroundings
from openbits.worker.failure import Failure
from openbits.worker.headers import lines_for, upload_lines
from openbits.worker.loop import Timer
from openbits.worker.run import Lane, Tools
from openbits.worker.source import Source, changed, is_as_before


class Run(Surroundings, Protocol):
    """The transfer that an upload belongs to."""

    tools: Tools
    has_progressed: bool

    def open_source(self, upload: Upload) -> None:
        """Have the source opened by whoever may: `source_opened` follows."""

    def fetch_reply(self, spec: FileSpec, meant_for: str) -> None:
        """Download the reply: `reply_fetched` follows when it is whole and durable."""

    def fail_reply(self, failure: Failure) -> None:
        """The reply cannot be fetched: the run ends with that."""

    def send_started(self, message: FileStarted) -> None:
        """The server has answered."""

    def send_moved(self, message: UploadMoved) -> None:
        """The service is to write something down."""

    def on_headers(self, index: int, response_headers: str) -> None:
        """The last answer had these headers, and it is not the one that `send_started` told of."""

    def on_received(self, index: int, received_bytes: int) -> None:
        """So many bytes have been sent, for people to see."""

    def on_broken(self, index: int, message: str) -> None:
        """A connection is about to be taken up again."""

    def on_done(self, fetch: Upload, size: int) -> None:
        """The server has the file."""

    def on_failed(self, fetch: Upload, failure: Failure) -> None:
        """It cannot be sent; `on_closed` follows."""

    def on_closed(self, fetch: Upload) -> None:
        """Nothing of it is open any more."""


class _Phase(enum.Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class Upload:
    """See the module."""

    def __init__(self, run: Run, lane: Lane, order: UploadFile) -> None:
        self.run = run
        self.spec = order.file
        self.source: Source | None = None
        self._order = order
        self._loop = run.tools.loop
        self._url = wire_host(order.file.remote_name)
        self._lines = upload_lines(run.settings.custom_headers)
        self._phase = _Phase.NEW
        self._conversation: Conversation | None = None
        self._sent: Send | None = None
        """The last request."""
        self._waiting_send: Send | None = None
        """A request whose body waits for the source to be opened."""
        self._awaited: int | None = None
        """Number of the UploadMoved that must be on the disk before anything else is sent."""
        self._moves = 0
        self._size = 0
        self._acknowledged_bytes = order.file.durable_bytes
        self._has_answered = False
        self._told: Response | None = None
        """The last answer whose headers were told (F10)."""
        self._is_fresh = False
        self._broken: Failure | None = None
        """Why the last request had no answer."""
        self._status = 0
        """What the last request was answered."""
        self._memory = order.memory
        """What the conversation has kept last."""
        self._patience = Patience(limit_s=run.settings.break_patience_s)
        self._progress_at: float | None = self._loop.now if run.has_progressed else None
        self._furthest = order.file.durable_bytes
        self._pause: Timer | None = None
        self._exchange = Exchange(
            run,
            lane,
            self._loop,
            meant_for=self._url,
            userinfo=order.file.userinfo,
            on_answer=self._on_answer,
            on_broken=self._on_broken,
            on_failed=self.fail,
            on_sent=self._on_sent,
        )

    def __repr__(self) -> str:
        return f"<Upload {self._phase.value} at {self._acknowledged_bytes} of {self._size} to {self._url!r}>"

    # --- beginning ---------------------------------------------------------------------------

    def start(self) -> None:
        """Look at the source, then begin; where the server has everything, or is only told goodbye, at once."""
        self._phase = _Phase.OPEN
        file = self._order.file
        has_everything = bool(self._order.memory and file.size and file.durable_bytes == file.size)
        if self._order.only_cancels or has_everything:
            self._begin(file.size or 0)
        else:
            self.run.open_source(self)

    def source_opened(self, source: Source | Failure) -> None:
        """The source is open, and what was waiting for it goes on; or why it is not."""
        if isinstance(source, Source) and self._phase is _Phase.CLOSED:
            source.close()
        elif isinstance(source, Failure):
            self.fail(source)
        else:
            self.source = source
            if not is_as_before(source.opened, self.spec):
                self.fail(changed(self.spec.local_name))
            elif self._conversation is None:
                self._begin(source.opened.size)
            else:
                waiting, self._waiting_send = self._waiting_send, None
                assert waiting is not None
                self._send(waiting)

    def _begin(self, size: int) -> None:
        order = self._order
        self._size = size
        self._conversation = self._start_conversation()
        self._step(BeginCancel() if order.only_cancels else Begin())

    def _start_conversation(self) -> Conversation:
        """Make one that knows what was kept last."""
        order = self._order
        subject = Subject(
            url=order.file.remote_name,
            name=order.file.local_name.rpartition("/")[2],
            size=self._size,
            wants_reply=order.wants_reply,
        )
        return protocols.start(
            order.protocol,
            subject,
            self._memory,
            self._acknowledged_bytes,
            is_new_source=self._is_new_source and self._memory == order.memory,
        )

    @property
    def _is_new_source(self) -> bool:
        """Whether the session of an earlier run belongs to what the file was then."""
        return bool(self._order.memory) and self._order.file.size is None and not self._order.only_cancels

    # --- the conversation --------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        assert self._conversation is not None
        step = self._conversation.step(event, time.time())
        self._conversation = step.conversation
        for effect in step.effects:
            if self._phase is _Phase.OPEN:
                self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Keep():
                self._keep(effect)
            case FetchReply():
                self._fetch_reply(effect.url)
            case TakeUp():
                failure = self._failure_of(effect.failure)
                if self._broken is not None:
                    # What the connection says is more exact; when it is worth another try, only the protocol knows.
                    failure = replace(self._broken, retry_within_s=failure.retry_within_s)
                self._take_up(failure)
            case Finished():
                self._finish()
            case Failed():
                self._refused(self._failure_of(effect.failure))
            case _:
                assert_never(effect)

    def _send(self, request: Send) -> None:
        self._broken = None
        self._status = 0
        body = request.body
        if body is not None and body.length and self.source is None:
            # Only where the server was believed to have everything.
            self._waiting_send = request
            self.run.open_source(self)
            return
        self._sent = request
        pieces = None
        if body is not None and body.length:
            assert self.source is not None
            pieces = self.source.pieces(body.offset, body.length)
        url = wire_host(request.url)
        headers = tuple(f"{name}: {value}" if value else f"{name};" for name, value in request.headers)
        fresh, self._is_fresh = self._is_fresh, False
        self._exchange.send(
            request.method,
            url,
            lines_for(self._lines, self._url, url) + headers,
            pieces,
            fresh=fresh,
            may_take_long=body is not None or request.ends_session,
        )

    def _keep(self, effect: Keep) -> None:
        self._moves += 1
        self._memory = effect.memory
        self._awaited = self._moves if effect.is_awaited else None
        if effect.acknowledged_bytes != self._acknowledged_bytes:
            self._acknowledged_bytes = effect.acknowledged_bytes
            self.run.on_received(self.spec.index, effect.acknowledged_bytes)
        if effect.acknowledged_bytes > self._furthest:
            self._furthest = effect.acknowledged_bytes
            self._note_progress()
        self.run.send_moved(
            UploadMoved(
                transfer=self._order.transfer,
                number=self._moves,
                memory=effect.memory,
                acknowledged_bytes=effect.acknowledged_bytes,
                is_awaited=effect.is_awaited,
            )
        )

    def kept(self, number: int) -> None:
        """What an UploadMoved said is on the disk."""
        if self._phase is _Phase.OPEN and number == self._awaited:
            self._awaited = None
            self._step(Kept())

    def _fetch_reply(self, url: str) -> None:
        spec = self._order.reply
        if spec is None:
            self._loop.post(self.reply_fetched)
            return
        try:
            url = redirect_target(self._url, url)
        except RedirectRefused as error:
            clause = f"the reply is not fetched: {error}: ask whoever runs the server"
            self.run.fail_reply(remote_failure("BG_E_INVALID_SERVER_RESPONSE", self._url, clause))
            return
        self.run.fetch_reply(replace(spec, remote_name=url), self._url)

    def reply_fetched(self) -> None:
        """The reply is whole and durable."""
        if self._phase is _Phase.OPEN:
            self._step(ReplyFetched())

    # --- answers -----------------------------------------------------------------------------

    def _on_answer(self, response: Response) -> None:
        answered = Answered(
            status=response.status,
            headers=tuple((name, value) for name, values in response.fields.items() for value in values),
            is_body_sent=self._exchange.is_body_sent,
        )
        if self._sent is not None and self._sent.body is not None and self.source is not None:
            # Bytes count only when they were those of one content of the file.
            self.source.check(lambda failure: self._checked(answered, response, failure))
        else:
            self._checked(answered, response, None)

    def _checked(self, answered: Answered, response: Response, failure: Failure | None) -> None:
        if self._phase is not _Phase.OPEN:
            return
        if failure is not None:
            self.fail(failure)
            return
        if (
            not self._has_answered
            and not self._order.only_cancels
            and (response.status < 400 or response.status in (413, 416))
        ):
            self._has_answered = True
            self._note_progress()
            self._tell_started(response)
        self._status = response.status
        self._step(answered)

    def _tell_started(self, response: Response) -> None:
        file, source = self._order.file, self.source
        self._told = response
        modified = str(source.opened.modified_ns) if source is not None else file.last_modified
        is_new = self._is_new_source
        self.run.send_started(
            FileStarted(
                transfer=self._order.transfer,
                index=self.spec.index,
                bytes_total=self._size,
                size=self._size,
                etag=None,
                last_modified=modified,
                offset=0 if is_new else self._acknowledged_bytes,
                restarted="the file has changed: it is sent again from the beginning" if is_new else "",
                response_headers=response.header_text,
            )
        )

    def _tell_headers(self) -> None:
        response = self._exchange.last_response
        # What a proxy answered before there was a way to the server has no header block, and is none of the server's.
        if response is not None and response is not self._told and response.raw and not self._order.only_cancels:
            self._told = response
            self.run.on_headers(self.spec.index, response.header_text)

    def _on_sent(self, sent_bytes: int) -> None:
        assert self._conversation is not None
        body = self._sent.body if self._sent is not None else None
        # Only what the server says it has counts. A plain PUT is told nothing before its end, however long that takes:
        # there it is shown what the connection has brought over.
        if body is not None and self._conversation.protocol == put.PROTOCOL_NAME:
            self.run.on_received(self.spec.index, body.offset + sent_bytes)

    # --- breaks and ends ---------------------------------------------------------------------

    def _note_progress(self) -> None:
        self._progress_at = self._loop.now
        self.run.has_progressed = True

    def _on_broken(self, failure: Failure, was_reached: bool) -> None:
        self._broken = failure
        self._step(Broken(was_reached=was_reached))

    def _refused(self, failure: Failure) -> None:
        """The conversation has given up: it ends here, unless a connection is just being taken up again."""
        if failure.transient and self._status >= 500 and self._patience.broken_at is not None:
            # A server that restarts answers 502 or 503 for a moment: part of the same interruption.
            self._conversation = self._start_conversation()
            self._take_up(failure)
        else:
            self.fail(failure)

    def _take_up(self, failure: Failure) -> None:
        if self._progress_at is not None:
            self._patience = self._patience.after_progress(self._progress_at)
            self._progress_at = None
        self._patience, decision = self._patience.after_break(time.monotonic(), not_before_s=failure.retry_after_s or 0)
        if isinstance(decision, GiveUp):
            self.fail(failure)
            return
        self.run.on_broken(self.spec.index, f"{failure.message}; connecting again")
        self._pause = self._loop.call_later(decision.pause_s, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._is_fresh = True
        self._step(BeginCancel() if self._order.only_cancels else Begin())

    def _finish(self) -> None:
        self._close()
        self._tell_headers()
        self.run.on_done(self, self._size)

    def fail(self, failure: Failure) -> None:
        """Give up; what the server has acknowledged stays."""
        if self._phase is _Phase.CLOSED:
            return
        self._close()
        self._tell_headers()
        self.run.on_failed(self, failure)
        self._loop.post(lambda: self.run.on_closed(self))

    def stop(self) -> None:
        """End early: what the server has acknowledged has been told already."""
        if self._phase is not _Phase.CLOSED:
            self._close()
            self._loop.post(lambda: self.run.on_closed(self))

    def _close(self) -> None:
        self._phase = _Phase.CLOSED
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._exchange.abort()
        if self.source is not None:
            self.source.close()
            self.source = None

    def _failure_of(self, failure: ConversationFailure) -> Failure:
        return Failure(
            name=failure.name,
            context=ErrorContext(failure.context),
            message=failure.message,
            transient=failure.transient,
            retry_after_s=failure.retry_after_s,
            retry_within_s=failure.retry_within_s,
            refused_url=self._exchange.refused_url,
        )


def wire_host(url: str) -> str:
    """The URL with its host in ASCII: libcurl takes no other."""
    return url if url.isascii() else request_url(url)
