"""The asyncio twin of `listening`: tasks that hear what has become of a program's jobs, by the same rules."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from openbits.client import notifications
from openbits.client.calls import Call
from openbits.client.events import SILENCE_S, Message
from openbits.client.http1 import ResponseReader
from openbits.client.listening import FIRST_PAUSE_S, LONGEST_PAUSE_S, NOT_CURED_BY_WAITING, numbers
from openbits.client.notifications import AT_ONCE, Notice, notice_from, word_of_failure
from openbits.client.objects import result_of
from openbits.client.transport import NoAnswer, broken_call
from openbits.client.validation import QuestionStream
from openbits.client.values import Result
from openbits.errors import BitsError

log = logging.getLogger(__name__)


class AsyncReader(Protocol):
    """A connection of the asyncio client, as far as reading goes."""

    def close(self) -> None:
        """Close it."""

    async def read_some(self, reader: ResponseReader) -> None:
        """Wait for bytes and feed them to the reader."""


@dataclass(frozen=True, slots=True)
class AsyncRegistration:
    """A callback of a job; `callback` is what the program gave."""

    number: int
    callback: object
    tell: Callable[[Notice], Any]


@dataclass(slots=True)
class _Turn:
    """Whose callback runs for a job: one at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class AsyncListener:
    """What one account's programs of one manager hear, on the loop of the manager."""

    def __init__(
        self,
        open_stream: Callable[[bytes], Awaitable[AsyncReader]],
        perform: Callable[[Call[Any]], Awaitable[Any]],
    ) -> None:
        self._open_stream = open_stream
        self._perform = perform
        self._lock = asyncio.Lock()
        self._registered: dict[str, AsyncRegistration] = {}
        self._connection: AsyncReader | None = None
        self._stream = ""
        self._hands = asyncio.Semaphore(AT_ONCE)
        self._turns: dict[str, _Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<AsyncListener of {len(self._registered)} jobs>"

    async def set(self, job_id: str, callback: object, tell: Callable[[Notice], Any]) -> Result:
        """Hear of a job from now on; raises BitsError."""
        async with self._lock:
            former = self._registered.get(job_id)
            mine = AsyncRegistration(next(numbers), callback, tell)
            self._registered[job_id] = mine
            try:
                await self._connect()
                return await self._register(job_id, mine)
            except BaseException:
                if former is None:
                    del self._registered[job_id]
                else:
                    self._registered[job_id] = former
                raise

    def clear(self, job_id: str) -> None:
        """Hear nothing of a job any more; whoever calls has told the service."""
        self._registered.pop(job_id, None)
        self._leave_if_alone()

    def callback_of(self, job_id: str) -> object:
        """The callback that the program gave for a job; None where there is none, or none any more."""
        registration = self._registered.get(job_id)
        return None if registration is None else registration.callback

    def close(self) -> None:
        """Hear nothing of any job any more."""
        self._registered.clear()
        self._leave_if_alone()

    def _leave_if_alone(self) -> None:
        if not self._registered:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._stream = self._connection, None, ""
        if connection is not None:
            connection.close()

    async def _connect(self) -> None:
        if self._connection is not None:
            return
        connection = await self._open_stream(notifications.listen().encode())
        reading = QuestionStream()
        try:
            messages: list[Message] = []
            while not messages:
                messages = await _read(connection, reading)
            self._stream = str(messages[0].data["stream"])
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._take(messages[1:])
        self._start(self._serve(connection, reading), "notifications")

    async def _register(self, job_id: str, registration: AsyncRegistration) -> Result:
        try:
            return await self._set(job_id, registration)
        except BitsError as error:
            if error.name != "RPC_E_DISCONNECTED":
                raise
        self._drop()
        await self._connect()
        await self._register_all(other_than=job_id)
        return await self._set(job_id, registration)

    async def _set(self, job_id: str, registration: AsyncRegistration) -> Result:
        call = notifications.set_interface(job_id, self._stream, registration.number).then(result_of)
        result: Result = await self._perform(call)
        return result

    async def _register_all(self, other_than: str = "") -> None:
        for job_id, registration in list(self._registered.items()):
            if job_id == other_than:
                continue
            try:
                await self._set(job_id, registration)
            except BitsError as error:
                if error.name not in NOT_CURED_BY_WAITING:
                    raise
                log.warning("nothing more is heard of job %s: %s", job_id, error)
                self._registered.pop(job_id, None)

    async def _serve(self, connection: AsyncReader, reading: QuestionStream) -> None:
        reason = ""
        try:
            while True:
                self._take(await _read(connection, reading))
        except BitsError as error:
            reason = str(error)
        finally:
            connection.close()
        if self._connection is connection:
            self._connection, self._stream = None, ""
            log.info("the service has gone, and is waited for: %s", reason)
            await self._come_back()

    async def _come_back(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._registered:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            async with self._lock:
                if self._connection is not None or not self._registered:
                    return
                try:
                    await self._connect()
                    await self._register_all()
                except BitsError as error:
                    log.debug("the service is not back yet: %s", error)
                    self._drop()
                else:
                    return

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if message.type == "notice":
                notice = notice_from(message.data)
                self._start(self._hear(notice, self._stream), f"notification of {notice.job_id}")
            elif message.type == "over":
                job_id = str(message.data["job_id"])
                registration = self._registered.get(job_id)
                if registration is not None and registration.number == message.data["registration"]:
                    self.clear(job_id)

    async def _hear(self, notice: Notice, stream: str) -> None:
        turn = self._turns.setdefault(notice.job_id, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock, self._hands:
                await self._tell(notice, stream)
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                self._turns.pop(notice.job_id, None)

    async def _tell(self, notice: Notice, stream: str) -> None:
        registration = self._registered.get(notice.job_id)
        if registration is None or registration.number != notice.registration:
            return
        error: str | None = None
        message = ""
        try:
            result = registration.tell(notice)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise
        except Exception as failure:  # noqa: BLE001 - the task must outlive whatever the callback does
            error, message = word_of_failure(failure)
            log.warning("the callback of job %s failed: %s", notice.job_id, message or error)
        try:
            await self._perform(notifications.acknowledge(stream, notice.name, error, message))
        except BitsError as failure:
            log.info("the answer about job %s came to nothing: %s", notice.job_id, failure)

    def _start(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(connection: AsyncReader, reading: QuestionStream) -> list[Message]:
    reading.expect_more()
    try:
        async with asyncio.timeout(SILENCE_S):
            await connection.read_some(reading.reader)
    except TimeoutError:
        raise broken_call("it fell silent") from None
    except NoAnswer as error:
        raise broken_call("no answer came") from error
    return reading.take()
