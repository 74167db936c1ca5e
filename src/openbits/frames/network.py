"""On what terms a transfer uses the network: the parts of StartTransfer that say whose proxy, credentials and trust."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySpec:
    """Which proxy settings a transfer obeys; whose they are was decided by the service (I15).

    `usage`: `direct`; `manual` (`proxies` and `bypass`, in the syntax of J23); `desktop` (the account's own desktop
    settings, which only a process with its rights can read); `script` and `detect` (PAC from `script_url`, WPAD).
    `source` says for people whose settings these are.
    """

    usage: str = "direct"
    proxies: str = ""
    bypass: str = ""
    script_url: str = ""
    source: str = ""
    dhcp_url: str = ""
    """With `detect`: where the network's DHCP server says that the PAC script is; empty where it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitSpec:
    """Where the account's own credentials may answer a challenge, and what sort of account speaks (I10, I4)."""

    server: bool = False
    proxy: bool = False
    is_anonymous: bool = False
    """A LOCAL_SERVICE account: nothing is ever sent for it."""
    is_computer: bool = False
    """The account speaks for the machine: with the tickets of TakeTickets, and never with any others."""
    trouble: str = ""
    """Why the computer has no tickets, as a clause; empty when it has, or when nobody is allowed to use them."""
    account: str = ""
    """For people: who speaks to the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """Which client certificate is presented (H1, H2): see `core.model.ClientCertificate`."""

    location: str
    store: str
    sha1: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSpec:
    """How servers' certificates are checked, and what is shown to servers (section 2.6 of the inventory)."""

    security_flags: int = 0
    """H7: the bits below 0x0100."""
    certificate: CertificateSpec | None = None
    asks: bool = False
    """Whether each server's certificate is shown to a program by CertificateSeen before anything is sent (4.6)."""
