"""The shapes of what goes over the local API about policies (section 8 of the inventory)."""

from __future__ import annotations

from openbits.api.wire import Response


class PolicyValue(Response):
    """One value: what it is now, and who says so."""

    name: str
    """`section.key` as in a policy file, or `key` at its top."""
    inventory: str
    text: str
    value: int | str | bool | list[str] | None
    unit: str
    source: str
    """`FILE:LINE`, `configuration KEY`, or `default`."""
    is_set: bool
    """Whether a policy decides it."""
    lacks_effect: str
    """Why it changes nothing yet; empty where it has effect."""


class PolicyLimits(Response):
    """What background jobs may use now, in kilobits (1000 bits) per second; null: as much as there is."""

    together: int | None
    high: int | None
    normal: int | None
    low: int | None


class PolicyOut(Response):
    """The policy that is in force."""

    directory: str
    files: list[str]
    loaded_at: str
    problem: str | None
    """Why the files as they are now are not in force; what is shown is what was there before."""
    timezone: str
    slot: str
    """To which hours the limits belong; empty where no policy has hours."""
    until: str | None
    """When other hours begin, and with them other limits."""
    limits: PolicyLimits
    values: list[PolicyValue]
