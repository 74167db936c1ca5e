"""Which events a request asks for: numbers, levels and times, read from its query."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from openbits.core.eventlog import Level, kinds_of, numbers_of
from openbits.errors import BitsError
from openbits.store.records import EventChoice

_MOST_NUMBERS: Final = 100
_LARGEST_NUMBER: Final = 100_000


def chosen(request: web.Request, allowed: EventChoice) -> EventChoice:
    """Return what the request asks for of what its caller may read. Raises E_INVALIDARG."""
    numbers = _numbers(request)
    text = request.query.get("level")
    kinds = None
    if text is not None:
        try:
            level = Level(text)
        except ValueError:
            names = ", ".join(each.value for each in Level)
            raise BitsError("E_INVALIDARG", f"level must be one of {names}") from None
        numbers = numbers_of(level) if numbers is None else numbers & numbers_of(level)
        kinds = kinds_of(level)
    since, until = moment(request, "since"), moment(request, "until")
    return replace(allowed, event_ids=numbers, kinds=kinds, since=since, until=until)


def _numbers(request: web.Request) -> frozenset[int] | None:
    texts = [each for text in request.query.getall("id", []) for each in text.split(",")]
    if not texts:
        return None
    if len(texts) > _MOST_NUMBERS or not all(
        text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= _LARGEST_NUMBER for text in texts
    ):
        raise BitsError("E_INVALIDARG", f"id must be numbers of events, at most {_MOST_NUMBERS}, divided by commas")
    return frozenset(map(int, texts))


def moment(request: web.Request, name: str) -> float | None:
    """Return a time of the query in seconds since the epoch; one without a zone is UTC. Raises E_INVALIDARG."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BitsError("E_INVALIDARG", f"{name} must be a time such as 2030-01-31T12:00:00Z") from None
