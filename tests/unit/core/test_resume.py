"""core.resume: bytes of two versions never meet (D3)."""

from __future__ import annotations

import pytest

from openbits.core.http import Response, parse_response
from openbits.core.model import Validator
from openbits.core.resume import Ask, Keep, is_same_version, judge, plan, whole_by_head

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
OTHER_DATE = "Tue, 14 Nov 2023 22:13:21 GMT"
TAGGED = Validator(etag='"a"', last_modified=DATE, size=100)
DATED = Validator(last_modified=DATE, size=100)
ASK = Ask(offset=40, if_range='"a"')


def answer(status: int, *lines: str) -> Response:
    return parse_response([f"HTTP/1.1 {status} x\r\n".encode(), *(f"{line}\r\n".encode() for line in lines)])


def part(*lines: str, content_range: str = "bytes 40-99/100") -> Response:
    return answer(206, f"Content-Range: {content_range}", *lines)


@pytest.mark.parametrize(
    ("have", "validator", "dynamic", "headers"),
    [
        (40, TAGGED, False, ("Range: bytes=40-", 'If-Range: "a"')),
        (40, DATED, False, ("Range: bytes=40-", f"If-Range: {DATE}")),
        (40, Validator(size=100), False, ()),
        (40, TAGGED, True, ()),
        (0, TAGGED, False, ()),
    ],
)
def test_plan(have: int, validator: Validator, dynamic: bool, headers: tuple[str, ...]) -> None:
    ask = plan(have_bytes=have, validator=validator, dynamic_content=dynamic)
    assert ask.headers == headers
    assert ask.offset == (have if headers else 0)


def test_strict_jobs_probe() -> None:
    ask = plan(have_bytes=0, validator=Validator(), dynamic_content=False, strict_http=True)
    assert ask.headers == ("Range: bytes=0-",)
    ruling = judge(ask, Validator(), answer(200, "Content-Length: 100"))
    assert (ruling.keep, ruling.no_ranges) == (Keep.REPLACE, True)
    ruling = judge(ask, Validator(), part(content_range="bytes 0-99/100"))
    assert (ruling.keep, ruling.size, ruling.no_ranges) == (Keep.REPLACE, 100, False)
    assert judge(ask, Validator(), answer(416)).keep is Keep.ASK_AGAIN


@pytest.mark.parametrize(
    ("known", "response"),
    [
        (TAGGED, part('ETag: "a"')),
        (TAGGED, part('ETag: "a"', f"Last-Modified: {OTHER_DATE}")),
        (TAGGED, part('ETag: "a"', content_range="bytes 40-99/*")),
        (TAGGED, part('ETag: "a"', content_range="bytes 40-50/100")),
        (DATED, part(f"Last-Modified: {DATE}")),
        (DATED, part(f"Last-Modified: {DATE}", 'ETag: W/"x"')),
    ],
)
def test_the_rest_of_the_same_version_is_appended(known: Validator, response: Response) -> None:
    ruling = judge(ASK, known, response)
    assert (ruling.keep, ruling.size) == (Keep.APPEND, 100)


@pytest.mark.parametrize(
    ("known", "response", "changed"),
    [
        (TAGGED, part('ETag: "b"'), True),
        (DATED, part(f"Last-Modified: {OTHER_DATE}"), True),
        (TAGGED, part('ETag: "a"', content_range="bytes 40-100/101"), True),
        (TAGGED, part(), False),
        (TAGGED, part(f"Last-Modified: {DATE}"), False),
        (DATED, part(), False),
        (TAGGED, part('ETag: "a"', content_range="bytes 41-99/100"), False),
        (TAGGED, part('ETag: "a"', content_range="bytes 0-99/100"), False),
        (TAGGED, part('ETag: "a"', content_range="nonsense"), False),
        (TAGGED, answer(206, 'ETag: "a"'), False),
        (TAGGED, part('ETag: "a"', "Content-Encoding: gzip"), False),
        (TAGGED, part('ETag: "a"', "Content-Length: 61"), False),
    ],
)
def test_everything_else_begins_again(known: Validator, response: Response, changed: bool) -> None:
    ruling = judge(ASK, known, response)
    assert (ruling.keep, ruling.changed) == (Keep.ASK_AGAIN, changed)
    assert "beginning" in ruling.reason


@pytest.mark.parametrize(
    ("response", "changed"),
    [
        (answer(200, "Content-Length: 100", 'ETag: "a"'), False),
        (answer(200, "Content-Length: 100", 'ETag: "b"'), True),
        (answer(200, "Content-Length: 101", 'ETag: "a"'), True),
        (answer(200), False),
    ],
)
def test_a_whole_file_in_answer_to_a_range_replaces(response: Response, changed: bool) -> None:
    ruling = judge(ASK, TAGGED, response)
    assert (ruling.keep, ruling.changed, ruling.no_ranges) == (Keep.REPLACE, changed, not changed)


def test_other_cases() -> None:
    assert judge(ASK, TAGGED, answer(416)).keep is Keep.CHECK_END
    assert judge(Ask(), Validator(), answer(416)).keep is Keep.INVALID
    assert judge(Ask(), Validator(), part()).keep is Keep.INVALID
    assert judge(Ask(), Validator(), part(content_range="bytes 0-99/100")).keep is Keep.REPLACE
    assert judge(Ask(), Validator(), answer(200)).size is None


def test_head_settles_the_end() -> None:
    assert whole_by_head(100, TAGGED, answer(200, "Content-Length: 100", 'ETag: "a"'))
    assert not whole_by_head(99, TAGGED, answer(200, "Content-Length: 100", 'ETag: "a"'))
    assert not whole_by_head(100, TAGGED, answer(200, "Content-Length: 100", 'ETag: "b"'))
    assert not whole_by_head(100, TAGGED, answer(200, "Content-Length: 100"))
    assert not whole_by_head(100, TAGGED, answer(404, "Content-Length: 100", 'ETag: "a"'))


def test_further_parts_must_be_of_the_version() -> None:
    assert is_same_version(TAGGED, part('ETag: "a"'), 100)
    assert not is_same_version(TAGGED, part('ETag: "a"'), 101)
    assert not is_same_version(TAGGED, part(), 100)
    assert is_same_version(Validator(size=100), part(), 100)
