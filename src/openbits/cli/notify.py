"""`bits notify`: the program that is run when a job is done, and how it is shown (J17, J18, J30)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from openbits.cli.commandline import command_line, command_of
from openbits.cli.common import (
    Context,
    find_job,
    hint,
    job_argument,
    json_option,
    pass_context,
    print_json,
    say,
    socket_option,
)
from openbits.cli.jobs import report
from openbits.cli.text import safe
from openbits.client import calls, notifications

FLAGS: Final = (
    (0x01, "job transferred"),
    (0x02, "job error"),
    (0x08, "job modification"),
    (0x10, "file transferred"),
    (0x20, "file ranges transferred"),
)
DISABLE: Final = 0x04
_WORDS: Final = {"transferred": "TRANSFERRED", "error": "in ERROR"}
SERVICE_ACCOUNT: Final = "it is never run: the owner is a service account"


@click.command()
@job_argument
@click.argument("command", metavar="[-- PROGRAM ARG...]", nargs=-1)
@click.option("--none", "clears", is_flag=True, help="Run nothing any more.")
@json_option
@socket_option
@pass_context
def notify(context: Context, job: str, command: Sequence[str], clears: bool, as_json: bool) -> None:
    """Run a program when a job is TRANSFERRED or in ERROR, or show which is run.

    It runs with its owner's rights, while its owner is logged on, with no shell and no terminal, and again after the
    minimum retry delay until it ends with status 0 or the job is completed or cancelled. It is told nothing but its
    arguments: 'bits notify JOB -- /usr/bin/bits complete JOB' completes a job.
    """
    if clears and command:
        raise click.UsageError("name a program, or say --none")
    session = context.session()
    job_id = find_job(session, job)
    if clears:
        report(session.perform(notifications.clear_command(job_id)), as_json=as_json)
    elif command:
        outcome = session.perform(notifications.set_command(job_id, *command_of(command)))
        report(outcome, as_json=as_json)
        if outcome["job"]["owner"]["kind"] != "USER" and not as_json:
            hint(f"bits: {SERVICE_ACCOUNT}")
    else:
        detail = session.perform(calls.job(job_id))
        if as_json:
            print_json({name: detail[name] for name in ("notify_command", "has_notify_interface")})
            return
        for name, value in notify_rows(detail):
            say(f"{name}: {value}")


def notify_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return of what somebody is told, and who, as lines."""
    settings = job["settings"]
    flags = settings["notify_flags"]
    names = ", ".join(name for flag, name in FLAGS if flags & flag) or "nothing"
    rows = [("notify flags", f"{flags:#04x} ({'disabled' if flags & DISABLE else names})")]
    if settings["notification_clsid"]:
        rows.append(("notify bus name", safe(settings["notification_clsid"])))
    if settings["notify_url"]:
        rows.append(("notify url", safe(settings["notify_url"])))
    return [*rows, *told_rows(job)]


def told_rows(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return who is told of the job beside its properties, and who has not been yet, as lines."""
    rows = [("notify interface", "registered" if job.get("has_notify_interface") else "unregistered")]
    command = job.get("notify_command")
    if command is not None:
        remark = "" if job["owner"]["kind"] == "USER" else f"; {SERVICE_ACCOUNT}"
        rows.append(("notify command", f"{command_line(command)}{remark}"))
    if job.get("owed_notice") and (command or job.get("has_notify_interface") or job["settings"]["notification_clsid"]):
        rows.append(("not told yet", f"its owner, that it is {_WORDS[job['owed_notice']]}"))
    if job.get("owed_webhook") and job["settings"]["notify_url"]:
        rows.append(("not told yet", f"the notify url, that it is {_WORDS[job['owed_webhook']]}"))
    return rows
