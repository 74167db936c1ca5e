"""The asyncio twin of the client: the same calls and the same objects, awaited.

Calls, scripts, parsers and methods are shared with the blocking client; only the bytes travel by asyncio
streams here.  Threads (asyncio.to_thread) would have been less code, but a call must carry the identity of the
thread that makes it, and a wait must end at once when it is cancelled.

A call's identity is settled when the method is called, not when it is awaited, and connections are opened without
giving way to the loop.  So `with impersonate(...): pending = job.resume()` and `await pending` after the block
carries what it should.  To await *inside* the block would let the loop run everybody's tasks as somebody else: a call
that is awaited there is refused (E_ILLEGAL_METHOD_CALL).  STATIC blankets need no block at all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Generator
from contextlib import aclosing
from typing import Any, Self, TypeVar

from openbits.client import certificates, notifications
from openbits.client.async_listening import AsyncListener
from openbits.client.async_validation import AsyncValidator
from openbits.client.calls import Call, Script, events_target, stream_request
from openbits.client.cloaking import settle_security
from openbits.client.discovery import Endpoint
from openbits.client.events import SILENCE_S, EventParser, Message, Reconnect, Refused
from openbits.client.http1 import MalformedResponse, ResponseReader
from openbits.client.identity import Identity, base_identity, is_impersonated_on_event_loop
from openbits.client.job_operations import JobOperations
from openbits.client.notifications import teller
from openbits.client.objects import (
    ErrorOperations,
    FileOperations,
    ManagerOperations,
    TokenOptionsOperations,
    result_of,
)
from openbits.client.operations import Asynchronous
from openbits.client.peercaching import AsyncPeerCacheAdministration
from openbits.client.pool import Holder, Reserve, connect_as
from openbits.client.transport import CALL_TIMEOUT_S, READ_SIZE_BYTES, Answer, NoAnswer, StaleConnection, broken_call
from openbits.client.validation import NOT_CALLABLE, request_of
from openbits.client.values import SETTLED_STATES, Event, JobErrorInfo, JobState, Result, event_from
from openbits.errors import BitsError

T = TypeVar("T")


class AsyncConnection:
    """A connection that carries one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, endpoint: Endpoint, identity: Identity) -> Self:
        """Connect as `identity`; raises what `connect_as` raises."""
        # Connecting to a Unix socket takes microseconds; nothing else may run while the thread wears the identity.
        sock = connect_as(endpoint, identity).detach()
        sock.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def is_stale(self) -> bool:
        """Whether the service has closed the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def send(self, request: bytes) -> None:
        """Send a whole request; raises StaleConnection if that did not go."""
        try:
            self._writer.write(request)
            await self._writer.drain()
        except ConnectionError as error:
            raise StaleConnection from error

    async def read_some(self, reader: ResponseReader) -> None:
        """Wait for bytes and feed them to the reader; raises NoAnswer or BitsError."""
        try:
            data = await self._reader.read(READ_SIZE_BYTES)
        except OSError as error:
            if not reader.started:
                raise NoAnswer from error
            raise broken_call(error.strerror) from error
        if not data:
            if not reader.started:
                raise NoAnswer
            raise broken_call("its answer ended in the middle")
        try:
            reader.feed(data)
        except MalformedResponse as error:
            raise broken_call(error) from error


class AsyncSession:
    """Carries out calls and scripts on the event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._reserve: Reserve[AsyncConnection] = Reserve()
        self._pid = os.getpid()
        self._listeners: dict[Identity, AsyncListener] = {}

    def __repr__(self) -> str:
        return f"<AsyncSession {self.endpoint!r}, {self._reserve.statistics()['idle']} idle>"

    async def perform(self, work: Call[T] | Script[T], identity: Identity | None = None) -> T:
        """Carry out a call or a script as `identity` and return its result; raises BitsError."""
        self.check()
        caller = base_identity() if identity is None else identity
        if isinstance(work, Call):
            return work.result(await self._exchange(work.encode(), caller, repeatable=work.repeatable))
        return await self._run(work, caller)

    def listener(self, identity: Identity) -> AsyncListener:
        """Return who hears what becomes of jobs, as `identity`: one connection for all jobs."""
        found = self._listeners.get(identity)
        if found is None:

            async def open_stream(request: bytes) -> AsyncConnection:
                self.check()
                connection = await AsyncConnection.open(self.endpoint, identity)
                try:
                    await connection.send(request)
                except StaleConnection as error:
                    connection.close()
                    raise broken_call("it closes every connection") from error
                return connection

            found = self._listeners[identity] = AsyncListener(
                open_stream, lambda call: self.perform_apart(call, identity)
            )
        return found

    async def perform_apart(self, call: Call[T], identity: Identity) -> T:
        """Carry out a call on a connection of its own, which may outlive the session's; raises BitsError."""
        connection = await AsyncConnection.open(self.endpoint, identity)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await connection.send(call.encode())
                reader = ResponseReader()
                while not reader.done:
                    await connection.read_some(reader)
        except (StaleConnection, NoAnswer, TimeoutError) as error:
            raise broken_call("no answer came") from error
        finally:
            connection.close()
        return call.result(Answer(reader.status, reader.headers, reader.take_body()))

    def check(self) -> None:
        """Whether the loop may wait here; raises E_ILLEGAL_METHOD_CALL."""
        if is_impersonated_on_event_loop():
            raise BitsError(
                "E_ILLEGAL_METHOD_CALL",
                "awaited inside impersonate(), which would let the event loop run other tasks as that account: call"
                " inside the block and await after it, or set a blanket with Cloaking.STATIC",
            )
        if self._pid != os.getpid():
            raise BitsError(
                "E_ILLEGAL_METHOD_CALL", "an asyncio Manager belongs to its process: make another one after a fork"
            )

    def close(self) -> None:
        """Close the idle connections, and those that hear of jobs."""
        for listener in self._listeners.values():
            listener.close()
        self._reserve.close()

    async def _run(self, script: Generator[Call[Any], Any, T], caller: Identity) -> T:
        try:
            call = next(script)
            while True:
                try:
                    result = await self.perform(call, caller)
                except BitsError as error:
                    call = script.throw(error)
                else:
                    call = script.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _exchange(self, request: bytes, caller: Identity, *, repeatable: bool) -> Answer:
        """Send a request and return the answer; the module `transport` says when it is sent twice."""
        holder = Holder.now()
        connection = self._reserve.take(caller, holder) or await AsyncConnection.open(self.endpoint, caller)
        for attempt in (1, 2):
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await connection.send(request)
                    reader = ResponseReader()
                    while not reader.done:
                        await connection.read_some(reader)
            except (StaleConnection, NoAnswer) as error:
                connection.close()
                unsent = isinstance(error, StaleConnection)
                if attempt == 2 or not (unsent or repeatable):
                    raise broken_call("no answer came") from error
            except TimeoutError as error:
                connection.close()
                raise broken_call("no answer came in time") from error
            except BaseException:
                connection.close()
                raise
            else:
                if reader.keep_alive:
                    self._reserve.put(caller, holder, connection)
                else:
                    connection.close()
                return Answer(reader.status, reader.headers, reader.take_body())
            connection = await AsyncConnection.open(self.endpoint, caller)
        raise AssertionError("the loop ends by itself")


async def _messages(
    session: AsyncSession,
    caller: Identity,
    *,
    job_id: str | None = None,
    all_users: bool = False,
    after: int | None = None,
) -> AsyncGenerator[Message, None]:
    """Follow the event stream, taking it up again where it broke off (see `events`)."""
    parser, reconnect = EventParser(), Reconnect()
    was_connected = False
    while True:
        session.check()
        try:
            begin = after if parser.last_id is None else None
            target = events_target(job_id=job_id, all_users=all_users, after=begin)
            connection = await AsyncConnection.open(session.endpoint, caller)
            was_connected = True
            try:
                await connection.send(stream_request(target, parser.last_id))
                parser.begin()
                async for message in _read_messages(connection, parser):
                    reconnect.succeeded()
                    yield message
            finally:
                connection.close()
        except Refused as refused:
            raise refused.error() from None
        except (NoAnswer, StaleConnection, BitsError) as error:
            pause_s = reconnect.pause_after_failure(time.monotonic()) if was_connected else None
            if pause_s is None:
                raise error if isinstance(error, BitsError) else broken_call("its events end at once") from error
            await asyncio.sleep(pause_s)


async def _read_messages(connection: AsyncConnection, parser: EventParser) -> AsyncIterator[Message]:
    reader = ResponseReader()
    while not reader.done:
        try:
            async with asyncio.timeout(SILENCE_S):
                await connection.read_some(reader)
        except TimeoutError:
            raise broken_call("it fell silent") from None
        if reader.status == 200:
            for message in parser.feed(reader.take_body()):
                yield message
    if reader.status != 200:
        raise Refused(Answer(reader.status, reader.headers, reader.take_body()))
    raise NoAnswer


class File(FileOperations, Asynchronous):
    """A file of a job; as openbits.File, awaited."""


class JobError(ErrorOperations[File], Asynchronous):
    """The error of a job; as openbits.JobError, awaited."""

    def _file(self, index: int) -> File:
        return File(self._session, self._job_id, index)


class TokenOptions(TokenOptionsOperations, Asynchronous):
    """The helper token of a job; as openbits.TokenOptions, awaited."""


class Job(JobOperations[File, JobError, TokenOptions], Asynchronous):
    """A job; as openbits.Job, awaited."""

    _session: AsyncSession

    def _file(self, index: int) -> File:
        return File(self._session, self._id, index)

    def _error(self, info: JobErrorInfo) -> JobError:
        return JobError(self._session, self._id, info)

    def _token_options(self, capability: str) -> TokenOptions:
        return TokenOptions(self._session, self._id, capability)

    def set_server_certificate_validation_interface(
        self, callback: Callable[[Job, File, bytes, list[bytes]], Awaitable[bool | None] | bool | None] | None
    ) -> Coroutine[Any, Any, Result]:
        """Let a function judge servers' certificates; as openbits.Job's, awaited.

        A coroutine function is awaited; a plain one is called on the event loop. It is asked as long as the loop runs.
        """
        return self._set_validation(callback, self._call_identity())

    async def _set_validation(self, callback: Callable[..., Any] | None, identity: Identity) -> Result:
        session = self._session
        if callback is None:
            return await session.perform(certificates.clear_validation(self._id).then(result_of), identity)
        if not callable(callback):
            raise BitsError("E_NOINTERFACE", NOT_CALLABLE)
        judge = callback
        session.check()
        connection = await AsyncConnection.open(session.endpoint, identity)
        try:
            await connection.send(request_of(self._id))
        except StaleConnection as error:
            raise broken_call("it closes every connection") from error
        await AsyncValidator(
            connection,
            self._id,
            lambda asked: judge(self, self._file(asked.file_index), asked.certificate, asked.chain),
            lambda call: session.perform_apart(call, identity),
        ).start()
        return Result.S_OK

    def set_notify_interface(self, callback: object | None) -> Coroutine[Any, Any, Result]:
        """Have this program told what becomes of the job; as openbits.Job's, awaited.

        Coroutines are awaited, plain functions are called on the event loop. It is told as long as the loop runs.
        """
        return self._set_notify_interface(callback, self._call_identity())

    async def _set_notify_interface(self, callback: object | None, identity: Identity) -> Result:
        session = self._session
        if callback is None:
            result = await session.perform(notifications.clear_interface(self._id).then(result_of), identity)
            session.listener(identity).clear(self._id)
            return result
        tell = teller(callback, self, file=self._file, error=self._error)
        session.check()
        return await session.listener(identity).set(self._id, callback, tell)

    def get_notify_interface(self) -> object | None:
        """Return the callback that this manager has set for the job; as openbits.Job's, at once."""
        return self._session.listener(self._call_identity()).callback_of(self._id)

    def events(self) -> AsyncGenerator[Event, None]:
        """Follow the job: first a snapshot of it, then every event and its progress, without end."""
        return _events(_messages(self._session, self._call_identity(), job_id=self._id))

    def wait(
        self, states: Collection[JobState] = SETTLED_STATES, timeout: float | None = None
    ) -> Coroutine[Any, Any, JobState]:
        """Wait until the job is in one of `states`, or in a final one; raises TimeoutError."""
        return _wait(self.events(), states, timeout)


class Manager(ManagerOperations[Job], Asynchronous):
    """The way to the service; as openbits.Manager, awaited. Belongs to one event loop."""

    _session: AsyncSession

    def __init__(self, socket: str | None = None) -> None:
        settle_security()
        self._session = AsyncSession(Endpoint(socket))

    def __repr__(self) -> str:
        return f"<Manager {self._session!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the manager may be used again."""
        self._session.close()

    def _job(self, job_id: str) -> Job:
        return Job(self._session, job_id)

    def peer_cache_administration(self) -> AsyncPeerCacheAdministration:
        """Return what manages the machine's peer caching; as openbits.Manager's, awaited."""
        return AsyncPeerCacheAdministration(self._session)

    def events(self, *, all_users: bool = False, after: int | None = None) -> AsyncGenerator[Event, None]:
        """Follow all jobs that the caller may see, without end; `after` 0 begins with the oldest event kept."""
        return _events(_messages(self._session, self._call_identity(), all_users=all_users, after=after))


async def _events(messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Event, None]:
    async with aclosing(messages):
        async for message in messages:
            yield event_from(message.type, message.data)


async def _wait(events: AsyncGenerator[Event, None], states: Collection[JobState], timeout_s: float | None) -> JobState:
    async with asyncio.timeout(timeout_s), aclosing(events):
        async for event in events:
            if event.job and (event.job.state in states or event.job.state.is_final):
                return event.job.state
    raise AssertionError("the event stream has no end")
