"""Taking away sessions that nobody goes on with (U2), and those above a user's limit (U9–U12).

A session without progress for its time-out is closed at that moment: `has_expired` says so, and nobody finds it any
more.  What it holds is deleted at the next cleanup.  Cleanups of a directory are so many seconds apart, counted from
the start of the server; one timer is set for the first at which something can be due, and none where nothing can.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from openbits.server.sessions import Record, Sessions
from openbits.server.settings import Settings
from openbits.server.tasks import Tasks

log = logging.getLogger(__name__)


class Cleanup:
    """The schedule of one server; times are monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        *,
        is_busy: Callable[[str], bool],
        end: Callable[[Record, str], Coroutine[Any, Any, None]],
    ) -> None:
        """`is_busy` says whether a session is spoken to now; `end` ends one."""
        self._settings = settings
        self._sessions = sessions
        self._is_busy = is_busy
        self._end = end
        self._began_s = time.monotonic()
        self._tasks = Tasks()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf

    def __repr__(self) -> str:
        return f"<Cleanup in {self._due_s - time.monotonic():.0f} s>"

    def start(self) -> None:
        """Make up for what came due while the server was not running, and set the timer."""
        self._clean(surplus=[])

    def stop(self) -> None:
        """Do nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def has_expired(self, record: Record) -> bool:
        """Whether the session is closed for want of progress."""
        timeout_s = self._settings.find(record.path).settings.session_timeout
        return time.monotonic() - record.touched_s >= timeout_s

    def made(self, record: Record) -> None:
        """A session is new."""
        self._set_timer(min(self._due_s, self._due(record)))

    def _due(self, record: Record) -> float:
        """The first cleanup at which something may have to be done because of this session."""
        settings = self._settings.find(record.path).settings
        first_s = record.touched_s + settings.session_timeout
        if settings.session_limit_enable and self._sessions.count_alike(record) > settings.number_of_sessions_limit:
            first_s = min(first_s, time.monotonic())
        interval_s = settings.cleanup_interval_s
        # What is due already and yet was left (somebody is at work with it) is looked at again at the next cleanup.
        next_one = math.floor((time.monotonic() - self._began_s) / interval_s) + 1
        return self._began_s + max(next_one, math.ceil((first_s - self._began_s) / interval_s)) * interval_s

    def _set_timer(self, due_s: float) -> None:
        if due_s == self._due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_s = due_s
        if due_s < math.inf:
            wait_s = max(0.0, due_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._run)

    def _run(self) -> None:
        self._timer = None
        self._clean(surplus=self._find_surplus())

    def _clean(self, *, surplus: list[Record]) -> None:
        self._due_s = math.inf
        expired = [record for record in self._sessions if self.has_expired(record) and not self._is_busy(record.key)]
        for reason, records in (("expired", expired), ("too-many", surplus)):
            for record in records:
                self._tasks.start("clean-up", self._end(record, reason))
        if expired or surplus:
            log.info("action=cleanup expired=%d surplus=%d", len(expired), len(surplus))
        gone = {record.key for record in (*expired, *surplus)}
        self._set_timer(min((self._due(each) for each in self._sessions if each.key not in gone), default=math.inf))

    def _find_surplus(self) -> list[Record]:
        """The newest sessions above the limit of each user in each directory (U11); nobody's who is at work."""
        alike: defaultdict[tuple[tuple[bytes, ...], str], list[Record]] = defaultdict(list)
        for record in self._sessions:
            if not self.has_expired(record) and self._settings.find(record.path).settings.session_limit_enable:
                alike[self._settings.find(record.path).components, record.counted_for].append(record)
        surplus = []
        for (components, _), records in alike.items():
            limit = self._settings.directories[components].settings.number_of_sessions_limit
            records.sort(key=lambda record: record.made_at_s)
            surplus += [record for record in records[limit:] if not self._is_busy(record.key)]
        return surplus
