"""An upload by one plain PUT of the whole file, for servers that know nothing else (`bits put --protocol put`).

There is nothing to resume: whatever interrupts it, the file is sent again from the beginning, and the job is told so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final, assert_never

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
from openbits.upload.failures import broken_failure, http_failure, invalid_answer

PROTOCOL_NAME: Final = "put"


class _Phase(enum.Enum):
    READY = "Begin"
    SENDING = "the answer to PUT"
    OVER = "nothing"


def begin(upload: Upload) -> PutConversation:
    """Make the conversation of one run."""
    return PutConversation(upload=upload)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutConversation:
    """One run of an upload by PUT."""

    upload: Upload
    phase: _Phase = _Phase.READY

    @property
    def protocol(self) -> str:
        """`put`."""
        return PROTOCOL_NAME

    def step(self, event: Event, now: float) -> Step:
        """Take an event; raises IllegalEvent for one that nothing was asked for."""
        match event:
            case Begin():
                url, size = self.upload.url, self.upload.size
                body = Chunk(offset=0, length=size) if size else None
                return self._step(_Phase.SENDING, Send(method="PUT", url=url, body=body))
            case BeginCancel():
                return self._step(_Phase.OVER, Finished())
            case Broken():
                failure = broken_failure(event, self.upload.url)
                return self._step(_Phase.READY, TakeUp(failure=_from_zero(failure, self.upload)))
            case Answered() if self.phase is _Phase.SENDING:
                return self._answered(event, now)
            case Answered() | Kept() | ReplyFetched():
                raise IllegalEvent(event, self.phase.value)
            case _:
                assert_never(event)

    def _answered(self, answer: Answered, now: float) -> Step:
        if 200 <= answer.status <= 299 and not answer.is_body_sent:
            # Nothing but the status says what the server has: of a file that was not sent whole it has no whole one.
            clause = f"the server answered {answer.status} before the whole file was sent, and has a part at most"
            return self._step(_Phase.OVER, Failed(failure=invalid_answer(self.upload.url, clause)))
        if 200 <= answer.status <= 299:
            # Progress is told by Keep alone; nothing has to be remembered.
            return self._step(_Phase.OVER, Keep(memory="", acknowledged_bytes=self.upload.size), Finished())
        failure = http_failure(answer, self.upload.url, now)
        return self._step(_Phase.OVER, Failed(failure=_from_zero(failure, self.upload)))

    def _step(self, phase: _Phase, *effects: Effect) -> Step:
        return Step(conversation=replace(self, phase=phase), effects=effects)


def _from_zero(failure: Failure, upload: Upload) -> Failure:
    """Say aloud what a plain PUT costs; a small file is not worth the words."""
    if not failure.transient or upload.size < 1024 * 1024:
        return failure
    return replace(failure, message=f"{failure.message}; by plain PUT all {upload.size} bytes are sent again")
