"""`bits get`: create, resume, wait and complete in one go; starts the per-user service where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from openbits.cli import proxyenv, targets
from openbits.cli.common import PRIORITIES, Context, hint, json_option, pass_context, print_json, say, socket_option
from openbits.cli.display import choose_display
from openbits.cli.follow import Follower, raise_if_failed
from openbits.cli.targets import Target
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.session import Session
from openbits.client.specs import default_settings
from openbits.errors import BitsError, ExitCode

NAME_LIMIT: Final = 256
MANY_FILES: Final = 20
DEFAULT_CONNECTIONS: Final = 8


def start_service_if_needed() -> None:
    """Start the per-user service; the module behind is loaded only then."""
    from openbits.client.autostart import start_user_service  # noqa: PLC0415 - most calls find a service

    start_user_service()


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1)
@click.option("-o", "--output", metavar="PATH", help="Name of the file, or a directory to put it in (one URL only).")
@click.option("-d", "--directory", metavar="DIR", help="Directory for the files. Else: the current one.")
@click.option("--name", metavar="NAME", help="Display name of the job. Else: the name of the first file.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="foreground",
    show_default=True,
    help="How urgent the job is; all but foreground stand back for other traffic.",
)
@click.option("--async", "is_async", is_flag=True, help="Print the job's id and do not wait. 'bits complete' ends it.")
@click.option(
    "--checksum", metavar="sha256:HEX", help="What the content must hash to (sha256 or sha512; one URL only)."
)
@click.option("--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Header to send; may be repeated.")
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 64),
    help=f"How many files may be on the way at once. Else: 1, or {DEFAULT_CONNECTIONS} for several URLs.",
)
@click.option(
    "--input-file",
    metavar="FILE",
    help="Take URLs from a file ('-': standard input), one a line, each with a tab and a path if wanted.",
)
@click.option(
    "--retry-delay",
    metavar="S",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Minimum retry delay after a transient error, in seconds.",
)
@click.option(
    "--no-proxy-env",
    is_flag=True,
    help="Leave out the proxies of this shell's http_proxy, https_proxy, all_proxy and no_proxy.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@json_option
@socket_option
@pass_context
def get(
    context: Context,
    *,
    urls: Sequence[str],
    output: str | None,
    directory: str | None,
    name: str | None,
    priority: str,
    is_async: bool,
    checksum: str | None,
    headers: Sequence[str],
    connections: int | None,
    input_file: str | None,
    retry_delay: int,
    no_proxy_env: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Download files and wait for them.

    Creates a job with all the files, resumes it, shows its progress, and completes it when it is TRANSFERRED; then the
    files stand under their names, whose paths are printed. The job goes on when this command is interrupted. Where no
    system service and no user service answers, the user's is started. The service knows nothing of this shell's proxy
    variables; where they name a proxy for the URLs, they are written into the job, and a line says so.
    """
    lines = targets.read_lines(input_file) if input_file is not None else ()
    wanted = targets.choose_targets(urls, output=output, directory=directory, lines=lines)
    checked = targets.checked_checksum(checksum)
    if checked is not None and len(wanted) > 1:
        raise click.UsageError("--checksum belongs to one file, but there are several URLs")
    settings: dict[str, Any] = {"priority": priority, "minimum_retry_delay": retry_delay}
    settings["file_concurrency"] = connections or (DEFAULT_CONNECTIONS if len(wanted) > 1 else 1)
    if headers:
        settings["custom_headers"] = targets.checked_headers(headers)
    if not no_proxy_env:
        proxies, line = proxyenv.settings_of(os.environ, (target.url for target in wanted))
        settings |= proxies
        if line:
            hint(line)
    display_name = name or safe(os.path.basename(wanted[0].path))[:NAME_LIMIT]
    job = calls.job_in(
        display_name,
        settings=default_settings(settings),
        files=[calls.file_in(target.url, target.path, checksum=checked) for target in wanted],
        resume=True,
    )
    session = context.session(start=start_service_if_needed)
    job_id = session.perform(calls.create_large_job(job))
    if is_async:
        print_json({"id": job_id}) if as_json else say(job_id)
        return
    wait_and_complete(session, job_id, display_name, wanted, quiet=quiet, as_json=as_json)


def wait_and_complete(
    session: Session, job_id: str, name: str, wanted: Sequence[Target], *, quiet: bool, as_json: bool
) -> None:
    """See a job to its end and print what came of it; Ctrl+C leaves it to the service."""
    try:
        job = Follower(session, job_id, choose_display(name, quiet=quiet)).wait_settled()
        assert job is not None
        if job["state"] == "TRANSFERRED":
            job = complete_or_explain(session, job_id)
    except KeyboardInterrupt:
        raise interrupted(job_id) from None
    if as_json:
        files = [{"remote_name": target.url, "local_name": target.path} for target in wanted]
        print_json({**job, "files": files})
    raise_if_failed(job)
    if not as_json:
        print_paths([target.path for target in wanted])


def complete_or_explain(session: Session, job_id: str) -> Json:
    """Complete a TRANSFERRED job; an error says that nothing is lost and what to do."""
    try:
        outcome = session.perform(calls.complete(job_id))
    except BitsError as error:
        if error.name == "BG_E_INVALID_STATE":
            # Somebody else completed or cancelled it in the same moment.
            return session.perform(calls.job(job_id))
        raise BitsError(error.name, f"{error.message}: then call 'bits complete {job_id}' again") from error
    if outcome["result"] != "S_OK":
        hint(f"bits: {BitsError(outcome['result'])}")
    job: Json = outcome["job"]
    return job


def interrupted(job_id: str) -> click.exceptions.Exit:
    """Say how to go on with a job that nobody waits for any more."""
    hint(
        f"bits: the job goes on in the background: follow it with 'bits wait {job_id} --complete', "
        f"stop it with 'bits cancel {job_id}'"
    )
    return click.exceptions.Exit(ExitCode.INTERRUPTED)


def print_paths(paths: Sequence[str]) -> None:
    """Print where the files are: every path for a program, a summary of many for a person."""
    if len(paths) > MANY_FILES and sys.stdout.isatty():
        common = os.path.commonpath(paths)
        say(f"{len(paths)} files in {safe(common)}")
        return
    say("\n".join(safe(path) for path in paths))
