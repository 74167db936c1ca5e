"""Passwords and header lines leave a job by the one door that is meant, and by no other (I14, A2, J35, H5, H11, I8)."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
import pty
import secrets
import select
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import BIN, Daemon, running_daemon, wait_until
from support.vault import CONTENT, Vault, files_that_hold, processes_that_show, running_vault, shapes_of

pytestmark = needs_root

PASSWORD = f"pw-{secrets.token_hex(12)}"
WRONG = f"wrong-{secrets.token_hex(12)}"
URL_PASSWORD = f"url-{secrets.token_hex(12)}"
TOKEN = f"token-{secrets.token_hex(12)}"
SHAPES = [shape for secret in (PASSWORD, WRONG, URL_PASSWORD, TOKEN) for shape in shapes_of(secret)]


@dataclass(frozen=True, kw_only=True)
class House:
    """A daemon, two accounts' worth of jobs, and the servers."""

    daemon: Daemon
    vault: Vault
    recorder: Vault
    alice: TestAccount

    def bits(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As alice."""
        return self.daemon.bits(*arguments, account=self.alice, check=check)

    def private_file(self, name: str, content: str) -> str:
        """A file that only alice can read."""
        path = os.path.join(self.alice.home, name)
        with open(path, "w", encoding="utf-8", opener=lambda at, flags: os.open(at, flags, 0o600)) as file:
            file.write(content)
        os.chown(path, self.alice.uid, self.alice.gid)
        return path

    def create(self, url: str, name: str, *, job_type: str = "download") -> str:
        """A job of alice's with one file; the URL may have a password, so it goes by no command line."""
        path = os.path.join(self.alice.home, name)
        script = (
            "import json, sys, openbits\n"
            "name, kind, url, path = json.load(sys.stdin)\n"
            "job = openbits.Manager().create_job(name, openbits.JobType(kind))\n"
            "job.add_file(url, path)\n"
            "print(job.id)\n"
        )
        return self.python(script, [name, job_type, url, path])

    def python(self, script: str, argument: Any) -> str:
        """Run a program of alice's, which reads its argument from standard input."""
        result = subprocess.run(
            [os.path.join(BIN, "python"), "-c", script],
            input=json.dumps(argument),
            env={"BITS_SOCKET": self.daemon.socket, "HOME": self.alice.home, "PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=self.alice.uid,
            group=self.alice.gid,
            extra_groups=list(self.alice.groups),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def give_password(self, job: str, password: str) -> None:
        """`bits set-credentials` with a file."""
        path = self.private_file("password", password)
        self.bits("set-credentials", job, "--scheme", "basic", "--user", "alice", "--password-file", path)
        os.unlink(path)

    def give_headers(self, job: str, lines: str) -> None:
        """`bits headers` with a file."""
        path = self.private_file("headers", lines)
        self.bits("headers", job, "--file", path)
        os.unlink(path)


@pytest.fixture
def house() -> Iterator[House]:
    # Whoever wants core files gets none of these: the limit is what the daemon begins with.
    prefix = ("prlimit", "--core=unlimited")
    with (
        temporary_account() as alice,
        running_vault() as vault,
        running_vault() as recorder,
        running_daemon(prefix=prefix) as daemon,
    ):
        vault.users = {"alice": PASSWORD, "u": URL_PASSWORD}
        vault.tokens = {TOKEN}
        vault.leads_to = recorder.url("/open")
        yield House(daemon=daemon, vault=vault, recorder=recorder, alice=alice)


def assert_nothing_shows(house: House, *jobs: str, allowed: tuple[str, ...] = ()) -> None:
    """Ask everybody for everything; `allowed` is what the owner may be told."""
    shapes = [shape for shape in SHAPES if shape.decode("latin-1") not in allowed]
    for account, ours in ((house.alice, shapes), (None, SHAPES)):
        all_users = () if account is not None else ("--all-users",)
        commands = [
            ["list", "--json", "--history", *all_users],
            ["events", "--json", *all_users],
            ["doctor", "--json"],
            *(["show", job, "--json"] for job in jobs),
            *(["show", job, "--files"] for job in jobs),
            *(["why", job] for job in jobs),
        ]
        for command in commands:
            result = house.daemon.bits(*command, account=account)
            said = (result.stdout + result.stderr).encode()
            assert not [shape for shape in ours if shape in said], command
    assert house.daemon.log is not None
    log = house.daemon.log.text.encode()
    assert not [shape for shape in SHAPES if shape in log]
    assert files_that_hold(house.daemon.base, SHAPES) == []
    assert processes_that_show(SHAPES) == []


def test_j35_h5_d6_no_other_door(house: House) -> None:
    """Downloads and an upload, a 401, a redirect, a worker that is killed in the middle and one that crashes."""
    daemon, vault, recorder = house.daemon, house.vault, house.recorder
    named = house.create(vault.url("/a"), "a")
    house.give_password(named, PASSWORD)
    wrong = house.create(vault.url("/b"), "b")
    house.give_password(wrong, WRONG)
    by_url = house.create(vault.url("/c", f"u:{URL_PASSWORD}"), "c")
    by_header = house.create(vault.url("/d"), "d")
    house.give_headers(by_header, f"X-Token: {TOKEN}\n")
    away = house.create(vault.url("/away", f"u:{URL_PASSWORD}"), "e")
    house.give_password(away, PASSWORD)
    house.give_headers(away, f"Authorization: Bearer {TOKEN}\nCookie: {TOKEN}\n")
    source = house.private_file("source", "what is uploaded")
    up = house.create(vault.url("/up", f"u:{URL_PASSWORD}"), os.path.basename(source), job_type="upload")
    house.bits("set", up, "upload_protocol=put")
    jobs = (named, wrong, by_url, by_header, away, up)
    for job in jobs:
        house.bits("resume", job)
    for job in (named, by_url, by_header, away, up):
        assert daemon.wait_state(job, "TRANSFERRED", "ERROR")["state"] == "TRANSFERRED", daemon.show(job)["error"]
    error = daemon.wait_state(wrong, "ERROR")["error"]
    assert error["code"] == "BG_E_HTTP_ERROR_401"
    assert_nothing_shows(house, *jobs, allowed=(TOKEN,))
    # What the servers got: the password after a challenge, and the stranger nothing.
    assert [each.status for each in vault.requests_of("/a")] == [401, 200]
    assert "Authorization" not in vault.requests_of("/a")[0].headers
    [stranger] = recorder.seen
    assert not {"Authorization", "Cookie"} & {name.title() for name in stranger.headers}
    assert not any(secret in str(stranger.headers) for secret in (PASSWORD, URL_PASSWORD, TOKEN))
    # Hidden headers are hidden from their owner too, and are still sent.
    house.bits("headers", by_header, "--write-only")
    assert house.bits("headers", by_header, check=False).returncode == 4
    house.bits("headers", away, "--clear")
    house.bits("add", by_header, vault.url("/d2"), os.path.join(house.alice.home, "d2"))
    house.bits("resume", by_header)
    daemon.wait_state(by_header, "TRANSFERRED")
    assert vault.requests_of("/d2")[-1].headers["X-Token"] == TOKEN
    assert_nothing_shows(house, *jobs)


def test_j35_a_worker_that_is_killed_or_crashes_leaves_nothing(house: House) -> None:
    daemon, vault = house.daemon, house.vault
    job = house.create(vault.url("/slow", f"u:{URL_PASSWORD}"), "a")
    house.give_password(job, PASSWORD)
    house.give_headers(job, f"X-Other: {TOKEN}\n")
    house.bits("resume", job)
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
        assert vault.is_slow.wait(30)
        vault.is_slow.clear()
        [worker] = [each for each in daemon.workers() if each.uids[0] == house.alice.uid]
        for process in daemon.processes():
            limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
            [core] = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
            assert core[4:6] == ["0", "0"], process.name
        assert_closed_to_its_account(house, worker.pid)
        assert processes_that_show(SHAPES) == []
        before = cores()
        os.kill(worker.pid, number)
        wait_until(functools.partial(is_gone, worker.pid), "the worker to end")
        assert cores() == before
    assert vault.is_slow.wait(30)
    vault.release.set()
    daemon.wait_state(job, "TRANSFERRED")
    house.bits("complete", job)
    assert Path(house.alice.home, "a").read_bytes() == CONTENT
    assert_nothing_shows(house, job)


def is_gone(pid: int) -> bool:
    """Whether there is no such process."""
    return not os.path.exists(f"/proc/{pid}")


def cores() -> set[str]:
    """Core files, wherever this kernel puts them."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").strip()
    if pattern.startswith("|"):
        return set(glob.glob("/var/lib/systemd/coredump/*") + glob.glob("/var/crash/*"))
    place = os.path.join("/", pattern.partition("%")[0])
    return set(glob.glob(f"{place}*"))


def assert_closed_to_its_account(house: House, pid: int) -> None:
    """Other programs of the account do not get at the worker's memory."""
    script = (
        "import json, sys\n"
        "pid = json.load(sys.stdin)\n"
        "for name in ('mem', 'environ', 'maps', 'auxv', 'syscall'):\n"
        "    try:\n"
        "        open(f'/proc/{pid}/{name}', 'rb').read(1)\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    print(name)\n"
    )
    assert house.python(script, pid) == ""


def rows(house: House, query: str) -> list[Any]:
    path = os.path.join(house.daemon.state_dir, "bits.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query).fetchall()


def sealed_in(house: House) -> list[bytes]:
    """Every sealed text that stands in the store."""
    texts = [text for row in rows(house, "SELECT explicit_credentials, sealed_headers FROM jobs") for text in row]
    texts += [text for (text,) in rows(house, "SELECT sealed_userinfo FROM files")]
    found = []
    for text in texts:
        values = [each[2] for each in json.loads(text)] if text.startswith("[") else [text]
        found += [value.encode("ascii") for value in values if value]
    return found


@pytest.mark.parametrize("how", ["complete", "cancel", "take-ownership"])
def test_i14_i8_when_it_ends_not_even_what_was_sealed_is_left(house: House, how: str) -> None:
    daemon, vault = house.daemon, house.vault
    job = house.create(vault.url("/a", f"u:{URL_PASSWORD}"), "a")
    house.give_password(job, PASSWORD)
    house.give_headers(job, f"X-Token: {TOKEN}\n")
    [worker] = [each for each in daemon.workers() if each.uids[0] == house.alice.uid]
    house.bits("resume", job)
    daemon.wait_state(job, "TRANSFERRED")
    # What a program has forgotten is still in its memory: who knew a password ends.
    wait_until(functools.partial(is_gone, worker.pid), "alice's worker to end")
    sealed = sealed_in(house)
    assert len(sealed) == 3
    assert files_that_hold(daemon.base, sealed) != []
    seen = len(vault.seen)
    if how == "take-ownership":
        # Root's jobs have no power over other accounts' directories.
        os.chmod(house.alice.home, 0o777)
        daemon.bits("take-ownership", job, check=True)
        shown = daemon.show(job)
        assert (shown["credentials"], shown["settings"]["custom_headers"]) == ([], "")
        daemon.bits("add", job, vault.url("/b"), os.path.join(daemon.base, "b"), check=True)
        daemon.bits("resume", job, check=True)
        assert daemon.wait_state(job, "ERROR")["error"]["code"] == "BG_E_HTTP_ERROR_401"
        for request in vault.seen[seen:]:
            assert not {"Authorization", "X-Token"} & request.headers.keys()
    else:
        house.bits(how, job)
    assert sealed_in(house) == []
    assert daemon.stop() == 0
    assert files_that_hold(daemon.state_dir, sealed) == []
    daemon.start()


def test_i14_a_store_that_was_copied_reveals_nothing(house: House) -> None:
    daemon, vault = house.daemon, house.vault
    job = house.create(vault.url("/a"), "a")
    house.give_password(job, PASSWORD)
    other = house.create(vault.url("/open"), "b")
    assert daemon.stop() == 0
    with running_daemon() as thief:
        assert thief.stop() == 0
        shutil.copy(os.path.join(daemon.state_dir, "bits.db"), thief.state_dir)
        thief.start()
        checks = {check["name"]: check for check in thief.doctor()}
        assert not checks["stored credentials"]["ok"]
        assert "one job has credentials that it does not open" in checks["stored credentials"]["message"]
        for each in (job, other):
            thief.bits("resume", each, account=house.alice, check=True)
        error = thief.wait_state(job, "ERROR")["error"]
        assert error["code"] == "BG_E_INVALID_CREDENTIALS"
        assert "set them again" in error["message"]
        thief.wait_state(other, "TRANSFERRED")
        assert vault.requests_of("/a") == []
        # Set again, it runs.
        path = house.private_file("password", PASSWORD)
        arguments = ("--scheme", "basic", "--user", "alice", "--password-file", path)
        thief.bits("set-credentials", job, *arguments, account=house.alice, check=True)
        thief.bits("resume", job, account=house.alice, check=True)
        thief.wait_state(job, "TRANSFERRED")
        for each in (job, other):
            thief.bits("cancel", each, account=house.alice, check=True)
    daemon.start()


def test_i14_what_was_sealed_for_another_job_does_not_open(house: House) -> None:
    """Who can write to the store cannot have one account's password sent by another account's job."""
    daemon, vault = house.daemon, house.vault
    rich = house.create(vault.url("/a"), "a")
    house.give_password(rich, PASSWORD)
    poor = house.create(house.recorder.url("/a"), "b")
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(os.path.join(daemon.state_dir, "bits.db"))) as connection:
        query = (
            "UPDATE jobs SET explicit_credentials = (SELECT explicit_credentials FROM jobs WHERE id = ?) WHERE id = ?"
        )
        connection.execute(query, (rich, poor))
        connection.commit()
    daemon.start()
    house.bits("resume", poor)
    assert daemon.wait_state(poor, "ERROR")["error"]["code"] == "BG_E_INVALID_CREDENTIALS"
    assert house.recorder.seen == []
    house.bits("resume", rich)
    daemon.wait_state(rich, "TRANSFERRED")


def test_a2_not_even_root_asks_for_more_than_what_is_set(house: House) -> None:
    daemon, vault = house.daemon, house.vault
    job = house.create(vault.url("/a"), "a")
    house.give_password(job, PASSWORD)
    house.give_headers(job, f"X: {TOKEN}\n")
    assert house.bits("headers", job).stdout == f"X: {TOKEN}\n"
    own = json.loads(house.bits("show", job, "--json").stdout)
    assert own["credentials"] == [{"target": "server", "scheme": "basic", "implicit": False}]
    assert "user name and a password, for the server (basic)" in house.bits("show", job).stdout
    roots = json.loads(daemon.bits("show", job, "--json", check=True).stdout)
    assert (roots["credentials"], roots["settings"]["custom_headers"]) == (None, None)
    path = os.path.join(daemon.base, "password")
    Path(path).write_text(PASSWORD, encoding="ascii")
    os.chmod(path, 0o600)
    for arguments in (
        ("set-credentials", job, "--scheme", "basic", "--user", "root", "--password-file", path),
        ("remove-credentials", job, "--scheme", "basic"),
        ("headers", job),
        ("headers", job, "--clear"),
        ("headers", job, "--write-only"),
        ("set", job, "use_netrc=true"),
        ("set", job, "proxy_usage=override", f"proxy_list=http://127.0.0.1:{house.recorder.port}"),
        ("add", job, house.recorder.url("/a"), "/tmp/b"),
    ):
        result = daemon.bits(*arguments)
        assert result.returncode == 4, (arguments, result.stderr)
        assert "E_ACCESSDENIED" in result.stderr
    os.unlink(path)
    assert house.bits("headers", job).stdout == f"X: {TOKEN}\n"


def test_j37_wrong_then_right(house: House) -> None:
    daemon, vault = house.daemon, house.vault
    job = house.create(vault.url("/a"), "a")
    house.give_password(job, WRONG)
    house.bits("resume", job)
    error = daemon.wait_state(job, "ERROR")["error"]
    assert error["code"] == "BG_E_HTTP_ERROR_401"
    assert WRONG not in error["message"]
    house.give_password(job, PASSWORD)
    house.bits("resume", job)
    daemon.wait_state(job, "TRANSFERRED")


def test_get_asks_the_terminal_without_echo(house: House) -> None:
    """Nothing of the password comes back to the terminal, and the file is there."""
    path = os.path.join(house.alice.home, "a")
    command = [os.path.join(BIN, "bits"), "get", "-q", "--user", "alice", "-o", path, house.vault.url("/a")]
    status, screen = on_terminal(house, command, PASSWORD)
    assert status == 0, screen
    assert "Password of alice" in screen
    assert PASSWORD not in screen
    assert Path(path).read_bytes() == CONTENT


def on_terminal(house: House, command: list[str], password: str) -> tuple[int, str]:
    """Run a command of alice's on a terminal of its own and type the password when it is asked for."""
    ours, theirs = pty.openpty()
    os.fchown(theirs, house.alice.uid, house.alice.gid)
    screen = b""
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"BITS_SOCKET": house.daemon.socket, "HOME": house.alice.home, "PATH": "/usr/bin:/bin"},
            cwd="/",
            user=house.alice.uid,
            group=house.alice.gid,
            extra_groups=list(house.alice.groups),
        ) as process:
            os.close(theirs)
            is_typed = False
            while select.select([ours], [], [], 60)[0]:
                try:
                    read = os.read(ours, 4096)
                except OSError:
                    break  # nobody has the other end any more
                screen += read
                if b"Password" in screen and not is_typed:
                    is_typed = True
                    os.write(ours, f"{password}\n".encode())
            return process.wait(60), screen.decode("utf-8", "replace")
    finally:
        os.close(ours)
