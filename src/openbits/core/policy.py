"""What an administrator has decided for the machine (inventory section 8): the keys, what each may be, what it means.

The rule: a key that is not there decides nothing.  What is there has precedence over the configuration, and a job's
own setting over both where the inventory says so (J53, J60).  Keys that have no effect yet are checked all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from openbits.core.model import Priority
from openbits.core.schedules import Hours, HoursError, parse_hours

UNLIMITED: Final = "unlimited"
LEAST_KBPS: Final = 2
"""Less, and more than nothing, is taken for this (P2)."""
MOST_KBPS: Final = 4_294_967_200
BITS_PER_KILOBIT: Final = 1000
BACKGROUND: Final = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
COSTS: Final = (0x8000_00FF, 0x8000_007F, 0x8000_006F, 0x8000_0067, 0x8000_0021)
"""The cost flags of the choices 1 to 5 (P11, J70)."""
_MOST: Final = 2**31 - 1


class Unsuitable(Exception):
    """A value is not what its key allows; the text says what is."""


class PolicyError(Exception):
    """Values cannot be a policy; `key` says which is to blame."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a policy file."""

    inventory: str
    unit: str
    text: str
    check: Callable[[Any], Any]
    default: str = "not set"
    """What holds without it, for people."""
    configured_by: str = ""
    """The key of the configuration that decides without it."""
    lacks_effect: str = ""
    """Why it changes nothing yet."""


# --- what values may be ---------------------------------------------------------------------------


def _whole(low: int, high: int = _MOST) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unsuitable(f"a whole number from {low:,} to {high:,}".replace(",", "_"))
        return value

    return check


def _yes_or_no(value: Any) -> bool:
    if type(value) is not bool:
        raise Unsuitable("true or false")
    return value


def _rate(value: Any) -> int | None:
    """Kilobits per second; None: as much as there is."""
    if value == UNLIMITED:
        return None
    if type(value) is not int or not 0 <= value <= MOST_KBPS:
        raise Unsuitable(f'kilobits per second from 0 to {MOST_KBPS:_}, or "{UNLIMITED}"')
    return 0 if value == 0 else max(LEAST_KBPS, value)


def _hours(value: Any) -> tuple[Hours, ...]:
    wanted = 'a list of days and times such as ["mon-fri 08:00-17:00", "sat 22:00-06:00"]'
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Unsuitable(wanted)
    try:
        return tuple(parse_hours(entry) for entry in value)
    except HoursError as error:
        raise Unsuitable(f"{wanted}: {error}") from None


def _cost(value: Any) -> int:
    if type(value) is int and 1 <= value <= len(COSTS):
        return COSTS[value - 1]
    if type(value) is int and 5 < value < 2**32:
        return value
    raise Unsuitable("1 (always) to 5 (only unrestricted networks), or a mask of cost states such as 0x8000006F")


def _zone(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 100 or not value.isprintable():
        raise Unsuitable('the name of a time zone such as "Europe/Berlin"')
    return value


_NO_COSTS: Final = "what a network costs is not found out yet"
_NO_PEERS: Final = "there is no peer caching yet"
_RATE: Final = "kbit/s"


def _limit(inventory: str, text: str) -> Key:
    return Key(inventory=inventory, unit=_RATE, text=text, check=_rate, default=UNLIMITED)


def _cost_key(text: str) -> Key:
    return Key(inventory="P11", unit="", text=text, check=_cost, default="1", lacks_effect=_NO_COSTS)


def _quota(inventory: str, name: str, text: str) -> Key:
    return Key(inventory=inventory, unit="", text=text, check=_whole(1), configured_by=f"quotas.{name}")


def _peer(inventory: str, unit: str, text: str, check: Callable[[Any], Any], default: str) -> Key:
    return Key(inventory=inventory, unit=unit, text=text, check=check, default=default, lacks_effect=_NO_PEERS)


KEYS: Final[Mapping[str, Key]] = MappingProxyType(
    {
        "timezone": Key(
            inventory="P2, P9, P10",
            unit="",
            text="by whose clocks hours are meant",
            check=_zone,
            default="the machine's",
        ),
        "allow_notification_commands": Key(
            inventory="J30",
            unit="",
            text="whether jobs may run a program when they are done",
            check=_yes_or_no,
            default="true",
        ),
        "jobs.inactivity_timeout_days": Key(
            inventory="P1",
            unit="days",
            text="a job without progress or change for so long is cancelled",
            check=_whole(1, 999),
            configured_by="timeouts.job_inactivity_s",
        ),
        "jobs.max_download_time_s": Key(
            inventory="P3",
            unit="seconds",
            text="how long a job may be active, unless it has a time of its own",
            check=_whole(1),
            configured_by="timeouts.max_download_time_s",
        ),
        "quotas.max_jobs_per_machine": _quota("P4", "max_jobs_per_machine", "jobs of all people together"),
        "quotas.max_jobs_per_user": _quota("P5", "max_jobs_per_user", "jobs of one person"),
        "quotas.max_files_per_job": _quota("P6", "max_files_per_job", "files of one job"),
        "quotas.max_ranges_per_file": _quota("P7", "max_ranges_per_file", "ranges of one file"),
        "max_internet_bandwidth.from_hour": Key(
            inventory="P2", unit="h", text="when limit_kbps begins to hold", check=_whole(0, 23), default="8"
        ),
        "max_internet_bandwidth.to_hour": Key(
            inventory="P2", unit="h", text="when it ends", check=_whole(0, 23), default="17"
        ),
        "max_internet_bandwidth.limit_kbps": _limit("P2", "for all background jobs together, between the two"),
        "max_internet_bandwidth.limit_outside_kbps": _limit("P2", "for all background jobs together, otherwise"),
        "work_schedule.hours": Key(
            inventory="P10", unit="", text="the hours of work; all others are not", check=_hours
        ),
        "work_schedule.work_high_kbps": _limit("P10", "for HIGH jobs, in the hours of work"),
        "work_schedule.work_normal_kbps": _limit("P10", "for NORMAL jobs, in the hours of work"),
        "work_schedule.work_low_kbps": _limit("P10", "for LOW jobs, in the hours of work"),
        "work_schedule.nonwork_high_kbps": _limit("P10", "for HIGH jobs, in all other hours"),
        "work_schedule.nonwork_normal_kbps": _limit("P10", "for NORMAL jobs, in all other hours"),
        "work_schedule.nonwork_low_kbps": _limit("P10", "for LOW jobs, in all other hours"),
        "work_schedule.ignore_limits_on_lan": Key(
            inventory="P10",
            unit="",
            text="no limits where a server stands in the machine's own network",
            check=_yes_or_no,
            default="false",
            lacks_effect="limits hold for every server",
        ),
        "maintenance.hours": Key(
            inventory="P9",
            unit="",
            text="the hours in which these limits hold, and no others",
            check=_hours,
        ),
        "maintenance.high_kbps": _limit("P9", "for HIGH jobs"),
        "maintenance.normal_kbps": _limit("P9", "for NORMAL jobs"),
        "maintenance.low_kbps": _limit("P9", "for LOW jobs"),
        "costed_networks.foreground": _cost_key("on which networks FOREGROUND jobs run"),
        "costed_networks.high": _cost_key("on which networks HIGH jobs run"),
        "costed_networks.normal": _cost_key("on which networks NORMAL jobs run"),
        "costed_networks.low": _cost_key("on which networks LOW jobs run"),
        "peer_caching.disable_branch_cache": _peer("P8", "", "no BranchCache for HTTP", _yes_or_no, "false"),
        "peer_caching.enable": _peer("P12", "", "whether files are shared with the neighbours", _yes_or_no, "false"),
        "peer_caching.disable_client": _peer("P13", "", "fetch nothing from neighbours", _yes_or_no, "false"),
        "peer_caching.disable_server": _peer("P13", "", "give nothing to neighbours", _yes_or_no, "false"),
        "peer_caching.max_bandwidth_served_bps": _peer(
            "P14", "bits per second", "to all neighbours together", _whole(1_048_576, 4_294_967_200), "not set"
        ),
        "peer_caching.max_cache_size_percent": _peer(
            "P15", "percent", "of the disk, for the cache", _whole(1, 80), "1"
        ),
        "peer_caching.max_content_age_days": _peer(
            "P16", "days", "since a file in the cache was last used", _whole(1, 120), "90"
        ),
    }
)
"""Every key, by `section.key` or, at the top of the file, `key`."""
SECTIONS: Final = tuple(dict.fromkeys(name.partition(".")[0] for name in KEYS if "." in name))


# --- the values -----------------------------------------------------------------------------------

Rate = int | None
"""Kilobits per second; None: as much as there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyLimit:
    """MaxInternetBandwidth: one limit for all background jobs together (P2)."""

    hours: Hours
    inside: Rate
    outside: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityLimits:
    """A limit for each background priority (P9, P10)."""

    high: Rate = None
    normal: Rate = None
    low: Rate = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSchedule:
    """EnableBandwidthLimits (P10)."""

    hours: tuple[Hours, ...]
    work: PriorityLimits
    nonwork: PriorityLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """EnableMaintenanceLimits (P9)."""

    hours: tuple[Hours, ...]
    limits: PriorityLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCaching:
    """P8, P12-P16; None: no policy decides it."""

    enable: bool | None = None
    disable_client: bool | None = None
    disable_server: bool | None = None
    disable_branch_cache: bool | None = None
    max_bandwidth_served_bps: int | None = None
    max_cache_size_percent: int | None = None
    max_content_age_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What has been decided; None, or nothing: no policy decides it."""

    timezone: str | None = None
    allow_notification_commands: bool = True
    inactivity_timeout_days: int | None = None
    max_download_time_s: int | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    """By the names of `core.quotas.Quotas` (P4-P7)."""
    internet: DailyLimit | None = None
    work: WorkSchedule | None = None
    maintenance: Maintenance | None = None
    costed_networks: Mapping[Priority, int] = field(default_factory=dict)
    """Cost flags of jobs that have none of their own, by priority (P11)."""
    peer_caching: PeerCaching = field(default_factory=PeerCaching)


def checked(key: str, value: Any) -> Any:
    """Return a value as the policy has it. Raises PolicyError."""
    try:
        return KEYS[key].check(value)
    except Unsuitable as error:
        raise PolicyError(key, f"{key} must be {error}, not {value!r:.80}") from None


def policy_of(values: Mapping[str, Any]) -> Policy:
    """Put checked values together, by the names of `KEYS`. Raises PolicyError for what does not go together."""
    work = _section(values, "work_schedule")
    maintenance = _section(values, "maintenance")
    costs = _section(values, "costed_networks")
    return Policy(
        timezone=values.get("timezone"),
        allow_notification_commands=values.get("allow_notification_commands", True),
        inactivity_timeout_days=values.get("jobs.inactivity_timeout_days"),
        max_download_time_s=values.get("jobs.max_download_time_s"),
        quotas=MappingProxyType(_section(values, "quotas")),
        internet=_daily(_section(values, "max_internet_bandwidth")),
        work=None
        if "hours" not in _needing_hours("work_schedule", work)
        else WorkSchedule(hours=work["hours"], work=_limits(work, "work_"), nonwork=_limits(work, "nonwork_")),
        maintenance=None
        if "hours" not in _needing_hours("maintenance", maintenance)
        else Maintenance(hours=maintenance["hours"], limits=_limits(maintenance, "")),
        costed_networks=MappingProxyType({Priority[name.upper()]: mask for name, mask in costs.items()}),
        peer_caching=PeerCaching(**_section(values, "peer_caching")),
    )


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = f"{section}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _needing_hours(section: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    if values and "hours" not in values:
        raise PolicyError(f"{section}.{next(iter(values))}", f"[{section}] has limits and no hours: add hours")
    return values


def _daily(values: Mapping[str, Any]) -> DailyLimit | None:
    if not values:
        return None
    if "limit_kbps" not in values and "limit_outside_kbps" not in values:
        key = f"max_internet_bandwidth.{next(iter(values))}"
        raise PolicyError(key, "[max_internet_bandwidth] has hours and no limit: add limit_kbps")
    start, end = values.get("from_hour", 8) * 60, values.get("to_hour", 17) * 60
    # What begins when it ends lasts all day.
    hours = Hours(days=frozenset(range(7)), start_minute=start, end_minute=end)
    return DailyLimit(hours=hours, inside=values.get("limit_kbps"), outside=values.get("limit_outside_kbps"))


def _limits(values: Mapping[str, Any], prefix: str) -> PriorityLimits:
    high, normal, low = (values.get(f"{prefix}{name}_kbps") for name in ("high", "normal", "low"))
    return PriorityLimits(high=high, normal=normal, low=low)
