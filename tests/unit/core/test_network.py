"""S5, S6: when there is a network, and which names stay on this machine."""

import pytest

from openbits.core.network import Link, Route, has_network, loopback_names_of

LO = Link(index=1, name="lo", is_loopback=True, is_up=True)
UP = Link(index=2, name="eth0", is_loopback=False, is_up=True)
DOWN = Link(index=3, name="wlan0", is_loopback=False, is_up=False)


@pytest.mark.parametrize(
    ("destination", "links", "expected"),
    [
        ("0.0.0.0/0", (2,), True),
        ("::/0", (2,), True),
        ("192.0.2.0/24", (2,), True),
        ("0.0.0.0/0", (3,), False),
        ("0.0.0.0/0", (3, 2), True),
        ("0.0.0.0/0", (9,), False),
        ("127.0.0.0/8", (1,), False),
        ("fe80::/64", (2,), False),
        ("169.254.0.0/16", (2,), False),
        ("169.254.169.254/32", (2,), False),
        ("0.0.0.0/0", (), True),
    ],
)
def test_a_route_out_of_a_link_that_is_up(destination: str, links: tuple[int, ...], expected: bool) -> None:
    assert has_network([LO, UP, DOWN], [Route(destination=destination, links=links)]) is expected


def test_no_links_or_no_routes_are_no_network() -> None:
    assert not has_network([], [Route(destination="0.0.0.0/0", links=())])
    assert not has_network([LO, DOWN], [Route(destination="0.0.0.0/0", links=())])
    assert not has_network([LO, UP], [])


def test_one_good_route_among_bad_ones_is_enough() -> None:
    routes = [Route(destination="fe80::/64", links=(2,)), Route(destination="10.0.0.0/8", links=(2,))]
    assert has_network([LO, UP], routes)


def test_loopback_names_of_a_hosts_file() -> None:
    hosts = """
        127.0.0.1 localhost
        127.0.1.1   MyBox.example mybox  # 127.0.0.9 comment
        ::1 ip6-localhost
        192.0.2.7 other mirror
        127.0.0.1 mirror
        fe80::1%lo linklocal
        not-an-address name
        127.0.0.1
    """
    assert loopback_names_of(hosts) == {"localhost", "mybox.example", "mybox", "ip6-localhost"}
    assert loopback_names_of("") == frozenset()
