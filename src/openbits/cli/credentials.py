"""The commands about what a job proves to whom: set-credentials, remove-credentials, headers."""

from __future__ import annotations

import sys
from typing import Final

import click

from openbits.cli.common import (
    Context,
    find_job,
    job_argument,
    json_option,
    pass_context,
    print_json,
    say,
    socket_option,
)
from openbits.cli.jobs import report
from openbits.cli.passwords import PasswordSource, password_options
from openbits.cli.text import safe
from openbits.client import calls
from openbits.errors import BitsError

TARGETS: Final = ("server", "proxy")
SCHEMES: Final = ("basic", "digest", "ntlm", "negotiate", "passport")
HEADERS_MOST_BYTES: Final = 65_536

_target = click.option(
    "--target", type=click.Choice(TARGETS), default="server", show_default=True, help="Who asks for the credentials."
)
_scheme = click.option("--scheme", type=click.Choice(SCHEMES), required=True, help="How they are proved.")


@click.command("set-credentials")
@job_argument
@_target
@_scheme
@click.option("--user", metavar="NAME", help="User name; for ntlm and negotiate also DOMAIN\\NAME or NAME@REALM.")
@click.option("--implicit", is_flag=True, help="Use the account's own credentials (ntlm and negotiate only).")
@password_options
@json_option
@socket_option
@pass_context
def set_credentials(
    context: Context,
    job: str,
    *,
    target: str,
    scheme: str,
    user: str | None,
    implicit: bool,
    password: PasswordSource,
    as_json: bool,
) -> None:
    """Give a job a user name and a password, or let it use the account's own credentials.

    They are sent only to a server, or a proxy, that asks for them by this scheme; of several schemes the strongest goes
    first. The password is asked for on the terminal, or read from a file, a descriptor or standard input; it is kept
    sealed, nothing shows it again, and it is gone when the job ends. Only the owner of a job can do this. After an
    error 401 or 407, set other ones and call 'bits resume'.
    """
    name, secret = None, None
    if implicit:
        if user is not None or password.is_named:
            raise click.UsageError("--implicit stands for the account's own credentials: leave name and password out")
    else:
        name = user if user is not None else ask_name()
        secret = password.read(f"Password of {safe(name)} for the {target}: ")
    session = context.session()
    job_id = find_job(session, job)
    report(session.perform(calls.set_credentials(job_id, target, scheme, name, secret)), as_json=as_json)


def ask_name() -> str:
    """Ask the terminal for a user name. Raises UsageError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise click.UsageError("give --user NAME, or --implicit for the account's own credentials")
    name: str = click.prompt("User name", err=True)
    return name


@click.command("remove-credentials")
@job_argument
@_target
@_scheme
@json_option
@socket_option
@pass_context
def remove_credentials(context: Context, job: str, *, target: str, scheme: str, as_json: bool) -> None:
    """Take back what 'bits set-credentials' gave a job for a target and a scheme."""
    session = context.session()
    job_id = find_job(session, job)
    report(session.perform(calls.remove_credentials(job_id, target, scheme)), as_json=as_json)


@click.command()
@job_argument
@click.option("--file", "path", metavar="FILE", help="Set the header lines that stand in a file ('-': standard input).")
@click.option("--clear", is_flag=True, help="Take all header lines back.")
@click.option("--write-only", is_flag=True, help="From now on nobody can read them, and there is no way back.")
@json_option
@socket_option
@pass_context
def headers(context: Context, job: str, *, path: str | None, clear: bool, write_only: bool, as_json: bool) -> None:
    """Print, set or hide the custom headers of a job; only its owner can.

    They go along with every request. What stands on a command line, as with 'bits set JOB custom_headers=…', every
    account of the machine can see while the command runs; what stands in a file, it cannot.
    """
    if clear and path is not None:
        raise click.UsageError("--file sets header lines and --clear takes them back: give one of them")
    lines = None if path is None else read_headers(path)
    session = context.session()
    job_id = find_job(session, job)
    outcome = None
    if clear or lines is not None:
        outcome = session.perform(calls.set_custom_headers(job_id, lines))
    if write_only:
        outcome = session.perform(calls.hide_custom_headers(job_id))
    if outcome is not None:
        report(outcome, as_json=as_json)
        return
    found = session.perform(calls.custom_headers(job_id))
    if as_json:
        print_json({"result": "S_FALSE" if found is None else "S_OK", "custom_headers": found})
    elif found is not None:
        say("\n".join(safe(line) for line in found.split("\r\n") if line))


def read_headers(path: str) -> str:
    """Return the header lines of a file. Raises UsageError, BG_E_STRING_TOO_LONG."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(HEADERS_MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(HEADERS_MOST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{safe(path)} cannot be read: {error.strerror}") from None
    if len(content) > HEADERS_MOST_BYTES:
        raise BitsError("BG_E_STRING_TOO_LONG", f"{safe(path)} has more in it than custom headers can be")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise click.UsageError(f"{safe(path)} has other than ASCII characters in it: headers are ASCII") from None
    return "".join(f"{line}\r\n" for line in text.replace("\r\n", "\n").split("\n") if line)
