"""User names in URLs and custom headers: sealed at every door, given to the run alone (D6, F4, H5, H6, H11, J40)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from openbits.core.model import Identity, JobType
from openbits.errors import BitsError
from openbits.frames.worker import StartTransfer, TransferFiles, UploadFile
from openbits.service.calls import NewFile, NewJob
from support import virtual
from support.service import ALICE, ROOT, running, taken

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
BASIC = {"target": "server", "scheme": "basic"}
MARKER = "Tr0ub4dor-marker"

# --- user names in URLs ------------------------------------------------------------------------------


def test_d6_user_and_password_leave_the_url_at_every_door() -> None:
    async def story() -> None:
        async with running() as service:
            url = f"http://u%40x:{MARKER}@origin.example/a"
            new = NewFile(remote_name=url, local_name="/home/alice/a")
            [made] = await service.manager.create_jobs(
                ALICE, [NewJob(name="j", type=JobType.DOWNLOAD, settings={}, files=[new])]
            )
            job = made.id
            more = [
                NewFile(remote_name="http://origin.example/b", local_name="/home/alice/b"),
                NewFile(remote_name=f"http://only:{MARKER}@other.example/c", local_name="/home/alice/c"),
            ]
            await service.manager.add_files(ALICE, job, more)
            names = [file.remote_name for file in service.job(job).files]
            assert names == ["http://origin.example/a", "http://origin.example/b", "http://other.example/c"]
            assert MARKER not in repr(service.disk)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            sent = {file.index: file.userinfo for file in service.worker.last(TransferFiles).files}
            assert sent == {0: f"u%40x:{MARKER}", 1: "", 2: f"only:{MARKER}"}
            assert MARKER not in repr(service.worker.heard)

    virtual.run(story())


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        ("http://origin.example/other", "u:old"),
        ("http://ORIGIN.example:80/other", "u:old"),
        ("http://other.example/0", ""),
        ("https://origin.example/0", ""),
        ("http://@origin.example/0", ""),
        ("http://v:new@origin.example/0", "v:new"),
        ("http://v:new@other.example/0", "v:new"),
    ],
)
def test_f4_a_name_written_back_keeps_its_user_at_the_same_server(new: str, kept: str) -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            await service.manager.set_remote_name(ALICE, job, 0, "http://u:old@origin.example/0")
            await service.manager.set_remote_name(ALICE, job, 0, new)
            assert "@" not in service.job(job).files[0].remote_name
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker.files[0].userinfo == kept

    virtual.run(story())


def test_j40_prefixes_are_compared_without_users() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False, files=2)
            await service.manager.set_remote_name(ALICE, job, 0, "http://u:old@origin.example/0")
            replace_prefix = service.manager.replace_remote_prefix
            assert (await replace_prefix(ALICE, job, "http://x:y@elsewhere/", "http://z/")).result == "S_FALSE"
            outcome = await replace_prefix(ALICE, job, "http://u:old@origin.example/", "http://v:new@o.example/d/")
            assert outcome.result == "S_OK"
            assert [file.remote_name for file in service.job(job).files] == [
                "http://o.example/d/0",
                "http://o.example/d/1",
            ]
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert [file.userinfo for file in service.worker.files] == ["v:new", "v:new"]

    virtual.run(story())


@pytest.mark.parametrize("userinfo", ["a%0d%0ab:c", "a:b%00", "a:b%7F"])
def test_d6_nobody_is_called_so(userinfo: str) -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            with pytest.raises(BitsError, match="E_INVALIDARG") as caught:
                await service.manager.set_remote_name(ALICE, job, 0, f"http://{userinfo}@origin.example/0")
            assert userinfo not in str(caught.value)

    virtual.run(story())


def test_m7_an_uploads_user_and_password_go_along_and_so_with_its_farewell() -> None:
    async def story() -> None:
        async with running() as service:
            file = NewFile(remote_name=f"http://u:{MARKER}@origin.example/in/0", local_name="/home/alice/0")
            job = await service.upload(files=[file], resume=False)
            calls = service.runtime.services.credentials
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password=MARKER)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker.upload.file.userinfo == f"u:{MARKER}"
            assert service.worker.upload.file.remote_name == "http://origin.example/in/0"
            assert [frame.password for frame in taken(service.worker)] == [MARKER]
            await service.say(service.worker.started(), service.worker.moved(10))
            cancelling = asyncio.ensure_future(service.manager.cancel(ALICE, job))
            await virtual.rest()
            await service.say(service.worker.ended())
            await cancelling
            assert service.worker.last(UploadFile).only_cancels
            assert service.worker.upload.file.userinfo == f"u:{MARKER}"
            assert [frame.password for frame in taken(service.worker)] == [MARKER]
            assert service.job(job).explicit_credentials
            await service.say(service.worker.done(0), service.worker.ended())
            assert service.job(job).cancel_until is None
            assert service.job(job).explicit_credentials == ()
            assert service.job(job).files[0].sealed_userinfo == ""

    virtual.run(story())


def test_what_an_older_store_has_in_clear_is_sealed_at_the_start() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False, files=2)
            gone = await service.create(resume=False)
            await service.manager.cancel(ALICE, gone)
            disk = service.disk
        before = disk.jobs[job]
        old = replace(before.files[1], remote_name=f"http://u:{MARKER}@origin.example/1")
        disk.jobs[job] = replace(
            before, files=(before.files[0], old), sealed_headers=f"plain:Authorization: {MARKER}\r\n"
        )
        disk.jobs[gone] = replace(disk.jobs[gone], sealed_headers=f"plain:X: {MARKER}\r\n")
        async with running(disk) as service:
            assert MARKER not in repr(disk)
            assert service.job(job).sealed_headers.startswith("v1:")
            assert service.job(gone).sealed_headers == ""
            assert service.job(job).files[1].remote_name == "http://origin.example/1"
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker.last(StartTransfer).custom_headers == f"Authorization: {MARKER}\r\n"
            assert [file.userinfo for file in service.worker.files] == ["", f"u:{MARKER}"]

    virtual.run(story())


# --- custom headers ----------------------------------------------------------------------------------


def test_h5_h6_h11_set_read_and_hidden() -> None:
    async def story() -> None:
        async with running() as service:
            headers = service.runtime.services.headers
            job = await service.create(resume=False)
            assert headers.get(ALICE, job) == ""
            assert (await headers.set(ALICE, job, f"X-Token: {MARKER}\nB: c")).result == "S_OK"
            assert headers.get(ALICE, job) == f"X-Token: {MARKER}\r\nB: c\r\n"
            assert MARKER not in repr(service.disk)
            for caller in (BOB, ROOT):
                for call in (headers.set(caller, job, None), headers.make_write_only(caller, job)):
                    with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                        await call
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    headers.get(caller, job)
                assert headers.shown(caller, service.job(job)) is None
            assert (await headers.make_write_only(ALICE, job)).result == "S_OK"
            assert (await headers.make_write_only(ALICE, job)).result == "S_OK"
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                headers.get(ALICE, job)
            assert headers.shown(ALICE, service.job(job)) is None
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker.last(StartTransfer).custom_headers == f"X-Token: {MARKER}\r\nB: c\r\n"

    virtual.run(story())


def test_a2_an_administrator_does_not_lead_the_owners_password_away() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            await service.runtime.services.credentials.set_credentials(
                ALICE, job, **BASIC, user_name="alice", password=MARKER
            )
            more = [NewFile(remote_name="http://evil.example/", local_name="/home/alice/e")]
            manager = service.manager
            for call in (
                manager.add_files(ROOT, job, more),
                manager.set_remote_name(ROOT, job, 0, "http://evil.example/"),
                manager.replace_remote_prefix(ROOT, job, "http://origin.example/", "http://evil.example/"),
                manager.change_settings(
                    ROOT, job, {"proxy_usage": "override", "proxy_list": "http://evil.example:3128"}
                ),
                manager.change_settings(ROOT, job, {"security_flags": 0x0A}),
            ):
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    await call
            await manager.change_settings(ROOT, job, {"priority": "low"})
            assert [file.remote_name for file in service.job(job).files] == ["http://origin.example/0"]

    virtual.run(story())
