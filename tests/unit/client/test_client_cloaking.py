"""Blankets as values, the process's default, and what an unprivileged process gets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

import openbits
from openbits import Blanket, Cloaking, copy_proxy, initialize_security, query_proxy_blanket, set_proxy_blanket
from openbits.client import cloaking, thread_rights
from openbits.client.discovery import Endpoint
from openbits.client.events import EventStream
from openbits.client.identity import Identity, base_identity, current_identity, here
from openbits.client.pool import MAX_IDLE, MAX_IDLE_PER_IDENTITY, ConnectionPool, Holder, Reserve
from openbits.client.transport import Connection
from openbits.errors import BitsError
from support.fake_api import FakeApi, Reply, event, job_out

ANNA = Identity(7, 7, (7,))


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloaking, "_process", {})


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Identity:
    """The thread is Anna, as far as anybody can tell without the kernel."""
    by_itself = thread_rights.read()
    monkeypatch.setattr(here, "outside", by_itself)
    monkeypatch.setattr(cloaking, "current_identity", lambda: ANNA)
    return by_itself.identity


def test_a_blanket_yields_whose_call_it_is(inside: Identity) -> None:
    assert Blanket.of_this_moment(Cloaking.NONE).call_identity() == inside
    assert Blanket.of_this_moment(Cloaking.DYNAMIC).call_identity() == ANNA
    static = Blanket.of_this_moment(Cloaking.STATIC)
    assert static == Blanket(cloaking=Cloaking.STATIC, identity=ANNA)
    assert static.call_identity() == ANNA


def test_outside_of_all_blocks_everybody_is_himself() -> None:
    me = current_identity()
    assert base_identity() == me
    assert {Blanket.of_this_moment(kind).call_identity() for kind in Cloaking} == {me}


@pytest.mark.usefixtures("fresh_process")
def test_the_default_is_set_once() -> None:
    initialize_security(Cloaking.DYNAMIC)
    for kind in Cloaking:
        with pytest.raises(BitsError) as caught:
            initialize_security(kind)
        assert caught.value.name == "RPC_E_TOO_LATE"
    assert query_proxy_blanket(openbits.Manager("/nowhere")).cloaking is Cloaking.DYNAMIC


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("make", [openbits.Manager, openbits.aio.Manager], ids=["blocking", "asyncio"])
def test_the_first_object_settles_the_default(make: type[openbits.Manager]) -> None:
    manager = make("/nowhere")
    with pytest.raises(BitsError) as caught:
        initialize_security(Cloaking.DYNAMIC)
    assert caught.value.name == "RPC_E_TOO_LATE"
    assert query_proxy_blanket(manager) == Blanket(cloaking=Cloaking.NONE)


@pytest.mark.usefixtures("fresh_process")
def test_a_wrong_call_settles_nothing() -> None:
    with pytest.raises(BitsError) as caught:
        initialize_security("dynamic")  # type: ignore[arg-type]  # that is the test
    assert caught.value.name == "E_INVALIDARG"
    initialize_security()


def test_of_threads_at_once_one_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(50):
        monkeypatch.setattr(cloaking, "_process", {})
        start = threading.Barrier(4, timeout=20)
        done: list[int] = []

        def initialize(start: threading.Barrier, done: list[int]) -> None:
            start.wait()
            try:
                initialize_security(Cloaking.DYNAMIC)
            except BitsError:
                return
            done.append(1)

        threads = [threading.Thread(target=initialize, args=(start, done)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert done == [1]


def test_a_copy_is_another_object_for_the_same_job() -> None:
    job = openbits.Job(openbits.Manager("/nowhere")._session, "1")
    set_proxy_blanket(job, Cloaking.DYNAMIC)
    copy = copy_proxy(job)
    assert (copy is not job, copy == job, hash(copy) == hash(job)) == (True, True, True)
    assert query_proxy_blanket(copy).cloaking is Cloaking.NONE
    assert query_proxy_blanket(job).cloaking is Cloaking.DYNAMIC


def test_what_hands_out_keeps_its_blanket_to_itself() -> None:
    """Asyncio and blocking: the objects of an object are made without its blanket."""
    routes = {
        "GET /v1/jobs/1": Reply(json={"id": "1"}),
        "GET /v1/jobs": Reply(json={"jobs": [job_out()], "next": None}),
    }

    async def ask(path: str) -> list[object]:
        async with openbits.aio.Manager(path) as manager:
            set_proxy_blanket(manager, Cloaking.DYNAMIC)
            return [await manager.get_job("1"), await manager.enum_jobs(), (await manager.enum_jobs())[0]]

    with FakeApi(routes) as api:
        manager = openbits.Manager(api.path)
        set_proxy_blanket(manager, Cloaking.DYNAMIC)
        given = [manager.get_job("1"), manager.enum_jobs(), manager.enum_jobs()[0], *asyncio.run(ask(api.path))]
    assert {query_proxy_blanket(one).cloaking for one in given} == {Cloaking.NONE}


def test_a_stream_that_is_taken_up_again_is_still_the_same_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as: list[Identity] = []

    def connect(endpoint: Endpoint, identity: Identity) -> Connection:
        opened_as.append(identity)
        return endpoint.connect()

    monkeypatch.setattr("openbits.client.pool.connect_as", connect)
    snapshot = Reply(parts=(event("snapshot", job_out(), 1),), close=True)
    with FakeApi({"GET /v1/events": snapshot}) as api:
        with EventStream(ConnectionPool(Endpoint(api.path)), identity=ANNA) as stream:
            for _ in range(3):
                assert stream.wait_messages(10)
        with EventStream(ConnectionPool(Endpoint(api.path))) as stream:
            assert stream.wait_messages(10)
    assert opened_as == [ANNA] * 3 + [current_identity()]


# --- the connections that are kept ------------------------------------------------------------------------------------


class Kept:
    """A connection that only remembers what became of it."""

    def __init__(self) -> None:
        self.is_closed = False
        self.stale = False

    def close(self) -> None:
        self.is_closed = True

    def is_stale(self) -> bool:
        return self.stale


def number(value: int) -> Identity:
    return Identity(value, value, ())


def test_connections_are_lent_to_their_identity_only() -> None:
    reserve, holder = Reserve[Kept](), Holder.now()
    anna, bert = Kept(), Kept()
    reserve.put(number(1), holder, anna)
    reserve.put(number(2), holder, bert)
    assert reserve.take(number(3), holder) is None
    assert reserve.take(number(1), holder) is anna
    assert reserve.take(number(1), holder) is None
    assert reserve.take(number(2), holder) is bert
    assert reserve.statistics() == {"identities": 0, "idle": 0}


def test_stale_connections_are_closed_and_not_lent() -> None:
    reserve, holder = Reserve[Kept](), Holder.now()
    good, stale = Kept(), Kept()
    for one in (good, stale):
        reserve.put(number(1), holder, one)
    stale.stale = True
    assert reserve.take(number(1), holder) is good
    assert (stale.is_closed, good.is_closed) == (True, False)


def test_an_identity_keeps_a_few_and_all_together_a_limited_number() -> None:
    reserve, holder = Reserve[Kept](), Holder.now()
    many = [Kept() for _ in range(MAX_IDLE_PER_IDENTITY + 2)]
    for one in many:
        reserve.put(number(0), holder, one)
    assert [one.is_closed for one in many] == [False] * MAX_IDLE_PER_IDENTITY + [True] * 2
    others = [Kept() for _ in range(MAX_IDLE)]
    for index, one in enumerate(others):
        reserve.put(number(index + 1), holder, one)
    # The one that was used the longest time ago went.
    assert all(one.is_closed for one in many)
    assert not any(one.is_closed for one in others)
    assert reserve.statistics()["idle"] == MAX_IDLE


@pytest.mark.parametrize("changed", ["real_uid", "saved_uid", "real_gid", "saved_gid"])
def test_who_changed_his_ids_for_good_gets_nothing_of_before(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """Not what was kept, and not what was under way at that moment."""
    reserve, holder = Reserve[Kept](), Holder.now()
    kept, under_way = Kept(), Kept()
    reserve.put(number(0), holder, kept)
    later = holder._replace(**{changed: 4321})
    monkeypatch.setattr(Holder, "now", lambda: later)
    reserve.put(number(0), holder, under_way)
    assert under_way.is_closed
    assert reserve.take(number(0), later) is None
    assert kept.is_closed


def test_a_child_leaves_alone_what_its_parent_keeps_even_if_a_thread_was_at_it() -> None:
    """A lock that another thread held at the fork is nobody's in the child."""
    reserve, holder = Reserve[Kept](), Holder.now()
    kept = Kept()
    reserve.put(number(0), holder, kept)
    with reserve._kept.lock:
        pid = os.fork()
        if pid == 0:
            try:
                found = reserve.take(number(0), Holder.now())
                os._exit(0 if found is None and not kept.is_closed else 1)
            finally:
                os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert reserve.take(number(0), holder) is kept


# --- programs that never impersonate ----------------------------------------------------------------------------------


def test_who_never_impersonates_does_not_pay_for_it() -> None:
    """`bits` and most programs: no ctypes, no audit hook."""
    script = """
import sys
import openbits, openbits.client.session, openbits.client.manager
openbits.Manager("/nowhere"), openbits.set_proxy_blanket, openbits.query_proxy_blanket
assert not {"ctypes", "openbits.client.impersonation", "openbits.client.thread_rights"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"capabilities": thread_rights.Capabilities(1 << 6, 1 << 6, 0)}, "ERROR_PRIVILEGE_NOT_HELD"),
        ({"capabilities": thread_rights.Capabilities(0xFF, 1 << 7, 0xFF)}, "ERROR_PRIVILEGE_NOT_HELD"),
        ({"uids": (1000, 0, 1000)}, "E_ILLEGAL_METHOD_CALL"),
        ({"gids": (7, 8, 9)}, "E_ILLEGAL_METHOD_CALL"),
        ({"uids": (1000, 0, 0), "gids": (7, 7, 9)}, ""),
        ({}, ""),
    ],
)
def test_what_a_thread_needs_to_impersonate(
    changes: dict[str, object], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two capabilities, permitted; and real or saved ids to come back to."""
    monkeypatch.setattr(thread_rights, "_NUMBERS", thread_rights._Numbers(setgroups=1, setresuid=2, setresgid=3))
    capabilities = thread_rights.Capabilities(0, 1 << 6 | 1 << 7, 0)
    rights = thread_rights.Rights((0, 0, 0), (0, 0, 0), (), capabilities, 0)._replace(**changes)  # type: ignore[arg-type]  # by name
    if not error:
        return thread_rights.check(rights)
    with pytest.raises(BitsError) as caught:
        thread_rights.check(rights)
    assert caught.value.name == error
    return None


def test_a_machine_whose_system_calls_are_not_known_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_rights, "_NUMBERS", thread_rights._NONE)
    with pytest.raises(BitsError) as caught:
        thread_rights.check(thread_rights.read())
    assert caught.value.name == "E_NOTIMPL"
