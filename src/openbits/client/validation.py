"""A program judges servers' certificates (H12, 4.6): what it is asked, and what its word is, for both clients.

The rule: only a plain yes accepts.  Whatever else a callback does, a refusal, an error of its own, a value that means
nothing, refuses, and is told to the service; a callback that is not there or does not return cannot accept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from openbits.client import certificates
from openbits.client.certificates import CertificateQuestion
from openbits.client.events import SILENCE_S, EventParser, Message, Refused
from openbits.client.http1 import ResponseReader
from openbits.client.identity import Identity
from openbits.client.session import Session
from openbits.client.transport import Answer, Connection, NoAnswer, broken_call
from openbits.errors import BitsError, is_failure

log = logging.getLogger(__name__)

REFUSED: Final = "BG_E_ERROR_CONTEXT_SERVER_CERTIFICATE_CALLBACK"
"""The error of a callback that says no and nothing else."""
NOT_CALLABLE: Final = "what is to check servers' certificates cannot be called: give a function, or None for nobody"
BROKEN: Final = "E_FAIL"
"""The error of a callback that fails itself."""

Judge = Callable[[CertificateQuestion], Any]


def word_of(result: object) -> tuple[str | None, str]:
    """Return the error and the message that a callback's result stands for; no error accepts."""
    if result is None or result is True:
        return None, ""
    if result is False:
        return REFUSED, ""
    return BROKEN, f"it returned {result!r:.80}, which is neither None, True nor False"


def word_of_failure(error: BaseException) -> tuple[str, str]:
    """Return the same for what a callback raised."""
    if isinstance(error, BitsError) and is_failure(error.name):
        return error.name, error.message
    return BROKEN, f"it failed: {type(error).__name__}: {error}"[:400]


class QuestionStream:
    """What comes over the connection of a program that judges, without I/O."""

    def __init__(self) -> None:
        self.reader = ResponseReader()
        self.is_over = False
        self._parser = EventParser()

    def take(self) -> list[Message]:
        """Return the messages that have come since the last call; raises the BitsError of a refusal."""
        if self.reader.status not in (0, 200):
            if not self.reader.done:
                return []
            raise Refused(Answer(self.reader.status, self.reader.headers, self.reader.take_body())).error()
        messages = self._parser.feed(self.reader.take_body())
        self.is_over = self.is_over or any(message.type == "over" for message in messages)
        return messages

    def expect_more(self) -> None:
        """Raises RPC_S_CALL_FAILED where nothing can come any more."""
        if self.reader.done:
            raise broken_call("it asks no more, and does not say why")


def request_of(job_id: str) -> bytes:
    """Return the request that sets a program."""
    return certificates.begin_validation(job_id).encode()


class Validator:
    """A thread that judges for one job, as long as the service asks and the process lives."""

    def __init__(self, session: Session, identity: Identity, job_id: str, judge: Judge) -> None:
        self._session = session
        self._identity = identity
        self._job_id = job_id
        self._judge = judge
        self._stream = QuestionStream()
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<Validator of job {self._job_id}>"

    def start(self) -> None:
        """Become the program that is asked; raises BitsError."""
        self._connection = self._session.pool.open_stream(request_of(self._job_id), self._identity)
        _alive.add(self)
        try:
            messages: list[Message] = []
            while not messages:
                messages = self._read()
        except BaseException:
            self.close()
            raise
        thread = threading.Thread(
            target=self._serve, args=(messages,), name=f"certificates of {self._job_id}", daemon=True
        )
        thread.start()

    def close(self) -> None:
        """Let go of the connection: for the service the program is gone."""
        if self._connection is not None:
            self._connection.close()

    def _read(self) -> list[Message]:
        assert self._connection is not None
        self._stream.expect_more()
        try:
            self._connection.read_some(self._stream.reader, time.monotonic() + SILENCE_S)
        except TimeoutError:
            raise broken_call("it fell silent") from None
        except NoAnswer as error:
            raise broken_call("no answer came") from error
        return self._stream.take()

    def _serve(self, messages: list[Message]) -> None:
        try:
            while True:
                for message in messages:
                    if message.type == "question":
                        self._answer(certificates.question_from(message.data))
                if self._stream.is_over:
                    return
                messages = self._read()
        except BitsError as error:
            log.warning("nobody checks servers' certificates for job %s any more: %s", self._job_id, error)
        finally:
            self.close()

    def _answer(self, question: CertificateQuestion) -> None:
        error: str | None
        try:
            error, message = word_of(self._judge(question))
        except BaseException as failure:  # noqa: BLE001 - the thread must outlive whatever the callback does
            error, message = word_of_failure(failure)
        call = certificates.answer_question(self._job_id, question.name, error, message)
        try:
            self._session.perform(call, self._identity)
        except BitsError as failure:
            log.warning("the answer about the certificate of %s came to nothing: %s", question.server, failure)


_alive: Final[weakref.WeakSet[Validator]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # The parent judges, and its death must show at once: a child that held the connection would hide it.
    with contextlib.suppress(RuntimeError):
        for validator in list(_alive):
            validator.close()


os.register_at_fork(after_in_child=_let_go_in_child)
