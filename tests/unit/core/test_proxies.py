"""I15–I17, I20, J22, B42: whose proxy settings apply, what an account's settings become, and who may set them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openbits.core.model import AccountKind, Caller, Identity, Owner, Settings
from openbits.core.proxies import (
    AccountProxy,
    AccountProxyChange,
    AccountUsage,
    ProxyDecision,
    Route,
    Subject,
    applies_to,
    built_in,
    change_account,
    decide,
    may_change,
    may_read,
    subject_of,
)
from openbits.core.settings import SettingsWindow, change_settings
from openbits.errors import BitsError


def owner(name: str, uid: int, kind: AccountKind) -> Owner:
    return Owner(identity=Identity(uid=uid, gid=uid), name=name, kind=kind)


def caller(name: str, uid: int, kind: AccountKind, *, admin: bool = False) -> Caller:
    return Caller(identity=Identity(uid=uid, gid=uid), name=name, kind=kind, is_administrator=admin)


ROOT = owner("root", 0, AccountKind.LOCAL_SYSTEM)
ALICE = owner("alice", 1001, AccountKind.USER)
BACKUP = owner("backup", 34, AccountKind.NETWORK_SERVICE)
GAMES = owner("games", 5, AccountKind.LOCAL_SERVICE)
MANUAL = AccountProxy(usage=AccountUsage.MANUAL_PROXY, proxy_list="p:1", bypass_list="<local>")


def preconfig(account: Owner, **stored: AccountProxy) -> ProxyDecision:
    return decide(Settings(name="j"), account, {key.removeprefix("uid"): value for key, value in stored.items()})


# --- which settings apply ----------------------------------------------------------------------


def test_i17_a_service_account_has_no_proxy_settings_and_a_person_has_the_desktops() -> None:
    assert [preconfig(account).route for account in (ROOT, BACKUP, GAMES, ALICE)] == [
        Route.DIRECT,
        Route.DIRECT,
        Route.DIRECT,
        Route.DESKTOP,
    ]


def test_i20_settings_of_a_kind_are_for_its_accounts_and_for_no_others() -> None:
    stored = {"NETWORKSERVICE": MANUAL}
    assert decide(Settings(name="j"), BACKUP, stored) == ProxyDecision(
        route=Route.MANUAL, source="the proxy settings of NETWORKSERVICE", proxies="p:1", bypass="<local>"
    )
    assert [decide(Settings(name="j"), account, stored).route for account in (ROOT, GAMES, ALICE)] == [
        Route.DIRECT,
        Route.DIRECT,
        Route.DESKTOP,
    ]


def test_an_accounts_own_settings_go_before_those_of_its_kind_and_the_desktops() -> None:
    own = AccountProxy(usage=AccountUsage.MANUAL_PROXY, proxy_list="own:2")
    assert preconfig(GAMES, LOCALSERVICE=MANUAL, uid5=own).proxies == "own:2"
    assert preconfig(GAMES, LOCALSERVICE=MANUAL, uid5=AccountProxy()).route is Route.DIRECT
    found = preconfig(ALICE, uid1001=own, LOCALSERVICE=MANUAL)
    assert (found.proxies, found.source) == ("own:2", "alice's own proxy settings")
    assert preconfig(ROOT, LOCALSYSTEM=MANUAL).source == "the proxy settings of LOCALSYSTEM"


@pytest.mark.parametrize(
    ("stored", "route"),
    [
        (AccountProxy(proxy_list="kept:1"), Route.DIRECT),
        (AccountProxy(usage=AccountUsage.AUTODETECT), Route.DETECT),
        (AccountProxy(usage=AccountUsage.AUTOSCRIPT, script_url="http://w/pac"), Route.SCRIPT),
        (MANUAL, Route.MANUAL),
    ],
)
def test_the_active_usage_decides_and_not_what_is_kept_beside_it(stored: AccountProxy, route: Route) -> None:
    assert preconfig(BACKUP, NETWORKSERVICE=stored).route is route


def test_j22_a_job_that_says_all_needs_nobodys_settings() -> None:
    stored = {"NETWORKSERVICE": MANUAL}
    override = Settings(name="j", proxy_usage="override", proxy_list="q:2", proxy_bypass_list="*.org")
    found = decide(override, BACKUP, stored)
    assert (found.route, found.proxies, found.bypass) == (Route.MANUAL, "q:2", "*.org")
    assert decide(Settings(name="j", proxy_usage="no_proxy"), BACKUP, stored).route is Route.DIRECT
    assert decide(Settings(name="j", proxy_usage="autodetect"), ALICE, {}).route is Route.DETECT


def test_i15_with_a_network_helper_the_settings_are_the_helpers() -> None:
    stored = {"1001": AccountProxy(usage=AccountUsage.MANUAL_PROXY, proxy_list="alice:1"), "LOCALSERVICE": MANUAL}
    assert decide(Settings(name="job of games"), GAMES, stored).proxies == "p:1"
    assert decide(Settings(name="job of games"), ALICE, stored).proxies == "alice:1"


# --- setting them --------------------------------------------------------------------------------


def change(stored: AccountProxy | None, usage: str, **parameters: str) -> AccountProxy:
    return change_account(stored, AccountProxyChange(usage=usage, **parameters))


def test_i20_each_set_switches_the_usage_and_keeps_the_parameters_of_the_others() -> None:
    settings = change(None, "manual_proxy", proxy_list="p:1 q:2", bypass_list="<local>")
    settings = change(settings, "AUTOSCRIPT", script_url="http://wpad/wpad.dat")
    settings = change(settings, "no_proxy")
    assert settings == AccountProxy(
        usage=AccountUsage.NO_PROXY, proxy_list="p:1 q:2", bypass_list="<local>", script_url="http://wpad/wpad.dat"
    )
    again = change(settings, "manual_proxy")
    assert (again.usage, again.proxy_list) == (AccountUsage.MANUAL_PROXY, "p:1 q:2")
    assert change(again, "manual_proxy", bypass_list="").bypass_list == ""
    assert change(again, "manual_proxy", proxy_list=" p:1\n\tq:2 ").proxy_list == "p:1 q:2"
    assert change(change(again, "autodetect"), "autoscript").script_url == "http://wpad/wpad.dat"


@pytest.mark.parametrize(
    ("usage", "parameters", "error"),
    [
        ("reset", {}, "E_INVALIDARG"),
        ("manual_proxy", {}, "E_INVALIDARG"),
        ("manual_proxy", {"proxy_list": "  "}, "E_INVALIDARG"),
        ("manual_proxy", {"proxy_list": "p:1", "script_url": "http://w"}, "E_INVALIDARG"),
        ("manual_proxy", {"proxy_list": "p::1"}, "BG_E_INVALID_PROXY_INFO"),
        ("manual_proxy", {"proxy_list": "p:1", "bypass_list": "aaa.*"}, "BG_E_INVALID_PROXY_INFO"),
        ("manual_proxy", {"proxy_list": "p" * 4001}, "BG_E_PROXY_LIST_TOO_LARGE"),
        ("manual_proxy", {"proxy_list": "p", "bypass_list": "p" * 4001}, "BG_E_PROXY_BYPASS_LIST_TOO_LARGE"),
        ("autoscript", {}, "E_INVALIDARG"),
        ("autoscript", {"script_url": "ftp://w/pac"}, "E_INVALIDARG"),
        ("autoscript", {"proxy_list": "p:1", "script_url": "http://w"}, "E_INVALIDARG"),
        ("no_proxy", {"proxy_list": "p:1"}, "E_INVALIDARG"),
        ("autodetect", {"script_url": "http://w"}, "E_INVALIDARG"),
    ],
)
def test_b42_settings_that_make_no_sense_are_refused_at_once(
    usage: str, parameters: dict[str, str], error: str
) -> None:
    with pytest.raises(BitsError) as caught:
        change(None, usage, **parameters)
    assert caught.value.name == error


def test_the_names_of_setieproxy_are_known_in_any_case() -> None:
    assert [
        subject.key for name in ("LocalSystem", "networkservice", "LOCAL_SERVICE") if (subject := built_in(name))
    ] == [
        "LOCALSYSTEM",
        "NETWORKSERVICE",
        "LOCALSERVICE",
    ]
    assert built_in("alice") is None
    assert subject_of(ROOT).key == "LOCALSYSTEM"
    assert subject_of(ALICE).key == "1001"


def refused(check: Callable[[Caller, Subject], None], who: Caller, subject: Subject) -> bool:
    try:
        check(who, subject)
    except BitsError as error:
        return error.name == "E_ACCESSDENIED"
    return False


def test_a4_who_may_see_and_set_whose_settings() -> None:
    root = caller("root", 0, AccountKind.LOCAL_SYSTEM, admin=True)
    carol = caller("carol", 1003, AccountKind.USER, admin=True)
    alice = caller("alice", 1001, AccountKind.USER)
    backup = caller("backup", 34, AccountKind.NETWORK_SERVICE)
    system, network, local = (built_in(name) for name in ("LOCALSYSTEM", "NETWORKSERVICE", "LOCALSERVICE"))
    assert system is not None
    assert network is not None
    assert local is not None
    hers, its = subject_of(alice), subject_of(backup)
    subjects = (system, network, local, hers, its, subject_of(root))
    assert [refused(may_read, root, one) for one in subjects] == [False] * 6
    assert [refused(may_change, root, one) for one in subjects] == [False] * 6
    assert [refused(may_read, carol, one) for one in subjects] == [False] * 6
    assert [refused(may_change, carol, one) for one in subjects] == [True, False, False, False, False, True]
    assert [refused(may_change, alice, one) for one in subjects] == [True, True, True, False, True, True]
    assert [refused(may_read, alice, one) for one in subjects] == [True, True, True, False, True, True]
    assert [refused(may_change, backup, one) for one in subjects] == [True, True, True, True, False, True]


def test_it_is_said_for_whose_jobs_settings_count() -> None:
    network = built_in("NETWORKSERVICE")
    assert network is not None
    assert "use no proxy" in applies_to(network, {})
    assert applies_to(network, {"NETWORKSERVICE": MANUAL}).startswith("jobs of NETWORK_SERVICE accounts")
    assert "desktop" in applies_to(subject_of(ALICE), {})
    assert "desktop" not in applies_to(subject_of(ALICE), {"1001": MANUAL})
    assert "settings of NETWORKSERVICE" in applies_to(subject_of(BACKUP), {"NETWORKSERVICE": MANUAL})
    assert "use no proxy" in applies_to(subject_of(GAMES), {"NETWORKSERVICE": MANUAL})


# --- a job's own -----------------------------------------------------------------------------------

OVERRIDE = Settings(name="j", proxy_usage="override", proxy_list="p:1", proxy_bypass_list="*.org")


def patched(before: Settings, **changes: object) -> tuple[str, str, str]:
    after = change_settings(before, changes, window=SettingsWindow())
    return after.proxy_usage, after.proxy_list, after.proxy_bypass_list


def test_j22_usage_list_and_bypass_are_checked_together() -> None:
    plain = Settings(name="j")
    assert patched(plain, proxy_usage="override", proxy_list="p:1") == ("override", "p:1", "")
    assert patched(OVERRIDE, proxy_list="q:2") == ("override", "q:2", "*.org")
    assert patched(OVERRIDE, proxy_bypass_list=None) == ("override", "p:1", "")
    assert patched(OVERRIDE, proxy_usage="PRECONFIG") == ("preconfig", "", "")
    assert patched(OVERRIDE, proxy_usage="no_proxy", proxy_list=None, proxy_bypass_list=None) == ("no_proxy", "", "")
    assert patched(OVERRIDE, description="other") == ("override", "p:1", "*.org")


@pytest.mark.parametrize(
    ("before", "changes", "error"),
    [
        (Settings(name="j"), {"proxy_usage": "override"}, "E_INVALIDARG"),
        (Settings(name="j"), {"proxy_usage": "override", "proxy_list": None}, "E_INVALIDARG"),
        (OVERRIDE, {"proxy_list": None}, "E_INVALIDARG"),
        (Settings(name="j"), {"proxy_list": "p:1"}, "E_INVALIDARG"),
        (Settings(name="j"), {"proxy_bypass_list": "p"}, "E_INVALIDARG"),
        (OVERRIDE, {"proxy_usage": "no_proxy", "proxy_list": "p:1"}, "E_INVALIDARG"),
        (OVERRIDE, {"proxy_usage": "autodetect", "proxy_bypass_list": "x"}, "E_INVALIDARG"),
        (OVERRIDE, {"proxy_usage": "sometimes"}, "E_NOTIMPL"),
        (OVERRIDE, {"proxy_usage": 1}, "E_NOTIMPL"),
        (OVERRIDE, {"proxy_list": "p" * 4001}, "BG_E_PROXY_LIST_TOO_LARGE"),
        (OVERRIDE, {"proxy_bypass_list": "p" * 4001}, "BG_E_PROXY_BYPASS_LIST_TOO_LARGE"),
        (OVERRIDE, {"proxy_list": "p\nq"}, "E_INVALIDARG"),
    ],
)
def test_j22_what_does_not_fit_together_changes_nothing(
    before: Settings, changes: dict[str, object], error: str
) -> None:
    with pytest.raises(BitsError) as caught:
        patched(before, **changes)
    assert caught.value.name == error


def test_j22_the_syntax_of_a_jobs_list_is_not_judged_when_it_is_set() -> None:
    assert patched(Settings(name="j"), proxy_usage="override", proxy_list="p::::") == ("override", "p::::", "")
