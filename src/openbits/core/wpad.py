"""Which hosts may be asked for the proxies of a network (WPAD by DNS; inventory I16, J22).

The rule: a machine asks `wpad` in the domains that are its own, and in none above them: whoever owns a name above could
lead all its traffic through a host of his choice.  What looks like a place where anybody can register a name is no
domain of one's own, even where the configuration says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MOST_DOMAINS: Final = 6
"""As many as a resolver's search list had for thirty years."""
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_DOMAIN: Final = 240
_COUNTRY_LENGTH: Final = 2
_SHARED_LABELS: Final = frozenset(
    {"ac", "co", "com", "edu", "gen", "go", "gob", "gouv", "gov", "govt", "gv", "info", "ltd", "me", "mil"}
    | {"ne", "net", "nhs", "nom", "or", "org", "plc", "sch", "school"}
)
"""Below a country's two letters, these are registries: `co.uk`, `com.au`."""


def domains_of(fqdn: str, search: Iterable[str]) -> tuple[str, ...]:
    """Return the domains of a machine, its own name's first, then those of the resolver's search list, each once.

    `fqdn` may be a plain name, which has no domain.
    """
    _, _, own = fqdn.removesuffix(".").partition(".")
    domains = (domain.strip().removesuffix(".").lower() for domain in (own, *search))
    return tuple(dict.fromkeys(domain for domain in domains if may_ask_in(domain)))[:MOST_DOMAINS]


def may_ask_in(domain: str) -> bool:
    """Whether `wpad` may be asked for in this domain: two labels at least, and no registry."""
    labels = domain.split(".")
    if len(labels) < 2 or len(domain) > _LONGEST_DOMAIN or not all(map(_LABEL.fullmatch, labels)):
        return False
    if labels[-1].isdigit():
        return False  # an address
    return not (len(labels) == 2 and len(labels[1]) == _COUNTRY_LENGTH and labels[0] in _SHARED_LABELS)


def hosts_to_ask(fqdn: str, search: Iterable[str]) -> tuple[str, ...]:
    """Return the hosts that may have the script, as absolute names, in the order in which they are asked."""
    return tuple(f"wpad.{domain}." for domain in domains_of(fqdn, search))


def search_list(resolv_conf: str) -> tuple[str, ...]:
    """Return the domains that a resolver's configuration searches; of several such lines the last one counts."""
    found: tuple[str, ...] = ()
    for line in resolv_conf.splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = tuple(words[1:] if words[0] == "search" else words[1:2])
    return found
