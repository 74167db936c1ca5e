"""How much background jobs may use now, and until when; and the bucket that a limit is.

The rule: in the hours of maintenance its limits hold and no others; else the limit of all background jobs together
and that of their priority hold both.  FOREGROUND has none (P2, P9, P10, Q5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Final

from openbits.core.model import Priority
from openbits.core.policy import BACKGROUND, BITS_PER_KILOBIT, Policy, PriorityLimits, Rate
from openbits.core.schedules import Hours, local_time, next_change

BURST_S: Final = 0.25
"""What was not used is kept for so long: a burst is no longer …"""
LEAST_BURST_BYTES: Final = 2048
"""… or no larger than this, where that is next to nothing."""
BITS_PER_BYTE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit that holds, and the key that says so."""

    kbps: int
    key: str

    @property
    def bytes_per_s(self) -> float:
        """The same in bytes."""
        return self.kbps * BITS_PER_KILOBIT / BITS_PER_BYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for background jobs at one moment; None: no limit."""

    together: Limit | None = None
    high: Limit | None = None
    normal: Limit | None = None
    low: Limit | None = None

    def of(self, priority: Priority) -> tuple[Limit, ...]:
        """The limits of jobs of a priority, that of their own first."""
        if priority not in BACKGROUND:
            return ()
        own = {Priority.HIGH: self.high, Priority.NORMAL: self.normal, Priority.LOW: self.low}[priority]
        return tuple(limit for limit in (own, self.together) if limit is not None)

    def tightest(self, priority: Priority) -> Limit | None:
        """The one that jobs of a priority feel."""
        return min(self.of(priority), key=lambda limit: limit.kbps, default=None)

    @property
    def blocked(self) -> frozenset[Priority]:
        """Priorities that may use nothing at all."""
        return frozenset(each for each in BACKGROUND if any(not limit.kbps for limit in self.of(each)))


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The limits of a moment, the hours to which they belong, and when others follow."""

    limits: Limits
    slot: str
    """`maintenance`, `work hours` and the like, for people; empty where no policy has hours."""
    until: float | None = None


def in_force(policy: Policy, zone: tzinfo, now: float) -> InForce:
    """Return what holds at a moment, in seconds since the epoch."""
    hours: list[Hours] = []
    if policy.internet is not None:
        hours.append(policy.internet.hours)
    for schedule in (policy.work, policy.maintenance):
        hours.extend(schedule.hours if schedule is not None else ())

    def state(local: datetime) -> tuple[Limits, str]:
        return _at(policy, local)

    limits, slot = state(local_time(now, zone))
    return InForce(limits=limits, slot=slot, until=next_change(state, tuple(hours), zone, now) if hours else None)


def _at(policy: Policy, local: datetime) -> tuple[Limits, str]:
    maintenance, work, internet = policy.maintenance, policy.work, policy.internet
    if maintenance is not None and any(hours.contain(local) for hours in maintenance.hours):
        return _per_priority(maintenance.limits, "maintenance."), "maintenance"
    limits, slots = Limits(), []
    if work is not None:
        is_work = any(hours.contain(local) for hours in work.hours)
        limits = _per_priority(work.work if is_work else work.nonwork, f"work_schedule.{'' if is_work else 'non'}work_")
        slots.append("work hours" if is_work else "outside work hours")
    if internet is not None:
        is_inside = internet.hours.contain(local)
        rate = internet.inside if is_inside else internet.outside
        key = f"max_internet_bandwidth.limit_{'' if is_inside else 'outside_'}kbps"
        limits = replace(limits, together=_limit(rate, key))
        first, last = (minute // 60 for minute in (internet.hours.start_minute, internet.hours.end_minute))
        slots.append(f"{'from' if is_inside else 'not from'} {first} to {last} h")
    return limits, ", ".join(slots)


def _per_priority(limits: PriorityLimits, prefix: str) -> Limits:
    return Limits(
        high=_limit(limits.high, f"{prefix}high_kbps"),
        normal=_limit(limits.normal, f"{prefix}normal_kbps"),
        low=_limit(limits.low, f"{prefix}low_kbps"),
    )


def _limit(rate: Rate, key: str) -> Limit | None:
    return None if rate is None else Limit(kbps=rate, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Fills by the second, holds little, and may be overdrawn: what was overdrawn has to fill up first."""

    bytes_per_s: float
    level_bytes: float = 0.0
    at: float = 0.0
    """When it was at that level; any clock that does not leap."""

    @property
    def most_bytes(self) -> float:
        """What it holds."""
        return max(LEAST_BURST_BYTES, self.bytes_per_s * BURST_S)

    def filled(self, now: float) -> Bucket:
        """As it is now."""
        level = min(self.most_bytes, self.level_bytes + (now - self.at) * self.bytes_per_s)
        return replace(self, level_bytes=level, at=now)

    def taken(self, count: float) -> Bucket:
        """After so much was taken, or given back where it is less than nothing."""
        return replace(self, level_bytes=min(self.most_bytes, self.level_bytes - count))

    def wait_s(self, level_bytes: float) -> float:
        """How long it takes to come to a level."""
        return max(0.0, (level_bytes - self.level_bytes) / self.bytes_per_s)

    def at_rate(self, bytes_per_s: float) -> Bucket:
        """The same bucket under another limit: nobody pays for longer than a second for what was allowed before."""
        level = max(-bytes_per_s, self.level_bytes)
        return replace(self, bytes_per_s=bytes_per_s, level_bytes=level)
