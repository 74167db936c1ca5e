"""The store in memory and the one on the disk are one and the same, whatever is written, refused or restarted."""

from __future__ import annotations

import dataclasses
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openbits.core.model import Job
from openbits.store.errors import StoreError
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import Batch, EventChoice, EventPrune, JobWrite
from openbits.store.store import Store
from support import stores

NUMBERS = st.integers(1, 6)


class TwoStores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.disk = MemoryDisk()
        self.real = Store.open(self.directory.name)[0]
        self.fake = MemoryStore.open(self.disk)[0]
        self.jobs: dict[str, Job] = {}
        self.events = 0

    def commit(self, batch: Batch) -> bool:
        results = []
        for store in (self.real, self.fake):
            try:
                store.commit(batch)
                results.append(True)
            except StoreError:
                results.append(False)
        assert results[0] == results[1]
        return results[0]

    @rule(job=NUMBERS.flatmap(stores.jobs), more=st.lists(stores.files, max_size=2), drop=st.sets(st.integers(0, 5)))
    def write(self, job: Job, more: list[object], drop: set[int]) -> None:
        before = self.jobs.get(job.id)
        present = before.files if before is not None else ()
        files = present + tuple(job.files[: len(more)])
        changed = dataclasses.replace(job, files=files, type=before.type if before is not None else job.type)
        declared = set(range(len(files))) - drop
        if self.commit(Batch(jobs=[JobWrite(job=changed, files=declared)])):
            self.jobs[job.id] = changed

    @rule(numbers=st.lists(NUMBERS, max_size=3))
    def forget(self, numbers: list[int]) -> None:
        gone = [stores.job_id(number) for number in numbers]
        assert self.commit(Batch(forgotten=gone))
        for job_id in gone:
            self.jobs.pop(job_id, None)

    @rule(count=st.integers(1, 5), job=NUMBERS, uid=NUMBERS, gap=st.integers(0, 2))
    def happen(self, count: int, job: int, uid: int, gap: int) -> None:
        first = self.events + 1 + gap
        self.events = first + count - 1
        assert self.commit(
            Batch(events=[stores.make_event(number, job=job, uid=uid) for number in range(first, first + count)])
        )

    @rule(older_than=st.floats(0, 60), keep=st.integers(0, 20))
    def prune(self, older_than: float, keep: int) -> None:
        assert self.commit(Batch(prune=EventPrune(older_than=older_than, keep=keep)))

    @rule(added=st.sets(NUMBERS, max_size=3), done=st.sets(NUMBERS, max_size=3), job=NUMBERS)
    def act(self, added: set[int], done: set[int], job: int) -> None:
        self.commit(
            Batch(
                jobs=[JobWrite(job=each, files=()) for each in self.jobs.values()],
                effects_added=[stores.make_effect(number, job=job) for number in added],
                effects_done=list(done),
            )
        )

    @rule()
    def restart(self) -> None:
        self.real.close()
        self.fake.close()
        self.real, report = Store.open(self.directory.name)
        assert report.set_aside is None
        self.fake = MemoryStore.open(self.disk)[0]

    @invariant()
    def they_are_the_same(self) -> None:
        assert self.real.load() == self.fake.load()

    @rule(after=st.integers(0, 40), limit=st.integers(0, 9), job=st.none() | NUMBERS, uid=st.none() | NUMBERS)
    def read(self, after: int, limit: int, job: int | None, uid: int | None) -> None:
        job_id = None if job is None else stores.job_id(job)
        found = self.real.events_after(after, limit=limit, job_id=job_id, owner_uid=uid)
        assert found == self.fake.events_after(after, limit=limit, job_id=job_id, owner_uid=uid)

    @rule(
        after=st.integers(0, 40),
        limit=st.integers(0, 9),
        newest=st.booleans(),
        choice=st.builds(
            EventChoice,
            job_id=st.none() | NUMBERS.map(stores.job_id),
            owner_uid=st.none() | NUMBERS,
            event_ids=st.none() | st.frozensets(st.integers(0, 4), max_size=3),
            kinds=st.none() | st.frozensets(st.sampled_from(("created", "changed", "state")), max_size=2),
            since=st.none() | st.floats(0, 4e9),
            until=st.none() | st.floats(0, 4e9),
        ),
    )
    def choose(self, after: int, limit: int, newest: bool, choice: EventChoice) -> None:
        found = self.real.chosen_events(choice, after=after, limit=limit, newest=newest)
        assert found == self.fake.chosen_events(choice, after=after, limit=limit, newest=newest)

    def teardown(self) -> None:
        self.real.close()
        self.fake.close()
        self.directory.cleanup()


TwoStores.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestTwoStores = TwoStores.TestCase
