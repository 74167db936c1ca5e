"""Where a path leads: the places on its way at which it turns, and its end.

Nothing is opened and nothing is refused here.  A way that ends early, because the account may not look
further, ends with the path as it was given from there on: what is mounted there is known all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

_MOST_LINKS: Final = 40
"""As many as the kernel follows."""
_LONGEST: Final = 4096


def walk(path: str) -> list[str]:
    """Return the places of the links on the way, and the end, as paths without links."""
    points: list[str] = []
    walked: list[str] = []
    ahead = path.split("/")[::-1]
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del walked[-1:]
            continue
        here = "/".join(("", *walked, name))
        try:
            target = os.readlink(here)
        except OSError as error:
            if error.errno != errno.EINVAL:
                # Not there, or not to be seen: nothing can turn any more, as far as this account is concerned.
                return [*points, _rest(here, ahead)]
            walked.append(name)
            continue
        points.append(here)
        if len(points) > _MOST_LINKS or len(target) > _LONGEST:
            return points
        if target.startswith("/"):
            walked.clear()
        ahead += target.split("/")[::-1]
    end = "/".join(("", *walked)) or "/"
    with contextlib.suppress(OSError):
        # What is mounted on demand is mounted now, and stands in the table.
        os.stat(f"{end}/.")
    return [*points, end]


def _rest(here: str, ahead: list[str]) -> str:
    names = [name for name in reversed(ahead) if name not in ("", ".", "..")]
    return "/".join((here, *names))[:_LONGEST]
