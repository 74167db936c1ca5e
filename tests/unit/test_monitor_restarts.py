"""When a dead program is started again."""

from __future__ import annotations

import pytest

from openbits.monitor.restarts import MOST_DEATHS, WINDOW_S, Restarts


def test_delay_grows_and_the_fifth_death_is_the_last() -> None:
    restarts = Restarts()
    delays = [restarts.delay_s(float(second), killed=False) for second in range(MOST_DEATHS)]
    assert delays == [pytest.approx(0.1), pytest.approx(0.3), pytest.approx(0.9), pytest.approx(2.7), None]


def test_old_deaths_are_forgotten() -> None:
    restarts = Restarts()
    for death in range(50):
        assert restarts.delay_s(death * WINDOW_S / (MOST_DEATHS - 1), killed=False) is not None
    assert restarts.delay_s(100 * WINDOW_S, killed=False) == pytest.approx(0.1)


def test_being_killed_is_no_reason_to_give_up() -> None:
    restarts = Restarts()
    delays = [restarts.delay_s(float(second), killed=True) for second in range(50)]
    assert None not in delays
    assert max(delay for delay in delays if delay is not None) == 5.0
    assert restarts.delay_s(50.0, killed=False) is not None
