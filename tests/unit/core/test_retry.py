"""core.retry: how a broken connection is taken up again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openbits.core.retry import GiveUp, Patience, TryAgain


def test_without_progress_nothing_is_taken_up_again() -> None:
    _, decision = Patience(limit_s=30).after_break(5.0)
    assert decision == GiveUp()


def test_pauses_grow_until_the_patience_is_over() -> None:
    patience, now = Patience(limit_s=30).after_progress(100.0), 100.0
    pauses = []
    while True:
        patience, decision = patience.after_break(now)
        if isinstance(decision, GiveUp):
            break
        pauses.append(decision.pause_s)
        now += decision.pause_s
    assert pauses[:7] == [0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0]
    assert now == 130.0


def test_a_calm_time_makes_the_next_break_the_first() -> None:
    patience = Patience(limit_s=30).after_progress(100.0)
    patience, _ = patience.after_break(100.0)
    patience, decision = patience.after_progress(150.0).after_break(150.0)
    assert decision == TryAgain(0.0)


def test_a_server_that_always_breaks_off_is_not_hammered() -> None:
    patience, now, attempts = Patience(limit_s=30), 0.0, 0
    while now < 60:
        patience, decision = patience.after_progress(now + 0.01).after_break(now + 0.02)
        assert isinstance(decision, TryAgain)
        assert decision.pause_s <= 1.0
        now += 0.02 + decision.pause_s
        attempts += 1
    assert attempts < 70


def test_the_servers_wish_is_respected_or_ends_the_patience() -> None:
    patience = Patience(limit_s=30).after_progress(0.0)
    assert patience.after_break(1.0, not_before_s=10)[1] == TryAgain(10)
    assert patience.after_break(1.0, not_before_s=60)[1] == GiveUp()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=60))
def test_it_never_waits_beyond_the_patience(steps: list[tuple[bool, float]]) -> None:
    patience, now, progress_at = Patience(limit_s=30).after_progress(0.0), 0.0, 0.0
    for progress, step in steps:
        now += step
        if progress:
            patience, progress_at = patience.after_progress(now), now
        patience, decision = patience.after_break(now)
        if isinstance(decision, GiveUp):
            assert now >= progress_at + 30
            return
        assert now + decision.pause_s <= progress_at + 30 + 1e-6
        now += decision.pause_s
