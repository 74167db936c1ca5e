"""The blocking client: Manager, Job, File.  Safe for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator
from typing import Self

from openbits.client import certificates, notifications
from openbits.client.certificates import CertificateQuestion
from openbits.client.cloaking import settle_security
from openbits.client.discovery import Endpoint
from openbits.client.events import EventStream
from openbits.client.job_operations import JobOperations
from openbits.client.listening import close_all, listener_of
from openbits.client.notifications import teller
from openbits.client.objects import (
    ErrorOperations,
    FileOperations,
    ManagerOperations,
    TokenOptionsOperations,
    result_of,
)
from openbits.client.operations import Blocking
from openbits.client.peercaching import PeerCacheAdministration
from openbits.client.session import Session
from openbits.client.validation import NOT_CALLABLE, Validator
from openbits.client.values import SETTLED_STATES, Event, JobErrorInfo, JobState, Result, event_from
from openbits.errors import BitsError


class File(FileOperations, Blocking):
    """A file of a job (inventory section 3)."""


class JobError(ErrorOperations[File], Blocking):
    """The error of a job (inventory E1–E6)."""

    def _file(self, index: int) -> File:
        return File(self._session, self._job_id, index)


class TokenOptions(TokenOptionsOperations, Blocking):
    """The helper token of a job (inventory T1–T4)."""


class Job(JobOperations[File, JobError, TokenOptions], Blocking):
    """A job (inventory section 2). The object is live: each method asks the service."""

    _session: Session

    def _file(self, index: int) -> File:
        return File(self._session, self._id, index)

    def _error(self, info: JobErrorInfo) -> JobError:
        return JobError(self._session, self._id, info)

    def _token_options(self, capability: str) -> TokenOptions:
        return TokenOptions(self._session, self._id, capability)

    def set_server_certificate_validation_interface(
        self, callback: Callable[[Job, File, bytes, list[bytes]], bool | None] | None
    ) -> Result:
        """Let a function of this program judge servers' certificates (H12, 4.6), while the job is SUSPENDED.

        `callback(job, file, certificate, chain)` is asked in a thread of its own, before anything is sent to a server
        whose certificate the system has found to be in order: both are DER, the chain is what the server sent
        along. None or True accepts, for the life of the job. False refuses, and so does raising BitsError, whose
        error the job then has; the job is in TRANSIENT_ERROR and asks again with its next attempt. An answer may take
        60 seconds. The last program that is set counts, and only while it lives and its connection lasts: without it
        the job goes to ERROR with BG_E_SERVER_CERT_VALIDATION_INTERFACE_REQUIRED when there is something to judge;
        then suspend it, call this again, and resume it. None: nobody judges. Each call forgets what was accepted.
        Raises E_NOINTERFACE (not callable), BG_E_READ_ONLY_WHEN_JOB_ACTIVE (not SUSPENDED).
        """
        identity = self._call_identity()
        if callback is None:
            return self._session.perform(certificates.clear_validation(self._id).then(result_of), identity)
        if not callable(callback):
            raise BitsError("E_NOINTERFACE", NOT_CALLABLE)

        def judge(question: CertificateQuestion) -> bool | None:
            return callback(self, self._file(question.file_index), question.certificate, question.chain)

        Validator(self._session, identity, self._id, judge).start()
        return Result.S_OK

    def set_notify_interface(self, callback: object | None) -> Result:
        """Have this program told what becomes of the job (J18, N1-N8), also of what has happened already.

        `callback` is an object with some of the methods `job_transferred(job)`, `job_error(job, error)`,
        `job_modification(job)`, `file_transferred(job, file)` and `file_ranges_transferred(job, file, ranges)`, or a
        function that takes an openbits.Notification; None: nobody is told any more. Which of them are called the notify
        flags say (`set_notify_flags`). They run in threads of their own, four at once in a process and one after the
        other for each job. A callback that returns has taken note; one that raises is called again after a while, or
        the job's command line is run in its place. It may take 120 seconds: after that the program counts as none until
        it answers. The last program that is set counts, and only while it lives: BITS keeps no callbacks. A service
        that is started anew is told of them again.
        Raises E_NOINTERFACE (neither such an object nor a function), BG_E_INVALID_STATE (the job has ended).
        """
        identity = self._call_identity()
        if callback is None:
            result = self._session.perform(notifications.clear_interface(self._id).then(result_of), identity)
            listener_of(self._session, identity).clear(self._id)
            return result
        tell = teller(callback, self, file=self._file, error=self._error)
        return listener_of(self._session, identity).set(self._id, callback, tell)

    def get_notify_interface(self) -> object | None:
        """Return the callback that this manager has set for the job, as long as it counts (J18); None for none.

        Callbacks of other programs cannot be returned; `has_notify_interface` says whether there is any.
        """
        return listener_of(self._session, self._call_identity()).callback_of(self._id)

    def events(self) -> Generator[Event, None, None]:
        """Follow the job: first a snapshot of it, then every event and its progress, without end."""
        return _events(EventStream(self._session.pool, job_id=self._id, identity=self._call_identity()))

    def wait(self, states: Collection[JobState] = SETTLED_STATES, timeout: float | None = None) -> JobState:
        """Wait until the job is in one of `states` and return that state; raises TimeoutError.

        When nothing is said: until TRANSFERRED, ERROR, ACKNOWLEDGED or CANCELLED. A job that reaches a final state
        that was not asked for ends the wait as well, with that state: it can never reach another.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with EventStream(self._session.pool, job_id=self._id, identity=self._call_identity()) as stream:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                for message in stream.wait_messages(left):
                    event = event_from(message.type, message.data)
                    if event.job and (event.job.state in states or event.job.state.is_final):
                        return event.job.state
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"job {self._id} was not in one of the states after {timeout} s")


class Manager(ManagerOperations[Job], Blocking):
    """IBackgroundCopyManager: the way to the service (inventory section 1).

    `socket` is the path of its Unix socket; without it BITS_SOCKET, the system's service and the user's service are
    looked for, in that order, at the first call. Raises ERROR_SERVICE_NOT_ACTIVE there if none answers.
    """

    _session: Session

    def __init__(self, socket: str | None = None) -> None:
        settle_security()
        self._session = Session(Endpoint(socket))

    def __repr__(self) -> str:
        return f"<Manager {self._session!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and hear of no job any more; the manager may be used again."""
        close_all(self._session)
        self._session.close()

    def _job(self, job_id: str) -> Job:
        return Job(self._session, job_id)

    def peer_cache_administration(self) -> PeerCacheAdministration:
        """Return what manages the machine's peer caching (M6, C6). Its blanket is the process's default."""
        return PeerCacheAdministration(self._session)

    def events(self, *, all_users: bool = False, after: int | None = None) -> Generator[Event, None, None]:
        """Follow all jobs that the caller may see, without end; `after` 0 begins with the oldest event kept."""
        return _events(
            EventStream(self._session.pool, all_users=all_users, after=after, identity=self._call_identity())
        )


def _events(stream: EventStream) -> Generator[Event, None, None]:
    """What a stream brings; it connects when the first event is asked for, as whoever asked for the stream."""
    with stream:
        for message in stream:
            yield event_from(message.type, message.data)
