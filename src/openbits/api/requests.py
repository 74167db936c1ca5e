"""Reading requests: whatever a client sends is checked here, and what does not fit is E_INVALIDARG."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from openbits.api import wire
from openbits.api.render import TYPES_BY_NAME
from openbits.core.model import ByteRange
from openbits.errors import BitsError
from openbits.service.calls import NewFile, NewJob

_T = TypeVar("_T")
MAX_PAGE = 10_000
DEFAULT_PAGE = 500


async def read_body(request: web.Request, cls: type[_T], *, timeout_s: float) -> _T:
    """Return the body as `cls`.

    Raises E_INVALIDARG, HTTPRequestEntityTooLarge, and TimeoutError for a body that does not come.
    """
    try:
        async with asyncio.timeout(timeout_s):
            raw = await _collect(request)
    except web.RequestPayloadError:
        raise BitsError("E_INVALIDARG", "the body of the request cannot be read") from None
    return parse(raw, cls)


async def _collect(request: web.Request) -> bytes:
    # Not request.read(): the request keeps that, and the connection the request, until the next one comes.
    limit = request.client_max_size
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length or 0)
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
    return bytes(body)


def parse(raw: bytes, cls: type[_T]) -> _T:
    """Return a JSON document as `cls`. Raises E_INVALIDARG."""
    try:
        # The standard library's reader, because names may hold lone surrogates (bytes that are no UTF-8).
        document = json.loads(raw, parse_constant=_no_constant)
        return msgspec.convert(document, cls)
    except msgspec.ValidationError as error:
        raise BitsError("E_INVALIDARG", f"the request does not fit: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BitsError("E_INVALIDARG", f"the request is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def job_id(request: web.Request) -> str:
    """The job's id in the path; braces and capitals are allowed. Raises BG_E_NOT_FOUND."""
    return normal_id(request.match_info["job_id"])


def normal_id(text: str) -> str:
    """Return a GUID as the store writes it. Raises BG_E_NOT_FOUND."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BitsError("BG_E_NOT_FOUND", f"{ascii(text)[:60]} is not the id of a job") from None


def file_index(request: web.Request) -> int:
    """The file's index in the path. Raises BG_E_FILE_NOT_FOUND."""
    text = request.match_info["index"]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BitsError("BG_E_FILE_NOT_FOUND", f"{ascii(text)[:60]} is not the index of a file")
    return int(text)


def whole_number(request: web.Request, name: str, default: int, *, low: int = 0, high: int = 2**63 - 1) -> int:
    """A query parameter that is a whole number. Raises E_INVALIDARG."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise BitsError("E_INVALIDARG", f"{name} must be a whole number from {low} to {high}")
    return int(text)


def yes_or_no(request: web.Request, name: str, *, default: bool = False) -> bool:
    """A query parameter that is true or false. Raises E_INVALIDARG."""
    text = request.query.get(name)
    if text is None:
        return default
    if text in ("1", "true"):
        return True
    if text in ("0", "false"):
        return False
    raise BitsError("E_INVALIDARG", f"{name} must be true or false")


def new_job(body: wire.JobIn) -> NewJob:
    """What the client wants to create."""
    return NewJob(
        name=body.name,
        type=TYPES_BY_NAME[body.type],
        settings=body.settings,
        files=[new_file(file) for file in body.files],
        resume=body.resume,
        reply_file_name=body.reply_file_name or "",
    )


def new_file(body: wire.FileIn) -> NewFile:
    """A file that the client wants to add."""
    ranges = None
    if body.ranges is not None:
        ranges = tuple(ByteRange(item.offset, item.length) for item in body.ranges)
    return NewFile(remote_name=body.remote_name, local_name=body.local_name, ranges=ranges, checksum=body.checksum)
