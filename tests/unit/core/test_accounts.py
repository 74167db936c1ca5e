"""Architecture section 4; A1, A2, A4, A9, M3, P4–P7: who is who, who may what, and how much."""

from collections.abc import Callable

import pytest

from openbits.core import access, quotas
from openbits.core.accounts import AccountRules, is_administrator, kind_of, uid_min_of
from openbits.core.model import AccountKind, Caller, Identity, Owner
from openbits.errors import BitsError

RULES = AccountRules(network_service=frozenset({"mirror", "42"}), local_service=frozenset({"kiosk"}))
ADMINISTRATORS = 77


def caller(
    uid: int = 1000,
    *,
    gid: int | None = None,
    groups: tuple[int, ...] = (),
    kind: AccountKind = AccountKind.USER,
) -> Caller:
    identity = Identity(uid=uid, gid=uid if gid is None else gid, groups=groups)
    return Caller(
        identity=identity,
        name=f"user{uid}",
        kind=AccountKind.LOCAL_SYSTEM if uid == 0 else kind,
        is_administrator=is_administrator(identity, ADMINISTRATORS),
    )


@pytest.mark.parametrize(
    ("uid", "name", "kind"),
    [
        (0, "root", AccountKind.LOCAL_SYSTEM),
        (0, "mirror", AccountKind.LOCAL_SYSTEM),
        (107, "mirror", AccountKind.NETWORK_SERVICE),
        (42, "_apt", AccountKind.NETWORK_SERVICE),
        (33, "www-data", AccountKind.LOCAL_SERVICE),
        (999, "x", AccountKind.LOCAL_SERVICE),
        (1000, "alice", AccountKind.USER),
        (1000, "kiosk", AccountKind.LOCAL_SERVICE),
        (60_001, "homed", AccountKind.USER),
        (61_184, "dynamic", AccountKind.LOCAL_SERVICE),
        (65_519, "dynamic", AccountKind.LOCAL_SERVICE),
        (65_534, "nobody", AccountKind.LOCAL_SERVICE),
        (2**31, "ldap", AccountKind.USER),
    ],
)
def test_kinds_of_accounts(uid: int, name: str, kind: AccountKind) -> None:
    found, reason = kind_of(uid, name, RULES)
    assert found is kind
    assert reason


def test_an_account_in_both_lists_gets_the_lesser_rights() -> None:
    rules = AccountRules(network_service=frozenset({"a"}), local_service=frozenset({"a"}))
    assert kind_of(5, "a", rules)[0] is AccountKind.LOCAL_SERVICE


def test_administrators() -> None:
    assert is_administrator(Identity(uid=0, gid=0), None)
    assert is_administrator(Identity(uid=5, gid=ADMINISTRATORS), ADMINISTRATORS)
    assert is_administrator(Identity(uid=5, gid=5, groups=(7, ADMINISTRATORS)), ADMINISTRATORS)
    assert not is_administrator(Identity(uid=5, gid=5, groups=(7,)), ADMINISTRATORS)
    assert not is_administrator(Identity(uid=5, gid=5, groups=(7,)), None)


def test_uid_min_of_login_defs() -> None:
    assert uid_min_of("# UID_MIN 5\n  UID_MIN\t\t 500\nUID_MAX 60000\n") == 500
    assert uid_min_of("UID_MIN many\n") == 1000
    assert uid_min_of("") == 1000


def denied(function: Callable[..., None], *arguments: object) -> bool:
    with pytest.raises(BitsError) as caught:
        function(*arguments)
    return caught.value.name == "E_ACCESSDENIED"


def test_a1_owner_and_administrators_may_read_and_change() -> None:
    owner = caller(1000).as_owner()
    for allowed in (caller(1000), caller(0), caller(1001, groups=(ADMINISTRATORS,))):
        access.may_read(allowed, owner)
        access.may_change(allowed, owner)
    assert denied(access.may_read, caller(1001), owner)
    assert denied(access.may_change, caller(1001), owner)


def test_a2_some_calls_are_the_owners_alone() -> None:
    owner = caller(1000).as_owner()
    access.must_own(caller(1000), owner, "custom headers")
    assert denied(access.must_own, caller(0), owner, "custom headers")


def test_j52_a_process_without_the_rights_of_a_job_changes_nothing_of_it() -> None:
    """Not what is the owner's alone either, though the account is the same."""
    owner = caller(1000, groups=(ADMINISTRATORS,)).as_owner()
    assert owner.is_elevated
    assert denied(access.may_change, caller(1000), owner)
    assert denied(access.must_own, caller(1000), owner, "its token options")
    access.must_own(caller(1000, groups=(ADMINISTRATORS,)), owner, "its token options")


def test_a4_only_root_changes_the_systems_jobs() -> None:
    owner = caller(0).as_owner()
    administrator = caller(1001, groups=(ADMINISTRATORS,))
    access.may_read(administrator, owner)
    access.may_change(caller(0), owner)
    assert denied(access.may_change, administrator, owner)


def test_m3_only_administrators_list_everyones_jobs() -> None:
    access.may_list_everyone(caller(0))
    assert denied(access.may_list_everyone, caller(1000))


LIMITS = quotas.Quotas(max_jobs_per_user=3, max_jobs_per_machine=5, max_files_per_job=10, max_ranges_per_file=4)
EXEMPT = [caller(0), caller(1000, groups=(ADMINISTRATORS,)), caller(33, kind=AccountKind.LOCAL_SERVICE)]


def test_the_defaults_are_those_of_bits() -> None:
    assert quotas.Quotas() == quotas.Quotas(
        max_jobs_per_machine=300, max_jobs_per_user=60, max_files_per_job=200, max_ranges_per_file=500
    )


def test_p5_jobs_of_a_user() -> None:
    quotas.check_new_jobs(LIMITS, caller(), new=1, owned=2, counted=2)
    with pytest.raises(BitsError, match=r"3 \(quotas.max_jobs_per_user\)") as caught:
        quotas.check_new_jobs(LIMITS, caller(), new=2, owned=2, counted=2)
    assert caught.value.name == "BG_E_TOO_MANY_JOBS_PER_USER"


def test_p4_jobs_of_the_machine() -> None:
    quotas.check_new_jobs(LIMITS, caller(), new=1, owned=0, counted=4)
    with pytest.raises(BitsError, match=r"5 \(quotas.max_jobs_per_machine\)") as caught:
        quotas.check_new_jobs(LIMITS, caller(), new=1, owned=0, counted=5)
    assert caught.value.name == "BG_E_TOO_MANY_JOBS_PER_MACHINE"


def test_p6_files_of_a_job() -> None:
    quotas.check_new_files(LIMITS, caller(), new=4, present=6)
    with pytest.raises(BitsError, match="max_files_per_job") as caught:
        quotas.check_new_files(LIMITS, caller(), new=5, present=6)
    assert caught.value.name == "BG_E_TOO_MANY_FILES_IN_JOB"


@pytest.mark.parametrize("exempt", EXEMPT, ids=lambda one: one.name)
def test_a9_the_exempt_have_no_limits_and_do_not_count(exempt: Caller) -> None:
    quotas.check_new_jobs(LIMITS, exempt, new=1000, owned=1000, counted=1000)
    quotas.check_new_files(LIMITS, exempt, new=1000, present=1000)
    assert quotas.range_limit(LIMITS, exempt) == quotas.MOST_RANGES, "a file must fit into a frame"
    assert not quotas.counts(exempt.as_owner(), ADMINISTRATORS)


def test_people_count() -> None:
    assert quotas.counts(caller().as_owner(), ADMINISTRATORS)
    assert quotas.range_limit(LIMITS, caller()) == 4


def test_owners_remember_the_groups_they_had() -> None:
    owner = Owner(identity=Identity(uid=5, gid=5, groups=(ADMINISTRATORS,)), name="a", kind=AccountKind.USER)
    assert not quotas.counts(owner, ADMINISTRATORS)
    assert quotas.counts(owner, None)
