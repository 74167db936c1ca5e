"""What decides beside the jobs themselves, as it is now: configuration and policy, network, log-on, groups.

The rule: it is asked anew with each decision; no answer is kept for longer than a second.
"""

from __future__ import annotations

import contextlib
import grp
from collections.abc import Callable
from typing import Final

from openbits.core.environment import Environment
from openbits.core.schedule import Limits
from openbits.service.configuration import Configuration
from openbits.service.logon.logon import Logon
from openbits.service.network import HostsFile
from openbits.service.policies import Policies

GROUP_CACHE_S: Final = 1.0
"""A group that was looked up counts for so long: behind each question there may be a directory server."""


class Conditions:
    """See the module's rule."""

    def __init__(
        self,
        *,
        configuration: Callable[[], Configuration],
        policies: Policies,
        logon: Logon,
        has_network: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._configuration = configuration
        self._policies = policies
        self._logon = logon
        self._has_network = has_network
        self._now = now
        self._hosts = HostsFile()
        self._administrators: tuple[float, int | None] = (0.0, None)

    def __repr__(self) -> str:
        return f"<Conditions {self.environment()}>"

    def environment(self) -> Environment:
        """What decides about a job, now."""
        timeouts, retention = self._policies.effective().timeouts, self._configuration().retention
        blocked, blocked_by = self._policies.blocked()
        connected = self._has_network()
        return Environment(
            now=self._now(),
            has_network=connected,
            loopback_names=frozenset() if connected else self._hosts.loopback_names(),
            logged_on=self._logon.logged_on,
            logon_problem=self._logon.problem,
            job_inactivity_s=float(timeouts.job_inactivity_s),
            max_download_time_s=float(timeouts.max_download_time_s),
            disk_full_retry_s=float(timeouts.disk_full_retry_s),
            break_patience_s=float(timeouts.break_patience_s),
            retention_s=float(retention.final_jobs_s),
            blocked_priorities=blocked,
            blocked_by=blocked_by,
            blocked_until=self._policies.in_force().until,
        )

    def limits(self) -> Limits:
        """How many jobs may run at once, and for how long one may keep others waiting."""
        scheduler = self._configuration().scheduler
        return Limits(
            max_foreground_jobs=scheduler.max_foreground_jobs,
            max_background_jobs=scheduler.max_background_jobs,
            time_slice_s=float(scheduler.time_slice_s),
        )

    def administrators_gid(self) -> int | None:
        """The group whose members are administrators, or None when there is no such group."""
        now = self._now()
        if now >= self._administrators[0]:
            gid = None
            with contextlib.suppress(KeyError):
                gid = grp.getgrnam(self._configuration().accounts.administrators_group).gr_gid
            self._administrators = (now + GROUP_CACHE_S, gid)
        return self._administrators[1]

    def configuration_changed(self) -> None:
        """Another group may be the administrators' now."""
        self._administrators = (0.0, None)

    def commands_forbidden(self) -> str:
        """Why no notification command line may run, as a clause; empty when they may (J30)."""
        return "" if self._policies.allows_notification_commands() else "a policy of the machine forbids it"
