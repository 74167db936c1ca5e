"""Command lines of notifications, as people write and read them (J30): the service wants full paths and no shell."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import click

from openbits.cli.text import safe


def command_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the full path of a program and its argument vector, as a shell would find it. Raises UsageError."""
    name = words[0]
    program = os.path.abspath(name) if "/" in name else shutil.which(name)
    if program is None:
        raise click.UsageError(f"there is no program {safe(name)}: give its full path")
    return program, [program, *words[1:]]


def split_command(text: str) -> tuple[str, list[str]]:
    """Return the same for a command line in one text. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise click.UsageError(f"{safe(text)!r} is no command: write the program and its arguments")
    return command_of(words)


def command_line(command: Mapping[str, Any]) -> str:
    """Return a command line as a person would write it."""
    return safe(shlex.join([command["program"], *command["arguments"][1:]]))
