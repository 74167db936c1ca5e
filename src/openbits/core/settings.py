"""What an owner may set on a job: one table, a row for each property, and nothing outside it.

A change is all or nothing: either every value is good and allowed now, or nothing is changed and
the error says which property it was (inventory J14–J20, J53, J60–J65, H5, H7, H10).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openbits.core.methods import consequences
from openbits.core.model import JobType, Priority, Settings
from openbits.core.names import (
    check_custom_headers,
    check_description,
    check_display_name,
    check_remote_name,
    split_userinfo,
)
from openbits.core.proxies import check_job_change, check_length
from openbits.core.uploads import PROTOCOLS
from openbits.errors import BitsError

RETRY_DELAY_FLOOR_S: Final = 5
LARGEST_DWORD: Final = 2**32 - 1
LARGEST_SIZE_BYTES: Final = 2**63 - 1
HEADERS: Final = "custom_headers"
OWNERS_ALONE: Final = frozenset({HEADERS, "use_netrc", "use_stored_credentials", "notify_url", "notification_clsid"})
"""What lets the owner's own secrets go out, or calls others in his name, he sets himself, whoever else may change the
job (A2)."""
STEERING: Final = frozenset({"proxy_usage", "proxy_list", "proxy_bypass_list", "security_flags"})
"""What says where a job goes, and whom it believes: see `core.access.may_steer`."""
NOTIFY_FLAGS: Final = 0x3F
ACL_FLAGS: Final = 0x0F
PEER_CACHING_FLAGS: Final = 0x07
CERTIFICATE_MASK: Final = 0x001F
REDIRECT_MASK: Final = 0x0F00
"""The two parts of security_flags (H7)."""
COST_STATES: Final = 0xC000_00FF
"""J69: eight states, RESERVED and OPTION_IGNORE_CONGESTION."""

CHECK_REVOCATION: Final = 0x0001
REDIRECT_POLICY: Final = 0x0700
REDIRECT_POLICIES: Final = (0x0000, 0x0100, 0x0200)
"""Follow silently, follow and report, do not follow."""
DISALLOW_REDIRECTS: Final = 0x0200
ALLOW_HTTPS_TO_HTTP: Final = 0x0800
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}")
_BUS_NAME: Final = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*(?:\.[A-Za-z_-][A-Za-z0-9_-]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsWindow:
    """Where the job stands: some properties can be set only before something has happened."""

    job_type: JobType = JobType.DOWNLOAD
    was_resumed: bool = False
    has_files: bool = False
    is_transferred: bool = False
    has_ranges: bool = False
    has_local_sources: bool = False
    """Whether any file is downloaded from this machine (`file://`)."""


_Check = Callable[[str, Any], Any]
_Gate = Callable[[str, SettingsWindow], None]

PROXY_USAGES: Final = ("preconfig", "no_proxy", "override", "autodetect")


def take_headers(changes: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the checked custom headers among changes (H5), None where there are none, and the other changes.

    They are set like a property, but kept apart, sealed. Raises E_INVALIDARG and BG_E_STRING_TOO_LONG.
    """
    others = dict(changes)
    if HEADERS not in others:
        return None, others
    return _custom_headers(HEADERS, others.pop(HEADERS)), others


def change_settings(settings: Settings, changes: Mapping[str, Any], *, window: SettingsWindow) -> Settings:
    """Return the settings with `changes`, keyed by property name, applied: all of them or none.

    Raises BG_E_UNKNOWN_PROPERTY_ID for a name that is no property, E_INVALIDARG for a value of a
    wrong type or outside its bounds, and what the property's own row says.
    """
    values: dict[str, Any] = {}
    for name, value in changes.items():
        row = _TABLE.get(name)
        if row is None:
            raise BitsError(
                "BG_E_UNKNOWN_PROPERTY_ID",
                f"there is no property {ascii(name)[:80]}; there are {', '.join(PROPERTY_NAMES)}",
            )
        values[name] = row.check(name, value)
        for gate in row.gates:
            gate(name, window)
    if values.get("on_demand_mode", settings.on_demand_mode):
        _check_on_demand(settings, values, window)
    if values.get("dynamic_content") and window.has_ranges:
        raise BitsError(
            "BG_E_UNSUPPORTED_JOB_CONFIGURATION", "dynamic_content is not possible for a job that fetches byte ranges"
        )
    if window.job_type is JobType.UPLOAD_REPLY and values.get("upload_protocol", "auto") not in ("auto", "bits"):
        raise BitsError(
            "BG_E_UNSUPPORTED_JOB_CONFIGURATION",
            "only servers of the bits protocol reply: leave upload_protocol at auto",
        )
    values |= consequences(settings, values, job_type=window.job_type, has_ranges=window.has_ranges)
    values |= check_job_change(settings, values)
    return dataclasses.replace(settings, **values)


def _check_on_demand(settings: Settings, values: Mapping[str, Any], window: SettingsWindow) -> None:
    """J67: pieces can be had with plain GET requests of files that stay as they are, and have a length."""
    reason = ""
    if values.get("dynamic_content", settings.dynamic_content):
        reason = "dynamic content has no pieces"
    elif values.get("high_performance", settings.high_performance):
        reason = "with high_performance it is not written down which pieces are there"
    elif values.get("http_method", settings.http_method) not in ("", "GET"):
        raise BitsError("BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD", "on_demand_mode asks for its pieces with GET")
    elif window.has_ranges:
        reason = "the job has files with ranges already, which are fetched whole"
    elif window.has_local_sources:
        reason = "the job has files of this machine, and only web servers give pieces"
    if reason:
        raise BitsError("BG_E_UNSUPPORTED_JOB_CONFIGURATION", f"on_demand_mode is not possible: {reason}")


# --- values ----------------------------------------------------------------------------------


def _wrong(name: str, wanted: str) -> BitsError:
    return BitsError("E_INVALIDARG", f"{name} must be {wanted}")


def _whole_number(low: int, high: int) -> _Check:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(name, f"a whole number from {low} to {high}")
        return value

    return check


def _optional(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _yes_or_no(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong(name, "true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text")
    return value


def _display_name(name: str, value: Any) -> str:
    text = _text(name, value)
    check_display_name(text)
    return text


def _description(name: str, value: Any) -> str:
    text = _text(name, value)
    check_description(text)
    return text


def _priority(name: str, value: Any) -> Priority:
    """J16: by its BITS name, in any case, or its number; one that does not exist is E_NOTIMPL."""
    if isinstance(value, str):
        found = Priority.__members__.get(value.upper())
    elif isinstance(value, int) and not isinstance(value, bool):
        found = next((priority for priority in Priority if priority == value), None)
    else:
        raise _wrong(name, "foreground, high, normal or low")
    if found is None:
        raise BitsError("E_NOTIMPL", "there is no such priority: use foreground, high, normal or low")
    return found


def _notify_flags(name: str, value: Any) -> int:
    if type(value) is not int:
        raise _wrong(name, "a whole number")
    if value & ~NOTIFY_FLAGS or value < 0:
        raise BitsError("E_NOTIMPL", f"notify_flags has bits that do not exist; all there are is {NOTIFY_FLAGS:#04x}")
    return value


def _retry_delay(name: str, value: Any) -> int:
    """J19: what is below the floor is raised to it."""
    return max(RETRY_DELAY_FLOOR_S, int(_whole_number(0, LARGEST_DWORD)(name, value)))


def _acl_flags(name: str, value: Any) -> int:
    """J42."""
    if type(value) is not int or value < 0 or value & ~ACL_FLAGS:
        raise _wrong(name, "made of 1 (owner), 2 (group), 4 (access control list) and 8 (extended attributes)")
    return value


def _peer_caching_flags(name: str, value: Any) -> int:
    """J50."""
    if type(value) is not int:
        raise _wrong(name, "a whole number")
    if value < 0 or value & ~PEER_CACHING_FLAGS:
        raise BitsError("E_NOTIMPL", f"{name} has bits that do not exist; all there are is {PEER_CACHING_FLAGS:#04x}")
    return value


def _notify_url(name: str, value: Any) -> str:
    """Ours: where the end of the job is announced; shown to others, so that it holds no password."""
    text = "" if value is None else _text(name, value)
    if not text:
        return ""
    check_remote_name(text)
    if not text.lower().startswith(("http://", "https://")):
        raise _wrong(name, "a URL that begins with http:// or https://")
    if split_userinfo(text)[1]:
        raise _wrong(name, "a URL without user name and password: others may see it")
    return text


def _cost_flags(name: str, value: Any) -> int:
    flags = int(_whole_number(0, LARGEST_DWORD)(name, value))
    if flags & ~COST_STATES:
        raise _wrong(name, f"made of the cost states {COST_STATES:#010x}")
    return flags


def _bus_name(name: str, value: Any) -> str:
    """J61: a well-known D-Bus name takes the place of a class identifier."""
    if not isinstance(value, str) or len(value) > 255 or (value and not _BUS_NAME.fullmatch(value)):
        raise _wrong(name, "a D-Bus name such as org.example.App, or empty")
    return value


def _max_download_size(name: str, value: Any) -> int:
    if type(value) is not int:
        raise _wrong(name, "a whole number")
    if not 1 <= value <= LARGEST_SIZE_BYTES:
        raise BitsError("BG_E_MAX_DOWNLOAD_SIZE_INVALID_VALUE", "max_download_size must be at least one byte")
    return value


def _custom_headers(name: str, value: Any) -> str:
    """H5: null clears them."""
    return "" if value is None else check_custom_headers(_text(name, value))


def _proxy_usage(name: str, value: Any) -> str:
    """J22."""
    if not isinstance(value, str) or value.lower() not in PROXY_USAGES:
        raise BitsError("E_NOTIMPL", f"{name} must be one of {', '.join(PROXY_USAGES)}")
    return value.lower()


def _upload_protocol(name: str, value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in PROTOCOLS:
        raise _wrong(name, f"one of {', '.join(PROTOCOLS)}")
    return value.lower()


def _security_flags(name: str, value: Any) -> int:
    """H7."""
    if type(value) is not int:
        raise _wrong(name, "a whole number")
    if value & ~(CERTIFICATE_MASK | REDIRECT_MASK) or value & REDIRECT_POLICY not in REDIRECT_POLICIES or value < 0:
        raise BitsError(
            "E_NOTIMPL", f"{name} has bits that do not exist; there are 0x001f, 0x0100 or 0x0200, and 0x0800"
        )
    if value & DISALLOW_REDIRECTS and value & ALLOW_HTTPS_TO_HTTP:
        raise BitsError("E_NOTIMPL", f"{name}: 0x0800 says how redirects are followed, and 0x0200 that none is")
    return value


def _http_method(name: str, value: Any) -> str:
    """H10: a token of HTTP, which is case-sensitive."""
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise _wrong(name, "an HTTP method such as POST, or empty")
    return value


def _stored_credentials(name: str, value: Any) -> str:
    """J65: for proxies only."""
    if value in (None, ""):
        return ""
    if value != "proxy":
        raise BitsError("BG_E_USE_STORED_CREDENTIALS_NOT_SUPPORTED", f"{name} must be proxy, or empty")
    return "proxy"


def _proxy_text(name: str, value: Any) -> str:
    """J22: null is empty. What the list means is judged when the job runs."""
    text = "" if value is None else _text(name, value)
    check_length(name, text)
    if "@" in text:
        # Everything else is judged when the job runs; but this is shown to others, and must not even be written down.
        raise BitsError(
            "E_INVALIDARG",
            f"{name} has a user name or a password in it, and others may see the list: give them by SetCredentials, "
            "for the target proxy",
        )
    if not text.isascii() or not text.isprintable():
        raise _wrong(name, "a list of ASCII names without line breaks")
    return text.strip()


# --- moments ---------------------------------------------------------------------------------


def _for_downloads(name: str, window: SettingsWindow) -> None:
    if window.job_type is not JobType.DOWNLOAD:
        raise BitsError("BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY", f"{name} exists for download jobs only")


def _for_uploads(name: str, window: SettingsWindow) -> None:
    if window.job_type is JobType.DOWNLOAD:
        raise BitsError("E_NOTIMPL", f"{name} exists for upload jobs only")


def _before_resume(name: str, window: SettingsWindow) -> None:
    if window.was_resumed:
        raise BitsError(
            "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME", f"{name} must be set before the job is resumed for the first time"
        )


def _before_files(name: str, window: SettingsWindow) -> None:
    if window.has_files:
        raise BitsError("BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE", f"{name} must be set before files are added")


def _before_transferred(name: str, window: SettingsWindow) -> None:
    if window.is_transferred:
        raise BitsError("BG_E_INVALID_STATE", f"{name} must be set before the job is TRANSFERRED")


@dataclass(frozen=True, slots=True)
class _Row:
    check: _Check
    gates: tuple[_Gate, ...] = ()


_TABLE: Final[dict[str, _Row]] = {
    "name": _Row(_display_name),
    "description": _Row(_description),
    "priority": _Row(_priority),
    "minimum_retry_delay": _Row(_retry_delay),
    "no_progress_timeout": _Row(_whole_number(0, LARGEST_DWORD)),
    "maximum_download_time": _Row(_optional(_whole_number(0, LARGEST_DWORD))),
    "notify_flags": _Row(_notify_flags),
    "cost_flags": _Row(_optional(_cost_flags)),
    "notification_clsid": _Row(_bus_name),
    "dynamic_content": _Row(_yes_or_no, (_for_downloads, _before_resume)),
    "high_performance": _Row(_yes_or_no, (_for_downloads, _before_files)),
    "max_download_size": _Row(_optional(_max_download_size), (_for_downloads, _before_resume)),
    "strict_http": _Row(_yes_or_no),
    "file_concurrency": _Row(_whole_number(1, 64)),
    "stall_timeout": _Row(_whole_number(1, 86_400)),
    "umask": _Row(_whole_number(0, 0o777)),
    "proxy_usage": _Row(_proxy_usage),
    "proxy_list": _Row(_proxy_text),
    "proxy_bypass_list": _Row(_proxy_text),
    "upload_protocol": _Row(_upload_protocol, (_for_uploads, _before_resume)),
    "security_flags": _Row(_security_flags),
    "http_method": _Row(_http_method, (_before_resume,)),
    "use_netrc": _Row(_yes_or_no),
    "use_stored_credentials": _Row(_stored_credentials),
    "acl_flags": _Row(_acl_flags, (_for_downloads, _before_transferred)),
    "peer_caching_flags": _Row(_peer_caching_flags),
    "minimum_notification_interval_ms": _Row(_whole_number(0, LARGEST_DWORD)),
    "on_demand_mode": _Row(_yes_or_no, (_for_downloads, _before_resume)),
    "notify_url": _Row(_notify_url),
}

TERMS: Final = frozenset(
    {
        "proxy_usage",
        "proxy_list",
        "proxy_bypass_list",
        "security_flags",
        "http_method",
        "use_netrc",
        "use_stored_credentials",
    }
)
"""On what terms a run uses the network: one that is under way must not go on with others than the owner's."""

PROPERTY_NAMES: Final = (*_TABLE, HEADERS)
"""Every property that can be set, in the order in which they are shown."""

_MOMENTS: Final[dict[_Gate, str]] = {
    _for_downloads: "downloads only (BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY)",
    _for_uploads: "uploads only (E_NOTIMPL)",
    _before_resume: "before the first Resume (BG_E_READ_ONLY_PROPERTY_AFTER_RESUME)",
    _before_files: "before files are added (BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE)",
    _before_transferred: "until the job is TRANSFERRED (BG_E_INVALID_STATE)",
}


def moments_of(name: str) -> tuple[str, ...]:
    """Return when, and on which jobs, a property can be set, with the error otherwise; empty: always."""
    row = _TABLE.get(name)
    return () if row is None else tuple(_MOMENTS[gate] for gate in row.gates)
