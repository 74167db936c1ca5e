"""Full disks: nothing that was fetched is lost, the job says what it waits for, and goes on when there is room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.mounts import fill, small_disk
from support.nginx import Nginx, running_nginx, sha256_of

pytestmark = needs_root

MIB = 1 << 20
CONFIG = """
[timeouts]
disk_full_retry_s = 1

[worker]
checkpoint_s = 0.1
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        yield server


@pytest.fixture
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture
def disk(alice: TestAccount) -> Iterator[str]:
    with small_disk(os.path.join(alice.home, "disk"), 8 * MIB, uid=alice.uid) as path:
        yield path


@pytest.fixture
def state() -> Iterator[str]:
    """A state directory on a disk of its own, which the service's account can reach."""
    base = tempfile.mkdtemp(prefix="obt-state-")
    os.chmod(base, 0o755)
    with small_disk(os.path.join(base, "state"), 4 * MIB, uid=ensure_service_account().pw_uid) as path:
        yield path
    # The key to what owners entrust stands beside it.
    os.remove(os.path.join(base, "state.key"))
    os.rmdir(base)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("system", config=CONFIG) as running:
        yield running


def test_a_job_waits_for_room_and_goes_on_by_itself(
    daemon: Daemon, origin: Nginx, alice: TestAccount, disk: str
) -> None:
    """Issue part 4, S5, J21: TRANSIENT_ERROR with ERROR_DISK_FULL, not counted, finished files are kept."""
    hashes = {name: origin.add(name, 2 * MIB) for name in ("one", "two", "three")}
    ballast = fill(disk, leave_bytes=5 * MIB)
    urls = [origin.url(name) for name in hashes]
    job = daemon.submit(*urls, "-d", disk, "--connections", "1", account=alice)
    held = daemon.wait_state(job, "TRANSIENT_ERROR")
    assert held["error"]["code"] == "ERROR_DISK_FULL"
    assert held["error_count"] == 0
    assert held["files_transferred"] == 2
    said = daemon.bits("why", job, account=alice, check=True).stdout
    assert "disk" in said or "three" in said
    for _ in range(2):
        # It looks again and again, and each time finds the disk full.
        daemon.wait_state(job, "QUEUED", "CONNECTING", "TRANSFERRING")
        assert daemon.wait_state(job, "TRANSIENT_ERROR")["error"]["code"] == "ERROR_DISK_FULL"
    gate = daemon.why(job)
    assert gate["gate"] == "disk"
    assert disk in gate["sentence"]
    assert daemon.show(job)["files_transferred"] == 2
    os.unlink(ballast)
    done = daemon.wait_state(job, "TRANSFERRED", timeout_s=10)
    assert done["error"] is None
    daemon.bits("complete", job, account=alice, check=True)
    assert {name: sha256_of(os.path.join(disk, name)) for name in hashes} == hashes
    assert len(origin.asked("one")) == len(origin.asked("two")) == 1
    assert sorted(os.listdir(disk)) == sorted(hashes)


def test_the_part_of_a_file_that_had_room_is_kept(daemon: Daemon, origin: Nginx, alice: TestAccount, disk: str) -> None:
    """Room that is not reserved (small files) can run out in the middle: what was written stays written."""
    size = MIB - 1
    wanted = origin.add("part", size)
    ballast = fill(disk, leave_bytes=MIB // 2)
    job = daemon.submit(origin.url("part"), "-d", disk, account=alice)
    held = daemon.wait_state(job, "TRANSIENT_ERROR")
    assert held["error"]["code"] == "ERROR_DISK_FULL"
    [stored] = daemon.stored_files(job)
    assert 0 < stored.durable_bytes <= MIB // 2
    os.unlink(ballast)
    daemon.wait_state(job, "TRANSFERRED", timeout_s=10)
    daemon.bits("complete", job, account=alice, check=True)
    assert sha256_of(os.path.join(disk, "part")) == wanted
    assert origin.asked("part")[-1].offset >= stored.durable_bytes


def test_cancel_and_suspend_work_on_a_full_disk(daemon: Daemon, origin: Nginx, alice: TestAccount, disk: str) -> None:
    """J4, J6: verbs need no room."""
    origin.add("large", 6 * MIB)
    fill(disk, leave_bytes=3 * MIB)
    job = daemon.submit(origin.url("large"), "-d", disk, account=alice)
    daemon.wait_state(job, "TRANSIENT_ERROR")
    daemon.bits("suspend", job, account=alice, check=True)
    assert daemon.show(job)["state"] == "SUSPENDED"
    daemon.bits("cancel", job, account=alice, check=True)
    assert os.listdir(disk) == ["ballast"]


def test_a_full_state_disk_refuses_calls_and_loses_nothing(origin: Nginx, alice: TestAccount, state: str) -> None:
    """Decisions, "Store full": callers get ERROR_DISK_FULL; what workers report waits for room."""
    size = 6 * MIB
    wanted = origin.add("beside", size)
    with running_daemon("system", config=CONFIG, state_dir=state) as daemon:
        kept = daemon.bits("create", "kept", account=alice, check=True).stdout.strip()
        url = origin.url("beside", rate_bps=3 * MIB)
        job = daemon.submit(url, "-o", os.path.join(alice.home, "beside"), account=alice)
        daemon.wait_state(job, "TRANSFERRING")
        ballast = fill(state)
        refusals = [daemon.bits("create", f"refused {number}", account=alice) for number in range(3)]
        # The log of the store may still have room for a call or two.
        assert refusals[-1].returncode != 0
        assert "ERROR_DISK_FULL (0x80070070)" in refusals[-1].stderr
        created = [result.stdout.strip() for result in refusals if result.returncode == 0]
        assert daemon.bits("suspend", job, account=alice).returncode != 0
        assert daemon.show(kept)["state"] == "SUSPENDED"
        os.unlink(ballast)
        daemon.wait_state(job, "TRANSFERRED")
        daemon.bits("complete", job, account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, "beside")) == wanted
        assert {entry["id"] for entry in daemon.history()} == {kept, job, *created}
        daemon.bits("create", "again", account=alice, check=True)


def test_a_kill_while_the_state_disk_is_full_loses_nothing(origin: Nginx, alice: TestAccount, state: str) -> None:
    """M8: what was acknowledged is there after the crash, also when the next start finds the disk still full."""
    wanted = origin.add("survivor", 4 * MIB)
    with running_daemon("system", config=CONFIG, state_dir=state) as daemon:
        url = origin.url("survivor", rate_bps=2 * MIB)
        job = daemon.submit(url, "-o", os.path.join(alice.home, "survivor"), account=alice)
        daemon.wait_state(job, "TRANSFERRING")
        ballast = fill(state)
        daemon.bits("suspend", job, account=alice)
        daemon.kill()
        daemon.start()
        assert [entry["id"] for entry in daemon.history()] == [job]
        os.unlink(ballast)
        daemon.bits("resume", job, account=alice, check=True)
        daemon.wait_state(job, "TRANSFERRED")
        daemon.bits("complete", job, account=alice, check=True)
        assert sha256_of(os.path.join(alice.home, "survivor")) == wanted
