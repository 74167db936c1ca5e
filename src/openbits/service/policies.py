"""The policy that is in force, and who hears when it is another one (inventory section 8).

The rule: files that cannot be used change nothing, whenever they are read; the policy that they were to replace goes
on, and says so.  What is in force follows the service's own clock, which nobody puts forward or back (R7): at the
next change of hours one timer fires, and between two changes nothing is asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from openbits.core import eventlog
from openbits.core.bandwidth import InForce, Limit, in_force
from openbits.core.events import Entry
from openbits.core.model import DAY_S, Priority
from openbits.core.policy import KEYS, PeerCaching, Policy
from openbits.core.quotas import PolicyQuotas
from openbits.core.schedules import HORIZON_DAYS
from openbits.service.configuration import Configuration
from openbits.service.logon import inotify
from openbits.service.logon.pathwatch import PathWatch
from openbits.service.policyfiles import Loaded, PolicyFileError, read_policy
from openbits.service.refusals import check_limits

log = logging.getLogger(__name__)

SETTLE_S: Final = 0.2
"""Whoever writes several files, or one in several steps, is let finish: from the last change on."""
LONGEST_TIMER_S: Final = (HORIZON_DAYS - 2) * DAY_S
"""Where hours change nothing within sight, they are looked at again before that ends."""
_WATCHED: Final = (
    inotify.CREATE | inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETE | inotify.CLOSE_WRITE | inotify.ATTRIB
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One value as people are shown it."""

    name: str
    inventory: str
    text: str
    value: Any
    """What holds; None: no limit, or nothing decided."""
    unit: str
    source: str
    """`FILE:LINE`, `configuration KEY`, or `default`."""
    is_set: bool
    lacks_effect: str


class Policies:
    """See the module's rule."""

    def __init__(
        self,
        directory: str,
        *,
        owners: frozenset[int],
        now: Callable[[], float],
        configuration: Callable[[], Configuration],
        on_change: Callable[[], None],
        record: Callable[[Entry], None],
    ) -> None:
        """Read the files; an empty `directory` has none.

        Raises PolicyFileError: there is no former policy that could go on.
        """
        self.directory = directory
        self._owners = owners
        self._now = now
        self._configuration = configuration
        self._on_change = on_change
        self._record = record
        self.problem = ""
        """Why the files as they are now are not in force; empty when they are."""
        self.loaded = read_policy(directory, owners=owners)
        self.loaded_at = now()
        self.reloads = 0
        self._in_force = in_force(self.policy, self.loaded.zone, self.loaded_at)
        self._blocked: tuple[InForce, frozenset[Priority], str] | None = None
        self._effective: tuple[Configuration, Loaded, Configuration] | None = None
        self._watch: PathWatch | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Policies {self.directory} files={len(self.loaded.files)}{' refused' if self.problem else ''}>"

    # --- what holds ---------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What has been decided."""
        return self.loaded.policy

    @property
    def peer_caching(self) -> PeerCaching:
        """What has been decided about peer caching (P8, P12-P16)."""
        return self.policy.peer_caching

    def allows_notification_commands(self) -> bool:
        """Whether jobs may run a program when they are done (J30)."""
        return self.policy.allow_notification_commands

    def in_force(self) -> InForce:
        """The limits that hold now. A machine that slept past a change of hours finds the right ones here."""
        until = self._in_force.until
        if until is not None and self._now() >= until:
            self._in_force = in_force(self.policy, self.loaded.zone, self._now())
        return self._in_force

    def effective(self) -> Configuration:
        """The configuration, with what the policy decides in its place (P1, P3-P7)."""
        configuration = self._configuration()
        if self._effective is None or self._effective[0] is not configuration or self._effective[1] is not self.loaded:
            self._effective = (configuration, self.loaded, self._made_effective(configuration))
        return self._effective[2]

    def _made_effective(self, configuration: Configuration) -> Configuration:
        policy, sources = self.policy, self.loaded.sources
        timeouts, quotas = configuration.timeouts, configuration.quotas
        if policy.inactivity_timeout_days is not None:
            timeouts = dataclasses.replace(timeouts, job_inactivity_s=policy.inactivity_timeout_days * DAY_S)
        if policy.max_download_time_s is not None:
            timeouts = dataclasses.replace(timeouts, max_download_time_s=policy.max_download_time_s)
        if policy.quotas:
            named = {name: f"policy {sources[f'quotas.{name}']}" for name in policy.quotas}
            quotas = PolicyQuotas(**(dataclasses.asdict(quotas) | dict(policy.quotas)), sources=named)
        return dataclasses.replace(configuration, timeouts=timeouts, quotas=quotas)

    # --- for people ---------------------------------------------------------------------------------------

    def limit_note(self, priority: Priority) -> str:
        """What limits jobs of a priority now, as a clause; empty where nothing does."""
        limit = self.in_force().limits.tightest(priority)
        return "" if limit is None else f"a policy limits it to {limit.kbps} kbit/s ({self._where(limit)})"

    def blocked(self) -> tuple[frozenset[Priority], str]:
        """Priorities that may use nothing now, and where the policy stands that says so."""
        current = self.in_force()
        # Asked with every change of any job.
        if self._blocked is None or self._blocked[0] is not current:
            limits = current.limits
            blocking = {limit for each in limits.blocked for limit in limits.of(each) if not limit.kbps}
            where = ", ".join(sorted(self._where(limit) for limit in blocking))
            self._blocked = current, limits.blocked, where
        return self._blocked[1], self._blocked[2]

    def _where(self, limit: Limit) -> str:
        # A limit that is not written down is unlimited, and limits nobody.
        return f"{limit.key}, {self.loaded.sources.get(limit.key, self.directory)}"

    def health(self) -> tuple[bool, str]:
        """Whether the files are in force, and a sentence about them."""
        if self.problem:
            return False, f"{self.problem}; in force is what was there before"
        trouble = f"; {self._watch.problem}: changes need a reload" if self._watch and self._watch.problem else ""
        return not trouble, f"{len(self.loaded.sources)} values of {len(self.loaded.files)} files in force{trouble}"

    def shown(self) -> list[Shown]:
        """Every value, what it is, and who says so."""
        configuration, loaded = self._configuration(), self.loaded
        found = []
        for name, key in KEYS.items():
            is_set = name in loaded.sources
            value: Any = loaded.values.get(name)
            unit, source = key.unit, loaded.sources.get(name, "default")
            if not is_set and key.configured_by:
                section, _, setting = key.configured_by.partition(".")
                value, source = getattr(getattr(configuration, section), setting), f"configuration {key.configured_by}"
                unit = "seconds" if setting.endswith("_s") else unit
            elif not is_set:
                value = loaded.zone_name if name == "timezone" else key.default
            found.append(
                Shown(
                    name=name,
                    inventory=key.inventory,
                    text=key.text,
                    value=value,
                    unit=unit,
                    source=source,
                    is_set=is_set,
                    lacks_effect=key.lacks_effect,
                )
            )
        return found

    # --- changes ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow the files and the hours from now on."""
        if self.loaded.values:
            self._tell_what_was_read()
        self._tell_warnings()
        self._arm()
        if self.directory:
            self._watch = PathWatch(self.directory, mask=_WATCHED, on_change=self._files_changed)
            self._watch.start()
            # What was written between the first look and the watch.
            self._settled()

    def close(self) -> None:
        """Stop following."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for timer in (self._settling, self._timer):
            if timer is not None:
                timer.cancel()
        self._settling = self._timer = None

    def reload(self) -> None:
        """Read the files now. Raises PolicyFileError, and what is in force stays in force."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        try:
            loaded = read_policy(self.directory, owners=self._owners)
        except PolicyFileError as error:
            if str(error) != self.problem:
                log.error("action=policy-refused error=%s", error)
            self.problem = str(error)
            raise
        self.problem = ""
        is_other = (loaded.values, loaded.zone_name) != (self.loaded.values, self.loaded.zone_name)
        self.loaded = loaded
        self.loaded_at = self._now()
        self.reloads += 1
        if is_other:
            log.info("action=policy-loaded files=%d values=%d", len(loaded.files), len(loaded.values))
            self._tell_what_was_read()
            self._tell_warnings()
        self._follow_hours()

    def _files_changed(self) -> None:
        loop = asyncio.get_running_loop()
        if self._settling is not None:
            self._settling.cancel()
        self._settling = loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settling = None
        try:
            self.reload()
        except PolicyFileError:
            # It is in the log, and in `problem` for whoever asks.
            return

    def _follow_hours(self) -> None:
        before, now = self._in_force, self._now()
        self._in_force = after = in_force(self.policy, self.loaded.zone, now)
        if (before.limits, before.slot) != (after.limits, after.slot):
            self._tell_slot(after)
        self._arm()
        self._on_change()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        policy = self.policy
        if policy.internet is None and policy.work is None and policy.maintenance is None:
            return
        until = self._in_force.until
        delay_s = LONGEST_TIMER_S if until is None else min(LONGEST_TIMER_S, max(0.0, until - self._now()))
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._follow_hours)

    # --- the event log --------------------------------------------------------------------------------------

    def _tell_what_was_read(self) -> None:
        said = ", ".join(f"{name} = {value!r:.200}" for name, value in self.loaded.values.items()) or "nothing"
        text = f"the policy was read from {len(self.loaded.files)} files: {said}"
        fields = (("policy_value", said),)
        self._record(Entry(kind="policy", text=text, event_id=eventlog.POLICY_READ, fields=fields))

    def _tell_slot(self, current: InForce) -> None:
        said = ", ".join(
            f"{name} {limit.kbps} kbit/s"
            for name in ("together", "high", "normal", "low")
            if (limit := getattr(current.limits, name)) is not None
        )
        slot, said = current.slot or "all hours", said or "unlimited"
        fields = (("current_slot", slot), ("current_limit", said))
        text = f"limits of background jobs ({slot}): {said}"
        log.info("action=policy-slot slot=%r until=%s limits=%s", slot, current.until, said)
        self._record(Entry(kind="policy", text=text, event_id=eventlog.SCHEDULE_SLOT, fields=fields))

    def _tell_warnings(self) -> None:
        # Where no policy is to blame, it is the configuration that is told of.
        contradiction = check_limits(self.effective().quotas) if self.policy.quotas else None
        if contradiction is not None:
            self._record(contradiction)


def owners_of(*, is_system: bool) -> frozenset[int]:
    """Whose files count: root's, and where the service is an account's own, that account's."""
    return frozenset({0}) if is_system else frozenset({0, os.geteuid()})
