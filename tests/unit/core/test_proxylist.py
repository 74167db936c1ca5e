"""J23: lists of proxies, of hosts that are reached without one, and which proxies a URL takes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbits.core.proxylist import InvalidProxyInfo, parse_table, rules_for_domain


def proxies(url: str, listed: str, bypass: str = "") -> list[str]:
    return [str(proxy) for proxy in parse_table(listed, bypass).proxies_for(url)]


@pytest.mark.parametrize(
    ("listed", "url", "wanted"),
    [
        ("p", "http://o/", ["http://p:80"]),
        ("p:3128 q:8080", "https://o/", ["http://p:3128", "http://q:8080"]),
        ("http=p:1 https=q:2", "http://o/", ["http://p:1"]),
        ("http=p:1 https=q:2", "https://o/", ["http://q:2"]),
        ("http=p:1 q:2 http=r:3", "http://o/", ["http://p:1", "http://r:3"]),
        ("http=p:1 q:2 s:4", "https://o/", ["http://q:2", "http://s:4"]),
        ("http=p:1", "https://o/", []),
        ("https://p", "http://o/", ["https://p:443"]),
        ("http=https://p:8443", "http://o/", ["https://p:8443"]),
        ("HTTP=HTTP://Proxy.Example:1/", "HTTP://o/", ["http://proxy.example:1"]),
        ("[2001:db8::1]:3128", "http://o/", ["http://[2001:db8::1]:3128"]),
        ("[::1]", "http://o/", ["http://[::1]:80"]),
        ("[fe80::1%eth0]", "http://o/", ["http://[fe80::1%eth0]:80"]),
        ("  p:1   q:2  ", "http://o/", ["http://p:1", "http://q:2"]),
        ("socks5://s p:1 SOCKS4A://t:9", "http://o/", ["socks5://s:1080", "http://p:1", "socks4a://t:9"]),
        ("https=socks5://s:1 p:2", "https://o/", ["socks5://s:1"]),
    ],
)
def test_proxies_are_tried_in_the_order_of_the_list_for_each_protocol(listed: str, url: str, wanted: list[str]) -> None:
    assert proxies(url, listed) == wanted


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "   ",
        "p:",
        "p:0",
        "p:65536",
        "p:x",
        "p:1:2",
        "http=",
        "ftp=p:1",
        "socks6://p:1080",
        "http://",
        "p:1,q:2",
        "p;q",
        "http=http=p",
        "user@p:1",
        "http://user:secret@p:1",
        "[::1",
        "[::1]x",
        "[p]",
        "[fe80::1%\U0001f600]:80",
        "[fe80::1%a\x01b]:80",
        "[fe80::1%]:80",
        "::1",
        "-p",
        "p/path",
        "p:1?x",
    ],
)
def test_a_list_that_can_be_misread_is_refused(listed: str) -> None:
    with pytest.raises(InvalidProxyInfo) as caught:
        parse_table(listed, "")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("bypass", "url", "is_direct"),
    [
        ("host.example", "http://host.example/", True),
        ("HOST.example.", "http://Host.Example/", True),
        ("host.example", "http://host.example./", True),
        ("host.example", "http://www.host.example/", False),
        ("*.org", "http://www.example.org/", True),
        ("*.example.org", "http://example.org/", False),
        ("*example.org", "http://myexample.org/", True),
        ("*.org", "http://org.example/", False),
        ("*", "http://anything:99/", True),
        ("<local>", "http://intranet/", True),
        ("<LOCAL>", "http://intranet:8080/", True),
        ("<local>", "http://www.example.org/", False),
        ("<local>", "http://127.0.0.1/", False),
        ("<local>", "http://[::1]/", False),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("10.1.2.3", "http://10.1.2.4/", False),
        ("10.0.0.0/8", "http://10.255.0.1:81/", True),
        ("10.0.0.0/8", "http://11.0.0.1/", False),
        ("::1", "http://[::1]/", True),
        ("[2001:db8::1]:80", "http://[2001:db8:0::1]/", True),
        ("fe80::/10", "http://[fe80::1]/", True),
        ("host:8080", "http://host:8080/", True),
        ("host:8080", "http://host/", False),
        ("host:443", "https://host/", True),
        ("a b <local> *.c", "http://x.c/", True),
        ("", "http://host/", False),
    ],
)
def test_hosts_that_are_reached_without_a_proxy(bypass: str, url: str, is_direct: bool) -> None:
    assert (proxies(url, "p:1", bypass) == []) is is_direct


@pytest.mark.parametrize(
    "bypass", ["aaa.*", "a*b.org", "**.org", "*.o*", "host:", "host:x", "a,b", "<all>", "[x]", "a/b"]
)
def test_a_bypass_list_that_can_be_misread_is_refused(bypass: str) -> None:
    with pytest.raises(InvalidProxyInfo):
        parse_table("p:1", bypass)


@given(st.text(max_size=60), st.text(max_size=60))
@example("[::1%]:1", "[")
def test_whatever_stands_in_the_lists_it_is_understood_or_refused(listed: str, bypass: str) -> None:
    try:
        table = parse_table(listed, bypass)
    except InvalidProxyInfo:
        return
    for url in ("http://h.example/", "https://[::1]:9/", "http://10.0.0.1/"):
        for proxy in table.proxies_for(url):
            assert 1 <= proxy.port <= 65_535
            assert proxy.protocol in ("http", "https")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("example.org", ("example.org", "*.example.org")),
        (".example.org", ("example.org", "*.example.org")),
        ("*.example.org", ("example.org", "*.example.org")),
        ("example.org:80", ("example.org:80", "*.example.org:80")),
        ("127.0.0.0/8", ("127.0.0.0/8",)),
        ("10.0.0.1:80", ("10.0.0.1:80",)),
        ("::1", ("::1",)),
        ("[::1]:80", ("[::1]:80",)),
        ("*", ("*",)),
    ],
)
def test_a_host_of_a_desktop_means_its_subdomains_as_well(name: str, wanted: tuple[str, ...]) -> None:
    assert rules_for_domain(name) == wanted
    parse_table("p:1", " ".join(wanted))
