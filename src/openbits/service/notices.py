"""What the event log says of notifications (N9, N11; events 63, 64 and 16390). Pure.

Every run of a command line stands there with its program, its arguments and how it ended: who looks for what stays on
a machine by being run from a job finds it.
"""

from __future__ import annotations

import shlex

from openbits.core import eventlog
from openbits.core.events import Entry
from openbits.core.model import Job
from openbits.core.names import public_url
from openbits.core.telling import Channel, Subject
from openbits.errors import ErrorContext, error_code
from openbits.service.listeners import Told

KIND = "notification"


def taken(job: Job, subject: Subject, channel: Channel, told: Told) -> tuple[Entry, ...]:
    """Return what is noted when somebody has acknowledged something; of programs that listen, nothing."""
    match channel:
        case Channel.CALLBACK:
            return ()
        case Channel.COMMAND:
            text = f"{subject.kind.value}: ran {command_text(job)}: exit status {told.status or 0}"
            return (Entry(kind=KIND, text=text, fields=(*_command_fields(job, told), ("hr", "0x00000000"))),)
        case Channel.BUS_NAME:
            return (Entry(kind=KIND, text=f"{subject.kind.value}: told {job.settings.notification_clsid}"),)
        case Channel.WEBHOOK:
            url = public_url(job.settings.notify_url)
            return (Entry(kind=KIND, text=f"{subject.kind.value}: {url} answered {told.status}"),)


def failed(job: Job, subject: Subject, channel: Channel, told: Told, again_s: float | None) -> tuple[Entry, ...]:
    """Return what is noted when telling has failed; it is tried again after `again_s`, or else another channel is."""
    problem = (
        ("hr", f"{error_code(told.error).hresult:#010x}"),
        ("error", told.error),
        ("error_context", ErrorContext.QUEUE_MANAGER_NOTIFICATION.name),
    )
    reason = f": {told.message}" if told.message else ""
    after = "; the next way is tried at once" if again_s is None else f"; it is tried again after {again_s:.0f} s"
    waits = () if again_s is None else (("retry_wait_time", f"{again_s:.0f}"),)
    if channel is Channel.COMMAND:
        number = eventlog.PROGRAM_FAILED if told.was_launched else eventlog.PROGRAM_NOT_LAUNCHED
        what = "failed" if told.was_launched else "could not be started"
        text = f"{subject.kind.value}: {command_text(job)} {what}, {told.error}{reason}{after}"
        fields = (*_command_fields(job, told), *problem, *waits)
        return (Entry(kind=KIND, text=text, event_id=number, fields=fields),)
    who = {
        Channel.CALLBACK: "the program that listens",
        Channel.BUS_NAME: f"the bus name {job.settings.notification_clsid}",
        Channel.WEBHOOK: public_url(job.settings.notify_url),
    }[channel]
    text = f"{subject.kind.value}: {who} did not take it, {told.error}{reason}{after}"
    return (Entry(kind=KIND, text=text, event_id=eventlog.NOTICE_FAILED, fields=(*_title(job), *problem, *waits)),)


def command_text(job: Job) -> str:
    """Return the job's command line as one line: the program, and its arguments as a shell would need them."""
    command = job.notify_command
    if command is None:
        return ""
    called = "" if command.arguments[:1] == (command.program,) else f" (called {shlex.quote(command.arguments[0])})"
    return " ".join((shlex.quote(command.program) + called, *map(shlex.quote, command.arguments[1:])))


def _title(job: Job) -> tuple[tuple[str, str], ...]:
    return (("job_title", job.settings.name),)


def _command_fields(job: Job, told: Told) -> tuple[tuple[str, str], ...]:
    command = job.notify_command
    if command is None:
        return _title(job)
    status = () if told.status is None else (("exit_status", str(told.status)),)
    return (*_title(job), ("program", command.program), ("parameters", shlex.join(command.arguments)), *status)
