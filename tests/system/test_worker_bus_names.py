"""A worker calls the program behind a bus name, on a real bus that starts it (J61), and minds what a bus may do."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.operations import CallBusName, NoticeEnded
from support.accounts import TestAccount, needs_root, temporary_account
from support.fake_logind import PrivateBus, private_bus
from support.worker_process import WorkerProcess

HERE = Path(__file__).parent.parent / "support"
NAME = "org.example.Listener"
JOB = "0b4bbf4c-7f1a-4a1e-9d8e-0d3a3f1f6c11"
ANSWERS = ("return", "refuse", "hang", "leave", "flood")
_numbers = iter(range(1, 100_000))
_BECOME = """
import socket, sys
from openbits import privileges
from openbits.worker.main import run
privileges.become({uid}, {gid}, ({gid},))
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""


def name_of(answer: str) -> str:
    return f"{NAME}.{answer}"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def bus(records: Path) -> Iterator[PrivateBus]:
    with private_bus(is_started=False) as running:
        for answer in ANSWERS:
            command = f"{sys.executable} {HERE / 'bus_listener.py'} {name_of(answer)} {records / answer} {answer}"
            running.services[name_of(answer)] = command
        running.services[name_of("broken")] = "/nonexistent/program"
        running.start()
        yield running


@pytest.fixture(scope="module")
def worker(bus: PrivateBus) -> Iterator[WorkerProcess]:
    with WorkerProcess(env={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as process:
        yield process


def call(worker: WorkerProcess, name: str, method: str = "JobTransferred", *more: str, **changes: Any) -> NoticeEnded:
    number = next(_numbers)
    values: dict[str, Any] = {"limit_s": 20.0, "on_system_bus": True, **changes}
    worker.send(CallBusName(operation=number, name=name, method=method, job_id=JOB, arguments=more, **values))
    return worker.wait_for(NoticeEnded, lambda ended: ended.operation == number)


def recorded(records: Path, answer: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (records / answer).read_text(encoding="utf-8").splitlines()]


def test_the_bus_starts_the_program_and_its_return_acknowledges(worker: WorkerProcess, records: Path) -> None:
    """J61: nobody runs it before the first notice."""
    assert not (records / "return").exists()
    ended = call(worker, name_of("return"))
    assert (ended.error, ended.message, ended.status) == ("", "", None)
    assert recorded(records, "return") == [
        {
            "path": "/org/openbits/Notifications",
            "method": "JobTransferred",
            "signature": "s",
            "arguments": [JOB],
            "uid": os.getuid(),
        }
    ]


def test_arguments_are_strings_whatever_is_in_them(worker: WorkerProcess, records: Path) -> None:
    said = ("BG_E_HTTP_ERROR_404", "Grüße 📦\n\ttabs", "", "not text: \udcff\udcfe", "a\0b", "x" * 10_000)
    assert call(worker, name_of("return"), "JobError", *said).error == ""
    last = recorded(records, "return")[-1]
    assert last["signature"] == "sssssss"
    assert last["arguments"] == [JOB, *said[:3], "not text: \\xff\\xfe", "a\N{REPLACEMENT CHARACTER}b", said[5]]


def test_an_error_reply_is_no_acknowledgement(worker: WorkerProcess) -> None:
    ended = call(worker, name_of("refuse"), "FileTransferred", "0")
    assert ended.error == "E_FAIL"
    assert "org.example.Busy" in ended.message
    assert "come back later" in ended.message
    assert name_of("refuse") in ended.message


def test_a_name_that_nobody_has_registered(worker: WorkerProcess) -> None:
    ended = call(worker, "org.example.Nobody")
    assert ended.error == "REGDB_E_CLASSNOTREG"
    assert ".service file" in ended.message


def test_a_program_that_cannot_be_started(worker: WorkerProcess) -> None:
    ended = call(worker, name_of("broken"))
    assert ended.error == "RPC_S_SERVER_UNAVAILABLE"
    assert "Spawn" in ended.message


def test_a_program_that_does_not_return_is_given_up_in_time(worker: WorkerProcess) -> None:
    began = time.monotonic()
    ended = call(worker, name_of("hang"), limit_s=1.5)
    assert ended.error == "ERROR_TIMEOUT"
    assert "within 1.5 s" in ended.message
    assert 1.4 < time.monotonic() - began < 10


def test_a_program_that_ends_in_the_middle(worker: WorkerProcess) -> None:
    ended = call(worker, name_of("leave"))
    assert ended.error == "RPC_S_CALL_FAILED"
    assert "NoReply" in ended.message


def test_signals_beside_the_answer_do_not_matter(worker: WorkerProcess) -> None:
    assert call(worker, name_of("flood")).error == ""


def test_a_hundred_calls_at_once_end_once_each(worker: WorkerProcess, records: Path) -> None:
    before = len(recorded(records, "return"))
    numbers = [next(_numbers) for _ in range(100)]
    for number in numbers:
        order = CallBusName(
            operation=number,
            name=name_of("return"),
            method="JobModification",
            job_id=str(number),
            arguments=(),
            limit_s=20.0,
            on_system_bus=True,
        )
        worker.send(order)
    ended = [worker.wait_for(NoticeEnded) for _ in numbers]
    assert sorted(one.operation for one in ended) == numbers
    assert all(not one.error for one in ended)
    assert len(recorded(records, "return")) == before + 100


@pytest.mark.parametrize("name", ["", "nodots", "org..x", "org.example.1x", ":1.7", "org.example.Ä", "a." * 130 + "b"])
def test_what_is_no_name_is_never_sent(worker: WorkerProcess, name: str) -> None:
    assert call(worker, name).error == "E_INVALIDARG"


def test_a_bus_that_is_not_there(tmp_path: Path) -> None:
    with WorkerProcess(env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/none"}) as worker:
        ended = call(worker, NAME)
        assert ended.error == "RPC_S_SERVER_UNAVAILABLE"
        assert "the system bus cannot be reached" in ended.message
    with WorkerProcess(env={"DBUS_SYSTEM_BUS_ADDRESS": "tcp:host=127.0.0.1,port=1"}) as worker:
        assert call(worker, NAME).error == "RPC_S_SERVER_UNAVAILABLE"


# --- a bus that is none -------------------------------------------------------------------------


@contextlib.contextmanager
def false_bus(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[str]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(4)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(10)
        with connection, contextlib.suppress(OSError):
            talk(connection)

    thread = threading.Thread(target=serve, name="false bus")
    thread.start()
    try:
        yield f"unix:path={path}"
    finally:
        thread.join(15)
        listener.close()


def _drain(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def _let_in(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")


def _send(data: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        _let_in(connection)
        connection.sendall(data)
        _drain(connection)

    return talk


def _flood(connection: socket.socket) -> None:
    _let_in(connection)
    signal = b"l\4\0\1" + bytes(4) + b"\1\0\0\0" + bytes(4)
    while True:
        connection.sendall(signal * 1000)


def _refuse(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"REJECTED EXTERNAL\r\n")
    _drain(connection)


def _greet_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 1000)


def _hang_up(connection: socket.socket) -> None:
    _let_in(connection)


@pytest.mark.parametrize(
    ("talk", "error"),
    [
        (_refuse, "E_ACCESSDENIED"),
        (_greet_for_ever, "RPC_S_CALL_FAILED"),
        (_hang_up, "RPC_S_SERVER_UNAVAILABLE"),
        (_flood, "RPC_S_CALL_FAILED"),
        (_send(b"GET / HTTP/1.1\r\n\r\n"), "RPC_S_CALL_FAILED"),
        (_send(b"l\2\0\1" + b"\xff" * 12), "RPC_S_CALL_FAILED"),
        (_send(b"l\2\0\1" + bytes(4) + b"\1\0\0\0" + b"\x08\0\0\0" + b"\x05\x01a\0\0\0\0\0"), "RPC_S_CALL_FAILED"),
        (_send(b"l\2\0"), "ERROR_TIMEOUT"),
    ],
)
def test_a_bus_that_makes_no_sense(tmp_path: Path, talk: Callable[[socket.socket], None], error: str) -> None:
    with (
        false_bus(tmp_path / "bus", talk) as address,
        WorkerProcess(env={"DBUS_SYSTEM_BUS_ADDRESS": address}) as worker,
    ):
        assert call(worker, NAME, limit_s=2.0).error == error
        assert worker.process.poll() is None


# --- the bus of a session ------------------------------------------------------------------------


@contextlib.contextmanager
def session_bus(account: TestAccount, listener_name: str, record: Path) -> Iterator[None]:
    """A dbus-daemon of the account's own where its session would have one."""
    runtime = Path(f"/run/user/{account.uid}")
    runtime.mkdir(mode=0o700, parents=True)
    os.chown(runtime, account.uid, account.gid)
    services = Path(account.home, "services")
    services.mkdir()
    command = f"{sys.executable} {HERE / 'bus_listener.py'} {listener_name} {record} return"
    (services / "listener.service").write_text(f"[D-BUS Service]\nName={listener_name}\nExec={command}\n")
    configuration = Path(account.home, "bus.conf")
    configuration.write_text(
        f"<busconfig><type>session</type><listen>unix:path={runtime}/bus</listen><auth>EXTERNAL</auth>"
        f"<servicedir>{services}</servicedir><policy context='default'><allow send_destination='*' eavesdrop='true'/>"
        "<allow eavesdrop='true'/>"
        "<allow own='*'/></policy></busconfig>"
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={configuration}", "--print-address=1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin", "HOME": account.home},
    )
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline()
        yield
    finally:
        daemon.terminate()
        daemon.wait(10)
        assert daemon.stdout is not None
        daemon.stdout.close()
        shutil.rmtree(runtime, ignore_errors=True)


@needs_root
def test_people_are_told_on_the_bus_of_their_session() -> None:
    """J61, I1: as the account itself; and where it has no session, nobody else's bus is taken."""
    with temporary_account() as account:
        assert pwd.getpwuid(account.uid).pw_name == account.name
        program = _BECOME.format(uid=account.uid, gid=account.gid)
        record = Path(account.home, "record")
        with WorkerProcess(program=program) as worker:
            ended = call(worker, NAME, on_system_bus=False)
            assert ended.error == "RPC_S_SERVER_UNAVAILABLE"
            assert account.name in ended.message
            with session_bus(account, NAME, record):
                ended = call(worker, NAME, "JobError", "E_FAIL", "it failed", on_system_bus=False)
                assert ended.error == "", ended
            (line,) = record.read_text(encoding="utf-8").splitlines()
            assert json.loads(line)["uid"] == account.uid
            assert json.loads(line)["arguments"] == [JOB, "E_FAIL", "it failed"]


@needs_root
def test_a_bus_that_somebody_else_runs_is_told_nothing(tmp_path: Path) -> None:
    with temporary_account() as account:
        runtime = Path(f"/run/user/{account.uid}")
        runtime.mkdir(mode=0o755, parents=True)
        heard: list[bytes] = []

        def talk(connection: socket.socket) -> None:
            heard.append(connection.recv(100))

        try:
            with false_bus(runtime / "bus", talk):
                (runtime / "bus").chmod(0o777)
                with WorkerProcess(program=_BECOME.format(uid=account.uid, gid=account.gid)) as worker:
                    ended = call(worker, NAME, on_system_bus=False)
        finally:
            shutil.rmtree(runtime, ignore_errors=True)
        assert ended.error == "RPC_S_SERVER_UNAVAILABLE"
        assert "held open by uid 0" in ended.message
        assert heard == [b""]
