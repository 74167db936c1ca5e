"""U40–U45: what the server decides, packet by packet; each test is a conversation with a server of values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from openbits.errors import error_code
from openbits.upload import server
from openbits.upload import session as happened
from openbits.upload.packets import Ack, FragmentRange, PacketType, Request, parse_guid
from openbits.upload.session import (
    Answer,
    Asked,
    Drop,
    Effect,
    Event,
    Finalize,
    Keep,
    Look,
    Make,
    Notify,
    Overlap,
    Phase,
    Place,
    Policy,
    Publish,
    Seal,
    Session,
    Store,
    Trouble,
)

ID: Final = "{0D2A0DD5-3A0A-4B4B-9C0A-6E5B8E6A1F00}"
BITS: Final = parse_guid("{7DF0354D-249B-430f-820D-3D2A9BEF4931}")


@dataclass
class Server:
    """Performs what the machine decides, in memory; what goes wrong is set by the test."""

    policy: Policy = field(default_factory=Policy)
    session: Session | None = None
    place: Place = Place.FREE
    done: list[str] = field(default_factory=list)
    fails: dict[type[Effect], Trouble] = field(default_factory=dict)
    application: list[Event] = field(default_factory=list)
    arrives: int | None = None
    """How many bytes of the next body come before the connection breaks."""
    published: int = 0

    def ask(self, request: Request) -> Ack | None:
        known = self.session if request.session_id else None
        return self._run(request, known, Asked())

    def _run(self, request: Request, session: Session | None, event: Event) -> Ack | None:
        before = session
        taken = server.step(self.policy, session, request, event)
        for effect in taken.effects:
            self.done.append(type(effect).__name__)
            if isinstance(effect, Answer):
                self._note(request, taken.session)
                return effect.ack
            if isinstance(effect, Keep):
                if Keep in self.fails:
                    return self._run(request, before, happened.Failed(trouble=self.fails[Keep]))
                continue
            if isinstance(effect, Drop):
                self.session = None
                continue
            self._note(request, taken.session)
            return self._run(request, taken.session, self._perform(effect))
        self._note(request, taken.session)
        return None

    def _note(self, request: Request, session: Session | None) -> None:
        if request.packet_type is not PacketType.PING and not (request.session_id and self.session is None):
            self.session = session or (self.session if not request.session_id else None)
        if self.session is not None:
            # Whatever a session is at any moment, a restart finds it again.
            self.session = Session.from_json(json.loads(json.dumps(self.session.to_json())))

    def _perform(self, effect: Effect) -> Event:
        if type(effect) in self.fails:
            return happened.Failed(trouble=self.fails[type(effect)])
        match effect:
            case Look():
                return happened.Looked(place=self.place)
            case Make():
                return happened.Made(session_id=ID)
            case Store():
                assert effect.skip + effect.length >= 0
                if self.arrives is not None:
                    took = min(effect.length, max(0, self.arrives - effect.skip))
                    self.arrives = None
                    return happened.BrokenOff(received_bytes=effect.offset + took)
                return happened.Stored(received_bytes=effect.offset + effect.length)
            case Seal():
                return happened.Sealed()
            case Notify():
                return self.application.pop(0)
            case Publish():
                self.published += 1
                return happened.Published()
            case _:
                raise AssertionError(effect)

    # --- packets ---

    def create(self) -> Ack:
        assert BITS is not None
        ack = self.ask(Request(packet_type=PacketType.CREATE_SESSION, supported_protocols=(BITS,)))
        assert ack is not None
        return ack

    def fragment(self, offset: int, length: int, total: int, session_id: str = ID) -> Ack | None:
        carried = FragmentRange(offset=offset, length=length, total=total)
        return self.ask(Request(packet_type=PacketType.FRAGMENT, session_id=session_id, range=carried))

    def send(self, offset: int, length: int, total: int) -> tuple[int, int | None]:
        ack = self.fragment(offset, length, total)
        assert ack is not None
        return ack.status, ack.received_bytes

    def close(self) -> Ack:
        ack = self.ask(Request(packet_type=PacketType.CLOSE_SESSION, session_id=ID))
        assert ack is not None
        return ack

    def cancel(self) -> Ack:
        ack = self.ask(Request(packet_type=PacketType.CANCEL_SESSION, session_id=ID))
        assert ack is not None
        return ack

    def ping(self) -> Ack:
        ack = self.ask(Request(packet_type=PacketType.PING))
        assert ack is not None
        return ack


def opened(policy: Policy | None = None) -> Server:
    made = Server(policy=policy or Policy())
    assert made.create().status == 200
    made.done.clear()
    return made


def said(ack: Ack | None) -> tuple[int, int | None, int | None]:
    assert ack is not None
    return ack.status, ack.error, ack.error_context


def error(name: str) -> int:
    return error_code(name).hresult


# --- create ------------------------------------------------------------------------------------


def test_u41_create_is_answered_with_protocol_and_id() -> None:
    ack = Server().create()
    assert (ack.status, ack.session_id, ack.protocol) == (200, ID, BITS)
    assert ack.received_bytes is None
    assert ack.host_id == ""


def test_u6_u7_create_names_the_host_to_go_on_with() -> None:
    ack = Server(policy=Policy(host_id="node7", host_id_fallback_timeout_s=110)).create()
    assert (ack.host_id, ack.host_id_fallback_timeout_s) == ("node7", 110)


def test_u41_no_protocol_in_common() -> None:
    made = Server()
    ack = made.ask(Request(packet_type=PacketType.CREATE_SESSION, supported_protocols=()))
    assert said(ack) == (400, error("E_INVALIDARG"), 5)
    assert made.session is None


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        (Place.DIRECTORY, (400, error("E_INVALIDARG"), 5)),
        (Place.MISSING, (404, None, None)),
        (Place.FORBIDDEN, (403, error("E_ACCESSDENIED"), 5)),
        (Place.FILE, (403, error("E_ACCESSDENIED"), 5)),
    ],
)
def test_u41_destination_that_cannot_be(place: Place, wanted: tuple[int, int | None, int | None]) -> None:
    made = Server(place=place)
    assert said(made.create()) == wanted
    assert made.session is None
    assert "Make" not in made.done


def test_u8_existing_file_may_be_replaced_where_that_is_allowed() -> None:
    assert Server(policy=Policy(may_overwrite=True), place=Place.FILE).create().status == 200
    assert Server(policy=Policy(may_overwrite=True), place=Place.DIRECTORY).create().status == 400


@pytest.mark.parametrize(
    ("trouble", "wanted"),
    [
        (Trouble.TOO_MANY, (503, None, None)),
        (Trouble.NO_ROOM, (500, error("ERROR_DISK_FULL"), 5)),
        (Trouble.BROKEN, (500, error("E_FAIL"), 5)),
    ],
)
def test_create_that_the_server_cannot_do(trouble: Trouble, wanted: tuple[int, int | None, int | None]) -> None:
    made = Server(fails={Make: trouble})
    assert said(made.create()) == wanted
    assert made.session is None


# --- fragments ---------------------------------------------------------------------------------


def test_u42_fragments_in_order_then_close() -> None:
    made = opened()
    assert made.send(0, 100, 300) == (200, 100)
    assert made.send(100, 150, 300) == (200, 250)
    assert made.published == 0
    assert made.send(250, 50, 300) == (200, 300)
    assert made.done[-5:] == ["Store", "Seal", "Keep", "Publish", "Answer"]
    assert made.close().status == 200
    assert made.published == 1
    assert made.session is None


def test_u42_acks_carry_the_session_id_and_no_reply_url_of_a_plain_upload() -> None:
    made = opened()
    ack = made.fragment(0, 10, 10)
    assert ack is not None
    assert ack.session_id == ID
    assert ack.reply_url == ""
    assert made.close().session_id == ID


def test_u42_gap_is_416_and_the_session_stays_usable() -> None:
    made = opened()
    made.send(0, 100, 300)
    ack = made.fragment(200, 100, 300)
    assert said(ack) == (416, None, None)
    assert ack is not None
    assert ack.received_bytes == 100
    assert made.send(100, 200, 300) == (200, 300)


def test_u42_overlap_stores_only_the_new_tail() -> None:
    made = opened()
    made.send(0, 101, 300)
    step = server.step(
        made.policy,
        made.session,
        Request(
            packet_type=PacketType.FRAGMENT,
            session_id=ID,
            range=FragmentRange(offset=50, length=101, total=300),
        ),
        Asked(),
    )
    assert step.effects == (Store(offset=101, skip=51, length=50, total_bytes=300),)
    assert made.send(50, 101, 300) == (200, 151)


def test_u42_overlap_is_refused_where_that_is_set() -> None:
    made = opened(Policy(overlap=Overlap.REFUSE))
    made.send(0, 101, 300)
    assert made.send(50, 101, 300) == (416, 101)
    assert made.send(101, 199, 300) == (200, 300)
    assert made.send(101, 199, 300) == (200, 300), "a last fragment sent again is answered whatever is set"


@pytest.mark.parametrize("overlap", list(Overlap))
def test_whole_file_of_an_interrupted_last_fragment_is_finished_by_the_next_one(overlap: Overlap) -> None:
    made = opened(Policy(overlap=overlap))
    made.session = Session(id=ID, total_bytes=300, received_bytes=300)
    assert made.send(200, 100, 300) == (200, 300)
    assert made.published == 1


def test_u42_resend_below_the_wanted_byte_acks_the_wanted_byte() -> None:
    made = opened()
    made.send(0, 200, 300)
    assert made.send(0, 100, 300) == (200, 200)
    assert made.done[-1:] == ["Answer"]


@pytest.mark.parametrize("total", [299, 301])
def test_changed_total_is_refused(total: int) -> None:
    made = opened()
    made.send(0, 100, 300)
    assert said(made.fragment(100, 10, total)) == (400, error("E_INVALIDARG"), 5)
    assert made.send(100, 200, 300) == (200, 300)
    assert said(made.fragment(100, 10, total)) == (400, error("E_INVALIDARG"), 5)


def test_total_that_a_restart_forgot_is_learnt_again_but_is_never_less_than_what_is_here() -> None:
    made = opened()
    made.session = Session(id=ID, total_bytes=None, received_bytes=200)
    assert said(made.fragment(0, 100, 100)) == (400, error("E_INVALIDARG"), 5)
    assert made.send(200, 100, 300) == (200, 300)


def test_u3_maximum_size_counts_at_the_first_fragment() -> None:
    made = opened(Policy(maximum_bytes=1000))
    assert said(made.fragment(0, 10, 1001)) == (500, error("BG_E_TOO_LARGE"), 5)
    assert "Store" not in made.done
    assert made.send(0, 1000, 1000) == (200, 1000)


def test_u3_maximum_size_that_was_lowered_counts_on_the_way() -> None:
    made = opened()
    made.send(0, 500, 2000)
    made.policy = replace(made.policy, maximum_bytes=1000)
    assert said(made.fragment(500, 100, 2000)) == (500, error("BG_E_TOO_LARGE"), 5)


def test_body_that_breaks_off_is_answered_to_nobody_and_the_prefix_counts() -> None:
    made = opened()
    made.send(0, 100, 300)
    made.arrives = 40
    assert made.fragment(100, 200, 300) is None
    assert made.send(200, 100, 300) == (416, 140)
    made.arrives = 30
    assert made.fragment(120, 180, 300) is None
    assert made.send(0, 300, 300) == (200, 300)


def test_body_that_breaks_off_at_its_last_byte_does_not_publish() -> None:
    made = opened()
    made.arrives = 300
    assert made.fragment(0, 300, 300) is None
    assert made.published == 0
    assert made.send(0, 300, 300) == (200, 300)
    assert made.published == 1


def test_full_disk_says_what_is_kept() -> None:
    made = opened()
    made.send(0, 100, 300)
    request = Request(
        packet_type=PacketType.FRAGMENT, session_id=ID, range=FragmentRange(offset=100, length=200, total=300)
    )
    step = server.step(
        made.policy, made.session, request, happened.NotStored(received_bytes=164, trouble=Trouble.NO_ROOM)
    )
    (answer,) = step.effects
    assert isinstance(answer, Answer)
    assert said(answer.ack) == (500, error("ERROR_DISK_FULL"), 5)
    assert answer.ack.received_bytes == 164
    made.session = step.session
    assert made.send(164, 136, 300) == (200, 300)


# --- quirks ------------------------------------------------------------------------------------


def test_empty_file_is_whole_with_its_only_fragment() -> None:
    made = opened()
    assert made.send(0, 0, 0) == (200, 0)
    assert made.done[:4] == ["Store", "Seal", "Keep", "Publish"]
    assert made.send(0, 0, 0) == (200, 0)
    assert made.published == 1
    assert made.close().status == 200


def test_empty_fragment_after_the_last_one_changes_nothing() -> None:
    made = opened()
    assert made.send(0, 10, 10) == (200, 10)
    assert made.send(10, 0, 10) == (200, 10)
    assert made.published == 1


def test_empty_fragment_at_the_end_before_all_is_here_is_a_gap() -> None:
    made = opened()
    made.send(0, 5, 10)
    assert made.send(10, 0, 10) == (416, 5)


def test_ping_is_answered_at_any_time_and_changes_nothing() -> None:
    made = Server()
    assert made.ping() == Ack(status=200)
    made.create()
    made.send(0, 5, 10)
    before = made.session
    assert made.ping().status == 200
    assert made.session == before
    assert made.ask(Request(packet_type=PacketType.PING, session_id=ID)) == Ack(status=200)


def test_u1_disabled_uploads_are_501_for_everything() -> None:
    made = opened()
    made.policy = Policy(is_enabled=False)
    wanted = (501, error("E_ACCESSDENIED"), 5)
    assert said(made.ping()) == wanted
    assert said(made.create()) == wanted
    assert said(made.fragment(0, 1, 1)) == wanted
    assert said(made.close()) == wanted
    assert said(made.cancel()) == wanted
    assert made.session is not None


@pytest.mark.parametrize("kind", [PacketType.FRAGMENT, PacketType.CLOSE_SESSION, PacketType.CANCEL_SESSION])
def test_unknown_session(kind: PacketType) -> None:
    carried = FragmentRange(offset=0, length=1, total=1) if kind is PacketType.FRAGMENT else None
    step = server.step(Policy(), None, Request(packet_type=kind, session_id=ID, range=carried), Asked())
    (answer,) = step.effects
    assert isinstance(answer, Answer)
    assert said(answer.ack) == (500, error("BG_E_SESSION_NOT_FOUND"), 5)


# --- close and cancel --------------------------------------------------------------------------


@pytest.mark.parametrize("received", [0, 100])
def test_u43_close_before_the_last_fragment_deletes(received: int) -> None:
    made = opened()
    if received:
        made.send(0, received, 300)
    made.done.clear()
    assert made.close().status == 200
    assert made.done == ["Drop", "Answer"]
    assert made.published == 0


def test_u44_cancel_deletes_and_takes_nothing_back() -> None:
    made = opened()
    made.send(0, 100, 300)
    assert made.cancel().status == 200
    assert made.session is None
    made = opened()
    made.send(0, 300, 300)
    assert made.cancel().status == 200
    assert made.published == 1


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_ended_session_is_not_found(end: str) -> None:
    made = opened()
    made.send(0, 10, 10)
    getattr(made, end)()
    assert said(made.fragment(0, 10, 10)) == (500, error("BG_E_SESSION_NOT_FOUND"), 5)
    assert said(made.close()) == (500, error("BG_E_SESSION_NOT_FOUND"), 5)


def test_finalize_at_close_publishes_then_and_not_before() -> None:
    made = opened(Policy(finalize=Finalize.CLOSE))
    assert made.send(0, 10, 10) == (200, 10)
    assert made.send(0, 10, 10) == (200, 10)
    assert made.published == 0
    assert made.close().status == 200
    assert made.published == 1
    made = opened(Policy(finalize=Finalize.CLOSE))
    made.send(0, 10, 10)
    assert made.cancel().status == 200
    assert made.published == 0


# --- publishing that fails ---------------------------------------------------------------------


def test_u8_file_that_came_meanwhile_is_403_and_may_be_tried_again() -> None:
    made = opened()
    made.fails[Publish] = Trouble.EXISTS
    ack = made.fragment(0, 10, 10)
    assert said(ack) == (403, error("E_ACCESSDENIED"), 5)
    del made.fails[Publish]
    assert made.send(0, 10, 10) == (200, 10)
    assert made.published == 1


@pytest.mark.parametrize("finalize", list(Finalize))
def test_close_that_cannot_publish_for_good_ends_the_session(finalize: Finalize) -> None:
    made = opened(Policy(finalize=finalize))
    made.fails[Publish] = Trouble.EXISTS
    made.fragment(0, 10, 10)
    assert said(made.close()) == (403, error("E_ACCESSDENIED"), 5)
    assert made.session is None


def test_close_that_cannot_publish_now_can_be_sent_again() -> None:
    made = opened(Policy(finalize=Finalize.CLOSE))
    made.send(0, 10, 10)
    made.fails[Publish] = Trouble.NO_ROOM
    assert said(made.close()) == (500, error("ERROR_DISK_FULL"), 5)
    del made.fails[Publish]
    assert made.close().status == 200
    assert made.published == 1


def test_close_of_a_session_whose_file_is_gone_is_404() -> None:
    made = opened(Policy(finalize=Finalize.CLOSE))
    made.send(0, 10, 10)
    made.fails[Publish] = Trouble.VANISHED
    assert said(made.close()) == (404, None, None)
    assert made.session is None


@pytest.mark.parametrize("effect", [Seal, Keep])
def test_what_is_not_durable_is_not_published(effect: type[Effect]) -> None:
    made = opened()
    made.fails[effect] = Trouble.BROKEN
    assert said(made.fragment(0, 10, 10)) == (500, error("E_FAIL"), 5)
    assert made.published == 0
    assert made.session is not None
    assert made.session.phase is Phase.RECEIVING
    made.fails.clear()
    assert made.send(0, 10, 10) == (200, 10)
    assert made.published == 1


# --- the server application --------------------------------------------------------------------

APPLICATION: Final = Policy(has_application=True)


def test_u30_application_that_takes_the_file_leaves_it_unpublished() -> None:
    made = opened(APPLICATION)
    made.application = [happened.Notified(reply_url="BITS-Sessions/Replies/x/responsefile.bin")]
    ack = made.fragment(0, 10, 10)
    assert ack is not None
    assert (ack.status, ack.received_bytes) == (200, 10)
    assert ack.reply_url == "BITS-Sessions/Replies/x/responsefile.bin"
    assert made.done == ["Store", "Seal", "Keep", "Notify", "Keep", "Answer"]
    assert made.close().status == 200
    assert made.published == 0


def test_u30_application_that_asks_for_it_gets_the_file_placed() -> None:
    made = opened(APPLICATION)
    made.application = [happened.Notified(wants_file=True)]
    assert made.send(0, 10, 10) == (200, 10)
    assert made.published == 1


def test_lost_last_ack_is_repeated_with_the_same_reply_and_no_second_notification() -> None:
    made = opened(APPLICATION)
    made.application = [happened.Notified(reply_url="http://o/reply")]
    first = made.fragment(0, 10, 10)
    assert made.fragment(5, 5, 10) == first
    assert made.fragment(10, 0, 10) == first


@pytest.mark.parametrize("status", [302, 404, 408, 500, 503])
def test_u32_failure_is_passed_on_and_the_next_last_fragment_notifies_again(status: int) -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=status), happened.Notified(reply_url="http://o/r")]
    ack = made.fragment(0, 10, 10)
    assert said(ack) == (status, 0x80190000 + status, 7)
    ack = made.fragment(0, 10, 10)
    assert ack is not None
    assert (ack.status, ack.received_bytes, ack.reply_url) == (200, 10, "http://o/r")


def test_r2_403_is_final() -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=403)]
    for _ in range(3):
        assert said(made.fragment(0, 10, 10)) == (403, 0x80190193, 7)
    assert made.done.count("Notify") == 1
    assert made.close().status == 200
    assert made.published == 0


def test_timeout_of_the_application_has_its_own_code() -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=408, error=error("ERROR_WINHTTP_TIMEOUT"))]
    assert said(made.fragment(0, 10, 10)) == (408, error("ERROR_WINHTTP_TIMEOUT"), 7)


@pytest.mark.parametrize("status", [413, 416])
def test_status_that_a_client_would_take_for_the_servers_own_is_400(status: int) -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=status)]
    assert said(made.fragment(0, 10, 10)) == (400, 0x80190000 + status, 7)


def test_reply_url_that_no_client_takes_is_refused_and_the_application_is_asked_again() -> None:
    made = opened(APPLICATION)
    made.application = [happened.Notified(reply_url="http://o/" + "x" * 2200), happened.Notified()]
    assert said(made.fragment(0, 10, 10)) == (400, error("E_INVALIDARG"), 7)
    assert made.send(0, 10, 10) == (200, 10)


def test_answer_of_the_application_that_cannot_be_written_down_is_asked_for_again() -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=500)]
    made.fragment(0, 10, 10)
    made.application = [happened.Notified(), happened.Notified()]
    made.fails[Keep] = Trouble.NO_ROOM
    assert said(made.fragment(0, 10, 10)) == (500, error("ERROR_DISK_FULL"), 5)
    made.fails.clear()
    assert made.send(0, 10, 10) == (200, 10)


def test_close_after_an_application_never_took_the_file_gives_it_up() -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=500)]
    made.fragment(0, 10, 10)
    assert made.close().status == 200
    assert made.session is None
    assert made.published == 0


def test_application_that_is_taken_away_leaves_a_plain_upload() -> None:
    made = opened(APPLICATION)
    made.application = [happened.NotNotified(status=500)]
    made.fragment(0, 10, 10)
    made.policy = Policy()
    assert made.send(0, 10, 10) == (200, 10)
    assert made.published == 1


def test_session_of_another_version_is_an_error_and_no_guess() -> None:
    said_of_it = Session(id=ID).to_json()
    with pytest.raises(ValueError, match="strange"):
        Session.from_json({**said_of_it, "phase": "strange"})
    with pytest.raises(TypeError):
        Session.from_json({**said_of_it, "colour": "red"})
