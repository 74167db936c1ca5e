"""Security flags in words (H7): BITS's names in lower case, joined by commas; whoever likes numbers may write them."""

from __future__ import annotations

from typing import Final

from openbits.client.certificates import SecurityFlags

_PREFIX: Final = "bg_"
_POLICY: Final = SecurityFlags.BG_HTTP_REDIRECT_POLICY_MASK
_POLICIES: Final = tuple(
    SecurityFlags[f"BG_HTTP_REDIRECT_POLICY_{name}"] for name in ("ALLOW_SILENT", "ALLOW_REPORT", "DISALLOW")
)
_WORDS: Final = {
    name.lower().removeprefix(_PREFIX): flag for name, flag in SecurityFlags.__members__.items() if flag != _POLICY
}
NONE: Final = "none"


def parse(text: str) -> int:
    """Return the flags that a number, or words divided by commas, blanks or bars, stand for; raises ValueError.

    What `words_of` gives, with its number in brackets, is taken as well.
    """
    words = text.partition("(")[0].lower().replace(",", " ").replace("|", " ").replace("-", "_").split()
    if not words:
        raise ValueError
    flags = 0
    for word in words:
        known = _WORDS.get(word.removeprefix(_PREFIX))
        flags |= 0 if word == NONE else int(known) if known is not None else int(word, 0)
    return flags


def words_of(value: int) -> str:
    """Return flags as words, with the number; bits without a name as a number."""
    if not value:
        return NONE
    policy = value & int(_POLICY)
    named = [
        word
        for word, flag in _WORDS.items()
        if (int(flag) == policy if flag in _POLICIES else value & int(flag)) and int(flag)
    ]
    rest = value & ~sum(int(_WORDS[word]) for word in named)
    return f"{','.join([*named, *([f'{rest:#06x}'] if rest else [])])} ({value:#06x})"
