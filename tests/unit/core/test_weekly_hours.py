"""Weekly hours: what they contain, when that changes, on days of 23, 24 and 25 hours, in any zone (P2, P9, P10, R7)."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.core.schedules import Hours, HoursError, local_time, next_change, parse_hours

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca")


def at(text: str, zone: tzinfo = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def changes(text: str, start: float, end: float, zone: tzinfo) -> list[float]:
    hours = (parse_hours(text),)
    found: list[float] = []
    moment: float | None = start
    while True:
        assert moment is not None
        moment = next_change(hours[0].contain, hours, zone, moment)
        if moment is None or moment > end:
            return found
        found.append(moment)


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("mon-fri 08:00-17:00", {0, 1, 2, 3, 4}, 480, 1020),
        ("sat,sun 22:30-06:00", {5, 6}, 1350, 360),
        ("fri-mon 9:00-24:00", {4, 5, 6, 0}, 540, 1440),
        ("00:00-24:00", set(range(7)), 0, 1440),
        (" Wed 8:00 - 9:15 ", {2}, 480, 555),
        ("mon, wed-thu 01:00-02:00", {0, 2, 3}, 60, 120),
    ],
)
def test_hours_are_read(text: str, days: set[int], start: int, end: int) -> None:
    assert parse_hours(text) == Hours(days=frozenset(days), start_minute=start, end_minute=end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon",
        "mon 8-17",
        "mon 08:00-08:00",
        "mon 24:00-08:00",
        "mon 08:60-09:00",
        "mon 08:00-24:01",
        "mon 08:00-25:00",
        "mon- 08:00-09:00",
        "day 1:00-2:00",
        "08:00",
        "mon 08:00-09:00 tue 08:00-09:00",
    ],
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(HoursError):
        parse_hours(text)


def test_hours_past_midnight_belong_to_the_day_on_which_they_begin() -> None:
    hours = parse_hours("fri 22:00-06:00")
    assert hours.contain(datetime(2026, 11, 27, 23, 0))  # noqa: DTZ001 - a clock on the wall
    assert hours.contain(datetime(2026, 11, 28, 5, 59))  # noqa: DTZ001
    assert not hours.contain(datetime(2026, 11, 28, 6, 0))  # noqa: DTZ001
    assert not hours.contain(datetime(2026, 11, 27, 5, 0))  # noqa: DTZ001


def test_a_day_of_23_hours_has_the_time_that_is_left() -> None:
    """29 March 2026: 02:00 to 03:00 does not exist in Berlin."""
    found = changes("02:30-05:00", at("2026-03-29T00:00", BERLIN), at("2026-03-29T12:00", BERLIN), BERLIN)
    assert found == [at("2026-03-29T01:00"), at("2026-03-29T05:00", BERLIN)]
    assert (found[1] - found[0]) / 3600 == 2


def test_hours_that_a_day_leaves_out_are_left_out() -> None:
    assert changes("sun 02:10-02:50", at("2026-03-28T12:00"), at("2026-03-30T12:00"), BERLIN) == []


def test_a_day_of_25_hours_has_some_hours_twice() -> None:
    """25 October 2026: 02:00 to 03:00 comes twice in Berlin."""
    found = changes("sun 02:15-02:30", at("2026-10-25T00:00", BERLIN), at("2026-10-25T12:00", BERLIN), BERLIN)
    assert [moment - found[0] for moment in found] == [0, 900, 3600, 4500]


def test_what_never_changes_has_no_next_change() -> None:
    assert changes("00:00-24:00", at("2026-01-01T00:00"), at("2026-12-31T00:00"), BERLIN) == []


@st.composite
def some_hours(draw: st.DrawFn) -> Hours:
    start = draw(st.integers(0, 1439))
    end = draw(st.integers(0, 1440).filter(lambda minute: minute != start))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    return Hours(days=days, start_minute=start, end_minute=end)


@settings(deadline=None, max_examples=150)
@given(
    hours=st.lists(some_hours(), min_size=1, max_size=3).map(tuple),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    now=st.floats(at("2024-01-01T00:00"), at("2027-12-31T00:00")),
    probes=st.lists(st.floats(0, 1), max_size=20),
)
def test_r7_until_the_next_change_nothing_changes_and_then_it_does(
    hours: tuple[Hours, ...], zone: ZoneInfo, now: float, probes: list[float]
) -> None:
    """Compared with looking at the clock: the one timer that is set comes neither too late nor in vain."""

    def state(local: datetime) -> bool:
        return any(each.contain(local) for each in hours)

    found = next_change(state, hours, zone, now)
    current = state(local_time(now, zone))
    end = now + 8 * 86_400 if found is None else found
    if found is not None:
        assert found > now
        assert state(local_time(found, zone)) is not current
        assert state(local_time(max(now, found - 0.001), zone)) is current
    for share in probes:
        moment = now + (end - now) * share
        if moment < end:
            assert state(local_time(moment, zone)) is current, (moment, local_time(moment, zone))
