"""The calls about uploads and replies between fake workers (J1, J2, J5, J6, J31–J34, J40, J41, M7, D9, I8)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openbits.api import render
from openbits.core.model import (
    REPLY_INDEX,
    AccountKind,
    ByteRange,
    Caller,
    Identity,
    JobState,
    JobType,
)
from openbits.core.uploads import REPLY_LIMIT_BYTES
from openbits.errors import BitsError
from openbits.frames.operations import (
    CheckDirectories,
    CheckSources,
    CopyFile,
    DeleteFiles,
    FileOpened,
    FileResult,
    RenameFiles,
)
from openbits.frames.worker import FileReceived, UploadKept
from openbits.service.calls import NewFile, NewJob
from support import virtual
from support.service import ALICE, ROOT, FakeWorker, Service, running

BOB = Caller(identity=Identity(uid=1001, gid=1001), name="bob", kind=AccountKind.USER, is_administrator=False)
SOURCE = NewFile(remote_name="http://origin.example/in/0", local_name="/home/alice/0")
Script = Callable[[Service], Awaitable[None]]


def play(script: Script) -> None:
    async def main() -> None:
        async with running() as service:
            await script(service)

    virtual.run(main())


async def refused(call: Awaitable[Any]) -> BitsError:
    with pytest.raises(BitsError) as caught:
        await call
    return caught.value


def a_new(job_type: JobType = JobType.UPLOAD, *files: NewFile, **more: Any) -> NewJob:
    values: dict[str, Any] = {"name": "j", "type": job_type, "settings": {}, "files": files or (SOURCE,)}
    return NewJob(**values | more)


async def transferred(service: Service, *, reply: bytes = b"receipt") -> str:
    """An upload-reply job whose reply is here."""
    job_id = await service.upload(JobType.UPLOAD_REPLY, reply_file_name="/home/alice/receipt")
    worker = service.worker
    size = len(reply)
    await service.say(
        worker.started(0), worker.done(0), worker.started(REPLY_INDEX, size=size), worker.done(REPLY_INDEX, size=size)
    )
    await service.say(worker.ended())
    assert service.state(job_id) is JobState.TRANSFERRED
    reply_file = service.job(job_id).reply
    assert reply_file is not None
    worker.contents[reply_file.temporary_name] = reply
    return job_id


# --- creating -------------------------------------------------------------------------------------


def test_an_upload_job_from_its_creation_to_its_end() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload(settings={"upload_protocol": "bits"})
        worker = service.worker
        assert worker.last(CheckSources).paths == ("/home/alice/0",)
        assert worker.count(CheckDirectories) == 0
        assert (worker.upload.protocol, worker.upload.wants_reply, worker.upload.reply) == ("bits", False, None)
        assert worker.upload.file.temporary_name == worker.upload.file.local_name == "/home/alice/0"
        await service.say(worker.started(), worker.moved(0, "s", is_awaited=True))
        assert worker.last(UploadKept).number == 1
        assert service.job(job_id).upload_memory == "s"
        await service.say(worker.moved(60, "s", number=2))
        assert service.job(job_id).bytes_transferred == 60
        await service.say(worker.moved(100, "", number=3), worker.done(0), worker.ended())
        assert service.state(job_id) is JobState.TRANSFERRED
        assert (await service.manager.complete(ALICE, job_id)).result == "S_OK"
        assert worker.count(RenameFiles) == worker.count(DeleteFiles) == 0, "the source is not touched"

    play(script)


def test_m7_a_run_that_is_taken_up_again_knows_session_and_offset() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload()
        await service.say(service.worker.started(), service.worker.moved(60, "s"))
        service.worker.die()
        await virtual.rest()
        again = service.worker.upload
        assert (again.memory, again.file.durable_bytes, again.file.size) == ("s", 60, 100)
        assert service.state(job_id) is JobState.TRANSFERRING

    play(script)


def test_j2_two_files_are_too_many_and_nothing_is_created() -> None:
    async def script(service: Service) -> None:
        other = NewFile(remote_name="ftp://broken", local_name="relative")
        for job_type in (JobType.UPLOAD, JobType.UPLOAD_REPLY):
            error = await refused(service.manager.create_jobs(ALICE, [a_new(job_type, SOURCE, other)]))
            assert error.name == "BG_E_TOO_MANY_FILES"
        assert service.runtime.ledger.jobs == {}
        job_id = await service.upload(resume=False)
        assert (await refused(service.manager.add_files(ALICE, job_id, [other]))).name == "BG_E_TOO_MANY_FILES"
        assert len(service.job(job_id).files) == 1

    play(script)


@pytest.mark.parametrize(
    ("job_type", "file", "name"),
    [
        (JobType.UPLOAD, NewFile(remote_name="ftp://h/f", local_name="/f"), "E_INVALIDARG"),
        (JobType.UPLOAD, NewFile(remote_name="http://h/f", local_name="f"), "E_INVALIDARG"),
        (
            JobType.UPLOAD,
            NewFile(remote_name="http://h/f", local_name="/f", ranges=(ByteRange(0, 1),)),
            "E_NOTIMPL",
        ),
        (JobType.UPLOAD, NewFile(remote_name="http://h/f", local_name="/f", checksum="sha256:00"), "E_NOTIMPL"),
        (JobType.UPLOAD, NewFile(remote_name="file:///f", local_name="/f"), "E_INVALIDARG"),
        (JobType.UPLOAD, NewFile(remote_name="file:///a/../g", local_name="/f"), "E_INVALIDARG"),
        (JobType.UPLOAD_REPLY, NewFile(remote_name="file:///g", local_name="/f"), "E_INVALIDARG"),
    ],
)
def test_j1_j41_what_an_upload_may_not_have(job_type: JobType, file: NewFile, name: str) -> None:
    async def script(service: Service) -> None:
        assert (await refused(service.manager.create_jobs(ALICE, [a_new(job_type, file)]))).name == name
        assert service.runtime.ledger.jobs == {}

    play(script)


def test_d9_an_upload_to_a_file_needs_its_directory() -> None:
    async def script(service: Service) -> None:
        file = NewFile(remote_name="file:///srv/in/a%20b", local_name="/home/alice/0")
        await service.manager.create_jobs(ALICE, [a_new(JobType.UPLOAD, file)])
        assert service.worker.last(CheckDirectories).paths == ("/srv/in",)
        assert service.worker.last(CheckSources).paths == ("/home/alice/0",)

    play(script)


def test_j1_a_source_that_cannot_be_read_is_refused_with_the_workers_sentence() -> None:
    async def script(service: Service) -> None:
        await service.upload(resume=False)
        service.worker.refusals = [FileResult(index=0, error="E_ACCESSDENIED", message="alice may not read /root/x")]
        error = await refused(service.manager.create_jobs(ALICE, [a_new()]))
        assert (error.name, error.message) == ("E_ACCESSDENIED", "alice may not read /root/x")
        assert len(service.runtime.ledger.jobs) == 1

    play(script)


def test_upload_protocol_is_for_uploads() -> None:
    async def script(service: Service) -> None:
        new = a_new(JobType.DOWNLOAD, settings={"upload_protocol": "bits"})
        assert (await refused(service.manager.create_jobs(ALICE, [new]))).name == "E_NOTIMPL"
        new = a_new(JobType.UPLOAD, settings={"dynamic_content": True})
        error = await refused(service.manager.create_jobs(ALICE, [new]))
        assert error.name == "BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY"

    play(script)


def test_f4_f6_j40_calls_for_downloads_are_not_implemented_for_uploads() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload(resume=False)
        manager = service.manager
        for call in (
            manager.set_remote_name(ALICE, job_id, 0, "http://other.example/"),
            manager.replace_remote_prefix(ALICE, job_id, "nothing begins so", "http://x/"),
            manager.set_validation_state(ALICE, job_id, 0, valid=True),
        ):
            assert (await refused(call)).name == "E_NOTIMPL"

    play(script)


# --- where the reply goes ---------------------------------------------------------------------------


def test_j33_j34_the_reply_has_the_name_that_was_set_or_one_that_resume_makes() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        job_id = await service.upload(JobType.UPLOAD_REPLY, resume=False)
        assert replies.get(ALICE, job_id).reply is None
        await replies.set_file_name(ALICE, job_id, "/srv/replies/r")
        assert service.worker.last(CheckDirectories).paths == ("/srv/replies",)
        reply = service.job(job_id).reply
        assert reply is not None
        assert reply.local_name == "/srv/replies/r"
        assert os.path.dirname(reply.temporary_name) == "/srv/replies"
        await replies.set_file_name(ALICE, job_id, "")
        assert service.job(job_id).reply is None
        await service.manager.resume(ALICE, job_id)
        await virtual.rest()
        generated = service.job(job_id).reply
        assert generated is not None
        assert generated.local_name == f"/home/alice/BITS-reply-{job_id}"
        assert service.worker.last(CheckDirectories).paths == ("/home/alice",)

    play(script)


def test_j33_a_reply_that_cannot_be_written_is_told_before_the_job_runs() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        job_id = await service.upload(JobType.UPLOAD_REPLY, resume=False)
        refusal = FileResult(index=0, error="E_ACCESSDENIED", message="alice may not create files in /x")
        service.worker.refusals = [refusal]
        error = await refused(replies.set_file_name(ALICE, job_id, "/x/r"))
        assert error.name == "E_ACCESSDENIED"
        assert "reply" in error.message
        service.worker.refusals = [refusal]
        assert (await refused(service.manager.resume(ALICE, job_id))).name == "E_ACCESSDENIED"
        assert service.state(job_id) is JobState.SUSPENDED
        service.worker.does_operations = False
        for path in ("relative", "/home/alice/", "/home/alice/0", "/a/../b", "/home/\ud800"):
            assert (await refused(replies.set_file_name(ALICE, job_id, path))).name == "E_INVALIDARG"

    play(script)


def test_j31_to_j34_are_for_upload_reply_jobs_and_those_who_may_see_them() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        upload, job_id = await service.upload(resume=False), await service.upload(JobType.UPLOAD_REPLY, resume=False)
        assert (await refused(replies.set_file_name(ALICE, upload, "/r"))).name == "E_NOTIMPL"
        assert (await refused(replies.data(ALICE, upload))).name == "E_NOTIMPL"
        new = a_new(JobType.UPLOAD, reply_file_name="/r")
        assert (await refused(service.manager.create_jobs(ALICE, [new]))).name == "E_NOTIMPL"
        for call in (replies.set_file_name(BOB, job_id, "/r"), replies.data(BOB, job_id)):
            assert (await refused(call)).name == "E_ACCESSDENIED"
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            replies.get(BOB, job_id)

    play(script)


def test_j31_the_progress_of_the_reply_is_unknown_until_it_begins() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload(JobType.UPLOAD_REPLY)
        worker = service.worker
        assert render.reply_out(service.manager, service.job(job_id)).bytes_total is None
        await service.say(worker.started(0), worker.done(0), worker.started(REPLY_INDEX, size=9))
        await service.say(FileReceived(transfer=worker.transfer, index=REPLY_INDEX, received_bytes=4))
        job = service.job(job_id)
        shown = render.reply_out(service.manager, job)
        assert (shown.bytes_total, shown.bytes_transferred) == (9, 4)
        assert service.manager.received_bytes(job) == 100, "J9: the upload only"
        assert render.job_out(service.manager, job).files_total == 1

    play(script)


def test_e6_an_error_of_the_reply_names_the_reply() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload(JobType.UPLOAD_REPLY, reply_file_name="/home/alice/r")
        worker = service.worker
        await service.say(worker.started(0), worker.done(0), worker.started(REPLY_INDEX, size=9))
        await service.say(worker.ended("BG_E_HTTP_ERROR_404", context=5, message="gone", index=REPLY_INDEX))
        out = render.job_out(service.manager, service.job(job_id))
        assert out.state == "ERROR"
        assert out.error is not None
        assert (out.error.context, out.error.file) == ("REMOTE_FILE", None)
        assert (out.error.remote_name, out.error.local_name) == (None, "/home/alice/r")
        assert out.reply is not None
        assert out.reply.bytes_total == 9

    play(script)


# --- what the reply says --------------------------------------------------------------------------------


def test_j32_the_reply_is_read_before_and_after_complete() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        job_id = await transferred(service)
        assert await replies.data(ALICE, job_id) == b"receipt"
        assert await replies.data(ROOT, job_id) == b"receipt"
        assert (await service.manager.complete(ALICE, job_id)).result == "S_OK"
        [renamed] = service.worker.last(RenameFiles).files
        assert (renamed.index, renamed.local_name) == (REPLY_INDEX, "/home/alice/receipt")
        service.worker.contents = {"/home/alice/receipt": b"receipt"}
        assert await replies.data(ALICE, job_id) == b"receipt"
        assert service.worker.last(CopyFile).path == "/home/alice/receipt"

    play(script)


def test_j32_too_early_cancelled_and_empty() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        job_id = await service.upload(JobType.UPLOAD_REPLY)
        assert (await refused(replies.data(ALICE, job_id))).name == "BG_E_INVALID_STATE"
        await service.manager.cancel(ALICE, job_id)
        assert (await refused(replies.data(ALICE, job_id))).name == "BG_E_INVALID_STATE"
        empty = await transferred(service, reply=b"")
        assert await replies.data(ALICE, empty) == b""
        assert service.worker.count(CopyFile) == 0

    play(script)


def test_j32_more_than_a_mebibyte_is_too_large_and_the_size_is_told() -> None:
    async def script(service: Service) -> None:
        replies = service.runtime.services.replies
        job_id = await transferred(service, reply=b"x" * (REPLY_LIMIT_BYTES + 1))
        error = await refused(replies.data(ALICE, job_id))
        assert error.name == "BG_E_TOO_LARGE"
        assert str(REPLY_LIMIT_BYTES + 1) in error.message
        assert render.problem(error).reply_bytes == REPLY_LIMIT_BYTES + 1
        assert b"reply_bytes" not in render.to_json(render.problem(BitsError("E_FAIL")))
        exactly = await transferred(service, reply=b"y" * REPLY_LIMIT_BYTES)
        assert len(await replies.data(ALICE, exactly)) == REPLY_LIMIT_BYTES

    play(script)


class Liar(FakeWorker):
    """Gives what is not sealed memory: reading it might never end."""

    def copy(self, order: CopyFile) -> None:
        reading, writing = os.pipe()
        os.close(writing)
        self.give(FileOpened(operation=order.operation), reading)


def test_j32_nothing_but_sealed_memory_is_read() -> None:
    async def script(service: Service) -> None:
        service.monitor.make_worker = Liar
        job_id = await transferred(service)
        assert (await refused(service.runtime.services.replies.data(ALICE, job_id))).name == "E_FAIL"

    play(script)


def test_j32_a_reply_that_somebody_has_deleted_is_an_error() -> None:
    async def script(service: Service) -> None:
        job_id = await transferred(service)
        service.worker.contents.clear()
        error = await refused(service.runtime.services.replies.data(ALICE, job_id))
        assert error.name == "ERROR_FILE_NOT_FOUND"

    play(script)


# --- another owner (I8) -----------------------------------------------------------------------------------


def test_i8_the_new_owner_must_be_able_to_read_the_source() -> None:
    async def script(service: Service) -> None:
        job_id = await service.upload()
        await service.say(service.worker.started(), service.worker.moved(60, "s"), service.worker.ended())
        [alices] = service.monitor.workers

        def refuse(worker: FakeWorker) -> None:
            worker.refusals = [FileResult(index=0, error="E_ACCESSDENIED", message="root may not read /home/alice/0")]
            worker.be_ready()

        await service.manager.suspend(ALICE, job_id)
        service.monitor.on_worker = refuse
        error = await refused(service.runtime.services.ownership.take(ROOT, job_id))
        assert error.name == "BG_E_NEW_OWNER_NO_FILE_ACCESS"
        assert service.job(job_id).owner.name == "alice"
        await service.runtime.services.ownership.take(ROOT, job_id)
        job = service.job(job_id)
        assert job.owner.name == "root"
        assert (job.upload_memory, job.bytes_transferred) == ("s", 60), "session and offset are the new owner's"
        assert alices.count(DeleteFiles) == 0

    play(script)
