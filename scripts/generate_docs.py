"""Write the pages of the documentation that are drawn from tables: docs/states.md, errors.md, properties.md.

generate_docs.py           writes the pages
generate_docs.py --check   writes nothing; exit status 1 when a page is not what the tables say
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

from manual_events import events_page

from openbits.cli.properties import meaning_of, show
from openbits.core.model import JobState, Settings
from openbits.core.settings import PROPERTY_NAMES, moments_of
from openbits.core.states import TRANSITIONS, VERBS, Trigger
from openbits.errors import ERRORS, ErrorCode, Fault

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTICE = "<!-- Drawn by scripts/generate_docs.py. Change the table in {source}, not this page. -->"

ACTORS = {
    Fault.CALLER: "the program that calls",
    Fault.REMOTE: "the remote server",
    Fault.LOCAL: "the owner: disk, files, rights",
    Fault.CONDITION: "nobody: the job waits for a condition",
    Fault.INTERNAL: "we",
}


def states_page() -> str:
    """The diagram and the table of all transitions."""
    by_class = " and ".join(f"`{state.name}`" for state in JobState if state.is_final)
    lines = [
        "# States of a job",
        "",
        NOTICE.format(source="src/openbits/core/states.py"),
        "",
        f"A new job is `SUSPENDED`. {by_class} are final: nothing leads out of them.",
        "While Complete puts the files under their names the job is held still (`SUSPENDED`, or `TRANSFERRED` when",
        "all files are there); it is `ACKNOWLEDGED` when they are in place.",
        "",
        "## Diagram",
        "",
        "What leaves the state as it is, and what leads from every state to `CANCELLED` (Cancel, or nothing happening",
        "for too long), is left out.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> SUSPENDED: CreateJob",
    ]
    for state in JobState:
        triggers = defaultdict(list)
        for trigger, target in TRANSITIONS[state].items():
            if target is not state and target is not JobState.CANCELLED:
                triggers[target].append(trigger.value)
        lines += [f"    {state.name} --> {target.name}: {' / '.join(names)}" for target, names in triggers.items()]
    lines += [f"    {state.name} --> [*]" for state in JobState if state.is_final]
    lines += ["```", "", "## What a caller's verbs do", ""]
    lines += _states_table([trigger for trigger in Trigger if trigger in VERBS], "BG_E_INVALID_STATE")
    lines += ["", "## What happens by itself", "", "An empty cell: it comes too late and changes nothing.", ""]
    lines += _states_table([trigger for trigger in Trigger if trigger not in VERBS], "")
    return "\n".join(lines) + "\n"


def _states_table(triggers: Sequence[Trigger], otherwise: str) -> list[str]:
    lines = [
        "| | " + " | ".join(trigger.value for trigger in triggers) + " |",
        "|---" * (len(triggers) + 1) + "|",
    ]
    for state in JobState:
        cells = []
        for trigger in triggers:
            target = TRANSITIONS[state].get(trigger)
            cells.append(otherwise if target is None else "=" if target is state else target.name)
        lines.append(f"| **{state.name}** | " + " | ".join(cells) + " |")
    return lines


def errors_page() -> str:
    """Every error that is shown anywhere."""
    lines = [
        "# Errors",
        "",
        NOTICE.format(source="src/openbits/errors.py"),
        "",
        "Every error has the same name and number in the command line, in Python, in the local API and in the log.",
        "`BG_E_HTTP_ERROR_nnn` is `0x80190000` + nnn for every answer nnn of a web server: it is the server's fault,",
        "`bits` exits with 1 and the local API answers 502.",
        "",
        "| name | HRESULT | meaning | who has to act | exit status of `bits` | HTTP status |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_error_row(row) for row in sorted(ERRORS.values(), key=lambda row: row.hresult)]
    return "\n".join(lines) + "\n"


def _error_row(row: ErrorCode) -> str:
    actor = "nobody: it is a success" if row.is_success else ACTORS[row.fault]
    return (
        f"| `{row.name}` | `{row.hresult:#010x}` | {row.text} | {actor} "
        f"| {int(row.exit_code)} ({row.exit_code.name.lower().replace('_', ' ')}) | {row.http_status} |"
    )


PROPERTIES = {
    "name": ("DisplayName", "J14", "What people call the job. 1 to 256 characters (BG_E_STRING_TOO_LONG)."),
    "description": ("Description", "J15", "Up to 1,024 characters (BG_E_STRING_TOO_LONG)."),
    "priority": ("Priority", "J16", "Foreground jobs run at once and unlimited; of the others the higher goes first."),
    "minimum_retry_delay": (
        "MinimumRetryDelay",
        "J19",
        "Pause before the next try in TRANSIENT_ERROR; at least 5.",
    ),
    "no_progress_timeout": ("NoProgressTimeout", "J20", "After so long without progress the job is in ERROR."),
    "maximum_download_time": ("MaximumDownloadTime", "J53", "How long it may transfer in all; none: the policy's."),
    "notify_flags": (
        "NotifyFlags",
        "J17",
        "1 job transferred, 2 error, 4 no notifications, 8 modification, 16 file transferred, 32 file ranges.",
    ),
    "cost_flags": ("BITS_JOB_PROPERTY_ID_COST_FLAGS (1)", "J60", "Kept and shown; without effect yet."),
    "notification_clsid": (
        "BITS_JOB_PROPERTY_NOTIFICATION_CLSID (2)",
        "J61",
        "A D-Bus name that is activated where no program listens.",
    ),
    "dynamic_content": (
        "BITS_JOB_PROPERTY_DYNAMIC_CONTENT (3)",
        "J62",
        "Servers may tell no size and give no ranges. An interruption starts the file from zero. Not with ranges.",
    ),
    "high_performance": (
        "BITS_JOB_PROPERTY_HIGH_PERFORMANCE (4)",
        "J63",
        "Files are written under their own names, no progress is written down, and nothing is cleaned up.",
    ),
    "max_download_size": (
        "BITS_JOB_PROPERTY_MAX_DOWNLOAD_SIZE (5)",
        "J64",
        "How many bytes the job's files may have together (BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED).",
    ),
    "strict_http": ("ours", "D1", "Refuse servers that BITS refuses: without HEAD, length or ranges."),
    "file_concurrency": ("ours", "Q2", "How many files of the job are on the way at once; BITS: 1."),
    "stall_timeout": ("ours", "R2", "How long a connection may send nothing."),
    "umask": ("ours", "D8", "The mask for new files; clients send their own along."),
    "proxy_usage": ("ProxySettings", "J22", "Whose proxy settings count: docs/networks.md."),
    "proxy_list": ("ProxySettings", "J22", "With override: the proxies, in order."),
    "proxy_bypass_list": ("ProxySettings", "J22", "With override: what is reached without."),
    "upload_protocol": ("ours", "U1", "By which protocol the file is sent; auto asks the server."),
    "security_flags": ("SecurityFlags", "H7", "How certificates are checked, and where redirects may lead."),
    "http_method": ("HttpMethod", "H10", "With another than GET the job is foreground, and every error is final."),
    "use_netrc": ("ours", "I9", "Whether ~/.netrc may answer a server that asks who it is; the owner's alone."),
    "use_stored_credentials": (
        "BITS_JOB_PROPERTY_USE_STORED_CREDENTIALS (7)",
        "J65",
        "Prove to proxies who the account is (BG_E_USE_STORED_CREDENTIALS_NOT_SUPPORTED for servers).",
    ),
    "acl_flags": ("FileACLFlags", "J42", "What of a file:// source is kept."),
    "peer_caching_flags": ("PeerCachingFlags", "J50", "Kept and shown; without effect yet."),
    "minimum_notification_interval_ms": (
        "BITS_JOB_PROPERTY_MINIMUM_NOTIFICATION_INTERVAL_MS (9)",
        "J66",
        "How far apart notifications of modifications and file ranges are, in milliseconds.",
    ),
    "on_demand_mode": (
        "BITS_JOB_PROPERTY_ON_DEMAND_MODE (10)",
        "J67",
        "Only requested ranges are fetched: see below.",
    ),
    "notify_url": ("ours", "", "Where the end of the job is announced by a POST; the owner's alone."),
    "custom_headers": ("CustomHeaders", "H5", "Header lines for every request; the owner's alone."),
}
"""BITS's name of each property, with its number where it has one; the row of the inventory; what it does."""

ON_DEMAND = """\
## Files piece by piece

A job with `on_demand_mode=true` fetches what is asked for, each piece to its own place in the temporary file:

    bits create NAME · bits set JOB on_demand_mode=true · bits add JOB URL PATH
    bits request-ranges JOB 0 0:65536 1000000:eof --resume

- Ranges may be requested at any time until the file is whole, and may overlap what is here or was requested
  already: nothing is fetched twice. A request starts nothing: what is requested of a `SUSPENDED` job is fetched
  when it is resumed.
- When everything is here that was requested, the job is `TRANSFERRED` if no file has a hole, else `SUSPENDED`.
- `bits request-ranges JOB INDEX --position OFF` lets what is wanted from there on come first. It requests nothing
  by itself.
- `bits show --json` tells `wanted_ranges` and `filled_ranges`. What is filled is durable and can be read from
  `temporary_name` at once, with the owner's rights and the job's `umask`. Holes read as zeros.
- The server has to give ranges, the size, and an entity tag or a date; otherwise the job is in `ERROR` with
  BG_E_RANDOM_ACCESS_NOT_SUPPORTED. A range outside of the file is BG_E_INVALID_RANGE, in the run if the size was
  not known.
- A remote file that changes drops every piece, and what had been requested is fetched again. Complete deletes files
  with holes.
- It does not go with `dynamic_content`, `high_performance`, an `http_method`, files added with ranges, or file://
  sources.

In Python: `File.request_file_ranges`, `update_download_position`, `get_filled_file_ranges`.

## Files

`bits validate JOB INDEX valid|invalid` (SetValidationState, F6) is possible when the file is transferred (E_PENDING
before): `invalid` puts the job into `ERROR` with BG_E_VALIDATION_FAILED, and Resume fetches that file again, and no
other. Complete declares what it completes valid.
"""


def properties_page() -> str:
    """Everything that `bits set` takes."""
    lines = [
        "# Properties of jobs and files",
        "",
        NOTICE.format(source="src/openbits/core/settings.py and PROPERTIES in that script"),
        "",
        "`bits set JOB KEY=VALUE…`, `settings` in the local API, `Job.set_property(KEY, VALUE)` in Python, which also",
        "takes the name or the number of BITS. A change is all or nothing. A name that is none is",
        "BG_E_UNKNOWN_PROPERTY_ID, a value of another type E_INVALIDARG. `none` takes a limit back. Jobs that have",
        "ended are BG_E_INVALID_STATE.",
        "",
        "| key | BITS | takes | default | what it does | can be set |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_property_row(name) for name in PROPERTY_NAMES]
    return "\n".join([*lines, "", ON_DEMAND])


def _property_row(name: str) -> str:
    bits_name, row, text = PROPERTIES[name]
    default = "" if name in ("name", "custom_headers") else getattr(Settings(name="x"), name)
    if name == "priority":
        shown = default.name.lower()
    elif name == "umask":
        shown = f"{default:03o}, or the client's"
    else:
        shown = "" if default == "" else show(name, default)
    cited = f"{bits_name}, {row}" if row else bits_name
    moments = "; ".join(moments_of(name)) or "always"
    return f"| `{name}` | {cited} | {meaning_of(name)} | {shown} | {text} | {moments} |"


PAGES: dict[str, Callable[[], str]] = {
    "docs/states.md": states_page,
    "docs/errors.md": errors_page,
    "docs/events.md": events_page,
    "docs/properties.md": properties_page,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description="Write the pages that are drawn from tables in the code.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is out of date")
    options = parser.parse_args(arguments)
    stale = []
    for name, draw in PAGES.items():
        path, text = ROOT / name, draw()
        if options.check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"out of date: {', '.join(stale)}: run scripts/generate_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
