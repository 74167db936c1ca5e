"""What is left to do with the files of a job that is being ended: put under their names, or deleted.

It is done with the rights of the account that made the files (T3), can be done twice, and its report says what was
done and what was not: it never raises.
"""

from __future__ import annotations

from collections.abc import Callable

from openbits.core.events import FilesFinished
from openbits.core.http import date_to_epoch_s
from openbits.core.model import Closing, File, HelperFlag, Job, Owner
from openbits.errors import BitsError
from openbits.frames.operations import RenameSpec
from openbits.service.worker import Worker
from openbits.service.workers import WorkerPool


async def finish_files(
    job: Job, closing: Closing, *, account: Callable[[Job], Owner], pool: WorkerPool
) -> FilesFinished:
    """Rename or delete; `account` says with whose rights, and may raise BG_E_TOKEN_REQUIRED."""
    if job.run == 0 or not job.made_here:
        # Never started, or an upload without a reply: there is no file of this job anywhere.
        return FilesFinished()
    try:
        return await pool.ask(account(job).identity, lambda worker: _by_worker(worker, job, closing))
    except BitsError as error:
        name, text = error.name, error.message
    if closing is Closing.CANCEL:
        return FilesFinished(left_over=tuple(file.temporary_name for _, file in job.made_here))
    return FilesFinished(failed=((job.made_here[0][0], name, text),))


async def _by_worker(worker: Worker, job: Job, closing: Closing) -> FilesFinished:
    if closing is Closing.CANCEL:
        return await _delete(worker, [file for _, file in job.made_here if not file.completed])
    return await _rename(worker, job)


async def _rename(worker: Worker, job: Job) -> FilesFinished:
    # Who writes a file dates it, unless another account's worker has opened it for him.
    needs_date = job.helper_flags is not HelperFlag.NONE
    specs = [
        RenameSpec(
            index=index,
            temporary_name=file.temporary_name,
            local_name=file.local_name,
            size=file.bytes_total,
            modified_epoch_s=_modified_epoch_s(file) if needs_date else None,
        )
        for index, file in job.made_here
        if file.transferred and not file.completed
    ]
    failures = await worker.rename(specs) if specs else []
    failed = {result.index for result in failures}
    renamed = tuple(spec.index for spec in specs if spec.index not in failed)
    if failures:
        return FilesFinished(
            renamed=renamed, failed=tuple((result.index, result.error, result.message) for result in failures)
        )
    rest = await _delete(worker, [file for _, file in job.made_here if not file.transferred])
    return FilesFinished(renamed=renamed, left_over=rest.left_over)


async def _delete(worker: Worker, files: list[File]) -> FilesFinished:
    # A job with high_performance writes under the names themselves (J63), and nothing of that is cleaned up.
    paths = [file.temporary_name for file in files if file.temporary_name != file.local_name]
    failures = await worker.delete(paths) if paths else []
    return FilesFinished(left_over=tuple(paths[result.index] for result in failures if 0 <= result.index < len(paths)))


def _modified_epoch_s(file: File) -> int | None:
    """The server's date of a file (D9)."""
    value = file.validator.last_modified
    if value is None:
        # Content that was compressed on the way, or is made anew each time, has a date and no validator.
        for line in file.response_headers.splitlines():
            name, colon, text = line.partition(":")
            if colon and name.strip().lower() == "last-modified":
                value = text.strip()
    epoch_s = date_to_epoch_s(value)
    return None if epoch_s is None else int(epoch_s)
