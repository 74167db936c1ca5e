"""What a path means for a process, read from its table of mounts, and which mounts belong to a log-on session.

The rule: a service's job goes on when nobody is logged on, so its files stand where they stand for everybody and
for good (inventory I4; architecture, section 4, rule 4).  And whoever names a path means the place that he himself
sees under it (I8): a place is a directory of a file system, by whatever mount it is reached.

Everything here is a decision over texts; who reads them, and when, is for the caller to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_NUMBERS: Final = re.compile(r"[0-9]{1,18} [0-9]{1,18}")
_SESSION_DIRECTORY: Final = "/run/user"
_SESSION_TYPES: Final = frozenset({"fuse.gvfsd-fuse", "fuse.portal", "fuse.xdg-document-portal"})
"""Made for a session, and gone with it, whatever their options say."""
_DELETED: Final = "//deleted"
"""What the kernel writes behind the name of something that is mounted and has been deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/PID/mountinfo."""

    id: int
    """No two mounts have the same one, in whatever namespaces they are."""
    parent: int
    device: str
    root: str
    """What of its file system is mounted: a path from the root of that."""
    point: str
    """Where, as the process sees it."""
    type: str
    options: tuple[str, ...]
    """Those of the file system, not those of the mount."""

    @property
    def is_fuse(self) -> bool:
        """Whether a program of some account answers for it."""
        return self.type in ("fuse", "fuseblk") or self.type.startswith(("fuse.", "fuseblk."))

    @property
    def private_to(self) -> int | None:
        """The uid that alone may look into it, if it is a FUSE mount without allow_other."""
        if not self.is_fuse or "allow_other" in self.options:
            return None
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "user_id" and value.isascii() and value.isdigit():
                return int(value)
        return None


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory, whatever path leads to it."""

    device: str
    path: str
    """From the root of the file system."""


class MountTable:
    """The mounts that a process sees, and where its paths lead."""

    def __init__(self, raw: bytes) -> None:
        """Read a mountinfo; a line that is none is passed over."""
        # One character for each byte until the names are unescaped; and only the kernel's ends of lines count.
        lines = raw.decode("latin-1").split("\n")
        self._mounts = tuple(mount for line in lines if (mount := _parse(line)) is not None)
        known = {mount.id for mount in self._mounts}
        # Of two at one place the later one covers the other.
        self._children = {(mount.parent, mount.point): mount for mount in self._mounts if mount.parent != mount.id}
        roots = [
            mount
            for mount in self._mounts
            if mount.point == "/" and (mount.parent not in known or mount.parent == mount.id)
        ]
        self._root = roots[-1] if roots else None

    def __repr__(self) -> str:
        return f"<MountTable {len(self._mounts)} mounts>"

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts)

    def way(self, path: str) -> tuple[Mount, ...]:
        """The mounts that a path without links leads through, the one that it ends in last.

        Empty when they are not known, as for a process whose root directory is not a mount.  The parents are
        followed, not the longest mount point: one that was covered later does not count.
        """
        if self._root is None:
            return ()
        way = [self._root]
        names = _names(path)
        for depth in range(len(names) + 1):
            point = "/" + "/".join(names[:depth])
            while (child := self._children.get((way[-1].id, point))) is not None and child not in way:
                way.append(child)
        return tuple(way)

    def place(self, path: str) -> Place | None:
        """Where a path without links leads; None when that is not known."""
        way = self.way(path)
        if not way or way[-1].root.endswith(_DELETED):
            # Two that were deleted may have had the same name.
            return None
        mount = way[-1]
        rest = _names(path)[len(_names(mount.point)) :]
        return Place(mount.device, "/" + "/".join(_names(mount.root) + rest))


def _parse(line: str) -> Mount | None:
    left, dash, right = line.partition(" - ")
    fields, more = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(more) < 3 or not _NUMBERS.fullmatch(f"{fields[0]} {fields[1]}"):
        return None
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=_unescaped(fields[3]),
        point=_unescaped(fields[4]),
        type=more[0],
        options=tuple(more[2].split(",")),
    )


def _unescaped(field: str) -> str:
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
    return raw.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


# --- decisions -------------------------------------------------------------------------------


def session_problem(table: MountTable, points: Sequence[str], uid: int) -> str | None:
    """Why a job of the service account `uid` may not use a path: a clause that names the mount, or None.

    `points` are the places at which the path is what it is: those of the links on its way, and its end.
    """
    for point in points:
        way = table.way(point)
        for mount in way:
            if mount.type in _SESSION_TYPES:
                return f"{_shown(mount.point)} is a mount of a log-on session ({mount.type})"
            owner = mount.private_to
            if owner is not None and owner != uid:
                return f"{_shown(mount.point)} is a mount that only uid {owner} can look into ({mount.type})"
        if (directory := _session_directory(point)) is not None:
            mounted = {mount.point: mount.type for mount in way}
            deepest = max((place for place in mounted if place.startswith(directory)), key=len, default=directory)
            kind = f" ({mounted[deepest]})" if deepest in mounted else ""
            return f"{_shown(deepest)}{kind} belongs to a log-on session, and goes with it"
        if (home := _mounted_elsewhere(table, point)) is not None:
            return f"it leads into {_shown(home.point)} ({home.type}), which belongs to a log-on session"
    return None


def mapping_problem(ours: MountTable, theirs: MountTable, points: Sequence[str]) -> str | None:
    """Why a path means another place for the process that names it than for the service: a clause, or None."""
    for point in points:
        here, there = ours.way(point), theirs.way(point)
        if here and there and (here[-1].id, here[-1].point) == (there[-1].id, there[-1].point):
            continue
        place = ours.place(point)
        if place is not None and place == theirs.place(point):
            # Another mount of the same thing, for reading only, say.
            continue
        if not there:
            return "the calling process has another root directory"
        mount = there[-1]
        return (
            f"{_shown(point)} is another place for the calling process than for the service: "
            f"it has {mount.type} mounted on {_shown(mount.point)}"
        )
    return None


def _session_directory(path: str) -> str | None:
    """The directory of a session that a path lies in: /run/user/UID."""
    names = _names(path)
    if names[:2] != ["run", "user"] or len(names) < 3:
        return None
    return "/" + "/".join(names[:3])


def _mounted_elsewhere(table: MountTable, path: str) -> Mount | None:
    """The mount of a session's directory that a path leads into by way of another mount of the same thing.

    What is in it goes at log-off all the same.  Only tmpfs, as logind makes it: what somebody else put there may well
    be a part of a file system that stays.
    """
    place = table.place(path)
    for mount in table:
        if place is not None and mount.device == place.device and mount.type == "tmpfs":
            root = _names(mount.root)
            if mount.point == _session_directory(mount.point) and _names(place.path)[: len(root)] == root:
                return mount
    return None


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
