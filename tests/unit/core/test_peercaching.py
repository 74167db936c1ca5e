"""Settings of peer caching: their bounds, and what a policy makes of them (C6, P8, P12-P16)."""

from __future__ import annotations

from typing import Any

import pytest

from openbits.core import peercaching
from openbits.core.model import AccountKind, Caller, Identity
from openbits.core.peercaching import Flag, PeerCachingSettings, in_force, overridden, overrides_of
from openbits.core.policy import PeerCaching
from openbits.errors import BitsError

DEFAULT = PeerCachingSettings()


def caller(*, is_administrator: bool) -> Caller:
    return Caller(
        identity=Identity(uid=1000, gid=1000), name="anna", kind=AccountKind.USER, is_administrator=is_administrator
    )


def test_c6_defaults_are_those_of_bits() -> None:
    assert (DEFAULT.configuration_flags, DEFAULT.maximum_cache_size_percent, DEFAULT.maximum_content_age_s) == (
        0,
        1,
        7_776_000,
    )


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("maximum_cache_size_percent", (1, 80), (0, -1, 81)),
        ("maximum_content_age_s", (86_400, 10_368_000), (0, 86_399, 10_368_001)),
    ],
)
def test_c6_sizes_and_ages_have_bounds(name: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    for value in good:
        assert getattr(peercaching.change(DEFAULT, {name: value}), name) == value
    for value in bad:
        with pytest.raises(BitsError) as caught:
            peercaching.change(DEFAULT, {name: value})
        assert caught.value.name == "E_INVALIDARG"


@pytest.mark.parametrize("flags", [-1, 8, 15, 2**32])
def test_c6_flags_that_do_not_exist_change_nothing(flags: int) -> None:
    with pytest.raises(BitsError) as caught:
        peercaching.change(DEFAULT, {"maximum_cache_size_percent": 5, "configuration_flags": flags})
    assert caught.value.name == "E_NOTIMPL"


@pytest.mark.parametrize(
    ("policy", "preference", "counts"),
    [
        (PeerCaching(), 3, 3),
        (PeerCaching(enable=True), 0, 3),
        (PeerCaching(enable=True, disable_client=True), 7, 6),
        (PeerCaching(enable=True, disable_server=True), 0, 1),
        (PeerCaching(enable=False), 3, 0),
        # P13 needs P12.
        (PeerCaching(disable_client=True, disable_server=True), 3, 3),
        (PeerCaching(disable_branch_cache=True), 1, 5),
        (PeerCaching(disable_branch_cache=False), 7, 3),
    ],
)
def test_p12_p13_p8_a_policy_goes_before_the_flags(policy: PeerCaching, preference: int, counts: int) -> None:
    settings, decided = PeerCachingSettings(configuration_flags=preference), overrides_of(policy)
    assert in_force(settings, decided).configuration_flags == counts
    assert overridden(settings, decided) == (("configuration_flags",) if counts != preference else ())


def test_p15_p16_a_policy_goes_before_size_and_age_and_agreement_is_no_override() -> None:
    decided = overrides_of(PeerCaching(max_cache_size_percent=10, max_content_age_days=1))
    assert in_force(DEFAULT, decided) == PeerCachingSettings(
        maximum_cache_size_percent=10, maximum_content_age_s=86_400
    )
    assert overridden(DEFAULT, decided) == ("maximum_cache_size_percent", "maximum_content_age_s")
    same = PeerCachingSettings(maximum_cache_size_percent=10, maximum_content_age_s=86_400)
    assert overridden(same, decided) == ()


@pytest.mark.parametrize("stored", [None, [], "x", {"configuration_flags": "3"}, {"maximum_cache_size_percent": 99}])
def test_what_was_kept_and_cannot_be_is_left_out(stored: Any) -> None:
    assert peercaching.from_stored(stored) == DEFAULT


def test_what_was_kept_and_can_be_stays_beside_it() -> None:
    stored = {"configuration_flags": 2, "maximum_content_age_s": -1, "of_a_later_version": True}
    assert peercaching.from_stored(stored) == PeerCachingSettings(configuration_flags=2)


def test_c6_administrators_change_and_whoever_runs_a_service_of_his_own() -> None:
    peercaching.may_change(caller(is_administrator=True), is_system=True)
    peercaching.may_change(caller(is_administrator=False), is_system=False)
    with pytest.raises(BitsError) as caught:
        peercaching.may_change(caller(is_administrator=False), is_system=True)
    assert caught.value.name == "E_ACCESSDENIED"


def test_c6_what_is_switched_off_cannot_be_emptied() -> None:
    peercaching.require(PeerCachingSettings(configuration_flags=2), Flag.CLIENT | Flag.SERVER, "no cache")
    for flags in (0, 2, 4):
        with pytest.raises(BitsError) as caught:
            peercaching.require(PeerCachingSettings(configuration_flags=flags), Flag.CLIENT, "no peer")
        assert caught.value.name == "BG_E_PEERCACHING_DISABLED"
