"""Log-on and log-off with the real daemon, real accounts and a logind of the test's (I2; architecture §4, rule 2).

What is said of processes is what /proc says, and what is said of bytes is what the server was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from openbits.client import calls
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, processes_of, running_daemon, wait_until
from support.fake_logind import FakeLogind, PrivateBus, fake_logind, private_bus
from support.origin import Origin, generate
from support.switches import has_settled, switches

pytestmark = needs_root

SIZE = 6_000_000
RATE_BPS = 2_000_000
A_SECOND_OR_SO = 1.5
"""A log-off takes the time of a few D-Bus calls, of an fdatasync and of the end of a process; half a second is for the
machine that runs the tests."""
CONFIG = """
[logon]
provider = "{provider}"

[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
idle_s = 5

[quotas]
max_jobs_per_user = 2000
max_jobs_per_machine = 2000
max_files_per_job = 5000
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A daemon, and who says who is logged on to its machine."""

    daemon: Daemon
    bus: PrivateBus
    logind: FakeLogind
    origin: Origin
    alice: TestAccount

    def url(self, seed: int, *, size: int = SIZE, rate: int = RATE_BPS) -> str:
        return self.origin.url(f"/gen/{size}/{seed}?rate={rate}")

    def start_job(self, seed: int, account: TestAccount | None = None) -> str:
        """Let a job run until something of it is durable."""
        account = account or self.alice
        job = self.daemon.submit(self.url(seed), "-o", path_of(account, seed), account=account)
        self.daemon.wait_state(job, "TRANSFERRING")
        wait_until(lambda: self.durable(job) > 0, "a checkpoint")
        return job

    def durable(self, job: str) -> int:
        [file] = self.daemon.stored_files(job)
        return file.durable_bytes

    def log_off(self, account: TestAccount | None = None) -> float:
        """Log off; return how long anything of the account went on running."""
        account = account or self.alice
        started = time.monotonic()
        self.logind.log_off(account.uid)
        wait_until(lambda: not processes_of(account.uid), "the account's processes to end")
        return time.monotonic() - started

    def asked(self, seed: int) -> list[str | None]:
        """Which ranges the server was asked for."""
        return [request.range for request in self.origin.requests_of(f"/gen/{SIZE}/{seed}")]

    def finish(self, job: str, seed: int, account: TestAccount | None = None) -> None:
        """Wait for the job, complete it, and look at the file."""
        account = account or self.alice
        self.daemon.wait_state(job, "TRANSFERRED")
        self.daemon.bits("complete", job, account=account, check=True)
        check(path_of(account, seed), seed, account)


def path_of(account: TestAccount, seed: int) -> str:
    return os.path.join(account.home, f"file{seed}")


def check(path: str, seed: int, account: TestAccount) -> None:
    with open(path, "rb") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(generate(SIZE, seed)).digest()
    assert os.stat(path).st_uid == account.uid


@contextlib.contextmanager
def machine(provider: str = "logind", **environment: str) -> Iterator[Machine]:
    with (
        temporary_account() as alice,
        private_bus() as bus,
        fake_logind(bus) as logind,
        Origin() as origin,
        running_daemon(
            config=CONFIG.format(provider=provider),
            environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address, **environment},
        ) as daemon,
    ):
        yield Machine(daemon=daemon, bus=bus, logind=logind, origin=origin, alice=alice)


@pytest.fixture(scope="module")
def shared() -> Iterator[Machine]:
    """One for the tests that leave it as they found it, with nobody logged on."""
    with machine() as made:
        yield made


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A file of one's own for each test."""
    return 100 + request.session.items.index(request.node)


# --- the rule ------------------------------------------------------------------------------------------------


def test_i2_a_transfer_stops_at_log_off_and_goes_on_from_the_same_byte_at_log_on(shared: Machine, seed: int) -> None:
    shared.logind.log_on(shared.alice.uid)
    job = shared.start_job(seed)
    assert shared.log_off() < A_SECOND_OR_SO
    shown = shared.daemon.show(job)
    assert shown["state"] == "QUEUED"
    durable = shared.durable(job)
    assert 0 < durable < SIZE
    assert os.stat(shown["files"][0]["temporary_name"]).st_size >= durable
    why = shared.daemon.why(job)
    assert why["gate"] == "logon"
    assert f"its owner {shared.alice.name} is logged off" in why["sentence"]
    assert shared.asked(seed) == [None]
    shared.logind.log_on(shared.alice.uid)
    shared.finish(job, seed)
    assert shared.asked(seed) == [None, f"bytes={durable}-"]
    shared.log_off()


def test_i2_a_job_of_somebody_logged_off_waits_from_the_start(shared: Machine, seed: int) -> None:
    """Asked for by a process that outlived the session, or by a service that impersonates."""
    job = shared.daemon.submit(shared.url(seed, rate=0), "-o", path_of(shared.alice, seed), account=shared.alice)
    assert shared.daemon.show(job)["state"] == "QUEUED"
    wait_until(lambda: not processes_of(shared.alice.uid), "the worker that looked at the directory to leave")
    assert shared.asked(seed) == []
    shared.logind.log_on(shared.alice.uid)
    shared.finish(job, seed)
    shared.log_off()


def test_i2_a_session_of_another_class_is_no_log_on(shared: Machine, seed: int) -> None:
    """su and cron: sessions of class background, or none at all."""
    job = shared.daemon.submit(shared.url(seed, rate=0), "-o", path_of(shared.alice, seed), account=shared.alice)
    shared.logind.log_on(shared.alice.uid, session="b1", kind="background")
    shared.logind.log_on(shared.alice.uid, session="m1", kind="manager")
    shared.logind.log_on(0, session="root")
    shared.logind.log_off(0)
    assert shared.daemon.show(job)["state"] == "QUEUED"
    assert shared.daemon.why(job)["gate"] == "logon"
    shared.logind.log_on(shared.alice.uid, session="s1")
    shared.finish(job, seed)
    shared.log_off()


def test_i2_a_user_who_lingers_is_logged_on(shared: Machine, seed: int) -> None:
    job = shared.daemon.submit(shared.url(seed, rate=0), "-o", path_of(shared.alice, seed), account=shared.alice)
    assert shared.daemon.show(job)["state"] == "QUEUED"
    shared.logind.log_on(shared.alice.uid, state="closing")
    shared.logind.users[shared.alice.uid].lingers = True
    shared.logind.signal("UserNew", "uo", shared.alice.uid, "/org/freedesktop/login1/user/_1")
    shared.finish(job, seed)
    shared.logind.users[shared.alice.uid].lingers = False
    shared.log_off()


def test_i2_an_idle_worker_leaves_at_log_off(shared: Machine, seed: int) -> None:
    shared.logind.log_on(shared.alice.uid)
    job = shared.daemon.submit(shared.url(seed, rate=0), "-o", path_of(shared.alice, seed), account=shared.alice)
    shared.daemon.wait_state(job, "TRANSFERRED")
    assert len(processes_of(shared.alice.uid)) == 1
    assert shared.log_off() < A_SECOND_OR_SO
    shared.daemon.bits("cancel", job, check=True)


def test_i2_a_worker_that_hangs_at_log_off_is_killed_and_what_was_durable_stays(shared: Machine, seed: int) -> None:
    shared.logind.log_on(shared.alice.uid)
    job = shared.start_job(seed)
    [worker] = processes_of(shared.alice.uid)
    os.kill(worker.pid, signal.SIGSTOP)
    durable = shared.durable(job)
    assert shared.log_off() < A_SECOND_OR_SO
    assert shared.daemon.show(job)["state"] == "QUEUED"
    assert shared.durable(job) == durable
    shared.logind.log_on(shared.alice.uid)
    shared.finish(job, seed)
    assert shared.asked(seed) == [None, f"bytes={durable}-"]
    shared.log_off()


def test_i2_somebody_who_comes_and_goes_all_the_time_gets_the_right_file(shared: Machine, seed: int) -> None:
    shared.logind.log_on(shared.alice.uid)
    job = shared.start_job(seed)
    chance = random.Random(20_261_123)
    for _ in range(25):
        shared.logind.log_off(shared.alice.uid)
        time.sleep(chance.choice((0, 0.005, 0.02, 0.1)))
        shared.logind.log_on(shared.alice.uid)
        time.sleep(chance.choice((0, 0.005, 0.02, 0.1, 0.3)))
    shared.finish(job, seed)
    shared.log_off()


def test_i2_accounts_of_services_need_no_log_on(shared: Machine, seed: int) -> None:
    """LOCAL_SYSTEM and LOCAL_SERVICE, with nobody logged on; and a person's log-off does not touch them."""
    with temporary_account(system=True) as service:
        os.chmod(service.home, 0o755)
        job = shared.start_job(seed, service)
        shared.logind.log_on(shared.alice.uid)
        hers = shared.start_job(seed + 1000)
        shared.log_off()
        assert shared.daemon.show(hers)["state"] == "QUEUED"
        shared.logind.log_on(service.uid)
        shared.logind.log_off(service.uid)
        shared.finish(job, seed, service)
        assert shared.asked(seed) == [None], "it was never interrupted"
        shared.daemon.bits("cancel", hers, check=True)


def test_i2_a_job_of_roots_runs_with_nobody_logged_on(shared: Machine, seed: int) -> None:
    path = os.path.join(shared.daemon.base, f"file{seed}")
    job = shared.daemon.submit(shared.url(seed, rate=0), "-o", path)
    shared.daemon.wait_state(job, "TRANSFERRED")
    shared.daemon.bits("complete", job, check=True)
    with open(path, "rb") as file:
        assert file.read(1000) == generate(SIZE, seed, 0, 1000)


def test_i2_log_off_during_rename_does_not_cut_it_off(shared: Machine) -> None:
    count = 3000
    directory = os.path.join(shared.alice.home, "many")
    os.mkdir(directory)
    os.chown(directory, shared.alice.uid, shared.alice.gid)
    shared.logind.log_on(shared.alice.uid)
    files = [
        calls.file_in(shared.origin.url(f"/gen/10/{number}"), os.path.join(directory, f"f{number}"))
        for number in range(count)
    ]
    job = shared.daemon.submit(*(file["remote_name"] for file in files), "-d", directory, account=shared.alice)
    shared.daemon.wait_state(job, "TRANSFERRED", timeout_s=120)
    with shared.daemon.calling("complete", job, account=shared.alice) as completing:
        wait_until(lambda: any(not name.startswith(".") for name in os.listdir(directory)), "the first rename")
        shared.logind.log_off(shared.alice.uid)
        assert completing.wait(timeout=60) == 0
    shown = shared.daemon.show(job)
    assert (shown["state"], shown["files_transferred"]) == ("ACKNOWLEDGED", count)
    assert not [name for name in os.listdir(directory) if name.startswith(".")]
    wait_until(lambda: not processes_of(shared.alice.uid), "the account's processes to end")


@pytest.mark.parametrize("verb", ["resume", "complete", "cancel"])
def test_i2_an_administrator_uses_the_verbs_on_jobs_of_somebody_logged_off(
    shared: Machine, seed: int, verb: str
) -> None:
    shared.logind.log_on(shared.alice.uid)
    job = shared.start_job(seed)
    shared.log_off()
    temporary = shared.daemon.show(job)["files"][0]["temporary_name"]
    shared.daemon.bits("suspend", job, check=True)
    shared.daemon.bits(verb, job, check=True)
    expected = {"resume": "QUEUED", "complete": "ACKNOWLEDGED", "cancel": "CANCELLED"}[verb]
    assert shared.daemon.show(job)["state"] == expected
    # An unfinished file goes with Complete as with Cancel (J7); for that a worker came, and it left at once.
    assert os.path.exists(temporary) is (verb == "resume")
    wait_until(lambda: not processes_of(shared.alice.uid), "the account's processes to end", timeout_s=3)
    if verb == "resume":
        shared.daemon.bits("cancel", job, check=True)


def test_i2_many_jobs_of_somebody_logged_off_cost_nothing(shared: Machine) -> None:
    jobs = [
        calls.job_in(
            f"job {number}",
            files=[calls.file_in("http://127.0.0.1:9/x", f"{shared.alice.home}/x{number}")],
            resume=True,
        )
        for number in range(1000)
    ]
    script = (
        "import json, sys; from openbits.client import calls; from openbits.client.discovery import Endpoint;"
        "from openbits.client.session import Session; session = Session(Endpoint(sys.argv[1]));"
        "print(len(session.perform(calls.create_jobs(json.load(sys.stdin)))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, shared.daemon.socket],
        input=json.dumps(jobs),
        user=shared.alice.uid,
        group=shared.alice.gid,
        extra_groups=list(shared.alice.groups),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.stdout.strip() == "1000", done.stderr
    assert shared.daemon.statistics()["waiting"] == 0
    wait_until(lambda: not shared.daemon.workers(), "all workers to leave", timeout_s=60)
    wait_until(lambda: has_settled(shared.daemon), "the service to come to rest")
    before = switches(shared.daemon.processes())
    time.sleep(5.0)
    assert switches(shared.daemon.processes()) == before
    # Somebody else logs on: no job of hers is looked at for that.
    commits = shared.daemon.statistics()["commits"]
    shared.logind.log_on(1)
    shared.logind.log_off(1)
    assert shared.daemon.statistics()["commits"] == commits


# --- the daemon and the bus come and go --------------------------------------------------------------------------


def test_i2_a_daemon_that_is_restarted_while_the_owner_is_logged_off_leaves_the_job_alone(seed: int) -> None:
    with machine() as made:
        made.logind.log_on(made.alice.uid)
        job = made.start_job(seed)
        made.log_off()
        durable = made.durable(job)
        for end in (made.daemon.stop, made.daemon.kill):
            end()
            made.daemon.start()
            assert made.daemon.show(job)["state"] == "QUEUED"
            assert made.daemon.why(job)["gate"] == "logon"
            assert processes_of(made.alice.uid) == []
        made.logind.log_on(made.alice.uid)
        made.finish(job, seed)
        assert made.asked(seed) == [None, f"bytes={durable}-"]


def test_i2_a_daemon_that_is_restarted_while_the_owner_is_logged_on_goes_on_at_once(seed: int) -> None:
    with machine() as made:
        made.logind.log_on(made.alice.uid)
        job = made.start_job(seed)
        made.daemon.kill()
        made.daemon.start()
        made.finish(job, seed)
        assert "its owner has logged off" not in [event["text"] for event in made.daemon.events()]


def test_i2_a_bus_that_is_restarted_interrupts_nothing(seed: int) -> None:
    with machine() as made:
        made.logind.log_on(made.alice.uid)
        job = made.start_job(seed)
        made.bus.stop()
        wait_until(lambda: not log_on_check(made.daemon)["ok"], "the daemon to see that the bus is gone")
        assert "not known who is logged on" in log_on_check(made.daemon)["message"]
        made.bus.start()
        made.logind.start()
        made.finish(job, seed)
        assert made.asked(seed) == [None]
        wait_until(lambda: log_on_check(made.daemon)["ok"], "the daemon to see that the bus is back")
        made.log_off()


def test_i2_a_bus_that_is_absent_at_start_lets_nobody_in_until_it_comes(seed: int) -> None:
    with (
        temporary_account() as alice,
        private_bus(is_started=False) as bus,
        Origin() as origin,
        running_daemon(
            config=CONFIG.format(provider="logind"), environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        ) as daemon,
    ):
        url = origin.url(f"/gen/{SIZE}/{seed}")
        job = daemon.submit(url, "-o", path_of(alice, seed), account=alice)
        why = daemon.why(job)
        assert why["gate"] == "logon"
        assert "it is not known whether" in why["sentence"]
        assert "No such file" in why["sentence"]
        bus.start()
        with fake_logind(bus) as logind:
            logind.log_on(alice.uid)
            daemon.wait_state(job, "TRANSFERRED")


def test_i2_auto_takes_a_logind_that_comes_later_for_good(seed: int) -> None:
    """No systemd has booted this machine, and nothing keeps a utmp: everybody counts, until there is a logind."""
    if os.path.isdir("/run/systemd/system") or os.path.exists("/run/utmp"):
        pytest.skip("this machine keeps account of who is logged on")
    with machine("auto") as made:
        made.logind.stop()
        made.daemon.stop()
        made.daemon.start()
        assert log_on_check(made.daemon)["message"] == "by always: everybody counts as logged on"
        job = made.start_job(seed)
        made.logind.start()
        wait_until(lambda: not processes_of(made.alice.uid), "the account's processes to end")
        assert made.daemon.show(job)["state"] == "QUEUED"
        assert log_on_check(made.daemon)["message"] == "by logind: 0 people are logged on"
        made.bus.stop()
        wait_until(lambda: not log_on_check(made.daemon)["ok"], "the daemon to see that the bus is gone")
        assert log_on_check(made.daemon)["message"].startswith("by logind, but it is not known")
        assert made.daemon.show(job)["state"] == "QUEUED"
        made.bus.start()
        made.logind.start()
        made.logind.log_on(made.alice.uid)
        made.finish(job, seed)


def test_a_user_s_own_service_does_not_ask_who_is_logged_on() -> None:
    with private_bus() as bus, running_daemon("user", environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as daemon:
        assert log_on_check(daemon)["message"] == "by always: everybody counts as logged on"


def log_on_check(daemon: Daemon) -> dict[str, Any]:
    [found] = [check for check in daemon.doctor() if check["name"] == "log-on"]
    return found


# --- the environment -----------------------------------------------------------------------------------------


def test_where_the_bus_and_kerberos_are_is_told_to_those_who_need_it_only() -> None:
    places = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/none", "KRB5_CONFIG": "/none.conf", "http_proxy": "http://x"}
    with running_daemon(environment=places) as daemon:
        seen = {name: environment_of(daemon, name) for name in ("bitsd-service", "bitsd-zygote")}
    assert seen["bitsd-service"].keys() & places.keys() == {"DBUS_SYSTEM_BUS_ADDRESS"}
    # Its children call the bus names of service accounts (J61).
    assert seen["bitsd-zygote"].keys() & places.keys() == {"DBUS_SYSTEM_BUS_ADDRESS", "KRB5_CONFIG"}


def environment_of(daemon: Daemon, name: str) -> dict[str, str]:
    with open(f"/proc/{daemon.process_named(name).pid}/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
