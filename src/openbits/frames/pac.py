"""What a worker and its evaluator of a PAC script say to each other.

The worker hands over the script, then asks one question after the other; each is answered by one Verdict.  On the way
to it the evaluator may ask for names, each of which the worker answers by one Names.  The evaluator holds nothing but
the socket on which this is said, and what it says is as little to be trusted as the script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openbits.frames.codec import Codec

TO_EVALUATOR: Final = Codec()
FROM_EVALUATOR: Final = Codec()

PART_LENGTH: Final = 16_000
"""Characters of a script in one frame, whatever they are."""


@TO_EVALUATOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPart:
    """A part of the script; the last one says so."""

    text: str
    last: bool


@TO_EVALUATOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which proxies does the script name for this URL?"""

    url: str
    host: str


@TO_EVALUATOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The addresses of what NamesWanted asked for; none where there are none."""

    addresses: tuple[str, ...]


@FROM_EVALUATOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class NamesWanted:
    """The script wants the addresses of a host, or this machine's own for an empty name."""

    name: str
    any_version: bool
    """Whether IPv6 addresses are wanted too."""


@FROM_EVALUATOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the script says, or, as a clause, why it says nothing."""

    result: str = ""
    error: str = ""
