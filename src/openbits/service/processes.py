"""Which program made a call, as far as /proc says so: for the event log, and never for a decision.

The kernel vouches for the number of the process that connected, and for no more: it may have ended since, have become
another program, or be one that calls itself what it likes. So names are taken only from a process that runs for the
caller's account, and only as text of one line. The command line is never looked at: there are passwords in it.
"""

from __future__ import annotations

import os
from typing import Final

from openbits.core.entries import Process
from openbits.core.model import Caller

_MOST_CHARACTERS: Final = 1000


def process_of(caller: Caller, *, proc: str = "/proc") -> Process:
    """Return what is to be seen of the process that called (event 3); of other accounts' the path is not."""
    directory = f"{proc}/{caller.pid}"
    if caller.pid <= 0:
        return Process()
    try:
        # Root's too: a service that impersonates runs as root and calls as somebody else.
        if os.stat(directory).st_uid not in (0, caller.identity.uid):
            return Process(pid=caller.pid)
        with open(f"{directory}/comm", "rb") as file:
            name = file.read(64)
    except OSError:
        return Process(pid=caller.pid)
    try:
        path = os.readlink(os.fsencode(f"{directory}/exe"))
    except OSError:
        path = b""
    return Process(pid=caller.pid, name=_one_line(name.removesuffix(b"\n")), path=_one_line(path))


def _one_line(text: bytes) -> str:
    decoded = text.decode("utf-8", "backslashreplace")[:_MOST_CHARACTERS]
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in decoded)
