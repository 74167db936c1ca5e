"""The computer's Kerberos tickets: got by a worker of root's, kept in memory, lent to who speaks for the computer.

The rule: the keytab is read by a process of uid 0 and by no other.  This one holds what came of it as a sealed file
without a name, which it cannot write to either; a service account gets that, for as long as a ticket lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.frames.operations import ObtainTickets, TakeTickets, TicketsObtained
from openbits.service.configuration import Credentials
from openbits.service.tasks import Tasks
from openbits.service.worker import Worker, WorkerGone
from openbits.service.workers import WorkerPool

log = logging.getLogger(__name__)

ROOT: Final = Identity(uid=0, gid=0)
OBTAIN_TIMEOUT_S: Final = 10.0
FAILURE_KEPT_S: Final = 60.0
"""For so long nobody asks again after a failure: a KDC that does not answer must not hold up every job."""
RENEW_WITH_LEFT: Final = 0.25
"""Tickets are renewed when so much of their life is left."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NAME_SHOWN: Final = 256
_CLAUSE_KEPT: Final = 1_000


def boot_time_s() -> float:
    """Seconds that also pass while the machine sleeps, as tickets age, and that nobody can set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Tickets and when they matter, by `boot_time_s`."""

    fd: int
    principal: str
    source: tuple[str, str]
    """Keytab and principal of the configuration that they were got by."""
    renew_at: float
    expires_at: float


class MachineTickets:
    """See the module's rule; `now` is a clock for tests."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        tasks: Tasks,
        configuration: Callable[[], Credentials],
        is_system: bool,
        now: Callable[[], float] = boot_time_s,
    ) -> None:
        self._pool = pool
        self._tasks = tasks
        self._configuration = configuration
        self._is_system = is_system
        self._now = now
        self._held: _Held | None = None
        self._trouble = ""
        self._failed_source: tuple[str, str] | None = None
        self._ask_again_at = 0.0
        self._obtaining: asyncio.Task[None] | None = None
        self._lent: weakref.WeakKeyDictionary[Worker, _Held] = weakref.WeakKeyDictionary()
        self._renewal: asyncio.TimerHandle | None = None
        self.obtained = 0

    def __repr__(self) -> str:
        return f"<MachineTickets {self._held.principal if self._held else 'none'} lent={len(self._lent)}>"

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return {"tickets_obtained": self.obtained}

    def health(self) -> tuple[bool, str]:
        """Whether nothing is wrong with the computer's credentials, and how it is about them, for an administrator."""
        held = self._valid
        if held is not None:
            return True, f"{held.principal}, for another {max(0.0, held.expires_at - self._now()) / 60:.0f} minutes"
        if self._trouble:
            return False, f"none: {self._trouble}"
        return True, "no job has needed them yet" if self._is_system else "none: those are the system's"

    def close(self) -> None:
        """Forget the tickets."""
        self._drop_renewal()
        self._replace(None)

    async def lend(self, worker: Worker) -> str:
        """Give `worker` the computer's tickets; return why there are none, as a clause, or "". Raises WorkerGone."""
        if not self._is_system:
            return "only the system's service has them, and this one was started by an account for itself"
        held = await self._current()
        if held is None:
            return self._trouble
        if not worker.is_open:
            raise WorkerGone
        self._lend(worker, held)
        return ""

    def _lend(self, worker: Worker, held: _Held) -> None:
        if self._lent.get(worker) is not held:
            self._lent[worker] = held
            worker.send(TakeTickets(principal=held.principal), (held.fd,))

    # --- having tickets ------------------------------------------------------------------------------

    @property
    def _source(self) -> tuple[str, str]:
        configuration = self._configuration()
        return configuration.machine_keytab, configuration.machine_principal

    @property
    def _valid(self) -> _Held | None:
        held = self._held
        return held if held is not None and held.source == self._source and self._now() < held.expires_at else None

    async def _current(self) -> _Held | None:
        held = self._valid
        if held is not None and self._now() < held.renew_at:
            return held
        if self._failed_source != self._source or self._now() >= self._ask_again_at:
            # One question for all who want to know; it goes on when one of them no longer does.
            if self._obtaining is None:
                self._obtaining = self._tasks.start("computer's tickets", self._obtain())
            await asyncio.shield(self._obtaining)
        return self._valid

    async def _obtain(self) -> None:
        source = self._source
        keytab, principal = source
        try:
            async with asyncio.timeout(OBTAIN_TIMEOUT_S):
                worker = await self._pool.get(ROOT)
                answer, fd = await worker.ask(
                    lambda number: ObtainTickets(operation=number, keytab=keytab, principal=principal)
                )
        except TimeoutError:
            self._failed(source, f"the KDC did not answer within {OBTAIN_TIMEOUT_S:g} s: check the network")
        except WorkerGone:
            self._failed(source, "the process that asked for them ended")
        except BitsError as error:
            self._failed(source, error.message)
        else:
            if isinstance(answer, TicketsObtained):
                self._obtained(source, answer, fd)
            else:
                os.close(fd)
                self._failed(source, "the process that asked for them gave no sensible answer")
        finally:
            self._obtaining = None

    def _obtained(self, source: tuple[str, str], answer: TicketsObtained, fd: int) -> None:
        if not _is_sealed(fd) or answer.expires_s <= 0:
            os.close(fd)
            self._failed(source, "the ticket that the KDC gave is of no use: check this machine's clock")
            return
        now = self._now()
        self.obtained += 1
        held = _Held(
            fd=fd,
            principal=answer.principal[:_NAME_SHOWN],
            source=source,
            renew_at=now + answer.expires_s * (1 - RENEW_WITH_LEFT),
            expires_at=now + answer.expires_s,
        )
        log.info("action=tickets-obtained principal=%s expires_s=%d", held.principal, answer.expires_s)
        self._trouble, self._failed_source = "", None
        self._replace(held)
        self._renew_in(held.renew_at - now)

    def _failed(self, source: tuple[str, str], clause: str) -> None:
        # It goes to workers in one frame with other things, and a worker may have said it.
        self._trouble = clause[:_CLAUSE_KEPT]
        self._failed_source = source
        self._ask_again_at = self._now() + FAILURE_KEPT_S
        log.warning("action=no-tickets reason=%s", self._trouble)
        if self._valid is not None:
            # What there is, is still good.
            self._renew_in(FAILURE_KEPT_S)

    def _replace(self, held: _Held | None) -> None:
        before, self._held = self._held, held
        if before is not None:
            os.close(before.fd)

    # --- renewing under way --------------------------------------------------------------------------

    def _renew_in(self, delay_s: float) -> None:
        self._drop_renewal()
        self._renewal = asyncio.get_running_loop().call_later(delay_s, self._renew)

    def _drop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def _renew(self) -> None:
        """A transfer may take longer than a ticket lives; without one, the next run asks when it begins."""
        self._renewal = None
        busy = [worker for worker in self._lent if worker.is_open and worker.is_busy]
        if busy:
            self._tasks.start("renew the computer's tickets", self._renew_for(busy))

    async def _renew_for(self, workers: list[Worker]) -> None:
        held = await self._current()
        for worker in workers:
            if held is not None and worker.is_open:
                self._lend(worker, held)


def _is_sealed(fd: int) -> bool:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        return False
