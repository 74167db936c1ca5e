"""The service of one's own: started by `bits get` where there is none, found again, taken up after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from openbits import paths
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import BIN, Process, is_alive, processes_of, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = [
    needs_root,
    pytest.mark.skipif(os.path.exists(paths.SYSTEM_SOCKET), reason="a system service answers on this machine"),
]

SIZE = 4_000_000
RATE_BPS = 2_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@dataclass(frozen=True, kw_only=True)
class Person:
    """A fresh account, with nothing but a home."""

    account: TestAccount

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [os.path.join(BIN, command[0]), *command[1:]],
            env={"HOME": self.account.home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            cwd=self.account.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=[],
        )

    def run(self, *command: str, status: int = 0) -> str:
        """Run a program and return what it printed."""
        with self.start(*command) as process:
            out, err = process.communicate(timeout=60)
            assert process.returncode == status, err
            return out if status == 0 else err

    def job(self, job: str) -> dict[str, object]:
        shown: dict[str, object] = json.loads(self.run("bits", "show", job, "--json"))
        return shown

    def processes(self) -> list[Process]:
        return processes_of(self.account.uid)

    @property
    def monitor(self) -> Process:
        [monitor] = [process for process in self.processes() if process.name == "bitsd"]
        return monitor

    def path(self, name: str) -> str:
        return os.path.join(self.account.home, name)


@pytest.fixture
def person() -> Iterator[Person]:
    with temporary_account() as account:
        person = Person(account=account)
        try:
            yield person
        finally:
            for process in person.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            wait_until(lambda: not person.processes(), "everything of the account to end")


def kill_monitor(person: Person) -> None:
    """Nothing outlives the monitor."""
    everybody = person.processes()
    os.kill(person.monitor.pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(process) for process in everybody), "the service to end")


def check_private(person: Person) -> None:
    """What the service keeps is nobody else's business."""
    kept = [directory for directory, _, _ in os.walk(person.account.home) if "openbits" in directory]
    assert kept
    for directory in kept:
        assert os.stat(directory).st_mode & 0o077 == 0, directory


def test_get_starts_the_service_and_finds_it_again(person: Person, origin: Nginx) -> None:
    """Issue part 2 and 7: one command, from nothing; all its programs are the account's own."""
    wanted = origin.add("file", SIZE)
    assert person.run("bits", "get", origin.url("file"), "-o", "one").strip() == person.path("one")
    assert sha256_of(person.path("one")) == wanted
    monitor = person.monitor
    names = {process.name for process in person.processes()}
    assert {"bitsd", "bitsd-service"} <= names
    assert all(set(process.uids) == {person.account.uid} for process in person.processes())
    person.run("bits", "get", origin.url("file"), "-o", "two")
    assert person.monitor.pid == monitor.pid
    assert sha256_of(person.path("two")) == wanted
    assert "user mode" in person.run("bits", "version")
    person.run("bits", "doctor")
    check_private(person)


def test_no_other_command_starts_a_service(person: Person) -> None:
    """Exit status 5, and a sentence that says what to do."""
    said = person.run("bits", "list", status=5)
    assert "ERROR_SERVICE_NOT_ACTIVE" in said
    assert not person.processes()


def test_commands_at_the_same_moment_start_one_service(person: Person, origin: Nginx) -> None:
    wanted = origin.add("file", SIZE)
    with contextlib.ExitStack() as stack:
        calls = [
            stack.enter_context(person.start("bits", "get", origin.url("file"), "-o", f"file{number}"))
            for number in range(4)
        ]
        for call in calls:
            _, err = call.communicate(timeout=60)
            assert call.returncode == 0, err
    assert person.monitor.pid > 0
    assert {sha256_of(person.path(f"file{number}")) for number in range(4)} == {wanted}


def test_a_job_survives_the_kill_of_the_service(person: Person, origin: Nginx) -> None:
    """M8, D15: the next start goes on with it, from what was durable."""
    wanted = origin.add("survivor", SIZE)
    origin.add("small", 1000)
    url = origin.url("survivor", rate_bps=RATE_BPS)
    job = person.run("bits", "get", "--async", url, "-o", "survivor").strip()
    wait_until(lambda: os.path.exists(str(temporary_name(person, job))), "the transfer to begin")
    kill_monitor(person)
    assert [name for name in os.listdir(person.account.home) if name.endswith(".tmp")]
    # Any `bits get` brings the service back.
    person.run("bits", "get", origin.url("small"), "-o", "small")
    person.run("bits", "wait", job)
    person.run("bits", "complete", job)
    assert sha256_of(person.path("survivor")) == wanted
    assert person.job(job)["state"] == "ACKNOWLEDGED"
    assert not [name for name in os.listdir(person.account.home) if name.endswith(".tmp")]


def temporary_name(person: Person, job: str) -> object:
    shown = person.job(job)
    files = shown["files"]
    assert isinstance(files, list)
    return files[0]["temporary_name"]


def test_two_daemons_on_one_store_are_refused(person: Person, origin: Nginx) -> None:
    """The second one says so and changes nothing; the first goes on."""
    origin.add("small", 1000)
    person.run("bits", "get", origin.url("small"), "-o", "small")
    first = person.monitor
    said = person.run("bitsd", "--user", status=1)
    assert "already" in said or "another" in said, said
    elsewhere = person.path("elsewhere")
    said = person.run("bitsd", "--user", "--runtime-dir", elsewhere, status=1)
    assert "already" in said or "another" in said, said
    assert person.monitor.pid == first.pid
    person.run("bits", "get", origin.url("small"), "-o", "again")


def test_it_ends_in_order_and_starts_again(person: Person, origin: Nginx) -> None:
    """SIGTERM: what was received is kept, nothing is left running; the next start goes on."""
    wanted = origin.add("orderly", SIZE)
    origin.add("small", 1000)
    url = origin.url("orderly", rate_bps=RATE_BPS)
    job = person.run("bits", "get", "--async", url, "-o", "orderly").strip()
    wait_until(lambda: os.path.exists(str(temporary_name(person, job))), "the transfer to begin")
    os.kill(person.monitor.pid, signal.SIGTERM)
    wait_until(lambda: not person.processes(), "the service to end")
    person.run("bits", "get", origin.url("small"), "-o", "small")
    person.run("bits", "wait", job, "--complete")
    assert sha256_of(person.path("orderly")) == wanted
    # Nothing that came before the end was asked for again.
    offsets = [asked.offset for asked in origin.asked("orderly")]
    assert offsets[0] == 0
    assert offsets[-1] > 0


def test_a_daemon_started_by_hand_makes_directories_for_nobody_else(person: Person) -> None:
    """The same places as `bits get` chooses, with the same rights."""
    with person.start("bitsd", "--user") as daemon:
        assert daemon.stderr is not None
        assert any("ready" in line for line in iter(daemon.stderr.readline, ""))
        person.run("bits", "list")
        check_private(person)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0
