"""`bits get`: create, resume, wait and complete in one go; starts the per-user service where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from openbits.cli import targets
from openbits.cli.common import Context, pass_context
from openbits.cli.transfer import Wishes, carry_out, hint_at_passwords, transfer_options
from openbits.client import calls
from openbits.client.specs import default_settings

DEFAULT_CONNECTIONS: Final = 8


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1)
@click.option("-o", "--output", metavar="PATH", help="Name of the file, or a directory to put it in (one URL only).")
@click.option("-d", "--directory", metavar="DIR", help="Directory for the files. Else: the current one.")
@click.option(
    "--checksum", metavar="sha256:HEX", help="What the content must hash to (sha256 or sha512; one URL only)."
)
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
@transfer_options
@pass_context
def get(
    context: Context,
    *,
    urls: Sequence[str],
    output: str | None,
    directory: str | None,
    checksum: str | None,
    connections: int | None,
    input_file: str | None,
    wishes: Wishes,
) -> None:
    """Download files and wait for them.

    Creates a job with all the files, resumes it, shows its progress, and completes it when it is TRANSFERRED; then the
    files stand under their names, whose paths are printed. The job goes on when this command is interrupted. Where no
    system service and no user service answers, the user's is started. The service knows nothing of this shell's proxy
    variables; where they name a proxy for the URLs, they are written into the job, and a line says so.
    """
    if input_file == "-" and wishes.password.password_stdin:
        raise click.UsageError("standard input has the URLs: give --password-file or --password-fd")
    hint_at_passwords(urls)
    lines = targets.read_lines(input_file) if input_file is not None else ()
    wanted = targets.choose_targets(urls, output=output, directory=directory, lines=lines)
    checked = targets.checked_checksum(checksum)
    if checked is not None and len(wanted) > 1:
        raise click.UsageError("--checksum belongs to one file, but there are several URLs")
    settings = wishes.settings(target.url for target in wanted)
    settings["file_concurrency"] = connections or (DEFAULT_CONNECTIONS if len(wanted) > 1 else 1)
    job = calls.job_in(
        wishes.display_name(wanted[0].path),
        settings=default_settings(settings),
        files=[calls.file_in(target.url, target.path, checksum=checked) for target in wanted],
        resume=True,
    )
    carry_out(context, job, wishes)
