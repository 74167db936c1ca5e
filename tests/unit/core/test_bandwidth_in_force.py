"""Which limits hold when (P2, P9, P10), and the bucket that a limit is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.bandwidth import BURST_S, LEAST_BURST_BYTES, Bucket, InForce, in_force
from openbits.core.model import Priority
from openbits.core.policy import COSTS, KEYS, PolicyError, checked, policy_of

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3600.0


def policy(**values: Any) -> Any:
    named = {name.replace("__", "."): value for name, value in values.items()}
    return policy_of({name: checked(name, value) for name, value in named.items()})


def now_in(hour: float, **values: Any) -> InForce:
    return in_force(policy(**values), UTC, MONDAY + hour * HOUR)


def test_without_a_policy_nothing_is_limited_and_nothing_is_waited_for() -> None:
    found = now_in(9)
    assert found.limits.blocked == frozenset()
    assert found.until is None
    assert all(found.limits.of(priority) == () for priority in Priority)


def test_p2_one_limit_from_8_to_17_and_another_otherwise() -> None:
    values = {"max_internet_bandwidth__limit_kbps": 1000, "max_internet_bandwidth__limit_outside_kbps": 9000}
    day, night = now_in(9, **values), now_in(18, **values)
    assert (day.limits.together and day.limits.together.kbps) == 1000
    assert (night.limits.together and night.limits.together.kbps) == 9000
    assert day.until == MONDAY + 17 * HOUR
    assert night.until == MONDAY + 32 * HOUR


def test_p2_from_an_hour_to_the_same_hour_is_all_day() -> None:
    values = {"max_internet_bandwidth__from_hour": 3, "max_internet_bandwidth__to_hour": 3}
    for hour in (2, 3, 4):
        found = now_in(hour, max_internet_bandwidth__limit_kbps=7, **values)
        assert found.limits.together is not None
        assert found.until is None


@pytest.mark.parametrize(("written", "kbps"), [(0, 0), (1, 2), (2, 2), (3, 3)])
def test_p2_less_than_two_is_two_and_nothing_is_nothing(written: int, kbps: int) -> None:
    found = now_in(9, max_internet_bandwidth__limit_kbps=written).limits
    assert found.together is not None
    assert found.together.kbps == kbps
    assert found.blocked == (frozenset() if kbps else {Priority.HIGH, Priority.NORMAL, Priority.LOW})
    assert found.of(Priority.FOREGROUND) == ()


WORK = {
    "work_schedule__hours": ["mon-fri 08:00-17:00"],
    "work_schedule__work_low_kbps": 0,
    "work_schedule__work_normal_kbps": 64,
    "work_schedule__nonwork_normal_kbps": 512,
}


def test_p10_limits_of_work_and_of_all_other_hours() -> None:
    work, other = now_in(9, **WORK), now_in(20, **WORK)
    assert work.slot == "work hours"
    assert work.limits.blocked == {Priority.LOW}
    assert [limit.kbps for limit in work.limits.of(Priority.NORMAL)] == [64]
    assert work.limits.of(Priority.HIGH) == ()
    assert other.limits.blocked == frozenset()
    assert [limit.kbps for limit in other.limits.of(Priority.NORMAL)] == [512]
    assert other.until == MONDAY + 32 * HOUR


def test_p10_and_p2_hold_both() -> None:
    found = now_in(9, max_internet_bandwidth__limit_kbps=50, **WORK).limits
    assert [limit.kbps for limit in found.of(Priority.NORMAL)] == [64, 50]
    tightest = found.tightest(Priority.NORMAL)
    assert tightest is not None
    assert tightest.key == "max_internet_bandwidth.limit_kbps"


def test_p9_in_the_hours_of_maintenance_its_limits_hold_and_no_others() -> None:
    maintenance = {"maintenance__hours": ["mon 09:00-10:00"], "maintenance__high_kbps": 0}
    found = now_in(9.5, max_internet_bandwidth__limit_kbps=50, **WORK, **maintenance)
    assert found.slot == "maintenance"
    assert found.limits.blocked == {Priority.HIGH}
    assert found.limits.of(Priority.LOW) == ()
    assert found.until == MONDAY + 10 * HOUR


def test_limits_without_hours_are_refused() -> None:
    with pytest.raises(PolicyError, match="add hours") as refused:
        policy(maintenance__low_kbps=3)
    assert refused.value.key == "maintenance.low_kbps"
    with pytest.raises(PolicyError, match="add limit_kbps"):
        policy(max_internet_bandwidth__from_hour=3)


def test_p11_choices_are_masks_and_masks_are_masks() -> None:
    found = policy(costed_networks__low=3, costed_networks__foreground=0x80000067).costed_networks
    assert found == {Priority.LOW: COSTS[2], Priority.FOREGROUND: 0x80000067}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jobs.inactivity_timeout_days", 1000),
        ("jobs.inactivity_timeout_days", 0),
        ("jobs.inactivity_timeout_days", True),
        ("max_internet_bandwidth.from_hour", 24),
        ("max_internet_bandwidth.limit_kbps", -1),
        ("max_internet_bandwidth.limit_kbps", 1.5),
        ("max_internet_bandwidth.limit_kbps", "much"),
        ("allow_notification_commands", 1),
        ("peer_caching.max_cache_size_percent", 81),
        ("peer_caching.max_bandwidth_served_bps", 1),
        ("costed_networks.low", 0),
        ("timezone", ""),
        ("work_schedule.hours", "mon-fri 08:00-17:00"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(PolicyError, match=name):
        checked(name, value)


def test_every_key_names_its_row_of_the_inventory() -> None:
    for key in KEYS.values():
        assert key.inventory
        assert key.text


# --- the bucket -----------------------------------------------------------------------------------


@given(
    rate=st.floats(250, 1e9),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1_000_000)), min_size=1, max_size=50),
)
def test_over_any_while_no_more_is_taken_than_the_rate_and_one_burst(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    """Whoever takes only what is there."""
    bucket, now, taken = Bucket(bytes_per_s=rate), 0.0, 0.0
    for pause, wanted in steps:
        now += pause
        bucket = bucket.filled(now)
        count = min(wanted, max(0.0, bucket.level_bytes))
        bucket = bucket.taken(count)
        taken += count
    assert taken <= rate * now + max(LEAST_BURST_BYTES, rate * BURST_S) + 1


def test_what_was_overdrawn_has_to_fill_up_first() -> None:
    bucket = Bucket(bytes_per_s=1000).taken(5000)
    assert bucket.wait_s(0) == 5.0
    assert bucket.filled(5.0).wait_s(0) == 0.0
    assert bucket.filled(4.0).wait_s(100) == pytest.approx(1.1)


def test_another_limit_makes_nobody_pay_for_long() -> None:
    assert Bucket(bytes_per_s=1e6).taken(5e6).at_rate(1000).wait_s(0) == 1.0
