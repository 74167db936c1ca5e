"""Range and the conditional headers as RFC 9110 has them, and limits on work for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.server.exchange import Head
from openbits.server.ranges import MAX_RANGES, Range, Unsatisfiable, Validators, Verdict, judge, wanted_ranges

VALIDATORS = Validators(etag='"abc"', modified_s=1_700_000_000)
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = "Tue, 14 Nov 2023 22:13:21 GMT"


def head(**headers: str) -> Head:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Head(method="GET", target=b"/", path=b"/", headers=named)


def spans(text: str, size: int, **more: str) -> list[tuple[int, int]]:
    return [(each.first, each.length) for each in wanted_ranges(head(range=text, **more), VALIDATORS, size)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-9", [(0, 10)]),
        ("bytes=90-", [(90, 10)]),
        ("bytes=-10", [(90, 10)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=50-1000", [(50, 50)]),
        ("Bytes = 0-0 , 99-99", [(0, 1), (99, 1)]),
        ("bytes=50-59,0-9", [(50, 10), (0, 10)]),
        ("bytes=0-9,200-", [(0, 10)]),
        ("bytes=,0-9,,", [(0, 10)]),
        # What cannot be understood is as if it were not there.
        ("bytes=9-0", []),
        ("bytes=a-b", []),
        ("bytes=-", []),
        ("bytes=", []),
        ("bytes", []),
        ("lines=0-9", []),
        ("bytes=0-9;1", []),
        ("bytes=0x0-9", []),
        ("bytes=0-9,x", []),
        ("bytes=" + "9" * 40 + "-", []),
        # More than the file in overlapping pieces: the file.
        ("bytes=0-,0-,0-", []),
        ("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), []),
    ],
)
def test_which_bytes_are_wanted(text: str, expected: list[tuple[int, int]]) -> None:
    assert spans(text, 100) == expected


@pytest.mark.parametrize(
    ("text", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=200-300,400-", 100)]
)
def test_no_byte_of_the_file_is_unsatisfiable(text: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        spans(text, size)


@given(st.text(alphabet="0123456789-, bytes=", max_size=60), st.integers(min_value=0, max_value=200))
def test_ranges_never_leave_the_file(text: str, size: int) -> None:
    try:
        found = spans(f"bytes={text}", size)
    except Unsatisfiable:
        return
    assert all(first >= 0 and length > 0 and first + length <= size for first, length in found)
    assert sum(length for _, length in found) <= size


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('"abc"', True),
        ('"abd"', False),
        ('W/"abc"', False),
        (DATE, True),
        (BEFORE, False),
        (AFTER, False),
        ("nonsense", False),
    ],
)
def test_if_range_holds_only_for_the_same_bytes(condition: str, holds: bool) -> None:
    assert bool(spans("bytes=0-9", 100, if_range=condition)) is holds


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, Verdict.SEND),
        ({"if_none_match": '"abc"'}, Verdict.NOT_MODIFIED),
        ({"if_none_match": 'W/"abc"'}, Verdict.NOT_MODIFIED),
        ({"if_none_match": '"x", "abc"'}, Verdict.NOT_MODIFIED),
        ({"if_none_match": "*"}, Verdict.NOT_MODIFIED),
        ({"if_none_match": '"x"'}, Verdict.SEND),
        ({"if_none_match": '"x"', "if_modified_since": AFTER}, Verdict.SEND),
        ({"if_modified_since": DATE}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": BEFORE}, Verdict.SEND),
        ({"if_modified_since": "nonsense"}, Verdict.SEND),
        ({"if_match": '"abc"'}, Verdict.SEND),
        ({"if_match": "*"}, Verdict.SEND),
        ({"if_match": 'W/"abc"'}, Verdict.FAILED),
        ({"if_match": '"x"'}, Verdict.FAILED),
        ({"if_unmodified_since": BEFORE}, Verdict.FAILED),
        ({"if_unmodified_since": DATE}, Verdict.SEND),
    ],
)
def test_conditions(headers: dict[str, str], verdict: Verdict) -> None:
    assert judge(head(**headers), VALIDATORS) is verdict


def test_another_content_has_another_tag() -> None:
    one = Validators.of(inode=1, size=5, mtime_ns=7, ctime_ns=8)
    assert one == Validators.of(inode=1, size=5, mtime_ns=7, ctime_ns=8)
    others = [
        Validators.of(inode=2, size=5, mtime_ns=7, ctime_ns=8),
        Validators.of(inode=1, size=6, mtime_ns=7, ctime_ns=8),
        Validators.of(inode=1, size=5, mtime_ns=8, ctime_ns=8),
        Validators.of(inode=1, size=5, mtime_ns=7, ctime_ns=9),
    ]
    assert one.etag not in {each.etag for each in others}


def test_a_range_as_a_header() -> None:
    assert Range(first=5, length=10).content_range(100) == "bytes 5-14/100"
