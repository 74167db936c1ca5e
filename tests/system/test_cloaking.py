"""Cloaking: each interface with each blanket, impersonating and not, and what the service takes the caller for.

Issue 3, part 4; architecture, section 4, rule 3. The process of these tests is root. A thread of it impersonates
Mallory, who may not touch Alice's jobs, so that every call on one of them says whose identity it carried.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import openbits
from openbits import Cloaking, copy_proxy, impersonate, query_proxy_blanket, set_proxy_blanket
from openbits.errors import BitsError
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.impersonating import run_python

pytestmark = needs_root

ROOT = 0
QUOTAS = "[quotas]\nmax_jobs_per_user = 100_000\nmax_jobs_per_machine = 100_000\n"


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=QUOTAS) as running:
        yield running


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[openbits.Manager]:
    with openbits.Manager(daemon.socket) as manager:
        yield manager


@pytest.fixture(scope="module")
def alices_job(daemon: Daemon, alice: TestAccount) -> str:
    """A job of Alice's with a file and an error: nobody listens at its server's port."""
    with openbits.Manager(daemon.socket) as manager:
        maker = copy_proxy(manager)
        set_proxy_blanket(maker, Cloaking.DYNAMIC)
        with impersonate(alice.name):
            job = maker.create_job("hers", settings={"no_progress_timeout": 0})
            # The job has the process's blanket, so it is root who goes on.
            job.add_file("http://127.0.0.1:1/file", os.path.join(alice.home, "file"))
        job.resume()
        assert job.wait(timeout=60) is openbits.JobState.ERROR
        assert job.get_owner().uid == alice.uid
        return job.id


# --- whose call was it? ----------------------------------------------------------------------------------------------


def may_touch(call: Callable[[], Any], mallory: TestAccount) -> int:
    """Make a call on something of Alice's; root may, Mallory may not. Returns whose call it was."""
    try:
        call()
    except BitsError as error:
        if error.name in {"E_ACCESSDENIED", "BG_E_NOT_FOUND"}:
            return mallory.uid
        raise
    return ROOT


def helper_of(options: openbits.TokenOptions) -> int:
    """Give the caller as the job's helper, and see who the service took him for."""
    options.set_helper_token()
    sid = options.get_helper_token_sid()
    assert sid is not None
    return int(sid.removeprefix("uid:"))


@dataclass(frozen=True)
class Interface:
    """How to get an object, and how to see whose calls it makes."""

    get: Callable[[openbits.Manager, str], Any]
    caller: Callable[[Any, TestAccount], int]


INTERFACES: dict[str, Interface] = {
    "manager": Interface(lambda manager, _: copy_proxy(manager), lambda obj, _: int(obj.whoami()["uid"])),
    "job": Interface(lambda manager, job: manager.get_job(job), lambda obj, who: may_touch(obj.get_state, who)),
    "job, waiting": Interface(
        lambda manager, job: manager.get_job(job), lambda obj, who: may_touch(lambda: obj.wait(timeout=30), who)
    ),
    "job, events": Interface(
        lambda manager, job: manager.get_job(job), lambda obj, who: may_touch(lambda: next(obj.events()), who)
    ),
    "file": Interface(
        lambda manager, job: manager.get_job(job).enum_files()[0],
        lambda obj, who: may_touch(obj.get_remote_name, who),
    ),
    "error": Interface(
        lambda manager, job: manager.get_job(job).get_error(), lambda obj, who: may_touch(obj.get_error, who)
    ),
    "file of an error": Interface(
        lambda manager, job: manager.get_job(job).get_error().get_file(),
        lambda obj, who: may_touch(obj.get_progress, who),
    ),
    # For the owner alone: a job of the process itself.
    "token options": Interface(
        lambda manager, _: manager.create_job("helped").token_options(), lambda obj, _: helper_of(obj)
    ),
}

every_interface = pytest.mark.parametrize("interface", INTERFACES.values(), ids=INTERFACES.keys())


def callers(interface: Interface, obj: Any, mallory: TestAccount) -> tuple[int, int]:
    """Whose calls the object makes: outside of any block, and while its thread impersonates Mallory."""
    outside = interface.caller(obj, mallory)
    with impersonate(mallory.name):
        inside = interface.caller(obj, mallory)
    assert interface.caller(obj, mallory) == outside
    return outside, inside


@every_interface
def test_none_carries_the_process(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount, interface: Interface
) -> None:
    obj = interface.get(manager, alices_job)
    assert query_proxy_blanket(obj) == openbits.Blanket(cloaking=Cloaking.NONE)
    assert callers(interface, obj, mallory) == (ROOT, ROOT)


@every_interface
def test_dynamic_carries_the_thread_at_each_call(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount, interface: Interface
) -> None:
    obj = interface.get(manager, alices_job)
    set_proxy_blanket(obj, Cloaking.DYNAMIC)
    assert callers(interface, obj, mallory) == (ROOT, mallory.uid)
    set_proxy_blanket(obj, Cloaking.NONE)
    assert callers(interface, obj, mallory) == (ROOT, ROOT)


@every_interface
def test_static_carries_the_thread_that_set_it(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount, interface: Interface
) -> None:
    obj = interface.get(manager, alices_job)
    set_proxy_blanket(obj, Cloaking.STATIC)
    assert callers(interface, obj, mallory) == (ROOT, ROOT)
    with impersonate(mallory.name) as identity:
        set_proxy_blanket(obj, Cloaking.STATIC)
    assert query_proxy_blanket(obj) == openbits.Blanket(cloaking=Cloaking.STATIC, identity=identity)
    assert callers(interface, obj, mallory) == (mallory.uid, mallory.uid)


@every_interface
def test_a_copy_has_the_process_default_and_a_blanket_of_its_own(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount, interface: Interface
) -> None:
    obj = interface.get(manager, alices_job)
    with impersonate(mallory.name):
        set_proxy_blanket(obj, Cloaking.STATIC)
    copy = copy_proxy(obj)
    assert type(copy) is type(obj)
    assert query_proxy_blanket(copy).cloaking is Cloaking.NONE
    set_proxy_blanket(copy, Cloaking.DYNAMIC)
    assert query_proxy_blanket(obj).cloaking is Cloaking.STATIC
    assert callers(interface, copy, mallory) == (ROOT, mallory.uid)
    assert callers(interface, obj, mallory) == (mallory.uid, mallory.uid)


def test_nothing_inherits_a_blanket(
    manager: openbits.Manager, alices_job: str, alice: TestAccount, mallory: TestAccount
) -> None:
    """Not jobs of a manager, files of a job, what is in an enumerator, errors, or token options."""
    dynamic = copy_proxy(manager)
    set_proxy_blanket(dynamic, Cloaking.DYNAMIC)
    with impersonate(alice.name):
        [job, *_] = [one for one in dynamic.enum_jobs() if one.id == alices_job]
        given: list[Any] = [dynamic.get_job(alices_job), job, dynamic.enum_jobs(), dynamic.create_job("new")]
        created = given[-1]
        set_proxy_blanket(job, Cloaking.DYNAMIC)
        files = job.enum_files()
        set_proxy_blanket(files, Cloaking.DYNAMIC)
        error = job.get_error()
        given += [job.enum_files(), *files, *files.next(5), files.clone(), error, job.token_options()]
        set_proxy_blanket(error, Cloaking.DYNAMIC)
        given.append(error.get_file())
    assert len(given) == 11
    for obj in given:
        if obj is not job and obj is not error:
            assert query_proxy_blanket(obj).cloaking is Cloaking.NONE, obj
    # Not only by name: what such an object does, it does as root, although its maker was a Mallory.
    with impersonate(mallory.name):
        for obj in given:
            if isinstance(obj, openbits.Job | openbits.File) and obj is not job:
                obj.get_info()
        with pytest.raises(BitsError):
            job.get_info()
    assert created.get_owner().uid == alice.uid
    created.cancel()


@pytest.mark.parametrize("cloaking", Cloaking)
def test_an_enumerator_has_a_blanket_and_gives_it_to_nobody(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount, cloaking: Cloaking
) -> None:
    enumerators: list[openbits.Enumerator[Any]] = [
        manager.enum_jobs(all_users=True),
        manager.get_job(alices_job).enum_files(),
    ]
    with impersonate(mallory.name) as identity:
        for one in enumerators:
            set_proxy_blanket(one, cloaking)
            assert query_proxy_blanket(one).identity == (identity if cloaking is Cloaking.STATIC else None)
            for given in (*one.next(1000), *one):
                assert query_proxy_blanket(given).cloaking is Cloaking.NONE
                given.get_info()


def test_who_creates_a_job_owns_it(manager: openbits.Manager, alice: TestAccount) -> None:
    """Rule 1 and 2: a service's own job without impersonation or without cloaking, else the user's."""
    cloaked = copy_proxy(manager)
    set_proxy_blanket(cloaked, Cloaking.DYNAMIC)
    with impersonate(alice.name):
        jobs = [manager.create_job("the service's"), cloaked.create_job("hers")]
        jobs += cloaked.create_jobs([openbits.JobSpec(name="also hers")])
    jobs.append(cloaked.create_job("the service's again"))
    assert [job.get_owner().uid for job in jobs] == [ROOT, alice.uid, alice.uid, ROOT]
    for job in jobs:
        job.cancel()


def test_groups_are_part_of_an_identity(manager: openbits.Manager, alice: TestAccount) -> None:
    """The same uid with other groups is somebody else, also for the pool of connections."""
    set_proxy_blanket(manager, Cloaking.DYNAMIC)
    seen = []
    for _ in range(2):
        with impersonate(alice.name):
            seen.append(tuple(manager.whoami()["groups"]))
        with impersonate(alice.name, groups=[]):
            seen.append(tuple(manager.whoami()["groups"]))
    assert seen == [alice.groups, (), alice.groups, ()]


def test_events_belong_to_who_asked_for_them(
    manager: openbits.Manager, alice: TestAccount, mallory: TestAccount
) -> None:
    """A stream that was asked for inside a block stays that account's, whoever reads it."""
    set_proxy_blanket(manager, Cloaking.DYNAMIC)
    with impersonate(alice.name):
        job = manager.create_job("followed")
        set_proxy_blanket(job, Cloaking.DYNAMIC)
        hers = job.events()
    with impersonate(mallory.name):
        others = job.events()
        assert next(hers).job_id == job.id
    with pytest.raises(BitsError, match="ACCESS"):
        next(others)
    hers.close()
    job.cancel()


# --- many threads -----------------------------------------------------------------------------------------------------


def test_threads_with_one_object_are_who_they_are_at_each_call(
    manager: openbits.Manager, alice: TestAccount, mallory: TestAccount
) -> None:
    """One dynamic object, one static one and one without, in eight threads at once."""
    dynamic, static = copy_proxy(manager), copy_proxy(manager)
    set_proxy_blanket(dynamic, Cloaking.DYNAMIC)
    with impersonate(alice.name):
        set_proxy_blanket(static, Cloaking.STATIC)
    start = threading.Barrier(8, timeout=60)

    def act(number: int) -> list[tuple[int, int]]:
        account = (alice, mallory)[number % 2]
        seen: list[tuple[int, int]] = []
        start.wait()
        for _ in range(60):
            with impersonate(account.name):
                seen.append((account.uid, dynamic.whoami()["uid"]))
                seen.append((alice.uid, static.whoami()["uid"]))
                seen.append((ROOT, manager.whoami()["uid"]))
            seen.append((ROOT, dynamic.whoami()["uid"]))
            seen.append((alice.uid, static.whoami()["uid"]))
        return seen

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        results = [one for seen in executor.map(act, range(8), timeout=120) for one in seen]
    assert len(results) == 8 * 60 * 5
    assert [pair for pair in results if pair[0] != pair[1]] == []


def test_each_interface_with_each_blanket_from_several_threads_at_once(
    manager: openbits.Manager, alices_job: str, mallory: TestAccount
) -> None:
    expected = {Cloaking.NONE: (ROOT, ROOT), Cloaking.DYNAMIC: (ROOT, mallory.uid), Cloaking.STATIC: (mallory.uid,) * 2}
    cases = list(itertools.product(INTERFACES.values(), Cloaking))

    def act(case: tuple[Interface, Cloaking]) -> tuple[Cloaking, tuple[int, int]]:
        interface, cloaking = case
        obj = interface.get(manager, alices_job)
        with impersonate(mallory.name):
            set_proxy_blanket(obj, cloaking)
        return cloaking, callers(interface, obj, mallory)

    with concurrent.futures.ThreadPoolExecutor(6) as executor:
        for cloaking, seen in executor.map(act, cases * 3, timeout=120):
            assert seen == expected[cloaking]


# --- the process's default --------------------------------------------------------------------------------------------

DEFAULTS = """
path, account, kind, first = sys.argv[1:5]
def attempt(function, *arguments):
    try:
        function(*arguments)
        return "done"
    except BitsError as error:
        return error.name
said = {}
if first == "impersonating":
    with openbits.impersonate(account):
        said["first"] = attempt(openbits.initialize_security, openbits.Cloaking[kind])
elif first == "late":
    kept = openbits.Manager(path) if kind == "NONE" else openbits.aio.Manager(path)
    said["first"] = attempt(openbits.initialize_security, openbits.Cloaking.DYNAMIC)
else:
    said["first"] = attempt(openbits.initialize_security, openbits.Cloaking[kind])
said["second"] = attempt(openbits.initialize_security, openbits.Cloaking.NONE)
with openbits.Manager(path) as manager:
    said["third"] = attempt(openbits.initialize_security)
    said["blanket"] = openbits.query_proxy_blanket(manager).cloaking.name
    said["outside"] = manager.whoami()["uid"]
    with openbits.impersonate(account):
        said["inside"] = manager.whoami()["uid"]
        job = manager.create_job("new")
    said["owner"] = job.get_owner().uid
    said["job"] = openbits.query_proxy_blanket(job).cloaking.name
    openbits.set_proxy_blanket(job, openbits.Cloaking.NONE)
    said["set"] = openbits.query_proxy_blanket(job).cloaking.name
    said["copy"] = openbits.query_proxy_blanket(openbits.copy_proxy(job)).cloaking.name
    job.cancel()
print(json.dumps(said))
"""


@pytest.mark.parametrize(
    ("kind", "first", "callers"),
    [
        ("NONE", "plain", "root root"),
        ("DYNAMIC", "plain", "root alice"),
        ("STATIC", "plain", "root root"),
        ("STATIC", "impersonating", "alice alice"),
        ("DYNAMIC", "impersonating", "root alice"),
    ],
)
def test_the_default_is_set_once_before_the_first_object(
    daemon: Daemon, alice: TestAccount, kind: str, first: str, callers: str
) -> None:
    """As CoInitializeSecurity: everything that is handed out later has it; a second call comes too late."""
    done = run_python(DEFAULTS, daemon.socket, alice.name, kind, first)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    outside, inside = ({"root": ROOT, "alice": alice.uid}[name] for name in callers.split())
    assert said == {
        "first": "done",
        "second": "RPC_E_TOO_LATE",
        "third": "RPC_E_TOO_LATE",
        "blanket": kind,
        "outside": outside,
        "inside": inside,
        "owner": inside,
        "job": kind,
        "set": "NONE",
        "copy": kind,
    }


@pytest.mark.parametrize("client", ["NONE", "aio"])
def test_after_the_first_object_it_is_too_late(daemon: Daemon, alice: TestAccount, client: str) -> None:
    """Blocking or asyncio: what exists has a default already."""
    said = json.loads(run_python(DEFAULTS, daemon.socket, alice.name, client, "late").stdout)
    assert (said["first"], said["second"], said["blanket"]) == ("RPC_E_TOO_LATE", "RPC_E_TOO_LATE", "NONE")


@pytest.mark.parametrize("obj", [None, "job", 5, openbits.Manager, openbits.Priority.HIGH], ids=str)
def test_what_carries_no_calls_has_no_blanket(obj: Any) -> None:
    for function in (query_proxy_blanket, copy_proxy, lambda one: set_proxy_blanket(one, Cloaking.NONE)):
        with pytest.raises(BitsError) as caught:
            function(obj)
        assert caught.value.name == "E_NOINTERFACE"


def test_values_are_no_proxies_and_blankets_are_of_three_kinds(manager: openbits.Manager, alices_job: str) -> None:
    job = manager.get_job(alices_job)
    with pytest.raises(BitsError) as caught:
        set_proxy_blanket(job.get_info(), Cloaking.DYNAMIC)
    assert caught.value.name == "E_NOINTERFACE"
    with pytest.raises(BitsError) as caught:
        set_proxy_blanket(job, "sometimes")  # type: ignore[arg-type]  # that is the test
    assert caught.value.name == "E_INVALIDARG"


# --- processes that change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["os.setuid(uid)", "os.setgroups([]); os.setgid(gid); os.setuid(uid)"])
def test_a_process_that_changes_its_ids_for_good_uses_no_connection_of_before(
    daemon: Daemon, alice: TestAccount, change: str
) -> None:
    """Neither by itself nor by a blanket that kept who it was: those rights it has given up."""
    script = """
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
manager = openbits.Manager(path)
static = openbits.copy_proxy(manager)
openbits.set_proxy_blanket(static, openbits.Cloaking.STATIC)
before = [manager.whoami()["uid"], static.whoami()["uid"], len(os.listdir("/proc/self/fd"))]
exec(sys.argv[4])
after = [manager.whoami()["uid"], len(os.listdir("/proc/self/fd"))]
try:
    after.append(static.whoami()["uid"])
except BitsError as error:
    after.append(error.name)
manager.close()
print(json.dumps([before, after]))
"""
    done = run_python(script, daemon.socket, str(alice.uid), str(alice.gid), change)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert before[:2] == [ROOT, ROOT]
    assert after == [alice.uid, before[2], "ERROR_PRIVILEGE_NOT_HELD"]


def test_a_fork_inside_a_block_calls_as_its_parent_did(daemon: Daemon, alice: TestAccount) -> None:
    script = """
path, account = sys.argv[1:3]
manager = openbits.Manager(path)
dynamic = openbits.copy_proxy(manager)
openbits.set_proxy_blanket(dynamic, openbits.Cloaking.DYNAMIC)
def who(): return [manager.whoami()["uid"], dynamic.whoami()["uid"]]
def say(what): os.write(1, (json.dumps([what, *who()]) + chr(10)).encode())
with openbits.impersonate(account):
    say("parent")
    pid = os.fork()
    say("child inside" if pid == 0 else "parent inside")
    if pid: os.waitpid(pid, 0)
    elif os.fork() == 0:
        say("grandchild")
        os._exit(0)
    else:
        os.wait()
if pid == 0: say("child outside")
else: say("parent outside")
manager.close()
"""
    done = run_python(script, daemon.socket, alice.name)
    assert done.returncode == 0, done.stderr
    said = {what: uids for what, *uids in map(json.loads, done.stdout.splitlines())}
    inside, outside = [ROOT, alice.uid], [ROOT, ROOT]
    assert said == {
        "parent": inside,
        "parent inside": inside,
        "child inside": inside,
        "grandchild": inside,
        "child outside": outside,
        "parent outside": outside,
    }


def test_a_blanket_that_cannot_be_worn_is_an_error_and_not_somebody_elses_call(
    daemon: Daemon, alice: TestAccount, mallory: TestAccount
) -> None:
    """A user's own process: NONE and DYNAMIC are the user, and there is nobody else to be."""
    script = """
manager = openbits.Manager(sys.argv[1])
said = []
for cloaking in openbits.Cloaking:
    openbits.set_proxy_blanket(manager, cloaking)
    said.append(manager.whoami()["uid"])
manager._blanket = openbits.Blanket(cloaking=openbits.Cloaking.STATIC, identity=openbits.Identity(0, 0, ()))
try:
    said.append(manager.whoami()["uid"])
except BitsError as error:
    said.append(error.name)
manager.close()
print(json.dumps(said))
"""
    done = run_python(script, daemon.socket, account=mallory)
    assert json.loads(done.stdout) == [mallory.uid] * 3 + ["ERROR_PRIVILEGE_NOT_HELD"], done.stderr


@pytest.mark.parametrize(
    "header",
    ["X-Remote-User: root", "Authorization: Basic cm9vdDo=", "X-Uid: 0", "Forwarded: for=root", "Cookie: uid=0"],
)
def test_nothing_in_a_request_says_who_makes_it(daemon: Daemon, mallory: TestAccount, header: str) -> None:
    """The kernel's word is the only source: neither headers, nor queries, nor bodies."""

    def ask(head: str, body: bytes = b"") -> bytes:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(30)
            connection.connect(daemon.socket)
            lines = [head, "Host: root@bits", header, "Connection: close", f"Content-Length: {len(body)}"]
            connection.sendall("\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body)
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    with impersonate(mallory.name):
        assert f'"uid":{mallory.uid}'.encode() in ask("GET /v1/whoami?uid=0&account=root&user=root HTTP/1.1")
        body = json.dumps({"name": "forged", "owner": {"uid": 0}, "uid": 0, "identity": [0, 0, []]}).encode()
        made = ask("POST /v1/jobs?owner=0 HTTP/1.1", body)
    if made.startswith(b"HTTP/1.1 201"):
        assert f'"uid":{mallory.uid}'.encode() in made
    else:
        assert made.startswith(b"HTTP/1.1 400"), made


# --- asyncio ----------------------------------------------------------------------------------------------------------


def test_asyncio_calls_carry_who_made_them_and_not_who_awaits(
    daemon: Daemon, alices_job: str, alice: TestAccount, mallory: TestAccount
) -> None:
    async def act() -> None:
        async with openbits.aio.Manager(daemon.socket) as manager:
            dynamic, static = copy_proxy(manager), copy_proxy(manager)
            set_proxy_blanket(dynamic, Cloaking.DYNAMIC)
            with impersonate(alice.name):
                set_proxy_blanket(static, Cloaking.STATIC)
                pending = [one.whoami() for one in (manager, dynamic, static) * 20]
            pending += [one.whoami() for one in (manager, dynamic, static) * 20]
            seen = [answer["uid"] for answer in await asyncio.gather(*pending)]
            assert seen == [ROOT, alice.uid, alice.uid] * 20 + [ROOT, ROOT, alice.uid] * 20

            job = await dynamic.get_job(alices_job)
            assert query_proxy_blanket(job).cloaking is Cloaking.NONE
            set_proxy_blanket(job, Cloaking.DYNAMIC)
            with impersonate(mallory.name):
                refused = [job.get_state(), job.wait(timeout=30), anext(job.events())]
            allowed = [job.get_state(), job.wait(timeout=30)]
            for one in refused:
                with pytest.raises(BitsError) as caught:
                    await one
                assert caught.value.name == "E_ACCESSDENIED"
            assert [await one for one in allowed] == [openbits.JobState.ERROR] * 2

    asyncio.run(act())


def test_asyncio_refuses_to_wait_inside_a_block(daemon: Daemon, alice: TestAccount) -> None:
    """The loop would run other tasks as Alice. A whole loop inside a block is another matter."""

    async def wait_inside() -> list[str]:
        refused = []
        async with openbits.aio.Manager(daemon.socket) as manager:
            set_proxy_blanket(manager, Cloaking.DYNAMIC)
            with impersonate(alice.name):
                for wait in (manager.whoami, manager.enum_jobs, lambda: anext(manager.events())):
                    with pytest.raises(BitsError) as caught:
                        await wait()
                    refused.append(caught.value.name)
            assert (await manager.whoami())["uid"] == ROOT
        return refused

    async def whoami() -> int:
        async with openbits.aio.Manager(daemon.socket) as manager:
            set_proxy_blanket(manager, Cloaking.DYNAMIC)
            return int((await manager.whoami())["uid"])

    assert asyncio.run(wait_inside()) == ["E_ILLEGAL_METHOD_CALL"] * 3
    with impersonate(alice.name):
        assert asyncio.run(whoami()) == alice.uid
