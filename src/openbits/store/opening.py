"""Bringing a database file to where it can be used, or finding that it cannot be.

A store that is damaged, foreign, or newer than this program is never repaired, guessed at or
overwritten: it is moved aside whole, for people to look at, and a new one begins (inventory M10).
Trouble that may pass (no rights, no room, a disk error) moves nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import Final

from openbits.store.errors import StoreError, StoreFull
from openbits.store.queries import load_migrations
from openbits.store.rows import BadRow

APPLICATION_ID: Final = 0x4F424954
"""`OBIT` in the header of the file tells ours from any other SQLite database."""
SIDE_FILES: Final = ("-wal", "-shm")

_DAMAGE: Final = frozenset(
    (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        # While a store is opened only our own statements run: what fails to compile, or to keep a
        # constraint, meets a schema that is not ours.
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    )
)
_DAMAGED_READS: Final = frozenset((sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS))
_MAGIC: Final = b"SQLite format 3\0"
_LITTLE_ROOM_BYTES: Final = 256 * 1024


class Unusable(Exception):
    """The file is no store that this program can use; the text says why."""


def connect(path: str) -> sqlite3.Connection:
    """Open a connection as the store uses it: every commit durable, nothing trusted in the file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        for pragma in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "synchronous = FULL",
            "temp_store = MEMORY",
            # What an owner took back must not lie about in free pages until somebody finds the key to it.
            "secure_delete = ON",
            f"journal_size_limit = {16 * 2**20}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> int | None:
    """Check the database and bring it to the latest version; return the version that it had, None if it is new.

    Raises Unusable, or sqlite3.Error.
    """
    migrations = load_migrations()
    version = int(_value(connection, "PRAGMA user_version"))
    tables = int(_value(connection, "SELECT count(*) FROM sqlite_master"))
    is_new = version == 0 and tables == 0
    if not is_new:
        if _value(connection, "PRAGMA application_id") != APPLICATION_ID:
            raise Unusable("it is another program's database")
        if not 1 <= version <= len(migrations):
            raise Unusable(f"it has version {version}, and this program knows versions 1 to {len(migrations)}")
        # The index checks of integrity_check take ten times as long, and a wrong index loses nothing.
        verdict = _value(connection, "PRAGMA quick_check(1)")
        if verdict != "ok":
            raise Unusable(f"it is damaged: {verdict}")
    connection.execute("PRAGMA journal_mode = WAL")
    for number in range(version + 1, len(migrations) + 1):
        _migrate(connection, number, migrations[number - 1])
    return None if is_new else version


def _migrate(connection: sqlite3.Connection, number: int, script: str) -> None:
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.rollback()
        raise


def _value(connection: sqlite3.Connection, statement: str) -> int | str:
    (value,) = connection.execute(statement).fetchone()
    assert isinstance(value, int | str)
    return value


def is_unusable(error: BaseException) -> bool:
    """Whether an error while opening says that the file itself is bad, rather than the moment."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, Unusable | BadRow) or (
        code is not None and (code in _DAMAGED_READS or code & 0xFF in _DAMAGE)
    )


def translated(error: sqlite3.Error, directory: str) -> StoreError:
    """The error of ours that an error of SQLite's means."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and (
        code == sqlite3.SQLITE_FULL or (code & 0xFF == sqlite3.SQLITE_IOERR and not _has_room(directory))
    ):
        return StoreFull(f"there is no room for the job store in {directory}")
    return StoreError(f"the job store in {directory} cannot be used: {error}")


def _has_room(directory: str) -> bool:
    # SQLite reports a full disk as a plain I/O error when it meets it in the shared memory file.
    try:
        room = os.statvfs(directory)
    except OSError:
        return True
    return room.f_bavail * room.f_frsize >= _LITTLE_ROOM_BYTES


def create_file(path: str) -> None:
    """Make sure that the file exists and that nobody else can read it; SQLite gives its side files the same mode.

    Raises Unusable for a file that cannot be a database: SQLite would say so too, but it would
    delete the log that lies beside it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        head = os.pread(descriptor, len(_MAGIC), 0)
    finally:
        os.close(descriptor)
    if head not in (b"", _MAGIC):
        raise Unusable("it is no database")


def set_aside(path: str) -> str:
    """Move a database and its side files out of the way; return the new name of the database."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target, number = f"{path}.corrupt-{stamp}", 1
    while any(os.path.lexists(target + side) for side in ("", *SIDE_FILES)):
        number += 1
        target = f"{path}.corrupt-{stamp}.{number}"
    # The database last: should this be cut short, the next start finds it again and goes on.
    for side in (*SIDE_FILES, ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + side, target + side)
    sync_directory(os.path.dirname(path))
    return target


def sync_directory(directory: str) -> None:
    """Make durable what happened to the names in a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
