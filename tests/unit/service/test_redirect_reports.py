"""What a worker says of redirects and headers, and what is believed (H7, H9, F10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

import pytest

from openbits.core.model import JobState, JobType
from openbits.frames.monitor import KillWorker
from openbits.frames.worker import FileRedirected, LastHeaders, StartTransfer, TransferFiles
from support import virtual
from support.service import ALICE, Service, running

Script = Callable[[Service], Awaitable[None]]
THERE = "https://there.example/x"
SILENT, REPORT, DISALLOW, HTTPS_TO_HTTP = 0x0000, 0x0100, 0x0200, 0x0800


def play(script: Script) -> None:
    async def main() -> None:
        async with running() as service:
            await script(service)

    virtual.run(main())


def redirected(service: Service, name: str = THERE, index: int = 0) -> FileRedirected:
    return FileRedirected(transfer=service.worker.transfer, index=index, remote_name=name)


def is_killed(service: Service) -> bool:
    return any(isinstance(message, KillWorker) for message in service.monitor.heard)


def test_the_policy_reaches_the_worker_and_the_next_run_begins_where_the_redirect_led() -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=REPORT | HTTPS_TO_HTTP | 0x0003)
        start = service.worker.last(StartTransfer)
        assert (start.redirects, start.tls.security_flags) == (REPORT | HTTPS_TO_HTTP, 0x0003)
        await service.say(redirected(service), service.worker.started(0))
        assert service.job(job_id).files[0].remote_name == THERE
        await service.manager.suspend(ALICE, job_id)
        await virtual.rest()
        await service.say(service.worker.ended())
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        (spec,) = service.worker.last(TransferFiles).files
        assert (spec.remote_name, spec.meant_for) == (THERE, "http://origin.example")
        assert not is_killed(service)

    play(script)


def test_refused_and_renamed() -> None:
    """H7: DISALLOW."""

    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=DISALLOW)
        await service.say(redirected(service), service.worker.ended("BG_E_HTTP_ERROR_302"))
        job = service.job(job_id)
        assert job.state is JobState.ERROR
        assert job.files[0].remote_name == THERE

    play(script)


def test_without_a_policy_that_says_so_nothing_is_renamed() -> None:
    """The policy may have been changed under the run: that is no fault of the worker."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        await service.say(redirected(service))
        assert service.job(job_id).files[0].remote_name == "http://origin.example/0"
        assert not is_killed(service)

    play(script)


@pytest.mark.parametrize("bits", [REPORT, DISALLOW, REPORT | HTTPS_TO_HTTP])
def test_no_worker_takes_a_file_from_https_to_http_by_itself(bits: int) -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=bits)
        await service.say(redirected(service))
        await service.say(redirected(service, "http://there.example/y"))
        expected = "http://there.example/y" if bits & HTTPS_TO_HTTP else THERE
        assert service.job(job_id).files[0].remote_name == expected
        assert not is_killed(service)

    play(script)


@pytest.mark.parametrize(
    "name",
    [
        "file:///etc/shadow",
        "FILE:///etc/shadow",
        "ftp://there.example/",
        "http://user:secret@there.example/",
        "http://there.example/" + "x" * 3000,
        "http://there.example/a b",
        "http://0x7f000001/",
        "",
        "x",
    ],
)
def test_a_name_that_no_redirect_can_lead_to_costs_a_worker_its_life(name: str) -> None:
    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=REPORT)
        await service.say(redirected(service, name))
        assert is_killed(service)
        assert service.job(job_id).files[0].remote_name == "http://origin.example/0"

    play(script)


@pytest.mark.parametrize("index", [-1, 1, 7])
def test_a_file_that_there_is_not_costs_a_worker_its_life(index: int) -> None:
    async def script(service: Service) -> None:
        await service.create(security_flags=REPORT)
        await service.say(redirected(service, index=index))
        assert is_killed(service)

    play(script)


@pytest.mark.parametrize("index", [-1, 7])
def test_headers_of_a_file_that_there_is_not_cost_a_worker_its_life(index: int) -> None:
    async def script(service: Service) -> None:
        await service.create()
        await service.say(LastHeaders(transfer=service.worker.transfer, index=index, response_headers="x"))
        assert is_killed(service)

    play(script)


@pytest.mark.parametrize("job_type", [JobType.UPLOAD, JobType.UPLOAD_REPLY])
def test_an_upload_is_not_redirected(job_type: JobType) -> None:
    """H9."""

    async def script(service: Service) -> None:
        job_id = await service.upload(job_type)
        before = service.job(job_id)
        await service.say(redirected(service))
        assert is_killed(service)
        assert dataclasses.replace(service.job(job_id).files[0]) == before.files[0]

    play(script)


def test_a_job_of_the_owners_can_be_named_anew_while_it_runs() -> None:
    """F4: the redirect of the old name, told late, does not take the new name away."""

    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=REPORT)
        late = redirected(service)
        old = service.worker
        await service.manager.set_remote_name(ALICE, job_id, 0, "https://third.example/z")
        old.send(late)
        await virtual.rest()
        file = service.job(job_id).files[0]
        assert (file.remote_name, file.meant_for) == ("https://third.example/z", "")

    play(script)


def test_a_prefix_is_looked_for_in_the_name_that_the_redirect_gave() -> None:
    """J40: ReplaceRemotePrefix does not find the original URL any more."""

    async def script(service: Service) -> None:
        job_id = await service.create(security_flags=REPORT)
        await service.say(redirected(service), service.worker.started(0))
        unchanged = await service.manager.replace_remote_prefix(ALICE, job_id, "http://origin.example/", "http://o2/")
        assert unchanged.result == "S_FALSE"
        await service.manager.replace_remote_prefix(ALICE, job_id, "https://there.example/", "https://new.example/")
        file = service.job(job_id).files[0]
        assert (file.remote_name, file.meant_for) == ("https://new.example/x", "")

    play(script)


def test_the_headers_of_the_last_answer_are_kept_with_the_error() -> None:
    """F10: and over a restart of the service."""

    async def script(service: Service) -> None:
        job_id = await service.create()
        headers = "HTTP/1.1 404 X\r\nSet-Cookie: a=b\r\nX-Latin: caf\xe9\r\n\r\n"
        said = LastHeaders(transfer=service.worker.transfer, index=0, response_headers=headers)
        await service.say(said, service.worker.ended("BG_E_HTTP_ERROR_404"))
        job = service.job(job_id)
        assert (job.state, job.files[0].response_headers) == (JobState.ERROR, headers)

    play(script)
