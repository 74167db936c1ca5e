"""What the service needs of a store."""

from __future__ import annotations

from typing import Protocol

from openbits.store.records import Batch, EventChoice, Loaded, StoredEvent


class JobStore(Protocol):
    """Jobs, events and effects that survive whatever happens to the service.

    `load` and `commit` belong to one thread at a time; `events_after` and `chosen_events` may be called from any.
    """

    def load(self) -> Loaded:
        """Return everything that was committed. Raises StoreError."""

    def commit(self, batch: Batch) -> None:
        """Write a batch: when this returns it would survive a power cut, when it raises nothing of it is there.

        Raises StoreFull or another StoreError; the store stays usable.
        """

    def events_after(
        self, event_id: int, *, limit: int, job_id: str | None = None, owner_uid: int | None = None
    ) -> list[StoredEvent]:
        """Return the oldest `limit` kept events with a higher id, of one job or owner if asked. Raises StoreError."""

    def chosen_events(
        self, choice: EventChoice, *, after: int = 0, limit: int, newest: bool = False
    ) -> list[StoredEvent]:
        """Return events of a choice with ids above `after`, oldest first: the oldest `limit`, or the newest.

        May be called from any thread. Raises StoreError.
        """

    def scrub(self) -> None:
        """Leave nothing on the disk of what was overwritten or deleted; it may take seconds. Raises StoreError."""

    def close(self) -> None:
        """Let go of everything. Closing twice is allowed."""
