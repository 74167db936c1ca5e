"""In whose name an upload works: helper tokens, log-off and log-on, another owner, paths of sessions (I2, I4, I7, I8).

What is said of processes is what /proc says, and what is said of bytes is what the server was sent.
"""

from __future__ import annotations

import contextlib
import grp
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator

import pytest

from openbits import BitsError, JobState, JobType
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, Process, processes_of, running_daemon, wait_until
from support.fake_logind import FakeLogind, fake_logind, private_bus
from support.helping import LOCAL_FILE, NETWORK, helped_job, open_files, worker_of
from support.upload_server import UploadServer, wait

pytestmark = needs_root

SIZE = 6_000_000
CONTENT = random.Random(3).randbytes(SIZE)


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def carol() -> Iterator[TestAccount]:
    """An administrator."""
    with temporary_account(extra_groups=1) as account:
        yield account


@pytest.fixture(scope="module")
def daemon(carol: TestAccount) -> Iterator[Daemon]:
    [group] = set(carol.groups) - {carol.gid}
    config = f'[accounts]\nadministrators_group = "{grp.getgrgid(group).gr_name}"\n[worker]\nidle_s = 1\n'
    with running_daemon("system", config=config) as running:
        yield running


@pytest.fixture
def server() -> Iterator[UploadServer]:
    with UploadServer() as running:
        yield running


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory in which everybody may make files."""
    path = tempfile.mkdtemp(prefix="obt-shared-")
    os.chmod(path, 0o777)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def source(directory: str, account: TestAccount | None, mode: int = 0o600, content: bytes = CONTENT) -> str:
    path = os.path.join(directory, "source")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(content)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    os.chmod(path, mode)
    return path


def submit(daemon: Daemon, account: TestAccount, path: str, url: str, *more: str) -> str:
    arguments = ("put", "--async", path, url, "--protocol", "bits", *more)
    return daemon.bits(*arguments, account=account, check=True).stdout.strip()


def hold(server: UploadServer, *, skip: int) -> threading.Event:
    """Keep all fragments after the first ones from being answered until the event."""
    event = threading.Event()
    server.on("Fragment", wait(event), skip=skip, times=1000)
    return event


def connections(process: Process, server: UploadServer) -> int:
    """How many connections a process has to the server."""
    with open(f"/proc/{process.pid}/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in list(file)[1:]]
    inodes = {row[9] for row in rows if int(row[2].partition(":")[2], 16) == server.port}
    return len({link for link in open_files(process) if link.startswith("socket:[") and link[8:-1] in inodes})


# --- helper tokens ------------------------------------------------------------------------------------


def test_i7_local_file_the_helper_opens_the_source_and_the_owner_sends_it(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    path = source(alice.home, alice)
    held = hold(server, skip=1)
    with helped_job(daemon, job_type=JobType.UPLOAD, upload_protocol="bits") as helped:
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            helped.add(server.url("/in/x"), path)
        helped.help_by(alice, LOCAL_FILE)
        helped.add(server.url("/in/x"), path)
        helped.resume()
        server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
        roots, alices = worker_of(daemon, 0), worker_of(daemon, alice.uid)
        assert (connections(roots, server), connections(alices, server)) == (1, 0)
        assert path in open_files(roots)
        held.set()
        assert helped.job.wait(timeout=30) is JobState.TRANSFERRED
        helped.complete()
    assert server.files == {"/in/x": CONTENT}
    assert "/in/x" not in os.listdir(alice.home)


def test_i7_network_the_owner_opens_the_source_and_the_helper_sends_it(
    daemon: Daemon, alice: TestAccount, server: UploadServer, shared: str
) -> None:
    path = source(shared, None)
    held = hold(server, skip=1)
    with helped_job(daemon, job_type=JobType.UPLOAD, upload_protocol="bits") as helped:
        helped.add(server.url("/in/x"), path)
        helped.help_by(alice, NETWORK)
        helped.resume()
        server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
        roots, alices = worker_of(daemon, 0), worker_of(daemon, alice.uid)
        assert (connections(roots, server), connections(alices, server)) == (0, 1)
        assert path in open_files(alices)
        held.set()
        assert helped.job.wait(timeout=30) is JobState.TRANSFERRED
        helped.complete()
    assert server.files == {"/in/x": CONTENT}


def test_t3_the_reply_is_the_file_accounts(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    server.reply_url = "/replies/1"
    server.content["/replies/1"] = b"receipt"
    path = source(alice.home, alice, content=b"order")
    reply = os.path.join(alice.home, "receipt")
    with helped_job(daemon, job_type=JobType.UPLOAD_REPLY) as helped:
        with pytest.raises(BitsError, match="E_ACCESSDENIED"):
            helped.job.set_reply_file_name(reply)
        helped.help_by(alice, LOCAL_FILE)
        helped.add(server.url("/in/x"), path)
        helped.job.set_reply_file_name(reply)
        helped.resume()
        assert helped.job.wait(timeout=30) is JobState.TRANSFERRED
        assert helped.job.get_reply_data() == b"receipt"
        helped.complete()
    assert os.stat(reply).st_uid == alice.uid
    with open(reply, "rb") as file:
        assert file.read() == b"receipt"
    os.unlink(reply)


# --- log-off and log-on -------------------------------------------------------------------------------


@contextlib.contextmanager
def logged_on(alice: TestAccount) -> Iterator[tuple[Daemon, FakeLogind]]:
    """A daemon on a machine where the test says who is logged on; alice is."""
    with private_bus() as bus, fake_logind(bus) as logind:
        logind.log_on(alice.uid)
        environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        config = '[logon]\nprovider = "logind"\n[worker]\nidle_s = 1\n'
        with running_daemon("system", config=config, environment=environment) as daemon:
            yield daemon, logind


def test_i2_an_upload_stops_at_log_off_and_goes_on_at_log_on(alice: TestAccount, server: UploadServer) -> None:
    held = hold(server, skip=1)
    path = source(alice.home, alice)
    with logged_on(alice) as (daemon, logind):
        job = submit(daemon, alice, path, server.url("/in/x"))
        server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
        offset = server.of_kind("Fragment")[1].range[0]
        logind.log_off(alice.uid)
        wait_until(lambda: not processes_of(alice.uid), "the account's processes to end")
        assert daemon.show(job)["state"] == "QUEUED"
        assert "logged off" in daemon.why(job)["sentence"]
        logind.log_on(alice.uid)
        server.wait_for(lambda: len(server.of_kind("Fragment")) > 2)
        assert server.of_kind("Fragment")[2].range[0] == offset
        held.set()
        daemon.wait_state(job, "TRANSFERRED")
    assert server.files == {"/in/x": CONTENT}
    assert server.kinds().count("Create-Session") == 1


def test_i2_nobody_speaks_for_somebody_who_is_logged_off_not_even_to_say_goodbye(
    alice: TestAccount, server: UploadServer
) -> None:
    """J6: the server of a cancelled upload is told at the next log-on."""
    held = hold(server, skip=1)
    path = source(alice.home, alice)
    with logged_on(alice) as (daemon, logind):
        job = submit(daemon, alice, path, server.url("/in/x"))
        server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
        logind.log_off(alice.uid)
        wait_until(lambda: not processes_of(alice.uid), "the account's processes to end")
        held.set()
        daemon.bits("cancel", job, check=True)
        assert "has not been told yet" in daemon.why(job)["sentence"]
        assert server.of_kind("Cancel-Session") == []
        logind.log_on(alice.uid)
        server.wait_for(lambda: bool(server.of_kind("Cancel-Session")))
        wait_until(lambda: "told" not in daemon.why(job)["sentence"], "the farewell to be written down")
    assert server.sessions == {}


# --- another owner --------------------------------------------------------------------------------------


def test_i8_a_new_owner_goes_on_in_the_session_with_a_source_that_he_can_read(
    daemon: Daemon, alice: TestAccount, carol: TestAccount, server: UploadServer, shared: str
) -> None:
    held = hold(server, skip=1)
    path = source(shared, alice, 0o600)
    job = submit(daemon, alice, path, server.url("/in/x"), "--header", "X-Secret: alice's")
    server.wait_for(lambda: len(server.of_kind("Fragment")) > 1)
    refused = daemon.bits("take-ownership", job, account=carol)
    assert "BG_E_NEW_OWNER_NO_FILE_ACCESS" in refused.stderr
    assert path in refused.stderr
    assert daemon.show(job)["owner"]["uid"] == alice.uid
    os.chmod(path, 0o644)
    daemon.bits("take-ownership", job, account=carol, check=True)
    held.set()
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=carol, check=True)
    assert server.files == {"/in/x": CONTENT}
    assert server.kinds().count("Create-Session") == 1
    assert "x-secret" in server.of_kind("Fragment")[0].headers
    assert "x-secret" not in server.packets[-1].headers, "what alice gave the job stays hers"
    assert os.listdir(shared) == ["source"], "nothing of the source is copied"


def test_i8_the_reply_passes_to_the_new_owner(
    daemon: Daemon, alice: TestAccount, carol: TestAccount, server: UploadServer, shared: str
) -> None:
    server.reply_url = "/replies/1"
    server.content["/replies/1"] = b"receipt"
    path = source(shared, alice, 0o600, content=b"order")
    reply = os.path.join(shared, "receipt")
    job = submit(daemon, alice, path, server.url("/in/x"), "--reply", reply)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("take-ownership", job, account=carol, check=True)
    assert daemon.bits("reply", job, account=carol, check=True).stdout == "receipt"
    daemon.bits("complete", job, account=carol, check=True)
    assert os.stat(reply).st_uid == carol.uid
    assert sorted(os.listdir(shared)) == ["receipt", "source"], "the former owner's temporary file is gone"


# --- paths ----------------------------------------------------------------------------------------------


def test_i4_a_service_may_not_upload_from_a_login_session(
    daemon: Daemon, alice: TestAccount, server: UploadServer
) -> None:
    """Rule 4: as for downloads, when the file is added, with an error that names the mount."""
    runtime = f"/run/user/{alice.uid}"
    os.makedirs(runtime, exist_ok=True)
    try:
        path = source(runtime, None)
        done = daemon.bits("put", path, server.url("/in/x"))
        assert done.stderr.startswith("bits: E_INVALIDARG")
        assert runtime in done.stderr
    finally:
        shutil.rmtree(runtime)
    assert server.packets == []


def test_a2_nobody_else_sees_an_upload_or_its_reply(daemon: Daemon, alice: TestAccount, server: UploadServer) -> None:
    server.reply_url = "/replies/1"
    server.content["/replies/1"] = b"receipt"
    path = source(alice.home, alice, content=b"order")
    job = submit(daemon, alice, path, server.url("/in/x"), "--reply", os.path.join(alice.home, "r"))
    daemon.wait_state(job, "TRANSFERRED")
    with temporary_account() as mallory:
        assert daemon.bits("reply", job, account=mallory).returncode == 4
        assert daemon.bits("set", job, "reply_file_name=/tmp/r", account=mallory).returncode == 4
    assert daemon.bits("reply", job, check=True).stdout == "receipt", "root is an administrator"
    daemon.bits("cancel", job, account=alice, check=True)
    assert os.listdir(alice.home) == ["source"]
