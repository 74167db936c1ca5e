"""Uploads, from request to answer: reads packets, finds sessions, lets one request at a time at each (U40–U45).

The rules:

- What a request means is decided by `openbits.upload.server`; what it takes is done by `Dealing`; this is the door.
- One request at a time per session.  A newer one means that the client has given up the older: if that one is still
  receiving, it is stopped, what it received is kept, and it is answered as out of step; if it is further, it is waited
  for.
- A session belongs to a URL path, and to a user where there is one: for everybody else it does not exist.
- Sessions that have expired do not exist any more, whether or not they have been cleaned up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from openbits.server import dealing
from openbits.server.beneath import UnfitPath, UrlPath, parse_url_path
from openbits.server.cleanup import Cleanup
from openbits.server.dealing import Dealing, House, Turn
from openbits.server.exchange import ConnectionLost, Exchange, Head, Headers
from openbits.server.journal import Journal
from openbits.server.notification import REPLY_FILE, Notifier
from openbits.server.sessions import Record, Sessions
from openbits.server.settings import Settings, UploadDirectory
from openbits.server.storage import REPLIES, Storage
from openbits.server.tasks import Tasks
from openbits.upload import server
from openbits.upload.packets import (
    CONTENT_LENGTH,
    HEADER_LIMIT,
    Ack,
    BadPacket,
    PacketType,
    Request,
    is_upload_request,
    parse_request,
    render_ack,
)
from openbits.upload.session import Answer, Asked

_THREADS: Final = 8
_DRAIN_BYTES: Final = 16 * 2**20
"""How much of a refused fragment is read so that the client reads the answer: as much as Windows sends at once."""
URL_LIMIT: Final = HEADER_LIMIT
"""Characters of an upload's URL: it becomes a header for applications, and clients allow 2,200 before encoding."""
_RETRY_AFTER_S: Final = 60

log = logging.getLogger(__name__)


class Uploads:
    """The upload side of a server: takes the exchanges that `is_for_uploads` says are its own."""

    def __init__(self, settings: Settings, *, own_address: Callable[[], tuple[str, int] | None] | None = None) -> None:
        """Open root and working directory, find sessions again; blocks; raises StorageError.

        `own_address` says where this server listens, once it does: relative notification URLs lead there.
        """
        self._settings = settings
        self.storage = Storage(settings.root, settings.working_directory)
        try:
            self._journal = Journal(settings.working_directory)
            self._sessions = Sessions(settings, self.storage, self._journal)
            self._sessions.load()
        except BaseException:
            self.storage.close()
            raise
        self._turns: dict[str, Turn] = {}
        self._tasks = Tasks()
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="storage")
        self._cleanup = Cleanup(settings, self._sessions, is_busy=self._turns.__contains__, end=self._end)
        self._house = House(
            settings=settings,
            storage=self.storage,
            sessions=self._sessions,
            notifier=Notifier(self.storage, own_address=own_address),
            cleanup=self._cleanup,
            threads=self._threads,
            tasks=self._tasks,
        )

    def __repr__(self) -> str:
        return f"<Uploads sessions={len(self._sessions)} busy={len(self._turns)}>"

    def statistics(self) -> dict[str, int]:
        """Return how many sessions there are, and how many are spoken to now."""
        return {"sessions": len(self._sessions), "busy": len(self._turns)}

    def start(self) -> None:
        """Begin, in the running loop; before the first answer()."""
        self._journal.start()
        self._cleanup.start()

    async def close(self) -> None:
        """Write down what is left; no answer() may be under way."""
        self._cleanup.stop()
        await self._tasks.wait_finished(limit_s=30)
        self._threads.shutdown()
        await self._journal.close()
        self.storage.close()

    @staticmethod
    def is_for_uploads(head: Head) -> bool:
        """Whether a request is a packet of the protocol."""
        return is_upload_request(head.method, head.headers)

    @staticmethod
    def may_be_reply(components: tuple[bytes, ...]) -> bool:
        """Whether a path looks like one that `open_reply` knows."""
        return len(components) >= 4 and components[-4:-2] == (REPLIES, b"Replies") and components[-1] == REPLY_FILE

    def open_reply(self, components: tuple[bytes, ...], user: str | None) -> int | None:
        """Open the reply that a path names (U30–U32), for reading; None when there is none for this user.  Blocks."""
        if not self.may_be_reply(components):
            return None
        record = self._sessions.find(components[-2].decode("utf-8", "replace"))
        if record is None or record.user != user or record.path[:-1] != components[:-4]:
            return None
        if not record.session.reply_url or self._cleanup.has_expired(record):
            return None
        try:
            return self.storage.open_reply(record.key)
        except OSError:
            return None

    # --- one request -------------------------------------------------------------------------------

    async def answer(self, exchange: Exchange) -> None:
        """Answer a packet."""
        head = exchange.head
        try:
            found = await self._deal(exchange)
        except dealing.Abandoned:
            return
        log.log(
            logging.DEBUG if found.ack.is_success else logging.INFO,
            "action=upload-packet type=%r path=%r client=%s status=%d received=%s%s",
            head.get("bits-packet-type"),
            head.path,
            head.client.host,
            found.ack.status,
            found.ack.received_bytes,
            f" reason={found.reason!r}" if found.reason else "",
        )
        with contextlib.suppress(ConnectionLost):
            # Who is still sending does not listen yet, and would find the connection closed instead of an answer.
            await exchange.discard_body(_DRAIN_BYTES)
        await exchange.respond(found.ack.status, _headers(found.ack))

    async def _deal(self, exchange: Exchange) -> Answer:
        head = exchange.head
        try:
            path = parse_url_path(head.path)
        except UnfitPath as unfit:
            return server.refuse_packet(BadPacket(str(unfit)))
        if len(head.target) > URL_LIMIT:
            # A session keeps its URL for as long as it lives: a client is not to choose what that costs.
            return server.refuse_packet(BadPacket(f"the URL is longer than {URL_LIMIT} characters"))
        directory = self._settings.find(path.components)
        if not directory.settings.upload_enabled:
            # For everything, what is no packet included.
            (answer,) = server.step(
                directory.settings.policy, None, Request(packet_type=PacketType.PING), Asked()
            ).effects
            assert isinstance(answer, Answer)
            return answer
        try:
            request = parse_request(head.headers, head.content_length)
        except BadPacket as bad:
            return server.refuse_packet(bad)
        if request.packet_type in (PacketType.PING, PacketType.CREATE_SESSION):
            return await Dealing(self._house, exchange, request, directory, path).run(None, Turn())
        return await self._deal_with_session(exchange, request, directory, path)

    async def _deal_with_session(
        self, exchange: Exchange, request: Request, directory: UploadDirectory, path: UrlPath
    ) -> Answer:
        record = self._find(request.session_id, exchange.head, path)
        if record is None:
            return await Dealing(self._house, exchange, request, directory, path).run(None, Turn())
        async with self._turn(record.key) as turn:
            # It may have ended, or gone on, while this request waited.
            record = self._find(request.session_id, exchange.head, path)
            return await Dealing(self._house, exchange, request, directory, path).run(record, turn)

    def _find(self, session_id: str, head: Head, path: UrlPath) -> Record | None:
        record = self._sessions.find(session_id)
        if record is None or path.ends_with_slash or record.path != path.components or record.user != head.user:
            return None
        if record.key not in self._turns and self._cleanup.has_expired(record):
            self._tasks.start("expire", self._end(record, "expired"))
            return None
        return record

    @contextlib.asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[Turn]:
        """Wait until nobody else deals with the session; whoever does is told that somebody waits."""
        mine = Turn()
        while (other := self._turns.get(key)) is not None:
            other.supersede()
            await other.wait_over()
        self._turns[key] = mine
        try:
            yield mine
        finally:
            del self._turns[key]
            mine.end()

    # --- ends --------------------------------------------------------------------------------------

    async def _end(self, record: Record, reason: str) -> None:
        """Forget a session that nobody speaks to, and delete its files."""
        if self._sessions.find(record.session.id) is None or record.key in self._turns:
            # Ended already; or somebody has begun to speak to it since it was looked at.
            return
        self._sessions.forget(record)
        log.info("action=session-ended session=%s reason=%s path=%r", record.key, reason, b"/".join(record.path))
        await asyncio.get_running_loop().run_in_executor(self._threads, self.storage.delete, record.key)


def _headers(ack: Ack) -> Headers:
    """Those of the Ack; Content-Length is written by whoever writes to the connection."""
    headers = tuple((name, value) for name, value in render_ack(ack) if name != CONTENT_LENGTH)
    return (*headers, ("Retry-After", str(_RETRY_AFTER_S))) if ack.status == 503 else headers
