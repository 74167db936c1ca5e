"""Who listens to what happens: subscriptions to events and progress, each with a bounded buffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from openbits.service.records import EventRecord, ProgressReport

BUFFER_RECORDS = 4096

Record = EventRecord | ProgressReport


class Subscription(AsyncIterator[Record]):
    """What one listener has not read yet; it ends when the listener falls behind or the service stops."""

    def __init__(self, feed: Feed, wants: Callable[[Record], bool]) -> None:
        self._feed = feed
        self._wants = wants
        self._queue: asyncio.Queue[Record | None] = asyncio.Queue()
        self._ended = False

    def offer(self, record: Record) -> None:
        """Put a record into the buffer if the listener wants it; progress gives way to events."""
        if self._ended or not self._wants(record):
            return
        if self._queue.qsize() >= BUFFER_RECORDS:
            self.end()
        elif isinstance(record, EventRecord) or self._queue.qsize() < BUFFER_RECORDS // 2:
            self._queue.put_nowait(record)

    def end(self) -> None:
        """Let the listener read what is there and then see the end."""
        if not self._ended:
            self._ended = True
            self._feed.discard(self)
            self._queue.put_nowait(None)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Record:
        record = await self._queue.get()
        if record is None:
            raise StopAsyncIteration
        return record


class Feed:
    """Hands every record to every subscription that wants it."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def __repr__(self) -> str:
        return f"<Feed listeners={len(self._subscriptions)}>"

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, wants: Callable[[Record], bool]) -> Subscription:
        """Begin to listen, from now on."""
        subscription = Subscription(self, wants)
        self._subscriptions.add(subscription)
        return subscription

    def discard(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self._subscriptions.discard(subscription)

    def publish(self, record: Record) -> None:
        """Hand out a record."""
        for subscription in tuple(self._subscriptions):
            subscription.offer(record)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in tuple(self._subscriptions):
            subscription.end()
