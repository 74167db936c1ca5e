"""IBitsPeerCacheAdministration and the peer caching flags of jobs: what is asked, and what comes back (C6, C7, J50)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openbits import BitsError, Manager, PeerCachingFlags, Result, aio
from openbits.client.peercaching import CacheRecord, Peer
from support.fake_api import FakeApi, Reply, job_out, problem, settings_out

VALUES = {"configuration_flags": 3, "maximum_cache_size": 10, "maximum_content_age": 86_400}
STATE = {"result": "S_OK", "in_force": VALUES, "settings": VALUES, "overridden": [], "effect": "none"}
RECORD: dict[str, Any] = {
    "id": "11111111-1111-1111-1111-111111111111",
    "origin_url": "http://o/",
    "file_size": 7,
    "file_modification_time": "2026-01-02T03:04:05Z",
    "last_access_time": "2026-01-02T03:04:06Z",
    "is_validated": True,
}
PEER: dict[str, Any] = {"name": "peer.example", "is_authenticated": True, "is_available": False}
ROUTES: dict[str, Any] = {
    "GET /v1/peer-caching": Reply(json=STATE),
    "PUT /v1/peer-caching": Reply(json={**STATE, "result": "BG_S_OVERRIDDEN_BY_POLICY"}),
    "GET /v1/peer-caching/records": Reply(json={"records": [RECORD]}),
    "DELETE /v1/peer-caching/records": Reply(json={"result": "S_FALSE"}),
    f"GET /v1/peer-caching/records/{RECORD['id']}": Reply(json=RECORD),
    f"DELETE /v1/peer-caching/records/{RECORD['id']}": problem("BG_E_RECORD_DELETED", 0x8020_0042, "gone"),
    "GET /v1/peer-caching/peers": Reply(json={"peers": [PEER]}),
    "DELETE /v1/peer-caching/peers": Reply(json={"result": "S_OK"}),
    "POST /v1/peer-caching/discover": Reply(json={"result": "S_FALSE"}),
    "GET /v1/jobs/1": Reply(json={**job_out(id="1"), "settings": settings_out(peer_caching_flags=5)}),
    "PATCH /v1/jobs/1": Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()}),
}


def test_c6_every_method() -> None:
    with FakeApi(ROUTES) as api, Manager(api.path) as manager:
        cache = manager.peer_cache_administration()
        assert cache.get_configuration_flags() == PeerCachingFlags(3)
        assert (cache.get_maximum_cache_size(), cache.get_maximum_content_age()) == (10, 86_400)
        assert cache.set_configuration_flags(PeerCachingFlags.ENABLE_PEERCACHING_CLIENT) is (
            Result.BG_S_OVERRIDDEN_BY_POLICY
        )
        cache.set_maximum_cache_size(12)
        cache.set_maximum_content_age(86_401)
        assert [request.json for request in api.requests if request.method == "PUT"] == [
            {"configuration_flags": 1},
            {"maximum_cache_size": 12},
            {"maximum_content_age": 86_401},
        ]
        [record] = cache.enum_records()
        assert isinstance(record, CacheRecord)
        assert cache.get_record("{" + RECORD["id"] + "}") == record
        assert (record.file_size, record.file_modification_time.year, record.is_validated) == (7, 2026, True)
        assert list(cache.enum_peers()) == [Peer(**PEER)]
        assert cache.clear_records() is Result.S_FALSE
        assert cache.delete_url("http://o/ä?b=c") is Result.S_FALSE
        assert api.targets()[-1] == "DELETE /v1/peer-caching/records?url=http%3A%2F%2Fo%2F%C3%A4%3Fb%3Dc"
        assert cache.clear_peers() is Result.S_OK
        assert cache.discover_peers() is Result.S_FALSE
        with pytest.raises(BitsError) as caught:
            cache.delete_record(RECORD["id"])
        assert caught.value.name == "BG_E_RECORD_DELETED"


def test_j50_flags_of_a_job() -> None:
    with FakeApi(ROUTES) as api, Manager(api.path) as manager:
        job = manager.get_job("1")
        assert job.get_peer_caching_flags() == PeerCachingFlags(5)
        assert job.set_peer_caching_flags(PeerCachingFlags.DISABLE_BRANCH_CACHE) is Result.S_OK
        assert api.requests[-1].json == {"peer_caching_flags": 4}


def test_the_asyncio_twin_has_them_too() -> None:
    async def use(path: str) -> None:
        async with aio.Manager(path) as manager:
            cache = manager.peer_cache_administration()
            assert await cache.get_configuration_flags() == PeerCachingFlags(3)
            assert await cache.set_maximum_cache_size(9) is Result.BG_S_OVERRIDDEN_BY_POLICY
            job = await manager.get_job("1")
            assert await job.get_peer_caching_flags() == PeerCachingFlags(5)

    with FakeApi(ROUTES) as api:
        asyncio.run(use(api.path))
