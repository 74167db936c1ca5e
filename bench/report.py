"""Shows results: on a screen, as JSON, and as a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.places import MIB
from bench.results import Figure, Goal, Result

_HEADINGS: Final = ("", "wall s", "from – to", "CPU s", "RSS MiB", "PSS MiB", "wall ×", "CPU ×")

_INTRODUCTION: Final = """\
# Benchmarks

Written by `make bench ARGS="--markdown docs/benchmarks.md"`; do not edit. Everything stands side by side from one run
on one machine: medians of interleaved runs after one that does not count, results checked byte by byte. Seconds do not
carry over to another machine or another day; ratios do.

*Wall* is the time from the start of the command to its end. *CPU* is user and system time, and *RSS* and *PSS* the peak
of memory, of **all** processes that take part: for OpenBITS the command, the monitor, the service, the zygote and
the workers; RSS counts a page that several share for each of them, PSS once. The columns with × compare with
curl's line. The files come from nginx on loopback, out of memory.
"""


def on_screen(result: Result) -> str:
    """Return a case as text."""
    parts = [f"\n{result.key}: {result.title}"]
    if result.lines:
        parts += _aligned([list(_HEADINGS), *_rows(result)])
    parts += _aligned([[figure.name, _number(figure.value), figure.unit] for figure in result.figures])
    for goal in result.goals:
        parts.append(f"  {'ok  ' if goal.is_met else 'MISS'} {_goal_text(goal)}")
    return "\n".join(parts)


def as_json(machine: Mapping[str, str], results: Sequence[Result]) -> str:
    """Return everything, every sample included."""
    return json.dumps({"machine": dict(machine), "results": [result.as_json() for result in results]}, indent=2)


def as_markdown(machine: Mapping[str, str], results: Sequence[Result], skipped: Mapping[str, str]) -> str:
    """Return the page docs/benchmarks.md."""
    parts = [
        _INTRODUCTION,
        *_table([["Machine", ""], *([name, value] for name, value in machine.items())], texts=2),
        "",
    ]
    parts += ["## Goals", ""]
    rows = [
        [result.key, goal.what, _value(goal), f"{goal.sign} {_number(goal.limit)}", "ok" if goal.is_met else "**miss**"]
        for result in results
        for goal in result.goals
    ]
    parts += [*_table([["case", "what", "value", "goal", ""], *rows], texts=2), ""]
    for result in results:
        parts += [f"## {result.key}", "", f"{result.title}.", *result.remarks, ""]
        if result.lines:
            parts += [*_table([list(_HEADINGS), *_rows(result)]), ""]
        if result.figures:
            figures = [
                [figure.name, f"{_number(figure.value)} {figure.unit}", _range(figure)] for figure in result.figures
            ]
            parts += [*_table([["", "median", "from – to"], *figures]), ""]
    if skipped:
        parts += ["## Not measured", "", *(f"- {key}: {why}." for key, why in skipped.items()), ""]
    return "\n".join(parts)


def _rows(result: Result) -> Iterator[list[str]]:
    reference = result.reference
    for line in result.lines:
        least, most = line.wall_range_s
        yield [
            line.name,
            f"{line.wall_s:.3f}",
            f"{least:.3f} – {most:.3f}",
            f"{line.cpu_s:.2f}",
            _memory(line.rss_bytes),
            _memory(line.pss_bytes),
            "" if reference is None else f"{line.wall_s / reference.wall_s:.2f}",
            "" if reference is None else f"{line.cpu_s / reference.cpu_s:.2f}",
        ]


def _memory(peak_bytes: float) -> str:
    # What is over before it could be looked at has no size.
    return f"{peak_bytes / MIB:.0f}" if peak_bytes >= MIB else "–"


def _goal_text(goal: Goal) -> str:
    return f"{goal.what}: {_value(goal)} ({goal.sign} {_number(goal.limit)})"


def _value(goal: Goal) -> str:
    return f"{_number(goal.value)} {goal.unit}"


def _range(figure: Figure) -> str:
    return f"{_number(min(figure.values))} – {_number(max(figure.values))}" if len(figure.values) > 1 else ""


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _table(rows: Sequence[Sequence[str]], *, texts: int = 1) -> list[str]:
    """Return a table whose first columns are texts, and the others numbers."""
    head, *body = rows
    rule = ["---" if column < texts else "---:" for column in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]
