"""Which sessions there are: in memory as values, in the journal as text, found again after a restart.

The rules:

- A session that nobody speaks to costs its record and nothing else: no descriptor, no timer, no task.
- Ids are random and compared exactly; they are looked up, and never become a name.  Files have names made of `key`.
- After a restart the size of a session's file says how much is there.  After a power cut, which shows in the boot id,
  only what was made durable counts, and the file is cut to it: clients follow the offset down.
- Time without progress is measured by the monotonic clock; over a restart, by the dates that were written down.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from openbits.server.journal import Journal
from openbits.server.settings import Settings
from openbits.server.storage import Storage, StorageError
from openbits.upload.packets import render_session_id
from openbits.upload.session import Phase, Session

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A session, and what the server knows of it beside the protocol."""

    key: str
    """Names its files; made here, 32 hexadecimal digits."""
    session: Session
    path: tuple[bytes, ...]
    """Its destination, from the root."""
    url: str
    """As the client spelt it when it made the session (BITS-Original-Request-URL); empty without an application."""
    user: str | None
    """Whose it is, where somebody made sure of that; nobody else can use it."""
    counted_for: str
    """Whose sessions it is counted among (U11): the user, or else the client's address."""
    made_at_s: float
    """When, in seconds since the epoch."""
    durable_bytes: int = 0
    """How much of the file a power cut leaves."""
    touched_s: float = 0.0
    """The last progress, by the monotonic clock; not written down."""

    def to_text(self) -> str:
        """For the journal."""
        return json.dumps(
            {
                "session": self.session.to_json(),
                "path": [name.decode("utf-8") for name in self.path],
                "url": self.url,
                "user": self.user,
                "counted_for": self.counted_for,
                "made_at_s": self.made_at_s,
                "durable_bytes": self.durable_bytes,
                "touched_at_s": time.time() - (time.monotonic() - self.touched_s),
            },
            separators=(",", ":"),
        )


def record_of(key: str, text: str) -> tuple[Record, float]:
    """Read what the journal has, and when there was progress; raises ValueError, KeyError, TypeError."""
    said: dict[str, Any] = json.loads(text)
    touched_at_s = float(said.pop("touched_at_s"))
    path = tuple(name.encode("utf-8") for name in said.pop("path"))
    session = Session.from_json(said.pop("session"))
    return Record(key=key, session=session, path=path, **said), touched_at_s


class Sessions:
    """All sessions of a server."""

    def __init__(self, settings: Settings, storage: Storage, journal: Journal) -> None:
        self._settings = settings
        self._storage = storage
        self._journal = journal
        self._by_id: dict[str, Record] = {}
        self._counts: dict[tuple[tuple[bytes, ...], str], int] = {}
        self._kept: set[str] = set()
        """Ids of sessions that are being written down durably."""

    def __repr__(self) -> str:
        return f"<Sessions open={len(self._by_id)}>"

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._by_id.values())

    def load(self) -> None:
        """Find again what an earlier run left; blocks; before the journal is started.  Raises StorageError."""
        boot = _boot_id()
        is_other_boot = not boot or boot != self._journal.read_boot()
        changed: list[tuple[str, str | None]] = []
        now_s, wall_s = time.monotonic(), time.time()
        for key, text in self._journal.read().items():
            try:
                record, touched_at_s = record_of(key, text)
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"the journal's entry of session {key} makes no sense: {error!r}") from error
            settled, last_at_s = self._settle(record, is_other_boot=is_other_boot)
            # A clock that was set back must not keep sessions for ever, nor one set forward end them early.
            age_s = max(0.0, wall_s - max(touched_at_s, last_at_s))
            self._add(replace(settled, touched_s=now_s - age_s))
            if settled != record:
                changed.append((key, settled.to_text()))
        self._journal.write_boot(boot, changed)
        strays = self._storage.delete_strays(frozenset(record.key for record in self))
        if self._by_id or strays:
            log.info("action=sessions-found open=%d strays=%d other-boot=%s", len(self), strays, is_other_boot)

    def _settle(self, record: Record, *, is_other_boot: bool) -> tuple[Record, float]:
        """Let the record say what the disk says, and when that was written."""
        found = self._storage.part_size(record.key)
        size, last_at_s = found or (0, 0.0)
        session = record.session
        if session.phase is Phase.RECEIVING:
            if is_other_boot and size > record.durable_bytes:
                size = record.durable_bytes
                self._storage.cut_part(record.key, size)
            session = replace(session, received_bytes=size)
        elif session.phase is Phase.ACCEPTED and session.is_published and found is None:
            # The intent to publish was durable before the rename, and nothing else takes a file away.
            session = replace(session, phase=Phase.DONE)
        return replace(record, session=session), last_at_s

    # --- one session ---

    def find(self, session_id: str) -> Record | None:
        """The session with exactly this id."""
        return self._by_id.get(session_id)

    def count_alike(self, record: Record) -> int:
        """How many sessions the same client has in the same upload directory (U11)."""
        return self.count_of(record.path, record.counted_for)

    def count_of(self, path: tuple[bytes, ...], counted_for: str) -> int:
        """How many sessions a client has in the upload directory that a path belongs to (U11)."""
        return self._counts.get((self._settings.find(path).components, counted_for), 0)

    def _kind(self, record: Record) -> tuple[tuple[bytes, ...], str]:
        return self._settings.find(record.path).components, record.counted_for

    async def make(self, *, path: tuple[bytes, ...], url: str, user: str | None, counted_for: str) -> Record:
        """Make a session, durably, under an id that cannot be guessed; raises OSError."""
        guid = uuid.uuid4()
        record = Record(
            key=guid.hex,
            session=Session(id=render_session_id(guid)),
            path=path,
            url=url,
            user=user,
            counted_for=counted_for,
            made_at_s=time.time(),
            touched_s=time.monotonic(),
        )
        self._add(record)
        try:
            await self._journal.write(record.key, record.to_text())
        except BaseException:
            self._remove(record)
            raise
        return record

    def note(self, record: Record) -> None:
        """Change a session; the change is written down when there is time."""
        self._by_id[record.session.id] = record
        self._journal.note(record.key, record.to_text())

    async def settle(self, record: Record) -> None:
        """Write down what a killed server must find again."""
        try:
            await self._journal.write_soon(record.key, record.to_text())
        except OSError as error:
            # Nothing was promised that a power cut could not take back as well.
            log.error("action=note-failed session=%s: %s", record.key, error)

    def remember(self, record: Record) -> None:
        """Change what a restart finds out by itself: nothing is written."""
        self._by_id[record.session.id] = record

    async def keep(self, record: Record) -> None:
        """Change a session, durably; raises OSError, and then nothing is changed."""
        self._kept.add(record.session.id)
        try:
            await self._journal.write(record.key, record.to_text())
        finally:
            self._kept.discard(record.session.id)
        self._by_id[record.session.id] = record

    def note_durable(self, session_id: str, size: int) -> None:
        """A power cut leaves at least so much of a session's file."""
        record = self._by_id.get(session_id)
        # A session that is being kept is durable as a whole, and an older one must not be written over it.
        if record is not None and session_id not in self._kept and record.durable_bytes < size:
            self.note(replace(record, durable_bytes=size))

    def forget(self, record: Record) -> None:
        """End a session; its files are the caller's to delete."""
        if self._remove(record):
            self._journal.note(record.key, None)

    def _add(self, record: Record) -> None:
        self._by_id[record.session.id] = record
        kind = self._kind(record)
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def _remove(self, record: Record) -> bool:
        if self._by_id.pop(record.session.id, None) is None:
            return False
        kind = self._kind(record)
        left = self._counts[kind] - 1
        if left:
            self._counts[kind] = left
        else:
            del self._counts[kind]
        return True


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        # Where it cannot be known, every start is taken for one after a power cut.
        return ""
