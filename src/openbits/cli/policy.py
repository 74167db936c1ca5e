"""`bits policy`: what an administrator has decided for the machine, and who says so (section 8 of the inventory)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from openbits.cli.common import Context, json_option, pass_context, print_json, say, socket_option
from openbits.cli.text import safe
from openbits.client import policies

_LIMITS: Final = (
    ("together", "all background jobs together"),
    ("high", "HIGH jobs"),
    ("normal", "NORMAL jobs"),
    ("low", "LOW jobs"),
)


@click.group(no_args_is_help=False)
def policy() -> None:
    """Show the policy that is in force, or have it read anew.

    A policy stands in files that belong to root: /etc/openbits/policy.d/*.toml, in the order of their names, and of
    each key the last one counts. They are followed as they change; docs/policies.md lists the keys.
    """


@policy.command()
@click.option("--only-set", is_flag=True, help="Leave out what no policy decides.")
@json_option
@socket_option
@pass_context
def show(context: Context, only_set: bool, as_json: bool) -> None:
    """Show what background jobs may use now, and every value with where it comes from."""
    shown = context.session().perform(policies.policy())
    if as_json:
        print_json(shown)
    else:
        say("\n".join(lines_of(shown, only_set=only_set)))


@policy.command("reload")
@json_option
@socket_option
@pass_context
def reload_command(context: Context, as_json: bool) -> None:
    """Have the files read now (administrators only); files that are wrong change nothing."""
    shown = context.session().perform(policies.reload_policy())
    if as_json:
        print_json(shown)
    else:
        count = sum(1 for value in shown["values"] if value["is_set"])
        say(f"{len(shown['files'])} file(s) in {safe(shown['directory'])} set {count} value(s)")


def lines_of(shown: Mapping[str, Any], *, only_set: bool) -> list[str]:
    """Return the policy as lines for people."""
    lines = []
    if shown["problem"]:
        lines.append(f"NOT IN FORCE: {safe(shown['problem'])}")
        lines.append("in force is what was there before:")
    until = f", until {shown['until']}" if shown["until"] else ""
    lines.append(f"now ({safe(shown['slot']) or 'at all hours'}{until}; clocks of {safe(shown['timezone'])}):")
    lines += [f"  {text + ':':30}{rate(shown['limits'][name])}" for name, text in _LIMITS]
    lines.append("  FOREGROUND jobs:              unlimited")
    values = [value for value in shown["values"] if value["is_set"] or not only_set]
    if not any(value["is_set"] for value in shown["values"]):
        lines.append(f"no policy decides anything: there is no file in {safe(shown['directory'])}")
    width = max((len(value["name"]) for value in values), default=0)
    for value in values:
        effect = f"; no effect yet: {value['lacks_effect']}" if value["lacks_effect"] else ""
        is_number = isinstance(value["value"], int) and not isinstance(value["value"], bool)
        text = f"{_text(value['value'])}{' ' + value['unit'] if is_number and value['unit'] else ''}"
        lines.append(f"{value['name']:{width}}  {safe(text)}  [{safe(value['source'])}]{effect}")
    return lines


def rate(kbps: int | None) -> str:
    """A limit for people."""
    if kbps is None:
        return "unlimited"
    return f"{kbps} kbit/s" if kbps else "nothing: such jobs wait (BG_E_BLOCKED_BY_POLICY)"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)
