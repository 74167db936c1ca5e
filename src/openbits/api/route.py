"""What a call of the local API is, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter."""

    name: str
    kind: type[int | bool | str]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: `handler` is the name of a method of api.handlers.Handlers; a tuple of answers is one of them."""

    method: str
    path: str
    handler: str
    text: str
    answer: Any
    body: Any = None
    status: int = 200
    query: tuple[Parameter, ...] = ()
    media_type: str = "application/json"


ALL_USERS: Final = Parameter(name="all_users", kind=bool, text="the jobs of all accounts; administrators only")
