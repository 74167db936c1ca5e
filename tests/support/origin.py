"""A web server of our own that does everything that a web server may do, and more.

`with Origin() as origin: origin.url("/gen/1000/7?ranges=no")`.  `/gen/SIZE/SEED` serves SIZE bytes
that `generate` makes of SEED; the query says how it misbehaves (see `Options`).  Other paths:
`/redirect/N/TARGET...` (N hops), `/loop`, `/to?url=...&status=...`, `/status/CODE`, `/garbage`,
`/silent`, and whatever a test registers with `origin.serve(path, function)`.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

_BLOCK = 64 * 1024
_SEND = 64 * 1024
_EPOCH = 1_700_000_000


@functools.lru_cache(maxsize=64)
def _base(seed: int) -> bytes:
    return random.Random(seed).randbytes(_BLOCK)


def generate(size: int, seed: int, offset: int = 0, length: int | None = None) -> bytes:
    """`length` bytes from `offset` of the file (size, seed); every block of it is different."""
    end = size if length is None else min(size, offset + length)
    base = _base(seed)
    first = offset // _BLOCK
    blocks = [struct.pack("<QQ", index, seed) + base[16:] for index in range(first, -(-end // _BLOCK))]
    return b"".join(blocks)[offset - first * _BLOCK : end - first * _BLOCK]


def last_modified(seed: int) -> str:
    """The date that a file of this seed has."""
    return formatdate(_EPOCH + seed, usegmt=True)


@dataclasses.dataclass
class Options:
    """The query of /gen."""

    rate: int = 0  # bytes a second; 0: as fast as can be
    cut: int = -1  # end the connection after so many bytes of the body …
    reset: int = 0  # … with a reset
    stall: int = -1  # send nothing more after so many bytes of the body
    cut_all: int = -1  # end the connection after so many bytes of the answer, its header included
    times: int = 1_000_000  # how many requests of this path are cut, stalled or refused
    ranges: str = "yes"  # no: ignore Range; silent: serve them and do not say so
    etag: str = "strong"  # weak, no
    lm: str = "yes"  # no
    length: str = "yes"  # no: the end of the connection ends the body; both: two different ones
    chunked: int = 0
    http10: int = 0
    lie: int = 0  # Content-Length is so much too large (or small)
    extra: int = 0  # bytes of rubbish behind the body
    gzip: int = 0
    coding: str = ""  # a Content-Encoding that is claimed
    change_after: int = 1_000_000  # after so many requests the file is another one (seed + 1) …
    change_every: int = 0  # … or with every request
    cr: str = ""  # Content-Range: wrong, missing, total, star, early, short, unproven
    ifrange: str = "obey"  # ignore
    status: int = 0  # answer this …
    retry_after: str = ""  # … with this
    multi: str = ""  # merge, reverse, first, ignore, whole, nolength, garbage
    head: str = "yes"  # no
    header_bytes: int = 0  # so much more header
    early_hints: int = 0


@dataclasses.dataclass
class Request:
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int
    at: float

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Hangup(Exception):
    """End the connection now."""


class Origin:
    """A context manager; `requests` is what came in, in order."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self._tls = tls
        self._counts: Counter[str] = Counter()
        self._functions: dict[str, Callable[[Request, Connection], None]] = {}
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, name="origin")
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with _quiet():
                    # The connection itself, under TLS too: its thread reads from it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)

    def url(self, path: str, scheme: str | None = None) -> str:
        """The URL of a path."""
        return f"{scheme or ('https' if self._tls else 'http')}://127.0.0.1:{self.port}{path}"

    def serve(self, path: str, function: Callable[[Request, Connection], None]) -> None:
        """Answer requests of a path (without query) by a function."""
        self._functions[path] = function

    def requests_of(self, path: str) -> list[Request]:
        """Requests of one path, whatever the query."""
        return [request for request in self.requests if request.path == path]

    def count(self, key: str) -> int:
        """How often this was called with the key before."""
        with self._lock:
            self._counts[key] += 1
            return self._counts[key] - 1

    def _accept(self) -> None:
        number = 0
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number += 1
            thread = threading.Thread(target=self._talk, args=(sock, number), name=f"origin-{number}")
            with self._lock:
                self._sockets.add(sock)
                self._threads.append(thread)
            thread.start()

    def _talk(self, sock: socket.socket, number: int) -> None:
        plain = sock
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._sockets.add(sock)
                self._shake_hands(sock)
            connection = Connection(self, sock)
            while (request := connection.read_request(number)) is not None:
                with self._lock:
                    self.requests.append(request)
                self._answer(request, connection)
        except (OSError, Hangup):
            pass
        finally:
            with self._lock:
                self._sockets -= {plain, sock}
            with _quiet():
                sock.close()
            with _quiet():
                plain.close()

    def _shake_hands(self, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except ssl.SSLError:
            # Closing with bytes unread would be a reset, which may overtake the alert that says why.
            os.set_blocking(sock.fileno(), True)
            while os.read(sock.fileno(), 65536):
                pass
            raise

    def _answer(self, request: Request, connection: Connection) -> None:
        function = self._functions.get(request.path)
        if function is not None:
            function(request, connection)
            return
        parts = request.path.strip("/").split("/")
        query = dict(parse_qsl(urlsplit(request.target).query))
        match parts[0]:
            case "gen":
                Generated(self, connection, request, int(parts[1]), int(parts[2]), _options(query)).answer()
            case "status":
                connection.send_whole(int(parts[1]), b"sorry\n")
            case "redirect":
                hops, target = int(parts[1]), "/" + "/".join(parts[2:])
                where = f"/redirect/{hops - 1}{target}" if hops > 1 else target
                query_text = urlsplit(request.target).query
                where += f"?{query_text}" if query_text else ""
                connection.send_whole((301, 302, 303, 307, 308)[hops % 5], b"moved\n", f"Location: {where}\r\n")
            case "to":
                connection.send_whole(int(query.get("status", "302")), b"", f"Location: {query['url']}\r\n")
            case "loop":
                connection.send_whole(302, b"", "Location: /loop\r\n")
            case "garbage":
                connection.send(b"\x00\x01\x02 this is no HTTP at all\r\n\r\n" * 20)
                raise Hangup
            case "silent":
                self.closing.wait(60)
                raise Hangup
            case _:
                connection.send_whole(404, b"no such path\n")


class Connection:
    """One client's connection."""

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.sock = sock
        self._buffer = b""

    def read_request(self, number: int) -> Request | None:
        """The next request; None at the end."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._buffer += data
        block, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Request(method, target, headers, number, time.monotonic())

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.sock.sendall(data)

    def send_whole(self, status: int, body: bytes, more: str = "") -> None:
        """A complete, honest answer."""
        self.send(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode("latin-1") + body)

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Hangup


class Generated:
    """One answer of /gen."""

    def __init__(
        self, origin: Origin, connection: Connection, request: Request, size: int, seed: int, options: Options
    ) -> None:
        self.connection = connection
        self.request = request
        self.size = size
        self.options = options
        self.turn = origin.count(request.target)
        self.is_bad = self.turn < options.times
        if options.change_every:
            seed += self.turn
        elif self.turn >= options.change_after:
            seed += 1
        self.seed = seed
        self.sent = 0

    @property
    def etag(self) -> str:
        return f'"v{self.seed}-{self.size}"'

    def answer(self) -> None:
        options = self.options
        if options.status and self.is_bad:
            more = f"Retry-After: {options.retry_after}\r\n" if options.retry_after else ""
            self.connection.send_whole(options.status, b"not now\n", more)
            return
        if self.request.method == "HEAD" and options.head == "no":
            self.connection.send_whole(405, b"")
            return
        if options.early_hints:
            self.connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        ranges = self._wanted()
        if ranges is None:
            self._send_whole()
        elif not ranges:
            self._send(416, [f"Content-Range: bytes */{self.size}"], b"", 0)
        elif len(ranges) == 1 or options.multi == "first":
            self._send_part(*ranges[0])
        else:
            self._send_parts(ranges)

    def _wanted(self) -> list[tuple[int, int]] | None:
        value = self.request.range
        options = self.options
        if value is None or options.ranges == "no":
            return None
        if_range = self.request.headers.get("if-range")
        if if_range is not None and options.ifrange == "obey" and if_range not in (self.etag, last_modified(self.seed)):
            return None
        wanted = []
        for spec in value.removeprefix("bytes=").split(","):
            match = re.fullmatch(r"\s*(\d+)-(\d*)\s*", spec)
            assert match is not None, value
            first, last = int(match[1]), min(int(match[2] or self.size), self.size - 1)
            if first < self.size:
                wanted.append((first, last))
        if len(wanted) > 1 and options.multi == "ignore":
            return None
        return wanted

    def _validators(self) -> list[str]:
        options = self.options
        lines = []
        if options.etag == "strong":
            lines.append(f"ETag: {self.etag}")
        elif options.etag == "weak":
            lines.append(f"ETag: W/{self.etag}")
        if options.lm == "yes":
            lines.append(f"Last-Modified: {last_modified(self.seed)}")
        if options.ranges == "yes":
            lines.append("Accept-Ranges: bytes")
        return lines

    def _send_whole(self) -> None:
        if self.options.gzip:
            body = gzip.compress(generate(self.size, self.seed), 1, mtime=0)
            self._send(200, [*self._validators(), "Content-Encoding: gzip"], body, len(body))
            return
        lines = self._validators()
        if self.options.coding:
            lines.append(f"Content-Encoding: {self.options.coding}")
        self._send(200, lines, self._pieces(0, self.size), self.size)

    def _send_part(self, first: int, last: int) -> None:
        total = f"{self.size}"
        lines = self._validators()
        shown_first, shown_last = first, last
        match self.options.cr:
            case "wrong":
                shown_first = first = first + 7
            case "early":
                first = shown_first = max(0, first - 10)
            case "short":
                last = shown_last = min(last, first + 99_999)
            case "total":
                total = str(self.size + 5)
            case "star":
                total = "*"
            case "unproven":
                lines = []
        if self.options.cr != "missing":
            lines.append(f"Content-Range: bytes {shown_first}-{shown_last}/{total}")
        self._send(206, lines, self._pieces(first, last - first + 1), last - first + 1)

    def _send_parts(self, ranges: list[tuple[int, int]]) -> None:
        multi = self.options.multi
        if multi == "reverse":
            ranges.reverse()
        elif multi == "merge":
            ordered = sorted(ranges)
            merged = [ordered[0]]
            for first, last in ordered[1:]:
                if first - merged[-1][1] < 2_000:
                    merged[-1] = (merged[-1][0], last)
                else:
                    merged.append((first, last))
            ranges = merged
        elif multi == "whole":
            ranges = [(0, self.size - 1)]
        if len(ranges) == 1 and multi != "garbage":
            self._send_part(*ranges[0])
            return
        body = b"" if multi != "garbage" else b"x" * 5_000
        for first, last in ranges:
            body += (
                f"\r\n--THE-BOUNDARY\r\nContent-Type: application/octet-stream\r\n"
                f"Content-Range: bytes {first}-{last}/{self.size}\r\n\r\n"
            ).encode() + generate(self.size, self.seed, first, last - first + 1)
        body += b"\r\n--THE-BOUNDARY--\r\n"
        lines = [*self._validators(), "Content-Type: multipart/byteranges; boundary=THE-BOUNDARY"]
        self._send(206, lines, body, len(body))

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        while length > 0:
            piece = generate(self.size, self.seed, offset, min(_SEND, length))
            yield piece
            offset += len(piece)
            length -= len(piece)

    def _send(self, status: int, lines: list[str], body: bytes | Iterator[bytes], length: int) -> None:
        options = self.options
        is_framed = True
        head = [f"HTTP/{'1.0' if options.http10 else '1.1'} {status} OK", f"Date: {formatdate(usegmt=True)}"]
        if options.chunked:
            head.append("Transfer-Encoding: chunked")
        elif options.length == "no":
            is_framed = False
            head.append("Connection: close")
        elif options.length == "both":
            head += [f"Content-Length: {length}", f"Content-Length: {length + 1}"]
        else:
            head.append(f"Content-Length: {length + options.lie}")
        if options.header_bytes:
            head += [f"X-Filler-{at}: {'x' * 1000}" for at in range(0, options.header_bytes, 1000)]
        self._put(("\r\n".join([*head, *lines]) + "\r\n\r\n").encode("latin-1"), is_body=False)
        if self.request.method == "HEAD":
            return
        for piece in [body] if isinstance(body, bytes) else body:
            if options.chunked and piece:
                self._put(f"{len(piece):x}\r\n".encode(), is_body=False)
            self._put(piece, is_body=True)
            if options.chunked and piece:
                self._put(b"\r\n", is_body=False)
        if options.chunked:
            self._put(b"0\r\nX-Trailer: yes\r\n\r\n", is_body=False)
        if options.extra:
            self.connection.send(b"R" * options.extra)
        if not is_framed or options.http10 or options.lie:
            self.connection.hang_up()

    def _put(self, data: bytes, *, is_body: bool) -> None:
        """Send a piece, and do what was ordered for the bytes in it."""
        options, connection = self.options, self.connection
        limits = []
        if self.is_bad and options.cut_all >= 0:
            limits.append((options.cut_all - self.total, "cut"))
        if self.is_bad and is_body and options.cut >= 0:
            limits.append((options.cut - self.sent, "cut"))
        if self.is_bad and is_body and options.stall >= 0:
            limits.append((options.stall - self.sent, "stall"))
        left, what = min(limits, default=(len(data) + 1, ""))
        self._send_slowly(data[: max(0, left)], is_body=is_body)
        if left <= len(data) and what == "cut":
            connection.hang_up(reset=bool(options.reset))
        elif left <= len(data) and what == "stall":
            connection.origin.closing.wait(60)
            raise Hangup

    total = 0

    def _send_slowly(self, data: bytes, *, is_body: bool) -> None:
        self.total += len(data)
        if not is_body:
            self.connection.send(data)
            return
        self.sent += len(data)
        rate = self.options.rate
        if not rate:
            self.connection.send(data)
            return
        step = max(1, rate // 50)
        for at in range(0, len(data), step):
            self.connection.send(data[at : at + step])
            if self.connection.origin.closing.wait(0.02):
                raise Hangup


def _options(query: dict[str, str]) -> Options:
    options = Options()
    for name, value in query.items():
        if hasattr(options, name):
            is_number = isinstance(getattr(options, name), int)
            setattr(options, name, int(value) if is_number else unquote(value))
    return options


class _quiet:  # noqa: N801 -- reads as contextlib.suppress does
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)
