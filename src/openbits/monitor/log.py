"""What the monitor says, it says on stderr, one line each: the journal or whoever started it adds the time."""

from __future__ import annotations

import contextlib
import os


class StartError(Exception):
    """The daemon cannot run here: one sentence for the person who started it, and the exit status."""

    def __init__(self, message: str, *, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def say(message: str) -> None:
    """Write one line; a log that nobody can write to stops nothing."""
    line = " ".join(message.splitlines())
    with contextlib.suppress(OSError):
        os.write(2, f"bitsd: {line}\n".encode("utf-8", "backslashreplace"))
