"""What every store keeps to: M8, D15, style 3 — the real one on a disk and the fake in memory alike."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.core.model import Job
from openbits.core.proxies import AccountProxy, AccountUsage
from openbits.store.errors import StoreError
from openbits.store.interface import JobStore
from openbits.store.memory import MemoryDisk, MemoryStore
from openbits.store.records import Batch, EventPrune, JobWrite
from openbits.store.store import Store
from support import stores
from support.stores import make_effect, make_event, make_file, make_job

Open = Callable[[], JobStore]
"""Opens the store, or the same one again, as after a restart."""


@pytest.fixture(params=["disk", "memory"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    disk = MemoryDisk()
    opened: list[JobStore] = []

    def open_one() -> JobStore:
        for store in opened:
            store.close()
        store = Store.open(str(tmp_path))[0] if request.param == "disk" else MemoryStore.open(disk)[0]
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def commit_new(store: JobStore, *jobs: Job) -> None:
    store.commit(Batch(jobs=[JobWrite.of_new(job) for job in jobs]))


def test_a_new_store_is_empty(open_store: Open) -> None:
    loaded = open_store().load()
    assert (loaded.jobs, loaded.effects, loaded.proxies, loaded.last_event_id) == ([], [], {}, 0)


def test_i20_proxy_settings_of_accounts_are_kept_changed_and_forgotten(open_store: Open) -> None:
    store = open_store()
    manual = AccountProxy(usage=AccountUsage.MANUAL_PROXY, proxy_list="p:1", bypass_list="<local>")
    script = AccountProxy(usage=AccountUsage.AUTOSCRIPT, script_url="http://w/\udc80é")
    store.commit(Batch(proxies={"LOCALSYSTEM": manual, "1001": script, "1002": manual}))
    store = open_store()
    assert store.load().proxies == {"LOCALSYSTEM": manual, "1001": script, "1002": manual}
    store.commit(Batch(proxies={"1001": manual, "1002": None, "nobody": None}))
    assert store.load().proxies == {"LOCALSYSTEM": manual, "1001": manual}
    assert open_store().load().proxies == {"LOCALSYSTEM": manual, "1001": manual}


def test_i20_a_batch_that_fails_keeps_the_proxy_settings_as_they_were(open_store: Open) -> None:
    store = open_store()
    store.commit(Batch(proxies={"0": AccountProxy()}, events=[make_event(1)]))
    with pytest.raises(StoreError):
        store.commit(Batch(proxies={"0": None, "1": AccountProxy()}, events=[make_event(1)]))
    assert open_store().load().proxies == {"0": AccountProxy()}


def test_jobs_come_back_in_the_order_of_their_creation(open_store: Open) -> None:
    store = open_store()
    jobs = [make_job(number) for number in (5, 3, 9)]
    commit_new(store, *jobs[:2])
    commit_new(store, jobs[2])
    touched = dataclasses.replace(jobs[0], run=1)
    store.commit(Batch(jobs=[JobWrite(job=touched, files=())]))
    assert store.load().jobs == [touched, *jobs[1:]]
    assert open_store().load().jobs == [touched, *jobs[1:]]


def test_only_the_files_that_are_declared_are_written(open_store: Open) -> None:
    store = open_store()
    job = make_job(1, files=3)
    commit_new(store, job)
    moved = dataclasses.replace(
        job, files=tuple(dataclasses.replace(file, bytes_transferred=7) for file in job.files), modified_at=9.0
    )
    store.commit(Batch(jobs=[JobWrite(job=moved, files=frozenset({1}))]))
    (found,) = open_store().load().jobs
    assert found.modified_at == 9.0
    assert [file.bytes_transferred for file in found.files] == [0, 7, 0]


def test_files_are_added_to_a_job(open_store: Open) -> None:
    store = open_store()
    job = make_job(1, files=0)
    commit_new(store, job)
    longer = dataclasses.replace(job, files=(make_file(0), make_file(1)))
    store.commit(Batch(jobs=[JobWrite(job=longer, files={0, 1})]))
    assert open_store().load().jobs == [longer]


@pytest.mark.parametrize("declared", [frozenset[int](), frozenset({0}), frozenset({0, 2})])
def test_a_new_file_that_is_not_declared_is_refused(open_store: Open, declared: frozenset[int]) -> None:
    store = open_store()
    job = make_job(1, files=1)
    commit_new(store, job)
    longer = dataclasses.replace(job, files=(*job.files, make_file(1), make_file(2)))
    with pytest.raises(StoreError):
        store.commit(Batch(jobs=[JobWrite(job=longer, files=declared)]))
    with pytest.raises(StoreError):
        store.commit(Batch(jobs=[JobWrite(job=make_job(2, files=1), files=())]))
    assert open_store().load().jobs == [job]


def test_a_forgotten_job_is_gone_and_its_events_stay(open_store: Open) -> None:
    store = open_store()
    jobs = [make_job(number, files=2) for number in (1, 2)]
    commit_new(store, *jobs)
    store.commit(Batch(forgotten=[jobs[0].id], events=[make_event(1, job=1)]))
    assert store.load().jobs == [jobs[1]]
    store = open_store()
    assert store.load().jobs == [jobs[1]]
    assert [event.id for event in store.events_after(0, limit=10, job_id=jobs[0].id)] == [1]
    commit_new(store, jobs[0])
    assert open_store().load().jobs == [jobs[1], jobs[0]]


def test_forgetting_beats_writing_and_what_is_not_there_is_forgotten_too(open_store: Open) -> None:
    store = open_store()
    job = make_job(1)
    store.commit(Batch(jobs=[JobWrite.of_new(job)], forgotten=[job.id, stores.job_id(7)]))
    assert open_store().load().jobs == []


def test_events_are_read_in_pages_and_for_a_job_or_an_owner(open_store: Open) -> None:
    store = open_store()
    events = [make_event(number, job=number % 2, uid=1000 + number % 3) for number in range(1, 13)]
    store.commit(Batch(events=events))
    assert store.events_after(0, limit=5) == events[:5]
    assert store.events_after(5, limit=100) == events[5:]
    assert store.events_after(12, limit=5) == []
    assert store.events_after(2, limit=100, job_id=stores.job_id(1)) == events[2::2]
    assert store.events_after(0, limit=100, owner_uid=1000) == events[2::3]
    assert store.events_after(0, limit=1, job_id=stores.job_id(0), owner_uid=1002) == [events[1]]
    assert store.load().last_event_id == 12


def test_pruned_events_do_not_give_their_ids_back(open_store: Open) -> None:
    store = open_store()
    store.commit(Batch(events=[make_event(number) for number in range(1, 11)]))
    store.commit(Batch(prune=EventPrune(older_than=3.0, keep=100)))
    assert [event.id for event in store.events_after(0, limit=100)] == list(range(3, 11))
    store.commit(Batch(prune=EventPrune(older_than=0.0, keep=2)))
    assert [event.id for event in store.events_after(0, limit=100)] == [9, 10]
    store.commit(Batch(prune=EventPrune(older_than=1e9, keep=100)))
    assert store.events_after(0, limit=100) == []
    assert open_store().load().last_event_id == 10


def test_pruning_counts_the_events_of_its_own_batch(open_store: Open) -> None:
    store = open_store()
    store.commit(Batch(events=[make_event(1), make_event(2)], prune=EventPrune(older_than=0, keep=0)))
    assert store.events_after(0, limit=100) == []


def test_effects_wait_until_they_are_done(open_store: Open) -> None:
    store = open_store()
    effects = [make_effect(number) for number in (1, 2, 3)]
    store.commit(Batch(effects_added=effects))
    store.commit(Batch(effects_done=[2, 99], effects_added=[make_effect(4)]))
    assert open_store().load().effects == [effects[0], effects[2], make_effect(4)]


def test_the_id_of_an_effect_can_be_given_again_once_it_is_done(open_store: Open) -> None:
    store = open_store()
    store.commit(Batch(effects_added=[make_effect(1, job=1)]))
    store.commit(Batch(effects_done=[1], effects_added=[make_effect(1, job=2)]))
    assert open_store().load().effects == [make_effect(1, job=2)]


@pytest.mark.parametrize(
    "fault",
    [Batch(events=[make_event(2), make_event(1)]), Batch(events=[make_event(2)], effects_added=[make_effect(1)])],
    ids=["event", "effect"],
)
def test_a_batch_that_fails_leaves_nothing(open_store: Open, fault: Batch) -> None:
    store = open_store()
    job = make_job(1)
    store.commit(Batch(jobs=[JobWrite.of_new(job)], events=[make_event(1)], effects_added=[make_effect(1)]))
    before = store.load()
    broken = dataclasses.replace(
        fault,
        jobs=[JobWrite.of_new(make_job(2)), JobWrite(job=dataclasses.replace(job, run=9), files=())],
        forgotten=[job.id],
        prune=EventPrune(older_than=1e9, keep=0),
    )
    with pytest.raises(StoreError):
        store.commit(broken)
    assert store.load() == before
    assert [event.id for event in store.events_after(0, limit=9)] == [1]
    # The store goes on, and the place that the new job would have had is not lost or taken twice.
    commit_new(store, make_job(3))
    assert open_store().load().jobs == [job, make_job(3)]


def test_a_closed_store_says_so(open_store: Open) -> None:
    store = open_store()
    store.load()
    store.close()
    store.close()
    for call in (store.load, lambda: store.commit(Batch()), lambda: store.events_after(0, limit=1)):
        with pytest.raises(StoreError, match="closed"):
            call()


@settings(deadline=None, max_examples=60)
@given(st.tuples(stores.jobs(1), stores.jobs(2)), st.sampled_from(["disk", "memory"]))
def test_every_job_comes_back_exactly_as_it_was(jobs: tuple[Job, ...], kind: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        disk = MemoryDisk()
        store: JobStore = Store.open(directory)[0] if kind == "disk" else MemoryStore.open(disk)[0]
        commit_new(store, *jobs)
        store.close()
        store = Store.open(directory)[0] if kind == "disk" else MemoryStore.open(disk)[0]
        found = store.load().jobs
        store.close()
    assert found == list(jobs)
    for job in found:
        assert type(job.settings.priority).__name__ == "Priority"
        assert type(job.settings.dynamic_content) is bool
        assert all(type(file.transferred) is bool for file in job.files)


@settings(deadline=None, max_examples=30)
@given(stores.any_text, stores.any_text)
def test_every_text_of_an_event_or_effect_comes_back(text: str, payload: str) -> None:
    event = dataclasses.replace(make_event(1), text=text)
    effect = dataclasses.replace(make_effect(1), payload=payload)
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(directory)[0]
        store.commit(Batch(events=[event], effects_added=[effect]))
        assert store.events_after(0, limit=1) == [event]
        assert store.load().effects == [effect]
        store.close()
