"""The configuration file: what is not understood is an error, never ignored.

A key that is misspelt, of a wrong type or out of range stops the start with a sentence that names
the file, the key and what is allowed; an administrator who sets a limit must not find out later
that there was none.  Every key has a default, so an empty file is a good one; `packaging/bitsd.toml`
lists them all.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from openbits.core.accounts import AccountRules, uid_min_of
from openbits.core.model import DAY_S
from openbits.core.quotas import Quotas

MIB: Final = 2**20
_LARGEST: Final = 2**31 - 1


class ConfigurationError(Exception):
    """The configuration cannot be used; the message says where and why, for the person who wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """[accounts]: who is who (architecture, section 4)."""

    administrators_group: str = "bits-admin"
    """Members may manage everyone's jobs; empty: only root."""
    network_service: tuple[str, ...] = ()
    """System accounts (names or uids) that speak for the machine."""
    local_service: tuple[str, ...] = ()
    """Further accounts (names or uids) that are anonymous to the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logon:
    """[logon]: how the service knows who is logged on (I2; architecture, section 4)."""

    provider: str = "auto"
    """`logind`, `utmp`, `always`, or `auto`: the first that works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """[credentials]: what accounts have for the network without giving it to a job (I10, I11)."""

    use_lm_compat: int = 2
    """When a challenge is answered with the account's own credentials: 0 always, 1 also always here (there is no
    LmCompatibilityLevel on Linux that could be too low), 2 only if the job allows it by SetCredentials."""
    machine_keytab: str = "/etc/krb5.keytab"
    """The computer's keytab, readable by root."""
    machine_principal: str = ""
    """The computer's principal; empty: the first host principal of the keytab."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """[timeouts], in seconds."""

    job_inactivity_s: int = 90 * DAY_S
    """A job without progress or change for so long is cancelled (P1, S9)."""
    max_download_time_s: int = 90 * DAY_S
    """How long a job may be active before it fails (P3); a job's own maximum_download_time has precedence."""
    connect_s: int = 30
    """How long a connection may take to be made."""
    break_patience_s: float = 30
    """How long a broken connection is taken up again, without progress, before the job waits for its retry delay."""
    disk_full_retry_s: int = 15
    """How often a job that found the disk full looks for room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """[scheduler]: which jobs run at once (Q1–Q4)."""

    time_slice_s: int = 60
    """After so long a background job makes room for the next one of its priority (Q4)."""
    max_foreground_jobs: int = 64
    """Foreground jobs that run at the same time (Q1)."""
    max_background_jobs: int = 1
    """Background jobs that run at the same time (Q1: one)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """[worker]: the processes that transfer."""

    checkpoint_bytes: int = 64 * MIB
    """A crash costs at most so many bytes of a file …"""
    checkpoint_s: float = 5
    """… or so many seconds of it, whichever is less (D15)."""
    idle_s: int = 30
    """A worker without work leaves after so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """[retention]: how long things are kept that are over."""

    final_jobs_s: int = DAY_S
    """A completed or cancelled job stays readable for so long."""
    events_s: int = 30 * DAY_S
    """An event is kept for so long …"""
    max_events: int = 100_000
    """… unless there are more than so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """[notifications]: how long may take what tells an owner of his jobs (section 4 of the inventory), in seconds."""

    callback_limit_s: int = 120
    """A program that listens and has not answered then counts as none, until it does."""
    command_limit_s: int = 900
    """A notification command line is ended then, with all that it has started."""
    url_limit_s: int = 60
    """A notify_url that has not answered then is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """[api]: what one client may cost."""

    max_body_bytes: int = 32 * MIB
    max_connections: int = 1024
    max_connections_per_account: int = 128
    read_timeout_s: int = 30
    """How long a request may take to arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that can be configured."""

    accounts: Accounts = field(default_factory=Accounts)
    logon: Logon = field(default_factory=Logon)
    credentials: Credentials = field(default_factory=Credentials)
    quotas: Quotas = field(default_factory=Quotas)
    timeouts: Timeouts = field(default_factory=Timeouts)
    scheduler: Scheduler = field(default_factory=Scheduler)
    worker: Worker = field(default_factory=Worker)
    retention: Retention = field(default_factory=Retention)
    notifications: Notifications = field(default_factory=Notifications)
    api: Api = field(default_factory=Api)

    def warnings(self) -> list[str]:
        """What is allowed and yet probably not meant, for the log (event 16397)."""
        found = []
        if self.quotas.max_jobs_per_user > self.quotas.max_jobs_per_machine:
            found.append(
                f"quotas.max_jobs_per_user ({self.quotas.max_jobs_per_user}) exceeds"
                f" quotas.max_jobs_per_machine ({self.quotas.max_jobs_per_machine}), which then is the limit"
            )
        if self.api.max_connections_per_account > self.api.max_connections:
            found.append("api.max_connections_per_account exceeds api.max_connections, which then is the limit")
        return found


def read_configuration(path: str) -> Configuration:
    """Read the file at `path`, which must exist. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error
    return parse_configuration(document, source=path)


def read_configuration_if_any(path: str) -> Configuration:
    """Read the file at `path`; without one, everything has its default. Raises ConfigurationError."""
    try:
        return read_configuration(path)
    except ConfigurationError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Configuration()
        raise


def parse_configuration(document: Mapping[str, Any], *, source: str) -> Configuration:
    """Check a parsed document; `source` names it in errors. Raises ConfigurationError."""
    sections: dict[str, Any] = {}
    for name, content in document.items():
        cls = _SECTIONS.get(name)
        if cls is None:
            raise ConfigurationError(f"{source}: there is no section [{name}]{_perhaps(name, _SECTIONS)}")
        if not isinstance(content, dict):
            raise ConfigurationError(f"{source}: {name} must be a section: write [{name}]")
        sections[name] = _parse_section(cls, name, content, source)
    configuration = Configuration(**sections)
    twice = set(configuration.accounts.network_service) & set(configuration.accounts.local_service)
    if twice:
        raise ConfigurationError(
            f"{source}: {', '.join(sorted(twice))}: an account can stand in accounts.network_service"
            " or in accounts.local_service, not in both"
        )
    return configuration


def account_rules(configuration: Configuration, login_defs_path: str = "/etc/login.defs") -> AccountRules:
    """How accounts are sorted on this machine, by the configuration and the system's UID_MIN."""
    try:
        with open(login_defs_path, encoding="utf-8", errors="replace") as file:
            login_defs = file.read()
    except OSError:
        login_defs = ""
    return AccountRules(
        uid_min=uid_min_of(login_defs),
        network_service=frozenset(configuration.accounts.network_service),
        local_service=frozenset(configuration.accounts.local_service),
    )


# --- sections and keys -----------------------------------------------------------------------

_SECTIONS: Final[dict[str, type]] = {
    "accounts": Accounts,
    "logon": Logon,
    "credentials": Credentials,
    "quotas": Quotas,
    "timeouts": Timeouts,
    "scheduler": Scheduler,
    "worker": Worker,
    "retention": Retention,
    "notifications": Notifications,
    "api": Api,
}

_Section = TypeVar("_Section")


def _parse_section(cls: type[_Section], section: str, content: Mapping[str, Any], source: str) -> _Section:
    checks = _KEYS[section]
    values = {}
    for key, value in content.items():
        check = checks.get(key)
        if check is None:
            raise ConfigurationError(f"{source}: there is no key {key} in [{section}]{_perhaps(key, checks)}")
        try:
            values[key] = check(value)
        except _Unsuitable as error:
            raise ConfigurationError(f"{source}: {section}.{key} must be {error}, not {value!r:.80}") from None
    return cls(**values)


def _perhaps(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


class _Unsuitable(Exception):
    """A value is not what its key allows; the text says what is."""


def _whole(low: int, high: int = _LARGEST) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _Unsuitable(f"a whole number from {low:,} to {high:,}".replace(",", "_"))
        return value

    return check


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        # The comparison also refuses nan, which TOML has.
        if type(value) not in (int, float) or not low <= value <= high:
            raise _Unsuitable(f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def _group(value: Any) -> str:
    if not isinstance(value, str) or any(char in value for char in ":, \t\n\0"):
        raise _Unsuitable("the name of a group, or empty")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            raise _Unsuitable("one of " + ", ".join(f'"{word}"' for word in words))
        return str(value)

    return check


def _full_path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise _Unsuitable("a full path")
    return value


def _principal(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 1024:
        raise _Unsuitable("a Kerberos principal, or empty")
    return value


def _accounts(value: Any) -> tuple[str, ...]:
    wanted = 'a list of account names or uids, such as ["_apt", 42]'
    if not isinstance(value, list):
        raise _Unsuitable(wanted)
    entries = []
    for entry in value:
        if type(entry) is int and 0 < entry < 2**32 - 1:
            entries.append(str(entry))
        elif isinstance(entry, str) and entry and not any(char in entry for char in ":, \t\n\0"):
            entries.append(entry)
        else:
            raise _Unsuitable(wanted)
    return tuple(entries)


_KEYS: Final[dict[str, dict[str, Callable[[Any], Any]]]] = {
    "accounts": {
        "administrators_group": _group,
        "network_service": _accounts,
        "local_service": _accounts,
    },
    "logon": {
        "provider": _one_of("auto", "logind", "utmp", "always"),
    },
    "credentials": {
        "use_lm_compat": _whole(0, 2),
        "machine_keytab": _full_path,
        "machine_principal": _principal,
    },
    "quotas": {
        "max_jobs_per_machine": _whole(1),
        "max_jobs_per_user": _whole(1),
        "max_files_per_job": _whole(1),
        "max_ranges_per_file": _whole(1),
    },
    "timeouts": {
        "job_inactivity_s": _whole(1),
        "max_download_time_s": _whole(1),
        "connect_s": _whole(1, 3600),
        "break_patience_s": _number(0, DAY_S),
        "disk_full_retry_s": _whole(1, DAY_S),
    },
    "scheduler": {
        "time_slice_s": _whole(1, DAY_S),
        "max_foreground_jobs": _whole(1, 10_000),
        "max_background_jobs": _whole(1, 10_000),
    },
    "worker": {
        "checkpoint_bytes": _whole(MIB, 2**40),
        "checkpoint_s": _number(0.1, 3600),
        "idle_s": _whole(0, DAY_S),
    },
    "retention": {
        "final_jobs_s": _whole(0),
        "events_s": _whole(0),
        "max_events": _whole(0, 100_000_000),
    },
    "notifications": {
        "callback_limit_s": _whole(1, DAY_S),
        "command_limit_s": _whole(1, DAY_S),
        "url_limit_s": _whole(1, 3600),
    },
    "api": {
        "max_body_bytes": _whole(64 * 1024, 2**30),
        "max_connections": _whole(1, 100_000),
        "max_connections_per_account": _whole(1, 100_000),
        "read_timeout_s": _whole(1, 3600),
    },
}

for _section, _cls in _SECTIONS.items():
    # A key without a check, or a check without a key, must not survive the first import.
    if _KEYS[_section].keys() != {each.name for each in dataclasses.fields(_cls)}:
        raise AssertionError(f"the keys of [{_section}] and their checks differ")
