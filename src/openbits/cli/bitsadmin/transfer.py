"""`/transfer`: a job that is created, waited for and completed in one go (inventory B5).

The rule: nothing is created unless the whole command line makes sense; the job is completed when it is TRANSFERRED,
cancelled when its error is fatal, and waited for while its error may pass. Ctrl+C ends the command and not the job:
the Windows tool's manual promises no more, and hours of download would be lost to a keystroke.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from openbits.cli.bitsadmin.invocation import Failure, Invocation, UsageFailure, attempt
from openbits.cli.bitsadmin.jobs import wanted_acl_flags
from openbits.cli.bitsadmin.lines import error_lines, figures
from openbits.cli.bitsadmin.output import Output, console_columns, guid, note
from openbits.cli.bitsadmin.words import state_word, type_word
from openbits.cli.text import clip, percent, safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.events import EventStream
from openbits.client.session import Session
from openbits.client.specs import default_settings, local_path
from openbits.errors import BitsError, ExitCode

PRIORITIES: Final = ("foreground", "high", "normal", "low")
SETTLED: Final = frozenset({"TRANSFERRED", "ERROR", "ACKNOWLEDGED", "CANCELLED"})
REDRAW_S: Final = 0.2
LONGEST_NAME: Final = 256
_PROGRESS: Final = ("bytes_total", "bytes_transferred", "files_total", "files_transferred")
_NOT_A_FILE: Final = frozenset(
    {
        "BG_E_TOO_MANY_JOBS_PER_USER",
        "BG_E_TOO_MANY_JOBS_PER_MACHINE",
        "ERROR_SERVICE_NOT_ACTIVE",
        "RPC_S_CALL_FAILED",
    }
)


def transfer(call: Invocation) -> int:
    """Transfer files and wait for them."""
    wanted = read_job(call)
    try:
        job_id = call.session.perform(calls.create_large_job(wanted))
    except BitsError as error:
        is_name_wrong = not 0 < len(wanted["name"]) <= LONGEST_NAME
        raise Failure("create job" if is_name_wrong or error.name in _NOT_A_FILE else "add file", error) from error
    # Before what is said meanwhile on standard error, which may lead to the same file.
    call.output.flush()
    try:
        with attempt("follow the job, which goes on"):
            job = Watch(call.session, job_id, Board(call.output)).wait_settled()
        return end(call, job)
    except KeyboardInterrupt:
        note(
            f"bitsadmin: the job {guid(job_id)} goes on: when it is TRANSFERRED, 'bitsadmin /complete' keeps its files,"
            " and 'bitsadmin /cancel' deletes it"
        )
        return ExitCode.INTERRUPTED


def read_job(call: Invocation) -> Json:
    """Return the job that the command line asks for; raises UsageFailure."""
    name, *names = call.arguments
    if len(names) % 2:
        raise UsageFailure("each remote name needs a local name behind it")
    if call.has("/download") and call.has("/upload"):
        raise UsageFailure("a job has one type")
    is_upload = call.has("/upload")
    if is_upload and len(names) > 2:
        raise UsageFailure("an upload has one file")
    priority = (call.options.get("/priority") or "normal").lower()
    if priority not in PRIORITIES:
        raise UsageFailure(f"{safe(priority)!r} is no priority: write FOREGROUND, HIGH, NORMAL or LOW")
    settings: dict[str, Any] = {"priority": priority}
    letters = call.options.get("/aclflags")
    if letters is not None:
        settings["acl_flags"] = wanted_acl_flags(letters)
    if call.has("/dynamic"):
        settings["dynamic_content"] = True
    pairs = zip(names[::2], names[1::2], strict=True)
    return calls.job_in(
        name,
        job_type="upload" if is_upload else "download",
        settings=default_settings(settings),
        files=[calls.file_in(url, local_path(path)) for url, path in pairs],
        resume=True,
    )


def end(call: Invocation, job: Json) -> int:
    """Complete or cancel a job that is settled, say how it ended and return the exit status."""
    if job["state"] == "TRANSFERRED":
        job = _completed(call.session, job["id"])
    match job["state"]:
        case "ACKNOWLEDGED" if job["files_transferred"] == job["files_total"]:
            call.output.line("Transfer complete.")
            return ExitCode.DONE
        case "ACKNOWLEDGED":
            call.output.line("Unable to complete transfer.")
            note("bitsadmin: somebody completed the job before all of its files were transferred: the others are lost")
        case "CANCELLED":
            call.output.line("Transfer canceled.")
        case _:
            _cancel(call.session, job["id"])
            call.output.line("Unable to complete transfer.")
            for line in error_lines(job["error"]) if job["error"] else ():
                call.output.line(line)
    return ExitCode.TRANSFER_FAILED


def _completed(session: Session, job_id: str) -> Json:
    """Complete a job and return it; raises Failure."""
    try:
        with attempt("complete job"):
            completed: Json = session.perform(calls.complete(job_id))["job"]
            return completed
    except Failure as failure:
        if failure.error.name == "BG_E_INVALID_STATE":
            # Somebody else completed or cancelled it in the same moment.
            return session.perform(calls.job(job_id))
        # The files are all here: an error such as a full disk at their new names is one to mend, not to throw away.
        note(f"bitsadmin: nothing is lost: then call 'bitsadmin /complete {guid(job_id)}' again")
        raise


def _cancel(session: Session, job_id: str) -> None:
    try:
        session.perform(calls.cancel(job_id))
    except BitsError as error:
        if error.name not in ("BG_E_INVALID_STATE", "BG_E_NOT_FOUND"):
            raise Failure("cancel job", error) from error


class Board:
    """The lines that show the job on a console, written again and again; elsewhere nothing but errors that may pass."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._columns = console_columns(sys.stdout)
        self._lines_shown = 0
        self._drawn_at_s = float("-inf")
        self._error_said: str | None = None

    def show(self, job: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Show the job as it is now; what follows too closely is left out."""
        if self._columns is None:
            self._say_error(job)
            return
        now_s = time.monotonic()
        if not is_last and now_s - self._drawn_at_s < REDRAW_S:
            return
        self._drawn_at_s = now_s
        self._output.control(f"\x1b[{self._lines_shown}F\x1b[J" if self._lines_shown else "")
        lines = [clip(line, self._columns - 1) for line in progress_lines(job, with_error=not is_last)]
        self._output.control("".join(f"{line}\n" for line in lines))
        self._output.flush()
        self._lines_shown = len(lines)

    def _say_error(self, job: Mapping[str, Any]) -> None:
        error = job["error"] if job["state"] == "TRANSIENT_ERROR" else None
        if error is None:
            self._error_said = None
            return
        text = " ".join(safe(error["message"].replace("\n", " ")).split())
        if text != self._error_said:
            note(f"bitsadmin: {text} ({error['hresult']:#010x}): it is tried again")
        self._error_said = text


def progress_lines(job: Mapping[str, Any], *, with_error: bool) -> list[str]:
    """Return the job while it is transferred: name, type, state, priority, files, bytes, and an error that may pass."""
    share = percent(job["bytes_transferred"], job["bytes_total"])
    lines = [
        f"DISPLAY: '{safe(job['name'])}' TYPE: {type_word(job['type'])} STATE: {state_word(job['state'])}",
        figures(job) + ("" if share is None else f" ({share}%)"),
    ]
    return lines + (error_lines(job["error"]) if with_error and job["error"] else [])


class Watch:
    """Follows one job by its events until it does not move by itself any more."""

    def __init__(self, session: Session, job_id: str, board: Board) -> None:
        self._session = session
        self._job_id = job_id
        self._board = board
        self._job: dict[str, Any] = {}

    def wait_settled(self) -> Json:
        """Return the job when it is TRANSFERRED, in ERROR or final; raises BitsError."""
        with EventStream(self._session.pool, job_id=self._job_id) as stream:
            for message in stream:
                self._take(message.type, message.data)
                if self._job:
                    is_settled = self._job["state"] in SETTLED
                    self._board.show(self._job, is_last=is_settled)
                    if is_settled:
                        return self._job
        raise AssertionError("the stream of a job does not end by itself")

    def _take(self, kind: str, data: Json) -> None:
        if kind == "progress":
            self._job |= {name: data[name] for name in _PROGRESS}
            return
        job = data if kind == "snapshot" else data.get("job")
        if job:
            self._job = dict(job)
