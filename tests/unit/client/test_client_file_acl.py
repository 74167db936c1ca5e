"""The flags of J42 in both clients: what is asked, and what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

from openbits import FileAclFlags, Manager, Result, aio
from support.fake_api import FakeApi, Reply, job_out, settings_out

ROUTES: dict[str, Any] = {
    "GET /v1/jobs/1": Reply(json={**job_out(id="1"), "settings": settings_out(acl_flags=5)}),
    "PATCH /v1/jobs/1": Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()}),
}


def test_j42_flags_of_a_job() -> None:
    with FakeApi(ROUTES) as api, Manager(api.path) as manager:
        job = manager.get_job("1")
        assert job.get_file_acl_flags() == FileAclFlags.OWNER | FileAclFlags.DACL
        assert job.set_file_acl_flags(FileAclFlags.ALL) is Result.S_OK
        assert api.requests[-1].json == {"acl_flags": 15}


def test_the_asyncio_twin_has_them_too() -> None:
    async def use(path: str) -> None:
        async with aio.Manager(path) as manager:
            job = await manager.get_job("1")
            assert await job.get_file_acl_flags() == FileAclFlags(5)
            assert await job.set_file_acl_flags(0) is Result.S_OK

    with FakeApi(ROUTES) as api:
        asyncio.run(use(api.path))
        assert api.requests[-1].json == {"acl_flags": 0}
