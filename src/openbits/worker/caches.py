"""Whose tickets a credential cache has: an account's own, or what somebody else has put at its place.

The rule: a cache speaks for an account only if the account made it, or root did.  libkrb5 takes whatever stands at the
name, and the usual one, /tmp/krb5cc_UID, is in a directory where everybody may make files: who has put his own tickets
there would be the one as whom another account's jobs come to servers, and would be given what they upload.  A named
pipe there would hold the thread that waits for it for ever.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class ForeignCache(Exception):
    """What stands at the cache's name is not the account's; the text is a clause that says what to do."""


@contextlib.contextmanager
def own_cache(name: str) -> Iterator[str | None]:
    """Yield by which name to use the cache that libkrb5 calls `name`; None: whatever libkrb5 takes by itself.

    A file that was looked at is used by its descriptor, so that no other can take its place. Raises ForeignCache.
    """
    kind, colon, path = name.partition(":")
    if not colon or name.startswith("/"):
        kind, path = "FILE", name
    if kind not in ("FILE", "DIR"):
        # The kernel or a daemon keeps it, and knows whose it is.
        yield None
        return
    fd = _opened(path.removeprefix(":"))
    if fd < 0:
        # There is none. libkrb5 may have the account's own keys, and else says what is missing.
        yield None
        return
    try:
        _check(os.fstat(fd), path, is_directory=kind == "DIR" and not path.startswith(":"))
        yield f"FILE:/proc/self/fd/{fd}" if kind == "FILE" else None
    finally:
        os.close(fd)


def _opened(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise ForeignCache(f"the credential cache {path} cannot be read: {error.strerror}: remove it") from error


def _check(status: os.stat_result, path: str, *, is_directory: bool) -> None:
    if not (stat.S_ISDIR if is_directory else stat.S_ISREG)(status.st_mode):
        wanted = "directory" if is_directory else "regular file"
        raise ForeignCache(f"the credential cache {path} is no {wanted}: remove it")
    if status.st_uid not in (os.geteuid(), 0):
        raise ForeignCache(f"the credential cache {path} belongs to another account (uid {status.st_uid}): remove it")
