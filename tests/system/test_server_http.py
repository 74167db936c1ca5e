"""The HTTP side of a real bits-server, spoken to over raw sockets (issue 4, part 4): requests, their ends, limits."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from support.bits_server import BitsServer, running_bits_server
from support.raw_client import RawClient

PROTOCOL = b"{7df0354d-249b-430f-820d-3d2a9bef4931}"
CONTENT = bytes(range(256)) * 64
LIMITS = """
[limits]
head_timeout_s = 2
stall_timeout_s = 2
idle_timeout_s = 4
max_connections = 40
"""
GET = b"GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n"
PING = b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Ping\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[BitsServer]:
    with running_bits_server(config=LIMITS) as running:
        with open(f"{running.root}/file.bin", "wb") as file:
            file.write(CONTENT)
        yield running
        assert running.log is not None
        # The network's troubles, which all of these tests make, are no news.
        assert "Traceback" not in running.log.text
        assert "ERROR" not in running.log.text


@pytest.fixture
def client(server: BitsServer) -> Iterator[RawClient]:
    with RawClient(server.port) as raw:
        yield raw


def create(client: RawClient, path: bytes = b"/up") -> bytes:
    """Create a session and return its id."""
    head = b"BITS_POST %s HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Create-Session\r\n" % path
    answer = client.ask(head + b"BITS-Supported-Protocols: %s\r\nContent-Length: 0\r\n\r\n" % PROTOCOL)
    assert answer.status == 200, answer
    session = answer.get("bits-session-id")
    assert session
    return session.encode()


def fragment(session: bytes, first: int, length: int, total: int, *, path: bytes = b"/up", more: bytes = b"") -> bytes:
    """The head of a fragment."""
    return (
        b"BITS_POST %s HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\nBITS-Session-Id: %s\r\n%s"
        b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        % (path, session, more, first, first + length - 1, total, length)
    )


# --- one after the other -------------------------------------------------------------------------


def test_a_connection_carries_many_requests_in_order(client: RawClient) -> None:
    for _ in range(3):
        assert client.ask(GET).body == CONTENT
        assert client.ask(PING).get("bits-packet-type") == "Ack"


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    client.send(GET + PING + GET + b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + PING)
    answers = [client.read_answer() for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert [bool(answer.get("bits-packet-type")) for answer in answers] == [False, True, False, False, True]
    assert answers[3].get("allow") == "GET, HEAD, OPTIONS, BITS_POST"


def test_a_pipelined_request_behind_a_fragment_is_the_next_request(client: RawClient) -> None:
    session = create(client, b"/pipelined")
    client.send(fragment(session, 0, 10, 20, path=b"/pipelined") + b"0123456789" + PING)
    client.send(fragment(session, 10, 10, 20, path=b"/pipelined") + b"abcdefghij")
    assert client.read_answer().get("bits-received-content-range") == "10"
    assert client.read_answer().get("bits-received-content-range") is None
    assert client.read_answer().get("bits-received-content-range") == "20"


def test_a_request_may_come_byte_by_byte(client: RawClient) -> None:
    for byte in PING:
        client.send(bytes([byte]))
    assert client.read_answer().status == 200


def test_blank_lines_before_a_request_are_passed_over(client: RawClient) -> None:
    assert client.ask(b"\r\n" + PING).status == 200
    client.send(b"\r\n")
    assert client.ask(PING).status == 200


def test_http_1_0_and_close_end_the_connection(server: BitsServer) -> None:
    for request in [b"GET /file.bin HTTP/1.0\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n"]:
        with RawClient(server.port) as client:
            answer = client.ask(request)
            assert (answer.status, answer.closes, answer.body) == (200, True, CONTENT)
            assert client.is_ended()


def test_a_client_that_has_shut_down_its_half_gets_its_answer(client: RawClient) -> None:
    client.send(GET)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read_answer().body == CONTENT
    assert client.is_ended()


@pytest.mark.parametrize("method", [b"PUT", b"DELETE", b"POST", b"bits_post", b"PROPFIND", b"TRACE"])
def test_other_methods_are_405_with_allow(client: RawClient, method: bytes) -> None:
    answer = client.ask(method + b" /file.bin HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert (answer.status, answer.get("allow")) == (405, "GET, HEAD, OPTIONS, BITS_POST")
    assert client.ask(GET).status == 200


def test_post_with_an_override_is_bits_post(client: RawClient) -> None:
    request = PING.replace(b"BITS_POST", b"POST").replace(b"Host", b"X-Http-Method-Override: BITS_POST\r\nHost")
    assert client.ask(request).get("bits-packet-type") == "Ack"


def test_an_absolute_target_is_the_path_in_it(client: RawClient) -> None:
    assert client.ask(b"GET http://elsewhere:80/file.bin?q HTTP/1.1\r\nHost: x\r\n\r\n").body == CONTENT


# --- requests whose end is in doubt --------------------------------------------------------------

SMUGGLED = b"GET /file.bin HTTP/1.1\r\nHost: smuggled\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n",
        b"X: y\r\n\tfolded\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\ncontent-length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length :5\r\n",
        b"Host: y\r\n",
        b"X\x00: y\r\n",
        b"X: \x00\r\n",
        b": y\r\n",
        b"Expect: 200-maybe\r\n",
    ],
)
def test_a_request_whose_end_is_in_doubt_is_the_last(client: RawClient, lines: bytes) -> None:
    head = b"BITS_POST /up HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Ping\r\n" + lines + b"\r\n"
    client.send_what_is_taken(head + b"0\r\n\r\n" + SMUGGLED)
    answer = client.read_answer()
    assert 400 <= answer.status < 600
    assert answer.closes
    assert client.is_ended()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /file.bin\r\n",
        b"GET  /file.bin HTTP/1.1\r\n",
        b"GET /file.bin HTTP/1.1 \r\n",
        b"GET /file.bin HTTP/2.0\r\n",
        b"GET /file.bin HTTP/1.1\n",
        b"GET /file bin HTTP/1.1\r\n",
        b"GET file.bin HTTP/1.1\r\n",
        b"GET * HTTP/1.1\r\n",
        b"CONNECT x:443 HTTP/1.1\r\n",
        b"GET http://user@x/file.bin HTTP/1.1\r\n",
        b"GE(T /file.bin HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n",
    ],
)
def test_what_is_no_request_is_refused_in_words(client: RawClient, request_line: bytes) -> None:
    client.send_what_is_taken(request_line + b"Host: x\r\n\r\n" + SMUGGLED)
    answer = client.read_answer()
    assert answer.status in (400, 505)
    assert answer.body.endswith(b"\n")
    assert client.is_ended()


def test_a_chunked_upload_is_411_and_the_end(client: RawClient) -> None:
    session = create(client, b"/chunked")
    head = fragment(session, 0, 5, 5, path=b"/chunked").replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    client.send_what_is_taken(head + b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
    answer = client.read_answer()
    assert (answer.status, answer.closes) == (411, True)
    assert client.is_ended()


# --- bodies that nobody wants --------------------------------------------------------------------


def test_a_short_unread_body_is_passed_over(client: RawClient) -> None:
    body = SMUGGLED * 10
    answer = client.ask(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (answer.status, answer.closes) == (405, False)
    assert client.ask(PING).status == 200


def test_a_long_unread_body_ends_the_connection_and_the_answer_arrives(client: RawClient) -> None:
    client.send(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
    client.send_what_is_taken(SMUGGLED * (3_000_000 // len(SMUGGLED)))
    answer = client.read_answer()
    assert (answer.status, answer.closes) == (405, True)
    assert client.is_ended()


def test_a_refused_fragment_is_drained_and_the_connection_goes_on(client: RawClient) -> None:
    session = create(client, b"/gap")
    body = os.urandom(2_000_000)
    client.send(fragment(session, 1_000, len(body), 10_000_000, path=b"/gap") + body)
    answer = client.read_answer()
    assert (answer.status, answer.get("bits-received-content-range")) == (416, "0")
    if not answer.closes:
        assert client.ask(PING).status == 200


# --- Expect --------------------------------------------------------------------------------------


def test_continue_is_said_when_the_body_is_wanted(client: RawClient) -> None:
    session = create(client, b"/expected")
    head = fragment(session, 0, 5, 5, path=b"/expected", more=b"Expect: 100-continue\r\n")
    assert client.ask(head).status == 100
    assert client.ask(b"hello").get("bits-received-content-range") == "5"
    assert client.ask(PING).status == 200


def test_continue_is_not_said_when_the_body_is_not_wanted(client: RawClient) -> None:
    head = fragment(b"{00000000-0000-0000-0000-000000000000}", 0, 5, 5, more=b"Expect: 100-continue\r\n")
    answer = client.ask(head)
    assert (answer.status, answer.closes) == (500, True)
    assert client.is_ended()


def test_continue_is_not_said_when_the_body_is_here(client: RawClient) -> None:
    session = create(client, b"/hasty")
    head = fragment(session, 0, 5, 5, path=b"/hasty", more=b"Expect: 100-continue\r\n")
    assert client.ask(head + b"hello").status == 200


# --- time and size -------------------------------------------------------------------------------


def test_a_slow_head_is_cut_off(client: RawClient) -> None:
    began = time.monotonic()
    client.send(b"GET /file.bin HTTP/1.1\r\nHo")
    assert client.is_ended()
    assert 1.5 < time.monotonic() - began < 10


def test_an_idle_connection_is_closed(client: RawClient) -> None:
    assert client.ask(PING).status == 200
    began = time.monotonic()
    assert client.is_ended()
    assert 3 < time.monotonic() - began < 12


def test_a_stalled_body_is_cut_off_and_what_came_is_kept(server: BitsServer, client: RawClient) -> None:
    session = create(client, b"/stalled")
    client.send(fragment(session, 0, 100, 100, path=b"/stalled") + b"x" * 40)
    began = time.monotonic()
    assert client.is_ended()
    assert 1.5 < time.monotonic() - began < 10
    with RawClient(server.port) as again:
        answer = again.ask(fragment(session, 60, 40, 100, path=b"/stalled") + b"y" * 40)
        assert (answer.status, answer.get("bits-received-content-range")) == (416, "40")


def test_a_client_that_does_not_take_its_answer_is_let_go(server: BitsServer) -> None:
    path = f"{server.root}/large"
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    with RawClient(server.port) as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        with RawClient(server.port) as other:
            for _ in range(5):
                assert other.ask(PING).status == 200
        time.sleep(4)
        # What the kernel holds comes, and then the end, before all of it.
        received = len(client.read_end())
    assert received < 200_000_000
    os.unlink(path)


def test_a_long_head_is_431(client: RawClient) -> None:
    client.send_what_is_taken(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: %s\r\n" % (b"y" * 1000) * 70 + b"\r\n")
    assert client.read_answer().status == 431
    assert client.is_ended()


def test_many_headers_are_431(client: RawClient) -> None:
    client.send_what_is_taken(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n")
    assert client.read_answer().status == 431


def test_a_header_over_4096_characters_is_400_with_the_code(client: RawClient) -> None:
    request = PING.replace(b"Host: x", b"Host: x\r\nContent-Name: " + b"y" * 4097)
    answer = client.ask(request)
    assert (answer.status, answer.get("bits-error-code")) == (400, "0x80070057")


def test_at_the_limit_the_oldest_idle_connection_makes_room(server: BitsServer) -> None:
    clients = [RawClient(server.port) for _ in range(60)]
    try:
        for each in clients[-20:]:
            assert each.ask(PING).status == 200
        assert clients[0].is_ended()
    finally:
        for each in clients:
            each.sock.close()


def test_busy_connections_are_not_pushed_out(server: BitsServer) -> None:
    with RawClient(server.port) as busy:
        session = create(busy, b"/busy")
        head = fragment(session, 0, 10, 10, path=b"/busy", more=b"Expect: 100-continue\r\n")
        assert busy.ask(head).status == 100
        busy.send(b"01234")
        clients = [RawClient(server.port) for _ in range(60)]
        for each in clients:
            each.sock.close()
        busy.send(b"56789")
        assert busy.read_answer().get("bits-received-content-range") == "10"


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/../../../../etc/passwd",
        b"/..%2f..%2f..%2fetc/passwd",
        b"/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        b"/.%2e/etc/passwd",
        b"/%252e%252e/etc/passwd",
        b"/..%5c..%5cetc%5cpasswd",
        b"/..\\..\\etc\\passwd",
        b"/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        b"/%e0%80%ae%e0%80%ae/etc/passwd",
        b"/%uff0e%uff0e/etc/passwd",
        b"//etc/passwd",
        b"/./file.bin",
        b"/file.bin%00.txt",
        b"/file.bin%0a",
        b"/%2fetc%2fpasswd",
        b"/escape",
        b"/escape/passwd",
        b"/inner/file",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"BITS_POST"])
def test_no_path_leads_out_of_the_root(server: BitsServer, client: RawClient, path: bytes, method: bytes) -> None:
    for name, target in [("escape", "/etc"), ("inner", ".")]:
        if not os.path.lexists(f"{server.root}/{name}"):
            os.symlink(target, f"{server.root}/{name}")
    more = b"BITS-Packet-Type: Create-Session\r\nBITS-Supported-Protocols: %s\r\n" % PROTOCOL
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n%s\r\n" % (method, path, more)
    answer = client.ask(head, to_head=method == b"HEAD")
    if (method, path) == (b"BITS_POST", b"/escape"):
        # A link is a name that is taken; what it points to is never touched.
        assert answer.status == 403
        return
    assert answer.status in (400, 403, 404, 500), answer
    assert b"root:" not in answer.body
