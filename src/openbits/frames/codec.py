"""Frames: one frozen dataclass is one message is one packet; nothing that does not fit its type gets through.

A frame travels as a JSON array `[kind, {field: value}]` of ASCII characters, without the fields that
have their default values.  Decoding checks every
field against its annotation, so that a peer which is broken, or has been taken over, gets an error
instead of a surprise.  Types that may stand in a frame: int, float, bool, str, None, tuples and
unions of these, and other dataclasses registered with `part`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

MAX_FRAME_BYTES: Final = 128 * 1024
"""Below the kernel's default socket buffer, which limits the size of one packet."""
LARGEST_NUMBER: Final = 2**63 - 1
"""No file is larger; whatever gets through can also be written down."""

UNIT_BYTES: Final = 6
"""What one unit of a text (see `units`) takes in a frame at most."""

_EXACT: Final = frozenset((int, bool, str, type(None)))

_T = TypeVar("_T")
_Check = Callable[[Any], Any]


class FrameError(Exception):
    """A packet is not a frame that this side takes."""


def units(text: str) -> int:
    """How much room a text takes in a frame at most, in units: what lies beyond U+FFFF travels as two escapes."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


class Codec:
    """The set of frames that travel on one sort of channel."""

    def __init__(self) -> None:
        self._kinds: dict[str, type] = {}
        self._shapes: dict[type, tuple[dict[str, _Check], frozenset[str]]] = {}

    def frame(self, cls: type[_T]) -> type[_T]:
        """Register a dataclass as a frame of this channel."""
        if cls.__name__ in self._kinds:
            raise AssertionError(f"two frames are called {cls.__name__}")
        self._kinds[cls.__name__] = cls
        return cls

    def encode(self, message: object) -> bytes:
        """Render a frame; raises FrameError when it is not registered or too large."""
        if self._kinds.get(type(message).__name__) is not type(message):
            raise FrameError(f"{type(message).__name__} does not travel here")
        packet = json.dumps([type(message).__name__, _plain(message)], separators=(",", ":")).encode("ascii")
        if len(packet) > MAX_FRAME_BYTES:
            raise FrameError(f"{type(message).__name__} of {len(packet)} bytes is too large for one frame")
        return packet

    def decode(self, packet: bytes) -> object:
        """Read a frame; raises FrameError for anything that is not exactly one."""
        try:
            document = json.loads(packet.decode("ascii"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"not a frame: {error}") from None
        match document:
            case [str(kind), dict(fields)]:
                cls = self._kinds.get(kind)
            case _:
                raise FrameError("not a frame: no kind and fields")
        if cls is None:
            raise FrameError(f"{kind[:40]!r} does not travel here")
        return self._build(cls, fields)

    def _build(self, cls: type, fields: dict[str, Any]) -> object:
        shape = self._shapes.get(cls)
        if shape is None:
            shape = self._shapes[cls] = self._shape(cls)
        checks, required = shape
        values = {}
        for name, value in fields.items():
            check = checks.get(name)
            if check is None:
                raise FrameError(f"{cls.__name__} has unknown fields")
            values[name] = check(value)
        if not required <= values.keys():
            raise FrameError(f"{cls.__name__} lacks {', '.join(sorted(required - values.keys()))}")
        return cls(**values)

    def _shape(self, cls: type) -> tuple[dict[str, _Check], frozenset[str]]:
        """How each field is checked, and which must be there."""
        hints = typing.get_type_hints(cls)
        checks = {name: self._check(hints[name], f"{cls.__name__}.{name}") for name, _ in _fields(cls)}
        return checks, frozenset(name for name, default in _fields(cls) if default is _NO_DEFAULT)

    def _check(self, hint: Any, where: str) -> _Check:
        if hint is type(None):
            return _exactly(type(None), where)
        if hint is float:
            return _number(where)
        if hint in (int, bool, str):
            return _exactly(hint, where)
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            if set(typing.get_args(hint)) <= _EXACT:
                return _exactly_one_of(frozenset(typing.get_args(hint)), where)
            return _one_of([self._check(option, where) for option in typing.get_args(hint)], where)
        if typing.get_origin(hint) is tuple:
            item, ellipsis = typing.get_args(hint)
            if ellipsis is not ...:
                raise AssertionError(f"{where}: only tuples of one type travel")
            return _many(self._check(item, where), where)
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            return self._part(hint, where)
        raise AssertionError(f"{where}: {hint} cannot travel")

    def _part(self, cls: type, where: str) -> _Check:
        def check(value: Any) -> Any:
            if type(value) is not dict:
                raise FrameError(f"{where} is no {cls.__name__}")
            return self._build(cls, value)

        return check


_NO_DEFAULT: Final = object()
_SIMPLE: Final = frozenset((str, int, bool, float, type(None)))
_FIELDS: Final[dict[type, tuple[tuple[str, Any], ...]]] = {}
"""Names and defaults by dataclass: frames are written by the thousand, and `dataclasses.fields` is slow."""


def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    fields = _FIELDS.get(cls)
    if fields is None:
        fields = _FIELDS[cls] = tuple(
            (field.name, _NO_DEFAULT if field.default is dataclasses.MISSING else field.default)
            for field in dataclasses.fields(cls)
        )
    return fields


def _plain(value: Any) -> Any:
    cls = type(value)
    if cls in _SIMPLE:
        return value
    if cls is tuple:
        return [_plain(item) for item in value]
    if cls not in _FIELDS and not dataclasses.is_dataclass(value):
        return value
    # What has its default value need not travel: most fields of most files of a job do.
    return {name: _plain(field) for name, default in _fields(cls) if (field := getattr(value, name)) != default}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _exactly(cls: type, where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not cls:
            raise FrameError(f"{where} is no {cls.__name__}")
        if isinstance(value, int) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise FrameError(f"{where} is too large")
        return value

    return check


def _exactly_one_of(classes: frozenset[type], where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) not in classes:
            raise FrameError(f"{where} has a wrong type")
        if isinstance(value, int) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise FrameError(f"{where} is too large")
        return value

    return check


def _number(where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) not in (int, float):
            raise FrameError(f"{where} is no number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise FrameError(f"{where} is too large")
        return number

    return check


def _one_of(checks: list[_Check], where: str) -> _Check:
    def check(value: Any) -> Any:
        for option in checks:
            try:
                return option(value)
            except FrameError:
                continue
        raise FrameError(f"{where} has a wrong type")

    return check


def _many(item: _Check, where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not list:
            raise FrameError(f"{where} is no list")
        return tuple(item(element) for element in value)

    return check
