"""The calls about what a server replies to an upload: where it goes, how much of it is here, and what it says.

The service never opens the reply: a worker with the rights of the account whose file it is copies it into memory
that cannot change any more, and only that is read here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from typing import Final

from openbits.core import access, names, uploads
from openbits.core.events import SetReplyName
from openbits.core.model import Caller, File, Job, JobState, Owner
from openbits.errors import BitsError
from openbits.frames.operations import CopyFile
from openbits.service.calls import Outcome
from openbits.service.helpertokens import HelperTokens
from openbits.service.intake import Intake
from openbits.service.ledger import Draft, Ledger
from openbits.service.runs import Conductor
from openbits.service.worker import WorkerGone
from openbits.service.workers import WorkerPool

COPY_ATTEMPTS: Final = 3
COPY_TIMEOUT_S: Final = 60.0
"""A file that cannot be copied within it lies on a file system that does not answer."""
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_READABLE: Final = (JobState.TRANSFERRED, JobState.ACKNOWLEDGED)
_MOVED_AWAY: Final = frozenset({"ERROR_FILE_NOT_FOUND", "ERROR_PATH_NOT_FOUND"})


class ReplyTooLarge(BitsError):
    """The reply does not fit into an answer (J32)."""

    def __init__(self, reply: File, size_bytes: int) -> None:
        where = f"read {reply.local_name}" if reply.completed else f"complete the job and read {reply.local_name}"
        super().__init__(
            "BG_E_TOO_LARGE",
            f"the reply has {size_bytes} bytes, and no more than {uploads.REPLY_LIMIT_BYTES} are given out: {where}",
        )
        self.size_bytes = size_bytes


def named_reply(job: Job, local_name: str) -> File:
    """Return the reply of `job` under a name of its owner's choice (J33). Raises E_INVALIDARG, E_NOTIMPL."""
    uploads.refuse_without_reply(job)
    try:
        names.check_local_name(local_name)
    except BitsError as error:
        raise BitsError("E_INVALIDARG", f"the reply's file name: {error.message}") from None
    uploads.refuse_reply_over_source(local_name, job.files)
    temporary = names.temporary_name(local_name, secrets.token_hex(8))
    return File(remote_name="", local_name=local_name, temporary_name=temporary)


class Replies:
    """SetReplyFileName to GetReplyData (J31–J34)."""

    def __init__(
        self, *, ledger: Ledger, conductor: Conductor, intake: Intake, tokens: HelperTokens, pool: WorkerPool
    ) -> None:
        self._ledger = ledger
        self._conductor = conductor
        self._intake = intake
        self._tokens = tokens
        self._pool = pool

    def __repr__(self) -> str:
        return "<Replies>"

    async def set_file_name(self, caller: Caller, job_id: str, local_name: str | None) -> Outcome:
        """J33; without a name the reply gets one when the job is resumed, or at once if it has been (J34).

        Raises E_NOTIMPL, E_INVALIDARG, E_ACCESSDENIED, ERROR_PATH_NOT_FOUND, BG_E_INVALID_STATE.
        """
        job = self._job(job_id)
        access.may_change(caller, job.owner)
        uploads.refuse_without_reply(job)
        reply = named_reply(job, local_name) if local_name else None
        if reply is not None:
            await self._intake.check_reply_place(caller, self._tokens.file_account(job), reply.local_name)
            event = SetReplyName(local_name=reply.local_name, temporary_name=reply.temporary_name)
        else:
            event = SetReplyName()

        def change(draft: Draft) -> Outcome:
            present = access.existing(draft.get(job_id))
            access.may_change(caller, present.owner)
            draft.by = caller
            changed = draft.apply(job_id, event)
            assert changed is not None
            return Outcome(result="S_OK", job=changed)

        # A run that is under way may be fetching the reply to where it was to stand until now, and the server gives it
        # once: the name changes between two runs only.
        async with self._conductor.exclusive(job_id):
            return await self._ledger.submit(change)

    def get(self, caller: Caller, job_id: str) -> Job:
        """Return the job whose reply the caller asks for (J31, J34). Raises E_NOTIMPL, E_ACCESSDENIED."""
        job = self._job(job_id)
        access.may_read(caller, job.owner)
        uploads.refuse_without_reply(job)
        return job

    async def data(self, caller: Caller, job_id: str) -> bytes:
        """J32: empty where the server has not replied anything.

        Raises E_NOTIMPL, BG_E_INVALID_STATE before the job is TRANSFERRED, ReplyTooLarge, and what reading the file
        gives.
        """
        for _ in range(COPY_ATTEMPTS):
            job = self.get(caller, job_id)
            if job.state not in _READABLE:
                raise BitsError(
                    "BG_E_INVALID_STATE", f"the job is {job.state.name}: the reply can be read when it is TRANSFERRED"
                )
            reply = job.reply
            if reply is None or not reply.transferred or not reply.bytes_total:
                return b""
            if reply.bytes_total > uploads.REPLY_LIMIT_BYTES:
                raise ReplyTooLarge(reply, reply.bytes_total)
            path = reply.local_name if reply.completed else reply.temporary_name
            try:
                return await self._copy(self._account(job), path)
            except WorkerGone:
                continue
            except BitsError as error:
                # Between the two it may have got its name.
                now = self._job(job_id).reply
                if error.name not in _MOVED_AWAY or now is None or now.completed == reply.completed:
                    raise
        raise BitsError("E_FAIL", "the processes that work for this account end again and again")

    def _account(self, job: Job) -> Owner:
        """Whose file it is: tokens end with their jobs, and what is left is the owner's affair."""
        return job.owner if job.state.is_final else self._tokens.file_account(job)

    async def _copy(self, account: Owner, path: str) -> bytes:
        try:
            async with asyncio.timeout(COPY_TIMEOUT_S):
                worker = await self._pool.get(account.identity)
                _, fd = await worker.ask(
                    lambda number: CopyFile(operation=number, path=path, most_bytes=uploads.REPLY_LIMIT_BYTES)
                )
        except TimeoutError:
            raise BitsError("ERROR_READ_FAULT", f"{path} could not be read within {COPY_TIMEOUT_S:.0f} s") from None
        try:
            return _content(fd)
        finally:
            os.close(fd)

    def _job(self, job_id: str) -> Job:
        return access.existing(self._ledger.jobs.get(job_id))


def _content(fd: int) -> bytes:
    """Read what a worker has copied; only sealed memory cannot make the service wait, or grow while it is read."""
    try:
        is_sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        is_sealed = False
    if not is_sealed or os.fstat(fd).st_size > uploads.REPLY_LIMIT_BYTES:
        raise BitsError("E_FAIL", "the process that reads for this account gave no sensible answer")
    return os.pread(fd, uploads.REPLY_LIMIT_BYTES, 0)
