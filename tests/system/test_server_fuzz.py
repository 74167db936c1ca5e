"""bits-server against whatever hypothesis thinks of: requests that are nearly HTTP, and conversations out of order.

A short run belongs to the tests; `make fuzz-server` gives each test FUZZ_S seconds.  What must hold is the same: every
answer is HTTP, nothing is answered that the protocol does not have, nothing is written elsewhere, no error of the
server's own shows in its log, and whatever a client does, a file that appears is the right one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from support.bits_server import BitsServer, running_bits_server
from support.raw_bits import PROTOCOL, Heard, RawBits

BUDGET_S = float(os.environ.get("FUZZ_S", "0"))
"""For each test; 0: as many examples as a test of the CI may take."""
SETTINGS = settings(
    max_examples=400,
    stateful_step_count=30,
    deadline=None,
    derandomize=False,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
STATUSES = {100, 200, 206, 304, 400, 403, 404, 405, 408, 411, 412, 413, 414, 416, 417, 421, 426, 431, 500, 501, 505}
CONFIG = """
[directory."/"]
upload_enabled = true
session_limit_enable = false
"""
SEED = os.urandom(1 << 16) * 8


@pytest.fixture(scope="module")
def server() -> Iterator[BitsServer]:
    with running_bits_server(config=CONFIG) as running:
        Path(running.root, "there.txt").write_bytes(b"0123456789")
        Path(running.root, "directory").mkdir()
        yield running


def repeatedly(run: object) -> None:
    """Once, or until the time is over."""
    assert callable(run)
    end = time.monotonic() + BUDGET_S
    run()
    while time.monotonic() < end:
        run()


def check_health(server: BitsServer) -> None:
    """It lives, and has nothing to complain about itself."""
    with RawBits(server.port) as client:
        assert client.ping().status == 200
    assert server.log is not None
    text = server.log.text
    for word in ("Traceback", "task-died", "request-failed", " ERROR "):
        assert word not in text, text[-5000:]


# --- nearly HTTP -------------------------------------------------------------------------------

TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20)
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["", "0", "1", "-1", "*", "bytes 0-0/1", "bytes */0", "chunked", "identity", "close"]),
    st.sampled_from(["a" * 4096, "a" * 4097, "a" * 9000, PROTOCOL, "{}", "../..", "%00", "\t", "100-continue"]),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "BITS-Packet-Type",
            "BITS-Session-Id",
            "BITS-Supported-Protocols",
            "Content-Range",
            "Content-Length",
            "Content-Name",
            "Content-Encoding",
            "Transfer-Encoding",
            "Expect",
            "Connection",
            "Host",
            "Range",
            "If-Range",
            "If-None-Match",
            "If-Modified-Since",
            "X-HTTP-Method-Override",
            "X-Forwarded-For",
            "Upgrade",
        ]
    ),
    TOKENS,
)
KINDS = st.sampled_from(["Ping", "Create-Session", "Fragment", "Close-Session", "Cancel-Session", "Ack", "x"])
PATHS = st.one_of(
    st.sampled_from(["/new", "/there.txt", "/directory", "/directory/", "/", "*", "/../x", "/%2e%2e/x"]),
    st.sampled_from(
        [
            "/.bits-sessions",
            "/BITS-Sessions/Replies/{0}/responsefile.bin",
            "http://o/new",
            "//x",
            "/a?b=c",
            "/%",
            "/\\x",
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), min_size=1, max_size=40).map(lambda text: "/" + text),
)
# Without HEAD: whether a body follows its answer cannot be told among pipelined ones.
METHODS = st.one_of(st.sampled_from(["BITS_POST", "GET", "POST", "PUT", "OPTIONS", "CONNECT", "PRI"]), TOKENS)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, well-formed or not."""
    lines = [f"{draw(METHODS)} {draw(PATHS)} {draw(st.sampled_from(['HTTP/1.1'] * 8 + ['HTTP/1.0', 'HTTP/2.0', 'x']))}"]
    if draw(st.integers(0, 9)):
        lines.append("Host: server.example")
    if draw(st.booleans()):
        lines.append(f"BITS-Packet-Type: {draw(KINDS)}")
    body = draw(st.binary(max_size=200))
    if draw(st.booleans()):
        lines.append(f"Content-Length: {len(body)}")
    for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=6)):
        lines.append(f"{name}: {value}")
    end = draw(st.sampled_from(["\r\n"] * 8 + ["\n", "\r"]))
    return (end.join(lines) + end + end).encode("latin-1") + body


def hear_all(client: RawBits) -> None:
    """Read answers until the server has no more to say; each must be one."""
    while True:
        try:
            heard = client.hear()
        except (ConnectionError, TimeoutError):
            return
        assert heard.status in STATUSES, heard
        assert heard.error[1] != "0x80004005", "the server's own mistake"


def test_whatever_is_sent_the_server_answers_in_http_and_writes_nothing_else(server: BitsServer) -> None:
    outside = sorted(os.listdir(server.base))

    @SETTINGS
    @given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(1, 400), max_size=5))
    def run(sent: list[bytes], cuts: list[int]) -> None:
        data = b"".join(sent)
        with RawBits(server.port) as client:
            for cut in cuts:
                client.send(data[:cut])
                data = data[cut:]
            client.send(data)
            with contextlib.suppress(OSError):
                client.sock.shutdown(1)
            hear_all(client)

    repeatedly(run)
    check_health(server)
    assert sorted(os.listdir(server.base)) == outside
    for name in os.listdir(server.root):
        path = Path(server.root, name)
        assert name in ("there.txt", "directory", ".bits-sessions") or path.stat().st_size <= 200


# --- conversations -----------------------------------------------------------------------------


@dataclass
class Model:
    """What a session must be at the server."""

    path: str
    id: str
    total: int | None = None
    least: int = 0
    """It has at least so much …"""
    most: int = 0
    """… and at most so much."""
    is_done: bool = False


_servers: list[BitsServer] = []
_paths = iter(range(10**9))


class Conversations(RuleBasedStateMachine):
    """Sessions in parallel, over one connection or many; the content of a file follows from the place in it."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.server = _servers[0]
        self.client = RawBits(self.server.port)

    def teardown(self) -> None:
        self.client.sock.close()

    def speak_for(self, model: Model) -> RawBits:
        self.client.path, self.client.id = model.path, model.id
        return self.client

    @initialize(target=sessions)
    def first(self) -> Model:
        return self.made()

    @rule(target=sessions)
    def create(self) -> Model:
        return self.made()

    def made(self) -> Model:
        self.client.path = f"/fuzz-{next(_paths)}"
        assert self.client.create().status == 200
        return Model(self.client.path, self.client.id)

    @rule()
    def ping(self) -> None:
        assert self.client.ping().status == 200

    @rule()
    def reconnect(self) -> None:
        self.client.reconnect()

    @rule(
        model=sessions, total=st.integers(0, 300_000), back=st.integers(-50_000, 50_000), length=st.integers(0, 100_000)
    )
    def fragment(self, model: Model, total: int, back: int, length: int) -> None:
        """A fragment near the place that is wanted; often exactly there."""
        total = model.total if model.total is not None else total
        start = min(max(0, model.most - (back if abs(back) < 20_000 else 0)), max(0, total - 1))
        length = min(length, total - start)
        if total and not length:
            return
        self.check_fragment(model, start, length, total, self.send(model, start, length, total))

    def send(self, model: Model, start: int, length: int, total: int) -> Heard:
        client = self.speak_for(model)
        body = SEED[start : start + length]
        return client.ranged("bytes */0") if not total else client.fragment(start, body, total)

    def check_fragment(self, model: Model, start: int, length: int, total: int, heard: Heard) -> None:
        assert heard.received is not None, heard
        if model.is_done:
            assert (heard.status, heard.received) == (200, total)
            return
        if heard.status == 416:
            assert model.least <= heard.received <= model.most
            assert heard.received < start
        else:
            assert heard.status == 200, heard
            model.total = total
            assert max(model.least, start + length) <= heard.received <= max(model.most, start + length)
        model.least = model.most = heard.received
        if heard.status == 200 and heard.received == total:
            model.is_done = True
        self.check_file(model)

    def check_file(self, model: Model) -> None:
        path = Path(self.server.root + model.path)
        if model.is_done:
            assert path.read_bytes() == SEED[: model.total]
        else:
            assert not path.exists() or model.least != model.most

    @rule(model=sessions, length=st.integers(1, 100_000), kept=st.floats(0, 1))
    def fragment_that_breaks_off(self, model: Model, length: int, kept: float) -> None:
        if model.total is None or model.is_done or model.least != model.most or model.most >= model.total:
            return
        length = min(length, model.total - model.most)
        count = int(length * kept)
        client = self.speak_for(model)
        body = SEED[model.most : model.most + length]
        client.send(client.fragment_head(model.most, length, model.total) + body[:count])
        client.reconnect()
        model.most += count

    @rule(model=sessions, delta=st.sampled_from([-1, 1, 1000]))
    def other_total(self, model: Model, delta: int) -> None:
        if model.total is None or model.total + delta <= 0:
            return
        heard = self.send(model, 0, 1, model.total + delta)
        assert heard.status == 400
        assert heard.error[1] == "0x80070057"

    @rule(model=consumes(sessions), kind=st.sampled_from(["Close-Session", "Cancel-Session"]))
    def end(self, model: Model, kind: str) -> None:
        client = self.speak_for(model)
        if model.least != model.most and model.total:
            # How much is there must be known, to know what becomes of it.
            heard = client.fragment(model.total - 1, SEED[model.total - 1 : model.total], model.total)
            self.check_fragment(model, model.total - 1, 1, model.total, heard)
        assert client.end(kind).status == 200
        assert client.end(kind).error == (500, "0x8020001f", "0x5")
        self.check_file(model)
        if not model.is_done:
            assert not Path(self.server.root + model.path).exists()

    @rule(chance=st.integers(0, 19))
    def kill(self, chance: int) -> None:
        if chance == 0:
            self.server.kill()
            self.server.start()
            self.client.reconnect()


def test_whatever_a_client_does_the_server_is_what_it_must_be(server: BitsServer) -> None:
    _servers[:] = [server]
    repeatedly(lambda: run_state_machine_as_test(Conversations, settings=settings(SETTINGS, max_examples=40)))
    check_health(server)
