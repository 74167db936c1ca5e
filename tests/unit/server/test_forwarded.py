"""Who a client is behind proxies: believed from trusted addresses only, and from the right."""

from __future__ import annotations

import ipaddress

import pytest

from openbits.server.exchange import Client, Head
from openbits.server.forwarded import TrustedProxies

PROXIES = TrustedProxies(
    networks=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("::1")),
    user_header="x-remote-user",
)


def head(client: str, *headers: tuple[str, str]) -> Head:
    return Head(
        method="GET", target=b"/", path=b"/", headers=headers, client=Client(host=client, port=9), authority="own"
    )


def test_nobody_else_is_believed() -> None:
    asked = head("192.0.2.9", ("x-forwarded-for", "1.2.3.4"), ("x-remote-user", "root"), ("x-forwarded-proto", "https"))
    assert PROXIES.complete(asked) is asked
    trusting_nobody = TrustedProxies(user_header="x-remote-user")
    asked = head("127.0.0.1", ("x-remote-user", "root"))
    assert trusting_nobody.complete(asked) is asked


def test_a_trusted_proxy_says_who_and_how() -> None:
    asked = head(
        "127.0.0.1",
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "files.example:8443"),
        ("x-remote-user", "alice"),
    )
    completed = PROXIES.complete(asked)
    assert completed.client == Client(host="192.0.2.1")
    assert (completed.scheme, completed.authority, completed.user) == ("https", "files.example:8443", "alice")


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("6.6.6.6, nonsense, 10.0.0.7", "10.0.0.7"),
        ("192.0.2.1:5555", "192.0.2.1"),
        ("[2001:db8::1]:5555", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("", "127.0.0.1"),
    ],
)
def test_the_chain_is_believed_from_the_right(chain: str, client: str) -> None:
    assert PROXIES.complete(head("127.0.0.1", ("x-forwarded-for", chain))).client.host == client


@pytest.mark.parametrize(
    "headers",
    [
        (("x-remote-user", ""),),
        (("x-remote-user", "alice"), ("x-remote-user", "root")),
        (("x-remote-user", "al\xedce"),),
        (("x-remote-user", "x" * 300),),
        (("remote-user", "alice"),),
    ],
)
def test_a_user_who_is_not_beyond_doubt_is_nobody(headers: tuple[tuple[str, str], ...]) -> None:
    assert PROXIES.complete(head("127.0.0.1", *headers)).user is None


def test_nonsense_changes_nothing() -> None:
    asked = head("::1", ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b"))
    completed = PROXIES.complete(asked)
    assert (completed.scheme, completed.authority) == ("http", "own")
