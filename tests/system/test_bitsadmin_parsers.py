"""Scripts that were written for the Windows tool, by what its manual says it prints, work with ours (section 9).

They are in `windows_scripts`, use nothing of ours, and run as a real account against real jobs.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

import openbits
from support.accounts import TestAccount, needs_root, temporary_account
from support.bitsadmin import TIMEOUT_S, Console, fresh
from support.daemon import Daemon, running_daemon
from support.origin import Origin, generate

pytestmark = needs_root

SCRIPTS = pathlib.Path(__file__).with_name("windows_scripts")
SIZE = 60_000


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


def script(console: Console, *command: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script's text as alice, who cannot read the tree that it comes from."""
    account = console.account
    assert account is not None
    done = subprocess.run(
        command,
        input=text,
        env=console.environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
    )
    if check:
        assert done.returncode == 0, done
    return done


def shell(console: Console, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return script(console, "sh", "-s", "--", *arguments, text=(SCRIPTS / name).read_text(), check=False)


def some_jobs(console: Console, origin: Origin, alice: TestAccount) -> None:
    """One suspended, one transferred, one in error, with names that a careless reader stumbles over."""
    console.job("it's new")
    done = console.job("two words")
    console.good("/addfile", "two words", origin.url(f"/gen/{SIZE}/2"), os.path.join(alice.home, "with space"))
    console.good("/resume", "two words")
    failed = console.job("bad")
    console.good("/addfile", "bad", origin.url("/status/404"), os.path.join(alice.home, "bad"))
    console.good("/resume", "bad")
    console.daemon.wait_state(done, "TRANSFERRED")
    console.daemon.wait_state(failed, "ERROR")


def test_a_loop_in_sh_waits_by_the_raw_state(console: Console, origin: Origin, alice: TestAccount) -> None:
    local = os.path.join(alice.home, "loop")
    done = shell(console, "wait_for_job.sh", "loop", origin.url(f"/gen/{SIZE}/9?rate=100000"), local)
    assert (done.returncode, done.stdout) == (0, f"TRANSFERRED {SIZE} of {SIZE}\n"), done
    assert pathlib.Path(local).read_bytes() == generate(SIZE, 9)


def test_the_loop_reads_the_error(console: Console, origin: Origin, alice: TestAccount) -> None:
    done = shell(console, "wait_for_job.sh", "none", origin.url("/status/404"), os.path.join(alice.home, "none"))
    assert (done.returncode, done.stdout) == (1, "failed with 0x80190194\n"), done
    assert "Listed 0 job(s).\n" in console.good("/list")


def test_a_report_of_the_list(console: Console, origin: Origin, alice: TestAccount) -> None:
    some_jobs(console, origin, alice)
    text = console.run("/list").stdout
    done = script(console, "awk", (SCRIPTS / "list_report.awk").read_text(), text=text)
    assert done.stdout == (
        "job it's new is SUSPENDED: files 0 of 0, bytes 0 of 0\n"
        f"job two words is TRANSFERRED: files 1 of 1, bytes {SIZE} of {SIZE}\n"
        "job bad is ERROR: files 0 of 1, bytes 0 of UNKNOWN\n"
        "state ERROR 1\nstate SUSPENDED 1\nstate TRANSFERRED 1\n"
        f"unknown 1, bytes {SIZE}\n"
    )


def test_an_audit_of_the_verbose_list(console: Console, origin: Origin, alice: TestAccount) -> None:
    some_jobs(console, origin, alice)
    root = Console(daemon=console.daemon)
    root.job("of root")
    text = root.run("/list", "/allusers", "/verbose").stdout
    done = script(console, sys.executable, "-c", (SCRIPTS / "verbose_audit.py").read_text(), text=text)
    jobs = {job["display"]: job for job in json.loads(done.stdout)}
    assert set(jobs) == {"it's new", "two words", "bad", "of root"}
    two = jobs["two words"]
    assert (two["type"], two["state"], two["user"]) == ("DOWNLOAD", "TRANSFERRED", alice.name)
    assert (two["files_done"], two["bytes_done"], two["bytes"]) == ("1", str(SIZE), str(SIZE))
    assert two["list"] == [
        {
            "done": str(SIZE),
            "total": str(SIZE),
            "status": "WORKING",
            "url": origin.url(f"/gen/{SIZE}/2"),
            "path": os.path.join(alice.home, "with space"),
        }
    ]
    created, completed = (
        datetime.strptime(f"{two[name]} +0000", "%m/%d/%Y %I:%M:%S %p %z") for name in ("created", "completed")
    )
    assert timedelta(0) <= completed - created < timedelta(minutes=2)
    bad = jobs["bad"]
    assert (bad["error"], bad["context"], bad["errors"]) == ("80190194", "00000005", "1")
    assert bad["error_url"] == origin.url("/status/404")
    assert (jobs["of root"]["user"], jobs["of root"]["level"], jobs["of root"]["elevated"]) == (
        "root",
        "SYSTEM",
        "true",
    )
    assert {job["command"] for job in jobs.values()} == {"none"}


def test_one_job_reads_as_the_list_does(console: Console, origin: Origin, alice: TestAccount) -> None:
    """/info /verbose is the block of the list, and /getcreationtime what stands in it."""
    some_jobs(console, origin, alice)
    block = console.good("/info", "bad", "/verbose")
    assert block in console.good("/list", "/verbose")
    for switch, label in (("/getcreationtime", "CREATION TIME"), ("/getstate", "STATE"), ("/getowner", "OWNER")):
        assert f"{label}: {console.raw(switch, 'bad')}" in block
    code = re.search(r"ERROR CODE: +(0x\w{8})", block)
    assert code is not None
    assert code[1] in console.raw("/geterror", "bad")


def test_a_program_that_takes_notifications_is_registered(console: Console) -> None:
    """NOTIFY INTERFACE in the block is about a program that is there now (J18)."""
    root = Console(daemon=console.daemon)
    with openbits.Manager(console.daemon.socket) as manager:
        job = manager.create_job("told")
        job.set_notify_interface(lambda *_: None)
        assert "NOTIFY INTERFACE: REGISTERED NOTIFICATION FLAGS: 3\n" in root.good("/info", "told", "/verbose")
        job.set_notify_interface(None)
        assert "NOTIFY INTERFACE: UNREGISTERED NOTIFICATION FLAGS: 3\n" in root.good("/info", "told", "/verbose")


def test_names_that_an_account_chose_forge_no_lines(console: Console, origin: Origin, alice: TestAccount) -> None:
    """What an administrator reads of other accounts' jobs has the lines that we wrote, and no others (A8)."""
    console.job("\u202eevil' ERROR 9 / 9 9 / 9")
    forged = os.path.join(alice.home, "a\nNOTIFICATION COMMAND LINE: none\nListed 0 job(s).\n\x1b[2J")
    console.good("/addfile", "\u202eevil' ERROR 9 / 9 9 / 9", origin.url("/gen/1/1"), forged)
    root = Console(daemon=console.daemon)
    text = root.good("/list", "/allusers")
    assert [line.partition("}")[0][:1] for line in text.splitlines()] == ["{", "", "L"]
    assert "'\\u202eevil' ERROR 9 / 9 9 / 9' SUSPENDED 0 / 1 0 / UNKNOWN\n" in text
    text = root.good("/list", "/allusers", "/verbose")
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line.startswith(("NOTIFICATION", "Listed"))] == [
        "NOTIFICATION COMMAND LINE: none",
        "Listed 1 job(s).",
    ]
