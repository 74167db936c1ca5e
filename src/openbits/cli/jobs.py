"""The commands that act on jobs: create, add, resume, suspend, cancel, complete, wait, set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from openbits.cli import targets
from openbits.cli.common import (
    PRIORITIES,
    Context,
    FailedTransfer,
    find_job,
    hint,
    job_argument,
    json_option,
    pass_context,
    print_json,
    say,
    socket_option,
)
from openbits.cli.display import choose_display
from openbits.cli.follow import Follower, raise_if_failed
from openbits.cli.properties import REPLY_FILE_NAME, parse_assignments
from openbits.cli.text import safe
from openbits.cli.transfer import complete_or_explain, interrupted, print_paths, results, start_service_if_needed
from openbits.client import calls
from openbits.client.calls import Call, Json
from openbits.client.specs import default_settings
from openbits.errors import BitsError

TYPES: Final = ("download", "upload", "upload-reply")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--type", "job_type", type=click.Choice(TYPES), default="download", show_default=True, help="Type.")
@click.option("--description", metavar="TEXT", help="Description, up to 1,024 characters.")
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True, help="Priority.")
@json_option
@socket_option
@pass_context
def create(context: Context, name: str, job_type: str, description: str | None, priority: str, as_json: bool) -> None:
    """Create a job and print its id.

    The job starts SUSPENDED and without files: 'bits add' adds them, 'bits resume' starts it.
    """
    settings: dict[str, Any] = {"priority": priority}
    if description is not None:
        settings["description"] = description
    job = calls.job_in(name, job_type=job_type, settings=default_settings(settings))
    job_id = context.session(start=start_service_if_needed).perform(calls.create_job(job))
    print_json({"id": job_id}) if as_json else say(job_id)


@click.command()
@job_argument
@click.argument("url", metavar="URL")
@click.argument("path", metavar="PATH")
@click.option(
    "--range", "ranges", metavar="OFF:LEN", multiple=True, help="Part to fetch, LEN may be 'eof'; may be repeated."
)
@click.option("--checksum", metavar="sha256:HEX", help="What the content must hash to (sha256 or sha512).")
@json_option
@socket_option
@pass_context
def add(
    context: Context, job: str, url: str, path: str, ranges: Sequence[str], checksum: str | None, as_json: bool
) -> None:
    """Add a file to a job: its URL, and the path it gets when the job is completed.

    Of an upload job, which has one file only, PATH is the file to send, and URL where it goes. Several ranges are
    written back to back, in the order given.
    """
    file = calls.file_in(
        targets.checked_url(url),
        targets.absolute(path),
        ranges=[parse_range(text) for text in ranges],
        checksum=targets.checked_checksum(checksum),
    )
    session = context.session()
    outcome = session.perform(calls.add_files(find_job(session, job), [file]))
    report(outcome, as_json=as_json)


def parse_range(text: str) -> tuple[int, int]:
    """Return offset and length of `OFF:LEN` or `OFF:eof`; raises UsageError."""
    offset, colon, length = text.partition(":")
    if colon and offset.isascii() and offset.isdigit():
        if length.lower() == "eof":
            return int(offset), -1
        if length.isascii() and length.isdigit():
            return int(offset), int(length)
    raise click.UsageError(f"{safe(text)!r} is not a range: write OFFSET:LENGTH or OFFSET:eof, in bytes")


def report(outcome: Json, *, as_json: bool) -> None:
    """Print how a call ended: nothing if all is said by the exit status, a remark if there is one."""
    if as_json:
        print_json({"result": outcome["result"], "hresult": outcome["hresult"], "job": outcome["job"]})
    elif outcome["result"] != "S_OK":
        hint(f"bits: {BitsError(outcome['result'])}")


def _verb(context: Context, job: str, call: Any, *, as_json: bool) -> None:
    session = context.session()
    wanted: Call[Json] = call(find_job(session, job))
    report(session.perform(wanted), as_json=as_json)


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def resume(context: Context, job: str, as_json: bool) -> None:
    """Start a job that is SUSPENDED or in ERROR; one in TRANSIENT_ERROR is tried again at once."""
    _verb(context, job, calls.resume, as_json=as_json)


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def suspend(context: Context, job: str, as_json: bool) -> None:
    """Stop a job until it is resumed; nothing that was fetched is lost."""
    _verb(context, job, calls.suspend, as_json=as_json)


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def cancel(context: Context, job: str, as_json: bool) -> None:
    """Delete a job and everything it has fetched; the server of an upload is told in the background."""
    _verb(context, job, calls.cancel, as_json=as_json)


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def complete(context: Context, job: str, as_json: bool) -> None:
    """Give the finished files of a job their names and end the job; unfinished files are deleted.

    An upload job must be TRANSFERRED; its reply, if there is one, gets its name.
    """
    _verb(context, job, calls.complete, as_json=as_json)


@click.command("take-ownership")
@job_argument
@json_option
@socket_option
@pass_context
def take_ownership(context: Context, job: str, as_json: bool) -> None:
    """Make a job of another account your own, with everything that it has fetched; administrators only.

    Its credentials, custom headers and helper token are removed. The job then waits for your log-on, and not for that
    of its former owner. You need write access to the directories of its files, or read access to the file that it
    uploads; changing a job needs no ownership.
    """
    _verb(context, job, calls.take_ownership, as_json=as_json)


@click.command()
@job_argument
@click.option("--timeout", metavar="S", type=click.FloatRange(min=0), help="Give up after so many seconds (status 1).")
@click.option("--complete", "then_complete", is_flag=True, help="Complete the job when it is TRANSFERRED.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@socket_option
@pass_context
def wait(context: Context, job: str, timeout: float | None, then_complete: bool, quiet: bool, as_json: bool) -> None:
    """Wait until a job is TRANSFERRED, and show its progress.

    The exit status is 0 for a job that is TRANSFERRED or ACKNOWLEDGED, 1 for one in ERROR or CANCELLED, and when the
    time is over.
    """
    session = context.session()
    job_id = find_job(session, job)
    try:
        name = session.perform(calls.job(job_id))["name"]
        ended = Follower(session, job_id, choose_display(name, quiet=quiet)).wait_settled(timeout)
        if ended is None:
            raise FailedTransfer(
                "ERROR_WINHTTP_TIMEOUT", f"the job was not TRANSFERRED after {timeout:g} s; it goes on"
            )
        completed = then_complete and ended["state"] == "TRANSFERRED"
        if completed:
            ended = complete_or_explain(session, job_id)
    except KeyboardInterrupt:
        raise interrupted(job_id) from None
    if as_json:
        print_json(ended)
    raise_if_failed(ended)
    if completed and not as_json:
        files = session.perform(calls.all_files(job_id))
        print_paths(results(ended, [file for file in files if file["completed"]]))


@click.command("set")
@job_argument
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1, required=True)
@json_option
@socket_option
@pass_context
def set_properties(context: Context, job: str, assignments: Sequence[str], as_json: bool) -> None:
    """Set properties of a job, all or none.

    Keys are BITS's names: name, description, priority, minimum_retry_delay, no_progress_timeout, maximum_download_time,
    notify_flags, cost_flags, notification_clsid, dynamic_content, high_performance, max_download_size, on_demand_mode,
    minimum_notification_interval_ms, acl_flags, peer_caching_flags; and ours: notify_url,
    strict_http, file_concurrency, stall_timeout, umask (octal), custom_headers, upload_protocol, use_netrc.
    security_flags are a number or words (ssl_enable_crl_check, ssl_ignore_unknown_ca, http_redirect_policy_disallow …)
    divided by commas; http_method, which makes the job foreground, is set before the first Resume;
    use_stored_credentials is proxy or none. Durations are seconds, sizes bytes, switches true or false; 'none' takes a
    limit back. reply_file_name, of an upload-reply job, is set alone.
    """
    changes = parse_assignments(assignments)
    session = context.session()
    if REPLY_FILE_NAME in changes:
        path = changes.pop(REPLY_FILE_NAME)
        if changes:
            raise click.UsageError(f"{REPLY_FILE_NAME} is no property of the job: set it alone")
        path = None if path is None else targets.absolute(path)
        outcome = session.perform(calls.set_reply_file_name(find_job(session, job), path))
    else:
        outcome = session.perform(calls.change_settings(find_job(session, job), changes))
    report(outcome, as_json=as_json)
