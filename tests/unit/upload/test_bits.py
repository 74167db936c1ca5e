"""The client's side of BITS (U40–U46): digest sections 5, 6, 9 and 11, as scripts of the conversation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from openbits.errors import ErrorContext, error_code
from openbits.upload import packets
from openbits.upload.bits import begin
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Broken,
    Chunk,
    Event,
    Failed,
    IllegalEvent,
    Kept,
    ReplyFetched,
    TakeUp,
    Upload,
)
from openbits.upload.pace import LEAST_BYTES
from openbits.upload.progress import LOST_LIMIT, SETBACKS_LIMIT
from support.conversations import Playbook, ack, answer, created, received

URL = "http://server/up/f.bin"
KIB = 1024
UPLOAD = Upload(url=URL, name="f.bin", size=100 * KIB)
SMALL = replace(UPLOAD, size=10 * KIB)
EMPTY = replace(UPLOAD, size=0)
REPLY = replace(SMALL, wants_reply=True)
CREATE = f"Create-Session {URL}"
PING = f"Ping {URL}"
CLOSE = f"Close-Session {URL} BITS-Session-Id=S"
LOST = ack(500, error=error_code("BG_E_SESSION_NOT_FOUND").hresult, error_context=5)


def fragment(offset: int, length: int, total: int, *, session: str = "S", url: str = URL) -> str:
    carried = f"Content-Range=bytes {offset}-{offset + length - 1}/{total} [{offset}+{length}]"
    return f"Fragment {url} BITS-Session-Id={session} {carried}"


def opened(upload: Upload, *, first: str = "") -> Playbook:
    """A conversation whose first fragment is on its way."""
    play = Playbook(begin(upload, "", 0))
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")
    length = min(upload.size, 64 * KIB)
    play(Kept(), first or fragment(0, length, upload.size))
    return play


def resumed(play: Playbook, upload: Upload, *, is_new_source: bool = False) -> Playbook:
    """Another run after a crash: it knows what was kept."""
    assert play.kept is not None
    acknowledged_bytes = play.kept.acknowledged_bytes
    conversation = begin(upload, play.kept.memory, acknowledged_bytes, is_new_source=is_new_source)
    return Playbook(conversation, now=play.now)


def closing(upload: Upload = SMALL) -> Playbook:
    """A conversation whose Close-Session is on its way."""
    play = opened(upload)
    play(received(upload.size), f"keep! {upload.size}")
    play(Kept(), CLOSE)
    return play


# --- the plain way -----------------------------------------------------------------------------


def test_u40_u43_a_file_is_uploaded_fragment_by_fragment() -> None:
    """Digest, section 10."""
    play = opened(UPLOAD)
    assert dict(play.sent.headers)["Content-Name"] == "f.bin"
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, 100 * KIB))
    assert "Content-Name" not in dict(play.sent.headers)
    play(received(100 * KIB), f"keep! {100 * KIB}")
    play(Kept(), CLOSE)
    assert play.sent.ends_session
    play(ack(), "finished")


def test_every_packet_is_a_bits_post_that_says_what_it_is() -> None:
    play = Playbook(begin(SMALL, "", 0))
    play(Begin(), CREATE)
    assert play.sent.method == "BITS_POST"
    headers = dict(play.sent.headers)
    assert headers == {
        "BITS-Packet-Type": "Create-Session",
        "BITS-Supported-Protocols": "{7df0354d-249b-430f-820d-3d2a9bef4931}",
    }
    assert play.sent.body is None
    assert not play.sent.ends_session


def test_an_ack_needs_nothing_but_what_windows_needs() -> None:
    """Digest, sections 3, 9.1–9.3: no id in fragment Acks, stray error codes, 201, odd session ids, odd case."""
    play = Playbook(begin(SMALL, "", 0))
    play(Begin(), CREATE)
    play(
        answer(
            201,
            [
                ("BITS-PACKET-TYPE", "ACK"),
                ("bits-session-id", "-77"),
                ("Bits-Protocol", "7DF0354D-249B-430F-820D-3D2A9BEF4931"),
                ("BITS-Error-Code", "1"),
                ("BITS-Error-Context", ""),
            ],
        ),
        "keep! 0",
    )
    play(Kept(), fragment(0, SMALL.size, SMALL.size, session="-77"))
    play(answer(200, [("bits-packet-type", "Ack"), ("bits-received-content-range", "10240")]), f"keep! {SMALL.size}")


def test_an_upload_of_one_byte_more_than_a_fragment_takes_two() -> None:
    upload = replace(UPLOAD, size=64 * KIB + 1)
    play = opened(upload)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 1, upload.size))


def test_fragments_grow_while_they_are_quick_to_thirteen_mebibytes() -> None:
    upload = replace(UPLOAD, size=200 * KIB * KIB)
    play = opened(upload)
    lengths = [64 * KIB]
    offset = 0
    for _ in range(6):
        offset += lengths[-1]
        play.conversation = play.conversation.step(received(offset), play.now + 0.01).conversation
        lengths.append(play.conversation.sent.length)  # type: ignore[attr-defined]  # what a Send would say
    assert lengths == [64 * KIB, 256 * KIB, KIB * KIB, 4 * KIB * KIB, *[13 * KIB * KIB] * 3]


def test_a_slow_link_gets_fragments_of_some_seconds() -> None:
    upload = replace(UPLOAD, size=200 * KIB * KIB)
    play = opened(upload)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 8 * KIB, upload.size), after_s=16.0)
    play(received(72 * KIB), f"keep {72 * KIB}", fragment(72 * KIB, 8 * KIB, upload.size), after_s=2.0)
    play(received(80 * KIB), f"keep {80 * KIB}", fragment(80 * KIB, 5 * KIB, upload.size), after_s=60.0)


# --- opening a session -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204])
def test_u46_what_answers_without_an_ack_is_no_bits_server(status: int) -> None:
    play = Playbook(begin(SMALL, "", 0))
    play(Begin(), CREATE)
    play(answer(status), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")
    assert "--protocol put" in play.failure.message


def test_u46_a_protocol_that_nobody_offered_is_a_mismatch() -> None:
    for value in ("{00000000-0000-0000-0000-000000000001}", "none"):
        play = Playbook(begin(SMALL, "", 0))
        play(Begin(), CREATE)
        headers = [("BITS-Packet-Type", "Ack"), ("BITS-Session-Id", "S"), ("BITS-Protocol", value)]
        play(answer(200, headers), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")


@pytest.mark.parametrize("session_id", ["", "x" * 101, "a b"])
def test_u41_a_session_without_a_usable_id_is_a_protocol_error(session_id: str) -> None:
    play = Playbook(begin(SMALL, "", 0))
    play(Begin(), CREATE)
    play(created(session_id), "failed BG_E_INVALID_SERVER_RESPONSE")


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, "E_INVALIDARG", "failed E_INVALIDARG"),
        (403, "E_ACCESSDENIED", "failed E_ACCESSDENIED"),
        (403, None, "failed BG_E_HTTP_ERROR_403"),
        (404, None, "failed BG_E_HTTP_ERROR_404"),
        (401, None, "failed BG_E_HTTP_ERROR_401"),
        (407, None, "failed BG_E_HTTP_ERROR_407"),
        (409, None, "failed BG_E_HTTP_ERROR_409 transient"),
        (408, None, "failed BG_E_HTTP_ERROR_408 transient"),
        (413, None, "failed BG_E_HTTP_ERROR_413"),
        (500, None, "failed BG_E_HTTP_ERROR_500 transient"),
        (500, "BG_E_TOO_LARGE", "failed BG_E_TOO_LARGE"),
        (500, "ERROR_DISK_FULL", "failed ERROR_DISK_FULL transient"),
        (501, "E_ACCESSDENIED", "failed E_ACCESSDENIED"),
        (501, None, "failed BG_E_HTTP_ERROR_501"),
        (505, None, "failed BG_E_HTTP_ERROR_505"),
        (503, None, "failed BG_E_HTTP_ERROR_503 transient"),
    ],
)
def test_r1_errors_have_the_name_that_says_most(status: int, error: str | None, expected: str) -> None:
    """Digest, section 6; U45."""
    for body in (
        ack(status, error=error_code(error).hresult if error else None, error_context=5 if error else None),
        *([] if error else [answer(status)]),
    ):
        play = Playbook(begin(SMALL, "", 0))
        play(Begin(), CREATE)
        play(body, expected)
        assert play.failure.context is ErrorContext.REMOTE_FILE
        assert play.failure.message.startswith("server: ")


def test_a_redirect_is_not_followed() -> None:
    play = Playbook(begin(SMALL, "", 0))
    play(Begin(), CREATE)
    play(answer(302, [("Location", "http://elsewhere/")]), "failed BG_E_HTTP_ERROR_302")
    assert "http://elsewhere/" in play.failure.message


def test_u45_an_error_of_the_application_behind_the_server_is_told_apart() -> None:
    """E6, R1; a code that no table has does not hide the status."""
    play = opened(SMALL)
    play(ack(408, error=0x8007_0112, error_context=7), "failed BG_E_HTTP_ERROR_408 transient")
    assert play.failure.context is ErrorContext.REMOTE_APPLICATION


def test_a_code_that_means_success_does_not_name_an_error() -> None:
    play = opened(SMALL)
    play(ack(500, error=0), "failed BG_E_HTTP_ERROR_500 transient")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("120", 120), ("Thu, 01 Jan 1970 00:10:00 GMT", 500), ("9" * 15, 7 * 86_400), ("soon", None), ("", None)],
)
def test_retry_after_is_seconds_or_a_date(value: str, expected: int | None) -> None:
    play = Playbook(begin(SMALL, "", 0), now=100.0)
    play(Begin(), CREATE)
    play(answer(503, [("Retry-After", value)]), "failed BG_E_HTTP_ERROR_503 transient")
    assert play.failure.retry_after_s == expected


# --- interruptions -----------------------------------------------------------------------------


def test_a_broken_connection_is_taken_up_with_a_ping_and_a_small_fragment() -> None:
    """[MC-BUP] 3.1.4.3."""
    play = opened(UPLOAD)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), PING)
    play(ack(), fragment(64 * KIB, 16 * KIB, UPLOAD.size))


def test_a_later_run_goes_on_with_the_same_session_at_the_same_byte() -> None:
    play = opened(UPLOAD)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
    later = resumed(play, UPLOAD)
    later(Begin(), PING)
    later(ack(), fragment(64 * KIB, 16 * KIB, UPLOAD.size))


def test_a_crash_between_create_and_the_first_fragment_keeps_the_session() -> None:
    play = Playbook(begin(UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")
    later = resumed(play, UPLOAD)
    later(Begin(), PING)
    later(ack(), fragment(0, 16 * KIB, UPLOAD.size))


def test_a_server_that_was_never_reached_says_so() -> None:
    play = Playbook(begin(UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(Broken(was_reached=False), "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    assert play.failure.context is ErrorContext.GENERAL_TRANSPORT
    play(Begin(), CREATE)


def test_a_ping_that_somebody_else_answers_is_tried_again_later() -> None:
    """The log-in page of a public network."""
    play = resumed(opened(UPLOAD), UPLOAD)
    play(Begin(), PING)
    play(answer(200), "failed BG_E_INVALID_SERVER_RESPONSE transient")


@pytest.mark.parametrize(
    "memory",
    [
        "",
        "{",
        "[]",
        "null",
        "1" * 9_000,
        "[" * 8_000,
        '{"protocol":"bits"}',
        '{"protocol":"bits","version":1}',
        '{"protocol":"tus","version":1,"target":"x"}',
        '{"version":' + "9" * 5_000 + "}",
    ],
)
def test_a_memory_that_is_none_begins_anew(memory: str) -> None:
    play = Playbook(begin(UPLOAD, memory, 50))
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")


def test_a_memory_with_one_damaged_field_begins_anew() -> None:
    play = opened(UPLOAD)
    assert play.kept is not None
    good = json.loads(play.kept.memory)
    for name, value in [
        ("session", 5),
        ("session", "a b"),
        ("session", "x" * 101),
        ("host", "a/b"),
        ("host", None),
        ("fallback_s", -1),
        ("fallback_s", "1"),
        ("unreachable_since", "now"),
        ("unreachable_since", float("nan")),
        ("unreachable_since", 10**400),
        ("mark", True),
        ("mark", 2**64),
        ("is_received", 1),
        ("empty_form", 99),
        ("reply_url", "x" * 3_000),
        ("target", "other"),
        ("version", 2),
    ]:
        later = Playbook(begin(UPLOAD, json.dumps(good | {name: value}), 5))
        later(Begin(), CREATE)


@pytest.mark.parametrize("acknowledged_bytes", [-1, UPLOAD.size + 1])
def test_an_acknowledged_byte_that_the_file_does_not_have_is_asked_for_again(acknowledged_bytes: int) -> None:
    play = opened(UPLOAD)
    assert play.kept is not None
    later = Playbook(begin(UPLOAD, play.kept.memory, acknowledged_bytes))
    later(Begin(), PING)
    later(ack(), fragment(0, 16 * KIB, UPLOAD.size))


def test_a_new_source_ends_the_old_session_first() -> None:
    play = resumed(opened(UPLOAD), UPLOAD, is_new_source=True)
    play(Begin(), f"Cancel-Session {URL} BITS-Session-Id=S")
    assert play.sent.ends_session
    play(ack(), "keep 0", CREATE)


@pytest.mark.parametrize("event", [answer(500), LOST, Broken(was_reached=True), Broken(was_reached=False)])
def test_a_new_source_does_not_wait_for_the_old_session(event: Event) -> None:
    play = resumed(opened(UPLOAD), SMALL)
    play(Begin(), f"Cancel-Session {URL} BITS-Session-Id=S")
    play(event, "keep 0", CREATE)


# --- what the server wants ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 416])
@pytest.mark.parametrize("value", [0, 1, 64 * KIB - 1, 64 * KIB + 1, 99 * KIB])
def test_u42_the_client_follows_the_server_up_and_down(status: int, value: int) -> None:
    play = opened(UPLOAD)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
    length = min(UPLOAD.size - value, 256 * KIB)
    play(ack(status, received_bytes=value), f"keep {value}", fragment(value, length, UPLOAD.size))


def test_u42_a_server_that_has_everything_is_believed() -> None:
    play = opened(UPLOAD)
    play(ack(416, received_bytes=UPLOAD.size), f"keep! {UPLOAD.size}")
    play(Kept(), CLOSE)


@pytest.mark.parametrize("status", [200, 416])
@pytest.mark.parametrize("value", ["", "-1", "bytes 0-5", "102401", str(2**70)])
def test_u42_an_ack_that_does_not_say_which_byte_is_an_error_and_no_loop(status: int, value: str) -> None:
    play = opened(UPLOAD)
    headers = [("BITS-Packet-Type", "Ack"), ("BITS-Received-Content-Range", value)]
    play(answer(status, headers), "failed BG_E_INVALID_SERVER_RESPONSE")


def test_u42_a_server_that_takes_nothing_is_not_asked_for_ever() -> None:
    play = opened(UPLOAD)
    for _ in range(SETBACKS_LIMIT):
        play(received(0), "keep 0", fragment(0, play.sent.body.length, UPLOAD.size))  # type: ignore[union-attr]
    play(received(0), "keep 0", "failed BG_E_INVALID_SERVER_RESPONSE")
    # Whoever resumes the job gets another round.
    later = resumed(play, UPLOAD)
    later(Begin(), PING)
    later(ack(), fragment(0, 16 * KIB, UPLOAD.size))
    later(received(0), "keep 0", fragment(0, 16 * KIB, UPLOAD.size))


def test_u42_a_server_that_goes_back_and_forth_is_not_followed_for_ever_by_any_number_of_runs() -> None:
    play = opened(UPLOAD)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
    for _ in range(SETBACKS_LIMIT):
        play.conversation = play.conversation.step(received(0), play.now).conversation
        play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
        play = resumed(play, UPLOAD)
        play(Begin(), PING)
        play(ack(), fragment(64 * KIB, 16 * KIB, UPLOAD.size))
    play(received(0), "keep 0", "failed BG_E_INVALID_SERVER_RESPONSE")


def test_u42_a_long_file_that_the_server_lost_is_sent_again_as_often_as_it_takes() -> None:
    """A climb that brings nothing new is no setback."""
    upload = replace(UPLOAD, size=5_000 * KIB)
    conversation = begin(upload, "", 0)
    play = Playbook(conversation)
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")
    play(Kept(), fragment(0, 64 * KIB, upload.size))
    play(ack(416, received_bytes=4_000 * KIB), f"keep {4_000 * KIB}", fragment(4_000 * KIB, 64 * KIB, upload.size))
    play(ack(416, received_bytes=0), "keep 0", fragment(0, 64 * KIB, upload.size))
    offset = 0
    while offset < upload.size:
        offset += 20 * KIB
        step = play.conversation.step(received(offset), play.now)
        play.conversation = step.conversation
        assert not [effect for effect in step.effects if type(effect).__name__ == "Failed"]


def test_413_halves_the_fragment_to_five_kibibytes_and_is_then_fatal() -> None:
    play = opened(UPLOAD)
    for length in (32 * KIB, 16 * KIB, 8 * KIB):
        play(answer(413), "keep 0", fragment(0, length, UPLOAD.size))
    play(ack(413), "keep 0", fragment(0, LEAST_BYTES, UPLOAD.size))
    play(answer(413), "failed BG_E_HTTP_ERROR_413")


def test_413_with_too_large_is_about_the_file() -> None:
    play = opened(UPLOAD)
    play(ack(413, error=error_code("BG_E_TOO_LARGE").hresult), "failed BG_E_TOO_LARGE")


def test_the_size_that_the_server_takes_outlives_the_run() -> None:
    upload = replace(UPLOAD, size=500 * KIB)
    play = opened(upload)
    play(answer(413), "keep 0", fragment(0, 32 * KIB, upload.size))
    later = resumed(play, upload)
    later(Begin(), PING)
    later(ack(), fragment(0, 16 * KIB, upload.size))
    later(received(16 * KIB), f"keep {16 * KIB}", fragment(16 * KIB, 32 * KIB, upload.size))
    later(received(48 * KIB), f"keep {48 * KIB}", fragment(48 * KIB, 32 * KIB, upload.size))


# --- lost sessions -----------------------------------------------------------------------------


def test_u45_an_unknown_session_begins_again_at_0() -> None:
    play = opened(UPLOAD)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, UPLOAD.size))
    play(LOST, "keep 0", CREATE)
    play(created("T"), "keep! 0")
    play(Kept(), fragment(0, 64 * KIB, UPLOAD.size, session="T"))


def test_u45_a_ping_that_tells_of_an_unknown_session_begins_again() -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(Begin(), PING)
    play(LOST, "keep 0", CREATE)


def test_u45_sessions_are_not_made_for_ever() -> None:
    play = opened(UPLOAD)
    for _ in range(LOST_LIMIT):
        play(LOST, "keep 0", CREATE)
        play(created("S"), "keep! 0")
        play(Kept(), fragment(0, 64 * KIB, UPLOAD.size))
    play(LOST, "keep 0", "failed BG_E_SESSION_NOT_FOUND")
    later = resumed(play, UPLOAD)
    later(Begin(), CREATE)


def test_u43_an_unknown_session_after_the_last_byte_is_a_closed_one() -> None:
    """Digest, section 11."""
    play = closing()
    play(LOST, "finished")


def test_u43_a_lost_ack_of_close_is_asked_for_again() -> None:
    play = closing()
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), PING)
    play(ack(), CLOSE)
    play(LOST, "finished")


def test_u43_a_crash_before_close_does_not_send_the_file_again() -> None:
    play = opened(SMALL)
    play(received(SMALL.size), f"keep! {SMALL.size}")
    later = resumed(play, SMALL)
    later(Begin(), PING)
    later(ack(), CLOSE)
    later(LOST, "finished")


# --- closing and cancelling --------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 501, 503, 505])
def test_r6_close_is_sent_again_later_after_5xx(status: int) -> None:
    play = closing()
    play(ack(status), f"failed BG_E_HTTP_ERROR_{status} transient")
    later = resumed(play, SMALL)
    later(Begin(), PING)
    later(ack(), CLOSE)
    later(ack(), "finished")


@pytest.mark.parametrize("status", [302, 400, 403, 404, 408, 409, 429])
def test_r6_close_that_is_refused_is_not_sent_again(status: int) -> None:
    play = closing()
    play(answer(status), "keep 0", f"failed BG_E_HTTP_ERROR_{status}")
    assert play.kept is not None
    assert play.kept.memory == ""
    later = resumed(play, SMALL)
    later(Begin(), CREATE)


@pytest.mark.parametrize("status", [401, 407])
def test_r6_close_waits_for_credentials(status: int) -> None:
    """J37."""
    play = closing()
    play(answer(status), f"failed BG_E_HTTP_ERROR_{status}")
    later = resumed(play, SMALL)
    later(Begin(), PING)
    later(ack(), CLOSE)


def test_close_that_somebody_else_answers_is_sent_again_later() -> None:
    play = closing()
    play(answer(200), "failed BG_E_INVALID_SERVER_RESPONSE transient")


@pytest.mark.parametrize("event", [ack(), answer(200), answer(302), answer(404), ack(403), answer(401), LOST])
def test_u44_a_cancelled_session_is_over_with_any_answer(event: Event) -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(BeginCancel(), f"Cancel-Session {URL} BITS-Session-Id=S")
    assert play.sent.ends_session
    play(event, "finished")


@pytest.mark.parametrize("begin_again", [Begin(), BeginCancel()])
def test_u44_cancel_is_sent_again_after_5xx_and_broken_connections(begin_again: Begin | BeginCancel) -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(BeginCancel(), f"Cancel-Session {URL} BITS-Session-Id=S")
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(begin_again, f"Cancel-Session {URL} BITS-Session-Id=S")
    play(answer(501), "failed BG_E_HTTP_ERROR_501 transient")


def test_u44_without_a_session_there_is_nothing_to_cancel() -> None:
    Playbook(begin(UPLOAD, "", 0))(BeginCancel(), "finished")


# --- empty files -------------------------------------------------------------------------------


def empty_fragment(form: str) -> str:
    return f"Fragment {URL} BITS-Session-Id=S Content-Range={form}"


def test_an_empty_file_is_one_fragment_without_bytes() -> None:
    """Digest, section 9.5."""
    play = opened(EMPTY, first=empty_fragment("bytes 0-18446744073709551615/0"))
    assert play.sent.body is None
    play(received(0), "keep! 0")
    play(Kept(), CLOSE)
    play(ack(), "finished")


def test_an_empty_file_takes_other_forms_on_400() -> None:
    play = opened(EMPTY, first=empty_fragment(packets.EMPTY_RANGES[0]))
    play(answer(400), "keep 0", empty_fragment("bytes */0"))
    play(ack(400, error=error_code("E_INVALIDARG").hresult), "keep 0", empty_fragment("bytes 0-0/0"))
    later = resumed(play, EMPTY)
    later(Begin(), PING)
    later(ack(), empty_fragment("bytes 0-0/0"))
    later(ack(416), "keep 0", empty_fragment("bytes 0--1/0"))
    later(ack(400, error=error_code("E_INVALIDARG").hresult), "failed E_INVALIDARG")


def test_an_empty_file_takes_other_forms_on_416_and_believes_the_last() -> None:
    play = opened(EMPTY, first=empty_fragment(packets.EMPTY_RANGES[0]))
    for form in packets.EMPTY_RANGES[1:]:
        play(ack(416, received_bytes=0), "keep 0", empty_fragment(form))
    play(ack(416, received_bytes=0), "keep! 0")


def test_a_crash_before_close_of_an_empty_file_goes_on_with_close() -> None:
    play = opened(EMPTY, first=empty_fragment(packets.EMPTY_RANGES[0]))
    play(received(0), "keep! 0")
    later = resumed(play, EMPTY)
    later(Begin(), PING)
    later(ack(), CLOSE)


# --- upload-reply ------------------------------------------------------------------------------


def test_m7_a_reply_is_fetched_before_close() -> None:
    """Digest, section 10."""
    play = opened(REPLY)
    play(received(REPLY.size, reply_url="BITS-Sessions\\Replies\\{C8}\\r.bin"), f"keep! {REPLY.size}")
    play(Kept(), "fetch http://server/up/BITS-Sessions/Replies/%7BC8%7D/r.bin")
    play(ReplyFetched(), f"keep! {REPLY.size}")
    play(Kept(), CLOSE)
    play(LOST, "finished")


def test_m7_the_address_of_the_reply_outlives_the_run() -> None:
    play = opened(REPLY)
    play(received(REPLY.size, reply_url="r.bin"), f"keep! {REPLY.size}")
    later = resumed(play, REPLY)
    later(Begin(), PING)
    later(ack(), "fetch http://server/up/r.bin")
    later(ReplyFetched(), f"keep! {REPLY.size}")
    last = resumed(later, REPLY)
    last(Begin(), PING)
    last(ack(), CLOSE)


def test_m7_a_last_ack_without_the_address_of_a_reply_is_an_error() -> None:
    play = opened(REPLY)
    play(received(REPLY.size), f"keep {REPLY.size}", "failed BG_E_INVALID_SERVER_RESPONSE")
    assert "BITS-Reply-URL" in play.failure.message


@pytest.mark.parametrize("reply_url", ["ftp://server/x", "x" * 2_201])
def test_m7_a_reply_elsewhere_than_at_http_is_an_error(reply_url: str) -> None:
    play = opened(REPLY)
    play(received(REPLY.size, reply_url=reply_url), f"keep {REPLY.size}", "failed BG_E_INVALID_SERVER_RESPONSE")


@pytest.mark.parametrize("status", [200, 416])
def test_m7_a_lost_last_ack_is_brought_back_by_the_last_bytes(status: int) -> None:
    """Digest, section 4: the last fragment again."""
    upload = replace(UPLOAD, wants_reply=True)
    play = opened(upload)
    play(received(64 * KIB), f"keep {64 * KIB}", fragment(64 * KIB, 36 * KIB, upload.size))
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), PING)
    play(ack(), fragment(64 * KIB, 16 * KIB, upload.size))
    play(ack(416, received_bytes=upload.size), f"keep! {upload.size}")
    play(Kept(), fragment(84 * KIB, 16 * KIB, upload.size))
    play(ack(status, received_bytes=upload.size, reply_url="r"), f"keep! {upload.size}")
    play(Kept(), "fetch http://server/up/r")


def test_m7_a_session_lost_before_the_reply_is_known_sends_the_file_again() -> None:
    """U32: the application bears it, and only it has the reply."""
    upload = replace(UPLOAD, wants_reply=True)
    play = opened(upload)
    play(ack(416, received_bytes=upload.size), f"keep! {upload.size}")
    play(Kept(), fragment(84 * KIB, 16 * KIB, upload.size))
    play(LOST, "keep 0", CREATE)


# --- BITS-Host-Id ------------------------------------------------------------------------------

OTHER = "http://node7:8080/up/f.bin?x=1"
FIRST = "http://farm:8080/up/f.bin?x=1"
FARMED = replace(SMALL, url=FIRST)


def redirected(**fields: object) -> Playbook:
    play = Playbook(begin(FARMED, "", 0))
    play(Begin(), f"Create-Session {FIRST}")
    play(created("S", host_id="node7", **fields), "keep! 0")
    play(Kept(), f"Ping {OTHER}")
    return play


def test_u6_all_packets_go_to_the_host_that_the_server_names() -> None:
    play = redirected()
    play(ack(), fragment(0, SMALL.size, SMALL.size, url=OTHER))
    play(received(SMALL.size), f"keep! {SMALL.size}")
    play(Kept(), f"Close-Session {OTHER} BITS-Session-Id=S")


def test_u6_the_reply_comes_from_the_first_host() -> None:
    play = Playbook(begin(replace(FARMED, wants_reply=True), "", 0))
    play(Begin(), f"Create-Session {FIRST}")
    play(created("S", host_id="node7"), "keep! 0")
    play(Kept(), f"Ping {OTHER}")
    play(ack(), fragment(0, SMALL.size, SMALL.size, url=OTHER))
    play(received(SMALL.size, reply_url="r\\x"), f"keep! {SMALL.size}")
    play(Kept(), "fetch http://farm:8080/up/r/x")


@pytest.mark.parametrize("host_id", ["node7:80", "a/b", "x y", "http://node7"])
def test_u6_a_host_that_is_none_is_a_protocol_error(host_id: str) -> None:
    play = Playbook(begin(FARMED, "", 0))
    play(Begin(), f"Create-Session {FIRST}")
    play(created("S", host_id=host_id), "failed BG_E_INVALID_SERVER_RESPONSE")


def test_u7_the_first_host_is_used_again_when_the_other_was_away_for_too_long() -> None:
    play = redirected(host_id_fallback_timeout_s=110)
    play(Broken(was_reached=False), "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), f"Ping {OTHER}", after_s=109)
    play(Broken(was_reached=False), "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    later = resumed(play, FARMED)
    later(Begin(), "keep 0", f"Ping {FIRST}", after_s=1)
    later(ack(), fragment(0, SMALL.size, SMALL.size, url=FIRST))


def test_u7_the_next_attempt_waits_no_longer_than_for_the_first_hosts_turn() -> None:
    def within_s(play: Playbook, event: Broken | Answered) -> list[int | None]:
        effects = play.conversation.step(event, play.now).effects
        return [effect.failure.retry_within_s for effect in effects if isinstance(effect, TakeUp | Failed)]

    away = Broken(was_reached=False)
    play = redirected(host_id_fallback_timeout_s=110)
    assert within_s(play, away) == [110]
    assert within_s(play, answer(504)) == [110]
    play(away, "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), f"Ping {OTHER}", after_s=100)
    assert within_s(play, away) == [10]
    assert within_s(redirected(), away) == [None], "there is no way back"
    assert within_s(opened(UPLOAD), away) == [None]


def test_u7_success_sets_the_timer_back() -> None:
    play = redirected(host_id_fallback_timeout_s=110)
    play(Broken(was_reached=False), "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), f"Ping {OTHER}", after_s=100)
    play(ack(), "keep 0", fragment(0, SMALL.size, SMALL.size, url=OTHER))
    play(Broken(was_reached=False), "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), f"Ping {OTHER}", after_s=100)


@pytest.mark.parametrize("fields", [{}, {"host_id_fallback_timeout_s": 0xFFFF_FFFF}])
def test_u7_without_a_time_out_there_is_no_way_back(fields: dict[str, object]) -> None:
    play = redirected(**fields)
    play(Broken(was_reached=False), "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), f"Ping {OTHER}", after_s=1e8)


def test_u7_a_proxy_that_cannot_reach_the_host_counts_as_not_reached() -> None:
    play = redirected(host_id_fallback_timeout_s=110)
    play(answer(504), "keep 0", "failed BG_E_HTTP_ERROR_504 transient")
    later = resumed(play, FARMED)
    later(Begin(), "keep 0", f"Ping {FIRST}", after_s=600)


def test_u7_a_clock_that_was_set_back_begins_the_time_anew() -> None:
    play = redirected(host_id_fallback_timeout_s=110)
    play(Broken(was_reached=False), "keep 0", "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), "keep 0", f"Ping {OTHER}", after_s=-500)
    play(Broken(was_reached=False), "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), "keep 0", f"Ping {FIRST}", after_s=110)


# --- the edge ----------------------------------------------------------------------------------


def test_an_event_that_nothing_asked_for_is_a_mistake_of_the_edge() -> None:
    play = Playbook(begin(UPLOAD, "", 0))
    for event in (ack(), Kept(), ReplyFetched()):
        with pytest.raises(IllegalEvent):
            play.conversation.step(event, 0.0)


def test_the_first_bytes_are_a_chunk_of_the_file() -> None:
    assert opened(SMALL).sent.body == Chunk(offset=0, length=SMALL.size)
