"""TakeOwnership: a job passes to an administrator with everything that was fetched, and no right of its giver (I8).

    hold the job still ▸ copy its temporary files ▸ ONE transaction {owner, temporary names} ▸ delete the old files

The old owner's process opens each file, the new owner's makes one of its own: no privilege is used, and no path that
one of them controls is followed by anybody else.  What a job uploads stays where it is: the new owner must be able to
read it there, and only the reply, as far as it is here, is handed over.

What would be left over after a crash is promised in the ledger before it is made, so that a start deletes it; until
the transaction the old owner has all bytes, after it the new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import posixpath
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openbits.core import access, moves, names
from openbits.core.events import ChangeOwner, Entry
from openbits.core.model import AccountKind, Caller, File, Identity, Job, Owner
from openbits.core.pieces import end_of
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError
from openbits.frames.operations import AdoptFile, OpenForReading
from openbits.service.calls import Outcome
from openbits.service.helpertokens import HelperTokens
from openbits.service.intake import Places, places_of
from openbits.service.ledger import Draft, Ledger
from openbits.service.mounts import Paths
from openbits.service.runs import Conductor
from openbits.service.tasks import Tasks
from openbits.service.worker import Worker, WorkerGone
from openbits.service.workers import WorkerPool
from openbits.store.records import PendingEffect

log = logging.getLogger(__name__)

DISCARD: Final = "discard"
"""The kind of the promise to delete temporary files that belong to no job any more."""
_ATTEMPTS: Final = 3
_AT_ONCE: Final = 8
"""Files of a job that are handed over at once: the two processes then wait for each other less."""
_COPY_PATIENCE_S: Final = 60.0
_SLOWEST_BPS: Final = 1024 * 1024
"""A file that is copied more slowly hangs: it may lie on a file system that answers as its owner pleases."""
_LOST: Final = "ERROR_FILE_NOT_FOUND"
_NO_ACCESS: Final = frozenset({"E_ACCESSDENIED", "ERROR_PATH_NOT_FOUND", "ERROR_FILE_EXISTS"})
_PATHS_PER_PROMISE: Final = 2000


class _JobChanged(Exception):
    """Files were added while the others were copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """One file that changes hands."""

    index: int
    old_name: str
    new_name: str
    length: int
    """How many bytes of it count."""
    has_content: bool
    """Whether there is a file to hand over: one that is whole may be empty."""


class Ownership:
    """The call, and the promises that it leaves behind."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        conductor: Conductor,
        pool: WorkerPool,
        paths: Paths,
        tokens: HelperTokens,
        tasks: Tasks,
    ) -> None:
        self._ledger = ledger
        self._conductor = conductor
        self._pool = pool
        self._paths = paths
        self._tokens = tokens
        self._tasks = tasks

    def __repr__(self) -> str:
        return "<Ownership>"

    def take_up(self) -> None:
        """Keep what a former life has promised."""
        for promise in self._ledger.promises:
            if promise.kind == DISCARD:
                self._tasks.start(f"discard {promise.job_id}", self._discard((promise,)))

    async def take(self, caller: Caller, job_id: str) -> Outcome:
        """J24. Raises E_ACCESSDENIED, BG_E_INVALID_STATE, BG_E_NEW_OWNER_NO_FILE_ACCESS, BG_E_NEW_OWNER_DIFF_MAPPING …

        A call that raises has changed nothing.
        """
        self._check(caller, self._ledger.jobs.get(job_id))
        # Shielded: a caller who hangs up leaves nothing half done.
        outcome = await asyncio.shield(self._tasks.start(f"take over {job_id}", self._take(caller, job_id)))
        if isinstance(outcome, BitsError):
            raise outcome
        return outcome

    @staticmethod
    def _check(caller: Caller, job: Job | None) -> Job:
        job = access.existing(job)
        access.may_take_ownership(caller, job.owner)
        next_state(job.state, Trigger.CHANGE)
        moves.refuse_while_closing(job)
        return job

    async def _take(self, caller: Caller, job_id: str) -> Outcome | BitsError:
        try:
            async with self._conductor.exclusive(job_id):
                for _ in range(_ATTEMPTS):
                    try:
                        return await self._hand_over(caller, self._check(caller, self._ledger.jobs.get(job_id)))
                    except (WorkerGone, _JobChanged):
                        continue
                return BitsError("E_FAIL", "the processes that work for the two accounts end again and again")
        except BitsError as error:
            return error

    # --- from hand to hand ------------------------------------------------------------------------------

    async def _hand_over(self, caller: Caller, job: Job) -> Outcome:
        owner = caller.as_owner()
        await self._check_paths(caller, owner, job)
        try:
            files = self._tokens.file_account(job)
        except BitsError:
            # A helper's files, and the helper is gone: nobody knows whose they are.
            files = None
        if files is not None and files.identity.uid == owner.identity.uid:
            # They are his already; he takes what he is now: groups, rights of an administrator.
            return await self._change(caller, job, (), (), (), ())
        moving = _moves(job)
        copies = self._promises(job.id, owner.identity, [move.new_name for move in moving if move.has_content])
        await self._promise(copies)
        try:
            lost = await self._copy(files, owner, job, moving)
            old = self._promises(job.id, files.identity, [move.old_name for move in moving]) if files else ()
            outcome = await self._change(caller, job, moving, lost, copies, old)
        except Exception:
            # In the background: whoever waits for the refusal need not wait for this.
            self._tasks.start(f"discard {job.id}", self._discard(copies))
            raise
        await self._discard(old)
        return outcome

    async def _check_paths(self, caller: Caller, owner: Owner, job: Job) -> None:
        places = _places(job)
        problem = await self._paths.problem(caller, owner, places.paths)
        if problem is not None:
            raise BitsError("BG_E_NEW_OWNER_DIFF_MAPPING", problem)
        if not places.directories and not places.sources:
            return
        worker = await self._pool.get(owner.identity)
        with worker.held():
            refusals = await worker.check_directories(places.directories) if places.directories else []
            refusals = refusals or (await worker.check_sources(places.sources) if places.sources else [])
        if refusals:
            raise _no_access(owner, refusals[0].message)

    async def _copy(self, files: Owner | None, owner: Owner, job: Job, moving: Sequence[_Move]) -> tuple[int, ...]:
        """Copy what counts of each file; return the indices of those whose bytes nobody can hand over any more."""
        counting = [move for move in moving if move.has_content]
        giver = await self._giver(files) if files is not None and counting else None
        if giver is None:
            return tuple(move.index for move in counting)
        lost: list[int] = []
        turns = asyncio.Semaphore(_AT_ONCE)
        # One sync of everything costs more than one file's, and less than that of many.
        is_synced = len(counting) <= _AT_ONCE

        async def hand_over(move: _Move) -> None:
            async with turns:
                if not await self._copy_file(giver, taker, job, owner, move, is_synced=is_synced):
                    lost.append(move.index)

        with giver.held():
            taker = await self._pool.get(owner.identity)
            with taker.held():
                try:
                    async with asyncio.TaskGroup() as group:
                        for move in counting:
                            group.create_task(hand_over(move), name=f"hand over {job.id} {move.index}")
                except BaseExceptionGroup as errors:
                    raise errors.exceptions[0] from None
                if not is_synced:
                    await _sync(taker, [move.new_name for move in counting])
        return tuple(sorted(lost))

    async def _giver(self, files: Owner) -> Worker | None:
        try:
            return await self._pool.get(files.identity)
        except BitsError as error:
            if error.name != "ERROR_NO_SUCH_USER":
                raise
            return None

    async def _copy_file(
        self, giver: Worker, taker: Worker, job: Job, owner: Owner, move: _Move, *, is_synced: bool
    ) -> bool:
        try:
            _, fd = await giver.ask(
                lambda operation: OpenForReading(
                    operation=operation, temporary_name=move.old_name, least_bytes=move.length
                )
            )
        except BitsError as error:
            if error.name != _LOST:
                raise _no_access(owner, error.message) from None
            log.warning("action=file-lost job=%s index=%d reason=%s", job.id, move.index, error.message)
            return False
        try:
            patience_s = _COPY_PATIENCE_S + move.length / _SLOWEST_BPS
            try:
                async with asyncio.timeout(patience_s):
                    failures = await taker.results_of(
                        lambda operation: AdoptFile(
                            operation=operation,
                            temporary_name=move.new_name,
                            length=move.length,
                            umask=job.settings.umask,
                            is_synced=is_synced,
                        ),
                        (fd,),
                    )
            except TimeoutError:
                self._pool.kill(taker)
                raise BitsError(
                    "ERROR_READ_FAULT", f"{move.old_name} could not be copied within {patience_s:.0f} s: try again"
                ) from None
        finally:
            os.close(fd)
        if not failures:
            return True
        if failures[0].error == _LOST:
            return False
        if failures[0].error in _NO_ACCESS:
            raise _no_access(owner, failures[0].message)
        raise BitsError(failures[0].error, failures[0].message)

    # --- what is written down ---------------------------------------------------------------------------

    async def _change(
        self,
        caller: Caller,
        job: Job,
        moving: Sequence[_Move],
        lost: tuple[int, ...],
        copies: Sequence[PendingEffect],
        old: Sequence[PendingEffect],
    ) -> Outcome:
        def change(draft: Draft) -> Job:
            present = self._check(caller, draft.get(job.id))
            draft.by = caller
            if [file.temporary_name for file in _parts(present)] != [file.temporary_name for file in _parts(job)]:
                raise _JobChanged
            event = ChangeOwner(
                owner=caller.as_owner(),
                temporary_names=tuple((move.index, move.new_name) for move in moving),
                lost=lost,
            )
            changed = draft.apply(job.id, event)
            assert changed is not None
            draft.kept += [promise.id for promise in copies]
            draft.promised += old
            if lost:
                text = f"{len(lost)} files could not be handed over: they begin anew"
                draft.note(job.id, Entry(kind="left over", text=text))
            return changed

        changed = await self._ledger.submit(change)
        # Also where the owner is who he was.
        self._tokens.forget(job.id)
        log.info("action=take-ownership job=%s from=%s to=%s", job.id, job.owner.name, caller.name)
        return Outcome(result="S_OK", job=changed)

    def _promises(self, job_id: str, identity: Identity, paths: Sequence[str]) -> tuple[PendingEffect, ...]:
        parts = [paths[start : start + _PATHS_PER_PROMISE] for start in range(0, len(paths), _PATHS_PER_PROMISE)]
        return tuple(self._ledger.promise(job_id, DISCARD, _payload(identity, part)) for part in parts)

    async def _promise(self, promises: Sequence[PendingEffect]) -> None:
        if promises:
            await self._ledger.submit(lambda draft: draft.promised.extend(promises))

    async def _discard(self, promises: Sequence[PendingEffect]) -> None:
        """Delete what belongs to no job any more; what cannot be deleted stays, and the event log tells of it."""
        for promise in promises:
            identity, paths = _read_payload(promise.payload)
            problem = await self._delete(identity, paths)

            def keep(draft: Draft, promise: PendingEffect = promise, problem: str = problem) -> None:
                draft.kept.append(promise.id)
                if problem:
                    draft.note(promise.job_id, Entry(kind="left over", text=problem))

            try:
                await self._ledger.submit(keep)
            except BitsError as error:
                # The store is full: the next start does it again.
                log.warning("action=discard-not-written job=%s reason=%s", promise.job_id, error.message)

    async def _delete(self, identity: Identity, paths: list[str]) -> str:
        for _ in range(_ATTEMPTS):
            try:
                worker = await self._pool.get(identity)
                failures = await worker.delete(paths)
            except WorkerGone:
                continue
            except BitsError as error:
                return f"{len(paths)} temporary files of the former owner are left over: {error.message}"
            if failures:
                return f"{len(failures)} temporary files are left over: {failures[0].message}"
            return ""
        return f"{len(paths)} temporary files are left over: the account's processes end again and again"


async def _sync(taker: Worker, files: Sequence[str]) -> None:
    directories = list(dict.fromkeys(map(posixpath.dirname, files)))
    failures = await taker.sync_directories(directories)
    if failures:
        raise BitsError(failures[0].error, failures[0].message)


def _moves(job: Job) -> tuple[_Move, ...]:
    """What there is to hand over: nothing of a job that never ran, and no file that stands under its name."""
    if not job.run:
        return ()
    return tuple(
        _Move(
            index=index,
            old_name=file.temporary_name,
            new_name=names.temporary_name(file.local_name, secrets.token_hex(8)),
            length=_length(file),
            has_content=_has_content(file),
        )
        for index, file in job.made_here
        # What is written under its own name, and has not been begun (J63), is no file of the job's yet.
        if not file.completed and (file.temporary_name != file.local_name or _has_content(file))
    )


def _has_content(file: File) -> bool:
    return file.transferred or file.bytes_transferred > 0


def _length(file: File) -> int:
    """How far the bytes reach that count."""
    if file.transferred:
        return file.bytes_total or 0
    # Pieces have holes between them (J67).
    return file.bytes_transferred if file.demand is None else end_of(file.demand.filled)


def _places(job: Job) -> Places:
    """What the new owner must be able to write to and to read, as far as the job is not done with it."""
    places = places_of([(job.type, [file for file in job.files if not file.completed])])
    if job.reply is not None and not job.reply.completed:
        places.directories.append(posixpath.dirname(job.reply.local_name))
    waiting = [file for file in job.files if not file.transferred]
    places.remote_files = places_of([(job.type, waiting)]).remote_files
    return places


def _parts(job: Job) -> list[File]:
    return [*job.files, *([job.reply] if job.reply is not None else [])]


def _no_access(owner: Owner, clause: str) -> BitsError:
    who = "root" if owner.kind is AccountKind.LOCAL_SYSTEM else owner.name
    return BitsError(
        "BG_E_NEW_OWNER_NO_FILE_ACCESS",
        f"{who} cannot take the files over: {clause}: give {who} access to the directory (setfacl -m u:{who}:rwx), "
        "or leave the job to its owner: an administrator may change it all the same",
    )


def _payload(identity: Identity, paths: Sequence[str]) -> str:
    return json.dumps(
        {"uid": identity.uid, "gid": identity.gid, "groups": identity.groups, "paths": paths}, separators=(",", ":")
    )


def _read_payload(payload: str) -> tuple[Identity, list[str]]:
    read = json.loads(payload)
    identity = Identity(uid=int(read["uid"]), gid=int(read["gid"]), groups=tuple(map(int, read["groups"])))
    return identity, [str(path) for path in read["paths"]]
