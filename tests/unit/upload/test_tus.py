"""tus 1.0.0, as scripts of the conversation; what it shares with the IETF's draft is tested here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from openbits.upload import resumable
from openbits.upload.conversation import (
    Answered,
    Begin,
    BeginCancel,
    Broken,
    Event,
    IllegalEvent,
    Kept,
    ReplyFetched,
    Upload,
)
from openbits.upload.progress import LOST_LIMIT, SETBACKS_LIMIT
from openbits.upload.tus import Tus, is_offered
from support.conversations import Playbook, answer

KIB = 1024
TYPE = ",filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt"
URL = "http://server/files/"
LOCATION = "http://server/files/7"
UPLOAD = Upload(url=URL, name="f.bin", size=100 * KIB)
SMALL = replace(UPLOAD, size=10 * KIB)
HEAD = f"HEAD {LOCATION} Tus-Resumable=1.0.0"
DELETE = f"DELETE {LOCATION} Tus-Resumable=1.0.0"


def begin(upload: Upload, memory: str = "", acknowledged_bytes: int = 0, *, is_new_source: bool = False) -> Playbook:
    return Playbook(resumable.begin(Tus(), upload, memory, acknowledged_bytes, is_new_source=is_new_source))


def post(upload: Upload) -> str:
    return f"POST {URL} Tus-Resumable=1.0.0 Upload-Length={upload.size} Upload-Metadata=filename Zi5iaW4={TYPE}"


def patch(offset: int, length: int) -> str:
    return (
        f"PATCH {LOCATION} Tus-Resumable=1.0.0 Content-Type=application/offset+octet-stream "
        f"Upload-Offset={offset} [{offset}+{length}]"
    )


def opened(upload: Upload) -> Playbook:
    play = begin(upload)
    play(Begin(), post(upload))
    play(answer(201, [("Location", LOCATION), ("Tus-Resumable", "1.0.0")]), "keep! 0")
    play(Kept(), patch(0, min(upload.size, 64 * KIB)))
    return play


def resumed(play: Playbook, upload: Upload, *, is_new_source: bool = False) -> Playbook:
    assert play.kept is not None
    later = begin(upload, play.kept.memory, play.kept.acknowledged_bytes, is_new_source=is_new_source)
    later.now = play.now
    return later


def took(offset: int, status: int = 204) -> Answered:
    return answer(status, [("Upload-Offset", str(offset)), ("Tus-Resumable", "1.0.0")])


def test_a_file_is_uploaded_piece_by_piece() -> None:
    play = opened(UPLOAD)
    play(took(64 * KIB), f"keep {64 * KIB}", patch(64 * KIB, 36 * KIB))
    play(took(100 * KIB), f"keep {100 * KIB}", "finished")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("7", LOCATION),
        ("/files/7", LOCATION),
        ("//other/x", "http://other/x"),
        ("https://other:1/x y", "https://other:1/x%20y"),
    ],
)
def test_the_address_of_an_upload_may_be_relative(location: str, expected: str) -> None:
    play = begin(SMALL)
    play(Begin(), post(SMALL))
    play(answer(201, [("Location", location)]), "keep! 0")
    play(Kept(), patch(0, SMALL.size).replace(LOCATION, expected))


@pytest.mark.parametrize("location", ["", "ftp://server/7", "http://[x/", "x" * 2_201])
def test_an_address_that_is_none_is_a_protocol_error(location: str) -> None:
    play = begin(SMALL)
    play(Begin(), post(SMALL))
    play(answer(201, [("Location", location)]), "failed BG_E_INVALID_SERVER_RESPONSE")


def test_an_upload_does_not_leave_https() -> None:
    upload = replace(SMALL, url="https://server/files/")
    play = begin(upload)
    play(Begin(), post(upload).replace("http:", "https:"))
    play(answer(201, [("Location", "http://server/files/7")]), "failed BG_E_INVALID_SERVER_RESPONSE")


def test_a_creation_without_an_address_is_no_tus() -> None:
    play = begin(SMALL)
    play(Begin(), post(SMALL))
    play(answer(200), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")


def test_a_server_of_another_version_is_a_mismatch() -> None:
    play = begin(SMALL)
    play(Begin(), post(SMALL))
    play(answer(412, [("Tus-Version", "2.0.0")]), "failed BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH")


def test_an_empty_file_is_there_when_it_is_created() -> None:
    upload = replace(UPLOAD, size=0)
    play = begin(upload)
    play(Begin(), post(upload))
    play(answer(201, [("Location", LOCATION)]), "keep 0", "finished")


def test_a_name_without_ascii_is_told_as_it_is() -> None:
    play = begin(replace(UPLOAD, name="ä\udcff.bin"))
    step = play.conversation.step(Begin(), 0.0)
    assert ("Upload-Metadata", f"filename w6Q/LmJpbg=={TYPE}") in step.effects[0].headers  # type: ignore[union-attr]


def test_a_file_in_the_directory_that_makes_uploads_is_made_by_the_directory() -> None:
    """What 'bits put f.bin http://server/files/' asks for."""
    upload = replace(SMALL, url=URL + "f.bin")
    play = begin(upload)
    play(Begin(), post(upload).replace(URL, URL + "f.bin"))
    play(answer(405), post(upload))
    play(answer(201, [("Location", "7")]), "keep! 0")
    later = resumed(play, upload)
    later(Begin(), HEAD)
    later(answer(404), "keep 0", post(upload))
    later(answer(404), "failed BG_E_HTTP_ERROR_404")


# --- interruptions -----------------------------------------------------------------------------


def test_after_an_interruption_the_server_is_asked_for_the_offset() -> None:
    play = opened(UPLOAD)
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), HEAD)
    play(took(30 * KIB, 200), f"keep {30 * KIB}", patch(30 * KIB, 16 * KIB))


def test_a_later_run_goes_on_with_the_same_upload() -> None:
    play = opened(UPLOAD)
    play(took(64 * KIB), f"keep {64 * KIB}", patch(64 * KIB, 36 * KIB))
    later = resumed(play, UPLOAD)
    later(Begin(), HEAD)
    later(took(64 * KIB, 200), patch(64 * KIB, 16 * KIB))


def test_a_lost_last_answer_is_found_by_asking() -> None:
    play = opened(SMALL)
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), HEAD)
    play(took(SMALL.size, 200), f"keep {SMALL.size}", "finished")


def test_a_locked_upload_is_tried_again_soon() -> None:
    """The server still holds the lock of the broken connection."""
    play = opened(UPLOAD)
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), HEAD)
    play(answer(423), "take up BG_E_HTTP_ERROR_423 transient")
    play(Begin(), HEAD)


@pytest.mark.parametrize("status", [404, 410])
def test_a_lost_upload_begins_again(status: int) -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(Begin(), HEAD)
    play(answer(status), "keep 0", post(UPLOAD))
    play(answer(201, [("Location", LOCATION)]), "keep! 0")
    play(Kept(), patch(0, 64 * KIB))


def test_uploads_are_not_made_for_ever() -> None:
    play = opened(UPLOAD)
    for _ in range(LOST_LIMIT):
        play(answer(404), "keep 0", post(UPLOAD))
        play(answer(201, [("Location", LOCATION)]), "keep! 0")
        play(Kept(), patch(0, 64 * KIB))
    play(answer(404), "keep 0", "failed BG_E_SESSION_NOT_FOUND")


def test_a_directory_that_is_not_there_is_no_lost_upload() -> None:
    play = begin(UPLOAD)
    play(Begin(), post(UPLOAD))
    play(answer(404), "failed BG_E_HTTP_ERROR_404")


def test_a_page_that_answers_for_the_server_is_waited_out() -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(Begin(), HEAD)
    play(answer(200), "failed BG_E_INVALID_SERVER_RESPONSE transient")


# --- what the server wants ---------------------------------------------------------------------


def test_a_conflict_asks_for_the_offset() -> None:
    play = opened(UPLOAD)
    play(answer(409), "keep 0", HEAD)
    play(took(5, 200), "keep 5", patch(5, 64 * KIB))


def test_a_conflict_is_not_asked_about_for_ever() -> None:
    play = opened(UPLOAD)
    for _ in range(SETBACKS_LIMIT):
        play(answer(409), "keep 0", HEAD)
        play(took(0, 200), patch(0, 64 * KIB))
    play(answer(409), "keep 0", "failed BG_E_INVALID_SERVER_RESPONSE")


def test_a_server_that_takes_nothing_is_not_asked_for_ever() -> None:
    play = opened(SMALL)
    for _ in range(SETBACKS_LIMIT):
        play(took(0), "keep 0", patch(0, SMALL.size))
    play(took(0), "keep 0", "failed BG_E_INVALID_SERVER_RESPONSE")


@pytest.mark.parametrize("value", ["-1", "x", "102401", "9" * 30])
def test_an_offset_that_cannot_be_is_a_protocol_error(value: str) -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(Begin(), HEAD)
    play(answer(200, [("Upload-Offset", value)]), "failed BG_E_INVALID_SERVER_RESPONSE")


def test_a_piece_whose_offset_is_not_told_was_taken_whole() -> None:
    play = opened(UPLOAD)
    play(answer(204), f"keep {64 * KIB}", patch(64 * KIB, 36 * KIB))
    play(answer(204), f"keep {100 * KIB}", "finished")


def test_413_halves_the_piece() -> None:
    play = opened(UPLOAD)
    for length in (32, 16, 8, 5):
        play(answer(413), "keep 0", patch(0, length * KIB))
    play(answer(413), "failed BG_E_HTTP_ERROR_413")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, "failed BG_E_HTTP_ERROR_403"),
        (500, "failed BG_E_HTTP_ERROR_500 transient"),
        (308, "failed BG_E_HTTP_ERROR_308 transient"),
    ],
)
def test_r1_other_statuses_are_what_they_are(status: int, expected: str) -> None:
    opened(UPLOAD)(answer(status), expected)


# --- cancelling, other sources, damaged memories -----------------------------------------------


@pytest.mark.parametrize("status", [204, 200, 403, 404, 405, 410])
def test_a_cancelled_upload_is_removed_where_that_is_possible(status: int) -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(BeginCancel(), DELETE)
    assert play.sent.ends_session
    play(answer(status), "finished")


def test_a_cancel_that_fails_is_tried_again() -> None:
    play = resumed(opened(UPLOAD), UPLOAD)
    play(BeginCancel(), DELETE)
    play(answer(423), "take up BG_E_HTTP_ERROR_423 transient")
    play(Begin(), DELETE)
    play(Broken(was_reached=False), "take up ERROR_WINHTTP_CANNOT_CONNECT transient")
    play(BeginCancel(), DELETE)
    play(answer(500), "failed BG_E_HTTP_ERROR_500 transient")


@pytest.mark.parametrize("event", [answer(204), answer(500), Broken(was_reached=True)])
def test_a_new_source_ends_the_old_upload_first(event: Event) -> None:
    for later in (resumed(opened(UPLOAD), UPLOAD, is_new_source=True), resumed(opened(UPLOAD), SMALL)):
        upload = later.conversation.upload  # type: ignore[attr-defined]
        later(Begin(), DELETE)
        later(event, "keep 0", post(upload))


def test_a_damaged_memory_begins_anew() -> None:
    play = opened(UPLOAD)
    assert play.kept is not None
    good = json.loads(play.kept.memory)
    for name, value in [
        ("location", 5),
        ("location", "ftp://x/"),
        ("location", "relative"),
        ("location", "http://[x/"),
        ("is_made_by_directory", 1),
        ("least_bytes", -1),
        ("setbacks", "x"),
        ("cap_bytes", 2**70),
        ("protocol", "bits"),
        ("target", ""),
    ]:
        begin(UPLOAD, json.dumps(good | {name: value}), 7)(Begin(), post(UPLOAD))


def test_an_event_that_nothing_asked_for_is_a_mistake_of_the_edge() -> None:
    for event in (answer(200), Kept(), ReplyFetched()):
        with pytest.raises(IllegalEvent):
            begin(UPLOAD).conversation.step(event, 0.0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Tus-Version", "1.0.0")], True),
        ([("Tus-Version", "2.0.0, 1.0.0")], True),
        ([("Tus-Resumable", "1.0.0")], True),
        ([("Tus-Version", "0.2.2")], False),
        ([], False),
    ],
)
def test_a_tus_server_is_known_by_its_version(headers: list[tuple[str, str]], expected: bool) -> None:
    assert is_offered(answer(204, headers)) is expected
