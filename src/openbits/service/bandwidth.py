"""The broker: shares out, among all workers of the machine, what the policy lets background jobs receive and send.

The rule: a paced transfer pays for every byte, and one that owes something goes on when it has been lent that; who
asks is served in turn.  Nobody's share is kept for him while others could use it.  Transfers without a limit never
ask, and while nobody waits no timer runs (P2, P10, Q5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.core.bandwidth import Bucket, Limit, Limits
from openbits.core.model import Priority
from openbits.frames.worker import Lease, SetPace

LEASE_S: Final = 0.1
"""A lease is of what comes together in so long, divided by those who share the limit …"""
LEAST_LEASE_BYTES: Final = 1024
"""… and of no less: at a few bytes a second nobody is woken for each."""
MOST_SHARING: Final = 8
WINDOW_S: Final = 0.25
"""A paced connection has room for what comes together in so long: a server cannot be further ahead of its limit."""
LEAST_WINDOW_BYTES: Final = 4096
MOST_WINDOW_BYTES: Final = 2**30
MOST_DEBT_S: Final = 1.0
MOST_DEBT_BYTES: Final = 64 * 1024
"""A worker may have been taken over: no more than the greater of the two is charged for a transfer that has ended."""
SHORTEST_TIMER_S: Final = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How a transfer goes: whether it has to ask, and how much room its connections have (0: as much as they like)."""

    is_paced: bool = False
    window_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class _Transfer:
    number: int
    priority: Priority
    send: Callable[[object], None]
    pacing: Pacing
    buckets: tuple[str, ...]
    """Keys of the limits that it shares."""
    wanted_bytes: int = 0
    lent_bytes: int = 0


class Broker:
    """See the module's rule."""

    def __init__(self, limits: Callable[[], Limits], clock: Callable[[], float] | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._open: dict[int, _Transfer] = {}
        self._waiting: dict[int, _Transfer] = {}
        """In the order in which they are served."""
        self._buckets: dict[str, Bucket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._leases = 0
        self._lent_bytes = 0

    def __repr__(self) -> str:
        return f"<Broker open={len(self._open)} waiting={len(self._waiting)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        paced = sum(1 for each in self._open.values() if each.pacing.is_paced)
        return {"paced_transfers": paced, "leases": self._leases, "leased_bytes": self._lent_bytes}

    # --- transfers ----------------------------------------------------------------------------------------

    def open(self, number: int, priority: Priority, send: Callable[[object], None]) -> Pacing:
        """A transfer is about to begin, and hears by `send` when it is to go otherwise; return how it goes now."""
        limits = self._limits().of(priority)
        pacing = _pacing(limits)
        self._open[number] = _Transfer(
            number=number, priority=priority, send=send, pacing=pacing, buckets=self._shared(limits)
        )
        return pacing

    def want(self, number: int, wanted_bytes: int) -> None:
        """A transfer owes so much, and may want some more ahead; less than nothing: it gives back what is left."""
        transfer = self._open.get(number)
        if transfer is None:
            return
        self._waiting.pop(number, None)
        transfer.wanted_bytes = max(0, wanted_bytes)
        if wanted_bytes <= 0:
            # No more than it has had: what is given back is others'.
            back = min(-wanted_bytes, transfer.lent_bytes)
            transfer.lent_bytes -= back
            self._charge(transfer, -back)
        elif not transfer.buckets:
            # It has not heard yet that there is no limit any more.
            self._lend(transfer, wanted_bytes)
        else:
            self._waiting[number] = transfer
        self._serve()

    def change(self, number: int, priority: Priority) -> None:
        """The job has another priority now (J16)."""
        transfer = self._open.get(number)
        if transfer is not None and transfer.priority is not priority:
            transfer.priority = priority
            self._adapt(transfer)
            self._serve()

    def close(self, number: int) -> None:
        """A transfer has ended; what it still owes is charged."""
        transfer = self._open.pop(number, None)
        self._waiting.pop(number, None)
        if transfer is not None and transfer.wanted_bytes:
            rate = min((self._buckets[key].bytes_per_s for key in transfer.buckets), default=0.0)
            self._charge(transfer, min(transfer.wanted_bytes, max(MOST_DEBT_BYTES, rate * MOST_DEBT_S)))
        self._serve()

    def limits_changed(self) -> None:
        """Other limits hold: at once, for what is under way, too."""
        for transfer in self._open.values():
            self._adapt(transfer)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in self._used()}
        self._serve()

    def stop(self) -> None:
        """Serve nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()

    # --- parts --------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()

    def _used(self) -> set[str]:
        return {key for transfer in self._open.values() for key in transfer.buckets}

    def _adapt(self, transfer: _Transfer) -> None:
        limits = self._limits().of(transfer.priority)
        transfer.buckets = self._shared(limits)
        pacing = _pacing(limits)
        if pacing == transfer.pacing:
            return
        if not pacing.is_paced:
            self._waiting.pop(transfer.number, None)
            transfer.wanted_bytes = 0
        transfer.pacing = pacing
        transfer.send(SetPace(transfer=transfer.number, is_paced=pacing.is_paced, window_bytes=pacing.window_bytes))

    def _shared(self, limits: tuple[Limit, ...]) -> tuple[str, ...]:
        """Have a bucket for each limit that holds; those of zero stop their jobs, and are none."""
        for limit in limits:
            rate = max(1.0, limit.bytes_per_s)
            bucket = self._buckets.get(limit.key)
            if bucket is None:
                self._buckets[limit.key] = Bucket(bytes_per_s=rate, at=self._now())
            elif bucket.bytes_per_s != rate:
                self._buckets[limit.key] = bucket.filled(self._now()).at_rate(rate)
        return tuple(limit.key for limit in limits)

    def _charge(self, transfer: _Transfer, count: float) -> None:
        now = self._now()
        for key in transfer.buckets:
            self._buckets[key] = self._buckets[key].filled(now).taken(count)

    def _lend(self, transfer: _Transfer, count: int) -> None:
        transfer.wanted_bytes = 0
        transfer.lent_bytes += count
        self._charge(transfer, count)
        self._leases += 1
        self._lent_bytes += count
        transfer.send(Lease(transfer=transfer.number, granted_bytes=count))

    def _serve(self) -> None:
        """Lend what there is to those who wait, in turn; then wait until there is something for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        now = self._now()
        for key, bucket in self._buckets.items():
            self._buckets[key] = bucket.filled(now)
        shares = {key: self._share(key) for key in self._buckets}
        empty: set[str] = set()
        soonest_s: float | None = None
        for transfer in list(self._waiting.values()):
            if not empty.isdisjoint(transfer.buckets):
                continue  # nobody overtakes who waits for the same
            count = min(transfer.wanted_bytes, *(shares[key] for key in transfer.buckets))
            lacks_s = max(self._buckets[key].wait_s(count) for key in transfer.buckets)
            if lacks_s <= 0:
                del self._waiting[transfer.number]
                self._lend(transfer, count)
                continue
            empty.update(key for key in transfer.buckets if self._buckets[key].wait_s(count) > 0)
            soonest_s = lacks_s if soonest_s is None else min(soonest_s, lacks_s)
        if soonest_s is not None:
            delay_s = max(SHORTEST_TIMER_S, soonest_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._serve)

    def _share(self, key: str) -> int:
        sharing = sum(1 for transfer in self._open.values() if key in transfer.buckets)
        rate = self._buckets[key].bytes_per_s
        return max(LEAST_LEASE_BYTES, int(rate * LEASE_S / max(1, min(MOST_SHARING, sharing))))


def _pacing(limits: tuple[Limit, ...]) -> Pacing:
    if not limits:
        return Pacing()
    room = int(min(limit.bytes_per_s for limit in limits) * WINDOW_S)
    return Pacing(is_paced=True, window_bytes=min(MOST_WINDOW_BYTES, max(LEAST_WINDOW_BYTES, room)))
