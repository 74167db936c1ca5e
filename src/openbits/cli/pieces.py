"""The commands about single files of a job: which pieces of them are wanted, and whether their content is valid."""

from __future__ import annotations

from collections.abc import Sequence

import click

from openbits.cli.common import Context, find_job, hint, job_argument, json_option, pass_context, socket_option
from openbits.cli.jobs import parse_range, report
from openbits.client import calls, pieces

_index_argument = click.argument("index", metavar="INDEX", type=click.IntRange(min=0))


@click.command("request-ranges")
@job_argument
@_index_argument
@click.argument("ranges", metavar="OFF:LEN...", nargs=-1)
@click.option(
    "--position", metavar="OFF", type=click.IntRange(min=0), help="Fetch what is wanted from this byte on first."
)
@click.option("--resume", is_flag=True, help="Resume the job, too.")
@json_option
@socket_option
@pass_context
def request_ranges(
    context: Context,
    job: str,
    index: int,
    ranges: Sequence[str],
    position: int | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Ask for ranges of a file, of a job that was made with on_demand_mode=true before it was resumed.

    INDEX is the file's number in 'bits show', LEN may be 'eof'. Ranges may overlap what was requested before: nothing
    is fetched twice. A job that runs fetches them at once; one that is SUSPENDED does when it is resumed, and is
    SUSPENDED again when they are here, or TRANSFERRED when the whole file is. What is here can be read from the
    file's temporary name, which 'bits show --json' tells, at once.
    """
    if not ranges and position is None:
        raise click.UsageError("name a range such as 0:65536, or --position")
    wanted = [parse_range(text) for text in ranges]
    session = context.session()
    job_id = find_job(session, job)
    outcome = None
    if position is not None:
        outcome = session.perform(pieces.update_position(job_id, index, position))
    if wanted:
        outcome = session.perform(pieces.request_ranges(job_id, index, wanted))
    if resume:
        outcome = session.perform(calls.resume(job_id))
    assert outcome is not None
    report(outcome, as_json=as_json)
    if not as_json and not resume and outcome["job"]["state"] == "SUSPENDED":
        hint("bits: the job is SUSPENDED: 'bits resume' fetches what was requested")


@click.command()
@job_argument
@_index_argument
@click.argument("state", metavar="valid|invalid", type=click.Choice(("valid", "invalid", "true", "false")))
@json_option
@socket_option
@pass_context
def validate(context: Context, job: str, index: int, state: str, as_json: bool) -> None:
    """Say of a file that is transferred whether its content is valid.

    'invalid' drops the file: the job goes to ERROR with BG_E_VALIDATION_FAILED, and 'bits resume' fetches that file
    again, and no other. 'bits complete' says 'valid' of all that it completes. INDEX is the file's number in
    'bits show'.
    """
    session = context.session()
    is_valid = state in ("valid", "true")
    outcome = session.perform(calls.change_file(find_job(session, job), index, {"validation_state": is_valid}))
    report(outcome, as_json=as_json)
