"""What conversations keep for a later run, read as if somebody had damaged it: it is whole, or it is nothing.

JSON with the protocol, a version, and what it belongs to: the target (as a digest; addresses are long) and the size of
the source.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from openbits.upload.conversation import MEMORY_LIMIT, Upload

_VERSION: Final = 1
_LAST_MOMENT: Final = 1e12


class BadMemory(ValueError):
    """A field is missing or cannot be true."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one memory; every method raises BadMemory."""

    values: dict[str, Any]

    def text(self, key: str, limit: int) -> str:
        """A text of at most `limit` characters."""
        value = self.values.get(key, "")
        if not isinstance(value, str) or len(value) > limit:
            raise BadMemory(key)
        return value

    def number(self, key: str, most: int) -> int:
        """A number from 0 to `most`; 0 when it is not there."""
        value = self.values.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise BadMemory(key)
        return value

    def flag(self, key: str) -> bool:
        """Whether something is so."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise BadMemory(key)
        return value

    def moment(self, key: str) -> float | None:
        """Seconds since the epoch, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LAST_MOMENT:
            raise BadMemory(key)
        return float(value)


def protocol_of(text: str) -> str:
    """The protocol that a memory names; "" when it is no memory."""
    values = _load(text)
    protocol = values.get("protocol") if values is not None else None
    return protocol if isinstance(protocol, str) else ""


def read_memory(text: str, protocol: str, upload: Upload) -> Fields | None:
    """The fields of what write_memory wrote for this protocol and target, or None."""
    values = _load(text)
    if values is None or values.get("protocol") != protocol or values.get("target") != _digest(upload.url):
        return None
    return Fields(values)


def is_for_size(fields: Fields, upload: Upload) -> bool:
    """Whether the source had the size then that it has now."""
    return bool(fields.values.get("size") == upload.size)


def write_memory(protocol: str, upload: Upload, values: dict[str, Any]) -> str:
    """Make the text; what is empty is left out."""
    head = {"protocol": protocol, "version": _VERSION, "target": _digest(upload.url), "size": upload.size}
    kept = {key: value for key, value in values.items() if value is not None and value not in ("", 0)}
    return json.dumps(head | kept, separators=(",", ":"))


def _load(text: str) -> dict[str, Any] | None:
    if not text or len(text) > MEMORY_LIMIT:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and values.get("version") == _VERSION else None


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
