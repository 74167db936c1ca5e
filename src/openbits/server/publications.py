"""Files that are handed out under chosen URLs without lying in a web root: the compact server's part (U50, U51).

The rules:

- A publication holds an open descriptor, which the publisher opened with the publisher's own rights: nobody can have
  handed out what only the server may read.  It is the file of that moment: another one that takes its name is not it.
- Inside a published directory the server's own rights count, so only root and the server's account publish those.
- It lasts as long as the server, or until it expires, and is written down nowhere (U51).
- With a group, only users whom a trusted proxy names and who are in the group of this machine get it.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from openbits.server.beneath import UnfitPath, UrlPath, parse_url_path
from openbits.server.exchange import Head

MAX_PUBLICATIONS: Final = 1_000
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class NotPublished(Exception):
    """It cannot be handed out like this; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Where something is handed out."""

    components: tuple[bytes, ...]
    scheme: str = ""
    """Empty: under every name of the server, as with the next."""
    host: str = ""
    port: int = 0

    def matches(self, head: Head) -> bool:
        """Whether a request is made to this host."""
        if not self.host:
            return True
        try:
            parts = urlsplit(f"//{head.authority}")
            port = parts.port or _DEFAULT_PORTS[head.scheme]
        except ValueError:
            return False
        return (head.scheme, parts.hostname, port) == (self.scheme, self.host, self.port)


def parse_prefix(text: str) -> Prefix:
    """Read `/some/path` or `http://host:port/some/path`; raises NotPublished."""
    scheme, host, port, path = "", "", 0, text
    if not text.startswith("/"):
        scheme, host, port, path = _split_address(text)
    try:
        found = parse_url_path(path.rstrip("/").encode("utf-8") or b"/")
    except UnfitPath as error:
        raise NotPublished(f"{text} cannot be part of an address: {error}") from None
    if not found.components:
        raise NotPublished(f"{text} would be the whole server: choose a path such as /drivers")
    return Prefix(components=found.components, scheme=scheme, host=host, port=port)


def _split_address(text: str) -> tuple[str, str, int, str]:
    wrong = NotPublished(f"{text} is no place for files: give a path such as /drivers, or http://HOST:PORT/drivers")
    try:
        parts = urlsplit(text)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        raise wrong from None
    if not port or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise wrong
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong
    return parts.scheme, parts.hostname, port, parts.path


@dataclass(slots=True, kw_only=True)
class Publication:
    """Something that is handed out."""

    prefix: Prefix
    shown_prefix: str
    """As the publisher wrote it; what `unpublish` names."""
    path: str
    """Where the publisher found it; shown and never opened."""
    fd: int
    is_directory: bool
    publisher_uid: int
    published_at: float
    """In seconds since the epoch, as the next."""
    expires_at: float | None = None
    group: str = ""
    """Whose members get it; empty: everybody."""
    hand_outs: int = field(default=0)

    def covers(self, components: tuple[bytes, ...]) -> bool:
        """Whether a path leads to this, or into it."""
        own = self.prefix.components
        return components[: len(own)] == own and (self.is_directory or len(components) == len(own))


class Publications:
    """What the server hands out beside its root."""

    def __init__(self, *, names_users: bool, now: Callable[[], float] = time.time) -> None:
        """`names_users`: there is a trusted proxy that says who asks."""
        self._names_users = names_users
        self._now = now
        self._by_prefix: dict[str, Publication] = {}

    def __repr__(self) -> str:
        return f"<Publications {sorted(self._by_prefix)}>"

    def add(self, publication: Publication, *, is_master: bool) -> None:
        """Hand something out from now on; its descriptor is this object's. Raises NotPublished.

        `is_master` may put something in the place of what others have published.
        """
        self._expire()
        if not is_master:
            self._check_place(publication)
        if publication.group:
            self._check_group(publication.group)
        if publication.expires_at is not None and publication.expires_at <= self._now():
            raise NotPublished("the time is over already: give a later one to --expires")
        if len(self._by_prefix) >= MAX_PUBLICATIONS:
            raise NotPublished(
                f"{MAX_PUBLICATIONS} things are published already: unpublish some, or publish a directory"
            )
        if any(publication.prefix == each.prefix for each in self._by_prefix.values()):
            raise NotPublished(f"{publication.shown_prefix} is published already: unpublish it first")
        self._by_prefix[publication.shown_prefix] = publication

    def _check_place(self, publication: Publication) -> None:
        """The more special prefix wins: so nobody publishes inside what is another's, under any name of the server."""
        wanted = publication.prefix.components
        for each in self._by_prefix.values():
            if each.publisher_uid != publication.publisher_uid and each.covers(wanted):
                raise NotPublished(
                    f"{publication.shown_prefix} lies in {each.shown_prefix}, which uid {each.publisher_uid} has"
                    " published: choose another prefix"
                )

    def _check_group(self, group: str) -> None:
        if not self._names_users:
            raise NotPublished(
                "--allow would let nobody in: the settings name no trusted proxy that says who asks"
                " (trusted and user_header in [proxy])"
            )
        try:
            grp.getgrnam(group)
        except KeyError:
            raise NotPublished(f"there is no group {group} on this machine") from None

    def remove(self, shown_prefix: str, *, uid: int, is_master: bool) -> None:
        """Hand it out no more; hand-outs under way go on.  `is_master` may remove what others published."""
        self._expire()
        found = self._by_prefix.get(shown_prefix)
        if found is None:
            raise NotPublished(f"{shown_prefix} is not published: 'bits-server list' shows what is")
        if not is_master and found.publisher_uid != uid:
            raise NotPublished(
                f"{shown_prefix} was published by uid {found.publisher_uid}, who may unpublish it; so may root"
            )
        self._drop(shown_prefix)

    def all(self) -> list[Publication]:
        """Return what is handed out, in the order in which it was published."""
        self._expire()
        return list(self._by_prefix.values())

    def find(self, head: Head, path: UrlPath) -> Publication | None:
        """Return the most special publication that the path lies in."""
        if not self._by_prefix:
            return None
        self._expire()
        candidates = [
            each for each in self._by_prefix.values() if each.covers(path.components) and each.prefix.matches(head)
        ]
        return max(candidates, key=lambda each: (len(each.prefix.components), bool(each.prefix.host)), default=None)

    def close(self) -> None:
        """Forget everything."""
        for shown_prefix in tuple(self._by_prefix):
            self._drop(shown_prefix)

    def _expire(self) -> None:
        now = self._now()
        for shown_prefix, each in tuple(self._by_prefix.items()):
            if each.expires_at is not None and each.expires_at <= now:
                self._drop(shown_prefix)

    def _drop(self, shown_prefix: str) -> None:
        os.close(self._by_prefix.pop(shown_prefix).fd)


def is_member(user: str | None, group: str) -> bool:
    """Whether an account of this machine is in a group of it; blocks (accounts may come from a directory service)."""
    if user is None:
        return False
    try:
        account = pwd.getpwnam(user)
        wanted = grp.getgrnam(group).gr_gid
        return wanted in os.getgrouplist(account.pw_name, account.pw_gid)
    except (KeyError, OSError):
        return False


def check_descriptor(fd: int) -> bool:
    """Check what a publisher has opened, and return whether it is a directory; raises NotPublished."""
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise NotPublished("only regular files and directories can be published")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    # O_PATH needs no right to read: inside such a directory everything would hang on the server's rights alone.
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise NotPublished("whoever publishes a file must be able to read it")
    return stat.S_ISDIR(kind)
