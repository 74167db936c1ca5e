"""What to ask for when bytes are there already, and what the answer allows.

The one rule: bytes of two versions of a file never meet.  Bytes are kept only when the server
proves, by the validator of the version they came from, that the rest belongs to it; where it
cannot, the file begins again (D3).  Weak entity tags prove nothing and are not used.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from openbits.core.http import Response
from openbits.core.model import Validator


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request: from which byte on (0: the whole file, without Range), and If-Range."""

    offset: int = 0
    if_range: str | None = None
    probe: bool = False
    """Ask for the whole file as a range, to see whether the server knows ranges (strict_http)."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The header lines that say so."""
        if not self.offset:
            return ("Range: bytes=0-",) if self.probe else ()
        assert self.if_range is not None
        return (f"Range: bytes={self.offset}-", f"If-Range: {self.if_range}")


_WHOLE = Ask()
_PROBE = Ask(probe=True)


class Keep(enum.Enum):
    """What becomes of the bytes that are there."""

    APPEND = "append"
    """The body continues them."""
    REPLACE = "replace"
    """The body is the whole file from its first byte."""
    ASK_AGAIN = "ask again"
    """The body is of no use: drop everything and ask for the whole file."""
    CHECK_END = "check end"
    """The server says there is nothing behind them: ask by HEAD whether they are the whole file."""
    INVALID = "invalid"
    """Nothing was asked that this answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The judgement on an answer; `reason` is a sentence when bytes are dropped."""

    keep: Keep
    size: int | None = None
    """Size of the whole remote file, where the answer tells it."""
    expect: int | None = None
    """Bytes of this body, where the answer tells."""
    reason: str = ""
    changed: bool = False
    """Whether bytes are dropped because the remote file is another one now."""
    no_ranges: bool = False
    """Whether the answer shows that the server does not serve ranges."""


def plan(*, have_bytes: int, validator: Validator, dynamic_content: bool, strict_http: bool = False) -> Ask:
    """What to ask for: the rest if the validator can prove that it is the rest, else everything."""
    if_range = validator.etag or validator.last_modified
    if have_bytes and if_range and not dynamic_content:
        return Ask(offset=have_bytes, if_range=if_range)
    return _PROBE if strict_http else _WHOLE


def judge(ask: Ask, known: Validator, response: Response) -> Ruling:
    """What a 200, 206 or 416 means for the bytes that are there.

    Raises InvalidAnswer when the answer contradicts itself.
    """
    match response.status:
        case 206:
            return _judge_part(ask, known, response)
        case 416:
            if ask.offset:
                return Ruling(keep=Keep.CHECK_END)
            return Ruling(keep=Keep.ASK_AGAIN if ask.probe else Keep.INVALID)
        case _:
            return _judge_whole(ask, known, response)


def _judge_whole(ask: Ask, known: Validator, response: Response) -> Ruling:
    size = response.content_length
    if not ask.offset:
        return Ruling(keep=Keep.REPLACE, size=size, expect=size, no_ranges=ask.probe)
    if _contradicts(known, response) or (known.size is not None and size is not None and size != known.size):
        reason = "the remote file has changed: it is fetched again from the beginning"
        return Ruling(keep=Keep.REPLACE, size=size, expect=size, reason=reason, changed=True)
    reason = "the server cannot continue where the transfer stopped: the file is fetched again from the beginning"
    return Ruling(keep=Keep.REPLACE, size=size, expect=size, reason=reason, no_ranges=True)


def _judge_part(ask: Ask, known: Validator, response: Response) -> Ruling:
    part = response.content_range
    if not ask.offset:
        if part is not None and part.first == 0 and part.total is not None and part.length == part.total:
            return Ruling(keep=Keep.REPLACE, size=part.total, expect=part.total)
        if ask.probe and part is not None and part.first == 0:
            return Ruling(keep=Keep.REPLACE, size=part.total, expect=part.length)
        return Ruling(keep=Keep.INVALID)
    if part is None or part.first != ask.offset or response.content_codings:
        return _again("the server sent another part of the file than it was asked for")
    length = response.content_length
    if length is not None and length != part.length:
        return _again("the server contradicts itself about the part that it sends")
    if part.total is not None and known.size is not None and part.total != known.size:
        return _again("the remote file has changed", changed=True)
    if _contradicts(known, response):
        return _again("the remote file has changed", changed=True)
    if not _proves(known, response):
        return _again("the server does not say which version of the file it sends")
    total = known.size if part.total is None else part.total
    return Ruling(keep=Keep.APPEND, size=total, expect=part.length)


def _again(reason: str, *, changed: bool = False) -> Ruling:
    return Ruling(keep=Keep.ASK_AGAIN, reason=f"{reason}: it is fetched again from the beginning", changed=changed)


def _contradicts(known: Validator, response: Response) -> bool:
    """Whether the answer's validators show another version than the known one."""
    etag = response.etag
    if known.etag is not None and etag is not None:
        return etag != known.etag
    last_modified = response.last_modified
    return known.last_modified is not None and last_modified is not None and last_modified != known.last_modified


def _proves(known: Validator, response: Response) -> bool:
    """Whether the answer names the version that the known bytes are of.

    If-Range alone would do with servers that obey it.  Those that ignore it send a 206 of whatever
    they have now, so the answer itself must carry the validator (RFC 9110 demands the ETag in a 206).
    """
    if known.etag is not None:
        return response.etag == known.etag
    return known.last_modified is not None and response.last_modified == known.last_modified


def whole_by_head(have_bytes: int, known: Validator, response: Response) -> bool:
    """Whether the answer to a HEAD proves that the bytes that are there are the whole file."""
    return response.status == 200 and response.content_length == have_bytes and _proves(known, response)


def is_same_version(known: Validator, response: Response, total: int | None) -> bool:
    """Whether a further part belongs to the version that earlier parts came from."""
    if total is not None and known.size is not None and total != known.size:
        return False
    if known.etag is None and known.last_modified is None:
        return True
    return _proves(known, response)
