"""The streams of a command as its caller left them: closed, on a full disk, in an encoding without our letters.

The rule: what becomes of the output never looks like a fault of the program's. A closed stream is one that nobody
reads, as of a program without a console; what cannot be written is said in one line, with a status that is not 0.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Final

OUTPUT_LOST: Final = 1
BROKEN_PIPE: Final = 128 + 13
_UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What only writing brings; the commands write nothing but their output."""


def guarded(program: str, run: Callable[[], int]) -> int:
    """Run a program on streams that are usable, and return its status or that of output that was lost."""
    prepare()
    try:
        status = run()
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        return lost(program, error)
    return status


def prepare() -> None:
    """Make standard output and standard error usable, whatever they are."""
    if sys.stdout is None:
        # The lowest free descriptor is its own, so that no socket of ours takes the place of the output.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the program
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal whose encoding lacks a letter of ours gets an escape, not a traceback.
            stream.reconfigure(errors="backslashreplace")


def lost(program: str, error: OSError) -> int:
    """Say that the output could not be written and return the status; of a reader who has gone nothing is said."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    # What is still in the buffer would fail once more at the very end.
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    with contextlib.suppress(OSError):
        print(f"{program}: the output could not be written: {error.strerror}", file=sys.stderr, flush=True)
    return OUTPUT_LOST
