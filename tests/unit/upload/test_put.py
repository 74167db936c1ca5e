"""Uploads by a plain PUT (issue: restart from zero, said aloud)."""

from __future__ import annotations

import pytest

from openbits.upload.conversation import Answered, Begin, BeginCancel, Broken, IllegalEvent, Kept, Upload
from openbits.upload.put import begin
from support.conversations import Playbook, answer

URL = "http://server/dav/f.bin"
UPLOAD = Upload(url=URL, name="f.bin", size=5_000_000)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_file_is_put_whole(status: int) -> None:
    play = Playbook(begin(UPLOAD))
    play(Begin(), f"PUT {URL} [0+5000000]")
    play(answer(status), "keep 5000000", "finished")
    assert play.kept is not None
    assert play.kept.memory == ""


def test_a_success_before_the_file_was_sent_is_none() -> None:
    play = Playbook(begin(UPLOAD))
    play(Begin(), f"PUT {URL} [0+5000000]")
    play(Answered(status=200, is_body_sent=False), "failed BG_E_INVALID_SERVER_RESPONSE")
    refused = Playbook(begin(UPLOAD))
    refused(Begin(), f"PUT {URL} [0+5000000]")
    refused(Answered(status=403, is_body_sent=False), "failed BG_E_HTTP_ERROR_403")


def test_an_empty_file_is_put_without_a_body() -> None:
    play = Playbook(begin(Upload(url=URL, name="f", size=0)))
    play(Begin(), f"PUT {URL}")
    play(answer(201), "keep 0", "finished")


def test_what_interrupts_it_begins_again_at_zero_and_says_so() -> None:
    play = Playbook(begin(UPLOAD))
    play(Begin(), f"PUT {URL} [0+5000000]")
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    assert "all 5000000 bytes are sent again" in play.failure.message
    play(Begin(), f"PUT {URL} [0+5000000]")
    play(answer(503), "failed BG_E_HTTP_ERROR_503 transient")
    assert "all 5000000 bytes are sent again" in play.failure.message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, "failed BG_E_HTTP_ERROR_403"),
        (405, "failed BG_E_HTTP_ERROR_405"),
        (409, "failed BG_E_HTTP_ERROR_409 transient"),
        (307, "failed BG_E_HTTP_ERROR_307"),
        (507, "failed BG_E_HTTP_ERROR_507 transient"),
    ],
)
def test_r1_a_refusal_has_the_name_of_its_status(status: int, expected: str) -> None:
    play = Playbook(begin(UPLOAD))
    play(Begin(), f"PUT {URL} [0+5000000]")
    play(answer(status), expected)


def test_there_is_nothing_to_cancel() -> None:
    Playbook(begin(UPLOAD))(BeginCancel(), "finished")


def test_an_event_that_nothing_asked_for_is_a_mistake_of_the_edge() -> None:
    for event in (answer(200), Kept()):
        with pytest.raises(IllegalEvent):
            begin(UPLOAD).step(event, 0.0)
