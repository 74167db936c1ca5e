"""The command that looks on, monitor, and how events look as lines. The event stream moves it; it does not poll."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from openbits.cli import text
from openbits.cli.common import (
    Context,
    json_option,
    pass_context,
    say,
    socket_option,
)
from openbits.cli.show import LIST_HEADER, list_row
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.events import EventStream, Message

FINAL_STATES: Final = ("ACKNOWLEDGED", "CANCELLED")
REDRAW_S: Final = 0.2


def print_event(message: Message, *, as_json: bool) -> None:
    """Print one message of the stream as a line."""
    if as_json and message.type == "snapshot":
        # As in the events: a job has a type of its own, which would hide that of the message.
        say(json.dumps({"type": "snapshot", "job": message.data}))
    elif as_json:
        say(json.dumps({"type": message.type, **message.data}))
    elif message.type == "job":
        say(event_line(message.data))
    elif message.type == "progress":
        say(progress_line(message.data))


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line: time, job, what happened.

    Not the job's state: that is the one of now, also for an event of yesterday.
    """
    job = event.get("job")
    # A job that is forgotten has left its name in the events that have a number.
    known = job["name"] if job else event.get("fields", {}).get("job_title", "")
    name = f" {safe(known)}" if known else ""
    words = safe(event["text"] or event["kind"])
    number = f" [{event['event_id']}]" if event.get("event_id") else ""
    return f"{text.local_time(event['time'])} {event['job_id'][:8] or '-'}{name}: {words}{number}"


def progress_line(data: Mapping[str, Any]) -> str:
    """Return a progress message as a line."""
    figures = text.progress(data["bytes_transferred"], data["bytes_total"])
    return f"{text.clock()} {data['job_id'][:8]} {figures}, {data['files_transferred']}/{data['files_total']} files"


class Board:
    """The jobs of the monitor, as the messages leave them."""

    def __init__(self, jobs: list[Json]) -> None:
        self.jobs: dict[str, Json] = {job["id"]: job for job in jobs}

    def take(self, message: Message) -> None:
        """Take one message: a job that changed, that is new, or that left the queue."""
        data = message.data
        if message.type == "progress":
            job = self.jobs.get(data["job_id"])
            if job is not None:
                job.update({key: value for key, value in data.items() if key != "job_id"})
            return
        changed: Json | None = data if message.type == "snapshot" else data.get("job")
        if changed is None or changed["state"] in FINAL_STATES:
            self.jobs.pop(changed["id"] if changed else data["job_id"], None)
        else:
            self.jobs[changed["id"]] = changed

    def lines(self, *, columns: int, rows: int) -> list[str]:
        """Return the table in at most so many columns and rows, moving jobs first."""
        order = {"TRANSFERRING": 0, "CONNECTING": 1, "TRANSIENT_ERROR": 2, "ERROR": 3, "QUEUED": 4}
        jobs = sorted(self.jobs.values(), key=lambda job: (order.get(job["state"], 5), job["creation_time"]))
        title = f"{len(jobs)} jobs at {text.clock()}; Ctrl+C ends"
        room = max(1, rows - 3)
        table = text.table(LIST_HEADER, [list_row(job) for job in jobs[:room]], columns=columns)
        more = [f"… and {len(jobs) - room} more"] if len(jobs) > room else []
        return [text.clip(title, columns), *table, *more]


@click.command()
@click.option("--all-users", is_flag=True, help="Jobs of every account (administrators only).")
@json_option
@socket_option
@pass_context
def monitor(context: Context, all_users: bool, as_json: bool) -> None:
    """Watch jobs as they move: a table on a terminal, a line an event elsewhere."""
    session = context.session()
    with EventStream(session.pool, all_users=all_users) as stream:
        stream.open()
        board = Board(session.perform(calls.all_jobs(all_users=all_users)))
        try:
            if as_json or not sys.stdout.isatty():
                _follow_plainly(stream, board, as_json=as_json)
            else:
                _follow_on_terminal(stream, board)
        except KeyboardInterrupt:
            return


def _follow_plainly(stream: EventStream, board: Board, *, as_json: bool) -> None:
    for job in board.jobs.values():
        print_event(Message("snapshot", job), as_json=as_json)
        if not as_json:
            say(f"{text.clock()} {' '.join(list_row(job))}")
    sys.stdout.flush()
    for message in stream:
        print_event(message, as_json=as_json)
        sys.stdout.flush()


def _follow_on_terminal(stream: EventStream, board: Board) -> None:
    out = sys.stdout
    out.write("\x1b[?1049h\x1b[?25l")
    try:
        drawn_at_s, dirty = 0.0, True
        while True:
            if dirty and time.monotonic() - drawn_at_s >= REDRAW_S:
                _draw(board)
                drawn_at_s, dirty = time.monotonic(), False
            # What came too soon after the last picture is drawn when its time has come; else only messages wake us.
            messages = stream.wait_messages(max(0.01, drawn_at_s + REDRAW_S - time.monotonic()) if dirty else None)
            for message in messages:
                board.take(message)
            dirty = dirty or bool(messages)
    finally:
        out.write("\x1b[?25h\x1b[?1049l")
        out.flush()


def _draw(board: Board) -> None:
    size = os.get_terminal_size(sys.stdout.fileno())
    lines = board.lines(columns=size.columns or 80, rows=size.lines or 24)
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()
