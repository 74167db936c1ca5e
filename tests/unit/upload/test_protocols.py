"""Which protocol an upload speaks (issue, part 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openbits.errors import error_code
from openbits.upload.conversation import Answered, Begin, BeginCancel, Broken, Kept, Upload
from openbits.upload.protocols import PROTOCOLS, start
from support.conversations import Playbook, ack, answer, created

URL = "http://server/files/"
UPLOAD = Upload(url=URL, name="f.bin", size=10_240)
CREATE = f"Create-Session {URL}"
OPTIONS = f"OPTIONS {URL}"
TUS_POST = f"POST {URL} Tus-Resumable=1.0.0 Upload-Length=10240 Upload-Metadata=filename Zi5iaW4="
TUS_POST += ",filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt"
TUS = answer(204, [("Tus-Resumable", "1.0.0"), ("Tus-Version", "1.0.0,0.2.2"), ("Tus-Extension", "creation")])


def test_auto_costs_a_bits_server_no_request() -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    assert play.conversation.protocol == "auto"
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")
    assert play.conversation.protocol == "bits"


def test_a_bits_server_that_refuses_is_asked_nothing_else() -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(ack(403, error=error_code("E_ACCESSDENIED").hresult), "failed E_ACCESSDENIED")


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 405, 415, 500, 501])
def test_whoever_does_not_understand_a_bits_session_is_asked_for_more(status: int) -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(status), OPTIONS)
    play(TUS, TUS_POST)
    assert play.conversation.protocol == "tus"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "failed BG_E_HTTP_ERROR_401"),
        (407, "failed BG_E_HTTP_ERROR_407"),
        (408, "failed BG_E_HTTP_ERROR_408 transient"),
        (429, "failed BG_E_HTTP_ERROR_429 transient"),
        (502, "failed BG_E_HTTP_ERROR_502 transient"),
        (503, "failed BG_E_HTTP_ERROR_503 transient"),
    ],
)
def test_a_challenge_or_a_busy_server_says_nothing_of_protocols(status: int, expected: str) -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(status), expected)


@pytest.mark.parametrize(
    "header",
    [
        ("Upload-Limit", "max-size=1000000000"),
        ("Accept-Patch", "text/x, application/partial-upload"),
        ("Upload-Draft-Interop-Version", "8"),
    ],
)
def test_the_draft_of_the_ietf_is_known_by_its_signs(header: tuple[str, str]) -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(405), OPTIONS)
    play(
        answer(200, [header]),
        f"POST {URL} Upload-Draft-Interop-Version=8 Upload-Complete=?0 Upload-Length=10240 "
        'Content-Disposition=inline; filename="f.bin"',
    )
    assert play.conversation.protocol == "ietf"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (405, "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH"),
        (501, "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH"),
        (200, "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH"),
        (404, "failed BG_E_HTTP_ERROR_404"),
        (403, "failed BG_E_HTTP_ERROR_403"),
        (500, "failed BG_E_HTTP_ERROR_500 transient"),
    ],
)
@pytest.mark.parametrize("options", [answer(405), answer(200), answer(204, [("Tus-Version", "2.0.0")])])
def test_u46_nothing_in_common_says_what_else_there_is(status: int, expected: str, options: Answered) -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(status), OPTIONS)
    play(options, expected)
    assert "bits put --protocol put" in play.failure.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_who_is_sent_elsewhere_is_told_where_to(status: int) -> None:
    """R1: uploads are not redirected; the usual case is a server that wants https."""
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(status, [("Location", "https://h/up/f.bin")]), OPTIONS)
    play(answer(status, [("Location", "https://h/up/f.bin")]), f"failed BG_E_HTTP_ERROR_{status}")
    assert "make the job for that address" in play.failure.message
    assert "'https://h/up/f.bin'" in play.failure.message


def test_the_directory_is_asked_too_where_the_name_was_made_from_it() -> None:
    upload = replace(UPLOAD, url=URL + "f.bin")
    play = Playbook(start("auto", upload, "", 0))
    play(Begin(), f"Create-Session {URL}f.bin")
    play(answer(405), f"OPTIONS {URL}f.bin")
    play(answer(405), f"OPTIONS {URL}")
    play(TUS, TUS_POST)
    play(answer(201, [("Location", "/files/7")]), "keep! 0")

    play = Playbook(start("auto", upload, "", 0))
    play(Begin(), f"Create-Session {URL}f.bin")
    play(answer(405), f"OPTIONS {URL}f.bin")
    play(answer(405), f"OPTIONS {URL}")
    play(answer(200), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")


def test_a_broken_question_begins_with_bits_again() -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(Broken(was_reached=False), "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(Begin(), CREATE)
    play(answer(405), OPTIONS)
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), CREATE)
    play(created("S"), "keep! 0")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_begun_is_nothing_to_cancel(protocol: str) -> None:
    for wants_reply in (False, True):
        play = Playbook(start(protocol, replace(UPLOAD, wants_reply=wants_reply), "", 0))
        play(BeginCancel(), "finished")


def test_a_cancel_in_the_middle_of_asking_is_over_at_once() -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(405), OPTIONS)
    play(BeginCancel(), "finished")


def test_what_has_begun_goes_on_in_its_protocol() -> None:
    play = Playbook(start("auto", UPLOAD, "", 0))
    play(Begin(), CREATE)
    play(answer(405), OPTIONS)
    play(TUS, TUS_POST)
    play(answer(201, [("Location", "/files/7")]), "keep! 0")
    assert play.kept is not None
    later = Playbook(start("auto", UPLOAD, play.kept.memory, 0))
    assert later.conversation.protocol == "tus"
    later(Begin(), "HEAD http://server/files/7 Tus-Resumable=1.0.0")


@pytest.mark.parametrize("protocol", ["bits", "tus", "ietf", "put"])
def test_a_protocol_that_was_asked_for_is_the_only_one(protocol: str) -> None:
    play = Playbook(start(protocol, UPLOAD, "", 0))
    assert play.conversation.protocol == protocol
    play.conversation = play.conversation.step(Begin(), play.now).conversation
    step = play.conversation.step(answer(405), play.now)
    assert [type(effect).__name__ for effect in step.effects] == ["Failed"]


@pytest.mark.parametrize("protocol", ["tus", "ietf", "put"])
def test_m7_only_bits_knows_replies(protocol: str) -> None:
    play = Playbook(start(protocol, replace(UPLOAD, wants_reply=True), "", 0))
    play(Begin(), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")
    assert "reply" in play.failure.message


def test_m7_auto_looks_for_bits_alone_when_there_is_to_be_a_reply() -> None:
    play = Playbook(start("auto", replace(UPLOAD, wants_reply=True), "", 0))
    play(Begin(), CREATE)
    play(answer(405), OPTIONS)
    play(TUS, "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")


def test_a_new_source_ends_what_was_begun_in_its_own_protocol() -> None:
    play = Playbook(start("tus", UPLOAD, "", 0))
    play(Begin(), TUS_POST)
    play(answer(201, [("Location", "7")]), "keep! 0")
    assert play.kept is not None
    later = Playbook(start("auto", UPLOAD, play.kept.memory, 0, is_new_source=True))
    later(Begin(), "DELETE http://server/files/7 Tus-Resumable=1.0.0")
    later(answer(204), "keep 0", TUS_POST)
    later(answer(201, [("Location", "8")]), "keep! 0")
    later(
        Kept(),
        "PATCH http://server/files/8 Tus-Resumable=1.0.0 Content-Type=application/offset+octet-stream "
        "Upload-Offset=0 [0+10240]",
    )


def test_a_protocol_that_nobody_knows_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="gopher"):
        start("gopher", UPLOAD, "", 0)
