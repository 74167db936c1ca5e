"""Which bytes of a file a request wants, and whether it wants any: Range and the conditional headers, decided purely.

RFC 9110, sections 13 and 14.  What cannot be understood is as if it were not there, as the RFC has it; many or
overlapping ranges are a way to make a server work for nothing, and get the whole file instead.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate, mktime_tz, parsedate_tz
from hashlib import blake2b
from typing import Final

from openbits.server.exchange import Head

MAX_RANGES: Final = 256
_MAX_RANGE_CHARACTERS: Final = 16_384
_SPEC: Final = re.compile(r"[ \t]*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*")
_TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What tells one state of a file from another."""

    etag: str
    """Strong: another content has another one."""
    modified_s: int
    """Last-Modified, in seconds since the epoch."""

    @classmethod
    def of(cls, *, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> Validators:
        """ctime as well: a content that was replaced under an old date is another one."""
        text = f"{inode} {size} {mtime_ns} {ctime_ns}".encode()
        return cls(etag=f'"{blake2b(text, digest_size=12).hexdigest()}"', modified_s=max(0, mtime_ns // 10**9))

    @property
    def last_modified(self) -> str:
        """As a header."""
        return formatdate(self.modified_s, usegmt=True)


class Verdict(enum.Enum):
    """What the conditions of a request come to."""

    SEND = "send"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"


def judge(head: Head, validators: Validators) -> Verdict:
    """Weigh If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since, in the order of RFC 9110, 13.2.2."""
    match = head.get_all("if-match")
    since = head.get("if-unmodified-since")
    if match:
        if not _names(match, validators.etag, strongly=True):
            return Verdict.FAILED
    elif since is not None and (limit := _time_of(since)) is not None and validators.modified_s > limit:
        return Verdict.FAILED
    none_match = head.get_all("if-none-match")
    since = head.get("if-modified-since")
    if none_match:
        if _names(none_match, validators.etag, strongly=False):
            return Verdict.NOT_MODIFIED
    elif since is not None and (limit := _time_of(since)) is not None and validators.modified_s <= limit:
        return Verdict.NOT_MODIFIED
    return Verdict.SEND


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bytes of a file."""

    first: int
    length: int

    def content_range(self, size: int) -> str:
        """As a header."""
        return f"bytes {self.first}-{self.first + self.length - 1}/{size}"


class Unsatisfiable(Exception):
    """None of the ranges has a byte of the file: 416."""


def wanted_ranges(head: Head, validators: Validators, size: int) -> Sequence[Range]:
    """Return the ranges that are to be sent, in the order in which they were asked for; empty for the whole file.

    Raises Unsatisfiable.
    """
    text = head.get("range")
    if text is None or len(text) > _MAX_RANGE_CHARACTERS or len(head.get_all("range")) > 1:
        return ()
    condition = head.get("if-range")
    if condition is not None and not _is_same(condition.strip(), validators):
        return ()
    unit, equals, specs = text.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    ranges: list[Range | None] = []
    for spec in specs.split(","):
        if not spec.strip():
            continue
        found = _SPEC.fullmatch(spec)
        if found is None or len(ranges) > MAX_RANGES:
            return ()
        first, last, suffix = found.groups()
        if first is not None and last is not None and int(last) < int(first):
            return ()
        ranges.append(_clip(first, last, suffix, size))
    if not ranges:
        return ()
    satisfiable = [each for each in ranges if each is not None]
    if not satisfiable:
        raise Unsatisfiable
    if len(ranges) > MAX_RANGES or sum(each.length for each in satisfiable) > size:
        return ()
    return satisfiable


def _clip(first: str | None, last: str | None, suffix: str | None, size: int) -> Range | None:
    if first is None:
        assert suffix is not None
        length = min(int(suffix), size)
        return Range(first=size - length, length=length) if length else None
    start = int(first)
    if start >= size:
        return None
    end = size if last is None else min(int(last) + 1, size)
    return Range(first=start, length=end - start)


def _is_same(condition: str, validators: Validators) -> bool:
    if condition.startswith(('"', "W/")):
        # A weak tag proves nothing about bytes.
        return condition == validators.etag
    return _time_of(condition) == validators.modified_s


def _names(values: Sequence[str], etag: str, *, strongly: bool) -> bool:
    text = ",".join(values).strip()
    if text == "*":
        return True
    tags = (found for found in _TAG.finditer(text))
    if strongly:
        return any(found[0] == etag for found in tags)
    return any(found[0].removeprefix("W/") == etag for found in tags)


def _time_of(text: str) -> int | None:
    parsed = parsedate_tz(text)
    if parsed is None:
        return None
    try:
        return int(mktime_tz(parsed))
    except (ValueError, OverflowError):
        return None
