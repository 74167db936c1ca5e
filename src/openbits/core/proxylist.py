"""Lists of proxies and of hosts that are reached without one (inventory J23), and which proxies a URL takes.

    list    [protocol=][protocol://]server[:port] …     bypass    host, *.domain, address, network or <local> …

The first protocol is that of the URLs, http or https; the second what the proxy speaks: http, https, socks5 or socks4a.

The rule: a list that can be misread is refused, and where proxies are named for a URL's protocol, it never goes
without one unless the bypass list says so.  Nothing is resolved here: a host is compared as the URL writes it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PROTOCOLS: Final = ("http", "https")
"""Of URLs that may go through a proxy."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks4a": 1080}
"""By the protocol that is spoken to the proxy."""

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")
_SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{0,253}")
_BRACKETED: Final = re.compile(r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.~-]{1,63})?\]")
"""Python takes anything at all for the zone behind the percent sign."""
_PORT: Final = re.compile(r"[0-9]{1,5}")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidProxyInfo(ValueError):
    """A list cannot be understood (BG_E_INVALID_PROXY_INFO); the text is a clause that names the item."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy; `host` has brackets around an IPv6 address."""

    protocol: str
    """What is spoken to the proxy: `http`, `https`, `socks5` or `socks4a`; each of them gets names as names."""
    host: str
    port: int

    @property
    def is_socks(self) -> bool:
        """Whether it passes bytes on and knows nothing of HTTP."""
        return self.protocol.startswith("socks")

    def __str__(self) -> str:
        return f"{self.protocol}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HostRule:
    """A host, or with `is_suffix` all hosts that end so; in lower case."""

    text: str
    is_suffix: bool
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        """Whether the rule is about a host of a URL."""
        if self.port not in (None, port):
            return False
        return host.endswith(self.text) if self.is_suffix else host == self.text


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """An address, or all addresses of a network."""

    network: _Network
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        """Whether the rule is about a host of a URL that is written as an address."""
        address = _address(host)
        return address is not None and self.port in (None, port) and address in self.network


@dataclass(frozen=True, slots=True)
class LocalRule:
    """`<local>`: names without a dot."""

    def covers(self, host: str, port: int) -> bool:  # noqa: ARG002 - as the other rules have it
        """Whether a host of a URL is a plain name."""
        return "." not in host and _address(host) is None


Rule = HostRule | NetworkRule | LocalRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTable:
    """A list and a bypass list that were understood."""

    by_protocol: dict[str, tuple[Proxy, ...]]
    """Proxies for a protocol of URLs; those for the protocols that are not named stand under the empty text."""
    bypass: tuple[Rule, ...] = ()

    def proxies_for(self, url: str) -> tuple[Proxy, ...]:
        """Return the proxies to try for an http or https URL, in order; none means that it goes directly."""
        parts = urlsplit(url)
        proxies = self.by_protocol.get(parts.scheme) or self.by_protocol.get("", ())
        if not proxies:
            return ()
        host = (parts.hostname or "").removesuffix(".")
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
        return () if any(rule.covers(host, port) for rule in self.bypass) else proxies


def parse_table(proxies: str, bypass: str) -> ProxyTable:
    """Understand both lists. Raises InvalidProxyInfo."""
    by_protocol: dict[str, tuple[Proxy, ...]] = {}
    for item in proxies.split():
        protocol, proxy = _parse_proxy(item)
        by_protocol[protocol] = (*by_protocol.get(protocol, ()), proxy)
    if not by_protocol:
        raise InvalidProxyInfo("the proxy list is empty")
    return ProxyTable(by_protocol=by_protocol, bypass=tuple(_parse_rule(item) for item in bypass.split()))


def _parse_proxy(item: str) -> tuple[str, Proxy]:
    """Return the protocol of URLs that a proxy is for, empty for all, and the proxy."""
    url_protocol, equals, server = item.rpartition("=")
    if equals and url_protocol.lower() not in PROTOCOLS:
        raise InvalidProxyInfo(
            f"{shown_item(item)} is for {shown_item(url_protocol)}, and there are proxies for http and https"
        )
    protocol, mark, place = server.rpartition("://")
    if not mark:
        protocol = "http"
    if protocol.lower() not in DEFAULT_PORTS:
        known = ", ".join(DEFAULT_PORTS)
        raise InvalidProxyInfo(
            f"{shown_item(item)} is a proxy that speaks {shown_item(protocol)}: only {known} are known"
        )
    return url_protocol.lower(), proxy_at(protocol.lower(), place.removesuffix("/"), item)


def proxy_at(protocol: str, place: str, item: str) -> Proxy:
    """Return the proxy at `server[:port]`, which stands in `item`. Raises InvalidProxyInfo."""
    if "@" in place:
        # Not shown: what stands before the sign may be a password.
        raise InvalidProxyInfo("an item carries a user name: credentials for a proxy are set as credentials")
    host, port = _split_place(place, item)
    if not (_is_bracketed(host) or _HOST.fullmatch(host)):
        raise InvalidProxyInfo(f"{shown_item(item)} names no server")
    return Proxy(protocol, host.lower(), port or DEFAULT_PORTS[protocol])


def _parse_rule(item: str) -> Rule:
    if item.lower() == "<local>":
        return LocalRule()
    network = _network(item)
    if network is not None:
        return NetworkRule(network)
    host, port = _split_place(item, item)
    network = _network(host[1:-1] if _is_bracketed(host) else host)
    if network is not None:
        return NetworkRule(network, port)
    text = host.lower()
    if text.startswith("*") and _SUFFIX.fullmatch(text[1:]):
        return HostRule(text[1:].removesuffix("."), is_suffix=True, port=port)
    if _HOST.fullmatch(text):
        return HostRule(text.removesuffix("."), is_suffix=False, port=port)
    if "*" in text[1:]:
        raise InvalidProxyInfo(f"{shown_item(item)} has a * elsewhere than at its beginning")
    raise InvalidProxyInfo(f"{shown_item(item)} is neither a host nor an address")


def _split_place(place: str, item: str) -> tuple[str, int | None]:
    if place.startswith("["):
        host, bracket, after = place.partition("]")
        host += bracket
        colon, digits = after[:1], after[1:]
        if colon not in ("", ":"):
            raise InvalidProxyInfo(f"{shown_item(item)} names no server")
    else:
        host, colon, digits = place.partition(":")
    if not colon:
        return host, None
    if not (digits.isascii() and _PORT.fullmatch(digits) and 1 <= int(digits) <= 65_535):
        raise InvalidProxyInfo(f"{shown_item(item)} has no port from 1 to 65535 after its colon")
    return host, int(digits)


def _is_bracketed(host: str) -> bool:
    return bool(_BRACKETED.fullmatch(host)) and isinstance(_address(host[1:-1]), ipaddress.IPv6Address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def shown_item(text: str) -> str:
    """Return an item for a sentence, however odd or long it is."""
    return ascii(text if len(text) <= 60 else text[:59] + "…")


# --- from other notations --------------------------------------------------------------------


def rules_for_domain(name: str) -> tuple[str, ...]:
    """Return the bypass items for a host *and* everything below it, which is what desktops mean by a host.

    `name` may begin with `.` or `*.` and end in a port; what is no such name is returned as it is.
    """
    bare = name.removeprefix("*").removeprefix(".")
    if not bare or bare.startswith("[") or _network(bare) is not None or _network(bare.partition(":")[0]) is not None:
        return (bare or name,)
    return (bare, f"*.{bare}")
