"""What sort of account a uid is (architecture, section 4), and who is an administrator.

Least privilege: a system account that the administrator has not named is LOCAL_SERVICE, and cannot
speak for the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openbits.core.model import AccountKind, Identity

DEFAULT_UID_MIN: Final = 1000
DYNAMIC_UIDS: Final = range(61_184, 65_519 + 1)
"""What systemd gives to units with DynamicUser=."""
NOBODY_UIDS: Final = frozenset((65_534, 65_535, 2**32 - 2))
"""The kernel's overflow uid, and the uids that 16-bit and 32-bit interfaces put in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRules:
    """How accounts are sorted on this machine; an entry of a list is a name or a decimal uid."""

    uid_min: int = DEFAULT_UID_MIN
    """The first uid of a person (UID_MIN of /etc/login.defs)."""
    dynamic_uids: range = DYNAMIC_UIDS
    nobody_uids: frozenset[int] = NOBODY_UIDS
    network_service: frozenset[str] = frozenset()
    local_service: frozenset[str] = frozenset()


def kind_of(uid: int, name: str, rules: AccountRules) -> tuple[AccountKind, str]:
    """Return the kind of an account, and why it is that, as a sentence for `bits doctor` and whoami."""
    listed = {name, str(uid)}
    if uid == 0:
        return AccountKind.LOCAL_SYSTEM, "uid 0 is the system itself"
    # Least privilege decides between the lists, should an account stand in both.
    if listed & rules.local_service:
        return AccountKind.LOCAL_SERVICE, "listed in accounts.local_service"
    if listed & rules.network_service:
        return AccountKind.NETWORK_SERVICE, "listed in accounts.network_service"
    if uid < rules.uid_min:
        return (
            AccountKind.LOCAL_SERVICE,
            f"a system account (uid below {rules.uid_min}) that is not listed in accounts.network_service",
        )
    if uid in rules.dynamic_uids:
        return AccountKind.LOCAL_SERVICE, "a dynamic account of a system service"
    if uid in rules.nobody_uids:
        return AccountKind.LOCAL_SERVICE, "the account of nobody"
    return AccountKind.USER, f"a person's account (uid {rules.uid_min} or above)"


def is_administrator(identity: Identity, administrators_gid: int | None) -> bool:
    """Whether an identity may manage everyone's jobs: uid 0, or in the administrators' group, if there is one."""
    return identity.uid == 0 or (
        administrators_gid is not None and (administrators_gid == identity.gid or administrators_gid in identity.groups)
    )


def uid_min_of(login_defs: str) -> int:
    """Return UID_MIN as a /etc/login.defs says it, else the default."""
    for line in login_defs.splitlines():
        match line.split():
            case ["UID_MIN", value, *_] if value.isascii() and value.isdigit():
                return int(value)
    return DEFAULT_UID_MIN
