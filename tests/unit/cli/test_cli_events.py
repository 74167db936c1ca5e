"""How `bits events` reads times, and how `bits audit` shows what others wrote (section 13)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from openbits.cli.audit import job_lines
from openbits.cli.events import moment
from openbits.cli.watch import event_line

NOW = datetime(2030, 6, 15, 12, 30, tzinfo=UTC)
MIDNIGHT = NOW.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("30s", NOW - timedelta(seconds=30)),
        ("5min", NOW - timedelta(minutes=5)),
        ("2h", NOW - timedelta(hours=2)),
        ("3 d ago", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("today", MIDNIGHT),
        ("yesterday", MIDNIGHT - timedelta(days=1)),
        ("08:15", MIDNIGHT.replace(hour=8, minute=15)),
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31).astimezone()),
        (" NOW ", NOW),
    ],
)
def test_times_as_people_write_them(words: str, expected: datetime) -> None:
    """ISO 8601, ages, days, a time of day."""
    assert moment(words, NOW) == expected


@pytest.mark.parametrize("words", ["", "soon", "25:00", "2030-13-01", "-1h", "999999w", "1h2", "\x1b[31m"])
def test_what_is_no_time_is_refused(words: str) -> None:
    """With a sentence that says what is one, and no way to the terminal."""
    with pytest.raises(click.UsageError, match="is not a time") as refused:
        moment(words, NOW)
    assert "\x1b" not in refused.value.message


def audited(**changes: Any) -> dict[str, Any]:
    """A row of the audit view."""
    row: dict[str, Any] = dict.fromkeys(("process_name", "process_path", "process_id", "notify_url", "bus_name"), "")
    row |= {"job_id": "1" * 8, "name": "a", "state": "QUEUED", "owner_uid": 1000, "owner_name": "alice"}
    lists: dict[str, Any] = {key: [] for key in ("urls", "local_names", "command", "commands_set", "by_others")}
    return {**row, **lists, "creation_time": NOW.isoformat(), "end_time": None, "file_count": 0, **changes}


HOSTILE = "x\nroot: nothing to see\x1b[2K\u202e"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": HOSTILE},
        {"process_name": HOSTILE},
        {"owner_name": HOSTILE},
        {"notify_url": HOSTILE},
        {"urls": [HOSTILE], "local_names": [HOSTILE]},
        {"command": ["/bin/sh", HOSTILE]},
        {"commands_set": [{"time": NOW.isoformat(), "user": HOSTILE, "command": HOSTILE}]},
        {"by_others": [{"time": NOW.isoformat(), "event_id": 16387, "text": HOSTILE}]},
    ],
)
def test_no_text_leaves_its_line(changes: dict[str, Any]) -> None:
    """An auditor's terminal shows what is there, and obeys none of it."""
    assert all(line.isprintable() and not line.startswith("root:") for line in job_lines(audited(**changes), NOW))


def test_jobs_that_run_something_are_marked() -> None:
    """At a glance: also where the command has been taken back since."""
    was_set = [{"time": NOW.isoformat(), "user": "alice", "command": "/bin/sh"}]
    assert job_lines(audited(), NOW)[0].startswith("  ")
    for changes in ({"command": ["/bin/sh"]}, {"commands_set": was_set}, {"bus_name": "org.example.X"}):
        assert job_lines(audited(**changes), NOW)[0].startswith("! ")


def test_an_event_of_a_forgotten_job_keeps_its_name() -> None:
    """And an event about no job is a line all the same."""
    event = {"time": NOW.isoformat(), "kind": "cancelled", "job_id": "1" * 36, "text": "cancelled", "event_id": 5}
    assert "11111111 lost: cancelled [5]" in event_line({**event, "fields": {"job_title": "lost"}})
    assert " -: cancelled [5]" in event_line({**event, "job_id": "", "fields": {}})
