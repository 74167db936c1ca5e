"""The page docs/events.md: what a reader has to know, and the table of core.eventlog."""

from __future__ import annotations

from openbits.core.eventlog import COMMAND_SET, EVENTS, EventKind, message_id

INTRODUCTION = """\
What happens to jobs is written down twice: in the service's own table, in the transaction of the change itself, and
in the system's journal, where there is one. Numbers and meanings are those of BITS.

## Looking

```sh
bits events --since 2h                  # your own jobs; --until, --level warning, --id 61, -n 20
bits events --job JOB --follow          # one job, and what happens to it from now on
bits events --all-users --json          # everybody's, a JSON object a line; administrators only
bits audit --since yesterday            # who made which job, what it fetches and what it runs
bits list --history                     # jobs that have ended, while they are kept

journalctl SYSLOG_IDENTIFIER=bitsd
journalctl BITS_JOB_ID=8d0f1c8e-0c8e-4b57-9a51-5e3f6f0f6c5d
journalctl MESSAGE_ID={command_set}   # every notification command line that was set
```

Events of a job that is gone stay readable for the account that it belonged to, by the job's full id. An account sees
what happened to its jobs while they were its own; administrators see everything.

`bits audit` puts jobs first that have, or have had, a notification command, and marks them `!`: a command that runs
when a transfer ends, and again and again while it fails, is how an intruder comes back. Set (6), it stands in the log
with its whole command line, and stays there when the job is gone.

## Fields

An entry of the journal has `MESSAGE`, `MESSAGE_ID` (of events with a number), `PRIORITY`, `SYSLOG_IDENTIFIER=bitsd`,
`BITS_EVENT` (grows by one with each event), `BITS_EVENT_ID`, `BITS_KIND`, `BITS_JOB_ID`, `BITS_JOB_NAME`, `BITS_OWNER`
(a uid) and `BITS_OWNER_NAME`; the fields of the table below are `BITS_` and their name in capitals. In the local API
they are in `fields`. Passwords stand nowhere, nor user names in URLs.

- `user` and `user_uid`: who called, as the kernel vouches for him.
- Who completed a job says the event `completing` before 4: the files have their names only a moment later.
- `process_id` is the process that connected, and vouched for by the kernel; `process_name` is what it calls itself, and
  may be a lie; `process_path` is there only where the service may see it: not that of other accounts' programs.
- `urls`, `local_names` and `file_list` have a line for each, twenty at most.
- `hr` is the HRESULT of docs/errors.md, `error` its name.
- 59 and 60 are one event for all files that were answered for, or became durable, together: `files` is how many, `url`
  the first of them. Files that are not small come alone.

## How long

`[retention] events_s` (30 days) and `max_events` (100,000) say how long events are kept, `final_jobs_s` how long jobs
that have ended. The journal has limits of its own, and the way there a queue of 20,000 entries: what does not fit is
dropped, counted, and the count told (`BITS_DROPPED`). The table loses nothing. Verbose events are written down only
while `bitsadmin /util /enableanalyticchannel true` says so.

Quotas that are hit (16398 to 16402) are written down once a minute for each account. Events about no job have an empty
job id; administrators see them, and the account that they concern.

## Numbers

Events without a number are ours: `added`, `queued`, `transferred`, `redirected`, `worker` and others. What BITS logs
about peer caching, UPnP, costs of networks and its registry has no cause here. Why the service cannot start (16392),
or has failed (16404), only the journal knows: the table is out of reach then.
"""


def events_page() -> str:
    """Every event that has a number."""
    notice = (
        "<!-- Drawn by scripts/generate_docs.py. Change the table in src/openbits/core/eventlog.py, not this page. -->"
    )
    introduction = INTRODUCTION.replace("{command_set}", message_id(COMMAND_SET))
    lines = ["# Events", "", notice, "", introduction]
    lines += ["| number | level | meaning | fields | MESSAGE_ID |", "|---|---|---|---|---|"]
    lines += [_row(number, kind) for number, kind in sorted(EVENTS.items())]
    return "\n".join(lines) + "\n"


def _row(number: int, kind: EventKind) -> str:
    fields = ", ".join(f"`{name}`" for name in kind.fields)
    return f"| {number} | {kind.level.value} | {kind.meaning} | {fields} | `{message_id(number)}` |"
