"""What the service says of itself, of its caller and of errors; see `wire`."""

from __future__ import annotations

from typing import Literal

import msgspec

from openbits.api.wire import Response


class WhoAmI(Response):
    """The caller as the kernel tells it."""

    uid: int
    gid: int
    groups: list[int]
    name: str
    kind: str
    kind_reason: str
    is_administrator: bool


class VersionOut(Response):
    """What answers."""

    program: str
    version: str
    mode: Literal["system", "user"]


class Check(Response):
    """One line of `bits doctor`."""

    name: str
    ok: bool
    message: str


class Doctor(Response):
    """What the service thinks of its own health."""

    checks: list[Check]


class ErrorDescription(Response):
    """What an error code means (M4)."""

    code: str
    hresult: int
    text: str


class Problem(Response):
    """An error, as application/problem+json (RFC 9457) with the BITS name and HRESULT."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hresult: int
    exit_code: int
    reply_bytes: int | msgspec.UnsetType = msgspec.UNSET
    """With BG_E_TOO_LARGE: how large the reply is that was asked for (J32)."""
