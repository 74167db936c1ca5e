"""What the service thinks of its own health, a line for each thing that can be wrong (`bits doctor`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from openbits.core import access
from openbits.core.model import Caller, Job
from openbits.service.calls import CheckResult
from openbits.service.configuration import Configuration
from openbits.service.evaluators import evaluation_health
from openbits.service.journal import Journal
from openbits.service.logon.logon import Logon
from openbits.service.policies import Policies
from openbits.service.schemes import scheme_health
from openbits.service.terms import Terms
from openbits.service.tickets import MachineTickets
from openbits.service.truststore import trust_health
from openbits.service.workers import WorkerPool
from openbits.store.store import OpenReport

_LEAST_FREE_BYTES: Final = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is looked at; called with who wants to know, it says what is found."""

    configuration: Callable[[], Configuration]
    state_directory: str
    store_report: OpenReport
    jobs: Callable[[], Collection[Job]]
    logon: Logon
    has_network: Callable[[], bool]
    administrators_gid: Callable[[], int | None]
    pool: WorkerPool
    tickets: MachineTickets
    terms: Terms
    policies: Policies
    journal: Journal

    def __call__(self, caller: Caller) -> list[CheckResult]:
        """Return the lines that this caller may see."""
        return [*self._for_everybody(caller), *(self._for_administrators() if caller.is_administrator else ())]

    def _for_everybody(self, caller: Caller) -> Iterator[CheckResult]:
        set_aside = self.store_report.set_aside
        yield CheckResult(
            name="store",
            ok=set_aside is None,
            message=f"in {self.state_directory}, {len(self.jobs())} jobs"
            if set_aside is None
            else f"the old store was damaged and was set aside as {set_aside}",
        )
        yield CheckResult(name="log-on", ok=not self.logon.problem, message=self.logon.health())
        connected = self.has_network()
        text = "there is a route out of this machine" if connected else "there is no route out of this machine"
        yield CheckResult(name="network", ok=connected, message=text)
        is_well, text = self.policies.health()
        yield CheckResult(name="policy", ok=is_well, message=text)
        is_well, text = evaluation_health()
        yield CheckResult(name="proxy scripts", ok=is_well, message=text)
        is_well, text = trust_health()
        yield CheckResult(name="certificates", ok=is_well, message=text)
        is_well, text = scheme_health()
        yield CheckResult(name="authentication", ok=is_well, message=text)
        # How other people's jobs fare is not for everybody to know.
        known = (job for job in self.jobs() if caller.is_administrator or access.owns(caller, job.owner))
        is_well, text = self.terms.health(known)
        yield CheckResult(name="stored credentials", ok=is_well, message=text)
        is_well, text = self.journal.health()
        yield CheckResult(name="journal", ok=is_well, message=text)
        free = os.statvfs(self.state_directory)
        free_bytes = free.f_bavail * free.f_frsize
        text = f"{free_bytes // 2**20} MiB free for the job store"
        yield CheckResult(name="state disk", ok=free_bytes > _LEAST_FREE_BYTES, message=text)

    def _for_administrators(self) -> Iterator[CheckResult]:
        group = self.configuration().accounts.administrators_group
        has_group = self.administrators_gid() is not None
        text = f"uid 0 and members of {group}" if has_group else f"uid 0 only: there is no group {group}"
        yield CheckResult(name="administrators", ok=True, message=text)
        is_well, text = self.tickets.health()
        yield CheckResult(name="computer's credentials", ok=is_well, message=text)
        text = f"{len(self.pool)} alive, {self.pool.started} started in all"
        yield CheckResult(name="workers", ok=True, message=text)
