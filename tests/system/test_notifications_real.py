"""Section 4 of the inventory with everything real: daemon, accounts, programs that listen, hang, fail, stop and die."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import openbits
from openbits import BitsError, JobState, Notification, NotificationEvent
from openbits.client import notifications
from support import listening
from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, Log, is_alive, processes_of, running_daemon, wait_until

pytestmark = needs_root

WAIT_S = 60.0
CONFIG = """
[notifications]
callback_limit_s = 3
command_limit_s = 20
[quotas]
max_jobs_per_user = 2000
max_jobs_per_machine = 5000
[scheduler]
max_foreground_jobs = 500
"""


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=CONFIG) as running:
        yield running


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    if not shared_daemon.is_started:
        shared_daemon.start()
    return shared_daemon


_numbers = iter(range(1, 10**9))


def submit(daemon: Daemon, account: TestAccount, *options: str, missing: bool = False) -> str:
    """A job of an account's own that ends by itself, well or in ERROR."""
    source = file_of(account, b"x" * 1000)
    name = source + ".missing" if missing else source
    target = os.path.join(account.home, f"target{next(_numbers)}")
    return daemon.submit(f"file://{name}", "-o", target, *options, account=account)


def run_as(daemon: Daemon, account: TestAccount, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, listening.__file__, daemon.socket, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        cwd="/",
        env={**os.environ, "HOME": account.home},
    )


@contextlib.contextmanager
def program(daemon: Daemon, account: TestAccount, way: str, *jobs: str) -> Iterator[tuple[subprocess.Popen[str], Log]]:
    """A program of an account that listens to jobs."""
    process = run_as(daemon, account, way, *jobs)
    assert process.stdout is not None
    log = Log(process.stdout)
    try:
        log.wait_line("listening", WAIT_S)
        yield process, log
    finally:
        process.kill()
        process.wait(timeout=20)
        log.close()


def lines(log: Log, word: str) -> list[str]:
    return [line for line in log.text.splitlines() if line.startswith(word)]


def hear(log: Log, text: str) -> str:
    """Wait until a program has said something; it may have done so before it said that it listens."""
    wait_until(lambda: lines(log, text), f"the program to say {text}", WAIT_S)
    return lines(log, text)[0]


def wait_told(daemon: Daemon, job: str) -> None:
    """Wait until somebody has taken note of the end of a job."""
    daemon.wait_state(job, "TRANSFERRED", "ERROR")
    wait_until(lambda: daemon.show(job)["owed_notice"] is None, "somebody to take note of it", WAIT_S)


def noted(daemon: Daemon, job: str) -> list[dict[str, Any]]:
    return [event for event in daemon.events() if event["job_id"] == job and event["kind"] == "notification"]


# --- callbacks ---------------------------------------------------------------------------------------------


def test_n1_n2_a_program_hears_of_files_and_jobs_and_completes_them(daemon: Daemon, alice: TestAccount) -> None:
    jobs = [submit(daemon, alice) for _ in range(3)]
    for job in jobs:
        daemon.bits("set", job, "notify_flags=0x11", account=alice, check=True)
    with program(daemon, alice, "complete", *jobs) as (_, log):
        for job in jobs:
            daemon.wait_state(job, "ACKNOWLEDGED")
        wait_until(lambda: len(lines(log, "completed")) == 3, "the callbacks to end")
        heard = [line.split()[:2] for line in log.text.splitlines() if "transferred" in line]
        for job in jobs:
            assert [event for event, of in heard if of == job] == ["file_transferred", "job_transferred"]


def test_n1_an_error_is_told_with_its_reason(daemon: Daemon, alice: TestAccount) -> None:
    job = submit(daemon, alice, missing=True)
    with program(daemon, alice, "ok", job) as (_, log):
        assert "ERROR_FILE_NOT_FOUND" in hear(log, f"job_error {job}")
        wait_told(daemon, job)


def test_n4_n12_a_program_that_raises_makes_room_for_the_command_line(daemon: Daemon, alice: TestAccount) -> None:
    out = os.path.join(alice.home, "n12")
    job = submit(daemon, alice)
    with program(daemon, alice, "raise", job) as (_, log):
        wait_until(lambda: len(lines(log, f"job_transferred {job}")) > 1, "it to be told again", WAIT_S)
        assert any("it was told to fail" in event["text"] for event in noted(daemon, job))
        daemon.bits("notify", job, "--", "/bin/sh", "-c", f"id -un > {out}", account=alice, check=True)
        wait_told(daemon, job)
    assert Path(out).read_text().strip() == alice.name


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_n7_a_program_that_hangs_or_is_stopped_counts_as_none(daemon: Daemon, alice: TestAccount, how: str) -> None:
    out = os.path.join(alice.home, f"n7-{how}")
    job = submit(daemon, alice)
    daemon.bits("suspend", job, account=alice)
    with program(daemon, alice, "hang" if how == "hang" else "ok", job) as (process, log):
        if how == "stop":
            daemon.bits("set", job, "notify_flags=0", account=alice, check=True)
            job = submit(daemon, alice, "--notify-command", "/bin/false")
            daemon.bits("notify", job, "--none", account=alice, check=True)
        daemon.bits("resume", job, account=alice)
        if how == "hang":
            hear(log, f"job_transferred {job}")
        daemon.bits("notify", job, "--", "/bin/sh", "-c", f"echo {how} > {out}", account=alice, check=True)
        if how == "stop":
            os.kill(process.pid, signal.SIGSTOP)
        wait_told(daemon, job)
        os.kill(process.pid, signal.SIGCONT)
    assert Path(out).read_text().strip() == how


def test_a_program_that_was_stopped_goes_on_where_it_was(daemon: Daemon, alice: TestAccount) -> None:
    """It is asked four things at most; when it goes on, its late answers count, and the rest follows."""
    jobs = [submit(daemon, alice, "--notify-command", "/bin/false") for _ in range(6)]
    for job in jobs:
        daemon.bits("suspend", job, account=alice)
        daemon.bits("notify", job, "--none", account=alice, check=True)
    with program(daemon, alice, "ok", *jobs) as (process, log):
        os.kill(process.pid, signal.SIGSTOP)
        for job in jobs:
            daemon.bits("set", job, "notify_flags=3", account=alice, check=True)
            daemon.bits("resume", job, account=alice)
        for job in jobs:
            daemon.wait_state(job, "TRANSFERRED")
        wait_until(
            lambda: any("does not answer" in daemon.why(job)["sentence"] for job in jobs), "it to count as silent"
        )
        os.kill(process.pid, signal.SIGCONT)
        for job in jobs:
            wait_told(daemon, job)
        assert {line.split()[1] for line in lines(log, "job_transferred")} >= set(jobs)


def test_n5_a_program_that_is_killed_is_gone_at_once(daemon: Daemon, alice: TestAccount) -> None:
    job = submit(daemon, alice, "--notify-url", "")
    with program(daemon, alice, "hang", job) as (process, log):
        hear(log, f"job_transferred {job}")
        assert daemon.show(job)["has_notify_interface"]
        process.kill()
        wait_until(lambda: not daemon.show(job)["has_notify_interface"], "the service to see it")
    with program(daemon, alice, "ok", job) as (_, log):
        hear(log, f"job_transferred {job}")
    wait_told(daemon, job)


def test_a_child_of_the_program_does_not_hold_its_place(daemon: Daemon, alice: TestAccount) -> None:
    job = submit(daemon, alice)
    with program(daemon, alice, "fork", job) as (process, _):
        wait_told(daemon, job)
        children = [each for each in processes_of(alice.uid) if each.pid != process.pid and "python" in each.name]
        process.kill()
        try:
            wait_until(lambda: not daemon.show(job)["has_notify_interface"], "the service to see it")
        finally:
            for child in children:
                if is_alive(child):
                    os.kill(child.pid, signal.SIGKILL)


def test_n5_kill_9_between_the_event_and_the_answer_loses_nothing(daemon: Daemon, alice: TestAccount) -> None:
    """The service comes back, the program sets itself again, and hears again what nobody has written down."""
    job, other = submit(daemon, alice), submit(daemon, alice)
    with program(daemon, alice, "hang", job) as (_, log):
        hear(log, f"job_transferred {job}")
        os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
        daemon.wait_reachable()
        wait_until(lambda: daemon.show(job)["has_notify_interface"], "the program to come back", WAIT_S)
        assert daemon.show(job)["owed_notice"] == "transferred"
    with program(daemon, alice, "ok", job, other) as (_, log):
        hear(log, f"job_transferred {other}")
        os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
        daemon.wait_reachable()
        new = submit(daemon, alice)
        assert new
        wait_told(daemon, other)


def test_a_storm_of_1000_jobs_loses_nothing_and_doubles_nothing(daemon: Daemon, alice: TestAccount) -> None:
    source = file_of(alice, b"storm")
    manager = openbits.Manager(daemon.socket)
    with openbits.impersonate(alice.name):
        openbits.set_proxy_blanket(manager, openbits.Cloaking.STATIC)
        specs = [
            openbits.JobSpec(
                name=f"storm {number}",
                files=(openbits.FileSpec(remote_name=f"file://{source}", local_name=f"{alice.home}/storm{number}"),),
                settings={"priority": "foreground"},
                resume=False,
            )
            for number in range(1000)
        ]
        jobs = [job.id for job in manager.create_jobs(specs)]
    with program(daemon, alice, "slow", *jobs) as (_, log):
        connections = int(manager.statistics()["listening_programs"])
        assert connections == 1, "one connection for 1,000 jobs"
        for job in jobs:
            daemon.session.perform(openbits.client.calls.resume(job))
        wait_until(lambda: len(lines(log, "job_transferred")) >= 1000, "the last to be told", 180.0)
        wait_until(lambda: manager.statistics()["notifying"] == 0, "the last answer")
        heard = Counter(line.split()[1] for line in lines(log, "job_transferred"))
        assert heard == Counter(jobs)
        assert all(daemon.show(job)["owed_notice"] is None for job in jobs[::50])
    for job in jobs:
        with contextlib.suppress(BitsError):
            daemon.session.perform(openbits.client.calls.cancel(job))


# --- Python: functions, asyncio, the same process ------------------------------------------------------------


def test_j18_functions_and_methods_and_none(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    heard: list[Notification[Any, Any, Any]] = []
    came = threading.Event()

    def take(notification: Notification[Any, Any, Any]) -> None:
        heard.append(notification)
        if notification.event is NotificationEvent.JOB_TRANSFERRED:
            assert notification.job.complete() is openbits.Result.S_OK
            came.set()

    with openbits.Manager(daemon.socket) as manager:
        job = manager.create_job("a function")
        job.add_file(f"file://{source}", str(tmp_path / "target"))
        for nothing in (7, "text", object()):
            with pytest.raises(BitsError, match="E_NOINTERFACE"):
                job.set_notify_interface(nothing)
        assert job.get_notify_interface() is None
        job.set_notify_interface(take)
        assert job.get_notify_interface() is take
        assert job.has_notify_interface()
        job.set_notify_interface(None)
        assert job.get_notify_interface() is None
        assert not job.has_notify_interface()
        job.set_notify_interface(take)
        job.set_notify_flags(0x11)
        job.resume()
        assert came.wait(WAIT_S)
        assert [each.event.value for each in heard] == ["file_transferred", "job_transferred"]
        assert (heard[0].job, heard[0].file_index) == (job, 0)
        wait_until(lambda: job.get_notify_interface() is None, "the job to let go")
        with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
            job.set_notify_interface(take)


def test_j18_the_last_that_is_set_counts_in_one_process_too(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    heard: list[str] = []
    came = threading.Event()
    with openbits.Manager(daemon.socket) as first, openbits.Manager(daemon.socket) as second:
        job = first.create_job("two managers")
        job.add_file(f"file://{source}", str(tmp_path / "target"))
        job.set_notify_interface(lambda _: heard.append("first"))
        same = second.get_job(job.id)

        def take(_: object) -> None:
            heard.append("second")
            came.set()

        same.set_notify_interface(take)
        wait_until(lambda: job.get_notify_interface() is None, "the first to be told")
        job.resume()
        assert came.wait(WAIT_S)
        assert heard == ["second"]
        job.cancel()


def test_the_asyncio_twin_hears_the_same_and_survives_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)

    async def story() -> list[str]:
        heard: list[str] = []
        came: asyncio.Queue[str] = asyncio.Queue()

        class Listener:
            async def job_transferred(self, job: openbits.aio.Job) -> None:
                await asyncio.sleep(0)
                heard.append("job_transferred")
                if len(heard) == 1:
                    raise RuntimeError("once")
                await job.complete()
                came.put_nowait("done")

        async with openbits.aio.Manager(daemon.socket) as manager:
            job = await manager.create_job("asyncio")
            await job.add_file(f"file://{source}", str(tmp_path / "target"))
            await job.set_notify_interface(Listener())
            os.kill(daemon.process_named("bitsd-service").pid, signal.SIGKILL)
            await asyncio.to_thread(daemon.wait_reachable)
            await asyncio.to_thread(wait_until, lambda: daemon.show(job.id)["has_notify_interface"], "it to come back")
            async with asyncio.timeout(WAIT_S):
                await job.resume()
                await came.get()
            assert await job.get_state() is JobState.ACKNOWLEDGED
        return heard

    assert asyncio.run(story()) == ["job_transferred"] * 2


def test_n4_an_error_of_its_own_is_what_stands_in_the_log(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    came = threading.Event()

    def take(_: object) -> None:
        if not came.is_set():
            came.set()
            raise BitsError("ERROR_DISK_FULL", "no room for it here")

    with openbits.Manager(daemon.socket) as manager:
        job = manager.create_job("an error")
        job.add_file(f"file://{source}", str(tmp_path / "target"))
        job.set_notify_interface(take)
        job.resume()
        wait_told(daemon, job.id)
        [event] = noted(daemon, job.id)
        assert event["event_id"] == 16390
        assert "no room for it here" in event["text"]
        assert (event["fields"]["retry_wait_time"], event["fields"]["hr"]) == ("1", "0x80070070")
        job.cancel()


# --- command lines -----------------------------------------------------------------------------------------


def test_n10_n11_a_command_line_is_run_until_it_ends_well(daemon: Daemon, alice: TestAccount) -> None:
    out = os.path.join(alice.home, "n11")
    script = os.path.join(alice.home, "tell.sh")
    with open(script, "w", encoding="ascii") as file:
        file.write(f'#!/bin/sh\necho "$@" >> {out}\ntest "$(wc -l < {out})" -ge 2\n')
    os.chmod(script, 0o755)
    job = submit(daemon, alice, "--notify-command", f"{script} 'two words' $HOME ;", "--retry-delay", "5")
    wait_told(daemon, job)
    assert Path(out).read_text().splitlines() == ["two words $HOME ;"] * 2
    first, second = noted(daemon, job)
    assert (first["event_id"], first["fields"]["exit_status"], first["level"]) == (63, "1", "warning")
    assert second["event_id"] == 0
    for event in (first, second):
        assert event["fields"]["program"] == script
        assert "two words" in event["fields"]["parameters"]
    assert any(event["event_id"] == 6 for event in daemon.events() if event["job_id"] == job)


def test_n11_a_command_line_that_completes_the_job(daemon: Daemon, alice: TestAccount) -> None:
    bits = os.path.join(os.path.dirname(sys.executable), "bits")
    source = file_of(alice, b"x" * 10)
    target = os.path.join(alice.home, "completed")
    job = daemon.bits("create", "by itself", account=alice, check=True).stdout.strip()
    daemon.bits("add", job, f"file://{source}", target, account=alice, check=True)
    command = ("notify", job, "--", bits, "--socket", daemon.socket, "complete", job)
    daemon.bits(*command, account=alice, check=True)
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "ACKNOWLEDGED")
    assert os.path.exists(target)


def test_n13_the_system_s_jobs_never_run_a_command_line(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    out = tmp_path / "never"
    command = f"/bin/sh -c 'echo ran > {out}'"
    job = daemon.submit(f"file://{source}", "-o", str(tmp_path / "target"), "--notify-command", command)
    daemon.wait_state(job, "TRANSFERRED")
    assert "never run" in daemon.bits("show", job, check=True).stdout
    assert "never run" in daemon.why(job)["sentence"]
    assert not out.exists()
    assert noted(daemon, job) == []
    daemon.bits("cancel", job, check=True)


def test_j30_a_command_line_is_its_owner_s_alone(daemon: Daemon, alice: TestAccount) -> None:
    job = daemon.bits("create", "hers", account=alice, check=True).stdout.strip()
    refused = daemon.bits("notify", job, "--", "/bin/true")
    assert refused.returncode == 4
    assert "E_ACCESSDENIED" in refused.stderr
    daemon.bits("notify", job, "--", "/bin/true", "a b", account=alice, check=True)
    shown = json.loads(daemon.bits("notify", job, "--json", check=True).stdout)
    assert shown["notify_command"] == {"program": "/bin/true", "arguments": ["/bin/true", "a b"]}
    assert daemon.bits("notify", job, "--", "no-such-program", account=alice).returncode == 2
    # N14: who takes the job over does not take over what runs in the former owner's name.
    daemon.bits("take-ownership", job, check=True)
    assert daemon.show(job)["notify_command"] is None
    daemon.bits("cancel", job, check=True)


def test_an_administrator_can_forbid_command_lines(alice: TestAccount) -> None:
    with running_daemon("system", config=CONFIG) as daemon:
        directory = os.path.join(daemon.base, "policy.d")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "10-test.toml"), "w", encoding="ascii") as file:
            file.write("allow_notification_commands = false\n")
        os.chmod(directory, 0o755)
        os.kill(daemon.pid, signal.SIGHUP)
        out = os.path.join(alice.home, "forbidden")
        wait_until(
            lambda: "allow_notification_commands" in daemon.bits("policy", "show").stdout, "the policy to be read"
        )
        job = submit(daemon, alice, "--notify-command", f"/bin/sh -c 'echo ran >> {out}'")
        daemon.wait_state(job, "TRANSFERRED")
        wait_until(lambda: "forbids" in daemon.why(job)["sentence"], "the policy to hold")
        assert not os.path.exists(out)
        os.unlink(os.path.join(directory, "10-test.toml"))
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: os.path.exists(out), "what was forbidden to be made up for")


# --- notify_url ----------------------------------------------------------------------------------------------


class _Hook(http.server.BaseHTTPRequestHandler):
    server: _Hooks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((dict(self.headers), json.loads(body)))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Hooks(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.posts: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.statuses: list[int] = []


@pytest.fixture
def hooks() -> Iterator[_Hooks]:
    with _Hooks() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=20)


def test_a_url_is_told_until_it_takes_it_and_no_redirect_is_followed(
    daemon: Daemon, alice: TestAccount, hooks: _Hooks
) -> None:
    hooks.statuses = [302, 500]
    url = f"http://127.0.0.1:{hooks.server_port}/hook"
    job = submit(daemon, alice, "--notify-url", url, "--header", "X-Secret: hidden", "--retry-delay", "5")
    daemon.wait_state(job, "TRANSFERRED")
    wait_until(lambda: hooks.posts, "the first attempt")
    daemon.bits("complete", job, account=alice, check=True)
    wait_until(lambda: daemon.show(job)["owed_webhook"] is None, "it to be taken", WAIT_S)
    assert len(hooks.posts) == 3
    headers, body = hooks.posts[0]
    assert headers["Content-Type"] == "application/json"
    assert (body["event"], body["job"]["id"], body["job"]["state"]) == ("job_transferred", job, "TRANSFERRED")
    assert body["job"]["files"][0]["transferred"]
    assert body["job"]["files_left_out"] == 0
    assert "hidden" not in json.dumps(hooks.posts)
    assert [event["event_id"] for event in noted(daemon, job)] == [16390, 16390, 0]


def test_n14_only_the_owner_says_where_his_jobs_are_announced(
    daemon: Daemon, alice: TestAccount, hooks: _Hooks
) -> None:
    job = submit(daemon, alice)
    url = f"http://127.0.0.1:{hooks.server_port}/hook"
    assert daemon.bits("set", job, f"notify_url={url}").returncode == 4
    daemon.bits("set", job, f"notify_url={url}", account=alice, check=True)
    wait_until(lambda: hooks.posts, "it to be told of what has happened already")


def test_hostile_answers_of_a_program(daemon: Daemon, alice: TestAccount) -> None:
    session = daemon.session
    for call in (
        notifications.acknowledge("0" * 32, "1", None, ""),
        notifications.acknowledge("../..", "1", None, ""),
        notifications.set_interface(submit(daemon, alice), "0" * 32, 1),
    ):
        with pytest.raises(BitsError) as refusal:
            session.perform(call)
        assert refusal.value.name in ("RPC_E_DISCONNECTED", "E_INVALIDARG")
