"""Notification command lines (J30): which may be set.

A program by its full path and an argument vector: nothing is searched for, expanded or given to a shell.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Sequence
from typing import Final

from openbits.core.model import NotifyCommand
from openbits.core.names import PATH_LIMIT_BYTES
from openbits.errors import BitsError

PARAMETERS_LIMIT: Final = 4000
"""In characters, as one line (J30)."""
_SHOWN: Final = 80


def checked(program: str | None, parameters: str | Sequence[str] | None) -> NotifyCommand | None:
    """Return the command line; None for none (J30).

    `parameters` begin with the program, as its path or its name; a text is divided as a shell would, whose other
    powers it has not. Without any, the program gets its path only.
    Raises E_INVALIDARG and BG_E_STRING_TOO_LONG.
    """
    if program is None:
        if parameters is not None:
            raise _wrong("parameters without a program mean nothing: name the program, or neither")
        return None
    _check_program(program)
    arguments = _vector(program, parameters)
    if any("\0" in each for each in arguments):
        raise _wrong("an argument has a NUL in it, which no program can be given")
    line = shlex.join(arguments) if parameters is not None and not isinstance(parameters, str) else parameters or ""
    length = len(line)
    if length > PARAMETERS_LIMIT:
        raise BitsError(
            "BG_E_STRING_TOO_LONG", f"the parameters have {length} characters; {PARAMETERS_LIMIT} are allowed"
        )
    if not arguments or arguments[0] not in (program, os.path.basename(program)):
        raise _wrong(
            f"the first parameter must be the program itself, {ascii(program)[:_SHOWN]} or "
            f"{ascii(os.path.basename(program))[:_SHOWN]}: what it is given stands behind that"
        )
    return NotifyCommand(program=program, arguments=arguments)


def _check_program(program: str) -> None:
    if not program.startswith("/") or "\0" in program or program.endswith("/"):
        raise _wrong(f"{ascii(program)[:_SHOWN]} is not the full path of a program: nothing is searched for")
    try:
        size_bytes = len(program.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise _wrong("the path of the program has characters that no path has") from None
    if size_bytes > PATH_LIMIT_BYTES:
        raise BitsError(
            "BG_E_STRING_TOO_LONG", f"the program's path has {size_bytes} bytes; {PATH_LIMIT_BYTES} are allowed"
        )


def _vector(program: str, parameters: str | Sequence[str] | None) -> tuple[str, ...]:
    if parameters is None:
        return (program,)
    if not isinstance(parameters, str):
        return tuple(parameters)
    try:
        return tuple(shlex.split(parameters))
    except ValueError:
        raise _wrong("the parameters have a quotation mark or a backslash that belongs to nothing") from None


def _wrong(message: str) -> BitsError:
    return BitsError("E_INVALIDARG", message)
