"""Weekly hours, by the clock on the wall of a time zone, and the moments at which they begin and end.

The rule: whether a moment lies within hours is asked of the local time of that moment, so that a day of 23 or 25
hours has as many as it has; when that changes next is a moment, so that one timer is enough (P9, P10, R7).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, TypeVar

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
HORIZON_DAYS: Final = 9
"""More than a week: what does not change in so long does so in no ordinary week."""
_HOURS: Final = re.compile(r"(?:(?P<days>[a-z, -]+?)\s+)?(?P<start>\d\d?:\d\d)\s*-\s*(?P<end>\d\d?:\d\d)")

_T = TypeVar("_T", bound=Hashable)


class HoursError(ValueError):
    """What stands there are no hours; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """From one time of some days to another, which is on the next day if it is not later. Minutes of a day."""

    days: frozenset[int]
    """0 is Monday; the days on which they begin."""
    start_minute: int
    end_minute: int

    def contain(self, local: datetime) -> bool:
        """Whether a local time lies within them."""
        minute = local.hour * 60 + local.minute
        day = local.weekday()
        if self.start_minute < self.end_minute:
            return day in self.days and self.start_minute <= minute < self.end_minute
        began_today = day in self.days and minute >= self.start_minute
        return began_today or ((day - 1) % 7 in self.days and minute < self.end_minute)


def parse_hours(text: str) -> Hours:
    """Read `mon-fri 08:00-17:00`, `sat,sun 22:00-06:00` or `08:00-17:00`, which is every day. Raises HoursError."""
    found = _HOURS.fullmatch(text.strip().lower())
    if found is None:
        raise HoursError('write days and times like "mon-fri 08:00-17:00"')
    start, end = _minute(found["start"]), _minute(found["end"])
    if start == DAY_MINUTES:
        raise HoursError("hours cannot begin at 24:00: write 00:00 of the next day")
    if start == end:
        raise HoursError("they begin and end at the same time: the whole day is 00:00-24:00")
    return Hours(days=_days(found["days"] or "mon-sun"), start_minute=start, end_minute=end)


def _minute(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise HoursError(f"{text} is no time of day")
    return hour * 60 + minute


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                raise HoursError(f"{name!r} is no day: there are {', '.join(DAYS)}")
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if dash else 0
        days.update((start + step) % 7 for step in range(length + 1))
    return frozenset(days)


def local_time(moment_s: float, zone: tzinfo) -> datetime:
    """What a clock in the zone shows at a moment, in seconds since the epoch."""
    return datetime.fromtimestamp(moment_s, zone)


def next_change(state: Callable[[datetime], _T], hours: tuple[Hours, ...], zone: tzinfo, now: float) -> float | None:
    """Return the first moment after `now` at which `state` of the local time is another; None: not in sight.

    `state` may change only where some of `hours` begin or end.
    """
    current = state(local_time(now, zone))
    moments = {moment for moment in _moments(hours, zone, now) if moment > now}
    return next((moment for moment in sorted(moments) if state(local_time(moment, zone)) != current), None)


def _moments(hours: tuple[Hours, ...], zone: tzinfo, now: float) -> Iterator[float]:
    """Every moment near `now` at which the clock comes to one of the times, or leaps."""
    times = {minute for each in hours for minute in (each.start_minute, each.end_minute)}
    if not times:
        return
    today = local_time(now, zone).date()
    for step in range(-1, HORIZON_DAYS + 1):
        midnight = datetime.combine(today + timedelta(days=step), datetime.min.time())
        for minute in times:
            local = midnight + timedelta(minutes=minute)
            # An hour that comes twice has each time twice; one that is left out has it never, and the leap tells.
            for fold in (0, 1):
                yield local.replace(tzinfo=zone, fold=fold).timestamp()
    yield from _leaps(zone, now - 86_400, now + (HORIZON_DAYS + 1) * 86_400)


def _leaps(zone: tzinfo, start: float, end: float) -> Iterator[float]:
    """The moments between two at which the zone's clocks are put forward or back, to the second."""
    for low, high in itertools.pairwise(range(int(start), int(end) + 3600, 6 * 3600)):
        if _offset(zone, high) != _offset(zone, low):
            yield _leap(zone, low, high)


def _leap(zone: tzinfo, low: int, high: int) -> float:
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return float(high)


def _offset(zone: tzinfo, moment: int) -> timedelta | None:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()
