"""What a machine shares with its neighbours (inventory section 12): settings, who sets them, what overrides them.

The rule: what is set is checked, kept and shown, and a policy goes before it (C6). It has no effect yet: this version
takes nothing from peers, serves nothing to them, and keeps no cache; `EFFECT` says so wherever the settings are shown.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openbits.core.model import DAY_S, Caller
from openbits.core.policy import PeerCaching
from openbits.errors import BitsError

CACHE_SIZES_PERCENT: Final = range(1, 80 + 1)
CONTENT_AGES_S: Final = range(DAY_S, 120 * DAY_S + 1)
EFFECT: Final = (
    "kept, and without effect yet: this version fetches nothing from peers, gives nothing to them, and has no cache"
)


class Flag(enum.IntFlag):
    """The configuration flags (C6)."""

    CLIENT = 1
    SERVER = 2
    DISABLE_BRANCH_CACHE = 4


ALL_FLAGS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCachingSettings:
    """What administrators set; the defaults are BITS's (C5, C6, P15, P16)."""

    configuration_flags: int = 0
    maximum_cache_size_percent: int = 1
    maximum_content_age_s: int = 90 * DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What policies decide; the bits of `decided_flags` are not the settings' any more."""

    decided_flags: int = 0
    flags: int = 0
    maximum_cache_size_percent: int | None = None
    maximum_content_age_s: int | None = None


def overrides_of(policy: PeerCaching) -> Overrides:
    """Return what the policies P8, P12, P13, P15 and P16 decide: P12 the roles, of which P13 takes one back."""
    decided = flags = 0
    if policy.enable is not None:
        decided |= Flag.CLIENT | Flag.SERVER
        if policy.enable:
            flags |= 0 if policy.disable_client else Flag.CLIENT
            flags |= 0 if policy.disable_server else Flag.SERVER
    if policy.disable_branch_cache is not None:
        decided |= Flag.DISABLE_BRANCH_CACHE
        flags |= Flag.DISABLE_BRANCH_CACHE if policy.disable_branch_cache else 0
    age = policy.max_content_age_days
    return Overrides(
        decided_flags=int(decided),
        flags=int(flags),
        maximum_cache_size_percent=policy.max_cache_size_percent,
        maximum_content_age_s=None if age is None else age * DAY_S,
    )


def in_force(settings: PeerCachingSettings, decided: Overrides) -> PeerCachingSettings:
    """Return the settings as they count: a policy goes before what was set."""
    size, age = decided.maximum_cache_size_percent, decided.maximum_content_age_s
    return PeerCachingSettings(
        configuration_flags=(settings.configuration_flags & ~decided.decided_flags) | decided.flags,
        maximum_cache_size_percent=settings.maximum_cache_size_percent if size is None else size,
        maximum_content_age_s=settings.maximum_content_age_s if age is None else age,
    )


def overridden(settings: PeerCachingSettings, decided: Overrides) -> tuple[str, ...]:
    """Return the names of settings whose value a policy replaces by another one."""
    now = in_force(settings, decided)
    return tuple(
        field.name
        for field in dataclasses.fields(PeerCachingSettings)
        if getattr(settings, field.name) != getattr(now, field.name)
    )


def change(settings: PeerCachingSettings, changes: Mapping[str, int]) -> PeerCachingSettings:
    """Return the settings with `changes` applied, all or none.

    Raises E_NOTIMPL for flags that do not exist, and E_INVALIDARG for a size or an age outside its bounds (C6).
    """
    for name, value in changes.items():
        _CHECKS[name](value)
    return dataclasses.replace(settings, **changes)


def _check_flags(value: int) -> None:
    if value < 0 or value & ~ALL_FLAGS:
        raise BitsError(
            "E_NOTIMPL",
            "configuration flags are made of 1 (client), 2 (server) and 4 (no branch cache)",
        )


def _check_size(value: int) -> None:
    if value not in CACHE_SIZES_PERCENT:
        raise BitsError("E_INVALIDARG", "the cache may have from 1 to 80 percent of the disk")


def _check_age(value: int) -> None:
    if value not in CONTENT_AGES_S:
        raise BitsError(
            "E_INVALIDARG",
            f"content may stay in the cache for {CONTENT_AGES_S.start} to {CONTENT_AGES_S.stop - 1} seconds",
        )


_CHECKS: Final = {
    "configuration_flags": _check_flags,
    "maximum_cache_size_percent": _check_size,
    "maximum_content_age_s": _check_age,
}


def from_stored(stored: Any) -> PeerCachingSettings:
    """Read what was kept. What cannot be is left out: a machine must not stop over a setting without effect."""
    values: dict[str, int] = {}
    for name, check in _CHECKS.items():
        value = stored.get(name) if isinstance(stored, dict) else None
        if type(value) is int:
            try:
                check(value)
            except BitsError:
                continue
            values[name] = value
    return PeerCachingSettings(**values)


def may_change(caller: Caller, *, is_system: bool) -> None:
    """Everybody sees the settings, and administrators change them (C6). Raises E_ACCESSDENIED.

    A service that somebody runs for himself alone is his own.
    """
    if is_system and not caller.is_administrator:
        raise BitsError("E_ACCESSDENIED", "peer caching is the machine's: only administrators may change or empty it")


def require(now: PeerCachingSettings, roles: Flag, what: str) -> None:
    """Raise BG_E_PEERCACHING_DISABLED unless the machine has one of these roles (C6)."""
    if not now.configuration_flags & roles:
        raise BitsError(
            "BG_E_PEERCACHING_DISABLED",
            f"peer caching is switched off, so that there is {what}: an administrator switches it on with"
            " 'bitsadmin /peercaching /setconfigurationflags 3', or by policy",
        )
