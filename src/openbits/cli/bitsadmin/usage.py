"""The help of `bitsadmin`, made from the table of switches (inventory B1)."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.output import Output
from openbits.cli.bitsadmin.switches import GROUPS, Switch, all_switches

_SYNTAX_COLUMNS: Final = 40
_GROUP_HELP: Final = {
    "/util": "List the utilities: version, repair, proxies of service accounts",
    "/peercaching": "List the commands for peer caching",
    "/cache": "List the commands for the cache of peers' files",
    "/peers": "List the commands for the peers themselves",
}


def print_help(output: Output, group: str = "") -> None:
    """Print the switches of a group, or all that are in none."""
    output.line("USAGE: BITSADMIN [/RAWRETURN] [/WRAP | /NOWRAP] command")
    output.line("The following commands are available:")
    output.line()
    output.line(_entry(f"{group.upper()} /HELP".lstrip(), "Print this help"))
    output.line(_entry(f"{group.upper()} /?".lstrip(), "Print this help"))
    if not group:
        for one in GROUPS:
            output.line(_entry(f"{one.upper()} /?", _GROUP_HELP[one]))
    output.line()
    for switch in all_switches():
        if switch.group == group:
            for line in switch_help(switch):
                output.line(line)
    if not group:
        for line in _ENDING:
            output.line(line)


def print_switch(output: Output, switch: Switch) -> None:
    """Print what is said of one switch: `bitsadmin /addfile /?`."""
    for line in switch_help(switch):
        output.line(line)


def switch_help(switch: Switch) -> list[str]:
    """Return the lines of one switch."""
    needs = f" ({switch.needs})" if switch.needs else ""
    first = _entry(f"{switch.full_name.upper()} {switch.syntax}".rstrip(), switch.help + needs)
    return [first, *(f"    {line}".rstrip() for line in switch.details)]


def _entry(syntax: str, text: str) -> str:
    if len(syntax) < _SYNTAX_COLUMNS:
        return f"{syntax:<{_SYNTAX_COLUMNS}}{text}"
    return f"{syntax}  {text}"


_ENDING: Final = (
    "",
    "Before the command:",
    "/RAWRETURN   Only the value, for programs: with /CREATE and /GET...",
    "/WRAP        Wrap long lines at the width of the console (the default on one)",
    "/NOWRAP      Leave long lines as they are",
    "",
    "<job> is the display name of one of your jobs, or any job's {GUID} in braces.",
    "A name that several jobs have is an error. Errors are printed as",
    "'Unable to ... - 0xHRESULT'; the exit status is 0 only when all is done.",
)
