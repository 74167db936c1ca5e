"""Plays an upload conversation as a script: an event, and the effects that it has, each said in a line.

    play = Playbook(begin(UPLOAD, "", 0))
    play(Begin(), "Create-Session http://server/up/f.bin")
    play(created("S"), "keep! 0")

A line of a request is its packet type (or method), its address, the headers that matter, and the bytes that it carries;
`keep 5` is a Keep with 5 acknowledged bytes, `keep! 5` one that is awaited.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openbits.upload import packets
from openbits.upload.conversation import (
    Answered,
    Conversation,
    Effect,
    Event,
    Failed,
    Failure,
    FetchReply,
    Finished,
    Keep,
    Send,
    TakeUp,
)

# What every request of its kind says is looked at once, by the tests of packets.
_UNSAID = frozenset({packets.PACKET_TYPE, packets.SUPPORTED_PROTOCOLS, packets.CONTENT_NAME})


class Playbook:
    """A conversation that is being played; `now` is the clock."""

    def __init__(self, conversation: Conversation, now: float = 1_000_000.0) -> None:
        self.conversation = conversation
        self.now = now
        self.effects: tuple[Effect, ...] = ()
        """What the last event had."""
        self.kept: Keep | None = None
        """The last Keep of all."""

    def __call__(self, event: Event, *expected: str, after_s: float = 0.0) -> None:
        """Play an event; `after_s` seconds pass before it."""
        self.now += after_s
        step = self.conversation.step(event, self.now)
        self.conversation, self.effects = step.conversation, step.effects
        for effect in self.effects:
            if isinstance(effect, Keep):
                self.kept = effect
        assert [said(effect) for effect in self.effects] == list(expected), f"after {event}"

    @property
    def sent(self) -> Send:
        """The request of the last event."""
        (send,) = [effect for effect in self.effects if isinstance(effect, Send)]
        return send

    @property
    def failure(self) -> Failure:
        """How the last event failed."""
        (failed,) = [effect for effect in self.effects if isinstance(effect, Failed | TakeUp)]
        return failed.failure


def said(effect: Effect) -> str:
    """The line of an effect."""
    match effect:
        case Send():
            headers = dict(effect.headers)
            verb = headers.get(packets.PACKET_TYPE, effect.method)
            words = [verb, effect.url]
            words += [f"{name}={value}" for name, value in effect.headers if name not in _UNSAID]
            if effect.body is not None:
                words.append(f"[{effect.body.offset}+{effect.body.length}]")
            return " ".join(words)
        case Keep():
            return f"keep{'!' if effect.is_awaited else ''} {effect.acknowledged_bytes}"
        case FetchReply():
            return f"fetch {effect.url}"
        case TakeUp():
            return f"take up {_failure(effect.failure)}"
        case Finished():
            return "finished"
        case Failed():
            return f"failed {_failure(effect.failure)}"


def _failure(failure: Failure) -> str:
    return f"{failure.name}{' transient' if failure.transient else ''}"


def answer(status: int, headers: Iterable[tuple[str, str]] = ()) -> Answered:
    """An answer as the edge tells it."""
    return Answered(status=status, headers=tuple((name.lower(), value) for name, value in headers))


def ack(status: int = 200, **fields: Any) -> Answered:
    """An Ack with the fields of packets.Ack."""
    return answer(status, packets.render_ack(packets.Ack(status=status, **fields)))


def created(session_id: str, **fields: Any) -> Answered:
    """The Ack to Create-Session."""
    return ack(session_id=session_id, protocol=packets.PROTOCOL, **fields)


def received(received_bytes: int, **fields: Any) -> Answered:
    """The Ack to a fragment."""
    return ack(received_bytes=received_bytes, **fields)
