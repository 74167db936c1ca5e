"""What the commands share: the way to the service, the options, and which job is meant."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import click

from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.discovery import Endpoint
from openbits.client.session import Session
from openbits.errors import BitsError, ErrorCode, ExitCode

F = TypeVar("F", bound=Callable[..., Any])

COMPLETE_VARIABLE: Final = "_BITS_COMPLETE"
PRIORITIES: Final = ("foreground", "high", "normal", "low")
_GUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FINAL_STATES: Final = ("ACKNOWLEDGED", "CANCELLED")
_MAX_CANDIDATES: Final = 10


@dataclass(slots=True)
class Context:
    """What the options before the command said; a command's own --socket goes before it."""

    socket: str | None = None
    _session: Session | None = field(default=None, repr=False)

    def session(self, *, start: Callable[[], None] | None = None) -> Session:
        """Return the way to the service; `start` is called where none answers, unless a socket was named."""
        if self._session is None:
            named = self.socket or os.environ.get("BITS_SOCKET")
            self._session = Session(Endpoint(self.socket, start=None if named else start))
        return self._session


def _set_socket(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Context).socket = value


def socket_option(function: F) -> F:
    """Add --socket; it may stand before or after the command."""
    return click.option(
        "--socket",
        metavar="PATH",
        expose_value=False,
        callback=_set_socket,
        help="The service's socket. Else: $BITS_SOCKET, the system's service, the user's service.",
    )(function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


pass_context = click.make_pass_decorator(Context, ensure=True)


def print_json(data: Any) -> None:
    """Print JSON for a program; ASCII, so that no name in it can harm a terminal or break the encoding."""
    print(json.dumps(data, indent=2))


def say(text: str) -> None:
    """Print a line of ours; what others chose in it has passed `safe`."""
    print(text)


def hint(text: str) -> None:
    """Print a line for the person who watches, on standard error."""
    print(text, file=sys.stderr, flush=True)


class FailedTransfer(BitsError):
    """A job came to nothing: whatever its error is, the exit status is that of a failed transfer."""

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(name, message)
        row = self.code
        self.code = ErrorCode(
            name=row.name,
            hresult=row.hresult,
            fault=row.fault,
            text=row.text,
            exit_code=ExitCode.TRANSFER_FAILED,
            http_status=row.http_status,
        )


class JobReference(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A JOB argument: an id, the beginning of one, or a name. Completion offers the caller's jobs."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002
        """Offer ids, with the names as help; silent where no service answers."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a shell that completes needs it

        try:
            jobs = (ctx.find_object(Context) or Context()).session().perform(calls.all_jobs())
        except BitsError:
            return []
        wanted = incomplete.strip("{}").lower()
        return [
            CompletionItem(job["id"], help=f"{safe(job['name'])} ({job['state']})")
            for job in jobs
            if job["id"].startswith(wanted)
        ]


def job_argument(function: F) -> F:
    """Add the argument JOB."""
    return click.argument("job", metavar="JOB", type=JobReference())(function)


def find_job(session: Session, reference: str) -> str:
    """Return the id of the one job that a reference fits.

    Raises BG_E_NOT_FOUND, or click.UsageError where several fit. Jobs in the queue go before ones that have left it,
    the caller's own before other accounts'.
    """
    wanted = reference.strip().strip("{}").lower()
    if _GUID.fullmatch(wanted):
        return wanted
    if not reference.strip():
        raise click.UsageError("JOB is empty")
    for jobs in _places(session):
        fitting = [job for job in jobs if job["name"] == reference or (wanted and job["id"].startswith(wanted))]
        queued = [job for job in fitting if job["state"] not in _FINAL_STATES]
        chosen = queued or fitting
        if len(chosen) > 1:
            raise click.UsageError(_ambiguous(reference, chosen))
        if chosen:
            return str(chosen[0]["id"])
    raise BitsError("BG_E_NOT_FOUND", f"no job has the id or the name {safe(reference)!r}: see 'bits list'")


def _places(session: Session) -> Any:
    """Where a job is looked for, each place only if those before had nothing."""
    yield session.perform(calls.all_jobs(history=True))
    try:
        yield session.perform(calls.all_jobs(all_users=True, history=True))
    except BitsError as error:
        if error.name != "E_ACCESSDENIED":
            raise


def _ambiguous(reference: str, jobs: list[Json]) -> str:
    shown = ", ".join(f"{job['id']} ({safe(job['name'])})" for job in jobs[:_MAX_CANDIDATES])
    more = f" and {len(jobs) - _MAX_CANDIDATES} more" if len(jobs) > _MAX_CANDIDATES else ""
    return f"{safe(reference)!r} fits {len(jobs)} jobs: {shown}{more}"
