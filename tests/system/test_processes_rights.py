"""Every process has the rights that it needs and no other (architecture §2; inventory I1), seen from outside."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from openbits.worker.sandbox import landlock_version
from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account, temporary_group
from support.monitored import Monitored, command_line_of, monitored, status_of

pytestmark = needs_root

SETGID, SETUID, KILL = 1 << 6, 1 << 7, 1 << 5


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=2) as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Monitored]:
    ensure_service_account()
    with monitored("--system") as running:
        running.be_ready()
        yield running


def ids(pid: int, field: str) -> set[int]:
    return {int(number) for number in status_of(pid)[field].split()}


def capabilities(pid: int, kind: str) -> int:
    return int(status_of(pid)[f"Cap{kind}"], 16)


def assert_powerless(pid: int) -> None:
    for kind in ("Inh", "Prm", "Eff", "Amb"):
        assert capabilities(pid, kind) == 0, kind
    assert capabilities(pid, "Bnd") & ~(SETGID | SETUID | KILL) == 0
    assert status_of(pid)["NoNewPrivs"] == "1"
    # A process that may be dumped belongs to its own account in /proc; one that may not, to root.
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0


def test_monitor_keeps_three_capabilities(daemon: Monitored) -> None:
    assert ids(daemon.pid, "Uid") == {0}
    for kind in ("Prm", "Eff", "Bnd"):
        assert capabilities(daemon.pid, kind) == SETUID | SETGID | KILL
    assert capabilities(daemon.pid, "Inh") == capabilities(daemon.pid, "Amb") == 0
    assert status_of(daemon.pid)["NoNewPrivs"] == "1"


def test_zygote_keeps_three_capabilities(daemon: Monitored) -> None:
    pid = daemon.pid_of("bitsd-zygote")
    assert ids(pid, "Uid") == {0}
    assert capabilities(pid, "Prm") == capabilities(pid, "Eff") == SETUID | SETGID | KILL
    assert status_of(pid)["Threads"] == "1"


def test_service_is_the_service_account(daemon: Monitored) -> None:
    pid = daemon.pid_of("bitsd-service")
    account = ensure_service_account()
    assert ids(pid, "Uid") == {account.pw_uid}
    assert ids(pid, "Gid") == {account.pw_gid}
    assert ids(pid, "Groups") == set(os.getgrouplist(account.pw_name, account.pw_gid))
    assert_powerless(pid)
    assert int(status_of(pid)["Umask"], 8) == 0o077


def test_worker_is_its_account_exactly(daemon: Monitored, alice: TestAccount) -> None:
    answer = daemon.spawn(alice.uid, alice.gid, alice.groups)
    assert answer["frame"] == "WorkerSpawned"
    assert (answer["uid"], answer["gid"], tuple(answer["groups"])) == (alice.uid, alice.gid, alice.groups)
    pid = answer["pid"]
    assert ids(pid, "Uid") == {alice.uid}
    assert ids(pid, "Gid") == {alice.gid}
    assert ids(pid, "Groups") == set(alice.groups)
    assert_powerless(pid)


def test_roots_worker_has_no_capabilities(daemon: Monitored) -> None:
    pid = daemon.spawn(0, 0, (0,))["pid"]
    assert ids(pid, "Uid") == {0}
    assert_powerless(pid)


def test_worker_cannot_become_root_again(daemon: Monitored, alice: TestAccount) -> None:
    request = daemon.spawn(alice.uid, alice.gid, alice.groups)["request"]
    for attempt in ("os.setuid(0)", "os.setresuid(-1, 0, -1)", "os.setgroups([0])", "os.setgid(0)"):
        assert daemon.ask(request, attempt) == "PermissionError"


def test_groups_that_the_account_does_not_have_are_not_granted(daemon: Monitored, alice: TestAccount) -> None:
    """A service that was taken over cannot give an account the groups of another."""
    with temporary_group() as foreign:
        answer = daemon.spawn(alice.uid, foreign, (*alice.groups, foreign, 0))
        assert (answer["gid"], tuple(answer["groups"])) == (alice.gid, alice.groups)
        assert ids(answer["pid"], "Groups") == set(alice.groups)


def test_worker_gets_no_more_groups_than_were_asked_for(daemon: Monitored, alice: TestAccount) -> None:
    answer = daemon.spawn(alice.uid, alice.gid, alice.groups[:1])
    assert ids(answer["pid"], "Groups") == set(alice.groups[:1])


def test_unknown_uid_is_refused(daemon: Monitored) -> None:
    answer = daemon.spawn(3_000_000_001, 0)
    assert (answer["frame"], answer["error"]) == ("SpawnRefused", "ERROR_NO_SUCH_USER")
    assert "3000000001" in answer["message"]


def test_the_number_of_a_removed_person_is_refused(daemon: Monitored) -> None:
    """Account and group are gone, as with a dynamic account; but the number is the next person's."""
    assert daemon.spawn(3_000_000_001, 3_000_000_001)["error"] == "ERROR_NO_SUCH_USER"


def test_dynamic_account_runs_without_groups(daemon: Monitored) -> None:
    uid = 65_501
    answer = daemon.spawn(uid, uid, (0,))
    assert answer["frame"] == "WorkerSpawned"
    assert ids(answer["pid"], "Gid") == {uid}
    assert ids(answer["pid"], "Groups") == set()


def test_the_services_own_account_gets_no_worker(daemon: Monitored) -> None:
    account = ensure_service_account()
    assert daemon.spawn(account.pw_uid, account.pw_gid)["error"] == "E_ACCESSDENIED"


def test_worker_holds_its_channel_and_nothing_else(daemon: Monitored, alice: TestAccount) -> None:
    pid = daemon.spawn(alice.uid, alice.gid)["pid"]
    targets = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert set(targets) == {"0", "1", "2", "3"}
    assert targets["0"] == "/dev/null"
    assert targets["3"].startswith("socket:")


def test_service_holds_no_file_of_the_monitor(daemon: Monitored) -> None:
    pid = daemon.pid_of("bitsd-service")
    files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    named = [name for name in files if name.startswith("/")]
    assert set(named) <= {"/dev/null", f"{daemon.state_dir}/bitsd.lock"}, files


def test_i14_the_key_goes_to_the_service_and_to_nobody_else(daemon: Monitored, alice: TestAccount) -> None:
    path = f"{daemon.state_dir}.key"
    found = os.stat(path)
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o600)
    with open(path, encoding="ascii") as file:
        assert daemon.started["started"]["key"] == file.read().strip()
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    held = {
        name: [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        for name, pid in (
            ("bitsd", daemon.pid),
            ("bitsd-service", daemon.pid_of("bitsd-service")),
            ("bitsd-zygote", daemon.pid_of("bitsd-zygote")),
            ("bitsd-worker", worker),
        )
    }
    # The monitor keeps it for the next service; this one has read it and let go.
    assert [name for name, links in held.items() if "/memfd:key (deleted)" in links] == ["bitsd"]


def test_worker_sandbox(daemon: Monitored, alice: TestAccount) -> None:
    """Files can be written and names resolved; programs, devices, pipes and signals are out of reach."""
    request = daemon.spawn(alice.uid, alice.gid, alice.groups)["request"]
    path = os.path.join(alice.home, "file")
    assert daemon.ask(request, f"open({path!r}, 'x').write('text')") == 4
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (alice.uid, alice.gid)
    assert daemon.ask(request, f"os.rename({path!r}, {path + '2'!r})") is None
    assert daemon.ask(request, "socket.getaddrinfo('localhost', 80, socket.AF_INET)[0][4][0]") == "127.0.0.1"
    assert daemon.ask(request, "open('/etc/shadow').read()") == "PermissionError"
    assert daemon.ask(request, "[limit for limit in resource.getrlimit(resource.RLIMIT_CORE)]") == [0, 0]
    if landlock_version() == 0:
        pytest.skip("this kernel has no Landlock")
    assert daemon.ask(request, "os.execv('/bin/true', ['true'])") == "PermissionError"
    assert daemon.ask(request, f"os.mkfifo({path + '.fifo'!r})") == "PermissionError"


def test_worker_cannot_signal_other_processes_of_its_account(daemon: Monitored, alice: TestAccount) -> None:
    first = daemon.spawn(alice.uid, alice.gid, alice.groups)
    second = daemon.spawn(alice.uid, alice.gid, alice.groups)
    if landlock_version() < 6:
        pytest.skip("this kernel's Landlock does not know signals")
    assert daemon.ask(first["request"], f"os.kill({second['pid']}, 0)") == "PermissionError"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + alice.name)
        listener.listen()
        connect = f"socket.socket(socket.AF_UNIX).connect(chr(0) + {alice.name!r})"
        assert daemon.ask(first["request"], connect) == "PermissionError"


def test_worker_memory_is_limited_but_address_space_is_not(daemon: Monitored, alice: TestAccount) -> None:
    request = daemon.spawn(alice.uid, alice.gid)["request"]
    assert daemon.ask(request, "len(bytearray(1 << 31))") == "MemoryError"
    assert daemon.ask(request, "len(mmap.mmap(-1, 1 << 32, prot=mmap.PROT_READ))") == 1 << 32
    threads = "[(t := threading.Thread(target=str), t.start(), t.join())[0].is_alive() for _ in range(64)]"
    assert daemon.ask(request, threads) == [False] * 64


def test_worker_can_open_as_many_files_as_the_limit_allows(daemon: Monitored, alice: TestAccount) -> None:
    request = daemon.spawn(alice.uid, alice.gid)["request"]
    soft, hard = daemon.ask(request, "resource.getrlimit(resource.RLIMIT_NOFILE)")
    assert soft == hard


def test_programs_can_be_told_apart_in_a_process_list(daemon: Monitored, alice: TestAccount) -> None:
    """Architecture §6."""
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    assert status_of(daemon.pid)["Name"] == "bitsd"
    assert command_line_of(daemon.pid).startswith("bitsd --system --state-dir ")
    assert command_line_of(daemon.pid_of("bitsd-service")) == "bitsd-service"
    assert command_line_of(daemon.pid_of("bitsd-zygote")) == "bitsd-zygote"
    assert status_of(worker)["Name"] == "bitsd-worker"
    assert command_line_of(worker) == f"bitsd-worker: {alice.name}"


def test_workers_start_fast(daemon: Monitored, alice: TestAccount) -> None:
    """About 2 ms each; the limit leaves room for a busy machine."""
    times_s = []
    for _ in range(20):
        begin = time.monotonic()
        daemon.spawn(alice.uid, alice.gid)
        times_s.append(time.monotonic() - begin)
    assert sorted(times_s)[10] < 0.05


def test_user_mode_has_one_identity(alice: TestAccount) -> None:
    """`bitsd --user`: the same programs under one uid, and workers of that uid only."""
    with monitored("--user", user=alice.uid, group=alice.gid) as daemon:
        daemon.be_ready()
        answer = daemon.spawn(alice.uid, alice.gid, alice.groups)
        assert (answer["uid"], answer["gid"], answer["groups"]) == (alice.uid, alice.gid, [])
        for pid in (daemon.pid_of("bitsd-service"), daemon.pid_of("bitsd-zygote"), answer["pid"]):
            assert ids(pid, "Uid") == {alice.uid}
            assert ids(pid, "Gid") == {alice.gid}
            assert capabilities(pid, "Eff") == capabilities(pid, "Prm") == 0
            assert status_of(pid)["NoNewPrivs"] == "1"
        assert daemon.spawn(0, 0)["error"] == "E_ACCESSDENIED"
        assert daemon.spawn(alice.uid + 1, alice.gid)["error"] == "E_ACCESSDENIED"


def test_user_mode_of_root_gives_up_capabilities_too() -> None:
    with monitored("--user") as daemon:
        daemon.be_ready()
        worker = daemon.spawn(0, 0)["pid"]
        for pid in (daemon.pid, daemon.pid_of("bitsd-service"), daemon.pid_of("bitsd-zygote"), worker):
            assert capabilities(pid, "Eff") == capabilities(pid, "Prm") == 0
