"""Peer caching's settings with the real daemon and real accounts: who may set them, what they outlive, what overrides
them, and that nothing is said to work that does not (C6, P12, P15, P16).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

import openbits
from openbits import BitsError, Cloaking, Manager, PeerCacheAdministration, PeerCachingFlags, Result
from openbits.client import calls, peercaching
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon

pytestmark = needs_root


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running_daemon() as daemon:
        yield daemon


def administration(daemon: Daemon) -> PeerCacheAdministration:
    found = Manager(daemon.socket).peer_cache_administration()
    openbits.set_proxy_blanket(found, Cloaking.DYNAMIC)
    return found


def write_policy(daemon: Daemon, text: str) -> None:
    directory = os.path.join(daemon.base, "policy.d")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "peers.toml"), "w", encoding="utf-8") as file:
        file.write(text)


def refusals(cache: PeerCacheAdministration) -> set[str]:
    """The errors of all that only administrators may do, and only where peer caching is on."""
    names = set()
    changes = (
        cache.clear_records,
        cache.clear_peers,
        cache.discover_peers,
        lambda: cache.delete_url("http://127.0.0.1/x"),
        lambda: cache.delete_record(str(uuid.uuid4())),
    )
    for change in changes:
        with pytest.raises(BitsError) as caught:
            change()
        names.add(caught.value.name)
    return names


def test_c6_everybody_reads_and_administrators_set(daemon: Daemon, alice: TestAccount) -> None:
    cache = administration(daemon)
    with openbits.impersonate(alice.name):
        assert cache.get_configuration_flags() == PeerCachingFlags(0)
        assert (cache.get_maximum_cache_size(), cache.get_maximum_content_age()) == (1, 7_776_000)
        assert (len(cache.enum_records()), len(cache.enum_peers())) == (0, 0)
        for change in (cache.set_configuration_flags, cache.set_maximum_cache_size, cache.set_maximum_content_age):
            with pytest.raises(BitsError) as caught:
                change(1)
            assert caught.value.name == "E_ACCESSDENIED"
        assert refusals(cache) == {"E_ACCESSDENIED"}
    assert refusals(cache) == {"BG_E_PEERCACHING_DISABLED"}
    assert cache.set_configuration_flags(3) is Result.S_OK
    assert cache.clear_records() is cache.clear_peers() is Result.S_OK
    assert cache.delete_url("http://127.0.0.1/x") is cache.discover_peers() is Result.S_FALSE
    for record, name in ((str(uuid.uuid4()), "BG_E_RECORD_DELETED"), ("x", "E_INVALIDARG")):
        for ask in (cache.get_record, cache.delete_record):
            with pytest.raises(BitsError) as caught:
                ask(record)
            assert caught.value.name == name
    assert "without effect" in daemon.session.perform(peercaching.settings())["effect"]


def test_c6_what_was_set_outlives_the_service_and_a_policy_goes_before_it(daemon: Daemon) -> None:
    cache = administration(daemon)
    cache.set_configuration_flags(PeerCachingFlags.ENABLE_PEERCACHING_CLIENT)
    cache.set_maximum_cache_size(80)
    cache.set_maximum_content_age(86_400)
    for value in (0, 81):
        with pytest.raises(BitsError) as caught:
            cache.set_maximum_cache_size(value)
        assert caught.value.name == "E_INVALIDARG"
    daemon.kill()
    write_policy(daemon, "[peer_caching]\nenable = true\ndisable_client = true\nmax_content_age_days = 2\n")
    daemon.start()
    assert cache.get_configuration_flags() == PeerCachingFlags.ENABLE_PEERCACHING_SERVER
    assert (cache.get_maximum_cache_size(), cache.get_maximum_content_age()) == (80, 172_800)
    assert cache.set_configuration_flags(3) is Result.BG_S_OVERRIDDEN_BY_POLICY
    assert cache.set_configuration_flags(2) is Result.S_OK, "it is what the policy says"
    assert cache.set_maximum_content_age(90_000) is Result.S_FALSE
    shown = daemon.session.perform(peercaching.settings())
    assert shown["settings"] == {
        "configuration_flags": 2,
        "maximum_cache_size": 80,
        "maximum_content_age": 90_000,
    }
    assert shown["overridden"] == ["maximum_content_age"]


def test_j50_flags_of_a_job_are_kept_and_change_nothing_of_the_machine(daemon: Daemon) -> None:
    job = Manager(daemon.socket).create_job("peers")
    assert job.get_peer_caching_flags() == PeerCachingFlags(0)
    job.set_peer_caching_flags(7)
    with pytest.raises(BitsError) as caught:
        job.set_peer_caching_flags(8)
    assert caught.value.name == "E_NOTIMPL"
    daemon.kill()
    daemon.start()
    assert job.get_peer_caching_flags() == PeerCachingFlags(7)
    assert daemon.session.perform(calls.job(job.id))["settings"]["peer_caching_flags"] == 7
    assert administration(daemon).get_configuration_flags() == PeerCachingFlags(0)
