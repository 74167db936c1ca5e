"""Both ends of the BITS upload protocol against each other (issue, part 1; U40–U46).

Between them is a channel that loses requests, answers and the rest of bodies, and drops connections; both ends crash
and come back with what was on their disks; proxies refuse, sessions are forgotten, an application fails.  Whatever
happens, the file arrives once and whole, or the error is the right one.
"""

from __future__ import annotations

import enum
import itertools
import json
import random
import uuid
from dataclasses import dataclass, field, replace
from typing import Final

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.errors import error_code
from openbits.upload import bits, packets, server
from openbits.upload import session as happened
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Broken,
    Effect,
    Event,
    Failed,
    Failure,
    FetchReply,
    Finished,
    Keep,
    Kept,
    ReplyFetched,
    Send,
    TakeUp,
    Upload,
)
from openbits.upload.packets import PacketType, Request
from openbits.upload.session import Finalize, Overlap, Place, Policy, Session
from support.conversations import ack, received

URL: Final = "http://farm/up/f.bin"
LOST: Final = ack(500, error=error_code("BG_E_SESSION_NOT_FOUND").hresult)
EXCHANGES_LIMIT: Final = 500


class Mishap(enum.Enum):
    """What happens to one exchange."""

    NONE = "none"
    NO_CONNECTION = "the server is not reached"
    REQUEST_LOST = "the connection breaks before the server has the request"
    BODY_CUT = "the connection breaks in the body"
    ANSWER_LOST = "the server does all, and the connection breaks"
    SERVER_CRASH = "the server does all, crashes before it can answer, and comes back"
    SERVER_CRASH_MIDWAY = "the server crashes after some of what it is to do"
    SERVER_CRASH_IN_BODY = "the server crashes in the body"
    CLIENT_CRASH = "the client crashes while the server does all"
    CLIENT_CRASH_BEFORE = "the client crashes before it sends"
    PROXY_BUSY = "a proxy says 503"
    SESSION_FORGOTTEN = "the server forgets the session before the request"
    NO_ROOM = "the server's disk is full in the body"
    APPLICATION_FAILS = "the server application answers 500"


class ServerCrash(Exception):
    """The power is gone."""


# --- the server's end --------------------------------------------------------------------------


@dataclass
class Part:
    """A session and its file."""

    session: Session
    durable: Session
    data: bytearray = field(default_factory=bytearray)
    durable_bytes: int = 0


@dataclass
class Server:
    """Performs what the machine decides, on a disk that a crash takes back to what is durable."""

    policy: Policy
    parts: dict[str, Part] = field(default_factory=dict)
    destination: bytes | None = None
    published: int = 0
    notified: list[bytes] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    mishap: Mishap = Mishap.NONE
    cut_at: int = 0

    def answer(self, request: Request, body: bytes) -> packets.Ack | None:
        """Deal with a packet; None: the client went away within the body.  Raises ServerCrash."""
        steps_left = self.cut_at % 6 if self.mishap is Mishap.SERVER_CRASH_MIDWAY else 100
        part = self.parts.get(request.session_id)
        event: happened.Event = happened.Asked()
        if request.packet_type is PacketType.CLOSE_SESSION and part is not None:
            assert part.session.total_bytes == len(part.data), "a partial upload is closed, which deletes it"
        while True:
            before = part.session if part is not None else None
            taken = server.step(self.policy, before, request, event)
            if part is not None and taken.session is not None:
                part.session = taken.session
            for effect in taken.effects:
                steps_left -= 1
                if steps_left < 0:
                    raise ServerCrash
                match effect:
                    case happened.Answer():
                        return effect.ack
                    case happened.Keep():
                        assert part is not None
                        part.durable = part.session
                    case happened.Drop():
                        del self.parts[request.session_id]
                        part = None
                    case happened.Make():
                        made = Session(id=packets.render_session_id(uuid.UUID(int=next(self.numbers))))
                        self.parts[made.id] = Part(session=made, durable=made)
                        event = happened.Made(session_id=made.id)
                    case _:
                        event = self._perform(effect, part, body)
            if not taken.effects:
                return None

    def _perform(self, effect: happened.Effect, part: Part | None, body: bytes) -> happened.Event:
        match effect:
            case happened.Look():
                return happened.Looked(place=Place.FREE if self.destination is None else Place.FILE)
            case happened.Store():
                assert part is not None
                return self._store(effect, part, body)
            case happened.Seal():
                assert part is not None
                part.durable_bytes = len(part.data)
                return happened.Sealed()
            case happened.Notify():
                assert part is not None
                if self.mishap is Mishap.APPLICATION_FAILS:
                    return happened.NotNotified(status=500)
                self.notified.append(bytes(part.data))
                return happened.Notified(reply_url="BITS-Sessions\\r", wants_file=True)
            case happened.Publish():
                assert part is not None
                assert part.durable_bytes == len(part.data), "what is published is not durable"
                if self.destination is not None:
                    return happened.Failed(trouble=happened.Trouble.EXISTS)
                self.destination = bytes(part.data)
                self.published += 1
                part.durable = replace(part.session, phase=happened.Phase.DONE)
                return happened.Published()
            case _:
                raise AssertionError(effect)

    def _store(self, effect: happened.Store, part: Part, body: bytes) -> happened.Event:
        assert effect.offset == len(part.data), "what is there is overwritten, or there is a hole"
        arrived = body[effect.skip : effect.skip + effect.length]
        if self.mishap in (Mishap.BODY_CUT, Mishap.SERVER_CRASH_IN_BODY, Mishap.NO_ROOM) and arrived:
            part.data += arrived[: self.cut_at % len(arrived)]
            if self.mishap is Mishap.NO_ROOM:
                return happened.NotStored(received_bytes=len(part.data), trouble=happened.Trouble.NO_ROOM)
            return happened.BrokenOff(received_bytes=len(part.data))
        assert len(arrived) == effect.length
        part.data += arrived
        return happened.Stored(received_bytes=len(part.data))

    def crash(self, luck: int) -> None:
        """Come back with what was on the disk: how much of the files' ends is luck."""
        for part in self.parts.values():
            beyond = len(part.data) - part.durable_bytes
            del part.data[part.durable_bytes + (luck % (beyond + 1)) :]
            session = Session.from_json(json.loads(json.dumps(part.durable.to_json())))
            part.session = part.durable = replace(session, received_bytes=len(part.data))


# --- the client's end --------------------------------------------------------------------------


@dataclass
class Client:
    """The edge: its store, its runs and its source."""

    upload: Upload
    content: bytes
    durable: tuple[str, int] = ("", 0)
    pending: list[tuple[str, int]] = field(default_factory=list)
    """What was kept and is not on the disk yet."""
    replies: int = 0
    now: float = 1_000_000.0

    def new_run(self) -> bits.BitsConversation:
        self.pending.clear()
        return bits.begin(self.upload, *self.durable)

    def crash(self, luck: int) -> None:
        """Some of what was kept without waiting had reached the disk."""
        count = luck % (len(self.pending) + 1)
        if count:
            self.durable = self.pending[count - 1]
        self.pending.clear()

    def keep(self, effect: Keep) -> None:
        assert len(effect.memory) <= 8_192
        assert 0 <= effect.acknowledged_bytes <= self.upload.size
        self.pending.append((effect.memory, effect.acknowledged_bytes))
        if effect.is_awaited:
            self.flush()

    def flush(self) -> None:
        if self.pending:
            self.durable = self.pending[-1]
        self.pending.clear()


@dataclass
class World:
    """Both ends and what is between them."""

    client: Client
    server: Server
    mishaps: list[tuple[Mishap, int]]
    proxy_limit: int | None = None
    is_cancelled_after: int | None = None
    has_lost_answer_to_create: bool = False
    has_forgotten: bool = False
    exchanges: int = 0
    is_cancelling: bool = False

    def play(self) -> Failure | None:
        """Run after run, until it ends; returns what it failed with."""
        client = self.client
        conversation = client.new_run()
        event: Event = Begin()
        while True:
            is_due = self.is_cancelled_after is not None and self.exchanges >= self.is_cancelled_after
            if is_due and not isinstance(event, Answered):
                client.flush()
                conversation, event = client.new_run(), BeginCancel()
                self.is_cancelled_after = None
                self.is_cancelling = True
            step = conversation.step(event, client.now)
            assert isinstance(step.conversation, bits.BitsConversation)
            conversation = step.conversation
            outcome = self._perform(step.effects)
            if isinstance(outcome, Finished):
                return None
            if isinstance(outcome, Failed) and not outcome.failure.transient:
                return outcome.failure
            if outcome is None or isinstance(outcome, Failed):
                if isinstance(outcome, Failed):
                    client.flush()
                conversation, event = client.new_run(), BeginCancel() if self.is_cancelling else Begin()
            else:
                event = outcome

    def _perform(self, effects: tuple[Effect, ...]) -> Event | Failed | Finished | None:
        """Do what a step says; None: the client crashed."""
        outcome: Event | Failed | Finished | None = None
        for position, effect in enumerate(effects):
            is_last = position == len(effects) - 1
            match effect:
                case Keep():
                    self.client.keep(effect)
                    assert is_last or not effect.is_awaited, "something comes after an awaited Keep"
                    outcome = Kept()
                case Send():
                    assert is_last
                    outcome = self._exchange(effect)
                case FetchReply():
                    assert effect.url == "http://farm/up/BITS-Sessions/r"
                    assert self.server.parts or self.has_forgotten, "the session is over, and its reply with it"
                    self.client.replies += 1
                    outcome = ReplyFetched()
                case TakeUp():
                    # Every other time the edge loses its patience.
                    self.client.now += 1.0
                    outcome = Begin() if self.exchanges % 2 else Failed(failure=effect.failure)
                case Finished() | Failed():
                    outcome = effect
            if isinstance(outcome, Failed | Finished):
                assert is_last
        return outcome

    def _exchange(self, send: Send) -> Event | None:
        self.exchanges += 1
        assert self.exchanges < EXCHANGES_LIMIT, "it never ends"
        mishap, luck = self.mishaps.pop(0) if self.mishaps else (Mishap.NONE, 0)
        self.client.now += luck % 7 / 3.0 if luck % 5 else 200.0
        body = b""
        if send.body is not None:
            body = self.client.content[send.body.offset : send.body.offset + send.body.length]
            assert len(body) == send.body.length > 0
        request = packets.parse_request(send.headers, len(body))
        assert send.ends_session == (request.packet_type in (PacketType.CLOSE_SESSION, PacketType.CANCEL_SESSION))
        if request.packet_type is PacketType.FRAGMENT:
            assert request.session_id in self.client.durable[0], "a session is used that a crash would lose"
        if mishap is Mishap.CLIENT_CRASH_BEFORE:
            self.client.crash(luck)
            return None
        if mishap is Mishap.NO_CONNECTION:
            return Broken(was_reached=False)
        if mishap is Mishap.REQUEST_LOST:
            return Broken(was_reached=True)
        if mishap is Mishap.PROXY_BUSY:
            return Answered(status=503)
        if self.proxy_limit is not None and len(body) > self.proxy_limit:
            return Answered(status=413) if luck % 2 == 0 else Broken(was_reached=True)
        return self._reach_server(request, body, mishap, luck)

    def _reach_server(self, request: Request, body: bytes, mishap: Mishap, luck: int) -> Event | None:
        if mishap is Mishap.SESSION_FORGOTTEN:
            self.has_forgotten = True
            self.server.parts.clear()
        self.server.mishap, self.server.cut_at = mishap, luck
        try:
            answer = self.server.answer(request, body)
        except ServerCrash:
            answer = None
        self.server.mishap = Mishap.NONE
        is_heard = mishap not in (
            Mishap.BODY_CUT,
            Mishap.ANSWER_LOST,
            Mishap.SERVER_CRASH,
            Mishap.SERVER_CRASH_MIDWAY,
            Mishap.SERVER_CRASH_IN_BODY,
            Mishap.CLIENT_CRASH,
        )
        if request.packet_type is PacketType.CREATE_SESSION and not is_heard:
            self.has_lost_answer_to_create = True
        if mishap in (Mishap.SERVER_CRASH, Mishap.SERVER_CRASH_MIDWAY, Mishap.SERVER_CRASH_IN_BODY):
            self.server.crash(luck)
        if mishap is Mishap.CLIENT_CRASH:
            self.client.crash(luck)
            return None
        if not is_heard or answer is None:
            return Broken(was_reached=True)
        headers = tuple((name.lower(), value) for name, value in packets.render_ack(answer))
        return Answered(status=answer.status, headers=headers)


REMEMBERING: Final = [each for each in Mishap if each is not Mishap.SESSION_FORGOTTEN]
MISHAPS: Final = st.lists(st.tuples(st.sampled_from(REMEMBERING), st.integers(0, 10**6)), max_size=25)
FORGETFUL: Final = st.lists(st.tuples(st.sampled_from(Mishap), st.integers(0, 10**6)), max_size=25)
SIZES: Final = st.sampled_from([0, 1, 5_000, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 200_000])
POLICIES: Final = st.builds(
    Policy,
    overlap=st.sampled_from(Overlap),
    finalize=st.sampled_from(Finalize),
    host_id=st.sampled_from(["", "node7"]),
    host_id_fallback_timeout_s=st.sampled_from([None, 0, 150]),
)
LIMITS: Final = st.sampled_from([None, None, 7_000, 70_000])


def world(
    size: int,
    policy: Policy,
    mishaps: list[tuple[Mishap, int]],
    *,
    wants_reply: bool = False,
    proxy_limit: int | None = None,
    is_cancelled_after: int | None = None,
) -> World:
    content = random.Random(size).randbytes(size)  # any bytes do
    client = Client(upload=Upload(url=URL, name="f.bin", size=size, wants_reply=wants_reply), content=content)
    return World(
        client=client,
        server=Server(policy=policy),
        mishaps=list(mishaps),
        proxy_limit=proxy_limit,
        is_cancelled_after=is_cancelled_after,
    )


def check_nothing_is_left(played: World) -> None:
    """No session is left but such as nobody was told of."""
    assert not played.server.parts or played.has_lost_answer_to_create


@settings(max_examples=400, deadline=None)
@given(SIZES, POLICIES, MISHAPS, LIMITS)
def test_u40_u46_whatever_is_dropped_the_file_arrives_once_and_whole(
    size: int, policy: Policy, mishaps: list[tuple[Mishap, int]], proxy_limit: int | None
) -> None:
    played = world(size, policy, mishaps, proxy_limit=proxy_limit)
    assert played.play() is None
    assert played.server.destination == played.client.content
    assert played.server.published == 1
    check_nothing_is_left(played)


@settings(max_examples=300, deadline=None)
@given(SIZES, POLICIES, MISHAPS)
def test_m7_whatever_is_dropped_the_reply_is_fetched(
    size: int, policy: Policy, mishaps: list[tuple[Mishap, int]]
) -> None:
    played = world(size, replace(policy, has_application=True), mishaps, wants_reply=True)
    assert played.play() is None
    assert played.client.replies >= 1
    assert set(played.server.notified) == {played.client.content}
    assert played.server.destination == played.client.content
    assert played.server.published == 1
    check_nothing_is_left(played)


@settings(max_examples=300, deadline=None)
@given(SIZES, POLICIES, FORGETFUL, st.booleans())
def test_u45_forgotten_sessions_begin_again_or_the_error_is_the_right_one(
    size: int, policy: Policy, mishaps: list[tuple[Mishap, int]], wants_reply: bool
) -> None:
    played = world(size, replace(policy, has_application=wants_reply), mishaps, wants_reply=wants_reply)
    failure = played.play()
    assert played.server.destination in (None, played.client.content)
    assert played.server.published <= 1
    if failure is None:
        note("arrived")
        # A server that forgot a whole file before it got its name has lost it: only it knows.
        is_lost = played.has_forgotten and policy.finalize is Finalize.CLOSE
        assert played.server.destination == played.client.content or is_lost
        assert played.client.replies >= wants_reply
        check_nothing_is_left(played)
    elif failure.name == "E_ACCESSDENIED":
        note("the file was there already")
        assert played.has_forgotten
        assert played.server.destination == played.client.content
    else:
        assert failure.name == "BG_E_SESSION_NOT_FOUND"
        assert played.has_forgotten


@settings(max_examples=300, deadline=None)
@given(SIZES, POLICIES, MISHAPS, st.integers(0, 12), st.booleans())
def test_u44_a_cancelled_upload_leaves_no_session_and_no_half_file(
    size: int, policy: Policy, mishaps: list[tuple[Mishap, int]], after: int, wants_reply: bool
) -> None:
    played = world(
        size,
        replace(policy, has_application=wants_reply),
        mishaps,
        wants_reply=wants_reply,
        is_cancelled_after=after,
    )
    assert played.play() is None
    assert played.server.destination in (None, played.client.content)
    check_nothing_is_left(played)


ODD_ANSWERS: Final = st.one_of(
    st.builds(received, st.integers(0, 25)),
    st.builds(lambda value: ack(416, received_bytes=value), st.integers(0, 25)),
    st.just(LOST),
    st.just(Answered(status=413)),
    st.just(Answered(status=400)),
    st.just(ack(400)),
    st.just(ack()),
    st.builds(lambda value: ack(session_id="S", received_bytes=value, reply_url="r"), st.integers(0, 25)),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(ODD_ANSWERS, min_size=1, max_size=6), st.sampled_from([0, 1, 20]), st.booleans())
def test_u42_no_server_keeps_a_client_busy_for_ever(answers: list[Answered], size: int, wants_reply: bool) -> None:
    """Whatever it says, over and over: the end comes, and nothing but an end."""
    client = Client(upload=Upload(url=URL, name="f", size=size, wants_reply=wants_reply), content=bytes(size))
    conversation = client.new_run()
    said = itertools.cycle(answers)
    event: Event = Begin()
    for _ in range(20_000):
        step = conversation.step(event, client.now)
        assert isinstance(step.conversation, bits.BitsConversation)
        conversation = step.conversation
        last = step.effects[-1]
        match last:
            case Finished() | Failed():
                return
            case Keep():
                event = Kept()
            case FetchReply():
                event = ReplyFetched()
            case Send():
                is_create = ("BITS-Packet-Type", "Create-Session") in last.headers
                event = ack(session_id="S", protocol=packets.PROTOCOL) if is_create else next(said)
            case _:
                raise AssertionError(last)
    raise AssertionError("it never ends")
