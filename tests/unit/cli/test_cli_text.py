"""Text for people, and what must not reach a terminal."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.cli import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain name.iso", "plain name.iso"),
        ("Größe 名前 😀", "Größe 名前 😀"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\nb\tc\x7f", r"a\x0ab\x09c\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u200b\ufeff\u2028", r"\u200b\ufeff\u2028"),
        ("\U000e0041", r"\U000e0041"),
        (os.fsdecode(b"\xff\xfe"), r"\xff\xfe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(raw: str, shown: str) -> None:
    assert text.safe(raw) == shown


@given(st.text())
def test_safe_text_is_printable_and_encodable(raw: str) -> None:
    shown = text.safe(raw)
    assert all(character.isprintable() or character == "\u3000" for character in shown)
    shown.encode()
    assert text.safe(shown) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1048575, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (None, "?"),
    ],
)
def test_sizes(size_bytes: int | None, shown: str) -> None:
    assert text.size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59, "59 s"), (59.6, "1:00"), (187, "3:07"), (7387, "2:03:07"), (439380, "5 d 02:03")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("done", "total", "share"), [(0, None, None), (0, 0, 100), (999, 1000, 99), (1000, 1000, 100), (2000, 1000, 100)]
)
def test_only_all_is_100_percent(done: int, total: int | None, share: int | None) -> None:
    assert text.percent(done, total) == share


def test_times_of_today_need_no_date() -> None:
    now = datetime(2026, 5, 6, 12, tzinfo=UTC)
    assert len(text.local_time("2026-05-06T12:00:00Z", now)) == len("12:00:00")
    assert text.local_time("2026-05-01T12:00:00Z", now).startswith("2026-0")
    assert text.local_time(None) == "-"


@given(st.text(max_size=30), st.integers(0, 40))
def test_clipped_text_fits(raw: str, columns: int) -> None:
    shown = text.safe(raw)
    assert text.width(text.clip(shown, columns)) <= columns
    assert text.width(text.clip_middle(shown, columns)) <= columns


def test_a_table_is_aligned_also_with_wide_letters_and_fits() -> None:
    lines = text.table(("ID", "NAME"), [("1", "名前"), ("22", "a" * 50)], columns=30)
    assert all(text.width(line) <= 30 for line in lines)
    assert lines[1] == "1   名前"
    assert lines[2].endswith("…")
