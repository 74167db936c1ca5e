"""The log-on rule with the real logind: a person's job runs while its owner is logged on (I2; architecture §4)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.daemon import wait_until
from support.nspawn import Machine
from support.nspawn_jobs import Jobs, Source
from support.nspawn_logon import Logon, logged_on, user_state

SIZE = 48_000_000
RATE_BPS = 3_000_000
REACHED = 3_000_000
STOP_S = 1.0
"""How long a transfer may go on after its owner has logged off."""


@pytest.fixture(autouse=True)
def slow_origin(jobs: Jobs) -> Iterator[None]:
    """Transfers take long enough to be stopped; what a test left is cancelled."""
    jobs.origin.limit(RATE_BPS)
    yield
    for account in ("alice", "bob"):
        jobs.cancel_all(account)
        jobs.machine.run("loginctl", "disable-linger", account)
        jobs.machine.try_run("pkill", "-KILL", "--uid", account, "sleep")


def get(logon: Logon, jobs: Jobs, source: Source, target: str) -> str:
    """`bits get --async` by somebody who is logged on; return the job's id when something has come in."""
    job = logon.run(f"bits get --async --retry-delay 1 {source.url} -o {target}").strip()
    jobs.wait_bytes(job, REACHED)
    return job


def assert_waits_for_logon(jobs: Jobs, job: str, account: str) -> None:
    """It is QUEUED, nothing runs with its owner's rights, and `bits why` says what for."""
    jobs.wait_state(job, "QUEUED")
    jobs.wait_no_worker(account)
    said = jobs.why(job)["sentence"]
    assert "log" in said, said
    assert account in said, said


def test_the_provider_is_logind(machine: Machine, jobs: Jobs) -> None:
    """`auto` takes logind where there is one, and says so."""
    assert "action=logon-provider provider=logind" in machine.journal("--unit=openbits.service", "--boot")
    assert "log-on: by logind" in jobs.try_bits("doctor").stdout


def test_log_off_stops_the_transfer_and_log_on_continues_it(machine: Machine, jobs: Jobs) -> None:
    """Also when a program is left behind and the session stays *closing*; from the very byte where it stopped."""
    source, target = jobs.new_source(SIZE), "/home/alice/left"
    with logged_on(machine, "alice") as alice:
        job = get(alice, jobs, source, target)
        left = alice.leave_behind()
        leaving = time.monotonic()
        alice.log_off()
        assert alice.state() == "closing"
    assert user_state(machine, "alice") == "closing"
    assert_waits_for_logon(jobs, job, "alice")
    (stopped,) = jobs.origin.answers(source)
    assert stopped.at - leaving < STOP_S
    reached = jobs.show(job)["bytes_transferred"]
    assert reached >= REACHED
    # What was left behind still runs: it is no log-on, and has not been harmed.
    machine.run("kill", "-0", str(left))
    with logged_on(machine, "alice"):
        jobs.finish(job, source, target)
    first, second = jobs.origin.requests(source)
    assert (first.first, second.first) == (0, reached)


def test_a_lost_connection_is_a_log_off(machine: Machine, jobs: Jobs) -> None:
    """Whoever's network breaks is gone as soon as sshd knows."""
    source, target = jobs.new_source(SIZE), "/home/alice/lost"
    with logged_on(machine, "alice") as alice:
        job = get(alice, jobs, source, target)
        leaving = time.monotonic()
        alice.hang_up()
        assert_waits_for_logon(jobs, job, "alice")
    (stopped,) = jobs.origin.answers(source)
    assert stopped.at - leaving < STOP_S


def test_the_last_of_several_sessions_counts(machine: Machine, jobs: Jobs) -> None:
    """Nobody is logged off while another session of his is open."""
    source, target = jobs.new_source(SIZE), "/home/alice/twice"
    with logged_on(machine, "alice") as first, logged_on(machine, "alice") as second:
        job = get(first, jobs, source, target)
        first.leave_behind()
        first.log_off()
        reached = jobs.show(job)["bytes_transferred"]
        jobs.wait_bytes(job, reached + 1_000_000)
        assert jobs.origin.answers(source) == []
        second.log_off()
    assert_waits_for_logon(jobs, job, "alice")


def test_lingering_is_a_log_on(machine: Machine, jobs: Jobs) -> None:
    """`loginctl enable-linger` lets jobs run without a session, `disable-linger` ends that."""
    source, target = jobs.new_source(SIZE), "/home/bob/linger"
    job = jobs.get(source, target, account="bob")
    assert_waits_for_logon(jobs, job, "bob")
    machine.run("loginctl", "enable-linger", "bob")
    jobs.wait_bytes(job, REACHED)
    assert user_state(machine, "bob") == "lingering"
    machine.run("loginctl", "disable-linger", "bob")
    assert_waits_for_logon(jobs, job, "bob")
    machine.run("loginctl", "enable-linger", "bob")
    jobs.finish(job, source, target)


def test_lingering_outlasts_a_session(machine: Machine, jobs: Jobs) -> None:
    """The end of a session is no log-off of an account that lingers."""
    machine.run("loginctl", "enable-linger", "bob")
    source, target = jobs.new_source(SIZE), "/home/bob/lingers"
    with logged_on(machine, "bob") as bob:
        job = get(bob, jobs, source, target)
        bob.log_off()
    reached = jobs.show(job)["bytes_transferred"]
    jobs.wait_bytes(job, reached + 1_000_000)
    assert jobs.origin.answers(source) == []


OTHER_WAYS = {
    "su -l": ("su", "-l", "alice", "-c", "exec sleep 600"),
    "su": ("su", "alice", "-c", "exec sleep 600"),
    "sudo -u": ("sudo", "-u", "alice", "sleep", "600"),
    "sudo -i": ("sudo", "-u", "alice", "-i", "sleep", "600"),
    "runuser -l": ("runuser", "-l", "alice", "-c", "exec sleep 600"),
}


def assert_not_a_log_on(machine: Machine, jobs: Jobs, job: str) -> None:
    """Alice's job has stayed QUEUED although logind has reported what there is to report.

    Somebody else's log-on shows that: reports come in order, and his job runs already.
    """
    wait_until(lambda: machine.try_run("pgrep", "--uid", "alice", "sleep").stdout, "the program to run as alice")
    source = jobs.new_source(SIZE)
    theirs = jobs.get(source, "/home/bob/marker", account="bob")
    with logged_on(machine, "bob"):
        jobs.wait_bytes(theirs, 1)
        assert jobs.show(job)["state"] == "QUEUED"
        assert "alice" in jobs.why(job)["sentence"]
        assert jobs.workers("alice") == []


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_changing_the_account_is_no_log_on(machine: Machine, jobs: Jobs, way: str) -> None:
    """Inventory I2: su and sudo make no session of class user, neither in a service nor in somebody's session."""
    source = jobs.new_source(SIZE)
    job = jobs.get(source, "/home/alice/su", account="alice")
    assert_waits_for_logon(jobs, job, "alice")
    unit = f"way-{OTHER_WAYS[way][0]}-{len(way)}.service"
    machine.run("systemd-run", "--quiet", f"--unit={unit}", *OTHER_WAYS[way])
    try:
        assert_not_a_log_on(machine, jobs, job)
    finally:
        machine.run("systemctl", "stop", unit)


def test_su_in_a_session_is_no_log_on(machine: Machine, jobs: Jobs) -> None:
    """Root is logged on by ssh and becomes alice there."""
    source = jobs.new_source(SIZE)
    job = jobs.get(source, "/home/alice/rooted", account="alice")
    with logged_on(machine, "root") as root:
        root.run("setsid su -l alice -c 'exec sleep 600' >/dev/null 2>&1 </dev/null &")
        assert_not_a_log_on(machine, jobs, job)
        root.run("pkill -u alice sleep")


def test_a_unit_with_pam_is_no_log_on(machine: Machine, jobs: Jobs) -> None:
    """PAMName= makes a session of class background."""
    source = jobs.new_source(SIZE)
    job = jobs.get(source, "/home/alice/pam", account="alice")
    options = ["--quiet", "--unit=with-pam", "--uid=alice", "--property=PAMName=login"]
    machine.run("systemd-run", *options, "sleep", "600")
    try:
        assert_not_a_log_on(machine, jobs, job)
    finally:
        machine.run("systemctl", "stop", "with-pam.service")


@pytest.mark.parametrize("how", ["reboot", "plug"])
def test_after_boot_a_users_job_waits_for_the_log_on(machine: Machine, jobs: Jobs, how: str) -> None:
    """M8, I2: and then goes on from its last durable byte."""
    source, target = jobs.new_source(SIZE), f"/home/alice/{how}"
    with logged_on(machine, "alice") as alice:
        job = get(alice, jobs, source, target)
        if how == "reboot":
            durable = REACHED  # an orderly end keeps what has come in
            machine.reboot()
        else:
            jobs.wait_durable(job, REACHED)
            machine.pull_the_plug()
            durable = jobs.durable_bytes(job)
            machine.start()
    assert_waits_for_logon(jobs, job, "alice")
    assert len(jobs.origin.requests(source)) == 1
    with logged_on(machine, "alice"):
        jobs.finish(job, source, target)
    _, second = jobs.origin.requests(source)
    assert second.first >= durable


def test_the_service_starts_while_people_are_logged_on(machine: Machine, jobs: Jobs) -> None:
    """What was before the service's own start counts: sessions are asked for, not only heard of."""
    source, target = jobs.new_source(SIZE), "/home/alice/restarted"
    with logged_on(machine, "alice") as alice:
        job = get(alice, jobs, source, target)
        machine.run("systemctl", "restart", "openbits.service")
        jobs.finish(job, source, target)


@pytest.mark.parametrize("unit", ["systemd-logind.service", "dbus.service"])
def test_restarts_of_the_provider_are_survived(machine: Machine, jobs: Jobs, unit: str) -> None:
    """Nobody is taken for logged off meanwhile; log-off and log-on are noticed as before."""
    source, target = jobs.new_source(SIZE), f"/home/alice/{unit.partition('.')[0]}"
    with logged_on(machine, "alice") as alice:
        job = get(alice, jobs, source, target)
        machine.run("systemctl", "restart", unit)
        reached = jobs.show(job)["bytes_transferred"]
        jobs.wait_bytes(job, reached + 2_000_000)
        assert jobs.origin.answers(source) == []
        leaving = time.monotonic()
        alice.log_off()
    assert_waits_for_logon(jobs, job, "alice")
    (stopped,) = jobs.origin.answers(source)
    assert stopped.at - leaving < STOP_S
    with logged_on(machine, "alice"):
        jobs.finish(job, source, target)
