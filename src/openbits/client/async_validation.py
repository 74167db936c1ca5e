"""The asyncio twin of `validation`: a task that judges servers' certificates, by the same rule."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from openbits.client import certificates
from openbits.client.calls import Call
from openbits.client.certificates import CertificateQuestion
from openbits.client.events import SILENCE_S, Message
from openbits.client.http1 import ResponseReader
from openbits.client.transport import NoAnswer, broken_call
from openbits.client.validation import Judge, QuestionStream, word_of, word_of_failure
from openbits.errors import BitsError

log = logging.getLogger(__name__)


class AsyncReader(Protocol):
    """A connection of the asyncio client, as far as reading goes."""

    def close(self) -> None:
        """Close it."""

    async def read_some(self, reader: ResponseReader) -> None:
        """Wait for bytes and feed them to the reader."""


class AsyncValidator:
    """The same as a task of an event loop."""

    def __init__(
        self, connection: AsyncReader, job_id: str, judge: Judge, tell: Callable[[Call[Any]], Awaitable[Any]]
    ) -> None:
        self._connection = connection
        self._job_id = job_id
        self._judge = judge
        self._tell = tell
        self._stream = QuestionStream()

    async def start(self) -> None:
        """Wait until the program is the one that is asked, and go on in the background; raises BitsError."""
        try:
            messages: list[Message] = []
            while not messages:
                messages = await self._read()
        except BaseException:
            self._connection.close()
            raise
        task = asyncio.get_running_loop().create_task(self._serve(messages), name=f"certificates of {self._job_id}")
        # A loop holds its tasks weakly.
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _read(self) -> list[Message]:
        self._stream.expect_more()
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._connection.read_some(self._stream.reader)
        except TimeoutError:
            raise broken_call("it fell silent") from None
        except NoAnswer as error:
            raise broken_call("no answer came") from error
        return self._stream.take()

    async def _serve(self, messages: list[Message]) -> None:
        try:
            while True:
                for message in messages:
                    if message.type == "question":
                        await self._answer(certificates.question_from(message.data))
                if self._stream.is_over:
                    return
                messages = await self._read()
        except BitsError as error:
            log.warning("nobody checks servers' certificates for job %s any more: %s", self._job_id, error)
        finally:
            self._connection.close()

    async def _answer(self, question: CertificateQuestion) -> None:
        error: str | None
        try:
            result = self._judge(question)
            error, message = word_of(await result if inspect.isawaitable(result) else result)
        except asyncio.CancelledError:
            raise
        except Exception as failure:  # noqa: BLE001 - the task must outlive whatever the callback does
            error, message = word_of_failure(failure)
        try:
            await self._tell(certificates.answer_question(self._job_id, question.name, error, message))
        except BitsError as failure:
            log.warning("the answer about the certificate of %s came to nothing: %s", question.server, failure)


_tasks: Final[set[asyncio.Task[None]]] = set()
