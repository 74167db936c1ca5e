"""A method that is written once and serves both clients.

An operation is a function that returns a call (or a script of calls).  As an attribute of a blocking object it
gives the result; as an attribute of an asyncio object it gives an awaitable of the result.  Either way it is the moment
of the call, not that of the await, that decides whose identity it carries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from openbits.client.calls import Call, Script
from openbits.client.cloaking import Proxy
from openbits.client.identity import Identity

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class BlockingSession(Protocol):
    """Carries out calls, and waits."""

    def perform(self, work: Call[T] | Script[T], identity: Identity | None = None) -> T:
        """Carry out a call or a script as `identity` and return its result; raises BitsError."""


class AsyncSession(Protocol):
    """Carries out calls on the event loop."""

    async def perform(self, work: Call[T] | Script[T], identity: Identity | None = None) -> T:
        """Carry out a call or a script as `identity` and return its result; raises BitsError."""


class Blocking(Proxy):
    """Base of the objects whose operations wait."""

    _session: BlockingSession


class Asynchronous(Proxy):
    """Base of the objects whose operations are awaited."""

    _session: AsyncSession


class Operation(Generic[P, T_co]):
    """The descriptor behind `@operation`."""

    def __init__(self, function: Callable[Concatenate[Any, P], Call[T_co] | Script[T_co]]) -> None:
        self._function = function

        @functools.wraps(function)
        def perform(obj: Any, *args: Any, **kwargs: Any) -> Any:
            return obj._session.perform(function(obj, *args, **kwargs), obj._call_identity())

        self._perform: Any = perform

    @overload
    def __get__(self, obj: Blocking, owner: object = None) -> Callable[P, T_co]: ...
    @overload
    def __get__(self, obj: Asynchronous, owner: object = None) -> Callable[P, Coroutine[Any, Any, T_co]]: ...
    @overload
    def __get__(self, obj: None, owner: object = None) -> Callable[Concatenate[Any, P], Any]: ...
    def __get__(self, obj: object, owner: object = None) -> Any:
        """Bind to an object; on the class it is the plain function, for `help()`."""
        return self._perform if obj is None else self._perform.__get__(obj, owner)


def operation(function: Callable[Concatenate[Any, P], Call[T_co] | Script[T_co]]) -> Operation[P, T_co]:
    """Turn a function that returns a call or a script into a method of both clients."""
    return Operation(function)
