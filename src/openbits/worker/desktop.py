"""The proxy settings of an account's desktop: GNOME's, read with the account's rights (architecture section 4, rule 7).

The rule: what the desktop says is taken as GNOME's own programs take it, and what cannot be followed here is an
InvalidProxyInfo with a sentence; a desktop that names a proxy never leads to a direct connection.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from openbits.core.proxylist import InvalidProxyInfo, ProxyTable, parse_table, rules_for_domain
from openbits.worker.dconf import DamagedDatabase, Value, read_keys

_PREFIX: Final = "/system/proxy/"
_KEYS: Final = (
    "mode", "autoconfig-url", "ignore-hosts", "use-same-proxy",
    "http/host", "http/port", "https/host", "https/port", "socks/host", "socks/port",
)  # fmt: skip
_DEFAULT_IGNORED: Final = ["localhost", "127.0.0.0/8", "::1"]
"""What the schema says where nothing is set."""
_DEFAULT_HTTP_PORT: Final = 8080

_T = TypeVar("_T", str, int, bool, list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopProxies:
    """What a desktop says: proxies, or none, or that they must be found by a script (PAC) or detected (WPAD)."""

    table: ProxyTable | None = None
    script_url: str | None = None
    """The script's URL; empty where it must be detected; None with mode `none` or `manual`."""


def read_desktop(*, uid: int | None = None, home: str | None = None, etc: str = "/etc/dconf") -> DesktopProxies:
    """Read the desktop settings of this process's account. Raises InvalidProxyInfo and OSError."""
    uid = os.getuid() if uid is None else uid
    if home is None:
        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            return DesktopProxies()
    try:
        values = read_keys([_PREFIX + key for key in _KEYS], home=home, uid=uid, etc=etc)
    except DamagedDatabase as error:
        raise InvalidProxyInfo(f"the desktop's settings cannot be read: {error}") from None
    return understand(values or {})


def understand(values: Mapping[str, Value]) -> DesktopProxies:
    """Return what the keys below /system/proxy mean. Raises InvalidProxyInfo."""
    mode = _get(values, "mode", "none")
    match mode:
        case "none":
            return DesktopProxies()
        case "auto":
            return DesktopProxies(script_url=_get(values, "autoconfig-url", ""))
        case "manual":
            return DesktopProxies(table=_manual(values))
        case _:
            raise InvalidProxyInfo(f"the desktop's proxy mode {ascii(mode)[:40]} is not known")


def _manual(values: Mapping[str, Value]) -> ProxyTable | None:
    http = _server(values, "http", _DEFAULT_HTTP_PORT)
    https = _server(values, "https", 0)
    if https is None and _get(values, "use-same-proxy", True):
        https = http
    items = [f"{protocol}={server}" for protocol, server in (("http", http), ("https", https)) if server is not None]
    socks = _server(values, "socks", 0)
    if socks is not None:
        items.append(f"socks5://{socks}")  # for the protocols that have no proxy of their own
    if not items:
        return None
    ignored = (rule for name in _get(values, "ignore-hosts", _DEFAULT_IGNORED) for rule in rules_for_domain(name))
    return parse_table(" ".join(items), " ".join(rule for rule in ignored if _is_rule(rule)))


def _is_rule(text: str) -> bool:
    """Whether a host that is to be reached directly is one: GNOME passes over what is not, and asks the proxy."""
    try:
        parse_table("any", text)
    except InvalidProxyInfo:
        return False
    return True


def _server(values: Mapping[str, Value], protocol: str, default_port: int) -> str | None:
    host = _get(values, f"{protocol}/host", "").strip()
    if not host:
        return None
    port = _get(values, f"{protocol}/port", default_port)
    if not 1 <= port <= 65_535:
        raise InvalidProxyInfo(f"the desktop's {protocol} proxy has no port")
    if any(character.isspace() or character in "=/@" for character in host):
        raise InvalidProxyInfo(f"the desktop's {protocol} proxy {ascii(host)[:60]} is no host")
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _get(values: Mapping[str, Value], key: str, default: _T) -> _T:
    value = values.get(_PREFIX + key, default)
    if type(value) is not type(default):
        raise InvalidProxyInfo(f"the desktop's setting {key} is of a wrong kind")
    assert isinstance(value, type(default))
    return value
