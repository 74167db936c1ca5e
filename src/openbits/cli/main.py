"""`bits`: finds the command, runs it, and turns every failure into one line and an exit status.

Commands live in modules of their own, loaded only when they are called: a command pays for no other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from openbits.cli import streams
from openbits.cli.common import COMPLETE_VARIABLE, Context, socket_option
from openbits.cli.text import safe
from openbits.errors import BitsError, ExitCode
from openbits.version import __version__

COMMANDS: Final = {
    "get": ("openbits.cli.get", "get", "Download files and wait for them."),
    "put": ("openbits.cli.put", "put", "Upload a file and wait for it."),
    "create": ("openbits.cli.jobs", "create", "Create a job (it starts SUSPENDED)."),
    "add": ("openbits.cli.jobs", "add", "Add a file to a job."),
    "resume": ("openbits.cli.jobs", "resume", "Start a job, or try it again at once."),
    "suspend": ("openbits.cli.jobs", "suspend", "Stop a job until it is resumed."),
    "cancel": ("openbits.cli.jobs", "cancel", "Delete a job and what it has fetched."),
    "complete": ("openbits.cli.jobs", "complete", "Give a job's files their names and end it."),
    "reply": ("openbits.cli.put", "reply", "Print what a server replied to an upload."),
    "take-ownership": ("openbits.cli.jobs", "take_ownership", "Make a job your own (administrators only)."),
    "wait": ("openbits.cli.jobs", "wait", "Wait until a job is TRANSFERRED or has failed."),
    "set": ("openbits.cli.jobs", "set_properties", "Set properties of a job."),
    "notify": ("openbits.cli.notify", "notify", "Run a program when a job is done."),
    "request-ranges": ("openbits.cli.pieces", "request_ranges", "Ask for pieces of a file (on_demand_mode)."),
    "validate": ("openbits.cli.pieces", "validate", "Declare a transferred file valid or not."),
    "set-credentials": ("openbits.cli.credentials", "set_credentials", "Give a job a user name and a password."),
    "remove-credentials": ("openbits.cli.credentials", "remove_credentials", "Take a job's credentials back."),
    "set-client-certificate": (
        "openbits.cli.certificates",
        "set_client_certificate",
        "Let a job present a client certificate.",
    ),
    "remove-client-certificate": (
        "openbits.cli.certificates",
        "remove_client_certificate",
        "Let a job present none any more.",
    ),
    "headers": ("openbits.cli.credentials", "headers", "Print, set or hide a job's custom headers."),
    "list": ("openbits.cli.show", "list_jobs", "List jobs."),
    "show": ("openbits.cli.show", "show", "Show everything about a job."),
    "why": ("openbits.cli.show", "why", "Say what a job waits for."),
    "policy": ("openbits.cli.policy", "policy", "Show what an administrator has decided for the machine."),
    "proxy": ("openbits.cli.proxy", "proxy", "Show and set the proxies of an account."),
    "events": ("openbits.cli.events", "events", "Show what happened, and what happens."),
    "audit": ("openbits.cli.audit", "audit", "Show who made which job, and what it fetches and runs."),
    "monitor": ("openbits.cli.watch", "monitor", "Watch jobs as they move."),
    "doctor": ("openbits.cli.doctor", "doctor", "Check the service and the way to it."),
    "version": ("openbits.cli.doctor", "version", "Show the versions of client and service."),
    "completion": ("openbits.cli.completion", "completion", "Print the completion script of a shell."),
}


class Commands(click.Group):
    """The commands of the table, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        import importlib  # noqa: PLC0415 - loaded with the command it is for

        command = getattr(importlib.import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.command("bits", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@socket_option
@click.version_option(__version__, "--version", prog_name="bits", message="%(prog)s %(version)s")
@click.pass_context
def bits(ctx: click.Context) -> None:
    """Transfer files in the background: jobs that outlive this shell, this session and this boot.

    A job belongs to the account that made it. It holds files, is resumed to start, and is completed
    when it is TRANSFERRED; `bits get` and `bits put` do all of that in one go. JOB is a job's id, the beginning of one,
    or its name, as far as only one job fits.
    """
    ctx.ensure_object(Context)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; nothing escapes but the status."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete  # noqa: PLC0415 - only a shell that completes needs it

        return shell_complete(bits, {}, "bits", COMPLETE_VARIABLE, instruction)
    try:
        # Not bits.main(): it has ideas of its own about errors and broken pipes.
        with bits.make_context("bits", list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            bits.invoke(ctx)
        sys.stdout.flush()
    except BitsError as error:
        return fail(str(error), error.code.exit_code)
    except click.ClickException as error:
        return fail(f"{BitsError('E_INVALIDARG', usage_text(error))}", ExitCode.USAGE)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError as error:
        return streams.lost("bits", error)
    return ExitCode.DONE


def usage_text(error: click.ClickException) -> str:
    """Return click's sentence as one of ours, with where to look."""
    text = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "bits"
    return f"{text[:1].lower()}{text[1:]}: see '{command} --help'"


def fail(text: str, status: int) -> int:
    """Print one line on standard error and return the status."""
    line = " ".join(safe(text.replace("\n", " ")).split())
    try:
        print(f"bits: {line}", file=sys.stderr, flush=True)
    except BrokenPipeError as error:
        return streams.lost("bits", error)
    return status


def main() -> int:
    """Run `bits`."""
    return streams.guarded("bits", run)
