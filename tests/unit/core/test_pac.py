"""PAC: what a script is told, what it may answer, and its functions as they are specified (J22, I16)."""

from __future__ import annotations

import datetime as dt
import fnmatch
import ipaddress
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core import pac
from openbits.core.proxylist import InvalidProxyInfo, Proxy

UTC = dt.UTC
FRIDAY = dt.datetime(2026, 11, 20, 14, 30, 15, tzinfo=UTC)
SATURDAY = dt.datetime(2026, 11, 21, 2, 30, 15, tzinfo=UTC)


# --- the question ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told", "host"),
    [
        ("http://h/a/b?c=d", "http://h/a/b?c=d", "h"),
        ("http://user:secret@h:81/a", "http://h:81/a", "h"),
        ("https://user:secret@h/a?token=t", "https://h/", "h"),
        ("https://h:8443", "https://h:8443/", "h"),
        ("http://h", "http://h/", "h"),
        ("http://h./a#part", "http://h./a", "h"),
        ("http://[2001:db8::1]:8080/a", "http://[2001:db8::1]:8080/a", "2001:db8::1"),
    ],
)
def test_a_script_is_told_no_secrets_and_nothing_of_an_https_url_but_its_server(url: str, told: str, host: str) -> None:
    assert pac.question(url) == (told, host)


# --- the answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("DIRECT", (None,)),
        ("", (None,)),
        (" ; ", (None,)),
        ("PROXY p:3128", (Proxy("http", "p", 3128),)),
        ("proxy p:3128 ; direct", (Proxy("http", "p", 3128), None)),
        ("PROXY p; HTTPS s; SOCKS o; ", (Proxy("http", "p", 80), Proxy("https", "s", 443), Proxy("socks5", "o", 1080))),
        ("SOCKS5 a:1;SOCKS4 b:2", (Proxy("socks5", "a", 1), Proxy("socks4a", "b", 2))),
        ("PROXY [::1]:8080; PROXY [::1]:8080; HTTP P:1", (Proxy("http", "[::1]", 8080), Proxy("http", "p", 1))),
    ],
)
def test_every_way_of_an_answer_is_taken_in_its_order(text: str, ways: tuple[pac.Way, ...]) -> None:
    assert pac.parse_result(text) == ways


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("QUIC p:1", "QUIC"),
        ("PROXY p:1; NONSENSE", "NONSENSE"),
        ("PROXY", "one host:port"),
        ("PROXY p:1 q:2", "one host:port"),
        ("DIRECT p:1", "DIRECT"),
        ("PROXY p:0", "port"),
        ("PROXY p:99999", "port"),
        ("PROXY http://p:1", "PROXY"),
        ("PROXY u:secret@p:1", "user name"),
        ("<html>", "<html>"),
        ("PROXY p:1\nDIRECT", "host:port"),
    ],
)
def test_an_answer_that_is_not_understood_is_refused_as_a_whole(text: str, words: str) -> None:
    with pytest.raises(InvalidProxyInfo) as caught:
        pac.parse_result(text)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_answer_breaks_the_parser(text: str) -> None:
    try:
        ways = pac.parse_result(text)
    except InvalidProxyInfo:
        return
    assert ways
    for way in ways:
        assert way is None or not set(str(way)) & set(" \t\r\n@;")


@given(st.lists(st.sampled_from(["PROXY p:1", "HTTPS q:2", "SOCKS r:3", "DIRECT"]), min_size=1, max_size=6))
def test_the_order_of_an_answer_is_kept(items: list[str]) -> None:
    ways = pac.parse_result(";".join(items))
    assert ways == tuple(dict.fromkeys(pac.parse_result(item)[0] for item in items))


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (pac.is_plain_host_name("www"), True),
        (pac.is_plain_host_name("www.example.com"), False),
        (pac.is_plain_host_name("::1"), False),
        (pac.dns_domain_is("www.Example.com", ".example.com"), True),
        (pac.dns_domain_is("www", ".example.com"), False),
        (pac.local_host_or_domain_is("www.example.com", "www.example.com"), True),
        (pac.local_host_or_domain_is("www", "www.example.com"), True),
        (pac.local_host_or_domain_is("home.example.com", "www.example.com"), False),
        (pac.local_host_or_domain_is("ww", "www.example.com"), False),
        (pac.dns_domain_levels("www"), 0),
        (pac.dns_domain_levels("www.example.com"), 2),
    ],
)
def test_functions_about_names(call: object, result: object) -> None:
    assert call == result


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("www.example.com", True),
        ("_srv._tcp.example", True),
        ("www.example.com.", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        (".", False),
        ("a..b", False),
        ("a b", False),
        ("a\nb", False),
        ("a/b", False),
        ("-a", False),
        ("ä.example", False),
        ("a." * 126 + "a", True),
        ("a." * 127 + "a", False),
    ],
)
def test_only_what_can_be_a_name_is_ever_asked_for(name: str, is_one: bool) -> None:
    assert pac.is_resolvable_name(name) is is_one


@given(st.text(alphabet="ab*?.", max_size=12), st.text(alphabet="ab*?", max_size=8))
def test_sh_exp_match_is_the_shells_without_brackets(text: str, pattern: str) -> None:
    assert pac.sh_exp_match(text, pattern) is (re.fullmatch(fnmatch.translate(pattern), text) is not None)


def test_sh_exp_match_takes_no_time_that_a_pattern_could_make_explode() -> None:
    begun = time.process_time()
    assert not pac.sh_exp_match("a" * 2_000, "*a" * 40 + "b")
    assert time.process_time() - begun < 2.0


# --- addresses -------------------------------------------------------------------------------------


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 32))
def test_is_in_net_is_what_networks_are(
    address: ipaddress.IPv4Address, pattern: ipaddress.IPv4Address, length: int
) -> None:
    network = ipaddress.IPv4Network((int(pattern), length), strict=False)
    assert pac.is_in_net(str(address), str(pattern), str(network.netmask)) is (address in network)
    assert pac.is_in_net_ex(str(address), f"{pattern}/{length}") is (address in network)


@pytest.mark.parametrize("arguments", [("h", "1.2.3.4", "255.0.0.0"), ("1.2.3.4", "x", "255.0.0.0"), ("::1", "", "")])
def test_is_in_net_is_false_for_what_is_no_address(arguments: tuple[str, str, str]) -> None:
    assert not pac.is_in_net(*arguments)


def test_networks_of_both_versions() -> None:
    assert pac.is_in_net("10.9.8.7", "10.0.8.0", "255.0.255.0")
    assert pac.is_in_net_ex("2001:db8::5", "2001:db8::/32")
    assert not pac.is_in_net_ex("2001:db9::5", "2001:db8::/32")
    assert not pac.is_in_net_ex("10.0.0.1", "2001:db8::/32")
    assert not pac.is_in_net_ex("10.0.0.1", "10.0.0.1")
    assert not pac.is_in_net_ex("10.0.0.1", "nonsense/8")


def test_convert_addr_has_a_sign_as_bit_operations_do() -> None:
    assert pac.convert_addr("104.16.41.2") == 1745889538
    assert pac.convert_addr("192.168.1.1") == -1062731519
    assert pac.convert_addr("www") == 0


def test_sort_addresses() -> None:
    assert pac.sort_addresses("10.2.3.9;2001:4898:28:3:201:2ff:feea:fc14;::1;10.2.3.10") == (
        "::1;2001:4898:28:3:201:2ff:feea:fc14;10.2.3.9;10.2.3.10"
    )
    assert pac.sort_addresses("10.1.1.1;name") is None
    assert pac.sort_addresses("") is None


# --- the time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "friday", "saturday"),
    [
        (("FRI",), True, False),
        (("MON", "FRI"), True, False),
        (("sat", "mon"), False, True),
        (("FRI", "MON"), True, True),
        (("SAT", "GMT"), False, True),
        (("FRIDAY",), False, False),
        ((), False, False),
        (("MON", "TUE", "FRI"), False, False),
    ],
)
def test_weekday_range(arguments: tuple[str, ...], friday: bool, saturday: bool) -> None:
    assert pac.weekday_range(arguments, FRIDAY, FRIDAY) is friday
    assert pac.weekday_range(arguments, SATURDAY, SATURDAY) is saturday


@pytest.mark.parametrize(
    ("arguments", "is_now"),
    [
        ((20,), True),
        ((21,), False),
        (("NOV",), True),
        ((2026,), True),
        ((1, 20), True),
        ((1, 19), False),
        ((25, 20), True),
        (("OCT", "DEC"), True),
        (("DEC", "OCT"), False),
        (("NOV", "FEB"), True),
        ((2025, 2027), True),
        ((2027, 2025), False),
        ((20, "NOV"), True),
        ((20, "NOV", 2026), True),
        ((20, "NOV", 2025), False),
        (("NOV", 2026), True),
        ((1, "JUN", 15, "AUG"), False),
        ((24, "DEC", 20, "NOV"), True),
        (("OCT", 2025, "MAR", 2027), True),
        ((1, "JUN", 1995, 20, "NOV", 2026), True),
        ((1, "JUN", 1995, 19, "NOV", 2026), False),
        (("JUNE",), False),
        ((), False),
        ((1, "JUN", 1995, 20, "NOV"), False),
    ],
)
def test_date_range(arguments: tuple[pac.Argument, ...], is_now: bool) -> None:
    assert pac.date_range(arguments, FRIDAY, SATURDAY) is is_now


@pytest.mark.parametrize(
    ("arguments", "is_now"),
    [
        ((14,), True),
        ((13,), False),
        ((9, 14), True),
        ((9, 13), False),
        ((22, 15), True),
        ((14, 30, 14, 30), True),
        ((14, 31, 18, 0), False),
        ((14, 30, 15, 14, 30, 15), True),
        ((14, 30, 16, 14, 30, 20), False),
        ((2, "GMT"), True),
        (("14",), False),
        ((1, 2, 3), False),
        ((), False),
    ],
)
def test_time_range(arguments: tuple[pac.Argument, ...], is_now: bool) -> None:
    assert pac.time_range(arguments, FRIDAY, SATURDAY) is is_now


def test_gmt_asks_the_other_clock() -> None:
    assert pac.date_range((21, "GMT"), FRIDAY, SATURDAY)
    assert not pac.date_range((21,), FRIDAY, SATURDAY)
