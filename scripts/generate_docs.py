"""Write the pages of the documentation that are drawn from tables in the code: docs/states.md, docs/errors.md.

generate_docs.py           writes the pages
generate_docs.py --check   writes nothing; exit status 1 when a page is not what the tables say
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

from openbits.core.model import JobState
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


PAGES: dict[str, Callable[[], str]] = {"docs/states.md": states_page, "docs/errors.md": errors_page}


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
