"""The event stream: server-sent events that are taken up again where they broke off.

The rule: what was written down about a job is never missed, because every connection says which event was the
last one seen; a service that restarts is waited for, for PATIENCE_S seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from openbits.client.calls import Json, decode_answer, events_target, stream_request
from openbits.client.http1 import ResponseReader
from openbits.client.identity import Identity, base_identity
from openbits.client.pool import ConnectionPool
from openbits.client.transport import Answer, Connection, NoAnswer, broken_call
from openbits.errors import BitsError

PATIENCE_S: Final = 30.0
"""How long a service that went away is waited for."""
SILENCE_S: Final = 45.0
"""The service says something every 15 seconds; a connection that is silent for longer is dead."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the stream: its type (`snapshot`, `job`, `progress`) and its JSON."""

    type: str
    data: Json


class EventParser:
    """Reads `text/event-stream`, without I/O; `last_id` is the last event that was seen."""

    def __init__(self, last_id: int | None = None) -> None:
        self.last_id = last_id
        self._buffer = b""
        self._type = ""
        self._data: list[str] = []

    def begin(self) -> None:
        """Forget half a message: a new connection begins with a new one."""
        self._buffer, self._type, self._data = b"", "", []

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes of the body and return the messages that are complete; raises BitsError."""
        lines = (self._buffer + data).split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > _MAX_MESSAGE_BYTES:
            raise broken_call("an event is too long")
        messages: list[Message] = []
        for line in lines:
            messages += self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
        return messages

    def _line(self, line: str) -> list[Message]:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if value.isascii() and value.isdigit():
                self.last_id = int(value)
            case _:
                pass  # A comment, or a field that a newer service knows.
        return []

    def _dispatch(self) -> list[Message]:
        kind, text = self._type or "message", "\n".join(self._data)
        self._type, self._data = "", []
        if not text:
            return []
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise broken_call("an event is not JSON") from error
        return [Message(kind, data)] if isinstance(data, dict) else []


class Reconnect:
    """When to try again and when to give up, as values: pauses that grow, and a limit from the first failure."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def succeeded(self) -> None:
        """Something came: the next failure is a first one."""
        self._since, self._pause_s = None, _FIRST_PAUSE_S

    def pause_after_failure(self, now: float) -> float | None:
        """Return how long to wait before the next attempt, or None to give up."""
        if self._since is None:
            self._since = now
            return 0.0
        if now - self._since > PATIENCE_S:
            return None
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return pause


class EventStream:
    """Events of one job or of all that the caller may see, blocking; an iterator of messages.

    `follow` False: only those that are kept, from `after` on; then `is_over`. `choice` says which events (see
    `calls.events_target`). `identity` is whose stream it is, however
    often it is taken up again; None: that of the calling thread outside of all `impersonate` blocks.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        job_id: str | None = None,
        all_users: bool = False,
        after: int | None = None,
        follow: bool = True,
        choice: Mapping[str, str | int] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._pool = pool
        self._identity = base_identity() if identity is None else identity
        self._follow = follow
        # Taken up again, the stream goes on after the last event that was seen: the newest of those would not be all.
        lasting = {name: value for name, value in (choice or {}).items() if name != "newest"}
        self._target = events_target(job_id=job_id, all_users=all_users, follow=follow, choice=lasting)
        self._first_target = events_target(
            job_id=job_id, all_users=all_users, after=after, follow=follow, choice=choice
        )
        self._parser = EventParser()
        self._reconnect = Reconnect()
        self._connection: Connection | None = None
        self._reader = ResponseReader()
        self._heard_at = 0.0
        self.is_over = False

    def __repr__(self) -> str:
        return f"<EventStream {self._target} after {self._parser.last_id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        while True:
            yield from self.wait_messages()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self) -> None:
        """Connect now, so that nothing that happens from now on is missed; raises BitsError."""
        if self._connection is None:
            self._connect()

    def wait_messages(self, timeout_s: float | None = None) -> list[Message]:
        """Wait for messages; an empty list says that `timeout_s` is over. Raises BitsError."""
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._heard_at == 0.0:
                self._connect()
            try:
                messages = self._read(deadline)
            except Refused as refused:
                raise refused.error() from None
            except (NoAnswer, BitsError) as error:
                self._go_on_after(error, deadline)
                messages = []
            if messages or self.is_over or time.monotonic() >= deadline:
                return messages

    def _connect(self) -> None:
        self._parser.begin()
        self._reader = ResponseReader()
        target = self._first_target if self._parser.last_id is None else self._target
        self._connection = self._pool.open_stream(stream_request(target, self._parser.last_id), self._identity)
        self._heard_at = time.monotonic()

    def _read(self, deadline: float) -> list[Message]:
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        silent_at = self._heard_at + SILENCE_S
        try:
            self._connection.read_some(self._reader, min(deadline, silent_at))
        except TimeoutError:
            if time.monotonic() >= silent_at:
                raise broken_call("it fell silent") from None
            return []
        self._heard_at = time.monotonic()
        if self._reader.status not in (0, 200):
            self._refused()
            return []
        messages = self._parser.feed(self._reader.take_body())
        if messages:
            self._reconnect.succeeded()
        if self._reader.done:
            self.close()
            self.is_over = not self._follow
            if self._follow and not messages:
                raise NoAnswer
        return messages

    def _refused(self) -> None:
        if self._reader.done:
            self.close()
            raise Refused(Answer(self._reader.status, self._reader.headers, self._reader.take_body()))

    def _go_on_after(self, error: Exception, deadline: float) -> None:
        """Nothing is lost by a broken stream: wait a little and take it up again, or give up."""
        self.close()
        pause_s = self._reconnect.pause_after_failure(time.monotonic())
        if pause_s is None:
            raise error if isinstance(error, BitsError) else broken_call("its events end at once")
        time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))


class Refused(Exception):
    """The service answered the request for events with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}")
        self.answer = answer

    def error(self) -> BitsError:
        """The BitsError that the answer stands for."""
        try:
            decode_answer(self.answer)
        except BitsError as error:
            return error
        return broken_call(f"it answered {self.answer.status} to a request for events")
