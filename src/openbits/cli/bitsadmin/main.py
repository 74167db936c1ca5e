"""`bitsadmin`: reads the command line as the Windows tool does, runs the switch, and turns failures into its form.

The exit status is 0 when what was asked for is done, and else one of those of `bits`: a status has eight bits here, and
the Windows tool's, an HRESULT, has 32. The HRESULT stands in the output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from openbits.cli import streams
from openbits.cli.bitsadmin import switches
from openbits.cli.bitsadmin.invocation import Failure, Invocation, UsageFailure
from openbits.cli.bitsadmin.output import DEFAULT_COLUMNS, Output, console_columns
from openbits.cli.bitsadmin.switches import GROUPS, HELP_NAMES, Switch
from openbits.errors import BitsError, ExitCode

MODIFIERS: Final = frozenset({"/rawreturn", "/wrap", "/nowrap"})


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit status; nothing escapes but the status."""
    modifiers, rest = _modifiers(arguments)
    group = rest[0].lower() if rest and rest[0].lower() in GROUPS else ""
    words = rest[1:] if group else rest
    switch = switches.find(words[0], group) if words else None
    is_raw = "/rawreturn" in modifiers and switch is not None and switch.is_raw
    output = Output(columns=_columns(modifiers), is_raw=is_raw)
    try:
        output.banner()
        status = _carry_out(switch, group, words, output)
        output.flush()
    except BrokenPipeError as error:
        return streams.lost("bitsadmin", error)
    return status


def _carry_out(switch: Switch | None, group: str, words: Sequence[str], output: Output) -> int:
    if switch is None:
        from openbits.cli.bitsadmin import usage  # noqa: PLC0415 - most calls know what they want

        if words and words[0].lower() in HELP_NAMES:
            usage.print_help(output, group)
            return ExitCode.DONE
        output.line("Invalid command")
        usage.print_help(output, group)
        return ExitCode.USAGE
    if len(words) == 2 and words[1].lower() in HELP_NAMES:
        from openbits.cli.bitsadmin import usage  # noqa: PLC0415

        usage.print_switch(output, switch)
        return ExitCode.DONE
    try:
        status = switch.load()(_read(switch, words[1:], output))
    except UsageFailure as failure:
        output.complaint(str(failure), f"USAGE: BITSADMIN {switch.full_name.upper()} {switch.syntax}".rstrip())
        return ExitCode.USAGE
    except Failure as failure:
        return _failed(output, failure.action, failure.error)
    except BitsError as error:
        return _failed(output, switch.action or f"carry out {switch.full_name}", error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if status is None else status


def _failed(output: Output, action: str, error: BitsError) -> int:
    output.failure(action, error)
    return error.code.exit_code


def _modifiers(arguments: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """Take /rawreturn, /wrap and /nowrap from before the command: behind it they are its arguments."""
    taken: list[str] = []
    for index, argument in enumerate(arguments):
        if argument.lower() not in MODIFIERS:
            return taken, arguments[index:]
        taken.append(argument.lower())
    return taken, ()


def _columns(modifiers: Sequence[str]) -> int | None:
    """Return the width to wrap at: the terminal's, unless /nowrap; a file or a pipe has none unless /wrap asks."""
    chosen = next((one for one in reversed(modifiers) if one != "/rawreturn"), None)
    match chosen:
        case "/nowrap":
            return None
        case "/wrap":
            return console_columns(sys.stdout) or DEFAULT_COLUMNS
        case _:
            return console_columns(sys.stdout)


def _read(switch: Switch, words: Sequence[str], output: Output) -> Invocation:
    """Sort a switch's words into arguments and options; raises UsageFailure."""
    arguments: list[str] = []
    options: dict[str, str | None] = {}
    rest = iter(words)
    for word in rest:
        name = word.lower()
        if len(arguments) > switch.options_until or name not in switch.options:
            arguments.append(word)
        elif not switch.options[name]:
            options[name] = None
        elif (value := next(rest, None)) is not None:
            options[name] = value
        else:
            raise UsageFailure(f"{name} needs a value")
    fewest, most = switch.arguments
    if not fewest <= len(arguments) <= most:
        raise UsageFailure("Invalid number of arguments")
    return Invocation(switch, arguments, options, output)


def main() -> int:
    """Run `bitsadmin`."""
    return streams.guarded("bitsadmin", lambda: run(sys.argv[1:]))
