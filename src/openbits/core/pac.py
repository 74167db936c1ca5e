"""What a PAC script is asked, what it may answer, and what the functions mean that it may call (inventory J22, I16).

    FindProxyForURL(url, host)  ->  "PROXY host:port; HTTPS host:port; SOCKS5 host:port; DIRECT"

The rule: nothing here is resolved, read or looked at but the arguments; names and the time are given.  An answer that
is not understood is refused as a whole: what is left of a list that was half understood would be another list.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from openbits.core.proxylist import InvalidProxyInfo, Proxy, proxy_at, shown_item

SCRIPT_LIMIT_BYTES: Final = 1024 * 1024
RESULT_LIMIT: Final = 4_096
"""Characters of an answer."""
_SPOKEN: Final = {
    "PROXY": "http",
    "HTTP": "http",
    "HTTPS": "https",
    "SOCKS": "socks5",
    "SOCKS5": "socks5",
    "SOCKS4": "socks4a",
}
"""What is spoken to a proxy, by the word of the answer.  The word of old for any SOCKS stands for the version that all
servers of today speak."""
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_WEEKDAYS: Final = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_LARGEST_DAY: Final = 31

Way = Proxy | None
"""A proxy, or None for no proxy."""
Argument = str | int
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


# --- the question and the answer ---------------------------------------------------------------


def question(url: str) -> tuple[str, str]:
    """Return what a script is told of a URL: the URL, and its host.

    Never a user name or a password; of an https URL neither path nor query, as browsers do: the script came from
    somebody who would see nothing of them either.
    """
    parts = urlsplit(url)
    server = parts.netloc.rpartition("@")[2]
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme == "https":
        return f"https://{server}/", host
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{server}{parts.path or '/'}{query}", host


def parse_result(text: str) -> tuple[Way, ...]:
    """Return the ways that an answer lists, in its order; an empty answer is a direct one. Raises InvalidProxyInfo."""
    items = [item.strip() for item in text.split(";")]
    ways = [_way(item) for item in items if item]
    return tuple(dict.fromkeys(ways)) if ways else (None,)


def _way(item: str) -> Way:
    word, *places = item.split()
    if word.upper() == "DIRECT" and not places:
        return None
    protocol = _SPOKEN.get(word.upper())
    if protocol is None:
        known = ", ".join(sorted(_SPOKEN))
        raise InvalidProxyInfo(f"the script answers {shown_item(item)}: only {known} and DIRECT are known")
    if len(places) != 1:
        raise InvalidProxyInfo(f"the script answers {shown_item(item)}, which is not {word.upper()} and one host:port")
    return proxy_at(protocol, places[0], item)


def is_resolvable_name(name: str) -> bool:
    """Whether a text can be the name of a host at all: only such are asked for."""
    return name.isascii() and _NAME.fullmatch(name) is not None


# --- names ---------------------------------------------------------------------------------------


def is_plain_host_name(host: str) -> bool:
    """isPlainHostName: no dots, and no IPv6 address."""
    return "." not in host and ":" not in host


def dns_domain_is(host: str, domain: str) -> bool:
    """dnsDomainIs: the host ends so."""
    return host.lower().endswith(domain.lower())


def local_host_or_domain_is(host: str, name: str) -> bool:
    """localHostOrDomainIs: exactly this name, or its first part without a domain."""
    host, name = host.lower(), name.lower()
    return host == name or name.startswith(f"{host}.")


def dns_domain_levels(host: str) -> int:
    """dnsDomainLevels: how many dots there are."""
    return host.count(".")


def sh_exp_match(text: str, pattern: str) -> bool:
    """shExpMatch: `*` stands for any text, `?` for any one character; in time that no pattern can make explode."""
    at_text = at_pattern = 0
    star, resumed = -1, 0
    while at_text < len(text):
        if at_pattern < len(pattern) and pattern[at_pattern] == "*":
            star, resumed = at_pattern, at_text
            at_pattern += 1
        elif at_pattern < len(pattern) and pattern[at_pattern] in ("?", text[at_text]):
            at_pattern += 1
            at_text += 1
        elif star >= 0:
            # The last star takes one character more; earlier ones need not be looked at again.
            resumed += 1
            at_pattern, at_text = star + 1, resumed
        else:
            return False
    return not pattern[at_pattern:].strip("*")


# --- addresses -----------------------------------------------------------------------------------


def address_of(text: str) -> _Address | None:
    """Return the address that a text is, None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def convert_addr(text: str) -> int:
    """convert_addr: an IPv4 address as JavaScript's bit operations see it, with a sign; 0 for anything else."""
    address = address_of(text)
    if not isinstance(address, ipaddress.IPv4Address):
        return 0
    number = int(address)
    return number - (1 << 32) if number >= 1 << 31 else number


def is_in_net(address: str, pattern: str, mask: str) -> bool:
    """isInNet for an address: equal to the pattern in all bits of the mask, which need not be contiguous."""
    parts = [address_of(text) for text in (address, pattern, mask)]
    if not all(isinstance(part, ipaddress.IPv4Address) for part in parts):
        return False
    one, other, bits = (int(part) for part in parts if part is not None)
    return one & bits == other & bits


def is_in_net_ex(address: str, prefix: str) -> bool:
    """isInNetEx for an address: inside `network/length`, of either version."""
    found = address_of(address)
    try:
        return found is not None and "/" in prefix and found in ipaddress.ip_network(prefix, strict=False)
    except ValueError:
        return False


def sort_addresses(text: str) -> str | None:
    """sortIpAddressList: addresses between semicolons, IPv6 before IPv4, each in order; None if one is none."""
    found = [address_of(part.strip()) for part in text.split(";") if part.strip()]
    addresses = [each for each in found if each is not None]
    if not addresses or len(addresses) != len(found):
        return None
    return ";".join(str(each) for each in sorted(addresses, key=lambda each: (-each.version, int(each))))


# --- the time ------------------------------------------------------------------------------------


def weekday_range(arguments: Sequence[Argument], local: dt.datetime, utc: dt.datetime) -> bool:
    """weekdayRange(day [, day] [, "GMT"]): both days included; a range may lead over the end of the week."""
    values, now = _without_zone(arguments, local, utc)
    days = [_WEEKDAYS.index(day) for value in values if (day := str(value).upper()) in _WEEKDAYS]
    if len(days) != len(values) or len(days) not in (1, 2):
        return False
    return _is_between((days[0],), (now.weekday(),), (days[-1],))


def date_range(arguments: Sequence[Argument], local: dt.datetime, utc: dt.datetime) -> bool:
    """dateRange: a day, month, year, or day and month, month and year, all three; one date, or a first and a last."""
    values, now = _without_zone(arguments, local, utc)
    parts = [_date_part(value) for value in values]
    kinds = "".join(kind for kind, _ in parts)
    length = {"d": 1, "m": 1, "y": 1, "dm": 2, "my": 2, "dmy": 3}.get(kinds)
    if length is None:
        half = len(kinds) // 2
        if kinds[:half] != kinds[half:] or kinds[:half] not in ("d", "m", "y", "dm", "my", "dmy"):
            return False
        length = half
    # From the largest unit to the smallest: so they compare.
    order = sorted(range(length), key=lambda at: "ymd".index(kinds[at]))
    today = {"y": now.year, "m": now.month, "d": now.day}
    first = tuple(parts[at][1] for at in order)
    last = tuple(parts[len(parts) - length + at][1] for at in order)
    return _is_between(first, tuple(today[kinds[at]] for at in order), last)


def time_range(arguments: Sequence[Argument], local: dt.datetime, utc: dt.datetime) -> bool:
    """timeRange: an hour; or a first and a last one, with or without minutes and seconds; the last is included."""
    values, now = _without_zone(arguments, local, utc)
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) != len(values) or len(numbers) not in (1, 2, 4, 6):
        return False
    unit = max(1, len(numbers) // 2)
    first, last = tuple(numbers[:unit]), tuple(numbers[-unit:])
    return _is_between(first, (now.hour, now.minute, now.second)[:unit], last)


def _without_zone(
    arguments: Sequence[Argument], local: dt.datetime, utc: dt.datetime
) -> tuple[Sequence[Argument], dt.datetime]:
    if arguments and str(arguments[-1]).upper() == "GMT":
        return arguments[:-1], utc
    return arguments, local


def _date_part(value: Argument) -> tuple[str, int]:
    if isinstance(value, int):
        return ("d" if value <= _LARGEST_DAY else "y"), value
    name = value.upper()
    return ("m", _MONTHS.index(name) + 1) if name in _MONTHS else ("?", 0)


def _is_between(first: tuple[int, ...], now: tuple[int, ...], last: tuple[int, ...]) -> bool:
    """Whether it is that time: what ends before it begins leads over the end of the week, month, year or day."""
    if first <= last:
        return first <= now <= last
    return now >= first or now <= last
