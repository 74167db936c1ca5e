"""The proxies of one run, and what libcurl's errors mean when there is one on the way (J23, J22, R4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from openbits.core.proxylist import Proxy, parse_table
from openbits.errors import ErrorContext
from openbits.frames.network import ProxySpec
from openbits.worker.failure import Failure, TransferError
from openbits.worker.pac import Found
from openbits.worker.proxies import Plan, Proxies, make_plan, needs_reading
from openbits.worker.proxyerrors import Attempt, map_proxy_error, refused_tunnel

URL = "http://origin.test/"
P, Q = Proxy("http", "p", 1), Proxy("http", "q", 2)
SECURE = Proxy("https", "p", 443)
SOCKS = Proxy("socks5", "p", 1)


@dataclass(frozen=True)
class Sent:
    proxy: Proxy | None
    url: str = URL


def unreached(proxies: Proxies, proxy: Proxy | None, url: str = URL) -> bool:
    """Whether there is another way when this one could not be reached."""
    failure = Failure(
        name="ERROR_WINHTTP_CANNOT_CONNECT",
        context=ErrorContext.GENERAL_TRANSPORT,
        message="no connection",
        transient=True,
        is_break=True,
        may_try_next_proxy=proxy is not None,
    )
    return proxies.has_other_way(failure, Sent(proxy, url))


def run(listed: str, bypass: str = "") -> tuple[Proxies, list[str]]:
    told: list[str] = []
    return Proxies(Plan(source="somebody's settings", table=parse_table(listed, bypass)), told.append), told


# --- choosing --------------------------------------------------------------------------------------


def test_a_proxy_that_failed_is_passed_over_until_all_have() -> None:
    proxies, told = run("p:1 q:2")
    assert proxies.choose(URL) == P
    assert unreached(proxies, P)
    assert proxies.choose(URL) == proxies.choose(URL) == Q
    assert not unreached(proxies, Q)
    assert proxies.choose(URL) == P
    assert [way.split()[3] for way in told] == ["http://p:1", "http://q:2", "http://p:1"]


def test_a_proxy_alone_is_tried_again_and_there_is_never_a_way_around_it() -> None:
    proxies, _ = run("p:1")
    for _ in range(3):
        assert proxies.choose(URL) == P
        assert not unreached(proxies, P)


def test_what_is_chosen_is_told_once_for_each_way() -> None:
    proxies, told = run("p:1", "<local>")
    for _ in range(3):
        assert proxies.choose("http://intranet/") is None
        assert proxies.choose(URL) == P
    assert told == ["without a proxy (somebody's settings)", "through the proxy http://p:1 (somebody's settings)"]


@pytest.mark.parametrize(
    "spec",
    [
        ProxySpec(usage="manual", proxies="p::", source="S"),
        ProxySpec(usage="manual", proxies="p", bypass="a.*", source="S"),
        ProxySpec(usage="a usage of a later version", source="S"),
    ],
)
def test_j22_settings_that_cannot_be_followed_let_no_request_out(spec: ProxySpec) -> None:
    assert not needs_reading(spec)
    with pytest.raises(TransferError) as caught:
        Proxies(make_plan(spec), print).choose(URL)
    failure = caught.value.failure
    assert (failure.name, failure.transient, failure.is_break) == ("BG_E_INVALID_PROXY_INFO", False, False)
    assert failure.message.startswith("S: ")


@pytest.mark.parametrize("way", [P, None])
def test_a_list_is_never_left_for_a_direct_connection_nor_a_direct_connection_for_a_list(way: Proxy | None) -> None:
    proxies, _ = run("p:1", "<local>")
    assert not unreached(proxies, way, URL if way else "http://intranet/")


@dataclass
class Scripted:
    """In place of a PacScript: answers at once."""

    ways: tuple[Proxy | None, ...]
    asked: list[str] = field(default_factory=list)

    def ask(self, url: str, done: Callable[[Found | Failure], None]) -> None:
        self.asked.append(url)
        done(Found(ways=self.ways, source=f"S: PAC {len(self.asked)}"))


def scripted(monkeypatch: pytest.MonkeyPatch, *ways: Proxy | None) -> tuple[Proxies, Scripted, list[str]]:
    told: list[str] = []
    script = Scripted(ways)
    proxies = Proxies(Plan(source="S", script_url="http://w/pac"), told.append)
    monkeypatch.setattr(proxies, "_script", script)
    return proxies, script, told


def find_out(proxies: Proxies, url: str) -> None:
    outcomes: list[Failure | None] = []
    if not proxies.is_known(url):
        proxies.find_out(url, outcomes.append)
        assert outcomes == [None]
    assert proxies.is_known(url)


def test_i16_a_script_is_asked_once_for_each_url_and_its_answer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies, script, told = scripted(monkeypatch, P)
    for url in (URL, URL, URL + "a", URL):
        find_out(proxies, url)
        assert proxies.choose(url) == P
    assert script.asked == [URL, URL + "a"]
    assert told == ["through the proxy http://p:1 (S: PAC 1)"]


def test_every_way_of_a_script_is_tried_in_its_order_and_direct_only_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxies, _, told = scripted(monkeypatch, P, Q, None)
    find_out(proxies, URL)
    assert proxies.choose(URL) == P
    assert unreached(proxies, P)
    assert proxies.choose(URL) == Q
    assert unreached(proxies, Q)
    assert proxies.choose(URL) is None
    assert not unreached(proxies, None)
    assert proxies.choose(URL) == P
    assert [way.split(" (")[0] for way in told][2] == "without a proxy"


def test_a_direct_way_that_fails_gives_way_to_the_proxy_behind_it_for_that_server_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxies, _, _ = scripted(monkeypatch, None, P)
    other = "http://other.test/"
    for url in (URL, other):
        find_out(proxies, url)
        assert proxies.choose(url) is None
    assert unreached(proxies, None)
    assert (proxies.choose(URL), proxies.choose(other)) == (P, None)
    failure = Failure(name="BG_E_HTTP_ERROR_404", context=ErrorContext.REMOTE_FILE, message="no", transient=False)
    assert not proxies.has_other_way(failure, Sent(None, other))


def test_settings_that_are_being_read_are_waited_for() -> None:
    proxies = Proxies(None, lambda _: None)
    told: list[Failure | None] = []
    assert not proxies.is_known(URL)
    proxies.find_out(URL, told.append)
    assert told == []
    proxies.planned(Plan(source="S", table=parse_table("p:1", "")))
    assert told == [None]
    assert proxies.choose(URL) == P
    assert proxies.source == "S"


def test_direct_is_direct() -> None:
    assert Proxies(make_plan(ProxySpec()), lambda _: None).choose(URL) is None


# --- errors ----------------------------------------------------------------------------------------


BY_TLS = Proxy("https", "p", 1)


def attempt(**changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "proxy": P,
        "host": "origin.test",
        "is_tunnel": False,
        "connect_status": 0,
        "is_proxy_reached": True,
        "is_old": False,
        "os_errno": 0,
        "connect_timeout_s": 9,
    }
    return Attempt(**values | changes)


@pytest.mark.parametrize(
    ("code", "changes", "name", "next_may_be_tried"),
    [
        (5, {}, "ERROR_WINHTTP_NAME_NOT_RESOLVED", True),
        (7, {"is_proxy_reached": False, "os_errno": 111}, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (7, {"is_tunnel": True, "is_proxy_reached": False, "is_old": True}, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (28, {"is_proxy_reached": False}, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (28, {"is_tunnel": True}, "ERROR_WINHTTP_CANNOT_CONNECT", False),
        # A proxy that takes a connection, and then no TLS.
        (28, {"proxy": BY_TLS}, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (28, {"proxy": SOCKS}, "ERROR_WINHTTP_CANNOT_CONNECT", False),
        (56, {"is_tunnel": True}, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (8, {"is_tunnel": True}, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (97, {"proxy": SOCKS}, "ERROR_WINHTTP_CANNOT_CONNECT", True),
    ],
)
def test_errors_on_the_way_to_the_proxy_name_it_and_not_the_server(
    code: int, changes: dict[str, Any], name: str, next_may_be_tried: bool
) -> None:
    failure = map_proxy_error(code, "text", attempt(**changes))
    assert failure is not None
    assert (failure.name, failure.may_try_next_proxy) == (name, next_may_be_tried)
    assert failure.transient
    assert failure.is_break
    assert "://p:1" in failure.message


@pytest.mark.parametrize(
    ("number", "words"), [(10, "255 bytes"), (11, "255 bytes"), (12, "wants to know"), (33, "does not take")]
)
def test_j37_a_socks_proxy_that_lets_the_job_not_in_is_an_error_that_says_what_to_set(number: int, words: str) -> None:
    """Nothing is tried again by itself, and nobody is passed over, as with proxies that speak HTTP."""
    failure = map_proxy_error(97, "text (1 1)", attempt(proxy=SOCKS, socks_error=number))
    assert failure is not None
    assert (failure.name, failure.transient, failure.may_try_next_proxy) == ("BG_E_HTTP_ERROR_407", False, False)
    assert words in failure.message
    assert "bits set-credentials --target proxy --scheme basic" in failure.message


def test_what_a_socks_proxy_answers_about_the_server_sends_nobody_to_the_next_one() -> None:
    failure = map_proxy_error(97, "cannot complete SOCKS5 connection to origin.test. (5)", attempt(proxy=SOCKS))
    assert failure is not None
    assert (failure.name, failure.may_try_next_proxy) == ("ERROR_WINHTTP_CANNOT_CONNECT", False)
    assert "socks5://p:1 made no connection to origin.test" in failure.message


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (56, {}),
        (52, {}),
        (18, {}),
        (56, {"is_tunnel": True, "connect_status": 200}),
        (56, {"is_tunnel": True, "is_old": True}),
        (35, {"is_tunnel": True, "connect_status": 200}),
        (60, {"proxy": SECURE, "is_tunnel": True, "connect_status": 200}),
        (60, {"is_tunnel": True}),
    ],
)
def test_errors_behind_the_proxy_are_not_its_own(code: int, changes: dict[str, Any]) -> None:
    assert map_proxy_error(code, "text", attempt(**changes)) is None


@pytest.mark.parametrize(
    ("code", "result", "name"),
    [
        (35, 1, "ERROR_WINHTTP_SECURE_CHANNEL_ERROR"),
        (60, 20, "ERROR_WINHTTP_SECURE_INVALID_CA"),
        (60, 10, "ERROR_WINHTTP_SECURE_CERT_DATE_INVALID"),
        (60, 62, "ERROR_WINHTTP_SECURE_CERT_CN_INVALID"),
    ],
)
def test_a_proxy_with_a_wrong_certificate_is_not_passed_over(code: int, result: int, name: str) -> None:
    failure = map_proxy_error(code, "text", attempt(proxy=SECURE, verify_result=result))
    assert failure is not None
    assert (failure.name, failure.transient) == (name, False)
    assert "the proxy https://" in failure.message
    assert not failure.may_try_next_proxy


@pytest.mark.parametrize(
    ("status", "transient", "is_break"),
    [(302, False, False), (403, False, False), (407, False, False), (503, True, True)],
)
def test_an_answer_to_connect_is_the_proxys(status: int, transient: bool, is_break: bool) -> None:
    failure = map_proxy_error(7, "CONNECT tunnel failed", attempt(is_tunnel=True, connect_status=status))
    assert failure == refused_tunnel(status, P, "origin.test")
    assert (failure.name, failure.transient) == (f"BG_E_HTTP_ERROR_{status}", transient)
    assert failure.is_break is is_break
    assert not failure.may_try_next_proxy


# --- what people read --------------------------------------------------------------------------------


def failure(message: str, context: ErrorContext = ErrorContext.REMOTE_FILE) -> Failure:
    return Failure(name="E_FAIL", context=context, message=message, transient=False)


def test_a_failure_says_once_by_which_proxy_and_whose_settings() -> None:
    proxies, _ = run("p:1")
    named = proxies.named(failure("it failed"), Sent(P))
    assert named.message == "it failed (through the proxy http://p:1: somebody's settings)"
    assert proxies.named(named, Sent(P)) == named
    assert proxies.named(failure("the proxy http://p:1 said no"), Sent(P)).message.endswith("no (somebody's settings)")
    for left in (proxies.named(failure("x"), Sent(None)), proxies.named(failure("x"), None)):
        assert left.message == "x"
    assert proxies.named(failure("disk", ErrorContext.LOCAL_FILE), Sent(P)).message == "disk"
