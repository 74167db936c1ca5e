"""The command `events`: what is kept of what happened, chosen by time, gravity and number, and what happens."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from openbits.cli.common import Context, JobReference, find_job, hint, json_option, pass_context, socket_option
from openbits.cli.text import safe
from openbits.cli.watch import print_event
from openbits.client.events import EventStream

LEVELS: Final = ("error", "warning", "information", "verbose")
BACKLOG_SILENCE_S: Final = 1.0
"""Only where a service does not end the list of kept events by itself: this silence ends it."""
ON_A_TERMINAL: Final = 100
"""So many events are shown to a person who did not say which; a program that reads them gets all."""
_AGO: Final = re.compile(r"([0-9]{1,6}) ?(s|m|min|h|d|w)(?: ?ago)?")
_UNITS_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(words: str, now: datetime) -> datetime:
    """Return the time that `2030-01-31`, `12:00`, `2h`, `today` … mean; local where no zone is said.

    Raises click.UsageError.
    """
    wanted = words.strip().lower()
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    if wanted == "now":
        return now
    if wanted in ("today", "yesterday"):
        # By the calendar: the day before a change of the clocks has 23 or 25 hours.
        day = midnight.date() - timedelta(days=wanted == "yesterday")
        return datetime(day.year, day.month, day.day).astimezone()
    try:
        if ago := _AGO.fullmatch(wanted):
            return now - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", wanted):
            hour, minute, *second = map(int, wanted.split(":"))
            return midnight.replace(tzinfo=None, hour=hour, minute=minute, second=sum(second)).astimezone()
        return datetime.fromisoformat(words.strip()).astimezone()
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"{safe(words)!r} is not a time: write 2030-01-31, 2030-01-31T12:00, 12:00, 2h, 3d, today or yesterday"
        ) from None


class Time(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A point in time, as ISO 8601 in UTC for the service."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Return the time as the local API takes it."""
        return moment(value, datetime.now(UTC)).astimezone(UTC).isoformat()


@click.command()
@click.option("--job", metavar="JOB", type=JobReference(), help="Only events of this job, also of one that is gone.")
@click.option("--since", metavar="TIME", type=Time(), help="From this time on: 2h, yesterday, 2030-01-31T12:00 …")
@click.option("--until", metavar="TIME", type=Time(), help="Before this time.")
@click.option("--level", type=click.Choice(LEVELS), help="Only events that are at least as grave.")
@click.option("--id", "numbers", metavar="N", type=int, multiple=True, help="Only this number; may be repeated.")
@click.option("-n", "--newest", metavar="N", type=click.IntRange(1, 10_000), help="Only so many, the newest.")
@click.option("--all-users", is_flag=True, help="Events of every account's jobs (administrators only).")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, and with progress.")
@json_option
@socket_option
@pass_context
def events(
    context: Context,
    job: str | None,
    since: str | None,
    until: str | None,
    level: str | None,
    numbers: Sequence[int],
    newest: int | None,
    all_users: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the events that are kept, oldest first; with --follow also what happens from now on.

    A TIME is 2030-01-31, 2030-01-31T12:00Z, 12:00, an age such as 30m, 2h, 3d, 1w, today, or yesterday. Numbers are
    those of docs/events.md. On a terminal only the newest 100 are shown where nothing says which. With --json there is
    one JSON object a line.
    """
    if until is not None and follow:
        raise click.UsageError("--until ends before now, and --follow goes on: use one of them")
    session = context.session()
    job_id = None if job is None else find_job(session, job)
    is_unasked = sys.stdout.isatty() and not as_json and newest is None and since is None and job is None
    choice: dict[str, str | int] = {}
    if newest is not None or is_unasked:
        choice["newest"] = ON_A_TERMINAL if newest is None else newest
    choice |= {name: value for name, value in (("since", since), ("until", until), ("level", level)) if value}
    if numbers:
        choice["id"] = ",".join(map(str, numbers))
    shown = 0
    with EventStream(session.pool, job_id=job_id, all_users=all_users, after=0, follow=follow, choice=choice) as stream:
        try:
            while True:
                messages = stream.wait_messages(None if follow else BACKLOG_SILENCE_S)
                for message in messages:
                    if message.type == "job" or not numbers:
                        print_event(message, as_json=as_json)
                shown += len(messages)
                sys.stdout.flush()  # whoever reads a pipe wants to know now
                if not follow and (stream.is_over or not messages):
                    break
        except KeyboardInterrupt:
            return
    if is_unasked and shown >= ON_A_TERMINAL:
        hint(f"bits: the newest {ON_A_TERMINAL} events: --since and -n show more")
