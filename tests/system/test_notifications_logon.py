"""N10, I2: a person's command line runs while he is logged on, and no longer; nothing that is owed is lost."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from support.accounts import TestAccount, file_of, needs_root, temporary_account
from support.daemon import Daemon, processes_of, running_daemon, wait_until
from support.fake_logind import FakeLogind, fake_logind, private_bus

pytestmark = needs_root

CONFIG = """
[logon]
provider = "logind"
"""
A_SECOND_OR_SO_S = 1.5


@contextlib.contextmanager
def machine() -> Iterator[tuple[Daemon, FakeLogind, TestAccount]]:
    with (
        temporary_account() as alice,
        private_bus() as bus,
        fake_logind(bus) as logind,
        running_daemon("system", config=CONFIG, environment={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as daemon,
    ):
        logind.log_on(alice.uid)
        yield daemon, logind, alice


def test_n10_a_command_line_ends_at_log_off_and_runs_again_at_the_next_log_on() -> None:
    """Also one that ignores what asks it to end, and has a child: nothing of the account is left."""
    with machine() as (daemon, logind, alice):
        out = Path(alice.home) / "runs"
        sleeping = 'trap : TERM HUP; echo run >> "$0"; test $(wc -l < "$0") -ge 2 && exit 0; sleep 300 & sleep 300'
        command = f"/bin/sh -c '{sleeping}' {out}"
        source = file_of(alice, b"x" * 100)
        job = daemon.submit(
            f"file://{source}", "-o", f"{alice.home}/target", "--notify-command", command, account=alice
        )
        wait_until(out.exists, "the command line to run")
        wait_until(lambda: any(each.name == "sleep" for each in processes_of(alice.uid)), "its child")
        began = time.monotonic()
        logind.log_off(alice.uid)
        wait_until(lambda: not processes_of(alice.uid), "the account's processes to end")
        assert time.monotonic() - began < A_SECOND_OR_SO_S
        assert daemon.show(job)["owed_notice"] == "transferred"
        assert "logs on" in daemon.why(job)["sentence"]
        assert [event for event in daemon.events() if event["kind"] == "notification"] == [], "it has not failed"
        logind.log_on(alice.uid)
        wait_until(lambda: daemon.show(job)["owed_notice"] is None, "the second run to end")
        assert out.read_text().splitlines() == ["run", "run"]
        assert os.stat(out).st_uid == alice.uid


def test_n10_who_is_logged_off_when_his_job_ends_is_told_at_the_next_log_on() -> None:
    with machine() as (daemon, logind, alice):
        out = Path(alice.home) / "ran"
        source = file_of(alice, b"x" * 100)
        job = daemon.submit(f"file://{source}", "-o", f"{alice.home}/target", account=alice)
        daemon.wait_state(job, "TRANSFERRED")
        logind.log_off(alice.uid)
        wait_until(lambda: not processes_of(alice.uid), "the account's processes to end")
        daemon.bits("notify", job, "--", "/bin/sh", "-c", f"echo run > {out}", account=alice, check=True)
        wait_until(lambda: "logs on" in daemon.why(job)["sentence"], "it to be said")
        assert not out.exists()
        logind.log_on(alice.uid)
        wait_until(lambda: daemon.show(job)["owed_notice"] is None, "the command line to end")
        assert out.read_text() == "run\n"
