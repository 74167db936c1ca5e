"""Who dies, who notices, who comes back: the supervision of architecture §2."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account
from support.monitored import Monitored, descendants_of, is_running, monitored, status_of, until

pytestmark = needs_root


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def daemon() -> Iterator[Monitored]:
    ensure_service_account()
    with monitored("--system") as running:
        running.be_ready()
        yield running


def gone(*pids: int) -> None:
    until(lambda: not any(is_running(pid) for pid in pids), f"some of {pids} still run")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_worker_is_reported(daemon: Monitored, alice: TestAccount, number: int) -> None:
    pid = daemon.spawn(alice.uid, alice.gid)["pid"]
    os.kill(pid, number)
    assert daemon.hear() == {"frame": "WorkerExited", "pid": pid}
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the dead worker is not reaped")
    assert daemon.spawn(alice.uid, alice.gid)["frame"] == "WorkerSpawned"


def test_worker_ends_with_its_channel(daemon: Monitored, alice: TestAccount) -> None:
    answer = daemon.spawn(alice.uid, alice.gid)
    daemon.do("release", request=answer["request"])
    assert daemon.hear() == {"frame": "WorkerExited", "pid": answer["pid"]}


def test_kill_worker(daemon: Monitored, alice: TestAccount) -> None:
    pid = daemon.spawn(alice.uid, alice.gid)["pid"]
    daemon.do("kill", pid=pid)
    assert daemon.hear() == {"frame": "WorkerExited", "pid": pid}
    # The news may have crossed a second order: no mistake.
    daemon.do("kill", pid=pid)
    assert daemon.spawn(alice.uid, alice.gid)["frame"] == "WorkerSpawned"


def test_dead_service_comes_back_after_its_workers_have_gone(daemon: Monitored, alice: TestAccount) -> None:
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    service = daemon.pid_of("bitsd-service")
    os.kill(service, signal.SIGKILL)
    daemon.wait_for_line("the service was killed by SIGKILL; it is started again in 0.1 s")
    gone(worker, service)
    daemon.be_ready()
    assert daemon.pid_of("bitsd-service") != service
    assert daemon.spawn(alice.uid, alice.gid)["frame"] == "WorkerSpawned"


def test_worker_that_does_not_end_with_its_service_is_killed(daemon: Monitored, alice: TestAccount) -> None:
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    os.kill(worker, signal.SIGSTOP)
    os.kill(daemon.pid_of("bitsd-service"), signal.SIGKILL)
    begin = time.monotonic()
    daemon.be_ready()
    assert not is_running(worker)
    assert time.monotonic() - begin > 1.5, "the next service did not wait for the old worker"


def test_zygote_comes_back_and_the_service_stays(daemon: Monitored, alice: TestAccount) -> None:
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    service, zygote = daemon.pid_of("bitsd-service"), daemon.pid_of("bitsd-zygote")
    os.kill(zygote, signal.SIGKILL)
    assert daemon.hear() == {"frame": "WorkerExited", "pid": worker}
    gone(worker)
    # Ordered while there may be no zygote: it waits.
    assert daemon.spawn(alice.uid, alice.gid)["frame"] == "WorkerSpawned"
    assert daemon.pid_of("bitsd-service") == service
    assert daemon.pid_of("bitsd-zygote") != zygote
    until(lambda: not os.path.exists(f"/proc/{worker}"), "the orphan is not reaped")


def test_nothing_outlives_the_monitor(daemon: Monitored, alice: TestAccount) -> None:
    daemon.spawn(alice.uid, alice.gid)
    everybody = descendants_of(daemon.pid)
    assert len(everybody) == 3
    # Stopped processes see no end of file; the kernel ends them all the same, if their parent may kill them.
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    daemon.process.kill()
    gone(*everybody)


def test_sigterm_is_an_orderly_end(daemon: Monitored, alice: TestAccount) -> None:
    daemon.spawn(alice.uid, alice.gid)
    everybody = descendants_of(daemon.pid)
    daemon.process.terminate()
    assert daemon.hear() == {"signal": "SIGTERM"}
    assert daemon.wait() == 0
    gone(*everybody)


def test_second_interrupt_ends_at_once(daemon: Monitored) -> None:
    daemon.do("ignore SIGTERM")
    daemon.process.send_signal(signal.SIGINT)
    daemon.process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    if daemon.process.poll() is None:
        # Two signals that arrive together count as one.
        time.sleep(0.2)
        daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert time.monotonic() - begin < 5


def test_sighup_reaches_the_service(daemon: Monitored) -> None:
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.hear() == {"signal": "SIGHUP"}


@pytest.mark.parametrize("status", [0, 3])
def test_service_that_wants_to_end_ends_the_daemon(daemon: Monitored, status: int) -> None:
    daemon.do("stopping", status=status)
    assert daemon.wait() == status


def test_service_that_hangs_up_is_replaced(daemon: Monitored) -> None:
    before = daemon.pid_of("bitsd-service")
    daemon._control.sendall(b'{"do": "hang up"}\n')  # type: ignore[union-attr]
    daemon.be_ready()
    assert daemon.pid_of("bitsd-service") != before


def test_service_that_keeps_dying_ends_the_daemon(daemon: Monitored) -> None:
    for _ in range(4):
        os.kill(daemon.pid_of("bitsd-service"), signal.SIGABRT)
        daemon.wait_for_line("started again")
    os.kill(daemon.pid_of("bitsd-service"), signal.SIGABRT)
    daemon.wait_for_line("too often")
    assert daemon.wait() == 1


def test_service_that_never_worked_ends_the_daemon() -> None:
    ensure_service_account()
    with monitored("--system") as daemon:
        daemon.meet_service()
        daemon.do("exit", status=4)
        daemon.wait_for_line("fatal: the service ended with exit status 4 before it was ready")
        assert daemon.wait() == 1


VIOLATIONS = [
    ("not a frame", 0, "what is no frame"),
    ('["ServiceReady",{"socket_path":"x"}]', 0, "ServiceReady while it was serving"),
    ('["ServiceReady",{}]', 0, "lacks socket_path"),
    ('["ForkWorker",{"request":1,"uid":0,"gid":0,"groups":[]}]', 0, "does not travel here"),
    ('["SpawnWorker",{"request":1,"uid":0,"gid":0,"groups":[]}]', 0, "SpawnWorker with 0 descriptors"),
    ('["SpawnWorker",{"request":1,"uid":0,"gid":0,"groups":[]}]', 1, "no socket"),
    ('["SpawnWorker",{"request":1,"uid":0,"gid":0,"groups":[]}]', 2, "SpawnWorker with 2 descriptors"),
    ('["SpawnWorker",{"request":1,"uid":"0","gid":0,"groups":[]}]', 1, "uid is no int"),
    ('["KillWorker",{"pid":1}]', 0, "no worker of its own"),
    ('["KillWorker",{"pid":1}]', 1, "KillWorker with 1 descriptors"),
]


@pytest.mark.parametrize(("packet", "descriptors", "reason"), VIOLATIONS)
def test_what_is_not_permitted_is_fatal(daemon: Monitored, packet: str, descriptors: int, reason: str) -> None:
    """Architecture §2: anything the monitor does not know, or not now."""
    everybody = descendants_of(daemon.pid)
    daemon._control.sendall(  # type: ignore[union-attr]
        b'{"do": "raw", "text": %s, "descriptors": %d}\n'
        % (b'"' + packet.replace('"', '\\"').encode() + b'"', descriptors)
    )
    assert reason in daemon.wait_for_line("fatal: the service sent")
    assert daemon.wait() == 1
    gone(*everybody)


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**40])
def test_ids_that_cannot_be_are_fatal(daemon: Monitored, uid: int) -> None:
    with contextlib.suppress(EOFError):
        # The daemon may be gone before its service has said that it sent this.
        daemon.do("spawn", request=1, uid=uid, gid=0, groups=[])
    assert "ids that cannot be" in daemon.wait_for_line("fatal")
    assert daemon.wait() == 1


def test_killing_the_zygote_as_a_worker_is_fatal(daemon: Monitored) -> None:
    zygote = daemon.pid_of("bitsd-zygote")
    daemon._control.sendall(b'{"do": "kill", "pid": %d}\n' % zygote)  # type: ignore[union-attr]
    assert daemon.wait() == 1


def test_number_of_workers_is_limited(daemon: Monitored, alice: TestAccount) -> None:
    pids = [daemon.spawn(alice.uid, alice.gid)["pid"] for _ in range(256)]
    answer = daemon.spawn(alice.uid, alice.gid)
    assert (answer["frame"], answer["error"]) == ("SpawnRefused", "ERROR_NOT_ENOUGH_MEMORY")
    os.kill(pids[0], signal.SIGKILL)
    assert daemon.hear() == {"frame": "WorkerExited", "pid": pids[0]}
    assert daemon.spawn(alice.uid, alice.gid)["frame"] == "WorkerSpawned"


def test_idle_daemon_does_not_wake_up(daemon: Monitored, alice: TestAccount) -> None:
    worker = daemon.spawn(alice.uid, alice.gid)["pid"]
    everybody = (daemon.pid, daemon.pid_of("bitsd-zygote"), daemon.pid_of("bitsd-service"), worker)

    def switches() -> list[str]:
        return [status_of(pid)["voluntary_ctxt_switches"] for pid in everybody]

    time.sleep(0.5)  # until all have gone back to sleep
    before = switches()
    time.sleep(3)
    assert switches() == before


def test_descriptors_do_not_pile_up(daemon: Monitored, alice: TestAccount) -> None:
    def open_files() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{daemon.pid}/fd")), len(os.listdir(f"/proc/{daemon.pid_of('bitsd-zygote')}/fd"))

    before = open_files()
    for _ in range(20):
        answer = daemon.spawn(alice.uid, alice.gid)
        daemon.do("release", request=answer["request"])
        assert daemon.hear()["frame"] == "WorkerExited"
        assert daemon.spawn(3_000_000_001, 0)["frame"] == "SpawnRefused"
    # The answer comes a moment before the descriptor of the order is closed.
    until(lambda: open_files() == before, "descriptors are left")
