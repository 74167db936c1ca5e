"""Jobs of the system's own accounts through ends of the machine: from boot on, without any session (M8, I2, I4)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from support.nspawn import Machine
from support.nspawn_jobs import Jobs, Source

SIZE = 24_000_000
RATE_BPS = 3_000_000
REACHED = 4_000_000
KINDS = {"root": "LOCAL_SYSTEM", "svc-backup": "LOCAL_SERVICE"}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A job of an account that is on its way."""

    account: str
    job: str
    source: Source
    target: str


def begin(jobs: Jobs, account: str, place: str) -> Transfer:
    """Start a transfer that takes some seconds."""
    source = jobs.new_source(SIZE)
    target = f"{place}/{account}"
    return Transfer(account=account, job=jobs.get(source, target, account=account), source=source, target=target)


def end_machine(machine: Machine, how: str) -> None:
    match how:
        case "reboot":
            machine.reboot()
        case "power off":
            machine.power_off()
        case "plug":
            machine.pull_the_plug()


@pytest.mark.parametrize("how", ["reboot", "power off", "plug"])
def test_a_job_goes_on_after_the_machine_ended(machine: Machine, jobs: Jobs, how: str) -> None:
    """M8, D15: by itself, from its last durable byte, with nobody logged on; every byte is what it must be."""
    jobs.origin.limit(RATE_BPS)
    transfers = [begin(jobs, account, f"/srv/{how.replace(' ', '-')}/{account}") for account in KINDS]
    for transfer in transfers:
        jobs.wait_durable(transfer.job, REACHED)
        seen = jobs.show(transfer.job)
        assert seen["owner"]["kind"] == KINDS[transfer.account]
    if how == "reboot":
        durable = dict.fromkeys((transfer.job for transfer in transfers), REACHED)  # an orderly end keeps what came in
        machine.reboot()
    else:
        end_machine(machine, how)
        durable = {transfer.job: jobs.durable_bytes(transfer.job) for transfer in transfers}
        machine.start()
    assert min(durable.values()) >= REACHED
    assert json.loads(machine.run("loginctl", "list-sessions", "--output=json")) == []
    for transfer in transfers:
        jobs.finish(transfer.job, transfer.source, transfer.target)
        before, after = jobs.origin.requests(transfer.source)
        assert before.first == 0
        assert after.first >= durable[transfer.job], "bytes that were durable are fetched again"
        if how != "reboot":
            assert after.first == durable[transfer.job]
        owner = machine.run("stat", "-c", "%U", transfer.target).strip()
        assert owner == transfer.account


def test_an_orderly_end_keeps_every_byte(machine: Machine, jobs: Jobs) -> None:
    """The service brings every transfer to a checkpoint before the machine goes: what came in is not fetched again."""
    jobs.origin.limit(RATE_BPS)
    transfer = begin(jobs, "svc-files", "/srv/orderly")
    jobs.wait_bytes(transfer.job, REACHED)
    machine.reboot()
    jobs.finish(transfer.job, transfer.source, transfer.target)
    _, after = jobs.origin.requests(transfer.source)
    # What was sent and had not been read yet is lost: a few buffers, not a checkpoint's worth.
    first_answer, _ = jobs.origin.answers(transfer.source)
    assert first_answer.sent - after.first < 1_000_000
