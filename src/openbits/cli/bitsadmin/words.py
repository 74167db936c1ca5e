"""The words and letters of the Windows tool for what the service calls otherwise."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

from openbits.cli.text import safe

ACL_LETTERS: Final = "OGDS"
"""Owner, group, access control list, and what Windows keeps for auditing, in the order of their bits (J42)."""

_STATES: Final = {"CANCELLED": "CANCELED"}
_LEVELS: Final = ((0x4000, "SYSTEM"), (0x3000, "HIGH"), (0x2000, "MEDIUM"))


def state_word(state: str) -> str:
    """Return a state as the Windows tool spells it: CANCELED has one L (B18)."""
    return _STATES.get(state, state)


def type_word(job_type: str) -> str:
    """Return DOWNLOAD, UPLOAD or UPLOAD-REPLY (B14)."""
    return job_type.upper()


def owner_word(owner: Mapping[str, Any]) -> str:
    r"""Return an owner in the form DOMAIN\user, which programs split; the domain is this machine (B21)."""
    return f"{socket.gethostname().partition('.')[0]}\\{safe(owner['name'])}"


def level_word(level: int) -> str:
    """Return an integrity level by its name (J51)."""
    return next((word for least, word in _LEVELS if level >= least), "LOW")


def acl_letters(flags: int) -> str:
    """Return the letters of ACL flags; none for 0 (B15)."""
    return "".join(letter for bit, letter in enumerate(ACL_LETTERS) if flags >> bit & 1)


def acl_flags(letters: str) -> int | None:
    """Return the ACL flags of letters in any order and case; None where one is no letter of theirs."""
    wanted = letters.upper()
    if not wanted or not set(wanted) <= set(ACL_LETTERS):
        return None
    return sum(1 << bit for bit, letter in enumerate(ACL_LETTERS) if letter in wanted)
