"""What can be set for upload directories: the properties of IIS's extension, inherited as there (U1–U12).

The rules:

- Directories form a tree below the root.  One that has no table of its own belongs to the nearest one above that has.
- A table inherits each property that it does not set from the nearest table above, with one exception, as in IIS:
  `upload_enabled`.  So nobody lets uploads into a directory by a table that was written for something else.
- Keys are IIS's names in snake_case, without the BITS in front.  Times are seconds and sizes are bytes, as there.

Sessions themselves stand in one private working directory, which must be on the file systems of the destinations:
only so can a finished file get its name in one moment.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final
from urllib.parse import urlsplit

from openbits.server.beneath import UnfitPath, check_name
from openbits.server.tables import (
    Check,
    SettingsError,
    Unsuitable,
    boolean,
    full_path,
    one_of,
    read_table,
    whole,
)
from openbits.upload.addresses import BadAddress, parse_host_id
from openbits.upload.session import Finalize, Overlap, Policy

DAY_S: Final = 86_400
DEFAULT_CLEANUP_S: Final = 12 * 3_600
WORKING_DIRECTORY: Final = ".bits-sessions"
"""Below the root, unless set otherwise; never served."""
URL_LIMIT: Final = 2_200
HOST_ID_LIMIT: Final = 300
_SIZE_LIMIT: Final = 2**63 - 1


class Notification(enum.Enum):
    """How a server application gets an upload (U4)."""

    NONE = "none"
    REFERENCE = "reference"
    VALUE = "value"


_UNIT_S: Final = {"minutes": 60, "hours": 3_600, "days": DAY_S}
_MOST: Final = {"minutes": 60, "hours": 24, "days": 360}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """The properties of one upload directory, with everything that it inherits."""

    upload_enabled: bool = False
    """U1; never inherited."""
    session_timeout: int = 14 * DAY_S
    """U2, in seconds: a session without progress for so long is closed."""
    maximum_upload_size: int | None = None
    """U3, in bytes; None: no limit."""
    server_notification_type: Notification = Notification.NONE
    """U4."""
    server_notification_url: str = ""
    """U5: http only; may be relative to the directory that an upload goes to."""
    host_id: str = ""
    """U6."""
    host_id_fallback_timeout: int | None = DAY_S
    """U7, in seconds; None: never."""
    allow_overwrites: bool = False
    """U8."""
    cleanup_use_default: bool = True
    """U9."""
    cleanup_count: int = 12
    """U10."""
    cleanup_units: str = "hours"
    """U10."""
    number_of_sessions_limit: int = 50
    """U11: sessions of one user; cleanup deletes the newest ones above it."""
    session_limit_enable: bool = True
    """U12."""
    overlap: Overlap = Overlap.DEDUPE
    finalize: Finalize = Finalize.LAST_FRAGMENT
    notification_timeout: int = 300
    """U32, in seconds: how long the application may take, to each of its parts of the conversation."""
    maximum_reply_size: int = 2**30
    """In bytes: how long a reply by value may be."""

    @property
    def cleanup_interval_s(self) -> int:
        """How often what has expired is deleted: every 12 hours by default, or as often as sessions can expire."""
        if self.cleanup_use_default:
            return min(DEFAULT_CLEANUP_S, self.session_timeout)
        return self.cleanup_count * _UNIT_S[self.cleanup_units]

    @property
    def policy(self) -> Policy:
        """What the protocol's decisions need of it."""
        return Policy(
            is_enabled=self.upload_enabled,
            maximum_bytes=self.maximum_upload_size,
            has_application=self.server_notification_type is not Notification.NONE,
            may_overwrite=self.allow_overwrites,
            host_id=self.host_id,
            host_id_fallback_timeout_s=self.host_id_fallback_timeout if self.host_id else None,
            overlap=self.overlap,
            finalize=self.finalize,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadDirectory:
    """A directory that has a table of its own, or the root."""

    components: tuple[bytes, ...]
    """Its way from the root."""
    settings: UploadSettings

    @property
    def shown(self) -> str:
        """Its name in the settings."""
        return "/" + "/".join(name.decode("utf-8", "replace") for name in self.components)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where uploads go, and what holds there."""

    root: str
    working_directory: str
    """A full path."""
    maximum_open_sessions: int = 100_000
    """Of all users together; more are refused, since each costs memory and a place in the working directory."""
    directories: Mapping[tuple[bytes, ...], UploadDirectory] = field(default_factory=dict)
    """By their components; the root is always among them."""

    def find(self, components: tuple[bytes, ...]) -> UploadDirectory:
        """The upload directory that a path below the root belongs to."""
        for end in range(len(components), -1, -1):
            found = self.directories.get(components[:end])
            if found is not None:
                return found
        raise AssertionError("the root is an upload directory")


def parse_settings(document: Mapping[str, Any], *, source: str) -> Settings:
    """Check a parsed TOML document (its keys `root`, `working_directory`, `maximum_open_sessions`, `directory`).

    `source` names it in errors.  Raises SettingsError.
    """
    values = read_table(document, _TOP, source=source, table="")
    if "root" not in values:
        raise SettingsError(f'{source}: root is missing: say which directory is served, such as root = "/srv/bits"')
    values["directories"] = _inherit(_read_directories(values.pop("directory", {}), source), source)
    values.setdefault("working_directory", f"{values['root'].rstrip('/')}/{WORKING_DIRECTORY}")
    return Settings(**values)


def with_root_properties(document: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with properties set for the root: what the command line says wins over the file."""
    directories = document.get("directory", {})
    if not isinstance(directories, Mapping) or not isinstance(directories.get("/", {}), Mapping):
        # parse_settings says what is wrong.
        return dict(document)
    return {**document, "directory": {**directories, "/": {**directories.get("/", {}), **properties}}}


def _read_directories(named: Mapping[str, Any], source: str) -> dict[tuple[bytes, ...], dict[str, Any]]:
    tables: dict[tuple[bytes, ...], dict[str, Any]] = {}
    for name, content in named.items():
        table = f'directory."{name}"'
        try:
            components = _components(name)
        except UnfitPath as error:
            raise SettingsError(
                f'{source}: [{table}] names no directory below the root: {error}; write [directory."/reports"]'
            ) from None
        if components in tables:
            raise SettingsError(f"{source}: [{table}] is there twice, in different spellings")
        tables[components] = read_table(content, PROPERTIES, source=source, table=table)
    return tables


def _components(name: str) -> tuple[bytes, ...]:
    if not name.startswith("/"):
        raise UnfitPath("the name does not begin with a slash")
    inner = name.strip("/")
    return tuple(check_name(piece.encode()) for piece in inner.split("/")) if inner else ()


def _inherit(tables: Mapping[tuple[bytes, ...], Mapping[str, Any]], source: str) -> dict[Any, UploadDirectory]:
    made: dict[tuple[bytes, ...], UploadDirectory] = {}
    for components in sorted({(), *tables}, key=len):
        own = tables.get(components, {})
        above = next(
            (made[components[:end]].settings for end in range(len(components) - 1, -1, -1) if components[:end] in made),
            UploadSettings(),
        )
        directory = UploadDirectory(components=components, settings=replace(above, **{"upload_enabled": False, **own}))
        _check_together(directory, own, source)
        made[components] = directory
    return made


def _check_together(directory: UploadDirectory, own: Mapping[str, Any], source: str) -> None:
    """What single keys cannot tell."""
    settings = directory.settings
    table = f'[directory."{directory.shown}"]'
    if settings.server_notification_type is not Notification.NONE and not settings.server_notification_url:
        raise SettingsError(
            f"{source}: server_notification_url is missing in {table}: server_notification_type"
            f' "{settings.server_notification_type.value}" needs the address of the application'
        )
    if settings.cleanup_use_default and {"cleanup_count", "cleanup_units"} & own.keys():
        raise SettingsError(
            f"{source}: cleanup_count and cleanup_units in {table} would have no effect: set"
            " cleanup_use_default = false as well"
        )
    if not 1 <= settings.cleanup_count <= _MOST[settings.cleanup_units]:
        most = _MOST[settings.cleanup_units]
        raise SettingsError(
            f"{source}: cleanup_count in {table} must be a whole number from 1 to {most} of"
            f" {settings.cleanup_units}, not {settings.cleanup_count}"
        )


# --- keys --------------------------------------------------------------------------------------


def _size(value: Any) -> int | None:
    # IIS keeps it as a string, empty for none (U3).
    if isinstance(value, str) and value.isascii() and (value.isdigit() or not value):
        value = int(value[:20]) if value else None
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _SIZE_LIMIT:
        raise Unsuitable(f'a number of bytes up to {_SIZE_LIMIT}, or "" for no limit')
    return value


def _notification_url(value: Any) -> str:
    wanted = f"an address that begins with http:// (not https://), or a relative one, of {URL_LIMIT} characters at most"
    if not isinstance(value, str) or len(value) > URL_LIMIT or not value.isascii() or not value.isprintable():
        raise Unsuitable(wanted)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise Unsuitable(wanted) from None
    if (
        parts.scheme not in ("", "http")
        or (parts.scheme and not parts.hostname)
        or parts.username is not None
        or " " in value
        or parts.fragment
    ):
        raise Unsuitable(wanted)
    return value


def _host_id(value: Any) -> str:
    if not isinstance(value, str) or len(value) > HOST_ID_LIMIT:
        raise Unsuitable(f"a host name or address of {HOST_ID_LIMIT} characters at most, or empty")
    if value:
        try:
            parse_host_id(value)
        except BadAddress:
            raise Unsuitable("a host name or address without a port, or empty") from None
    return value


def _fallback_timeout(value: Any) -> int | None:
    if value == "never":
        return None
    if type(value) is not int or not 0 <= value < 2**32 - 1:
        raise Unsuitable('a number of seconds, or "never"')
    return value


def _tables(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unsuitable('tables such as [directory."/reports"]')
    return value


_NOTIFICATIONS: Final[Mapping[Any, Notification]] = {
    **{each.value: each for each in Notification},
    0: Notification.NONE,
    1: Notification.REFERENCE,
    2: Notification.VALUE,
}
_UNITS: Final[Mapping[Any, str]] = {
    "minutes": "minutes",
    "hours": "hours",
    "days": "days",
    0: "minutes",
    1: "hours",
    2: "days",
}

PROPERTIES: Final[Mapping[str, Check]] = {
    "upload_enabled": boolean,
    "session_timeout": whole(1),
    "maximum_upload_size": _size,
    "server_notification_type": one_of(_NOTIFICATIONS),
    "server_notification_url": _notification_url,
    "host_id": _host_id,
    "host_id_fallback_timeout": _fallback_timeout,
    "allow_overwrites": boolean,
    "cleanup_use_default": boolean,
    "cleanup_count": whole(1, 360),
    "cleanup_units": one_of(_UNITS),
    "number_of_sessions_limit": whole(1),
    "session_limit_enable": boolean,
    "overlap": one_of({each.value: each for each in Overlap}),
    "finalize": one_of({each.value: each for each in Finalize}),
    "notification_timeout": whole(1, 3_600),
    "maximum_reply_size": whole(0, _SIZE_LIMIT),
}
"""What can stand in a directory's table."""

_TOP: Final[Mapping[str, Check]] = {
    "root": full_path,
    "working_directory": full_path,
    "maximum_open_sessions": whole(1),
    "directory": _tables,
}

if PROPERTIES.keys() != {each.name for each in fields(UploadSettings)}:
    # A property without a check, or a check without a property, must not survive the first import.
    raise AssertionError("the properties and their checks differ")
