"""What counts as logged on (I2; architecture, section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from openbits.service.logon.facts import counts_as_logged_on, lingers, uid_of


@pytest.mark.parametrize("kind", ["user", "user-early", "user-light", "user-early-light"])
@pytest.mark.parametrize("state", ["opening", "online", "active"])
def test_a_live_session_of_class_user_counts(kind: str, state: str) -> None:
    assert counts_as_logged_on({"Class": kind, "State": state})


@pytest.mark.parametrize(
    "kind",
    [
        "user-incomplete",
        "greeter",
        "lock-screen",
        "background",
        "background-light",
        "manager",
        "manager-early",
        "",
        "none",
        "USER",
    ],
)
def test_a_session_of_any_other_class_does_not_count(kind: str) -> None:
    """`su -l` and cron are of class background."""
    assert not counts_as_logged_on({"Class": kind, "State": "active", "Active": True})


@pytest.mark.parametrize("state", ["closing", "lingering", "offline", "", "ACTIVE"])
def test_a_session_in_any_other_state_does_not_count(state: str) -> None:
    assert not counts_as_logged_on({"Class": "user", "State": state, "Active": True})


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"Class": "user"},
        {"State": "active"},
        {"Class": ["user"], "State": "active"},
        {"Class": "user", "State": ["active"]},
        {"Class": "user", "State": 1},
        {"Class": b"user", "State": "active"},
        {"Class": {}, "State": {}},
        {"Class": "user", "Active": 1},
        {"Class": "user", "Active": "yes"},
    ],
)
def test_what_is_missing_or_of_an_odd_type_counts_for_nothing(properties: dict[str, Any]) -> None:
    assert not counts_as_logged_on(properties)


def test_a_session_without_a_state_counts_if_it_is_active() -> None:
    assert counts_as_logged_on({"Class": "user", "Active": True})
    assert not counts_as_logged_on({"Class": "user", "Active": False})


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"Linger": True, "State": "lingering"}, True),
        ({"Linger": True, "State": "closing"}, True),
        ({"State": "lingering"}, True),
        ({"Linger": False, "State": "active"}, False),
        ({"Linger": False, "State": "closing"}, False),
        ({"Linger": 1}, False),
        ({"Linger": "yes"}, False),
        ({"State": []}, False),
        ({}, False),
    ],
)
def test_lingering(properties: dict[str, Any], expected: bool) -> None:
    """A lingering user whose last session is closing is shown as closing and lingers all the same."""
    assert lingers(properties) is expected


@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**32, 1.0, "1000", True, None, [1000], b"1"])
def test_what_is_no_uid(value: Any) -> None:
    assert uid_of(value) is None


@pytest.mark.parametrize("value", [0, 1000, 2**32 - 2])
def test_what_is_a_uid(value: int) -> None:
    assert uid_of(value) == value
