"""Which accounts are people's, by uid alone: only they log on and off (architecture, section 4)."""

from __future__ import annotations

import contextlib
import pwd
from dataclasses import replace

from openbits.core.accounts import AccountRules, kind_of
from openbits.core.model import AccountKind


class People:
    """Tells people's accounts from those of services; names in the rules are looked up once."""

    def __init__(self, rules: AccountRules) -> None:
        self._rules = replace(
            rules,
            network_service=_by_uid(rules.network_service),
            local_service=_by_uid(rules.local_service),
        )

    def __contains__(self, uid: int) -> bool:
        kind, _ = kind_of(uid, str(uid), self._rules)
        return kind is AccountKind.USER


def _by_uid(accounts: frozenset[str]) -> frozenset[str]:
    uids = set()
    for account in accounts:
        uids.add(account)
        with contextlib.suppress(KeyError):
            uids.add(str(pwd.getpwnam(account).pw_uid))
    return frozenset(uids)
