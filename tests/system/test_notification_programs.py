"""Programs that are told, end to end: pieces of files, bus names, after TakeOwnership, over TLS (N1, N3, N7, J61)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import openbits
from openbits import Range
from support import bus_listener, listening
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.ca import Authority
from support.daemon import Daemon, Log, running_daemon, wait_until
from support.nginx import Nginx, running_nginx
from support.tls_nginx import Server, tls_nginx

pytestmark = needs_root

WAIT_S = 60.0
NAME = "org.example.OpenBitsTest"


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config="[notifications]\ncommand_limit_s = 2\n") as running:
        yield running


def created(daemon: Daemon, alice: TestAccount, *settings: str) -> str:
    """A suspended job of alice's with one file."""
    source = file_of(alice, b"x" * 1000)
    job = daemon.bits("create", "told", account=alice, check=True).stdout.strip()
    daemon.bits("add", job, f"file://{source}", os.path.join(alice.home, job), account=alice, check=True)
    if settings:
        daemon.bits("set", job, *settings, account=alice, check=True)
    return job


def wait_told(daemon: Daemon, job: str) -> None:
    daemon.wait_state(job, "TRANSFERRED", "ERROR")
    wait_until(lambda: daemon.show(job)["owed_notice"] is None, "somebody to take note of it", WAIT_S)


def noted(daemon: Daemon, job: str) -> list[dict[str, Any]]:
    lines = daemon.bits("events", "--json", "--job", job, check=True).stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "notification"]


def test_n3_a_live_program_hears_of_pieces_and_of_changes(daemon: Daemon, nginx: Nginx, tmp_path: Path) -> None:
    """What it is told is what was requested, all of it and nothing twice; changes in short order are told as one."""
    nginx.add("pieces.bin", 4_000_000)
    pieces: list[Range] = []
    changes: list[str] = []
    came = threading.Condition()

    class Listener:
        def file_ranges_transferred(self, job: openbits.Job, file: openbits.File, ranges: Any) -> None:
            with came:
                assert file.index == 0
                pieces.extend(ranges)
                came.notify_all()

        def job_modification(self, job: openbits.Job) -> None:
            with came:
                changes.append(job.id)
                came.notify_all()

    with openbits.Manager(daemon.socket) as manager:
        settings = {"on_demand_mode": True, "notify_flags": 0x28, "minimum_notification_interval_ms": 3000}
        job = manager.create_job("pieces", settings=settings)
        job.add_file(nginx.url("pieces.bin"), str(tmp_path / "target"))
        [file] = list(job.enum_files())
        job.set_notify_interface(Listener())
        file.request_file_ranges([(1000, 500), (3_000_000, 100_000)])
        job.resume()
        with came:
            assert came.wait_for(lambda: sum(piece.length for piece in pieces) == 100_500, WAIT_S)
            assert sorted(pieces, key=lambda piece: piece.offset) == [Range(1000, 500), Range(3_000_000, 100_000)]
            assert came.wait_for(lambda: changes, WAIT_S)
            before = len(changes)
        for number in range(20):
            job.set_description(f"number {number}")
        with came:
            assert came.wait_for(lambda: len(changes) > before, WAIT_S)
            assert len(changes) <= before + 2
        job.cancel()


@contextlib.contextmanager
def session_bus(account: TestAccount, record: Path, answer: str) -> Iterator[None]:
    """A dbus-daemon of the account's own where its session would have one, with a program that it starts."""
    runtime = Path(f"/run/user/{account.uid}")
    runtime.mkdir(mode=0o700, parents=True)
    os.chown(runtime, account.uid, account.gid)
    services = Path(account.home, f"services-{answer}")
    services.mkdir()
    command = f"{sys.executable} {bus_listener.__file__} {NAME} {record} {answer}"
    (services / "told.service").write_text(f"[D-BUS Service]\nName={NAME}\nExec={command}\n")
    configuration = services / "bus.conf"
    configuration.write_text(
        f"<busconfig><type>session</type><listen>unix:path={runtime}/bus</listen><auth>EXTERNAL</auth>"
        f"<servicedir>{services}</servicedir><policy context='default'><allow send_destination='*' eavesdrop='true'/>"
        "<allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
    )
    bus = subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={configuration}", "--print-address=1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin", "HOME": account.home},
    )
    assert bus.stdout is not None
    try:
        assert bus.stdout.readline()
        yield
    finally:
        bus.terminate()
        bus.wait(10)
        bus.stdout.close()
        shutil.rmtree(runtime, ignore_errors=True)


def test_j61_the_bus_starts_the_owners_program_and_nothing_is_owed(daemon: Daemon, alice: TestAccount) -> None:
    record = Path(alice.home, "told")
    with session_bus(alice, record, "return"):
        job = created(daemon, alice, f"notification_clsid={NAME}")
        daemon.bits("resume", job, account=alice, check=True)
        wait_told(daemon, job)
        [line] = record.read_text().splitlines()
        said = json.loads(line)
        assert (said["method"], said["arguments"], said["uid"]) == ("JobTransferred", [job], alice.uid)
        assert [event["event_id"] for event in noted(daemon, job)] == [0]


def test_j61_n7_a_program_on_the_bus_that_fails_makes_room_for_the_command_line(
    daemon: Daemon, alice: TestAccount
) -> None:
    out = Path(alice.home, "instead")
    with session_bus(alice, Path(alice.home, "refused"), "refuse"):
        job = created(daemon, alice, f"notification_clsid={NAME}")
        daemon.bits("notify", job, "--", "/bin/sh", "-c", f"id -u > {out}", account=alice, check=True)
        daemon.bits("resume", job, account=alice, check=True)
        wait_told(daemon, job)
    assert out.read_text().strip() == str(alice.uid)
    refused, ran = noted(daemon, job)
    assert refused["event_id"] == 16390
    assert "come back later" in refused["text"]
    assert ran["fields"]["exit_status"] == "0"


def test_n7_n14_a_program_stays_told_after_take_ownership_and_nothing_else_does(
    daemon: Daemon, nginx: Nginx, alice: TestAccount
) -> None:
    nginx.add("taken.bin", 1000)
    job = daemon.bits("create", "taken", account=alice, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="obt-shared-") as directory:
        os.chmod(directory, 0o777)
        daemon.bits("add", job, nginx.url("taken.bin"), f"{directory}/target", account=alice, check=True)
        take_over_while_listened(daemon, alice, job)


def take_over_while_listened(daemon: Daemon, alice: TestAccount, job: str) -> None:
    """An administrator takes the job; alice's program hears of its end all the same."""
    daemon.bits("set", job, "notify_url=http://127.0.0.1:9/hook", account=alice, check=True)
    daemon.bits("notify", job, "--", "/bin/true", account=alice, check=True)
    process = subprocess.Popen(
        [sys.executable, listening.__file__, daemon.socket, "ok", job],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        user=alice.uid,
        group=alice.gid,
        extra_groups=list(alice.groups),
        cwd="/",
        env={**os.environ, "HOME": alice.home},
    )
    assert process.stdout is not None
    log = Log(process.stdout)
    try:
        log.wait_line("listening", WAIT_S)
        daemon.bits("take-ownership", job, check=True)
        shown = daemon.show(job)
        assert shown["notify_command"] is None
        assert not shown["settings"]["notify_url"]
        assert shown["has_notify_interface"]
        daemon.bits("resume", job, check=True)
        log.wait_line(f"job_transferred {job}", WAIT_S)
        wait_told(daemon, job)
        assert daemon.show(job)["owner"]["uid"] == 0
        assert any(line.startswith(f"job_transferred {job}") for line in log.text.splitlines())
    finally:
        process.kill()
        process.wait(timeout=20)
        log.close()


def test_n10_what_a_command_line_came_to_is_in_log_audit_and_journal(alice: TestAccount) -> None:
    """63 with a status, 63 at the limit of time, 64 where there is no such program."""
    with (
        tempfile.TemporaryDirectory(prefix="obt-journal-") as directory,
        contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as journal,
    ):
        os.chmod(directory, 0o755)
        journal.bind(f"{directory}/socket")
        os.chmod(f"{directory}/socket", 0o666)
        journal.settimeout(20)
        config = "[notifications]\ncommand_limit_s = 2\n"
        environment = {"OPENBITS_JOURNAL_SOCKET": f"{directory}/socket"}
        with running_daemon("system", config=config, environment=environment) as daemon:
            for command, number, status, error in (
                (("/bin/sh", "-c", "exit 7"), 63, "7", "ERROR_PROCESS_ABORTED"),
                (("/bin/sleep", "300"), 63, None, "ERROR_TIMEOUT"),
                (("/nonexistent/program",), 64, None, "ERROR_FILE_NOT_FOUND"),
            ):
                job = created(daemon, alice)
                daemon.bits("notify", job, "--", *command, account=alice, check=True)
                daemon.bits("resume", job, account=alice, check=True)
                said = b""
                while f"BITS_EVENT_ID={number}\n".encode() not in said or job.encode() not in said:
                    said = journal.recv(1 << 20)
                [event] = noted(daemon, job)
                assert event["event_id"] == number
                assert event["fields"]["error"] == error
                assert event["fields"]["program"] == command[0]
                assert status is None or event["fields"]["exit_status"] == status
                rows = json.loads(daemon.bits("audit", "--json", check=True).stdout)
                [row] = [row for row in rows if row["job_id"] == job]
                assert row["command"][0] == command[0]
                daemon.bits("cancel", job, account=alice, check=True)


def test_get_with_a_command_and_a_url_behind_tls(daemon: Daemon, alice: TestAccount) -> None:
    """The job's own rules for certificates hold for its announcement: refused without them, taken with them."""
    certified = Authority("nobody knows it").issue("127.0.0.1")
    hook = Server(certified=certified, directives="location /hook { return 204; }")
    out = Path(alice.home, "by-get")
    source = file_of(alice, b"x" * 1000)
    with tls_nginx({"hook": hook}, {}) as server:
        url = server.url("hook", "hook")
        options = ("--notify-url", url, "--notify-command", f"/bin/sh -c 'echo ran > {out}'", "--retry-delay", "5")
        job = daemon.submit(f"file://{source}", "-o", f"{alice.home}/got", *options, account=alice)
        wait_told(daemon, job)
        assert out.read_text() == "ran\n"
        wait_until(lambda: any(event["event_id"] == 16390 for event in noted(daemon, job)), "it to be refused")
        assert daemon.show(job)["owed_webhook"] == "transferred"
        daemon.bits("set", job, "security_flags=8", account=alice, check=True)
        wait_until(lambda: daemon.show(job)["owed_webhook"] is None, "the server to take it", WAIT_S)
        daemon.bits("cancel", job, account=alice, check=True)
