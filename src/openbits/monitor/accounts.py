"""Which identity a worker may have: the decision about every SpawnWorker stands here.

The rule: a worker gets never more than its account has by the machine's account database, whatever
the service asks for.  The service knows an account's groups from the kernel (the peer of a connection), but it
is the program that talks to everybody, so it is not believed: a service that was taken over could
otherwise start a worker of some account with the groups of another.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from openbits.privileges import Identity

_CACHE_S: Final = 60.0
_DYNAMIC_UIDS: Final = range(61_184, 65_519 + 1)
"""What systemd gives to units with DynamicUser=."""
_LARGEST_ID: Final = 2**32 - 2
"""One less than the number that means "leave it as it is" to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The worker may run as this; `name` is for process lists."""

    identity: Identity
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """There is no worker for this account; `error` is a BITS error name."""

    error: str
    message: str


Decision = Granted | Refused


class IdentityRule(Protocol):
    """Decides about an identity that was asked for."""

    def decide(self, wanted: Identity) -> Decision:
        """Return what is granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the account database knows; `groups` includes the primary group."""

    name: str
    gid: int
    groups: frozenset[int]


class AccountDatabase:
    """The machine's accounts, remembered for a minute: with LDAP behind it a look-up can take long.

    Never remembered is a no.  Who was made a member of a group a moment ago, and logs on with it, must not fail
    for a minute; and those who claim what they do not have are few.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[int, tuple[float, Account | None]] = {}

    def account(self, uid: int, *, claimed: Collection[int] = ()) -> Account | None:
        """Return the account, or None when there is none; `claimed` are the groups that it says it has."""
        now = self._clock()
        until, account = self._accounts.get(uid, (now, None))
        if now >= until or account is None or not account.groups.issuperset(claimed):
            self._accounts = {key: entry for key, entry in self._accounts.items() if now < entry[0]}
            account = self._look_up(uid)
            self._accounts[uid] = (now + _CACHE_S, account)
        return account

    def has_group(self, gid: int) -> bool:
        """Return whether some group has this number."""
        try:
            grp.getgrgid(gid)
        except KeyError:
            return False
        return True

    @staticmethod
    def _look_up(uid: int) -> Account | None:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return None
        groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return Account(name=entry.pw_name, gid=entry.pw_gid, groups=groups | {entry.pw_gid})


class SystemRule:
    """The rule of `bitsd --system`: everybody as the account database has him."""

    def __init__(self, *, service_uid: int, database: AccountDatabase) -> None:
        self._service_uid = service_uid
        self._database = database

    def decide(self, wanted: Identity) -> Decision:
        """Return the identity that the account database allows of the wanted one."""
        if wanted.uid == self._service_uid:
            # It could open the store and signal the service: the one account that must not meet the network.
            return Refused(
                error="E_ACCESSDENIED", message="the account that the service runs under cannot have jobs of its own"
            )
        if wanted.uid == 0:
            # Root could give itself these groups at any time, so holding them back protects nobody; and
            # what makes root powerful, its capabilities, no worker has.
            return Granted(identity=wanted, name="root")
        account = self._database.account(wanted.uid, claimed=(wanted.gid, *wanted.groups))
        if account is None:
            return self._decide_unknown(wanted)
        return Granted(
            identity=Identity(
                wanted.uid,
                wanted.gid if wanted.gid in account.groups else account.gid,
                tuple(sorted(account.groups.intersection(wanted.groups))),
            ),
            name=account.name,
        )

    def _decide_unknown(self, wanted: Identity) -> Decision:
        """Grant a dynamic account of systemd that has gone its number, which nobody else has either.

        No other: the number of a person who was removed is the next person's.
        """
        if wanted.uid in _DYNAMIC_UIDS and wanted.gid == wanted.uid and not self._database.has_group(wanted.gid):
            return Granted(identity=Identity(wanted.uid, wanted.gid, ()), name=f"uid {wanted.uid}")
        return Refused(
            error="ERROR_NO_SUCH_USER", message=f"there is no account with the uid {wanted.uid} on this machine"
        )


class OwnRule:
    """The rule of `bitsd --user`: the account that started it, with the groups that it has anyway."""

    def __init__(self, own: Identity, database: AccountDatabase) -> None:
        self._own = own
        account = database.account(own.uid)
        self._name = account.name if account else f"uid {own.uid}"

    def decide(self, wanted: Identity) -> Decision:
        """Return the own identity for the own uid."""
        if wanted.uid != self._own.uid:
            return Refused(
                error="E_ACCESSDENIED", message="a service that was started by an account works for that account only"
            )
        return Granted(identity=self._own, name=self._name)


def is_identity(wanted: Identity) -> bool:
    """Whether these are numbers that the kernel could take."""
    return all(0 <= number <= _LARGEST_ID for number in (wanted.uid, wanted.gid, *wanted.groups))
