"""Whether there is a network, from what the kernel says of links and routes (inventory S5, S6).

There is one when a unicast route leads out of an interface that is up and is not the loopback.
Routes that reach no further than the cable (link-local) do not count: every interface has them.
Whether the other end answers is not asked here; a transfer that fails finds out by itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_LINK_LOCAL_4: Final = ipaddress.IPv4Network("169.254.0.0/16")
_LINK_LOCAL_6: Final = ipaddress.IPv6Network("fe80::/10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface."""

    index: int
    name: str
    is_loopback: bool
    is_up: bool
    """Switched on, and the cable or radio works as far as the driver knows (operstate up or unknown)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A unicast route that is alive."""

    destination: str
    """A prefix, such as `0.0.0.0/0` or `2001:db8::/32`."""
    links: tuple[int, ...]
    """The indices of the interfaces that it leads out of; empty when the kernel does not tell."""


def has_network(links: Iterable[Link], routes: Iterable[Route]) -> bool:
    """Whether any route leads out of the machine."""
    usable = {link.index for link in links if link.is_up and not link.is_loopback}
    return bool(usable) and any(_leads_out(route, usable) for route in routes)


def _leads_out(route: Route, usable: set[int]) -> bool:
    return (not route.links or not usable.isdisjoint(route.links)) and not _is_link_local(route.destination)


def _is_link_local(destination: str) -> bool:
    prefix = ipaddress.ip_network(destination, strict=False)
    if isinstance(prefix, ipaddress.IPv4Network):
        return prefix.subnet_of(_LINK_LOCAL_4)
    return prefix.subnet_of(_LINK_LOCAL_6)


def loopback_names_of(hosts: str) -> frozenset[str]:
    """Return the names, in lower case, that the text of a hosts file gives to loopback addresses only."""
    loopback: set[str] = set()
    elsewhere: set[str] = set()
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            is_loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        except ValueError:
            continue
        (loopback if is_loopback else elsewhere).update(name.lower().removesuffix(".") for name in names)
    return frozenset(loopback - elsewhere)
