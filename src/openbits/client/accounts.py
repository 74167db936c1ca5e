"""From an account to the identity that it has: uid, gid and groups of the account database.

The rule: what is remembered of the database is forgotten when its files change, and after a second in any case.  A
lookup costs more than the call it is made for, and a service that acts for users makes one with each call; a group
that somebody has lost must not live on here.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable
from typing import Final

from openbits.client.identity import Identity
from openbits.errors import BitsError

MEMORY_S: Final = 1.0
"""For accounts that come from elsewhere than from files; what serves those keeps them for minutes."""
_MAX_REMEMBERED: Final = 1_000
_FILES: Final = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
_MAX_ID: Final = 2**32 - 2

_Version = tuple[tuple[int, int, int], ...]
_remembered: Final[dict[str | int, tuple[float, _Version, Identity]]] = {}


def identity_of(account: str | int, groups: Iterable[int] | None = None) -> Identity:
    """Return the identity of an account, by name or uid, with its groups or the ones given.

    Raises ERROR_NO_SUCH_USER, E_INVALIDARG.
    """
    if isinstance(account, bool) or not isinstance(account, str | int):
        raise BitsError("E_INVALIDARG", f"an account is a name or a uid, not {account!r}")
    if groups is None:
        return _remember(account)
    entry = _entry(account)
    chosen = tuple(sorted(set(groups)))
    if not all(0 <= one <= _MAX_ID for one in chosen):
        raise BitsError("E_INVALIDARG", f"{chosen} are no groups")
    return Identity(entry.pw_uid, entry.pw_gid, chosen)


def _remember(account: str | int) -> Identity:
    # Before the lookup: a change during it makes the next one look again.
    now, version = time.monotonic(), _version()
    known = _remembered.get(account)
    if known is not None and known[0] > now and known[1] == version:
        return known[2]
    entry = _entry(account)
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    identity = Identity(entry.pw_uid, entry.pw_gid, tuple(sorted(set(groups))))
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    _remembered[account] = (now + MEMORY_S, version, identity)
    return identity


def _entry(account: str | int) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(account) if isinstance(account, str) else pwd.getpwuid(account)
    except (KeyError, ValueError, OverflowError):
        raise BitsError("ERROR_NO_SUCH_USER", f"there is no account {account!r}") from None


def _version() -> _Version:
    found = []
    for path in _FILES:
        try:
            status = os.stat(path)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
