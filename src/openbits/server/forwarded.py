"""What a reverse proxy says of the client that it speaks for, taken only from proxies that are trusted.

The rule: a header that says who somebody is counts when the connection comes from an address that the settings name,
and is not even looked at otherwise.  The entries of X-Forwarded-For, which every hop extends, are believed from the
right on, as long as trusted proxies wrote them: what the client wrote into it itself stands further left.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from openbits.server.exchange import Client, Head

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_USER: Final = re.compile(r"[!-~][ -~]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxies:
    """Which addresses may speak for others, and in which header they name the user."""

    networks: Sequence[Network] = ()
    user_header: str = ""
    """In lower case; empty: nobody is named."""

    @property
    def names_users(self) -> bool:
        """Whether anybody can ever be somebody."""
        return bool(self.networks and self.user_header)

    def complete(self, head: Head) -> Head:
        """Return the head as the client's end sees the request."""
        if not self._trusts(head.client.host):
            return head
        scheme = (head.get("x-forwarded-proto") or "").strip().lower()
        authority = (head.get("x-forwarded-host") or "").strip()
        user = head.get(self.user_header) if self.user_header else None
        return replace(
            head,
            client=self._client(head),
            scheme=scheme if scheme in ("http", "https") else head.scheme,
            authority=authority if _HOST.fullmatch(authority) else head.authority,
            # Twice the header may be the client's beside the proxy's: then nobody knows which.
            user=user if user and _USER.fullmatch(user) and len(head.get_all(self.user_header)) == 1 else None,
        )

    def _client(self, head: Head) -> Client:
        client = head.client
        hops = ",".join(head.get_all("x-forwarded-for")).split(",")
        for hop in reversed([each.strip() for each in hops if each.strip()]):
            address = _address(hop)
            if address is None:
                break
            client = Client(host=address)
            if not self._trusts(address):
                break
        return client

    def _trusts(self, host: str) -> bool:
        if not self.networks:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


def _address(hop: str) -> str | None:
    """Return the address of an entry, which some proxies write with a port."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
