"""Which identity a worker gets: never more than its account has (inventory I1)."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.errors import error_code
from openbits.monitor.accounts import (
    Account,
    AccountDatabase,
    Granted,
    OwnRule,
    Refused,
    SystemRule,
    is_identity,
)
from openbits.privileges import Identity

SERVICE_UID = 900
ALICE = Account(name="alice", gid=1000, groups=frozenset({1000, 20, 30}))
STAFF = 50


class FakeDatabase(AccountDatabase):
    """Alice, and a group that she is not in."""

    def account(self, uid: int, *, claimed: Collection[int] = ()) -> Account | None:
        return {1000: ALICE, SERVICE_UID: Account(name="openbits", gid=900, groups=frozenset({900}))}.get(uid)

    def has_group(self, gid: int) -> bool:
        return gid in {*ALICE.groups, STAFF, 900}


RULE = SystemRule(service_uid=SERVICE_UID, database=FakeDatabase())


def granted(uid: int, gid: int, *groups: int) -> Identity:
    decision = RULE.decide(Identity(uid, gid, groups))
    assert isinstance(decision, Granted)
    return decision.identity


def refused(uid: int, gid: int, *groups: int) -> str:
    decision = RULE.decide(Identity(uid, gid, groups))
    assert isinstance(decision, Refused)
    assert error_code(decision.error).name == decision.error
    assert decision.message
    return decision.error


def test_account_gets_what_it_has() -> None:
    assert granted(1000, 1000, 20, 30, 1000) == Identity(1000, 1000, (20, 30, 1000))


def test_account_gets_no_more_than_it_asked_for() -> None:
    assert granted(1000, 1000, 30) == Identity(1000, 1000, (30,))
    assert granted(1000, 1000) == Identity(1000, 1000, ())


def test_account_may_choose_its_group_among_its_own() -> None:
    assert granted(1000, 20, 20) == Identity(1000, 20, (20,))


def test_group_of_others_becomes_the_primary_group() -> None:
    assert granted(1000, STAFF, STAFF, 0, 20) == Identity(1000, 1000, (20,))


def test_root_gets_what_it_asks_for() -> None:
    assert granted(0, 7, 5, 6) == Identity(0, 7, (5, 6))


def test_dynamic_account_gets_its_numbers_and_no_group() -> None:
    assert granted(61_184, 61_184, 20, 0) == Identity(61_184, 61_184, ())


@pytest.mark.parametrize("gid", [0, 20, STAFF, 61_185])
def test_unknown_account_is_refused(gid: int) -> None:
    assert refused(61_184, gid) == "ERROR_NO_SUCH_USER"


def test_the_number_of_a_person_who_was_removed_is_granted_to_nobody() -> None:
    """Neither group nor account has it, as with a dynamic account; but the next person will."""
    assert refused(23_456, 23_456) == "ERROR_NO_SUCH_USER"


def test_unknown_account_with_the_number_of_a_group_is_refused() -> None:
    assert refused(STAFF, STAFF) == "ERROR_NO_SUCH_USER"


def test_service_account_is_refused() -> None:
    assert refused(SERVICE_UID, 900) == "E_ACCESSDENIED"


@given(
    uid=st.sampled_from([1000, STAFF, SERVICE_UID, 61_184]),
    gid=st.sampled_from([0, 20, 30, STAFF, 900, 1000, 61_184]),
    groups=st.sets(st.sampled_from([0, 20, 30, STAFF, 900, 1000, 61_184])),
)
def test_nobody_gets_a_group_that_is_not_his(uid: int, gid: int, groups: set[int]) -> None:
    decision = RULE.decide(Identity(uid, gid, tuple(sorted(groups))))
    if isinstance(decision, Granted):
        assert decision.identity.uid == uid
        assert set(decision.identity.groups) <= groups
        own = ALICE.groups if uid == 1000 else {uid}
        assert {decision.identity.gid, *decision.identity.groups} <= own


def test_own_rule_knows_one_account() -> None:
    own = Identity(1000, 20, (20, 30))
    rule = OwnRule(own, FakeDatabase())
    assert rule.decide(Identity(1000, 5, ())) == Granted(identity=own, name="alice")
    for uid in (0, 1001):
        decision = rule.decide(Identity(uid, 20, ()))
        assert isinstance(decision, Refused)
        assert error_code(decision.error).name == decision.error


def test_numbers_that_the_kernel_would_take_for_something_else() -> None:
    assert is_identity(Identity(0, 2**32 - 2, (1, 2)))
    for number in (-1, 2**32 - 1, 2**32, 2**64):
        assert not is_identity(Identity(number, 0, ()))
        assert not is_identity(Identity(0, number, ()))
        assert not is_identity(Identity(0, 0, (0, number)))


def test_database_knows_this_machine() -> None:
    root = AccountDatabase().account(0)
    assert root is not None
    assert root.name == "root"
    assert root.groups == {root.gid, *os.getgrouplist("root", root.gid)}
    assert AccountDatabase().account(2**31 + 12345) is None
    assert AccountDatabase().has_group(0)
    assert not AccountDatabase().has_group(2**31 + 12345)


def test_database_remembers_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[int] = []
    now = 100.0

    def look_up(uid: int) -> Account | None:
        looked_up.append(uid)
        return ALICE

    database = AccountDatabase(clock=lambda: now)
    monkeypatch.setattr(database, "_look_up", look_up)
    assert database.account(1000) is database.account(1000) is ALICE
    assert looked_up == [1000]
    now += 60.0
    assert database.account(1000) is ALICE
    assert looked_up == [1000, 1000]


def test_a_no_is_never_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[int, Account] = {}
    database = AccountDatabase(clock=lambda: 100.0)
    monkeypatch.setattr(database, "_look_up", known.get)
    rule = SystemRule(service_uid=SERVICE_UID, database=database)

    decision = rule.decide(Identity(1000, 1000, (STAFF,)))
    assert isinstance(decision, Refused)
    known[1000] = ALICE
    decision = rule.decide(Identity(1000, 1000, (STAFF,)))
    assert isinstance(decision, Granted)
    assert decision.identity == Identity(1000, 1000, ())

    # She becomes a member, and logs on with the new group within the minute.
    known[1000] = replace(ALICE, groups=ALICE.groups | {STAFF})
    decision = rule.decide(Identity(1000, 1000, (STAFF,)))
    assert isinstance(decision, Granted)
    assert decision.identity == Identity(1000, 1000, (STAFF,))
    decision = rule.decide(Identity(1000, STAFF, ()))
    assert isinstance(decision, Granted)
    assert decision.identity == Identity(1000, STAFF, ())
