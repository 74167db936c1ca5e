"""The kernel's tables as bytes: what they mean, and that no bytes at all can break the reader."""

import contextlib
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.network import Link, Route
from openbits.service.netlink import NetlinkError, links, parse_link, parse_route, routes, split_messages

UNICAST, BLACKHOLE, LOCAL = 1, 6, 2


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def link(flags: int, operstate: int | None, name: bytes = b"eth0\0") -> bytes:
    more = b"" if operstate is None else attribute(16, bytes([operstate]))
    return struct.pack("=BxHiII", 0, 1, 7, flags, 0) + attribute(3, name) + more


def route(
    *, family: int = socket.AF_INET, bits: int = 0, kind: int = UNICAST, flags: int = 0, attributes: bytes = b""
) -> bytes:
    return struct.pack("=BBBBBBBBI", family, bits, 0, 0, 254, 3, 0, kind, flags) + attributes


def oif(index: int) -> bytes:
    return attribute(4, struct.pack("=i", index))


def hop(index: int, flags: int = 0) -> bytes:
    gateway = attribute(5, b"\x0a\0\0\1")
    return struct.pack("=HBBi", 8 + len(gateway), flags, 0, index) + gateway


@pytest.mark.parametrize(
    ("flags", "operstate", "up"),
    [(1, 6, True), (1, 0, True), (1, None, True), (0, 6, False), (1, 2, False), (1, 5, False), (1, 3, False)],
)
def test_links(flags: int, operstate: int | None, up: bool) -> None:
    assert parse_link(link(flags, operstate)) == Link(index=7, name="eth0", is_loopback=False, is_up=up)


def test_the_loopback() -> None:
    found = parse_link(link(0x9, 0, b"lo\0"))
    assert found is not None
    assert found.is_loopback


def test_routes() -> None:
    assert parse_route(route(attributes=oif(3))) == Route(destination="0.0.0.0/0", links=(3,))
    destination = attribute(1, bytes([192, 0, 2, 0]))
    assert parse_route(route(bits=24, attributes=destination + oif(3))) == Route(destination="192.0.2.0/24", links=(3,))
    destination = attribute(1, socket.inet_pton(socket.AF_INET6, "2001:db8::"))
    assert parse_route(route(family=socket.AF_INET6, bits=32, attributes=destination + oif(4))) == Route(
        destination="2001:db8::/32", links=(4,)
    )


def test_routes_over_several_links() -> None:
    hops = attribute(9 | 0x8000, hop(3) + hop(4, flags=1) + hop(5, flags=16) + hop(6))
    assert parse_route(route(attributes=hops)) == Route(destination="0.0.0.0/0", links=(3, 6))
    assert parse_route(route(attributes=attribute(9, hop(4, flags=1)))) is None


@pytest.mark.parametrize(
    "body",
    [
        route(kind=BLACKHOLE),
        route(kind=LOCAL, attributes=oif(1)),
        route(flags=1, attributes=oif(3)),
        route(flags=16, attributes=oif(3)),
        route(flags=0x200, attributes=oif(3)),
        route(family=socket.AF_APPLETALK, attributes=oif(3)),
        b"",
    ],
)
def test_what_is_no_way_out(body: bytes) -> None:
    assert parse_route(body) is None


@given(st.binary(max_size=120), st.integers(0, 255))
def test_no_bytes_break_the_reader(tail: bytes, prefix_bits: int) -> None:
    parse_link(tail)
    parse_link(link(1, 6) + tail)
    for family in (socket.AF_INET, socket.AF_INET6):
        found = parse_route(route(family=family, bits=prefix_bits, attributes=tail))
        assert found is None or found.destination.endswith(f"/{prefix_bits}")
    with contextlib.suppress(NetlinkError):
        list(split_messages(tail))


def test_a_message_that_is_cut_off() -> None:
    packet = struct.pack("=IHHII", 20, 16, 0, 1, 0) + b"abcd"
    assert list(split_messages(packet + packet)) == [(16, 0, 1, b"abcd")] * 2
    for wrong in (packet[:-1], struct.pack("=IHHII", 3, 16, 0, 1, 0)):
        with pytest.raises(NetlinkError):
            list(split_messages(wrong))


def test_this_machine_has_a_loopback_and_answers_about_routes() -> None:
    assert any(each.is_loopback and each.name == "lo" for each in links())
    with contextlib.closing(routes()) as found:
        assert all("/" in each.destination for each in found)
