"""Progress on a terminal is one line that fits; elsewhere it is few lines."""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.cli import text
from openbits.cli.display import PlainDisplay, Rate, TerminalDisplay, summary


def progress(done: int, total: int | None = 1000, files: int = 1) -> dict[str, Any]:
    return {"bytes_transferred": done, "bytes_total": total, "files_total": files, "files_transferred": 0}


def test_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.bps(0) is None
    for second in range(20):
        rate.add(second, second * 100 if second < 10 else 1000 + (second - 10) * 1000)
    assert rate.bps(19) == pytest.approx(1000)
    rate.add(20, 0)
    assert rate.bps(20) is None


def test_a_rate_falls_while_nothing_comes() -> None:
    rate = Rate()
    rate.add(0, 0)
    rate.add(1, 1000)
    assert rate.bps(1) == pytest.approx(1000)
    assert rate.bps(10) == pytest.approx(100)


def test_summary_says_what_is_known() -> None:
    assert summary(progress(512, 1024), None) == "512 B of 1.0 KiB"
    assert summary(progress(512, 1024), 256) == "512 B of 1.0 KiB  256 B/s  ETA 2 s"
    assert summary(progress(512, None, 7), 1) == "512 B of ?  1 B/s  0/7 files"


@given(
    st.text(max_size=60), st.integers(21, 200), st.integers(0, 1 << 50), st.one_of(st.none(), st.integers(0, 1 << 50))
)
def test_the_line_fits_whatever_is_shown(name: str, columns: int, done: int, total: int | None) -> None:
    out = io.StringIO()
    shown = TerminalDisplay(name, out, columns=lambda _: columns)
    shown.progress(progress(done, total, 3))
    shown.note("waiting: " + "x" * 300)
    shown.close()
    for line in re.split(r"\r|\x1b\[K", out.getvalue()):
        assert text.width(line) < columns
    assert "\n" not in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (100, "linux-6.12.tar.xz  50 % [============            ]  500 B of 1000 B"),
        (50, "linux-6…2.tar.xz  50 % [===    ]  500 B of 1000 B"),
        (40, "linux-6…2.tar.xz  50 %  500 B of 1000 B"),
    ],
)
def test_bar_and_name_share_what_is_left(columns: int, line: str) -> None:
    out = io.StringIO()
    TerminalDisplay("linux-6.12.tar.xz", out, columns=lambda _: columns).progress(progress(500))
    assert out.getvalue() == f"\r{line}\x1b[K"


def test_plain_lines_come_at_each_tenth() -> None:
    out = io.StringIO()
    shown = PlainDisplay("a\x1b", out, clock=itertools.count(0, 0.01).__next__)
    for done in range(0, 1001, 5):
        shown.progress(progress(done))
        shown.tick()
    lines = out.getvalue().splitlines()
    assert lines[0] == r"a\x1b: started"
    assert [line.split()[1] for line in lines[1:]] == [str(share) for share in range(10, 101, 10)]


def test_plain_lines_come_also_after_ten_seconds() -> None:
    out = io.StringIO()
    shown = PlainDisplay("a", out, clock=itertools.count(0, 3).__next__)
    for done in range(5):
        shown.progress(progress(done, None))
    assert len(out.getvalue().splitlines()) == 2


def test_what_a_job_waits_for_is_said_once() -> None:
    out = io.StringIO()
    shown = PlainDisplay("a", out)
    for sentence in ("waiting: x", "waiting: x", "", "waiting: x"):
        shown.note(sentence)
    assert out.getvalue() == "a: waiting: x\n" * 2
