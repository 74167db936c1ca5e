"""How patient an upload is (digest, section 5: bounded rounds without progress)."""

from __future__ import annotations

from openbits.upload.progress import LOST_LIMIT, SETBACKS_LIMIT, Progress


def test_new_bytes_forgive_setbacks() -> None:
    progress = Progress()
    for _ in range(SETBACKS_LIMIT):
        progress = progress.after_answer(0, 0)
    assert not progress.is_stuck
    assert progress.after_answer(0, 0).is_stuck
    assert progress.after_answer(1, 0).setbacks == 0


def test_climbing_back_is_no_setback_and_no_progress() -> None:
    progress = Progress().after_answer(100, 0).after_answer(50, 100)
    assert (progress.mark, progress.setbacks) == (100, 1)
    assert progress.after_answer(60, 50).after_answer(100, 60).setbacks == 1
    assert progress.after_answer(101, 50).setbacks == 0


def test_a_new_session_has_its_own_mark_and_not_its_own_losses() -> None:
    progress = Progress().after_answer(100, 0)
    for _ in range(LOST_LIMIT):
        progress = progress.after_loss().after_answer(90, 0)
    assert (progress.mark, progress.highest, progress.lost) == (90, 100, LOST_LIMIT)
    assert not progress.is_hopeless
    assert progress.after_loss().is_hopeless
    assert progress.after_answer(101, 90).lost == 0
    assert not progress.after_loss().forgiven().is_hopeless
