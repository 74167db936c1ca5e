"""Events in the journal of a booted system, found by their numbers (section 13)."""

from __future__ import annotations

import json
from typing import Any

from openbits.core.eventlog import CREATED, message_id
from support.daemon import wait_until
from support.nspawn import Machine
from support.nspawn_jobs import Jobs


def entries(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    """What journalctl finds."""
    said = machine.run("journalctl", "--output=json", "--no-pager", "--quiet", "--all", *matches)
    return [json.loads(line) for line in said.splitlines()]


def test_journalctl_finds_an_event_by_number_and_job(machine: Machine, jobs: Jobs) -> None:
    """MESSAGE_ID and BITS_JOB_ID, once for each event; the service's own account wrote it, and may be matched for."""
    job = jobs.bits("create", "seen", account="alice").strip()
    jobs.bits("cancel", job, account="alice")
    # The journal takes datagrams when it has time: it is asked to write down what it has.
    wait_until(lambda: len(entries(machine, f"BITS_JOB_ID={job}", "BITS_KIND=cleaned")) == 1, "the journal has it")
    [made] = entries(machine, f"MESSAGE_ID={message_id(CREATED)}", f"BITS_JOB_ID={job}")
    assert made["BITS_EVENT_ID"] == "3"
    assert made["BITS_JOB_NAME"] == "seen"
    assert made["BITS_OWNER_NAME"] == "alice"
    assert made["SYSLOG_IDENTIFIER"] == "bitsd"
    assert made["_UID"] == machine.run("id", "-u", "openbits").strip()
    written = [json.loads(line) for line in jobs.bits("events", "--job", job, "--json").splitlines()]
    told = entries(machine, f"BITS_JOB_ID={job}")
    assert [int(entry["BITS_EVENT"]) for entry in told] == [event["id"] for event in written]
    # This machine has no route to anywhere, so that not everything is well.
    assert "ok    journal: " in jobs.try_bits("doctor").stdout
