"""The switches that show jobs: /list, /info, /listfiles, /monitor (inventory B2, B3, B7, B12)."""

from __future__ import annotations

import sys
import time

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure, number
from openbits.cli.bitsadmin.lines import file_line, summary, verbose_block
from openbits.cli.bitsadmin.output import Output, console_columns, note
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.session import Session

REFRESH_S = 5
LONGEST_REFRESH_S = 86_400
CLEAR_CONSOLE = "\x1b[H\x1b[2J"


def list_jobs(call: Invocation) -> None:
    """List the jobs in the queue (B2)."""
    jobs = call.session.perform(calls.all_jobs(all_users=call.has("/allusers")))
    for job in jobs:
        if call.has("/verbose"):
            _print_block(call.output, call.session, str(job["id"]))
            call.output.line()
        else:
            call.output.line(summary(job))
    if jobs and not call.has("/verbose"):
        call.output.line()
    call.output.line(f"Listed {len(jobs)} job(s).")


def info(call: Invocation) -> None:
    """Show one job, on one line or with everything (B7)."""
    if call.has("/verbose"):
        _print_block(call.output, call.session, call.job_id)
    else:
        call.output.line(summary(call.detail()))


def list_files(call: Invocation) -> None:
    """List the files of a job (B12)."""
    for file in call.session.perform(calls.all_files(call.job_id)):
        call.output.line(file_line(file))


def monitor(call: Invocation) -> None:
    """Show the jobs anew every few seconds until Ctrl+C (B3); where there is no console, once.

    The console is cleared each time, which makes no sense in a file: there the picture of this moment is what a
    program can use, and `bits events --follow` is what it can follow.
    """
    given = call.options.get("/refresh")
    refresh_s = REFRESH_S if given is None else number(given, "the refresh interval in seconds")
    if not 1 <= refresh_s <= LONGEST_REFRESH_S:
        raise UsageFailure(f"the refresh interval is 1 to {LONGEST_REFRESH_S} seconds")
    is_console = console_columns(sys.stdout) is not None
    try:
        while True:
            jobs = call.session.perform(calls.all_jobs(all_users=call.has("/allusers")))
            _draw(call.output, jobs, refresh_s, clear=is_console)
            if not is_console:
                note("bitsadmin: this is no console, so the jobs were shown once: follow them with 'bits events -f'")
                return
            time.sleep(refresh_s)
    except KeyboardInterrupt:
        return


def _draw(output: Output, jobs: list[Json], refresh_s: int, *, clear: bool) -> None:
    if clear:
        output.control(CLEAR_CONSOLE)
    output.line(f"MONITORING BACKGROUND COPY MANAGER({refresh_s} second refresh)")
    for job in jobs:
        output.line(summary(job))
    output.flush()


def _print_block(output: Output, session: Session, job_id: str) -> None:
    files = session.perform(calls.all_files(job_id))
    job = session.perform(calls.job(job_id))
    for line in verbose_block(job, files):
        output.line(line)
