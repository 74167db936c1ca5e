"""Whose proxy settings a job obeys, and what an account's own settings are (inventory I15, I17, I20, J22).

    job:  NO_PROXY, OVERRIDE, AUTODETECT   the job says all
          PRECONFIG                        the account's own settings ▸ those of its kind ▸ a person's desktop ▸ none

The account is the one that speaks to the network: the owner, or the helper of a NETWORK token.  The rule: settings
come from the job, from the store or from the account's desktop, and never from the environment of any process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from openbits.core.model import AccountKind, Caller, Owner, Settings
from openbits.core.names import check_remote_name, split_userinfo
from openbits.core.proxylist import InvalidProxyInfo, parse_table
from openbits.errors import BitsError

PROXY_TEXT_LIMIT: Final = 4_000
"""Characters of a proxy list, and of a bypass list (J22)."""

BUILT_IN: Final = {
    "LOCALSYSTEM": AccountKind.LOCAL_SYSTEM,
    "NETWORKSERVICE": AccountKind.NETWORK_SERVICE,
    "LOCALSERVICE": AccountKind.LOCAL_SERVICE,
}
"""The names that setieproxy knows (B42), and the kind of account that each stands for."""
_KEYS: Final = {kind: name for name, kind in BUILT_IN.items()}


# --- what an account has stored ----------------------------------------------------------------


class AccountUsage(enum.Enum):
    """The usages of setieproxy (I20); RESET is no usage but forgets."""

    NO_PROXY = "no_proxy"
    AUTODETECT = "autodetect"
    MANUAL_PROXY = "manual_proxy"
    AUTOSCRIPT = "autoscript"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProxy:
    """The settings of an account: the active usage, and the parameters of all usages that were ever set."""

    usage: AccountUsage = AccountUsage.NO_PROXY
    proxy_list: str = ""
    bypass_list: str = ""
    script_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProxyChange:
    """What a call wants to set; None leaves a parameter as an earlier call has set it."""

    usage: str
    proxy_list: str | None = None
    bypass_list: str | None = None
    script_url: str | None = None


def change_account(stored: AccountProxy | None, change: AccountProxyChange) -> AccountProxy:
    """Return the settings after a call (I20): the usage is switched, parameters of other usages stay.

    Raises E_INVALIDARG for an unknown usage, a parameter of another usage or one that is missing, and
    BG_E_PROXY_LIST_TOO_LARGE, BG_E_PROXY_BYPASS_LIST_TOO_LARGE and BG_E_INVALID_PROXY_INFO for lists that cannot be.
    """
    try:
        usage = AccountUsage(change.usage.lower())
    except ValueError:
        usages = ", ".join(one.value for one in AccountUsage)
        raise BitsError("E_INVALIDARG", f"{ascii(change.usage)[:60]} is no usage: there are {usages}") from None
    before = stored or AccountProxy()
    match usage:
        case AccountUsage.NO_PROXY | AccountUsage.AUTODETECT:
            _refuse(usage, proxy_list=change.proxy_list, bypass_list=change.bypass_list, script_url=change.script_url)
            return replace(before, usage=usage)
        case AccountUsage.MANUAL_PROXY:
            _refuse(usage, script_url=change.script_url)
            # Divided by one space each, whatever white space they came with: they are shown to people.
            proxies = before.proxy_list if change.proxy_list is None else " ".join(change.proxy_list.split())
            bypass = before.bypass_list if change.bypass_list is None else " ".join(change.bypass_list.split())
            _check_lists(proxies, bypass)
            return replace(before, usage=usage, proxy_list=proxies, bypass_list=bypass)
        case AccountUsage.AUTOSCRIPT:
            _refuse(usage, proxy_list=change.proxy_list, bypass_list=change.bypass_list)
            url = before.script_url if change.script_url is None else change.script_url.strip()
            if not url:
                raise BitsError("E_INVALIDARG", "autoscript needs the URL of a script, and none was ever set")
            check_remote_name(url)
            if split_userinfo(url)[0] != url:
                raise BitsError(
                    "E_INVALIDARG", "a script's URL is shown to others: leave user name and password out of it"
                )
            return replace(before, usage=usage, script_url=url)


def _refuse(usage: AccountUsage, **parameters: str | None) -> None:
    for name, value in parameters.items():
        if value:
            raise BitsError("E_INVALIDARG", f"{name} does not belong to {usage.value}")


def _check_lists(proxies: str, bypass: str) -> None:
    if not proxies:
        raise BitsError("E_INVALIDARG", "manual_proxy needs a list of proxies, and none was ever set")
    check_length("proxy_list", proxies)
    check_length("bypass_list", bypass)
    try:
        # A job's list is judged at run time, as BITS does; here a person waits who can correct it.
        parse_table(proxies, bypass)
    except InvalidProxyInfo as error:
        raise BitsError("BG_E_INVALID_PROXY_INFO", f"{error}: write [protocol=][protocol://]server[:port] …") from None


def check_length(name: str, text: str) -> None:
    """Check the length of a proxy or bypass list. Raises BG_E_PROXY_LIST_TOO_LARGE and its sister."""
    if len(text) > PROXY_TEXT_LIMIT:
        error = "BG_E_PROXY_BYPASS_LIST_TOO_LARGE" if "bypass" in name else "BG_E_PROXY_LIST_TOO_LARGE"
        raise BitsError(error, f"{name} may have {PROXY_TEXT_LIMIT} characters, not {len(text)}")


# --- whose settings a call is about --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The account that a call is about; `uid` is None for a built-in one."""

    name: str
    kind: AccountKind
    uid: int | None = None

    @property
    def key(self) -> str:
        """Under which the settings are stored. The account of the system itself has one set only."""
        if self.uid is None or self.kind is AccountKind.LOCAL_SYSTEM:
            return _KEYS[self.kind]
        return str(self.uid)

    @property
    def is_built_in(self) -> bool:
        """Whether the settings are those of a whole kind of accounts."""
        return self.key in BUILT_IN


def built_in(name: str) -> Subject | None:
    """Return the built-in account of this name, in any case; None for any other name."""
    key = name.upper().replace("_", "")
    return Subject(name=key, kind=BUILT_IN[key]) if key in BUILT_IN else None


def subject_of(account: Caller | Owner) -> Subject:
    """Return an account as the subject of a call about its own settings."""
    return Subject(name=account.name, kind=account.kind, uid=account.identity.uid)


def may_read(caller: Caller, subject: Subject) -> None:
    """One's own settings, and for administrators everyone's. Raises E_ACCESSDENIED."""
    if subject.key != subject_of(caller).key and not caller.is_administrator:
        raise BitsError(
            "E_ACCESSDENIED", "only administrators may see or set the proxy settings of an account that is not theirs"
        )


def may_change(caller: Caller, subject: Subject) -> None:
    """The same, but the system's own settings are closed to all but root: they lead root's jobs (A4, B42)."""
    may_read(caller, subject)
    if subject.key == "LOCALSYSTEM" and caller.identity.uid != 0:
        raise BitsError("E_ACCESSDENIED", "the proxy settings of LOCALSYSTEM are the system's: only root may set them")


# --- which settings apply --------------------------------------------------------------------------


class Route(enum.Enum):
    """How the proxies of a run are found; the values are those of ProxySpec."""

    DIRECT = "direct"
    MANUAL = "manual"
    DESKTOP = "desktop"
    SCRIPT = "script"
    DETECT = "detect"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyDecision:
    """The settings that a run obeys; `source` says whose they are."""

    route: Route
    source: str
    proxies: str = ""
    bypass: str = ""
    script_url: str = ""


def decide(settings: Settings, account: Owner, stored: Mapping[str, AccountProxy]) -> ProxyDecision:
    """Return which settings a run of a job obeys whose network side is `account` (I15, I16, I17, J22)."""
    match settings.proxy_usage:
        case "no_proxy":
            return ProxyDecision(route=Route.DIRECT, source="the job's own setting no_proxy")
        case "override":
            return ProxyDecision(
                route=Route.MANUAL,
                source="the job's own proxy list",
                proxies=settings.proxy_list,
                bypass=settings.proxy_bypass_list,
            )
        case "autodetect":
            return ProxyDecision(route=Route.DETECT, source="the job's own setting autodetect")
        case _:
            return _preconfigured(account, stored)


def _preconfigured(account: Owner, stored: Mapping[str, AccountProxy]) -> ProxyDecision:
    own = subject_of(account)
    settings = stored.get(own.key)
    if settings is not None:
        source = f"the proxy settings of {own.key}" if own.is_built_in else f"{account.name}'s own proxy settings"
        return _as_stored(settings, source)
    if account.kind is AccountKind.USER:
        return ProxyDecision(route=Route.DESKTOP, source=f"the desktop settings of {account.name}")
    key = _KEYS[account.kind]
    settings = stored.get(key)
    if settings is not None:
        return _as_stored(settings, f"the proxy settings of {key}")
    return ProxyDecision(route=Route.DIRECT, source=f"{account.name} has no proxy settings")


def _as_stored(settings: AccountProxy, source: str) -> ProxyDecision:
    match settings.usage:
        case AccountUsage.NO_PROXY:
            return ProxyDecision(route=Route.DIRECT, source=source)
        case AccountUsage.AUTODETECT:
            return ProxyDecision(route=Route.DETECT, source=source)
        case AccountUsage.MANUAL_PROXY:
            return ProxyDecision(
                route=Route.MANUAL, source=source, proxies=settings.proxy_list, bypass=settings.bypass_list
            )
        case AccountUsage.AUTOSCRIPT:
            return ProxyDecision(route=Route.SCRIPT, source=source, script_url=settings.script_url)


def applies_to(subject: Subject, stored: Mapping[str, AccountProxy]) -> str:
    """Say for whose jobs the settings of an account count, or what counts while there are none."""
    if subject.is_built_in:
        whose = (
            "root" if subject.key == "LOCALSYSTEM" else f"{subject.kind.value} accounts without settings of their own"
        )
        if subject.key in stored:
            return f"jobs of {whose} whose proxy_usage is preconfig"
        return f"nothing is stored: jobs of {whose} use no proxy"
    jobs = f"jobs of {subject.name} (uid {subject.uid}) whose proxy_usage is preconfig"
    if subject.key in stored:
        return jobs
    if subject.kind is AccountKind.USER:
        return f"nothing is stored: {jobs} use the account's desktop settings"
    if _KEYS[subject.kind] in stored:
        return f"nothing is stored: {jobs} use the settings of {_KEYS[subject.kind]}"
    return f"nothing is stored: {jobs} use no proxy"


# --- a job's own settings ----------------------------------------------------------------------------


def check_job_change(before: Settings, values: Mapping[str, object]) -> dict[str, object]:
    """Return the proxy settings of a job that a change of properties leads to, all three together (J22).

    `values` are the new properties, each checked by itself.  A list and a bypass list belong to override: with any
    other usage they must be empty, and what was set before is gone.  Raises E_INVALIDARG.
    """
    names = ("proxy_usage", "proxy_list", "proxy_bypass_list")
    if not any(name in values for name in names):
        return {}
    usage, proxies, bypass = (values.get(name, getattr(before, name)) for name in names)
    if usage == "override":
        if not proxies:
            raise BitsError("E_INVALIDARG", "proxy_usage=override needs proxies: set proxy_list as well")
        return {"proxy_usage": usage, "proxy_list": proxies, "proxy_bypass_list": bypass}
    for name in names[1:]:
        if values.get(name):
            raise BitsError("E_INVALIDARG", f"{name} belongs to proxy_usage=override: the job's proxy_usage is {usage}")
    return {"proxy_usage": usage, "proxy_list": "", "proxy_bypass_list": ""}
