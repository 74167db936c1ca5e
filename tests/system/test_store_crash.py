"""M8, D15: whoever is killed, and wherever a log is torn, committed batches are there and half ones are not."""

from __future__ import annotations

import dataclasses
import os
import random
import select
import shutil
import signal
from pathlib import Path

from openbits.core.model import Job
from openbits.store.records import Batch, EventPrune, JobWrite
from openbits.store.store import DATABASE, Store
from support.stores import job_id, make_effect, make_event, make_job

ROUNDS = 60
KEPT = 5


def batch(number: int) -> Batch:
    """Batch n makes job n, touches one file of job n-1, forgets job n-KEPT, and renews effect n."""
    writes = [JobWrite.of_new(make_job(number, files=3))]
    if number > 1:
        writes.append(JobWrite(job=touched(number - 1), files={1}))
    return Batch(
        jobs=writes,
        forgotten=[job_id(number - KEPT)] if number > KEPT else [],
        events=[make_event(number, job=number)],
        effects_added=[make_effect(number)],
        effects_done=[number - 1],
        prune=EventPrune(older_than=0, keep=10),
    )


def touched(number: int) -> Job:
    job = make_job(number, files=3)
    changed = dataclasses.replace(job.files[1], bytes_transferred=number, response_headers="x" * 500)
    return dataclasses.replace(job, run=1, files=(job.files[0], changed, job.files[2]))


def check_state_after(store: Store) -> int:
    """Return the number of batches in the store, each of which must be there whole."""
    loaded = store.load()
    number = loaded.last_event_id
    alive = range(max(1, number - KEPT + 1), number + 1)
    assert loaded.jobs == [make_job(each, files=3) if each == number else touched(each) for each in alive]
    assert loaded.effects == ([make_effect(number)] if number else [])
    assert [event.id for event in store.events_after(0, limit=100)] == list(range(max(1, number - 9), number + 1))
    return number


def write_until_killed(directory: str, acknowledge: int) -> None:
    store, _ = Store.open(directory)
    number = store.load().last_event_id
    while True:
        number += 1
        store.commit(batch(number))
        os.write(acknowledge, number.to_bytes(8, "big"))


def killed_writer(directory: Path, *, after_batches: int, luck: random.Random) -> int:
    """Let a child write and kill it at some moment; return the last batch that it said was committed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(str(directory), writing)
        finally:
            os._exit(1)
    os.close(writing)
    acknowledged, data = 0, b""
    try:
        for _ in range(after_batches):
            if not select.select([reading], [], [], 30)[0]:
                raise AssertionError("the child writes nothing")
            data = os.read(reading, 8)
            acknowledged = int.from_bytes(data, "big")
        # Not a wait for anything: the blow falls at any point of the next batch.
        select.select([], [], [], luck.random() * 0.004)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while data:
            data = os.read(reading, 8)
            acknowledged = int.from_bytes(data, "big") if data else acknowledged
        os.close(reading)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return acknowledged


def test_a_killed_writer_loses_no_batch_and_leaves_no_half(tmp_path: Path) -> None:
    luck = random.Random(1)
    total = 0
    for _ in range(ROUNDS):
        acknowledged = killed_writer(tmp_path, after_batches=luck.randint(1, 30), luck=luck)
        store, report = Store.open(str(tmp_path))
        assert report.set_aside is None
        found = check_state_after(store)
        store.close()
        # One batch more may have been committed than the child lived to tell.
        assert found in (acknowledged, acknowledged + 1)
        total = found
    assert total > ROUNDS


def test_a_kill_while_the_store_is_being_made(tmp_path: Path) -> None:
    luck = random.Random(2)
    for round_number in range(40):
        directory = tmp_path / str(round_number)
        directory.mkdir()
        killed_writer(directory, after_batches=0, luck=luck)
        store, report = Store.open(str(directory))
        assert report.set_aside is None
        check_state_after(store)
        store.close()


def test_a_torn_log_ends_after_a_whole_batch(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    store, _ = Store.open(str(source))
    for number in range(1, 9):
        store.commit(batch(number))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal"):
        shutil.copy(source / name, crashed / name)
    store.close()

    log_size = (crashed / f"{DATABASE}-wal").stat().st_size
    luck = random.Random(3)
    counts = set()
    for _ in range(80):
        torn = tmp_path / "torn"
        shutil.copytree(crashed, torn)
        os.truncate(torn / f"{DATABASE}-wal", luck.randint(0, log_size))
        store, report = Store.open(str(torn))
        assert report.set_aside is None
        counts.add(check_state_after(store))
        store.close()
        shutil.rmtree(torn)
    assert len(counts) > 3
