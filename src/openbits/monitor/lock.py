"""One daemon for one pair of directories.

The rule: a daemon that runs is refused at once, the remains of a killed one are waited for.  Two
kinds of lock on one file tell them apart: the record lock belongs to the monitor's process alone and ends
with it; the flock is inherited by the service, so that it lasts until a killed daemon's service
has really left, be it stuck in a write to a slow disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import types
from collections.abc import Iterator
from typing import Final

from openbits.monitor.log import StartError
from openbits.monitor.places import Places, seen_by
from openbits.privileges import Identity

_LOCK_NAME: Final = "bitsd.lock"
_PATIENCE_S: Final = 10.0


def take(places: Places, account: Identity) -> int:
    """Lock both directories; return the descriptor that the service inherits. Raises StartError."""
    first = _open(places.state_dir, places, account)
    _take_alone(first, places.state_dir)
    if places.runtime_dir != places.state_dir:
        # Kept open by the process for as long as it lives; nobody needs the number.
        _take_alone(_open(places.runtime_dir, places, account), places.runtime_dir)
    _wait_for_remains(first, places.state_dir)
    return first


def _open(directory: str, places: Places, account: Identity) -> int:
    # Not the directory itself: everybody may open /run/openbits, and so could lock it.
    path = os.path.join(directory, _LOCK_NAME)
    try:
        with seen_by(account, places.mode):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}", exit_status=2) from None


def _take_alone(fd: int, directory: str) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StartError(f"another bitsd already works in {directory}") from None


def _wait_for_remains(fd: int, directory: str) -> None:
    try:
        with _alarm(_PATIENCE_S):
            fcntl.flock(fd, fcntl.LOCK_EX)
    except TimeoutError:
        raise StartError(f"the service of an earlier bitsd in {directory} does not end") from None


@contextlib.contextmanager
def _alarm(delay_s: float) -> Iterator[None]:
    def expire(_number: int, _frame: types.FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, delay_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
