"""Asks the kernel for links and routes (rtnetlink): bytes in, facts out."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Generator, Iterator
from typing import Final

from openbits.core.network import Link, Route

CHANGE_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, and addresses and routes of IPv4 and IPv6: whatever can make a difference."""
_RECEIVE_BYTES: Final = 256 * 1024
_ATTEMPTS: Final = 5
_ANSWER_TIMEOUT_S: Final = 5.0

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NEXT_HOP: Final = struct.Struct("=HBBi")
_INT: Final = struct.Struct("=i")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_IFLA_IFNAME, _IFLA_OPERSTATE = 3, 16
_OPERSTATES_THAT_WORK: Final = frozenset((0, 6))  # unknown, as drivers that do not tell have it; up
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_RTNH_F_DEAD_OR_LINKDOWN: Final = 0x1 | 0x10
_RTA_DST, _RTA_OIF, _RTA_MULTIPATH = 1, 4, 9


class NetlinkError(Exception):
    """The kernel does not answer as it should."""


def open_watch() -> socket.socket:
    """Return a non-blocking socket on which the kernel reports every change of links, addresses and routes."""
    watch = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        watch.bind((0, CHANGE_GROUPS))
    except OSError:
        watch.close()
        raise
    return watch


def links() -> list[Link]:
    """Ask for all links as they are now. Raises OSError or NetlinkError.

    The kernel answers from memory while the answer is read: this takes some hundred microseconds.
    """
    return [link for body in _dump(_RTM_GETLINK, _LINK.size, _RTM_NEWLINK) if (link := parse_link(body)) is not None]


def routes() -> Generator[Route, None, None]:
    """Ask for the routes as they are now, and read only as many as are wanted. Raises OSError or NetlinkError.

    A table that changes meanwhile is read again from its start: a route may come twice.
    """
    for body in _dump(_RTM_GETROUTE, _ROUTE.size, _RTM_NEWROUTE):
        route = parse_route(body)
        if route is not None:
            yield route


def _dump(request: int, body_size: int, answer: int) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(_ANSWER_TIMEOUT_S)
        asking.bind((0, 0))
        for sequence in range(1, _ATTEMPTS + 1):
            length = _HEADER.size + body_size
            header = _HEADER.pack(length, request, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0)
            asking.send(header + bytes(body_size))
            interrupted = False
            for kind, flags, body in _answers(asking, sequence):
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == answer:
                    yield body
            if not interrupted:
                return
    raise NetlinkError("the kernel's tables change faster than they can be read")


def _answers(asking: socket.socket, sequence: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, flags, body) of each message that answers a question."""
    while True:
        packet, (port, _groups) = asking.recvfrom(_RECEIVE_BYTES)
        if port != 0:
            continue
        for kind, flags, number, body in split_messages(packet):
            if number != sequence:
                continue
            if kind == _NLMSG_ERROR:
                raise NetlinkError(f"the kernel refuses to list its tables (error {-_INT.unpack_from(body)[0]})")
            yield kind, flags, body
            if kind == _NLMSG_DONE:
                return


def split_messages(packet: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (kind, flags, sequence number, body) of each message of a packet. Raises NetlinkError."""
    offset = 0
    while len(packet) - offset >= _HEADER.size:
        length, kind, flags, sequence, _port = _HEADER.unpack_from(packet, offset)
        if not _HEADER.size <= length <= len(packet) - offset:
            raise NetlinkError("a message from the kernel is cut off")
        yield kind, flags, sequence, packet[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def parse_link(body: bytes) -> Link | None:
    """Read a link; None for what is none."""
    if len(body) < _LINK.size:
        return None
    _family, _type, index, flags, _change = _LINK.unpack_from(body)
    attributes = _attributes(body, _LINK.size)
    operstate = attributes.get(_IFLA_OPERSTATE, b"\0")[0]
    return Link(
        index=index,
        name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        is_loopback=bool(flags & _IFF_LOOPBACK),
        is_up=bool(flags & _IFF_UP) and operstate in _OPERSTATES_THAT_WORK,
    )


def parse_route(body: bytes) -> Route | None:
    """Read a route; None for what leads nowhere: other types than unicast, dead ones, cached ones."""
    if len(body) < _ROUTE.size:
        return None
    family, prefix_bits, _source, _tos, _table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    if kind != _RTN_UNICAST or flags & (_RTNH_F_DEAD_OR_LINKDOWN | _RTM_F_CLONED):
        return None
    if family == socket.AF_INET:
        size = 4
    elif family == socket.AF_INET6:
        size = 16
    else:
        return None
    attributes = _attributes(body, _ROUTE.size)
    links = [_INT.unpack(attributes[_RTA_OIF])[0]] if len(attributes.get(_RTA_OIF, b"")) == _INT.size else []
    if _RTA_MULTIPATH in attributes:
        hops = list(_next_hops(attributes[_RTA_MULTIPATH]))
        alive = [index for index, hop_flags in hops if not hop_flags & _RTNH_F_DEAD_OR_LINKDOWN]
        if not alive:
            return None
        links += alive
    address = ipaddress.ip_address(attributes.get(_RTA_DST, b"").ljust(size, b"\0")[:size])
    return Route(destination=f"{address}/{prefix_bits}", links=tuple(links))


def _next_hops(data: bytes) -> Iterator[tuple[int, int]]:
    offset = 0
    while len(data) - offset >= _NEXT_HOP.size:
        length, flags, _hops, index = _NEXT_HOP.unpack_from(data, offset)
        if length < _NEXT_HOP.size:
            return
        yield index, flags
        offset += _aligned(length)


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    attributes = {}
    offset = _aligned(offset)
    while len(body) - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        # The two highest bits are flags.
        attributes[kind & 0x3FFF] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return attributes


def _aligned(length: int) -> int:
    return (length + 3) & ~3
