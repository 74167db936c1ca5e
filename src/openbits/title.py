"""How a process is called in a process list.  Standard library only.

The rule: a title is for people and may fail to be set; nothing depends on it, so nothing here raises.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

from openbits.privileges import prctl

_PR_SET_NAME: Final = 15
_ARG_START_FIELD: Final = 48
_LONGEST_AREA_BYTES: Final = 1 << 20


def set_title(name: str, text: str | None = None) -> None:
    """Show `name` (at most 15 bytes) as the program's name and `text`, or else the name, as its command line."""
    with contextlib.suppress(Exception):
        short = ctypes.create_string_buffer(name.encode()[:15])
        prctl(_PR_SET_NAME, ctypes.addressof(short))
    with contextlib.suppress(Exception):
        _overwrite_command_line((text or name).encode("utf-8", "surrogateescape"))


def _overwrite_command_line(title: bytes) -> None:
    """Write over the strings of argv, where the kernel reads /proc/PID/cmdline from.

    The kernel takes a last byte that is not NUL for the sign of such a title, and then shows
    exactly the first string; without it the padding would be shown too.
    """
    with open("/proc/self/stat", "rb") as file:
        after_name = file.read().rpartition(b")")[2].split()
    start, end = (int(value) for value in after_name[_ARG_START_FIELD - 3 :][:2])
    room = end - start
    if start == 0 or not 8 <= room < _LONGEST_AREA_BYTES:
        return
    area = title.replace(b"\0", b" ")[: room - 2].ljust(room - 1, b"\0") + b"."
    ctypes.memmove(start, area, room)
