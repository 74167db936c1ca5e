"""What is said of a job in the event log: the makers of entries that have a number of `core.eventlog`.

The rules:

- An entry stays readable when the job is forgotten: it has the job's title, and what was asked for, in its fields.
- URLs stand here without user name and password, and so many of them only that no entry grows with its job.
- `attributed` adds who called: an owner finds in the log what others did to his jobs (events 16384 and 16387).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from openbits.core import eventlog
from openbits.core.events import Entry, Failure
from openbits.core.failing import DISK_IS_FULL, WITHOUT_TIMER
from openbits.core.model import DAY_S, Caller, File, Job, JobError, NotifyCommand, Owner
from openbits.core.names import origin_of, public_url
from openbits.errors import ErrorContext, error_code

Fields = tuple[tuple[str, str], ...]

MOST_NAMES: Final = 20
"""How many URLs and paths an entry lists: 10,000 of a job would be megabytes in the journal."""
MOST_CHARACTERS: Final = 1000
"""How much of each."""

_NO_SUPPORT: Final = frozenset({"BG_E_INSUFFICIENT_HTTP_SUPPORT", "BG_E_INSUFFICIENT_RANGE_SUPPORT"})
_REJECTED: Final = {"BG_E_HTTP_ERROR_401": "server", "BG_E_HTTP_ERROR_407": "proxy"}
_PROXY_UNUSABLE: Final = frozenset(
    {"BG_E_INVALID_PROXY_INFO", "BG_E_PROXY_LIST_TOO_LARGE", "BG_E_PROXY_BYPASS_LIST_TOO_LARGE"}
)
_OWN_AFFAIRS: Final = (0, eventlog.RANGES)
"""Numbers of changes that are worth another one when somebody else than the owner makes them (16387)."""
_ENDS_BY_ITSELF: Final = WITHOUT_TIMER | DISK_IS_FULL | {"BG_E_TOKEN_REQUIRED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The process that made a job, as far as the service can see it."""

    pid: int = 0
    name: str = ""
    path: str = ""


# --- the life of a job -----------------------------------------------------------------------------


def created(job: Job, process: Process) -> Entry:
    """M1: event 3."""
    fields = [
        *_whose(job),
        ("job_type", job.type.name),
        ("process_name", process.name),
        ("process_path", process.path),
        ("process_id", str(process.pid) if process.pid else ""),
        ("file_count", str(len(job.files))),
        *_names(job.files),
    ]
    by = f" with {process.name}" if process.name else ""
    text = f"created by {job.owner.name}{by}: {job.settings.name}"
    return Entry(kind="created", text=text, event_id=eventlog.CREATED, fields=_present(fields))


def added(files: Sequence[File]) -> Entry:
    """J1, J2: files have come to a job; BITS has no number for that."""
    first = public_url(files[0].remote_name) if files else ""
    text = f"{len(files)} file{'s' if len(files) != 1 else ''} added: {first}{' …' if len(files) > 1 else ''}"
    return Entry(kind="added", text=text, fields=_present([("file_count", str(len(files))), *_names(files)]))


def suspended(job: Job) -> Entry:
    """J4: event 2."""
    return Entry(kind="suspended", text="suspended", event_id=eventlog.SUSPENDED, fields=_title(job))


def resumed(job: Job, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """J5: event 1, the first of what is said of a job that was resumed."""
    first, *others = entries
    return (replace(first, event_id=eventlog.RESUMED, fields=_title(job)), *others)


def cancelled(job: Job) -> Entry:
    """J6: event 5."""
    return Entry(kind="cancelled", text="cancelled", event_id=eventlog.CANCELLED, fields=_ended(job))


def expired(job: Job, inactivity_s: float) -> Entry:
    """P1: event 16389."""
    return Entry(
        kind="expired",
        text="cancelled: nothing had happened to the job for too long",
        event_id=eventlog.INACTIVE_REMOVED,
        fields=(*_ended(job), ("day_count", f"{inactivity_s / DAY_S:g}")),
    )


def completed(job: Job, result: str, left_over: Sequence[str]) -> tuple[Entry, ...]:
    """J7: event 4, and what could not be deleted."""
    entry = Entry(
        kind="completed",
        text=f"completed: {result}{_left_over(left_over)}",
        event_id=eventlog.COMPLETED,
        fields=(*_ended(job), ("result", result)),
    )
    return (entry, *_files_left(job, left_over))


def cleaned(job: Job, left_over: Sequence[str]) -> tuple[Entry, ...]:
    """J6: the temporary files of a cancelled job are gone, or are not."""
    entry = Entry(kind="cleaned", text=f"temporary files deleted{_left_over(left_over)}")
    return (entry, *_files_left(job, left_over))


def _left_over(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"; left behind: {shown}{more}" if names else ""


def _files_left(job: Job, names: Sequence[str]) -> tuple[Entry, ...]:
    if not names:
        return ()
    listed = _list(names)
    entry = Entry(
        kind="left over",
        text=f"{len(names)} temporary file{'s' if len(names) != 1 else ''} could not be deleted: delete what is left",
        event_id=eventlog.FILES_LEFT,
        fields=(*_whose(job), ("file_list", listed)),
    )
    if len(names) <= MOST_NAMES:
        return (entry,)
    more = Entry(
        kind="left over",
        text=f"{len(names) - MOST_NAMES} more temporary files could not be deleted",
        event_id=eventlog.MORE_FILES_LEFT,
        fields=_whose(job),
    )
    return (entry, more)


# --- who ---------------------------------------------------------------------------------------------


def command_set(job: Job, command: NotifyCommand | None) -> Entry:
    """J30: event 6; the whole command line, which is what somebody who looks for a foothold has to see."""
    # What is executed, whatever it is told that it is called.
    words = "none" if command is None else shlex.join((command.program, *command.arguments[1:]))
    fields = [("job_title", job.settings.name)]
    if command is not None:
        fields += [("program", command.program), ("parameters", shlex.join(command.arguments[1:]))]
    return Entry(
        kind="changed",
        text=f"set: notification command line {words}",
        event_id=eventlog.COMMAND_SET,
        fields=(*fields, ("property_name", "notification command line")),
    )


def changed(what: str, text: str = "") -> Entry:
    """A property of the job has another value; with a number only when somebody else than its owner did it."""
    return Entry(kind="changed", text=text or f"set: {what}", fields=(("property_name", what),))


def ranges_requested(job: Job, index: int, ranges: str) -> Entry:
    """F12: event 102; `ranges` says which, and no list of them makes an entry long."""
    return Entry(
        kind="changed",
        text=f"ranges of {job.files[index].local_name} requested: {ranges}",
        event_id=eventlog.RANGES,
        fields=(
            *_title(job),
            ("transfer_id", f"{job.run}.{index}"),
            ("ranges", ranges),
            ("property_name", "requested ranges"),
        ),
    )


def owner_changed(job: Job, owner: Owner) -> Entry:
    """J24: event 16388; `job` is the former owner's."""
    fields = [("job_title", job.settings.name), ("job_owner", owner.name), ("former_owner", job.owner.name)]
    return Entry(
        kind="owner changed",
        text=f"{owner.name} took the job over from {job.owner.name}",
        event_id=eventlog.OWNERSHIP_TAKEN,
        fields=_present(fields),
    )


def attributed(job: Job, entries: Iterable[Entry], by: Caller) -> tuple[Entry, ...]:
    """Say who called; `job` is as it was before the call."""
    is_owner = by.identity.uid == job.owner.identity.uid
    who = (("user", by.name), ("user_uid", str(by.identity.uid)))
    said: list[Entry] = []
    for entry in entries:
        if entry.kind == "changed" and entry.event_id in _OWN_AFFAIRS and not is_owner:
            fields = (*_whose(job), *(field for field in entry.fields if field[0] != "job_title"), *who)
            text = f"{entry.text}, by {by.name}"
            said.append(replace(entry, event_id=eventlog.CHANGED_BY_OTHER, text=text, fields=fields))
            continue
        said.append(replace(entry, fields=(*entry.fields, *who)))
        if entry.event_id == eventlog.CANCELLED and not is_owner:
            said.append(
                Entry(
                    kind="cancelled by another",
                    text=f"{by.name} cancelled the job of {job.owner.name}",
                    event_id=eventlog.CANCELLED_BY_OTHER,
                    fields=(*_whose(job), *who),
                )
            )
    return tuple(said)


# --- transfers -----------------------------------------------------------------------------------------


def started(job: Job, indices: Sequence[int], text: str, *, kind: str = "transferring") -> Entry:
    """A server has answered (event 59), for one file or for several that are fetched together."""
    file = job.part(indices[0])
    fields = [*_transfer(job, indices), ("file_time", file.validator.last_modified or "")]
    if file.bytes_total is not None and len(indices) == 1:
        fields.append(("file_length", str(file.bytes_total)))
    return Entry(kind=kind, text=text, event_id=eventlog.FILE_STARTED, fields=_present(fields))


def fetched(job: Job, indices: Sequence[int]) -> Entry:
    """Files are whole (event 60): one entry for all that became durable together, or small files would cost twice."""
    first = public_url(job.part(indices[0]).remote_name)
    more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
    fields = [*_transfer(job, indices), ("hr", "0x00000000"), ("bytes_transferred_from_peer", "0")]
    return Entry(
        kind="file transferred",
        text=f"transferred: {first}{more}",
        event_id=eventlog.FILE_STOPPED,
        fields=_present(fields),
    )


def failed(job: Job, failure: Failure, *, is_transient: bool) -> Entry:
    """The job has an error: the number says what sort of error it is."""
    number, more = _sort(job, failure, is_transient=is_transient)
    index = failure.index
    is_known = index is not None and index < job.part_count
    fields = [
        ("job_title", job.settings.name),
        *(_transfer(job, (index,)) if is_known and index is not None else ()),
        ("hr", f"{error_code(failure.name).hresult:#010x}"),
        ("error", failure.name),
        ("error_context", failure.context.name),
        *more,
    ]
    return Entry(
        kind="transient error" if is_transient else "error",
        text=f"{failure.name}: {failure.message}",
        event_id=number,
        fields=_present(fields),
    )


def declared_bad(job: Job, error: JobError) -> Entry:
    """F6: a job is in ERROR (event 211), and no transfer brought it there."""
    fields = [
        ("job_title", job.settings.name),
        ("hr", f"{error.code.hresult:#010x}"),
        ("error", error.name),
        ("error_context", error.context.name),
        ("local_name", "" if error.file_index is None else job.part(error.file_index).local_name[:MOST_CHARACTERS]),
    ]
    text = f"{error.name}: {error.message}"
    return Entry(kind="error", text=text, event_id=eventlog.JOB_FAILED, fields=_present(fields))


def gave_up(job: Job, text: str) -> Entry:
    """J20: a job that was tried again and again is in ERROR (event 211)."""
    more = (("hr", f"{job.error.code.hresult:#010x}"), ("error", job.error.name)) if job.error is not None else ()
    return Entry(kind="error", text=text, event_id=eventlog.JOB_FAILED, fields=(*_title(job), *more))


def _sort(job: Job, failure: Failure, *, is_transient: bool) -> tuple[int, Fields]:
    name = failure.name
    if name in _NO_SUPPORT:
        return eventlog.NO_HTTP_SUPPORT, ()
    if name in _REJECTED:
        target = _REJECTED[name]
        slots = [each.slot for each in job.explicit_credentials] + sorted(job.implicit_credentials)
        schemes = sorted({slot.scheme for slot in slots if slot.target == target})
        if schemes:
            # Whoever sends none is not rejected: he is asked.
            url = _url(job, failure.index)
            server = origin_of(url) if target == "server" and url else target
            return eventlog.CREDENTIALS_REJECTED, (("server", server), ("scheme", ", ".join(schemes)))
        if target == "proxy":
            return eventlog.PROXY_TROUBLE, ()
    if name in _PROXY_UNUSABLE:
        return eventlog.PROXY_REFUSED, (("proxy_bypass_list", job.settings.proxy_bypass_list[:MOST_CHARACTERS]),)
    if name in _ENDS_BY_ITSELF:
        return eventlog.JOB_BLOCKED, (("block_reason_error_code", f"{error_code(name).hresult:#010x}"),)
    if failure.index is not None and failure.context is not ErrorContext.GENERAL_QUEUE_MANAGER:
        return eventlog.FILE_FAILED, ()
    return (0 if is_transient else eventlog.JOB_FAILED), ()


# --- fields ---------------------------------------------------------------------------------------------


def _present(fields: Iterable[tuple[str, str]]) -> Fields:
    return tuple((name, value) for name, value in fields if value)


def _title(job: Job) -> Fields:
    return (("job_title", job.settings.name),)


def _whose(job: Job) -> Fields:
    return (("job_title", job.settings.name), ("job_owner", job.owner.name))


def _ended(job: Job) -> Fields:
    return (*_whose(job), ("file_count", str(len(job.files))), ("bytes_transferred", str(job.bytes_transferred)))


def _url(job: Job, index: int | None) -> str:
    return public_url(job.part(index).remote_name) if index is not None and index < job.part_count else ""


def _list(names: Iterable[str]) -> str:
    listed = [name[:MOST_CHARACTERS] for name, _ in zip(names, range(MOST_NAMES), strict=False)]
    return "\n".join(name.replace("\n", "\\n") for name in listed)


def _names(files: Sequence[File]) -> Fields:
    some = files[:MOST_NAMES]
    urls = _list(public_url(file.remote_name) for file in some)
    return (("urls", urls), ("local_names", _list(file.local_name for file in some)))


def _transfer(job: Job, indices: Sequence[int]) -> Fields:
    """The files of a transfer: the first by name, all by their number and size."""
    first, files = job.part(indices[0]), [job.part(index) for index in indices]
    totals = [file.bytes_total for file in files if file.bytes_total is not None]
    return (
        ("transfer_id", f"{job.run}.{indices[0]}"),
        ("url", public_url(first.remote_name)[:MOST_CHARACTERS]),
        ("local_name", first.local_name[:MOST_CHARACTERS]),
        ("files", str(len(files))),
        ("bytes_transferred", str(sum(file.bytes_transferred for file in files))),
        ("bytes_total", str(sum(totals)) if len(totals) == len(files) else ""),
    )
