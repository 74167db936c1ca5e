"""Tables of a TOML file, checked key by key: what is not understood is an error, never ignored.

An error names the file, the key and what is allowed: an administrator who sets a limit must not find out later
that there was none.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Check = Callable[[Any], Any]


class SettingsError(Exception):
    """The settings cannot be used; the message says where and why, for the person who wrote them."""


class Unsuitable(Exception):
    """A value is not what its key allows; the text says what is: "a whole number from 1 to 60"."""


def read_document(path: str) -> dict[str, Any]:
    """Read a TOML file; raises SettingsError."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}") from error


def read_table(content: Any, checks: Mapping[str, Check], *, source: str, table: str) -> dict[str, Any]:
    """Return the values of a table as their checks made them; `table` is its name, empty for the file itself."""
    shown = f" in [{table}]" if table else ""
    if not isinstance(content, Mapping):
        raise SettingsError(f"{source}: {table} must be a table: write [{table}]")
    values = {}
    for key, value in content.items():
        check = checks.get(key)
        if check is None:
            raise SettingsError(f"{source}: there is no key {key}{shown}{perhaps(key, checks)}")
        try:
            values[key] = check(value)
        except Unsuitable as error:
            raise SettingsError(f"{source}: {key}{shown} must be {error}, not {value!r:.80}") from None
    return values


def perhaps(name: str, known: Iterable[str]) -> str:
    """Say what may have been meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


# --- checks ------------------------------------------------------------------------------------


def whole(low: int, high: int = 2**31 - 1) -> Check:
    """A whole number; true and false are none."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unsuitable(f"a whole number from {low:,} to {high:,}".replace(",", "_"))
        return value

    return check


def boolean(value: Any) -> bool:
    """Either of the two."""
    if not isinstance(value, bool):
        raise Unsuitable("true or false")
    return value


def one_of(meanings: Mapping[Any, Any]) -> Check:
    """One of the keys; the value is what it means."""

    def check(value: Any) -> Any:
        # A bool is an int to Python, and `true` is no notification type.
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value not in meanings:
            words = ", ".join(f'"{word}"' for word in meanings if isinstance(word, str))
            numbers = ", ".join(str(word) for word in meanings if isinstance(word, int))
            raise Unsuitable(f"one of {words}" + (f" (or {numbers})" if numbers else ""))
        return meanings[value]

    return check


def full_path(value: Any) -> str:
    """A path from the root of the file system."""
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise Unsuitable("a full path")
    return value
