"""Which protocol an upload speaks: what was asked for, what it has begun with, or what the server knows.

`auto` opens a BITS session, and where nobody understands that, asks by OPTIONS for others: so a BITS server costs no
request more.  A plain PUT, which cannot be resumed, is for those who ask for it.  Only BITS knows replies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from openbits.errors import ErrorContext, error_code
from openbits.upload import bits, ietf, put, resumable, tus
from openbits.upload.addresses import directory_for
from openbits.upload.bitsmemory import PROTOCOL_NAME as BITS
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Conversation,
    Event,
    Failed,
    Failure,
    Finished,
    Send,
    Step,
    Upload,
)
from openbits.upload.failures import host_of, http_failure, mismatch
from openbits.upload.memory import protocol_of
from openbits.upload.packets import parse_ack

AUTO: Final = "auto"
PROTOCOLS: Final = (AUTO, BITS, tus.PROTOCOL_NAME, ietf.PROTOCOL_NAME, put.PROTOCOL_NAME)

_SAYS_MORE: Final = frozenset((403, 404, 410, 413, 414))
"""Statuses of Create-Session that tell a person more than "no protocol in common" does."""

_NOT_LOOKED_AT: Final = frozenset((401, 407, 408, 429, 502, 503, 504))


def start(
    protocol: str, upload: Upload, memory: str, acknowledged_bytes: int, *, is_new_source: bool = False
) -> Conversation:
    """Make the conversation of one run; `memory` is what the last Keep of an earlier run said, or "".

    With `is_new_source` a session that the memory knows is ended first, as well as that goes, and all begins anew.
    Raises ValueError for a protocol that is none of PROTOCOLS.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"{protocol!r} is no upload protocol")
    begun = protocol_of(memory)
    if protocol == AUTO and begun in PROTOCOLS:
        protocol = begun
    if protocol not in (AUTO, BITS) and upload.wants_reply:
        return _Unable(protocol=protocol, upload=upload)
    match protocol:
        case tus.PROTOCOL_NAME:
            return resumable.begin(tus.Tus(), upload, memory, acknowledged_bytes, is_new_source=is_new_source)
        case ietf.PROTOCOL_NAME:
            return resumable.begin(ietf.Ietf(), upload, memory, acknowledged_bytes, is_new_source=is_new_source)
        case put.PROTOCOL_NAME:
            return put.begin(upload)
    conversation = bits.begin(upload, memory, acknowledged_bytes, is_new_source=is_new_source)
    if protocol == AUTO:
        return _Trying(upload=upload, bits=conversation)
    return conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trying:
    """`auto`, as long as the server has not said what it speaks."""

    upload: Upload
    bits: Conversation
    create_answer: Answered | None = None
    """What came of Create-Session, once others are being asked for."""
    asked: str = ""
    """Where: at the remote name, then at the directory where that was made from one."""

    @property
    def protocol(self) -> str:
        return AUTO

    def step(self, event: Event, now: float) -> Step:
        if self.create_answer is not None:
            if isinstance(event, Answered):
                return self._offered(event, self.create_answer, now)
            if isinstance(event, Begin | BeginCancel):
                return replace(self, create_answer=None).step(event, now)
        elif isinstance(event, Answered):
            if parse_ack(event.status, event.headers) is None and _may_speak_another(event.status):
                return replace(self, create_answer=event)._ask(self.upload.url)
            return self.bits.step(event, now)
        # No answer yet: it goes on being BITS that is tried.
        step = self.bits.step(event, now)
        return Step(conversation=replace(self, bits=step.conversation, create_answer=None), effects=step.effects)

    def _ask(self, url: str) -> Step:
        return Step(conversation=replace(self, asked=url), effects=(Send(method="OPTIONS", url=url),))

    def _offered(self, answer: Answered, create_answer: Answered, now: float) -> Step:
        dialect: resumable.Dialect | None = None
        if tus.is_offered(answer):
            dialect = tus.Tus()
        elif ietf.is_offered(answer):
            dialect = ietf.Ietf()
        if dialect is not None and not self.upload.wants_reply:
            endpoint = self.asked if self.asked != self.upload.url else ""
            return resumable.begin(dialect, self.upload, "", 0, endpoint=endpoint).step(Begin(), now)
        directory = directory_for(self.upload.url, self.upload.name)
        if directory and self.asked == self.upload.url:
            return self._ask(directory)
        return Step(conversation=self, effects=(Failed(failure=self._nothing_in_common(create_answer, now)),))

    def _nothing_in_common(self, create_answer: Answered, now: float) -> Failure:
        url = self.upload.url
        if 300 <= create_answer.status <= 399 and create_answer.get("location") is not None:
            # A new address is what helps, and waiting does not, whatever kind of redirect it is.
            return http_failure(create_answer, url, now, transient=False)
        clause = f"what answers there ({create_answer.status} to a BITS session) speaks no resumable upload protocol"
        failure = mismatch(url, clause)
        if create_answer.status in _SAYS_MORE or (create_answer.status >= 500 and create_answer.status != 501):
            by_status = http_failure(create_answer, url, now)
            hint = "or it takes plain files only: 'bits put --protocol put'"
            return replace(by_status, message=f"{by_status.message}; {hint}")
        return failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unable:
    """An upload-reply job over a protocol that knows no replies (M7)."""

    protocol: str
    upload: Upload

    def step(self, event: Event, now: float) -> Step:
        del now
        if isinstance(event, BeginCancel):
            return Step(conversation=self, effects=(Finished(),))
        name = "BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH"
        failure = Failure(
            name=name,
            context=ErrorContext.GENERAL_TRANSPORT,
            message=f"{host_of(self.upload.url)}: {error_code(name).text}: '{self.protocol}' knows no replies: "
            "make the job with the protocol 'bits', or without a reply",
            transient=False,
        )
        return Step(conversation=self, effects=(Failed(failure=failure),))


def _may_speak_another(status: int) -> bool:
    """Whether an answer to Create-Session leaves open what else the server speaks.

    A challenge, or being busy, does not: the question was not looked at.  There are servers whose answer to a method
    that they do not know is 500.
    """
    return status not in _NOT_LOOKED_AT
