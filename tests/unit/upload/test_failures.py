"""What answers that are no success mean (R1)."""

from __future__ import annotations

import pytest

from openbits.errors import error_code
from openbits.upload.conversation import Answered, Broken
from openbits.upload.failures import broken_failure, host_of, http_failure, is_transient, short


@pytest.mark.parametrize(
    ("statuses", "transient"),
    [
        ((300, 301, 302, 303, 304, 305, 307), False),
        ((306, 308, 399), True),
        ((400, 401, 403, 404, 407, 410, 413, 416, 423, 451), False),
        ((408, 409, 429), True),
        ((500, 502, 503, 504, 507, 599), True),
        ((501, 505), False),
        ((100, 600, 999), True),
    ],
)
def test_r1_statuses_are_sorted(statuses: tuple[int, ...], transient: bool) -> None:
    assert [is_transient(status) for status in statuses] == [transient] * len(statuses)


@pytest.mark.parametrize("status", [0, 99, 1000, 600])
def test_a_status_that_is_none_is_still_an_error_of_the_table(status: int) -> None:
    assert error_code(http_failure(Answered(status=status), "http://server/f", 0.0).name).hresult > 0x8019_0000


def test_a_sentence_names_the_server_and_never_a_password() -> None:
    url = "http://user:secret@server:81/" + "f" * 300
    for failure in (
        http_failure(Answered(status=404), url, 0.0),
        broken_failure(Broken(was_reached=True), url),
        broken_failure(Broken(was_reached=False), url),
    ):
        assert failure.message.startswith("server:81: ")
        assert "secret" not in failure.message
        assert len(failure.message) < 600
    assert len(short(url)) == 200


def test_what_the_server_says_is_quoted() -> None:
    failure = http_failure(Answered(status=302, headers=(("location", "http://x/\x1b[2J"),)), "http://server/f", 0.0)
    assert "\x1b" not in failure.message


def test_an_address_that_is_none_names_nobody() -> None:
    assert host_of("http://[x/") == "the server"
