"""`bitsadmin /transfer` and `/monitor` while they run: on a console, through errors that pass, interrupted (B3, B5)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from openbits.client import calls
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.bits_server import running_bits_server
from support.bitsadmin import SCRIPT, TIMEOUT_S, Console, fresh
from support.daemon import Daemon, running_daemon, wait_until
from support.origin import Connection, Origin, Request, generate

pytestmark = needs_root

SIZE = 400_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system") as running:
        yield running


@pytest.fixture
def console(daemon: Daemon, alice: TestAccount) -> Iterator[Console]:
    yield from fresh(Console(daemon=daemon, account=alice))


@contextlib.contextmanager
def gate(origin: Origin, path: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Serve a file that waits, once it was asked for (the first event), until the second event is set."""
    asked, opened = threading.Event(), threading.Event()

    def answer(request: Request, connection: Connection) -> None:
        asked.set()
        assert opened.wait(TIMEOUT_S)
        connection.send_whole(200, b"here it is")

    origin.serve(path, answer)
    try:
        yield asked, opened
    finally:
        opened.set()


class Screen:
    """`bitsadmin` on a terminal of its own, with so many columns."""

    def __init__(self, console: Console, *arguments: str, columns: int = 200) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        account = console.account
        assert account is not None
        self.process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**console.environment, "TERM": "xterm"},
            cwd="/",
            user=account.uid,
            group=account.gid,
            extra_groups=list(account.groups),
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def wait(self, what: Callable[[str], bool]) -> str:
        """Read until the text is as wanted."""
        deadline = time.monotonic() + TIMEOUT_S
        while not what(self.text):
            readable, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, self.text
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""  # EIO: nobody is on the other side any more
            assert data, f"it ended: {self.text}"
            self.text += data.decode()
        return self.text

    def close(self) -> int:
        """Wait for its end and return the exit status."""
        try:
            return self.process.wait(timeout=TIMEOUT_S)
        finally:
            self.process.kill()
            os.close(self._master)


def job_of(console: Console, name: str) -> dict[str, object]:
    [job] = [job for job in console.daemon.session.perform(calls.all_jobs(all_users=True)) if job["name"] == name]
    return dict(job)


def test_on_a_console_the_progress_is_shown_until_the_end(console: Console, origin: Origin, alice: TestAccount) -> None:
    local = os.path.join(alice.home, "shown.bin")
    url = origin.url(f"/gen/{SIZE}/3?rate=400000")
    screen = Screen(console, "/transfer", "shown", "/priority", "foreground", url, local)
    text = screen.wait(lambda text: "Transfer complete." in text)
    assert screen.close() == 0
    assert "DISPLAY: 'shown' TYPE: DOWNLOAD STATE: TRANSFERRING\r\n" in text
    assert re.search(rf"PRIORITY: FOREGROUND FILES: 0 / 1 BYTES: \d+ / {SIZE} \(\d+%\)\r\n", text)
    last = text.rpartition("\x1b[J")[2].replace("\r\n", "\n")
    assert last == (
        "DISPLAY: 'shown' TYPE: DOWNLOAD STATE: TRANSFERRED\n"
        f"PRIORITY: FOREGROUND FILES: 1 / 1 BYTES: {SIZE} / {SIZE} (100%)\n"
        "Transfer complete.\n"
    )
    assert pathlib.Path(local).read_bytes() == generate(SIZE, 3)


def test_an_error_that_may_pass_is_waited_for(console: Console, origin: Origin, alice: TestAccount) -> None:
    """It says so once, goes on when the job does, and its status is that of the end (B5)."""
    local = os.path.join(alice.home, "later.bin")
    url = origin.url(f"/gen/{SIZE}/4?status=503&times=1")
    with console.start("/transfer", "later", url, local) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "503" in line
        assert line.endswith("it is tried again\n")
        job_id = str(job_of(console, "later")["id"])
        assert process.poll() is None
        console.good("/resume", "{" + job_id + "}")
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert out.endswith("Transfer complete.\n")
    assert pathlib.Path(local).read_bytes() == generate(SIZE, 4)


def test_ctrl_c_ends_the_command_and_not_the_job(console: Console, origin: Origin, alice: TestAccount) -> None:
    local = os.path.join(alice.home, "left.bin")
    with gate(origin, "/left") as (asked, opened):
        with console.start("/transfer", "left", origin.url("/left"), local) as process:
            assert asked.wait(TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert "Transfer complete" not in out
        job_id = str(job_of(console, "left")["id"])
        assert job_id.upper() in err
        assert "/complete" in err
        opened.set()
        console.daemon.wait_state(job_id, "TRANSFERRED")
    console.good("/complete", "left")
    assert pathlib.Path(local).read_bytes() == b"here it is"


def test_a_job_that_is_cancelled_elsewhere_fails_the_transfer(
    console: Console, origin: Origin, alice: TestAccount
) -> None:
    with (
        gate(origin, "/gone") as (asked, _),
        console.start("/transfer", "gone", origin.url("/gone"), os.path.join(alice.home, "gone")) as process,
    ):
        assert asked.wait(TIMEOUT_S)
        console.good("/cancel", "gone")
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert out.endswith("Transfer canceled.\n")


def test_a_job_that_is_completed_elsewhere_too_early_is_no_success(
    console: Console, origin: Origin, alice: TestAccount
) -> None:
    """Complete keeps the files that are done (J7): here none, so that nothing of what was asked for exists."""
    local = os.path.join(alice.home, "early")
    with (
        gate(origin, "/early") as (asked, _),
        console.start("/transfer", "early", origin.url("/early"), local) as process,
    ):
        assert asked.wait(TIMEOUT_S)
        console.good("/complete", "early")
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert out.endswith("Unable to complete transfer.\n")
    assert "before all of its files" in err
    assert not os.path.exists(local)


def test_a_file_that_cannot_get_its_name_is_kept_for_another_try(
    console: Console, origin: Origin, alice: TestAccount
) -> None:
    """The bytes are here: the job stays TRANSFERRED, and the command says how to go on (J7)."""
    local = os.path.join(alice.home, "taken")
    with (
        gate(origin, "/taken") as (asked, opened),
        console.start("/transfer", "taken", origin.url("/taken"), local) as process,
    ):
        assert asked.wait(TIMEOUT_S)
        os.mkdir(local)
        opened.set()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert "Unable to complete job - 0x" in out
    assert "nothing is lost" in err
    assert job_of(console, "taken")["state"] == "TRANSFERRED"
    os.rmdir(local)
    console.good("/complete", "taken")
    assert pathlib.Path(local).read_bytes() == b"here it is"


def test_upload(console: Console, alice: TestAccount) -> None:
    source = file_of(alice, b"figures", "report")
    with running_bits_server() as server:
        done = console.run("/transfer", "up", "/UPLOAD", "/priority", "high", f"{server.url}/report", source)
        assert done.returncode == 0, done
        assert done.stdout.endswith("Transfer complete.\n")
        assert pathlib.Path(server.root, "report").read_bytes() == b"figures"


def test_an_upload_that_is_refused_fails(console: Console, alice: TestAccount, origin: Origin) -> None:
    source = file_of(alice, b"figures", "refused")
    done = console.run("/transfer", "up", "/UPLOAD", origin.url("/status/403"), source)
    assert done.returncode == 1
    assert "Unable to complete transfer.\nERROR FILE:    " in done.stdout
    assert f" -> {source}\nERROR CODE:    0x80190193 - " in done.stdout
    assert pathlib.Path(source).read_bytes() == b"figures"


def test_properties_of_a_transfer(console: Console, origin: Origin, alice: TestAccount) -> None:
    """/priority, /aclflags and /dynamic are the job's before it starts."""
    local = os.path.join(alice.home, "properties")
    words = ("/dynamic", "/ACLFLAGS", "og", "/Priority", "Low")
    with (
        gate(origin, "/properties") as (asked, opened),
        console.start("/transfer", "properties", *words, origin.url("/properties"), local) as process,
    ):
        assert asked.wait(TIMEOUT_S)
        block = console.good("/info", "properties", "/verbose")
        assert "PRIORITY: LOW FILES: 0 / 1" in block
        assert "ACL FLAGS: OG\n" in block
        assert console.daemon.show(str(job_of(console, "properties")["id"]))["settings"]["dynamic_content"] is True
        opened.set()
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert pathlib.Path(local).read_bytes() == b"here it is"


def test_monitor_redraws_until_ctrl_c(console: Console) -> None:
    console.job("first")
    screen = Screen(console, "/monitor", "/refresh", "1", columns=50)
    screen.wait(lambda text: "'first'" in text)
    console.job("second")
    text = screen.wait(lambda text: "'second'" in text)
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 0
    pictures = text.split("\x1b[H\x1b[2J")
    assert pictures[1].startswith("MONITORING BACKGROUND COPY MANAGER(1 second\r\nrefresh)\r\n{")
    assert "'first'" in pictures[-1]


def test_long_lines_are_wrapped_on_a_console_unless_told_otherwise(console: Console) -> None:
    console.job("a job with a name")
    console.good("/setaclflags", "a job with a name", "O")
    for words, columns in (((), 60), (("/wrap",), 60), (("/nowrap",), 1000)):
        screen = Screen(console, *words, "/list", columns=60)
        text = screen.wait(lambda text: "Listed 1 job(s)." in text)
        assert screen.close() == 0
        lines = text.replace("\r\n", "\n").split("\n")
        [first] = [line for line in lines if line.startswith("{")]
        assert len(first) <= columns
        assert ("SUSPENDED" in first) == (columns > 60)
    assert "SUSPENDED 0 / 0 0 / 0\n" in console.good("/list")
    assert max(map(len, console.good("/wrap", "/list").splitlines())) <= 80


def test_whoever_stops_reading_ends_it_quietly(console: Console) -> None:
    with console.start("/?") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=TIMEOUT_S) in (0, 141)


def test_without_a_service_it_says_so(console: Console, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [SCRIPT, "/list"],
        env={**console.environment, "BITS_SOCKET": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 5
    assert "Unable to list jobs - 0x80070426\nERROR_SERVICE_NOT_ACTIVE: " in done.stdout


def test_the_users_service_is_started_where_none_answers(tmp_path: pathlib.Path, origin: Origin) -> None:
    """As on Windows the service starts on demand; it ends with the test, by its pid."""
    environment = {name: value for name, value in os.environ.items() if name not in ("BITS_SOCKET", "XDG_RUNTIME_DIR")}
    for name, short in (("XDG_RUNTIME_DIR", "r"), ("XDG_STATE_HOME", "s"), ("HOME", "h")):
        # The service's socket stands below: its whole path may have 107 bytes.
        place = tmp_path / short
        place.mkdir(mode=0o700)
        environment[name] = str(place)
    local = tmp_path / "file"
    try:
        done = subprocess.run(
            [SCRIPT, "/transfer", "job", origin.url("/gen/1000/5"), str(local)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert local.read_bytes() == generate(1000, 5)
    finally:
        pids = _daemons(str(tmp_path))
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not _daemons(str(tmp_path)), "the user's service to end")
    assert pids


def _daemons(place: str) -> list[int]:
    """The monitors whose directories are below a place."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and pathlib.Path("/proc", entry, "comm").read_text() == "bitsd\n":
                environment = pathlib.Path("/proc", entry, "environ").read_bytes()
                if f"HOME={place}".encode() in environment:
                    found.append(int(entry))
    return found
