"""What counts as logged on, from what logind says of sessions and users (inventory I2; architecture, section 4).

A person is logged on while a session of theirs is opening, online or active, or while they linger.
A session that is *closing* is over: what was left running in it does not keep a person logged on.
Whatever is missing or of a type that it should not have counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

USER_CLASSES: Final = frozenset({"user", "user-early", "user-light", "user-early-light"})
"""Not: user-incomplete, greeter, lock-screen, background, background-light, manager, manager-early."""
LIVE_STATES: Final = frozenset({"opening", "online", "active"})
_NO_UID: Final = 2**32 - 1


def uid_of(value: Any) -> int | None:
    """A uid, or None for what is none."""
    return value if type(value) is int and 0 <= value < _NO_UID else None


def counts_as_logged_on(properties: Mapping[str, Any]) -> bool:
    """Whether a session with these properties makes its user count as logged on."""
    kind, state = properties.get("Class"), properties.get("State")
    if state is None and properties.get("Active") is True:
        state = "active"
    return isinstance(kind, str) and kind in USER_CLASSES and isinstance(state, str) and state in LIVE_STATES


def lingers(properties: Mapping[str, Any]) -> bool:
    """Whether a user with these properties lingers.

    Not by the state alone: a lingering user whose last session is closing is in the state closing.
    """
    return properties.get("Linger") is True or properties.get("State") == "lingering"
