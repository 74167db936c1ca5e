"""The properties that `bits set` takes: how each is written, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from openbits.cli import securityflags
from openbits.cli.common import PRIORITIES
from openbits.cli.text import safe
from openbits.errors import BitsError

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def _text(value: str) -> str:
    return value


def _number(value: str) -> int:
    return int(value.replace("_", ""), 0)


def _octal(value: str) -> int:
    return int(value.removeprefix("0o"), 8)


def _switch(value: str) -> bool:
    lowered = value.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError
    return lowered in _TRUE


def _limit(value: str) -> int | None:
    return None if value.lower() == "none" else _number(value)


def _priority(value: str) -> str:
    if value.lower() not in PRIORITIES:
        raise ValueError
    return value.lower()


def _list(value: str) -> str | None:
    return None if value.lower() == "none" else value


def _headers(value: str) -> str:
    lines = [line for line in value.replace("\r\n", "\n").split("\n") if line]
    return "".join(f"{line}\r\n" for line in lines)


def _path(value: str) -> str | None:
    return None if value.lower() in ("", "none") else value


REPLY_FILE_NAME: Final = "reply_file_name"
"""Where an upload's reply goes: set like a property, by a call of its own (J33)."""

_PARSERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "name": (_text, "a text"),
    "description": (_text, "a text"),
    "priority": (_priority, "foreground, high, normal or low"),
    "minimum_retry_delay": (_number, "a number of seconds"),
    "no_progress_timeout": (_number, "a number of seconds"),
    "maximum_download_time": (_limit, "a number of seconds, or none"),
    "notify_flags": (_number, "a number (BITS's flags)"),
    "cost_flags": (_limit, "a number (BITS's flags), or none"),
    "notification_clsid": (_text, "a text"),
    "dynamic_content": (_switch, "true or false"),
    "high_performance": (_switch, "true or false"),
    "max_download_size": (_limit, "a number of bytes, or none"),
    "strict_http": (_switch, "true or false"),
    "file_concurrency": (_number, "a number of files"),
    "stall_timeout": (_number, "a number of seconds"),
    "umask": (_octal, "an octal number"),
    "custom_headers": (_headers, "header lines"),
    "proxy_usage": (_text, "preconfig, no_proxy, override or autodetect"),
    "proxy_list": (_list, "a list of proxies, or none"),
    "proxy_bypass_list": (_list, "a list of hosts, or none"),
    "upload_protocol": (_text, "auto, bits, tus, ietf or put"),
    "use_netrc": (_switch, "true or false"),
    "security_flags": (securityflags.parse, "a number (BITS's flags) or words such as ssl_enable_crl_check"),
    "http_method": (_text, "an HTTP method"),
    "use_stored_credentials": (_list, "proxy, or none"),
    "on_demand_mode": (_switch, "true or false"),
    "acl_flags": (_number, "a number (BITS's flags: 1 owner, 2 group, 4 access list, 8 attributes)"),
    "peer_caching_flags": (_number, "a number (BITS's flags)"),
    "minimum_notification_interval_ms": (_number, "a number of milliseconds"),
    "notify_url": (_list, "a URL, or none"),
    REPLY_FILE_NAME: (_path, "a path, or none"),
}
NAMES: Final = tuple(_PARSERS)


def meaning_of(key: str) -> str:
    """Return what a property takes, for people."""
    return _PARSERS[key][1]


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the properties that KEY=VALUE words set; raises UsageError, BG_E_UNKNOWN_PROPERTY_ID."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        key = key.strip().lower().replace("-", "_")
        if not equals:
            raise click.UsageError(f"{safe(assignment)!r} is not KEY=VALUE")
        if key not in _PARSERS:
            raise BitsError(
                "BG_E_UNKNOWN_PROPERTY_ID", f"there is no property {safe(key)!r}: there are {', '.join(NAMES)}"
            )
        if key in changes:
            raise click.UsageError(f"{key} is set twice")
        parser, meaning = _PARSERS[key]
        try:
            changes[key] = parser(value)
        except ValueError:
            raise click.UsageError(f"{key} takes {meaning}, not {safe(value)!r}") from None
    return changes


def show(key: str, value: Any) -> str:
    """Return a property's value as `bits set` would take it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if key == "security_flags":
        return securityflags.words_of(value)
    if key == "umask":
        return f"{value:03o}"
    if key == "custom_headers":
        return "; ".join(safe(line) for line in value.split("\r\n") if line)
    return safe(value)
