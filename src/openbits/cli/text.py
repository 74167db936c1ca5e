"""Text for people: names that cannot harm a terminal, sizes, durations, times, tables.

The rule: whatever another account or a server chose passes `safe` before it reaches a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

# Letters that print nothing but reorder or hide what does: bidirectional marks, zero-width and tag characters.
_INVISIBLE: Final = frozenset(
    {
        *(0x00AD, 0x061C, 0x180E, 0xFEFF),
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE0080),
    }
)


def safe(text: object) -> str:
    r"""Return text with everything escaped that a terminal would obey instead of show, e.g. ESC as \x1b."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe_character(character) for character in text)


def _safe_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # A byte of a name that is not UTF-8.
    if code in _INVISIBLE or not (character.isprintable() or character == "\u3000"):
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def size(size_bytes: int | None) -> str:
    """Return a size for people: `1.5 MiB`, or `?` when it is not known."""
    if size_bytes is None:
        return "?"
    value = float(size_bytes)
    for unit in _UNITS:
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the loop ends by itself")


def duration(seconds: float) -> str:
    """Return a duration for people: `42 s`, `3:07`, `2:03:07`, `5 d 02:03`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours < 1:
        return f"{minute}:{second:02d}"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02d}:{minute:02d}" if days else f"{hour}:{minute:02d}:{second:02d}"


def local_time(text: str | None, now: datetime | None = None) -> str:
    """Return an ISO time of the service in the local zone: only the clock if it is today."""
    if text is None:
        return "-"
    moment = datetime.fromisoformat(text).astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def clock() -> str:
    """Return the local time of day."""
    return time.strftime("%H:%M:%S")


def percent(done_bytes: int, total_bytes: int | None) -> int | None:
    """Return the whole percent that is done, rounded down so that 100 means all; None when unknown."""
    if total_bytes is None:
        return None
    return 100 if total_bytes == 0 else min(100, done_bytes * 100 // total_bytes)


def progress(done_bytes: int, total_bytes: int | None) -> str:
    """Return progress for a table: `12 % of 1.0 GiB`, `3.0 MiB of ?`."""
    share = percent(done_bytes, total_bytes)
    if not total_bytes:
        return f"{size(done_bytes)} of {size(total_bytes)}"
    return f"{share} % of {size(total_bytes)}"


def width(text: str) -> int:
    """Return how many columns the text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - most names are ASCII

    columns = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def clip(text: str, columns: int) -> str:
    """Return the text in at most so many columns, with … where something was left out."""
    if width(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width(kept) + width(character) + 1 > columns:
            break
        kept += character
    return kept + "…" if columns > 0 else ""


def clip_middle(text: str, columns: int) -> str:
    """Return the text in at most so many columns, without its middle: the ends of a path say most."""
    if width(text) <= columns:
        return text
    if columns < 8:
        return clip(text, columns)
    tail = columns // 2
    return clip(text[: len(text) - tail], columns - width(text[-tail:])) + text[-tail:]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, columns: int | None = None) -> list[str]:
    """Return the lines of a table; with `columns` its widest column is clipped so that it fits."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]
    if columns is not None:
        excess = sum(widths) + 2 * (len(widths) - 1) - columns
        if excess > 0:
            widest = max(range(len(widths)), key=widths.__getitem__)
            widths[widest] = max(8, widths[widest] - excess)
    lines = []
    for row in cells:
        fitted = [clip(cell, limit) for cell, limit in zip(row, widths, strict=True)]
        padded = [cell + " " * (limit - width(cell)) for cell, limit in zip(fitted, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines
