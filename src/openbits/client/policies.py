"""The calls about the machine's policy (section 8 of the inventory)."""

from __future__ import annotations

from openbits.client.calls import Call, Json


def policy() -> Call[Json]:
    """What holds, and who says so."""
    return Call("GET", "/v1/policy", repeatable=True)


def reload_policy() -> Call[Json]:
    """Have the files read now; administrators only. Raises E_ACCESSDENIED, E_INVALIDARG for files that are wrong."""
    return Call("POST", "/v1/policy/reload", repeatable=True)
