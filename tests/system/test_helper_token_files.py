"""Helper tokens at work, with real accounts (I7, I18, T1-T4; architecture, section 2 and section 4, rule 6).

Root's job, alice's files or alice's network. What is said of processes is what /proc says, what is said of bytes is
what the server was asked for and what stands in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from openbits import BitsError
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, Process, is_alive, running_daemon, wait_until
from support.helping import LOCAL_FILE, NETWORK, Helped, dynamic, helped_job, open_files, tcp_sockets, worker_of
from support.mounts import fill, small_disk
from support.origin import Origin, generate, last_modified

pytestmark = needs_root

SIZE = 6_000_000
RATE_BPS = 2_000_000
CONFIG = """
[logon]
provider = "always"

[worker]
checkpoint_bytes = 1_048_576
checkpoint_s = 0.2
idle_s = 1

[timeouts]
disk_full_retry_s = 1
"""
_EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon(config=CONFIG) as running:
        yield running


@pytest.fixture
def roots() -> Iterator[str]:
    """A directory of root's that nobody else may look into."""
    with tempfile.TemporaryDirectory(prefix="obt-roots-") as path:
        os.chmod(path, 0o700)
        yield path


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory in which everybody may make files."""
    with tempfile.TemporaryDirectory(prefix="obt-shared-") as path:
        os.chmod(path, 0o777)
        yield path


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A file of one's own for each test."""
    return 100 + request.session.items.index(request.node)


def url_of(origin: Origin, seed: int, *, size: int = SIZE, rate: int = RATE_BPS) -> str:
    return origin.url(f"/gen/{size}/{seed}?rate={rate}")


def asked(origin: Origin, seed: int, size: int = SIZE) -> list[str | None]:
    """Which ranges the server was asked for."""
    return [request.range for request in origin.requests_of(f"/gen/{size}/{seed}")]


def check(path: str, seed: int, uid: int, *, size: int = SIZE, mode: int = 0o644) -> None:
    with open(path, "rb") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(generate(size, seed)).digest()
    found = os.stat(path)
    assert (found.st_uid, found.st_mode & 0o7777) == (uid, mode)
    assert found.st_mtime == _EPOCH + seed, f"the server says {last_modified(seed)}"


def wait_moving(daemon: Daemon, helped: Helped) -> None:
    """Wait until something of the job is durable."""
    daemon.wait_state(helped.job.id, "TRANSFERRING")
    wait_until(lambda: daemon.stored_files(helped.job.id)[0].durable_bytes > 0, "a checkpoint")


def finish(daemon: Daemon, helped: Helped) -> None:
    daemon.wait_state(helped.job.id, "TRANSFERRED")
    helped.complete()


def is_pure(worker: Process, account: TestAccount | None) -> bool:
    """Whether a worker is one account, through and through, and nothing else."""
    uid, gid, groups = (account.uid, account.gid, account.groups) if account is not None else (0, 0, None)
    return (
        set(worker.uids) == {uid}
        and set(worker.gids) == {gid}
        and (groups is None or worker.groups == groups)
        and worker.status["CapEff"] == worker.status["CapPrm"] == "0" * 16
    )


def can_open(worker: Process, path: str) -> bool:
    """Whether a process with exactly the worker's rights can open a file."""
    rights = [f"--reuid={worker.uids[0]}", f"--regid={worker.gids[0]}", "--inh-caps=-all", "--bounding-set=-all"]
    groups = ",".join(map(str, worker.groups))
    rights.append(f"--groups={groups}" if groups else "--clear-groups")
    script = f"open({path!r}, 'rb')"
    python = "/usr/bin/python3"
    command = ["setpriv", *rights, python, "-c", script]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def private_file(directory: str, uid: int) -> str:
    path = os.path.join(directory, "private")
    with open(path, "w", encoding="ascii") as file:
        file.write("mine")
    os.chown(path, uid, uid)
    os.chmod(path, 0o600)
    return path


# --- who does what ---------------------------------------------------------------------------------------------


def test_t3_files_as_the_helper_and_network_as_the_owner_in_two_processes(
    daemon: Daemon, origin: Origin, alice: TestAccount, roots: str, seed: int
) -> None:
    path = os.path.join(alice.home, "report")
    hers, mine = private_file(alice.home, alice.uid), private_file(roots, 0)
    with helped_job(daemon) as helped:
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            helped.add(url_of(origin, seed), path)  # root's worker has none of root's powers
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), path)
        helped.resume()
        wait_moving(daemon, helped)
        network, temporary = worker_of(daemon, 0), daemon.show(helped.job.id)["files"][0]["temporary_name"]
        openers = [worker for worker in daemon.workers() if worker.uids[0] == alice.uid]
        assert is_pure(network, None)
        assert tcp_sockets(network) == 1
        assert open_files(network).count(temporary) == 1
        assert not can_open(network, hers)
        for opener in openers:
            assert is_pure(opener, alice)
            assert tcp_sockets(opener) == 0
            assert temporary not in open_files(opener)
            assert not can_open(opener, mine)
        assert temporary not in open_files(daemon.process_named("bitsd-service"))
        assert os.stat(temporary).st_uid == alice.uid
        finish(daemon, helped)
    check(path, seed, alice.uid)
    assert asked(origin, seed) == [None]


def test_t3_network_as_the_helper_and_files_as_the_owner(
    daemon: Daemon, origin: Origin, alice: TestAccount, roots: str, seed: int
) -> None:
    path = os.path.join(roots, "report")
    with helped_job(daemon) as helped:
        helped.add(url_of(origin, seed), path)
        helped.help_by(alice, NETWORK)
        helped.resume()
        wait_moving(daemon, helped)
        network = worker_of(daemon, alice.uid)
        assert is_pure(network, alice)
        assert tcp_sockets(network) == 1
        assert not can_open(network, private_file(roots, 0))
        assert all(
            is_pure(worker, None) and not tcp_sockets(worker)
            for worker in daemon.workers()
            if worker.pid != network.pid
        )
        finish(daemon, helped)
    check(path, seed, 0)


def test_t3_both_flags_are_one_process_of_the_helpers(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "both")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE | NETWORK)
        helped.add(url_of(origin, seed), path)
        wait_until(lambda: not daemon.workers(), "idle workers to leave")
        helped.resume()
        wait_moving(daemon, helped)
        assert is_pure(worker_of(daemon, alice.uid), alice)
        assert len(daemon.workers()) == 1
        finish(daemon, helped)
    check(path, seed, alice.uid)


def test_t3_a_file_source_is_opened_by_the_network_side(
    daemon: Daemon, alice: TestAccount, roots: str, shared: str
) -> None:
    """What is remote belongs to who speaks to the network: root's file, alice's copy; and never the other way round."""
    source = private_file(roots, 0)
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(f"file://{source}", os.path.join(alice.home, "copy"))
        helped.resume()
        finish(daemon, helped)
    with open(os.path.join(alice.home, "copy"), encoding="ascii") as file:
        assert file.read() == "mine"
    with helped_job(daemon) as helped:
        helped.help_by(alice, NETWORK)
        helped.add(f"file://{source}", os.path.join(shared, "copy"))
        helped.resume()
        error = daemon.wait_state(helped.job.id, "ERROR")["error"]
        assert (error["code"], error["context"], error["file"]) == ("E_ACCESSDENIED", "REMOTE_FILE", 0)


def test_d8_umask_and_default_access_list_are_those_of_the_files_side(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    directory = os.path.join(alice.home, "team")
    os.mkdir(directory, 0o700)
    os.chown(directory, alice.uid, alice.gid)
    with helped_job(daemon, umask=0o027) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, size=1000, rate=0), os.path.join(directory, "plain"))
        helped.resume()
        finish(daemon, helped)
    check(os.path.join(directory, "plain"), seed, alice.uid, size=1000, mode=0o640)
    subprocess.run(["setfacl", "-d", "-m", "u:daemon:r,g::-,o::-,m::r,u::rw", directory], check=True, timeout=20)
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, size=1000, rate=0), os.path.join(directory, "listed"))
        helped.resume()
        finish(daemon, helped)
    listed = subprocess.run(
        ["getfacl", "-cpE", os.path.join(directory, "listed")], check=True, capture_output=True, text=True, timeout=20
    ).stdout
    assert "user:daemon:r--" in listed
    assert "other::---" in listed


# --- everything that a transfer does, through handles ----------------------------------------------------------


def test_d3_a_suspended_transfer_goes_on_from_the_same_byte(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "resumed")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), path)
        helped.resume()
        wait_moving(daemon, helped)
        helped.suspend()
        wait_until(lambda: not any(map(tcp_sockets, daemon.workers())), "the connection to end")
        durable = daemon.wait_state(helped.job.id, "SUSPENDED")["bytes_transferred"]
        assert 0 < durable < SIZE
        helped.resume()
        finish(daemon, helped)
    check(path, seed, alice.uid)
    assert asked(origin, seed) == [None, f"bytes={durable}-"]


def test_d3_a_file_that_changes_begins_again(daemon: Daemon, origin: Origin, alice: TestAccount, seed: int) -> None:
    """Cut in the middle, and another version when it is taken up again."""
    path = os.path.join(alice.home, "changed")
    url = origin.url(f"/gen/{SIZE}/{seed}?cut=3000000&times=1&change_after=1")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url, path)
        helped.resume()
        finish(daemon, helped)
    check(path, seed + 1, alice.uid)


def test_a_checksum_is_verified_by_who_cannot_open_the_file(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    right = hashlib.sha256(generate(SIZE, seed)).hexdigest()
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        for name, value in (("right", right), ("wrong", "0" * 64)):
            helped.job.add_file(
                url_of(origin, seed, rate=0), os.path.join(alice.home, name), checksum=f"sha256:{value}"
            )
        helped.resume()
        error = daemon.wait_state(helped.job.id, "ERROR")["error"]
        assert (error["code"], error["file"]) == ("ERROR_CRC", 1)
        helped.suspend()
        helped.complete()
    check(os.path.join(alice.home, "right"), seed, alice.uid)


def test_j41_ranges(daemon: Daemon, origin: Origin, alice: TestAccount, seed: int) -> None:
    path = os.path.join(alice.home, "ranges")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        pieces = [(100, 50_000), (3_000_000, 70_000)]
        helped.job.add_file_with_ranges(url_of(origin, seed, rate=0), path, pieces)
        helped.resume()
        finish(daemon, helped)
    whole = generate(SIZE, seed)
    with open(path, "rb") as file:
        assert file.read() == whole[100:50_100] + whole[3_000_000:3_070_000]


def test_j63_a_job_of_high_performance_writes_the_helpers_file_under_its_name(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "straight")
    with helped_job(daemon, high_performance=True) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, rate=0), path)
        helped.resume()
        finish(daemon, helped)
    check(path, seed, alice.uid)


def test_300_small_files_and_no_descriptor_is_left(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    with helped_job(daemon, file_concurrency=4) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, size=50_000_000), os.path.join(alice.home, "zz"))  # keeps the workers busy
        service = daemon.process_named("bitsd-service")
        before = len(open_files(service))
        with helped_job(daemon, file_concurrency=4) as many:
            many.help_by(alice, LOCAL_FILE)
            for index in range(300):
                many.add(url_of(origin, seed, size=10_000 + index, rate=0), os.path.join(alice.home, f"s{index}"))
            helped.resume()
            wait_moving(daemon, helped)
            network = worker_of(daemon, 0)
            at_first = len(open_files(network))
            many.resume()
            daemon.wait_state(many.job.id, "TRANSFERRED")
            # The worker keeps a connection for a while, and a few threads' pipes.
            assert len(open_files(network)) <= at_first + 12
            assert not [name for name in open_files(network) if "/s" in name]
            opener = worker_of(daemon, alice.uid)
            assert not [name for name in open_files(opener) if name.startswith(alice.home + "/")]
            many.complete()
        assert len(open_files(service)) <= before + 6
    for index in range(300):
        check(os.path.join(alice.home, f"s{index}"), seed, alice.uid, size=10_000 + index)


# --- failures --------------------------------------------------------------------------------------------------


def test_errors_of_the_opener_reach_the_job_as_those_of_its_own_worker(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    gone = os.path.join(alice.home, "gone")
    os.mkdir(gone, 0o700)
    os.chown(gone, alice.uid, alice.gid)
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, size=1000, rate=0), os.path.join(alice.home, "there"))
        helped.add(url_of(origin, seed, size=1000, rate=0), os.path.join(gone, "not-there"))
        os.chmod(gone, 0o500)
        helped.resume()
        shown = daemon.wait_state(helped.job.id, "ERROR")
        error = shown["error"]
        assert (error["code"], error["context"], error["file"]) == ("E_ACCESSDENIED", "LOCAL_FILE", 1)
        assert shown["files_transferred"] == 1
        os.rmdir(gone)
        helped.resume()
        error = daemon.wait_job(helped.job.id, lambda seen: seen["error_count"] == 2)["error"]
        assert (error["code"], error["context"], error["file"]) == ("ERROR_PATH_NOT_FOUND", "LOCAL_FILE", 1)
        os.mkdir(gone)
        os.chown(gone, alice.uid, alice.gid)
        helped.resume()
        finish(daemon, helped)


def test_r_a_full_disk_of_the_helpers_is_waited_out(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    with small_disk(os.path.join(alice.home, "disk"), 16_000_000, uid=alice.uid) as disk:
        ballast = fill(disk, leave_bytes=2_000_000)
        with helped_job(daemon) as helped:
            helped.help_by(alice, LOCAL_FILE)
            helped.add(url_of(origin, seed), os.path.join(disk, "file"))
            helped.resume()
            error = daemon.wait_state(helped.job.id, "TRANSIENT_ERROR")["error"]
            assert (error["code"], error["context"]) == ("ERROR_DISK_FULL", "LOCAL_FILE")
            os.unlink(ballast)
            finish(daemon, helped)
        check(os.path.join(disk, "file"), seed, alice.uid)


@pytest.mark.parametrize("whose", ["network", "files"])
def test_a_killed_worker_of_either_side_is_a_broken_run(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int, whose: str
) -> None:
    names = [f"killed-{whose}-{number}" for number in range(3)]
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        for name in names:
            helped.add(url_of(origin, seed), os.path.join(alice.home, name))
        helped.resume()
        wait_moving(daemon, helped)
        victims = [worker for worker in daemon.workers() if (worker.uids[0] == 0) == (whose == "network")]
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, victims)), "them to be gone")
        finish(daemon, helped)
    for name in names:
        check(os.path.join(alice.home, name), seed, alice.uid)


def test_cancel_deletes_the_helpers_files(daemon: Daemon, origin: Origin, alice: TestAccount, seed: int) -> None:
    directory = os.path.join(alice.home, "cancelled")
    os.mkdir(directory)
    os.chown(directory, alice.uid, alice.gid)
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), os.path.join(directory, "file"))
        helped.resume()
        wait_moving(daemon, helped)
        assert len(os.listdir(directory)) == 1
        helped.job.cancel()
        assert os.listdir(directory) == []
        assert daemon.show(helped.job.id)["result"] == "S_OK"


# --- a token that is gone --------------------------------------------------------------------------------------


@contextlib.contextmanager
def after_a_restart(daemon: Daemon, origin: Origin, alice: TestAccount, path: str, seed: int) -> Iterator[Helped]:
    """A transfer that was under way when the service was restarted: its job is in ERROR."""
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), path)
        helped.resume()
        wait_moving(daemon, helped)
        daemon.stop()
        daemon.start()
        shown = daemon.wait_state(helped.job.id, "ERROR")
        error = shown["error"]
        assert (error["code"], error["context"]) == ("BG_E_TOKEN_REQUIRED", "GENERAL_QUEUE_MANAGER")
        assert "the service was restarted" in error["message"]
        assert "set the helper token again" in daemon.why(helped.job.id)["sentence"]
        with pytest.raises(BitsError, match="RPC_E_DISCONNECTED"):
            helped.options.get_helper_token_sid()
        helped.resume()
        daemon.wait_job(helped.job.id, lambda seen: seen["error_count"] == 2 and seen["state"] == "ERROR")
        yield Helped(job=helped.job, options=helped.job.token_options(), owner=None)


def test_i7_a_restart_is_recovered_from_by_the_token_and_resume(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "restarted")
    with after_a_restart(daemon, origin, alice, path, seed) as helped:
        assert helped.options.get_helper_token_flags() == LOCAL_FILE
        assert helped.options.get_helper_token_sid() is None
        dynamic(helped.options)
        helped.help_by(alice)
        assert helped.options.get_helper_token_sid() == f"uid:{alice.uid}"
        durable = daemon.show(helped.job.id)["bytes_transferred"]
        helped.resume()
        finish(daemon, helped)
    check(path, seed, alice.uid)
    assert asked(origin, seed) == [None, f"bytes={durable}-"]


def test_i7_a_restart_is_recovered_from_by_no_flags_and_resume(
    daemon: Daemon, origin: Origin, alice: TestAccount, shared: str, seed: int
) -> None:
    path = os.path.join(shared, "restarted")
    with after_a_restart(daemon, origin, alice, path, seed) as helped:
        helped.options.set_helper_token_flags(0)
        helped.resume()
        finish(daemon, helped)
    check(path, seed, 0)


def test_i7_complete_without_the_token_loses_nothing(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "waiting")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed, rate=0), path)
        helped.resume()
        daemon.wait_state(helped.job.id, "TRANSFERRED")
        helped.options.clear_helper_token()
        with pytest.raises(BitsError, match="BG_E_TOKEN_REQUIRED"):
            helped.complete()
        assert daemon.show(helped.job.id)["state"] == "TRANSFERRED"
        assert not os.path.exists(path)
        helped.help_by(alice)
        helped.complete()
    check(path, seed, alice.uid)


def test_t2_clearing_the_token_of_a_running_job_ends_its_run(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "cleared")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), path)
        helped.resume()
        wait_moving(daemon, helped)
        helped.options.clear_helper_token()
        assert daemon.wait_state(helped.job.id, "ERROR")["error"]["code"] == "BG_E_TOKEN_REQUIRED"
        helped.help_by(alice)
        helped.resume()
        finish(daemon, helped)
    check(path, seed, alice.uid)


def test_t3_other_flags_take_effect_on_a_running_job(
    daemon: Daemon, origin: Origin, alice: TestAccount, seed: int
) -> None:
    path = os.path.join(alice.home, "more-flags")
    with helped_job(daemon) as helped:
        helped.help_by(alice, LOCAL_FILE)
        helped.add(url_of(origin, seed), path)
        helped.resume()
        wait_moving(daemon, helped)
        assert tcp_sockets(worker_of(daemon, 0)) == 1
        helped.options.set_helper_token_flags(LOCAL_FILE | NETWORK)
        wait_until(
            lambda: any(tcp_sockets(worker) for worker in daemon.workers() if worker.uids[0] == alice.uid),
            "alice's worker to connect",
        )
        assert not any(tcp_sockets(worker) for worker in daemon.workers() if worker.uids[0] == 0)
        finish(daemon, helped)
    check(path, seed, alice.uid)


def test_bits_show_names_the_helper_and_its_use(daemon: Daemon, alice: TestAccount) -> None:
    with helped_job(daemon) as helped:
        assert "helper token" not in daemon.bits("show", helped.job.id, check=True).stdout
        helped.help_by(alice, LOCAL_FILE | NETWORK)
        shown = daemon.bits("show", helped.job.id, check=True).stdout
        assert f"{alice.name} (uid {alice.uid}, USER), used for local files and the network" in shown
        helped.options.clear_helper_token()
        assert "missing, used for local files and the network" in daemon.bits("show", helped.job.id, check=True).stdout
        detail = daemon.show(helped.job.id)
        assert (detail["helper_token_flags"], detail["helper_token"]) == (3, None)
