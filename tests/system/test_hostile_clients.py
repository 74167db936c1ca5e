"""Clients that stall, flood or babble cost themselves something and the others nothing (issue part 6)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.raw_http import acting_as, connect, get, read_all, read_answer, send_all

pytestmark = needs_root

MIB = 2**20
READ_TIMEOUT_S = 2
CONNECTIONS = 20
CONFIG = f"""
[api]
read_timeout_s = {READ_TIMEOUT_S}
max_connections_per_account = {CONNECTIONS}
"""
HEAD = b"GET /v1/version HTTP/1.1\r\nHost: bits\r\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(autouse=True)
def _the_service_is_none_the_worse(daemon: Daemon, alice: TestAccount) -> Iterator[None]:
    service = daemon.process_named("bitsd-service").pid
    yield
    if daemon._session is not None:
        daemon._session.close()
        daemon._session = None
    wait_until(lambda: connections(service) == 0, "the service to forget connections")
    assert daemon.process_named("bitsd-service").pid == service, "the service has ended"
    assert resident_bytes(daemon) < 200 * MIB


def connections(pid: int) -> int:
    """How many sockets a process has that were accepted: they carry the listening socket's path."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        rows = [line.split() for line in file]
    connected = "03"
    return sum(
        len(row) > 7 and row[5] == connected and row[7].endswith("/bitsd.sock") and f"socket:[{row[6]}]" in inodes
        for row in rows
    )


def resident_bytes(daemon: Daemon) -> int:
    pid = daemon.process_named("bitsd-service").pid
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        [line] = [line for line in file if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def assert_served(daemon: Daemon, account: TestAccount, within_s: float = 1.0) -> None:
    """Another account gets its answer in time."""
    before = time.monotonic()
    status, document = get(daemon.socket, "/v1/whoami", account.uid)
    assert (status, document["uid"]) == (200, account.uid)
    assert time.monotonic() - before < within_s


def test_a_client_that_says_nothing_is_hung_up_on(daemon: Daemon, mallory: TestAccount, alice: TestAccount) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        before = time.monotonic()
        assert_served(daemon, alice)
        assert read_all(sock) == b""
        assert READ_TIMEOUT_S - 0.5 < time.monotonic() - before < READ_TIMEOUT_S + 3


def test_a_request_that_trickles_in_is_hung_up_on(daemon: Daemon, mallory: TestAccount) -> None:
    """Every byte comes in time, the whole does not."""
    with connect(daemon.socket, mallory.uid) as sock:
        before = time.monotonic()
        sock.settimeout(0.2)
        for byte in HEAD + b"X-Slow: " + b"x" * 1000:
            try:
                sock.sendall(bytes([byte]))
                if sock.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - before < READ_TIMEOUT_S + 3


def test_a_body_that_does_not_come_is_not_waited_for(daemon: Daemon, mallory: TestAccount, alice: TestAccount) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        before = time.monotonic()
        sock.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\nContent-Length: 1000\r\n\r\n{")
        assert_served(daemon, alice)
        answer = read_all(sock)
        assert answer == b"" or b" 408 " in answer.split(b"\r\n")[0]
        assert time.monotonic() - before < READ_TIMEOUT_S + 3


def test_many_bodies_that_do_not_come_hold_up_nobody_else(
    daemon: Daemon, mallory: TestAccount, alice: TestAccount
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(connect(daemon.socket, mallory.uid))
            sock.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\nContent-Length: 20000000\r\n\r\n" + b" " * 1000)
        assert_served(daemon, alice)
        with connect(daemon.socket, alice.uid) as sock:
            body = json.dumps({"name": "x", "settings": {}}).encode() + b" " * MIB
            sock.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert read_answer(sock)[0] == 201


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Long: " + b"x" * 100_000,
        b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1\r\n",
        HEAD + b"x" * 100_000 + b": y\r\n",
    ],
    ids=["value", "target", "name"],
)
def test_a_header_that_is_too_long_is_refused(daemon: Daemon, mallory: TestAccount, head: bytes) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        send_all(sock, head + b"\r\n\r\n")
        answer = read_all(sock)
        assert answer == b"" or (answer.startswith(b"HTTP/1.") and answer[8:10] == b" 4")


def test_headers_without_end_are_refused(daemon: Daemon, mallory: TestAccount, alice: TestAccount) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        send_all(sock, HEAD)
        sock.settimeout(0.05)
        sent = 0
        deadline = time.monotonic() + READ_TIMEOUT_S + 3
        fields = b"".join(b"X-%06d: %s\r\n" % (number, b"x" * 1000) for number in range(1000))
        with contextlib.suppress(ConnectionError, TimeoutError):
            while time.monotonic() < deadline and sent < 500 * MIB:
                sock.sendall(fields)
                sent += len(fields)
        assert sent < 500 * MIB
        assert_served(daemon, alice)


def test_a_body_that_is_too_large_is_refused(daemon: Daemon, mallory: TestAccount) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        send_all(sock, b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\nContent-Length: 999999999\r\n\r\n")
        chunk = b" " * MIB
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(100):
                sock.sendall(chunk)
        answer = read_all(sock)
        assert answer == b"" or b" 413 " in answer.split(b"\r\n")[0]


def test_large_bodies_on_many_connections_do_not_fill_the_memory(
    daemon: Daemon, mallory: TestAccount, alice: TestAccount
) -> None:
    """An account's large requests are read one after the other."""
    body = b'{"name": "' + b"x" * (12 * MIB) + b'"}'
    request = b"POST /v1/jobs HTTP/1.1\r\nHost: bits\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(daemon.socket, mallory.uid)) for _ in range(CONNECTIONS)]
        for sock in sockets:
            sock.setblocking(False)
        left = dict.fromkeys(sockets, request)
        deadline = time.monotonic() + 30
        while any(left.values()) and time.monotonic() < deadline:
            for sock, data in left.items():
                with contextlib.suppress(BlockingIOError):
                    try:
                        left[sock] = data[sock.send(data[:MIB]) :] if data else b""
                    except ConnectionError:
                        left[sock] = b""
        assert_served(daemon, alice)


def test_an_account_has_so_many_connections_and_others_have_theirs(
    daemon: Daemon, mallory: TestAccount, alice: TestAccount
) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(daemon.socket, mallory.uid)) for _ in range(CONNECTIONS + 5)]
        for sock in sockets:
            send_all(sock, HEAD + b"\r\n")
        answers = []
        for sock in sockets:
            try:
                answers.append(read_answer(sock)[0])
            except (EOFError, ConnectionError):
                answers.append(0)
        assert answers == [200] * CONNECTIONS + [0] * 5
        assert_served(daemon, alice)


def test_a_closed_connection_counts_no_more(daemon: Daemon, mallory: TestAccount) -> None:
    for _ in range(3 * CONNECTIONS):
        assert get(daemon.socket, uid=mallory.uid)[0] == 200


def test_a_refused_client_fills_no_log(daemon: Daemon, mallory: TestAccount) -> None:
    assert daemon.log is not None
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(connect(daemon.socket, mallory.uid))
        wait_until(lambda: get_or_none(daemon, mallory) is None, "the limit")
        before = len(daemon.log.text)
        for _ in range(200):
            connect(daemon.socket, mallory.uid).close()
        time.sleep(0.5)
        assert len(daemon.log.text) - before < 1000


def get_or_none(daemon: Daemon, account: TestAccount) -> int | None:
    try:
        return get(daemon.socket, uid=account.uid)[0]
    except (EOFError, ConnectionError):
        return None


@pytest.mark.parametrize("count", [2, 5])
def test_requests_may_follow_each_other_without_waiting(daemon: Daemon, mallory: TestAccount, count: int) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        sock.sendall((HEAD + b"\r\n") * (count - 1) + HEAD + b"Connection: close\r\n\r\n")
        assert read_all(sock).count(b"HTTP/1.1 200 ") == count


def test_a_flood_of_requests_is_not_piled_up(daemon: Daemon, mallory: TestAccount, alice: TestAccount) -> None:
    """Whoever sends on and on without reading the answers does not fill the service's memory with questions."""
    flood = (HEAD + b"\r\n") * 50_000
    with connect(daemon.socket, mallory.uid) as sock:
        sock.settimeout(0.2)
        deadline = time.monotonic() + 4
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    sock.send(flood)
                assert_served(daemon, alice)


POST = b"POST /v1/jobs HTTP/1.1\r\nHost: b\r\n"


def post(body: bytes) -> bytes:
    return POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


GARBAGE = {
    "nul bytes": b"\0" * 1000,
    "random": os.urandom(100_000),
    "tls": bytes.fromhex("16030100c8010000c40303") + os.urandom(200),
    "http/0.9": b"GET /v1/version\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /v1/version HTTP/1.1\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a huge chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "a cut chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nx\r\n",
    "a bad gzip": POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "an absolute target": b"GET http://elsewhere/v1/version HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    "a proxy request": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: b\r\n\r\n",
    "an upgrade": b"GET /v1/version HTTP/1.1\r\nHost: b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "dots": b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    "percent": b"GET /v1/jobs/%00%ff%2e%2e HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    "deep json": post(b"[" * 200_000),
    "a lone surrogate": post(b'{"name": "\\ud800 x"}'),
    "not utf-8": post(b'{"name":"\xff\xfe"}'),
    "an empty body": post(b""),
    "a long number": post(b'{"name": 1%s}' % (b"0" * 9000)),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_answered_with_an_error_or_nothing(
    daemon: Daemon, mallory: TestAccount, alice: TestAccount, name: str
) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        send_all(sock, GARBAGE[name])
        sock.settimeout(READ_TIMEOUT_S + 5)
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            answer = sock.recv(65536)
        status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
        assert status == 0 or 200 <= status < 500, answer[:300]
        if name in ("an absolute target", "no host"):
            assert status in (200, 400, 404)
    assert_served(daemon, alice)


def test_a_client_that_closes_its_half_is_served_or_hung_up_on(daemon: Daemon, mallory: TestAccount) -> None:
    for data in (b"", HEAD, HEAD + b"\r\n", b"POST /v1/jobs HTTP/1.1\r\nHost: b\r\nContent-Length: 10\r\n\r\n{"):
        with connect(daemon.socket, mallory.uid) as sock:
            send_all(sock, data)
            sock.shutdown(socket.SHUT_WR)
            before = time.monotonic()
            read_all(sock)
            assert time.monotonic() - before < READ_TIMEOUT_S + 3


def test_clients_that_vanish_leave_nothing_behind(daemon: Daemon, mallory: TestAccount, alice: TestAccount) -> None:
    for data in (b"", HEAD, HEAD + b"\r\n", b"GET /v1/events HTTP/1.1\r\nHost: b\r\n\r\n") * 10:
        with connect(daemon.socket, mallory.uid) as sock:
            send_all(sock, data)
    wait_until(lambda: daemon.statistics()["listeners"] == 0, "listeners to be forgotten")


def test_a_listener_that_does_not_read_is_dropped_not_waited_for(
    daemon: Daemon, mallory: TestAccount, alice: TestAccount
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(connect(daemon.socket, mallory.uid))
            sock.sendall(b"GET /v1/events?after=0 HTTP/1.1\r\nHost: b\r\n\r\n")
        for _ in range(20):
            body = json.dumps({"name": "x" * 200}).encode()
            with connect(daemon.socket, mallory.uid) as sock:
                sock.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                assert read_answer(sock)[0] == 201
        assert_served(daemon, alice)


REFUSED = """
import socket, sys
path, count, timeout_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout_s)
    sock.connect(path)
    return sock

for _ in range(2 * count):
    with connect() as sock:
        sock.sendall(b"GET /v1/jobs HTTP/1.1\\r\\nHost: b\\r\\nConnection: close\\r\\n\\r\\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 ") and b"E_ACCESSDENIED" in answer, answer
silent = [connect() for _ in range(count + 5)]
for sock in silent:
    with sock:
        assert sock.recv(1) == b""
"""


def test_a_caller_who_is_refused_leaves_nothing_behind(daemon: Daemon) -> None:
    """One from another user namespace: nobody knows what the caller may do."""
    arguments = [daemon.socket, str(CONNECTIONS), str(READ_TIMEOUT_S + 10)]
    command = ["unshare", "--user", sys.executable, "-c", REFUSED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_i1_a_caller_with_very_many_groups_is_served(daemon: Daemon) -> None:
    """Python's own way to read a connection's groups ends at 256 of them."""
    groups = os.getgroups()
    os.setgroups(range(70_000, 70_300))
    try:
        for _ in range(2 * CONNECTIONS):
            status, _answer = get(daemon.socket)
            assert status == 200
    finally:
        os.setgroups(groups)


def test_the_caller_is_who_connected_whatever_it_says(daemon: Daemon, mallory: TestAccount) -> None:
    with connect(daemon.socket, mallory.uid) as sock:
        sock.sendall(
            b"GET /v1/whoami HTTP/1.1\r\nHost: b\r\nX-Remote-User: root\r\nAuthorization: Basic cm9vdDo=\r\n"
            b"X-Forwarded-For: 127.0.0.1\r\n\r\n"
        )
        assert json.loads(read_answer(sock)[1])["uid"] == mallory.uid
    with connect(daemon.socket, mallory.uid) as sock, acting_as(None):
        # Sent by root, over a connection that mallory made.
        sock.sendall(b"GET /v1/jobs?all_users=1 HTTP/1.1\r\nHost: b\r\n\r\n")
        assert read_answer(sock)[0] == 403
