"""Resumable Uploads for HTTP (draft 12, interop version 8): what differs from tus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openbits.upload import resumable
from openbits.upload.conversation import Answered, Begin, Broken, Kept, Upload
from openbits.upload.ietf import Ietf
from openbits.upload.progress import SETBACKS_LIMIT
from support.conversations import Playbook, answer

KIB = 1024
URL = "http://server/up"
LOCATION = "http://server/uploads/abc"
UPLOAD = Upload(url=URL, name="f.bin", size=100 * KIB)
SMALL = replace(UPLOAD, size=10 * KIB)
HEAD = f"HEAD {LOCATION} Upload-Draft-Interop-Version=8"


def post(upload: Upload) -> str:
    return (
        f"POST {URL} Upload-Draft-Interop-Version=8 Upload-Complete=?0 Upload-Length={upload.size} "
        'Content-Disposition=inline; filename="f.bin"'
    )


def patch(offset: int, length: int, *, last: bool) -> str:
    body = f" [{offset}+{length}]" if length else ""
    return (
        f"PATCH {LOCATION} Upload-Draft-Interop-Version=8 Upload-Complete=?{int(last)} "
        f"Content-Type=application/partial-upload Upload-Offset={offset}{body}"
    )


def said(status: int, *, complete: bool | None = None, offset: int | None = None, limit: str = "") -> Answered:
    headers = [] if complete is None else [("Upload-Complete", f"?{int(complete)}")]
    headers += [("Upload-Offset", str(offset))] if offset is not None else []
    headers += [("Upload-Limit", limit)] if limit else []
    return answer(status, headers)


def opened(upload: Upload, *, first: str = "", limit: str = "") -> Playbook:
    play = Playbook(resumable.begin(Ietf(), upload, "", 0))
    play(Begin(), post(upload))
    headers = [("Location", "/uploads/abc"), ("Upload-Complete", "?0")] + ([("Upload-Limit", limit)] if limit else [])
    play(answer(201, headers), "keep! 0")
    length = min(upload.size, 64 * KIB)
    play(Kept(), first or patch(0, length, last=length == upload.size))
    return play


def resumed(play: Playbook, upload: Upload) -> Playbook:
    assert play.kept is not None
    return Playbook(resumable.begin(Ietf(), upload, play.kept.memory, play.kept.acknowledged_bytes))


def test_the_last_piece_says_that_it_is_the_last() -> None:
    """Section 4.4; intermediate answers need no offset."""
    play = opened(UPLOAD)
    play(said(204, complete=False), f"keep {64 * KIB}", patch(64 * KIB, 36 * KIB, last=True))
    play(said(200, complete=True), f"keep {100 * KIB}", "finished")


def test_an_empty_file_is_ended_without_content() -> None:
    upload = replace(UPLOAD, size=0)
    play = opened(upload, first=patch(0, 0, last=True))
    play(said(200, complete=True), "keep 0", "finished")


def test_a_name_without_ascii_is_told_twice() -> None:
    step = resumable.begin(Ietf(), replace(UPLOAD, name='ä".bin'), "", 0).step(Begin(), 0.0)
    disposition = dict(step.effects[0].headers)["Content-Disposition"]  # type: ignore[union-attr]
    assert disposition == "inline; filename=\"__.bin\"; filename*=UTF-8''%C3%A4%22.bin"


def test_all_bytes_are_not_the_end_until_the_server_knows_that_they_are_all() -> None:
    """Section 4.1.3: an upload whose bytes are all there can still be incomplete."""
    play = resumed(opened(SMALL), SMALL)
    play(Begin(), HEAD)
    play(said(204, complete=False, offset=SMALL.size), f"keep {SMALL.size}", patch(SMALL.size, 0, last=True))
    play(said(200, complete=True), "keep 10240", "finished")


def test_a_lost_last_answer_is_found_by_asking() -> None:
    play = opened(SMALL)
    play(Broken(was_reached=True), "take up ERROR_WINHTTP_CONNECTION_ERROR transient")
    play(Begin(), HEAD)
    play(said(204, complete=True, offset=SMALL.size), f"keep {SMALL.size}", "finished")


def test_a_last_piece_without_a_word_on_the_end_is_asked_about() -> None:
    play = opened(SMALL)
    play(said(201), f"keep {SMALL.size}", HEAD)
    play(said(200, complete=True, offset=SMALL.size), f"keep {SMALL.size}", "finished")


def test_a_server_that_never_ends_an_upload_is_not_asked_for_ever() -> None:
    play = opened(SMALL)
    play(said(204, complete=False), f"keep {SMALL.size}", HEAD)
    for _ in range(SETBACKS_LIMIT):
        play(said(204, complete=False, offset=SMALL.size), patch(SMALL.size, 0, last=True))
        play(said(204, complete=False, offset=SMALL.size), f"keep {SMALL.size}", HEAD)
    play(said(204, complete=False, offset=SMALL.size), patch(SMALL.size, 0, last=True))
    play(said(204, complete=False), f"keep {SMALL.size}", "failed BG_E_INVALID_SERVER_RESPONSE")


def test_an_error_about_the_whole_file_is_not_resumed_into_a_success() -> None:
    """Section 4.4.1."""
    play = opened(SMALL)
    play(said(422, complete=True), "keep 0", "failed BG_E_HTTP_ERROR_422")
    assert play.kept is not None
    assert play.kept.memory == ""


def test_a_conflict_asks_for_the_offset() -> None:
    play = opened(UPLOAD)
    play(said(409, offset=5), "keep 0", HEAD)
    play(said(204, complete=False, offset=5), "keep 5", patch(5, 64 * KIB, last=False))


def test_limits_of_one_request_are_kept_to() -> None:
    """Section 4.1.4."""
    play = opened(UPLOAD, limit="max-append-size=20000, unknown=?1;x=2", first=patch(0, 20_000, last=False))
    play(said(204, complete=False), "keep 20000", patch(20_000, 20_000, last=False))
    later = resumed(play, UPLOAD)
    later(Begin(), HEAD)
    later(said(204, complete=False, offset=20_000), patch(20_000, 16 * KIB, last=False))
    later(said(204, complete=False), f"keep {20_000 + 16 * KIB}", patch(20_000 + 16 * KIB, 20_000, last=False))


def test_a_least_size_of_one_request_is_kept_to_but_for_the_last() -> None:
    play = opened(UPLOAD, limit="min-append-size=80000", first=patch(0, 80_000, last=False))
    play(said(204, complete=False), "keep 80000", patch(80_000, 22_400, last=True))


def test_a_file_that_is_too_large_is_not_begun() -> None:
    play = Playbook(resumable.begin(Ietf(), UPLOAD, "", 0))
    play(Begin(), post(UPLOAD))
    headers = [("Location", "/uploads/abc"), ("Upload-Limit", "max-size=100")]
    play(answer(201, headers), "keep 0", "failed BG_E_TOO_LARGE")


@pytest.mark.parametrize("limit", ["max-append-size=?1", "max-append-size=-5", "max-append-size", "Xmax-append-size=5"])
def test_a_limit_that_is_no_number_is_none(limit: str) -> None:
    opened(UPLOAD, limit=limit)
