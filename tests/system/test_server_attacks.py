"""What an attacker tries against bits-server, over the network and from an account of the same machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openbits.server.control import call
from openbits.server.publications import NotPublished
from support.bits_server import PROGRAM, BitsServer, running_bits_server
from support.raw_bits import Heard, RawBits

SECRET = b"a part of somebody's upload"


@pytest.fixture
def server() -> Iterator[BitsServer]:
    with running_bits_server("--allow-overwrites") as running:
        yield running


def get(server: BitsServer, path: str) -> Heard:
    with RawBits(server.port, path) as client:
        return client.say(None, method="GET", length=None)


# --- the working directory -----------------------------------------------------------------------


def test_a_working_directory_that_was_renamed_is_still_nobodys(server: BitsServer) -> None:
    """Whoever may write to the root can rename what is in it: the server's own files must not become downloads."""
    working, moved = Path(server.root, ".bits-sessions"), Path(server.root, "moved")
    with RawBits(server.port) as client:
        client.create()
        assert client.fragment(0, SECRET, 1000).status == 200
        assert server.command_of("publish", "/all", server.root).returncode == 0
        working.rename(moved)
        names = sorted(os.listdir(moved))
        assert "sessions.sqlite" in names
        for name in names:
            for path in (f"/moved/{name}", f"/all/moved/{name}"):
                assert get(server, path).status == 404
        with RawBits(server.port, "/moved/sessions.sqlite") as other:
            assert other.create().error[:2] == (403, "0x80070005")


def test_an_upload_never_ends_in_the_working_directory(server: BitsServer) -> None:
    """Not even when its destination has become the working directory since the session was made."""
    outer, working, moved = (Path(server.root, name) for name in ("d", ".bits-sessions", "moved"))
    outer.mkdir()
    with RawBits(server.port, "/d/sessions.sqlite") as client:
        client.create()
        outer.rename(moved)
        working.rename(outer)
        assert client.fragment(0, SECRET, len(SECRET)).error[:2] == (403, "0x80070005")
    assert Path(outer, "sessions.sqlite").read_bytes()[:15] == b"SQLite format 3"


def fails(*arguments: str) -> str:
    command = [*PROGRAM, "--listen", "127.0.0.1:0", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1), found.stderr
    return found.stderr


def test_a_link_in_place_of_the_working_directory_is_not_followed(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.mkdir(mode=0o755)
    victim.chmod(0o755)
    (root / ".bits-sessions").symlink_to(victim)
    assert "is a symbolic link" in fails("--root", str(root))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
    assert os.listdir(victim) == []


def test_the_root_cannot_be_the_working_directory(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'root = "{tmp_path}"\nworking_directory = "{tmp_path}"\n')
    assert "is the root itself" in fails("--config", str(config))


def test_a_working_directory_with_dots_in_its_name_is_hidden_as_well(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with running_bits_server(config=f'working_directory = "{tmp_path}/root/..w"\n', base=str(tmp_path)) as server:
        for path in ("/..w/new", "/..W/new"):
            with RawBits(server.port, path) as client:
                assert client.create().error[:2] == (403, "0x80070005")


# --- what one client costs -----------------------------------------------------------------------


def test_a_session_does_not_remember_what_a_client_chooses_without_end(server: BitsServer) -> None:
    """Each session keeps its URL in memory and in the journal for up to 14 days."""
    with RawBits(server.port, "/f?" + "q" * 60_000) as client:
        assert client.create().error[:2] == (400, "0x80070057")
    with RawBits(server.port, "/f?" + "q" * 4_000) as client:
        assert client.create().status == 200


# --- what the log says ---------------------------------------------------------------------------


def test_no_header_reaches_the_log_as_it_is(server: BitsServer) -> None:
    """Escape sequences would speak to the terminal of whoever looks at the log, and NEL begins a line for some."""
    with RawBits(server.port) as client:
        assert client.say("\x1b]0;evil\x07\x85bits-server: CRITICAL").status == 400
        assert client.say("Fragment", {"BITS-Session-Id": "\x1b[31mid", "Content-Range": "\x9b"}).status == 400
    assert server.log is not None
    line = server.log.wait_line("type='\\x1b", 10)
    assert all(" " <= character <= "~" for character in line.rstrip("\n"))
    server.log.wait_line("Fragment", 10)
    assert "\x1b" not in server.log.text


# --- publishing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "status", "said"),
    [
        ("999999999d", 1, "centuries away"),
        ("9999-12-31T23:59:59", 1, "centuries away"),
        ("0001-01-01T00:00:00", 2, "is no time"),
        ("2000-01-01", 1, "is over already"),
        ("0", 1, "is over already"),
        ("-1h", 2, "is no time"),
        ("", 2, "is no time"),
    ],
)
def test_times_that_no_calendar_has_are_refused(server: BitsServer, when: str, status: int, said: str) -> None:
    """A publication whose end could not be shown would take `list` from everybody."""
    found = server.command_of("publish", "/x", __file__, "--expires", when)
    assert (found.returncode, said in found.stderr, found.stderr.count("\n")) == (status, True, 1), found.stderr
    listed = server.command_of("list")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "")


@pytest.mark.parametrize("lasts_s", [float("nan"), float("inf"), 1e300, "1", [], True])
def test_a_publisher_with_a_program_of_his_own_breaks_nothing(server: BitsServer, lasts_s: object) -> None:
    request = {"do": "publish", "prefix": "/x", "path": "/", "lasts_s": lasts_s, "allow": None}
    with open(__file__, "rb") as file, pytest.raises(NotPublished):
        call(server.control_socket, request, fd=file.fileno())
    assert call(server.control_socket, {"do": "list"}) == {"publications": []}


# --- connections ---------------------------------------------------------------------------------


def test_nobody_leaves_at_the_limit_before_somebody_comes() -> None:
    with running_bits_server(config="[limits]\nmax_connections = 2\n") as server, contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(RawBits(server.port)) for _ in range(2))
        for client in (second, first, second):
            assert client.ping().status == 200
        third = stack.enter_context(RawBits(server.port))
        assert third.ping().status == 200
        assert first.is_closed()
        assert second.ping().status == 200


def test_heads_that_never_end_keep_nobody_out() -> None:
    with running_bits_server(config="[limits]\nmax_connections = 3\n") as server, contextlib.ExitStack() as stack:
        for _ in range(10):
            slow = stack.enter_context(RawBits(server.port))
            slow.send(b"GET / HTTP/1.1\r\nHost:")
        with RawBits(server.port) as client:
            assert client.ping().status == 200


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"^VmRSS:\s+([0-9]+) kB$", status, re.MULTILINE)[0])


def test_long_heads_that_never_end_cost_little() -> None:
    with running_bits_server() as server, contextlib.ExitStack() as stack:
        before = memory_kib(server.pid)
        for _ in range(1_500):
            slow = stack.enter_context(RawBits(server.port))
            slow.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 60_000)
        with RawBits(server.port) as client:
            # The last head of them all, and in order behind them.
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 60_000 + b"\r\n\r\n")
            assert client.hear().status == 404
        assert memory_kib(server.pid) - before < 100 * 1024


class FewFiles(BitsServer):
    """A server whose account may have 1,024 open files, as many shells allow."""

    def command(self) -> list[str]:
        """See `BitsServer`."""
        return ["prlimit", "--nofile=1024:1024", *super().command()]


def test_slow_readers_leave_descriptors_for_the_files_of_others(tmp_path: Path) -> None:
    """Who is served has a connection and a file: a limit that counts connections alone is passed by half of them."""
    server = FewFiles(base=str(tmp_path))
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        with open(os.path.join(server.root, "large"), "wb") as file:
            file.truncate(2**30)

        def ask() -> socket.socket:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(0.2)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            return sock

        slow: list[socket.socket] = []
        # Who gets no answer waits in the queue of the kernel until another one ends.
        with contextlib.suppress(TimeoutError):
            while len(slow) < 700:
                slow.append(ask())
                assert slow[-1].recv(12) == b"HTTP/1.1 200"
        waiting = slow.pop()
        assert 100 < len(slow) < 1024 // 2
        waiting.settimeout(20)
        slow.pop().close()
        assert waiting.recv(12) == b"HTTP/1.1 200"
        slow.pop().close()
        with RawBits(server.port) as client:
            client.create()
            assert client.fragment(0, SECRET, len(SECRET)).status == 200


# --- where a request ends ------------------------------------------------------------------------


def test_a_body_whose_length_was_forgotten_is_no_request(server: BitsServer) -> None:
    Path(server.root, "file").write_bytes(b"not asked for")
    with RawBits(server.port) as client:
        client.send(client.head("Fragment", length=None) + b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.hear().status == 411
        assert client.is_closed()
