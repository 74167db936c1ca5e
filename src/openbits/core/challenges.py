"""What servers and proxies ask for: WWW-Authenticate and Proxy-Authenticate, read as RFC 9110 section 11 has it.

The rule: reading costs what the text is long and no more, nothing that was not understood counts as understood, and no
text makes it fail.  Several challenges may stand in one field, and the commas between them are those between their
parameters, too: a word that an equals sign does not follow begins a new challenge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

TEXT_LIMIT: Final = 32 * 1024
"""Characters of all fields together that are read: tokens of directories with many groups are this long, no list is."""
_CHALLENGES_READ: Final = 32
_PARAMETERS_READ: Final = 32

# Each alternative ends where the next cannot go on: the time is that of one pass. RFC 9110, section 5.6.2: token.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_BLANKS: Final = re.compile(r"[ \t]*")
_BETWEEN: Final = re.compile(r"[ \t,]*")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NEXT: Final = re.compile(r"[^,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One offer; scheme and names of parameters are in lower case."""

    scheme: str
    token68: str = ""
    """What follows the scheme in the place of parameters: Negotiate and NTLM speak in it."""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of a field's values, in order; what cannot be read is left out.

    A challenge that names a parameter twice, or has a control character in it, is not understood, and left out too.
    """
    found: list[Challenge] = []
    room = TEXT_LIMIT
    for value in values:
        if len(value) > room or len(found) >= _CHALLENGES_READ:
            break
        room -= len(value)
        if _CONTROL.search(value) is None:
            _read(value, found)
    return tuple(found[:_CHALLENGES_READ])


def _read(text: str, found: list[Challenge]) -> None:
    at = 0
    while len(found) < _CHALLENGES_READ:
        at = _after(_BETWEEN, text, at)
        scheme = _TOKEN.match(text, at)
        if scheme is None:
            if at >= len(text):
                return
            at = _after(_NEXT, text, at + 1)
            continue
        at = _after(_BLANKS, text, scheme.end())
        token = _TOKEN68.match(text, at) if at > scheme.end() else None
        if token is not None:
            # `Negotiate` followed by a word and a comma: the word is its token. A list of schemes has commas between.
            found.append(Challenge(scheme=scheme[0].lower(), token68=token[0]))
            at = token.end()
            continue
        parameters, at, is_understood = _read_parameters(text, at)
        if is_understood:
            found.append(Challenge(scheme=scheme[0].lower(), parameters=parameters))


def _read_parameters(text: str, at: int) -> tuple[dict[str, str], int, bool]:
    """Read `name=value, …` from `at` on; return them, where they end, and whether they were understood."""
    parameters: dict[str, str] = {}
    is_understood = True
    while True:
        start = _after(_BETWEEN, text, at)
        name = _TOKEN.match(text, start)
        equals = _EQUALS.match(text, name.end()) if name is not None else None
        if name is None or equals is None:
            # Nothing more, or the next challenge's scheme; anything else spoils this one up to the next comma.
            if name is None and start < len(text):
                return parameters, _after(_NEXT, text, start + 1), False
            return parameters, start, is_understood
        value = _QUOTED.match(text, equals.end()) or _TOKEN.match(text, equals.end())
        if value is None:
            # An open quote takes everything to the end with it; an empty value is none.
            is_open = text.startswith('"', equals.end())
            return parameters, len(text) if is_open else _after(_NEXT, text, equals.end()), False
        key = name[0].lower()
        if key in parameters or len(parameters) >= _PARAMETERS_READ:
            is_understood = False
        elif value.re is _QUOTED:
            parameters[key] = _ESCAPE.sub(r"\1", value[1])
        else:
            parameters[key] = value[0]
        at = value.end()


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
