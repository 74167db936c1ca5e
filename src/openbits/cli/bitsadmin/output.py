"""What `bitsadmin` prints: the banner, values with and without /rawreturn, wrapped lines, times.

The rule: programs read this. Standard output has what the Windows tool would print there, in its form, errors too;
what only we say goes to standard error. With /rawreturn, standard output has the value and nothing else, ever.
Whatever another account or a server chose passes `safe`.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime
from typing import Final, TextIO

from openbits.cli.text import safe, width
from openbits.errors import BitsError
from openbits.version import __version__

UNKNOWN: Final = "UNKNOWN"
NULL: Final = "NULL"
DEFAULT_COLUMNS: Final = 80
BANNER: Final = (
    "BITSADMIN version 3.0",
    f"Administration of background transfers, OpenBITS {__version__}.",
    "Copyright (c) 2026 The OpenBITS developers. MIT License.",
)
"""Three lines, of which scripts know the first and skip the others (inventory section 9)."""


class Output:
    """Where a switch prints; `columns` is the width to wrap at, None for lines as long as they are."""

    def __init__(self, stream: TextIO | None = None, *, columns: int | None = None, is_raw: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._columns = columns
        self.is_raw = is_raw

    def banner(self) -> None:
        """Print the banner between two empty lines; with /rawreturn there is none."""
        if not self.is_raw:
            self._stream.write("\n" + "\n".join(BANNER) + "\n\n")

    def line(self, text: str = "") -> None:
        """Print a line, wrapped if asked for. With /rawreturn nothing: it is no value."""
        if not self.is_raw:
            for part in wrapped(text, self._columns):
                self._stream.write(part + "\n")

    def value(self, text: object, *, sentence: str | None = None) -> None:
        """Print what was asked for; with /rawreturn on one line that does not end.

        `sentence` is what is printed without /rawreturn, where that is more than the value.
        """
        if self.is_raw:
            self._stream.write(" ".join(str(text).split("\n")))
        else:
            for one in str(text if sentence is None else sentence).split("\n"):
                self.line(one)

    def failure(self, action: str, error: BitsError) -> None:
        """Print what could not be done in the Windows tool's form, with the name of the error and what to do."""
        text = " ".join(safe(error.message.replace("\n", " ")).split())
        self.complaint(f"Unable to {action} - {error.code.hresult:#010x}", f"{error.name}: {text}")

    def complaint(self, *lines: str) -> None:
        """Print lines about a failure; with /rawreturn on standard error, lest they be taken for the value."""
        if self.is_raw:
            note(*lines)
        else:
            for line in lines:
                self.line(line)

    def control(self, sequence: str) -> None:
        """Send a console what it obeys instead of showing."""
        self._stream.write(sequence)

    def flush(self) -> None:
        """Hand over what was printed."""
        self._stream.flush()


def note(*lines: str) -> None:
    """Say something that the Windows tool does not say: on standard error, where no parser looks."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def wrapped(text: str, columns: int | None) -> list[str]:
    """Return a line as lines of at most so many columns, broken between words where that is possible."""
    if columns is None or width(text) <= columns:
        return [text]
    lines, line = [], ""
    for word in re.findall(r"\s*\S+|\s+$", text):
        if line and width(line + word) > columns:
            lines.append(line)
            line = word.lstrip()
        else:
            line += word
        while width(line) > columns:
            cut = next(at for at in range(len(line), 0, -1) if at == 1 or width(line[:at]) <= columns)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line] if line or not lines else lines


def console_columns(stream: TextIO) -> int | None:
    """Return the width of the terminal behind a stream; None where there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def date_time(moment: datetime | None) -> str:
    """Return a time as Windows writes it in the United States: `6/30/2003 8:30:52 PM`, in the local zone.

    UNKNOWN for a time that has not come (B17). One form whatever the locale: scripts cannot ask for it.
    """
    if moment is None:
        return UNKNOWN
    local = moment.astimezone()
    clock = f"{(local.hour - 1) % 12 + 1}:{local.minute:02d}:{local.second:02d}"
    return f"{local.month}/{local.day}/{local.year} {clock} {'AM' if local.hour < 12 else 'PM'}"


def guid(job_id: str) -> str:
    """Return a job's id as the Windows tool writes it: capitals in braces."""
    return "{" + job_id.upper() + "}"


def total(number: int | None) -> str:
    """Return a size that may not be known yet (B16)."""
    return UNKNOWN if number is None else str(number)
