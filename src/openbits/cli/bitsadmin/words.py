"""The words of the Windows tool for what the service calls otherwise."""

from __future__ import annotations

from typing import Final

_STATES: Final = {"CANCELLED": "CANCELED"}


def state_word(state: str) -> str:
    """Return a state as the Windows tool spells it: CANCELED has one L (B18)."""
    return _STATES.get(state, state)
