"""The view for auditors: who made which job with what, what it fetches and what it runs, and who else touched it.

It is drawn from the jobs that there are and from the events that are kept, so that a job which has ended, or was hidden
by a name of its maker's choice, is seen as long as events are kept. What a job runs stands first: a command line that
runs when a transfer ends, and again and again while it fails, is how intruders come back (N10, N11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from openbits.core import access, eventlog
from openbits.core.entries import MOST_NAMES
from openbits.core.model import Caller, Job
from openbits.core.names import public_url
from openbits.store.interface import JobStore
from openbits.store.records import EventChoice, StoredEvent

_EVENTS_PER_READ: Final = 5000
_TOLD_BY: Final = frozenset(
    {
        0,
        eventlog.CREATED,
        eventlog.COMPLETED,
        eventlog.CANCELLED,
        eventlog.COMMAND_SET,
        eventlog.PROGRAM_FAILED,
        eventlog.PROGRAM_NOT_LAUNCHED,
        eventlog.CANCELLED_BY_OTHER,
        eventlog.CHANGED_BY_OTHER,
        eventlog.OWNERSHIP_TAKEN,
        eventlog.INACTIVE_REMOVED,
    }
)
_KINDS: Final = frozenset({"added", "notification", "created", "redirected"})
_ENDS: Final = {
    eventlog.COMPLETED: "ACKNOWLEDGED",
    eventlog.CANCELLED: "CANCELLED",
    eventlog.INACTIVE_REMOVED: "CANCELLED",
}
_BY_OTHERS: Final = (eventlog.CANCELLED_BY_OTHER, eventlog.CHANGED_BY_OTHER, eventlog.OWNERSHIP_TAKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is known of one job."""

    job_id: str
    name: str = ""
    state_name: str = ""
    """Empty when the job is gone, and the event of its end as well."""
    owner_uid: int = -1
    owner_name: str = ""
    created_at: float | None = None
    ended_at: float | None = None
    process_name: str = ""
    process_path: str = ""
    process_id: str = ""
    urls: tuple[str, ...] = ()
    """Without user names and passwords, and the first of each lot of files only."""
    local_names: tuple[str, ...] = ()
    file_count: int = 0
    command: tuple[str, ...] = ()
    """What is run when the job ends, now."""
    commands_set: tuple[tuple[float, str, str], ...] = ()
    """(when, by whom, what) for every notification command line that was ever set."""
    notify_url: str = ""
    bus_name: str = ""
    by_others: tuple[tuple[float, int, str], ...] = ()
    """(when, number of the event, what) that others did: changes, take-overs, cancellations."""
    uids: frozenset[int] = field(default_factory=frozenset)
    """Whose it is, or was."""


class Audit:
    """Draws the view."""

    def __init__(self, *, store: JobStore, jobs: Mapping[str, Job], name_of: Callable[[int], str]) -> None:
        self._store = store
        self._jobs = jobs
        self._name_of = name_of

    async def view(self, caller: Caller, *, all_users: bool, since: float | None, user: str | None) -> list[Trace]:
        """Return what the caller may see, jobs that run something first, then the oldest first. E_ACCESSDENIED."""
        if all_users:
            access.may_list_everyone(caller)
        uid = None if all_users else caller.identity.uid
        # Jobs are values: another thread may look at them while the next transaction is made.
        jobs = {job_id: job for job_id, job in self._jobs.items() if uid is None or job.owner.identity.uid == uid}
        traces = await asyncio.to_thread(self._draw, jobs, uid)
        chosen = (each for each in traces if since is None or _last(each) >= since)
        if user is not None:
            chosen = (each for each in chosen if user in (each.owner_name, *map(str, each.uids)))
        return sorted(chosen, key=lambda each: (not (each.command or each.commands_set), each.created_at or 0.0))

    def _draw(self, jobs: Mapping[str, Job], uid: int | None) -> Iterable[Trace]:
        traces = {job_id: Trace(job_id=job_id) for job_id in jobs}
        after = 0
        choice = EventChoice(owner_uid=uid, event_ids=_TOLD_BY, kinds=_KINDS)
        while True:
            events = self._store.chosen_events(choice, after=after, limit=_EVENTS_PER_READ)
            for event in events:
                if event.job_id:
                    known = traces.get(event.job_id) or Trace(job_id=event.job_id)
                    traces[event.job_id] = _with_event(known, event)
            if len(events) < _EVENTS_PER_READ:
                break
            after = events[-1].id
        names: dict[int, str] = {}
        return [
            _with_job(trace, jobs[trace.job_id]) if trace.job_id in jobs else self._named(trace, names)
            for trace in traces.values()
        ]

    def _named(self, trace: Trace, names: dict[int, str]) -> Trace:
        uid = trace.owner_uid
        if trace.owner_name or uid < 0:
            return trace
        if uid not in names:
            names[uid] = self._name_of(uid)
        return replace(trace, owner_name=names[uid] or str(uid))


def _last(trace: Trace) -> float:
    """When something was last done to the job that an auditor would want to see."""
    times = [trace.created_at or 0.0, trace.ended_at or 0.0]
    times += [each[0] for each in trace.commands_set] + [each[0] for each in trace.by_others]
    return max(times)


def _with_event(trace: Trace, event: StoredEvent) -> Trace:
    fields = dict(event.fields)
    trace = replace(
        trace,
        owner_uid=event.owner_uid,
        uids=trace.uids | {event.owner_uid},
        name=fields.get("job_title", trace.name),
        owner_name=fields.get("job_owner", trace.owner_name),
    )
    if event.event_id == eventlog.CREATED:
        trace = replace(
            trace,
            created_at=event.time,
            process_name=fields.get("process_name", ""),
            process_path=fields.get("process_path", ""),
            process_id=fields.get("process_id", ""),
        )
    if event.event_id == eventlog.CREATED or event.kind == "added":
        trace = replace(
            trace,
            urls=_more(trace.urls, fields.get("urls", "")),
            local_names=_more(trace.local_names, fields.get("local_names", "")),
            file_count=trace.file_count + int(fields.get("file_count", 0) or 0),
        )
    if event.event_id == eventlog.COMMAND_SET:
        words = " ".join(filter(None, (fields.get("program", ""), fields.get("parameters", "")))) or "(none)"
        trace = replace(trace, commands_set=(*trace.commands_set, (event.time, fields.get("user", ""), words)))
    if event.event_id in _ENDS:
        trace = replace(trace, state_name=_ENDS[event.event_id], ended_at=event.time)
    if event.event_id in _BY_OTHERS:
        trace = replace(trace, by_others=(*trace.by_others, (event.time, event.event_id, event.text)))
    return trace


def _more(known: tuple[str, ...], lines: str) -> tuple[str, ...]:
    return (known + tuple(lines.split("\n") if lines else ()))[: 2 * MOST_NAMES]


def _with_job(trace: Trace, job: Job) -> Trace:
    """The job as it is goes before what was written down of it once."""
    some = job.files[: 2 * MOST_NAMES]
    return replace(
        trace,
        name=job.settings.name,
        state_name=job.state.name,
        owner_uid=job.owner.identity.uid,
        owner_name=job.owner.name,
        uids=trace.uids | {job.owner.identity.uid},
        created_at=job.created_at,
        ended_at=job.ended_at,
        urls=tuple(public_url(file.remote_name) for file in some),
        local_names=tuple(file.local_name for file in some),
        file_count=len(job.files),
        command=(job.notify_command.program, *job.notify_command.arguments[1:]) if job.notify_command else (),
        notify_url=public_url(job.settings.notify_url),
        bus_name=job.settings.notification_clsid,
    )
