"""Impersonation as the kernel sees it: one thread, exactly as long as the block lasts, and nothing that is left of it.

Issue 3, part 3; architecture, section 4, rule 2.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import pty
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import openbits
from openbits.errors import BitsError
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import wait_until
from support.impersonating import as_service, credentials_of, python, run_python, uids_of

pytestmark = needs_root


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=2) as account:
        yield account


@pytest.fixture(scope="module")
def bert() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def service() -> Iterator[TestAccount]:
    with temporary_account(system=True) as account:
        yield account


@dataclass
class OtherThread:
    """A thread that was there before, and does what it is told."""

    executor: concurrent.futures.ThreadPoolExecutor

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.executor.submit(function, *arguments).result(timeout=30)


@pytest.fixture
def other() -> Iterator[OtherThread]:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        thread = OtherThread(executor)
        thread.do(int)
        yield thread


def own_credentials() -> dict[str, list[str]]:
    return credentials_of("thread-self")


# --- who has which rights --------------------------------------------------------------------------------------------


def test_only_the_calling_thread_is_somebody_else_and_only_as_far_as_it_acts(
    alice: TestAccount, other: OtherThread
) -> None:
    before = own_credentials()
    thread = f"self/task/{threading.get_native_id()}"
    with openbits.impersonate(alice.name) as identity:
        seen = other.do(credentials_of, thread)
        assert other.do(own_credentials) == before
    assert seen["Uid"] == ["0", str(alice.uid), "0", str(alice.uid)]
    assert seen["Gid"] == ["0", str(alice.gid), "0", str(alice.gid)]
    assert [int(gid) for gid in seen["Groups"]] == list(alice.groups)
    assert int(seen["CapEff"][0], 16) == 0
    assert seen["CapPrm"] == before["CapPrm"]
    assert identity == openbits.Identity(alice.uid, alice.gid, alice.groups)
    assert own_credentials() == before


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A directory of root's that everybody may look into."""
    with tempfile.TemporaryDirectory(prefix="obt-public-") as path:
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


def test_files_are_opened_as_the_account(alice: TestAccount, public: pathlib.Path) -> None:
    path = os.path.join(alice.home, "made")
    secret = public / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    shared = public / "shared"
    shared.write_text("for a group of hers")
    [group, _] = sorted(set(alice.groups) - {alice.gid})
    os.chown(shared, 0, group)
    shared.chmod(0o640)
    with openbits.impersonate(alice.uid):
        with open(path, "w", encoding="ascii") as file:
            file.write("hers")
        with pytest.raises(PermissionError):
            secret.read_text()
        assert shared.read_text() == "for a group of hers"
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, stat.S_ISREG(found.st_mode)) == (alice.uid, alice.gid, True)


def test_groups_can_be_given(alice: TestAccount, bert: TestAccount) -> None:
    before = own_credentials()
    with openbits.impersonate(alice.name, groups=[bert.gid, alice.gid, bert.gid]) as identity:
        assert sorted(os.getgroups()) == sorted({alice.gid, bert.gid}) == list(identity.groups)
    with openbits.impersonate(alice.name, groups=[]):
        assert os.getgroups() == []
    assert own_credentials() == before


def test_what_the_thread_was_is_restored_to_the_letter() -> None:
    """Groups that were set twice, an effective set that is smaller than the permitted one."""
    script = """
os.setgroups([7, 5, 7, 5, 60000])
libc = ctypes.CDLL(None)
header, words = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, words) == 0
words[0] = 0x21
assert libc.capset(header, words) == 0
before = credentials()
assert before["Groups"] == ["5", "5", "7", "7", "60000"]
with openbits.impersonate("nobody"):
    assert credentials()["CapEff"] == ["0" * 16]
    with openbits.impersonate("root"):
        assert credentials()["CapEff"] == before["CapEff"]
assert credentials() == before, (before, credentials())
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr


def test_after_an_exception_the_thread_is_what_it_was(alice: TestAccount) -> None:
    before = own_credentials()
    with pytest.raises(ZeroDivisionError), openbits.impersonate(alice.name):
        print(1 / 0)
    assert own_credentials() == before


def test_blocks_within_blocks_go_by_way_of_what_the_thread_is(alice: TestAccount, bert: TestAccount) -> None:
    """Alice has no right to be Bert, nor to be root again; it is the thread that has."""
    before = own_credentials()
    with openbits.impersonate(alice.name):
        as_alice = own_credentials()
        with openbits.impersonate(bert.name):
            as_bert = own_credentials()
            with openbits.impersonate("root"):
                assert os.geteuid() == 0
                assert own_credentials()["CapEff"] == before["CapEff"]
            assert own_credentials() == as_bert
            with pytest.raises(ZeroDivisionError), openbits.impersonate(alice.name):
                print(1 / 0)
            assert own_credentials() == as_bert
        assert own_credentials() == as_alice
    assert as_bert["Uid"] == ["0", str(bert.uid), "0", str(bert.uid)]
    assert own_credentials() == before


def test_blocks_that_are_left_in_another_order_leave_the_thread_as_it_was(
    alice: TestAccount, bert: TestAccount
) -> None:
    """Generators can do that: the identity is that of the last block that is still on."""
    before = own_credentials()

    def block(account: TestAccount) -> Iterator[None]:
        with openbits.impersonate(account.name):
            yield

    first, second = block(alice), block(bert)
    next(first)
    next(second)
    assert os.geteuid() == bert.uid
    assert next(first, None) is None
    assert os.geteuid() == bert.uid
    assert next(second, None) is None
    assert own_credentials() == before


def test_many_threads_are_many_accounts_at_once(alice: TestAccount, bert: TestAccount) -> None:
    before = own_credentials()
    wrong: list[str] = []
    start = threading.Barrier(8, timeout=30)

    def act(account: TestAccount) -> None:
        start.wait()
        for _ in range(300):
            with openbits.impersonate(account.name):
                end, far_end = socket.socketpair()
                with end, far_end:
                    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                if int.from_bytes(credentials[4:8], sys.byteorder) != account.uid:
                    wrong.append(f"{credentials!r}")
                if os.geteuid() != account.uid or tuple(sorted(os.getgroups())) != account.groups:
                    wrong.append(f"{os.geteuid()} {os.getgroups()}")
            if own_credentials() != before:
                wrong.append(f"{own_credentials()}")

    threads = [threading.Thread(target=act, args=(account,)) for account in (alice, bert) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert own_credentials() == before


def test_the_parent_death_signal_is_kept() -> None:
    """The kernel forgets it at each change of credentials; a service that asked for it still wants it."""
    script = """
libc = ctypes.CDLL(None)
libc.prctl(1, signal.SIGUSR1, 0, 0, 0)
found = ctypes.c_int()
for _ in range(2):
    with openbits.impersonate("nobody"):
        libc.prctl(2, ctypes.byref(found), 0, 0, 0)
        assert found.value == signal.SIGUSR1, found.value
    libc.prctl(2, ctypes.byref(found), 0, 0, 0)
    assert found.value == signal.SIGUSR1, found.value
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr


# --- who may -------------------------------------------------------------------------------------------------------

REFUSED = """
before = credentials()
try:
    with openbits.impersonate(sys.argv[1]):
        print("inside", os.geteuid())
except BitsError as error:
    print(error.name)
assert credentials() == before, credentials()
threading.Thread(target=print, args=("still starts threads",)).start()
"""


def test_without_the_capabilities_it_is_refused_and_nothing_has_changed(
    alice: TestAccount, bert: TestAccount, service: TestAccount
) -> None:
    commands: dict[str, dict[str, Any]] = {
        "a user": {"account": bert},
        "a service without": {"prefix": as_service(service, ())},
        "one of the two": {"prefix": as_service(service, ["setuid"])},
        "the other": {"prefix": as_service(service, ["setgid"])},
        "a root without": {"prefix": ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"]},
    }
    for name, how in commands.items():
        done = run_python(REFUSED, alice.name, **how)
        assert done.stdout.split("\n", 1)[0] == "ERROR_PRIVILEGE_NOT_HELD", (name, done.stdout, done.stderr)
        assert "still starts threads" in done.stdout


@pytest.mark.parametrize(
    ("account", "groups", "error"),
    [
        ("obt-there-is-no-such-account", None, "ERROR_NO_SUCH_USER"),
        ("", None, "ERROR_NO_SUCH_USER"),
        ("ro\0ot", None, "ERROR_NO_SUCH_USER"),
        (4_000_000_123, None, "ERROR_NO_SUCH_USER"),
        (-1, None, "ERROR_NO_SUCH_USER"),
        (2**40, None, "ERROR_NO_SUCH_USER"),
        (1.5, None, "E_INVALIDARG"),
        (None, None, "E_INVALIDARG"),
        ("nobody", [-1], "E_INVALIDARG"),
        ("nobody", [2**32], "E_INVALIDARG"),
        ("nobody", range(10, 70_000), "E_INVALIDARG"),
    ],
)
def test_accounts_and_groups_that_do_not_exist_are_refused(account: Any, groups: Any, error: str) -> None:
    before = own_credentials()
    with pytest.raises(BitsError) as caught, openbits.impersonate(account, groups=groups):
        pytest.fail("it was let in")
    assert caught.value.name == error
    assert own_credentials() == before
    threading.Thread(target=int).start()


def test_a_block_is_for_one_use_at_a_time(alice: TestAccount) -> None:
    before = own_credentials()
    block = openbits.impersonate(alice.name)
    with block:
        with pytest.raises(BitsError) as caught:
            block.__enter__()
        assert caught.value.name == "E_ILLEGAL_METHOD_CALL"
        assert os.geteuid() == alice.uid
    with pytest.raises(BitsError):
        block.__exit__(None, None, None)
    with block:
        assert os.geteuid() == alice.uid
    assert own_credentials() == before


SERVICE = """
alice, bert = sys.argv[1:3]
libc = ctypes.CDLL(None)
if "permitted-only" in sys.argv:
    class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    words = (ctypes.c_uint32 * 6)()
    header = Header(0x20080522, 0)
    assert libc.capget(ctypes.byref(header), words) == 0
    words[0] = words[3] = 0
    assert libc.capset(ctypes.byref(header), words) == 0
before = credentials()
with openbits.impersonate(alice) as identity:
    inside = credentials()
    with openbits.impersonate(bert):
        nested = credentials()
    assert credentials() == inside
assert credentials() == before, (before, credentials())
try:
    with openbits.impersonate("root"):
        raise SystemExit("it became root")
except BitsError as error:
    refused = error.name
with openbits.impersonate(alice):
    try:
        with openbits.impersonate(0):
            raise SystemExit("it became root")
    except BitsError as error:
        assert error.name == refused
    assert credentials() == inside
assert credentials() == before
print(json.dumps({"before": before, "inside": inside, "nested": nested, "identity": identity, "root": refused}))
"""


@pytest.mark.parametrize("how", ["effective", "permitted-only"])
def test_a_service_that_is_not_root_impersonates_with_two_capabilities(
    service: TestAccount, alice: TestAccount, bert: TestAccount, how: str
) -> None:
    """Whatever capabilities it has, none is in effect while it is Alice; and it never becomes root."""
    capabilities = ["setuid", "setgid", "dac_override", "kill"]
    done = run_python(SERVICE, alice.name, bert.name, how, prefix=as_service(service, capabilities))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["before"]["Uid"] == [str(service.uid)] * 4
    assert (int(seen["before"]["CapEff"][0], 16) == 0) is (how == "permitted-only")
    assert seen["inside"]["Uid"] == [str(service.uid), str(alice.uid), str(service.uid), str(alice.uid)]
    assert [int(gid) for gid in seen["inside"]["Groups"]] == list(alice.groups)
    assert int(seen["inside"]["CapEff"][0], 16) == int(seen["nested"]["CapEff"][0], 16) == 0
    assert seen["nested"]["Uid"][1] == str(bert.uid)
    assert seen["identity"] == [alice.uid, alice.gid, list(alice.groups)]
    assert seen["root"] == "E_ACCESSDENIED"


# --- what is started meanwhile -------------------------------------------------------------------------------------


def start_thread() -> None:
    threading.Thread(target=int).start()


def use_executor() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(int).result(10)


def spawn_by_multiprocessing() -> None:
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join(30)


def fork_by_multiprocessing() -> None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join(30)


STARTS: dict[str, Callable[[], Any]] = {
    "thread": start_thread,
    "executor": use_executor,
    "subprocess": lambda: subprocess.run(["true"], check=True, timeout=30),
    "subprocess as root": lambda: subprocess.run(["true"], check=True, timeout=30, user=0),
    "os.system": lambda: os.system("true"),
    "os.popen": lambda: os.popen("true").close(),
    "os.posix_spawn": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "os.spawnv": lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
    "os.execv": lambda: os.execv("/bin/true", ["true"]),
    "pty.spawn": lambda: pty.spawn(["true"]),
    "multiprocessing, spawn": spawn_by_multiprocessing,
    "multiprocessing, fork": fork_by_multiprocessing,
}


@pytest.mark.parametrize("how", STARTS)
def test_a_thread_that_impersonates_starts_nothing(alice: TestAccount, how: str) -> None:
    """What it starts would have its rights for good, and root's real uid to go with them."""
    children = open_children()
    with openbits.impersonate(alice.name):
        with pytest.raises(BitsError) as caught:
            STARTS[how]()
        assert caught.value.name == "E_ILLEGAL_METHOD_CALL"
        assert os.geteuid() == alice.uid
    assert open_children() == children
    if how not in {"os.execv", "pty.spawn"}:
        STARTS[how]()


def open_children() -> list[str]:
    with open(f"/proc/self/task/{threading.get_native_id()}/children", encoding="ascii") as file:
        return file.read().split()


def test_other_threads_start_what_they_like_and_it_is_what_they_are(alice: TestAccount, other: OtherThread) -> None:
    def start() -> tuple[list[int], list[int]]:
        seen: list[list[int]] = []
        thread = threading.Thread(target=lambda: seen.append(uids_of("thread-self")))
        thread.start()
        thread.join(30)
        with subprocess.Popen(["sleep", "60"]) as process:
            uids = uids_of(process.pid)
            process.kill()
        return seen[0], uids

    with openbits.impersonate(alice.name):
        assert other.do(start) == ([0, 0, 0, 0], [0, 0, 0, 0])


FORK = """
with openbits.impersonate(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        try:
            os.execv("/bin/true", ["true"])
        except BitsError as error:
            refused = error.name
        print("inside", os.getpid(), refused, flush=True)
        os.read(0, 1)
if pid == 0:
    print("outside", os.getpid(), flush=True)
    os.read(0, 1)
    threading.Thread(target=print, args=("starts",)).start()
else:
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_fork_goes_on_inside_the_block_and_leaves_it_like_its_parent(alice: TestAccount) -> None:
    with subprocess.Popen(
        python(FORK, alice.name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0, cwd="/"
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        watchdog = threading.Timer(60, parent.kill)
        watchdog.start()
        try:
            where, pid, refused = parent.stdout.readline().split()
            assert (where, refused) == ("inside", "E_ILLEGAL_METHOD_CALL")
            assert uids_of(pid) == [0, alice.uid, 0, alice.uid]
            # Which of the two goes on first after a fork is the kernel's choice.
            wait_until(lambda: uids_of(parent.pid) == [0, 0, 0, 0], "the parent to leave the block")
            parent.stdin.write("x")
            assert parent.stdout.readline().split() == ["outside", pid]
            assert uids_of(pid) == [0, 0, 0, 0]
            parent.stdin.write("x")
            assert parent.stdout.read() == "starts\n"
            assert parent.wait(timeout=30) == 0
        finally:
            watchdog.cancel()
            parent.kill()


def test_impersonation_is_refused_where_nothing_could_watch_over_it() -> None:
    script = """
def jealous(event, arguments):
    if event == "sys.addaudithook":
        raise RuntimeError("no other hook")
sys.addaudithook(jealous)
try:
    with openbits.impersonate("nobody"):
        print("inside")
except BitsError as error:
    print(error.name, os.geteuid())
"""
    done = run_python(script)
    assert done.stdout == "E_ACCESSDENIED 0\n", done.stderr


# --- when the way back is cut off -----------------------------------------------------------------------------------


def test_a_process_that_cannot_go_back_ends() -> None:
    """It would go on with the wrong rights: nothing after the block is carried out, not even a `finally`."""
    script = """
libc = ctypes.CDLL(None)
try:
    with openbits.impersonate("nobody"):
        # The thread gives up what it needs for the way back.
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0
        assert libc.syscall(117, -1, -1, 65534) == 0 and libc.syscall(117, 65534, -1, -1) == 0
finally:
    print("went on as", os.geteuid(), flush=True)
"""
    done = run_python(script)
    assert done.returncode == 77, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert "cannot go back" in done.stderr


def test_a_block_that_is_left_in_another_thread_ends_the_process() -> None:
    """A generator that another thread throws away: the first one would be somebody else for ever."""
    script = """
def generator():
    with openbits.impersonate("nobody"):
        yield
kept = [generator()]
ready, done = threading.Event(), threading.Event()
def begin():
    next(kept[0])
    ready.set()
    done.wait(30)
    print("went on as", os.geteuid(), flush=True)
thread = threading.Thread(target=begin, daemon=True)
thread.start()
ready.wait(30)
kept.clear()
done.set()
thread.join(30)
"""
    done = run_python(script)
    assert done.returncode == 77, (done.returncode, done.stdout, done.stderr)
    assert "another thread" in done.stderr


def test_signals_at_any_moment_leave_the_thread_as_it_was(alice: TestAccount, bert: TestAccount) -> None:
    """A handler that raises, and one that impersonates by itself, at every instruction of entering and leaving."""
    script = """
import random
alice, bert = sys.argv[1:3]
before = credentials()
class Stop(Exception): pass
handled = [0, 0]
def raising(*_):
    handled[0] += 1
    raise Stop
def impersonating(*_):
    handled[1] += 1
    with openbits.impersonate(bert):
        assert credentials()["Uid"][1] != "0"
impersonating()
kinds = [raising, impersonating]
deadline = time.monotonic() + 4
rounds = inside = 0
while time.monotonic() < deadline:
    signal.signal(signal.SIGALRM, kinds[rounds % 2])
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-4))
        try:
            for _ in range(3):
                with openbits.impersonate(alice):
                    inside += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        pass
    rounds += 1
    found = credentials()
    assert found == before, (rounds, found)
threading.Thread(target=int).start()
print(rounds, inside, *handled)
"""
    done = run_python(script, alice.name, bert.name)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    rounds, _, raised, impersonated = (int(word) for word in done.stdout.split())
    assert min(raised, impersonated) > 50, done.stdout
    assert rounds > 500, done.stdout


# --- what the impersonated user can do about it -----------------------------------------------------------------------

BROKER = """
secret = os.pipe()
with openbits.impersonate(sys.argv[1]):
    print(os.getpid(), threading.get_native_id(), secret[0], flush=True)
    os.read(0, 1)
    assert os.geteuid() != os.getuid()
print("unharmed", flush=True)
"""

ATTACKS = """
import resource
pid, tid, fd = (int(word) for word in sys.argv[1:4])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(one) for one in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def ptrace(request, target):
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, target, None, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def memory(target):
    buffer = ctypes.create_string_buffer(8)
    class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    here, there = Vector(ctypes.addressof(buffer), 8), Vector(0x400000, 8)
    call(310, target, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)
attacks = {"pidfd_send_signal": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0)}
attacks["pidfd_getfd"] = lambda: call(438, os.pidfd_open(pid), fd, 0)
for name, target in (("process", pid), ("thread", tid)):
    attacks |= {
        f"kill {name}": lambda t=target: os.kill(t, 0),
        f"tgkill {name}": lambda t=target: call(234, pid, t, 0),
        f"ptrace attach {name}": lambda t=target: ptrace(16, t),
        f"ptrace seize {name}": lambda t=target: ptrace(0x4206, t),
        f"process_vm_readv {name}": lambda t=target: memory(t),
        f"prlimit {name}": lambda t=target: resource.prlimit(t, resource.RLIMIT_NOFILE, (64, 64)),
        f"ioprio_set {name}": lambda t=target: call(251, 1, t, (3 << 13)),
    }
    for file in ("mem", "environ", "maps", "syscall", "stack"):
        attacks[f"{file} of {name}"] = lambda t=target, f=file: open(f"/proc/{pid}/task/{t}/{f}", "rb").read(1)
    for link in ("exe", "cwd", "root"):
        attacks[f"{link} of {name}"] = lambda t=target, l=link: os.readlink(f"/proc/{pid}/task/{t}/{l}")
    attacks[f"fd of {name}"] = lambda t=target: os.listdir(f"/proc/{pid}/task/{t}/fd")
    attacks[f"fd of {name}, reopened"] = lambda t=target: open(f"/proc/{pid}/task/{t}/fd/{fd}", "rb", buffering=0)
    attacks[f"oom_score_adj of {name}"] = lambda t=target: open(f"/proc/{t}/oom_score_adj", "w")
    attacks[f"comm of {name}"] = lambda t=target: open(f"/proc/{t}/comm", "w").write("mine")
    attacks[f"nice of {name}"] = lambda t=target: os.setpriority(os.PRIO_PROCESS, t, 5)
    attacks[f"affinity of {name}"] = lambda t=target: os.sched_setaffinity(t, {0})
    attacks[f"scheduler of {name}"] = lambda t=target: os.sched_setscheduler(t, os.SCHED_IDLE, os.sched_param(0))
outcome = {}
for name, attack in attacks.items():
    try:
        attack()
        outcome[name] = "succeeded"
    except OSError as error:
        outcome[name] = error.strerror
print(json.dumps(outcome))
"""


@pytest.mark.parametrize("is_main_thread", [True, False])
@pytest.mark.parametrize("kind", ["root", "service"])
def test_the_impersonated_user_cannot_touch_who_impersonates_her(
    alice: TestAccount, service: TestAccount, kind: str, is_main_thread: bool
) -> None:
    """Signals, ptrace, /proc, descriptors, limits: while the thread wears her uid and looks like hers."""
    script = BROKER
    if not is_main_thread:
        body = "".join(f"    {line}\n" for line in BROKER.strip().splitlines())
        script = f"def act():\n{body}\nthread = threading.Thread(target=act)\nthread.start()\nthread.join()\n"
    prefix = [] if kind == "root" else as_service(service)
    with subprocess.Popen(
        python(script, alice.name, prefix=prefix), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as broker:
        assert broker.stdin is not None
        assert broker.stdout is not None
        try:
            pid, tid, fd = broker.stdout.readline().split()
            assert uids_of(f"{pid}/task/{tid}")[1] == alice.uid
            attacked = run_python(ATTACKS, pid, tid, fd, account=alice)
            outcome = json.loads(attacked.stdout)
            assert {name for name, result in outcome.items() if result == "succeeded"} == set(), outcome
            assert len(outcome) > 30
            said, _ = broker.communicate("x", timeout=30)
            assert said == "unharmed\n"
        finally:
            broker.kill()
    assert broker.returncode == 0


def test_a_process_of_the_users_name_is_not_left_behind(alice: TestAccount) -> None:
    """Seen from outside: no task of the process has her uid in any place after the block."""
    with openbits.impersonate(alice.name):
        pass

    def tasks() -> set[int]:
        found: set[int] = set()
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(FileNotFoundError):
                found |= set(uids_of(f"self/task/{task}"))
        return found

    wait_until(lambda: tasks() == {0}, "all threads to be root")
