"""Moving bytes between a connection and a file: exact counts, whatever goes wrong where."""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from openbits.server import pumping
from openbits.server.pumping import BUFFER_BYTES, Ended

Pair = tuple[socket.socket, socket.socket]


def free() -> bool:
    return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def fd(tmp_path: pathlib.Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)


def content(fd: int) -> bytes:
    return os.pread(fd, 10**8, 0)


def test_all_of_it(pair: Pair, fd: int) -> None:
    data = os.urandom(3 * BUFFER_BYTES + 17)
    sender = threading.Thread(target=pair[1].sendall, args=(data,))
    sender.start()
    stored = 10
    while True:
        turn = pumping.receive(lambda: True, pair[0], b"", fd, stored, len(data) + 10 - stored)
        assert turn.taken == turn.stored
        stored += turn.stored
        if turn.ended is Ended.DONE:
            break
        assert turn.ended in (Ended.WAITING, Ended.TURN_OVER)
    sender.join(10)
    assert content(fd) == b"\0" * 10 + data


def test_never_a_byte_beyond_the_length(pair: Pair, fd: int) -> None:
    pair[1].sendall(b"cdefNEXT")
    turn = pumping.receive(free, pair[0], b"ab", fd, 0, 6)
    assert (turn.ended, turn.taken, turn.stored, content(fd)) == (Ended.DONE, 6, 6, b"abcdef")
    assert pair[0].recv(100) == b"NEXT"


def test_nothing_more_yet(pair: Pair, fd: int) -> None:
    pair[1].sendall(b"abc")
    turn = pumping.receive(free, pair[0], b"", fd, 0, 10)
    assert (turn.ended, turn.stored, content(fd)) == (Ended.WAITING, 3, b"abc")


def test_what_came_before_the_end_is_stored(pair: Pair, fd: int) -> None:
    pair[1].sendall(b"abc")
    pair[1].close()
    turn = pumping.receive(free, pair[0], b"_", fd, 0, 10)
    assert (turn.ended, turn.stored, content(fd)) == (Ended.GONE, 4, b"_abc")


def test_a_file_that_cannot_grow_says_how_much_it_has(pair: Pair, fd: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        pair[1].sendall(b"cdefgh")
        turn = pumping.receive(free, pair[0], b"ab", fd, 0, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (turn.ended, turn.taken, turn.stored, content(fd)) == (Ended.FILE_FAILED, 8, 5, b"abcde")
    assert turn.error is not None


def test_sending_stops_where_the_other_end_does_not_take_it(pair: Pair, fd: int) -> None:
    os.pwrite(fd, os.urandom(5_000_000), 0)
    turn = pumping.send(free, pair[0], fd, 0, 5_000_000)
    assert turn.ended is Ended.WAITING
    assert 0 < turn.taken < 5_000_000
    received = b""
    while len(received) < turn.taken:
        received += pair[1].recv(10**6)
    assert received == os.pread(fd, turn.taken, 0)


def test_a_file_that_is_too_short_is_told(pair: Pair, fd: int) -> None:
    os.pwrite(fd, b"abc", 0)
    turn = pumping.send(free, pair[0], fd, 1, 10)
    assert (turn.ended, turn.taken, pair[1].recv(100)) == (Ended.FILE_FAILED, 2, b"bc")


def test_nobody_listens(pair: Pair, fd: int) -> None:
    os.pwrite(fd, b"abc", 0)
    pair[1].close()
    assert pumping.send(free, pair[0], fd, 0, 3).ended is Ended.GONE
