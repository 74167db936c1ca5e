"""Quotas that were hit stand in the event log (16398, 16400–16402), for administrators who wonder who asks for so much.

A refused call costs its caller nothing, and may be made again at once and for ever: of each account and each quota one
refusal a minute is written down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from openbits.core import eventlog
from openbits.core.events import Entry
from openbits.core.model import Caller
from openbits.core.quotas import Quotas
from openbits.errors import BitsError
from openbits.service.ledger import Ledger

INTERVAL_S: Final = 60.0
_MOST_REMEMBERED: Final = 1000
_QUOTAS: Final = {
    "BG_E_TOO_MANY_JOBS_PER_USER": (eventlog.USER_QUOTA, "max_jobs_per_user"),
    "BG_E_TOO_MANY_JOBS_PER_MACHINE": (eventlog.MACHINE_QUOTA, "max_jobs_per_machine"),
    "BG_E_TOO_MANY_FILES_IN_JOB": (eventlog.FILE_QUOTA, "max_files_per_job"),
    "BG_E_TOO_MANY_RANGES_IN_FILE": (eventlog.RANGE_QUOTA, "max_ranges_per_file"),
}


@dataclass(slots=True, kw_only=True)
class Refusals:
    """Notes refusals of quotas."""

    ledger: Ledger
    quotas: Callable[[], Quotas]
    now: Callable[[], float]
    _noted: dict[tuple[int, int], float] = field(default_factory=dict)

    @contextlib.contextmanager
    def noted(self, caller: Caller) -> Iterator[None]:
        """Write it down when what is done in here is refused for a quota; the refusal goes on its way."""
        try:
            yield
        except BitsError as error:
            quota = _QUOTAS.get(error.name)
            if quota is not None:
                self._note(caller, *quota, error)
            raise

    def _note(self, caller: Caller, number: int, key: str, error: BitsError) -> None:
        now, uid = self.now(), caller.identity.uid
        if now < self._noted.get((uid, number), 0.0) + INTERVAL_S:
            return
        if len(self._noted) >= _MOST_REMEMBERED:
            self._noted = {each: at for each, at in self._noted.items() if now < at + INTERVAL_S}
        self._noted[uid, number] = now
        fields = (
            ("entity_name", key),
            ("current_limit", str(getattr(self.quotas(), key))),
            ("user", caller.name),
            ("user_uid", str(uid)),
        )
        text = f"refused for {caller.name}: {error.message}"
        self.ledger.record(Entry(kind="refused", text=text, event_id=number, fields=fields), owner_uid=uid)


def check_limits(quotas: Quotas) -> Entry | None:
    """The entry that limits contradict each other (16397), if they do: P5 is never reached when P4 is lower."""
    if quotas.max_jobs_per_user <= quotas.max_jobs_per_machine:
        return None
    text = (
        f"an account may have {quotas.max_jobs_per_user} jobs (max_jobs_per_user), and all together only"
        f" {quotas.max_jobs_per_machine} (max_jobs_per_machine): make one of them fit"
    )
    fields = (
        ("entity_name", "max_jobs_per_user"),
        ("current_size", str(quotas.max_jobs_per_user)),
        ("current_limit", str(quotas.max_jobs_per_machine)),
    )
    return Entry(kind="configuration", text=text, event_id=eventlog.LIMITS_CONTRADICT, fields=fields)
