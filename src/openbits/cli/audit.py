"""The command `audit`: who made which job, and what it fetches and runs, so that nobody comes back unseen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click

from openbits.cli import text
from openbits.cli.common import Context, json_option, pass_context, print_json, say, socket_option
from openbits.cli.events import Time
from openbits.cli.text import safe
from openbits.client import calls

URLS_SHOWN: Final = 3


@click.command()
@click.option("--since", metavar="TIME", type=Time(), help="Only jobs with something new since: 2h, yesterday …")
@click.option("--user", metavar="NAME", help="Only jobs of this account, by name or uid.")
@json_option
@socket_option
@pass_context
def audit(context: Context, since: str | None, user: str | None, as_json: bool) -> None:
    """Show who made which job, with what program, what it fetches and what it runs; also of jobs that are gone.

    Jobs that run a command when they end come first, marked '!': that is how an intruder would come back. Then what
    accounts did to each other's jobs is shown with each job. Administrators see every account's jobs, others their own.
    """
    session = context.session()
    is_administrator = bool(session.perform(calls.whoami())["is_administrator"])
    jobs = session.perform(calls.audit(all_users=is_administrator, since=since, user=user))
    if as_json:
        print_json(jobs)
        return
    running = sum(1 for job in jobs if is_persistent(job))
    whose = "all accounts" if is_administrator else "your account"
    say(f"{len(jobs)} jobs of {whose}, {running} with a notification command (marked !)")
    for job in jobs:
        say("")
        for line in job_lines(job, datetime.now(UTC)):
            say(line)


def is_persistent(job: Mapping[str, Any]) -> bool:
    """Whether the job runs, or has run, something of its owner's."""
    return bool(job["command"] or job["commands_set"] or job["bus_name"])


def job_lines(job: Mapping[str, Any], now: datetime) -> list[str]:
    """Return a job as lines of which each says one thing; what others wrote cannot break out of its line."""
    mark = "!" if is_persistent(job) else " "
    state = job["state"] or "gone"
    owner = safe(job["owner_name"]) or "somebody"
    lines = [f"{mark} {job['job_id']} {safe(job['name'])}", f"    owner      {owner} (uid {job['owner_uid']})"]
    made = text.local_time(job["creation_time"], now)
    lines.append(f"    created    {made}{_age(job, now)}{_process(job)}")
    lines.append(f"    state      {state}{_ended(job, now)}")
    if job["command"]:
        lines.append(f"  ! runs       {safe(' '.join(job['command']))}")
    lines += [
        f"  ! set        {text.local_time(each['time'], now)} by {safe(each['user']) or owner}: {safe(each['command'])}"
        for each in job["commands_set"]
    ]
    if job["bus_name"]:
        lines.append(f"  ! calls      {safe(job['bus_name'])}")
    if job["notify_url"]:
        lines.append(f"    posts to   {safe(job['notify_url'])}")
    for url, path in list(zip(job["urls"], job["local_names"], strict=False))[:URLS_SHOWN]:
        lines.append(f"    file       {safe(url)} | {safe(path)}")
    more = job["file_count"] - min(URLS_SHOWN, len(job["urls"]))
    if more > 0:
        lines.append(f"               and {more} more")
    for act in job["by_others"]:
        lines.append(f"    by others  {text.local_time(act['time'], now)} [{act['event_id']}] {safe(act['text'])}")
    return lines


def _age(job: Mapping[str, Any], now: datetime) -> str:
    if job["creation_time"] is None:
        return ""
    age_s = (now - datetime.fromisoformat(job["creation_time"])).total_seconds()
    return f", {text.duration(age_s)} ago"


def _process(job: Mapping[str, Any]) -> str:
    name = job["process_path"] or job["process_name"]
    return f", by {safe(name)} (process {safe(job['process_id'])})" if name else ""


def _ended(job: Mapping[str, Any], now: datetime) -> str:
    return f" since {text.local_time(job['end_time'], now)}" if job["end_time"] else ""
