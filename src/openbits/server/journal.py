"""What sessions are written down in: one small database, one thread that writes, one sync for all who wait.

Why SQLite and not a file for each session: a Create must be durable before it is answered, and with a file that is two
syncs of its own; here everybody who waits at the same moment shares one.  Half a write is undone at the next start,
and all sessions are read in one go.

It keeps some room for itself, so that a full disk does not keep an upload from ending whose room is reserved.

Whoever waits is told when the change will survive a power cut (`write`), or the end of the server (`write_soon`).  What
nobody waits for (`note`) is written with that, or a moment later, together with whatever else has come by then; it may
be lost with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
import threading
from typing import Final, NamedTuple

from openbits.server.storage import StorageError

NAME: Final = "sessions.sqlite"
_VERSION: Final = 1
_WAL_PAGES: Final = 100
"""After so many pages the write-ahead log begins anew, in the room that it has."""
_GATHER_S: Final = 0.05
"""How long changes that nobody waits for are gathered."""
_SPARE_BYTES: Final = 400 * 1024
"""Room that is taken at the start: pages of the database to write to, and a write-ahead log of that length."""

log = logging.getLogger(__name__)

_Change = tuple[str, str | None]
"""A key and what to write under it; None: nothing any more."""


class _Waiter(NamedTuple):
    """Somebody who waits until a change has been written."""

    key: str
    done: asyncio.Future[None]
    is_durable: bool
    """Whether it has to survive a power cut too."""


class Journal:
    """The database; rows are texts under keys.  Used from the loop that it was opened in."""

    def __init__(self, directory: str) -> None:
        """Open or make it; raises StorageError."""
        self._path = os.path.join(directory, NAME)
        try:
            self._db = _open(self._path)
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path} cannot be used: {error}; move it away (with its -wal file), and clients begin their"
                " unfinished uploads anew"
            ) from error
        self._changes: dict[str, str | None] = {}
        self._waiting: list[_Waiter] = []
        self._came = threading.Condition()
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Journal {self._path!r}>"

    def read(self) -> dict[str, str]:
        """All rows; before start()."""
        return dict(self._db.execute("SELECT key, text FROM sessions"))

    def read_boot(self) -> str:
        """The boot in which the sizes of files were settled last; before start()."""
        row = self._db.execute("SELECT text FROM facts WHERE key = 'boot'").fetchone()
        return str(row[0]) if row is not None else ""

    def write_boot(self, boot: str, changes: list[_Change]) -> None:
        """Write down that the sizes are settled for this boot, with what that changed; before start()."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT OR REPLACE INTO facts (key, text) VALUES ('boot', ?)", (boot,))
        _apply(self._db, dict(changes))
        self._db.execute("COMMIT")

    def start(self) -> None:
        """Begin to take changes, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_changes, name="journal", daemon=True)
        self._thread.start()

    def note(self, key: str, text: str | None) -> None:
        """Write it down when there is time."""
        with self._came:
            is_first = not self._changes
            self._changes[key] = text
            if is_first:
                self._came.notify()

    async def write(self, key: str, text: str | None) -> None:
        """Write it down, and return when it is durable; raises OSError."""
        await self._write(key, text, is_durable=True)

    async def write_soon(self, key: str, text: str | None) -> None:
        """Write it down, and return when a killed server would find it; a power cut may undo it.  Raises OSError."""
        await self._write(key, text, is_durable=False)

    async def _write(self, key: str, text: str | None, *, is_durable: bool) -> None:
        assert self._loop is not None
        done = self._loop.create_future()
        with self._came:
            self._changes[key] = text
            self._waiting.append(_Waiter(key, done, is_durable))
            self._came.notify()
        await done

    async def close(self) -> None:
        """Write down what is left, durably."""
        with self._came:
            self._is_closing = True
            self._came.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._db.close()

    # --- the thread ---

    def _write_changes(self) -> None:
        put_off: dict[str, str | None] = {}
        while True:
            with self._came:
                while not self._changes and not self._is_closing:
                    self._came.wait()
                if not self._waiting and not self._is_closing:
                    self._came.wait_for(lambda: self._waiting or self._is_closing, _GATHER_S)
                changes, self._changes = {**put_off, **self._changes}, {}
                waiting, self._waiting = self._waiting, []
                is_last = self._is_closing
            put_off = {}
            try:
                self._commit(changes, is_durable=is_last or any(waiter.is_durable for waiter in waiting))
            except (sqlite3.Error, OSError) as error:
                log.error("action=journal-failed changes=%d: %s", len(changes), error)
                # Who waits is told, and takes the change back; the rest is tried again together with the next change.
                awaited = {waiter.key for waiter in waiting}
                put_off = {key: text for key, text in changes.items() if key not in awaited}
                self._tell(waiting, _system_error(error))
            else:
                self._tell(waiting, None)
            if is_last:
                return

    def _commit(self, changes: dict[str, str | None], *, is_durable: bool) -> None:
        # After NORMAL a commit is in the kernel's hands; after FULL this one, and every earlier one, is on the disk.
        self._db.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            _apply(self._db, changes)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _tell(self, waiting: list[_Waiter], error: OSError | None) -> None:
        def each() -> None:
            for waiter in waiting:
                if waiter.done.done():
                    continue
                if error is None:
                    waiter.done.set_result(None)
                else:
                    waiter.done.set_exception(error)

        if waiting and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                # The loop may have ended, and whoever waited with it.
                self._loop.call_soon_threadsafe(each)


def _open(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # No other process has any business here; so no shared memory is needed either.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            db.execute("CREATE TABLE sessions (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
            db.execute("CREATE TABLE facts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
            db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("COMMIT")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, and this server knows {_VERSION}")
        _take_room(db)
    except BaseException:
        db.close()
        raise
    return db


def _take_room(db: sqlite3.Connection) -> None:
    """Grow both files; what is deleted again leaves its room to be used. A disk that is full already is no error."""
    try:
        db.execute("INSERT OR REPLACE INTO facts (key, text) VALUES ('room', ?)", ("x" * _SPARE_BYTES,))
        db.execute("DELETE FROM facts WHERE key = 'room'")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _apply(db: sqlite3.Connection, changes: dict[str, str | None]) -> None:
    kept = [(key, text) for key, text in changes.items() if text is not None]
    gone = [(key,) for key, text in changes.items() if text is None]
    db.executemany("INSERT OR REPLACE INTO sessions (key, text) VALUES (?, ?)", kept)
    db.executemany("DELETE FROM sessions WHERE key = ?", gone)


def _system_error(error: Exception) -> OSError:
    if isinstance(error, OSError):
        return error
    is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    code = errno.ENOSPC if is_full else errno.EIO
    return OSError(code, f"the journal cannot be written: {error}")
