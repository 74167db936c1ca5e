"""kill -9 of bits-server, at any byte: sessions are found again, what was acknowledged is there (U2, U42)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.bits_server import BitsServer, running_bits_server
from support.raw_bits import Heard, RawBits

MIB = 1 << 20
GIVE_UP_S = 60.0


@pytest.fixture
def server() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        yield running


class Killer:
    """Kills the server after every so many answers, and starts it again on the same directories and port."""

    def __init__(self, server: BitsServer, seed: int, *, answers: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.answers = answers
        self.kills = 0
        self._came = threading.Semaphore(0)
        self._is_over = False

    def note(self) -> None:
        """A client was answered."""
        self._came.release()

    def stop(self) -> None:
        """Let the server live."""
        self._is_over = True
        self._came.release(self.answers)

    def run(self) -> None:
        while True:
            for _ in range(self.answers):
                self._came.acquire()
            if self._is_over:
                return
            time.sleep(self.chance.uniform(0, 0.01))
            self.server.kill()
            self.kills += 1
            self.server.start()


def patiently(what: Callable[[], Heard]) -> Heard:
    """Do it until the server answers."""
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return what()
        except OSError:
            if time.monotonic() > deadline:
                raise
            # Nobody tells when a server that was killed is back.
            time.sleep(0.02)


def upload(server: BitsServer, path: str, body: bytes, piece_bytes: int, answered: Callable[[], None]) -> Heard:
    """Upload as a client must that trusts nothing but the server's offsets; returns the last fragment's answer."""
    client: RawBits | None = None
    session_id = ""

    def say(packet: Callable[[RawBits], Heard]) -> Heard:
        nonlocal client

        def attempt() -> Heard:
            nonlocal client
            if client is None:
                client = RawBits(server.port, path, session_id=session_id)
            try:
                return packet(client)
            except OSError:
                client.sock.close()
                client = None
                raise

        return patiently(attempt)

    made = say(lambda each: each.create())
    assert made.status == 200, made
    session_id = made.headers["bits-session-id"]
    offset = 0
    while True:
        piece = body[offset : offset + piece_bytes]
        heard = say(lambda each: each.fragment(offset, piece, len(body)))  # noqa: B023 -- called before they change
        assert heard.status in (200, 416), heard
        assert heard.received is not None
        offset = heard.received
        answered()
        if offset == len(body):
            break
    ended = say(lambda each: each.end())
    # Its answer may have been lost, and then the session is known no more.
    assert ended.status in (200, 500), ended
    if client is not None:
        client.sock.close()
    return heard


def test_create_that_was_answered_is_found_again(server: BitsServer) -> None:
    for number in range(5):
        with RawBits(server.port, f"/file-{number}") as client:
            client.create()
            server.kill()
            server.start()
            client.reconnect()
            assert client.fragment(0, b"x", 1).received == 1


def test_total_that_was_acknowledged_holds_after_a_kill(server: BitsServer) -> None:
    for number in range(4):
        with RawBits(server.port, f"/file-{number}") as client:
            client.create()
            assert client.fragment(0, b"0", 2).received == 1
            server.kill()
            server.start()
            client.reconnect()
            assert client.fragment(0, b"0", 1).status == 400
            assert client.fragment(1, b"1", 2).received == 2


def test_killed_while_it_receives(server: BitsServer) -> None:
    """What it says afterwards is the length of a true prefix, and no more than was sent."""
    chance = random.Random(4)
    body = chance.randbytes(8 * MIB)
    with RawBits(server.port) as client:
        client.create()
        offset = 0
        while offset < len(body):
            sent = chance.randrange(1, 2 * MIB)
            client.send(client.fragment_head(offset, len(body) - offset, len(body)))
            data = body[offset : offset + sent]
            client.send(data[: len(data) // 2])
            late = threading.Thread(target=client.send, args=(data[len(data) // 2 :],))
            late.start()
            if chance.random() < 0.5:
                late.join()
            server.kill()
            late.join()
            server.start()
            client.reconnect()
            heard = client.fragment(len(body) - 1, body[-1:], len(body))
            assert heard.status in (200, 416)
            assert heard.received is not None
            assert offset <= heard.received <= offset + len(data)
            offset = max(offset + 1, heard.received) if heard.status == 200 else heard.received
            if len(body) - offset < 2 * MIB:
                break
        assert client.fragment(offset, body[offset:], len(body)).received == len(body)
    assert (Path(server.root) / "file.bin").read_bytes() == body


def test_killed_while_it_finishes(server: BitsServer) -> None:
    """The last answer is lost; whatever had been done of it, the file is there once, whole, and never refused."""
    chance = random.Random(8)
    seen = set()
    for number in range(12):
        target = Path(server.root) / f"file-{number}"
        body = chance.randbytes(100_000)
        with RawBits(server.port, f"/{target.name}") as client:
            client.create()
            client.fragment(0, body[:50_000], len(body))
            client.send(client.fragment_head(50_000, 50_000, len(body)) + body[50_000:])
            # From "not yet read" to "long done".
            time.sleep(chance.choice([0, 0.001, 0.002, 0.003, 0.005, 0.01]))
            server.kill()
            seen.add(target.exists())
            if target.exists():
                assert target.read_bytes() == body
            server.start()
            client.reconnect()
            heard = client.fragment(50_000, body[50_000:], len(body))
            if heard.status == 416:
                assert heard.received is not None
                heard = client.fragment(heard.received, body[heard.received :], len(body))
            assert (heard.status, heard.received) == (200, len(body))
            assert client.end().status == 200
        assert target.read_bytes() == body
    files = os.listdir(os.path.join(server.root, ".bits-sessions"))
    assert [each for each in files if each.endswith(".part")] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_uploads_through_kills_arrive_whole(server: BitsServer, seed: int) -> None:
    chance = random.Random(seed)
    bodies = {f"file-{number}": chance.randbytes(chance.randrange(1, MIB)) for number in range(30)}
    errors: list[BaseException] = []

    def one(name: str) -> None:
        try:
            heard = upload(server, f"/{name}", bodies[name], 20_000, killer.note)
            assert heard.status == 200
        except BaseException as error:
            errors.append(error)
            raise

    killer = Killer(server, seed, answers=60)
    threads = [threading.Thread(target=one, args=(name,)) for name in bodies]
    killing = threading.Thread(target=killer.run)
    for thread in threads:
        thread.start()
    killing.start()
    for thread in threads:
        thread.join(GIVE_UP_S)
    killer.stop()
    killing.join(30)
    assert errors == []
    assert killer.kills >= 5
    for name, body in bodies.items():
        assert hashlib.sha256((Path(server.root) / name).read_bytes()).digest() == hashlib.sha256(body).digest()


def test_stop_in_good_order_keeps_what_came(server: BitsServer) -> None:
    with RawBits(server.port) as client:
        client.create()
        client.fragment(0, b"01234", 10)
        assert server.stop() == 0
        server.start()
        client.reconnect()
        heard = client.fragment(9, b"9", 10)
        assert (heard.status, heard.received) == (416, 5)


def test_u32_killed_between_notification_and_answer_notifies_again() -> None:
    """The application must expect that; what it answered counts once it was written down."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/take"
    arguments = ("--notify-type", "value", "--notify-url", url)
    with listener, running_bits_server(*arguments) as server, RawBits(server.port) as client:
        client.create()
        client.send(client.fragment_head(0, 5, 5) + b"01234")
        told, _ = listener.accept()
        assert b"POST /take" in told.recv(65536)
        server.kill()
        told.close()
        server.start()
        client.reconnect()
        client.send(client.fragment_head(0, 5, 5) + b"01234")
        told, _ = listener.accept()
        with contextlib.closing(told):
            data = told.recv(65536)
            while not data.endswith(b"01234"):
                data += told.recv(65536)
            told.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply")
        heard = client.hear()
        assert heard.status == 200
        server.kill()
        server.start()
        client.reconnect()
        assert client.fragment(0, b"01234", 5).headers["bits-reply-url"] == heard.headers["bits-reply-url"]
        path = "/" + heard.headers["bits-reply-url"].replace("{", "%7B").replace("}", "%7D")
        answer = client.say(None, {"Range": "bytes=1-3"}, method="GET", path=path, length=None)
        assert (answer.status, answer.body) == (206, b"epl")
        assert client.end().status == 200
        assert client.say(None, method="GET", path=path, length=None).status == 404
