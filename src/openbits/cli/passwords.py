"""Passwords on their way from a person, or a program, to the service: never by an argument or the environment.

The rule: a password is asked for without echo, or read from where nobody else can read it; it goes into one call, and
stands in no message, not even one that says what is wrong with it.
"""

from __future__ import annotations

import functools
import getpass
import os
import resource
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from openbits.cli.text import safe

MOST_BYTES: Final = 4 * 65_536
"""Of UTF-8, for the longest password that there can be; the service says so if it is too long."""

_OPTIONS: Final = (
    click.option("--password-file", metavar="FILE", help="Read the password from a file that only you can read."),
    click.option("--password-fd", metavar="N", type=click.IntRange(min=0), help="Read the password from a descriptor."),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSource:
    """Where the password is to come from; without anything the terminal is asked."""

    password_file: str | None
    password_fd: int | None
    password_stdin: bool

    @property
    def is_named(self) -> bool:
        """Whether an option says where it comes from."""
        return self.password_file is not None or self.password_fd is not None or self.password_stdin

    def read(self, prompt: str) -> str:
        """Return the password. Raises UsageError, click.Abort."""
        if (self.password_file is not None) + (self.password_fd is not None) + self.password_stdin > 1:
            raise click.UsageError("a password comes from one place: give one of the --password options")
        # Whatever becomes of this program, its memory is not to be found in a file.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if self.password_file is not None:
            return _from_file(self.password_file)
        if self.password_fd is not None:
            return _from_descriptor(self.password_fd)
        if self.password_stdin:
            if sys.stdin.isatty():
                raise click.UsageError(
                    "standard input is a terminal, which would show the password: leave the option out"
                )
            return _one_line(sys.stdin.buffer.read(MOST_BYTES + 3), "standard input")
        return _from_terminal(prompt)


def password_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `PasswordSource`, and give them to the command as `password`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        source = PasswordSource(**{name: options.pop(name) for name in PasswordSource.__slots__})
        function(*arguments, password=source, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _from_terminal(prompt: str) -> str:
    try:
        # Without one, getpass would read standard input, and the password might be shown.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise click.UsageError(
            "there is no terminal to ask for the password: give --password-file, --password-fd or --password-stdin"
        ) from None
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise click.Abort from None


def _from_file(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise click.UsageError(f"{safe(path)} cannot be read: {error.strerror}") from None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_uid not in (os.geteuid(), 0):
            raise click.UsageError(
                f"{safe(path)} belongs to another account, which can read the password: use your own"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise click.UsageError(f"others can read {safe(path)}: 'chmod 600' it, and take another password")
        try:
            return _one_line(file.read(MOST_BYTES + 3), safe(path))
        except OSError as error:
            raise click.UsageError(f"{safe(path)} cannot be read: {error.strerror}") from None


def _from_descriptor(fd: int) -> str:
    try:
        with open(fd, "rb", closefd=fd > 2) as file:
            return _one_line(file.read(MOST_BYTES + 3), f"descriptor {fd}")
    except OSError as error:
        raise click.UsageError(f"descriptor {fd} cannot be read: {error.strerror}") from None


def _one_line(content: bytes, where: str) -> str:
    """The password in what was read: one line, the end of which does not belong to it."""
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > MOST_BYTES:
        raise click.UsageError(f"{where} has more in it than a password")
    if b"\n" in line:
        raise click.UsageError(f"{where} has more than one line: a password is one line")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"the password in {where} is not UTF-8") from None
