"""A BITS upload server of our own that is honest, and misbehaves on command; every packet is written down.

`server.on("Fragment", refuse(413), skip=1, times=2)`: the second and the third fragment are answered so.  What a
packet asks for is told by `Packet.kind`: its BITS-Packet-Type as Windows writes it, or the method.  Files appear in
`server.files` with their last byte; `server.content` is served to GET.
"""

from __future__ import annotations

import functools
import itertools
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"
UNKNOWN_SESSION = (("BITS-Error-Code", "0x8020001f"), ("BITS-Error-Context", "0x5"))
WAIT_S = 60.0


class HangUp(Exception):
    """The connection ends here."""


@dataclass(kw_only=True)
class Packet:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int
    at: float
    body: bytes = b""
    """As much of it as was read."""
    status: int = 0
    """What it was answered; 0 for nothing."""

    @property
    def kind(self) -> str:
        return self.headers.get("bits-packet-type", self.method)

    @property
    def session(self) -> str:
        return self.headers.get("bits-session-id", "")

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def range(self) -> tuple[int, int, int]:
        """First, last and total of a fragment."""
        numbers = self.headers["content-range"].removeprefix("bytes ").replace("/", "-").split("-")
        return int(numbers[0]), int(numbers[1]), int(numbers[2])


@dataclass(kw_only=True)
class Session:
    """One upload."""

    path: str
    total: int = -1
    data: bytearray = field(default_factory=bytearray)

    @property
    def is_complete(self) -> bool:
        return len(self.data) == self.total


class Talk:
    """One packet and its connection, as an action gets them."""

    def __init__(self, server: UploadServer, connection: Connection, packet: Packet) -> None:
        self.server = server
        self.connection = connection
        self.packet = packet

    def read_body(self, most: int | None = None) -> None:
        """Read the body, or so much more of it."""
        left = self.packet.length - len(self.packet.body)
        self.packet.body += self.connection.read(left if most is None else min(most, left))

    def answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        """Answer, whatever it means."""
        self.packet.status = status
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in headers), "", ""]
        self.connection.sock.sendall("\r\n".join(lines).encode("latin-1") + body)

    def ack(self, status: int, *headers: tuple[str, str]) -> None:
        """Answer as the protocol says."""
        self.answer(status, ("BITS-Packet-Type", "Ack"), *headers)

    def honest(self, *, silent: bool = False) -> None:
        """Do what an honest server does; `silent` without an answer."""
        self.read_body()
        status, headers = self.server.process(self.packet)
        if not silent:
            self.ack(status, *headers)

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection."""
        if reset:
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise HangUp

    def linger(self) -> None:
        """End the connection as a careful server does: what still comes in is read, so that the answer is not lost."""
        self.connection.sock.shutdown(socket.SHUT_WR)
        while self.connection.sock.recv(1 << 20):
            pass
        raise HangUp


Action = Callable[[Talk], None]


# --- misbehaviour ------------------------------------------------------------------------------


def refuse(status: int, *headers: tuple[str, str]) -> Action:
    """Read it, store nothing, answer so."""

    def act(talk: Talk) -> None:
        talk.read_body()
        talk.ack(status, *headers)

    return act


def refuse_unread(status: int, *headers: tuple[str, str]) -> Action:
    """Answer without reading the body, and end the connection; the answer may be lost with it."""

    def act(talk: Talk) -> None:
        talk.answer(status, *headers, ("Connection", "close"))
        talk.hang_up()

    return act


def reply_raw(status: int, *headers: tuple[str, str], body: bytes = b"") -> Action:
    """Answer like a web server that knows nothing of BITS."""

    def act(talk: Talk) -> None:
        talk.read_body()
        talk.answer(status, *headers, body=body)

    return act


def store_and_claim(value: str | None) -> Action:
    """Store it, and say something else about how far the file has come; None says nothing."""

    def act(talk: Talk) -> None:
        talk.read_body()
        talk.server.process(talk.packet)
        talk.ack(200, *(() if value is None else (("BITS-Received-Content-Range", value),)))

    return act


def lose(*, after_bytes: int | None = None, stored: bool, reset: bool = False) -> Action:
    """Read the packet, or so many bytes of its body, and end the connection with or without having stored that."""

    def act(talk: Talk) -> None:
        talk.read_body(after_bytes)
        if stored:
            talk.server.process(talk.packet)
        talk.hang_up(reset=reset)

    return act


def truncate(kept: int) -> Action:
    """The server has lost bytes: it keeps so many, and says so (416)."""

    def act(talk: Talk) -> None:
        talk.read_body()
        del talk.server.sessions[talk.packet.session].data[kept:]
        talk.ack(416, ("BITS-Received-Content-Range", str(kept)))

    return act


def forget(talk: Talk) -> None:
    """The server has restarted and knows of no session."""
    talk.server.sessions.clear()
    talk.honest()


def wait(event: threading.Event, *, before_reading: bool = False) -> Action:
    """Do nothing until the event; with `before_reading` the body stays where it is."""

    def act(talk: Talk) -> None:
        if not before_reading:
            talk.read_body()
        event.wait(WAIT_S)
        talk.honest()

    return act


def slowly(seconds: float) -> Action:
    """An honest answer that takes its time: it is the server's notification of its application."""

    def act(talk: Talk) -> None:
        talk.read_body()
        talk.server.closing.wait(seconds)
        talk.honest()

    return act


# --- the server --------------------------------------------------------------------------------


@dataclass
class _Rule:
    kind: str
    action: Action
    skip: int
    times: int


class Connection:
    """One client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def read_head(self) -> list[str] | None:
        """The lines of the next request; None at the end."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._buffer += data
        block, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return block.decode("latin-1").split("\r\n")

    def read(self, count: int) -> bytes:
        """So many bytes of a body. Raises HangUp at the end."""
        pieces, self._buffer = [self._buffer[:count]], self._buffer[count:]
        count -= len(pieces[0])
        while count:
            piece = self.sock.recv(min(count, 1 << 20))
            if not piece:
                raise HangUp
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


class UploadServer:
    """A context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = self._listener.getsockname()[1]
        self.packets: list[Packet] = []
        self.sessions: dict[str, Session] = {}
        self.files: dict[str, bytes] = {}
        self.published: list[str] = []
        """Paths of files, as they came in whole."""
        self.content: dict[str, bytes] = {}
        self.reply_url = ""
        self.host_id: tuple[tuple[str, str], ...] = ()
        self.sends_ids = True
        self.closing = threading.Event()
        self._tls = tls
        self._rules: list[_Rule] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="uploads")

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                _quietly(functools.partial(sock.shutdown, socket.SHUT_RDWR))
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def on(self, kind: str, action: Action, *, skip: int = 0, times: int = 1) -> None:
        """Do this with packets of a kind (`*`: of any), after so many of them, so many times; rules in order."""
        self._rules.append(_Rule(kind, action, skip, times))

    def kinds(self, *, without: frozenset[str] = frozenset()) -> list[str]:
        """What was asked for, in order."""
        return [packet.kind for packet in list(self.packets) if packet.kind not in without]

    def of_kind(self, kind: str) -> list[Packet]:
        """Packets of a kind."""
        return [packet for packet in list(self.packets) if packet.kind == kind]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until something is true of what came in; each packet is an event."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise AssertionError(f"it did not come: {self.kinds()}")

    # --- honest work -------------------------------------------------------------------------

    def process(self, packet: Packet) -> tuple[int, tuple[tuple[str, str], ...]]:
        """What an honest server does with a packet, and how it answers."""
        with self._lock:
            return self._process(packet)

    def _process(self, packet: Packet) -> tuple[int, tuple[tuple[str, str], ...]]:
        if packet.method != "BITS_POST":
            return 405, ()
        session = self.sessions.get(packet.session)
        match packet.kind:
            case "Ping":
                return 200, ()
            case "Create-Session":
                name = f"{{{uuid.uuid4()}}}"
                self.sessions[name] = Session(path=packet.path)
                more = (("BITS-Session-Id", name), ("BITS-Protocol", PROTOCOL), ("Accept-Encoding", "identity"))
                return 200, more + self.host_id
            case _ if session is None:
                return 500, UNKNOWN_SESSION
            case "Fragment":
                return self._store(packet, session)
            case "Close-Session" | "Cancel-Session":
                del self.sessions[packet.session]
                return 200, self._id(packet)
            case _:
                return 400, (("BITS-Error-Code", "0x80070057"),)

    def _store(self, packet: Packet, session: Session) -> tuple[int, tuple[tuple[str, str], ...]]:
        was_complete = session.is_complete
        if packet.length == 0:
            session.total = 0
        else:
            first, _, session.total = packet.range
            if first != len(session.data):
                return 416, (("BITS-Received-Content-Range", str(len(session.data))),)
            session.data += packet.body
        headers = (("BITS-Received-Content-Range", str(len(session.data))), *self._id(packet))
        if session.is_complete:
            self.files[session.path] = bytes(session.data)
            if not was_complete:
                self.published.append(session.path)
            if self.reply_url:
                headers = (*headers, ("BITS-Reply-URL", self.reply_url))
        return 200, headers

    def _id(self, packet: Packet) -> tuple[tuple[str, str], ...]:
        return (("BITS-Session-Id", packet.session),) if self.sends_ids else ()

    # --- connections -------------------------------------------------------------------------

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock, number), name=f"upload-{number}")
            with self._lock:
                self._sockets.add(sock)
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        plain = sock
        try:
            if self._tls is not None:
                # What is wrapped has no descriptor any more that could be shut down.
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._sockets.add(sock)
            connection = Connection(sock)
            while (lines := connection.read_head()) is not None:
                self._answer(connection, _packet(lines, number))
        except (OSError, HangUp):
            pass
        finally:
            with self._lock:
                self._sockets -= {plain, sock}
            _quietly(sock.close)
            _quietly(plain.close)

    def _answer(self, connection: Connection, packet: Packet) -> None:
        talk = Talk(self, connection, packet)
        with self._changed:
            self.packets.append(packet)
            rule = next((rule for rule in self._rules if rule.times and rule.kind in ("*", packet.kind)), None)
            if rule is not None and rule.skip:
                rule.skip -= 1
                rule = None
            elif rule is not None:
                rule.times -= 1
            self._changed.notify_all()
        if rule is not None:
            rule.action(talk)
        elif packet.method in ("GET", "HEAD"):
            self._serve_content(talk)
        else:
            talk.honest()

    def _serve_content(self, talk: Talk) -> None:
        body = self.content.get(talk.packet.path)
        if body is None:
            talk.answer(404)
        else:
            talk.answer(200, ("ETag", '"reply"'), body=body)


def _packet(lines: list[str], connection: int) -> Packet:
    method, target, _ = lines[0].split(" ")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Packet(
        method=method,
        path=unquote(target.partition("?")[0]),
        headers=headers,
        connection=connection,
        at=time.monotonic(),
    )


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except OSError:
        return
