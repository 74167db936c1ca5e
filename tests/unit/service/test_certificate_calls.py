"""H1-H4: which client certificate a job presents, whose it is, and what a run is told of it; H7 and H10 beside it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from openbits.core.model import ByteRange, ClientCertificate, Identity, JobState, JobType, Priority
from openbits.errors import BitsError
from openbits.frames.network import CertificateSpec
from openbits.frames.operations import FileResult, FindCertificate
from openbits.frames.worker import StartTransfer
from openbits.service.calls import NewFile
from support import virtual
from support.service import ALICE, ROOT, Service, running

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
SHA1 = "00112233445566778899aabbccddeeff00112233"
BY_ID: dict[str, Any] = {"location": "current_user", "store": "my", "sha1": SHA1, "subject": None}
BY_NAME: dict[str, Any] = {"location": 1, "store": "Web", "sha1": None, "subject": "Anna"}


@pytest.mark.parametrize("job_type", list(JobType))
def test_h1_h2_h4_set_looked_for_told_and_shown(job_type: JobType) -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = (
                await service.create(resume=False)
                if job_type is JobType.DOWNLOAD
                else await service.upload(job_type, resume=False)
            )
            assert (await calls.set(ALICE, job, **BY_ID)).result == "S_OK"
            asked = service.worker.last(FindCertificate)
            assert asked.certificate == CertificateSpec(location="current_user", store="MY", sha1=SHA1)
            assert calls.get(ALICE, job) == ClientCertificate(location="current_user", store="MY", sha1=SHA1)
            # The other way to name one takes its place.
            await calls.set(ALICE, job, **BY_NAME)
            assert calls.get(ALICE, job) == ClientCertificate(location="local_machine", store="Web", subject="Anna")
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            told = service.worker.last(StartTransfer).tls.certificate
            assert told == CertificateSpec(location="local_machine", store="Web", subject="Anna")

    virtual.run(story())


def test_h3_removing_one_and_none() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = await service.create(resume=False)
            assert (await calls.remove(ALICE, job)).result == "S_FALSE"
            await calls.set(ALICE, job, **BY_ID)
            assert (await calls.remove(ALICE, job)).result == "S_OK"
            with pytest.raises(BitsError, match="RPC_X_BAD_STUB_DATA"):
                calls.get(ALICE, job)

    virtual.run(story())


def test_h1_only_the_owner_and_not_even_root() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = await service.create(resume=False)
            await calls.set(ALICE, job, **BY_ID)
            for caller in (ROOT, BOB):
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    await calls.set(caller, job, location="moon", store=None, sha1=None, subject=None)
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    await calls.remove(caller, job)
            # H4: without permission it is as if there were none.
            with pytest.raises(BitsError, match="RPC_X_BAD_STUB_DATA"):
                calls.get(ROOT, job)
            with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                calls.get(BOB, job)
            assert service.job(job).client_certificate is not None

    virtual.run(story())


@pytest.mark.parametrize("error", ["ERROR_FILE_NOT_FOUND", "CRYPT_E_NOT_FOUND", "E_ACCESSDENIED"])
def test_h1_what_the_owner_cannot_present_is_refused_at_once(error: str) -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = await service.create()
            service.worker.refusals = [FileResult(index=0, error=error, message="the reason")]
            with pytest.raises(BitsError, match="the reason") as caught:
                await calls.set(ALICE, job, **BY_ID)
            assert caught.value.name == error
            assert service.job(job).client_certificate is None

    virtual.run(story())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"location": "moon"}, "E_NOTIMPL"),
        ({"location": 8}, "E_NOTIMPL"),
        ({"location": None}, "RPC_X_NULL_REF_POINTER"),
        ({"store": None}, "RPC_X_NULL_REF_POINTER"),
        ({"sha1": None}, "RPC_X_NULL_REF_POINTER"),
        ({"sha1": SHA1[:-2]}, "RPC_X_BAD_STUB_DATA"),
        ({"store": "s" * 257}, "BG_E_STRING_TOO_LONG"),
        ({"store": "../x"}, "E_INVALIDARG"),
        ({"sha1": None, "subject": ""}, "E_INVALIDARG"),
        ({"sha1": None, "subject": "s" * 300}, "BG_E_STRING_TOO_LONG"),
        ({"subject": "both"}, "E_INVALIDARG"),
    ],
)
def test_h1_h2_what_names_no_certificate(changes: dict[str, Any], error: str) -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            with pytest.raises(BitsError) as caught:
                await service.runtime.services.certificates.set(ALICE, job, **{**BY_ID, **changes})
            assert caught.value.name == error

    virtual.run(story())


def test_h1_a_job_that_has_ended() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = await service.create(resume=False)
            await service.manager.cancel(ALICE, job)
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                await calls.set(ALICE, job, **BY_ID)
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                await calls.remove(ALICE, job)

    virtual.run(story())


def test_h1_a_run_begins_again_with_it_and_a_new_owner_has_none() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.certificates
            job = await service.create()
            assert service.worker.last(StartTransfer).tls.certificate is None
            await calls.set(ALICE, job, **BY_ID)
            await virtual.rest()
            await service.say(service.worker.ended())
            assert service.worker.last(StartTransfer).tls.certificate is not None
            await service.manager.suspend(ALICE, job)
            await service.say(service.worker.ended())
            taking = asyncio.ensure_future(service.runtime.services.ownership.take(ROOT, job))
            await virtual.rest()
            await taking
            assert service.job(job).client_certificate is None

    virtual.run(story())


def test_h7_other_flags_begin_the_run_again() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(security_flags=0x0108)
            assert service.worker.last(StartTransfer).tls.security_flags == 0x0008
            assert service.worker.last(StartTransfer).redirects == 0x0100
            await change(service, job, security_flags=0x0A)
            await service.say(service.worker.ended())
            assert service.worker.last(StartTransfer).tls.security_flags == 0x000A
            with pytest.raises(BitsError, match="E_NOTIMPL"):
                await change(service, job, security_flags=0x20)

    virtual.run(story())


async def change(service: Service, job: str, **changes: Any) -> None:
    await service.manager.change_settings(ALICE, job, changes)
    await virtual.rest()


def test_h10_a_method_is_told_to_the_run_and_its_errors_are_final() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(http_method="POST")
            start = service.worker.last(StartTransfer)
            assert (start.http_method, start.foreground) == ("POST", True)
            with pytest.raises(BitsError, match="BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD"):
                await change(service, job, priority="low")
            assert service.job(job).settings.priority is Priority.FOREGROUND
            await service.say(service.worker.started(), service.worker.durable(0, 40))
            await service.say(service.worker.ended("BG_E_HTTP_ERROR_503", context=5, message="busy", transient=True))
            assert service.state(job) is JobState.ERROR
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert [(file.durable_bytes, file.etag) for file in service.worker.files] == [(0, None)]
            with pytest.raises(BitsError, match="BG_E_READ_ONLY_PROPERTY_AFTER_RESUME"):
                await change(service, job, http_method="PUT")

    virtual.run(story())


def test_h10_no_byte_ranges_with_a_method() -> None:
    async def story() -> None:
        async with running() as service:
            job = await service.create(resume=False, http_method="POST")
            part = NewFile(remote_name="http://o.example/1", local_name="/home/alice/9", ranges=(ByteRange(0, 5),))
            with pytest.raises(BitsError, match="BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD"):
                await service.manager.add_files(ALICE, job, [part])
            await service.manager.add_files(ALICE, job, [replace(part, ranges=None)])

    virtual.run(story())
