"""As whom a job meets the network: credentials, helper tokens and proxies, as values.

The rule: a password goes out in a call and into nothing else; no value here holds one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar

from openbits.client.values import Json
from openbits.errors import BitsError

EnumT = TypeVar("EnumT", bound=enum.Enum)


class AuthTarget(enum.Enum):
    """BG_AUTH_TARGET (J35): who asks for the credentials."""

    SERVER = "server"
    PROXY = "proxy"


class AuthScheme(enum.Enum):
    """BG_AUTH_SCHEME (J35, I9)."""

    BASIC = "basic"
    DIGEST = "digest"
    NTLM = "ntlm"
    NEGOTIATE = "negotiate"
    PASSPORT = "passport"


class TokenFlags(enum.IntFlag):
    """BG_TOKEN (T3): where the helper's identity stands in for the owner's."""

    LOCAL_FILE = 1
    NETWORK = 2


class ProxyUsage(enum.Enum):
    """BG_JOB_PROXY_USAGE (J22)."""

    PRECONFIG = "preconfig"
    NO_PROXY = "no_proxy"
    OVERRIDE = "override"
    AUTODETECT = "autodetect"


class AccountProxyUsage(enum.Enum):
    """The usages of `bitsadmin /util /setieproxy` (I20); RESET is `reset_account_proxy_settings`."""

    NO_PROXY = "no_proxy"
    AUTODETECT = "autodetect"
    MANUAL_PROXY = "manual_proxy"
    AUTOSCRIPT = "autoscript"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The proxy settings of a job (J22); the lists, divided by spaces (J23), belong to OVERRIDE."""

    usage: ProxyUsage
    proxy_list: str | None
    bypass_list: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProxySettings:
    """The proxy settings that the service keeps for an account (I20, B43).

    `usage` is None where nothing is stored. The parameters of usages that are not active are kept and shown.
    `applies_to` says in words for whose jobs they count.
    """

    account: str
    usage: AccountProxyUsage | None
    proxy_list: str
    bypass_list: str
    script_url: str
    applies_to: str


def member(kind: type[EnumT], value: EnumT | str, error: str) -> EnumT:
    """Return the member that `value` is or names; raises the error called `error`."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(one.value) for one in kind)
        raise BitsError(error, f"{value!r} is none of {names}") from None


def proxy_settings_from(settings: Json) -> ProxySettings:
    """Read the proxy settings out of a SettingsOut."""
    return ProxySettings(
        usage=ProxyUsage(settings["proxy_usage"]),
        proxy_list=settings["proxy_list"],
        bypass_list=settings["proxy_bypass_list"],
    )


def account_proxy_settings_from(data: Json) -> AccountProxySettings:
    """Read the answer about an account's proxy settings."""
    return AccountProxySettings(
        account=data["account"],
        usage=None if data["usage"] is None else AccountProxyUsage(data["usage"]),
        proxy_list=data["proxy_list"],
        bypass_list=data["bypass_list"],
        script_url=data["script_url"],
        applies_to=data["applies_to"],
    )
