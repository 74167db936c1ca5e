"""The job store: one SQLite database, one writer, one transaction a batch.

What `commit` has returned for survives a power cut (write-ahead log, synchronous=FULL); what it has
raised for has not happened.  `events_after` reads through a connection of its own and is never in
the writer's way.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.core.model import Job
from openbits.store.errors import StoreBusy, StoreError, StoreFull
from openbits.store.opening import (
    connect,
    create_file,
    is_unusable,
    prepare,
    set_aside,
    sync_directory,
    translated,
)
from openbits.store.queries import load_queries
from openbits.store.records import Batch, EventChoice, Loaded, OpenReport, StoredEvent
from openbits.store.rows import (
    BadRow,
    Row,
    choice_values,
    effect_row,
    event_row,
    file_row,
    job_row,
    machine_row,
    new_file_row,
    proxies_row,
    read_effect,
    read_event,
    read_files,
    read_jobs,
    read_machine_settings,
    read_proxies,
)

__all__ = ["OpenReport", "Store", "StoreBusy", "StoreError", "StoreFull"]

DATABASE: Final = "bits.db"
LOCK: Final = "bits.lock"
CLOCK_SLACK_S: Final = 3600.0
"""How far the clock may have gone back without an event being overlooked."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a job stands in the database."""

    row: int
    file_count: int


class Store:
    """A JobStore on the disk. `load` and `commit` belong to one thread at a time."""

    def __init__(self, *, directory: str, lock: int, writer: sqlite3.Connection, loaded: Loaded) -> None:
        """Use `Store.open`."""
        self.directory = directory
        self.commits = 0
        self._lock_descriptor = lock
        self._writer: sqlite3.Connection | None = writer
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._queries = load_queries()
        self._loaded: Loaded | None = loaded
        places = [(job_id, _Place(*place)) for job_id, *place in writer.execute(self._queries["load_places"])]
        self._places = dict(places)
        self._next_row = 1 + max((place.row for _, place in places), default=0)

    def __repr__(self) -> str:
        state = "closed" if self._writer is None else f"jobs={len(self._places)} commits={self.commits}"
        return f"<Store {self.directory} {state}>"

    @classmethod
    def open(cls, directory: str) -> tuple[Store, OpenReport]:
        """Open the store in an existing directory, or make one there.

        One that cannot be used is set aside first; the report says where it went, and why (M10).
        Raises StoreBusy while another service has it, StoreFull, StoreError.
        """
        lock = _lock(directory)
        try:
            return cls._open_locked(directory, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _open_locked(cls, directory: str, lock: int) -> tuple[Store, OpenReport]:
        path = os.path.join(directory, DATABASE)
        try:
            try:
                writer, version, loaded = _open_database(path)
                moved, reason = None, ""
            except _SetAside as error:
                moved, reason = error.moved_to, str(error)
                writer, version, loaded = _open_database(path)
        except sqlite3.Error as error:
            raise translated(error, directory) from error
        except _SetAside as error:
            raise StoreError(f"a new job store in {directory} cannot be used: {error}") from error
        except OSError as error:
            raise StoreError(f"the job store in {directory} cannot be opened: {error.strerror}") from error
        store = cls(directory=directory, lock=lock, writer=writer, loaded=loaded)
        return store, OpenReport(
            set_aside=moved,
            reason=reason,
            created=version is None,
            migrated_from=version if version != _latest(writer) else None,
        )

    def load(self) -> Loaded:
        """See JobStore."""
        if self._loaded is not None:
            # Opening has read everything, to know that it can be read; no need to do it again.
            loaded, self._loaded = self._loaded, None
            return loaded
        try:
            return _read_everything(self._open_writer(), self._queries)
        except sqlite3.Error as error:
            raise translated(error, self.directory) from error
        except BadRow as error:
            raise StoreError(f"the job store in {self.directory} cannot be read: {error}") from error

    def commit(self, batch: Batch) -> None:
        """See JobStore."""
        writer = self._open_writer()
        places = self._places_after(batch)
        try:
            writer.execute("BEGIN IMMEDIATE")
            self._write(writer, batch, places)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(writer)
            raise translated(error, self.directory) from error
        except BaseException:
            _roll_back(writer)
            raise
        self.commits += 1
        self._loaded = None
        self._places |= places
        self._next_row += sum(place.row >= self._next_row for place in places.values())
        for job_id in batch.forgotten:
            self._places.pop(job_id, None)

    def events_after(
        self, event_id: int, *, limit: int, job_id: str | None = None, owner_uid: int | None = None
    ) -> list[StoredEvent]:
        """See JobStore."""
        query = self._queries["events_after" if job_id is None else "events_of_job_after"]
        values = {"after": event_id, "limit": limit, "job_id": job_id, "owner_uid": owner_uid}
        return self._read(lambda reader: [read_event(row) for row in reader.execute(query, values)])

    def chosen_events(
        self, choice: EventChoice, *, after: int = 0, limit: int, newest: bool = False
    ) -> list[StoredEvent]:
        """See JobStore."""
        what = "chosen_events_of_job" if choice.job_id is not None else "chosen_events"
        query = self._queries[f"newest_{what}" if newest else what]

        def read(reader: sqlite3.Connection) -> list[StoredEvent]:
            floor = max(after, self._floor(reader, choice.since))
            found = reader.execute(query, choice_values(choice) | {"after": floor, "limit": limit})
            events = [read_event(row) for row in found]
            return events[::-1] if newest else events

        return self._read(read)

    def _floor(self, reader: sqlite3.Connection, since: float | None) -> int:
        """The id after which no event is older than `since`, nearly.

        Ids grow with time, so that it is found by halving; an index on the time would cost every event that is written.
        Clocks are set: what is found is only where to begin, and each event's time is still looked at.
        """
        if since is None:
            return 0
        low, high = reader.execute(self._queries["event_id_bounds"]).fetchone()
        while low < high:
            middle = (low + high) // 2
            row = reader.execute(self._queries["event_time_from"], (middle,)).fetchone()
            if row is not None and row[1] < since - CLOCK_SLACK_S:
                low = max(middle, int(row[0])) + 1
            else:
                high = middle
        return max(0, int(low) - 1)

    def _read(self, work: Callable[[sqlite3.Connection], list[StoredEvent]]) -> list[StoredEvent]:
        self._open_writer()
        with self._reading:
            try:
                if self._reader is None:
                    self._reader = connect(os.path.join(self.directory, DATABASE))
                    self._reader.execute("PRAGMA query_only = ON")
                return work(self._reader)
            except sqlite3.Error as error:
                raise translated(error, self.directory) from error

    def scrub(self) -> None:
        """See JobStore."""
        try:
            writer = self._open_writer()
            # Free pages of earlier versions of this program still hold what was deleted from them; then the log.
            writer.execute("VACUUM")
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise translated(error, self.directory) from error

    def close(self) -> None:
        """See JobStore."""
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            os.close(self._lock_descriptor)

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise StoreError("the job store is closed")
        return self._writer

    def _places_after(self, batch: Batch) -> dict[str, _Place]:
        """Where the jobs of a batch are written, new ones in the order in which they come.

        A file that is new and was not declared would make the store unreadable at the next start,
        so it makes the batch fail now.
        """
        places: dict[str, _Place] = {}
        next_row = self._next_row
        for write in batch.jobs:
            job, known = write.job, places.get(write.job.id) or self._places.get(write.job.id)
            present = 0 if known is None else known.file_count
            missing = [index for index in range(present, len(job.files)) if index not in write.files]
            if missing or len(job.files) < present:
                raise StoreError(
                    f"job {job.id} had {present} files and has {len(job.files)}; new ones not written: {missing}"
                )
            if known is None:
                known, next_row = _Place(next_row, 0), next_row + 1
            places[job.id] = _Place(known.row, len(job.files))
        return places

    def _write(self, writer: sqlite3.Connection, batch: Batch, places: dict[str, _Place]) -> None:
        queries = self._queries
        if batch.jobs:
            numbered = [(places[write.job.id].row, write.job, write.files) for write in batch.jobs]
            writer.executemany(queries["upsert_job"], (job_row(row, job) for row, job, _ in numbered))
            new: list[Row] = []
            changed: list[Row] = []
            for row, job, files in numbered:
                known = self._places.get(job.id)
                present = 0 if known is None else known.file_count
                for index in files:
                    if index < present:
                        changed.append(file_row(row, index, job.files[index]))
                    else:
                        new.append(new_file_row(row, index, job.files[index]))
            writer.executemany(queries["insert_file"], new)
            writer.executemany(queries["update_file"], changed)
        if batch.forgotten:
            found = (places.get(job_id) or self._places.get(job_id) for job_id in batch.forgotten)
            gone = [(place.row,) for place in found if place is not None]
            writer.executemany(queries["delete_files"], gone)
            writer.executemany(queries["delete_job"], gone)
        if batch.events:
            writer.executemany(queries["insert_event"], map(event_row, batch.events))
        if batch.effects_done:
            writer.executemany(queries["delete_effect"], ((effect_id,) for effect_id in batch.effects_done))
        if batch.effects_added:
            writer.executemany(queries["insert_effect"], map(effect_row, batch.effects_added))
        for account, settings in batch.proxies.items():
            if settings is None:
                writer.execute(queries["delete_proxies"], (account,))
            else:
                writer.execute(queries["upsert_proxies"], proxies_row(account, settings))
        for name, value in batch.machine.items():
            if value is None:
                writer.execute(queries["delete_machine_setting"], (name,))
            else:
                writer.execute(queries["upsert_machine_setting"], machine_row(name, value))
        if batch.prune is not None:
            writer.execute(queries["prune_events_by_age"], {"older_than": batch.prune.older_than})
            writer.execute(queries["prune_events_by_number"], {"keep": batch.prune.keep})


def _lock(directory: str) -> int:
    # A lock of its own: SQLite's would have to be held for ever to keep a second service out.
    try:
        descriptor = os.open(
            os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise StoreError(f"the directory {directory} cannot be used for the job store: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreBusy(f"another service uses the job store in {directory}") from None
    return descriptor


class _SetAside(Exception):
    """The database was unusable, for the reason that the text gives, and is out of the way."""

    def __init__(self, reason: str, moved_to: str) -> None:
        super().__init__(reason)
        self.moved_to = moved_to


def _open_database(path: str) -> tuple[sqlite3.Connection, int | None, Loaded]:
    """Raises _SetAside, sqlite3.Error or OSError."""
    connection = None
    try:
        create_file(path)
        connection = connect(path)
        version = prepare(connection)
        sync_directory(os.path.dirname(path))
        return connection, version, _read_everything(connection, load_queries())
    except BaseException as error:
        try:
            if is_unusable(error):
                # Before the connection is closed: SQLite deletes a log that it cannot read.
                raise _SetAside(str(error), set_aside(path)) from error
        finally:
            if connection is not None:
                connection.close()
        raise


def _latest(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _read_everything(connection: sqlite3.Connection, queries: dict[str, str]) -> Loaded:
    files = read_files(connection.execute(queries["load_files"]))
    jobs: list[Job] = [job for _row, job in read_jobs(connection.execute(queries["load_jobs"]), files)]
    (last_event_id,) = connection.execute(queries["last_event_id"]).fetchone()
    return Loaded(
        jobs=jobs,
        effects=[read_effect(row) for row in connection.execute(queries["load_effects"])],
        proxies=read_proxies(connection.execute(queries["load_proxies"])),
        machine=read_machine_settings(connection.execute(queries["load_machine_settings"])),
        last_event_id=last_event_id,
    )


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.rollback()
