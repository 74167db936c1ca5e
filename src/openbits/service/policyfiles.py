"""The files of an administrator's policy: /etc/openbits/policy.d/*.toml, read whole or not at all.

The rule: files count in the order of their names, and of each key the last one that has it.  A file that others than
root could have written, or one thing in one of them that is not understood, and nothing of all of them counts: the
error says where, to the line.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, Final

from openbits.core.policy import KEYS, SECTIONS, Policy, PolicyError, checked, policy_of

DIRECTORY_NAME: Final = "policy.d"
MOST_BYTES: Final = 256 * 1024
MOST_FILES: Final = 1000
LOCAL_TIME: Final = "/etc/localtime"
_HEADER: Final = re.compile(r"""\s*\[\s*["']?(?P<name>\w+)["']?\s*\]\s*(?:#.*)?""")
_KEY: Final = re.compile(r"""\s*["']?(?P<first>\w+)["']?\s*(?:\.\s*["']?(?P<second>\w+)["']?\s*)?=""")


class PolicyFileError(Exception):
    """The files are no policy; the message says where and why, for the person who wrote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A policy, and where each of its values stands."""

    policy: Policy = field(default_factory=Policy)
    values: Mapping[str, Any] = field(default_factory=dict)
    """As written, by the names of `core.policy.KEYS`."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """`file:line`, by the same names."""
    files: tuple[str, ...] = ()
    zone: tzinfo = UTC
    zone_name: str = "UTC"


def directory_beside(configuration_path: str) -> str:
    """Where the policy of a service stands whose configuration is there."""
    return os.path.join(os.path.dirname(os.path.abspath(configuration_path)), DIRECTORY_NAME)


def read_policy(directory: str, *, owners: frozenset[int]) -> Loaded:
    """Read all files; `owners` are the accounts whose files count. Raises PolicyFileError."""
    values: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    sources: dict[str, str] = {}
    names = _names(directory, owners)
    for name in names:
        path = os.path.join(directory, name)
        text = _read(path, owners)
        document = _parsed(path, text)
        lines = _lines(text)
        for key, value in _flat(path, document, lines):
            sources[key] = f"{path}:{lines.get(key, 1)}"
            try:
                values[key] = checked(key, value)
            except PolicyError as error:
                raise PolicyFileError(f"{sources[key]}: {error}") from None
            raw[key] = value
    try:
        policy = policy_of(values)
    except PolicyError as error:
        raise PolicyFileError(f"{sources[error.key]}: {error}") from None
    zone, zone_name = _zone(policy.timezone, sources.get("timezone", ""))
    files = tuple(os.path.join(directory, name) for name in names)
    return Loaded(policy=policy, values=raw, sources=sources, files=files, zone=zone, zone_name=zone_name)


# --- files ----------------------------------------------------------------------------------------


def _names(directory: str, owners: frozenset[int]) -> list[str]:
    if not directory:
        return []
    try:
        status = os.stat(directory)
        found = sorted(name for name in os.listdir(directory) if name.endswith(".toml") and not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PolicyFileError(f"{directory}: cannot be read: {error.strerror}") from None
    if found:
        _refuse_foreign(directory, status, owners)
    if len(found) > MOST_FILES:
        raise PolicyFileError(f"{directory}: there are more than {MOST_FILES} files: put them together")
    return found


def _refuse_foreign(path: str, status: os.stat_result, owners: frozenset[int]) -> None:
    if status.st_uid not in owners:
        wanted = " or ".join("root" if uid == 0 else f"uid {uid}" for uid in sorted(owners))
        raise PolicyFileError(f"{path}: belongs to uid {status.st_uid}: only what belongs to {wanted} is obeyed")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise PolicyFileError(f"{path}: others may write to it (mode {mode:04o}): take that away with 'chmod go-w'")


def _read(path: str, owners: frozenset[int]) -> str:
    try:
        # Whose directory it is was looked at: what a link in it leads to is the owner's choice.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise PolicyFileError(f"{path}: cannot be read by uid {os.geteuid()}: {error.strerror}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise PolicyFileError(f"{path}: is no regular file")
        _refuse_foreign(path, status, owners)
        try:
            content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise PolicyFileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise PolicyFileError(f"{path}: is larger than {MOST_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PolicyFileError(f"{path}:{line}: is not UTF-8") from None


# --- what stands in them --------------------------------------------------------------------------


def _parsed(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found is not None else text.count("\n") + 1
        raise PolicyFileError(f"{path}:{line}: is not valid TOML: {error}") from None
    except ValueError as error:
        # Numbers beyond what Python reads.
        raise PolicyFileError(f"{path}:1: is not valid TOML: {error}") from None
    except RecursionError:
        raise PolicyFileError(f"{path}:1: is not valid TOML: it is nested too deeply") from None


def _flat(path: str, document: Mapping[str, Any], lines: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    for name, content in document.items():
        where = f"{path}:{lines.get(name, 1)}"
        if name in KEYS:
            yield name, content
        elif name not in SECTIONS:
            what = f"section [{name}]" if isinstance(content, dict) else f"key {name}"
            known = (*SECTIONS, *(key for key in KEYS if "." not in key))
            raise PolicyFileError(f"{where}: there is no {what}{_perhaps(name, known)}")
        elif not isinstance(content, dict):
            raise PolicyFileError(f"{where}: {name} must be a section: write [{name}]")
        else:
            for key, value in content.items():
                if f"{name}.{key}" not in KEYS:
                    known = tuple(each.partition(".")[2] for each in KEYS if each.startswith(f"{name}."))
                    where = f"{path}:{lines.get(f'{name}.{key}', lines.get(name, 1))}"
                    raise PolicyFileError(f"{where}: there is no key {key} in [{name}]{_perhaps(key, known)}")
                yield f"{name}.{key}", value


def _perhaps(name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


def _lines(text: str) -> dict[str, int]:
    """On which line each section and each key begins, of those that are written in the usual way."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            section = header["name"]
            lines.setdefault(section, number)
        elif (key := _KEY.match(line)) is not None:
            name = ".".join(part for part in (section, key["first"], key["second"]) if part)
            lines.setdefault(name, number)
            if key["second"] and not section:
                lines.setdefault(key["first"], number)
    return lines


def _zone(name: str | None, source: str) -> tuple[tzinfo, str]:
    if name is None:
        return _machine_zone()
    try:
        return zoneinfo.ZoneInfo.no_cache(name), name
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"there is no time zone of this name{f'; did you mean {close[0]}?' if close else ''}"
        if not known:
            advice = "this machine knows no time zones: install the package tzdata"
        raise PolicyFileError(f"{source}: timezone = {name!r:.80}: {advice}") from None


def _machine_zone() -> tuple[tzinfo, str]:
    """That of /etc/localtime; without it a machine goes by UTC."""
    try:
        with open(LOCAL_TIME, "rb") as file:
            zone = zoneinfo.ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC, "UTC"
    target = os.path.realpath(LOCAL_TIME)
    _, found, name = target.partition("/zoneinfo/")
    return zone, name if found else "the machine's"
