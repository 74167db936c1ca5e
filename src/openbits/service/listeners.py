"""Programs that take notifications: who they are, for which jobs, and what they have acknowledged (J18, N4-N7).

The rules:

- A program is one connection for all its jobs, and there for as long as that lasts. Nothing of it is written down.
- Of a job one program is told at a time: the last that was set, also when the job changes hands (N7).
- What it is told has a name that nobody can guess, and is acknowledged by that, by its own account only.
- A program that has not answered in time counts as none for that job, and with as many answers outstanding as it may
  be asked at once for all of its jobs, until it answers or is set anew.  A late answer counts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from openbits.core import access
from openbits.core.model import Caller, Job
from openbits.core.telling import Presence, Subject
from openbits.errors import BitsError, is_failure

log = logging.getLogger(__name__)

Reason = Literal["replaced", "cleared", "ended"]
AT_ONCE: Final = 4
"""How much is told at once for an account (N6)."""
MOST_STREAMS: Final = 16
"""So many programs of one account may listen; a program needs one for each identity that it has."""
MOST_UNREAD: Final = 20_000
"""Jobs end by the thousand; but a program that has left so much unread does not read at all, and is let go."""
LONGEST_MESSAGE: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a telling ended; an empty error means that it was acknowledged."""

    error: str = ""
    message: str = ""
    status: int | None = None
    """A program's exit status, negative for a signal, or a server's HTTP status."""
    was_launched: bool = True
    """False for a program that could not be started (N11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldProgram:
    """A notice for a program."""

    name: str
    job: Job
    subject: Subject
    registration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """The program is told nothing more of this job."""

    job_id: str
    reason: Reason
    registration: int


class Gone(Exception):
    """The program has gone, or listens to this job no more, before it had answered."""


@dataclass(eq=False, slots=True)
class Stream:
    """A program that listens, from its first call until its connection ends."""

    name: str = field(repr=False)
    caller: Caller
    messages: asyncio.Queue[ToldProgram | Detached | None] = field(default_factory=asyncio.Queue)
    jobs: dict[str, int] = field(default_factory=dict)
    """With the number that the program gave to its call for the job: it may set itself again and again."""
    asked: int = 0
    """How many answers are outstanding …"""
    overdue: int = 0
    """… and how many of them have taken too long."""
    waits: set[str] = field(default_factory=set)
    """Jobs that there is something to tell of as soon as it can hear more."""

    async def next_message(self) -> ToldProgram | Detached | None:
        """Wait for what it is to be told; None says that nothing comes any more."""
        return await self.messages.get()


@dataclass(eq=False, slots=True)
class _Open:
    """A notice that waits for its answer."""

    stream: Stream
    job_id: str
    subject: Subject
    answer: asyncio.Future[Told]
    is_overdue: bool = False


class Listeners:
    """See the module's rules; `late` is told of answers that came after their time, `changed` of jobs to look at."""

    def __init__(
        self,
        *,
        job: Callable[[str], Job | None],
        changed: Callable[[str], None],
        late: Callable[[str, Subject, Told], None],
    ) -> None:
        self._job = job
        self._changed = changed
        self._late = late
        self._streams: dict[str, Stream] = {}
        self._by_uid: Counter[int] = Counter()
        self._listening: dict[str, Stream] = {}
        """By job."""
        self._open: dict[str, _Open] = {}
        self._overdue: dict[str, _Open] = {}
        """By job: what its program has not answered in time; of one job only one thing is told at a time."""

    def __repr__(self) -> str:
        return f"<Listeners {self.statistics()}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"listening_programs": len(self._streams), "listened_jobs": len(self._listening)}

    # --- calls ----------------------------------------------------------------------------------------

    def open(self, caller: Caller) -> Stream:
        """A program begins to listen. Raises E_ILLEGAL_METHOD_CALL when its account has as many as it may have."""
        uid = caller.identity.uid
        if self._by_uid[uid] >= MOST_STREAMS:
            raise BitsError(
                "E_ILLEGAL_METHOD_CALL",
                f"{MOST_STREAMS} programs of the account listen already: one of them has to end first",
            )
        self._by_uid[uid] += 1
        stream = Stream(name=secrets.token_hex(16), caller=caller)
        self._streams[stream.name] = stream
        return stream

    def leave(self, stream: Stream) -> None:
        """The program has gone."""
        if self._streams.pop(stream.name, None) is None:
            return
        uid = stream.caller.identity.uid
        self._by_uid[uid] -= 1
        if not self._by_uid[uid]:
            del self._by_uid[uid]
        stream.messages.put_nowait(None)
        for job_id in tuple(stream.jobs):
            self._part(job_id)
            self._changed(job_id)

    def attach(self, caller: Caller, job_id: str, stream_name: str, registration: int = 0) -> Job:
        """SetNotifyInterface (J18): from now on this program is told of the job.

        Raises BG_E_NOT_FOUND, E_ACCESSDENIED, BG_E_INVALID_STATE (it has ended), RPC_E_DISCONNECTED (the program's
        connection is gone).
        """
        job = self._changeable(caller, job_id)
        stream = self._streams.get(stream_name)
        if stream is None or stream.caller.identity.uid != caller.identity.uid:
            raise BitsError("RPC_E_DISCONNECTED", "the service does not know this program: open its connection anew")
        self._part(job_id, "replaced", unless=stream)
        self._listening[job_id] = stream
        stream.jobs[job_id] = registration
        self._changed(job_id)
        return job

    def clear(self, caller: Caller, job_id: str) -> Job:
        """SetNotifyInterface with NULL (J18): no program is told any more."""
        job = self._changeable(caller, job_id)
        self._part(job_id, "cleared")
        self._changed(job_id)
        return job

    def acknowledge(self, caller: Caller, stream_name: str, notice: str, error: str, message: str) -> None:
        """Take a program's answer; an empty error acknowledges. Raises RPC_E_DISCONNECTED, E_INVALIDARG."""
        stream = self._streams.get(stream_name)
        if stream is None or stream.caller.identity.uid != caller.identity.uid:
            raise BitsError("RPC_E_DISCONNECTED", "the service does not know this program: open its connection anew")
        asked = self._open.get(notice)
        if asked is None or asked.stream is not stream:
            raise BitsError("E_INVALIDARG", "nobody waits for this answer: it was given, or the program was replaced")
        if error and not is_failure(error):
            raise BitsError("E_INVALIDARG", f"{ascii(error)[:80]} is not the name of an error")
        told = Told(error=error, message=" ".join(message.split())[:LONGEST_MESSAGE])
        self._answered(notice)
        if asked.is_overdue:
            self._no_longer_overdue(asked)
            self._late(asked.job_id, asked.subject, told)
        elif not asked.answer.done():
            asked.answer.set_result(told)

    def _changeable(self, caller: Caller, job_id: str) -> Job:
        job = access.existing(self._job(job_id))
        access.may_change(caller, job.owner)
        if job.state.is_final:
            raise BitsError(
                "BG_E_INVALID_STATE", f"the job is {job.state.name}: there is nothing to tell of it any more"
            )
        return job

    # --- telling --------------------------------------------------------------------------------------

    def presence(self, job_id: str) -> Presence:
        """Whether a program is there for a job, and answers."""
        stream = self._listening.get(job_id)
        if stream is None:
            return Presence.ABSENT
        is_silent = job_id in self._overdue or stream.overdue >= AT_ONCE
        return Presence.INVALID if is_silent else Presence.VALID

    def is_there(self, job_id: str) -> bool:
        """Whether a program is set for a job (J18, B25)."""
        return job_id in self._listening

    def account(self, job_id: str) -> Caller | None:
        """Who set the job's program: in whose name it is called (N7)."""
        stream = self._listening.get(job_id)
        return stream.caller if stream is not None else None

    def has_room(self, job_id: str) -> bool:
        """Whether a program can hear of a job now: one that hangs keeps some of its threads, and is not asked beyond.

        If not, the job is among the changed ones as soon as it can, or counts as silent.
        """
        stream = self._listening.get(job_id)
        if stream is None or not stream.overdue or stream.asked < AT_ONCE:
            return True
        stream.waits.add(job_id)
        return False

    async def tell(self, job: Job, subject: Subject, *, limit_s: float) -> Told:
        """Tell a job's program something, and wait for its answer. Raises Gone, and TimeoutError."""
        stream = self._listening.get(job.id)
        if stream is None:
            raise Gone
        name = secrets.token_hex(16)
        answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        asked = self._open[name] = _Open(stream=stream, job_id=job.id, subject=subject, answer=answer)
        stream.asked += 1
        told = ToldProgram(name=name, job=job, subject=subject, registration=stream.jobs[job.id])
        stream.messages.put_nowait(told)
        try:
            async with asyncio.timeout(limit_s):
                return await answer
        except TimeoutError:
            if self._listening.get(job.id) is not stream:
                raise Gone from None
            asked.is_overdue = True
            self._overdue[job.id] = asked
            stream.overdue += 1
            if stream.overdue == AT_ONCE:
                self._look_again(stream)
            log.warning("action=listener-silent job=%s pid=%d", job.id, stream.caller.pid)
            raise
        except asyncio.CancelledError:
            self._answered(name)
            raise

    # --- ends -----------------------------------------------------------------------------------------

    def let_go(self, job_id: str) -> None:
        """The job has ended: its program need not listen to it any more."""
        self._part(job_id, "ended")

    def close(self) -> None:
        """Let all programs go: the service ends, and remembers none of them."""
        for stream in list(self._streams.values()):
            self.leave(stream)

    def _part(self, job_id: str, reason: Reason | None = None, *, unless: Stream | None = None) -> None:
        """Part a job from its program, which is told unless it is the one that is set again."""
        overdue = self._overdue.get(job_id)
        if overdue is not None:
            self._no_longer_overdue(overdue)
        stream = self._listening.pop(job_id, None)
        if stream is None:
            return
        registration = stream.jobs.pop(job_id)
        for name, asked in [(name, asked) for name, asked in self._open.items() if asked.job_id == job_id]:
            # Whoever is set anew is told anew: what it was asked before it need not answer (N5).
            self._answered(name)
            if not asked.answer.done():
                asked.answer.set_exception(Gone())
        if reason is not None and stream is not unless:
            stream.messages.put_nowait(Detached(job_id=job_id, reason=reason, registration=registration))
            if stream.messages.qsize() > MOST_UNREAD:
                log.warning("action=listener-unread pid=%d", stream.caller.pid)
                self.leave(stream)

    def _answered(self, name: str) -> None:
        """No answer to this notice is waited for any more."""
        asked = self._open.pop(name, None)
        if asked is not None:
            asked.stream.asked -= 1
            self._look_again(asked.stream)

    def _look_again(self, stream: Stream) -> None:
        waits, stream.waits = stream.waits, set()
        for job_id in waits:
            self._changed(job_id)

    def _no_longer_overdue(self, asked: _Open) -> None:
        if self._overdue.get(asked.job_id) is asked:
            del self._overdue[asked.job_id]
            asked.stream.overdue -= 1
            if asked.stream.overdue == AT_ONCE - 1:
                for job_id in tuple(asked.stream.jobs):
                    self._changed(job_id)
