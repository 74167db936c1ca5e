"""One packet of an upload, performed: asks `openbits.upload.server` what to do, does it, tells what came of it.

The rules:

- A decision's session is remembered before its effects are performed, durably where a Keep says so.
- What the file of a session holds is asked of the file, never counted along.
- Durable data before durable progress: a checkpoint says how much a power cut leaves only after that much was synced,
  and is made beside the transfer, which does not wait for it.
- The loop never waits for the disk: what may block runs in the storage's threads.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
import string
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar, assert_never
from urllib.parse import quote

from openbits.server.beneath import UrlPath
from openbits.server.cleanup import Cleanup
from openbits.server.exchange import ConnectionLost, Exchange, Head, StoreFailed
from openbits.server.notification import Job, Notifier
from openbits.server.sessions import Record, Sessions
from openbits.server.settings import Settings, UploadDirectory
from openbits.server.storage import Storage, trouble_of
from openbits.server.tasks import Tasks
from openbits.upload.packets import Ack, PacketType, Request
from openbits.upload.server import step
from openbits.upload.session import (
    Answer,
    Asked,
    BrokenOff,
    Drop,
    Effect,
    Event,
    Failed,
    Keep,
    Look,
    Looked,
    Made,
    Make,
    Notify,
    NotStored,
    Phase,
    Place,
    Publish,
    Published,
    Seal,
    Sealed,
    Session,
    Step,
    Store,
    Stored,
    Trouble,
)

CHECKPOINT_BYTES: Final = 64 * 2**20
"""A power cut costs about so many bytes of an unfinished upload."""

_AS_SENT: Final = string.punctuation
"""What stays as it is in a target that is sent on: not every ASGI server refuses what is no ASCII there."""

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Abandoned(Exception):
    """There is nobody to be answered."""


class Turn:
    """The right to deal with a session, which one request has at a time."""

    def __init__(self) -> None:
        self.is_superseded = False
        """Whether a newer request waits for the session."""
        self.receiving: asyncio.Task[int] | None = None
        self._over = asyncio.Event()

    def supersede(self) -> None:
        """Somebody newer waits: stop receiving, if that is what is done."""
        self.is_superseded = True
        if self.receiving is not None:
            self.receiving.cancel()

    def end(self) -> None:
        """It is the next one's turn."""
        self._over.set()

    async def wait_over(self) -> None:
        """Return when the turn has ended."""
        await self._over.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Everything that dealing with a packet takes."""

    settings: Settings
    storage: Storage
    sessions: Sessions
    notifier: Notifier
    cleanup: Cleanup
    threads: ThreadPoolExecutor
    tasks: Tasks
    checkpoints: set[str] = field(default_factory=set)
    """Keys of sessions whose files are being synced."""

    async def blocking(self, work: Callable[[], _T]) -> _T:
        """Do in a thread what may wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


class Dealing:
    """One packet."""

    def __init__(
        self, house: House, exchange: Exchange, request: Request, directory: UploadDirectory, path: UrlPath
    ) -> None:
        self._house = house
        self._exchange = exchange
        self._request = request
        self._directory = directory
        self._policy = directory.settings.policy
        self._path = path
        self._record: Record | None = None
        self._turn = Turn()

    async def run(self, record: Record | None, turn: Turn) -> Answer:
        """Deal with the packet; `record` is its session's, and `turn` that session's.  Raises Abandoned."""
        self._record = record
        self._turn = turn
        event: Event = Asked()
        while True:
            # A session that is being made belongs to the machine from its answer on.
            is_new = self._request.packet_type is PacketType.CREATE_SESSION
            session = self._record.session if self._record is not None and not is_new else None
            taken = step(self._policy, session, self._request, event)
            found = await self._perform(taken)
            if isinstance(found, Answer):
                if found.ack.is_success:
                    self._touch()
                return found
            event = found

    async def _perform(self, taken: Step) -> Event | Answer:
        if not isinstance(next(iter(taken.effects), None), Keep):
            self._remember(taken.session)
        for effect in taken.effects:
            match effect:
                case Answer():
                    return effect
                case Keep():
                    failed = await self._keep(taken.session)
                    if failed is not None:
                        return failed
                case Drop():
                    await self._drop()
                case _:
                    return await self._do(effect)
        # Nobody is listening, unless it is a client that speaks twice at the same time.
        if self._turn.is_superseded and taken.session is not None:
            ack = Ack(status=416, session_id=taken.session.id, received_bytes=taken.session.received_bytes)
            return Answer(ack=ack, reason="a newer request for the session came in")
        raise Abandoned

    async def _do(self, effect: Effect) -> Event:
        match effect:
            case Look():
                return await self._look()
            case Make():
                return await self._make()
            case Store():
                return await self._store(effect)
            case Seal():
                return await self._seal()
            case Publish():
                return await self._publish()
            case Notify():
                return await self._notify()
            case Answer() | Keep() | Drop():
                raise AssertionError(f"{effect} is no question")
            case _:
                assert_never(effect)

    # --- what is remembered ------------------------------------------------------------------------

    def _remember(self, session: Session | None) -> None:
        record = self._newest()
        if record is None or session is None or session == record.session:
            return
        # Bytes that came are progress, also where the connection broke afterwards (U2).
        grew = session.received_bytes > record.session.received_bytes
        self._record = replace(record, session=session, touched_s=time.monotonic() if grew else record.touched_s)
        # How much is here, a restart sees by the file; the total is written down by `_store`.
        if session.phase is record.session.phase:
            self._house.sessions.remember(self._record)
        else:
            self._house.sessions.note(self._record)

    def _newest(self) -> Record | None:
        """The record with what was learnt beside (a checkpoint)."""
        if self._record is None:
            return None
        return self._house.sessions.find(self._record.session.id) or self._record

    async def _keep(self, session: Session | None) -> Event | None:
        newest = self._newest()
        assert newest is not None
        assert session is not None
        record = replace(newest, session=session, durable_bytes=session.received_bytes)
        try:
            await self._house.sessions.keep(record)
        except OSError as error:
            return Failed(trouble=trouble_of(error))
        self._record = record
        return None

    def _touch(self) -> None:
        """There was progress (U2)."""
        newest = self._newest()
        if newest is not None and self._house.sessions.find(newest.session.id) is not None:
            self._house.sessions.remember(replace(newest, touched_s=time.monotonic()))

    async def _drop(self) -> None:
        assert self._record is not None
        session = self._record.session
        self._house.sessions.forget(self._record)
        # The file that has its name is no longer in the working directory.
        if session.phase is not Phase.DONE or not session.is_published or session.reply_url:
            await self._house.blocking(functools.partial(self._house.storage.delete, self._record.key))
        self._record = None

    # --- creating ----------------------------------------------------------------------------------

    async def _look(self) -> Event:
        if self._path.ends_with_slash:
            return Looked(place=Place.DIRECTORY)
        look = functools.partial(self._house.storage.look, self._path.components)
        return Looked(place=await self._house.blocking(look))

    async def _make(self) -> Event:
        head = self._exchange.head
        if self._is_full(counted_for(head)):
            return Failed(trouble=Trouble.TOO_MANY)
        try:
            record = await self._house.sessions.make(
                path=self._path.components,
                url=original_url(head) if self._policy.has_application else "",
                user=head.user,
                counted_for=counted_for(head),
            )
        except OSError as error:
            return Failed(trouble=trouble_of(error))
        self._record = record
        self._house.cleanup.made(record)
        return Made(session_id=record.session.id)

    def _is_full(self, who: str) -> bool:
        """Whether there is no place for another session of this client.

        Whoever has more than the next cleanup leaves (U11) may have half of the places, not those that others need:
        until that cleanup it can be hours.
        """
        taken, places = len(self._house.sessions), self._house.settings.maximum_open_sessions
        own = self._directory.settings
        if taken >= places or not own.session_limit_enable or taken < places // 2:
            return taken >= places
        return self._house.sessions.count_of(self._path.components, who) >= own.number_of_sessions_limit

    # --- receiving ---------------------------------------------------------------------------------

    async def _store(self, effect: Store) -> Event:
        assert self._record is not None
        open_part = functools.partial(self._house.storage.open_part, self._record.key, total_bytes=effect.total_bytes)
        try:
            fd = await self._house.blocking(open_part)
        except OSError as error:
            log.error("action=store-failed session=%s: %s", self._record.key, error)
            return NotStored(received_bytes=effect.offset, trouble=trouble_of(error))
        try:
            size = os.fstat(fd).st_size
            if size != effect.offset:
                # A request was cut off by a stop of ours, or somebody was at the file: it says what is true.
                return Stored(received_bytes=size)
            if self._turn.is_superseded:
                return BrokenOff(received_bytes=size)
            event = await self._receive(fd, effect)
            if effect.offset == 0 and event.received_bytes < effect.total_bytes:
                # Before this fragment is acknowledged, since no other may have another total.
                await self._house.sessions.settle(self._record)
            return event
        finally:
            os.close(fd)

    async def _receive(self, fd: int, effect: Store) -> Stored | BrokenOff | NotStored:
        work = self._receive_parts(fd, effect)
        receiving = self._house.tasks.start("receive", work, expected=(ConnectionLost, StoreFailed))
        self._turn.receiving = receiving
        try:
            await asyncio.wait((receiving,))
        finally:
            self._turn.receiving = None
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait((receiving,))
        size = os.fstat(fd).st_size
        if receiving.cancelled():
            return BrokenOff(received_bytes=size)
        match receiving.exception():
            case None:
                is_whole = receiving.result() == effect.length
                return Stored(received_bytes=size) if is_whole else BrokenOff(received_bytes=size)
            case ConnectionLost():
                return BrokenOff(received_bytes=size)
            case StoreFailed() as failed:
                log.error("action=store-failed session=%r: %s", self._record, failed.error)
                return NotStored(received_bytes=size, trouble=trouble_of(failed.error))
            case error:
                raise error

    async def _receive_parts(self, fd: int, effect: Store) -> int:
        stored, skip = 0, effect.skip
        while True:
            wanted = min(CHECKPOINT_BYTES, effect.length - stored)
            came = await self._exchange.receive_to_file(fd, effect.offset + stored, wanted, skip=skip)
            stored, skip = stored + came, 0
            self._checkpoint(fd, effect.offset + stored)
            if came < wanted or stored == effect.length:
                return stored

    def _checkpoint(self, fd: int, size: int) -> None:
        record = self._record
        assert record is not None
        current = self._house.sessions.find(record.session.id)
        durable_bytes = current.durable_bytes if current is not None else size
        if size - durable_bytes < CHECKPOINT_BYTES or record.key in self._house.checkpoints:
            return
        self._house.checkpoints.add(record.key)
        self._house.tasks.start("checkpoint", _make_checkpoint(self._house, record, os.dup(fd), size))

    # --- when everything is here -------------------------------------------------------------------

    async def _seal(self) -> Event:
        assert self._record is not None
        try:
            await self._house.blocking(functools.partial(self._house.storage.seal, self._record.key))
        except FileNotFoundError:
            return Failed(trouble=Trouble.VANISHED)
        except OSError as error:
            log.error("action=seal-failed session=%s: %s", self._record.key, error)
            return Failed(trouble=trouble_of(error))
        return Sealed()

    async def _publish(self) -> Event:
        record = self._record
        assert record is not None
        publish = functools.partial(
            self._house.storage.publish, record.key, record.path, may_overwrite=self._policy.may_overwrite
        )
        trouble = await self._house.blocking(publish)
        if trouble is not None:
            return Failed(trouble=trouble)
        log.info(
            "action=upload-done session=%s path=%r bytes=%d", record.key, b"/".join(record.path), record.durable_bytes
        )
        return Published()

    async def _notify(self) -> Event:
        record = self._record
        assert record is not None
        job = Job(
            key=record.key,
            session=record.session,
            original_url=record.url or original_url(self._exchange.head),
            path=quote(self._exchange.head.path, safe=_AS_SENT),
            query=quote(self._exchange.head.query, safe=_AS_SENT),
            settings=self._directory.settings,
        )
        try:
            return await self._house.notifier.notify(job)
        except FileNotFoundError:
            return Failed(trouble=Trouble.VANISHED)
        except OSError as error:
            log.error("action=notify-failed session=%s: %s", record.key, error)
            return Failed(trouble=trouble_of(error))


async def _make_checkpoint(house: House, record: Record, fd: int, size: int) -> None:
    """Sync what the file has, then say so; owns the descriptor."""
    try:
        await house.blocking(functools.partial(house.storage.sync_part, fd))
    except OSError as error:
        log.error("action=checkpoint-failed session=%s: %s", record.key, error)
        return
    finally:
        house.checkpoints.discard(record.key)
        os.close(fd)
    house.sessions.note_durable(record.session.id, size)


def original_url(head: Head) -> str:
    """The URL as the client's end sees it."""
    query = f"?{quote(head.query, safe=_AS_SENT)}" if head.query else ""
    path = quote(head.root_path + head.path, safe=_AS_SENT)
    return f"{head.scheme}://{head.authority}{path}{query}"


def counted_for(head: Head) -> str:
    """Whose sessions a new one is counted among: the user's, or those from the same place (U11)."""
    if head.user is not None:
        return f"user {head.user}"
    host = head.client.host
    try:
        # Who has one address of IPv6 has all of its network.
        return f"host {ipaddress.IPv6Network((host, 64), strict=False)}"
    except ValueError:
        return f"host {host}"
