"""kill -9 of every process of the daemon at random moments: no wrong byte, no lost job, nothing left lying about.

Fifty rounds. In each, one process that lives at that moment dies (worker, zygote, service or monitor) while a job of
many files is on its way or is being completed. After a monitor's death the daemon is started again; from all other
deaths it must recover by itself (architecture §2, D15, M8).
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, is_alive, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

ROUNDS = 50
SEED = 20_261_123
LARGE_BYTES, LARGE = 3_000_000, 4
SMALL_BYTES, SMALL = 20_000, 24
RATE_BPS = 2_500_000
"""Of each connection, so that a job takes a few seconds and most deaths fall into it."""

CONFIG = """
[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
"""


@dataclass(kw_only=True)
class Death:
    """What stood in the store just before a process was killed."""

    at: float
    who: str
    job: str
    files: dict[str, tuple[int, bool]]
    """By name of the file: durable bytes, and whether it was whole."""


@dataclass(kw_only=True)
class Siege:
    """The daemon, the jobs that it was given, and those who die."""

    daemon: Daemon
    origin: Nginx
    account: TestAccount
    hashes: dict[str, str]
    random: random.Random
    jobs: list[str] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)

    def new_job(self) -> str:
        """Give it a job of all the files, several of which are on the way at once."""
        directory = os.path.join(self.account.home, f"job{len(self.jobs)}")
        os.mkdir(directory)
        os.chown(directory, self.account.uid, self.account.gid)
        names = list(self.hashes)
        self.random.shuffle(names)
        urls = [self.origin.url(name, rate_bps=RATE_BPS) for name in names]
        job = self.daemon.submit(*urls, "-d", directory, "--connections", "4", account=self.account)
        self.files_of(job)
        self.jobs.append(job)
        return job

    def kill_one(self, job: str) -> None:
        """Kill a process that lives now."""
        living = self.daemon.processes()
        victim = self.random.choice(sorted(living, key=lambda process: process.name))
        names = [os.path.basename(file["local_name"]) for file in self.files_of(job)]
        stored = self.daemon.stored_files(job)
        known = {name: (file.durable_bytes, file.transferred) for name, file in zip(names, stored, strict=True)}
        self.deaths.append(Death(at=time.time(), who=victim.name, job=job, files=known))
        if victim.name == "bitsd":
            self.daemon.kill()
            self.daemon.start()
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(victim), f"{victim.name} to end")

    def files_of(self, job: str) -> list[dict[str, str]]:
        """The files of a job; their names never change, so they are asked for once."""
        if job not in self._files:
            self._files[job] = self.daemon.show(job)["files"]
        return self._files[job]

    _files: dict[str, list[dict[str, str]]] = field(default_factory=dict)


@pytest.fixture
def siege() -> Iterator[Siege]:
    with temporary_account() as account, running_nginx() as origin, running_daemon("system", config=CONFIG) as daemon:
        hashes = {f"large{number}": origin.add(f"large{number}", LARGE_BYTES) for number in range(LARGE)}
        hashes |= {f"small{number}": origin.add(f"small{number}", SMALL_BYTES) for number in range(SMALL)}
        yield Siege(daemon=daemon, origin=origin, account=account, hashes=hashes, random=random.Random(SEED))


def complete(siege: Siege, job: str, *, under_fire: bool) -> None:
    """Complete a job; somebody may die while its files are being renamed."""
    daemon = siege.daemon
    while daemon.wait_state(job, "TRANSFERRED", "ACKNOWLEDGED")["state"] == "TRANSFERRED":
        # A call that is cut off may have been heard or not; a second Complete joins the first (J7).
        with daemon.calling("complete", job, account=siege.account) as caller:
            if under_fire:
                time.sleep(siege.random.uniform(0.1, 0.3))
                siege.kill_one(job)
                under_fire = False
            caller.wait(timeout=60)


def check_files(siege: Siege, job: str) -> None:
    """Every file stands under its name with the right bytes and owner, and nothing else is there."""
    files = siege.files_of(job)
    directory = os.path.dirname(files[0]["local_name"])
    assert sorted(os.listdir(directory)) == sorted(siege.hashes)
    for name, wanted in siege.hashes.items():
        path = os.path.join(directory, name)
        assert sha256_of(path) == wanted, path
        assert os.stat(path).st_uid == siege.account.uid


def check_requests(siege: Siege, jobs_of: dict[str, tuple[float, float]]) -> None:
    """No byte that was durable when somebody died was asked for again (D15)."""
    asked = siege.origin.asked()
    for death in siege.deaths:
        begin, end = jobs_of[death.job]
        for request in asked:
            if not max(begin, death.at + 0.005) < request.started_at < end:
                continue
            durable, whole = death.files[request.name]
            assert not whole, f"{request.name} was whole when {death.who} died, and was asked for again"
            assert request.offset >= durable, f"{request.name}: {durable} bytes were durable when {death.who} died"


def troubles(daemon: Daemon) -> str:
    """What went wrong with jobs, and what the daemon said meanwhile."""
    said = daemon.bits("events", "--all-users", "--json").stdout
    assert daemon.log is not None
    return said + daemon.log.text


def test_fifty_deaths(siege: Siege) -> None:
    daemon = siege.daemon
    bystander = daemon.bits("create", "bystander", account=siege.account, check=True).stdout.strip()
    spans: dict[str, tuple[float, float]] = {}
    rounds = 0
    while rounds < ROUNDS:
        begin = time.time()
        job = siege.new_job()
        while rounds < ROUNDS and not all(file.transferred for file in daemon.stored_files(job)):
            # The moment is the point of the test: whatever happens to be going on then.
            time.sleep(siege.random.uniform(0.0, 0.7))
            siege.kill_one(job)
            rounds += 1
        rounds += rounds < ROUNDS
        complete(siege, job, under_fire=rounds < ROUNDS)
        spans[job] = (begin, time.time())
        check_files(siege, job)
    check_requests(siege, spans)
    ended = {entry["id"]: entry for entry in daemon.history()}
    assert [ended[job]["state"] for job in siege.jobs] == ["ACKNOWLEDGED"] * len(siege.jobs)
    assert [ended[job]["error_count"] for job in siege.jobs] == [0] * len(siege.jobs), troubles(daemon)
    assert ended[bystander]["state"] == "SUSPENDED"
    # Also some that had no name of their own yet, because they were just being started.
    assert {death.who for death in siege.deaths} >= {"bitsd", "bitsd-service", "bitsd-zygote", "bitsd-worker"}


def has_mail(pid: int) -> bool:
    """Whether something that a process has not read lies in one of its Unix sockets."""
    shown = subprocess.run(["ss", "-xpH"], check=True, capture_output=True, text=True, timeout=20).stdout
    return any(f"pid={pid}," in line and line.split()[2] != "0" for line in shown.splitlines())


def test_a_zygote_that_dies_with_an_order_costs_nothing(siege: Siege) -> None:
    """Its death is a break like a worker's, for a job that starts and for a caller who waits."""
    daemon, account = siege.daemon, siege.account
    url = siege.origin.url("large0", rate_bps=RATE_BPS)
    job = daemon.submit(url, "-o", os.path.join(account.home, "first"), account=account)
    daemon.wait_state(job, "TRANSFERRING")
    daemon.bits("suspend", job, account=account, check=True)
    for call in (("resume", job), ("get", url, "-o", os.path.join(account.home, "second"))):
        for worker in daemon.workers():
            os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not daemon.workers(), "the worker to end")
        zygote = daemon.process_named("bitsd-zygote")
        os.kill(zygote.pid, signal.SIGSTOP)
        with daemon.calling(*call, account=account) as caller:
            wait_until(functools.partial(has_mail, zygote.pid), "the order to be with the zygote")
            os.kill(zygote.pid, signal.SIGKILL)
            assert caller.wait(timeout=60) == 0
        assert daemon.wait_state(job, "TRANSFERRED", "TRANSIENT_ERROR")["error_count"] == 0
    daemon.bits("complete", job, account=account, check=True)
    for name in ("first", "second"):
        assert sha256_of(os.path.join(account.home, name)) == siege.hashes["large0"]
