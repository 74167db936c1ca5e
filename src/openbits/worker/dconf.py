"""Reads a few keys out of dconf's databases, which are GVDB files, as `dconf read` would give them.

    ~/.config/dconf/user        what the account has set; only a process with its rights may read it
    /etc/dconf/profile/user     which databases there are; by default only that one
    /etc/dconf/db/NAME          what the administrator has set, and which keys nobody else may set (locks)

A worker runs no program and speaks to no session bus, so it reads the files.  The rule: the file is the account's
own, hence hostile; no number in it is believed before it was compared with the size of the file, no walk in it can go
in a circle, and what does not fit is a DamagedDatabase, never a guess.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import Final

Value = str | int | bool | list[str]

LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Real databases have some ten kilobytes."""
_TRIES: Final = 3

_HEADER: Final = struct.Struct("<8sIIII")
_ITEM: Final = struct.Struct("<IIIHccII")
_SIGNATURES: Final = {b"GVariant": "little", b"raVGtnai": "big"}
"""The byte order of the numbers among the values; those of the tables are always little-endian."""
_BLOOM_WORDS_MASK: Final = (1 << 27) - 1
_NO_PARENT: Final = 0xFFFF_FFFF
_DATABASE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_TYPE: Final = re.compile(rb"[a-z(){}*?@]{1,40}")


class DamagedDatabase(ValueError):
    """A file is no database that can be read; the text is a clause that says why."""


class Table:
    """A hash table of a database: values by full key (`/system/proxy/mode`), and tables within it."""

    def __init__(self, data: bytes, start: int, end: int, order: str) -> None:
        body = _part(data, start, end, alignment=4)
        if len(body) < 8:
            raise DamagedDatabase("a table in it has no room for its header")
        words, buckets = struct.unpack_from("<II", body)
        items_at = 8 + 4 * (words & _BLOOM_WORDS_MASK) + 4 * buckets
        if items_at > len(body) or (len(body) - items_at) % _ITEM.size:
            raise DamagedDatabase("a table in it does not fit its size")
        self._data = data
        self._order = order
        self._buckets = memoryview(body)[items_at - 4 * buckets : items_at]
        self._items = memoryview(body)[items_at:]
        self._bucket_count = buckets
        self._item_count = len(self._items) // _ITEM.size

    @classmethod
    def of_file(cls, data: bytes) -> Table:
        """Return the root table of a database. Raises DamagedDatabase."""
        if len(data) < _HEADER.size:
            raise DamagedDatabase("it is too short")
        signature, version, _options, start, end = _HEADER.unpack_from(data)
        order = _SIGNATURES.get(signature)
        if order is None or version != 0:
            raise DamagedDatabase("it is no dconf database")
        return cls(data, start, end, order)

    def value(self, key: str) -> Value | None:
        """Return the value of a key, None where it has none. Raises DamagedDatabase."""
        place = self._find(key, b"v")
        if place is None:
            return None
        return parse_variant(_part(self._data, *place, alignment=8), self._order)

    def table(self, key: str) -> Table | None:
        """Return a table within this one. Raises DamagedDatabase."""
        place = self._find(key, b"H")
        return None if place is None else Table(self._data, *place, self._order)

    def __contains__(self, key: str) -> bool:
        return self._find(key, b"v") is not None

    def _find(self, key: str, kind: bytes) -> tuple[int, int] | None:
        if not self._bucket_count:
            return None
        name = key.encode("ascii")
        wanted = hash_of(name)
        for number in self._bucket(wanted % self._bucket_count):
            hashed, _, _, _, its_kind, _, start, end = _ITEM.unpack_from(self._items, number * _ITEM.size)
            if hashed == wanted and its_kind == kind and self._has_name(number, name):
                return start, end
        return None

    def _bucket(self, number: int) -> range:
        (first,) = struct.unpack_from("<I", self._buckets, 4 * number)
        last = self._item_count
        if number + 1 < self._bucket_count:
            (last,) = struct.unpack_from("<I", self._buckets, 4 * number + 4)
        return range(first, min(last, self._item_count))

    def _has_name(self, number: int, name: bytes) -> bool:
        """Compare a name from its end: an item holds the last part of it and the number of the item before."""
        while True:
            _, parent, key_at, key_size, _, _, _, _ = _ITEM.unpack_from(self._items, number * _ITEM.size)
            part = _part(self._data, key_at, key_at + key_size)
            if not name.endswith(part):
                return False
            name = name[: len(name) - len(part)]
            if parent == _NO_PARENT:
                return not name
            if not part or parent >= self._item_count:
                # Without a part the walk would get nowhere, and might do so for ever.
                return False
            number = parent


def hash_of(name: bytes) -> int:
    """The hash of a key, as GVDB computes it."""
    value = 5381
    for byte in name:
        value = (value * 33 + (byte if byte < 128 else byte - 256)) & 0xFFFF_FFFF
    return value


def _part(data: bytes, start: int, end: int, *, alignment: int = 1) -> bytes:
    if not 0 <= start <= end <= len(data) or start % alignment:
        raise DamagedDatabase("a pointer in it leads nowhere")
    return data[start:end]


# --- values (GVariant) -------------------------------------------------------------------------


def parse_variant(data: bytes, order: str = "little") -> Value:
    """Read a value of type `v` that holds s, i, u, b or as. Raises DamagedDatabase."""
    content, mark, kind = data.rpartition(b"\0")
    if not mark or not _TYPE.fullmatch(kind):
        raise DamagedDatabase("a value in it has no type")
    match kind:
        case b"s":
            return _string(content)
        case b"b" if content in (b"\0", b"\1"):
            return content == b"\1"
        case b"i" | b"u" if len(content) == 4:
            return int.from_bytes(content, "little" if order == "little" else "big", signed=kind == b"i")
        case b"as":
            return list(_strings(content))
    raise DamagedDatabase(f"a value in it is no {kind.decode('ascii')} that is known here")


def _string(data: bytes) -> str:
    if not data.endswith(b"\0") or b"\0" in data[:-1]:
        raise DamagedDatabase("a text in it does not end")
    try:
        return data[:-1].decode("utf-8")
    except UnicodeDecodeError:
        raise DamagedDatabase("a text in it is no UTF-8") from None


def _strings(data: bytes) -> Iterator[str]:
    if not data:
        return
    width = 1 if len(data) <= 0xFF else 2 if len(data) <= 0xFFFF else 4
    end_of_last = int.from_bytes(data[-width:], "little")
    if end_of_last >= len(data) or (len(data) - end_of_last) % width:
        raise DamagedDatabase("a list in it does not fit its size")
    start = 0
    for at in range(end_of_last, len(data), width):
        end = int.from_bytes(data[at : at + width], "little")
        if not start < end <= end_of_last:
            raise DamagedDatabase("a list in it does not fit its size")
        yield _string(data[start:end])
        start = end


# --- databases and their order -------------------------------------------------------------------


def read_keys(keys: Iterable[str], *, home: str, uid: int, etc: str = "/etc/dconf") -> dict[str, Value] | None:
    """Return the values that keys have for an account; None where there is no database at all.

    The first database of the profile that has a key decides, unless a later one locks it. Raises DamagedDatabase
    and OSError.
    """
    tables = [table for path in database_paths(home=home, uid=uid, etc=etc) if (table := _open(path)) is not None]
    if not tables:
        return None
    locks = [table.table(".locks") for table in tables]
    values: dict[str, Value] = {}
    for key in keys:
        locked = [number for number, lock in enumerate(locks) if number and lock is not None and key in lock]
        for table in tables[max(locked, default=0) :]:
            value = table.value(key)
            if value is not None:
                values[key] = value
                break
    return values


def database_paths(*, home: str, uid: int, etc: str) -> list[str]:
    """Return the files of an account's profile, the one that goes before the others first.

    The environment of the account's session might name another profile; it cannot be known here.
    """
    profile = next(
        (text for path in (f"/run/dconf/user/{uid}", f"{etc}/profile/user") if (text := _read(path)) is not None),
        b"user-db:user\n",
    )
    paths = []
    for line in profile.decode("utf-8", "replace").splitlines():
        kind, _, name = line.partition("#")[0].strip().partition(":")
        match kind:
            case "user-db" if _DATABASE_NAME.fullmatch(name):
                paths.append(f"{home}/.config/dconf/{name}")
            case "system-db" if _DATABASE_NAME.fullmatch(name):
                paths.append(f"{etc}/db/{name}")
            case "file-db" if name.startswith("/"):
                paths.append(name)
    return paths


def _open(path: str) -> Table | None:
    for _ in range(_TRIES):
        data = _read(path)
        if not data:
            return None
        if data[0] != 0:
            try:
                return Table.of_file(data)
            except DamagedDatabase as error:
                raise DamagedDatabase(f"{path}: {error}") from None
        # dconf has put another file in its place just now, and says so to those who had this one open.
    raise DamagedDatabase(f"{path}: it changes all the time")


def _read(path: str) -> bytes | None:
    try:
        # A pipe or a terminal in this place must not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise DamagedDatabase(f"{path}: it is no regular file")
        if found.st_size > LARGEST_BYTES:
            raise DamagedDatabase(f"{path}: it is too large")
        data = bytearray()
        while len(data) <= LARGEST_BYTES and (piece := os.read(fd, LARGEST_BYTES + 1 - len(data))):
            data += piece
    finally:
        os.close(fd)
    if len(data) > LARGEST_BYTES:
        raise DamagedDatabase(f"{path}: it is too large")
    return bytes(data)
