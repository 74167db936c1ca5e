"""`bits put` and `bits reply`: a file to a server in one go, and what the server replies to it."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any, Final

import click

from openbits.cli import targets
from openbits.cli.common import (
    Context,
    find_job,
    hint,
    job_argument,
    json_option,
    pass_context,
    print_json,
    socket_option,
)
from openbits.cli.text import safe
from openbits.cli.transfer import Wishes, carry_out, hint_at_passwords, transfer_options
from openbits.client import calls
from openbits.client.specs import default_settings

PROTOCOLS: Final = ("auto", "bits", "tus", "ietf", "put")


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("url", metavar="URL")
@click.option("--reply", metavar="PATH", help="Where the server's reply goes; makes an upload-reply job.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="auto",
    show_default=True,
    help="How to speak to the server; auto asks it. With put, an interruption starts from zero.",
)
@transfer_options
@pass_context
def put(context: Context, *, file: str, url: str, reply: str | None, protocol: str, wishes: Wishes) -> None:
    """Upload a file and wait for it.

    Creates an upload job, resumes it, shows how much the server has acknowledged, and completes it when the server has
    the file; then the URL is printed, or with --reply the path of the reply. A URL that ends in '/' gets the file's
    name. The file must stay as it is until then. The job goes on when this command is interrupted. Where no system
    service and no user service answers, the user's is started. Proxies of this shell's environment are written into the
    job, as with 'bits get'.
    """
    hint_at_passwords([url])
    path = targets.absolute(file)
    target = targets.upload_url(url, path)
    if target != url:
        hint(f"bits: the file goes to {safe(targets.shown_url(target))}")
    settings: dict[str, Any] = wishes.settings([target])
    if protocol != "auto":
        settings["upload_protocol"] = protocol
    job = calls.job_in(
        wishes.display_name(path),
        job_type="upload" if reply is None else "upload-reply",
        settings=default_settings(settings),
        files=[calls.file_in(target, path)],
        resume=True,
        reply_file_name=None if reply is None else reply_path(reply),
    )
    carry_out(context, job, wishes)


def reply_path(path: str) -> str:
    """Return the absolute path of a reply; raises UsageError for a directory."""
    absolute = targets.absolute(path)
    if not path or path.endswith("/") or os.path.isdir(absolute):
        raise click.UsageError(f"{safe(path)!r} is a directory: give the reply a file name")
    return absolute


@click.command()
@job_argument
@json_option
@socket_option
@pass_context
def reply(context: Context, job: str, as_json: bool) -> None:
    """Print what the server replied to an upload-reply job that is TRANSFERRED or completed, up to 1 MiB.

    The bytes go to standard output as they are; with --json in base64. The reply of a completed job is a file too.
    """
    session = context.session()
    content = session.perform(calls.reply_data(find_job(session, job))) or b""
    if as_json:
        print_json({"bytes": len(content), "base64": base64.b64encode(content).decode("ascii")})
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
