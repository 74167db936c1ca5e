"""A program hears what has become of its jobs (J18, N4-N7): one connection for all of them, four callbacks at once.

The rules:

- The connection is the program: while it lasts, the service tells it what happens, one thing after the other for each
  job, and each again until it is acknowledged.  A callback that returns acknowledges, one that raises does not.
- A service that has gone is waited for, and told again which jobs the program hears of: BITS keeps no callbacks.
- A child of the process hears nothing: its parent's death must show at once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.client import notifications
from openbits.client.events import SILENCE_S, Message
from openbits.client.identity import Identity
from openbits.client.notifications import AT_ONCE, Notice, notice_from, word_of_failure
from openbits.client.objects import result_of
from openbits.client.session import Session
from openbits.client.transport import Connection, NoAnswer, broken_call
from openbits.client.validation import QuestionStream
from openbits.client.values import Result
from openbits.errors import BitsError

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
NOT_CURED_BY_WAITING: Final = frozenset({"BG_E_NOT_FOUND", "BG_E_INVALID_STATE", "E_ACCESSDENIED"})
numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Registration:
    """A callback of a job; `callback` is what the program gave."""

    number: int
    callback: object
    tell: Callable[[Notice], None]


class Hands:
    """The threads that run callbacks: at most four in a process, and one thing at a time for each job (N6)."""

    def __init__(self, most: int = AT_ONCE) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._work: dict[str, deque[Callable[[], None]]] = {}
        self._ready: deque[str] = deque()
        self._threads = 0
        self._idle = 0

    def do(self, job_id: str, work: Callable[[], None]) -> None:
        """Do something for a job when what came before it is done; `work` must not raise."""
        with self._changed:
            waiting = self._work.get(job_id)
            if waiting is not None:
                waiting.append(work)
                return
            self._work[job_id] = deque([work])
            self._ready.append(job_id)
            if self._idle < len(self._ready) and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"notifications {self._threads}", daemon=True).start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._ready:
                    self._changed.wait()
                self._idle -= 1
                job_id = self._ready.popleft()
                work = self._work[job_id][0]
            work()
            with self._changed:
                waiting = self._work[job_id]
                waiting.popleft()
                if waiting:
                    self._ready.append(job_id)
                else:
                    del self._work[job_id]


class Listener:
    """What one account's programs of one manager hear."""

    def __init__(self, session: Session, identity: Identity) -> None:
        self._session = session
        self._identity = identity
        self._lock = threading.RLock()
        """Held by whoever registers, or connects anew."""
        self._registered: dict[str, Registration] = {}
        self._connection: Connection | None = None
        self._stream = ""
        self._reading = QuestionStream()
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Listener of {len(self._registered)} jobs>"

    def set(self, job_id: str, callback: object, tell: Callable[[Notice], None]) -> Result:
        """Hear of a job from now on; raises BitsError."""
        with self._lock:
            former = self._registered.get(job_id)
            mine = Registration(next(numbers), callback, tell)
            self._registered[job_id] = mine
            try:
                self._connect()
                return self._register(job_id, mine)
            except BaseException:
                if former is None:
                    del self._registered[job_id]
                else:
                    self._registered[job_id] = former
                raise

    def clear(self, job_id: str) -> None:
        """Hear nothing of a job any more; whoever calls has told the service."""
        with self._lock:
            self._registered.pop(job_id, None)
            self._leave_if_alone()

    def callback_of(self, job_id: str) -> object:
        """The callback that the program gave for a job; None where there is none, or none any more."""
        registration = self._registered.get(job_id)
        return None if registration is None else registration.callback

    def close(self) -> None:
        """Hear nothing of any job any more."""
        with self._lock:
            self._registered.clear()
            self._leave_if_alone()

    def let_go(self) -> None:
        """After a fork: the connection, the callbacks and the thread are the parent's."""
        if self._connection is not None:
            self._connection.close()
        self._lock = threading.RLock()
        self._registered, self._connection, self._stream, self._thread = {}, None, "", None

    # --- the connection -------------------------------------------------------------------------------------

    def _leave_if_alone(self) -> None:
        if not self._registered and self._connection is not None:
            connection, self._connection, self._stream = self._connection, None, ""
            self._is_closed.set()
            # Its thread sees the end.
            connection.shut_down()

    def _connect(self) -> None:
        """Be a program that the service knows; raises BitsError."""
        if self._connection is not None:
            return
        self._is_closed = threading.Event()
        connection = self._session.pool.open_stream(notifications.listen().encode(), self._identity)
        reading = QuestionStream()
        try:
            messages: list[Message] = []
            while not messages:
                messages = _read(connection, reading)
            self._stream = str(messages[0].data["stream"])
        except BaseException:
            connection.close()
            raise
        self._connection, self._reading = connection, reading
        _alive.add(self)
        self._take(messages[1:])
        thread = threading.Thread(
            target=self._serve, args=(connection, reading, self._is_closed), name="notifications", daemon=True
        )
        self._thread = thread
        thread.start()

    def _register(self, job_id: str, registration: Registration) -> Result:
        call = notifications.set_interface(job_id, self._stream, registration.number).then(result_of)
        try:
            return self._session.perform(call, self._identity)
        except BitsError as error:
            if error.name != "RPC_E_DISCONNECTED":
                raise
        # The service is another one than a moment ago, and its predecessor's stream has not been read to its end yet.
        self._drop()
        self._connect()
        self._register_all(other_than=job_id)
        call = notifications.set_interface(job_id, self._stream, registration.number).then(result_of)
        return self._session.perform(call, self._identity)

    def _drop(self) -> None:
        connection, self._connection, self._stream = self._connection, None, ""
        if connection is not None:
            connection.shut_down()

    def _register_all(self, other_than: str = "") -> None:
        for job_id, registration in list(self._registered.items()):
            if job_id == other_than:
                continue
            call = notifications.set_interface(job_id, self._stream, registration.number)
            try:
                self._session.perform(call, self._identity)
            except BitsError as error:
                if error.name not in NOT_CURED_BY_WAITING:
                    raise
                log.warning("nothing more is heard of job %s: %s", job_id, error)
                self._registered.pop(job_id, None)

    # --- what comes -----------------------------------------------------------------------------------------

    def _serve(self, connection: Connection, reading: QuestionStream, is_closed: threading.Event) -> None:
        reason = ""
        try:
            while True:
                self._take(_read(connection, reading))
        except BitsError as error:
            reason = str(error)
        finally:
            connection.close()
        with self._lock:
            if self._connection is not connection:
                # Somebody has connected anew already, or nobody wants to hear anything.
                return
            self._connection, self._stream = None, ""
        if not is_closed.is_set():
            log.info("the service has gone, and is waited for: %s", reason)
            self._come_back(is_closed)

    def _come_back(self, is_closed: threading.Event) -> None:
        pause_s = FIRST_PAUSE_S
        while not is_closed.wait(pause_s):
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            with self._lock:
                if self._connection is not None or not self._registered:
                    return
                try:
                    self._connect()
                    self._register_all()
                except BitsError as error:
                    log.debug("the service is not back yet: %s", error)
                    self._drop()
                else:
                    return

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if message.type == "notice":
                notice = notice_from(message.data)
                _hands.do(notice.job_id, functools.partial(self._hear, notice, self._stream))
            elif message.type == "over":
                self._over(str(message.data["job_id"]), int(message.data["registration"]))

    def _over(self, job_id: str, number: int) -> None:
        registration = self._registered.get(job_id)
        if registration is not None and registration.number == number:
            with self._lock:
                if self._registered.get(job_id) is registration:
                    del self._registered[job_id]
                    self._leave_if_alone()

    def _hear(self, notice: Notice, stream: str) -> None:
        registration = self._registered.get(notice.job_id)
        if registration is None or registration.number != notice.registration:
            return
        error: str | None = None
        message = ""
        try:
            registration.tell(notice)
        except BaseException as failure:  # noqa: BLE001 - the thread must outlive whatever the callback does
            error, message = word_of_failure(failure)
            log.warning("the callback of job %s failed: %s", notice.job_id, message or error)
        try:
            self._session.perform(notifications.acknowledge(stream, notice.name, error, message), self._identity)
        except BitsError as failure:
            # It is told again, to whoever listens then.
            log.info("the answer about job %s came to nothing: %s", notice.job_id, failure)


def _read(connection: Connection, reading: QuestionStream) -> list[Message]:
    reading.expect_more()
    try:
        connection.read_some(reading.reader, time.monotonic() + SILENCE_S)
    except TimeoutError:
        raise broken_call("it fell silent") from None
    except NoAnswer as error:
        raise broken_call("no answer came") from error
    return reading.take()


_hands = Hands()
_alive: Final[weakref.WeakSet[Listener]] = weakref.WeakSet()
_making: Final = threading.Lock()


def listener_of(session: Session, identity: Identity) -> Listener:
    """Return the listener of a manager for an identity: one connection for all jobs."""
    with _making:
        found = session.listeners.get(identity)
        if found is None:
            found = session.listeners[identity] = Listener(session, identity)
        return found


def close_all(session: Session) -> None:
    """Let a manager hear nothing any more."""
    for listener in list(session.listeners.values()):
        listener.close()


def _let_go_in_child() -> None:
    global _hands  # noqa: PLW0603 - its threads are the parent's
    _hands = Hands()
    with contextlib.suppress(RuntimeError):
        for listener in list(_alive):
            listener.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
